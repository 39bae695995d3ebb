package session

import (
	"context"
	"fmt"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
	"github.com/hoopctl/hoopctl/server/api"
)

// pass follows one admitted statement. It implements Pass.
type pass struct {
	s         *Session
	statement policy.Statement
	verdict   policy.Verdict
	approvals []string
	sequence  uint64
	ticket    Ticket // of the statement's own leaf

	rows  int64 // source rows, as More was told
	limit int64 // rows that may go; 0 is no limit
	head  int64 // rows to record; 0 is all

	meters []meter          // budgets that the answer is under
	spent  map[string]int64 // of those that were used up: nothing is left

	would map[string]string // what policy would have done, if the target is only observed; else nil

	first, last uint64 // frames
}

// Plan implements Pass.
func (p *pass) Plan(columns []Column) (Plan, error) {
	set := p.s.cfg.Policy()
	tags := set.Tags(p.s.cfg.Target)
	plan := Plan{Columns: make([]ColumnPlan, len(columns)), Clear: true}
	entities := set.Detect(p.s.cfg.Target)
	if len(tags) == 0 && len(entities) == 0 {
		return plan, nil
	}
	for i := range columns {
		c, err := p.planColumn(set, tags, &columns[i])
		if err == nil && c.Rewrite != nil && p.s.cfg.RefuseMasks {
			err = unwanted(columns[i].Name, &c)
		}
		if err == nil && c.Rewrite == nil {
			err = p.scan(&c, entities, &columns[i])
		}
		if err != nil {
			return Plan{}, err
		}
		plan.Columns[i] = c
		plan.Clear = plan.Clear && c.Rewrite == nil
	}
	return plan, nil
}

// unwanted refuses a result to a service that would take masks for values.
func unwanted(name string, c *ColumnPlan) error {
	return &Refusal{Code: CodePolicy, Rules: []string{c.Rule}, Message: fmt.Sprintf("column %q is hidden from this service (tag %s), and it does not take masked values", name, c.Tag),
		Hint: "leave the column out; or whoever owns the service gives it a Clearance, or says acceptsMasked: true in its Service resource"}
}

// planColumn hides a column unless everything that it may derive from may be
// seen. Only a column's own bare value takes the method of its tag: of a
// derived value nothing is known but that it must not be shown.
func (p *pass) planColumn(set Decider, tags []policy.Tag, c *Column) (ColumnPlan, error) {
	hidden, names := p.hidden(set, tags, c)
	if hidden == nil {
		return ColumnPlan{Source: names, Why: c.Why}, nil
	}
	out := ColumnPlan{Method: "redact", Tag: hidden.Tag, Rule: hidden.Rule, Source: names, Why: c.Why}
	if c.Proven && c.Bare && len(c.Sources) == 1 && hidden.Method != "" {
		out.Method = hidden.Method
	}
	how := out.Method
	if !c.Proven || !c.Bare {
		how, out.Nulls = mask.Blind, true
	}
	var err error
	out.Rewrite, err = p.s.cfg.Masks.Rewriter(how, out.Tag, c.Type)
	if err != nil {
		return ColumnPlan{}, &Refusal{Code: CodePolicy, Message: fmt.Sprintf("column %q cannot be masked", c.Name), Detail: err.Error(), Rules: []string{hidden.Rule}}
	}
	return out, nil
}

// scan has a column that may be shown looked through for identifiers, if the
// target's classification says so. PostgreSQL's own tables hold names and
// definitions, which are nobody's.
func (p *pass) scan(out *ColumnPlan, entities []string, c *Column) error {
	if len(entities) == 0 || c.Proven && c.Why == "identity" && len(c.Sources) == 0 {
		return nil
	}
	r, err := p.s.cfg.Masks.Scanner(entities, c.Name, c.Type)
	if err != nil {
		return &Refusal{Code: CodePolicy, Message: fmt.Sprintf("column %q cannot be scanned", c.Name), Detail: err.Error()}
	}
	if r != nil {
		*out = ColumnPlan{Rewrite: r, Scan: true, Method: "redact", Tag: policy.Detected, Rule: ruleDetect, Source: sourceNames(c), Why: "scan"}
	}
	return nil
}

// ruleDetect is the house's own: a classification's detect.
const ruleDetect = "house:detect"

func sourceNames(c *Column) string {
	if !c.Proven {
		return ""
	}
	names := make([]string, len(c.Sources))
	for i, s := range c.Sources {
		names[i] = s.String()
	}
	return strings.Join(names, ",")
}

