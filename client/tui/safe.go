package tui

import (
	"strings"
	"unicode"
)

// Safe returns s with everything that a terminal could take for a command, or
// that reorders what is read, written as an escape: control characters but
// newline and tab, the C1 range, bidirectional and invisible format characters.
func Safe(s string) string {
	if strings.IndexFunc(s, unsafe) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !unsafe(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(escape(r))
	}
	return b.String()
}

func unsafe(r rune) bool {
	if r == '\n' || r == '\t' {
		return false
	}
	return r == unicode.ReplacementChar || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
}

const hexDigits = "0123456789abcdef"

// escape writes a rune as \x1b or \u202e.
func escape(r rune) string {
	if r < 0x100 {
		return string([]byte{'\\', 'x', hexDigits[r>>4], hexDigits[r&15]})
	}
	if r > 0xffff {
		r = unicode.ReplacementChar
	}
	return string([]byte{'\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15]})
}
