package evidence

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// maxConflictLeaves bounds the leaves that one conflict names.
const maxConflictLeaves = 10

// Conflict is duties that should be apart and met.
type Conflict struct {
	People []string `json:"people"`
	What   string   `json:"what"`
	Times  int      `json:"times"`
	Leaves []uint64 `json:"leaves"` // the first ten of them
}

// Conflicts gathers them from events in order. It is not for concurrent use.
type Conflicts struct {
	since, until time.Time
	asked        map[string]string      // request: who asked
	answered     map[[2]string][]uint64 // approver, asker: leaves
	changed      map[string][]uint64    // who changed resources
	ran          map[string]bool        // who ran statements
	sessions     map[string]string      // session: whose
	found        []Conflict
}

// NewConflicts looks at a period; zero times have no bound.
func NewConflicts(since, until time.Time) *Conflicts {
	return &Conflicts{since: since, until: until, asked: map[string]string{}, answered: map[[2]string][]uint64{}, changed: map[string][]uint64{}, ran: map[string]bool{}, sessions: map[string]string{}}
}

// Add takes the next event.
func (c *Conflicts) Add(e *api.Event) {
	switch e.Kind { // what later events are held against counts from any time
	case api.EventRequest:
		c.asked[e.Request] = e.Name
	case api.EventSessionOpen:
		c.sessions[e.Session] = e.Name
	}
	if e.Time.Before(c.since) || !c.until.IsZero() && e.Time.After(c.until) {
		return
	}
	switch e.Kind {
	case api.EventApproval:
		if asker := c.asked[e.Request]; asker != "" && e.Verdict == "allow" {
			pair := [2]string{e.Name, asker}
			c.answered[pair] = append(c.answered[pair], e.Index)
		}
	case api.EventResource:
		c.changed[e.Name] = append(c.changed[e.Name], e.Index)
	case api.EventStatement:
		c.ran[e.Name] = true
	case api.EventShredded:
		if who := c.sessions[e.Session]; who != "" && (who == e.Name || slices.ContainsFunc(e.Approvals, func(a api.EventApproved) bool { return a.By == who })) {
			c.found = append(c.found, Conflict{People: []string{who}, What: "had the recording of their own session " + e.Session + " destroyed", Times: 1, Leaves: []uint64{e.Index}})
		}
	}
}

// Conflicts are those found, by people.
func (c *Conflicts) Conflicts() []Conflict {
	out := slices.Clone(c.found)
	add := func(what string, leaves []uint64, people ...string) {
		slices.Sort(leaves)
		out = append(out, Conflict{People: people, What: what, Times: len(leaves), Leaves: leaves[:min(len(leaves), maxConflictLeaves)]})
	}
	for pair, leaves := range c.answered {
		if other := c.answered[[2]string{pair[1], pair[0]}]; pair[0] < pair[1] && len(other) > 0 {
			add("approved each other's requests", slices.Concat(leaves, other), pair[0], pair[1])
		}
		if pair[0] == pair[1] {
			add("approved requests of their own", slices.Clone(leaves), pair[0])
		}
	}
	for who, leaves := range c.changed {
		if c.ran[who] {
			add("changed resources, and ran statements", slices.Clone(leaves), who)
		}
	}
	slices.SortFunc(out, func(a, b Conflict) int {
		return cmp.Or(slices.Compare(a.People, b.People), cmp.Compare(a.What, b.What))
	})
	return out
}

// Leaver is a grant in force whose holder may have left.
type Leaver struct {
	Grant api.Event `json:"grant"`
	Seen  time.Time `json:"seen,omitzero"` // the last login or renewal
	Why   string    `json:"why"`
}

// Leavers gathers them from events in order. It is not for concurrent use.
type Leavers struct {
	at     time.Time
	idle   time.Duration
	grants *GrantsAt
	seen   map[string]time.Time
	out    map[string]bool // logged out last
}

// NewLeavers asks for those at a time who were not seen for idle before it.
func NewLeavers(at time.Time, idle time.Duration) *Leavers {
	return &Leavers{at: at, idle: idle, grants: NewGrantsAt(at), seen: map[string]time.Time{}, out: map[string]bool{}}
}

