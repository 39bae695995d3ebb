package grant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// Phases of a grant. They are API.
const (
	Active  = "active"
	Expired = "expired"
	Revoked = "revoked"
)

// Kinds of document in the store.
const (
	docLive  = "grant"
	docEnded = "grant.ended"
)

const (
	maxWords  = 1000           // bytes of a reason, ticket or purpose
	maxRecent = 512            // ended grants kept in memory for lists
	owedFor   = 24 * time.Hour // how far back an approval is looked for that became no grant
	askedKind = "grant"        // kind of the requests that become grants
)

// Store keeps grants. Move takes a document from one kind to another as one
// step; Each calls fn with what was written since then; Next never returns a
// number twice. An error with NotFound() true means no document.
type Store interface {
	Put(ctx context.Context, kind, name string, doc []byte) (int64, error)
	Get(ctx context.Context, kind, name string) ([]byte, error)
	Move(ctx context.Context, kind, name, to string, doc []byte) error
	Each(ctx context.Context, kind string, since time.Time, fn func(name string, doc []byte) error) error
	Next(ctx context.Context, sequence string) (int64, error)
}

// Evidence is the append-only record. Append is quick; Wait returns when the
// leaf is durable. An error of either means that nothing may be counted on.
type Evidence interface {
	Append(*api.Event) (ticket uint64, err error)
	Wait(ctx context.Context, ticket uint64) error
}

// Approvals is where people are asked.
type Approvals interface {
	// Open puts a question that nobody waits for, or returns the open one that asks the same.
	Open(ctx context.Context, spec api.RequestSpec, expires time.Duration) (api.Request, error)
	// Find returns a request, live or ended.
	Find(ctx context.Context, name string) (api.Request, error)
	// Settled returns the requests of the kind that are approved now, and those used since then.
	Settled(ctx context.Context, kind string, since time.Time) ([]api.Request, error)
	// Use takes an approved request, once, and notes the grant that comes of it.
	Use(ctx context.Context, name, digest, grant string) (api.Request, error)
	// Drop closes a request that can no longer lead to anything.
	Drop(ctx context.Context, name, reason string) error
	// Changed is closed at the next change of any request.
	Changed() <-chan struct{}
}

// Config is what the room is made of. Store, Evidence, Approvals, Decide and
// Current are needed.
type Config struct {
	Store     Store
	Evidence  Evidence
	Approvals Approvals
	// Decide answers whether the principal may have the grant, by the policy
	// set in force. The request's Target has a Name only. An error means that
	// it could not be decided (no such target: an *api.Error); nothing is issued.
	Decide func(context.Context, policy.Request) (policy.GrantVerdict, error)
	// Current is the principal with this ID as it is known now. An error means
	// that it is no longer known.
	Current func(ctx context.Context, id string) (policy.Principal, error)
	// Ended is told of each grant that ended, at once and before it is written
	// down: the live sessions are to end. It must not call the room. Nil: nobody is told.
	Ended func(End)
	// CheckText refuses words of a person that must not be kept. Nil: everything may be.
	CheckText func(string) error
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: silence
}

// End is what happened to a grant.
type End struct {
	Grant  api.Grant
	Phase  string        // expired | revoked
	By     string        // who revoked it, as people call them; "" if time did
	Reason string        // in the words of who revoked it
	Grace  time.Duration // expired: how long a statement that runs may go on
}

// Room is the room. Its methods are safe for concurrent use.
type Room struct {
	cfg      Config
	settling sync.Mutex

	mu      sync.RWMutex
	live    map[string]*grant   // by name
	byWho   map[string][]*grant // by principal ID
	recent  []*record           // ended, oldest first
	owed    map[string]api.Request
	changed chan struct{}
}

// record is a grant as it is kept. Records are never changed, but replaced.
type record struct {
	api.Grant
	Who       policy.Principal `json:"who"`              // as it was when the grant was issued
	Source    string           `json:"source,omitempty"` // address that asked
	For       time.Duration    `json:"for"`              // as decided
	Approvals []string         `json:"approvals,omitempty"`
	Requests  []string         `json:"requests,omitempty"` // that it came from, and that extended it
	Grace     time.Duration    `json:"grace,omitempty"`
}

