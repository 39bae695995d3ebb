package policy

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"
)

// inOrder reports which of the wanted lines is not in the text, in order.
func inOrder(t *testing.T, got, want string) {
	t.Helper()
	rest := got
	for line := range strings.Lines(want) {
		line = strings.TrimSuffix(line, "\n")
		_, after, ok := strings.Cut(rest, line)
		if !ok {
			t.Errorf("missing, or out of order:\n%s\nin:\n%s", line, got)
			return
		}
		rest = after
	}
	if extra := strings.Count(got, "\n") + 1; want != "" && extra > strings.Count(want, "\n") {
		t.Errorf("%d problems are told, want %d:\n%s", extra, strings.Count(want, "\n"), got)
	}
}

func TestRefusedResources(t *testing.T) {
	a := txtar.Parse(readTestdata(t, "refused.txtar"))
	for i := 0; i+1 < len(a.Files); i += 2 {
		in, want := a.Files[i], a.Files[i+1]
		t.Run(in.Name, func(t *testing.T) {
			rs, err := ParseResources(in.Name, in.Data)
			if err == nil || rs != nil {
				t.Fatalf("accepted: %v, %v", rs, err)
			}
			if !errors.As(err, new(Problems)) {
				t.Errorf("the error is %T", err)
			}
			inOrder(t, err.Error(), string(want.Data))
		})
	}
}

func TestLint(t *testing.T) {
	around := mustParse(t, "around.yaml", []byte(`
kind: Target
metadata: {name: dev, labels: {env: dev}}
spec: {protocol: http, address: "https://dev.example.com"}
---
kind: Target
metadata: {name: prod, labels: {env: prod}}
spec: {protocol: http, address: "https://prod.example.com"}
---
kind: Clearance
metadata: {name: c}
spec: {groups: [engineers], tags: [phi]}
---
kind: Policy
metadata: {name: all}
spec: {cedar: '@id("all") permit(principal, action, resource);'}
`))
	a := txtar.Parse(readTestdata(t, "lint.txtar"))
	for i := 0; i+1 < len(a.Files); i += 2 {
		in, want := a.Files[i], a.Files[i+1]
		t.Run(in.Name, func(t *testing.T) {
			rs := mustParse(t, in.Name, in.Data)
			set, err := Compile(append(rs, around...))
			if err == nil || set != nil {
				t.Fatal("compiled")
			}
			inOrder(t, err.Error(), string(want.Data))
		})
	}
}

// A forbid that does not pass must take the whole set with it: the rest of the
// set without it would allow more.
func TestOneBadRuleRefusesTheSet(t *testing.T) {
	good := string(readTestdata(t, "clinic.yaml"))
	mustCompile(t, good)
	bad := mustParse(t, "x.yaml", []byte(good+`---
kind: Policy
metadata: {name: typo}
spec:
  cedar: |

    @id("typo") forbid(principal, action == Hoop::Action::"read", resource)
      when { context.hasWher };
`))
	if _, err := Compile(bad); err == nil || !strings.Contains(err.Error(), "x.yaml:") || !strings.Contains(err.Error(), "rule typo") {
		t.Fatalf("%v", err)
	}
}

