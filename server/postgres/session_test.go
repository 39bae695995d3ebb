package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// cancelOf sends a cancel request and waits until the server closes.
func (h *house) cancel(pid uint32, key []byte) {
	h.t.Helper()
	side, err := net.Dial("tcp", h.addr.String())
	if err != nil {
		h.t.Fatal(err)
	}
	defer side.Close()
	b := appendUint32(appendUint32(appendUint32(nil, uint32(12+len(key))), codeCancel), pid)
	if _, err := side.Write(append(b, key...)); err != nil {
		h.t.Fatal(err)
	}
	side.SetReadDeadline(time.Now().Add(20 * time.Second))
	side.Read(make([]byte, 1))
}

// running blocks until the target runs a statement that holds the marker.
func (h *house) running(marker string) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		rows := h.target.server.Exec(h.t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%"+marker+"%'")
		if rows[0][0] != "0" {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s does not run", marker)
		}
	}
}

func TestT21_CancelReachesTheTargetOverTLSAndIsRecorded(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(query("SELECT pg_sleep(60), 'cancelme1'"))
	h.running("cancelme1")
	var sides, plain atomic.Int64
	h.target.dial = func(ctx context.Context, address string) (net.Conn, error) {
		sides.Add(1)
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		return &tapped{Conn: c, first: func(b []byte) {
			if len(b) < 8 || string(b[4:8]) != "\x04\xd2\x16\x2f" { // SSLRequest
				plain.Add(1)
			}
		}}, err
	}
	h.cancel(w.pid, w.key)
	w.expect("Z", "T", "E57014", "ZI")
	if sides.Load() != 1 || plain.Load() != 0 {
		t.Errorf("%d connections for the cancel, %d of them in plaintext", sides.Load(), plain.Load())
	}
	if _, err := gate.Await(context.Background(), func(e sessiontest.Event) bool { return e.What == "cancelled" && e.Kind == "client" }); err != nil {
		t.Error(err)
	}
	w.send(query("SELECT 1"))
	w.expect("Z", "T", "D:1", "C:SELECT 1", "ZI")
}

// tapped shows what is written first.
type tapped struct {
	net.Conn
	once  sync.Once
	first func([]byte)
}

func (c *tapped) Write(b []byte) (int, error) {
	c.once.Do(func() { c.first(b) })
	return c.Conn.Write(b)
}

func TestT20_LateCancelHitsNobody(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	a, b := h.wire(), h.wire()
	a.send(query("SELECT 1"))
	a.expect("Z", "T", "D:1", "C:SELECT 1", "ZI")
	b.send(query("SELECT pg_sleep(0.5), 'other1'"))
	h.running("other1")
	h.cancel(a.pid, a.key) // its statement has ended
	b.expect("Z", "T", "D:,other1", "C:SELECT 1", "ZI")
	a.send(query("SELECT 2"))
	a.expect("Z", "T", "D:2", "C:SELECT 1", "ZI")
	for _, e := range gate.Events() {
		if e.What == "cancelled" {
			t.Error("a cancel of nothing was recorded as one")
		}
	}
}

func TestT22_ForgedCancel(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	w.send(query("SELECT pg_sleep(1), 'forge1'"))
	h.running("forge1")
	var wg sync.WaitGroup
	for _, try := range []struct {
		pid uint32
		key []byte
	}{{w.pid, []byte{1, 2, 3, 4}}, {w.pid + 1, w.key}, {0, nil}, {w.pid, w.key[:3]}, {w.pid, append(append([]byte{}, w.key...), 0)}, {w.pid, make([]byte, 256)}, {w.pid, make([]byte, 300)}} {
		wg.Go(func() { h.cancel(try.pid, try.key) })
	}
	wg.Wait()
	w.expect("Z", "T", "D:,forge1", "C:SELECT 1", "ZI")
	h.room.keys.mu.Lock()
	defer h.room.keys.mu.Unlock()
	if h.room.keys.forged == 0 {
		t.Error("forged cancels are not counted")
	}
	if c := h.room.keys.byPID[w.pid]; c == nil || c.pid == c.up.pid || string(c.key) == string(c.up.key) {
		t.Error("the client holds the target's own key")
	}
}

