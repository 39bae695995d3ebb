package exec_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hoopctl/hoopctl/client/exec"
)

func TestSplit(t *testing.T) {
	for script, want := range map[string][]string{
		"":                         nil,
		" ;; -- nothing\n/* ; */ ": nil,
		"select 1":                 {"select 1"},
		"select 1; select 2;":      {"select 1", "select 2"},
		"select ';'; select 2":     {"select ';'", "select 2"},
		`select E'\';'; select 2`:  {`select E'\';'`, "select 2"},
		`select '\'; select 2`:     {`select '\'`, "select 2"},
		`select ''';'''; x`:        {`select ''';'''`, "x"},
		`select "a;b"; x`:          {`select "a;b"`, "x"},
		"do $$ begin; end $$; x":   {"do $$ begin; end $$", "x"},
		"do $a$ ; $$ ; $a$; x":     {"do $a$ ; $$ ; $a$", "x"},
		"select $1; x":             {"select $1", "x"},
		"/* ; /* ; */ ; */ a; b":   {"/* ; /* ; */ ; */ a", "b"},
		"-- ;\na; b":               {"-- ;\na", "b"},
		"create rule r as on insert to t do (a; b); c": {"create rule r as on insert to t do (a; b)", "c"},
		"create function f() returns int begin atomic select case when true then 1 end; select 2; end; x": {
			"create function f() returns int begin atomic select case when true then 1 end; select 2; end", "x"},
		"begin; update t set a = 1; end; x": {"begin", "update t set a = 1", "end", "x"},
		"select 'never ends; x":             {"select 'never ends; x"},
		"select $$never ends; x":            {"select $$never ends; x"},
		"/* never ends; x":                  nil,
	} {
		if got := exec.Split(script); !slices.Equal(got, want) {
			t.Errorf("%q:\n%q\nwant\n%q", script, got, want)
		}
	}
}

// Whatever the text: splitting ends, loses nothing but separators, space and
// comments, and splitting the pieces again changes nothing.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"select 1; select 2", "e'\\", "$a$;$a$;", "/*/**/;", "begin atomic case;end;end;x", "((;)[;]", "\"a\"\"", "$", "é;é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		at := 0
		for _, s := range exec.Split(script) {
			i := strings.Index(script[at:], s)
			if i < 0 {
				t.Fatalf("%q is not in the rest of %q", s, script)
			}
			at += i + len(s)
			if again := exec.Split(s); len(again) != 1 || again[0] != s {
				t.Fatalf("%q splits again into %q", s, again)
			}
		}
	})
}
