package policy

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"
)

// Recorded is a decision as the evidence holds it, with the request made anew
// from it: the principal and target of then, the facts of the statement's
// shape as they are parsed now.
type Recorded struct {
	Request Request
	Ref     string // where it stands in the evidence: "s-7#12"
	Time    time.Time
	Verdict Effect
	Rules   []string
}

// Changed is a recorded decision that a set would make otherwise.
type Changed struct {
	Ref       string   `json:"ref"`
	Principal string   `json:"principal"`
	Target    string   `json:"target"`
	Statement string   `json:"statement,omitempty"` // its shape
	Was       string   `json:"was"`
	WasRules  []string `json:"wasRules,omitempty"`
	Now       string   `json:"now"`
	NowRules  []string `json:"nowRules,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Times     int      `json:"times"` // how often the same change came up; Ref is the first
}

// Replay decides recorded requests again and returns those whose effect the
// set would change, equal changes of one principal, target and shape as one,
// the most frequent first; n is how many were decided. Approvals given then
// count, as far as the set still asks for them.
func (s *Set) Replay(records iter.Seq[Recorded]) (changed []Changed, n int) {
	type key struct{ principal, target, fingerprint, was, now string }
	at := map[key]int{}
	for r := range records {
		n++
		v := s.again(r.Request)
		if v.Effect == r.Verdict {
			continue
		}
		c := Changed{Ref: r.Ref, Principal: r.Request.Principal.ID(), Target: r.Request.Target.Name, Was: r.Verdict.String(), WasRules: r.Rules,
			Now: v.Effect.String(), NowRules: v.Rules, Reason: v.Reason, Times: 1}
		k := key{principal: c.Principal, target: c.Target, was: c.Was, now: c.Now}
		if f := factsOf(&r.Request); f != nil {
			c.Statement, k.fingerprint = f.Shape, f.Fingerprint
		} else {
			k.fingerprint = string(r.Request.Action)
		}
		if i, ok := at[k]; ok {
			changed[i].Times++
			continue
		}
		at[k] = len(changed)
		changed = append(changed, c)
	}
	slices.SortStableFunc(changed, func(a, b Changed) int { return b.Times - a.Times })
	return changed, n
}

// again decides a request as it was decided then: grants under their rules.
func (s *Set) again(r Request) Verdict {
	if r.Action == Connect {
		return s.Grant(r).Verdict
	}
	return s.Decide(r)
}

func factsOf(r *Request) *Facts {
	if r.Statement == nil {
		return nil
	}
	return r.Statement.Facts
}

// Use is one statement that a principal was seen to use.
type Use struct {
	Fingerprint string    `json:"fingerprint"`
	Shape       string    `json:"shape"`
	Class       Class     `json:"class"`
	Tables      []string  `json:"tables,omitempty"`
	Times       int       `json:"times"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
	// Unlisted says why it cannot stand in a Service's list of statements, ""
	// if it can.
	Unlisted string `json:"unlisted,omitempty"`
}

// Learn collects the statements that ran, by fingerprint, the most frequent
// first, for a list that someone reviews before it becomes a Service's.
// Transaction control is left out: it always passes.
func Learn(records iter.Seq[Recorded]) []Use {
	at := map[string]int{}
	var uses []Use
	for r := range records {
		f := factsOf(&r.Request)
		if f == nil || r.Verdict != Allow || passesUnlisted(f) {
			continue
		}
		i, ok := at[f.Fingerprint]
		if !ok {
			i = len(uses)
			at[f.Fingerprint] = i
			uses = append(uses, Use{Fingerprint: f.Fingerprint, Shape: f.Shape, Class: f.Class, Tables: f.Tables, First: r.Time, Last: r.Time, Unlisted: unlisted(f)})
		}
		u := &uses[i]
		u.Times++
		if r.Time.Before(u.First) {
			u.First = r.Time
		}
		if r.Time.After(u.Last) {
			u.Last = r.Time
		}
	}
	slices.SortFunc(uses, func(a, b Use) int {
		return cmp.Or(b.Times-a.Times, strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	return uses
}

func unlisted(f *Facts) string {
	if !f.LiteralFree {
		return "what it does depends on its literals, of which a fingerprint says nothing"
	}
	return ""
}

// Observation sums up what a target's policies would have done to one
// principal while they were only observed.
type Observation struct {
	Principal string         `json:"principal"`
	Name      string         `json:"name,omitempty"`
	Allowed   int            `json:"allowed"`
	Held      int            `json:"held"`
	Refused   int            `json:"refused"`
	Rules     map[string]int `json:"rules,omitempty"`  // the deciding rule of each that would have been held or refused
	Masked    map[string]int `json:"masked,omitempty"` // column: how many statements would have shown it masked
}

// Observe decides recorded requests of a target and sums up what would have
// been refused, held and masked, for each principal, those with the most
// trouble first.
func (s *Set) Observe(records iter.Seq[Recorded]) []Observation {
	at := map[string]int{}
	var out []Observation
	for r := range records {
		id := r.Request.Principal.ID()
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id] = i
			out = append(out, Observation{Principal: id, Name: r.Request.Principal.Name, Rules: map[string]int{}, Masked: map[string]int{}})
		}
		out[i].add(s, &r.Request)
	}
	slices.SortStableFunc(out, func(a, b Observation) int {
		return cmp.Or(b.Refused-a.Refused, b.Held-a.Held, strings.Compare(a.Principal, b.Principal))
	})
	return out
}

func (o *Observation) add(s *Set, r *Request) {
	v := s.again(*r)
	switch v.Effect {
	case Allow:
		o.Allowed++
	case Review:
		o.Held++
	default:
		o.Refused++
	}
	if v.Effect != Allow && len(v.Rules) > 0 {
		o.Rules[v.Rules[0]]++
	}
	if v.Effect == Deny || factsOf(r) == nil {
		return
	}
	for column := range masks(s, *r) {
		o.Masked[column]++
	}
}
