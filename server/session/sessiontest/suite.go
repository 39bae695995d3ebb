// Package sessiontest is what every protocol must pass to be plugged into
// server/session: a [Gate] that follows a script, and [Run], the suite.
package sessiontest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// Protocol is one wire protocol as the suite sees it, with a real target
// behind it.
type Protocol struct {
	// Start opens a client connection that is served with this gate. The client
	// is closed when t ends.
	Start func(t *testing.T, g *Gate) Client
	// Ask is a statement that reads and is answered with the marker as its only
	// value.
	Ask func(marker string) string
	// Reached reports whether the target ever received the marker.
	Reached func(t *testing.T, marker string) bool
}

// Client is a native client of the protocol.
type Client interface {
	// Run runs one statement and returns its answer. A refusal by either side
	// is an Answer with a Code, not an error; an error means that the
	// connection is of no more use.
	Run(ctx context.Context, statement string) (Answer, error)
	// Interrupt asks, as a user's Ctrl-C does, to end what Run does now.
	Interrupt(ctx context.Context) error
	// HangUp drops the connection without a goodbye.
	HangUp()
	// Told is what the client was told beside its answers so far: notices.
	Told() string
}

// Answer is what a client got.
type Answer struct {
	Values  []string // of all rows, in order
	Code    string   // the protocol's code of a refusal, "" if there was none
	Message string
	Detail  string
	Hint    string
}

// deadline bounds every wait of the suite; nothing is timed by it.
const deadline = 30 * time.Second

// marker is a word that occurs nowhere else.
func marker() string { return "m" + strings.ToLower(rand.Text()[:12]) }

// stars shows a constant in place of any value.
type stars struct{}

func (stars) Rewrite(dst, _ []byte) ([]byte, bool) { return append(dst, "***"...), false }

// Run holds a protocol to its promises.
func Run(t *testing.T, p Protocol) {
	s := suite{p}
	t.Run("an answer comes through, recorded and closed once", s.answer)
	t.Run("a denied statement never reaches the target", s.denied)
	t.Run("the connection works after a refusal", s.after)
	t.Run("the record precedes the first byte", s.recordFirst)
	t.Run("a failed record refuses", s.failedRecord)
	t.Run("a masked value never leaves", s.masked)
	t.Run("an approval lets the held statement run", s.approved)
	t.Run("a question is withdrawn by an interrupt", s.interrupted)
	t.Run("a question is withdrawn when the client hangs up", s.hungUp)
	t.Run("the end of a session is told", s.ended)
	t.Run("a row limit cuts the answer", s.limited)
}

type suite struct{ Protocol }

