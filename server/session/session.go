package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
	"github.com/hoopctl/hoopctl/server/api"
)

// Decider is the policy in force. *policy.Set is one. Its methods are pure and
// safe for concurrent use.
type Decider interface {
	Decide(policy.Request) policy.Verdict
	Tags(policy.TargetRef) []policy.Tag
	Show(policy.Request, policy.Tag) policy.Showing
	SeesAll(policy.Request) bool
	Detect(policy.TargetRef) []string
}

// Evidence is the append-only record. Append does no I/O and does not keep the
// event; Wait blocks until what it stands for is durable. An error of either means that the evidence is
// failing and nothing may run.
type Evidence interface {
	Append(*api.Event) (ticket uint64, err error)
	Wait(ctx context.Context, ticket uint64) error
}

// Recording takes a session's payload. It is used by one goroutine a direction.
type Recording interface {
	// Frame records bytes as the client saw or sent them.
	Frame(dir Direction, b []byte) (ticket, frame uint64, err error)
	// Commit keeps the exact text and parameters of a statement in the
	// recording and returns the salted commitment that stands for them in the
	// timeline.
	Commit(text string, params [][]byte) (commitment string, err error)
	// Note keeps words of people that must not stand in the timeline.
	Note(b []byte) error
	// Digest is the SHA-256 in hex over the ciphertexts of the frames first to
	// last, as they were written.
	Digest(first, last uint64) string
}

// Approver asks people.
type Approver interface {
	// Ask opens the question, or finds one with the same digest that was
	// answered and not yet used, and blocks until it is answered. opened is
	// called once if people have to be waited for. It returns who approved; a
	// *Refusal if someone said no, if it expired, or (with NoWait) that it is
	// pending; ctx's error if ctx ended, having withdrawn the question.
	Ask(ctx context.Context, q Question, opened func(Hold)) ([]Approved, error)
}

// Approved is one person's yes. Reason is what they said: it goes into the
// recording, never into the timeline.
type Approved struct {
	api.EventApproved
	Name   string
	Reason string
}

// Question is what people are asked about statements.
type Question struct {
	Spec    api.RequestSpec
	Expires time.Duration // how long it may stand; 0 is the house's default
	NoWait  bool          // open it and refuse at once with its name
	Resume  string        // the earlier request whose answer will do, and no other; "" asks
}

// Masks makes rewriters.
type Masks interface {
	Rewriter(method, tag string, t mask.Type) (mask.Rewriter, error)
	// Scanner returns what redacts identifiers of these entities in the values
	// of a column; nil if values of its type are not scanned.
	Scanner(entities []string, column string, t mask.Type) (mask.Rewriter, error)
}

// Config is what a session is made of.
type Config struct {
	Name      string // s-7
	Principal policy.Principal
	Login     string
	Target    policy.TargetRef
	Grant     string
	Purpose   string
	Ticket    string
	Source    netip.AddrPort
	Via       string // forward | native
	Database  string
	App       string

	Policy    func() Decider // the set in force now
	Approver  Approver
	Evidence  Evidence
	Recording Recording // nil records no payload
	Head      int64     // record so many rows of each result; 0 is all
	Masks     Masks
	Budgets   Budgets // nil refuses what is under a budget
	// RefuseMasks says that the principal must not be given masked values: it
	// would take them for real ones.
	RefuseMasks bool
	// Observed reports whether the target is only observed at this moment; nil
	// is never.
	Observed func() bool
	// Live says why nothing new may start (grant ended, store unreadable), nil if all is well.
	Live func() *Refusal

	Strict            bool
	NoWait            bool   // a hold refuses at once with the request's name
	Resume            string // what would be held runs only by this request's approval, or is refused
	HoldInTransaction time.Duration
	HoldMax           time.Duration
	Now               func() time.Time
}

// Session is one client connection to a target, open to close. It implements
// Gate.
type Session struct {
	cfg    Config
	opened time.Time
	leaf   api.Event // what every leaf of this session says

	mu       sync.Mutex // guards what Admit and Check share: sequence, cache
	sequence uint64
	cache    verdictCache

	statements, rows, masked, bytes atomic.Int64

	idle struct {
		sync.Mutex
		running int    // statements admitted and not done
		then    func() // what to do when there are none
	}
	waiting atomic.Pointer[string] // name of the request that it waits for
	sight   sight
	hidden  maskedSum
}

