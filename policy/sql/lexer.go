package sql

// This file cuts text into tokens as PostgreSQL's scan.l does (version 17,
// which accepts what 12 to 16 accept), with standard_conforming_strings = on.
// https://www.postgresql.org/docs/17/sql-syntax-lexical.html
//
// It finds boundaries and nothing else: a literal's value, an identifier's
// truncation to 63 bytes and a number's validity are the grammar's business.

// kind of a token.
type kind uint8

const (
	kEOF    kind = iota
	kIdent       // unquoted word, keyword or not
	kQuoted      // "…" or U&"…"
	kString      // '…', E'…', N'…', U&'…', $tag$…$tag$, with its continuations on further lines
	kBits        // B'…', X'…'
	kNumber      // 1, 1.5, .5, 1e9, 0x1F, 1_000
	kParam       // $1
	kOp          // an operator of one or more characters
	kPunct       // ( ) [ ] , ; . : and the pairs :: := .. =>
	kBad         // something unterminated, or a byte that starts no token
)

// token is a piece of the text: src[start:end].
type token struct {
	kind       kind
	ch         byte // of kPunct and one-character kOp: the character; ':' + ':' is 'T', ':=' is 'A', '..' is 'D', '=>' is 'N'
	start, end int
}

// lexer walks over src. The zero value with src set is at its beginning. It
// never panics and always advances.
type lexer struct {
	src string
	pos int
	// depth is the deepest nesting of block comments seen. Comments that nest
	// deeper than maxComments end the walk with kBad: the grammar's own time
	// is quadratic in it.
	depth int
	// bad says what is wrong with the last kBad token.
	bad string
}

const (
	cSpace  = 1 << iota // space, \t \n \r \f \v
	cIdent              // may start an identifier
	cDigit              // 0-9
	cOp                 // may be part of an operator
	cSelf               // single-character token
	cStrong             // operator characters that let an operator end in + or -
)

var class = func() (t [256]uint8) { //nolint:gochecknoglobals // a constant table; Go has no constant arrays
	for _, c := range []byte(" \t\n\r\f\v") {
		t[c] |= cSpace
	}
	for c := range 256 {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80 {
			t[c] |= cIdent
		}
		if c >= '0' && c <= '9' {
			t[c] |= cDigit
		}
	}
	for _, c := range []byte("~!@#^&|`?+-*/%<>=") {
		t[c] |= cOp
	}
	for _, c := range []byte("~!@#^&|`?%") {
		t[c] |= cStrong
	}
	for _, c := range []byte(",()[].;:") {
		t[c] |= cSelf
	}
	return t
}()

// next returns the next token, skipping white space and comments.
func (l *lexer) next() token {
	if !l.skip() {
		return l.fail(l.pos, "comments nest too deep or do not end")
	}
	if l.pos >= len(l.src) {
		return token{kind: kEOF, start: len(l.src), end: len(l.src)}
	}
	start, c := l.pos, l.src[l.pos]
	switch cl := class[c]; {
	case cl&cIdent != 0:
		return l.word(start, c)
	case c == '\'':
		return l.str(start, start+1, false, true, kString)
	case c == '"':
		return l.quoted(start, start+1)
	case cl&cDigit != 0, c == '.' && l.digitAt(start+1):
		return l.number(start)
	case c == '$':
		return l.dollar(start)
	case cl&cSelf != 0:
		return l.punct(start, c)
	case cl&cOp != 0:
		return l.operator(start)
	}
	return l.fail(start, "a character that SQL has no use for")
}

func (l *lexer) fail(at int, why string) token {
	l.bad = why
	t := token{kind: kBad, start: at, end: len(l.src)}
	l.pos = len(l.src)
	return t
}

func (l *lexer) digitAt(i int) bool { return i < len(l.src) && class[l.src[i]]&cDigit != 0 }