func TestT22_CancelOfAnotherLogin(t *testing.T) {
	h := newHouse(t, nil)
	h.owner.Store("login-a")
	w := h.wire()
	w.send(query("SELECT pg_sleep(1), 'owner1'"))
	h.running("owner1")
	other := &house{t: t, room: h.room, secret: h.secret, ended: make(chan error, 10), target: h.target, gates: h.gates}
	other.owner.Store("login-b")
	other.cert = h.cert
	other.ctx, other.end = context.WithCancelCause(context.Background())
	other.listen()
	other.cancel(w.pid, w.key)
	w.expect("Z", "T", "D:,owner1", "C:SELECT 1", "ZI")
}

func TestRevokedSessionIsToldAndStopped(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	w.send(query("SELECT pg_sleep(60), 'revoke1'"))
	h.running("revoke1")
	h.end(&session.Refusal{Code: session.CodeRevoked, Message: "grant g-1 was revoked by dave", Hint: "ask again"})
	got := w.closed()
	if len(got) == 0 || got[len(got)-1] != "E57P01" {
		t.Errorf("the client was told %q", got)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		rows := h.target.server.Exec(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%revoke1%' AND state = 'active' AND pid <> pg_backend_pid()")
		if rows[0][0] == "0" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it still runs on the target")
		}
	}
	var r *session.Refusal
	if err := <-h.ended; !errors.As(err, &r) || r.Code != session.CodeRevoked {
		t.Errorf("Serve returned %v", err)
	}
}

func TestIdleLimits(t *testing.T) {
	h := newHouse(t, nil)
	ends := func(name, want string, idle, inTransaction, longest time.Duration, first ...pgproto3.FrontendMessage) {
		h.target.info.Idle, h.target.info.IdleInTransaction, h.target.info.Max = idle, inTransaction, longest
		w := h.wire()
		if len(first) > 0 {
			w.send(first...)
		}
		if got := w.closed(); fmt.Sprint(got) != want {
			t.Errorf("%s: %q, want %s", name, got, want)
		}
	}
	const soon = 100 * time.Millisecond
	ends("idle", "[E57P05]", soon, 0, 0)
	ends("idle in transaction", "[C:BEGIN ZT E25P03]", 0, soon, 0, query("BEGIN"))
	ends("at its longest", "[E57P01]", 0, 0, soon)
}

// The time for which a session is idle begins when the client is told that we
// are ready, however long what it asked for has taken. No clock is waited for:
// the test says when the client was last heard.
func TestBusyIsNotIdle(t *testing.T) {
	h := newHouse(t, nil)
	h.target.info.Idle = time.Hour
	w := h.wire()
	h.room.keys.mu.Lock()
	c := h.room.keys.byPID[w.pid]
	h.room.keys.mu.Unlock()
	longAgo := time.Now().Add(-2 * time.Hour).UnixNano()

	holder := h.wire()
	holder.send(query("SELECT pg_advisory_lock(4711)"))
	holder.until("Z")
	w.send(query("SELECT pg_advisory_lock(4711), 'busy1'"))
	h.running("busy1")
	c.active.Store(longAgo)
	if next := c.idle(); next != time.Hour {
		t.Errorf("while a statement runs, it is looked at again in %s, want 1h", next)
	}
	holder.send(query("SELECT pg_advisory_unlock(4711)"))
	holder.until("Z")
	if got := w.until("Z"); !slices.Contains(got, "ZI") {
		t.Errorf("the statement was answered %q", got)
	}
	h.settled(c)
	if next := c.idle(); next < 59*time.Minute {
		t.Errorf("after it, it is looked at again in %s, want about 1h", next)
	}
	c.active.Store(longAgo)
	if next := c.idle(); next != 0 {
		t.Errorf("idle for too long, it is looked at again in %s", next)
	}
	if got := w.closed(); fmt.Sprint(got) != "[E57P05]" {
		t.Errorf("idle for too long, the client was told %q", got)
	}
}

