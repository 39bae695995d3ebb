package mask

import (
	"bytes"
	"encoding/binary"
)

// arrayRewriter rewrites every element and keeps dimensions and NULLs. What is
// not an array as PostgreSQL sends it becomes NULL as a whole.
type arrayRewriter struct {
	elem      Rewriter
	oid       uint32 // of the elements
	binary    bool
	delimiter byte
}

// maxDimensions is PostgreSQL's MAXDIM.
const maxDimensions = 6

func (m *arrayRewriter) Rewrite(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	var ok bool
	if m.binary {
		dst, ok = m.rewriteBinary(dst, value)
	} else {
		dst, ok = m.rewriteText(dst, value)
	}
	if !ok {
		return dst[:start], true
	}
	return dst, false
}

// rewriteBinary: int32 dimensions, int32 whether there are NULLs, the
// elements' OID, per dimension int32 size and lower bound, then each element
// with an int32 length in front, -1 for NULL (array_send).
func (m *arrayRewriter) rewriteBinary(dst, value []byte) ([]byte, bool) {
	if len(value) < 12 {
		return dst, false
	}
	dimensions := binary.BigEndian.Uint32(value)
	if dimensions > maxDimensions || binary.BigEndian.Uint32(value[8:]) != m.oid || len(value) < 12+8*int(dimensions) {
		return dst, false
	}
	head := 12 + 8*int(dimensions)
	count := int64(1)
	for i := 12; i < head; i += 8 {
		size := int64(int32(binary.BigEndian.Uint32(value[i:])))
		if size < 0 {
			return dst, false
		}
		if count *= size; count > int64(len(value)) { // each element has at least its length
			return dst, false
		}
	}
	if dimensions == 0 {
		count = 0
	}
	flags := len(dst) + 4
	dst, nulls, ok := m.elements(append(dst, value[:head]...), value[head:], count)
	if ok && nulls {
		binary.BigEndian.PutUint32(dst[flags:], 1)
	}
	return dst, ok
}

func (m *arrayRewriter) elements(dst, rest []byte, count int64) (out []byte, nulls, ok bool) {
	for range count {
		if len(rest) < 4 {
			return dst, nulls, false
		}
		n := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if n == -1 {
			dst, nulls = append(dst, 0xff, 0xff, 0xff, 0xff), true
			continue
		}
		if n < 0 || int(n) > len(rest) {
			return dst, nulls, false
		}
		at := len(dst)
		out, null := m.elem.Rewrite(append(dst, 0xff, 0xff, 0xff, 0xff), rest[:n])
		dst, nulls = out, nulls || null
		if !null {
			binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		}
		rest = rest[n:]
	}
	return dst, nulls, len(rest) == 0
}

// rewriteText reads what array_out writes: an optional [1:2][0:3]=, then
// braces, delimiters, NULL, bare and quoted elements.
func (m *arrayRewriter) rewriteText(dst, value []byte) ([]byte, bool) {
	i := 0
	if len(value) > 0 && value[0] == '[' {
		equals := bytes.IndexByte(value, '=')
		if equals < 0 || !bounds(value[:equals]) {
			return dst, false
		}
		i = equals + 1
		dst = append(dst, value[:i]...)
	}
	depth := 0
	for i < len(value) {
		switch c := value[i]; c {
		case '{':
			if depth++; depth > maxDimensions {
				return dst, false
			}
			dst = append(dst, c)
			i++
		case '}':
			if depth--; depth < 0 {
				return dst, false
			}
			dst = append(dst, c)
			i++
		case m.delimiter:
			dst = append(dst, c)
			i++
		default:
			if depth == 0 {
				return dst, false
			}
			var ok bool
			if dst, i, ok = m.textElement(dst, value, i); !ok {
				return dst, false
			}
		}
		if depth == 0 {
			return dst, i == len(value)
		}
	}
	return dst, false
}

// bounds reports whether b has nothing but the dimensions of an array.
func bounds(b []byte) bool {
	return len(bytes.Trim(b, "[]:-0123456789")) == 0 && !bytes.ContainsAny(b, " ") && len(b) <= 26*maxDimensions
}

// textElement rewrites the element at i. It is unescaped into dst's tail, the
// masked one is written behind it, and then quoted in its place.
func (m *arrayRewriter) textElement(dst, value []byte, i int) (out []byte, next int, ok bool) {
	at := len(dst)
	quoted := value[i] == '"'
	if dst, i, ok = m.unescape(dst, value, i); !ok {
		return dst, i, false
	}
	if raw := dst[at:]; !quoted && bytes.EqualFold(raw, []byte("NULL")) {
		return append(dst[:at], "NULL"...), i, true
	}
	end := len(dst)
	dst, null := m.elem.Rewrite(dst, dst[at:end:end])
	if null {
		return append(dst[:at], "NULL"...), i, true
	}
	masked := len(dst)
	dst = m.quote(dst, dst[end:masked:masked])
	n := copy(dst[at:], dst[masked:])
	return dst[:at+n], i, true
}

// unescape appends the element at i without quotes and backslashes, and
// returns where it ends.
func (m *arrayRewriter) unescape(dst, value []byte, i int) (out []byte, next int, ok bool) {
	if value[i] != '"' {
		for ; i < len(value) && value[i] != m.delimiter && value[i] != '}'; i++ {
			if value[i] == '{' || value[i] == '"' || value[i] == '\\' {
				return dst, i, false
			}
			dst = append(dst, value[i])
		}
		return dst, i, i < len(value)
	}
	for i++; i < len(value); i++ {
		switch value[i] {
		case '"':
			return dst, i + 1, true
		case '\\':
			if i++; i == len(value) {
				return dst, i, false
			}
			fallthrough
		default:
			dst = append(dst, value[i])
		}
	}
	return dst, i, false
}

// quote appends an element as array_out would.
func (m *arrayRewriter) quote(dst, elem []byte) []byte {
	if len(elem) > 0 && !bytes.ContainsAny(elem, "{}\"\\ \t\n\r\v\f") && bytes.IndexByte(elem, m.delimiter) < 0 && !bytes.EqualFold(elem, []byte("NULL")) {
		return append(dst, elem...)
	}
	dst = append(dst, '"')
	for _, c := range elem {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}
