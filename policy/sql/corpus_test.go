package sql

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
)

var update = flag.Bool("update", false, "rewrite what testdata/sql expects; then read the difference")

// The corpus: testdata/sql/*.sql. A text ends with a line that ends in a
// semicolon. Behind it, each line "--> …" says what is found in one statement.
const corpusDir = "../../testdata/sql"

type corpusText struct {
	file string
	line int
	text string
	want []string
}

func corpus(t testing.TB) []corpusText {
	t.Helper()
	files, err := filepath.Glob(corpusDir + "/*.sql")
	if err != nil || len(files) < 10 {
		t.Fatalf("no corpus in %s: %v", corpusDir, err)
	}
	var out []corpusText
	for _, f := range files {
		out = append(out, corpusFile(t, f)...)
	}
	return out
}

func corpusFile(t testing.TB, path string) []corpusText {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []corpusText
	var now []string
	start := 0
	for i, line := range strings.Split(string(data), "\n") {
		if i == 0 {
			continue // what the file is about
		}
		if want, ok := strings.CutPrefix(line, "--> "); ok {
			last := &out[len(out)-1]
			last.want = append(last.want, want)
			continue
		}
		if now == nil {
			start = i + 1
		}
		now = append(now, line)
		if strings.HasSuffix(line, ";") {
			out = append(out, corpusText{filepath.Base(path), start, strings.Join(now, "\n"), nil})
			now = nil
		}
	}
	return out
}

var testGrammar = sync.OnceValues(func() (*worker, error) {
	dir := ""
	if base, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(base, "hoopctl", "test-parser")
	}
	g, err := newGrammar(dir)
	return &worker{grammar: g}, err
})

// grammarForTest is one real grammar for all tests of the package, which do
// not run in parallel.
func grammarForTest(t testing.TB) *worker {
	t.Helper()
	w, err := testGrammar()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// describe is facts in the corpus's words.
func describe(f *policy.Facts) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", orDash(f.Kind), f.Class)
	if f.Command != f.Kind {
		fmt.Fprintf(&b, " in %s", f.Command)
	}
	list := func(word string, items []string) {
		if len(items) > 0 {
			fmt.Fprintf(&b, "; %s %s", word, strings.Join(short(items), " "))
		}
	}
	switch f.Kind {
	case "UPDATE", "DELETE", "MERGE":
		b.WriteString(map[bool]string{true: "; where", false: "; NO WHERE"}[f.HasWhere])
	}
	list("tables", f.Tables)
	list("reads", f.Columns)
	list("tests", f.PredicateColumns)
	list("sets", f.WriteColumns)
	list("calls", f.Functions)
	for _, flag := range []struct {
		on   bool
		word string
	}{{f.Aggregates, "folds"}, {f.Lock, "locks"}, {!f.LiteralFree, "literal"}} {
		if flag.on {
			b.WriteString("; " + flag.word)
		}
	}
	for _, v := range [][2]string{{"setting", f.Setting}, {"value", f.SettingValue}, {"prepared", f.Prepared}, {"cursor", f.Cursor}, {"transaction", f.Transaction}} {
		if v[1] != "" {
			fmt.Fprintf(&b, "; %s %s", v[0], v[1])
		}
	}
	if f.Limit != nil {
		fmt.Fprintf(&b, "; limit %d", *f.Limit)
	}
	if c := f.Copy; c != nil {
		fmt.Fprintf(&b, "; copy from=%t %s %s", c.From, c.Where, c.Format)
	}
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short leaves out what most names begin with.
func short(items []string) []string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = strings.TrimPrefix(strings.TrimPrefix(s, "public."), "pg_catalog.")
		if out[i] != s && strings.HasPrefix(s, "pg_catalog.") && strings.Count(s, ".") > 1 {
			out[i] = s
		}
	}
	return out
}

func found(t testing.TB, text string) []string {
	t.Helper()
	facts, _, err := grammarForTest(t).read(text)
	var syntax *SyntaxError
	switch {
	case errors.As(err, &syntax):
		return []string{"REFUSED " + syntax.Error()}
	case err != nil:
		return []string{"FAILED " + err.Error()}
	}
	var out []string
	for _, f := range facts {
		out = append(out, describe(f))
	}
	return out
}

func TestCorpus(t *testing.T) {
	files := make(map[string]*bytes.Buffer)
	texts := corpus(t)
	if len(texts) < 400 {
		t.Errorf("%d texts are no corpus", len(texts))
	}
	for _, c := range texts {
		got := found(t, c.text)
		if *update {
			if files[c.file] == nil {
				files[c.file] = &bytes.Buffer{}
			}
			fmt.Fprintf(files[c.file], "%s\n--> %s\n", c.text, strings.Join(got, "\n--> "))
			continue
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s:%d: %s\n got %s\nwant %s", c.file, c.line, c.text, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
	}
	for name, b := range files {
		path := filepath.Join(corpusDir, name)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := bytes.Cut(old, []byte("\n"))
		if err := os.WriteFile(path, append(append(head, '\n'), b.Bytes()...), 0o644); err != nil { //nolint:gosec // a test's data
			t.Fatal(err)
		}
	}
}
