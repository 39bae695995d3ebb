package mask

import (
	"fmt"
	"unicode/utf8"
)

// Methods that a hit in a text can take, beside redact.
var hitMethods = map[string]bool{"": true, "redact": true, "last4": true, "token": true, "domain": true, "year": true, "zip3": true, "age": true}

// Rewriter returns what rewrites values of type t by what is found in them: each
// hit by its entity's method (redact if there is none), the rest as it is. It
// returns nil if values of t are no text and no JSON: they are not scanned.
// column is the column's name, which says what bare numbers in it are; "" if it
// is not known.
func (d *Detector) Rewriter(column string, t Type, methods map[Entity]string, s Settings) (Rewriter, error) {
	var by replacements
	for e := range by {
		method := methods[Entity(e)]
		if !hitMethods[method] {
			return nil, fmt.Errorf("method %q cannot be used for %s found in text", method, Entity(e))
		}
		r, err := New(method, Type{OID: oidText, Typmod: -1}, s)
		if err != nil {
			return nil, err
		}
		by[e] = r
	}
	text := textScanner{detector: d, by: &by, fit: fitOf(t), said: keyContext([]byte(column))}
	return text.on(t), nil
}

// replacements are the rewriters of hits.
type replacements [lastEntity]Rewriter

// on returns the scanner for one type.
func (m textScanner) on(t Type) Rewriter {
	k := kindOf(t)
	switch {
	case k.array != 0:
		elem := m.on(Type{OID: k.array, Typmod: t.Typmod, Binary: t.Binary})
		if elem == nil {
			return nil
		}
		return &arrayRewriter{elem: elem, oid: k.array, binary: t.Binary, delimiter: k.delimiter}
	case k.family == familyText, t.OID == oidXML:
		m.otherwise = placeholder(t, k)
		return &m
	case k.family == familyJSON:
		return &jsonScanner{text: m, versioned: t.OID == oidJSONB && t.Binary}
	}
	return nil
}

// textScanner rewrites the hits in a text.
type textScanner struct {
	detector  *Detector
	by        *replacements
	fit       fit
	said      context
	otherwise Rewriter
}

func (m *textScanner) Rewrite(dst, value []byte) ([]byte, bool) {
	room := m.detector.borrow()
	defer m.detector.spare.Put(room)
	hits := m.detector.scan((*room)[:0], value, m.said)
	*room = hits
	if len(hits) == 0 {
		return append(dst, value...), false
	}
	start := len(dst)
	dst = m.by.apply(dst, value, hits)
	if n := utf8.RuneCount(dst[start:]); !m.fit.holds(n) {
		return m.otherwise.Rewrite(dst[:start], value)
	}
	return dst, false
}

// apply appends b with each hit replaced.
func (by *replacements) apply(dst, b []byte, hits []Hit) []byte {
	done := 0
	for _, h := range hits {
		dst = append(dst, b[done:h.Start]...)
		var null bool
		if dst, null = by[h.Entity].Rewrite(dst, b[h.Start:h.End]); null {
			dst = append(dst, stars...)
		}
		done = h.End
	}
	return append(dst, b[done:]...)
}

// keyContext is what a name like home_phone, SSN or birthDate says about the
// values under it: the last of its words that says anything.
func keyContext(key []byte) context {
	said := noContext
	for start := 0; start < len(key); {
		end := start
		for end < len(key) && classes[key[end]]&isLetter != 0 && (end == start || !upper(key[end]) || upper(key[end-1])) {
			end++
		}
		if end == start {
			start++
			continue
		}
		switch c := contextOf(key[start:end]); c {
		case noContext, ctxMonth, ctxPrefix, ctxWWW, ctxVersion, ctxMedical, ctxSecret:
		case ctxTaxpayer:
			said = ctxSSN
		case ctxRecord:
			said = ctxMRN
		default:
			said = c
		}
		start = end
	}
	return said
}

func upper(c byte) bool { return 'A' <= c && c <= 'Z' }