var _ Gate = (*Session)(nil)

// Open writes the session's first leaf and returns when it is durable: no
// session exists that the evidence does not know.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	s := &Session{cfg: cfg, opened: cfg.Now(), leaf: api.Event{Principal: cfg.Principal.ID(), Name: cfg.Principal.Name, Login: cfg.Login,
		Source: sourceText(cfg.Source), Via: cfg.Via, Target: cfg.Target.Name, Grant: cfg.Grant, Session: cfg.Name, Purpose: cfg.Purpose}}
	e := s.event(api.EventSessionOpen)
	e.Groups = cfg.Principal.Groups
	e.Attrs = map[string]string{"database": cfg.Database, "application": cfg.App, "evidence": s.mode(), "principal": string(cfg.Principal.Kind)}
	if cfg.Principal.MFA {
		e.Attrs["mfa"] = "true"
	}
	if err := s.append(ctx, &e); err != nil {
		return nil, evidenceRefusal(err)
	}
	return s, nil
}

// Close writes the session's last leaf. reason is "closed" or a Refusal's code.
func (s *Session) Close(ctx context.Context, reason, by string) error {
	e := s.event(api.EventSessionClose)
	e.Reason = reason
	e.Rows, e.Bytes = s.rows.Load(), s.bytes.Load()
	e.Masked = s.hidden.list()
	e.Attrs = map[string]string{"statements": fmt.Sprint(s.statements.Load()), "maskedCells": fmt.Sprint(s.masked.Load())}
	if by != "" {
		e.Attrs["by"] = by
	}
	return s.append(ctx, &e)
}

// Status is the session as `get sessions` shows it.
func (s *Session) Status() api.Session {
	c := &s.cfg
	out := api.Session{
		Metadata: api.Meta{Name: c.Name, Created: s.opened},
		Spec: api.SessionSpec{Principal: c.Principal.ID(), Name: c.Principal.Name, Target: c.Target.Name, Grant: c.Grant,
			Database: c.Database, Application: c.App, Via: c.Via, Source: c.Source.String()},
		Status: api.SessionStatus{Phase: "open", Statements: s.statements.Load(), Rows: s.rows.Load(), Masked: s.masked.Load(), Bytes: s.bytes.Load(), MaskedColumns: s.hidden.list()},
	}
	if w := s.waiting.Load(); w != nil {
		out.Status.Phase, out.Status.Request = "waiting", *w
	}
	return out
}

// WhenIdle calls fn once, when no statement runs: now, or as the last one is
// done. A later call takes the place of one that waits.
func (s *Session) WhenIdle(fn func()) {
	s.idle.Lock()
	now := s.idle.running == 0
	if !now {
		s.idle.then = fn
	}
	s.idle.Unlock()
	if now {
		fn()
	}
}

// run counts statements in and out.
func (s *Session) run(n int) {
	s.idle.Lock()
	s.idle.running += n
	var then func()
	if s.idle.running == 0 {
		then, s.idle.then = s.idle.then, nil
	}
	s.idle.Unlock()
	if then != nil {
		then()
	}
}

// Session implements Gate.
func (s *Session) Session() (string, policy.Principal) { return s.cfg.Name, s.cfg.Principal }

// Tags implements Gate.
func (s *Session) Tags() []policy.Tag {
	if s.observed() {
		return nil
	}
	return s.now().tags
}

// Wait implements Gate.
func (s *Session) Wait(ctx context.Context, t Ticket) error {
	if t == 0 {
		return nil
	}
	return s.cfg.Evidence.Wait(ctx, uint64(t))
}

// Opened implements Gate.
func (s *Session) Opened(pid uint32, version string) error {
	e := s.event(api.EventAside)
	e.BackendPID, e.Reason = pid, "target login"
	e.Attrs = map[string]string{"version": version}
	_, err := s.cfg.Evidence.Append(&e)
	return err
}

// Cancelled implements Gate.
func (s *Session) Cancelled(by string) error {
	e := s.event(api.EventCancel)
	e.Reason = by
	_, err := s.cfg.Evidence.Append(&e)
	return err
}