func context30(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func mustRun(t *testing.T, c Client, statement string) Answer {
	t.Helper()
	a, err := c.Run(context30(t), statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return a
}

func holds(a Answer, m string) bool { return len(a.Values) == 1 && a.Values[0] == m }

func (s suite) answer(t *testing.T) {
	g, m := &Gate{}, marker()
	a := mustRun(t, s.Start(t, g), s.Ask(m))
	if !holds(a, m) {
		t.Fatalf("answer %+v", a)
	}
	var admitted, done int
	var recorded []byte
	for _, e := range g.Events() {
		switch {
		case !strings.Contains(e.Statement, m):
		case e.What == "admit":
			admitted++
		case e.What == "record" && done == 0:
			recorded = append(recorded, e.Bytes...)
		case e.What == "done":
			done++
			if e.Outcome.Rows != 1 || e.Outcome.Status == "" || e.Outcome.Bytes == 0 {
				t.Errorf("outcome %+v", e.Outcome)
			}
		}
	}
	if admitted != 1 || done != 1 || !strings.Contains(string(recorded), m) {
		t.Errorf("admitted %d times, done %d times, recorded %q", admitted, done, recorded)
	}
}

// deny refuses statements that hold the marker.
func deny(m string) func(policy.Statement) *session.Refusal {
	return func(s policy.Statement) *session.Refusal {
		if !strings.Contains(s.Text, m) {
			return nil
		}
		return &session.Refusal{Code: session.CodePolicy, Message: "not for you", Hint: "ask dave", Rules: []string{"no-marker"}}
	}
}

func (s suite) denied(t *testing.T) {
	m := marker()
	a := mustRun(t, s.Start(t, &Gate{Deny: deny(m)}), s.Ask(m))
	if a.Code == "" || !strings.Contains(a.Message, "not for you") || !strings.Contains(a.Hint, "ask dave") || !strings.Contains(a.Detail, "no-marker") {
		t.Errorf("refusal %+v: it must carry code, message, rule and hint", a)
	}
	if len(a.Values) != 0 {
		t.Errorf("a refused statement was answered: %q", a.Values)
	}
	if s.Reached(t, m) {
		t.Error("the target received a denied statement")
	}
}

func (s suite) after(t *testing.T) {
	m, ok := marker(), marker()
	c := s.Start(t, &Gate{Deny: deny(m)})
	for range 3 {
		if a := mustRun(t, c, s.Ask(m)); a.Code == "" {
			t.Fatalf("not refused: %+v", a)
		}
		if a := mustRun(t, c, s.Ask(ok)); !holds(a, ok) {
			t.Fatalf("after a refusal: %+v", a)
		}
	}
}

func (s suite) recordFirst(t *testing.T) {
	m := marker()
	durable := make(chan struct{})
	g := &Gate{Strict: true, Durable: func(ctx context.Context, _ session.Ticket) error {
		select {
		case <-durable:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	c := s.Start(t, g)
	got := make(chan Answer, 1)
	go func() {
		a, err := c.Run(context30(t), s.Ask(m))
		if err != nil {
			t.Error(err)
		}
		got <- a
	}()
	if _, err := g.Await(context30(t), func(e Event) bool { return e.What == "wait" }); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-got:
		t.Fatalf("answered before it was durable: %+v", a)
	default:
	}
	recorded := false
	for _, e := range g.Events() {
		recorded = recorded || e.What == "record" && strings.Contains(string(e.Bytes), m)
	}
	if !recorded {
		t.Error("it waits for a record that does not hold the answer")
	}
	close(durable)
	if a := <-got; !holds(a, m) {
		t.Errorf("answer %+v", a)
	}
}

func (s suite) failedRecord(t *testing.T) {
	m := marker()
	var broken atomic.Bool
	g := &Gate{FailRecord: func(session.Direction) error {
		if broken.Load() {
			return &session.Refusal{Code: session.CodeEvidence, Message: "evidence unavailable", Fatal: true}
		}
		return nil
	}}
	c := s.Start(t, g)
	broken.Store(true)
	a, err := c.Run(context30(t), s.Ask(m))
	if len(a.Values) != 0 {
		t.Fatalf("shown without a record: %q", a.Values)
	}
	if err == nil && !strings.Contains(a.Message, "evidence unavailable") {
		t.Errorf("the client was told %+v", a)
	}
}

func (s suite) masked(t *testing.T) {
	m := marker()
	g := &Gate{
		Tagged: []policy.Tag{{Column: policy.ColumnRef{Schema: "x", Table: "y", Column: "z"}, Tag: "phi"}},
		Hide: func(session.Column) session.ColumnPlan {
			return session.ColumnPlan{Rewrite: stars{}, Method: "redact", Tag: "phi", Rule: "phi"}
		},
	}
	a := mustRun(t, s.Start(t, g), s.Ask(m))
	if len(a.Values) != 1 || a.Values[0] != "***" {
		t.Fatalf("answer %+v", a)
	}
	for _, e := range g.Events() {
		if e.What == "record" && e.Dir == session.ToClient && strings.Contains(string(e.Bytes), m) {
			t.Error("the recording holds the raw value")
		}
		if e.What == "done" && (len(e.Outcome.Masked) != 1 || e.Outcome.Masked[0].Cells != 1) {
			t.Errorf("masked cells %+v", e.Outcome.Masked)
		}
	}
}

// ask holds statements with the marker until something is sent.
func ask(m string, answer chan error) func(policy.Statement) <-chan error {
	return func(s policy.Statement) <-chan error {
		if strings.Contains(s.Text, m) {
			return answer
		}
		return nil
	}
}

func (s suite) approved(t *testing.T) {
	m, answer := marker(), make(chan error)
	g := &Gate{Ask: ask(m, answer)}
	c := s.Start(t, g)
	go func() {
		if _, err := g.Await(context30(t), func(e Event) bool { return e.What == "held" }); err != nil {
			t.Error(err)
		}
		if s.Reached(t, m) {
			t.Error("the target received a statement that waits")
		}
		answer <- nil
	}()
	if a := mustRun(t, c, s.Ask(m)); !holds(a, m) {
		t.Errorf("answer %+v", a)
	}
	if !strings.Contains(c.Told(), "r-1") {
		t.Errorf("the client was not told of the request: %q", c.Told())
	}
}

func (s suite) interrupted(t *testing.T) {
	m, ok := marker(), marker()
	g := &Gate{Ask: ask(m, make(chan error))}
	c := s.Start(t, g)
	go func() {
		if _, err := g.Await(context30(t), func(e Event) bool { return e.What == "held" }); err != nil {
			t.Error(err)
		}
		if err := c.Interrupt(context30(t)); err != nil {
			t.Error(err)
		}
	}()
	if a := mustRun(t, c, s.Ask(m)); a.Code == "" || len(a.Values) != 0 {
		t.Errorf("answer %+v", a)
	}
	if _, err := g.Await(context30(t), func(e Event) bool { return e.What == "withdrawn" }); err != nil {
		t.Error(err)
	}
	if s.Reached(t, m) {
		t.Error("the target received a withdrawn statement")
	}
	if a := mustRun(t, c, s.Ask(ok)); !holds(a, ok) {
		t.Errorf("after an interrupt: %+v", a)
	}
}

func (s suite) hungUp(t *testing.T) {
	m := marker()
	g := &Gate{Ask: ask(m, make(chan error))}
	c := s.Start(t, g)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if a, err := c.Run(context30(t), s.Ask(m)); err == nil && a.Code == "" {
			t.Errorf("answered: %+v", a)
		}
	}()
	if _, err := g.Await(context30(t), func(e Event) bool { return e.What == "held" }); err != nil {
		t.Fatal(err)
	}
	c.HangUp()
	<-ran
	if _, err := g.Await(context30(t), func(e Event) bool { return e.What == "withdrawn" }); err != nil {
		t.Fatal(err)
	}
	if s.Reached(t, m) {
		t.Error("the target received a withdrawn statement")
	}
}

func (s suite) ended(t *testing.T) {
	m, answer := marker(), make(chan error, 1)
	g := &Gate{Ask: ask(m, answer)}
	c := s.Start(t, g)
	answer <- &session.Refusal{Code: session.CodeRevoked, Message: "grant g-1 was revoked", Fatal: true}
	a, err := c.Run(context30(t), s.Ask(m))
	if err != nil && a.Message == "" {
		t.Fatalf("the client was not told: %v", err)
	}
	if a.Code == "" || !strings.Contains(a.Message, "grant g-1 was revoked") {
		t.Errorf("the client was told %+v", a)
	}
	if _, err := c.Run(context30(t), s.Ask(marker())); err == nil {
		t.Error("the session goes on")
	}
}

func (s suite) limited(t *testing.T) {
	m := marker()
	g := &Gate{Limit: 1, OverLimit: func(context.Context, func(session.Hold)) error {
		return errors.New("must not be asked within the limit")
	}}
	if a := mustRun(t, s.Start(t, g), s.Ask(m)); !holds(a, m) {
		t.Errorf("within the limit: %+v", a)
	}
}
