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

// Reading is what one pass of the lexer over a text that passes the gate finds.
type Reading struct {
	// Key is the shape under which facts may be kept: as [Shape], but that
	// literals keep their kind (a number and a string in one place are two
	// shapes), since the grammar may tell them apart. It is empty for a text
	// without a statement.
	Key []byte
	// Statements are where the lexer finds them: see [Split].
	Statements []Range
}

// Read is [Gate], [Shape] and [Split] in one pass. It appends to key and to
// statements, which may be nil.
func Read(text string, key []byte, statements []Range) (Reading, error) {
	if err := readable(text); err != nil {
		return Reading{}, err
	}
	l := lexer{src: text}
	var room [16]frame
	g := gate{src: text, frames: room[:1]}
	w := shaper{src: text, out: key, kinds: true}
	s := splitter{src: text, out: statements}
	for {
		t := l.next()
		if done, err := g.see(&l, t); err != nil {
			return Reading{}, err
		} else if done {
			s.end()
			return Reading{Key: w.out, Statements: s.out}, nil
		}
		w.see(t)
		s.see(t)
	}
}

// Split finds the statements of a text by its semicolons: those outside
// brackets, and outside the body of a SQL-standard function (BEGIN ATOMIC …
// END). Empty statements are left out. Text after something unterminated
// belongs to the last statement.
func Split(text string) []Range {
	l := lexer{src: text}
	s := splitter{src: text}
	for {
		t := l.next()
		if t.kind == kEOF {
			s.end()
			return s.out
		}
		s.see(t)
	}
}

// splitter is fed the tokens of a text.
type splitter struct {
	src      string
	out      []Range
	now      Range // the statement that is being read
	started  bool
	brackets int
	blocks   int // open BEGIN ATOMIC, and CASE within
	creates  bool
	prev     word
}

func (s *splitter) see(t token) {
	if t.kind == kPunct {
		switch t.ch {
		case ';':
			if s.brackets <= 0 && s.blocks == 0 {
				s.end()
				return
			}
		case '(', '[':
			s.brackets++
		case ')', ']':
			s.brackets--
		}
	}
	if !s.started {
		s.started, s.now.Start = true, t.start
		s.creates = t.kind == kIdent && lookup(s.src[t.start:t.end]) == wCreate
	} else if s.creates {
		s.block(t)
	}
	s.now.End = t.end
}

// block follows BEGIN ATOMIC … END, as psql does.
func (s *splitter) block(t token) {
	w := wNone
	if t.kind == kIdent {
		w = lookup(s.src[t.start:t.end])
	}
	switch {
	case w == wAtomic && s.prev == wBegin:
		s.blocks++
	case s.blocks > 0 && w == wCase && s.prev != wEnd:
		s.blocks++
	case s.blocks > 0 && w == wEnd:
		s.blocks--
	}
	s.prev = w
}

func (s *splitter) end() {
	if s.started {
		s.out = append(s.out, s.now)
	}
	*s = splitter{src: s.src, out: s.out}
}

// Shape is the text without comments and with literals as ?, tokens one space
// apart where that reads well, unquoted words in lower case (as PostgreSQL
// folds them), quoted identifiers and parameters as they are. A list of
// literals and parameters behind IN is "(...)", however long. Texts of one
// shape do the same to the same things, but for what a literal says.
//
// The shape of text that cannot be lexed ends where the lexer stopped, with
// "<unterminated>": no literal ever appears in a shape.
func Shape(text string) string {
	l := lexer{src: text}
	w := shaper{src: text, out: make([]byte, 0, len(text))}
	for {
		t := l.next()
		if t.kind == kEOF {
			return string(w.out)
		}
		w.see(t)
	}
}

// Fingerprint is "fp-" and the first 16 bytes of SHA-256 of a shape, in
// lower-case hex: what statements are grouped and allow-listed by.
func Fingerprint(shape string) string {
	sum := sha256.Sum256([]byte(shape))
	return "fp-" + hex.EncodeToString(sum[:16])
}

// Empty are the facts of a text without a statement: white space, comments.
func Empty(text string) []*policy.Facts { return []*policy.Facts{empty(text)} }

func literal(k kind) bool { return k == kString || k == kNumber || k == kBits }

// shaper is fed the tokens of a text and writes its shape.
type shaper struct {
	src   string
	out   []byte
	kinds bool // literals keep their kind
	prev  token
	word  word // keyword that prev is
	list  int  // behind "(" of a list behind IN, while it may still fold; 0 none
}

func (w *shaper) see(t token) {
	switch {
	case t.kind == kBad:
		w.space(t)
		w.out = append(w.out, "<unterminated>"...)
		w.prev = t
	case w.word == wIn && t.kind == kPunct && t.ch == '(':
		w.emit(t)
		w.list = len(w.out)
	case w.list > 0:
		w.fold(t)
	default:
		w.emit(t)
	}
}

// fold writes a token of a list behind IN. When the list ends having held
// nothing but literals and parameters, they become "...".
func (w *shaper) fold(t token) {
	switch {
	case literal(t.kind), t.kind == kParam, t.kind == kPunct && t.ch == ',', t.kind == kOp && (t.ch == '-' || t.ch == '+'):
		w.emit(t)
	case t.kind == kPunct && t.ch == ')':
		w.out = append(w.out[:w.list], "..."...)
		w.list = 0
		w.emit(t)
	default:
		w.list = 0
		w.see(t)
	}
}

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
