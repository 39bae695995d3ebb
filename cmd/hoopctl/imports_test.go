package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hoopctl/hoopctl/"

// edge lets packages of ours import others of ours. Both sides are patterns:
// "server/..." is the folder and everything below it.
type edge struct {
	from, to string
	why      string
}

// allowed are the only imports between packages of ours.
var allowed = []edge{
	{"policy/...", "policy/...", "policy decides for itself: it reads no clock, socket or file, and knows no room"},

	{"client/...", "server/api", "the contract in words: what client and server say to each other"},
	{"client/...", "server/tunnel", "the contract in bytes: both halves of a tunnel connection"},
	{"client/...", "policy", "plain types that stand in answers: facts, principals"},

	{"server/api", "policy", "answers hold facts and principals; types only"},
	{"server/...", "server/api", "the contract in words: errors, events and objects have one shape"},
	{"server/...", "policy/...", "rooms put the verdicts of policy into force"},
	{"server/postgres/...", "server/session", "a protocol asks the gate of the session that it serves"},
	{"server", "server/...", "package server alone knows every room and joins them"},

	{"cmd/hoopctl", "client/...", "cmd wires: the client's verbs"},
	{"cmd/hoopctl", "server", "cmd wires: hoopctl server and hoopctl dev"},
	{"cmd/hoopctl", "server/api", "cmd prints what the server says"},
	{"cmd/hoopctl", "server/evidence", "audit verify and replay run where the reader is, not in the server"},
	{"cmd/hoopctl", "server/parser", "this binary is also the parser's child"},
	{"cmd/hoopctl", "server/devidp", "hoopctl dev's provider, and dev login, which answers its page"},
	{"cmd/hoopctl", "policy/...", "targets that dev writes; policy test and replay run in the client"},
	{"cmd/hoopctl/...", "cmd/hoopctl/...", "cmd's own parts"},
}

// only are libraries that belong to some packages alone.
var only = []struct {
	library string
	in      []string
	why     string
}{
	{"github.com/spf13/cobra", []string{"cmd/hoopctl"}, "flags and verbs are wiring"},
	{"github.com/spf13/viper", []string{"cmd/hoopctl"}, "settings are wiring"},
	{"github.com/pkg/browser", []string{"cmd/hoopctl"}, "whoever opens a browser is told so by cmd"},
	{"github.com/charmbracelet/...", []string{"client/tui"}, "screens are one room"},
	{"github.com/jackc/pgproto3/v2", []string{"server/postgres"}, "encode only: its decoders panic on hostile lengths (see the ADR)"},
	{"github.com/cedar-policy/...", []string{"policy"}, "one place knows the policy engine"},
	{"github.com/wasilibs/go-pgquery/...", []string{"policy/sql"}, "one place knows the SQL grammar, and runs in a child"},
	{"github.com/pganalyze/pg_query_go/...", []string{"policy/sql"}, "one place knows the SQL grammar, and runs in a child"},
	{"github.com/jackc/pgx/v5", []string{"server/store", "client/exec"}, "databases of ours and for scripts"},
	{"github.com/jackc/pgx/v5/pgconn/...", []string{"server/store", "client/exec", "server/postgres"}, "server/postgres logs in to targets with it"},
	{"github.com/jackc/pgx/v5/pgproto3", []string{"client/exec"}, "exec's own extended protocol, towards our own server"},
}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Imports    []string
}

// packages lists ours for every system that is released, without tests.
func packages(t *testing.T) []listed {
	t.Helper()
	var all []listed
	for _, system := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
		cmd.Env = append(cmd.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		d := json.NewDecoder(strings.NewReader(string(out)))
		for {
			var p listed
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

// matches says whether a pattern covers a path.
func matches(pattern, path string) bool {
	folder, below := strings.CutSuffix(pattern, "/...")
	return path == pattern || below && (path == folder || strings.HasPrefix(path, folder+"/"))
}

// support are packages that only tests import; they may import what they like.
func support(path string) bool {
	return strings.HasSuffix(path, "test") || strings.HasPrefix(path, ".ci") || strings.HasPrefix(path, "testdata")
}

func TestImportsBetweenRooms(t *testing.T) {
	used := map[int]bool{}
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		if support(from) {
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			i := slices.IndexFunc(allowed, func(e edge) bool { return matches(e.from, from) && matches(e.to, to) })
			if i < 0 {
				t.Errorf("%s imports %s: no rule lets it. Rooms meet through small interfaces that the consumer declares, and package server joins them.", from, to)
				continue
			}
			used[i] = true
			if support(to) {
				t.Errorf("%s imports %s, which is for tests", from, to)
			}
		}
	}
	for i, e := range allowed {
		if !used[i] {
			t.Errorf("nobody needs the rule %s -> %s any more (%s)", e.from, e.to, e.why)
		}
	}
}

func TestImportsOfLibraries(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		if support(from) {
			continue
		}
		for _, imp := range p.Imports {
			for _, o := range only {
				if matches(o.library, imp) && !slices.Contains(o.in, from) {
					t.Errorf("%s imports %s, which belongs to %s: %s", from, imp, strings.Join(o.in, " and "), o.why)
				}
			}
		}
	}
}

// The rules themselves are tested: a rule that lets everything pass proves nothing.
func TestImportRulesRefuse(t *testing.T) {
	lets := func(from, to string) bool {
		return slices.ContainsFunc(allowed, func(e edge) bool { return matches(e.from, from) && matches(e.to, to) })
	}
	for _, bad := range [][2]string{
		{"policy", "server/api"}, {"policy/sql", "client"}, {"client", "server"}, {"client", "server/session"}, {"client/forward", "policy/mask"},
		{"server/grant", "server/approval"}, {"server/session", "server/postgres"}, {"server/postgres", "server/target"}, {"server/store", "server"},
		{"server/evidence", "client"}, {"client/exec", "cmd/hoopctl"}, {"cmd/hoopctl", "server/postgres"}, {"server/api", "server/tunnel"},
	} {
		if lets(bad[0], bad[1]) {
			t.Errorf("%s may import %s", bad[0], bad[1])
		}
	}
}
