package server

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/session"
)

// live is one session that is being served.
type live struct {
	*session.Session
	name, principal, login, grant, target, via string

	end  context.CancelCauseFunc
	gone chan struct{} // closed when it is served no more
}

// registry holds the live sessions. Safe for concurrent use.
type registry struct {
	mu      sync.Mutex
	byName  map[string]*live
	changed chan struct{} // closed and made anew at each change
}

func newRegistry() *registry {
	return &registry{byName: map[string]*live{}, changed: make(chan struct{})}
}

func (r *registry) add(l *live) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byName[l.name] = l
	r.signal()
}

func (r *registry) remove(l *live) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byName, l.name)
	close(l.gone)
	r.signal()
}

func (r *registry) signal() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// watch returns a channel that is closed at the next change.
func (r *registry) watch() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *registry) get(name string) *live {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byName[name]
}

// list returns the live sessions in the order of their names' numbers.
func (r *registry) list(pick func(*live) bool) []*live {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*live
	for _, l := range r.byName {
		if pick(l) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *live) int { return compareNames(a.name, b.name) })
	return out
}

// compareNames orders s-9 before s-10.
func compareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// endAll ends the picked sessions with the same words, and returns their names.
func (r *registry) endAll(pick func(*live) bool, why *session.Refusal) []string {
	var names []string
	for _, l := range r.list(pick) {
		l.end(why)
		names = append(names, l.name)
	}
	return names
}

// drain waits until no session is left or ctx ends.
func (r *registry) drain(ctx context.Context) {
	for {
		wait := r.watch()
		if len(r.list(func(*live) bool { return true })) == 0 {
			return
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return
		}
	}
}

// recentSessions is how far back a list of sessions looks for closed ones.
const recentSessions = 24 * time.Hour

// sessions are the live sessions and those that the evidence remembers of the
// last day, the newest last.
func (s *Server) sessions(ctx context.Context, mine func(principal string) bool) ([]api.Session, error) {
	var out []api.Session
	seen := map[string]bool{}
	for _, l := range s.registry.list(func(l *live) bool { return mine(l.principal) }) {
		out = append(out, l.Status())
		seen[l.name] = true
	}
	past, err := s.closedSessions(ctx, s.now().Add(-recentSessions))
	if err != nil {
		return nil, err
	}
	for _, p := range past {
		if !seen[p.Metadata.Name] && mine(p.Spec.Principal) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b api.Session) int { return compareNames(a.Metadata.Name, b.Metadata.Name) })
	return out, nil
}

// closedSessions reads sessions out of the evidence: their open and close leaves.
func (s *Server) closedSessions(ctx context.Context, since time.Time) ([]api.Session, error) {
	events, err := s.evidence.Search(ctx, api.EventQuery{Since: since, Kind: []string{api.EventSessionOpen, api.EventSessionClose}, Limit: maxList})
	if err != nil {
		return nil, err
	}
	byName := map[string]*api.Session{}
	var order []string
	for i := range events {
		e := &events[i]
		if e.Kind == api.EventSessionOpen {
			byName[e.Session] = openedSession(e)
			order = append(order, e.Session)
			continue
		}
		if p := byName[e.Session]; p != nil {
			closeSession(p, e)
		}
	}
	out := make([]api.Session, 0, len(order))
	for _, name := range order {
		out = append(out, *byName[name])
	}
	return out, nil
}

func openedSession(e *api.Event) *api.Session {
	return &api.Session{
		Metadata: api.Meta{Name: e.Session, Created: e.Time},
		Spec: api.SessionSpec{Principal: e.Principal, Name: e.Name, Target: e.Target, Grant: e.Grant, Database: e.Attrs["database"],
			Application: e.Attrs["application"], Via: e.Via, Source: e.Source},
		// A session that is not live and has no close leaf ended with its server.
		Status: api.SessionStatus{Phase: "crashed"},
	}
}

func closeSession(p *api.Session, e *api.Event) {
	p.Status = api.SessionStatus{Phase: "closed", Closed: e.Time, Reason: e.Reason, Rows: e.Rows, Bytes: e.Bytes,
		Statements: number(e.Attrs["statements"]), Masked: number(e.Attrs["maskedCells"]), MaskedColumns: e.Masked}
	if e.Status == "crashed" {
		p.Status.Phase = "crashed"
	}
}
