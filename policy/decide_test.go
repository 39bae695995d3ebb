package policy

import (
	"net/netip"
	"testing"
	"time"
)

const testPolicies = `
kind: Target
metadata: {name: clinic, labels: {env: dev, data: phi}}
spec: {protocol: postgres, address: "127.0.0.1:5432", database: clinic, credentials: {username: app, passwordFrom: {env: PW}}}
---
kind: Classification
metadata: {name: phi}
spec:
  targets: {matchLabels: {data: phi}}
  columns:
    - {column: public.patients.ssn, tag: phi, mask: last4}
    - {column: public.patients.name, tag: phi}
    - {column: public.patients.diagnosis, tag: none}
---
kind: Clearance
metadata: {name: clinicians}
spec: {groups: [clinicians], tags: [phi], purposes: [TREAT]}
---
kind: Policy
metadata: {name: p}
spec:
  cedar: |
    @id("engineers") permit(principal in Hoop::Group::"engineers", action in [Hoop::Action::"connect", Hoop::Action::"read", Hoop::Action::"write"], resource in Hoop::Label::"env=dev");
    @id("no-where") @reason("touches every row") @approve("dba") @quorum("2") @expires("15m")
    forbid(principal, action == Hoop::Action::"write", resource)
      when { ["DELETE","UPDATE"].contains(context.kind) && !context.hasWhere }
      unless { context.approvals.contains("no-where/dba:2") };
    @id("bulk-phi") @row_limit("200") @approve("approvers")
    forbid(principal, action in [Hoop::Action::"read", Hoop::Action::"export"], resource)
      when { context.aggregatesTagged || context.tables.contains("public.patients") }
      unless { context.approvals.contains("bulk-phi/approvers:1") || (!context.aggregatesTagged && context has rowLimit && context.rowLimit <= 200) };
    @id("view") permit(principal, action == Hoop::Action::"viewUnmasked", resource);
    @id("phi") @mask("redact") forbid(principal, action == Hoop::Action::"viewUnmasked", resource) when { resource.tag == "phi" } unless { principal.clearances.contains("phi") };
`

func mustCompile(t testing.TB, texts ...string) *Set {
	t.Helper()
	var all []Resource
	for _, text := range texts {
		rs, err := ParseResources("test.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rs...)
	}
	s, err := Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func alice() Principal {
	return Principal{Kind: User, Issuer: "dev", Subject: "1", Name: "alice", Groups: []string{"engineers"}}
}

func ask(class Class, f Facts) Request {
	f.Class = class
	return Request{Principal: alice(), Action: Action(class), Target: TargetRef{Name: "clinic", Protocol: "postgres", Labels: map[string]string{"env": "dev", "data": "phi"}},
		Statement: &Statement{Facts: &f, Statements: 1}, Now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), SourceIP: netip.MustParseAddr("127.0.0.1"), Via: "forward"}
}

func TestSmoke(t *testing.T) {
	s := mustCompile(t, testPolicies)
	t.Logf("%+v", s.Decide(ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.visits"}})))
	t.Logf("%+v", s.Decide(ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.patients"}})))
	t.Logf("%+v", s.Decide(ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.patients"}, Aggregates: true, Columns: []string{"public.patients.ssn"}})))
	t.Logf("%+v", s.Decide(ask(Write, Facts{Kind: "UPDATE"})))
	r := ask(Write, Facts{Kind: "UPDATE"})
	r.Approvals = []string{"no-where/dba:2"}
	t.Logf("%+v", s.Decide(r))
	t.Logf("%+v", s.Decide(ask(Schema, Facts{Kind: "DROP TABLE"})))
	for _, tag := range s.Tags(r.Target) {
		t.Logf("%+v %+v", tag, s.Show(r, tag))
	}
	t.Logf("%+v", s.Grant(r))
	t.Logf("%+v", s.Decide(Request{}))
}
