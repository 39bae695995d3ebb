package evidence

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/hoopctl/hoopctl/server/api"
)

// The canonical form of a leaf is the JSON of an api.Event with the fields in
// the order of the struct, empty ones left out, map keys sorted, no spaces, no
// escapes beyond those that JSON demands (and U+2028, U+2029), invalid UTF-8 as
// U+FFFD: byte for byte what encoding/json writes without HTML escaping. It is
// appended by hand because it is made for every statement.

// appendHead writes the part of a leaf that the log fills.
func appendHead(b []byte, index uint64, node string, at time.Time) []byte {
	b = append(b, `{"v":1,"index":`...)
	b = strconv.AppendUint(b, index, 10)
	b = appendText(b, "node", node)
	b = append(b, `,"time":"`...)
	b = at.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendBody writes the rest of a leaf: from its kind to the closing brace.
func appendBody(b []byte, e *api.Event) []byte {
	b = append(b, `,"kind":`...)
	b = appendString(b, e.Kind)
	b = appendText(b, "principal", e.Principal)
	b = appendText(b, "name", e.Name)
	b = appendTexts(b, "groups", e.Groups)
	b = appendText(b, "login", e.Login)
	b = appendText(b, "key", e.KeySHA256)
	b = appendText(b, "source", e.Source)
	b = appendText(b, "via", e.Via)
	b = appendText(b, "target", e.Target)
	b = appendText(b, "grant", e.Grant)
	b = appendText(b, "session", e.Session)
	b = appendText(b, "request", e.Request)
	b = appendText(b, "purpose", e.Purpose)
	b = appendStatement(b, e)
	b = appendOutcome(b, e)
	b = appendText(b, "object", e.Object)
	b = appendText(b, "digest", e.Digest)
	if !e.Expires.IsZero() {
		b = append(b, `,"expires":"`...)
		b = e.Expires.AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	b = appendUint(b, "backendPID", uint64(e.BackendPID))
	b = appendText(b, "signature", e.Signature)
	b = appendText(b, "certificate", e.Certificate)
	b = appendAttrs(b, e.Attrs)
	return append(b, '}')
}

func appendStatement(b []byte, e *api.Event) []byte {
	b = appendUint(b, "sequence", e.Sequence)
	b = appendText(b, "statement", e.Statement)
	b = appendText(b, "fingerprint", e.Fingerprint)
	b = appendText(b, "command", e.Command)
	b = appendText(b, "class", e.Class)
	b = appendTexts(b, "tables", e.Tables)
	b = appendTexts(b, "columns", e.Columns)
	b = appendTexts(b, "tags", e.Tags)
	b = appendText(b, "commitment", e.Commitment)
	b = appendText(b, "verdict", e.Verdict)
	b = appendTexts(b, "rules", e.Rules)
	b = appendText(b, "policy", e.Policy)
	b = appendText(b, "reason", e.Reason)
	if len(e.Approvals) > 0 {
		b = append(b, `,"approvals":[`...)
		for i := range e.Approvals {
			if i > 0 {
				b = append(b, ',')
			}
			a := &e.Approvals[i]
			b = append(b, `{"request":`...)
			b = appendString(b, a.Request)
			b = append(b, `,"by":`...)
			b = appendString(b, a.By)
			b = append(b, `,"rule":`...)
			b = appendString(b, a.Rule)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return b
}

func appendOutcome(b []byte, e *api.Event) []byte {
	b = appendInt(b, "rows", e.Rows)
	b = appendInt(b, "bytes", e.Bytes)
	b = appendText(b, "status", e.Status)
	b = appendText(b, "sqlstate", e.SQLState)
	if len(e.Masked) > 0 {
		b = append(b, `,"masked":[`...)
		for i := range e.Masked {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendMasked(b, &e.Masked[i])
		}
		b = append(b, ']')
	}
	b = appendUint(b, "framesFirst", e.FramesFirst)
	b = appendUint(b, "framesLast", e.FramesLast)
	return appendText(b, "framesSHA256", e.FramesSHA256)
}

func appendMasked(b []byte, m *api.MaskedColumn) []byte {
	b = append(b, `{"column":`...)
	b = appendString(b, m.Column)
	b = appendText(b, "source", m.Source)
	b = appendText(b, "tag", m.Tag)
	b = append(b, `,"method":`...)
	b = appendString(b, m.Method)
	b = appendText(b, "rule", m.Rule)
	b = append(b, `,"why":`...)
	b = appendString(b, m.Why)
	b = appendInt(b, "cells", m.Cells)
	return append(b, '}')
}

func appendAttrs(b []byte, attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return b
	}
	var few [8]string
	keys := few[:0]
	for k := range attrs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b = append(b, `,"attrs":{`...)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, k)
		b = append(b, ':')
		b = appendString(b, attrs[k])
	}
	return append(b, '}')
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(appendKey(b, key), value)
}

func appendTexts(b []byte, key string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(appendKey(b, key), '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']')
}

func appendInt(b []byte, key string, v int64) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendInt(appendKey(b, key), v, 10)
}

