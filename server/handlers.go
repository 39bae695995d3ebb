package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/store"
)

func (s *Server) getInfo(*call) (any, error) {
	return api.Info{Name: s.cfg.Name, Version: s.cfg.Version, CAFingerprint: s.ca.Fingerprint(), LogKey: s.evidence.LogKey(), ClientCA: string(s.ca.ClientPEM()), Issuers: s.identity.Issuers()}, nil
}

func (s *Server) postEnroll(c *call) (any, error) {
	in, err := read[api.Enroll](c)
	if err != nil {
		return nil, err
	}
	return s.identity.Enroll(c.Context(), in, c.source.String())
}

func (s *Server) postRenew(c *call) (any, error) {
	in, err := read[api.Enroll](c)
	if err != nil {
		return nil, err
	}
	before, _ := s.identity.Current(in.Login) // a lapsed login has no sessions that could keep old rights
	out, err := s.identity.Renew(c.Context(), in, c.source.String())
	if err != nil {
		return nil, err
	}
	s.renewed(c.Context(), before, out)
	return out, nil
}

// renewed acts on what the provider says of a principal now. Sessions began
// with the old groups; if those changed they end, and grants that policy would
// no longer give are revoked.
func (s *Server) renewed(ctx context.Context, before policy.Principal, now api.Enrolled) {
	if slices.Equal(before.Groups, now.Principal.Groups) && before.Kind == now.Principal.Kind {
		return
	}
	if err := s.grants.Recheck(ctx, now.Principal.ID()); err != nil {
		s.log.Error("grants not rechecked", "principal", now.Principal.ID(), "error", err)
	}
	s.registry.endAll(func(l *live) bool { return l.principal == now.Principal.ID() },
		&session.Refusal{Code: session.CodeLost, Message: "your groups have changed at the identity provider", Hint: "connect again", Fatal: true})
}

func (s *Server) getWhoami(c *call) (any, error) {
	ends, err := s.identity.Ends(c.login)
	if err != nil {
		return nil, err
	}
	return api.Whoami{Principal: c.who, ID: c.who.ID(), Clearances: s.resources.set().Clearances(c.who, ""), Login: c.login, Expires: c.cert.NotAfter, LoginEnds: ends, Reviews: s.reviewsOf(c.who)}, nil
}

// postLogout ends the login; what lives by it ends through loginEnded.
func (s *Server) postLogout(c *call) (any, error) {
	return nil, s.identity.Logout(c.Context(), c.login, c.who, c.source.String(), c.who.Name+" logged out")
}

func (s *Server) getTargets(c *call) (any, error) {
	out := api.List[api.Target]{APIVersion: api.APIVersion, Kind: "TargetList", Items: []api.Target{}}
	all := s.mayRead(c.who, c.source.Addr()) == nil
	grants, err := s.grants.List(c.Context())
	if err != nil {
		return nil, err
	}
	for _, res := range s.resources.all(policy.KindTarget) {
		t := s.shownTarget(c, res, grants)
		if all || t.Status.Access != "none" {
			out.Items = append(out.Items, t)
		}
	}
	return out, nil
}

// shownTarget is a target as the caller may see it: what it is, never how the
// server logs in to it.
func (s *Server) shownTarget(c *call, res policy.Resource, grants []api.Grant) api.Target {
	spec := res.Spec.(*policy.TargetSpec)
	t := api.Target{Metadata: api.Meta{Name: res.Metadata.Name, Labels: res.Metadata.Labels}}
	t.Spec.Protocol, t.Spec.Database, t.Spec.Agent, t.Spec.Evidence = spec.Protocol, spec.Database, spec.Agent, evidenceMode(spec)
	t.Status.Enforcement = "enforce"
	if until := spec.ObservedUntil(); s.now().Before(until) {
		t.Status.Enforcement = "observe until " + until.UTC().Format(time.RFC3339)
	}
	for _, g := range grants {
		if g.Spec.Principal == c.who.ID() && g.Spec.Target == res.Metadata.Name && g.Status.Phase == "active" {
			t.Status.Access, t.Status.Grant = "granted", g.Metadata.Name
			return t
		}
	}
	switch s.grantVerdict(c.who, targetRef(res), api.GrantRequest{Target: res.Metadata.Name}, c.source.Addr()).Effect {
	case policy.Allow:
		t.Status.Access = "available"
	case policy.Review:
		t.Status.Access = "approval"
	default:
		t.Status.Access = "none"
	}
	return t
}

