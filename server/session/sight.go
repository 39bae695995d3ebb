package session

import (
	"slices"
	"sync/atomic"

	"github.com/hoopctl/hoopctl/policy"
)

// sight remembers whether a policy set hides anything from a session's
// principal: principal, target and purpose do not change within a session.
type sight struct{ last atomic.Pointer[seen] }

type seen struct {
	set   Decider
	hides bool
}

// Hides implements Gate.
func (s *Session) Hides() bool {
	if s.observed() {
		return false
	}
	set := s.cfg.Policy()
	tagged := slices.ContainsFunc(set.Tags(s.cfg.Target), func(t policy.Tag) bool { return t.Tag != "none" })
	if !tagged && len(set.Detect(s.cfg.Target)) == 0 {
		return false
	}
	if last := s.sight.last.Load(); last != nil && last.set == set {
		return last.hides
	}
	now := &seen{set: set, hides: !set.SeesAll(s.request(policy.ViewUnmasked))}
	s.sight.last.Store(now)
	return now.hides
}
