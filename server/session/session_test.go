package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
	"github.com/hoopctl/hoopctl/server/api"
)

// house is the rest of the server, as a session sees it: it writes down, in
// order, what it was asked.
type house struct {
	mu       sync.Mutex
	log      []string
	broken   error // of the evidence
	decide   func(policy.Request) policy.Verdict
	tags     []policy.Tag
	clear    bool
	detect   []string
	answer   func(context.Context, Question, func(Hold)) ([]Approved, error)
	decided  int
	live     *Refusal
	question Question
	attrs    []map[string]string
}

func (h *house) note(format string, a ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, a...))
}

func (h *house) Decide(r policy.Request) policy.Verdict {
	h.mu.Lock()
	h.decided++
	h.mu.Unlock()
	return h.decide(r)
}
func (h *house) Tags(policy.TargetRef) []policy.Tag { return h.tags }
func (h *house) Show(r policy.Request, t policy.Tag) policy.Showing {
	return policy.Showing{Clear: h.clear, Method: t.Mask, Rule: "phi", Tag: t.Tag}
}
func (h *house) SeesAll(policy.Request) bool      { h.decided++; return h.clear }
func (h *house) Detect(policy.TargetRef) []string { return h.detect }
func (h *house) Scanner(entities []string, column string, t mask.Type) (mask.Rewriter, error) {
	d, err := mask.NewDetector(entities...)
	if err != nil {
		return nil, err
	}
	return d.Rewriter(column, t, nil, mask.Settings{})
}
func (h *house) Append(e *api.Event) (uint64, error) {
	if h.broken != nil {
		return 0, h.broken
	}
	h.note("%s %s %s", e.Kind, e.Verdict, strings.Join(e.Rules, ","))
	h.attrs = append(h.attrs, e.Attrs)
	return uint64(len(h.log)), nil
}
func (h *house) Wait(context.Context, uint64) error {
	if h.broken != nil {
		return h.broken
	}
	h.note("durable")
	return nil
}
func (h *house) Ask(ctx context.Context, q Question, opened func(Hold)) ([]Approved, error) {
	h.question = q
	h.note("ask %s", q.Spec.Cures[0].Rule)
	return h.answer(ctx, q, opened)
}
func (h *house) Rewriter(method, tag string, t mask.Type) (mask.Rewriter, error) {
	if method == "impossible" {
		return nil, errors.New("no such method")
	}
	return rewriter(method), nil
}

type rewriter string

func (r rewriter) Rewrite(dst, _ []byte) ([]byte, bool) { return append(dst, r...), false }

func open(t *testing.T, h *house) *Session {
	t.Helper()
	s, err := Open(context.Background(), Config{Name: "s-1", Principal: policy.Principal{Kind: policy.User, Issuer: "dev", Subject: "alice", Name: "alice"},
		Target: policy.TargetRef{Name: "clinic", Protocol: "postgres"}, Grant: "g-1", Policy: func() Decider { return h }, Approver: h, Evidence: h, Masks: h,
		Live: func() *Refusal { return h.live }, Strict: true, HoldInTransaction: time.Minute, HoldMax: time.Minute, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	h.log, h.attrs, h.decided = nil, nil, 0
	return s
}

func statement(text string, class policy.Class) policy.Statement {
	return policy.Statement{Facts: &policy.Facts{Kind: strings.Fields(text)[0], Class: class, Start: 0, End: len(text), Shape: text}, Text: text, End: len(text), Statements: 1}
}

func allow(policy.Request) policy.Verdict {
	return policy.Verdict{Effect: policy.Allow, Rules: []string{"ok"}}
}

var noWhere = policy.Cure{Rule: "no-where", Group: "dba", Quorum: 1}

// reviewed asks dba until they have answered.
func reviewed(r policy.Request) policy.Verdict {
	if slices.Contains(r.Approvals, "no-where/dba:1") {
		return allow(r)
	}
	return policy.Verdict{Effect: policy.Review, Rules: []string{"no-where"}, Cures: []policy.Cure{noWhere}}
}

func refused(t *testing.T, err error) *Refusal {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a *Refusal", err)
	}
	return r
}

func TestAdmitRecordsTheVerdictBeforeAWriteMayRun(t *testing.T) {
	h := &house{decide: allow}
	s := open(t, h)
	if _, err := s.Admit(context.Background(), []policy.Statement{statement("DELETE FROM t WHERE id = 1", policy.Write)}, nil); err != nil {
		t.Fatal(err)
	}
	if want := []string{"statement allow ok", "durable"}; !slices.Equal(h.log, want) {
		t.Errorf("order of events %q, want %q", h.log, want)
	}
}

func TestAdmitDoesNotWaitForTheDiskBeforeARead(t *testing.T) {
	h := &house{decide: allow}
	s := open(t, h)
	passes, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT 1", policy.Read)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(h.log, "durable") {
		t.Error("a read waited for the disk before it ran")
	}
	if ticket, _ := passes[0].Record(ToClient, []byte("row")); ticket == 0 {
		t.Error("the answer to a read in strict evidence was released without a ticket")
	}
}

