package policy

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// readTestdata returns a file of the repository's testdata/policy.
func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "policy", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustParse(t testing.TB, file string, content []byte) []Resource {
	t.Helper()
	rs, err := ParseResources(file, content)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func mustCompile(t testing.TB, texts ...string) *Set {
	t.Helper()
	var all []Resource
	for _, text := range texts {
		all = append(all, mustParse(t, "test.yaml", []byte(text))...)
	}
	s, err := Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func clinicSet(t testing.TB) *Set {
	t.Helper()
	return mustCompile(t, string(readTestdata(t, "clinic.yaml")))
}

func alice() Principal {
	return Principal{Kind: User, Issuer: "test", Subject: "alice", Name: "alice", Groups: []string{"engineers"}}
}

func clinicRef() TargetRef {
	return TargetRef{Name: "clinic", Protocol: "postgres", Labels: map[string]string{"env": "dev", "data": "phi"}}
}

// ask is alice's request for one statement on clinic.
func ask(class Class, f Facts) Request {
	f.Class = class
	return Request{Principal: alice(), Action: Action(class), Target: clinicRef(), Statement: &Statement{Facts: &f, Statements: 1},
		Now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), SourceIP: netip.MustParseAddr("127.0.0.1"), Via: "forward"}
}

func TestVerdicts(t *testing.T) {
	set := clinicSet(t)
	results, err := RunCases(set, "verdicts.yaml", readTestdata(t, "verdicts.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			for _, w := range r.Wrong {
				t.Errorf("verdicts.yaml:%d: %s", r.Line, w)
			}
		})
	}
}