// settled waits until the session knows that its client has every answer.
func (h *house) settled(c *conn) {
	h.t.Helper()
	if !c.ledger.awaitQuiet() {
		h.t.Fatal("the session ended")
	}
}

// A hold that lasts too long in a transaction rolls it back on the target.
func TestT37_HoldInTransactionRollsBack(t *testing.T) {
	answer := make(chan error, 2)
	gate := &sessiontest.Gate{Ask: func(s policy.Statement) <-chan error {
		if strings.Contains(s.Text, "held1") {
			return answer
		}
		return nil
	}}
	h := newHouse(t, gate)
	h.target.info.Database = h.target.server.Database(t, "CREATE TABLE t (a int)")
	for _, extended := range []bool{false, true} {
		w := h.wire()
		w.send(query("BEGIN"), query("INSERT INTO t VALUES (1)"))
		w.until("Z")
		w.until("Z")
		answer <- &session.Refusal{Code: session.CodeHold, Message: "nobody answered within 2m0s", Request: "r-1"}
		if extended {
			w.send(parse("", "SELECT 'held1'"), bind("", ""), execute("", 0), syncMessage)
			w.expect("Z", "N00000", "1", "E25P03", "ZI")
		} else {
			w.send(query("SELECT 'held1'"))
			w.expect("Z", "N00000", "E25P03", "ZI")
		}
		w.send(query("SELECT count(*) FROM t"))
		w.expect("Z", "T", "D:0", "C:SELECT 1", "ZI")
	}
}

// What a client sends while its statement waits for people runs afterwards, if
// at all, and by its own admission.
func TestT37_BytesSentWhileHeld(t *testing.T) {
	later := "later" + rand.Text()
	answer := make(chan error)
	gate := &sessiontest.Gate{Ask: func(s policy.Statement) <-chan error {
		if strings.Contains(s.Text, "held2") {
			return answer
		}
		return nil
	}, Deny: denying("forbidden")}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(query("SELECT 'held2'"))
	w.expect("N", "N00000")
	w.send(query("SELECT 'forbidden'"), query("SELECT '"+later+"'"))
	if log := h.target.server.Log(t); strings.Contains(log, later) {
		t.Error("it ran while the statement before it waits")
	}
	answer <- nil
	w.expect("Z", "T", "D:held2", "C:SELECT 1", "ZI")
	w.expect("Z", "E42501", "ZI")
	w.expect("Z", "T", "D:"+later, "C:SELECT 1", "ZI")
}

func TestRowLimit(t *testing.T) {
	lift := false
	gate := &sessiontest.Gate{Limit: 3, OverLimit: func(_ context.Context, hold func(session.Hold)) error {
		if lift {
			hold(session.Hold{Request: "r-9", Groups: []string{"approvers"}})
			return nil
		}
		return &session.Refusal{Code: session.CodePolicy, Message: "more than 3 rows", Rules: []string{"bulk"}}
	}}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(query("SELECT n FROM generate_series(1, 1000000) n"))
	w.expect("Z", "T", "D:1", "D:2", "D:3", "E42501", "ZI")
	w.send(parse("", "SELECT n FROM generate_series(1, 1000000) n"), bind("", ""), execute("", 0), parse("", "SELECT 'skipped'"), bind("", ""), execute("", 0), syncMessage)
	w.expect("Z", "1", "2", "D:1", "D:2", "D:3", "E42501", "ZI")
	w.send(query("SELECT 1"))
	w.expect("Z", "T", "D:1", "C:SELECT 1", "ZI")
	lift = true
	w.send(query("SELECT n FROM generate_series(1, 5) n"))
	w.expect("Z", "T", "D:1", "D:2", "D:3", "N00000", "D:4", "D:5", "C:SELECT 5", "ZI")
	for _, e := range gate.Events() {
		if e.What == "done" && strings.Contains(e.Statement, "1000000") && (e.Outcome.Rows != 3 || e.Outcome.SQLState != "42501") {
			t.Errorf("outcome %+v", e.Outcome)
		}
	}
}