func TestZeroVerdictDenies(t *testing.T) {
	h := &house{decide: func(policy.Request) policy.Verdict { return policy.Verdict{} }}
	s := open(t, h)
	r := refused(t, second(s.Admit(context.Background(), []policy.Statement{statement("SELECT 1", policy.Read)}, nil)))
	if r.Code != CodePolicy || r.Fatal {
		t.Errorf("got %+v, want a policy refusal that leaves the session alive", r)
	}
	if h.log[0] != "statement deny " {
		t.Errorf("the refusal was not recorded: %q", h.log)
	}
}

func second[A any](_ A, err error) error { return err }

func TestOneDeniedStatementRefusesTheBatch(t *testing.T) {
	h := &house{decide: func(r policy.Request) policy.Verdict {
		if r.Statement.Class == policy.Schema {
			return policy.Verdict{Rules: []string{"no-ddl"}, Reason: "use migrations"}
		}
		return allow(r)
	}}
	s := open(t, h)
	batch := []policy.Statement{statement("SELECT 1", policy.Read), statement("DROP TABLE t", policy.Schema)}
	r := refused(t, second(s.Admit(context.Background(), batch, nil)))
	if r.Message != "use migrations" {
		t.Errorf("message %q", r.Message)
	}
	if want := []string{"statement deny batch", "statement deny no-ddl", "durable"}; !slices.Equal(h.log, want) {
		t.Errorf("got %q, want %q", h.log, want)
	}
}

func TestHeldStatementRunsOnceApprovedUnderTheCurrentPolicy(t *testing.T) {
	h := &house{decide: reviewed}
	h.answer = func(ctx context.Context, q Question, opened func(Hold)) ([]Approved, error) {
		opened(Hold{Request: "r-1"})
		return []Approved{{EventApproved: api.EventApproved{Request: "r-1", By: "dev:bob", Rule: "no-where"}, Reason: "ticket"}}, nil
	}
	s := open(t, h)
	told := ""
	_, err := s.Admit(context.Background(), []policy.Statement{statement("DELETE FROM t", policy.Write)}, func(hold Hold) { told = hold.Request })
	if err != nil {
		t.Fatal(err)
	}
	if told != "r-1" {
		t.Errorf("the client was told of %q", told)
	}
	if want := []string{"ask no-where", "statement allow ok", "durable"}; !slices.Equal(h.log, want) {
		t.Errorf("got %q, want %q", h.log, want)
	}
	if h.decided != 2 {
		t.Errorf("decided %d times, want again after the approval", h.decided)
	}
}

// T36: the policy changed while people thought.
func TestT36_PolicyThatChangedWhileHeldDecides(t *testing.T) {
	h := &house{decide: reviewed}
	h.answer = func(context.Context, Question, func(Hold)) ([]Approved, error) {
		h.decide = func(policy.Request) policy.Verdict {
			return policy.Verdict{Rules: []string{"freeze"}, Reason: "change freeze"}
		}
		return nil, nil
	}
	s := open(t, h)
	r := refused(t, second(s.Admit(context.Background(), []policy.Statement{statement("DELETE FROM t", policy.Write)}, nil)))
	if r.Message != "change freeze" {
		t.Errorf("got %q", r.Message)
	}
}

func TestT36_GrantThatEndedWhileHeldRefuses(t *testing.T) {
	h := &house{decide: reviewed}
	h.answer = func(context.Context, Question, func(Hold)) ([]Approved, error) {
		h.live = &Refusal{Code: CodeRevoked, Message: "grant g-1 was revoked by erin", Fatal: true}
		return nil, nil
	}
	s := open(t, h)
	if r := refused(t, second(s.Admit(context.Background(), []policy.Statement{statement("DELETE FROM t", policy.Write)}, nil))); r.Code != CodeRevoked {
		t.Errorf("got %+v", r)
	}
}

func TestAnnotationThatItsRuleDoesNotHonourDenies(t *testing.T) {
	h := &house{decide: func(policy.Request) policy.Verdict {
		return policy.Verdict{Effect: policy.Review, Cures: []policy.Cure{noWhere}}
	}}
	h.answer = func(context.Context, Question, func(Hold)) ([]Approved, error) { return nil, nil }
	s := open(t, h)
	refused(t, second(s.Admit(context.Background(), []policy.Statement{statement("DELETE FROM t", policy.Write)}, nil)))
}

