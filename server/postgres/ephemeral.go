package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/server/session"
)

const (
	// dropTimeout bounds the end of a role, and backendTimeout how long its
	// backends may take to go first.
	dropTimeout    = 10 * time.Second
	backendTimeout = 5 * time.Second
	// loginWindow is how long a role's password is good, by the target's clock:
	// it is used once, at once. A role that a crash leaves behind lets nobody in.
	loginWindow = "2 minutes"
)

// Role is a role of the target that was made for one session, and is dropped
// when that has ended.
type Role struct {
	Name     string `json:"name"`
	Target   string `json:"target"`
	Place    string `json:"place"` // TargetInfo.Generation
	Database string `json:"database"`
	Heir     string `json:"heir"` // who gets what it owned
	Session  string `json:"session"`
}

// Journal remembers the roles that may exist on targets, beyond a crash. Its
// methods are called by sessions at once, and must be safe for that.
type Journal interface {
	// RoleMade is called before the role is made; it is not made on an error.
	RoleMade(ctx context.Context, r Role) error
	// RoleGone is called when the role is no more.
	RoleGone(ctx context.Context, r Role) error
}

// connectEphemeral logs in as a role of the session's own, which the account
// of the credentials makes first: on the very server where it is used.
func (c *conn) connectEphemeral(ctx context.Context, cr session.Credentials, params map[string]string) (*pgconn.PgConn, string, error) {
	if c.room.config.Roles == nil {
		return nil, "", errors.New("this server cannot remember ephemeral roles, so none is made")
	}
	maker, address, err := c.connectMaker(ctx, cr, c.info.Addresses)
	if err != nil {
		return nil, "", err
	}
	defer maker.Close(context.WithoutCancel(ctx))
	role := Role{Name: roleName(c.name), Target: c.info.Name, Place: c.info.Generation, Database: c.database, Heir: cr.Roles[0], Session: c.name}
	if err := c.room.config.Roles.RoleMade(ctx, role); err != nil {
		return nil, "", fmt.Errorf("remember the session's role: %w", err)
	}
	c.role = &role
	password := rand.Text()
	if err := makeRole(ctx, maker, role, cr.Username, cr.Roles, password); err != nil {
		return nil, "", roleError{fmt.Errorf("make the session's role: %w", err)}
	}
	own := session.Credentials{Username: role.Name, Password: password}
	params["role"] = role.Heir // in the start-up packet, so that RESET and DISCARD ALL come back to it
	pg, address, err := c.connectAny(ctx, own, params, []string{address}, "any")
	if err != nil {
		err = fmt.Errorf("log in as %s, the session's own role (pg_hba.conf must admit +%s by scram-sha-256): %w", role.Name, role.Heir, err)
	}
	return pg, address, err
}

// roleError is a session's role that could not be made: whoever runs the
// target has to look at its account's rights, not the client at its settings.
type roleError struct{ error }

func (e roleError) Unwrap() error { return e.error }

// connectMaker logs in with the account that makes and drops roles.
func (c *conn) connectMaker(ctx context.Context, cr session.Credentials, addresses []string) (*pgconn.PgConn, string, error) {
	return c.connectAny(ctx, cr, map[string]string{"application_name": "hoopctl roles", "client_encoding": "UTF8", "datestyle": "ISO", "standard_conforming_strings": "on"},
		addresses, "read-write")
}

// roleName says whose it is, to whoever reads the target's own log. It cannot
// be guessed before it is there.
func roleName(session string) string {
	return "hoopctl_" + strings.ReplaceAll(session, "-", "") + "_" + strings.ToLower(rand.Text()[:10])
}