func evidenceMode(t *policy.TargetSpec) string {
	if t.Evidence == "" {
		return "strict"
	}
	return t.Evidence
}

func targetRef(res policy.Resource) policy.TargetRef {
	ref := policy.TargetRef{Name: res.Metadata.Name, Labels: res.Metadata.Labels}
	if spec, ok := res.Spec.(*policy.TargetSpec); ok {
		ref.Protocol = spec.Protocol
	}
	return ref
}

// listGrants lists one's own grants, all for those who may see them.
func (s *Server) listGrants(c *call) ([]api.Grant, func() <-chan struct{}, error) {
	grants, err := s.grants.List(c.Context())
	if err != nil {
		return nil, nil, err
	}
	sees := s.sees(c)
	var out []api.Grant
	for _, g := range grants {
		if sees(g.Spec.Principal) {
			out = append(out, s.withSessions(g))
		}
	}
	return out, func() <-chan struct{} { return either(c.Context(), s.grants.Changed(), s.registry.watch()) }, nil
}

func (s *Server) withSessions(g api.Grant) api.Grant {
	g.Status.Sessions = len(s.registry.list(func(l *live) bool { return l.grant == g.Metadata.Name }))
	return g
}

func (s *Server) postGrant(c *call) (any, error) {
	in, err := read[api.GrantRequest](c)
	if err != nil {
		return nil, err
	}
	if in.Extend == "" && in.Resume == "" || in.Target != "" { // these name what they are about themselves
		if _, ok := s.resources.get(policy.KindTarget, in.Target); !ok {
			return nil, notFound("target", in.Target)
		}
	}
	return s.grants.Request(c.Context(), c.who, in, c.source.Addr())
}

func (s *Server) getGrant(c *call) (any, error) {
	g, err := s.grants.Get(c.Context(), c.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if !s.sees(c)(g.Spec.Principal) {
		return nil, notFound("grant", c.PathValue("name"))
	}
	return s.withSessions(g), nil
}

// deleteGrant revokes a grant: one's own, or another's by those who may
// terminate. What lived by it has ended when the call returns, or is about to.
func (s *Server) deleteGrant(c *call) (any, error) {
	name := c.PathValue("name")
	g, err := s.grants.Get(c.Context(), name)
	if err != nil {
		return nil, err
	}
	if g.Spec.Principal != c.who.ID() {
		if !s.sees(c)(g.Spec.Principal) {
			return nil, notFound("grant", name)
		}
		if err := s.may(c, policy.Terminate, "target", g.Spec.Target, g.Spec.Principal); err != nil {
			return nil, err
		}
	}
	broke := s.registry.list(func(l *live) bool { return l.grant == name })
	if err := s.grants.Revoke(c.Context(), c.who, name, c.URL.Query().Get("reason")); err != nil {
		return nil, err
	}
	awaitGone(c.Context(), broke)
	out := api.Revoked{Grant: name}
	for _, l := range broke {
		out.Sessions = append(out.Sessions, l.name)
	}
	return out, nil
}

func (s *Server) listRequests(c *call) ([]api.Request, func() <-chan struct{}, error) {
	list, err := s.approvals.List(c.Context(), c.who, s.mayRead(c.who, c.source.Addr()) == nil)
	return list, s.approvals.Changed, err
}

func (s *Server) getRequest(c *call) (any, error) {
	return s.approvals.Get(c.Context(), c.who, c.PathValue("name"), s.mayRead(c.who, c.source.Addr()) == nil)
}

func (s *Server) deleteRequest(c *call) (any, error) {
	return nil, s.approvals.Withdraw(c.Context(), c.who, c.PathValue("name"))
}

func (s *Server) postAnswer(c *call) (any, error) {
	in, err := read[api.Answer](c)
	if err != nil {
		return nil, err
	}
	return s.approvals.Answer(c.Context(), c.who, c.cert, c.PathValue("name"), in)
}

func (s *Server) listSessions(c *call) ([]api.Session, func() <-chan struct{}, error) {
	list, err := s.sessions(c.Context(), s.sees(c))
	return list, s.registry.watch, err
}

func (s *Server) getSession(c *call) (any, error) {
	name := c.PathValue("name")
	list, err := s.sessions(c.Context(), s.sees(c))
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		if x.Metadata.Name == name {
			return x, nil
		}
	}
	return nil, notFound("session", name)
}

