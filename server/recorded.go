package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/parser"
	"github.com/hoopctl/hoopctl/server/store"
)

const (
	// maxRecorded bounds how many recorded statements one question looks at,
	// recordedPage how many are in memory at once.
	maxRecorded  = 200_000
	recordedPage = 5_000
	// sessionsBefore is how long before its range a question looks for the
	// sessions that its statements are of, and for what people agreed to.
	sessionsBefore = 24 * time.Hour
)

// recorded reads recorded statements and makes the requests of then anew: the
// principal as its session's first leaf names it, the facts that the leaf
// holds, and those that the grammar reads out of the statement's shape now.
type recorded struct {
	s      *Server
	who    string // on whose behalf the parser is asked
	set    *policy.Set
	query  api.EventQuery
	opened map[string]api.Event     // by session
	asked  map[string][]string      // by request: "rule/group:2"
	facts  map[string]*policy.Facts // by fingerprint; nil: its shape cannot be read

	tickets map[string]string // by grant

	decided   int
	undecided int  // statements of which too little is known
	truncated bool // there are more
	err       error
}

func (s *Server) recorded(c *call, set *policy.Set, since time.Time, target, principal string) *recorded {
	return &recorded{s: s, who: c.who.ID(), set: set, opened: map[string]api.Event{}, asked: map[string][]string{}, facts: map[string]*policy.Facts{}, tickets: map[string]string{},
		query: api.EventQuery{Since: since, Target: target, Principal: principal}}
}

// all yields the statements, oldest first. r.err says afterwards why it ended early.
func (r *recorded) all(ctx context.Context) iter.Seq[policy.Recorded] {
	return func(yield func(policy.Recorded) bool) {
		q := r.query
		q.Since, q.Limit = q.Since.Add(-sessionsBefore), recordedPage
		q.Kind = []string{api.EventSessionOpen, api.EventStatement, api.EventRequest}
		for first := true; ; first = false {
			events, err := r.s.evidence.Search(ctx, q)
			if err != nil {
				r.err = err
				return
			}
			for i := range events {
				e := &events[i]
				if !first && e.Index <= q.After {
					continue
				}
				if !r.take(ctx, e, yield) {
					return
				}
			}
			if len(events) < recordedPage {
				return
			}
			q.After = events[len(events)-1].Index
		}
	}
}

// take looks at one leaf, and reports whether to go on.
func (r *recorded) take(ctx context.Context, e *api.Event, yield func(policy.Recorded) bool) bool {
	switch {
	case e.Kind == api.EventSessionOpen:
		r.opened[e.Session] = *e
		return true
	case e.Kind == api.EventRequest:
		r.asked[e.Request] = strings.Fields(e.Attrs["asked"])
		return true
	case e.Time.Before(r.query.Since), slices.Equal(e.Rules, []string{"batch"}), e.Verdict == policy.Allow.String() && e.Reason != "":
		// Refused for its neighbour's sake, or a second leaf of the same statement.
		return true
	case r.decided+r.undecided >= maxRecorded:
		r.truncated = true
		return false
	}
	rec, ok, err := r.request(ctx, e)
	switch {
	case err != nil:
		r.err = err
		return false
	case !ok:
		r.undecided++
		return true
	}
	r.decided++
	return yield(rec)
}

// request makes a statement's request of its leaf; ok is false if too little is known.
func (r *recorded) request(ctx context.Context, e *api.Event) (rec policy.Recorded, ok bool, err error) {
	facts, err := r.factsOf(ctx, e)
	ref, _, known := r.set.Target(e.Target)
	if err != nil || facts == nil || !known {
		return rec, false, err
	}
	rec = policy.Recorded{Ref: fmt.Sprintf("%s#%d", e.Session, e.Sequence), Time: e.Time, Rules: e.Rules, Verdict: effectOf(e.Verdict)}
	rec.Request = policy.Request{Principal: r.principal(e), Action: policy.Action(facts.Class), Target: ref, Purpose: e.Purpose, Now: e.Time, Via: e.Via,
		Statement: &policy.Statement{Facts: facts, Text: e.Statement, Statements: 1}, Approvals: r.approvals(e), Ticket: r.ticket(ctx, e.Grant)}
	if rec.Verdict == policy.Deny { // as far as a budget decided, there was nothing left of it
		rec.Request.Left = map[string]int64{}
		for _, id := range e.Rules {
			rec.Request.Left[id] = 0
		}
	}
	if source, err := netip.ParseAddrPort(e.Source); err == nil {
		rec.Request.SourceIP = source.Addr()
	}
	return rec, true, nil
}

