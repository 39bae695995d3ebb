package devdata

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// load parses all files of a folder.
func load(t *testing.T, fsys fs.FS, dir string) []policy.Resource {
	t.Helper()
	files, err := fs.Glob(fsys, dir+"/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	var all []policy.Resource
	for _, f := range files {
		if policy.IsCases(f) {
			continue
		}
		b, err := fs.ReadFile(fsys, f)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := policy.ParseResources(f, b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rs...)
	}
	return all
}

// devTargets are the targets as `hoopctl dev` adds them.
const devTargets = `
kind: Target
metadata: {name: clinic, labels: {suite: clinic, env: dev, data: phi}}
spec: {protocol: postgres, address: "127.0.0.1:5432", database: clinic, credentials: {username: clinic, passwordFrom: {file: pw}}}
`

func compile(t *testing.T, rs []policy.Resource) *policy.Set {
	t.Helper()
	set, err := policy.Compile(rs)
	if err != nil {
		t.Fatal(err)
	}
	if w := set.Warnings(); len(w) > 1 { // env=prod, until there is such a target
		t.Errorf("warnings:\n%s", w.Error())
	}
	return set
}

func TestDevRules(t *testing.T) {
	targets, err := policy.ParseResources("targets.yaml", []byte(devTargets))
	if err != nil {
		t.Fatal(err)
	}
	// dev may load the rules before its targets, or at once.
	compile(t, load(t, FS, "."))
	set := compile(t, append(load(t, FS, "."), targets...))
	runCases(t, set, filepath.Join("..", "..", "..", "testdata", "policy", "dev.yaml"))
}

func TestHIPAAStarterSet(t *testing.T) {
	set := compile(t, load(t, FS, "hipaa"))
	runCases(t, set, filepath.Join("hipaa", "hipaa.cases.yaml"))
}

// The cases of starter hold SQL: the story policy-test decides them.
func TestStarterSetCompiles(t *testing.T) {
	compile(t, load(t, FS, "starter"))
}

func runCases(t *testing.T, set *policy.Set, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	results, err := policy.RunCases(set, filepath.Base(file), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			for _, w := range r.Wrong {
				t.Errorf("%s:%d: %s", filepath.Base(file), r.Line, w)
			}
		})
	}
}

// The list of the billing service is fingerprints; the comment above it says
// of what, and must not drift from them.
func TestBillingStatements(t *testing.T) {
	b, err := FS.ReadFile("services.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^  #   (.+)$`).FindAllStringSubmatch(string(b), -1) {
		want = append(want, sql.Fingerprint(sql.Shape(m[1])))
	}
	for _, r := range load(t, FS, ".") {
		if s, ok := r.Spec.(*policy.ServiceSpec); ok {
			if got := strings.Join(s.Statements, "\n"); len(want) == 0 || got != strings.Join(want, "\n") {
				t.Errorf("the statements are\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
		}
	}
}
