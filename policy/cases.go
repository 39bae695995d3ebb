package policy

import (
	"errors"
	"io"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// caseFile is a file of test cases for policies, as docs/policy.md describes it.
type caseFile struct {
	Principals map[string]casePrincipal `yaml:"principals"`
	Targets    map[string]caseTarget    `yaml:"targets"`
	Cases      []testCase               `yaml:"cases"`
}

type casePrincipal struct {
	Kind    string   `yaml:"kind"` // user (default) | service
	Issuer  string   `yaml:"issuer"`
	Subject string   `yaml:"subject"`
	Groups  []string `yaml:"groups"`
	Owner   string   `yaml:"owner"`
	ActsFor string   `yaml:"actsFor"`
	MFA     bool     `yaml:"mfa"`
}

type caseTarget struct {
	Protocol string            `yaml:"protocol"`
	Labels   map[string]string `yaml:"labels"`
}

type testCase struct {
	Name string `yaml:"name"`

	Principal string           `yaml:"principal"`
	Target    string           `yaml:"target"`
	Action    string           `yaml:"action"`    // default: the statement's class
	Statement string           `yaml:"statement"` // SQL, or
	Facts     *caseFacts       `yaml:"facts"`     // what a parser would say of it
	Object    string           `yaml:"object"`    // server | session | request, for manage, terminate, …
	Owner     string           `yaml:"owner"`     // of that object: a principal of this file
	Approvals []string         `yaml:"approvals"` // "rule/group:n"
	RowLimit  int64            `yaml:"promisedRows"`
	Left      map[string]int64 `yaml:"left"` // of budgets, by rule; whole if not named
	For       Duration         `yaml:"for"`
	Purpose   string           `yaml:"purpose"`
	Ticket    string           `yaml:"ticket"`
	Reason    string           `yaml:"reason"`
	Now       string           `yaml:"now"`
	SourceIP  string           `yaml:"sourceIP"`
	Via       string           `yaml:"via"`

	Verdict string            `yaml:"verdict"` // allow | review | deny
	Rule    string            `yaml:"rule"`    // the deciding one
	Cures   []string          `yaml:"cures"`   // all of them, as approvals
	Rows    *int64            `yaml:"rowLimit"`
	Budgets []string          `yaml:"budgets"` // rules whose budgets it is under
	Masked  map[string]string `yaml:"masked"`  // column: method
	Clear   []string          `yaml:"clear"`   // columns shown as they are
	Missing []string          `yaml:"missing"`
	Grant   Duration          `yaml:"grantFor"`
	Says    string            `yaml:"says"` // in the reason or hint
}

type caseFacts struct {
	Kind             string   `yaml:"kind"`
	Class            string   `yaml:"class"`
	Tables           []string `yaml:"tables"`
	Columns          []string `yaml:"columns"`
	PredicateColumns []string `yaml:"predicateColumns"`
	WriteColumns     []string `yaml:"writeColumns"`
	Functions        []string `yaml:"functions"`
	HasWhere         bool     `yaml:"hasWhere"`
	Aggregates       bool     `yaml:"aggregates"`
	Unresolved       bool     `yaml:"unresolved"`
	LiteralFree      bool     `yaml:"literalFree"`
	Transaction      string   `yaml:"transaction"`
	Fingerprint      string   `yaml:"fingerprint"`
	Statements       int      `yaml:"statements"`
	InTransaction    bool     `yaml:"inTransaction"`
}

func (f *caseFacts) facts() *Facts {
	return &Facts{Kind: f.Kind, Class: Class(f.Class), Tables: f.Tables, Columns: f.Columns, PredicateColumns: f.PredicateColumns, WriteColumns: f.WriteColumns,
		Functions: f.Functions, HasWhere: f.HasWhere, Aggregates: f.Aggregates, Unresolved: f.Unresolved, LiteralFree: f.LiteralFree,
		Transaction: f.Transaction, Fingerprint: f.Fingerprint}
}

// CaseResult is how one test case came out.
type CaseResult struct {
	Name    string       `json:"name"`
	Line    int          `json:"line"`
	Passed  bool         `json:"passed"`
	Wrong   []Difference `json:"wrong,omitempty"`
	Verdict string       `json:"verdict"`
	Rules   []string     `json:"rules,omitempty"`
	Reason  string       `json:"reason,omitempty"`
	Hint    string       `json:"hint,omitempty"`
	// Masked are the tagged columns that the statement reads (all of the
	// target's, if it is not known which) and that would be masked, with the method.
	Masked map[string]string `json:"masked,omitempty"`
}

// Difference is one thing that a test case wants otherwise than it is.
type Difference struct {
	What string `json:"what"` // verdict, rule, a column's name, …
	Want string `json:"want"`
	Have string `json:"have"`
}

func (d Difference) String() string { return d.What + " is " + d.Have + ", want " + d.Want }

// RunCases decides the cases of a file against a set, without a server: each
// names a principal, a target and a statement (or its facts), and the verdict,
// rule and masks that must come out. facts parses SQL; nil refuses cases that
// hold a statement. The error is [Problems] with the file; a case that fails
// is no error.
func RunCases(set *Set, file string, content []byte, facts func(sql string) ([]*Facts, error)) ([]CaseResult, error) {
	d := decoder{file: file, lines: map[string]int{}}
	f, err := d.cases(content)
	if err != nil {
		return nil, err
	}
	results := make([]CaseResult, 0, len(f.Cases))
	for i := range f.Cases {
		at := "cases[" + strconv.Itoa(i) + "]"
		c := &f.Cases[i]
		reqs := d.requests(at, set, &f, c, facts)
		if len(d.problems) > 0 {
			continue
		}
		r := run(set, c, reqs)
		r.Line = d.lines[at]
		results = append(results, r)
	}
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	return results, nil
}

func (d *decoder) cases(content []byte) (caseFile, error) {
	var f caseFile
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(content)))
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return f, Problems{syntaxProblem(d.file, err)}
	}
	if len(doc.Content) == 0 {
		return f, Problems{{File: d.file, Message: "holds no cases"}}
	}
	d.value("", doc.Content[0], reflect.ValueOf(&f).Elem())
	if len(f.Cases) == 0 && len(d.problems) == 0 {
		d.at("cases", "holds no cases")
	}
	return f, d.problems.err()
}

