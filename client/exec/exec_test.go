package exec_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func open(t *testing.T, change ...func(*exec.Config)) *exec.Conn {
	t.Helper()
	pg := pgtest.Start(t)
	c := exec.Config{
		Dial:        func(context.Context) (net.Conn, error) { return net.Dial("tcp", pg.Address()) },
		User:        pg.Superuser,
		Password:    pg.Password,
		Database:    "postgres",
		Application: "hoopctl-test",
	}
	for _, f := range change {
		f(&c)
	}
	conn, err := exec.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func print(t *testing.T, conn *exec.Conn, format string, o exec.Options, script string) string {
	t.Helper()
	var out bytes.Buffer
	statements := exec.Split(script)
	w, err := exec.NewWriter(format, &out, len(statements))
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range statements {
		if _, err := conn.Run(t.Context(), sql, w, o); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

const everyKind = `SELECT 1::int AS n, 2.50::numeric AS amount, 'NaN'::float8 AS nan, true AS ok, NULL::text AS nothing, '' AS empty,
	'a "b", c' AS quoted, '{"x": [1, 2]}'::jsonb AS doc, ARRAY[1,2] AS list, DATE '2026-11-01' AS day, '\xdead'::bytea AS raw,
	9007199254740993::int8 AS big, E'two\nlines' AS lines, 1 AS n`

func TestFormats(t *testing.T) {
	conn := open(t)
	for format, want := range map[string]string{
		"csv": "n,amount,nan,ok,nothing,empty,quoted,doc,list,day,raw,big,lines,n\n" +
			`1,2.50,NaN,t,,"","a ""b"", c","{""x"": [1, 2]}","{1,2}",2026-11-01,\xdead,9007199254740993,"two` + "\n" + `lines",1` + "\n",
		"ndjson": `{"n":1,"amount":2.50,"nan":"NaN","ok":true,"nothing":null,"empty":"","quoted":"a \"b\", c","doc":{"x":[1,2]},"list":"{1,2}",` +
			`"day":"2026-11-01","raw":"\\xdead","big":9007199254740993,"lines":"two\nlines","n_2":1}` + "\n",
	} {
		if got := print(t, conn, format, exec.Options{}, everyKind); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", format, got, want)
		}
	}
	got := print(t, conn, "table", exec.Options{}, `SELECT 7 AS n, 'x' AS word UNION ALL SELECT 1234, NULL UNION ALL SELECT 5, E'bad\x1b]0;t\x07' ORDER BY 1`)
	want := "   n   word\n   5   bad\\x1b]0;t\\a\n   7   x\n1234   NULL\n"
	if got != want {
		t.Errorf("table:\n%s\nwant\n%s", got, want)
	}
}

func TestJSONIsOneDocument(t *testing.T) {
	conn := open(t)
	for script, want := range map[string]string{
		`SELECT 1 AS a UNION ALL SELECT 2`:       `[{"a":1},{"a":2}]`,
		`SELECT 1 AS a WHERE false`:              `[]`,
		`SET work_mem = '5MB'`:                   `[]`,
		`SELECT 1 AS a; SELECT 'x' AS b`:         `[[{"a":1}],[{"b":"x"}]]`,
		`SET work_mem = '5MB'; SELECT 1 AS a`:    `[[{"a":1}]]`,
		`SET work_mem = '5MB'; SET jit = off; ;`: `[]`,
	} {
		var doc json.RawMessage
		out := print(t, conn, "json", exec.Options{}, script)
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Errorf("%s: %v in\n%s", script, err, out)
			continue
		}
		var compact bytes.Buffer
		json.Compact(&compact, doc)
		if compact.String() != want {
			t.Errorf("%s: %s, want %s", script, compact.String(), want)
		}
	}
}

func TestMaxRowsEndsTheStatementWithoutUndoingIt(t *testing.T) {
	pg := pgtest.Start(t)
	db := pg.Database(t, "CREATE TABLE t (n int)")
	conn := open(t, func(c *exec.Config) { c.Database = db })
	var out bytes.Buffer
	w, _ := exec.NewWriter("csv", &out, 1)
	r, err := conn.Run(t.Context(), "INSERT INTO t SELECT generate_series(1, 100) RETURNING n", w, exec.Options{MaxRows: 3})
	if err != nil || !r.More || r.Rows != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if out.String() != "n\n1\n2\n3\n" {
		t.Errorf("printed %q", out.String())
	}
	if n := pg.Exec(t, db, "SELECT count(*) FROM t")[0][0]; n != "100" {
		t.Errorf("%s rows were kept, want 100", n)
	}
}

func TestCopyBothWays(t *testing.T) {
	conn := open(t)
	got := print(t, conn, "csv", exec.Options{CopyIn: strings.NewReader("1\tone\n2\t\\N\n")},
		"CREATE TEMP TABLE c (n int, w text); COPY c FROM STDIN; COPY c TO STDOUT")
	if got != "1\tone\n2\t\\N\n" {
		t.Errorf("copied %q", got)
	}
	_, err := conn.Run(t.Context(), "COPY c FROM STDIN", exec.Discard, exec.Options{})
	var pg *exec.Error
	if !errors.As(err, &pg) || pg.SQLState != "57014" {
		t.Errorf("without input: %v", err)
	}
	if got := print(t, conn, "csv", exec.Options{}, "SELECT 1 AS still"); got != "still\n1\n" {
		t.Errorf("afterwards %q", got)
	}
}

func TestErrorsLeaveTheConnectionUsable(t *testing.T) {
	conn := open(t)
	_, err := conn.Run(t.Context(), "SELECT nothing FROM nowhere", exec.Discard, exec.Options{})
	var pg *exec.Error
	if !errors.As(err, &pg) || pg.SQLState != "42P01" || pg.Broker() {
		t.Fatalf("%#v", err)
	}
	if e := pg.APIError(); e.Source != "target" {
		t.Errorf("source %q", e.Source)
	}
	if _, err := conn.Run(t.Context(), "SELECT 1; SELECT 2", exec.Discard, exec.Options{}); !errors.As(err, &pg) || pg.SQLState != "42601" {
		t.Errorf("two statements in one message: %v", err)
	}
	if got := print(t, conn, "csv", exec.Options{}, "SELECT 1 AS still"); got != "still\n1\n" {
		t.Errorf("afterwards %q", got)
	}
}

func TestEndOfContextCancelsOnTheTarget(t *testing.T) {
	pg := pgtest.Start(t)
	conn := open(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for len(pg.Exec(t, "postgres", "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600%' AND state = 'active'")) == 0 {
		}
		cancel(cause)
	}()
	if _, err := conn.Run(ctx, "SELECT pg_sleep(600)", exec.Discard, exec.Options{}); !errors.Is(err, cause) {
		t.Fatalf("%v, want %v", err, cause)
	}
	if got := print(t, conn, "csv", exec.Options{}, "SELECT 1 AS still"); got != "still\n1\n" {
		t.Errorf("afterwards %q", got)
	}
}

func TestNotices(t *testing.T) {
	var heard []exec.Notice
	conn := open(t, func(c *exec.Config) { c.Notice = func(n exec.Notice) { heard = append(heard, n) } })
	print(t, conn, "csv", exec.Options{}, "DO $$ BEGIN RAISE NOTICE 'hello; %', 1; END $$")
	if len(heard) != 1 || heard[0].Message != "hello; 1" || heard[0].Severity != "NOTICE" {
		t.Errorf("heard %+v", heard)
	}
}

// Whoever runs hoopctl may have settings for another server in the environment.
func TestEnvironmentIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	for k, v := range map[string]string{
		"PGHOST": "evil.example", "PGPORT": "1", "PGUSER": "evil", "PGDATABASE": "evil", "PGPASSWORD": "evil",
		"PGSERVICE": "evil", "PGSERVICEFILE": filepath.Join(dir, "none"), "PGPASSFILE": filepath.Join(dir, "none"),
		"PGSSLMODE": "verify-full", "PGSSLROOTCERT": filepath.Join(dir, "none"), "PGSSLCERT": filepath.Join(dir, "none"),
		"PGSSLKEY": filepath.Join(dir, "none"), "PGSSLCERTMODE": "nonsense", "PGCONNECT_TIMEOUT": "nonsense", "PGTARGETSESSIONATTRS": "nonsense",
		"PGOPTIONS": "-c search_path=evil", "PGAPPNAME": "evil", "PGTZ": "Mars", "PGSSLNEGOTIATION": "nonsense", "PGCHANNELBINDING": "require",
		"PGREQUIREAUTH": "none", "PGMINPROTOCOLVERSION": "9.9", "PGSSLSNI": "nonsense",
	} {
		t.Setenv(k, v)
	}
	conn := open(t)
	got := print(t, conn, "csv", exec.Options{}, "SELECT current_user, current_database(), current_setting('search_path'), current_setting('application_name')")
	if !strings.Contains(got, `postgres,postgres,"""$user"", public",hoopctl-test`) {
		t.Errorf("the environment was followed: %s", got)
	}
}

