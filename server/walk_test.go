package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// TestWalk is docs/walk.md: psql through everything to PostgreSQL and back.
func TestWalk(t *testing.T) {
	h := newHouse(t)
	alice := h.as("alice")
	f := h.connect(alice, "alice")
	for _, c := range []struct{ name, sql, want, not string }{
		{name: "rows", sql: "SELECT id, diagnosis FROM patients WHERE id = 7", want: "7|E11.9"},
		{name: "masked", sql: "SELECT ssn FROM patients WHERE id = 7", want: "1007", not: "107-08-1007"},
		{name: "refused", sql: "DROP TABLE visits", want: "42501"},
		{name: "target's own error", sql: "SELECT nope FROM patients", want: "42703"},
		{name: "syntax", sql: "SELEC 1", want: "42601"},
		{name: "write", sql: "UPDATE patients SET diagnosis = '94111' WHERE id = 7", want: "UPDATE 1"},
		{name: "several", sql: "SELECT 1; SELECT 2", want: "1\n2"},
		{name: "transaction", sql: "BEGIN; UPDATE patients SET diagnosis = '0' WHERE id = 8; ROLLBACK", want: "ROLLBACK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _ := f.psql(t, c.sql)
			if !strings.Contains(out, c.want) || c.not != "" && strings.Contains(out, c.not) {
				t.Errorf("%s\ngot:\n%s\nwant %q, not %q", c.sql, out, c.want, c.not)
			}
		})
	}
	t.Run("evidence", func(t *testing.T) {
		dave := h.as("dave")
		events, err := dave.Events(t.Context(), api.EventQuery{Principal: "alice", Target: "clinic", Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		for _, e := range events {
			kinds[e.Kind]++
			if strings.Contains(e.Statement, "94111") || strings.Contains(e.Statement, "1007") {
				t.Errorf("a literal stands in the timeline: %q", e.Statement)
			}
		}
		for _, k := range []string{api.EventGrant, api.EventSessionOpen, api.EventStatement, api.EventOutcome, api.EventSessionClose} {
			if kinds[k] == 0 {
				t.Errorf("no %s leaf; got %v", k, kinds)
			}
		}
	})
}

func TestHeldStatementRunsWhenApproved(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.as("alice"), h.as("bob")
	f := h.connect(alice, "alice")
	type result struct {
		out  string
		code int
	}
	done := make(chan result, 1)
	go func() {
		out, code := f.psql(t, "UPDATE patients SET diagnosis = 'I10'")
		done <- result{out, code}
	}()
	r := awaitRequest(t, h)
	if r.Spec.Statement != "UPDATE patients SET diagnosis = 'I10'" {
		t.Errorf("the approver sees %q", r.Spec.Statement)
	}
	if _, err := alice.Answer(t.Context(), mustRequest(t, h, "alice", r.Metadata.Name), true, "me"); err == nil {
		t.Fatal("alice answered her own request")
	}
	if _, err := bob.Answer(t.Context(), r, true, "ticket checked"); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-done:
		if got.code != 0 || !strings.Contains(got.out, "UPDATE 1000") || !strings.Contains(got.out, r.Metadata.Name) {
			t.Errorf("psql: %d\n%s", got.code, got.out)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the approved statement did not run")
	}
}

// awaitRequest waits until bob sees a pending request.
func awaitRequest(t *testing.T, h *house) api.Request {
	t.Helper()
	for change, err := range h.client("bob").WatchRequests(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if change.Item.Status.Phase == "pending" {
			return change.Item
		}
	}
	t.Fatal("no request came")
	return api.Request{}
}

// awaitEvent follows the evidence, as an auditor does, until an event is there.
func awaitEvent(t *testing.T, h *house, want func(api.Event) bool) {
	t.Helper()
	for change, err := range h.as("dave").WatchEvents(t.Context(), api.EventQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if want(change.Item) {
			return
		}
	}
}

func mustRequest(t *testing.T, h *house, user, name string) api.Request {
	t.Helper()
	r, err := h.client(user).Request(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRevokedGrantEndsLiveSessions(t *testing.T) {
	h := newHouse(t)
	alice, erin := h.as("alice"), h.as("erin")
	f := h.connect(alice, "alice")
	done := make(chan string, 1)
	go func() {
		out, _ := f.psql(t, "SELECT pg_sleep(60)")
		done <- out
	}()
	awaitEvent(t, h, func(e api.Event) bool {
		return e.Kind == api.EventStatement && strings.Contains(e.Statement, "pg_sleep")
	})
	revoked, err := erin.RevokeGrant(t.Context(), f.grant, "audit")
	if err != nil {
		t.Fatal(err)
	}
	if len(revoked.Sessions) == 0 {
		t.Errorf("nothing was broken: %+v", revoked)
	}
	select {
	case out := <-done:
		if !strings.Contains(out, "57P01") || !strings.Contains(out, "was revoked by erin") {
			t.Errorf("psql was told:\n%s", out)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the session lives 5 s after its grant was revoked")
	}
	if out, code := f.psql(t, "SELECT 1"); code == 0 {
		t.Errorf("a revoked grant opens sessions: %s", out)
	}
}

func TestNativeEndpointServesAnUnmodifiedDriver(t *testing.T) {
	h := newHouse(t)
	alice := h.as("alice")
	secret, err := alice.Secret(t.Context(), api.SecretRequest{Target: "clinic", Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := psql(t, h.pg, secret.URL, "SELECT id, ssn FROM patients WHERE id = 7"); !strings.HasPrefix(out, "7|") || strings.Contains(out, "107-08-1007") {
		t.Errorf("got %s", out)
	}
	if out, _ := psql(t, h.pg, strings.Replace(secret.URL, secret.Password, "wrong", 1), "SELECT 1"); !strings.Contains(out, "wrong secret") {
		t.Errorf("a wrong secret: %s", out)
	}
	psql(t, h.pg, secret.URL, "SELECT 1")
	if out, code := psql(t, h.pg, secret.URL, "SELECT 1"); code == 0 {
		t.Errorf("a third connection with a secret for two: %s", out)
	}
}

func TestReasonThatHoldsAnIdentifierIsRefused(t *testing.T) {
	h := newHouse(t)
	_, err := h.as("alice").RequestGrant(t.Context(), api.GrantRequest{Target: "clinic", Reason: "look at 512-47-8366"})
	if err == nil || !strings.Contains(err.Error(), "identifier (ssn)") {
		t.Errorf("got %v", err)
	}
}

func TestLogoutEndsTheLoginAndItsSessions(t *testing.T) {
	h := newHouse(t)
	alice := h.as("alice")
	held := h.hold("alice")
	if err := alice.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client("alice").Whoami(t.Context()); err == nil {
		t.Error("the login works after logout")
	}
	erin := h.as("erin")
	for change, err := range erin.WatchSessions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if s := change.Item; s.Metadata.Name == held.session && s.Status.Phase == "closed" {
			return
		}
	}
}
