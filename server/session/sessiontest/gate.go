package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// Gate is a session.Gate that follows a script and writes down, in order, what
// a protocol asked of it. Set its fields before the session starts. Its zero
// value admits everything and hides nothing.
type Gate struct {
	// Deny refuses a statement, at Check and at Admit. nil admits all.
	Deny func(policy.Statement) *session.Refusal
	// Ask makes Admit hold for a statement until the channel it returns gives
	// nil (approved) or a refusal, or the question is withdrawn. nil asks never.
	Ask func(policy.Statement) <-chan error
	// Hide is what Plan does with each column; nil Rewrite shows it.
	Hide func(session.Column) session.ColumnPlan
	// Tagged are the Tags.
	Tagged []policy.Tag
	// Cleared says that the principal may see them all.
	Cleared bool
	// Limit is how many rows of each answer may go at first, 0 all; OverLimit is
	// what More says past it, nil lifts the limit.
	Limit     int64
	OverLimit func(ctx context.Context, hold func(session.Hold)) error
	// FailRecord makes Record fail for a direction.
	FailRecord func(session.Direction) error
	// Strict makes tickets that are durable only when Durable lets them be; nil
	// Durable lets them at once.
	Strict  bool
	Durable func(ctx context.Context, t session.Ticket) error

	// Greeting is the Notice.
	Greeting string

	Name      string // s-1
	Principal policy.Principal

	mu     sync.Mutex
	events []Event
	ticket session.Ticket
	wake   chan struct{}
}

// Event is one thing that a protocol asked of the gate.
type Event struct {
	What      string // check, admit, held, withdrawn, plan, record, more, done, wait, aside, opened, cancelled
	Statement string // text of the one statement
	Kind      string
	Bytes     []byte // of record and aside
	Dir       session.Direction
	Outcome   session.Outcome
	Params    []policy.Param
	Settings  []string
	Facts     *policy.Facts
	InTx      bool
	Constants [][]byte // that tagged columns are compared with
}

var _ session.Gate = (*Gate)(nil)

func (g *Gate) note(e Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, e)
	if g.wake != nil {
		close(g.wake)
		g.wake = nil
	}
}

// Events returns what was asked so far.
func (g *Gate) Events() []Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.events)
}

// Await blocks until an event fits, or ctx ends.
func (g *Gate) Await(ctx context.Context, fits func(Event) bool) (Event, error) {
	for seen := 0; ; {
		g.mu.Lock()
		for ; seen < len(g.events); seen++ {
			if fits(g.events[seen]) {
				e := g.events[seen]
				g.mu.Unlock()
				return e, nil
			}
		}
		if g.wake == nil {
			g.wake = make(chan struct{})
		}
		wake := g.wake
		g.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("%w; events: %s", ctx.Err(), g.Summary())
		}
	}
}

// Summary is the events by name, for messages.
func (g *Gate) Summary() string {
	var b strings.Builder
	for _, e := range g.Events() {
		fmt.Fprintf(&b, "%s(%s) ", e.What, e.Statement)
	}
	return b.String()
}

func textOf(s policy.Statement) string {
	if s.End > s.Start && s.End <= len(s.Text) {
		return s.Text[s.Start:s.End]
	}
	return s.Text
}

// Check implements session.Gate.
func (g *Gate) Check(_ context.Context, batch []policy.Statement) error {
	for _, s := range batch {
		g.note(Event{What: "check", Statement: textOf(s), Kind: s.Kind, Facts: s.Facts, InTx: s.InTransaction})
		if g.Deny != nil {
			if r := g.Deny(s); r != nil {
				return r
			}
		}
	}
	return nil
}

// Admit implements session.Gate.
func (g *Gate) Admit(ctx context.Context, batch []policy.Statement, hold func(session.Hold)) ([]session.Pass, error) {
	for _, s := range batch {
		if g.Deny != nil {
			if r := g.Deny(s); r != nil {
				g.note(Event{What: "denied", Statement: textOf(s), Kind: s.Kind, Facts: s.Facts})
				return nil, r
			}
		}
		if g.Ask == nil {
			continue
		}
		if answer := g.Ask(s); answer != nil {
			if err := g.hold(ctx, s, answer, hold); err != nil {
				return nil, err
			}
		}
	}
	var passes []session.Pass
	for _, s := range batch {
		g.note(Event{What: "admit", Statement: textOf(s), Kind: s.Kind, Params: s.Params, Facts: s.Facts, InTx: s.InTransaction, Constants: s.Constants})
		passes = append(passes, &pass{gate: g, statement: textOf(s)})
	}
	return passes, nil
}

