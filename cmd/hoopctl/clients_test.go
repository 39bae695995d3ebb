package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

// clientsResources are one target without tags, on which everything is allowed
// but for what a broker is there to refuse and to hold.
const clientsResources = `
kind: Target
metadata: {name: drivers, labels: {suite: drivers}}
spec: {protocol: postgres, address: "%s", database: drivers, databases: [drivers, restored], tls: {mode: disable}, hold: {inTransaction: 1s},
  credentials: {username: postgres, passwordFrom: {file: %s}}}
---
kind: Policy
metadata: {name: drivers}
spec:
  cedar: |
    @id("drivers-anything")
    permit(principal in Hoop::Group::"engineers", action in [Hoop::Action::"connect", Hoop::Action::"statement"], resource in Hoop::Label::"suite=drivers");
    @id("drivers-forbidden") @reason("nobody reads it")
    forbid(principal, action in [Hoop::Action::"statement"], resource in Hoop::Label::"suite=drivers")
      when { context.tables.contains("public.forbidden") };
    @id("drivers-held") @reason("somebody else looks first") @approve("dba")
    forbid(principal, action == Hoop::Action::"write", resource in Hoop::Label::"suite=drivers")
      when { context.tables.contains("public.held") }
      unless { context.approvals.contains("drivers-held/dba:1") };
`

// clientsTables are made anew for each run of a client.
const clientsTables = `
DROP TABLE IF EXISTS things, forbidden, held;
CREATE TABLE things (id int PRIMARY KEY, name text);
INSERT INTO things VALUES (1, 'one'), (2, NULL);
CREATE TABLE forbidden (id int);
CREATE TABLE held (n int);
INSERT INTO held VALUES (1), (2), (3);`

// clientsHouse is a `hoopctl dev` with the target of clientsResources.
type clientsHouse struct {
	*running
	t      *testing.T
	ready  readiness
	direct *url.URL // of the target's cluster
	bin    string   // PostgreSQL's clients
}

func newClientsHouse(t *testing.T) *clientsHouse {
	bin, err := pgtest.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRunning()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.remove)
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	h := &clientsHouse{running: r, t: t, bin: bin}
	b, err := os.ReadFile(r.ready)
	if err == nil {
		err = json.Unmarshal(b, &h.ready)
	}
	if err != nil {
		t.Fatal(err)
	}
	if h.direct, err = url.Parse(fmt.Sprint(h.ready.Sample["postgres"])); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob", "erin"} {
		h.as(user, "dev", "login", user, "--dir", filepath.Join(r.dir, "state"))
	}
	password, _ := h.direct.User.Password()
	resources, secret := filepath.Join(r.dir, "drivers.yaml"), filepath.Join(r.dir, "password")
	for file, text := range map[string]string{secret: password, resources: fmt.Sprintf(clientsResources, h.direct.Host, secret)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.sql("postgres", "CREATE DATABASE drivers")
	h.as("erin", "apply", "-f", resources)
	return h
}

// command is a hoopctl of that user's.
func (h *clientsHouse) command(user string, args ...string) *exec.Cmd {
	cmd := exec.Command("hoopctl", args...)
	cmd.Env = append(os.Environ(), "HOOPCTL_HOME="+filepath.Join(h.dir, user), "HOOPCTL_NO_BROWSER=1")
	return cmd
}

// as runs it and returns its stdout.
func (h *clientsHouse) as(user string, args ...string) string {
	h.t.Helper()
	cmd := h.command(user, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%s: hoopctl %q: %v\n%s", user, args, err, errs.String())
	}
	return string(out)
}

// named are the objects of a kind that are in a phase.
func (h *clientsHouse) named(user, kind, phase string) (names []string) {
	h.t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ Phase string }
		}
	}
	if err := json.Unmarshal([]byte(h.as(user, "get", kind, "-o", "json")), &list); err != nil {
		h.t.Fatal(err)
	}
	for _, item := range list.Items {
		if item.Status.Phase == phase {
			names = append(names, item.Metadata.Name)
		}
	}
	return names
}

// sql runs SQL directly, and returns the last result's rows.
func (h *clientsHouse) sql(database, text string) [][][]byte {
	h.t.Helper()
	u := *h.direct
	u.Path = "/" + database
	conn, err := pgconn.Connect(context.Background(), u.String())
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	results, err := conn.Exec(context.Background(), text).ReadAll()
	if err != nil {
		h.t.Fatalf("%s: %v", text, err)
	}
	return results[len(results)-1].Rows
}

// door is a way to the target.
type door struct {
	*url.URL
	ca   string // "" is without TLS
	stop func()
}

func (h *clientsHouse) directly() door {
	u := *h.direct
	u.Path = "/drivers"
	return door{&u, "", func() {}}
}

