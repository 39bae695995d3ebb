package postgres

import (
	"context"
	"database/sql"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"
)

func TestPsqlTalksThroughTheRoom(t *testing.T) {
	h := newHouse(t, nil)
	out, stderr, err := h.psql("SELECT 1 AS one, 'x' AS two;\n\\conninfo\nSELECT n FROM generate_series(1,5) n;\nselect bad;\nSELECT 2;\n")
	if err != nil {
		t.Fatalf("psql: %v\n%s\n%s", err, out, stderr)
	}
	if !strings.HasPrefix(out, "1|x\n") || !strings.Contains(out, "1\n2\n3\n4\n5\n2\n") {
		t.Errorf("psql printed\n%s", out)
	}
	if !strings.Contains(stderr, `ERROR:  42703: column "bad" does not exist`) {
		t.Errorf("psql complained\n%s", stderr)
	}
}

func TestPgxSpeaksEveryMode(t *testing.T) {
	h := newHouse(t, nil)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			config, err := pgx.ParseConfig(h.url())
			if err != nil {
				t.Fatal(err)
			}
			config.DefaultQueryExecMode = mode
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			for i := range 3 {
				var n int
				var s string
				if err := conn.QueryRow(t.Context(), "SELECT $1::int + 1, $2::text", i, "héllo").Scan(&n, &s); err != nil || n != i+1 || s != "héllo" {
					t.Fatalf("%d %q %v", n, s, err)
				}
			}
			if _, err := conn.Exec(t.Context(), "SELECT 1/$1::int", 0); pgErrorOf(t, err).Code != "22012" {
				t.Errorf("division: %v", err)
			}
			b := &pgx.Batch{}
			for i := range 10 {
				b.Queue("SELECT $1::int", i)
			}
			results := conn.SendBatch(t.Context(), b)
			for i := range 10 {
				var n int
				if err := results.QueryRow().Scan(&n); err != nil || n != i {
					t.Fatalf("batch %d: %d %v", i, n, err)
				}
			}
			if err := results.Close(); err != nil {
				t.Fatal(err)
			}
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "CREATE TEMP TABLE tmp ON COMMIT DROP AS SELECT 1 a"); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLibPQ(t *testing.T) {
	h := newHouse(t, nil)
	db, err := sql.Open("postgres", h.url())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stmt, err := db.Prepare("SELECT $1::text || 'x'")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var s string
		if err := stmt.QueryRow("y").Scan(&s); err != nil || s != "yx" {
			t.Fatal(s, err)
		}
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("SELECT nonsense"); err == nil {
		t.Error("no error")
	}
	if _, err := tx.Exec("SELECT 1"); err == nil || !strings.Contains(err.Error(), "aborted") {
		t.Errorf("in a failed transaction: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
}

func TestPgbench(t *testing.T) {
	h := newHouse(t, nil)
	bench := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(h.target.server.BinDir, "pgbench"), append(args, h.url())...)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "ERROR") {
			t.Fatalf("pgbench %q: %v\n%s", args, err, out)
		}
	}
	bench("-i", "-s", "1", "-q")
	for _, mode := range []string{"simple", "extended", "prepared"} {
		bench("-n", "-M", mode, "-c", "4", "-t", "50")
		bench("-n", "-M", mode, "-S", "-c", "4", "-t", "100")
	}
}
