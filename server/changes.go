package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
	"github.com/hoopctl/hoopctl/server/store"
)

// Kinds of document in the store: changes of resources that wait for people,
// under the name of their request, and what became of those that people agreed to.
const (
	docChange     = "change"
	docChangeDone = "change.done"
)

// doneFor is how long it is remembered what became of a change, for whoever
// asked for it and was away; the evidence remembers for good.
const doneFor = 7 * 24 * time.Hour

// wanted is a change of resources that somebody wants: files to apply, or one
// resource to delete.
type wanted struct {
	Who    policy.Principal `json:"who"`
	Source netip.Addr       `json:"source,omitzero"`
	Base   string           `json:"base"` // digest of the set that it was asked under
	Files  []api.File       `json:"files,omitempty"`
	Prune  bool             `json:"prune,omitempty"`
	Delete string           `json:"delete,omitempty"` // "Policy/engineers"
}

// outcome is what became of a change that people agreed to.
type outcome struct {
	Applied api.Applied `json:"applied"`
	Failed  string      `json:"failed,omitempty"` // why it was not applied after all
}

// agreed names the request under which a change is made, and who said yes.
type agreed struct {
	request string
	by      []api.EventApproved
}

// manage asks whether somebody may change resources; approvals are those given so far.
func (s *Server) manage(who policy.Principal, source netip.Addr, approvals []string) policy.Verdict {
	return s.resources.set().Decide(policy.Request{Principal: who, Action: policy.Manage, ObjectKind: "server", Approvals: approvals, Now: s.now(), SourceIP: source, Via: "api"})
}

// change makes a change, or asks the people whom policy wants asked. The caller
// learns of the second by Applied.Request: nothing is changed then.
func (s *Server) change(c *call, w wanted, reason string, dryRun bool) (any, error) {
	w.Who, w.Source = c.who, c.source.Addr()
	v := s.manage(w.Who, w.Source, nil)
	if v.Effect == policy.Deny {
		return nil, mayNot(w.Who, policy.Manage, v)
	}
	s.resources.mu.Lock()
	defer s.resources.mu.Unlock()
	w.Base = s.resources.set().Digest()
	p, err := s.resources.plan(w)
	if err != nil {
		return nil, err
	}
	out := p.applied()
	if err := s.mayObserve(p, v); err != nil {
		return nil, err
	}
	switch {
	case dryRun:
		out.Needs = apiCures(v.Cures)
		return out, nil
	case v.Effect == policy.Allow || p.empty():
		return out, s.commit(c.Context(), c.who, p, agreed{}, nil)
	}
	out.Request, err = s.hold(c.Context(), w, p, reason, v.Cures)
	return out, err
}

func (p plan) empty() bool {
	for _, c := range p.changes {
		if !c.same() {
			return false
		}
	}
	return true
}

// plan is what a wanted change comes to by the set in force.
func (r *resources) plan(w wanted) (plan, error) {
	if w.Delete != "" {
		kind, name, _ := strings.Cut(w.Delete, "/")
		return r.planDelete(kind, name)
	}
	return r.planApply(api.Apply{Files: w.Files, Prune: w.Prune})
}

// hold opens the question. What people see is the difference itself; what they
// agree to is bound to the exact files and to the set in force besides. The
// caller holds resources.mu.
func (s *Server) hold(ctx context.Context, w wanted, p plan, reason string, cures []policy.Cure) (*api.Request, error) {
	if err := s.masks.checkWords(reason); err != nil {
		return nil, invalid("the reason cannot be kept: %v", err)
	}
	spec := api.RequestSpec{Kind: approval.KindChange, Principal: w.Who.ID(), Name: w.Who.Name, Reason: reason, Statement: p.text(), Digest: w.binding(), Cures: apiCures(cures)}
	if w.Source.IsValid() {
		spec.Source = w.Source.String()
	}
	for _, id := range []string{w.Who.ID(), w.Who.Owner, w.Who.ActsFor} {
		if id != "" {
			spec.Chain = append(spec.Chain, id)
		}
	}
	var expires time.Duration
	for _, c := range cures {
		if c.Expires > 0 && (expires == 0 || c.Expires < expires) {
			expires = c.Expires
		}
	}
	req, err := s.approvals.Open(ctx, spec, expires)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(w)
	if err == nil {
		_, err = s.store.Put(ctx, docChange, req.Metadata.Name, body)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the change of request %s: %w", req.Metadata.Name, err)
	}
	return &req, nil
}

