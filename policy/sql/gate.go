package sql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a text that the grammar is shown. Beyond each the grammar can be
// crashed (deep trees overflow its stack) or stalled (nested comments cost it
// quadratic time); the limits leave a factor of eight to the first crash that
// was measured.
const (
	maxText       = 256 << 10 // bytes
	maxComments   = 32        // nesting of /* */
	maxStatements = 100
	maxDepth      = 500 // bound on the parse tree's depth
)

// SyntaxError is a text that PostgreSQL's grammar, or the lexer before it,
// does not accept.
type SyntaxError struct {
	Message  string // as PostgreSQL words it
	Position int    // 1-based character in the text, 0 unknown
	SQLState string // 42601 where nothing better is known
}

func (e *SyntaxError) Error() string {
	if e.Position == 0 {
		return e.Message
	}
	return fmt.Sprintf("%s at character %d", e.Message, e.Position)
}

// TooComplex is a text that the grammar is not shown, because texts like it
// can crash or stall it. It says nothing about whether the text is valid.
type TooComplex struct {
	What     string // what there is too much of: "bytes", "statements", "nesting", "comment nesting"
	Limit    int
	Position int // 1-based character where the limit was passed, 0 for the whole text
}

func (e *TooComplex) Error() string {
	if e.What == "time" {
		return fmt.Sprintf("the statement took the parser longer than %d ms", e.Limit)
	}
	return fmt.Sprintf("the statement is too complex to be judged: more than %d %s", e.Limit, e.What)
}

// Gate reports whether the grammar may be shown the text: valid UTF-8 without
// NUL, at most 256 KiB, at most 100 statements, comments nested at most 32
// deep, and a parse tree that cannot be deeper than 500. The error is a
// *SyntaxError or a *TooComplex. Time is linear in the text and small.
func Gate(text string) error {
	if err := readable(text); err != nil {
		return err
	}
	l := lexer{src: text}
	var room [16]frame // most texts never need more
	g := gate{src: text, frames: room[:1]}
	for {
		t := l.next()
		if done, err := g.see(&l, t); done {
			return err
		}
	}
}

// readable refuses a text for what its bytes are.
func readable(text string) error {
	if len(text) > maxText {
		return &TooComplex{What: "bytes", Limit: maxText}
	}
	return encoding(text)
}

// encoding refuses what the wire's text can hold and SQL cannot.
func encoding(text string) error {
	if i := strings.IndexByte(text, 0); i >= 0 {
		return &SyntaxError{Message: "invalid byte sequence for encoding \"UTF8\": 0x00", Position: chars(text, i), SQLState: "22021"}
	}
	if utf8.ValidString(text) {
		return nil
	}
	for i, r := range text {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				return &SyntaxError{
					Message:  fmt.Sprintf("invalid byte sequence for encoding \"UTF8\": 0x%02x", text[i]),
					Position: chars(text, i), SQLState: "22021",
				}
			}
		}
	}
	return nil
}

// chars turns a byte offset into a 1-based character position. Bytes that are
// no UTF-8 count as one character each.
func chars(text string, offset int) int {
	return utf8.RuneCountInString(text[:min(offset, len(text))]) + 1
}

// gate bounds the depth of the tree that the grammar could build, without
// building it. Each open bracket, and each CASE until its END, is a frame. In
// a frame, every operator (and what else nests on one level: casts, NOT,
// COLLATE, AT TIME ZONE) may put one node on top of another until a comma,
// AND, OR or the next clause begins anew beside it; joins and set operations
// nest across those.
type gate struct {
	src        string
	frames     []frame // innermost last; frames[0] is the statement itself
	statements int
	started    bool // the current statement has a token
	dot        bool // the last token was a dot
}

type frame struct {
	links   int  // joins and set operations so far
	chain   int  // operators in this segment
	inner   int  // deepest closed frame in this segment
	deepest int  // max of chain + inner over the segments before
	isCase  bool // closed by END, not by a bracket
}