func (g *Gate) hold(ctx context.Context, s policy.Statement, answer <-chan error, hold func(session.Hold)) error {
	hold(session.Hold{Request: "r-1", Rule: "ask", Groups: []string{"approvers"}, Reason: "somebody must look"})
	g.note(Event{What: "held", Statement: textOf(s)})
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		g.note(Event{What: "withdrawn", Statement: textOf(s)})
		return &session.Refusal{Code: session.CodeWithdrawn, Message: "canceling statement due to user request", Request: "r-1"}
	}
}

// Tags implements session.Gate.
func (g *Gate) Tags() []policy.Tag { return g.Tagged }

// Hides says whether anything is tagged, unless the principal is cleared.
func (g *Gate) Hides() bool { return len(g.Tagged) > 0 && !g.Cleared }

// Aside implements session.Gate.
func (g *Gate) Aside(kind string, b []byte) ([]byte, error) {
	g.note(Event{What: "aside", Kind: kind, Bytes: slices.Clone(b)})
	return b, nil
}

// Wait implements session.Gate.
func (g *Gate) Wait(ctx context.Context, t session.Ticket) error {
	if t == 0 {
		return nil
	}
	g.note(Event{What: "wait"})
	if g.Durable == nil {
		return nil
	}
	return g.Durable(ctx, t)
}

// Session implements session.Gate.
func (g *Gate) Session() (string, policy.Principal) {
	name, p := g.Name, g.Principal
	if name == "" {
		name = "s-1"
	}
	if p.Name == "" {
		p = policy.Principal{Kind: policy.User, Issuer: "test", Subject: "1", Name: "alice", Groups: []string{"engineers"}}
	}
	return name, p
}

// Opened implements session.Gate.
func (g *Gate) Opened(uint32, string) error {
	g.note(Event{What: "opened"})
	return nil
}

// Cancelled implements session.Gate.
func (g *Gate) Cancelled(by string) error {
	g.note(Event{What: "cancelled", Kind: by})
	return nil
}

func (g *Gate) next() session.Ticket {
	if !g.Strict {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ticket++
	return g.ticket
}

// Notice implements session.Gate.
func (g *Gate) Notice() string { return g.Greeting }

type pass struct {
	gate      *Gate
	statement string
	mu        sync.Mutex
	done      bool
}

func (p *pass) Plan(columns []session.Column) (session.Plan, error) {
	p.gate.note(Event{What: "plan", Statement: p.statement})
	plan := session.Plan{Columns: make([]session.ColumnPlan, len(columns)), Clear: true}
	for i, c := range columns {
		if p.gate.Hide != nil {
			plan.Columns[i] = p.gate.Hide(c)
		}
		plan.Clear = plan.Clear && plan.Columns[i].Rewrite == nil
	}
	return plan, nil
}

func (p *pass) Record(dir session.Direction, b []byte) (session.Ticket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return 0, errors.New("sessiontest: Record after Done")
	}
	if p.gate.FailRecord != nil {
		if err := p.gate.FailRecord(dir); err != nil {
			return 0, err
		}
	}
	p.gate.note(Event{What: "record", Statement: p.statement, Dir: dir, Bytes: slices.Clone(b)})
	return p.gate.next(), nil
}

func (p *pass) More(ctx context.Context, with session.Allowance, hold func(session.Hold)) (session.Allowance, error) {
	p.gate.note(Event{What: "more", Statement: p.statement, Outcome: session.Outcome{Rows: with.Rows, Read: with.Bytes}})
	all := session.Allowance{Rows: session.Unlimited, Bytes: session.Unlimited}
	if p.gate.OverLimit == nil {
		return all, nil
	}
	return all, p.gate.OverLimit(ctx, hold)
}

func (p *pass) Allowed() session.Allowance {
	a := session.Allowance{Rows: session.Unlimited, Bytes: session.Unlimited}
	if p.gate.Limit > 0 {
		a.Rows = p.gate.Limit
	}
	return a
}

func (p *pass) Done(o session.Outcome) (session.Ticket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		p.gate.note(Event{What: "done twice", Statement: p.statement, Outcome: o})
		return 0, errors.New("sessiontest: Done twice")
	}
	p.done = true
	p.gate.note(Event{What: "done", Statement: p.statement, Outcome: o})
	return p.gate.next(), nil
}