// ticket is the ticket of a grant, "" if it has none or is no longer known.
func (r *recorded) ticket(ctx context.Context, grant string) string {
	t, known := r.tickets[grant]
	if !known {
		if g, err := r.s.grants.Get(ctx, grant); err == nil {
			t = g.Spec.Ticket
		}
		r.tickets[grant] = t
	}
	return t
}

func effectOf(word string) policy.Effect {
	for _, e := range []policy.Effect{policy.Allow, policy.Review} {
		if e.String() == word {
			return e
		}
	}
	return policy.Deny
}

// principal is who ran a statement, as the session's first leaf says.
func (r *recorded) principal(e *api.Event) policy.Principal {
	issuer, subject, _ := strings.Cut(e.Principal, ":")
	p := policy.Principal{Kind: policy.User, Issuer: issuer, Subject: subject, Name: e.Name}
	open := r.opened[e.Session]
	p.Groups, p.MFA = open.Groups, open.Attrs["mfa"] == "true"
	if open.Attrs["principal"] == string(policy.Service) || r.s.workload(issuer) {
		p.Kind = policy.Service
	}
	return p
}

// workload says whether an issuer is configured as one of services.
func (s *Server) workload(issuer string) bool {
	return slices.ContainsFunc(s.cfg.Issuers, func(c IssuerConfig) bool { return c.Name == issuer && c.Kind == "workload" })
}

// approvals are those that a statement ran under, in the form in which policy
// expects them. Each rule that was asked about has been answered in full.
func (r *recorded) approvals(e *api.Event) []string {
	var out []string
	for _, a := range e.Approvals {
		for _, asked := range r.asked[a.Request] {
			if strings.HasPrefix(asked, a.Rule+"/") && !slices.Contains(out, asked) {
				out = append(out, asked)
			}
		}
	}
	return out
}

// factsOf joins what the leaf says (class, tables and tagged columns by the
// names that the catalogue resolved) to what the shape says.
func (r *recorded) factsOf(ctx context.Context, e *api.Event) (*policy.Facts, error) {
	key := e.Fingerprint + "\x00" + e.Class + "\x00" + strings.Join(e.Tables, "\x00")
	if f, ok := r.facts[key]; ok {
		return f, nil
	}
	shape, err := r.s.readShape(ctx, r.who, e.Statement)
	if err != nil {
		return nil, err
	}
	if shape == nil {
		r.facts[key] = nil
		return nil, nil
	}
	f := *shape
	f.Kind, f.Class, f.Tables, f.Fingerprint, f.Shape, f.Unresolved = e.Command, policy.Class(e.Class), e.Tables, e.Fingerprint, e.Statement, false
	for _, c := range e.Columns {
		if !slices.Contains(f.Columns, c) {
			f.Columns = append(slices.Clone(f.Columns), c)
		}
	}
	r.facts[key] = &f
	return &f, nil
}

// literal matches a literal of a shape, and a list of literals.
var literal = regexp.MustCompile(`\?|\(\.\.\.\)`)

