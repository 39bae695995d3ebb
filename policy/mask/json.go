package mask

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxJSONDepth bounds nesting; PostgreSQL's own limit is its stack.
const maxJSONDepth = 1024

// jsonScanner rewrites what is found in the strings, numbers and keys of a
// document, and leaves its form. A key says what the values under it are. A
// number becomes 0, for that a reader who expects a number finds one. What is
// no JSON (RFC 8259) becomes NULL as a whole.
type jsonScanner struct {
	text      textScanner
	versioned bool // jsonb in binary: a version byte, 1, in front
}

func (m *jsonScanner) Rewrite(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	if m.versioned {
		if len(value) == 0 || value[0] != 1 {
			return dst, true
		}
		dst, value = append(dst, 1), value[1:]
	}
	room := m.text.detector.borrow()
	defer m.text.detector.spare.Put(room)
	w := jsonWalker{text: &m.text, room: room, in: value, out: dst, said: m.text.said}
	if !w.document() {
		return dst[:start], true
	}
	return w.out, false
}

// jsonWalker is one pass over a document: a loop, not a recursion, with a bit
// a level for whether it is an object.
type jsonWalker struct {
	text   *textScanner
	room   *[]Hit
	in     []byte
	at     int
	out    []byte
	depth  int
	object [maxJSONDepth / 64]uint64
	said   context // by the last key
}

func (w *jsonWalker) document() bool {
	for {
		w.space()
		if !w.value() {
			return false
		}
		// A value has ended, or an object or array has just been opened.
		for w.closed() {
		}
		if w.depth < 0 {
			return false
		}
		if w.depth == 0 {
			w.space()
			return w.at == len(w.in)
		}
		if !w.next() {
			return false
		}
	}
}

// value copies a scalar, or opens an object or array.
func (w *jsonWalker) value() bool {
	switch c := w.peek(); {
	case c == '{' || c == '[':
		if w.depth == maxJSONDepth {
			return false
		}
		bit := uint64(1) << (w.depth % 64)
		w.object[w.depth/64] &^= bit
		if c == '{' {
			w.object[w.depth/64] |= bit
		}
		w.depth++
		w.copy(1)
		w.space()
		return true
	case c == '"':
		return w.str(w.said)
	case c == '-' || '0' <= c && c <= '9':
		return w.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if hasPrefix(w.in[w.at:], word) {
			w.copy(len(word))
			return true
		}
	}
	return false
}

// closed closes what ends here. It reports whether something did.
func (w *jsonWalker) closed() bool {
	w.space()
	if w.depth == 0 {
		return false
	}
	want := byte(']')
	if w.inObject() {
		want = '}'
	}
	if w.peek() != want || w.dangling() {
		return false
	}
	w.copy(1)
	w.depth--
	return true
}

// dangling reports whether the last thing written was a comma: [1,] is no JSON.
func (w *jsonWalker) dangling() bool {
	t := bytes.TrimRight(w.in[:w.at], " \t\r\n")
	return len(t) > 0 && (t[len(t)-1] == ',' || t[len(t)-1] == ':')
}

func (w *jsonWalker) inObject() bool {
	return w.object[(w.depth-1)/64]&(1<<((w.depth-1)%64)) != 0
}

// next copies what stands between here and the next value: a comma unless
// something was just opened, and in an object a key and a colon.
func (w *jsonWalker) next() bool {
	if !w.opened() {
		if w.peek() != ',' {
			return false
		}
		w.copy(1)
		w.space()
	}
	if !w.inObject() {
		return true
	}
	if w.peek() != '"' {
		return false
	}
	start := w.at
	if !w.str(noContext) {
		return false
	}
	w.said = w.keySays(w.in[start+1 : w.at-1])
	w.space()
	if w.peek() != ':' {
		return false
	}
	w.copy(1)
	return true
}

// opened reports whether the last thing was a { or [.
func (w *jsonWalker) opened() bool {
	t := bytes.TrimRight(w.in[:w.at], " \t\r\n")
	return t[len(t)-1] == '{' || t[len(t)-1] == '['
}

// keySays also reads a key whose letters are escaped.
func (w *jsonWalker) keySays(raw []byte) context {
	if bytes.IndexByte(raw, '\\') < 0 {
		return keyContext(raw)
	}
	at := len(w.out)
	w.out, _ = unescapeJSON(w.out, raw)
	said := keyContext(w.out[at:])
	w.out = w.out[:at]
	return said
}

