package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hoopctl/hoopctl/policy"
)

// Budgets counts what principals use of their budgets, over all sessions.
// *budget.Ledger is one. An error means that it cannot be counted, and so must
// not be used.
type Budgets interface {
	// Take hands out up to n of what is left; 0 is that nothing is.
	Take(ctx context.Context, principal string, b policy.Budget, n int64) (int64, error)
	// Return gives back what was taken and not used.
	Return(ctx context.Context, principal string, b policy.Budget, n int64)
	// Distinct counts the values that are new; false if too little is left for
	// all of them: then none is counted.
	Distinct(ctx context.Context, principal string, b policy.Budget, values [][]byte) (bool, error)
	// Left is what is left, and when more comes back.
	Left(ctx context.Context, principal string, b policy.Budget) (int64, time.Time, error)
}

// Unlimited is no end to what may go.
const Unlimited = math.MaxInt64

// Allowance is how much of an answer may go, counted from its beginning. Rows
// are the target's, and bytes those of their messages as the target sent them.
type Allowance struct{ Rows, Bytes int64 }

// What a statement takes of a budget at a time: enough that a row costs no
// lock, and little enough that sessions at once do not starve each other.
const (
	rowsAtOnce  = 64
	bytesAtOnce = 256 << 10
)

// meter is one budget of rows or bytes that an answer is under.
type meter struct {
	budget policy.Budget
	taken  int64 // of it, for this answer, in all
}

func (m *meter) portion() int64 {
	most := int64(rowsAtOnce)
	if m.budget.Unit == policy.UnitBytes {
		most = bytesAtOnce
	}
	return min(most, max(1, m.budget.Amount/16))
}

// used is how much of the meter's unit an answer came to.
func (m *meter) used(a Allowance) int64 {
	if m.budget.Unit == policy.UnitBytes {
		return a.Bytes
	}
	return a.Rows
}

// fill takes what an answer needs to go as far as that, and something ahead.
// It is false if the budget is used up before.
func (s *Session) fill(ctx context.Context, m *meter, to Allowance) (bool, error) {
	need := m.used(to) - m.taken
	if need <= 0 && m.taken > 0 {
		return true, nil
	}
	got, err := s.cfg.Budgets.Take(ctx, s.cfg.Principal.ID(), m.budget, max(need, m.portion()))
	m.taken += got
	return got > 0 && got >= need, err
}

// begin takes what the statements of a batch need to begin. If a budget is used
// up it returns that, having given everything back.
func (s *Session) begin(ctx context.Context, batch []policy.Statement, verdicts []policy.Verdict) (meters [][]meter, spent *policy.Budget, err error) {
	metered := false
	for i := range verdicts {
		metered = metered || len(verdicts[i].Meters) > 0
	}
	if !metered {
		return nil, nil, nil
	}
	if s.cfg.Budgets == nil {
		return nil, nil, countRefusal(fmt.Errorf("nobody counts"))
	}
	meters = make([][]meter, len(batch))
	for i := range batch {
		for _, b := range verdicts[i].Meters {
			ok, err := s.start(ctx, &batch[i], b, &meters[i])
			if err == nil && ok {
				continue
			}
			s.notRun(ctx, meters)
			if err != nil {
				err = countRefusal(err)
			}
			return nil, &b, err
		}
	}
	return meters, nil, nil
}

// notRun gives back what a batch took that did not run.
func (s *Session) notRun(ctx context.Context, meters [][]meter) {
	for _, m := range meters {
		s.giveBack(ctx, m, Outcome{NotRun: true}) // what did not run told nothing
	}
}

// start counts one statement against one budget.
func (s *Session) start(ctx context.Context, st *policy.Statement, b policy.Budget, into *[]meter) (ok bool, err error) {
	m := meter{budget: b}
	switch b.Unit {
	case policy.UnitConstants:
		if b.Fills() {
			*into = append(*into, m) // a key that is taken counts when the target says so
		}
		return s.compare(ctx, b, b.Of(st.Constants))
	case policy.UnitStatements:
		m.taken, err = s.cfg.Budgets.Take(ctx, s.cfg.Principal.ID(), b, 1)
		ok = m.taken == 1
	default:
		ok, err = s.fill(ctx, &m, Allowance{})
	}
	*into = append(*into, m)
	return ok, err
}

// compare counts the constants that a statement compares hidden values with.
// One that only fills keys takes none, but nothing may be used up.
func (s *Session) compare(ctx context.Context, b policy.Budget, constants [][]byte) (ok bool, err error) {
	switch {
	case len(constants) > 0:
		return s.cfg.Budgets.Distinct(ctx, s.cfg.Principal.ID(), b, constants)
	case b.Fills():
		left, _, err := s.cfg.Budgets.Left(ctx, s.cfg.Principal.ID(), b)
		return left > 0, err
	}
	return true, nil
}

// keyTaken are the SQLSTATEs by which a target tells that a value is there, or
// is not: a unique, a foreign and an exclusion constraint.
var keyTaken = map[string]bool{"23505": true, "23503": true, "23P01": true}

// tellsKey counts an error by which the target told whether a key is taken,
// each as a new one: which it was is not known.
func (s *Session) tellsKey(ctx context.Context, b policy.Budget, o Outcome) error {
	if !keyTaken[o.SQLState] {
		return nil
	}
	// Where nothing is left there is nothing to count; the next is refused.
	if _, err := s.cfg.Budgets.Distinct(ctx, s.cfg.Principal.ID(), b, [][]byte{[]byte(rand.Text())}); err != nil {
		return countRefusal(err)
	}
	return nil
}

