package session

import (
	"fmt"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// A session says what it hid, by which rule and why, summed over its statements.
func TestASessionSumsWhatItHid(t *testing.T) {
	s := open(t, &house{decide: allow})
	ssn := MaskedColumn{ColumnPlan: ColumnPlan{Method: "last4", Tag: "phi", Rule: "phi", Source: "public.patients.ssn", Why: "identity"}, Name: "ssn", Cells: 3}
	note := MaskedColumn{ColumnPlan: ColumnPlan{Method: "redact", Tag: policy.Detected, Rule: ruleDetect, Why: "scan"}, Name: "note", Cells: 1}
	for range 2 {
		if _, err := admitOne(t, s).Done(Outcome{Rows: 3, Masked: []MaskedColumn{ssn, note}}); err != nil {
			t.Fatal(err)
		}
	}
	got := s.Status().Status.MaskedColumns
	if len(got) != 2 || got[0] != (api.MaskedColumn{Column: "ssn", Source: "public.patients.ssn", Tag: "phi", Method: "last4", Rule: "phi", Why: "identity", Cells: 6}) || got[1].Cells != 2 {
		t.Errorf("%+v", got)
	}
	for i := range 2 * maxMasked {
		s.hidden.add([]api.MaskedColumn{{Column: fmt.Sprint(i), Cells: 1}})
	}
	if got := s.hidden.list(); len(got) > maxMasked+1 {
		t.Errorf("%d columns are kept apart", len(got))
	}
}
