package postgres

import (
	"testing"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// LISTEN, NOTIFY and pg_notify carry words from one grant's session to another's:
// each is told from a read, so that policy can refuse it, what comes is on
// record, and where columns are hidden it comes without its words.
func TestT24_NotificationsBetweenSessions(t *testing.T) {
	reading := &sessiontest.Gate{Deny: func(s policy.Statement) *session.Refusal {
		if s.Class == policy.Read {
			return nil
		}
		return &session.Refusal{Code: session.CodePolicy, Message: "reads only"}
	}}
	w := newHouse(t, reading).wire()
	for _, text := range []string{"LISTEN ch", "NOTIFY ch, 'words'", "SELECT pg_notify('ch', 'words')", "SELECT 1 WHERE pg_notify('ch', 'x') IS NULL"} {
		w.send(query(text))
		w.expect("Z", "E42501", "ZI")
		w.send(parse("", text), bind("", ""), execute("", 0), syncMessage)
		w.expect("Z", "E42501", "ZI")
	}
	hears := func(h *house, gate *sessiontest.Gate, want string) {
		w := h.wire()
		w.send(query("LISTEN ch"))
		w.until("Z")
		h.target.server.Exec(t, h.target.info.Database, "NOTIFY ch, 'words'")
		w.expect("A", want)
		noted := false
		for _, e := range gate.Events() {
			noted = noted || e.What == "aside" && e.Kind == "notification"
		}
		if !noted {
			t.Error("what came is not on record")
		}
	}
	open := &sessiontest.Gate{}
	hears(newHouse(t, open), open, "A:ch=words")
	h, gate := taggedHouse(t)
	hears(h, gate, "A:ch=")
}
