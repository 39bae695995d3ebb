package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const exposurePolicy = `
kind: Classification
metadata: {name: c}
spec:
  targets: {names: [clinic]}
  columns:
    - {column: public.patients.ssn, tag: phi, mask: last4}
    - {column: public.patients.mrn, tag: phi}
    - {column: public.cards.pan, tag: pci}
---
kind: Clearance
metadata: {name: c}
spec: {groups: [clinicians], tags: [phi, pci]}
---
kind: Policy
metadata: {name: p}
spec:
  cedar: |
    @id("all") permit(principal, action in [Hoop::Action::"statement"], resource);
    @id("cleared") permit(principal, action == Hoop::Action::"viewUnmasked", resource) when { principal.clearances.contains(resource.tag) };
`

func compares(columns ...string) *Exposure {
	e := &Exposure{}
	for _, name := range columns {
		table, col, _ := strings.Cut(name, ".")
		e.Compared = append(e.Compared, Compared{Column: ColumnRef{"public", table, col}})
	}
	return e
}

// Equality with constants tells one thing at a time: it is let through, and
// counted for each tag apart.
func TestT42_EqualityIsUnderABudgetForEachTag(t *testing.T) {
	set := mustCompile(t, exposurePolicy)
	r := ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.patients"}})
	r.Statement.Exposure = compares("patients.ssn", "patients.mrn", "cards.pan")
	v := set.Decide(r)
	if v.Effect != Allow || len(v.Meters) != 2 || v.Meters[0].Rule != "house:mask-constants:phi" || v.Meters[1].Rule != "house:mask-constants:pci" || v.Meters[0].Amount != ConstantsPerTag {
		t.Fatalf("%+v", v)
	}
	all := [][]byte{Constant(ColumnRef{"public", "patients", "ssn"}, []byte("1")), Constant(ColumnRef{"public", "patients", "mrn"}, []byte("1")),
		Constant(ColumnRef{"public", "cards", "pan"}, []byte("1")), Constant(ColumnRef{"public", "patients", "zip"}, []byte("1"))}
	if n := fmt.Sprint(len(v.Meters[0].Of(all)), len(v.Meters[1].Of(all))); n != "2 1" || v.Meters[0].Fills() {
		t.Errorf("of the constants count %s", n)
	}
	r.Left = map[string]int64{"house:mask-constants:phi": 0}
	if v = set.Decide(r); v.Effect != Deny || v.Exhausted == nil || v.Rules[0] != "house:mask-constants:phi" || !strings.Contains(v.Reason, "phi") {
		t.Errorf("used up: %+v", v)
	}
	r.Statement.Exposure = compares("cards.pan")
	if v = set.Decide(r); v.Effect != Allow {
		t.Errorf("another tag: %+v", v)
	}
	r.Left, r.Principal.Groups = nil, append(slices.Clone(r.Principal.Groups), "clinicians")
	if v = set.Decide(r); v.Effect != Allow || len(v.Meters) != 0 {
		t.Errorf("the cleared are counted: %+v", v)
	}
}

// That a key is taken tells that its value is there.
func TestT42_KeysOfNewRowsAreUnderTheBudget(t *testing.T) {
	set := mustCompile(t, exposurePolicy)
	r := ask(Write, Facts{Kind: "INSERT", Tables: []string{"public.patients"}})
	r.Statement.Exposure = &Exposure{Filled: []ColumnRef{{"public", "patients", "ssn"}}}
	if v := set.Decide(r); v.Effect != Allow || len(v.Meters) != 1 || !v.Meters[0].Fills() || len(v.Meters[0].Of([][]byte{Constant(ColumnRef{"public", "patients", "ssn"}, nil)})) != 0 {
		t.Errorf("%+v", v)
	}
	r.Left = map[string]int64{"house:mask-constants:phi": 0}
	if v := set.Decide(r); v.Effect != Deny {
		t.Errorf("used up: %+v", v)
	}
}

func TestExhaustedConstantsMayBeApproved(t *testing.T) {
	set := mustCompile(t, exposurePolicy+`
---
kind: Policy
metadata: {name: q}
spec:
  cedar: |
    @id("mask-constants") @reason("look-ups by number") @approve("dba")
    forbid(principal, action == Hoop::Action::"read", resource) when { context.kind == "NEVER" } unless { context.approvals.contains("mask-constants/dba:1") };
`)
	r := ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.patients"}})
	r.Statement.Exposure, r.Left = compares("patients.ssn"), map[string]int64{"house:mask-constants:phi": 0}
	v := set.Decide(r)
	if v.Effect != Review || len(v.Cures) != 1 || v.Cures[0].Approval() != "mask-constants/dba:1" {
		t.Fatalf("%+v", v)
	}
	r.Approvals = []string{v.Cures[0].Approval()}
	if v = set.Decide(r); v.Effect != Allow {
		t.Errorf("approved: %+v", v)
	}
}

// Who sees everything whatever happens has nothing looked at for his sake.
func TestSeesAll(t *testing.T) {
	cleared := func(rule string) string {
		return strings.Replace(exposurePolicy, "principal.clearances.contains(resource.tag)", rule, 1)
	}
	for _, c := range []struct {
		policy string
		groups []string
		want   bool
	}{
		{exposurePolicy, []string{"clinicians"}, true},
		{exposurePolicy, []string{"engineers"}, false},
		{strings.Replace(exposurePolicy, "[phi, pci]", "[phi]", 1), []string{"clinicians"}, false},
		{cleared(`principal.clearances.contains(resource.tag) && context.via == "forward"`), []string{"clinicians"}, true},
		{cleared(`principal.clearances.contains(resource.tag) && context.kind == "SELECT"`), []string{"clinicians"}, false},
		{cleared(`principal.clearances.contains(resource.tag) && context.now < datetime("2030-01-01")`), []string{"clinicians"}, false},
		{cleared(`principal.clearances.contains(resource.tag) && !context.tables.contains("public.cards")`), []string{"clinicians"}, false},
		{cleared(`principal.clearances.contains(resource.tag) && context.approvals.contains("x/dba:1")`), []string{"clinicians"}, false},
	} {
		r := ask(Read, Facts{Kind: "SELECT"})
		r.Principal.Groups = c.groups
		rs, err := ParseResources("test.yaml", []byte(c.policy))
		if err != nil {
			continue // an approvals rule on a permit is refused before it could matter
		}
		set, err := Compile(rs)
		if err != nil {
			continue
		}
		if got := set.SeesAll(r); got != c.want {
			t.Errorf("%s in %v: %v", c.policy[strings.Index(c.policy, "@id(\"cleared\")"):], c.groups, got)
		}
	}
	if (*Set)(nil).SeesAll(ask(Read, Facts{})) {
		t.Error("without policies everything is seen")
	}
}
