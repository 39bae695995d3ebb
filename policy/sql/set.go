package sql

import "slices"

// set is a set of base columns that a value may derive from, by their numbers
// in analysis.columns. The zero value derives from none.
type set struct {
	ids     []int32 // sorted, without duplicates; never changed once made
	unknown bool    // and from what cannot be told
}

func (s set) empty() bool { return len(s.ids) == 0 && !s.unknown }

func (s set) equal(t set) bool { return s.unknown == t.unknown && slices.Equal(s.ids, t.ids) }

// or is the union.
func (s set) or(t set) set { return union(s, t) }

// union of many sets at once: pairwise it would be quadratic in the columns of
// a wide table.
func union(sets ...set) set {
	var out set
	n, first, several := 0, []int32(nil), false
	for _, s := range sets {
		out.unknown = out.unknown || s.unknown
		n += len(s.ids)
		switch {
		case len(s.ids) == 0 || slices.Equal(first, s.ids):
		case first == nil:
			first = s.ids
		default:
			several = true
		}
	}
	if !several {
		out.ids = first
		return out
	}
	out.ids = make([]int32, 0, n)
	for _, s := range sets {
		out.ids = append(out.ids, s.ids...)
	}
	slices.Sort(out.ids)
	out.ids = slices.Compact(out.ids)
	return out
}

// marks is a set that is only ever added to.
type marks struct {
	bits    []uint64
	unknown bool
}

func (m *marks) add(s set) {
	m.unknown = m.unknown || s.unknown
	for _, id := range s.ids {
		for int(id)/64 >= len(m.bits) {
			m.bits = append(m.bits, 0)
		}
		m.bits[id/64] |= 1 << (id % 64)
	}
}

func (m *marks) set() set {
	s := set{unknown: m.unknown}
	for i, word := range m.bits {
		for b := range 64 {
			if word&(1<<b) != 0 {
				s.ids = append(s.ids, int32(64*i+b)) //nolint:gosec // as many as there are columns
			}
		}
	}
	return s
}