func apiCures(cures []policy.Cure) []api.Cure {
	var out []api.Cure
	for _, c := range cures {
		out = append(out, api.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum, Reason: c.Reason})
	}
	return out
}

// text is a plan as people read it before they agree: a line for each resource
// that changes, "policy/engineers configured", and its difference below. Lines
// of a difference begin with a space, "-" or "+".
func (p plan) text() string {
	var b strings.Builder
	for _, r := range p.applied().Results {
		if r.Action != "unchanged" {
			fmt.Fprintf(&b, "%s/%s %s\n%s", strings.ToLower(r.Kind), r.Name, r.Action, r.Diff)
		}
	}
	return b.String()
}

// binding is SHA-256 over length-prefixed fields: who wants it, by which set,
// and the exact bytes.
func (w wanted) binding() string {
	h := sha256.New()
	field := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	for _, s := range []string{"hoopctl change v1", w.Who.ID(), w.Base, w.Delete, fmt.Sprint(w.Prune, len(w.Files))} {
		field(s)
	}
	for _, f := range w.Files {
		field(f.Name)
		field(f.Content)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// runChanges makes the changes that people agree to, until ctx ends.
func (s *Server) runChanges(ctx context.Context) error {
	again := time.NewTicker(30 * time.Second) // for what could not be recorded or stored
	defer again.Stop()
	if err := s.forgetChanges(ctx); err != nil {
		s.log.Error("outcomes of changes not swept", "error", err)
	}
	for {
		changed := s.approvals.Changed()
		if err := s.settleChanges(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("a change of resources is not settled", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again.C:
		}
	}
}

// forgetChanges drops outcomes that nobody came for.
func (s *Server) forgetChanges(ctx context.Context) error {
	docs, err := s.store.List(ctx, docChangeDone)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range docs {
		if s.now().Sub(d.Updated) > doneFor {
			errs = append(errs, s.store.Delete(ctx, docChangeDone, d.Name))
		}
	}
	return errors.Join(errs...)
}

// settleChanges looks at every change that waits: it makes those that people
// agreed to, and withdraws those that can no longer be made as they were shown.
func (s *Server) settleChanges(ctx context.Context) error {
	docs, err := s.store.List(ctx, docChange)
	if err != nil || len(docs) == 0 {
		return err
	}
	s.resources.mu.Lock()
	defer s.resources.mu.Unlock()
	// Once taken, an approval leads to a change or to a record that it did not:
	// whoever asked may go away meanwhile.
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, d := range docs {
		if err := s.settleChange(ctx, d.Name); err != nil {
			errs = append(errs, fmt.Errorf("request %s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// settleChange moves one change on. The caller holds resources.mu.
func (s *Server) settleChange(ctx context.Context, name string) error {
	body, err := s.store.Get(ctx, docChange, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil // another call settled it
	}
	var w wanted
	if err == nil {
		err = json.Unmarshal(body, &w)
	}
	if err != nil {
		return err
	}
	req, err := s.approvals.Find(ctx, name)
	if err != nil {
		return err
	}
	phase := req.Status.Phase
	if phase != approval.Pending && phase != approval.Approved && phase != approval.Used {
		return s.store.Delete(ctx, docChange, name)
	}
	who, p, why := s.stillHolds(ctx, w, req)
	switch {
	case phase == approval.Pending && why == "":
		return nil
	case why != "" && phase == approval.Used:
		return s.changeFailed(ctx, w, req, why)
	case why != "":
		if err := s.approvals.Drop(ctx, name, why); err != nil {
			return err
		}
		return s.store.Delete(ctx, docChange, name)
	}
	if phase == approval.Approved {
		// Of any number of servers and calls one takes it. What follows is
		// done again after a crash: the document is there until it is done.
		if req, err = s.approvals.Use(ctx, name, req.Spec.Digest, ""); err != nil {
			return err
		}
	}
	return s.commit(ctx, who, p, agreement(req), func(tx *store.Tx) error { return finish(tx, name, outcome{Applied: p.applied()}) })
}

// stillHolds plans a change anew and says why it must not be made as it was
// shown and agreed to, "" if it may. Policy is asked with the approvals as if
// all had been given: what it would deny even then is not waited for.
func (s *Server) stillHolds(ctx context.Context, w wanted, req api.Request) (policy.Principal, plan, string) {
	who, err := s.current(ctx, w.Who.ID())
	if err != nil {
		return who, plan{}, w.Who.Name + " is no longer known"
	}
	if w.Base != s.resources.set().Digest() {
		return who, plan{}, "the resources have changed since it was asked; apply again"
	}
	p, err := s.resources.plan(w)
	if err != nil {
		return who, plan{}, "it can no longer be applied: " + err.Error()
	}
	if p.text() != req.Spec.Statement || w.binding() != req.Spec.Binding {
		return who, plan{}, "it would change something else than was shown; apply again"
	}
	var approvals []string
	for _, c := range req.Spec.Cures {
		approvals = append(approvals, policy.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum}.Approval())
	}
	if v := s.manage(who, w.Source, approvals); v.Effect != policy.Allow {
		return who, plan{}, "policy no longer allows it: " + cmp.Or(v.Reason, strings.Join(v.Rules, ", "))
	}
	return who, p, ""
}

// changeFailed writes down that a change was not made although its approval is used up.
func (s *Server) changeFailed(ctx context.Context, w wanted, req api.Request, why string) error {
	e := api.Event{Kind: api.EventAdmin, Principal: w.Who.ID(), Name: w.Who.Name, Request: req.Metadata.Name, Object: "resources", Reason: "an approved change was not applied"}
	if err := s.recordNow(ctx, &e); err != nil {
		return err
	}
	s.log.Error("an approved change was not applied", "request", req.Metadata.Name, "reason", why)
	return s.store.Tx(ctx, func(tx *store.Tx) error { return finish(tx, req.Metadata.Name, outcome{Failed: why}) })
}

// finish takes a change from those that wait to those that are done.
func finish(tx *store.Tx, name string, o outcome) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := tx.Delete(docChange, name); err != nil {
		return err
	}
	_, err = tx.Put(docChangeDone, name, body)
	return err
}

// agreement lists who said yes to a request that is used.
func agreement(req api.Request) agreed {
	a := agreed{request: req.Metadata.Name}
	for _, x := range req.Status.Answers {
		if !x.Approve {
			continue
		}
		for _, rule := range x.Rules {
			a.by = append(a.by, api.EventApproved{Request: a.request, By: x.Principal, Rule: rule})
		}
	}
	return a
}

// resumeChange says what became of a change that waited, and makes it if it
// was just agreed to.
func (s *Server) resumeChange(c *call, name string) (any, error) {
	req, err := s.approvals.Find(c.Context(), name)
	if err != nil || req.Spec.Kind != approval.KindChange || req.Spec.Principal != c.who.ID() {
		return nil, notFound("request", name)
	}
	if req.Status.Phase == approval.Approved || req.Status.Phase == approval.Used {
		if err := s.settleChanges(c.Context()); err != nil {
			s.log.Error("a change of resources is not settled", "error", err)
		}
	}
	body, err := s.store.Get(c.Context(), docChangeDone, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, s.unsettled(c.Context(), name)
	}
	var o outcome
	if err == nil {
		err = json.Unmarshal(body, &o)
	}
	if err != nil {
		return nil, fmt.Errorf("what became of request %s: %w", name, err)
	}
	if o.Failed != "" {
		return nil, &api.Error{Reason: api.ReasonConflict, Request: name, Message: "the change was approved and is not applied: " + o.Failed, Hint: "apply again"}
	}
	return o.Applied, nil
}

// unsettled says why a request has led to no change.
func (s *Server) unsettled(ctx context.Context, name string) error {
	req, err := s.approvals.Find(ctx, name)
	if err != nil {
		return err
	}
	e := &api.Error{Request: name, Message: "request " + name + " is " + req.Status.Phase, Hint: "apply again"}
	switch req.Status.Phase {
	case approval.Pending:
		e.Reason, e.Hint = api.ReasonPending, "see hoopctl describe request "+name
	case approval.Denied:
		e.Reason = api.ReasonDenied
	case approval.Expired:
		e.Reason = api.ReasonExpired
	case approval.Withdrawn:
		e.Reason = api.ReasonWithdrawn
	default:
		e.Reason, e.Message, e.Hint = api.ReasonUnavailable, "request "+name+" is approved, and its change is not made yet", "ask again in a moment; tell whoever runs the broker"
	}
	if req.Status.Reason != "" {
		e.Message += ": " + req.Status.Reason
	}
	return e
}