func TestWrongPassword(t *testing.T) {
	pg := pgtest.Start(t)
	_, err := exec.Open(t.Context(), exec.Config{
		Dial: func(context.Context) (net.Conn, error) { return net.Dial("tcp", pg.Address()) },
		User: pg.Superuser, Password: "wrong", Database: "postgres",
	})
	var e *exec.Error
	if !errors.As(err, &e) || e.SQLState != "28P01" {
		t.Errorf("%v", err)
	}
}

func TestADeadTargetIsALostConnection(t *testing.T) {
	pg := pgtest.Start(t)
	conn := open(t, func(c *exec.Config) { c.CancelWait = time.Second })
	_, err := conn.Run(t.Context(), "SELECT pg_terminate_backend(pg_backend_pid())", exec.Discard, exec.Options{})
	var e *exec.Error
	if !errors.As(err, &e) || e.Severity != "FATAL" {
		t.Fatalf("terminated: %v", err)
	}
	if _, err = conn.Run(t.Context(), "SELECT 1", exec.Discard, exec.Options{}); !errors.Is(err, exec.ErrLost) {
		t.Errorf("afterwards: %v", err)
	}
	_ = pg
}

func TestReasonsOfTheBroker(t *testing.T) {
	for state, want := range map[string]api.Reason{
		"42501": api.ReasonDenied, "57P01": api.ReasonRevoked, "25P03": api.ReasonExpired, "28000": api.ReasonLoginNeeded,
		"58030": api.ReasonEvidence, "57P03": api.ReasonUnavailable, "08007": api.ReasonUnavailable, "53400": api.ReasonDenied,
	} {
		e := &exec.Error{SQLState: state, Message: "hoopctl: no", Detail: "session s-7, request r-12, rule no-where"}
		if got, ok := e.BrokerReason(); !ok || got != want {
			t.Errorf("%s: %v %v, want %v", state, got, ok, want)
		}
		if a := e.APIError(); a.SessionID != "s-7" || a.Request != "r-12" || a.Source != "broker" {
			t.Errorf("%s: %+v", state, a)
		}
		e.Message = "permission denied"
		if _, ok := e.BrokerReason(); ok {
			t.Errorf("%s: a target's own error passes for the broker's", state)
		}
	}
}
