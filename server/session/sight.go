package session

import (
	"slices"
	"sync/atomic"

	"github.com/hoopctl/hoopctl/policy"
)

// sight remembers what a policy set says of a session's target: principal,
// target and purpose do not change within a session, and each statement asks
// several times.
type sight struct{ last atomic.Pointer[seen] }

type seen struct {
	set   Decider
	tags  []policy.Tag
	hides bool
}

// now is the sight by the policy set in force.
func (s *Session) now() *seen {
	set := s.cfg.Policy()
	if last := s.sight.last.Load(); last != nil && last.set == set {
		return last
	}
	now := &seen{set: set, tags: set.Tags(s.cfg.Target)}
	tagged := slices.ContainsFunc(now.tags, func(t policy.Tag) bool { return t.Tag != "none" })
	if tagged || len(set.Detect(s.cfg.Target)) > 0 {
		now.hides = !set.SeesAll(s.request(policy.ViewUnmasked))
	}
	s.sight.last.Store(now)
	return now
}

// Hides implements Gate.
func (s *Session) Hides() bool { return s.now().hides && !s.observed() }