type grant struct {
	step sync.Mutex // one change at a time; held while it is being recorded
	now  atomic.Pointer[record]
}

// New opens the room: it loads what lives, and ends what expired meanwhile.
func New(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.Store == nil || cfg.Evidence == nil || cfg.Approvals == nil || cfg.Decide == nil || cfg.Current == nil {
		return nil, errors.New("grant: Store, Evidence, Approvals, Decide and Current are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Ended == nil {
		cfg.Ended = func(End) {}
	}
	if cfg.CheckText == nil {
		cfg.CheckText = func(string) error { return nil }
	}
	r := &Room{cfg: cfg, live: map[string]*grant{}, byWho: map[string][]*grant{}, owed: map[string]api.Request{}, changed: make(chan struct{})}
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	return r, nil
}

func (r *Room) load(ctx context.Context) error {
	since := r.cfg.Now().Add(-owedFor)
	err := r.cfg.Store.Each(ctx, docEnded, since, func(_ string, doc []byte) error {
		rec, err := decode(doc)
		if err == nil {
			r.remember(rec)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = r.cfg.Store.Each(ctx, docLive, time.Time{}, func(_ string, doc []byte) error {
		rec, err := decode(doc)
		if err == nil {
			r.add(rec)
		}
		return err
	})
	if err != nil {
		return err
	}
	used, err := r.cfg.Approvals.Settled(ctx, askedKind, since)
	if err != nil {
		return err
	}
	for _, req := range used {
		if req.Status.Grant != "" {
			r.owed[req.Metadata.Name] = req // pay finds out whether it was paid
		}
	}
	if err := r.Sweep(ctx); err != nil { // Run tries again; nothing expired is live meanwhile
		r.cfg.Log.Error("grant: left undone at start", "error", err)
	}
	return nil
}

func decode(doc []byte) (*record, error) {
	rec := new(record)
	if err := json.Unmarshal(doc, rec); err != nil {
		return nil, fmt.Errorf("a stored grant cannot be read: %w", err)
	}
	if rec.Metadata.Name == "" || rec.Spec.Principal == "" || rec.Spec.Target == "" {
		return nil, fmt.Errorf("stored grant %q contradicts itself", rec.Metadata.Name)
	}
	return rec, nil
}

// add makes a live grant findable.
func (r *Room) add(rec *record) {
	g := new(grant)
	g.now.Store(rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[rec.Metadata.Name] = g
	r.byWho[rec.Spec.Principal] = append(r.byWho[rec.Spec.Principal], g)
	r.wake()
}

// remove makes it unfindable; rec is how it ended.
func (r *Room) remove(g *grant, rec *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, rec.Metadata.Name)
	who := rec.Spec.Principal
	if r.byWho[who] = slices.DeleteFunc(r.byWho[who], func(o *grant) bool { return o == g }); len(r.byWho[who]) == 0 {
		delete(r.byWho, who)
	}
	g.now.Store(rec)
	r.remember(rec)
	r.wake()
}

func (r *Room) remember(rec *record) {
	if len(r.recent) >= maxRecent {
		r.recent = r.recent[1:]
	}
	r.recent = append(r.recent, rec)
}

// wake tells who watches; the caller holds mu.
func (r *Room) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change of any grant. To
// miss nothing, call it before looking.
func (r *Room) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

func (rec *record) alive(now time.Time) bool {
	return rec.Status.Phase == Active && (rec.Status.Expires.IsZero() || now.Before(rec.Status.Expires))
}

// Live returns the principal's live grant of that name, or else on that target
// (of several the one that lasts longest). It asks memory only and is cheap
// enough for every statement. Otherwise the error is an *api.Error: Revoked or
// Expired for a grant of theirs that ended, Denied where there is none. A grant
// of someone else's is not told from none.
func (r *Room) Live(ctx context.Context, who policy.Principal, key string) (api.Grant, error) {
	now := r.cfg.Now()
	id := who.ID()
	var ended *record
	r.mu.RLock()
	if g := r.live[key]; g != nil && g.now.Load().Spec.Principal == id {
		rec := g.now.Load()
		r.mu.RUnlock()
		if !rec.alive(now) {
			return api.Grant{}, over(rec)
		}
		return rec.Grant, nil
	}
	rec := r.longest(id, key, now)
	if rec == nil {
		ended = r.lastEnded(id, key)
	}
	r.mu.RUnlock()
	switch {
	case rec != nil:
		return rec.Grant, nil
	case ended != nil:
		return api.Grant{}, over(ended)
	}
	return api.Grant{}, r.never(ctx, id, key)
}

// longest is the live grant on the target that lasts longest; the caller holds mu.
func (r *Room) longest(id, target string, now time.Time) *record {
	var best *record
	for _, g := range r.byWho[id] {
		rec := g.now.Load()
		if rec.Spec.Target != target || !rec.alive(now) {
			continue
		}
		if best == nil || rec.Status.Expires.IsZero() || !best.Status.Expires.IsZero() && rec.Status.Expires.After(best.Status.Expires) {
			best = rec
		}
	}
	return best
}

// lastEnded is the latest grant of that name or on that target that ended of
// late; the caller holds mu.
func (r *Room) lastEnded(id, key string) *record {
	for _, rec := range slices.Backward(r.recent) {
		if rec.Spec.Principal == id && (rec.Metadata.Name == key || rec.Spec.Target == key) {
			return rec
		}
	}
	return nil
}

// never answers for a key that memory does not know.
func (r *Room) never(ctx context.Context, id, key string) error {
	if rec, err := r.past(ctx, key); err == nil && rec.Spec.Principal == id {
		return over(rec)
	}
	if isName(key) {
		return refuse(api.ReasonDenied, "you have no grant "+key, "ask for one with hoopctl connect TARGET or hoopctl request TARGET")
	}
	return refuse(api.ReasonDenied, "you have no grant on "+key, "ask for one with hoopctl connect "+key+" or hoopctl request "+key)
}

func isName(key string) bool {
	n, err := strconv.ParseUint(strings.TrimPrefix(key, "g-"), 10, 63)
	return err == nil && key == "g-"+strconv.FormatUint(n, 10)
}

// over says in words how a grant ended.
func over(rec *record) *api.Error {
	name := rec.Metadata.Name
	hint := "ask for another with hoopctl connect " + rec.Spec.Target
	if rec.Status.Phase == Revoked {
		e := refuse(api.ReasonRevoked, "grant "+name+" was revoked by "+rec.Status.EndedBy, hint)
		if rec.Status.Reason != "" {
			e.Message += ": " + rec.Status.Reason
		}
		return e
	}
	return refuse(api.ReasonExpired, "grant "+name+" expired", hint)
}

// Get returns a grant, live or ended; NotFound if there is none. Whom it may be
// shown to is the caller's to decide.
func (r *Room) Get(ctx context.Context, name string) (api.Grant, error) {
	r.mu.RLock()
	g := r.live[name]
	r.mu.RUnlock()
	if g != nil {
		return r.shown(g.now.Load()), nil
	}
	rec, err := r.past(ctx, name)
	if err != nil {
		return api.Grant{}, err
	}
	return rec.Grant, nil
}

// shown is the grant with the phase that time gives it.
func (r *Room) shown(rec *record) api.Grant {
	out := rec.Grant
	if out.Status.Phase == Active && !rec.alive(r.cfg.Now()) {
		out.Status.Phase = Expired
	}
	return out
}

func (r *Room) past(ctx context.Context, name string) (*record, error) {
	doc, err := r.cfg.Store.Get(ctx, docEnded, name)
	var q interface{ NotFound() bool }
	if errors.As(err, &q) && q.NotFound() {
		return nil, refuse(api.ReasonNotFound, "there is no grant "+name, "hoopctl get grants lists those that you may see")
	}
	if err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	return decode(doc)
}

// List returns what lives and what ended of late, oldest first. Whom it may be
// shown to is the caller's to decide.
func (r *Room) List(context.Context) ([]api.Grant, error) {
	r.mu.RLock()
	all := make([]api.Grant, 0, len(r.live)+len(r.recent))
	for _, rec := range r.recent {
		all = append(all, rec.Grant)
	}
	for _, g := range r.live {
		all = append(all, r.shown(g.now.Load()))
	}
	r.mu.RUnlock()
	slices.SortFunc(all, func(a, b api.Grant) int { return number(a.Metadata.Name) - number(b.Metadata.Name) })
	return all, nil
}

func number(name string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(name, "g-"))
	return n
}

// Revoke ends a grant at once. Whether who may is the caller's to decide. If
// the error's reason is Evidence, the grant has ended and that could not be
// written down: after a restart it might live again.
func (r *Room) Revoke(ctx context.Context, who policy.Principal, name, reason string) error {
	if err := r.words("reason", reason); err != nil {
		return err
	}
	r.mu.RLock()
	g := r.live[name]
	r.mu.RUnlock()
	if g == nil {
		rec, err := r.past(ctx, name)
		if err != nil {
			return err
		}
		e := over(rec)
		e.Reason, e.Code, e.Hint = api.ReasonConflict, http.StatusConflict, ""
		return e
	}
	return r.end(ctx, g, End{Phase: Revoked, By: who.Name, Reason: reason}, who.ID())
}

// end ends a live grant: first for everyone who asks, then on record.
func (r *Room) end(ctx context.Context, g *grant, how End, by string) error {
	g.step.Lock()
	defer g.step.Unlock()
	was := g.now.Load()
	if was.Status.Phase != Active {
		return over(was)
	}
	rec := *was
	rec.Metadata.Version++
	rec.Status.Phase, rec.Status.EndedBy, rec.Status.Reason = how.Phase, how.By, how.Reason
	r.remove(g, &rec)
	how.Grant = rec.Grant
	if how.Phase == Expired {
		how.Grace = rec.Grace
	}
	r.cfg.Ended(how)
	ctx = context.WithoutCancel(ctx) // it has ended; that must be written down
	doc, err := json.Marshal(&rec)
	if err == nil {
		err = r.cfg.Store.Move(ctx, docLive, rec.Metadata.Name, docEnded, doc)
	}
	e := leaf(api.EventGrantEnd, &rec)
	e.Status = how.Phase
	if by != "" {
		e.Attrs = map[string]string{"by": by, "byName": how.By}
	}
	if err = errors.Join(err, r.record(ctx, e)); err != nil {
		return &failure{refuse(api.ReasonEvidence, "grant "+rec.Metadata.Name+" has ended, but that could not be recorded: "+err.Error(), "tell who runs the server"), err}
	}
	return nil
}

func leaf(kind string, rec *record) *api.Event {
	return &api.Event{Kind: kind, Principal: rec.Spec.Principal, Name: rec.Spec.Name, Target: rec.Spec.Target, Grant: rec.Metadata.Name, Request: rec.Status.Request, Purpose: rec.Spec.Purpose}
}

func (r *Room) record(ctx context.Context, e *api.Event) error {
	ticket, err := r.cfg.Evidence.Append(e)
	if err == nil {
		err = r.cfg.Evidence.Wait(ctx, ticket)
	}
	return err
}

// Run expires grants and issues those that were approved, until ctx ends.
// Whether a grant has expired never depends on it.
func (r *Room) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		approved, own := r.cfg.Approvals.Changed(), r.Changed()
		if err := r.Sweep(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("grant: left undone, tried again in a moment", "error", err)
		}
		timer.Reset(r.untilNext())
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-approved:
		case <-own:
		}
	}
}

