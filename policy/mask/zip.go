package mask

import (
	_ "embed"
	"strings"
)

// restrictedZIP3 is the dated list of three-digit ZIP areas in which at most
// 20,000 people live.
//
//go:embed zip3-restricted.txt
var restrictedZIP3 string

// smallAreas marks the areas of the list.
func smallAreas() *[1000]bool {
	areas := new([1000]bool)
	for line := range strings.Lines(restrictedZIP3) {
		if n, ok := decimal([]byte(strings.TrimSpace(line))); ok && n < 1000 {
			areas[n] = true
		}
	}
	return areas
}

// zip3Text shows the first three digits of a ZIP code (five digits, nine, or
// five and four with a dash), 000 for a small area.
type zip3Text struct {
	small     *[1000]bool
	fit       fit
	otherwise Rewriter
}

func (m *zip3Text) Rewrite(dst, value []byte) ([]byte, bool) {
	for len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	for len(value) > 0 && value[len(value)-1] == ' ' {
		value = value[:len(value)-1]
	}
	if !isZIP(value) || !m.fit.holds(3) {
		return m.otherwise.Rewrite(dst, value)
	}
	area, _ := decimal(value[:3])
	if m.small[area] {
		return m.fit.fill(append(dst, "000"...), 3), false
	}
	return m.fit.fill(append(dst, value[:3]...), 3), false
}

func isZIP(b []byte) bool {
	_, five := decimal(b[:min(5, len(b))])
	switch len(b) {
	case 5:
		return five
	case 9:
		_, ok := decimal(b)
		return ok
	case 10:
		_, four := decimal(b[6:])
		return five && four && (b[5] == '-' || b[5] == ' ')
	}
	return false
}

// zip3Int is zip3Text for ZIP codes kept as numbers, leading zeros lost.
type zip3Int struct {
	small     *[1000]bool
	integer   wireInt
	otherwise Rewriter
}

func (m *zip3Int) Rewrite(dst, value []byte) ([]byte, bool) {
	n, ok := m.integer.read(value)
	switch {
	case !ok || n < 0 || n > 999_999_999:
		return m.otherwise.Rewrite(dst, value)
	case n > 99_999:
		n /= 1_000_000
	default:
		n /= 100
	}
	if m.small[n] {
		n = 0
	}
	return m.integer.write(dst, n), false
}
