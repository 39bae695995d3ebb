package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
	"github.com/hoopctl/hoopctl/server/session"
)

// memory is a Journal for tests.
type memory struct {
	mu    sync.Mutex
	roles map[string]Role
	ever  int
	fail  error
}

func (m *memory) RoleMade(_ context.Context, r Role) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.roles == nil {
		m.roles = map[string]Role{}
	}
	m.roles[r.Name] = r
	m.ever++
	return nil
}

func (m *memory) RoleGone(_ context.Context, r Role) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.roles, r.Name)
	return nil
}

func (m *memory) left() []Role {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.roles))
}

// ephemeralHouse has a target whose account may make roles and little else.
func ephemeralHouse(t *testing.T) (*house, *memory, string) {
	t.Helper()
	server := pgtest.Start(t)
	db := server.Database(t)
	app, maker := "app_"+db, "maker_"+db
	server.Exec(t, "postgres", fmt.Sprintf("CREATE ROLE %s; CREATE ROLE %s LOGIN NOSUPERUSER CREATEROLE PASSWORD 'm'; GRANT %s TO %s WITH ADMIN OPTION", app, maker, app, maker))
	server.Exec(t, db, fmt.Sprintf("CREATE TABLE things (a int); GRANT ALL ON things TO %s; GRANT CREATE ON SCHEMA public TO PUBLIC", app))
	t.Cleanup(func() { // when the house has ended, and its sessions with it
		server.Exec(t, db, fmt.Sprintf("REASSIGN OWNED BY %s TO postgres; DROP OWNED BY %[1]s; DROP ROLE %s, %[1]s", app, maker))
	})
	h, journal := newHouse(t, nil), &memory{}
	h.room.config.Roles = journal
	h.target.info.Database = db
	h.target.login = func(bool) (session.Credentials, error) {
		return session.Credentials{Username: maker, Password: "m", Roles: []string{app}}, nil
	}
	return h, journal, app
}

func (h *house) rolesOnTarget() string {
	rows := h.target.server.Exec(h.t, "postgres", "SELECT coalesce(string_agg(rolname, ','), '') FROM pg_roles WHERE rolname LIKE 'hoopctl\\_%'")
	return rows[0][0]
}

func TestEphemeralRole(t *testing.T) {
	h, journal, app := ephemeralHouse(t)
	w := h.wire()
	if len(journal.left()) != 1 {
		t.Fatalf("journal %v", journal.left())
	}
	role := journal.left()[0].Name
	if !strings.HasPrefix(role, "hoopctl_s1_") {
		t.Errorf("role %s does not say whose it is", role)
	}
	who := func() {
		t.Helper()
		w.send(query("SELECT session_user, current_user"))
		w.expect("Z", "T", "D:"+role+","+app, "C:SELECT 1", "ZI")
	}
	who()
	// what poolers send between clients leaves the session its rights
	for _, sql := range []string{"DISCARD ALL", "RESET ALL", "RESET ROLE", "SET SESSION AUTHORIZATION DEFAULT"} {
		w.send(query(sql))
		w.until("Z")
		who()
	}
	attributes := h.target.server.Exec(t, "postgres", "SELECT rolinherit, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil < now() + '5 min' FROM pg_roles WHERE rolname = '"+role+"'")
	if fmt.Sprint(attributes) != "[[f f f f f f 1 t]]" {
		t.Errorf("the role is %v", attributes)
	}
	w.send(query("INSERT INTO things VALUES (1)"))
	w.expect("Z", "C:INSERT 0 1", "ZI")
	// what the session makes as its default role is that role's, and what it
	// makes as itself goes to the same owner: nothing is dropped
	for _, sql := range []string{"CREATE TABLE made_as_app AS SELECT 1 a", "SET ROLE NONE", "CREATE TABLE made_as_itself AS SELECT 2 a", "CREATE TEMP TABLE scratch (a int)"} {
		w.send(query(sql))
		w.until("Z")
	}
	w.send(&pgproto3.Terminate{})
	w.closed()
	<-h.ended
	if got := h.rolesOnTarget(); got != "" || len(journal.left()) != 0 {
		t.Errorf("left on the target %q, in the journal %v", got, journal.left())
	}
	owners := h.target.server.Exec(t, h.target.info.Database, "SELECT tablename, tableowner FROM pg_tables WHERE tablename LIKE 'made%' ORDER BY 1")
	if fmt.Sprint(owners) != fmt.Sprintf("[[made_as_app %s] [made_as_itself %s]]", app, app) {
		t.Errorf("owners %v", owners)
	}
	// the password was never said: the target's log holds a verifier
	log := h.target.server.Log(t)
	if !strings.Contains(log, "CREATE ROLE \""+role) || !strings.Contains(log, "PASSWORD 'SCRAM-SHA-256$4096:") {
		t.Error("the role was not made with a verifier")
	}
}