// forward is a `hoopctl connect`.
func (h *clientsHouse) forward() door {
	h.t.Helper()
	file := filepath.Join(h.dir, "connect.json")
	os.Remove(file)
	cmd := h.command("alice", "connect", "drivers", "-p", "0", "--ready-file", file)
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop := func() { cmd.Process.Signal(os.Interrupt); <-ended }
	var places []place
	h.await("connect is not ready", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(b, &places) == nil && len(places) > 0
	})
	u, err := url.Parse(places[0].URL)
	if err != nil {
		h.t.Fatal(err)
	}
	return door{u, "", stop}
}

// native is a `hoopctl secret` for the native endpoint, over TLS.
func (h *clientsHouse) native() door {
	h.t.Helper()
	u, err := url.Parse(strings.TrimSpace(h.as("alice", "secret", "drivers", "--for", "30m", "-o", "uri")))
	if err != nil {
		h.t.Fatal(err)
	}
	return door{u, h.ready.CAFile, func() {}}
}

// await polls what has no event: what is on another process's disk, or runs in
// PostgreSQL.
func (h *clientsHouse) await(otherwise string, done func() bool) {
	h.t.Helper()
	for late := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(late) {
			h.t.Fatal(otherwise)
		}
	}
}

// env is what libpq, and the programs of testdata/clients, find the door by.
func (d door) env(stage string) []string {
	password, _ := d.User.Password()
	mode := "disable"
	if d.ca != "" {
		mode = "verify-full"
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C.UTF-8", "PYTHONIOENCODING=utf-8", "NODE_PATH=" + pgtest.Packages(), "NODE_NO_WARNINGS=1",
		"PGHOST=" + d.Hostname(), "PGPORT=" + d.Port(), "PGUSER=" + d.User.Username(), "PGPASSWORD=" + password, "PGDATABASE=drivers", "PGSSLMODE=" + mode, "STAGE=" + stage}
	if d.ca != "" {
		env = append(env, "PGSSLROOTCERT="+d.ca)
	}
	return env
}

// uri is for Go's drivers, which take TLS's files in it.
func (d door) uri() string {
	u := *d.URL
	u.RawQuery = "sslmode=disable"
	if d.ca != "" {
		u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {d.ca}}.Encode()
	}
	return u.String()
}

// driver is one with a program that uses it.
type driver struct {
	name    string
	missing func() string
	command func(t *testing.T) []string // of a program of testdata/clients
	run     func(stage, uri string, say func(...any)) error
}

func drivers() []driver {
	python := func(module, program string) driver {
		return driver{name: module, missing: func() string {
			if exec.Command("/usr/bin/python3", "-c", "import "+module).Run() != nil {
				return "python3-" + module
			}
			return ""
		}, command: func(*testing.T) []string { return []string{"/usr/bin/python3", clientProgram(program)} }}
	}
	return []driver{
		{name: "pgx", run: pgxClient},
		{name: "libpq-go", run: libPQClient},
		{name: "node-postgres", missing: func() string {
			if _, err := os.Stat(filepath.Join(pgtest.Packages(), "pg", "package.json")); err != nil {
				return "npm's pg"
			}
			return lacking("node")
		}, command: func(*testing.T) []string { return []string{"node", clientProgram("node.js")} }},
		python("psycopg", "psycopg3.py"),
		python("psycopg2", "psycopg2_client.py"),
		python("asyncpg", "asyncpg_client.py"),
		{name: "jdbc", missing: func() string {
			if _, err := os.Stat(jdbcDriver); err != nil {
				return "libpostgresql-jdbc-java"
			}
			return lacking("javac")
		}, command: func(t *testing.T) []string {
			dir := t.TempDir()
			if out, err := exec.Command("javac", "-cp", jdbcDriver, "-d", dir, clientProgram("Jdbc.java")).CombinedOutput(); err != nil {
				t.Fatalf("javac: %v\n%s", err, out)
			}
			return []string{"java", "-XX:TieredStopAtLevel=1", "-cp", dir + ":" + jdbcDriver, "Jdbc"}
		}},
	}
}

const jdbcDriver = "/usr/share/java/postgresql.jar"

func clientProgram(name string) string { return filepath.Join("..", "..", "testdata", "clients", name) }

func lacking(program string) string {
	if _, err := exec.LookPath(program); err != nil {
		return program
	}
	return ""
}