// untilNext is how long nothing is due: at most 5 s, for a clock that jumps and
// for what failed and must be tried again.
func (r *Room) untilNext() time.Duration {
	wait := 5 * time.Second
	now := r.cfg.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.owed) > 0 {
		wait = time.Second
	}
	for _, g := range r.live {
		if e := g.now.Load().Status.Expires; !e.IsZero() {
			wait = min(wait, e.Sub(now))
		}
	}
	return max(wait, 50*time.Millisecond)
}

// Sweep does what is due: expired grants end, approved requests become grants.
// Run calls it; tests with a clock of their own may.
func (r *Room) Sweep(ctx context.Context) error {
	now := r.cfg.Now()
	var due []*grant
	r.mu.RLock()
	for _, g := range r.live {
		if !g.now.Load().alive(now) {
			due = append(due, g)
		}
	}
	r.mu.RUnlock()
	var errs []error
	for _, g := range due {
		if err := r.expire(ctx, g); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, r.settle(ctx))...)
}

// expire ends a grant whose time is over; it may have been extended meanwhile.
func (r *Room) expire(ctx context.Context, g *grant) error {
	if g.now.Load().alive(r.cfg.Now()) {
		return nil
	}
	err := r.end(ctx, g, End{Phase: Expired}, "")
	if err != nil && !isReason(err, api.ReasonEvidence) {
		return nil // someone else ended it
	}
	return err
}

