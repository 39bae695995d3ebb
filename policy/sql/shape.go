package sql

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
)

// Range is a statement's place in a text: text[Start:End], without the white
// space and comments around it and without its semicolon.
type Range struct {
	Start, End int
}

// Split finds the statements of a text by its semicolons: those outside
// brackets, and outside the body of a SQL-standard function (BEGIN ATOMIC …
// END). Empty statements are left out. Text after something unterminated
// belongs to the last statement.
func Split(text string) []Range {
	s := scan{lexer: lexer{src: text}}
	var out []Range
	for {
		r, more := s.statement()
		if r.End > r.Start {
			out = append(out, r)
		}
		if !more {
			return out
		}
	}
}

// scan walks over the statements of a text.
type scan struct {
	lexer
	brackets int
	blocks   int // open BEGIN ATOMIC and CASE
	creates  bool
	prev     word
}

// statement moves past one statement and says where it is; more is false at
// the end of the text.
func (s *scan) statement() (r Range, more bool) {
	s.brackets, s.blocks, s.creates, s.prev = 0, 0, false, wNone
	first := true
	for {
		t := s.next()
		if t.kind == kEOF || t.kind == kPunct && t.ch == ';' && s.brackets <= 0 && s.blocks == 0 {
			return r, t.kind != kEOF
		}
		if first {
			r.Start = t.start
		}
		r.End = t.end
		s.nest(t, first)
		first = false
	}
}

// nest keeps count of what hides a semicolon, as psql does.
func (s *scan) nest(t token, first bool) {
	w := wNone
	switch {
	case t.kind == kIdent:
		w = lookup(s.src[t.start:t.end])
	case t.kind == kPunct && (t.ch == '(' || t.ch == '['):
		s.brackets++
	case t.kind == kPunct && (t.ch == ')' || t.ch == ']'):
		s.brackets--
	}
	switch {
	case first:
		s.creates = w == wCreate
	case s.creates && w == wAtomic && s.prev == wBegin:
		s.blocks++
	case s.blocks > 0 && w == wCase && s.prev != wEnd:
		s.blocks++
	case s.blocks > 0 && w == wEnd:
		s.blocks--
	}
	s.prev = w
}

// Shape is the text without comments and with literals as ?, tokens one space
// apart where that reads well, unquoted words in lower case (as PostgreSQL
// folds them), quoted identifiers and parameters as they are. A list of
// literals and parameters behind IN is "in (...)", however long. Texts of one
// shape do the same to the same things, but for what a literal says.
//
// The shape of text that cannot be lexed ends where the lexer stopped, with
// "<unterminated>": no literal ever appears in a shape.
func Shape(text string) string {
	w := shaper{lexer: lexer{src: text}, out: make([]byte, 0, len(text))}
	w.run()
	return string(w.out)
}

// Fingerprint is "fp-" and the first 16 bytes of SHA-256 of a shape, in
// lower-case hex: what statements are grouped and allow-listed by.
func Fingerprint(shape string) string {
	sum := sha256.Sum256([]byte(shape))
	return "fp-" + hex.EncodeToString(sum[:16])
}

// Key appends to dst the shape under which facts may be cached: literals keep
// their kind (a number and a string in one place are two shapes), since the
// grammar may tell them apart. It reports false for text that cannot be lexed.
// It is empty for a text without a statement.
func Key(dst []byte, text string) ([]byte, bool) {
	w := shaper{lexer: lexer{src: text}, out: dst, kinds: true}
	ok := w.run()
	return w.out, ok
}

type shaper struct {
	lexer
	out   []byte
	kinds bool
	prev  token
	word  word // keyword that prev is
}

func (w *shaper) run() bool {
	for {
		t := w.next()
		switch t.kind {
		case kEOF:
			return true
		case kBad:
			w.space(t)
			w.out = append(w.out, "<unterminated>"...)
			return false
		}
		if t.kind == kPunct && t.ch == '(' && w.word == wIn && w.list() {
			continue
		}
		w.emit(t)
	}
}

// list writes "(...)" for the rest of a list of literals and parameters whose
// bracket was just read, and reports false, having moved nowhere, if it is
// anything else.
func (w *shaper) list() bool {
	at := w.pos
	for {
		t := w.next()
		if t.kind == kOp && (t.ch == '-' || t.ch == '+') {
			t = w.next()
		}
		end := w.next()
		if !literal(t.kind) && t.kind != kParam || end.kind != kPunct || end.ch != ',' && end.ch != ')' {
			w.pos = at
			return false
		}
		if end.ch == ')' {
			w.out = append(w.out, " (...)"...)
			w.prev, w.word = end, wNone
			return true
		}
	}
}

// Empty are the facts of a text without a statement: white space, comments.
func Empty(text string) []*policy.Facts { return []*policy.Facts{empty(text)} }

func literal(k kind) bool { return k == kString || k == kNumber || k == kBits }