func TestCompileRefusesWhatParseWould(t *testing.T) {
	for name, r := range map[string]Resource{
		"no spec":         {Kind: KindPolicy, Metadata: Metadata{Name: "a"}},
		"no name":         {Kind: KindPolicy, Spec: &PolicySpec{Cedar: `@id("a") permit(principal, action, resource);`}},
		"a metadata host": {Kind: KindTarget, Metadata: Metadata{Name: "a"}, Spec: &TargetSpec{Protocol: "http", Address: "http://169.254.169.254/"}},
	} {
		if _, err := Compile([]Resource{r}); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
	a := Resource{Kind: KindClearance, Metadata: Metadata{Name: "a"}, Spec: &ClearanceSpec{Groups: []string{"g"}, Tags: []string{"t"}}, Origin: "a.yaml:1"}
	b := a
	b.Origin = "b.yaml:7"
	if _, err := Compile([]Resource{a, b}); err == nil || !strings.Contains(err.Error(), "b.yaml:7") || !strings.Contains(err.Error(), "a.yaml:1") {
		t.Errorf("twice, in two files: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	set := mustCompile(t, string(readTestdata(t, "clinic.yaml")), `
kind: Policy
metadata: {name: later}
spec:
  cedar: |
    @id("a") permit(principal in Hoop::Group::"enginers", action == Hoop::Action::"read", resource in Hoop::Label::"team=red");
    @id("b") forbid(principal in Hoop::Group::"contractors", action == Hoop::Action::"read", resource in Hoop::Label::"env=staging");
`)
	w := set.Warnings().Error()
	for _, want := range []string{`group "enginers"`, `label "team=red"`, `label "env=staging"`} {
		if !strings.Contains(w, want) {
			t.Errorf("no warning about %s in:\n%s", want, w)
		}
	}
	if strings.Contains(w, "contractors") {
		t.Errorf("warned about a group that only the identity provider knows:\n%s", w)
	}
}

func TestRoundTrip(t *testing.T) {
	in := mustParse(t, "clinic.yaml", readTestdata(t, "clinic.yaml"))
	out, err := MarshalResources(in)
	if err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, "again.yaml", out)
	if len(again) != len(in) {
		t.Fatalf("%d resources became %d", len(in), len(again))
	}
	for i := range in {
		if !in[i].Same(again[i]) {
			t.Errorf("%s changed:\n%s", in[i].ID(), out)
		}
		// JSON is YAML: the same parser reads what `get -o json` prints.
		b, err := json.Marshal(in[i])
		if err != nil {
			t.Fatal(err)
		}
		if js := mustParse(t, "x.json", b); !in[i].Same(js[0]) {
			t.Errorf("%s changed in JSON: %s", in[i].ID(), b)
		}
	}
	a, errA := Compile(in)
	b, errB := Compile(again)
	if errA != nil || errB != nil || a.Digest() != b.Digest() || !strings.HasPrefix(a.Digest(), "sha256:") || len(a.Digest()) != 71 {
		t.Errorf("digests %q and %q, %v, %v", a.Digest(), b.Digest(), errA, errB)
	}
}

func TestDigest(t *testing.T) {
	in := mustParse(t, "clinic.yaml", readTestdata(t, "clinic.yaml"))
	first := mustDigest(t, in)
	backwards := make([]Resource, 0, len(in))
	for i := range in {
		r := in[len(in)-1-i]
		r.Origin, r.APIVersion = "elsewhere:1", ""
		backwards = append(backwards, r)
	}
	if mustDigest(t, backwards) != first {
		t.Error("the digest depends on order, file or spelling of the version")
	}
	changed := mustParse(t, "clinic.yaml", []byte(strings.Replace(string(readTestdata(t, "clinic.yaml")), "mask: last4", "mask: redact", 1)))
	if mustDigest(t, changed) == first {
		t.Error("the digest does not depend on a mask")
	}
	if mustDigest(t, in[1:]) == first {
		t.Error("the digest does not depend on a resource being there")
	}
}

func mustDigest(t *testing.T, rs []Resource) string {
	t.Helper()
	s, err := Compile(rs)
	if err != nil {
		t.Fatal(err)
	}
	return s.Digest()
}

func TestCedarFile(t *testing.T) {
	rs := mustParse(t, `policies\sub/no-ddl.cedar`, []byte("\n\n@id(\"x\") permit(principal, action, resource);"))
	if len(rs) != 1 || rs[0].ID() != "Policy/no-ddl" || rs[0].Spec.(*PolicySpec).Line != 1 {
		t.Errorf("%+v", rs)
	}
	if _, err := Compile(append(rs, mustParse(t, "b.cedar", []byte("@id(\"x\") permit(principal, action, resource);"))...)); err == nil || !strings.Contains(err.Error(), `b.cedar:1: rule x: @id is already taken by the rule at policies\sub/no-ddl.cedar:3`) {
		t.Errorf("%v", err)
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]string{"15m": "15m", "1h": "1h", "1h30m": "1h30m", "90s": "1m30s", "0s": "0s", "24h": "24h", "1.5s": "1.5s"} {
		var d Duration
		if err := yaml.Unmarshal([]byte(in), &d); err != nil || d.String() != want {
			t.Errorf("%s: %s, %v", in, d, err)
		}
		b, err := json.Marshal(struct{ D Duration }{d})
		var back struct{ D Duration }
		if err != nil || json.Unmarshal(b, &back) != nil || back.D != d {
			t.Errorf("%s in JSON: %s, %v", in, b, err)
		}
	}
	for _, in := range []string{"", "15", "-5m", "1d", "an hour"} {
		if new(Duration).UnmarshalText([]byte(in)) == nil {
			t.Errorf("%q is a duration", in)
		}
	}
}

func TestT60_AddressesThatNoTargetMayHave(t *testing.T) {
	for _, a := range []string{
		"169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "fe80::1", "fe80::1%eth0", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
		"fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255",
		"metadata.google.internal", "METADATA.google.internal.", "metadata", "instance-data.ec2.internal",
		"2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "127.1", "1.2.3.4.", "", "a b", "host/../x", "ho\x00st", "host\n", "häuser.example", "a..",
	} {
		if CheckHost(a) == nil {
			t.Errorf("%q is let through", a)
		}
	}
	for _, a := range []string{"127.0.0.1", "::1", "10.0.0.5", "192.168.1.1", "203.0.113.7", "2001:db8::5", "localhost", "db-a", "db_a.internal", "clinic.cluster-x.eu-1.rds.amazonaws.com", "xn--huser-gra.example"} {
		if err := CheckHost(a); err != nil {
			t.Errorf("%q is refused: %v", a, err)
		}
	}
	if CheckAddr(netip.Addr{}) == nil {
		t.Error("the zero address is let through")
	}
	for _, url := range []string{"ftp://x", "http://", "https://user:pw@host/", "https://host?x=1", "//host", "http://[fe80::1]/", "http://169.254.169.254/latest", "https://metadata.google.internal"} {
		if _, err := ParseResources("t", []byte("kind: Target\nmetadata: {name: a}\nspec: {protocol: http, address: \""+url+"\"}")); err == nil {
			t.Errorf("%s is let through", url)
		}
	}
}

func TestParseColumn(t *testing.T) {
	for in, want := range map[string]ColumnRef{
		"public.patients.ssn":      {"public", "patients", "ssn"},
		`"My Schema"."a.b"."c"`:    {"My Schema", "a.b", "c"},
		`public."He said ""x""".y`: {"public", `He said "x"`, "y"},
	} {
		if got, err := ParseColumn(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "a", "a.b", "a.b.c.d", "a..c", ".a.b", "a.b.", `"a.b.c`, `"a"b.c.d`, `a.b c.d`, `a.""."c"`} {
		if got, err := ParseColumn(in); err == nil {
			t.Errorf("%q is %+v", in, got)
		}
	}
}

func TestObserved(t *testing.T) {
	s := TargetSpec{Enforcement: "observe until 2026-12-24"}
	if !s.ObservedUntil().Equal(time.Date(2026, 12, 24, 0, 0, 0, 0, time.UTC)) {
		t.Error("observation does not end by itself")
	}
	for _, e := range []string{"", "enforce", "observe", "observe until never"} {
		if !(&TargetSpec{Enforcement: e}).ObservedUntil().IsZero() {
			t.Errorf("%q observes", e)
		}
	}
}

func TestEmptyDocuments(t *testing.T) {
	for _, in := range []string{"", "---\n", "# a comment\n", "---\n---\n# x\n---\n"} {
		if rs, err := ParseResources("x.yaml", []byte(in)); err != nil || len(rs) != 0 {
			t.Errorf("%q: %v, %v", in, rs, err)
		}
	}
}

// FuzzParseResources: no content may panic, and what is accepted must be
// written and read again as the same.
func FuzzParseResources(f *testing.F) {
	f.Add("clinic.yaml", readTestdata(f, "clinic.yaml"))
	for _, archive := range []string{"refused.txtar", "lint.txtar"} {
		for _, file := range txtar.Parse(readTestdata(f, archive)).Files {
			f.Add(file.Name, file.Data)
		}
	}
	f.Add("x.json", []byte(`{"kind":"Clearance","metadata":{"name":"a"},"spec":{"groups":["g"],"tags":["t"]}}`))
	f.Add("x.yaml", []byte("kind: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, file string, content []byte) {
		rs, err := ParseResources(file, content)
		if err != nil {
			if rs != nil {
				t.Fatal("resources beside an error")
			}
			return
		}
		out, err := MarshalResources(rs)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseResources("again.yaml", out)
		if err != nil || len(again) != len(rs) {
			t.Fatalf("%v\n%s", err, out)
		}
		for i := range rs {
			if !rs[i].Same(again[i]) {
				t.Fatalf("changed: %+v\n%+v", rs[i].Spec, again[i].Spec)
			}
		}
		if set, err := Compile(rs); err == nil {
			if v := set.Decide(Request{}); v.Effect != Deny {
				t.Fatalf("%+v", v)
			}
		}
	})
}

// Every field of a spec can be reached from YAML: a field without a name, or
// with one that collides, could never be set and would never be refused.
func TestEveryFieldHasItsName(t *testing.T) {
	for _, k := range Kinds() {
		fieldsNamed(t, reflect.TypeOf(newSpec(k)).Elem())
	}
}

func fieldsNamed(t *testing.T, typ reflect.Type) {
	seen := map[string]bool{}
	for i, name := range fieldNames(typ) {
		f := typ.Field(i)
		if jsonName, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == "" || seen[name] || jsonName != name {
			t.Errorf("%s.%s is called %q in YAML and %q in JSON", typ, f.Name, name, jsonName)
		}
		seen[name] = name != "-"
		ft := f.Type
		for ft.Kind() == reflect.Pointer || ft.Kind() == reflect.Slice {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			fieldsNamed(t, ft)
		}
	}
}