func (s *Server) deleteSession(c *call) (any, error) {
	name := c.PathValue("name")
	l := s.registry.get(name)
	if l == nil || !s.sees(c)(l.principal) {
		return nil, notFound("session", name)
	}
	if l.principal != c.who.ID() {
		if err := s.may(c, policy.Terminate, "session", name, l.principal); err != nil {
			return nil, err
		}
	}
	l.end(&session.Refusal{Code: session.CodeRevoked, Message: fmt.Sprintf("session ended by %s", c.who.Name), Detail: c.URL.Query().Get("reason"), Fatal: true})
	awaitGone(c.Context(), []*live{l})
	return nil, nil
}

// endWait is how long a call that ends sessions waits to see them gone.
const endWait = 5 * time.Second

// awaitGone waits until sessions that were told to end have ended, or ctx
// ends, or it takes too long: they are on their way then, and cannot turn back.
func awaitGone(ctx context.Context, ending []*live) {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	for _, l := range ending {
		select {
		case <-l.gone:
		case <-ctx.Done():
			return
		}
	}
}

// grantVerdict is what asking for a grant would come to.
func (s *Server) grantVerdict(who policy.Principal, ref policy.TargetRef, in api.GrantRequest, source netip.Addr) policy.GrantVerdict {
	return s.resources.set().Grant(policy.Request{Principal: who, Action: policy.Connect, Target: ref, Duration: time.Duration(in.For), Purpose: in.Purpose, Ticket: in.Ticket,
		Reason: in.Reason, Now: s.now(), SourceIP: source, Via: "api"})
}

func (s *Server) postApply(c *call) (any, error) {
	in, err := read[api.Apply](c)
	if err != nil {
		return nil, err
	}
	if in.Resume != "" {
		return s.resumeChange(c, in.Resume)
	}
	return s.change(c, wanted{Files: in.Files, Prune: in.Prune}, in.Reason, in.DryRun)
}

// commit writes every change down, with who agreed to it, stores them and puts
// them in force. also, if not nil, is stored in the same step.
func (s *Server) commit(ctx context.Context, who policy.Principal, p plan, a agreed, also func(*store.Tx) error) error {
	err := s.resources.commit(ctx, who.ID(), p, also, func(c change, digest string) error {
		e := api.Event{Kind: api.EventResource, Principal: who.ID(), Name: who.Name, Object: c.key, Digest: c.digest(), Policy: digest, Reason: c.action, Request: a.request, Approvals: a.by}
		return s.recordNow(ctx, &e)
	})
	if err != nil {
		e := api.Event{Kind: api.EventAdmin, Principal: who.ID(), Name: who.Name, Object: "resources", Reason: "not applied: the change could not be stored"}
		if _, again := s.evidence.Append(&e); again != nil {
			s.log.Error("a failed change was not recorded", "error", again)
		}
		return err
	}
	s.inForce(ctx, p)
	return nil
}

// inForce makes the rooms follow a change of resources. At start there are no
// rooms yet: they read the resources when they open.
func (s *Server) inForce(ctx context.Context, p plan) {
	if s.targets == nil {
		return
	}
	s.targets.Reload(s.resources.all(policy.KindTarget))
	for _, c := range p.changes {
		if c.res.Kind == policy.KindTarget && !c.same() {
			s.postgres.Invalidate(c.res.Metadata.Name)
		}
	}
	if err := s.grants.Recheck(ctx); err != nil {
		s.log.Error("grants not rechecked", "error", err)
	}
}