func (w *shaper) emit(t token) {
	w.space(t)
	text := w.src[t.start:t.end]
	kw := wNone
	switch t.kind {
	case kIdent:
		kw = lookup(text)
		for i := range len(text) {
			c := text[i]
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			w.out = append(w.out, c)
		}
	case kString, kNumber, kBits:
		w.out = append(w.out, '?')
		if w.kinds {
			w.out = append(w.out, "sbn"[map3(t.kind)])
		}
	default:
		w.out = append(w.out, text...)
	}
	w.prev, w.word = t, kw
}

func map3(k kind) int {
	switch k {
	case kString:
		return 0
	case kBits:
		return 1
	default:
		return 2
	}
}

// space separates t from what was written before it, where reading or lexing
// the shape again needs it.
func (w *shaper) space(t token) {
	if len(w.out) == 0 || glued(w.prev, t, w.word) {
		return
	}
	w.out = append(w.out, ' ')
}

func glued(prev, t token, kw word) bool {
	if prev.kind == kPunct && strings.IndexByte("([.T", prev.ch) >= 0 {
		return true
	}
	if t.kind != kPunct {
		return false
	}
	switch t.ch {
	case ')', ']', ',', ';', '.', 'T':
		return true
	case '(', '[':
		return kw == wNone && (prev.kind == kIdent || prev.kind == kQuoted)
	}
	return false
}

// lexicalClass is the least strict class that a statement can be of, told by
// its keywords. It looks inside no expression; it exists so that a mistake in
// reading the tree cannot turn a write into a read.
func lexicalClass(statement string) policy.Class {
	s := classer{lexer: lexer{src: statement}}
	t := s.next()
	for t.kind == kPunct && t.ch == '(' { // (SELECT …)
		t = s.next()
	}
	if t.kind == kEOF {
		return policy.Read
	}
	if t.kind != kIdent {
		return policy.Admin
	}
	first := lookup(statement[t.start:t.end])
	return policy.Stricter(verbClass(first), s.rest(first))
}

// verbClass is the class of a statement's first word.
func verbClass(w word) policy.Class {
	switch w {
	case wSelect, wValues, wTable, wWith, wShow, wExplain, wPrepare, wDeclare, wFetch, wMove, wClose, wDeallocate, wExecute,
		wBegin, wStart, wCommit, wEnd, wRollback, wAbort, wSavepoint, wRelease, wSet, wReset, wDiscard, wUnlisten:
		return policy.Read
	case wInsert, wUpdate, wDelete, wMerge, wCopy, wLock:
		return policy.Write
	case wTruncate, wCreate, wAlter, wDrop, wVacuum, wAnalyze, wCluster, wReindex, wRefresh:
		return policy.Schema
	default:
		return policy.Admin
	}
}

// classer looks through the words behind a statement's first for what writes:
// a verb where a verb can stand, SELECT … INTO, a locking clause.
type classer struct {
	lexer
	first   word
	prev    token
	word    word // keyword that prev is
	class   policy.Class
	inserts bool // the next INTO names what is inserted into
	runs    bool // EXPLAIN with ANALYZE
	as      bool // PREPARE has passed its AS
}

func (s *classer) rest(first word) policy.Class {
	s.class, s.first, s.word = policy.Read, first, first
	s.inserts = first == wInsert || first == wMerge
	for {
		t := s.next()
		switch t.kind {
		case kEOF:
			return s.class
		case kBad:
			return policy.Admin
		case kIdent:
			s.ident(t)
		default:
			s.word = wNone
		}
		s.prev = t
	}
}

func (s *classer) ident(t token) {
	w := lookup(s.src[t.start:t.end])
	label := s.word == wAs // any word may name an output
	if label && s.first == wPrepare && !s.as {
		label, s.as = false, true
	}
	if s.prev.kind == kPunct && s.prev.ch == '.' || label {
		w = wNone
	}
	s.see(w)
	s.word = w
}

func (s *classer) see(w word) {
	switch w {
	case wAnalyze:
		s.runs = s.runs || s.first == wExplain
	case wInsert, wMerge:
		if s.verb() {
			s.raise(policy.Write)
		}
		s.inserts = true
	case wUpdate, wDelete:
		if s.word == wFor || s.word == wKey || s.verb() && s.named() {
			s.raise(policy.Write)
		}
	case wShare:
		if s.word == wFor || s.word == wKey {
			s.raise(policy.Write)
		}
	case wInto:
		if !s.inserts {
			s.raise(policy.Schema)
		}
		s.inserts = false
	}
}

func (s *classer) raise(c policy.Class) { s.class = policy.Stricter(s.class, c) }

// verb reports whether a statement may begin here: in brackets, behind the
// last CTE, behind EXPLAIN ANALYZE or PREPARE … AS.
func (s *classer) verb() bool {
	bracket := s.prev.kind == kPunct && (s.prev.ch == '(' || s.prev.ch == ')')
	return bracket || s.runs || s.first == wPrepare && s.word == wAs
}

// named reports whether a word comes next: "(update t" is the verb, "(update)"
// and "(update + 1" are a column of that name.
func (s *classer) named() bool {
	look := s.lexer
	t := look.next()
	return t.kind == kIdent || t.kind == kQuoted
}