// Aside implements Gate.
func (s *Session) Aside(kind string, b []byte) ([]byte, error) {
	dir := ToClient
	switch kind {
	case "notice", "parameter", "notification":
	case "upload":
		dir = FromClient
	default:
		return nil, nil
	}
	if s.cfg.Recording == nil {
		return b, nil
	}
	_, _, err := s.cfg.Recording.Frame(dir, b)
	return b, err
}

// Check implements Gate.
func (s *Session) Check(ctx context.Context, batch []policy.Statement) error {
	if r := s.cfg.Live(); r != nil {
		return r
	}
	if s.observed() && understood(batch) { // Admit writes down what would be refused
		return nil
	}
	set := s.cfg.Policy()
	for i := range batch {
		v := s.decide(set, &batch[i], nil, nil)
		if v.Effect != policy.Deny {
			continue
		}
		if err := s.recordAll(ctx, batch, nil, i, v); err != nil {
			return err
		}
		return s.refusal(v)
	}
	return nil
}

// Admit implements Gate. It is the security of the house, top to bottom:
// decide; if people must be asked, write the question down and ask; decide
// again by the policy that is in force then; write the verdict down; refuse,
// or hand over a Pass.
func (s *Session) Admit(ctx context.Context, batch []policy.Statement, hold func(Hold)) ([]Pass, error) {
	if r := s.cfg.Live(); r != nil {
		return nil, r
	}
	if s.observed() {
		return s.observe(ctx, batch)
	}
	var approved []api.EventApproved
	var approvals []string
	var spent map[string]int64 // budgets of which nothing is left
	for {
		set := s.cfg.Policy()
		verdicts := make([]policy.Verdict, len(batch))
		var cures []policy.Cure
		for i := range batch {
			verdicts[i] = s.decide(set, &batch[i], approvals, spent)
			switch verdicts[i].Effect {
			case policy.Deny:
				if err := s.recordAll(ctx, batch, approved, i, verdicts[i]); err != nil {
					return nil, err
				}
				return nil, s.refusal(verdicts[i])
			case policy.Review:
				cures = addCures(cures, verdicts[i].Cures)
			}
		}
		if len(cures) == 0 {
			meters, used, err := s.begin(ctx, batch, verdicts)
			if err != nil {
				return nil, err
			}
			if used == nil {
				passes, err := s.admitted(ctx, batch, admissions(verdicts, meters), approvals, approved)
				if err != nil {
					s.notRun(ctx, meters)
				}
				return passes, err
			}
			spent = withSpent(spent, used)
			continue
		}
		if answersAll(approvals, cures) {
			// People said yes to all that was asked and the verdict is still
			// review: an annotation that its own condition does not honour.
			return nil, &Refusal{Code: CodePolicy, Message: "the approval did not satisfy the rule that asked for it", Rules: rulesOf(cures),
				Hint: "ask whoever writes the policies: the rule's annotation and its unless clause disagree"}
		}
		by, err := s.ask(ctx, batch, cures, hold)
		if err != nil {
			return nil, err
		}
		approved = append(approved, by...)
		for _, c := range cures {
			approvals = append(approvals, c.Approval())
		}
		if r := s.cfg.Live(); r != nil { // it may have ended while people thought
			return nil, r
		}
	}
}

// admission is how one statement was let run.
type admission struct {
	verdict policy.Verdict
	meters  []meter
	would   map[string]string // what policy would have done, if the target is only observed; else nil
}

func admissions(verdicts []policy.Verdict, meters [][]meter) []admission {
	out := make([]admission, len(verdicts))
	for i := range out {
		if out[i].verdict = verdicts[i]; meters != nil {
			out[i].meters = meters[i]
		}
	}
	return out
}