// giveBack returns what an answer took and did not use. An error means that
// something could not be counted.
func (s *Session) giveBack(ctx context.Context, meters []meter, o Outcome) error {
	var failed error
	for i := range meters {
		m := &meters[i]
		if m.budget.Unit == policy.UnitConstants {
			failed = errors.Join(failed, s.tellsKey(ctx, m.budget, o))
			continue
		}
		unused := m.taken - m.used(Allowance{Rows: o.Rows, Bytes: o.Read})
		if m.budget.Unit == policy.UnitStatements {
			unused = 0
			if o.NotRun {
				unused = m.taken
			}
		}
		s.cfg.Budgets.Return(ctx, s.cfg.Principal.ID(), m.budget, unused)
	}
	return failed
}

func countRefusal(err error) *Refusal {
	return &Refusal{Code: CodeUnavailable, Message: "a budget cannot be counted", Detail: err.Error(), Hint: "nothing runs under a budget that cannot be counted; tell whoever runs the broker"}
}

// exhausted puts a used up budget into words: who, which rule, and when it
// refills.
func (s *Session) exhausted(v policy.Verdict) *Refusal {
	b := *v.Exhausted
	r := &Refusal{Code: CodeBudget, Rules: v.Rules, Detail: b.Reason, Hint: v.Hint,
		Message: fmt.Sprintf("%s has used up the budget of %s", s.cfg.Principal.Name, b)}
	if s.cfg.Budgets == nil {
		return r
	}
	if _, refills, err := s.cfg.Budgets.Left(context.Background(), s.cfg.Principal.ID(), b); err == nil && !refills.IsZero() {
		r.Hint = fmt.Sprintf("something comes back at %s; until then ask for less, or ask whoever writes the rules about rule %s", refills.UTC().Format("15:04:05 UTC"), b.Rule)
	}
	return r
}

// Allowed implements Pass.
func (p *pass) Allowed() Allowance {
	a := Allowance{Rows: Unlimited, Bytes: Unlimited}
	if p.limit > 0 {
		a.Rows = p.limit
	}
	if p.head > p.rows {
		a.Rows = min(a.Rows, p.head)
	}
	for i := range p.meters {
		switch m := &p.meters[i]; m.budget.Unit {
		case policy.UnitRows:
			a.Rows = min(a.Rows, m.taken)
		case policy.UnitBytes:
			a.Bytes = min(a.Bytes, m.taken)
		}
	}
	return a
}

// More implements Pass.
func (p *pass) More(ctx context.Context, with Allowance, hold func(Hold)) (Allowance, error) {
	p.rows = with.Rows
	over := p.limit > 0 && p.rows > p.limit
	spent, err := p.draw(ctx, with)
	if err != nil {
		return Allowance{}, err
	}
	if over || spent != nil {
		err = p.stopped(ctx, over, spent, hold)
	}
	return p.Allowed(), err
}

// draw takes what the answer needs of its budgets to go so far, and returns
// the one that is used up before.
func (p *pass) draw(ctx context.Context, with Allowance) (*policy.Budget, error) {
	for i := range p.meters {
		m := &p.meters[i]
		if u := m.budget.Unit; u != policy.UnitRows && u != policy.UnitBytes {
			continue
		}
		ok, err := p.s.fill(ctx, m, with)
		if err != nil {
			return nil, countRefusal(err)
		}
		if !ok {
			return &m.budget, nil
		}
	}
	return nil, nil
}

// stopped asks people whether the answer may go on behind its limit or without
// its budget, or refuses the rest.
func (p *pass) stopped(ctx context.Context, over bool, spent *policy.Budget, hold func(Hold)) error {
	var cures []policy.Cure
	if over {
		if len(p.verdict.Cures) == 0 {
			return &Refusal{Code: CodePolicy, Message: fmt.Sprintf("more than %d rows", p.limit), Rules: p.verdict.Rules, Detail: p.verdict.Reason, Hint: "ask for fewer rows"}
		}
		cures = p.verdict.Cures
	}
	if spent != nil {
		p.spent = withSpent(p.spent, spent)
		v := p.s.decide(p.s.cfg.Policy(), &p.statement, p.approvals, p.spent)
		if v.Effect == policy.Deny {
			return p.s.refusal(v)
		}
		if v.Effect == policy.Review {
			cures = addCures(cures, v.Cures)
		}
	}
	if r := p.s.cfg.Live(); r != nil {
		return r
	}
	if len(cures) == 0 { // the policy has changed meanwhile
		return p.lifted(ctx, nil, nil)
	}
	by, err := p.s.ask(ctx, []policy.Statement{p.statement}, cures, hold)
	if err != nil {
		return err
	}
	return p.lifted(ctx, cures, by)
}

// withSpent says that nothing is left of a budget, in the form of Request.Left.
func withSpent(left map[string]int64, b *policy.Budget) map[string]int64 {
	out := map[string]int64{b.Rule: 0}
	for rule, n := range left {
		out[rule] = n
	}
	return out
}

// remeter goes on with the budgets of another verdict: those that stay are
// counted on, those that fell are counted up to here.
func (p *pass) remeter(ctx context.Context, budgets []policy.Budget) error {
	var next []meter
	for _, b := range budgets {
		m := meter{budget: b}
		if b.Unit == policy.UnitRows {
			m.taken = p.rows // what went before was not counted, and is not given back
		}
		for _, have := range p.meters {
			if have.budget.Rule == b.Rule {
				m = have
			}
		}
		next = append(next, m)
	}
	p.meters = next
	if spent, err := p.draw(ctx, Allowance{Rows: p.rows}); err != nil || spent != nil {
		if err == nil {
			err = p.s.refusal(policy.Verdict{Exhausted: spent, Rules: []string{spent.Rule}})
		}
		return err
	}
	return nil
}
