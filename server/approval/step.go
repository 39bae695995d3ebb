package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hoopctl/hoopctl/server/api"
)

// close ends a live request that is pending or approved.
func (r *Room) close(ctx context.Context, name, phase, reason, grant string) error {
	q := r.find(name)
	if q == nil {
		return r.gone(ctx, name)
	}
	q.step.Lock()
	defer q.step.Unlock()
	if rec := q.now.Load(); rec.Status.Phase != Pending && rec.Status.Phase != Approved {
		return ended(name, rec.Status.Phase, rec.Status.Reason)
	}
	return r.step(ctx, q, phase, reason, grant)
}

// step moves a request on. The caller holds q.step and has checked that the
// step is allowed.
func (r *Room) step(ctx context.Context, q *request, phase, reason, grant string) error {
	rec := q.now.Load().clone()
	rec.Status.Phase, rec.Status.Reason = phase, reason
	if grant != "" {
		rec.Status.Grant = grant
	}
	return r.settle(ctx, q, rec)
}

// settle records rec, whose phase is new, and makes it the request's state.
// What opens a door must be on record before it opens. What closes one (a
// withdrawal, an expiry) closes it at once: if that cannot be recorded, the
// error says so, and the door stays closed.
func (r *Room) settle(ctx context.Context, q *request, rec *record) error {
	closes := rec.Status.Phase == Withdrawn || rec.Status.Phase == Expired
	err := r.record(ctx, ending(rec))
	if err == nil || closes {
		err = errors.Join(err, r.put(ctx, rec))
	}
	if err != nil && !closes {
		return err
	}
	r.replace(q, rec)
	return err
}

// replace makes rec the request's state in memory and tells everyone.
func (r *Room) replace(q *request, rec *record) {
	was := q.now.Swap(rec)
	if rec.Status.Phase != Pending && rec.Status.Phase != Approved {
		r.mu.Lock()
		delete(r.active, rec.Metadata.Name)
		r.remember(rec)
		r.mu.Unlock()
	}
	if was.Status.Phase == Pending && rec.Status.Phase != Pending {
		close(q.decided)
	}
	r.announce(rec)
}

func (r *Room) remember(rec *record) {
	if len(r.recent) >= maxRecent {
		r.recent = r.recent[1:]
	}
	r.recent = append(r.recent, rec)
}

// announce wakes who watches.
func (r *Room) announce(rec *record) {
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	r.cfg.Notify(rec.Request)
}

// Changed returns a channel that is closed at the next change of any request.
// To miss nothing, call it before looking.
func (r *Room) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

// put writes the record where its phase belongs. A request that has ended is
// moved: if it is no longer among the live ones, someone else ended it, and
// this step must not happen.
func (r *Room) put(ctx context.Context, rec *record) error {
	doc, err := json.Marshal(rec)
	if err != nil {
		return unrecorded(err)
	}
	name := rec.Metadata.Name
	if rec.Status.Phase == Pending || rec.Status.Phase == Approved {
		_, err = r.cfg.Store.Put(ctx, docActive, name, doc)
	} else {
		err = r.cfg.Store.Move(ctx, docActive, name, docEnded, doc)
	}
	if err != nil {
		return unrecorded(err)
	}
	return nil
}

func (rec *record) clone() *record {
	c := *rec
	c.Metadata.Version++
	c.Status.Answers = append([]api.Approval(nil), rec.Status.Answers...)
	c.By = make([][]string, len(rec.By))
	for i, ids := range rec.By {
		c.By[i] = append([]string(nil), ids...)
	}
	return &c
}

// record writes a leaf and returns when it is durable.
func (r *Room) record(ctx context.Context, e *api.Event) error {
	ticket, err := r.cfg.Evidence.Append(e)
	if err == nil {
		err = r.cfg.Evidence.Wait(ctx, ticket)
	}
	if err != nil {
		return unrecorded(err)
	}
	return nil
}

// leaf says which request an event is about. People's words stay out of it,
// and so does the statement's text: only its shape goes in.
func leaf(kind string, rec *record) *api.Event {
	s := &rec.Spec
	return &api.Event{Kind: kind, Request: rec.Metadata.Name, Target: s.Target, Session: s.Session, Digest: s.Digest}
}

