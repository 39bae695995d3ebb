package mask

import (
	"bytes"
	"unicode/utf8"
)

// last4 hides all letters and digits but the last four, and keeps what stands
// between them: ***-**-6789. A value with fewer than eight would show too much
// of itself and is redacted.
type last4 struct {
	fit       fit
	otherwise Rewriter
}

func (m *last4) Rewrite(dst, value []byte) ([]byte, bool) {
	value = bytes.TrimRight(value, " ")
	signs := 0
	for i := 0; i < len(value); {
		n := width(value[i:])
		if telling(value[i:]) {
			signs++
		}
		i += n
	}
	if signs < 8 || !m.fit.holds(utf8.RuneCount(value)) {
		return m.otherwise.Rewrite(dst, value)
	}
	chars := 0
	for i := 0; i < len(value); chars++ {
		n := width(value[i:])
		switch {
		case !telling(value[i:]):
			dst = append(dst, value[i])
		case signs > 4:
			dst = append(dst, '*')
			signs--
		default:
			dst = append(dst, value[i:i+n]...)
		}
		i += n
	}
	return m.fit.fill(dst, chars), false
}

// width is the length of the first character, 1 if it is not UTF-8.
func width(b []byte) int {
	_, n := utf8.DecodeRune(b)
	return n
}

// telling reports whether the first character may say something: anything but
// ASCII punctuation and space.
func telling(b []byte) bool {
	c := b[0]
	return c >= utf8.RuneSelf || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// domain keeps what stands behind the last @ of an address.
type domain struct {
	fit       fit
	otherwise Rewriter
}

func (m *domain) Rewrite(dst, value []byte) ([]byte, bool) {
	value = bytes.TrimRight(value, " ")
	at := bytes.LastIndexByte(value, '@')
	if at < 1 || at == len(value)-1 || bytes.ContainsAny(value[at:], " \t\r\n<>\"") {
		return m.otherwise.Rewrite(dst, value)
	}
	behind := utf8.RuneCount(value[at:])
	front := stars
	if !m.fit.holds(len(front) + behind) {
		front = "*" // there is a character before the @, so that one fits
	}
	if !m.fit.holds(len(front) + behind) {
		return m.otherwise.Rewrite(dst, value)
	}
	dst = append(append(dst, front...), value[at:]...)
	return m.fit.fill(dst, len(front)+behind), false
}

// ageText shows ages below 90 as they are, the others as one class.
type ageText struct {
	fit       fit
	otherwise Rewriter
}

func (m *ageText) Rewrite(dst, value []byte) ([]byte, bool) {
	value = bytes.TrimSpace(value)
	age, ok := decimal(value)
	if !ok || !m.fit.holds(len(value)) {
		return m.otherwise.Rewrite(dst, value)
	}
	if age < 90 {
		return m.fit.fill(append(dst, value...), len(value)), false
	}
	return oldClass(dst, m.fit), false
}

// oldClass is the class of everything that shows an age of 90 or more.
func oldClass(dst []byte, f fit) []byte {
	if f.holds(3) {
		return f.fill(append(dst, "90+"...), 3)
	}
	return f.fill(append(dst, "90"[:f.max]...), f.max)
}

// decimal reads one to eighteen digits.
func decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
