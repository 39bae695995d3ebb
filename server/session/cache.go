package session

import "github.com/hoopctl/hoopctl/policy"

// verdictKey is all that a cacheable verdict of one session depends on:
// principal, target, grant and purpose do not change within a session, Facts
// are immutable and shared by pointer.
type verdictKey struct {
	facts         *policy.Facts
	inTransaction bool
	statements    int
	rowLimit      int64
}

// maxVerdicts bounds a session's cache. Clients that never repeat a statement
// fill it with what is never asked again; it is then dropped whole, which is
// cheaper than keeping an order.
const maxVerdicts = 256

// verdictCache holds the cacheable verdicts of one policy set.
type verdictCache struct {
	set      Decider
	verdicts map[verdictKey]policy.Verdict
}

func (c *verdictCache) get(set Decider, k verdictKey) (policy.Verdict, bool) {
	if c.set != set {
		return policy.Verdict{}, false
	}
	v, ok := c.verdicts[k]
	return v, ok
}

func (c *verdictCache) put(set Decider, k verdictKey, v policy.Verdict) {
	if c.set != set || len(c.verdicts) >= maxVerdicts {
		c.set, c.verdicts = set, make(map[verdictKey]policy.Verdict)
	}
	c.verdicts[k] = v
}
