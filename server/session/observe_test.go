package session

import (
	"context"
	"slices"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
)

// On an observed target everything runs, and what would have happened is on
// record; as the time is over, it is enforced in the same session.
func TestObservedForwardsAndSaysWhatWouldHaveBeen(t *testing.T) {
	ssn := policy.ColumnRef{Schema: "public", Table: "patients", Column: "ssn"}
	observed := true
	h := &house{tags: []policy.Tag{{Column: ssn, Tag: "phi", Mask: "last4"}}, decide: func(r policy.Request) policy.Verdict {
		switch r.Statement.Class {
		case policy.Schema:
			return policy.Verdict{Rules: []string{"no-ddl"}, Reason: "no"}
		case policy.Write:
			return reviewed(r)
		}
		return policy.Verdict{Effect: policy.Allow, Rules: []string{"ok"}, RowLimit: 2}
	}}
	s := open(t, h)
	s.cfg.Observed = func() bool { return observed }
	if len(s.Tags()) != 0 || s.Notice() == "" {
		t.Error("the protocol is not told that nothing is hidden")
	}
	read := statement("SELECT", policy.Read)
	read.Columns = []string{"public.patients.ssn"}
	batch := []policy.Statement{statement("DROP", policy.Schema), statement("DELETE", policy.Write), read}
	if err := s.Check(context.Background(), batch); err != nil {
		t.Fatal(err)
	}
	passes, err := s.Admit(context.Background(), batch, nil)
	if err != nil {
		t.Fatal(err)
	}
	if may := passes[2].Allowed(); may.Rows != Unlimited {
		t.Errorf("only %d rows may go", may.Rows)
	}
	passes[2].Done(Outcome{Rows: 5})
	want := []map[string]string{
		{AttrObserved: "true", AttrWould: "refuse", AttrWouldRules: "no-ddl"},
		{AttrObserved: "true", AttrWould: "hold", AttrWouldRules: "no-where"},
		{AttrObserved: "true", AttrWouldMask: "public.patients.ssn last4"},
		{AttrWould: "cut", AttrWouldRules: "ok", "rowLimit": "2"},
	}
	if len(h.attrs) != len(want) {
		t.Fatalf("%d leaves, want %d", len(h.attrs), len(want))
	}
	for i := range want {
		for k, v := range want[i] {
			if h.attrs[i][k] != v {
				t.Errorf("leaf %d: %s is %q, want %q", i, k, h.attrs[i][k], v)
			}
		}
	}
	if slices.ContainsFunc(h.log, func(l string) bool { return l == "ask no-where" }) {
		t.Error("people were asked")
	}
	observed = false
	_, err = s.Admit(context.Background(), batch[:1], nil)
	refused(t, err)
	if len(s.Tags()) == 0 || s.Notice() != "" {
		t.Error("it is not enforced again")
	}
}
