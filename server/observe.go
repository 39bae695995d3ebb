package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/session"
)

// maxObserve is the longest that a target may be observed before somebody must
// look at it again.
const maxObserve = 31 * 24 * time.Hour

// observed reports whether a target forwards what policy would refuse, at this
// moment: by the set in force, so that it ends in live sessions as well.
func (s *Server) observed(target string) bool {
	_, spec, ok := s.resources.set().Target(target)
	return ok && spec.Enforcement != "" && s.now().Before(spec.ObservedUntil())
}

// mayObserve refuses a change by which a target would be observed (or longer
// than it was) unless a second person looks at it. v is the verdict on the
// change: where policy holds changes, somebody else agrees to this one.
func (s *Server) mayObserve(p plan, v policy.Verdict) error {
	for _, c := range p.changes {
		spec, ok := c.res.Spec.(*policy.TargetSpec)
		if !ok || c.new == nil || c.same() {
			continue
		}
		until := spec.ObservedUntil()
		if !s.now().Before(until) || !until.After(s.observedUntil(c.res.Metadata.Name)) {
			continue
		}
		switch name := c.res.Metadata.Name; {
		case until.Sub(s.now()) > maxObserve:
			return invalid("target %s would be observed until %s: at most 31 days from now", name, until.UTC().Format(time.DateOnly))
		case v.Effect != policy.Review:
			return &api.Error{Reason: api.ReasonDenied, Message: "nobody observes a target alone: on " + name + " nothing would be refused, held or masked any more",
				Hint: "write a rule by which a second person agrees to changes (a forbid of manage with @approve; docs/policy.md, Changes of the rules themselves), or put the target into the server's own folder of resources"}
		}
	}
	return nil
}

// observedUntil is until when a target is observed by the set in force.
func (s *Server) observedUntil(target string) time.Time {
	_, spec, ok := s.resources.set().Target(target)
	if !ok {
		return time.Time{}
	}
	return spec.ObservedUntil()
}

// getObserved tells from the evidence what policy would have done on a target
// while it was only observed.
func (s *Server) getObserved(c *call) (any, error) {
	q := c.URL.Query()
	since, err := time.Parse(time.RFC3339Nano, q.Get("since"))
	if err != nil {
		return nil, invalid("since: want a time in RFC 3339")
	}
	target := q.Get("target")
	if _, _, ok := s.resources.set().Target(target); !ok {
		return nil, notFound("target", target)
	}
	r := observedReport{by: map[string]*api.ObservedBy{}, changed: map[string]*api.ObservedChange{}, running: map[string]api.Event{}}
	out := api.Observed{Target: target, Since: since, Until: s.observedUntil(target), Principals: []api.ObservedBy{}, Changed: []api.ObservedChange{}}
	if out.Truncated, err = s.eachLeaf(c.Context(), api.EventQuery{Since: since, Target: target, Kind: []string{api.EventStatement, api.EventOutcome}}, r.leaf); err != nil {
		return nil, err
	}
	for _, k := range sortedKeys(r.by) {
		out.Principals = append(out.Principals, *r.by[k])
	}
	for _, k := range sortedKeys(r.changed) {
		out.Changed = append(out.Changed, *r.changed[k])
	}
	slices.SortStableFunc(out.Changed, func(a, b api.ObservedChange) int { return b.Times - a.Times })
	return out, nil
}

// eachLeaf calls fn with every leaf that a query finds, oldest first, and says
// whether there were more than one question looks at.
func (s *Server) eachLeaf(ctx context.Context, q api.EventQuery, fn func(*api.Event)) (truncated bool, err error) {
	q.Limit = recordedPage
	for n := 0; ; {
		events, err := s.evidence.Search(ctx, q)
		if err != nil {
			return false, err
		}
		for i := range events {
			if n == 0 || events[i].Index > q.After {
				fn(&events[i])
			}
		}
		if n += len(events); len(events) < recordedPage || n >= maxRecorded {
			return n >= maxRecorded, nil
		}
		q.After = events[len(events)-1].Index
	}
}

// observedReport adds leaves up.
type observedReport struct {
	by      map[string]*api.ObservedBy
	changed map[string]*api.ObservedChange
	running map[string]api.Event // statements whose outcome is to come, by session#sequence
}

func (r *observedReport) leaf(e *api.Event) {
	ref := fmt.Sprintf("%s#%d", e.Session, e.Sequence)
	if e.Kind == api.EventOutcome {
		st, ok := r.running[ref]
		if delete(r.running, ref); ok && e.Attrs[session.AttrWould] != "" {
			r.note(&st, ref, e.Attrs)
		}
		return
	}
	if !isObserved(e) {
		return
	}
	by := r.of(e)
	by.Statements++
	r.running[ref] = api.Event{Principal: e.Principal, Name: e.Name, Statement: e.Statement}
	r.note(e, ref, e.Attrs)
}

// isObserved tells the leaf of a statement that ran while its target was only observed.
func isObserved(e *api.Event) bool { return e.Attrs[session.AttrObserved] != "" }

func (r *observedReport) of(e *api.Event) *api.ObservedBy {
	by := r.by[e.Principal]
	if by == nil {
		by = &api.ObservedBy{Principal: e.Principal, Name: e.Name}
		r.by[e.Principal] = by
	}
	return by
}

// note counts what would have been done with a statement.
func (r *observedReport) note(e *api.Event, ref string, attrs map[string]string) {
	by := r.of(e)
	would := ""
	switch attrs[session.AttrWould] {
	case "refuse":
		would, by.Refused = "refused", by.Refused+1
	case "hold":
		would, by.Held = "held", by.Held+1
	case "cut":
		would, by.Cut = "cut", by.Cut+1
	}
	if would != "" {
		r.change(e, ref, would, split(attrs[session.AttrWouldRules]), nil)
	}
	if masked := split(attrs[session.AttrWouldMask]); len(masked) > 0 {
		by.Masked++
		r.change(e, ref, "masked", nil, masked)
	}
}

func (r *observedReport) change(e *api.Event, ref, would string, rules, masked []string) {
	key := strings.Join([]string{e.Name, would, strings.Join(rules, ","), strings.Join(masked, ","), e.Statement}, "\x00")
	c := r.changed[key]
	if c == nil {
		c = &api.ObservedChange{Name: e.Name, Would: would, Rules: rules, Masked: masked, Statement: e.Statement, First: ref}
		r.changed[key] = c
	}
	c.Times++
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
