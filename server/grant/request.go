package grant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// reuseAtLeast is what a live grant must have left to be reused.
const reuseAtLeast = time.Minute

// ask is one wish for a grant, by whoever, asked or remembered.
type ask struct {
	who       policy.Principal
	in        api.GrantRequest
	source    netip.Addr
	extends   *grant   // nil: a new one
	approvals []string // "rule/group:count"
	request   *api.Request
	name      string // of the grant to be; "" if none has been taken
}

// Request asks for a grant: it is issued at once, or a request for approval is
// opened, or refused with an *api.Error (Invalid naming the flag for what is
// missing, Denied with rule and hint). With Reuse a live grant on the target
// is returned if there is one; with Resume what became of an earlier request;
// with Extend a live grant gets more time.
func (r *Room) Request(ctx context.Context, who policy.Principal, in api.GrantRequest, source netip.Addr) (api.GrantAnswer, error) {
	if in.Resume != "" {
		return r.resume(ctx, who, in.Resume)
	}
	a := ask{who: who, in: in, source: source}
	if err := r.check(&a); err != nil {
		return api.GrantAnswer{}, err
	}
	if g := r.reusable(&a); g != nil {
		return api.GrantAnswer{Grant: g}, nil
	}
	v, err := r.decide(ctx, &a)
	if err != nil {
		return api.GrantAnswer{}, err
	}
	switch {
	case len(v.Missing) > 0:
		return api.GrantAnswer{}, missing(&a, v)
	case v.Effect == policy.Allow:
		g, err := r.issue(ctx, &a, v)
		return api.GrantAnswer{Grant: g}, err
	case v.Effect == policy.Review && len(v.Cures) > 0:
		req, err := r.cfg.Approvals.Open(ctx, a.spec(v.Cures), shortest(v.Cures))
		if err != nil {
			return api.GrantAnswer{}, err
		}
		return api.GrantAnswer{Request: &req}, nil
	default:
		return api.GrantAnswer{}, denied(&a, v)
	}
}

// check refuses what cannot be understood, and finds the grant to extend.
func (r *Room) check(a *ask) error {
	if a.in.For < 0 {
		return refuse(api.ReasonInvalid, "a grant cannot last "+time.Duration(a.in.For).String(), "give --for a duration such as 1h")
	}
	if a.in.Action != "" && a.in.Action != string(policy.Schema) {
		return refuse(api.ReasonInvalid, fmt.Sprintf("action %q: the only one that a grant can be asked for is schema", a.in.Action), "leave --action out")
	}
	for _, w := range []struct{ field, text string }{{"reason", a.in.Reason}, {"purpose", a.in.Purpose}, {"ticket", a.in.Ticket}} {
		if err := r.words(w.field, w.text); err != nil {
			return err
		}
	}
	if a.in.Extend != "" {
		return r.extending(a)
	}
	if a.in.Target == "" {
		return refuse(api.ReasonInvalid, "a grant needs a target", "hoopctl get targets lists them")
	}
	return nil
}

// extending finds the live grant of the principal's that is to last longer,
// and takes from it what the extension does not say anew.
func (r *Room) extending(a *ask) error {
	r.mu.RLock()
	g := r.live[a.in.Extend]
	r.mu.RUnlock()
	if g == nil || g.now.Load().Spec.Principal != a.who.ID() || !g.now.Load().alive(r.cfg.Now()) {
		return refuse(api.ReasonNotFound, "you have no live grant "+a.in.Extend, "ask for a new one with hoopctl request TARGET")
	}
	rec := g.now.Load()
	switch {
	case rec.Status.Expires.IsZero():
		return refuse(api.ReasonInvalid, "grant "+a.in.Extend+" is standing: it does not expire", "")
	case a.in.Target != "" && a.in.Target != rec.Spec.Target:
		return refuse(api.ReasonInvalid, "grant "+a.in.Extend+" is on "+rec.Spec.Target+", not on "+a.in.Target, "leave the target out")
	}
	a.extends = g
	a.in.Target, a.in.Action = rec.Spec.Target, rec.Spec.Action
	for _, f := range []struct{ to, from *string }{{&a.in.Reason, &rec.Spec.Reason}, {&a.in.Purpose, &rec.Spec.Purpose}, {&a.in.Ticket, &rec.Spec.Ticket}} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	if a.in.Purpose != rec.Spec.Purpose {
		return refuse(api.ReasonInvalid, "grant "+a.in.Extend+" is for purpose "+strconv.Quote(rec.Spec.Purpose), "ask for a new grant for another purpose")
	}
	return nil
}

