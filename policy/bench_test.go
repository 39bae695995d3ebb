package policy

import (
	"fmt"
	"strings"
	"testing"
)

// manyRules are n policies as an organisation has them: most for a group and a
// label of their own, a few that hold everywhere.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("kind: Policy\nmetadata: {name: many}\nspec:\n  cedar: |\n")
	for i := range n - 4 {
		switch i % 4 {
		case 0, 1:
			fmt.Fprintf(&b, "    @id(\"p%d\") permit(principal in Hoop::Group::\"team%d\", action in [Hoop::Action::\"connect\", Hoop::Action::\"read\", Hoop::Action::\"write\"], resource in Hoop::Label::\"app=a%d\");\n", i, i%50, i%97)
		case 2:
			fmt.Fprintf(&b, "    @id(\"p%d\") forbid(principal, action == Hoop::Action::\"read\", resource in Hoop::Label::\"app=a%d\") when { context.tables.contains(\"public.t%d\") };\n", i, i%97, i)
		case 3:
			fmt.Fprintf(&b, "    @id(\"p%d\") @approve(\"dba\") forbid(principal in Hoop::Group::\"team%d\", action == Hoop::Action::\"write\", resource) when { !context.hasWhere } unless { context.approvals.contains(\"p%d/dba:1\") };\n", i, i%50, i)
		}
	}
	b.WriteString(`
    @id("view") permit(principal, action == Hoop::Action::"viewUnmasked", resource);
    @id("phi") forbid(principal, action == Hoop::Action::"viewUnmasked", resource) when { resource.tag == "phi" } unless { principal.clearances.contains("phi") };
    @id("eng") permit(principal in Hoop::Group::"engineers", action in [Hoop::Action::"connect", Hoop::Action::"read", Hoop::Action::"write"], resource in Hoop::Label::"env=dev");
    @id("bulk") @row_limit("200") @approve("approvers") forbid(principal, action == Hoop::Action::"read", resource)
      when { context.tables.contains("public.patients") }
      unless { context.approvals.contains("bulk/approvers:1") || (context has rowLimit && context.rowLimit <= 200) };
`)
	return b.String()
}

func benchRequest() Request {
	r := ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.visits", "public.claims"}, Columns: []string{"public.visits.id", "public.claims.amount"}})
	r.Principal.Groups = []string{"engineers", "team1", "team7"}
	r.Target.Labels = map[string]string{"env": "dev", "data": "phi", "app": "a3"}
	return r
}

// BenchmarkDecide is a cold decision: nothing is remembered from one to the
// next. The row-limited one decides twice and looks ahead.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{5, 100, 1000} {
		set := mustCompile(b, manyRules(n))
		plain, limited := benchRequest(), benchRequest()
		limited.Statement.Facts.Tables = []string{"public.patients"}
		for name, r := range map[string]Request{"plain": plain, "limited": limited} {
			if v := set.Decide(r); v.Effect != Allow {
				b.Fatalf("%+v", v)
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					set.Decide(r)
				}
			})
		}
		b.Run(fmt.Sprintf("prebuilt/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			q, _ := set.ask(&plain)
			for b.Loop() {
				q.evaluate()
			}
		})
		b.Run(fmt.Sprintf("show/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Show(plain, Tag{Column: ColumnRef{"public", "patients", "ssn"}, Tag: "phi", Mask: "last4"})
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	rs := mustParse(b, "x.yaml", []byte(manyRules(1000)))
	for b.Loop() {
		if _, err := Compile(rs); err != nil {
			b.Fatal(err)
		}
	}
}

// The index is what keeps a decision from looking at every rule.
func TestScopeIndex(t *testing.T) {
	set := mustCompile(t, manyRules(1000))
	r := benchRequest()
	q, _ := set.ask(&r)
	if n := len(q.permits) + len(q.forbids); n == 0 || n > 40 {
		t.Errorf("%d of 1000 rules are looked at", n)
	}
	// It must find whatever a scan of all rules finds.
	for _, r := range []Request{benchRequest(), ask(Write, Facts{Kind: "UPDATE"}), ask(Schema, Facts{Kind: "DROP"}), {Principal: alice(), Action: Connect, Target: clinicRef()}} {
		q, _ := set.ask(&r)
		got := q.run(attrAll &^ attrRowLimit)
		q.permits, q.forbids = nil, nil
		for _, rule := range set.rules {
			if rule.forbid {
				q.forbids = append(q.forbids, rule)
			} else {
				q.permits = append(q.permits, rule)
			}
		}
		want := q.run(attrAll &^ attrRowLimit)
		if fmt.Sprint(ids(got.permits, got.forbids)) != fmt.Sprint(ids(want.permits, want.forbids)) || len(want.permits)+len(want.forbids) == 0 && r.Action != Action(Schema) {
			t.Errorf("%s: by the index %v, by a scan %v", r.Action, ids(got.permits, got.forbids), ids(want.permits, want.forbids))
		}
	}
}