// admitted writes the verdicts down and hands over the passes.
func (s *Session) admitted(ctx context.Context, batch []policy.Statement, as []admission, approvals []string, approved []api.EventApproved) ([]Pass, error) {
	passes := make([]Pass, len(batch))
	all := make([]pass, len(batch))
	var last uint64
	durable := false
	for i := range batch {
		p := &all[i]
		*p = pass{s: s, statement: batch[i], verdict: as[i].verdict, approvals: approvals, limit: as[i].verdict.RowLimit, meters: as[i].meters, would: as[i].would}
		if s.cfg.Head > 0 {
			p.head = s.cfg.Head
		}
		if p.would != nil {
			p.limit = 0
		}
		t, err := s.recordStatement(p, approved)
		if err != nil {
			return nil, evidenceRefusal(err)
		}
		p.ticket, last = Ticket(t), t
		durable = durable || durableFirst(batch[i].Facts)
		passes[i] = p
	}
	s.statements.Add(int64(len(batch)))
	s.run(len(batch))
	if s.cfg.Strict && durable && last != 0 {
		if err := s.cfg.Evidence.Wait(ctx, last); err != nil {
			s.run(-len(batch))
			return nil, evidenceRefusal(err)
		}
	}
	return passes, nil
}

// durableFirst says whether, in strict evidence, a statement's leaf must be on
// the disk before a byte of it reaches the target: all that changes something,
// and what makes a change stand.
func durableFirst(f *policy.Facts) bool {
	return f.Class != policy.Read || f.Transaction == "commit" || f.Transaction == "prepare"
}

// decide asks the policy about one statement, by the session's cache where the
// verdict allows it.
func (s *Session) decide(set Decider, st *policy.Statement, approvals []string, left map[string]int64) policy.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := verdictKey{facts: st.Facts, inTransaction: st.InTransaction, statements: st.Statements, rowLimit: st.RowLimit}
	if len(approvals) == 0 && len(left) == 0 {
		if v, ok := s.cache.get(set, key); ok {
			return v
		}
	}
	req := s.request(policy.Action(st.Class))
	req.Statement, req.Approvals, req.Left = st, approvals, left
	v := set.Decide(req)
	if v.Cacheable && len(approvals) == 0 && len(left) == 0 {
		s.cache.put(set, key, v)
	}
	return v
}

func (s *Session) request(a policy.Action) policy.Request {
	return policy.Request{Principal: s.cfg.Principal, Action: a, Target: s.cfg.Target, Purpose: s.cfg.Purpose, Ticket: s.cfg.Ticket,
		Now: s.cfg.Now(), SourceIP: s.cfg.Source.Addr(), Via: s.cfg.Via}
}

// ask writes the question down and waits for people.
func (s *Session) ask(ctx context.Context, batch []policy.Statement, cures []policy.Cure, hold func(Hold)) ([]api.EventApproved, error) {
	limit := s.cfg.HoldMax
	if batch[0].InTransaction {
		limit = s.cfg.HoldInTransaction
	}
	held := &Refusal{Code: CodeHold, Message: fmt.Sprintf("nobody answered within %s", limit), Rules: rulesOf(cures),
		Hint: "give people time: hoopctl exec TARGET --no-wait -c … asks and leaves, exec TARGET --resume REQUEST runs it once they said yes"}
	wait, cancel := context.WithTimeoutCause(ctx, limit, held)
	defer cancel()
	q := Question{Spec: s.question(batch, cures), Expires: shortest(limit, cures), NoWait: s.cfg.NoWait, Resume: s.cfg.Resume}
	by, err := s.cfg.Approver.Ask(wait, q, func(h Hold) {
		s.waiting.Store(&h.Request)
		if held.Request = h.Request; hold != nil {
			hold(h)
		}
	})
	s.waiting.Store(nil)
	var r *Refusal
	switch {
	case err == nil:
		return s.note(by)
	case errors.As(err, &r):
		return nil, r
	case wait.Err() != nil && errors.As(context.Cause(wait), &r):
		return nil, r
	case wait.Err() != nil:
		return nil, &Refusal{Code: CodeWithdrawn, Message: "canceling statement due to user request", Request: held.Request}
	default:
		return nil, evidenceRefusal(err)
	}
}

// note keeps what approvers said where only auditors read it.
func (s *Session) note(by []Approved) ([]api.EventApproved, error) {
	out := make([]api.EventApproved, len(by))
	for i, a := range by {
		out[i] = a.EventApproved
		if s.cfg.Recording == nil || a.Reason == "" {
			continue
		}
		b, err := json.Marshal(map[string]string{"request": a.Request, "rule": a.Rule, "by": a.By, "name": a.Name, "reason": a.Reason})
		if err == nil {
			err = s.cfg.Recording.Note(b)
		}
		if err != nil {
			return nil, evidenceRefusal(err)
		}
	}
	return out, nil
}

