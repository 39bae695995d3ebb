package approval_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
)

// Where an answer may be given is judged by where it was given: not by where
// its statement runs, and not by where somebody looks at it.
func TestT36_AnswersCountFromWhereTheyWereGiven(t *testing.T) {
	alice, bob := newPerson(t, "alice", "engineers"), newPerson(t, "bob", "dba")
	office := netip.MustParsePrefix("10.0.0.0/8")
	from := func(a string) context.Context { return approval.WithSource(t.Context(), netip.MustParseAddr(a)) }
	h := newHouse(t, alice, bob)
	h.config = func(c *approval.Config) {
		group := c.MayAnswer
		c.MayAnswer = func(ctx context.Context, who policy.Principal, r *api.Request, cure api.Cure) error {
			if !office.Contains(approval.Source(ctx)) {
				return errors.New("approve from the office")
			}
			return group(ctx, who, r, cure)
		}
	}
	h.restart()
	r := h.opened(statement(alice, "DELETE FROM visits", cure("no-where", "dba", 1)))
	answer := func(from context.Context) (api.Request, error) {
		a := api.Answer{Approve: true, Digest: r.Spec.Digest}
		if err := a.Sign(r.Metadata.Name, bob.key); err != nil {
			t.Fatal(err)
		}
		return h.Answer(from, bob.Principal, bob.cert, r.Metadata.Name, a)
	}
	if seen, err := h.Get(from("203.0.113.7"), bob.Principal, r.Metadata.Name, false); err == nil && seen.Status.MayAnswer {
		t.Error("it looks as if bob could answer from elsewhere")
	}
	if _, err := answer(from("203.0.113.7")); reason(err) != api.ReasonDenied {
		t.Fatalf("an answer from elsewhere: %v", err)
	}
	got, err := answer(from("10.1.2.3"))
	if err != nil || got.Status.Answers[0].Source != "10.1.2.3" {
		t.Fatalf("%+v, %v", got.Status, err)
	}
	if _, err := h.Use(from("203.0.113.7"), r.Metadata.Name, r.Spec.Digest, ""); err != nil {
		t.Errorf("the place of who asked was taken for the approver's: %v", err)
	}
}