func TestWithdrawnHoldNeverRuns(t *testing.T) {
	h := &house{decide: reviewed}
	ctx, cancel := context.WithCancel(context.Background())
	h.answer = func(ctx context.Context, q Question, opened func(Hold)) ([]Approved, error) {
		opened(Hold{Request: "r-9"})
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := open(t, h)
	r := refused(t, second(s.Admit(ctx, []policy.Statement{statement("DELETE FROM t", policy.Write)}, nil)))
	if r.Code != CodeWithdrawn || r.Request != "r-9" {
		t.Errorf("got %+v", r)
	}
}

func TestHoldInTransactionIsShorter(t *testing.T) {
	h := &house{decide: reviewed}
	h.answer = func(ctx context.Context, q Question, opened func(Hold)) ([]Approved, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := open(t, h)
	s.cfg.HoldInTransaction = time.Millisecond
	st := statement("DELETE FROM t", policy.Write)
	st.InTransaction = true
	if r := refused(t, second(s.Admit(context.Background(), []policy.Statement{st}, nil))); r.Code != CodeHold {
		t.Errorf("got %+v, want code hold", r)
	}
}

func TestEvidenceThatFailsRefuses(t *testing.T) {
	h := &house{decide: allow}
	s := open(t, h)
	h.broken = errors.New("no space left on device")
	for _, class := range []policy.Class{policy.Read, policy.Write} {
		r := refused(t, second(s.Admit(context.Background(), []policy.Statement{statement("SELECT 1", class)}, nil)))
		if r.Code != CodeEvidence || !r.Fatal {
			t.Errorf("%s: got %+v", class, r)
		}
	}
}

func TestVerdictsAreCachedOnlyWhereTheyMayBe(t *testing.T) {
	for _, cacheable := range []bool{true, false} {
		h := &house{decide: func(r policy.Request) policy.Verdict { v := allow(r); v.Cacheable = cacheable; return v }}
		s := open(t, h)
		st := statement("SELECT 1", policy.Read)
		for range 3 {
			if _, err := s.Admit(context.Background(), []policy.Statement{st}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if want := map[bool]int{true: 1, false: 3}[cacheable]; h.decided != want {
			t.Errorf("cacheable %v: decided %d times, want %d", cacheable, h.decided, want)
		}
	}
}

// T36: what an approval is bound to.
func TestT36_BindingChangesWithAllThatIsBound(t *testing.T) {
	alice := policy.Principal{Issuer: "dev", Subject: "alice"}
	base := func() policy.Statement {
		st := statement("DELETE FROM t", policy.Write)
		st.Database, st.Role, st.SearchPath, st.Resolved = "clinic", "app", []string{"public"}, []uint32{16384}
		st.Settings = map[string]string{"standard_conforming_strings": "on"}
		st.Params = []policy.Param{{Value: []byte("1")}}
		return st
	}
	want := Binding(alice, "clinic", []policy.Statement{base()})
	if Binding(alice, "clinic", []policy.Statement{base()}) != want {
		t.Fatal("the binding is not deterministic")
	}
	changes := map[string]func(*policy.Statement){
		"text":        func(s *policy.Statement) { s.Text = "DELETE FROM u" },
		"parameter":   func(s *policy.Statement) { s.Params[0].Value = []byte("2") },
		"null":        func(s *policy.Statement) { s.Params[0].Value = nil },
		"relation":    func(s *policy.Statement) { s.Resolved[0]++ },
		"role":        func(s *policy.Statement) { s.Role = "postgres" },
		"path":        func(s *policy.Statement) { s.SearchPath = []string{"evil", "public"} },
		"setting":     func(s *policy.Statement) { s.Settings["standard_conforming_strings"] = "off" },
		"transaction": func(s *policy.Statement) { s.InTransaction = true },
		"database":    func(s *policy.Statement) { s.Database = "other" },
	}
	for name, change := range changes {
		st := base()
		change(&st)
		if Binding(alice, "clinic", []policy.Statement{st}) == want {
			t.Errorf("a changed %s leaves the binding as it was", name)
		}
	}
	if Binding(policy.Principal{Issuer: "dev", Subject: "mallory"}, "clinic", []policy.Statement{base()}) == want {
		t.Error("another principal has the same binding")
	}
}

func TestPlanHidesWhatIsNotProven(t *testing.T) {
	ssn := policy.ColumnRef{Schema: "public", Table: "patients", Column: "ssn"}
	id := policy.ColumnRef{Schema: "public", Table: "patients", Column: "id"}
	h := &house{decide: allow, tags: []policy.Tag{{Column: ssn, Tag: "phi", Mask: "last4"}}}
	s := open(t, h)
	passes, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := passes[0].Plan([]Column{
		{Name: "ssn", Sources: []policy.ColumnRef{ssn}, Bare: true, Proven: true},
		{Name: "upper", Sources: []policy.ColumnRef{ssn}, Proven: true},
		{Name: "id", Sources: []policy.ColumnRef{id}, Bare: true, Proven: true},
		{Name: "mystery"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"last4", "redact", "", "redact"} {
		if got := plan.Columns[i]; got.Method != want || (got.Rewrite != nil) != (want != "") {
			t.Errorf("column %d: method %q, want %q", i, got.Method, want)
		}
	}
	h.clear = true
	if plan, _ = passes[0].Plan([]Column{{Name: "mystery"}}); !plan.Clear {
		t.Error("a principal cleared for every tag is kept from seeing a derived column")
	}
}

func TestPlanThatCannotMaskRefuses(t *testing.T) {
	ssn := policy.ColumnRef{Schema: "public", Table: "patients", Column: "ssn"}
	h := &house{decide: allow, tags: []policy.Tag{{Column: ssn, Tag: "phi", Mask: "impossible"}}}
	s := open(t, h)
	passes, _ := s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
	refused(t, second(passes[0].Plan([]Column{{Sources: []policy.ColumnRef{ssn}, Bare: true, Proven: true}})))
}

func TestRowLimitCutsOrAsks(t *testing.T) {
	limited := policy.Verdict{Effect: policy.Allow, RowLimit: 2, Rules: []string{"bulk"}}
	h := &house{decide: func(policy.Request) policy.Verdict { return limited }}
	s := open(t, h)
	admit := func() Pass {
		passes, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return passes[0]
	}
	more := func(p Pass, rows int64) (Allowance, error) {
		return p.More(context.Background(), Allowance{Rows: rows}, nil)
	}
	p := admit()
	if p.Allowed().Rows != 2 {
		t.Errorf("%d rows may go, want 2", p.Allowed().Rows)
	}
	refused(t, second(more(p, 3)))

	limited.Cures = []policy.Cure{{Rule: "bulk", Group: "approvers", Quorum: 1}}
	h.decide = func(r policy.Request) policy.Verdict {
		if len(r.Approvals) > 0 {
			return allow(r)
		}
		return limited
	}
	h.answer = func(context.Context, Question, func(Hold)) ([]Approved, error) { return nil, nil }
	p = admit()
	may, err := more(p, 3)
	if err != nil {
		t.Fatalf("an approved result was cut: %v", err)
	}
	if may.Rows != Unlimited {
		t.Error("the limit stands after it was lifted")
	}
}

func TestWhenIdleWaitsForWhatRuns(t *testing.T) {
	h := &house{decide: allow}
	s := open(t, h)
	called := 0
	s.WhenIdle(func() { called++ })
	if called != 1 {
		t.Fatal("an idle session waited")
	}
	passes, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT 1", policy.Read), statement("SELECT 2", policy.Read)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.WhenIdle(func() { called++ })
	passes[0].Done(Outcome{})
	if called != 1 {
		t.Fatal("a running statement was not waited for")
	}
	passes[1].Done(Outcome{NotRun: true})
	if called != 2 {
		t.Fatal("nobody was told that the session is idle")
	}
}

// What may be shown is looked through for identifiers where the classification
// says so, if it is text; PostgreSQL's own names are not.
func TestDetectScansWhatIsShown(t *testing.T) {
	h := &house{decide: allow, clear: true, detect: []string{"ssn"}}
	s := open(t, h)
	text, number := mask.Type{OID: 25, Typmod: -1}, mask.Type{OID: 23, Typmod: -1}
	note := policy.ColumnRef{Schema: "public", Table: "visits", Column: "note"}
	plan, err := admitOne(t, s).Plan([]Column{
		{Name: "note", Type: text, Sources: []policy.ColumnRef{note}, Bare: true, Proven: true, Why: "identity"},
		{Name: "upper", Type: text, Proven: true, Why: "lineage"},
		{Name: "?column?", Type: text, Why: "unknown"},
		{Name: "relname", Type: text, Proven: true, Why: "identity"},
		{Name: "id", Type: number, Proven: true, Why: "lineage"},
	})
	if err != nil || plan.Clear {
		t.Fatalf("%+v %v", plan, err)
	}
	for i, scanned := range []bool{true, true, true, false, false} {
		c := plan.Columns[i]
		if c.Scan != scanned || (c.Rewrite != nil) != scanned || scanned && (c.Why != "scan" || c.Tag != policy.Detected || c.Rule == "") {
			t.Errorf("column %d: %+v", i, c)
		}
		if scanned {
			if out, _ := c.Rewrite.Rewrite(nil, []byte("SSN 512-47-8366, twice")); string(out) != "SSN ***, twice" {
				t.Errorf("column %d shows %q", i, out)
			}
		}
	}
	if plan.Columns[0].Source != "public.visits.note" {
		t.Errorf("source %q", plan.Columns[0].Source)
	}
}