func TestZeroValuesDeny(t *testing.T) {
	set := clinicSet(t)
	whole := ask(Read, Facts{Kind: "SELECT"})
	if v := set.Decide(whole); v.Effect != Allow {
		t.Fatalf("the whole request is refused: %+v", v)
	}
	for name, spoil := range map[string]func(*Request){
		"nothing at all":       func(r *Request) { *r = Request{} },
		"no principal":         func(r *Request) { r.Principal = Principal{} },
		"no kind":              func(r *Request) { r.Principal.Kind = "" },
		"an unknown kind":      func(r *Request) { r.Principal.Kind = "root" },
		"no subject":           func(r *Request) { r.Principal.Subject = "" },
		"no issuer":            func(r *Request) { r.Principal.Issuer = "" },
		"no target":            func(r *Request) { r.Target = TargetRef{} },
		"no labels":            func(r *Request) { r.Target.Labels = nil },
		"no action":            func(r *Request) { r.Action = "" },
		"no statement":         func(r *Request) { r.Statement = nil },
		"no facts":             func(r *Request) { r.Statement = &Statement{} },
		"no class":             func(r *Request) { r.Statement = &Statement{Facts: &Facts{Kind: "SELECT"}} },
		"a class of its own":   func(r *Request) { r.Statement = &Statement{Facts: &Facts{Kind: "DROP TABLE", Class: Schema}} },
		"a class not known":    func(r *Request) { r.Action = "peek" },
		"the group of actions": func(r *Request) { r.Action = "statement" },
	} {
		r := whole
		spoil(&r)
		if v := set.Decide(r); v.Effect != Deny || v.Reason == "" || len(v.Rules) == 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := (*Set)(nil).Decide(whole); v.Effect != Deny {
		t.Errorf("a nil set: %+v", v)
	}
	if v := new(Set).Decide(whole); v.Effect != Deny {
		t.Errorf("a zero set: %+v", v)
	}
	if g := (*Set)(nil).Grant(whole); g.Effect != Deny {
		t.Errorf("a grant by a nil set: %+v", g)
	}
	if sh := (*Set)(nil).Show(whole, Tag{Tag: "phi"}); sh.Clear || sh.Method != "redact" {
		t.Errorf("a showing by a nil set: %+v", sh)
	}
	if ok, _ := (*Set)(nil).MayAnswer(whole, nil, Cure{}); ok {
		t.Error("a nil set lets someone answer")
	}
	var v Verdict
	var sh Showing
	if v.Effect != Deny || sh.Clear {
		t.Error("a zero verdict does not deny")
	}
}

// A forbid that errors is skipped by Cedar itself: with a permit beside it the
// answer would be allow. The request here lacks what the rule needs.
func TestEvaluationErrorDenies(t *testing.T) {
	set := mustCompile(t, `
kind: Policy
metadata: {name: p}
spec:
  cedar: |
    @id("all") permit(principal, action, resource);
    @id("far") forbid(principal, action == Hoop::Action::"read", resource) when { context.sourceIP.isInRange(ip("203.0.113.0/24")) };
    @id("late") forbid(principal, action == Hoop::Action::"write", resource) when { context.now > datetime("2030-01-01") };
    @id("sum") forbid(principal, action == Hoop::Action::"export", resource) when { context.statements * 9223372036854775807 > 0 };
    @id("seen") forbid(principal, action == Hoop::Action::"viewUnmasked", resource) when { context.now > datetime("2030-01-01") };
`)
	for name, c := range map[string]struct {
		class Class
		spoil func(*Request)
		rule  string
	}{
		"no address": {Read, func(r *Request) { r.SourceIP = netip.Addr{} }, "far"},
		"no clock":   {Write, func(r *Request) { r.Now = time.Time{} }, "late"},
		"overflow":   {Export, func(r *Request) { r.Statement.Statements = 2 }, "sum"},
	} {
		r := ask(c.class, Facts{Kind: "X", HasWhere: true})
		c.spoil(&r)
		v := set.Decide(r)
		if v.Effect != Deny || v.Rules[0] != c.rule || !strings.Contains(v.Reason, "could not be evaluated") {
			t.Errorf("%s: %+v", name, v)
		}
	}
	r := ask(Read, Facts{})
	r.Now = time.Time{}
	if sh := set.Show(r, Tag{Column: ColumnRef{"public", "patients", "ssn"}, Tag: "phi", Mask: "last4"}); sh.Clear || sh.Method != "redact" {
		t.Errorf("a column whose rule cannot be evaluated: %+v", sh)
	}
}

func TestCacheable(t *testing.T) {
	set := clinicSet(t)
	for name, c := range map[string]struct {
		r    Request
		want bool
	}{
		"a read that no volatile rule touches": {ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.visits"}}), true},
		"a row limit, without approvals":       {ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.patients"}}), true},
		"a question for people":                {ask(Write, Facts{Kind: "UPDATE"}), false},
		"with approvals":                       {with(ask(Read, Facts{Kind: "SELECT"}), func(r *Request) { r.Approvals = []string{"a/b:1"} }), false},
		"the address was read":                 {with(ask(Read, Facts{Kind: "SELECT"}), func(r *Request) { r.Principal.Groups = append(r.Principal.Groups, "office") }), false},
	} {
		if v := set.Decide(c.r); v.Cacheable != c.want {
			t.Errorf("%s: cacheable is %v: %+v", name, v.Cacheable, v)
		}
	}
}

func with(r Request, change func(*Request)) Request {
	change(&r)
	return r
}

// A rule whose other conditions an approval cannot meet must not ask people in vain.
func TestNobodyIsAskedInVain(t *testing.T) {
	set := mustCompile(t, `
kind: Policy
metadata: {name: p}
spec:
  cedar: |
    @id("all") permit(principal, action, resource);
    @id("twice") @approve("dba") forbid(principal, action == Hoop::Action::"write", resource)
      unless { context.approvals.contains("twice/dba:1") && context.hasWhere };
    @id("then") @reason("never in a transaction") forbid(principal, action == Hoop::Action::"write", resource)
      when { context.inTransaction };
    @id("ask") @approve("dba") forbid(principal, action == Hoop::Action::"read", resource)
      unless { context.approvals.contains("ask/dba:1") };
    @id("rows") @row_limit("10") forbid(principal, action == Hoop::Action::"read", resource)
      unless { context has rowLimit && context.rowLimit <= 10 };
    @id("few") @reason("too few") forbid(principal, action == Hoop::Action::"export", resource)
      when { context has rowLimit && context.rowLimit < 100 };
    @id("export") @row_limit("50") @approve("dba") forbid(principal, action == Hoop::Action::"export", resource)
      unless { context.approvals.contains("export/dba:1") || (context has rowLimit && context.rowLimit <= 50) };
`)
	if v := set.Decide(ask(Write, Facts{Kind: "UPDATE"})); v.Effect != Deny || v.Rules[0] != "twice" || !strings.Contains(v.Hint, "no approval") {
		t.Errorf("approval alone would not do: %+v", v)
	}
	if v := set.Decide(ask(Write, Facts{Kind: "UPDATE", HasWhere: true})); v.Effect != Review {
		t.Errorf("approval would do: %+v", v)
	}
	r := ask(Write, Facts{Kind: "UPDATE", HasWhere: true})
	r.Statement.InTransaction = true
	if v := set.Decide(r); v.Effect != Deny || v.Rules[0] != "then" {
		t.Errorf("an uncurable forbid beside a curable one: %+v", v)
	}
	if v := set.Decide(ask(Read, Facts{Kind: "SELECT"})); v.Effect != Review || v.RowLimit != 10 || len(v.Cures) != 1 || v.Cures[0].Rule != "ask" {
		t.Errorf("a limit and an approval: %+v", v)
	}
	r = ask(Read, Facts{Kind: "SELECT"})
	r.Approvals = []string{"ask/dba:1"}
	if v := set.Decide(r); v.Effect != Allow || v.RowLimit != 10 || len(v.Cures) != 0 {
		t.Errorf("approved, the limit stays: %+v", v)
	}
	if v := set.Decide(ask(Export, Facts{Kind: "COPY"})); v.Effect != Deny || v.Rules[0] != "few" {
		t.Errorf("a limit that wakes another forbid: %+v", v)
	}
}

func TestT63_WhoMayAnswer(t *testing.T) {
	set := mustCompile(t, `
kind: Policy
metadata: {name: p}
spec:
  cedar: |
    @id("remote") @reason("answers come with a second factor")
    forbid(principal, action == Hoop::Action::"approve", resource) when { !context.mfa };
    @id("prod") forbid(principal in Hoop::Group::"interns", action == Hoop::Action::"approve", resource in Hoop::Label::"env=dev");
    @id("everyone") permit(principal, action == Hoop::Action::"approve", resource);
`)
	bob := Principal{Kind: User, Issuer: "test", Subject: "bob", Name: "bob", Groups: []string{"dba"}, MFA: true}
	cure := Cure{Rule: "no-where", Group: "dba", Quorum: 1}
	for name, c := range map[string]struct {
		change func(*Request)
		chain  []string
		cure   Cure
		want   string // of why; "" is yes
	}{
		"a member":            {nil, []string{"test:alice"}, cure, ""},
		"not a member":        {func(r *Request) { r.Principal.Groups = []string{"engineers"} }, nil, cure, "only members of dba"},
		"no group at all":     {nil, nil, Cure{Rule: "x"}, "only members"},
		"the requester":       {nil, []string{"test:bob"}, cure, "own request"},
		"the owner, by name":  {nil, []string{"test:svc", "bob"}, cure, "own request"},
		"the request's owner": {func(r *Request) { r.Owner = "test:bob" }, nil, cure, "own request"},
		"a service":           {func(r *Request) { r.Principal.Kind = Service }, nil, cure, "only people"},
		"a forbid":            {func(r *Request) { r.Principal.MFA = false }, nil, cure, "second factor"},
		"a forbid by target":  {func(r *Request) { r.Principal.Groups = append(r.Principal.Groups, "interns") }, nil, cure, "prod"},
		"nobody":              {func(r *Request) { r.Principal = Principal{} }, nil, cure, "only people"},
	} {
		r := Request{Principal: bob, Target: clinicRef(), Owner: "test:alice", Object: "r-1", Now: time.Now(), SourceIP: netip.MustParseAddr("127.0.0.1"), Via: "api"}
		if c.change != nil {
			c.change(&r)
		}
		ok, why := set.MayAnswer(r, c.chain, c.cure)
		if ok != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %v, %q", name, ok, why)
		}
	}
}

func TestGrantVerdictDetails(t *testing.T) {
	set := mustCompile(t, string(readTestdata(t, "clinic.yaml")), `
kind: GrantRule
metadata: {name: on-call}
spec: {groups: [oncall], targets: {names: [clinic]}, maxFor: 12h, standing: true, owner: erin, reviewBy: 2027-06-01, recording: full}
---
kind: Policy
metadata: {name: oncall}
spec: {cedar: '@id("oncall") permit(principal in Hoop::Group::"oncall", action == Hoop::Action::"connect", resource) when { context has duration && context.duration <= 43200 };'}
`)
	g := set.Grant(Request{Principal: alice(), Target: clinicRef(), Via: "api"})
	if g.GrantRule != "engineers" || *g.Idle != 15*time.Minute || *g.Grace != 2*time.Hour || g.Standing || g.MaxFor != time.Hour {
		t.Errorf("%+v", g)
	}
	p := alice()
	p.Groups = []string{"oncall"}
	g = set.Grant(Request{Principal: p, Target: clinicRef(), Via: "api"})
	if g.Effect != Allow || !g.Standing || g.Owner != "erin" || g.Lapse != "page" || g.ReviewBy.Year() != 2027 || g.For != 12*time.Hour || g.Recording != "full" || g.Idle != nil {
		t.Errorf("%+v", g)
	}
}

func TestService(t *testing.T) {
	set := mustCompile(t, `
kind: Service
metadata: {name: billing}
spec: {owner: erin, issuer: github, match: {repository_id: "123", environment: prod}}
---
kind: Service
metadata: {name: any-number}
spec: {owner: erin, issuer: k8s, match: {id: "42", admin: "true", aud: hoopctl}}
---
kind: Service
metadata: {name: twin-a}
spec: {owner: erin, issuer: twins, match: {sub: x}}
---
kind: Service
metadata: {name: twin-b}
spec: {owner: erin, issuer: twins, match: {kind: y}}
`)
	for name, c := range map[string]struct {
		issuer string
		claims map[string]any
		want   string
	}{
		"all match":           {"github", map[string]any{"repository_id": "123", "environment": "prod", "more": 1}, "billing"},
		"one does not":        {"github", map[string]any{"repository_id": "123", "environment": "dev"}, ""},
		"one is missing":      {"github", map[string]any{"repository_id": "123"}, ""},
		"another issuer":      {"gitlab", map[string]any{"repository_id": "123", "environment": "prod"}, ""},
		"no claims":           {"github", nil, ""},
		"numbers and lists":   {"k8s", map[string]any{"id": float64(42), "admin": true, "aud": []any{"other", "hoopctl"}}, "any-number"},
		"a nested claim":      {"k8s", map[string]any{"id": map[string]any{"42": "42"}, "admin": true, "aud": "hoopctl"}, ""},
		"two services match":  {"twins", map[string]any{"sub": "x", "kind": "y"}, ""},
		"one of two services": {"twins", map[string]any{"sub": "x", "kind": "z"}, "twin-a"},
	} {
		name2, _, ok := set.Service(c.issuer, c.claims)
		if name2 != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %v", name, name2, ok)
		}
	}
}

func TestTargetByNameOnly(t *testing.T) {
	set := mustCompile(t, string(readTestdata(t, "clinic.yaml")), `
kind: Policy
metadata: {name: q}
spec: {cedar: '@id("ops") permit(principal in Hoop::Group::"ops", action == Hoop::Action::"terminate", resource in Hoop::Label::"env=dev");'}
`)
	p := alice()
	p.Groups = []string{"ops"}
	r := Request{Principal: p, Action: Terminate, ObjectKind: "target", Object: "clinic"}
	if v := set.Decide(r); v.Effect != Allow {
		t.Errorf("%+v", v)
	}
	r.Object = "clinic-prod"
	if v := set.Decide(r); v.Effect != Deny {
		t.Errorf("%+v", v)
	}
	r.Object = "unknown"
	if v := set.Decide(r); v.Effect != Deny {
		t.Errorf("%+v", v)
	}
}

func TestNameOfAServiceUnderAnotherIssuer(t *testing.T) {
	set := clinicSet(t)
	r := ask(Read, Facts{Kind: "COMMIT", Transaction: "commit"})
	r.Principal = Principal{Kind: Service, Issuer: "github", Subject: "repo", Name: "billing"}
	if v := set.Decide(r); v.Effect != Allow {
		t.Errorf("%+v", v)
	}
	r.Principal.Issuer = "elsewhere"
	if v := set.Decide(r); v.Effect != Deny || v.Rules[0] != RuleService {
		t.Errorf("%+v", v)
	}
}

func TestNoPermitNoView(t *testing.T) {
	set := mustCompile(t, `
kind: Classification
metadata: {name: c}
spec: {targets: {names: [clinic]}, columns: [{column: public.patients.ssn, tag: phi, mask: last4}]}
---
kind: Policy
metadata: {name: p}
spec: {cedar: '@id("a") permit(principal, action == Hoop::Action::"read", resource);'}
`)
	r := ask(Read, Facts{Kind: "SELECT"})
	tags := set.Tags(r.Target)
	if len(tags) != 1 {
		t.Fatal(tags)
	}
	if sh := set.Show(r, tags[0]); sh.Clear || sh.Method != "last4" || sh.Rule != RuleDefault {
		t.Errorf("%+v", sh)
	}
	view := r
	view.Action, view.Column = ViewUnmasked, &tags[0].Column
	if v := set.Decide(view); v.Effect != Deny {
		t.Errorf("%+v", v)
	}
}

// A limit that was tried and cured nothing must not be left on the stream.
func TestUselessLimitIsDropped(t *testing.T) {
	set := mustCompile(t, `
kind: Policy
metadata: {name: p}
spec:
  cedar: |
    @id("all") permit(principal, action, resource);
    @id("agg") @row_limit("10") @approve("dba") forbid(principal, action == Hoop::Action::"read", resource)
      when { context.kind == "SELECT" }
      unless { context.approvals.contains("agg/dba:1") || (context.hasWhere && context has rowLimit && context.rowLimit <= 10) };
`)
	if v := set.Decide(ask(Read, Facts{Kind: "SELECT"})); v.Effect != Review || v.RowLimit != 0 {
		t.Errorf("%+v", v)
	}
	if v := set.Decide(ask(Read, Facts{Kind: "SELECT", HasWhere: true})); v.Effect != Allow || v.RowLimit != 10 {
		t.Errorf("%+v", v)
	}
}

// One set serves every session at once; the race detector watches.
func TestConcurrentUse(t *testing.T) {
	set := clinicSet(t)
	r := ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.patients"}})
	want, tags := set.Decide(r), set.Tags(r.Target)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if got := set.Decide(r); !reflect.DeepEqual(got, want) {
					t.Errorf("%+v, want %+v", got, want)
				}
				set.Show(r, tags[0])
				set.Grant(r)
				set.Decide(ask(Write, Facts{Kind: "UPDATE"}))
			}
		})
	}
	wg.Wait()
}
