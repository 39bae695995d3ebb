package policy

import (
	"cmp"
	"slices"
	"time"
)

// ReviewNotice is how long before its date an owner hears of a review.
const ReviewNotice = 30 * 24 * time.Hour

// DueReview is something that its owner has to look at again by a date: a Service,
// or a GrantRule of standing grants.
type DueReview struct {
	Object string    `json:"object"` // Service/billing
	Owner  string    `json:"owner"`
	By     time.Time `json:"by"`
	Lapsed bool      `json:"lapsed,omitempty"` // nobody did
	Cut    bool      `json:"cut,omitempty"`    // grants under it end with the date
}

// Reviews are those that are due within ReviewNotice of now, or overdue, the
// most urgent first.
func (s *Set) Reviews(now time.Time) []DueReview {
	if s == nil {
		return nil
	}
	var out []DueReview
	add := func(object, owner, by string, cut bool) {
		at, err := ParseDate(by)
		if by == "" || err != nil || at.Sub(now) > ReviewNotice {
			return
		}
		out = append(out, DueReview{Object: object, Owner: owner, By: at, Lapsed: !now.Before(at), Cut: cut})
	}
	for i := range s.services {
		add(KindService+"/"+s.services[i].name, s.services[i].spec.Owner, s.services[i].spec.ReviewBy, false)
	}
	for i := range s.grantRules {
		if g := &s.grantRules[i]; g.spec.Standing {
			add(KindGrantRule+"/"+g.name, g.spec.Owner, g.spec.ReviewBy, g.spec.Lapse == "cut")
		}
	}
	slices.SortStableFunc(out, func(a, b DueReview) int { return cmp.Or(a.By.Compare(b.By), cmp.Compare(a.Object, b.Object)) })
	return out
}