// question is what approvers see, and what their answer is bound to besides.
func (s *Session) question(batch []policy.Statement, cures []policy.Cure) api.RequestSpec {
	p := s.cfg.Principal
	spec := api.RequestSpec{Kind: "statement", Principal: p.ID(), Name: p.Name, Chain: chain(p), Target: s.cfg.Target.Name,
		Session: s.cfg.Name, Statement: batch[0].Text, Binding: Binding(p, s.cfg.Target.Name, batch), Facts: batch[0].Facts, Purpose: s.cfg.Purpose}
	for _, v := range batch[0].Params {
		spec.Params = append(spec.Params, paramText(v))
	}
	for _, c := range cures {
		spec.Cures = append(spec.Cures, api.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum, Reason: c.Reason})
	}
	return spec
}

// chain lists the IDs that may not answer a principal's question: itself, its
// owner, and whom it acts for.
func chain(p policy.Principal) []string {
	ids := []string{p.ID()}
	if p.Owner != "" {
		ids = append(ids, p.Owner)
	}
	if p.ActsFor != "" {
		ids = append(ids, p.ActsFor)
	}
	return ids
}

func paramText(p policy.Param) string {
	switch {
	case p.Value == nil:
		return "NULL"
	case p.Binary:
		return `\x` + hex.EncodeToString(p.Value)
	default:
		return string(p.Value)
	}
}

