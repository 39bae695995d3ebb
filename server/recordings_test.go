package server_test

import (
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// TestT78_ShreddingTakesTwoPeople: one who may change resources asks, another
// one who may read the evidence agrees; a legal hold keeps everything; retention
// ends what is older; and what is gone opens for no auditor.
func TestT78_ShreddingTakesTwoPeople(t *testing.T) {
	h := newHouse(t)
	alice, erin, dave := h.as("alice"), h.as("erin"), h.as("dave")
	f := h.connect(alice, "alice")
	f.psql(t, "SELECT diagnosis FROM patients WHERE id = 7")
	f.psql(t, "SELECT diagnosis FROM patients WHERE id = 8")
	first, second := closedSession(t, h, "s-1"), closedSession(t, h, "s-2")
	if !replayed(t, h, first) {
		t.Fatal("the auditor cannot read the session")
	}
	refused := func(err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("T78 got %v, want an error that says %q", err, words)
		}
	}
	_, err := dave.Shred(t.Context(), first, "I want it")
	refused(err, "may not")
	_, err = erin.Shred(t.Context(), first, "")
	refused(err, "reason")
	_, err = erin.Shred(t.Context(), "nope", "why not")
	refused(err, "not found")
	asked, err := erin.Shred(t.Context(), first, "the contract ended")
	if err != nil || asked.Agreed != "" {
		t.Fatal(asked, err)
	}
	if asked, err = erin.Shred(t.Context(), first, "the contract ended"); err != nil || asked.Agreed != "" {
		t.Errorf("T78 one person alone shreds: %+v, %v", asked, err)
	}
	_, err = alice.Shred(t.Context(), first, "")
	refused(err, "may not")

	hold := api.File{Name: "hold.yaml", Content: "kind: LegalHold\nmetadata: {name: case-7}\nspec: {sessions: [" + first + ", " + second + "], reason: a court asked}\n"}
	if _, err := erin.Apply(t.Context(), api.Apply{Files: []api.File{hold}}); err != nil {
		t.Fatal(err)
	}
	_, err = dave.Shred(t.Context(), first, "")
	refused(err, "legal hold case-7")
	if !replayed(t, h, first) {
		t.Error("T78 a recording under a legal hold is gone")
	}
	if _, err := erin.DeleteResource(t.Context(), "LegalHold", "case-7", "the case is closed"); err != nil {
		t.Fatal(err)
	}
	if done, err := dave.Shred(t.Context(), first, ""); err != nil || done.Agreed == "" {
		t.Fatal(done, err)
	}
	if replayed(t, h, first) || !replayed(t, h, second) {
		t.Error("T78 not the one recording is gone")
	}
	leaves, err := dave.Events(t.Context(), api.EventQuery{Session: first, Kind: []string{api.EventShredded}})
	if err != nil || len(leaves) != 1 || leaves[0].Name != "erin" || len(leaves[0].Approvals) != 1 || strings.Contains(leaves[0].Reason, "contract") {
		t.Errorf("T78 the leaf says %+v, %v", leaves, err)
	}
	_, err = erin.Shred(t.Context(), first, "again")
	refused(err, "shredded before")

	if err := h.stop(); err != nil { // retention is looked at when a server starts
		t.Fatal(err)
	}
	h.adjust = func(c *server.Config) { c.Evidence.Retention.Recordings = "1ms" }
	h.start()
	dave = h.as("dave")
	for {
		leaves, err := dave.Events(t.Context(), api.EventQuery{Session: second, Kind: []string{api.EventShredded}})
		if err != nil {
			t.Fatal(err)
		}
		if len(leaves) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// closedSession waits until a session's close is in the evidence.
func closedSession(t *testing.T, h *house, name string) string {
	t.Helper()
	dave := h.client("dave")
	for {
		closed, err := dave.Events(t.Context(), api.EventQuery{Session: name, Kind: []string{api.EventSessionClose}})
		if err != nil {
			t.Fatal(err)
		}
		if len(closed) > 0 {
			return name
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// replayed reports whether the auditor still reads a session's statements.
func replayed(t *testing.T, h *house, session string) bool {
	t.Helper()
	open := false
	err := evidence.ReadSession(t.Context(), evidence.Folder(h.config().Evidence.Dir), session, []age.Identity{h.auditor}, func(it evidence.Item) error {
		open = open || it.Statement != nil && strings.Contains(it.Statement.Text, "diagnosis")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return open
}
