package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseBudget(t *testing.T) {
	for text, want := range map[string]Budget{
		"1000 rows per hour":             {Unit: UnitRows, Amount: 1000, Per: time.Hour},
		"50 MB per day":                  {Unit: UnitBytes, Amount: 50e6, Per: 24 * time.Hour},
		"1 bytes per minute":             {Unit: UnitBytes, Amount: 1, Per: time.Minute},
		"7 statements  per hour":         {Unit: UnitStatements, Amount: 7, Per: time.Hour},
		"20 constants per hour":          {Unit: UnitConstants, Amount: 20, Per: time.Hour},
		"1000000000000000 rows per hour": {Unit: UnitRows, Amount: 1e15, Per: time.Hour},
	} {
		if got, err := parseBudget(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1000", "1000 rows", "0 rows per hour", "-1 rows per hour", "01 rows per hour", "1e3 rows per hour", "5 cells per hour",
		"5 rows per week", "5 rows each hour", "1000000000000001 rows per hour", "9999999 GB per hour", "5 rows per hour per day"} {
		if b, err := parseBudget(text); err == nil {
			t.Errorf("%q is taken for %+v", text, b)
		}
	}
}

const budgetPolicy = `
kind: Policy
metadata: {name: p}
spec:
  cedar: |
    @id("all") permit(principal, action, resource);
    @id("hourly") @reason("bulk reads go through the data team") @budget("100 rows per hour")
    forbid(principal, action == Hoop::Action::"read", resource)
      when { context.tables.contains("public.patients") }
      unless { context has budget && context.budget > 0 };
    @id("asked") @budget("5 statements per day") @approve("dba")
    forbid(principal, action == Hoop::Action::"write", resource)
      unless { context.approvals.contains("asked/dba:1") || (context has budget && context.budget > 0) };
`

func TestBudget(t *testing.T) {
	set := mustCompile(t, budgetPolicy)
	meters := func(v Verdict) (out []string) {
		for _, b := range v.Meters {
			out = append(out, b.Rule+": "+b.String())
		}
		return out
	}
	read := ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.patients"}})
	v := set.Decide(read)
	if v.Effect != Allow || !v.Cacheable || !slices.Equal(meters(v), []string{"hourly: 100 rows per hour"}) || !slices.Contains(v.Rules, "hourly") {
		t.Errorf("with a whole budget: %+v", v)
	}
	read.Left = map[string]int64{"hourly": 0}
	v = set.Decide(read)
	if v.Effect != Deny || v.Cacheable || v.Exhausted == nil || v.Exhausted.Rule != "hourly" || v.Rules[0] != "hourly" || !strings.Contains(v.Reason, "the data team") {
		t.Errorf("with nothing left: %+v", v)
	}
	other := ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.visits"}})
	other.Left = read.Left
	if v := set.Decide(other); v.Effect != Allow || len(v.Meters) != 0 {
		t.Errorf("a statement that the budget is not about: %+v", v)
	}
}

// People are an alternative to a budget: once they have agreed, the statement
// is not counted at all.
func TestBudgetOrApproval(t *testing.T) {
	set := mustCompile(t, budgetPolicy)
	write := ask(Write, Facts{Kind: "UPDATE", HasWhere: true})
	if v := set.Decide(write); v.Effect != Allow || len(v.Meters) != 1 || len(v.Cures) != 0 {
		t.Errorf("with a whole budget: %+v", v)
	}
	write.Left = map[string]int64{"asked": 0}
	v := set.Decide(write)
	if v.Effect != Review || len(v.Cures) != 1 || v.Cures[0].Approval() != "asked/dba:1" || len(v.Meters) != 0 {
		t.Errorf("with nothing left: %+v", v)
	}
	write.Approvals = []string{"asked/dba:1"}
	if v := set.Decide(write); v.Effect != Allow || len(v.Meters) != 0 {
		t.Errorf("after approval: %+v", v)
	}
}