// str copies a string, what is found in it rewritten.
func (w *jsonWalker) str(said context) bool {
	end := w.at + 1
	escaped := false
	for ; end < len(w.in) && w.in[end] != '"'; end++ {
		if w.in[end] < ' ' {
			return false
		}
		if w.in[end] == '\\' {
			escaped = true
			end++
		}
	}
	if end >= len(w.in) {
		return false
	}
	raw := w.in[w.at+1 : end]
	w.at = end + 1
	w.out = append(w.out, '"')
	var ok bool
	if escaped {
		ok = w.escapedText(raw, said)
	} else {
		ok = w.plainText(raw, raw, said)
	}
	w.out = append(w.out, '"')
	return ok
}

// plainText appends raw, or, if something is found in text (which is raw
// without escapes), that with the hits replaced.
func (w *jsonWalker) plainText(raw, text []byte, said context) bool {
	hits := w.text.detector.scan((*w.room)[:0], text, said)
	*w.room = hits
	if len(hits) == 0 {
		w.out = append(w.out, raw...)
		return true
	}
	done := 0
	for _, h := range hits {
		w.out = escapeJSON(w.out, text[done:h.Start])
		at := len(w.out)
		out, null := w.text.by[h.Entity].Rewrite(w.out, text[h.Start:h.End])
		if null {
			out = append(out, stars...)
		}
		end := len(out) // the replacement is quoted as well: behind it, then moved
		out = escapeJSON(out, out[at:end:end])
		w.out = out[:at+copy(out[at:], out[end:])]
		done = h.End
	}
	w.out = escapeJSON(w.out, text[done:])
	return true
}

// escapedText decodes first, so that \u0035 hides no digit. The decoded text
// lies in out's tail and is cut away afterwards.
func (w *jsonWalker) escapedText(raw []byte, said context) bool {
	at := len(w.out)
	out, ok := unescapeJSON(w.out, raw)
	if !ok {
		return false
	}
	text := len(out)
	w.out = out
	w.plainText(raw, out[at:text:text], said)
	n := copy(w.out[at:], w.out[text:])
	w.out = w.out[:at+n]
	return true
}

// number copies a number, or 0 if its digits are an identifier.
func (w *jsonWalker) number() bool {
	n := jsonNumber(w.in[w.at:])
	if n == 0 {
		return false
	}
	if *w.room = w.text.detector.scan((*w.room)[:0], w.in[w.at:w.at+n], w.said); len(*w.room) == 0 {
		w.copy(n)
		return true
	}
	w.at += n
	w.out = append(w.out, '0')
	return true
}

// jsonNumber is the length of the number at the front of b, 0 if there is none.
func jsonNumber(b []byte) int {
	i := 0
	digits := func() bool {
		from := i
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	lead := i
	if !digits() || b[lead] == '0' && i > lead+1 {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

func (w *jsonWalker) peek() byte {
	if w.at < len(w.in) {
		return w.in[w.at]
	}
	return 0
}

func (w *jsonWalker) copy(n int) {
	w.out = append(w.out, w.in[w.at:w.at+n]...)
	w.at += n
}

func (w *jsonWalker) space() {
	from := w.at
	for w.at < len(w.in) && (w.in[w.at] == ' ' || w.in[w.at] == '\t' || w.in[w.at] == '\n' || w.in[w.at] == '\r') {
		w.at++
	}
	w.out = append(w.out, w.in[from:w.at]...)
}

// unescapeJSON appends the text of a string without its quotes.
func unescapeJSON(dst, raw []byte) ([]byte, bool) {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		if i++; i == len(raw) {
			return dst, false
		}
		if raw[i] == 'u' {
			r, n := escapedRune(raw[i:])
			if n == 0 {
				return dst, false
			}
			dst = utf8.AppendRune(dst, r)
			i += n - 1
			continue
		}
		at := bytes.IndexByte([]byte(`"\/bfnrt`), raw[i])
		if at < 0 {
			return dst, false
		}
		dst = append(dst, "\"\\/\b\f\n\r\t"[at])
	}
	return dst, true
}

// escapedRune reads uXXXX, or uXXXX\uXXXX for a pair of surrogates.
func escapedRune(b []byte) (r rune, n int) {
	first, ok := hex4(b)
	if !ok {
		return 0, 0
	}
	if utf16.IsSurrogate(first) && len(b) >= 11 && b[5] == '\\' && b[6] == 'u' {
		if second, ok := hex4(b[6:]); ok {
			if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
				return r, 11
			}
		}
	}
	return first, 5
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 5 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[1:5]), 16, 16)
	return rune(n), err == nil
}

// escapeJSON appends b as the inside of a string.
func escapeJSON(dst, b []byte) []byte {
	for _, c := range b {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			const digits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