// hidden returns the strictest showing that hides the column, nil if all that
// it may derive from may be seen, and the names of its tagged sources.
func (p *pass) hidden(set Decider, tags []policy.Tag, c *Column) (*policy.Showing, string) {
	var hidden *policy.Showing
	var names []string
	for i := range tags {
		t := &tags[i]
		if t.Tag == "none" || c.Proven && !fromColumn(c.Sources, t.Column) {
			continue
		}
		if c.Proven {
			names = append(names, t.Column.String())
		}
		req := p.s.request(policy.ViewUnmasked)
		req.Column, req.Statement, req.Approvals = &t.Column, &p.statement, p.approvals
		sh := set.Show(req, *t)
		if !sh.Clear && hidden == nil {
			hidden = &sh
		}
	}
	return hidden, strings.Join(names, ",")
}

func fromColumn(sources []policy.ColumnRef, c policy.ColumnRef) bool {
	for _, s := range sources {
		if s == c {
			return true
		}
	}
	return false
}

// Record implements Pass.
func (p *pass) Record(dir Direction, b []byte) (Ticket, error) {
	ticket := p.ticket
	if r := p.s.cfg.Recording; r != nil && (p.head == 0 || p.rows <= p.head) {
		t, frame, err := r.Frame(dir, b)
		if err != nil {
			return 0, evidenceRefusal(err)
		}
		if p.first == 0 {
			p.first = frame
		}
		ticket, p.last = Ticket(t), frame
	}
	return p.release(ticket), nil
}

// release is the ticket that bytes wait for: none in async evidence.
func (p *pass) release(t Ticket) Ticket {
	if !p.s.cfg.Strict {
		return 0
	}
	return t
}

// lifted decides again, now with the approvals, and writes down that the limit
// fell.
func (p *pass) lifted(ctx context.Context, cures []policy.Cure, by []api.EventApproved) error {
	for _, c := range cures {
		p.approvals = append(p.approvals, c.Approval())
	}
	v := p.s.decide(p.s.cfg.Policy(), &p.statement, p.approvals, p.spent)
	if v.Effect != policy.Allow {
		return p.s.refusal(v)
	}
	e := p.s.event(api.EventStatement)
	e.Sequence, e.Statement, e.Fingerprint = p.sequence, p.statement.Shape, p.statement.Fingerprint
	e.Verdict, e.Rules, e.Policy, e.Approvals = v.Effect.String(), v.Rules, v.Digest, by
	e.Reason = "row limit lifted by approval"
	if len(p.spent) > 0 {
		e.Reason = "row limit or budget lifted by approval"
	}
	if err := p.s.append(ctx, &e); err != nil {
		return evidenceRefusal(err)
	}
	p.verdict, p.limit = v, v.RowLimit
	return p.remeter(ctx, v.Meters)
}

// Done implements Pass.
func (p *pass) Done(o Outcome) (Ticket, error) {
	s := p.s
	defer s.run(-1)
	var uncounted error
	if len(p.meters) > 0 {
		uncounted = s.giveBack(context.Background(), p.meters, o)
	}
	e := s.take(api.EventOutcome)
	e.Sequence, e.Rows, e.Bytes, e.Status, e.SQLState = p.sequence, o.Rows, o.Bytes, o.Status, o.SQLState
	for i := range o.Masked {
		m := &o.Masked[i]
		e.Masked = append(e.Masked, api.MaskedColumn{Column: m.Name, Source: m.Source, Tag: m.Tag, Method: m.Method, Rule: m.Rule, Why: m.Why, Cells: m.Cells})
		s.masked.Add(m.Cells)
	}
	s.hidden.add(e.Masked)
	switch {
	case o.Unknown:
		e.Reason = "outcome unknown: the target was lost before the answer was whole"
	case o.NotRun:
		e.Reason = "not run"
	}
	p.wouldCut(e, o)
	if s.cfg.Recording != nil && p.first != 0 {
		e.FramesFirst, e.FramesLast, e.FramesSHA256 = p.first, p.last, s.cfg.Recording.Digest(p.first, p.last)
	}
	s.rows.Add(o.Rows)
	s.bytes.Add(o.Bytes)
	t, err := s.put(e)
	if err != nil {
		return 0, evidenceRefusal(err)
	}
	return p.release(Ticket(t)), uncounted
}