func TestEphemeralRoleOfARevokedSession(t *testing.T) {
	h, journal, _ := ephemeralHouse(t)
	w := h.wire()
	w.send(query("SELECT pg_sleep(60), 'ephemeral1'"))
	h.running("ephemeral1")
	h.end(&session.Refusal{Code: session.CodeRevoked, Message: "grant g-1 was revoked by dave"})
	if got := w.closed(); len(got) == 0 || got[len(got)-1] != "E57P01" {
		t.Errorf("the client was told %q", got)
	}
	<-h.ended
	if got := h.rolesOnTarget(); got != "" || len(journal.left()) != 0 {
		t.Errorf("left on the target %q, in the journal %v", got, journal.left())
	}
}

// What a crash leaves is dropped later, whatever still runs as it.
func TestDropRoleAfterACrash(t *testing.T) {
	h, journal, app := ephemeralHouse(t)
	w := h.wire()
	left := journal.left()[0]
	w.send(query("SELECT pg_sleep(60), 'ephemeral2'"))
	h.running("ephemeral2")
	found, err := h.room.DropRole(t.Context(), h.target, left)
	if err != nil || !found {
		t.Errorf("found %v, %v", found, err)
	}
	w.closed()
	<-h.ended
	if got := h.rolesOnTarget(); got != "" || len(journal.left()) != 0 {
		t.Errorf("left on the target %q, in the journal %v", got, journal.left())
	}
	// again, as after a crash between the drop and the note of it
	if found, err := h.room.DropRole(t.Context(), h.target, left); found || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
	// rights that somebody gave it by name are not ours to take: it stays, is
	// remembered, and lets nobody in
	h.wire()
	role := journal.left()[0]
	h.target.server.Exec(t, h.target.info.Database, "GRANT SELECT ON things TO "+role.Name)
	_, err = h.room.DropRole(t.Context(), h.target, role)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "2BP01" || len(journal.left()) != 1 {
		t.Errorf("%v, journal %v", err, journal.left())
	}
	h.target.server.Exec(t, h.target.info.Database, "REVOKE ALL ON things FROM "+role.Name)
	if _, err := h.room.DropRole(t.Context(), h.target, role); err != nil || h.rolesOnTarget() != "" {
		t.Errorf("%v, left %q", err, h.rolesOnTarget())
	}
	_ = app
}

func TestEphemeralRoleIsNotMade(t *testing.T) {
	refused := func(t *testing.T, h *house) *pgconn.PgError {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := pgconn.Connect(ctx, h.url())
		<-h.ended
		return pgErrorOf(t, err)
	}
	t.Run("without a journal", func(t *testing.T) {
		h, _, _ := ephemeralHouse(t)
		h.room.config.Roles = nil
		if pg := refused(t, h); pg.Code != "57P03" || h.rolesOnTarget() != "" {
			t.Errorf("%+v", pg)
		}
	})
	t.Run("when the journal fails", func(t *testing.T) {
		h, journal, _ := ephemeralHouse(t)
		journal.fail = errors.New("disk full")
		if pg := refused(t, h); pg.Code != "57P03" || h.rolesOnTarget() != "" {
			t.Errorf("%+v", pg)
		}
	})
	t.Run("when the account may not", func(t *testing.T) {
		h, journal, app := ephemeralHouse(t)
		h.target.server.Exec(t, "postgres", "ALTER ROLE "+strings.Replace(app, "app_", "maker_", 1)+" NOCREATEROLE")
		if pg := refused(t, h); pg.Code != "57P03" || strings.Contains(pg.Message, "PASSWORD") || len(journal.left()) != 0 || journal.ever != 1 {
			t.Errorf("%+v, journal %v", pg, journal.left())
		}
	})
	t.Run("of a role that is not there", func(t *testing.T) {
		h, journal, app := ephemeralHouse(t)
		login := h.target.login
		h.target.login = func(again bool) (session.Credentials, error) {
			c, err := login(again)
			c.Roles = []string{app, `no"such; DROP TABLE things`}
			return c, err
		}
		if pg := refused(t, h); pg.Code != "57P03" || len(journal.left()) != 0 {
			t.Errorf("%+v, journal %v", pg, journal.left())
		}
		h.target.server.Exec(t, h.target.info.Database, "SELECT * FROM things")
	})
}