// reusable is a live grant that will do.
func (r *Room) reusable(a *ask) *api.Grant {
	if !a.in.Reuse || a.extends != nil {
		return nil
	}
	now := r.cfg.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, g := range slices.Backward(r.byWho[a.who.ID()]) {
		rec := g.now.Load()
		left := rec.Status.Expires.Sub(now)
		enough := rec.Status.Expires.IsZero() || left >= reuseAtLeast
		if wanted := time.Duration(a.in.For); wanted > 0 && (wanted < left || rec.Status.Expires.IsZero()) {
			enough = false // who asks for a short one does not get a longer one
		}
		if rec.alive(now) && enough && rec.Spec.Target == a.in.Target && rec.Spec.Action == a.in.Action && (a.in.Purpose == "" || a.in.Purpose == rec.Spec.Purpose) {
			out := rec.Grant
			return &out
		}
	}
	return nil
}

// decide asks policy. An extension is decided as a grant that lasts what is
// left and what is asked for on top: no rule is stretched by asking often.
func (r *Room) decide(ctx context.Context, a *ask) (policy.GrantVerdict, error) {
	now := r.cfg.Now()
	q := policy.Request{Principal: a.who, Action: policy.Connect, Target: policy.TargetRef{Name: a.in.Target}, Approvals: a.approvals, Duration: time.Duration(a.in.For),
		Purpose: a.in.Purpose, Ticket: a.in.Ticket, Reason: a.in.Reason, Now: now, SourceIP: a.source, Via: "api"}
	if a.extends != nil && q.Duration > 0 {
		q.Duration += max(0, a.extends.now.Load().Status.Expires.Sub(now))
	}
	v, err := r.cfg.Decide(ctx, q)
	if err != nil {
		return policy.GrantVerdict{}, fmt.Errorf("decide on a grant on %s: %w", a.in.Target, err)
	}
	if v.Effect == policy.Allow && v.For <= 0 {
		return policy.GrantVerdict{}, fmt.Errorf("decide on a grant on %s: policy allows it for %s", a.in.Target, v.For)
	}
	return v, nil
}

func missing(a *ask, v policy.GrantVerdict) error {
	flags := make([]string, len(v.Missing))
	for i, f := range v.Missing {
		flags[i] = "--" + f
	}
	message := v.Reason
	if message == "" {
		message = "a grant on " + a.in.Target + " needs a " + strings.Join(v.Missing, " and a ")
	}
	return refuse(api.ReasonInvalid, message, "add "+strings.Join(flags, " and "))
}

func denied(a *ask, v policy.GrantVerdict) error {
	message := "no grant on " + a.in.Target
	if v.Reason != "" {
		message += ": " + v.Reason
	}
	if len(v.Rules) > 0 {
		message += " (rule " + v.Rules[0] + ")"
	}
	return refuse(api.ReasonDenied, message, v.Hint)
}

// spec is the question for people.
func (a *ask) spec(cures []policy.Cure) api.RequestSpec {
	s := api.RequestSpec{Kind: askedKind, Principal: a.who.ID(), Name: a.who.Name, Target: a.in.Target, Reason: a.in.Reason, Purpose: a.in.Purpose, Ticket: a.in.Ticket,
		For: a.in.For, Action: a.in.Action, Grant: a.in.Extend}
	if a.source.IsValid() {
		s.Source = a.source.String()
	}
	for _, id := range []string{a.who.ID(), a.who.Owner, a.who.ActsFor} {
		if id != "" {
			s.Chain = append(s.Chain, id)
		}
	}
	for _, c := range cures {
		s.Cures = append(s.Cures, api.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum, Reason: c.Reason})
	}
	return s
}

func shortest(cures []policy.Cure) (d time.Duration) {
	for _, c := range cures {
		if c.Expires > 0 && (d == 0 || c.Expires < d) {
			d = c.Expires
		}
	}
	return d
}

// issue makes the grant, or the longer one: leaf, store, memory, in this order.
func (r *Room) issue(ctx context.Context, a *ask, v policy.GrantVerdict) (*api.Grant, error) {
	if a.extends != nil {
		return r.lengthen(ctx, a, v)
	}
	if a.name == "" {
		n, err := r.cfg.Store.Next(ctx, "grant")
		if err != nil {
			return nil, unrecorded(err)
		}
		a.name = "g-" + strconv.FormatInt(n, 10)
	}
	now := r.cfg.Now().UTC()
	rec := &record{Who: a.who, For: v.For, Approvals: a.approvals}
	rec.Metadata = api.Meta{Name: a.name, Created: now, Version: 1}
	rec.Spec = api.GrantSpec{Principal: a.who.ID(), Name: a.who.Name, Target: a.in.Target, Purpose: a.in.Purpose, Reason: a.in.Reason, Ticket: a.in.Ticket, Action: a.in.Action}
	rec.Status = api.GrantStatus{Phase: Active, Expires: now.Add(v.For), Rule: v.GrantRule}
	if v.Standing && a.in.For == 0 {
		rec.Spec.Standing, rec.Status.Expires = true, time.Time{}
		if v.Lapse == "cut" {
			rec.Status.Expires = v.ReviewBy
		}
	}
	if v.Grace != nil {
		rec.Grace = *v.Grace
	}
	if a.source.IsValid() {
		rec.Source = a.source.String()
	}
	if a.request != nil {
		rec.Status.Request = a.request.Metadata.Name
		rec.Requests = []string{a.request.Metadata.Name}
	}
	if err := r.keep(ctx, rec, v, ""); err != nil {
		return nil, err
	}
	r.add(rec)
	return &rec.Grant, nil
}

