package session

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
)

// purse is Budgets with one sum for each rule.
type purse struct {
	left   map[string]int64
	takes  int
	broken error
}

func (p *purse) Take(_ context.Context, _ string, b policy.Budget, n int64) (int64, error) {
	p.takes++
	got := max(0, min(n, p.left[b.Rule]))
	p.left[b.Rule] -= got
	return got, p.broken
}
func (p *purse) Return(_ context.Context, _ string, b policy.Budget, n int64) { p.left[b.Rule] += n }
func (p *purse) Distinct(_ context.Context, _ string, b policy.Budget, v [][]byte) (bool, error) {
	p.left[b.Rule] -= int64(len(v))
	return p.left[b.Rule] >= 0, p.broken
}
func (p *purse) Left(_ context.Context, _ string, b policy.Budget) (int64, time.Time, error) {
	return p.left[b.Rule], time.Date(2026, 1, 5, 15, 4, 0, 0, time.UTC), nil
}

var hourly = policy.Budget{Rule: "hourly", Unit: policy.UnitRows, Amount: 1000, Per: time.Hour}

// under is a policy with a budget: people may lift it if there is a cure.
func under(b policy.Budget, cures ...policy.Cure) func(policy.Request) policy.Verdict {
	return func(r policy.Request) policy.Verdict {
		_, spent := r.Left[b.Rule]
		switch {
		case len(r.Approvals) > 0:
			return allow(r)
		case spent && len(cures) > 0:
			return policy.Verdict{Effect: policy.Review, Rules: []string{b.Rule}, Cures: cures}
		case spent:
			return policy.Verdict{Rules: []string{b.Rule}, Exhausted: &b}
		}
		return policy.Verdict{Effect: policy.Allow, Rules: []string{"ok"}, Meters: []policy.Budget{b}, Cacheable: true}
	}
}

func openUnder(t *testing.T, h *house, p *purse) *Session {
	s := open(t, h)
	s.cfg.Budgets = p
	return s
}

func admitOne(t *testing.T, s *Session) Pass {
	t.Helper()
	passes, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return passes[0]
}

// send sends so many rows of 10 bytes as a protocol does, and returns how many went.
func send(p Pass, rows int64) (int64, error) {
	may := p.Allowed()
	for i := int64(1); i <= rows; i++ {
		if i > may.Rows || i*10 > may.Bytes {
			var err error
			if may, err = p.More(context.Background(), Allowance{Rows: i, Bytes: i * 10}, nil); err != nil {
				return i - 1, err
			}
		}
	}
	return rows, nil
}

func TestABudgetCutsInMidStream(t *testing.T) {
	p := &purse{left: map[string]int64{"hourly": 150}}
	s := openUnder(t, &house{decide: under(hourly)}, p)
	pass := admitOne(t, s)
	sent, err := send(pass, 1000)
	if r := refused(t, err); sent != 150 || r.Code != CodeBudget || r.Rules[0] != "hourly" || !strings.Contains(r.Message, "alice has used up the budget of 1000 rows per hour") ||
		!strings.Contains(r.Hint, "15:04:00 UTC") {
		t.Errorf("%d rows went, then %+v", sent, r)
	}
	pass.Done(Outcome{Rows: sent, Read: sent * 10, SQLState: "53400"})
	_, err = s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
	if r := refused(t, err); r.Code != CodeBudget {
		t.Errorf("the next statement: %+v", r)
	}
}

func TestWhatIsNotUsedGoesBack(t *testing.T) {
	p := &purse{left: map[string]int64{"hourly": 1000}}
	s := openUnder(t, &house{decide: under(hourly)}, p)
	for range 50 {
		pass := admitOne(t, s)
		if _, err := send(pass, 3); err != nil {
			t.Fatal(err)
		}
		pass.Done(Outcome{Rows: 3, Read: 30})
	}
	admitOne(t, s).Done(Outcome{NotRun: true})
	if p.left["hourly"] != 1000-150 {
		t.Errorf("%d rows are left, want 850", p.left["hourly"])
	}
}

func TestARowCostsNoLock(t *testing.T) {
	p := &purse{left: map[string]int64{"hourly": 1_000_000}}
	big := hourly
	big.Amount = 1_000_000
	s := openUnder(t, &house{decide: under(big)}, p)
	if _, err := send(admitOne(t, s), 64_000); err != nil {
		t.Fatal(err)
	}
	if p.takes > 1001 {
		t.Errorf("the budget was asked %d times for 64,000 rows", p.takes)
	}
}