// Binding ties an approval to what was asked: who asks for whom, where, the
// bytes, the parameters, the relations that the names meant, role, search_path,
// settings and the position in a transaction. Any difference asks again. The
// form is a sequence of length-prefixed fields under SHA-256, "sha256:" and hex.
func Binding(p policy.Principal, target string, batch []policy.Statement) string {
	h := sha256.New()
	var n [8]byte
	field := func(b string) {
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write([]byte(b))
	}
	number := func(v uint64) { binary.BigEndian.PutUint64(n[:], v); h.Write(n[:]) }
	field("hoopctl statement v1")
	for _, id := range chain(p) {
		field(id)
	}
	field(target)
	number(uint64(len(batch)))
	for i := range batch {
		st := &batch[i]
		field(st.Text)
		number(uint64(st.Start))
		number(uint64(st.End))
		field(st.Database)
		field(st.Role)
		field(strings.Join(st.SearchPath, "\x00"))
		field(fmt.Sprint(st.InTransaction))
		for _, k := range sortedKeys(st.Settings) {
			field(k)
			field(st.Settings[k])
		}
		for _, o := range st.Resolved {
			number(uint64(o))
		}
		number(uint64(len(st.Params)))
		for _, v := range st.Params {
			field(fmt.Sprint(v.Type, v.Binary, v.Value == nil))
			field(string(v.Value))
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// recordAll writes the verdicts of a batch of which statement i was denied:
// the whole batch is refused, and the evidence says so of each.
func (s *Session) recordAll(ctx context.Context, batch []policy.Statement, approved []api.EventApproved, denied int, v policy.Verdict) error {
	var last uint64
	for i := range batch {
		p := &pass{s: s, statement: batch[i], verdict: v}
		if i != denied {
			p.verdict = policy.Verdict{Rules: []string{"batch"}, Digest: v.Digest}
		}
		t, err := s.recordStatement(p, approved)
		if err != nil {
			return evidenceRefusal(err)
		}
		last = t
	}
	if err := s.cfg.Evidence.Wait(ctx, last); err != nil {
		return evidenceRefusal(err)
	}
	return nil
}

// recordStatement appends the leaf of one verdict, and keeps text and
// parameters in the recording under its commitment.
func (s *Session) recordStatement(p *pass, approved []api.EventApproved) (uint64, error) {
	st := &p.statement
	s.mu.Lock()
	s.sequence++
	p.sequence = s.sequence
	s.mu.Unlock()
	e := s.take(api.EventStatement)
	e.Sequence, e.Statement, e.Fingerprint = p.sequence, st.Shape, st.Fingerprint
	e.Command, e.Class, e.Tables = st.Kind, string(st.Class), st.Tables
	e.Verdict, e.Rules, e.Policy = p.verdict.Effect.String(), p.verdict.Rules, p.verdict.Digest
	if e.Approvals = approved; p.verdict.Effect == policy.Deny {
		e.Reason = p.verdict.Reason
	}
	e.Columns, e.Tags = s.tagged(st)
	e.Attrs = p.would
	if s.cfg.Recording != nil {
		var err error
		if e.Commitment, err = s.cfg.Recording.Commit(st.Text[st.Start:st.End], values(st.Params)); err != nil {
			return 0, err
		}
	}
	return s.put(e)
}

// tagged are the tagged columns that a statement reads or writes, and their tags.
func (s *Session) tagged(st *policy.Statement) (columns, tags []string) {
	all := s.cfg.Policy().Tags(s.cfg.Target)
	if len(all) == 0 || len(st.Columns)+len(st.WriteColumns) == 0 {
		return nil, nil
	}
	seen := map[string]bool{}
	for _, t := range all {
		name := t.Column.String()
		if t.Tag == "none" || !contains(st.Columns, name) && !contains(st.WriteColumns, name) {
			continue
		}
		columns = append(columns, name)
		if !seen[t.Tag] {
			seen[t.Tag] = true
			tags = append(tags, t.Tag)
		}
	}
	return columns, tags
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func values(params []policy.Param) [][]byte {
	out := make([][]byte, len(params))
	for i, p := range params {
		out[i] = p.Value
	}
	return out
}

// event is a leaf with what every leaf of a session says.
func (s *Session) event(kind string) api.Event {
	e := s.leaf
	e.Kind = kind
	return e
}

// events are leaves that statements filled in and the evidence took: each
// statement needs two, and they are large.
var events = sync.Pool{New: func() any { return new(api.Event) }}

// take is event, to be appended by put.
func (s *Session) take(kind string) *api.Event {
	e := events.Get().(*api.Event)
	*e = s.leaf
	e.Kind = kind
	return e
}

// put appends an event that was taken; it must not be used any more.
func (s *Session) put(e *api.Event) (uint64, error) {
	t, err := s.cfg.Evidence.Append(e)
	*e = api.Event{} // or the pool would keep a statement's text alive
	events.Put(e)
	return t, err
}

func sourceText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (s *Session) append(ctx context.Context, e *api.Event) error {
	t, err := s.cfg.Evidence.Append(e)
	if err != nil {
		return err
	}
	return s.cfg.Evidence.Wait(ctx, t)
}

func (s *Session) mode() string {
	if s.cfg.Strict {
		return "strict"
	}
	return "async"
}

// refusal puts a deny into the words that the principal sees.
func (s *Session) refusal(v policy.Verdict) *Refusal {
	if v.Exhausted != nil {
		return s.exhausted(v)
	}
	r := &Refusal{Code: CodePolicy, Message: v.Reason, Hint: v.Hint, Rules: v.Rules}
	if r.Message == "" {
		r.Message = "refused by policy"
	}
	return r
}

func evidenceRefusal(err error) error {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: CodeEvidence, Message: "evidence unavailable", Detail: err.Error(),
		Hint: "nothing runs that cannot be recorded; tell whoever runs the broker", Fatal: true}
}

// addCures adds the cures that are not there yet.
func addCures(have, more []policy.Cure) []policy.Cure {
next:
	for _, c := range more {
		for _, h := range have {
			if h.Approval() == c.Approval() {
				continue next
			}
		}
		have = append(have, c)
	}
	return have
}

func answersAll(approvals []string, cures []policy.Cure) bool {
	for _, c := range cures {
		if !contains(approvals, c.Approval()) {
			return false
		}
	}
	return true
}

func rulesOf(cures []policy.Cure) []string {
	out := make([]string, len(cures))
	for i, c := range cures {
		out[i] = c.Rule
	}
	return out
}

// shortest is the soonest of the hold's limit and the cures' own @expires.
func shortest(limit time.Duration, cures []policy.Cure) time.Duration {
	for _, c := range cures {
		if c.Expires > 0 && c.Expires < limit {
			limit = c.Expires
		}
	}
	return limit
}
