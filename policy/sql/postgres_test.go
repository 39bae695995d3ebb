package sql

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/lib/pq"

	"github.com/hoopctl/hoopctl/policy"
)

// binaries is where Debian and its kin keep the server's programs.
const binaries = "/usr/lib/postgresql/15/bin"

// postgres starts a server of its own for one test and returns where it is.
// As root it runs as the user postgres, which PostgreSQL insists upon.
func postgres(t *testing.T) (dsn, dir string, run func(name string, args ...string) []byte) {
	t.Helper()
	if _, err := os.Stat(binaries); err != nil {
		t.Skipf("no PostgreSQL 15 in %s (Debian: apt-get install postgresql-15)", binaries)
	}
	dir, err := os.MkdirTemp("", "hoopctl-sql-") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	run = func(name string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(filepath.Join(binaries, name), args...) //nolint:gosec // a test's own
		cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "HOME=" + dir}
		cmd.Dir = dir
		asPostgres(t, cmd, dir)
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			errors.As(err, &exit)
			t.Fatalf("%s: %v %s", name, err, exit.Stderr)
		}
		return out
	}
	port := freePort(t)
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N")
	run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"),
		"-o", fmt.Sprintf("-p %d -k %s -c listen_addresses=127.0.0.1 -c fsync=off -c max_prepared_transactions=0", port, dir), "start")
	t.Cleanup(func() { run("pg_ctl", "-D", data, "-m", "immediate", "stop") })
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", port), dir, run
}

func asPostgres(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skip("root, and no user postgres to run a server as")
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}} //nolint:gosec // a user's number
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it listens on TCP
}