// TestRowLevelSecurityOfTheTarget: the target's own policies know who stands
// behind the one account that everybody shares, and nobody can say otherwise.
func TestRowLevelSecurityOfTheTarget(t *testing.T) {
	server := pgtest.Start(t)
	db := server.Database(t,
		"CREATE TABLE notes (owner text, team text, body text); ALTER TABLE notes ENABLE ROW LEVEL SECURITY; ALTER TABLE notes FORCE ROW LEVEL SECURITY",
		`CREATE POLICY mine ON notes USING (owner = current_setting('hoopctl.principal') OR team = ANY (string_to_array(current_setting('hoopctl.groups'), ',')))`,
		"INSERT INTO notes VALUES ('alice', 'none', 'alice''s'), ('dave', 'none', 'dave''s'), ('dave', 'engineers', 'the team''s'), ('dave', 'dba', 'the dba''s')")
	app := "rls_" + db
	server.Exec(t, db, "CREATE ROLE "+app+" LOGIN PASSWORD 'r'; GRANT SELECT ON notes TO "+app)
	t.Cleanup(func() { server.Exec(t, db, "DROP OWNED BY "+app+"; DROP ROLE "+app) })
	h := newHouse(t, nil)
	h.target.info.Database = db
	h.target.login = func(bool) (session.Credentials, error) {
		return session.Credentials{Username: app, Password: "r"}, nil
	}
	w := h.wire()
	seen := func() {
		t.Helper()
		w.send(query("SELECT body FROM notes ORDER BY 1"))
		w.expect("Z", "T", "D:alice's", "D:the team's", "C:SELECT 2", "ZI")
	}
	seen()
	for _, sql := range []string{
		"SET hoopctl.principal = 'dave'", "SET SESSION hoopctl.groups = 'dba'", "RESET hoopctl.principal", `SET "HOOPCTL".Principal = 'dave'`,
		"SELECT set_config('hoopctl.principal', 'dave', false)", "SELECT pg_catalog.set_config('HoopCtl.Principal', 'dave', false)",
		"SELECT set_config('hoopctl.principal', (SELECT 'dave'), false)", "SELECT set_config('hoopctl.' || 'principal', 'dave', false)",
		"SELECT set_config('hoopctl.principal', 'dave', false), set_config('work_mem', '1MB', false)",
		"SELECT set_config('work_mem', '1MB', false), set_config('hoopctl.principal', 'dave', false)",
		"SELECT set_config(n, 'dave', false) FROM (VALUES ('hoopctl.principal')) v(n)",
		"SELECT set_config(name, 'dave', false) FROM pg_settings WHERE name = 'hoopctl.principal'",
		"SELECT set_config(name, 'dave', false) FROM (VALUES ('hoopctl.principal')) pg_settings(name)",
		"SELECT set_config(v.name, 'dave', false) FROM (VALUES ('hoopctl.principal')) v(name), pg_settings p WHERE p.name = 'work_mem'",
		"SELECT set_config(v.name, 'dave', false) FROM (VALUES ('hoopctl.principal')) v(name) JOIN pg_settings p ON true WHERE p.name = 'work_mem' OR p.name = 'jit'",
		"SELECT set_config(name, 'dave', false) FROM (SELECT 'hoopctl.principal' AS name UNION SELECT name FROM pg_settings WHERE name = 'work_mem') s WHERE name <> 'work_mem'",
		"WITH pg_settings(name) AS (VALUES ('hoopctl.principal')) SELECT set_config(name, 'dave', false) FROM pg_settings WHERE name = 'work_mem' OR name LIKE 'h%'",
		"SELECT (SELECT set_config(name, 'dave', false) FROM (VALUES ('hoopctl.principal')) v(name)) FROM pg_settings WHERE name = 'work_mem'",
		"SELECT 1 FROM pg_settings WHERE name = 'work_mem' UNION ALL SELECT length(set_config(name, 'dave', false)) FROM (VALUES ('hoopctl.principal')) v(name)",
		"WITH x AS (SELECT set_config('hoopctl.principal', 'dave', false)) SELECT * FROM x",
		"PREPARE p AS SELECT set_config('hoopctl.principal', $1, false)", "PREPARE p2 AS SELECT set_config($1, 'dave', false)",
		"EXPLAIN ANALYZE SELECT set_config('hoopctl.principal', 'dave', false)",
		"UPDATE pg_settings SET setting = 'dave' WHERE name = 'hoopctl.principal'", "UPDATE pg_catalog.pg_settings SET setting = 'dave'",
	} {
		w.send(query(sql))
		w.expect("Z", "E42501", "ZI")
	}
	w.send(parse("", "SELECT set_config($1, $2, false)"), bind("", "", "hoopctl.principal", "dave"), execute("", 0), syncMessage)
	w.expect("Z", "E42501", "ZI")
	w.send(query("SELECT set_config('work_mem', '5MB', false)"))
	w.expect("Z", "T", "D:5MB", "C:SELECT 1", "ZI")
	w.send(query("DISCARD ALL"))
	w.until("Z")
	seen()
}
