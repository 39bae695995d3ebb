package approval

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// Phases of a request. They are API.
const (
	Pending   = "pending"
	Approved  = "approved"
	Denied    = "denied"
	Expired   = "expired"
	Withdrawn = "withdrawn"
	Used      = "used"
)

// Kinds of request. They are API.
const (
	KindGrant     = "grant"
	KindStatement = "statement"
	KindChange    = "change" // of resources: Statement is the difference, there is no Target
)

// Kinds of document in the store: what is pending or approved lies in the
// first, what has ended in the second, under the same name.
const (
	docActive = "request"
	docEnded  = "request.ended"
)

// Bounds of a question.
const (
	maxReason    = 1000    // bytes of a person's words
	maxStatement = 1 << 20 // bytes of text and parameters
	maxCures     = 32
	maxRecent    = 512 // ended requests kept in memory for lists and watches
)

// Store keeps requests. Update runs fn and its write as one step; Move takes a
// document from one kind to another as one step, and fails if it is no longer
// in the first; Each calls fn with what was written since then; Next never
// returns a number twice. An error with NotFound() true means no document.
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

// Config is what the room is made of. Store, Evidence, MayAnswer and Current
// are needed.
type Config struct {
	Store    Store
	Evidence Evidence
	// MayAnswer says whether who may answer cure c of r: nil, or why not. The
	// room has already refused services, and everyone in the chain. Source(ctx)
	// is the place.
	MayAnswer func(ctx context.Context, who policy.Principal, r *api.Request, c api.Cure) error
	// Current is the principal with this ID as it is known now; its groups are
	// asked again when an approval is used. An error means that it is no longer known.
	Current func(ctx context.Context, id string) (policy.Principal, error)
	// CheckText refuses words of a person that must not be kept, such as
	// identifiers of patients. Nil: everything may be.
	CheckText func(string) error
	// Notify is told of each change, in order for each request. It must return
	// at once and must not call the room. Nil: nobody is told.
	Notify func(api.Request)
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: silence

	MaxPending int // requests of one principal that may wait at once; default 20
	PerMinute  int // requests that one principal may open in a minute; default 30
	// StatementExpires and GrantExpires (of changes, too) are how long a question
	// stands that does not say so itself; defaults 15 min and 24 h.
	StatementExpires, GrantExpires time.Duration
}

// Room is the room. Its methods are safe for concurrent use.
type Room struct {
	cfg Config

	mu      sync.RWMutex
	active  map[string]*request
	recent  []*record // ended, oldest first
	changed chan struct{}
	opening map[string]int // principal → requests on their way into active
	limits  map[string]*rate.Limiter
}

// record is a request as it is kept. Records are never changed, but replaced.
type record struct {
	api.Request
	// Detached requests outlive who asked: nobody need wait for the answer.
	Detached bool `json:"detached,omitempty"`
	// By lists, for each of Spec.Cures, the IDs of those who said yes to it.
	By [][]string `json:"by"`
}

// request is a live one.
type request struct {
	step    sync.Mutex // one step at a time; held while the step is being recorded
	now     atomic.Pointer[record]
	decided chan struct{} // closed when it is no longer pending
}

// New opens the room: it loads what waits, and closes as withdrawn every
// question whose session died with the process.
func New(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.Store == nil || cfg.Evidence == nil || cfg.MayAnswer == nil || cfg.Current == nil {
		return nil, errors.New("approval: Store, Evidence, MayAnswer and Current are needed")
	}
	cfg.defaults()
	r := &Room{cfg: cfg, active: map[string]*request{}, changed: make(chan struct{}), opening: map[string]int{}, limits: map[string]*rate.Limiter{}}
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	return r, nil
}

