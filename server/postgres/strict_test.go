package postgres

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// In strict evidence a window waits for the disk while the next is read; the
// order of bytes is that of the target.
func TestStrictPipelinesWindows(t *testing.T) {
	var mu sync.Mutex
	waiting, most := 0, 0
	gate := &sessiontest.Gate{Strict: true, Durable: func(context.Context, session.Ticket) error {
		mu.Lock()
		waiting++
		most = max(most, waiting)
		mu.Unlock()
		time.Sleep(time.Millisecond) // a disk
		mu.Lock()
		waiting--
		mu.Unlock()
		return nil
	}}
	h := newHouse(t, gate)
	pg := h.connect()
	for range 3 {
		results, err := pg.Exec(t.Context(), "SELECT n, repeat('x', 50) FROM generate_series(1, 50000) n; SELECT 'end'").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range results[0].Rows {
			if want := i + 1; string(row[0]) != itoa(want) {
				t.Fatalf("row %d is %s", want, row[0])
			}
		}
		if len(results[0].Rows) != 50000 || string(results[1].Rows[0][0]) != "end" {
			t.Fatal("rows are missing")
		}
	}
	var recorded int
	for _, e := range gate.Events() {
		if e.What == "record" {
			recorded += len(e.Bytes)
		}
	}
	if recorded < 3*50000*60 {
		t.Errorf("%d bytes recorded", recorded)
	}
	if most > 1 {
		t.Errorf("%d windows wait at once: they must be released in order", most)
	}
}

func itoa(n int) string {
	var b [8]byte
	i := len(b)
	for ; n > 0; n /= 10 {
		i--
		b[i] = byte('0' + n%10)
	}
	return string(b[i:])
}

// Evidence that fails ends the session; what was not durable is not shown.
func TestT71_EvidenceFailsInMidStream(t *testing.T) {
	var waits int
	var mu sync.Mutex
	gate := &sessiontest.Gate{Strict: true, Durable: func(context.Context, session.Ticket) error {
		mu.Lock()
		defer mu.Unlock()
		if waits++; waits > 3 {
			return &session.Refusal{Code: session.CodeEvidence, Message: "evidence unavailable", Fatal: true}
		}
		return nil
	}}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(query("SELECT n, repeat('x', 500) FROM generate_series(1, 100000) n"))
	got := w.closed()
	if len(got) == 0 || got[len(got)-1] != "E58030" {
		t.Errorf("the client was told %q", got[max(0, len(got)-2):])
	}
	for _, g := range got {
		if strings.HasPrefix(g, "C") || strings.HasPrefix(g, "Z") {
			t.Errorf("the answer came to its end: %q", g)
		}
	}
}

// A statement's leaf is there before its bytes are, its outcome before the
// client learns that it completed.
func TestOrderOfEvidence(t *testing.T) {
	gate := &sessiontest.Gate{Strict: true}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(parse("", "SELECT 1"), bind("", ""), execute("", 0), parse("", "SELECT 2"), bind("", ""), execute("", 0), syncMessage)
	w.until("Z")
	w.send(&pgproto3.Terminate{})
	w.closed()
	got := gate.Summary()
	for _, order := range [][]string{{"check(SELECT 1)", "admit(SELECT 1)", "record(SELECT 1)", "done(SELECT 1)"}, {"check(SELECT 2)", "admit(SELECT 2)", "record(SELECT 2)", "done(SELECT 2)"}} {
		at := -1
		for _, what := range order {
			next := strings.Index(got, what)
			if next <= at {
				t.Fatalf("%s is not in its place in %s", what, got)
			}
			at = next
		}
	}
	if strings.Index(got, "wait") < strings.Index(got, "done(SELECT 1)") {
		t.Errorf("released before the outcome was recorded: %s", got)
	}
}
