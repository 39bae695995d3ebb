package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
)

// Entity types of the schema.
const (
	typeUser    types.EntityType = "Hoop::User"
	typeService types.EntityType = "Hoop::Service"
	typeGroup   types.EntityType = "Hoop::Group"
	typeLabel   types.EntityType = "Hoop::Label"
	typeTarget  types.EntityType = "Hoop::Target"
	typeColumn  types.EntityType = "Hoop::Column"
	typeSession types.EntityType = "Hoop::Session"
	typeRequest types.EntityType = "Hoop::Request"
	typeServer  types.EntityType = "Hoop::Server"
	typeAction  types.EntityType = "Hoop::Action"
)

// Set is everything that an organisation wrote, compiled: it decides. A Set is
// immutable and safe for concurrent use; a server swaps whole sets. A nil Set,
// and one compiled from nothing, denies everything.
type Set struct {
	digest   string
	warnings Problems

	rules   []*rule
	byID    map[string]*rule
	index   map[types.EntityUID]scopes // by action
	actions types.EntityMap

	resources  []Resource
	targets    map[string]*target // by name
	classes    []classification
	clearances []*ClearanceSpec
	grantRules []grantRule
	services   []service
}

// scopes are the rules for one action, by what their heads name. A request
// looks under every pair of (any or an entity it is or is in) for principal
// and resource, so that a decision costs what its own rules cost, not what all
// rules do.
type scopes map[scopeKey]*bucket

type scopeKey struct{ principal, resource types.EntityUID }

type bucket struct {
	permits, forbids []*rule
	limits           []*rule // the forbids with a budget
}

// target is what is worked out once for a target of the set.
type target struct {
	ref    TargetRef
	spec   *TargetSpec
	entity types.Entity
	tagged tagging
}

type classification struct {
	name    string
	spec    *ClassificationSpec
	columns []ColumnRef // spec.Columns, read
}

type grantRule struct {
	name string
	spec *GrantRuleSpec
}

type service struct {
	name       string
	spec       *ServiceSpec
	statements map[string]bool
}

// Compile turns resources into a Set. It reads every Cedar policy, holds it to
// the schema (strictly) and to the lint rules of docs/policy.md, and refuses
// the whole set if one of them does not pass: the error is [Problems], with
// file and line. It keeps the specs of the resources; they must not be changed
// afterwards. Compiling 1,000 policies takes about a quarter of a second.
func Compile(resources []Resource) (*Set, error) {
	lang, err := newLanguage()
	if err != nil {
		return nil, err
	}
	c := compiler{
		set:  &Set{resources: slices.Clone(resources), targets: map[string]*target{}, actions: lang.actions, index: map[types.EntityUID]scopes{}},
		lint: linter{language: lang, byID: map[string]*rule{}},
		seen: map[string]*Resource{},
	}
	for i := range c.set.resources {
		c.add(&c.set.resources[i])
	}
	c.lint.names(c.vocabulary())
	if problems := append(c.problems, c.lint.problems...); len(problems) > 0 {
		return nil, problems
	}
	return c.finish()
}

type compiler struct {
	set      *Set
	lint     linter
	seen     map[string]*Resource
	problems Problems
}

func (c *compiler) add(r *Resource) {
	d := decoder{file: r.ID(), lines: map[string]int{}}
	if i := strings.LastIndexByte(r.Origin, ':'); i > 0 {
		d.file = r.Origin[:i]
		d.lines[""], _ = strconv.Atoi(r.Origin[i+1:])
	}
	d.check(r)
	if other := c.seen[r.ID()]; other != nil {
		d.at("metadata.name", "%s is already defined at %s", r.ID(), other.Origin)
	}
	c.seen[r.ID()] = r
	c.problems = append(c.problems, d.problems...)
	if len(d.problems) > 0 {
		return
	}
	switch s := r.Spec.(type) {
	case *TargetSpec:
		ref := TargetRef{Name: r.Metadata.Name, Protocol: s.Protocol, Labels: r.Metadata.Labels}
		c.set.targets[ref.Name] = &target{ref: ref, spec: s, entity: targetEntity(ref)}
	case *ClassificationSpec:
		cl := classification{name: r.Metadata.Name, spec: s, columns: make([]ColumnRef, len(s.Columns))}
		for i := range s.Columns {
			cl.columns[i], _ = ParseColumn(s.Columns[i].Column) // d.check has read it
		}
		c.set.classes = append(c.set.classes, cl)
	case *ClearanceSpec:
		c.set.clearances = append(c.set.clearances, s)
	case *GrantRuleSpec:
		c.set.grantRules = append(c.set.grantRules, grantRule{r.Metadata.Name, s})
	case *ServiceSpec:
		sv := service{name: r.Metadata.Name, spec: s, statements: map[string]bool{}}
		for _, fp := range s.Statements {
			sv.statements[fp] = true
		}
		c.set.services = append(c.set.services, sv)
	case *PolicySpec:
		c.lint.add(r, s)
	}
}

// vocabulary collects the labels and groups that resources other than
// policies name, and those that @approve does.
func (c *compiler) vocabulary() *vocabulary {
	v := &vocabulary{targets: len(c.set.targets) > 0, labels: map[string]bool{}, groups: map[string]bool{}}
	selector := func(s Selector) { add(v.labels, s.labels()) }
	for _, t := range c.set.targets {
		add(v.labels, labelNames(t.ref.Labels))
	}
	for i := range c.set.classes {
		selector(c.set.classes[i].spec.Targets)
	}
	for _, s := range c.set.clearances {
		add(v.groups, s.Groups)
	}
	for _, g := range c.set.grantRules {
		selector(g.spec.Targets)
		add(v.groups, g.spec.Groups)
		if g.spec.Approve != nil {
			add(v.groups, g.spec.Approve.Groups)
		}
	}
	for _, s := range c.set.services {
		add(v.groups, s.spec.Groups)
	}
	for i := range c.set.resources {
		switch s := c.set.resources[i].Spec.(type) {
		case *ExceptionSpec:
			selector(s.Targets)
		case *LegalHoldSpec:
			selector(s.Targets)
		}
	}
	return v
}