// skip moves past white space and comments. It reports false at a comment that
// does not end or nests too deep.
func (l *lexer) skip() bool {
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case class[c]&cSpace != 0:
			l.pos++
		case c == '-' && l.at(l.pos+1) == '-':
			l.line()
		case c == '/' && l.at(l.pos+1) == '*':
			if !l.block() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

// at is the byte at i, 0 beyond the end. NUL never occurs in text that passed
// the gate.
func (l *lexer) at(i int) byte {
	if i < len(l.src) {
		return l.src[i]
	}
	return 0
}

// line skips a comment to the end of its line. Both \n and \r end it: a reader
// that knew only \n could be made to hide statements from PostgreSQL's.
func (l *lexer) line() {
	for l.pos < len(l.src) && l.src[l.pos] != '\n' && l.src[l.pos] != '\r' {
		l.pos++
	}
}

func (l *lexer) block() bool {
	depth := 0
	for i := l.pos; i+1 < len(l.src); {
		switch {
		case l.src[i] == '/' && l.src[i+1] == '*':
			depth++
			i += 2
			l.depth = max(l.depth, depth)
			if depth > maxComments {
				return false
			}
		case l.src[i] == '*' && l.src[i+1] == '/':
			depth--
			i += 2
			if depth == 0 {
				l.pos = i
				return true
			}
		default:
			i++
		}
	}
	return false
}

// word reads an identifier, or one of the literals that start with a letter.
func (l *lexer) word(start int, c byte) token {
	if n := l.at(start + 1); n == '\'' {
		switch c {
		case 'e', 'E':
			return l.str(start, start+2, true, true, kString)
		case 'b', 'B', 'x', 'X':
			return l.str(start, start+2, false, false, kBits)
		case 'n', 'N':
			return l.str(start, start+2, false, true, kString)
		}
	} else if n == '&' && (c == 'u' || c == 'U') {
		switch l.at(start + 2) {
		case '\'':
			return l.str(start, start+3, false, true, kString)
		case '"':
			return l.quoted(start, start+3)
		}
	}
	i := start + 1
	for i < len(l.src) && (class[l.src[i]]&(cIdent|cDigit) != 0 || l.src[i] == '$') {
		i++
	}
	l.pos = i
	return token{kind: kIdent, start: start, end: i}
}

// str reads a quoted literal whose contents begin at i. escapes: a backslash
// hides the next byte (E'…'). doubling: two quotes stand for one; in B'…' and
// X'…' they do not.
func (l *lexer) str(start, i int, escapes, doubling bool, k kind) token {
	for i < len(l.src) {
		switch c := l.src[i]; {
		case c == '\\' && escapes:
			i += 2
		case c == '\'' && doubling && l.at(i+1) == '\'':
			i += 2
		case c == '\'':
			next, more := l.continuation(i + 1)
			if !more {
				l.pos = i + 1
				return token{kind: k, start: start, end: i + 1}
			}
			i = next
		default:
			i++
		}
	}
	return l.fail(start, "a quoted string that does not end")
}

// continuation reports whether a literal that was closed just before i goes on
// after white space with at least one line end, and where its contents then
// begin. SQL's rule; it keeps the first piece's escapes: E'a'\n'\” is one literal.
func (l *lexer) continuation(i int) (int, bool) {
	newline := false
	for i < len(l.src) {
		switch c := l.src[i]; {
		case c == '\n' || c == '\r':
			newline = true
			i++
		case class[c]&cSpace != 0:
			i++
		case c == '-' && l.at(i+1) == '-':
			for i < len(l.src) && l.src[i] != '\n' && l.src[i] != '\r' {
				i++
			}
		case c == '\'' && newline:
			return i + 1, true
		default:
			return 0, false
		}
	}
	return 0, false
}

func (l *lexer) quoted(start, i int) token {
	for i < len(l.src) {
		if l.src[i] != '"' {
			i++
			continue
		}
		if l.at(i+1) != '"' {
			l.pos = i + 1
			return token{kind: kQuoted, start: start, end: i + 1}
		}
		i += 2
	}
	return l.fail(start, "a quoted identifier that does not end")
}

// number reads digits with everything that may belong to them. A number with
// letters behind it is two tokens; the grammar refuses them.
func (l *lexer) number(start int) token {
	i := start
	if l.src[i] == '0' && i+1 < len(l.src) {
		if base := l.src[i+1] | 0x20; base == 'x' || base == 'o' || base == 'b' {
			if j := l.digits(i+2, base == 'x'); j > i+2 {
				l.pos = j
				return token{kind: kNumber, start: start, end: j}
			}
		}
	}
	i = l.digits(i, false)
	if l.at(i) == '.' && l.at(i+1) != '.' {
		i = l.digits(i+1, false)
	}
	if c := l.at(i); c == 'e' || c == 'E' {
		j := i + 1
		if s := l.at(j); s == '+' || s == '-' {
			j++
		}
		if l.digitAt(j) {
			i = l.digits(j, false)
		}
	}
	l.pos = i
	return token{kind: kNumber, start: start, end: i}
}

func (l *lexer) digits(i int, hex bool) int {
	for i < len(l.src) {
		c := l.src[i]
		if class[c]&cDigit == 0 && !(c == '_' && l.digitAt(i+1)) && !(hex && isHex(c)) {
			break
		}
		i++
	}
	return i
}

func isHex(c byte) bool { c |= 0x20; return c >= 'a' && c <= 'f' }

// dollar reads $1, or $tag$…$tag$.
func (l *lexer) dollar(start int) token {
	i := start + 1
	if l.digitAt(i) {
		for l.digitAt(i) {
			i++
		}
		l.pos = i
		return token{kind: kParam, start: start, end: i}
	}
	if i < len(l.src) && class[l.src[i]]&cIdent != 0 {
		for i < len(l.src) && class[l.src[i]]&(cIdent|cDigit) != 0 {
			i++
		}
	}
	if l.at(i) != '$' {
		return l.fail(start, "a $ that starts neither a parameter nor a quote")
	}
	tag := l.src[start : i+1]
	for j := i + 1; j+len(tag) <= len(l.src); j++ {
		if l.src[j] == '$' && l.src[j:j+len(tag)] == tag {
			l.pos = j + len(tag)
			return token{kind: kString, start: start, end: l.pos}
		}
	}
	return l.fail(start, "a dollar-quoted string that does not end")
}

func (l *lexer) punct(start int, c byte) token {
	t := token{kind: kPunct, ch: c, start: start, end: start + 1}
	switch n := l.at(start + 1); {
	case c == ':' && n == ':':
		t.ch, t.end = 'T', start+2
	case c == ':' && n == '=':
		t.ch, t.end = 'A', start+2
	case c == '.' && n == '.':
		t.ch, t.end = 'D', start+2
	}
	l.pos = t.end
	return t
}

// operator reads the longest run of operator characters that is one operator:
// it stops before a comment, and gives trailing + and - back unless a
// character is in it that no SQL-standard operator has.
func (l *lexer) operator(start int) token {
	i, strong := start, false
	for i < len(l.src) && class[l.src[i]]&cOp != 0 {
		c, n := l.src[i], l.at(i+1)
		if i > start && (c == '-' && n == '-' || c == '/' && n == '*') {
			break
		}
		strong = strong || class[c]&cStrong != 0
		i++
	}
	for !strong && i > start+1 && (l.src[i-1] == '+' || l.src[i-1] == '-') {
		i--
	}
	l.pos = i
	t := token{kind: kOp, start: start, end: i}
	switch {
	case i == start+1:
		t.ch = l.src[start]
	case l.src[start:i] == "=>":
		t.kind, t.ch = kPunct, 'N'
	}
	return t
}