// Recheck asks policy again for the live grants of these principals (none
// named: of everyone), and revokes what it would no longer allow: the server
// calls it when a certificate was renewed with other groups, when a principal
// is gone, and when the policy set was changed. That a rule now requires a
// reason or a ticket ends nothing: such words are asked for with the next grant.
func (r *Room) Recheck(ctx context.Context, ids ...string) error {
	r.mu.RLock()
	if len(ids) == 0 {
		ids = slices.Collect(maps.Keys(r.byWho))
	}
	var all []*grant
	for _, id := range ids {
		all = append(all, r.byWho[id]...)
	}
	r.mu.RUnlock()
	var errs []error
	for _, g := range all {
		why, err := r.lost(ctx, g.now.Load())
		if err == nil && why == "" {
			continue
		}
		if err != nil {
			why = "it could not be decided again"
			if isReason(err, api.ReasonNotFound) {
				why, err = err.Error(), nil // the target is gone: that is an answer
			}
			errs = append(errs, err)
		}
		if err := r.end(ctx, g, End{Phase: Revoked, By: "policy", Reason: why}, "policy"); err != nil && isReason(err, api.ReasonEvidence) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// lost says why a grant would not be issued today, "" if it would.
func (r *Room) lost(ctx context.Context, rec *record) (string, error) {
	who, err := r.cfg.Current(ctx, rec.Spec.Principal)
	if err != nil {
		return "the principal is no longer known", nil
	}
	v, err := r.cfg.Decide(ctx, rec.question(who, r.cfg.Now()))
	switch {
	case err != nil:
		return "", err
	case v.Effect == policy.Allow || len(v.Missing) > 0:
		return "", nil
	case v.Reason != "":
		return v.Reason, nil
	default:
		return "no rule allows it any more", nil
	}
}

func (rec *record) question(who policy.Principal, now time.Time) policy.Request {
	source, _ := netip.ParseAddr(rec.Source)
	return policy.Request{Principal: who, Action: policy.Connect, Target: policy.TargetRef{Name: rec.Spec.Target}, Approvals: rec.Approvals, Duration: rec.For,
		Purpose: rec.Spec.Purpose, Ticket: rec.Spec.Ticket, Reason: rec.Spec.Reason, Now: now, SourceIP: source, Via: "api"}
}

// words refuses what a person wrote if it is too long to read, would play
// tricks on a terminal, or holds what must not be kept.
func (r *Room) words(field, s string) error {
	switch {
	case len(s) > maxWords:
		return refuse(api.ReasonInvalid, fmt.Sprintf("the %s has %d bytes, at most %d are kept", field, len(s), maxWords), "shorten --"+field)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Cf, c) }):
		return refuse(api.ReasonInvalid, "the "+field+" must be one line of plain text", "write --"+field+" again")
	}
	if err := r.cfg.CheckText(s); err != nil {
		return refuse(api.ReasonInvalid, "the "+field+" cannot be kept: "+err.Error(), "leave identifiers out of --"+field)
	}
	return nil
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
		api.ReasonConflict: http.StatusConflict, api.ReasonExpired: http.StatusGone, api.ReasonRevoked: http.StatusGone, api.ReasonWithdrawn: http.StatusGone,
		api.ReasonEvidence: http.StatusServiceUnavailable}[why]
	return &api.Error{Code: code, Reason: why, Message: message, Hint: hint, Source: "broker"}
}

func isReason(err error, why api.Reason) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Reason == why
}