func add(set map[string]bool, words []string) {
	for _, w := range words {
		set[w] = true
	}
}

// finish builds what decisions look things up in.
func (c *compiler) finish() (*Set, error) {
	s := c.set
	s.rules, s.byID, s.warnings = c.lint.rules, c.lint.byID, c.lint.warnings
	for _, r := range s.rules {
		s.enter(r)
	}
	// Several rules or services that fit are tried in the order of their names.
	slices.SortFunc(s.grantRules, func(a, b grantRule) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(s.services, func(a, b service) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(s.classes, func(a, b classification) int { return strings.Compare(a.name, b.name) })
	for _, t := range s.targets {
		t.tagged = s.tagging(t.ref)
	}
	var err error
	s.digest, err = digest(s.resources)
	return s, err
}

// enter puts a rule into the index, under each action that it is for.
func (s *Set) enter(r *rule) {
	key := scopeKey{r.scope.principal, r.scope.resource}
	for _, a := range r.scope.actions {
		if s.index[a] == nil {
			s.index[a] = scopes{}
		}
		b := s.index[a][key]
		if b == nil {
			b = new(bucket)
			s.index[a][key] = b
		}
		switch {
		case r.budget != nil:
			b.limits = append(b.limits, r)
		case r.forbid:
			b.forbids = append(b.forbids, r)
		default:
			b.permits = append(b.permits, r)
		}
	}
}

// digest is SHA-256 over the resources in canonical form: sorted by kind and
// name, each as JSON with sorted keys behind its length, and the schema that
// they were compiled under. Where a resource was read from does not matter.
func digest(resources []Resource) (string, error) {
	sorted := slices.Clone(resources)
	slices.SortFunc(sorted, func(a, b Resource) int { return strings.Compare(a.ID(), b.ID()) })
	h := sha256.New()
	h.Write([]byte("hoopctl/policy-set/v1\n"))
	writePart(h, []byte(cedarSchema))
	for i := range sorted {
		b, err := sorted[i].canonical()
		if err != nil {
			return "", fmt.Errorf("digest %s: %w", sorted[i].ID(), err)
		}
		writePart(h, b)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func writePart(h hash.Hash, b []byte) {
	fmt.Fprintf(h, "%d\n", len(b))
	h.Write(b)
}

// canonical is the resource as JSON without what does not change its meaning.
func (r Resource) canonical() ([]byte, error) {
	r.APIVersion = APIVersion
	return json.Marshal(r)
}

// Same reports whether two resources say the same, wherever they were read from.
func (r Resource) Same(o Resource) bool {
	a, errA := r.canonical()
	b, errB := o.canonical()
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// Digest names the set in evidence: "sha256:" and 64 hex digits; "" of a nil Set.
func (s *Set) Digest() string {
	if s == nil {
		return ""
	}
	return s.digest
}

// Warnings are what looks wrong in the set but may be right: labels that no
// target carries, groups that nobody else names. They are shown where
// resources are applied.
func (s *Set) Warnings() Problems {
	if s == nil {
		return nil
	}
	return s.warnings
}

// Resources are the resources that the set was compiled from. They must not be changed.
func (s *Set) Resources() []Resource {
	if s == nil {
		return nil
	}
	return s.resources
}

// Target returns what a decision may know of a target of the set, and its spec.
func (s *Set) Target(name string) (TargetRef, *TargetSpec, bool) {
	if s == nil || s.targets[name] == nil {
		return TargetRef{}, nil, false
	}
	t := s.targets[name]
	return t.ref, t.spec, true
}

// Rule describes one Cedar rule for people: describe policy, explain.
type Rule struct {
	ID       string        `json:"id"`
	Policy   string        `json:"policy"` // name of the resource that it stands in
	Effect   string        `json:"effect"` // permit | forbid
	File     string        `json:"file"`
	Line     int           `json:"line"`
	Reason   string        `json:"reason,omitempty"`
	Approve  string        `json:"approve,omitempty"`
	Quorum   int           `json:"quorum,omitempty"`
	Expires  time.Duration `json:"-"`
	RowLimit int64         `json:"rowLimit,omitempty"`
	Budget   *Budget       `json:"budget,omitempty"`
	Text     string        `json:"text"` // as Cedar prints it
}

// Budgets are the rules of the set that have a budget, in the order written.
func (s *Set) Budgets() []Rule {
	if s == nil {
		return nil
	}
	var out []Rule
	for _, r := range s.rules {
		if r.budget != nil {
			rule, _ := s.Rule(r.id)
			out = append(out, rule)
		}
	}
	return out
}

// Rule returns the Cedar rule with that @id.
func (s *Set) Rule(id string) (Rule, bool) {
	if s == nil || s.byID[id] == nil {
		return Rule{}, false
	}
	r := s.byID[id]
	out := Rule{ID: r.id, Policy: r.of, Effect: "permit", File: r.file, Line: r.line, Reason: r.reason, Approve: r.approve, RowLimit: r.limit, Budget: r.budget, Text: string(r.policy.MarshalCedar())}
	if r.forbid {
		out.Effect = "forbid"
	}
	if r.approve != "" {
		out.Quorum, out.Expires = r.quorum, r.expires
	}
	return out, true
}