func connect(t *testing.T, dsn string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

const clinic = `
CREATE TABLE patients (id int PRIMARY KEY, name text, ssn text UNIQUE, email text, phone text, dob date, mrn text, zip text, diagnosis text, notes text);
CREATE TABLE visits (id int PRIMARY KEY, patient_id int, doctor_id int, at timestamptz, ssn text, fee numeric, name text);
CREATE TABLE doctors (id int PRIMARY KEY, name text, city text);
CREATE UNIQUE INDEX ON doctors (lower(name)) WHERE city = 'x';
CREATE TABLE "Patients" ("ID" int); CREATE TABLE t3 (x text); CREATE TABLE alembic_version (version_num text);
CREATE SEQUENCE s; CREATE SCHEMA app;
CREATE TYPE f_type AS (f int); CREATE TABLE arrays (id int, a int[], c f_type);
INSERT INTO patients SELECT i, 'n' || i, 's' || i, 'e', 'p', date '1980-01-01' + i, 'm', 'z', 'd', 'x' FROM generate_series(1, 50) i;
INSERT INTO visits SELECT i, i, i, now(), 's' || i, i, 'n' FROM generate_series(1, 50) i;
INSERT INTO doctors SELECT i, 'd' || i, 'c' FROM generate_series(1, 5) i;
CREATE FUNCTION my_function(int) RETURNS int LANGUAGE sql AS 'DELETE FROM doctors; SELECT 1';
CREATE FUNCTION my_function(text) RETURNS bool LANGUAGE sql AS 'DELETE FROM doctors; SELECT true';
CREATE FUNCTION my_report(int) RETURNS SETOF int LANGUAGE sql AS 'DELETE FROM doctors; SELECT 1';
CREATE FUNCTION app.my_function(int) RETURNS int LANGUAGE sql AS 'DELETE FROM doctors; SELECT 1';
`

func scratch(t *testing.T) (*sql.Conn, func(string, ...string) []byte, string) {
	t.Helper()
	dsn, _, run := postgres(t)
	c := connect(t, dsn)
	if _, err := c.ExecContext(t.Context(), clinic); err != nil {
		t.Fatal(err)
	}
	return c, run, dsn
}

func sqlState(err error) string {
	var e *pq.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// TestAgreesWithPostgreSQL prepares every statement of the corpus on a real
// server: what its grammar refuses ours must refuse too, and the other way
// round but for what is listed.
func TestAgreesWithPostgreSQL(t *testing.T) {
	c, _, _ := scratch(t)
	stricter := map[string]string{
		"SELECT 'a'\n-- comment; between\n'b; c'": "libpg_query makes tokens of comments, and so refuses one inside a literal's continuation",
	}
	for _, x := range corpus(t) {
		if x.file == "newer.sql" {
			continue
		}
		for _, r := range Split(x.text) {
			text := x.text[r.Start:r.End]
			_, _, ours := grammarForTest(t).read(text)
			st, theirs := c.PrepareContext(t.Context(), ";"+text) // lib/pq keeps COPY to itself if it sees it
			if st != nil {
				_ = st.Close()
			}
			refused := syntaxState(sqlState(theirs))
			var e *SyntaxError
			if errors.As(ours, &e) != refused && stricter[text] == "" {
				t.Errorf("%s:%d: %s\nours: %v\nPostgreSQL: %v", x.file, x.line, text, ours, theirs)
			}
		}
	}
}

// syntaxState reports whether a SQLSTATE is the grammar's: 42601, and what the
// scanner says of escapes and identifiers. 42601 is also how the analyser words
// some errors; the corpus has none of those.
func syntaxState(s string) bool {
	switch s {
	case "42601", "22025", "42602":
		return true
	}
	return false
}

// TestReadsDoNotWrite holds the rule that nothing of class read writes: each
// such statement of the corpus runs in a READ ONLY transaction, where
// PostgreSQL itself refuses writes with 25006, and leaves no trace in a dump.
func TestReadsDoNotWrite(t *testing.T) {
	c, run, dsn := scratch(t)
	restrict := regexp.MustCompile(`(?m)^\\(un)?restrict .*$`) // a random word of each dump's own
	dump := func() []byte { return restrict.ReplaceAll(run("pg_dump", "-d", dsn), nil) }
	before := dump()
	ran := 0
	for _, x := range corpus(t) {
		facts, _, err := grammarForTest(t).read(x.text)
		if err != nil || worstClass(facts) != policy.Read {
			continue
		}
		for _, f := range facts {
			text := x.text[f.Start:f.End]
			ran++
			if s := readOnly(t, c, f, text); s == "25006" {
				t.Errorf("%s:%d: class read, but PostgreSQL will not run it in a read-only transaction: %s", x.file, x.line, text)
			}
		}
	}
	if ran < 150 {
		t.Errorf("only %d statements of class read ran", ran)
	}
	if after := dump(); !bytes.Equal(before, after) {
		t.Error("the database was changed by statements of class read")
	}
}

func worstClass(facts []*policy.Facts) policy.Class {
	c := policy.Read
	for _, f := range facts {
		c = policy.Stricter(c, f.Class)
	}
	return c
}

// readOnly runs one statement as itself in a read-only transaction. What ends
// transactions or sets them runs outside one.
func readOnly(t *testing.T, c *sql.Conn, f *policy.Facts, text string) string {
	t.Helper()
	do := func(q string) error { _, err := c.ExecContext(t.Context(), q); return err }
	defer func() { _ = do("ROLLBACK"); _ = do("DISCARD ALL") }()
	if err := do("SET statement_timeout = '3s'"); err != nil { // the corpus has an endless recursion
		t.Fatal(err)
	}
	if f.Transaction == "" && f.Command != "DISCARD ALL" && f.Command != "SET" {
		if err := do("BEGIN READ ONLY"); err != nil {
			t.Fatal(err)
		}
	}
	return sqlState(do(strings.ReplaceAll(strings.ReplaceAll(text, "$1", "NULL"), "$2", "NULL")))
}

// TestBuiltinsAgainstPgProc holds functions.txt against a real catalogue: a
// name that stands under a reading heading must not be VOLATILE there, but for
// those that were read one by one; no function that takes or gives internals
// can be called; and every aggregate and window function is known as one.
func TestBuiltinsAgainstPgProc(t *testing.T) {
	c, _, _ := scratch(t)
	rows, err := c.QueryContext(t.Context(), `SELECT proname, bool_or(provolatile = 'v'), bool_or(prokind = 'a') FROM pg_catalog.pg_proc
		WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	reviewed := strings.Fields(reviewedVolatile)
	n := 0
	for rows.Next() {
		var name string
		var volatile, agg bool
		if err := rows.Scan(&name, &volatile, &agg); err != nil {
			t.Fatal(err)
		}
		n++
		e := named([]string{name}).effect
		if volatile && e.class() == policy.Read && !slices.Contains(reviewed, name) {
			t.Errorf("%s is VOLATILE and stands among what only reads", name)
		}
		if agg && e != aggregate {
			t.Errorf("%s is an aggregate and is not listed as one", name)
		}
		if volatile && e == pure {
			t.Errorf("%s is VOLATILE and stands among the pure", name)
		}
	}
	if err := rows.Err(); err != nil || n < 2000 {
		t.Fatalf("read %d functions: %v", n, err)
	}
}

// reviewedVolatile are VOLATILE by pg_proc and only read: the clock, random
// numbers, sizes, statistics; setseed and pg_advisory_unlock_all change what
// is the session's own.
const reviewedVolatile = `clock_timestamp current_query currval gen_random_uuid lastval pg_advisory_unlock_all pg_blocking_pids pg_collation_actual_version
 pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn
 pg_database_collation_actual_version pg_database_size pg_get_backend_memory_contexts pg_get_multixact_members pg_get_shmem_allocations
 pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused pg_isolation_test_session_is_blocked
 pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status
 pg_notification_queue_usage pg_partition_ancestors pg_partition_tree pg_prepared_xact pg_relation_size pg_safe_snapshot_blocking_pids
 pg_sequence_last_value pg_sleep pg_sleep_for pg_sleep_until pg_stat_clear_snapshot pg_stat_force_next_flush pg_stat_get_recovery_prefetch
 pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time
 pg_stat_get_xact_function_total_time pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched
 pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_returned pg_stat_get_xact_tuples_updated pg_stat_have_stats
 pg_table_size pg_tablespace_size pg_total_relation_size pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status random setseed timeofday
 txid_status pg_export_snapshot`