func TestBudgetsOfBytesAndStatements(t *testing.T) {
	bytes := policy.Budget{Rule: "bytes", Unit: policy.UnitBytes, Amount: 505, Per: time.Hour}
	s := openUnder(t, &house{decide: under(bytes)}, &purse{left: map[string]int64{"bytes": 505}})
	if sent, err := send(admitOne(t, s), 100); sent != 50 || refused(t, err).Code != CodeBudget {
		t.Errorf("%d rows of 10 bytes went under a budget of 505", sent)
	}
	three := policy.Budget{Rule: "three", Unit: policy.UnitStatements, Amount: 3, Per: time.Hour}
	s = openUnder(t, &house{decide: under(three)}, &purse{left: map[string]int64{"three": 3}})
	batch := []policy.Statement{statement("SELECT 1", policy.Read), statement("SELECT 2", policy.Read)}
	if _, err := s.Admit(context.Background(), batch, nil); err != nil {
		t.Fatal(err)
	}
	_, err := s.Admit(context.Background(), batch, nil) // one is left: none of two may run
	refused(t, err)
	admitOne(t, s)
	_, err = s.Admit(context.Background(), batch[:1], nil)
	refused(t, err)
}

func TestABudgetOfConstants(t *testing.T) {
	b := policy.Budget{Rule: "guesses", Unit: policy.UnitConstants, Amount: 2, Per: time.Hour}
	s := openUnder(t, &house{decide: under(b)}, &purse{left: map[string]int64{"guesses": 2}})
	st := statement("SELECT", policy.Read)
	admitOne(t, s) // compares nothing
	st.Constants = [][]byte{[]byte("a"), []byte("b")}
	if _, err := s.Admit(context.Background(), []policy.Statement{st}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := s.Admit(context.Background(), []policy.Statement{st}, nil)
	if refused(t, err).Code != CodeBudget {
		t.Error("a third guess was let through")
	}
}

func TestPeopleMayLiftABudget(t *testing.T) {
	cure := policy.Cure{Rule: "hourly", Group: "approvers", Quorum: 1}
	h := &house{decide: under(hourly, cure)}
	h.answer = func(context.Context, Question, func(Hold)) ([]Approved, error) { return nil, nil }
	p := &purse{left: map[string]int64{"hourly": 100}}
	s := openUnder(t, h, p)
	pass := admitOne(t, s)
	if sent, err := send(pass, 5000); err != nil || sent != 5000 {
		t.Fatalf("%d rows went, %v", sent, err)
	}
	if n := strings.Count(strings.Join(h.log, "\n"), "ask hourly"); n != 1 {
		t.Errorf("people were asked %d times", n)
	}
	if _, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil); err != nil {
		t.Fatalf("people were not asked before it runs: %v", err)
	}
	h.answer = func(context.Context, Question, func(Hold)) ([]Approved, error) {
		return nil, &Refusal{Code: CodePolicy, Message: "bob said no"}
	}
	_, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
	if r := refused(t, err); r.Message != "bob said no" {
		t.Errorf("%+v", r)
	}
}

func TestABudgetThatCannotBeCountedRefuses(t *testing.T) {
	s := openUnder(t, &house{decide: under(hourly)}, &purse{left: map[string]int64{}, broken: errors.New("disk full")})
	_, err := s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
	if r := refused(t, err); r.Code != CodeUnavailable {
		t.Errorf("%+v", r)
	}
	s.cfg.Budgets = nil
	_, err = s.Admit(context.Background(), []policy.Statement{statement("SELECT", policy.Read)}, nil)
	refused(t, err)
}

// A service that does not say that it works with masked values gets none: it
// would write them back, or bill by them.
func TestAServiceIsGivenNoMasksUnlessItTakesThem(t *testing.T) {
	ssn := policy.ColumnRef{Schema: "public", Table: "patients", Column: "ssn"}
	h := &house{decide: allow, tags: []policy.Tag{{Column: ssn, Tag: "phi", Mask: "last4"}}}
	s := open(t, h)
	s.cfg.RefuseMasks = true
	column := []Column{{Name: "ssn", Sources: []policy.ColumnRef{ssn}, Bare: true, Proven: true}}
	r := refused(t, second(admitOne(t, s).Plan(column)))
	if r.Code != CodePolicy || !strings.Contains(r.Hint, "acceptsMasked") || len(r.Rules) == 0 {
		t.Errorf("%+v", r)
	}
	s.cfg.RefuseMasks = false
	if plan, err := admitOne(t, s).Plan(column); err != nil || plan.Columns[0].Method != "last4" {
		t.Errorf("%+v, %v", plan, err)
	}
}

// Rules that want a ticket or purpose look at those of the grant.
func TestStatementsAreDecidedWithTheGrantsTicket(t *testing.T) {
	var asked policy.Request
	h := &house{decide: func(r policy.Request) policy.Verdict { asked = r; return allow(r) }}
	s := open(t, h)
	s.cfg.Ticket, s.cfg.Purpose = "CHG-7", "TREAT"
	admitOne(t, s)
	if asked.Ticket != "CHG-7" || asked.Purpose != "TREAT" {
		t.Errorf("decided with %+v", asked)
	}
}