// Drivers that other people wrote, directly and through both doors: what they
// see is the same, and what only a broker does they understand.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("clients start a whole house")
	}
	h := newClientsHouse(t)
	for _, c := range drivers() {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			if c.missing != nil {
				if what := c.missing(); what != "" {
					t.Skipf("SKIPPED: %s is not here; .ci/setup.sh installs it where it can", what)
				}
			}
			if c.command != nil {
				words := c.command(t)
				c.run = nil
				c.command = func(*testing.T) []string { return words }
			}
			direct := h.transcript(c, "ordinary", h.directly())
			if !strings.HasSuffix(direct, "done\n") {
				t.Fatalf("directly it says\n%s", direct)
			}
			for _, open := range []func() door{h.forward, h.native} {
				d := open()
				same(t, direct, h.transcript(c, "ordinary", d))
				understood(t, h.transcript(c, "refused", d)) // ends the grant
				d.stop()
			}
		})
	}
	t.Run("psql", func(t *testing.T) { h.t = t; h.psqlScripts() })
	t.Run("pgbench", func(t *testing.T) { h.t = t; h.pgbench() })
	t.Run("pg_dump", func(t *testing.T) { h.t = t; h.dumpAndRestore() })
}

// transcript runs a client's stage and returns what it said.
func (h *clientsHouse) transcript(c driver, stage string, d door) string {
	h.t.Helper()
	h.sql("drivers", clientsTables)
	out, in := io.Pipe()
	var cmd *exec.Cmd
	ended := make(chan error, 1)
	if c.run != nil {
		go func() {
			err := c.run(stage, d.uri(), func(words ...any) { fmt.Fprintln(in, words...) })
			if err != nil {
				fmt.Fprintln(in, "failed:", err)
			}
			in.Close()
			ended <- err
		}()
	} else {
		words := c.command(nil)
		cmd = exec.Command(words[0], words[1:]...)
		cmd.Env, cmd.Stdout, cmd.Stderr = d.env(stage), in, in
		if err := cmd.Start(); err != nil {
			h.t.Fatal(err)
		}
		go func() { err := cmd.Wait(); in.Close(); ended <- err }()
		defer time.AfterFunc(3*time.Minute, func() { cmd.Process.Kill() }).Stop()
	}
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, "@") {
			h.act(line)
		} else {
			said.WriteString(line + "\n")
		}
	}
	if err := <-ended; err != nil {
		h.t.Errorf("%s at %s: %v\n%s", stage, d.Host, err, said.String())
	}
	return said.String()
}

// act does what a client asks for, to what it runs meanwhile.
func (h *clientsHouse) act(what string) {
	h.t.Helper()
	sleeps := func() bool {
		return len(h.sql("drivers", "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()")) > 0
	}
	var names []string
	some := func(user, kind, phase string) func() bool {
		return func() bool { names = h.named(user, kind, phase); return len(names) > 0 }
	}
	switch what {
	case "@approve":
		h.await("no request waits", some("bob", "requests", "pending"))
		h.as("bob", append([]string{"approve", "--reason", "looked at"}, names...)...)
	case "@end":
		h.await("it does not sleep", sleeps)
		h.await("no session is open", some("erin", "sessions", "open"))
		h.as("erin", append([]string{"delete", "session", "--yes"}, names...)...)
	case "@revoke":
		h.await("it does not sleep", sleeps)
		h.await("no grant is active", some("alice", "grants", "active"))
		h.as("erin", append([]string{"delete", "grant", "--yes", "--reason", "left the team"}, names...)...)
	default:
		h.t.Errorf("%s?", what)
	}
}

func same(t *testing.T, direct, through string) {
	t.Helper()
	a, b := strings.Split(direct, "\n"), strings.Split(through, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("through the broker it parts from line %d\ndirect:\n%.3000s\n\nthrough:\n%.3000s", i+1, strings.Join(a[min(i, len(a)):min(i+3, len(a))], "\n"), strings.Join(b[min(i, len(b)):min(i+3, len(b))], "\n"))
		}
	}
}