// lengthen moves the end of a live grant.
func (r *Room) lengthen(ctx context.Context, a *ask, v policy.GrantVerdict) (*api.Grant, error) {
	g := a.extends
	g.step.Lock()
	defer g.step.Unlock()
	was := g.now.Load()
	now := r.cfg.Now().UTC()
	if !was.alive(now) {
		return nil, over(was)
	}
	until := now.Add(v.For)
	if !until.After(was.Status.Expires) {
		return nil, refuse(api.ReasonDenied, fmt.Sprintf("grant %s lasts as long as its rule allows (%s) already", a.in.Extend, v.MaxFor), "ask again nearer to its end")
	}
	rec := *was
	rec.Metadata.Version++
	rec.Status.Expires, rec.For = until, v.For
	rec.Approvals = union(was.Approvals, a.approvals)
	if a.request != nil {
		rec.Requests = append(slices.Clone(was.Requests), a.request.Metadata.Name)
	}
	if err := r.keep(ctx, &rec, v, "extended"); err != nil {
		return nil, err
	}
	g.now.Store(&rec)
	r.mu.Lock()
	r.wake()
	r.mu.Unlock()
	return &rec.Grant, nil
}

func union(a, b []string) []string {
	set := map[string]bool{}
	for _, s := range append(slices.Clone(a), b...) {
		set[s] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// keep records a grant before it counts, and stores it.
func (r *Room) keep(ctx context.Context, rec *record, v policy.GrantVerdict, how string) error {
	e := leaf(api.EventGrant, rec)
	e.Groups, e.Source = rec.Who.Groups, rec.Source
	e.Verdict, e.Rules, e.Policy = v.Effect.String(), v.Rules, v.Digest
	e.Expires, e.Status = rec.Status.Expires, how
	e.Attrs = map[string]string{"for": rec.For.String(), "rule": v.GrantRule}
	if len(rec.Requests) > 0 {
		e.Request = rec.Requests[len(rec.Requests)-1]
	}
	if err := r.record(ctx, e); err != nil {
		return unrecorded(err)
	}
	doc, err := json.Marshal(rec)
	if err == nil {
		_, err = r.cfg.Store.Put(ctx, docLive, rec.Metadata.Name, doc)
	}
	if err != nil {
		return unrecorded(err)
	}
	return nil
}

func unrecorded(err error) error {
	return &failure{refuse(api.ReasonEvidence, "the grant could not be recorded, so there is none: "+err.Error(), "tell who runs the server; then try again"), err}
}

// resume says what became of an earlier request of the principal's.
func (r *Room) resume(ctx context.Context, who policy.Principal, name string) (api.GrantAnswer, error) {
	req, err := r.cfg.Approvals.Find(ctx, name)
	if err == nil && (req.Spec.Principal != who.ID() || req.Spec.Kind != askedKind) {
		err = refuse(api.ReasonNotFound, "you have no request "+name+" for a grant", "hoopctl get requests lists yours")
	}
	if err != nil {
		return api.GrantAnswer{}, err
	}
	says := func(why api.Reason, words string) (api.GrantAnswer, error) {
		e := refuse(why, "request "+name+" "+words, "ask again")
		if e.Request = name; req.Status.Reason != "" {
			e.Message += ": " + req.Status.Reason
		}
		return api.GrantAnswer{}, e
	}
	switch req.Status.Phase {
	case "pending", "approved": // approved ones become grants within a moment
		return api.GrantAnswer{Request: &req}, nil
	case "used":
		r.mu.RLock()
		_, owed := r.owed[name]
		r.mu.RUnlock()
		if owed {
			return api.GrantAnswer{Request: &req}, nil
		}
		g, err := r.Live(ctx, who, req.Status.Grant)
		if err != nil {
			return api.GrantAnswer{}, err
		}
		return api.GrantAnswer{Grant: &g}, nil
	case "denied":
		return says(api.ReasonDenied, "was denied")
	case "expired":
		return says(api.ReasonExpired, "expired")
	default:
		return says(api.ReasonWithdrawn, "was withdrawn")
	}
}

// settle makes grants of approved requests, and of those that were used before
// the server could finish.
func (r *Room) settle(ctx context.Context) error {
	r.settling.Lock() // two at once could both find a grant unpaid
	defer r.settling.Unlock()
	approved, err := r.cfg.Approvals.Settled(ctx, askedKind, time.Time{})
	errs := []error{err}
	for _, req := range approved {
		if err := r.grantFor(ctx, req); err != nil {
			errs = append(errs, fmt.Errorf("request %s: %w", req.Metadata.Name, err))
		}
	}
	r.mu.RLock()
	owed := slices.Collect(maps.Values(r.owed))
	r.mu.RUnlock()
	for _, req := range owed {
		if err := r.pay(ctx, req); err != nil {
			errs = append(errs, fmt.Errorf("request %s: %w", req.Metadata.Name, err))
		}
	}
	return errors.Join(errs...)
}

// grantFor decides again, by the policy and the principal of now, and uses the
// request up for a grant whose name it takes first.
func (r *Room) grantFor(ctx context.Context, req api.Request) error {
	name := req.Metadata.Name
	a, why := r.remembered(ctx, req)
	if why != "" {
		return r.cfg.Approvals.Drop(ctx, name, why)
	}
	v, err := r.decide(ctx, a)
	if isReason(err, api.ReasonNotFound) {
		return r.cfg.Approvals.Drop(ctx, name, err.Error())
	}
	if err != nil {
		return err
	}
	if v.Effect != policy.Allow {
		return r.cfg.Approvals.Drop(ctx, name, "the rules have changed since it was asked: "+v.Reason)
	}
	becomes := a.in.Extend
	if becomes == "" {
		n, err := r.cfg.Store.Next(ctx, "grant")
		if err != nil {
			return err
		}
		becomes = "g-" + strconv.FormatInt(n, 10)
	}
	used, err := r.cfg.Approvals.Use(ctx, name, req.Spec.Digest, becomes)
	if err != nil {
		if isReason(err, api.ReasonEvidence) {
			return err
		}
		return nil // it was used, lost its quorum, or expired: the request says which
	}
	r.owe(used)
	return r.pay(ctx, used)
}

func (r *Room) owe(req api.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owed[req.Metadata.Name] = req
}

// pay issues the grant that a used request names, unless that was done.
func (r *Room) pay(ctx context.Context, req api.Request) error {
	paid, err := r.paid(ctx, req)
	if err != nil {
		return err
	}
	if !paid {
		if err := r.issueOwed(ctx, req); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.owed, req.Metadata.Name)
	return nil
}

// issueOwed returns nil too if nothing is to be issued any more.
func (r *Room) issueOwed(ctx context.Context, req api.Request) error {
	if !r.cfg.Now().Before(req.Status.Expires) {
		r.cfg.Log.Warn("grant: an approval expired before it could become a grant", "request", req.Metadata.Name)
		return nil
	}
	a, why := r.remembered(ctx, req)
	if why != "" {
		r.cfg.Log.Warn("grant: an approval became no grant", "request", req.Metadata.Name, "why", why)
		return nil
	}
	v, err := r.decide(ctx, a)
	if err != nil && !isReason(err, api.ReasonNotFound) {
		return err
	}
	if err != nil || v.Effect != policy.Allow {
		r.cfg.Log.Warn("grant: an approval became no grant", "request", req.Metadata.Name, "why", "the rules have changed")
		return nil
	}
	a.name = req.Status.Grant
	if _, err = r.issue(ctx, a, v); isReason(err, api.ReasonEvidence) {
		return err
	}
	return nil
}

// paid reports whether the grant that the request names was issued from it.
func (r *Room) paid(ctx context.Context, req api.Request) (bool, error) {
	r.mu.RLock()
	g := r.live[req.Status.Grant]
	r.mu.RUnlock()
	if g != nil {
		return slices.Contains(g.now.Load().Requests, req.Metadata.Name), nil
	}
	_, err := r.past(ctx, req.Status.Grant)
	if isReason(err, api.ReasonNotFound) {
		return false, nil
	}
	return err == nil, err
}

// remembered is the wish behind a request, by the principal as it is now.
func (r *Room) remembered(ctx context.Context, req api.Request) (_ *ask, why string) {
	s := &req.Spec
	who, err := r.cfg.Current(ctx, s.Principal)
	if err != nil {
		return nil, "who asked is no longer known"
	}
	a := &ask{who: who, request: &req, in: api.GrantRequest{Target: s.Target, For: s.For, Reason: s.Reason, Purpose: s.Purpose, Ticket: s.Ticket, Action: s.Action, Extend: s.Grant}}
	a.source, _ = netip.ParseAddr(s.Source)
	for _, c := range s.Cures {
		a.approvals = append(a.approvals, policy.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum}.Approval())
	}
	if s.Grant != "" {
		if err := r.extending(a); err != nil {
			return nil, err.Error()
		}
	}
	return a, ""
}
