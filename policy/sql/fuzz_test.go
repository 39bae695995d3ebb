package sql

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hoopctl/hoopctl/policy"
)

func seed(f *testing.F) {
	f.Helper()
	for _, c := range corpus(f) {
		f.Add(c.text)
	}
	for _, s := range []string{"", ";", "/*", "$$", "'", "\"", "E'\\", "U&'", "1..2", "a$b$c", "$1$2", "\x00", "\xff", "--\r;", "((((", "))))", "CASE END END", "x.case.end"} {
		f.Add(s)
	}
}

// FuzzLexer: whatever it is fed, the lexer advances, covers the text, and its
// readers agree with each other.
func FuzzLexer(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		l := lexer{src: text}
		at := 0
		for {
			tok := l.next()
			if tok.kind == kEOF {
				break
			}
			if tok.start < at || tok.end <= tok.start || tok.end > len(text) {
				t.Fatalf("a token from %d to %d behind %d", tok.start, tok.end, at)
			}
			if between := text[at:tok.start]; utf8.ValidString(text) && tok.kind != kBad && strings.TrimLeft(between, " \t\n\r\f\v") != "" && !strings.Contains(between, "--") && !strings.Contains(between, "/*") {
				t.Fatalf("%q was skipped", between)
			}
			at = tok.end
		}
		r, err := Read(text, nil, nil)
		if gate := Gate(text); (gate == nil) != (err == nil) {
			t.Fatalf("Gate says %v, Read %v", gate, err)
		}
		if err != nil {
			return
		}
		if s := Split(text); len(s) != len(r.Statements) {
			t.Fatalf("Split finds %d statements, Read %d", len(s), len(r.Statements))
		}
		if (len(r.Key) == 0) != (Shape(text) == "") {
			t.Fatalf("shape %q, key %q", Shape(text), r.Key)
		}
	})
}

// FuzzAgreement: what PostgreSQL's grammar accepts, the lexer splits where the
// grammar does, no panic stops the analysis, and no fact is milder than the
// lexer's class. The grammar itself must survive all that passes the gate.
func FuzzAgreement(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		if Gate(text) != nil {
			return
		}
		w := grammarForTest(t)
		tree, err := w.grammar.parse(text)
		var syntax *SyntaxError
		if errors.As(err, &syntax) {
			return
		}
		if err != nil {
			t.Fatalf("the grammar broke: %v", err)
		}
		parsed, err := decode(tree)
		if err != nil {
			t.Fatal(err)
		}
		facts, err := analyse(text, parsed)
		if err != nil {
			var c *TooComplex
			if errors.As(err, &c) {
				return
			}
			t.Fatal(err)
		}
		ranges := Split(text)
		if len(parsed.GetStmts()) != len(ranges) {
			t.Fatalf("the grammar finds %d statements, the lexer %d", len(parsed.GetStmts()), len(ranges))
		}
		for i, s := range parsed.GetStmts() {
			r, err := place(text, s)
			if err != nil || r != ranges[i] {
				t.Fatalf("statement %d: %v %v, lexer %v", i, r, err, ranges[i])
			}
			if least := lexicalClass(text[r.Start:r.End]); policy.Stricter(facts[i].Class, least) != facts[i].Class {
				t.Fatalf("statement %d is %s, by its words %s", i, facts[i].Class, least)
			}
		}
	})
}

// FuzzTree: a parse tree comes from another process; nothing in it may do more
// than be refused or judged strictly.
func FuzzTree(f *testing.F) {
	for _, c := range corpus(f) {
		if tree, err := grammarForTest(f).grammar.parse(c.text); err == nil {
			f.Add(tree)
		}
	}
	f.Fuzz(func(t *testing.T, tree []byte) {
		parsed, err := decode(tree)
		if err != nil {
			return
		}
		_, _ = analyse("SELECT 1", parsed)
		_, _, _ = Resolve("SELECT 1", tree, 0, clinicKnown())
	})
}

// FuzzAnswer: so do facts and refusals.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x05A\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x32A\x00\x00\x00\x2b[{\"kind\":\"SELECT\",\"class\":\"read\",\"end\":8}]\x00"))
	f.Add([]byte("\x00\x00\x00\x12E{\"kind\":\"syntax\"}"))
	f.Add([]byte("\xff\xff\xff\xffA"))
	f.Add([]byte{0, 0, 0, 0, 'A'})
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &Client{in: bufio.NewReader(bytes.NewReader(answer)), out: &bytes.Buffer{}}
		const text = "DELETE FROM t"
		p, err := c.Parse(text)
		if err != nil {
			return
		}
		for _, facts := range p.Facts {
			if facts.End > len(text) || facts.Start > facts.End {
				t.Fatal("a statement outside the text")
			}
			if facts.Start == 0 && facts.End == len(text) && facts.Class.Rank() < policy.Write.Rank() {
				t.Fatal("a DELETE was said to be", facts.Class)
			}
		}
	})
}