func opening(rec *record) *api.Event {
	s := &rec.Spec
	e := leaf(api.EventRequest, rec)
	e.Principal, e.Name, e.Purpose, e.Expires = s.Principal, s.Name, s.Purpose, rec.Status.Expires
	var asked []string
	for _, c := range s.Cures {
		e.Rules = append(e.Rules, c.Rule)
		asked = append(asked, fmt.Sprintf("%s/%s:%d", c.Rule, c.Group, c.Quorum))
	}
	e.Attrs = map[string]string{"kind": s.Kind, "asked": strings.Join(asked, " "), "chain": strings.Join(s.Chain, " ")}
	if f := s.Facts; f != nil {
		e.Statement, e.Fingerprint, e.Command, e.Class, e.Tables = f.Shape, f.Fingerprint, f.Kind, string(f.Class), f.Tables
	}
	return e
}

func ending(rec *record) *api.Event {
	e := leaf(api.EventRequestEnd, rec)
	e.Principal, e.Name = rec.Spec.Principal, rec.Spec.Name
	e.Status, e.Grant = rec.Status.Phase, rec.Status.Grant
	for i, c := range rec.Spec.Cures {
		for _, id := range rec.By[i] {
			e.Approvals = append(e.Approvals, api.EventApproved{Request: rec.Metadata.Name, By: id, Rule: c.Rule})
		}
	}
	return e
}

// gone answers for a request that is not live: how it ended, or that there is none.
func (r *Room) gone(ctx context.Context, name string) error {
	rec, err := r.past(ctx, name)
	if err != nil {
		return err
	}
	return ended(name, rec.Status.Phase, rec.Status.Reason)
}

func (r *Room) past(ctx context.Context, name string) (*record, error) {
	doc, err := r.cfg.Store.Get(ctx, docEnded, name)
	var q interface{ NotFound() bool }
	if errors.As(err, &q) && q.NotFound() {
		return nil, noRequest(name)
	}
	if err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	return decode(doc)
}

// ended says why a request in this phase is of no use any more.
func ended(name, phase, reason string) *api.Error {
	says := func(why api.Reason, word, hint string) *api.Error {
		e := refuse(why, "request "+name+" "+word, hint)
		if e.Request = name; reason != "" && phase != Expired {
			e.Message += ": " + reason
		}
		return e
	}
	switch phase {
	case Denied:
		return says(api.ReasonDenied, "was denied", "talk to who denied it before asking again")
	case Expired:
		return says(api.ReasonExpired, "expired before it was answered or used", "ask again")
	case Withdrawn:
		return says(api.ReasonWithdrawn, "was withdrawn", "ask again")
	case Used:
		return says(api.ReasonConflict, "was approved and has been used", "an approval is good for once; ask again")
	case Approved:
		return says(api.ReasonConflict, "is approved already", "")
	default:
		return says(api.ReasonPending, "waits for an answer", "hoopctl request wait "+name)
	}
}

func noRequest(name string) *api.Error {
	return refuse(api.ReasonNotFound, "there is no request "+name, "hoopctl get requests lists those that you may see")
}

func pending(rec *record) *api.Error { return ended(rec.Metadata.Name, Pending, "") }

// unrecorded is the failure of evidence or store: nothing happened.
func unrecorded(err error) error {
	e := refuse(api.ReasonEvidence, "it could not be recorded, so nothing was done: "+err.Error(), "tell who runs the server; then try again")
	return &failure{e, err}
}

// failure is an *api.Error that keeps its cause.
type failure struct {
	said  *api.Error
	cause error
}

func (f *failure) Error() string   { return f.said.Error() }
func (f *failure) Unwrap() []error { return []error{f.said, f.cause} }

func refuse(why api.Reason, message, hint string) *api.Error {
	code := map[api.Reason]int{api.ReasonInvalid: http.StatusBadRequest, api.ReasonDenied: http.StatusForbidden, api.ReasonNotFound: http.StatusNotFound,
		api.ReasonConflict: http.StatusConflict, api.ReasonPending: http.StatusAccepted, api.ReasonExpired: http.StatusGone,
		api.ReasonWithdrawn: http.StatusGone, api.ReasonTooMany: http.StatusTooManyRequests, api.ReasonEvidence: http.StatusServiceUnavailable}[why]
	return &api.Error{Code: code, Reason: why, Message: message, Hint: hint, Source: "broker"}
}

func isReason(err error, why api.Reason) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Reason == why
}
