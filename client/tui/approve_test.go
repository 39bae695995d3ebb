package tui

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/hoopctl/hoopctl/server/api"
)

// desk is a server that notes what was signed.
type desk struct {
	shown   api.Request
	approve bool
	reason  string
	calls   int
	err     error
}

func (d *desk) Follow(context.Context) iter.Seq2[api.Request, error] {
	return func(func(api.Request, error) bool) {}
}

func (d *desk) Answer(_ context.Context, shown api.Request, approve bool, reason string) (api.Request, error) {
	d.shown, d.approve, d.reason, d.calls = shown, approve, reason, d.calls+1
	shown.Status.Phase = "approved"
	return shown, d.err
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func request(name, sql string) api.Request {
	r := api.Request{Metadata: api.Meta{Name: name, Created: noon}}
	r.Spec = api.RequestSpec{Kind: "statement", Name: "alice", Principal: "dev:alice", Target: "clinic", Statement: sql,
		Cures: []api.Cure{{Rule: "no-where", Group: "dba", Quorum: 1, Reason: "touches every row"}}}
	r.Status = api.RequestStatus{Phase: "pending", Expires: noon.Add(time.Minute), MayAnswer: true}
	return r
}

func newTestQueue(d *desk, requests ...api.Request) *queue {
	q := newQueue(context.Background(), d, func() time.Time { return noon })
	q.Update(tea.WindowSizeMsg{Width: 100, Height: 40})
	for _, r := range requests {
		q.Update(arrived{request: r})
	}
	return q
}

// press sends keys and runs the commands that they cause, as the runtime does.
func press(q *queue, keys ...string) (quit bool) {
	for _, k := range keys {
		msg := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
		switch k {
		case "enter":
			msg = tea.KeyMsg{Type: tea.KeyEnter}
		case "esc":
			msg = tea.KeyMsg{Type: tea.KeyEsc}
		case "down":
			msg = tea.KeyMsg{Type: tea.KeyDown}
		}
		_, cmd := q.Update(msg)
		if cmd == nil {
			continue
		}
		switch m := cmd().(type) {
		case tea.QuitMsg:
			quit = true
		case answered:
			q.Update(m)
		}
	}
	return quit
}

func TestShowsWhoWhatAndWhy(t *testing.T) {
	q := newTestQueue(&desk{}, request("r-1", "UPDATE patients SET zip = '0'"))
	view := q.View()
	for _, want := range []string{"1 waiting", "r-1", "alice", "clinic", "no-where", "touches every row", "1 of dba", "UPDATE", "patients", "1m0s"} {
		if !strings.Contains(view, want) {
			t.Errorf("the screen lacks %q:\n%s", want, view)
		}
	}
}

func TestApproveSignsWhatIsOnTheScreen(t *testing.T) {
	d := &desk{}
	q := newTestQueue(d, request("r-1", "DELETE FROM a"), request("r-2", "DELETE FROM b"))
	press(q, "down", "a", "o", "k", "enter")
	if d.calls != 1 || d.shown.Metadata.Name != "r-2" || !d.approve || d.reason != "ok" {
		t.Fatalf("signed %+v", d)
	}
	if !strings.Contains(q.View(), "r-2 approved") {
		t.Errorf("the answer is not told:\n%s", q.View())
	}
}

// What waits is on the screen however much history lies below it; an approver
// who reads history is left there; an answer leads on to the next.
func TestWhatWaitsIsLookedAtFirst(t *testing.T) {
	d := &desk{}
	q := newTestQueue(d)
	for i := range 30 {
		old := request(fmt.Sprint("old-", i), "DELETE FROM a")
		old.Status.Phase, old.Metadata.Created = "used", noon.Add(time.Duration(i)*time.Second)
		q.Update(arrived{request: old})
	}
	q.Update(arrived{request: request("new-1", "DELETE FROM b")})
	if q.selected != "new-1" || !strings.Contains(q.View(), "DELETE FROM b") {
		t.Fatalf("looks at %s:\n%s", q.selected, q.View())
	}
	q.Update(arrived{request: request("new-2", "DELETE FROM c")})
	if press(q, "a", "enter"); d.shown.Metadata.Name != "new-1" || q.selected != "new-2" {
		t.Errorf("signed %s, then looks at %s", d.shown.Metadata.Name, q.selected)
	}
	press(q, "down")
	reads := q.selected
	if q.Update(arrived{request: request("new-3", "DELETE FROM d")}); q.selected != reads {
		t.Errorf("was taken from %s to %s", reads, q.selected)
	}
}

func TestDenialNeedsAReason(t *testing.T) {
	d := &desk{}
	q := newTestQueue(d, request("r-1", "DELETE FROM a"))
	press(q, "d", "enter")
	if d.calls != 0 {
		t.Fatal("a denial without a reason was signed")
	}
	press(q, "n", "o", "enter")
	if d.calls != 1 || d.approve || d.reason != "no" {
		t.Fatalf("signed %+v", d)
	}
}

func TestEscapeSignsNothing(t *testing.T) {
	d := &desk{}
	q := newTestQueue(d, request("r-1", "DELETE FROM a"))
	if press(q, "a", "o", "k", "esc"); d.calls != 0 {
		t.Fatal("escape signed")
	}
	if !press(q, "q") {
		t.Error("q does not leave")
	}
}

func TestWhoMayNotAnswerIsToldWhy(t *testing.T) {
	d := &desk{}
	r := request("r-1", "DELETE FROM a")
	r.Status.MayAnswer, r.Status.WhyNot = false, "you asked for it"
	q := newTestQueue(d, r)
	press(q, "a")
	if !strings.Contains(q.View(), "you asked for it") {
		t.Errorf("got:\n%s", q.View())
	}
	if press(q, "enter"); d.calls != 0 {
		t.Fatal("signed all the same")
	}
}

func TestFailedAnswerIsShownAndCanBeRepeated(t *testing.T) {
	d := &desk{err: errors.New("the request has changed since")}
	q := newTestQueue(d, request("r-1", "DELETE FROM a"))
	press(q, "a", "enter")
	if !strings.Contains(q.View(), "has changed since") || q.current().Status.Phase != "pending" {
		t.Errorf("got:\n%s", q.View())
	}
}

// T75: what a statement holds cannot draw on an approver's screen.
func TestT75_StatementCannotSpeakToTheTerminal(t *testing.T) {
	evil := "DELETE FROM a -- \x1b[2J\x1b]52;c;aGk=\x07\u202e safe \u009b31m\u200b"
	q := newTestQueue(&desk{}, request("r-1", evil))
	view := q.View()
	for _, bad := range []string{"\x1b[2J", "\x1b]52", "\x07", "\u202e", "\u009b", "\u200b"} {
		if strings.Contains(view, bad) {
			t.Errorf("the screen holds %q", bad)
		}
	}
	if !strings.Contains(view, `\x1b]52`) || !strings.Contains(view, `\u202e`) {
		t.Errorf("what was hidden is not shown as escapes:\n%q", view)
	}
}

func TestHighlightChangesNoCharacter(t *testing.T) {
	for _, s := range []string{"", "SELECT 'it''s' FROM \"T\"", "UPDATE t SET a = 'unterminated", "é ≠ 'ö' -- x", "\"", "a1_b"} {
		plain := highlight(s)
		plain = strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "").Replace(plain)
		if plain != s {
			t.Errorf("%q became %q", s, plain)
		}
	}
}

func TestWaitingComesFirst(t *testing.T) {
	done := request("r-1", "DELETE FROM a")
	done.Status.Phase = "denied"
	q := newTestQueue(&desk{}, done, request("r-2", "DELETE FROM b"))
	if q.requests[0].Metadata.Name != "r-2" {
		t.Error("what was answered stands above what waits")
	}
}

func TestShowsWhatAChangeWouldChange(t *testing.T) {
	r := request("r-9", "policy/exports configured\n kind: Policy\n-  old rule\n+  new rule\x1b[2J\n")
	r.Spec.Kind, r.Spec.Target = "change", ""
	view := newTestQueue(&desk{}, r).View()
	for _, want := range []string{"policy/exports configured", "-  old rule", "+  new rule"} {
		if !strings.Contains(view, want) {
			t.Errorf("%q is not shown:\n%s", want, view)
		}
	}
	if strings.Contains(view, "\x1b[2J") {
		t.Error("a change speaks to the terminal")
	}
}
