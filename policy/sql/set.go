package sql

import "slices"

// set is a set of base columns that a value may derive from, by their numbers
// in analysis.columns. The zero value derives from none.
type set struct {
	ids     []int32 // sorted, without duplicates; never changed once made
	unknown bool    // and from what cannot be told
}

func (s set) empty() bool { return len(s.ids) == 0 && !s.unknown }

// or is the union.
func (s set) or(t set) set {
	u := s.unknown || t.unknown
	switch {
	case len(t.ids) == 0 || slices.Equal(s.ids, t.ids):
		return set{s.ids, u}
	case len(s.ids) == 0:
		return set{t.ids, u}
	}
	ids := make([]int32, 0, len(s.ids)+len(t.ids))
	i, j := 0, 0
	for i < len(s.ids) || j < len(t.ids) {
		switch {
		case j == len(t.ids) || i < len(s.ids) && s.ids[i] < t.ids[j]:
			ids = append(ids, s.ids[i])
			i++
		case i == len(s.ids) || t.ids[j] < s.ids[i]:
			ids = append(ids, t.ids[j])
			j++
		default:
			ids = append(ids, s.ids[i])
			i++
			j++
		}
	}
	return set{ids, u}
}

func (s set) equal(t set) bool { return s.unknown == t.unknown && slices.Equal(s.ids, t.ids) }