// requests makes a request for each statement of a case.
func (d *decoder) requests(at string, set *Set, f *caseFile, c *testCase, facts func(string) ([]*Facts, error)) []Request {
	d.required(at+".verdict", c.Verdict)
	d.oneOf(at+".verdict", c.Verdict, []string{"allow", "review", "deny"})
	base := Request{Action: Action(c.Action), Target: d.target(at, set, f, c), Principal: d.principal(at+".principal", f, c.Principal), Object: c.Object,
		ObjectKind: c.Object, Approvals: c.Approvals, RowLimit: c.RowLimit, Left: c.Left, Duration: time.Duration(c.For), Purpose: c.Purpose, Ticket: c.Ticket, Reason: c.Reason, Via: c.Via}
	if c.Owner != "" {
		base.Owner = d.principal(at+".owner", f, c.Owner).ID()
	}
	if base.Via == "" {
		base.Via = "forward"
	}
	d.surroundings(at, c, &base)
	if c.Statement != "" {
		return d.statements(at, c, base, facts)
	}
	if c.Facts != nil {
		f := c.Facts.facts()
		base.Statement = &Statement{Facts: f, Statements: max(1, c.Facts.Statements), InTransaction: c.Facts.InTransaction}
		if base.Action == "" {
			base.Action = Action(f.Class)
		}
	} else if base.Action == "" {
		d.at(at, "names no action, statement or facts")
	}
	return []Request{base}
}

// surroundings are time and address: fixed, unless the case says.
func (d *decoder) surroundings(at string, c *testCase, r *Request) {
	r.Now = time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
	if c.Now != "" {
		var err error
		if r.Now, err = ParseDate(c.Now); err != nil {
			d.at(at+".now", "%s", err)
		}
	}
	r.SourceIP = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if c.SourceIP != "" {
		var err error
		if r.SourceIP, err = netip.ParseAddr(c.SourceIP); err != nil {
			d.at(at+".sourceIP", "%q is not an address", c.SourceIP)
		}
	}
}

func (d *decoder) statements(at string, c *testCase, base Request, parse func(string) ([]*Facts, error)) []Request {
	if c.Facts != nil {
		d.at(at+".facts", "stand beside statement: give one of both")
		return nil
	}
	if parse == nil {
		d.at(at+".statement", "cannot be parsed here; give facts")
		return nil
	}
	list, err := parse(c.Statement)
	if err != nil {
		d.at(at+".statement", "%s", err)
		return nil
	}
	reqs := make([]Request, len(list))
	for i, f := range list {
		r := base
		r.Statement = &Statement{Facts: f, Text: c.Statement, Statements: len(list)}
		if r.Action == "" {
			r.Action = Action(f.Class)
		}
		reqs[i] = r
	}
	if len(reqs) == 0 {
		d.at(at+".statement", "is empty")
	}
	return reqs
}

func (d *decoder) principal(field string, f *caseFile, name string) Principal {
	p, ok := f.Principals[name]
	if !ok {
		d.at(field, "no principal %q%s; principals names them", name, didYouMean(name, slices.Sorted(maps.Keys(f.Principals))))
		return Principal{}
	}
	out := Principal{Kind: User, Issuer: p.Issuer, Subject: p.Subject, Name: name, Groups: p.Groups, Owner: p.Owner, ActsFor: p.ActsFor, MFA: p.MFA}
	if p.Kind != "" {
		out.Kind = PrincipalKind(p.Kind)
		d.oneOf("principals."+name+".kind", p.Kind, []string{string(User), string(Service)})
	}
	if out.Issuer == "" {
		out.Issuer = "test"
	}
	if out.Subject == "" {
		out.Subject = name
	}
	return out
}