func appendUint(b []byte, key string, v uint64) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendUint(appendKey(b, key), v, 10)
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string. Runs that need no escape are copied whole.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := plainRun(s); i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = appendEscape(append(b, s[start:i]...), c)
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + n
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, hexDigits[r&0xf])
			start = i + n
		}
		i += n
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// plainRun is how many bytes at the start of s surely need no escape and are
// ASCII, by eights: a leaf is mostly such text, and there are two a statement.
func plainRun(s string) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		w := uint64(s[n]) | uint64(s[n+1])<<8 | uint64(s[n+2])<<16 | uint64(s[n+3])<<24 |
			uint64(s[n+4])<<32 | uint64(s[n+5])<<40 | uint64(s[n+6])<<48 | uint64(s[n+7])<<56
		quote, slash := w^ones*'"', w^ones*'\\'
		// A byte's high bit comes up where it is below the space, equals one of the
		// two, or is not ASCII. Borrows may raise it too high up: never too low.
		if (w|(w-ones*' ')|(quote-ones)|(slash-ones))&highs != 0 {
			break
		}
	}
	return n
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// errLeaf says that bytes are no canonical leaf.
var errLeaf = errors.New("not a canonical leaf")

// scanLeaf calls field for each top-level field of a leaf in order, with the
// value's raw JSON. It checks structure only as far as it must to find the
// fields' ends, allocates nothing, and stops at the first error.
func scanLeaf(leaf []byte, field func(key, value []byte) error) error {
	if len(leaf) < 2 || leaf[0] != '{' || leaf[len(leaf)-1] != '}' {
		return errLeaf
	}
	in := leaf[1 : len(leaf)-1]
	for len(in) > 0 {
		n := stringEnd(in)
		if n < 0 || n >= len(in) || in[n] != ':' {
			return errLeaf
		}
		key := in[1 : n-1]
		in = in[n+1:]
		n = valueEnd(in)
		if n <= 0 {
			return errLeaf
		}
		if err := field(key, in[:n]); err != nil {
			return err
		}
		in = in[n:]
		if len(in) > 0 {
			if in[0] != ',' || len(in) == 1 {
				return errLeaf
			}
			in = in[1:]
		}
	}
	return nil
}

// stringEnd returns the offset after the JSON string that b starts with, or -1.
func stringEnd(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return -1
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// valueEnd returns the offset after the JSON value that b starts with, or -1.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); {
		switch b[i] {
		case '"':
			n := stringEnd(b[i:])
			if n < 0 {
				return -1
			}
			i += n
			if depth == 0 {
				return i
			}
			continue
		case '[', '{':
			depth++
		case ']', '}':
			depth--
			if depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		if depth < 0 {
			return -1
		}
		i++
	}
	if depth != 0 {
		return -1
	}
	return len(b)
}

// plain returns the text of a raw JSON string that holds no escapes, as names,
// numbers and times here never do; ok is false for anything else.
func plain(value []byte) (text []byte, ok bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return nil, false
	}
	text = value[1 : len(value)-1]
	return text, !slices.Contains(text, '\\')
}

// trimmed keeps a leaf within what a tree's entry may hold: a statement's shape
// is cut (its fingerprint and commitment still stand for the whole), everything
// else must fit.
func trimmed(e *api.Event, size int) (string, error) {
	over := size - maxLeaf + len("…")
	if over <= 0 {
		return e.Statement, nil
	}
	keep := len(e.Statement) - over
	if keep < 0 {
		return "", fmt.Errorf("an event of kind %s takes %d bytes, a leaf holds %d", e.Kind, size, maxLeaf)
	}
	for keep > 0 && !utf8.RuneStart(e.Statement[keep]) {
		keep--
	}
	return e.Statement[:keep] + "…", nil
}