// understood compares with testdata/clients/refused.txt, whose values may be
// alternatives: a|b.
func understood(t *testing.T, got string) {
	t.Helper()
	b, err := os.ReadFile(clientProgram("refused.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(b)), "\n")
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for i, w := range want {
		key, values, _ := strings.Cut(w, ": ")
		if i >= len(lines) {
			t.Errorf("it said no %q:\n%s", w, got)
			return
		}
		said, isKey := strings.CutPrefix(lines[i], key+": ")
		ok := false
		for v := range strings.SplitSeq(values, "|") {
			ok = ok || v == said
		}
		if !isKey || !ok {
			t.Errorf("it said %q, want %q", lines[i], w)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("it said more than\n%s\n\n%s", b, got)
	}
}

// clockAndPID are what differs between two runs of psql's scripts.
var clockAndPID = regexp.MustCompile(`(server process with PID )\d+|(?m)^.*( \(every 0\.01s\))$`)

// psqlScripts runs testdata/sql/differential, each time on a database made anew.
// One door is enough: a forward copies bytes.
func (h *clientsHouse) psqlScripts() {
	scripts, err := filepath.Glob("../../testdata/sql/differential/*.sql")
	if err != nil || len(scripts) == 0 {
		h.t.Fatal("no scripts", err)
	}
	printed := func(d door) string {
		h.sql("postgres", "DROP DATABASE drivers WITH (FORCE)")
		h.sql("postgres", "CREATE DATABASE drivers")
		dir := h.t.TempDir()
		var all strings.Builder
		for _, script := range scripts {
			text, err := os.ReadFile(script)
			if err != nil {
				h.t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(h.bin, "psql"), "-X", "-v", "VERBOSITY=verbose")
			var out, errs strings.Builder
			cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, d.env(""), strings.NewReader(string(text)), &out, &errs
			if err := cmd.Run(); err != nil {
				errs.WriteString(err.Error())
			}
			fmt.Fprintf(&all, "==== %s\n%s---- stderr\n%s", filepath.Base(script), out.String(), errs.String())
		}
		return clockAndPID.ReplaceAllString(all.String(), "$1$2…")
	}
	same(h.t, printed(h.directly()), printed(h.native()))
}

func (h *clientsHouse) tool(d door, name string, args ...string) string {
	h.t.Helper()
	cmd := exec.Command(filepath.Join(h.bin, name), args...)
	cmd.Env = d.env("")
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %q: %v\n%.3000s", name, args, err, out)
	}
	return string(out)
}

// pipelined is a script for pgbench -M extended.
const pipelined = `\set n random(1, 10000)
\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :n;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :n;
SELECT abalance FROM pgbench_accounts WHERE aid = :n;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :n, 1, now());
\endpipeline
`

func (h *clientsHouse) pgbench() {
	script := filepath.Join(h.t.TempDir(), "pipelined.sql")
	if err := os.WriteFile(script, []byte(pipelined), 0o600); err != nil {
		h.t.Fatal(err)
	}
	for _, open := range []func() door{h.forward, h.native} {
		d := open()
		h.tool(d, "pgbench", "-i", "-s", "1", "-q")
		count := func(ran int, args ...string) {
			out := h.tool(d, "pgbench", append([]string{"-n", "-c", "4", "-j", "2"}, args...)...)
			if want := "processed: " + strconv.Itoa(ran) + "/" + strconv.Itoa(ran); !strings.Contains(out, want) || strings.Contains(out, "ERROR") {
				h.t.Errorf("pgbench %q: no %q in\n%s", args, want, out)
			}
		}
		for _, mode := range []string{"simple", "extended", "prepared"} {
			count(80, "-M", mode, "-t", "20")
			count(200, "-M", mode, "-t", "50", "-S")
		}
		count(80, "-M", "extended", "-t", "20", "-f", script)
		count(80, "-M", "prepared", "-t", "20", "-f", script)
		if rows := h.sql("drivers", "SELECT count(*) FROM pgbench_history"); string(rows[0][0]) != "400" {
			h.t.Errorf("%s transactions are in the history, 400 were reported", rows[0][0])
		}
		d.stop()
	}
}

// restrictKey is pg_dump's random word of each dump.
var restrictKey = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

// dumpAndRestore copies a database through the broker, with two jobs each way.
// It has no large objects: pg_dump reads them by FunctionCall, which is refused.
func (h *clientsHouse) dumpAndRestore() {
	h.sql("postgres", "DROP DATABASE drivers WITH (FORCE)")
	h.sql("postgres", "CREATE DATABASE drivers")
	h.sql("drivers", clientsTables+`
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE wide (id bigserial PRIMARY KEY, m mood, t text, b bytea, j jsonb, a int[], made timestamptz DEFAULT '2024-01-01');
INSERT INTO wide (m, t, b, j, a) SELECT 'ok', repeat('ü', i % 200), decode(md5(i::text), 'hex'), jsonb_build_object('i', i), ARRAY[i, NULL] FROM generate_series(1, 5000) i;
CREATE INDEX ON wide (t); CREATE VIEW v AS SELECT id, t FROM wide; CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM wide;
CREATE TABLE part (a int, b text) PARTITION BY RANGE (a); CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (100);
INSERT INTO part SELECT i, 'p' FROM generate_series(1, 50) i;
CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a'; CREATE SEQUENCE s START 42;`)
	h.sql("drivers", "DROP TABLE forbidden, held")
	for _, open := range []func() door{h.forward, h.native} {
		d := open()
		dir := filepath.Join(h.t.TempDir(), "dump")
		h.sql("postgres", "DROP DATABASE IF EXISTS restored WITH (FORCE)")
		h.sql("postgres", "CREATE DATABASE restored")
		h.tool(d, "pg_dump", "-Fd", "-j2", "-f", dir)
		h.tool(d, "pg_restore", "-j2", "--exit-on-error", "-d", "restored", dir)
		whole := func(database string) string {
			return restrictKey.ReplaceAllString(h.tool(h.directly(), "pg_dump", "-d", database), "")
		}
		same(h.t, whole("drivers"), whole("restored"))
		d.stop()
	}
}