// target finds a case's target among those of the file, then those of the set.
func (d *decoder) target(at string, set *Set, f *caseFile, c *testCase) TargetRef {
	if c.Target == "" && c.Object != "" {
		return TargetRef{}
	}
	if t, ok := f.Targets[c.Target]; ok {
		if t.Protocol == "" {
			t.Protocol = protocols[0]
		}
		return TargetRef{Name: c.Target, Protocol: t.Protocol, Labels: t.Labels}
	}
	ref, _, ok := set.Target(c.Target)
	if !ok {
		d.at(at+".target", "no target %q in targets or among the resources", c.Target)
	}
	return ref
}

// run decides the requests of a case. The strictest verdict counts, as it
// would for statements that come in one message.
func run(set *Set, c *testCase, reqs []Request) CaseResult {
	r := CaseResult{Name: c.Name, Masked: map[string]string{}}
	var v Verdict
	var missing []string
	var grantFor time.Duration
	for i := range reqs {
		next := Verdict{}
		if reqs[i].Action == Connect {
			g := set.Grant(reqs[i])
			next, missing, grantFor = g.Verdict, g.Missing, g.For
		} else {
			next = set.Decide(reqs[i])
		}
		if i == 0 || next.Effect < v.Effect {
			v = next
		}
		maps.Copy(r.Masked, masks(set, reqs[i]))
	}
	if r.Name == "" {
		r.Name = strings.TrimSpace(c.Principal + " " + c.Action + " " + c.Statement)
	}
	r.Verdict, r.Rules, r.Reason, r.Hint = v.Effect.String(), v.Rules, v.Reason, v.Hint
	r.compare(set, c, v, reqs[0])
	r.same("missing", c.Missing, missing)
	if c.Grant != 0 && time.Duration(c.Grant) != grantFor {
		r.wrong("grantFor", c.Grant.String(), Duration(grantFor).String())
	}
	r.Passed = len(r.Wrong) == 0
	return r
}

func (r *CaseResult) wrong(what, want, have string) {
	r.Wrong = append(r.Wrong, Difference{What: what, Want: want, Have: have})
}

func (r *CaseResult) compare(set *Set, c *testCase, v Verdict, req Request) {
	if r.Verdict != c.Verdict {
		r.wrong("verdict", c.Verdict, r.Verdict)
	}
	if c.Rule != "" && (len(v.Rules) == 0 || v.Rules[0] != c.Rule) {
		r.wrong("rule", c.Rule, strings.Join(v.Rules, ", "))
	}
	if c.Cures != nil {
		have := make([]string, len(v.Cures))
		for i, cure := range v.Cures {
			have[i] = cure.Approval()
		}
		r.same("cures", c.Cures, have)
	}
	if c.Rows != nil && *c.Rows != v.RowLimit {
		r.wrong("rowLimit", strconv.FormatInt(*c.Rows, 10), strconv.FormatInt(v.RowLimit, 10))
	}
	if c.Budgets != nil {
		have := make([]string, len(v.Meters))
		for i, b := range v.Meters {
			have[i] = b.Rule
		}
		r.same("budgets", c.Budgets, have)
	}
	if c.Says != "" && !strings.Contains(v.Reason, c.Says) && !strings.Contains(v.Hint, c.Says) {
		r.wrong("reason or hint", "… "+c.Says+" …", v.Reason+"; "+v.Hint)
	}
	for _, column := range slices.Sorted(maps.Keys(c.Masked)) {
		r.shown(set, req, column, c.Masked[column])
	}
	for _, column := range c.Clear {
		r.shown(set, req, column, "")
	}
}

func (r *CaseResult) same(what string, want, have []string) {
	if want == nil && what == "missing" {
		return
	}
	if !slices.Equal(want, have) {
		r.wrong(what, "["+strings.Join(want, ", ")+"]", "["+strings.Join(have, ", ")+"]")
	}
}

// shown compares how one column is shown with what is wanted: a method, or "" for clear.
func (r *CaseResult) shown(set *Set, req Request, column, want string) {
	have := ""
	for _, t := range set.Tags(req.Target) {
		if t.Column.String() == column {
			if sh := set.Show(req, t); !sh.Clear {
				have = sh.Method
			}
		}
	}
	if have != want {
		r.wrong(column, clearOr(want), clearOr(have))
	}
}

func clearOr(method string) string {
	if method == "" {
		return "clear"
	}
	return "masked by " + method
}

// masks are the masked columns among those that a request reads.
func masks(set *Set, req Request) map[string]string {
	out := map[string]string{}
	for _, t := range set.Tags(req.Target) {
		name := t.Column.String()
		if req.Statement != nil && !req.Statement.Unresolved && !slices.Contains(req.Statement.Columns, name) {
			continue
		}
		if sh := set.Show(req, t); !sh.Clear {
			out[name] = sh.Method
		}
	}
	return out
}

// IsCases reports whether a file is one of test cases by its name, NAME.cases.yaml
// (or .yml): such files lie beside the resources that they test, and are not
// resources themselves.
func IsCases(file string) bool {
	file = strings.ToLower(file)
	return strings.HasSuffix(file, ".cases.yaml") || strings.HasSuffix(file, ".cases.yml")
}