// recordNow appends an event and returns when it is durable.
func (s *Server) recordNow(ctx context.Context, e *api.Event) error {
	t, err := s.evidence.Append(e)
	if err == nil {
		err = s.evidence.Wait(ctx, t)
	}
	if err != nil {
		return &api.Error{Reason: api.ReasonEvidence, Message: "evidence unavailable", Hint: "nothing is done that cannot be recorded; tell whoever runs the broker"}
	}
	return nil
}

// kindOf turns "policies", "policy" or "Policy" into the resource's kind.
func kindOf(word string) (string, bool) {
	word = strings.ToLower(word)
	for _, k := range policy.Kinds() {
		one := strings.ToLower(k)
		many := one + "s"
		if strings.HasSuffix(one, "y") {
			many = strings.TrimSuffix(one, "y") + "ies"
		}
		if word == one || word == many {
			return k, true
		}
	}
	return "", false
}

func (s *Server) getResources(c *call) (any, error) {
	kind, ok := kindOf(c.PathValue("kind"))
	if !ok {
		return nil, invalid("unknown kind %q: one of %s", c.PathValue("kind"), strings.Join(policy.Kinds(), ", "))
	}
	if err := s.mayRead(c.who, c.source.Addr()); err != nil {
		return nil, err
	}
	out := api.List[api.Resource]{APIVersion: api.APIVersion, Kind: kind + "List", Items: []api.Resource{}}
	for _, res := range s.resources.all(kind) {
		shown, err := shownResource(res)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, shown)
	}
	return out, nil
}

func (s *Server) getResource(c *call) (any, error) {
	kind, ok := kindOf(c.PathValue("kind"))
	if !ok {
		return nil, invalid("unknown kind %q: one of %s", c.PathValue("kind"), strings.Join(policy.Kinds(), ", "))
	}
	if err := s.mayRead(c.who, c.source.Addr()); err != nil {
		return nil, err
	}
	res, ok := s.resources.get(kind, c.PathValue("name"))
	if !ok {
		return nil, notFound(strings.ToLower(kind), c.PathValue("name"))
	}
	return shownResource(res)
}

func shownResource(res policy.Resource) (api.Resource, error) {
	spec, err := json.Marshal(res.Spec)
	if err != nil {
		return api.Resource{}, fmt.Errorf("show %s/%s: %w", res.Kind, res.Metadata.Name, err)
	}
	return api.Resource{APIVersion: api.APIVersion, Kind: res.Kind, Metadata: api.Meta{Name: res.Metadata.Name, Labels: res.Metadata.Labels}, Spec: spec}, nil
}

func (s *Server) deleteResource(c *call) (any, error) {
	kind, ok := kindOf(c.PathValue("kind"))
	if !ok {
		return nil, invalid("unknown kind %q: one of %s", c.PathValue("kind"), strings.Join(policy.Kinds(), ", "))
	}
	return s.change(c, wanted{Delete: resourceKey(kind, c.PathValue("name"))}, c.URL.Query().Get("reason"), false)
}

// streamEvents answers a search of the evidence; watched, it goes on with what comes.
func (s *Server) streamEvents(c *call, w http.ResponseWriter) error {
	q, err := api.ParseEventQuery(c.URL.Query())
	if err != nil {
		return invalid("%v", err)
	}
	events, err := s.evidence.Search(c.Context(), q)
	if err != nil {
		return err
	}
	if c.URL.Query().Get("watch") == "" {
		if events == nil {
			events = []api.Event{}
		}
		writeJSON(w, api.List[api.Event]{APIVersion: api.APIVersion, Kind: "EventList", Items: events})
		return nil
	}
	out := newLines(w)
	after := q.After
	for i := range events {
		after = max(after, events[i].Index)
		if out.write(&events[i]) != nil {
			return nil
		}
	}
	out.write(map[string]string{"kind": "Synced"})
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	context.AfterFunc(s.running, cancel)
	if err := s.evidence.Follow(ctx, after, func(e api.Event) error {
		if !evidence.Matches(&q, &e) {
			return nil
		}
		return out.write(&e)
	}); err != nil && ctx.Err() == nil {
		s.log.Error("tail ended", "error", err)
	}
	return nil
}