// readShape has the grammar read a statement's shape, with a literal where each
// of its literals was: no fact of a shape depends on what they said, or it says
// so itself. Nil: it cannot be read.
func (s *Server) readShape(ctx context.Context, who, shape string) (*policy.Facts, error) {
	for _, one := range []string{"'0'", "0"} {
		text := literal.ReplaceAllStringFunc(shape, func(m string) string {
			if m == "?" {
				return one
			}
			return "(" + one + ")"
		})
		facts, err := s.parser.Facts(ctx, who, text)
		var down *parser.Unavailable
		if errors.As(err, &down) || ctx.Err() != nil {
			return nil, parseError(err)
		}
		if err == nil && len(facts) == 1 {
			return facts[0], nil
		}
	}
	return nil, nil
}

func (s *Server) postReplay(c *call) (any, error) {
	in, err := read[api.Replay](c)
	if err != nil {
		return nil, err
	}
	w := wanted{Files: in.Files, Prune: in.Prune}
	if in.Request != "" {
		if w, err = s.waiting(c.Context(), in.Request); err != nil {
			return nil, err
		}
	}
	p, err := s.resources.plan(w)
	if err != nil {
		return nil, err
	}
	r := s.recorded(c, p.next.set, in.Since, in.Target, in.Principal)
	out := api.Replayed{Since: in.Since, Policy: p.next.set.Digest()}
	out.Changed, out.Decided = p.next.set.Replay(r.all(c.Context()))
	out.Undecided, out.Truncated = r.undecided, r.truncated
	return out, r.err
}

// waiting is a change that waits for people.
func (s *Server) waiting(ctx context.Context, request string) (w wanted, err error) {
	body, err := s.store.Get(ctx, docChange, request)
	if errors.Is(err, store.ErrNotFound) {
		return w, &api.Error{Reason: api.ReasonNotFound, Message: "no change waits under request " + request, Hint: "hoopctl get requests lists what waits"}
	}
	if err == nil {
		err = json.Unmarshal(body, &w)
	}
	return w, err
}

func (s *Server) postLearn(c *call) (any, error) {
	in, err := read[api.Learn](c)
	if err != nil {
		return nil, err
	}
	if in.Principal == "" {
		return nil, invalid("principal is missing: whose statements?")
	}
	r := s.recorded(c, s.resources.set(), in.Since, in.Target, in.Principal)
	out := api.Learned{Principal: in.Principal, Since: in.Since, Statements: policy.Learn(r.all(c.Context()))}
	out.Undecided, out.Truncated = r.undecided, r.truncated
	return out, r.err
}

// getFired counts what each rule decided lately, out of the statements' leaves.
func (s *Server) getFired(c *call) (any, error) {
	from, err := time.Parse(time.RFC3339Nano, c.URL.Query().Get("since"))
	if err != nil {
		return nil, invalid("since: want a time in RFC 3339")
	}
	fired, truncated, err := s.fired(c.Context(), from)
	if err != nil {
		return nil, err
	}
	set := s.resources.set()
	out := api.Fired{Since: from, Truncated: truncated, Rules: []api.FiredRule{}}
	for _, id := range slices.Sorted(maps.Keys(fired)) {
		f := fired[id]
		if rule, ok := set.Rule(id); ok {
			f.Policy = rule.Policy
		}
		out.Rules = append(out.Rules, f)
	}
	return out, nil
}

func (s *Server) fired(ctx context.Context, from time.Time) (map[string]api.FiredRule, bool, error) {
	out := map[string]api.FiredRule{}
	truncated, err := s.eachLeaf(ctx, api.EventQuery{Since: from, Kind: []string{api.EventStatement, api.EventGrant}}, func(e *api.Event) {
		for _, id := range e.Rules {
			out[id] = counted(out[id], id, e)
		}
	})
	return out, truncated, err
}

// counted adds one leaf to what a rule did. What people agreed to counts as held.
func counted(f api.FiredRule, id string, e *api.Event) api.FiredRule {
	f.Rule = id
	switch {
	case e.Verdict != policy.Allow.String():
		f.Denied++
	case slices.ContainsFunc(e.Approvals, func(a api.EventApproved) bool { return a.Rule == id }):
		f.Held++
	default:
		f.Allowed++
	}
	if e.Time.After(f.Last) {
		f.Last = e.Time
	}
	return f
}