func (c *Config) defaults() {
	orDefault(&c.MaxPending, 20)
	orDefault(&c.PerMinute, 30)
	orDefault(&c.StatementExpires, 15*time.Minute)
	orDefault(&c.GrantExpires, 24*time.Hour)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.CheckText == nil {
		c.CheckText = func(string) error { return nil }
	}
	if c.Notify == nil {
		c.Notify = func(api.Request) {}
	}
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (r *Room) load(ctx context.Context) error {
	err := r.cfg.Store.Each(ctx, docEnded, r.cfg.Now().Add(-24*time.Hour), func(_ string, doc []byte) error {
		rec, err := decode(doc)
		if err == nil {
			r.remember(rec)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = r.cfg.Store.Each(ctx, docActive, time.Time{}, func(_ string, doc []byte) error {
		rec, err := decode(doc)
		if err == nil {
			r.active[rec.Metadata.Name] = live(rec)
		}
		return err
	})
	if err != nil {
		return err
	}
	for name, q := range r.active {
		rec, why := q.now.Load(), ""
		if rec.Spec.Digest != api.RequestDigest(rec.Spec) {
			why = "it was asked under another version of the server"
		}
		if !rec.Detached {
			why = "the server was restarted"
		}
		if why == "" {
			continue
		}
		if err := r.close(ctx, name, Withdrawn, why, ""); err != nil {
			return err
		}
	}
	return r.Sweep(ctx)
}

func decode(doc []byte) (*record, error) {
	rec := new(record)
	if err := json.Unmarshal(doc, rec); err != nil {
		return nil, fmt.Errorf("a stored request cannot be read: %w", err)
	}
	if rec.Metadata.Name == "" || len(rec.By) != len(rec.Spec.Cures) {
		return nil, fmt.Errorf("stored request %s contradicts itself", rec.Metadata.Name)
	}
	return rec, nil
}

func live(rec *record) *request {
	q := &request{decided: make(chan struct{})}
	q.now.Store(rec)
	if rec.Status.Phase != Pending {
		close(q.decided)
	}
	return q
}

// Question is what people are asked.
type Question struct {
	// Spec: Kind, Principal, Name, Chain, Target, Cures and what is shown. Its
	// Digest, if any, is what the asker binds the answer to beyond the words
	// that are shown; it becomes Binding. The room makes Salt and Digest.
	Spec api.RequestSpec
	// Expires is how long it may stand, unanswered or unused; 0 is the room's default.
	Expires time.Duration
	// Detached: do not wait; the question stands though the asker goes away.
	Detached bool
	// Resume names the one earlier request whose answer will do: nothing is
	// opened, and nobody is waited for.
	Resume string
}

// Answer is a yes that was used up for whom it was given to.
type Answer struct {
	Request api.Request
	By      []api.EventApproved
}

// Ask puts a question about a statement to people and waits for their answer.
// If a detached question of the same principal, with the same words and
// binding, was opened before, that one is meant. opened is called once if there
// is something to wait for.
//
// When Ask returns nil, every cure had its quorum, everyone who answered still
// may, and the approval is used: it belongs to this caller alone. Otherwise the
// error is an *api.Error with the reason Denied, Expired, Withdrawn, Pending
// (Detached, Resume), Conflict (Resume: used, or asked about something else),
// NotFound (Resume), TooMany or Evidence. If ctx ends first, the question is withdrawn
// (unless it is detached) and the error is ctx's cause.
func (r *Room) Ask(ctx context.Context, q Question, opened func(api.Request)) (Answer, error) {
	if q.Resume != "" {
		return r.resume(ctx, q)
	}
	req, found, err := r.open(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	rec := req.now.Load()
	name := rec.Metadata.Name
	if rec.Status.Phase == Pending {
		if opened != nil {
			opened(rec.Request)
		}
		if q.Detached {
			return Answer{}, pending(rec)
		}
	}
	select {
	case <-req.decided:
	case <-ctx.Done():
		if !found {
			r.giveUp(ctx, name)
		}
		return Answer{}, fmt.Errorf("request %s: %w", name, context.Cause(ctx))
	}
	used, err := r.Use(ctx, name, rec.Spec.Digest, "")
	if err != nil {
		if ctx.Err() != nil && !found {
			r.giveUp(ctx, name)
		}
		return Answer{}, err
	}
	return Answer{Request: used, By: approvals(used, req.now.Load().By)}, nil
}

// resume uses the approval of an earlier request of the same principal's about
// exactly the same.
func (r *Room) resume(ctx context.Context, q Question) (Answer, error) {
	if err := complete(&q.Spec); err != nil {
		return Answer{}, err
	}
	rec, err := r.lookup(ctx, q.Resume)
	switch {
	case err != nil:
		return Answer{}, err
	case rec.Spec.Principal != q.Spec.Principal:
		return Answer{}, noRequest(q.Resume)
	case rec.Status.Phase != Approved:
		return Answer{}, ended(q.Resume, rec.Status.Phase, rec.Status.Reason)
	case unsalted(rec.Spec) != unsalted(q.Spec):
		return Answer{}, notThis(q.Resume)
	case !rec.Detached:
		e := refuse(api.ReasonConflict, "request "+q.Resume+" belongs to the session that waits for it", "let it go on there, or ask anew with --no-wait")
		e.Request = q.Resume
		return Answer{}, e
	}
	used, err := r.Use(ctx, q.Resume, rec.Spec.Digest, "")
	if err != nil {
		return Answer{}, err
	}
	return Answer{Request: used, By: approvals(used, rec.By)}, nil
}

func notThis(name string) *api.Error {
	e := refuse(api.ReasonConflict, "request "+name+" was about something else: another statement, or the same in another place", "hoopctl describe request "+name+" shows what was asked")
	e.Request = name
	return e
}

// giveUp withdraws a question whose asker went away. It is recorded though the
// asker's context has ended.
func (r *Room) giveUp(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := r.close(ctx, name, Withdrawn, "who asked went away", ""); err != nil && !isReason(err, api.ReasonConflict) {
		r.cfg.Log.Error("approval: a withdrawal was not recorded", "request", name, "error", err)
	}
}

func approvals(req api.Request, by [][]string) []api.EventApproved {
	var all []api.EventApproved
	for i, c := range req.Spec.Cures {
		for _, id := range by[i] {
			all = append(all, api.EventApproved{Request: req.Metadata.Name, By: id, Rule: c.Rule})
		}
	}
	return all
}

// Open puts a question that nobody waits for, and returns the request. If the
// same principal's same question is open already, that one is returned.
func (r *Room) Open(ctx context.Context, spec api.RequestSpec, expires time.Duration) (api.Request, error) {
	req, _, err := r.open(ctx, Question{Spec: spec, Expires: expires, Detached: true})
	if err != nil {
		return api.Request{}, err
	}
	return req.now.Load().Request, nil
}

func (r *Room) open(ctx context.Context, q Question) (req *request, found bool, err error) {
	if err := complete(&q.Spec); err != nil {
		return nil, false, err
	}
	if req = r.same(q.Spec); req != nil {
		return req, true, nil
	}
	if err := r.admit(q.Spec.Principal); err != nil {
		return nil, false, err
	}
	defer r.admitted(q.Spec.Principal)
	rec, err := r.newRecord(ctx, q)
	if err != nil {
		return nil, false, err
	}
	if err := r.record(ctx, opening(rec)); err != nil {
		return nil, false, err
	}
	if err := r.put(ctx, rec); err != nil {
		return nil, false, err
	}
	req = live(rec)
	r.mu.Lock()
	r.active[rec.Metadata.Name] = req
	r.mu.Unlock()
	r.announce(rec)
	return req, false, nil
}

func (r *Room) newRecord(ctx context.Context, q Question) (*record, error) {
	n, err := r.cfg.Store.Next(ctx, "request")
	if err != nil {
		return nil, unrecorded(err)
	}
	rec := &record{Detached: q.Detached, By: make([][]string, len(q.Spec.Cures))}
	now := r.cfg.Now().UTC()
	rec.Metadata = api.Meta{Name: "r-" + strconv.FormatInt(n, 10), Created: now, Version: 1}
	salt := make([]byte, 32)
	if _, err := rand.Read(salt); err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	rec.Spec = q.Spec
	rec.Spec.Salt = hex.EncodeToString(salt)
	rec.Spec.Digest = api.RequestDigest(rec.Spec)
	rec.Status = api.RequestStatus{Phase: Pending, Expires: now.Add(r.stands(q))}
	return rec, nil
}

func (r *Room) stands(q Question) time.Duration {
	switch {
	case q.Expires > 0:
		return q.Expires
	case q.Spec.Kind == KindGrant, q.Spec.Kind == KindChange:
		return r.cfg.GrantExpires
	default:
		return r.cfg.StatementExpires
	}
}

// complete refuses what is no question, and binds it. A cure without a rule, a
// group or a quorum could be met by nobody's answer.
func complete(s *api.RequestSpec) error {
	size := len(s.Statement)
	for _, p := range s.Params {
		size += len(p)
	}
	switch {
	case s.Kind != KindGrant && s.Kind != KindStatement && s.Kind != KindChange:
		return fmt.Errorf("approval: kind %q is none of grant, statement and change", s.Kind)
	case s.Principal == "" || s.Target == "" && s.Kind != KindChange:
		return errors.New("approval: a question needs a principal and a target")
	case len(s.Cures) == 0 || len(s.Cures) > maxCures:
		return fmt.Errorf("approval: a question has 1 to %d cures, not %d", maxCures, len(s.Cures))
	case size > maxStatement:
		return refuse(api.ReasonInvalid, fmt.Sprintf("a %s of %d bytes is too long for people to approve", s.Kind, size), "split it")
	}
	for _, c := range s.Cures {
		if c.Rule == "" || c.Group == "" || c.Quorum < 1 {
			return fmt.Errorf("approval: cure %q of group %q with quorum %d can be answered by nobody", c.Rule, c.Group, c.Quorum)
		}
	}
	if !slices.Contains(s.Chain, s.Principal) {
		s.Chain = append([]string{s.Principal}, s.Chain...)
	}
	if s.Digest != "" {
		s.Binding = s.Digest
	}
	s.Salt, s.Digest = "", ""
	return nil
}

// same finds the live detached request that asks exactly this.
func (r *Room) same(s api.RequestSpec) *request {
	want := unsalted(s)
	now := r.cfg.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, q := range r.active {
		rec := q.now.Load()
		if rec.Detached && rec.Spec.Principal == s.Principal && now.Before(rec.Status.Expires) && unsalted(rec.Spec) == want {
			return q
		}
	}
	return nil
}

func unsalted(s api.RequestSpec) string {
	s.Salt = ""
	return api.RequestDigest(s)
}

// admit bounds what one principal can put before people's eyes.
func (r *Room) admit(principal string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.opening[principal]
	for _, q := range r.active {
		if rec := q.now.Load(); rec.Spec.Principal == principal && rec.Status.Phase == Pending {
			waiting++
		}
	}
	if waiting >= r.cfg.MaxPending {
		return refuse(api.ReasonTooMany, fmt.Sprintf("%d requests of yours wait for an answer already", waiting),
			"withdraw some with hoopctl request cancel, or wait")
	}
	if !r.limiter(principal).AllowN(r.cfg.Now(), 1) {
		return refuse(api.ReasonTooMany, fmt.Sprintf("more than %d requests a minute", r.cfg.PerMinute), "wait a minute, then ask again")
	}
	r.opening[principal]++
	return nil
}

// limiter is the principal's; the caller holds mu.
func (r *Room) limiter(principal string) *rate.Limiter {
	l := r.limits[principal]
	if l == nil {
		if len(r.limits) >= 10_000 {
			clear(r.limits) // forgetting limits costs less than remembering everyone for ever
		}
		l = rate.NewLimiter(rate.Limit(float64(r.cfg.PerMinute)/60), r.cfg.PerMinute)
		r.limits[principal] = l
	}
	return l
}

func (r *Room) admitted(principal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opening[principal]--; r.opening[principal] == 0 {
		delete(r.opening, principal)
	}
}

// Use takes an approved request, once: of any number of callers, one gets nil.
// digest must be the request's. Everyone whose yes counts is asked for anew:
// who may no longer answer does not count, and a request that lost its quorum
// is withdrawn. grant names the grant that comes of it, if one does.
func (r *Room) Use(ctx context.Context, name, digest, grant string) (api.Request, error) {
	q := r.find(name)
	if q == nil {
		return api.Request{}, r.gone(ctx, name)
	}
	q.step.Lock()
	defer q.step.Unlock()
	rec := q.now.Load()
	switch {
	case rec.Status.Phase == Approved && rec.Spec.Digest != digest:
		return api.Request{}, refuse(api.ReasonConflict, "request "+name+" was approved for something else", "ask again")
	case rec.Status.Phase == Approved && !r.cfg.Now().Before(rec.Status.Expires):
		return api.Request{}, ended(name, Expired, "")
	case rec.Status.Phase != Approved:
		return api.Request{}, ended(name, rec.Status.Phase, rec.Status.Reason)
	}
	if why := r.lostQuorum(ctx, rec); why != "" {
		if err := r.step(ctx, q, Withdrawn, why, ""); err != nil {
			return api.Request{}, err
		}
		return api.Request{}, ended(name, Withdrawn, why)
	}
	if err := r.step(ctx, q, Used, "", grant); err != nil {
		return api.Request{}, err
	}
	return q.now.Load().Request, nil
}

// lostQuorum says why the answers no longer suffice, "" if they do.
func (r *Room) lostQuorum(ctx context.Context, rec *record) string {
	for i, c := range rec.Spec.Cures {
		count, lost := 0, ""
		for _, id := range rec.By[i] {
			who, from, err := r.answerer(ctx, rec, id)
			if err == nil {
				err = r.mayAnswer(from, who, rec, c)
			}
			if err != nil {
				lost = fmt.Sprintf("the answer of %s to rule %s no longer counts: %v", nameOf(rec, id), c.Rule, err)
				continue
			}
			count++
		}
		if count < c.Quorum {
			return lost
		}
	}
	return ""
}

func nameOf(rec *record, id string) string {
	for _, a := range rec.Status.Answers {
		if a.Principal == id {
			return a.Name
		}
	}
	return id
}

// Withdraw takes a request back: the right of who asked, and of who answers for
// a service that asked.
func (r *Room) Withdraw(ctx context.Context, who policy.Principal, name string) error {
	rec, err := r.lookup(ctx, name)
	if err != nil {
		return err
	}
	if !r.sees(ctx, who, rec) {
		return noRequest(name)
	}
	if !inChain(who, rec) {
		return refuse(api.ReasonDenied, "only who asked may withdraw request "+name, "deny it with hoopctl deny")
	}
	return r.close(ctx, name, Withdrawn, "withdrawn by "+who.Name, "")
}

// Drop closes a request that can no longer lead to anything, as withdrawn by
// the server.
func (r *Room) Drop(ctx context.Context, name, reason string) error {
	return r.close(ctx, name, Withdrawn, reason, "")
}

// Run expires requests until ctx ends. Whether a request has expired never
// depends on it: it only writes down what time has decided.
func (r *Room) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.Changed():
		}
		if err := r.Sweep(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("approval: an expiry was not recorded", "error", err)
		}
		timer.Reset(r.untilNext())
	}
}

// untilNext is how long nothing expires: at most 5 s, for a clock that jumps.
func (r *Room) untilNext() time.Duration {
	wait := 5 * time.Second
	now := r.cfg.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, q := range r.active {
		wait = min(wait, q.now.Load().Status.Expires.Sub(now))
	}
	return max(wait, 100*time.Millisecond)
}

// Sweep expires what is due. Run calls it; tests with a clock of their own may.
func (r *Room) Sweep(ctx context.Context) error {
	now := r.cfg.Now()
	var due []string
	r.mu.RLock()
	for name, q := range r.active {
		if !now.Before(q.now.Load().Status.Expires) {
			due = append(due, name)
		}
	}
	r.mu.RUnlock()
	slices.Sort(due)
	var errs []error
	for _, name := range due {
		if err := r.close(ctx, name, Expired, "nobody answered in time", ""); err != nil && !isReason(err, api.ReasonConflict) && !isReason(err, api.ReasonNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *Room) find(name string) *request {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.active[name]
}

// words refuses what a person wrote if it is too long to read, would play
// tricks on a terminal, or holds what must not be kept.
func (r *Room) words(s string) error {
	switch {
	case len(s) > maxReason:
		return refuse(api.ReasonInvalid, fmt.Sprintf("a reason has at most %d bytes, this one has %d", maxReason, len(s)), "shorten it, or point to a ticket")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool {
		return c != '\n' && c != '\t' && (unicode.IsControl(c) || unicode.Is(unicode.Cf, c))
	}):
		return refuse(api.ReasonInvalid, "a reason is plain text, without control characters", "write it again")
	}
	if err := r.cfg.CheckText(s); err != nil {
		return refuse(api.ReasonInvalid, "the reason cannot be kept: "+err.Error(), "leave identifiers out")
	}
	return nil
}
