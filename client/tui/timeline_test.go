package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
)

func newTestTimeline(entries ...Entry) *timeline {
	t := newTimeline("session s-7", true)
	t.Update(tea.WindowSizeMsg{Width: 80, Height: 10})
	for _, e := range entries {
		t.Update(told{entry: e})
	}
	t.Update(ended{})
	return t
}

func keys(t *timeline, names ...string) (quit bool) {
	for _, k := range names {
		msg := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
		if k == "enter" {
			msg = tea.KeyMsg{Type: tea.KeyEnter}
		}
		_, cmd := t.Update(msg)
		if cmd != nil {
			_, quit = cmd().(tea.QuitMsg)
		}
	}
	return quit
}

func day(n int) (entries []Entry) {
	for i := range n {
		at := time.Date(2026, 11, 23, 8, i, 0, 0, time.Local)
		entries = append(entries, Entry{Time: at, Line: fmt.Sprintf("#%d allow: select %d", i, i), Body: fmt.Sprintf("result of %d", i), Statement: i%3 == 0})
	}
	return entries
}

// TestTimelineIsReadWithKeys: entries open, search and jumps find, and what is
// looked at is on the screen.
func TestTimelineIsReadWithKeys(t *testing.T) {
	l := newTestTimeline(day(30)...)
	see := func(words string) {
		t.Helper()
		if !strings.Contains(l.View(), words) {
			t.Errorf("%q is not on the screen:\n%s", words, l.View())
		}
	}
	see("#0 allow")
	keys(l, "enter")
	see("result of 0")
	keys(l, "enter", "]")
	see("#3 allow")
	keys(l, "/", "result of 22", "enter")
	see("#22 allow")
	see("result of 22") // found behind the line
	keys(l, "g", "08:05", "enter")
	see("#5 allow")
	keys(l, "/", "nowhere", "enter")
	see("is not in it")
	keys(l, "G")
	see("#29 allow")
	keys(l, "g", "25 o'clock", "enter")
	see("no time of day")
	l.Update(Proof{Text: "TAMPERED: leaf 7", Bad: true})
	see("TAMPERED: leaf 7")
	if !keys(l, "q") {
		t.Error("q does not leave")
	}
	if n := strings.Count(l.View(), "\n"); n > 10 {
		t.Errorf("%d lines on a screen of 10", n)
	}
}

func TestAnEmptyTimelineTakesKeys(t *testing.T) {
	l := newTestTimeline()
	keys(l, "enter", "]", "[", "/", "x", "enter", "n", "G", "<", " ", "g", "08:00", "enter")
	l.Update(told{err: fmt.Errorf("gone")})
	if !strings.Contains(l.View(), "gone") {
		t.Error(l.View())
	}
}

// TestT75_ATimelineCannotSpeakToTheTerminal: neither events nor results, nor the
// title, nor what a failure says.
func TestT75_ATimelineCannotSpeakToTheTerminal(t *testing.T) {
	evil := "\x1b]52;c;ZXZpbA==\x07\x1b[2J\u202e\u009b31mred\rback"
	l := newTestTimeline(Entry{Time: noon, Line: evil, Body: evil + "\n" + evil})
	l.title = evil
	l.Update(Proof{Text: evil})
	keys(l, "enter")
	l.Update(told{err: fmt.Errorf("%s", evil)})
	view := l.View()
	for _, bad := range []string{"\x1b]", "\x1b[2J", "\u202e", "\u009b", "\r", "\x07"} {
		if strings.Contains(view, bad) {
			t.Errorf("T75 %q reaches the terminal", bad)
		}
	}
}