// makeRole makes the role. maker becomes a member of it, which REASSIGN OWNED
// asks of whoever runs it. The target is given the password's verifier: a
// statement is what its log may keep.
func makeRole(ctx context.Context, pg *pgconn.PgConn, r Role, maker string, member []string, password string) error {
	secret, err := newVerifier(password)
	if err != nil {
		return err
	}
	rows, err := ask(ctx, pg, "SELECT (pg_catalog.now() + '"+loginWindow+"')::pg_catalog.text")
	if err != nil || len(rows) != 1 {
		return fmt.Errorf("ask for the target's time: %w", err)
	}
	var in []string
	for _, m := range member {
		in = append(in, quoteIdent(m))
	}
	_, err = ask(ctx, pg, fmt.Sprintf("CREATE ROLE %s LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 1 PASSWORD %s VALID UNTIL %s IN ROLE %s ROLE %s",
		quoteIdent(r.Name), asLiteral(secret), asLiteral(rows[0]), strings.Join(in, ", "), quoteIdent(maker)))
	return err
}

// dropRole drops the session's own role, if it has one. What cannot be dropped
// now stays in the journal.
func (c *conn) dropRole() {
	if c.role == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), dropTimeout)
	defer cancel()
	if _, err := c.room.DropRole(ctx, c.target, *c.role); err != nil {
		c.room.log.Warn("the session's role is not dropped yet", "session", c.name, "target", c.info.Name, "role", c.role.Name, "error", err)
	}
}

// DropRole ends a role that was made for a session: its backends are
// terminated, what it owns in its database goes to its heir, and nothing of
// that is dropped but the role. It reports whether the role was there; on a
// target that moved meanwhile it may stand where it was made. The journal is
// told if the role is no more.
func (r *Room) DropRole(ctx context.Context, t session.Target, role Role) (found bool, err error) {
	c := &conn{room: r, target: t, info: t.Info(), database: role.Database}
	cr, err := t.Login(ctx, false)
	if err != nil {
		return false, fmt.Errorf("credentials of target %s: %w", role.Target, err)
	}
	pg, _, err := c.connectMaker(ctx, cr, c.info.Addresses)
	if err != nil {
		return false, err
	}
	defer pg.Close(context.WithoutCancel(ctx))
	rows, err := ask(ctx, pg, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) "+asLiteral(role.Name))
	if err != nil {
		return false, err
	}
	if found = len(rows) > 0; found {
		err = endRole(ctx, pg, role)
	}
	if err != nil {
		return found, err
	}
	return found, r.config.Roles.RoleGone(ctx, role)
}

// endRole is never DROP OWNED: what a session made is its owner's, not ours.
func endRole(ctx context.Context, pg *pgconn.PgConn, role Role) error {
	if err := endBackends(ctx, pg, role.Name); err != nil {
		return err
	}
	name := quoteIdent(role.Name)
	_, err := ask(ctx, pg, "REASSIGN OWNED BY "+name+" TO "+quoteIdent(role.Heir)+"; DROP ROLE "+name)
	return err
}

// endBackends terminates what still runs as the role, and waits for it to go:
// temporary objects are the role's until its backend is gone.
func endBackends(ctx context.Context, pg *pgconn.PgConn, role string) error {
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // PostgreSQL tells nobody when a backend ends
	defer tick.Stop()
	for {
		rows, err := ask(ctx, pg, "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename OPERATOR(pg_catalog.=) "+asLiteral(role))
		if err != nil || len(rows) == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the backends of %s: %w", role, ctx.Err())
		}
	}
}

// ask runs SQL and returns the first column of the last result.
func ask(ctx context.Context, pg *pgconn.PgConn, sql string) ([]string, error) {
	results, err := pg.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	var out []string
	for _, row := range results[len(results)-1].Rows {
		if len(row) == 0 {
			return nil, errors.New("the target answered with rows of no columns")
		}
		out = append(out, string(row[0]))
	}
	return out, nil
}

// quoteIdent quotes a name for SQL. PostgreSQL's names hold no NUL, and neither
// does what comes here: resources and the names of sessions.
func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// newVerifier is what a server keeps of a password, in PostgreSQL's form.
func newVerifier(password string) (string, error) {
	const iterations = 4096 // PostgreSQL's own; the password is random
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive a verifier: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramPlain, iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}