// Add takes the next event.
func (l *Leavers) Add(e *api.Event) {
	l.grants.Add(e)
	switch e.Kind {
	case api.EventLogin, api.EventRenew:
		l.seen[e.Principal], l.out[e.Principal] = e.Time, false
	case api.EventLogout:
		l.out[e.Principal] = true
	}
}

// Leavers are the grants in question, in the order of their issue.
func (l *Leavers) Leavers() []Leaver {
	var out []Leaver
	for _, g := range l.grants.Grants() {
		seen := l.seen[g.Principal]
		switch {
		case l.out[g.Principal]:
			out = append(out, Leaver{g, seen, "logged out last"})
		case l.at.Sub(seen) > l.idle:
			out = append(out, Leaver{g, seen, fmt.Sprintf("not seen for %d days", int(l.at.Sub(seen).Hours()/24))})
		}
	}
	for i := range out {
		if out[i].Seen.IsZero() {
			out[i].Why = "never seen"
		}
	}
	return out
}

// Disclosure is what somebody was shown of a tag, on a target, for a purpose.
type Disclosure struct {
	Principal    string    `json:"principal"`
	Name         string    `json:"name"`
	Target       string    `json:"target"`
	Purpose      string    `json:"purpose,omitempty"`
	Statements   int       `json:"statements"`
	Unattributed int64     `json:"unattributedRows"` // rows whose subject the evidence does not name: all
	First        time.Time `json:"first"`
	Last         time.Time `json:"last"`
	Sessions     []string  `json:"sessions"`
}

// Disclosures gathers them from events in order. It is not for concurrent use.
type Disclosures struct {
	since, until time.Time
	tag          string
	pending      map[string]api.Event // statements whose outcome has not come
	by           map[[3]string]*Disclosure
}

// NewDisclosures looks at a period and a tag; zero times have no bound.
func NewDisclosures(since, until time.Time, tag string) *Disclosures {
	return &Disclosures{since: since, until: until, tag: tag, pending: map[string]api.Event{}, by: map[[3]string]*Disclosure{}}
}

// Add takes the next event.
func (d *Disclosures) Add(e *api.Event) {
	switch e.Kind {
	case api.EventStatement:
		if e.Verdict == "allow" && slices.Contains(e.Tags, d.tag) {
			d.pending[e.Session+"/"+strconv.FormatUint(e.Sequence, 10)] = *e
		}
	case api.EventOutcome:
		key := e.Session + "/" + strconv.FormatUint(e.Sequence, 10)
		s, ok := d.pending[key]
		delete(d.pending, key)
		if ok && e.Rows > 0 && !e.Time.Before(d.since) && (d.until.IsZero() || !e.Time.After(d.until)) && shown(&s, e) {
			d.count(&s, e)
		}
	}
}

// shown reports whether a tagged column of a statement was not masked. Columns
// that were only compared with count as shown: the answer tells of them.
func shown(s, outcome *api.Event) bool {
	if len(s.Columns) == 0 {
		return len(outcome.Masked) == 0
	}
	for _, column := range s.Columns {
		if !slices.ContainsFunc(outcome.Masked, func(m api.MaskedColumn) bool { return m.Source == column }) {
			return true
		}
	}
	return false
}

func (d *Disclosures) count(s, outcome *api.Event) {
	key := [3]string{s.Principal, s.Target, s.Purpose}
	one := d.by[key]
	if one == nil {
		one = &Disclosure{Principal: s.Principal, Name: s.Name, Target: s.Target, Purpose: s.Purpose, First: outcome.Time}
		d.by[key] = one
	}
	one.Statements++
	one.Unattributed += outcome.Rows
	one.Last = outcome.Time
	if !slices.Contains(one.Sessions, s.Session) {
		one.Sessions = append(one.Sessions, s.Session)
	}
}

// Disclosures are those found, the earliest first.
func (d *Disclosures) Disclosures() []Disclosure {
	out := []Disclosure{}
	for _, one := range slices.SortedFunc(maps.Values(d.by), func(a, b *Disclosure) int { return a.First.Compare(b.First) }) {
		out = append(out, *one)
	}
	return out
}