func (f *frame) segment() {
	f.deepest = max(f.deepest, f.chain+f.inner)
	f.chain, f.inner = 0, 0
}

func (f *frame) total() int { return 1 + f.links + max(f.deepest, f.chain+f.inner) }

// see takes the next token. done is true at the end of the text, and at an error.
func (g *gate) see(l *lexer, t token) (done bool, err error) {
	switch t.kind {
	case kEOF:
		return true, g.end(t.start)
	case kBad:
		return true, g.broken(l, t)
	case kPunct:
		err = g.punct(t)
	case kOp:
		g.innermost().chain++
	case kIdent:
		err = g.word(t)
	}
	if t.kind != kPunct || t.ch != ';' {
		g.started = true
	}
	g.dot = t.kind == kPunct && t.ch == '.'
	return err != nil, err
}

func (g *gate) broken(l *lexer, t token) error {
	if l.depth > maxComments {
		return &TooComplex{What: "comment nesting", Limit: maxComments, Position: chars(g.src, t.start)}
	}
	return &SyntaxError{Message: l.bad, Position: chars(g.src, t.start), SQLState: "42601"}
}

func (g *gate) punct(t token) error {
	switch t.ch {
	case '(', '[':
		return g.push(t, false)
	case ')', ']':
		for g.innermost().isCase {
			g.pop()
		}
		g.pop()
		return g.check(t)
	case ',':
		g.innermost().segment()
	case 'T':
		g.innermost().chain++
	case ';':
		return g.end(t.start)
	}
	return nil
}

func (g *gate) word(t token) error {
	// Behind a dot any word is a name, and would end a segment or a CASE that goes on.
	if g.dot {
		return nil
	}
	f := g.innermost()
	switch lookup(g.src[t.start:t.end]) {
	case wCase:
		return g.push(t, true)
	case wEnd:
		if f.isCase {
			g.pop()
			return g.check(t)
		}
	case wJoin, wUnion, wIntersect, wExcept:
		f.links++
	case wNot, wCollate, wAt, wOperator, wIs:
		f.chain++
	case wAnd, wOr, wSelect, wFrom, wWhere, wGroup, wOrder, wHaving, wOn, wWhen, wThen, wElse:
		f.segment() // all reserved: they cannot be a column's bare name
	}
	return nil
}

func (g *gate) innermost() *frame { return &g.frames[len(g.frames)-1] }

func (g *gate) push(t token, isCase bool) error {
	if len(g.frames) > maxDepth {
		return g.tooDeep(t)
	}
	g.frames = append(g.frames, frame{isCase: isCase})
	return nil
}

// pop closes the innermost frame into the one around it. Brackets that were
// never opened are the grammar's to refuse.
func (g *gate) pop() {
	if len(g.frames) == 1 {
		return
	}
	n := g.innermost().total()
	g.frames = g.frames[:len(g.frames)-1]
	f := g.innermost()
	f.inner = max(f.inner, n)
}

func (g *gate) check(t token) error {
	if g.innermost().total() > maxDepth {
		return g.tooDeep(t)
	}
	return nil
}

func (g *gate) tooDeep(t token) error {
	return &TooComplex{What: "nesting", Limit: maxDepth, Position: chars(g.src, t.start)}
}

// end closes a statement. A semicolon inside brackets (the actions of CREATE
// RULE) counts as an end too, which can only overcount.
func (g *gate) end(at int) error {
	for len(g.frames) > 1 {
		g.pop()
	}
	deep := g.frames[0].total() > maxDepth
	g.frames[0] = frame{}
	if deep {
		return g.tooDeep(token{start: at})
	}
	if g.started {
		g.statements++
	}
	g.started = false
	if g.statements > maxStatements {
		return &TooComplex{What: "statements", Limit: maxStatements, Position: chars(g.src, at)}
	}
	return nil
}