// flaky is a connection to the target that can be cut.
type flaky struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (f *flaky) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	return c, err
}

func (f *flaky) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
}

func TestLostTarget(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	h.target.info.Database = h.target.server.Database(t, "CREATE TABLE t (a int)")
	lost := func(setup []string, sql, want string) {
		t.Helper()
		var f flaky
		h.target.dial = f.dial
		w := h.wire()
		for _, q := range setup {
			w.send(query(q))
			w.until("Z")
		}
		if sql != "" {
			w.send(query(sql))
			h.running("lost1")
		}
		f.cut()
		got := w.closed()
		if len(got) == 0 || got[len(got)-1] != want {
			t.Errorf("%s: the client was told %q, want %s", sql, got, want)
		}
	}
	lost(nil, "", "E08006")
	lost(nil, "SELECT pg_sleep(60), 'lost1'", "E08006")
	lost([]string{"BEGIN"}, "INSERT INTO t SELECT 1 FROM pg_sleep(60) -- lost1", "E08006")
	lost(nil, "INSERT INTO t SELECT 1 FROM pg_sleep(60) -- lost1", "E08007")
	unknown := 0
	for _, e := range gate.Events() {
		if e.What == "done" && e.Outcome.Unknown {
			unknown++
		}
	}
	if unknown != 3 {
		t.Errorf("%d outcomes unknown, want 3", unknown)
	}
}

func TestTargetThatEndsTheSessionItself(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	h.target.server.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%hoopctl:alice%'")
	if got := w.closed(); fmt.Sprint(got) != "[E57P01]" {
		t.Errorf("the client was told %q", got)
	}
}

func TestWhoIsBehindASession(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire("application_name", "reports")
	w.send(query("SELECT application_name, current_setting('hoopctl.principal'), current_setting('hoopctl.groups') FROM pg_stat_activity WHERE pid = pg_backend_pid()"))
	w.expect("Z", "T", "D:reports [hoopctl:alice:s-1],alice,engineers", "C:SELECT 1", "ZI")
	w.send(query("DISCARD ALL"))
	w.until("Z")
	for _, sql := range []string{"SET hoopctl.principal = 'dave'", "SET LOCAL hoopctl.groups TO 'dba'", "RESET hoopctl.principal", `SET "HOOPCTL.principal" = 'x'`, "SELECT set_config('hoopctl.principal', 'dave', false)"} {
		w.send(query(sql))
		w.expect("Z", "E42501", "ZI")
	}
	w.send(query("SELECT current_setting('hoopctl.principal')"))
	w.expect("Z", "T", "D:alice", "C:SELECT 1", "ZI")
}

func TestT23_NothingOfASessionIsLeft(t *testing.T) {
	h := newHouse(t, nil)
	a := h.wire()
	a.send(query("CREATE TEMP TABLE left_over (a int); PREPARE left_over AS SELECT 1; LISTEN left_over; SELECT pg_advisory_lock(42); SET work_mem = '7MB'"))
	a.until("Z")
	a.send(&pgproto3.Terminate{})
	a.closed()
	<-h.ended
	b := h.wire()
	b.send(query("SELECT to_regclass('pg_temp.left_over'), count(*), current_setting('work_mem') FROM pg_prepared_statements"))
	b.expect("Z", "T", "D:,0,4MB", "C:SELECT 1", "ZI")
}

