package postgres

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

// psqlScripts are run by psql, whose output is compared.
const psqlScripts = "../../testdata/sql/differential/*.sql"

// volatileOutput differs between any two runs: whose process it was, and the
// time of day above a result of \watch.
var volatileOutput = regexp.MustCompile(`(server process with PID )\d+|(?m)^.*( \(every 0\.01s\))$`)

// runScripts gives each script to a psql of its own, in one database and one
// folder, and returns what each printed: stdout, then stderr.
func runScripts(t *testing.T, scripts []string, psql, url string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	printed := map[string]string{}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		cmd := exec.CommandContext(t.Context(), psql, "-X", "-v", "VERBOSITY=verbose", "-d", url)
		cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(string(text)), &out, &errs
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C.UTF-8", "PAGER=cat", "PSQL_HISTORY=/dev/null"}
		if err := cmd.Run(); err != nil {
			errs.WriteString("psql: " + err.Error() + "\n")
		}
		printed[filepath.Base(script)] = volatileOutput.ReplaceAllString(out.String()+"---- stderr\n"+errs.String(), "$1$2…")
	}
	return printed
}

// firstDifference shows where two texts part, with the lines before.
func firstDifference(direct, through string) string {
	a, b := strings.Split(direct, "\n"), strings.Split(through, "\n")
	for i := 0; i < len(a) || i < len(b); i++ {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			show := func(lines []string) string {
				return strings.Join(lines[min(max(0, i-3), len(lines)):min(i+4, len(lines))], "\n")
			}
			return "direct:\n" + show(a) + "\n\nthrough the room:\n" + show(b)
		}
	}
	return "no difference"
}

// Whatever psql is told to do, it prints the same bytes with the room between
// it and PostgreSQL, if nothing is refused and nothing masked.
func TestDifferential(t *testing.T) {
	scripts, err := filepath.Glob(psqlScripts)
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, version := range []string{"system", "18"} {
		t.Run(version, func(t *testing.T) {
			if version == "18" {
				pgtest.Use18(t)
			}
			h := newHouse(t, nil)
			server := h.target.server
			h.target.info.Database = "twin"
			run := func(url string) map[string]string {
				server.Exec(t, "postgres", "CREATE DATABASE twin") // of one name: psql prints it
				defer server.Exec(t, "postgres", "DROP DATABASE twin WITH (FORCE)")
				return runScripts(t, scripts, filepath.Join(server.BinDir, "psql"), url)
			}
			direct, through := run(server.DatabaseURL("twin")), run(h.url())
			for _, script := range scripts {
				name := filepath.Base(script)
				t.Run(name, func(t *testing.T) {
					if direct[name] != through[name] {
						t.Error(firstDifference(direct[name], through[name]))
					}
					if dir := os.Getenv("HOOPCTL_DIFFERENTIAL_DIR"); dir != "" { // to look at what was compared
						os.WriteFile(filepath.Join(dir, version+"-"+name+".direct"), []byte(direct[name]), 0o644)
						os.WriteFile(filepath.Join(dir, version+"-"+name+".through"), []byte(through[name]), 0o644)
					}
				})
			}
		})
	}
}

// A syntax error is told before PostgreSQL is asked, in its words and at its place.
func TestSyntaxErrors(t *testing.T) {
	h := newHouse(t, nil)
	through := h.connect()
	direct, err := pgconn.Connect(t.Context(), h.target.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(context.Background())
	for text, inItsWords := range map[string]bool{
		"SELEC 1": true, "SELECT 1 FROM": true, "SELECT (1": true, "SELECT 'ünï', 1 1 1": true, "INSERT INTO t": true, "SELECT 1 2; SELECT 1": true, "\xc3\xa9 1": true,
		"SELECT U&'\\zzzz'": true, "SELECT E'\\xff'": true, "SELECT 'x": false, "SELECT $$x": false, "SELECT \"x": false, "SELECT /* x": false, // the lexer's before the grammar
	} {
		want := pgErrorOf(t, direct.Exec(t.Context(), text).Close())
		got := pgErrorOf(t, through.Exec(t.Context(), text).Close())
		if got.Code != want.Code || inItsWords && got.Message != "hoopctl: "+want.Message || got.Position != want.Position || got.Severity != want.Severity {
			t.Errorf("%s\n%s %s %q at %d\nwant\n%s %s %q at %d", text, got.Severity, got.Code, got.Message, got.Position, want.Severity, want.Code, want.Message, want.Position)
		}
		if err := through.Exec(t.Context(), "SELECT 1").Close(); err != nil {
			t.Errorf("after %s: %v", text, err)
		}
	}
}