func TestLogin(t *testing.T) {
	t.Run("one retry with fresh credentials", func(t *testing.T) {
		h := newHouse(t, nil)
		var asked []bool
		good := session.Credentials{Username: h.target.server.Superuser, Password: h.target.server.Password}
		h.target.login = func(again bool) (session.Credentials, error) {
			asked = append(asked, again)
			if !again {
				return session.Credentials{Username: good.Username, Password: "stale"}, nil
			}
			return good, nil
		}
		h.connect()
		if fmt.Sprint(asked) != "[false true]" {
			t.Errorf("asked %v", asked)
		}
	})
	t.Run("refused credentials are not the client's", func(t *testing.T) {
		h := newHouse(t, nil)
		h.target.login = func(bool) (session.Credentials, error) {
			return session.Credentials{Username: "postgres", Password: "wrong"}, nil
		}
		_, err := pgconn.Connect(t.Context(), h.url())
		if pg := pgErrorOf(t, err); pg.Code != "57P03" || !strings.Contains(pg.Message, "hoopctl:") || strings.Contains(pg.Message+pg.Detail, "password authentication") {
			t.Errorf("told %+v", pg)
		}
	})
	t.Run("the next address", func(t *testing.T) {
		h := newHouse(t, nil)
		h.target.info.Addresses = []string{"127.0.0.1:1", h.target.server.Address()}
		h.target.info.SessionAttrs = "primary"
		h.connect()
		h.target.info.SessionAttrs = "prefer-standby"
		h.connect()
		h.target.info.SessionAttrs = "standby"
		if _, err := pgconn.Connect(t.Context(), h.url()); pgErrorOf(t, err).Code != "57P03" {
			t.Error(err)
		}
	})
	t.Run("T11 databases that are not the target's", func(t *testing.T) {
		h := newHouse(t, nil)
		_, err := pgconn.Connect(t.Context(), strings.Replace(h.url(), "/postgres?", "/template1?", 1))
		if pg := pgErrorOf(t, err); pg.Code != "3D000" {
			t.Errorf("told %+v", pg)
		}
		h.target.info.Databases = []string{"template1"}
		if _, err := pgconn.Connect(t.Context(), strings.Replace(h.url(), "/postgres?", "/template1?", 1)); err != nil {
			t.Error(err)
		}
	})
	t.Run("the environment has no say", func(t *testing.T) {
		for name, value := range map[string]string{"PGHOST": "192.0.2.1", "PGPORT": "1", "PGUSER": "evil", "PGPASSWORD": "evil", "PGDATABASE": "evil", "PGSSLMODE": "disable",
			"PGSERVICE": "evil", "PGOPTIONS": "-c search_path=evil", "PGAPPNAME": "evil", "PGTARGETSESSIONATTRS": "standby", "PGTZ": "Asia/Tokyo", "PGREQUIREAUTH": "none",
			"PGCHANNELBINDING": "require", "PGSSLCERTMODE": "require", "PGMINPROTOCOLVERSION": "3.2", "PGSSLNEGOTIATION": "direct", "PGCONNECT_TIMEOUT": "1"} {
			t.Setenv(name, value)
		}
		c := &conn{info: session.TargetInfo{Name: "x"}, database: "db", target: &testTarget{}}
		config, err := c.clientConfig("db.example:5432", session.Credentials{Username: "u", Password: "p"}, map[string]string{"a": "b"})
		if err != nil {
			t.Fatal(err)
		}
		if config.Host != "db.example" || config.Port != 5432 || config.User != "u" || config.Password != "p" || config.Database != "db" || config.TLSConfig == nil ||
			config.TLSConfig.InsecureSkipVerify || config.TLSConfig.ServerName != "db.example" || len(config.Fallbacks) != 0 || fmt.Sprint(config.RuntimeParams) != "map[a:b]" ||
			config.RequireAuth != "!password" || config.ChannelBinding != "prefer" || config.SSLNegotiation != "postgres" || config.ValidateConnect != nil || config.MinProtocolVersion != "3.0" || config.SSLCertMode != "allow" {
			t.Errorf("config %+v", config)
		}
	})
	t.Run("T03 the target must prove who it is", func(t *testing.T) {
		h := newHouse(t, nil)
		h.target.info.RootCAs = nil
		if _, err := pgconn.Connect(t.Context(), h.url()); pgErrorOf(t, err).Code != "57P03" {
			t.Error(err)
		}
		h.target.info.TLSMode = "require"
		h.connect()
		h.target.info.TLSMode = "prefer"
		if _, err := pgconn.Connect(t.Context(), h.url()); pgErrorOf(t, err).Code != "57P03" {
			t.Error(err)
		}
	})
}
