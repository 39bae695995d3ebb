package policy

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// This file alone touches cedar-go's x/exp packages, which may change between
// minor versions: the schema validator and the syntax tree. What lint and the
// index need of a policy leaves it as a rule.

//go:embed schema.cedarschema
var cedarSchema string

// CedarSchema is the Cedar schema that every policy is validated against.
func CedarSchema() string { return cedarSchema }

// attr is a bit for each thing about a request that a policy may read.
type attr uint32

// The attributes of the schema's Ctx, then those of the entities.
const (
	attrKind attr = 1 << iota
	attrTables
	attrColumns
	attrPredicateColumns
	attrWriteColumns
	attrFunctions
	attrHasWhere
	attrAggregatesTagged
	attrStatements
	attrInTransaction
	attrRowLimit
	attrBudget
	attrApprovals
	attrDuration
	attrPurpose
	attrTicket
	attrFingerprint
	attrMethod
	attrOperation
	attrContentType
	attrNow
	attrSourceIP
	attrVia
	attrMFA
	attrsContext // the first bit that is none of the context's

	attrPrincipal = attrsContext      // any attribute of the principal
	attrResource  = attrsContext << 1 // any attribute of the resource
	attrAll       = attrsContext<<2 - 1

	// volatile attributes differ from one run of the same statement in the
	// same session to the next.
	// A budget is not among them: whatever is left, the verdict says that it is
	// under the budget.
	volatile = attrApprovals | attrNow | attrSourceIP | attrMFA
)

// contextNames are the names of the context's attributes, in the order of their bits.
var contextNames = [...]types.String{"kind", "tables", "columns", "predicateColumns", "writeColumns", "functions", "hasWhere", "aggregatesTagged",
	"statements", "inTransaction", "rowLimit", "budget", "approvals", "duration", "purpose", "ticket", "fingerprint", "method", "operation",
	"contentType", "now", "sourceIP", "via", "mfa"}

func attrOf(name types.String) attr {
	if i := slices.Index(contextNames[:], name); i >= 0 {
		return 1 << i
	}
	return attrsContext - 1 // not in the schema: the validator refuses it
}

// language is the schema, resolved: what policies may say.
type language struct {
	validator *validate.Validator
	actions   types.EntityMap   // with their groups, as evaluation needs them
	askable   []types.EntityUID // the actions that a request can ask for, sorted
	schema    *resolved.Schema
}

func newLanguage() (*language, error) {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar([]byte(cedarSchema)); err != nil {
		return nil, fmt.Errorf("read the Cedar schema: %w", err)
	}
	r, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("resolve the Cedar schema: %w", err)
	}
	l := &language{validator: validate.New(r, validate.WithStrict()), actions: types.EntityMap{}, schema: r}
	for uid, a := range r.Actions {
		l.actions[uid] = a.Entity
		if a.AppliesTo != nil {
			l.askable = append(l.askable, uid)
		}
	}
	slices.SortFunc(l.askable, func(a, b types.EntityUID) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return l, nil
}

// parse reads Cedar text into rules. The rules' positions are relative to the text.
func parseCedar(text string) (cedar.PolicyList, error) {
	list, err := cedar.NewPolicyListFromBytes("", []byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "parser error: "))
	}
	return list, nil
}

// validate holds a policy to the schema, strictly. The errors are one for each finding.
func (l *language) validate(p *cedar.Policy) []error {
	err := l.validator.Policy("", (*ast.Policy)(p.AST()))
	if err == nil {
		return nil
	}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	if len(errs) > 1 { // a name that is not known fits no action, either
		errs = slices.DeleteFunc(errs, func(e error) bool { return strings.HasPrefix(e.Error(), "unable to find an applicable action") })
	}
	return errs
}

// annotation is one @key("value"), in the order written.
type annotation struct{ key, value string }

func annotations(p *cedar.Policy) []annotation {
	var out []annotation
	for _, a := range p.AST().Annotations {
		out = append(out, annotation{string(a.Key), string(a.Value)})
	}
	return out
}

// scope is what a policy's head says: whom, which actions, what. A zero
// principal or resource is any, or one known by its type only.
type scope struct {
	principal, resource types.EntityUID
	actions             []types.EntityUID // of those that can be asked for
}

func (l *language) scope(p *cedar.Policy) scope {
	a := p.AST()
	return scope{principal: scopeEntity(a.Principal), resource: scopeEntity(a.Resource), actions: l.scopeActions(a.Action)}
}

func scopeEntity(s ast.IsScopeNode) types.EntityUID {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity
	case ast.ScopeTypeIn:
		return s.Entity
	case ast.ScopeTypeIsIn:
		return s.Entity
	}
	return types.EntityUID{}
}

func (l *language) scopeActions(s ast.IsActionScopeNode) []types.EntityUID {
	var named []types.EntityUID
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return []types.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		named = []types.EntityUID{s.Entity}
	case ast.ScopeTypeInSet:
		named = s.Entities
	default:
		return l.askable
	}
	var out []types.EntityUID
	for _, a := range l.askable {
		if slices.ContainsFunc(named, func(n types.EntityUID) bool { return a == n || l.actions[a].Parents.Contains(n) }) {
			out = append(out, a)
		}
	}
	return out
}

// reads says which attributes the conditions of a policy read, and which they
// test for with has: these cannot be left out without changing the answer.
func reads(p *cedar.Policy) (read, tested attr) {
	for _, c := range p.AST().Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeAccess:
				if a, ok := member(n.Arg, n.Value); ok {
					read |= a
					return false
				}
			case ast.NodeTypeHas:
				if a, ok := member(n.Arg, n.Value); ok {
					read, tested = read|a, tested|a
					return false
				}
			case ast.NodeTypeVariable:
				if n.Name == "context" { // the record as a whole
					read, tested = read|(attrsContext-1), tested|(attrsContext-1)
				}
			}
			return true
		})
	}
	return read, tested
}

// member is the bit of variable.name.
func member(of ast.IsNode, name types.String) (attr, bool) {
	v, ok := of.(ast.NodeTypeVariable)
	if !ok {
		return 0, false
	}
	switch v.Name {
	case "context":
		return attrOf(name), true
	case "principal":
		return attrPrincipal, true
	case "resource":
		return attrResource, true
	}
	return 0, false
}

// named calls each with every entity of the types Group and Label that a
// policy names anywhere.
func named(p *cedar.Policy, each func(types.EntityUID)) {
	a := p.AST()
	for _, s := range []ast.IsScopeNode{a.Principal, a.Resource} {
		if e := scopeEntity(s); !e.IsZero() {
			each(e)
		}
	}
	for _, c := range a.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if v, ok := n.(ast.NodeValue); ok {
				if e, ok := v.Value.(types.EntityUID); ok {
					each(e)
				}
			}
			return true
		})
	}
}

// cures is what the unless clauses of a policy would accept.
type cures struct {
	approvals []string // literals in context.approvals.contains("…") that, alone or in a conjunction, make an unless true
	limits    []int64  // N of context.rowLimit <= N, likewise
	budget    bool     // context.budget > 0, likewise
	stray     attr     // approvals and budget, if they are read anywhere else: in when, under !, in other forms
}

// curesOf reads the conditions of a policy. An unless clause is a disjunction;
// each of its parts is a way to be cured.
func curesOf(p *cedar.Policy) cures {
	var c cures
	for _, cond := range p.AST().Conditions {
		if cond.Condition == ast.ConditionWhen {
			c.strays(cond.Body)
			continue
		}
		for _, part := range flatten[ast.NodeTypeOr](cond.Body) {
			for _, term := range flatten[ast.NodeTypeAnd](part) {
				if lit, ok := containsLiteral(term, "approvals"); ok {
					c.approvals = append(c.approvals, lit)
				} else if n, ok := atMost(term, "rowLimit"); ok {
					c.limits = append(c.limits, n)
				} else if someLeft(term) {
					c.budget = true
				} else {
					c.strays(term)
				}
			}
		}
	}
	return c
}

func (c *cures) strays(n ast.IsNode) {
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		if a, ok := n.(ast.NodeTypeAccess); ok {
			if bit, ok := member(a.Arg, a.Value); ok && (bit == attrApprovals || bit == attrBudget) {
				c.stray |= bit
			}
		}
		return true
	})
}

// flatten returns the parts of nested || or &&.
func flatten[T ast.NodeTypeOr | ast.NodeTypeAnd](n ast.IsNode) []ast.IsNode {
	if b, ok := any(n).(T); ok {
		var l, r ast.IsNode
		switch b := any(b).(type) {
		case ast.NodeTypeOr:
			l, r = b.Left, b.Right
		case ast.NodeTypeAnd:
			l, r = b.Left, b.Right
		}
		return append(flatten[T](l), flatten[T](r)...)
	}
	return []ast.IsNode{n}
}

// containsLiteral matches context.NAME.contains("literal").
func containsLiteral(n ast.IsNode, name types.String) (string, bool) {
	c, ok := n.(ast.NodeTypeContains)
	if !ok || !isContext(c.Left, name) {
		return "", false
	}
	return stringLiteral(c.Right)
}

// atMost matches context.NAME <= N.
func atMost(n ast.IsNode, name types.String) (int64, bool) {
	c, ok := n.(ast.NodeTypeLessThanOrEqual)
	if !ok || !isContext(c.Left, name) {
		return 0, false
	}
	v, ok := c.Right.(ast.NodeValue)
	if !ok {
		return 0, false
	}
	l, ok := v.Value.(types.Long)
	return int64(l), ok
}

// someLeft matches context.budget > 0.
func someLeft(n ast.IsNode) bool {
	c, ok := n.(ast.NodeTypeGreaterThan)
	if !ok || !isContext(c.Left, "budget") {
		return false
	}
	v, ok := c.Right.(ast.NodeValue)
	return ok && v.Value == types.Long(0)
}

func isContext(n ast.IsNode, name types.String) bool {
	a, ok := n.(ast.NodeTypeAccess)
	if !ok || a.Value != name {
		return false
	}
	v, ok := a.Arg.(ast.NodeTypeVariable)
	return ok && v.Name == "context"
}

func stringLiteral(n ast.IsNode) (string, bool) {
	v, ok := n.(ast.NodeValue)
	if !ok {
		return "", false
	}
	s, ok := v.Value.(types.String)
	return string(s), ok
}

// compared calls each with every string literal that a policy compares with an
// attribute of the context: context.kind == "X", ["X"].contains(context.kind),
// context.tables.contains("X"), context.tables.containsAny(["X"]).
func compared(p *cedar.Policy, each func(of attr, literal string)) {
	for _, c := range p.AST().Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if l, r, ok := operands(n); ok {
				comparedWith(l, r, each)
				comparedWith(r, l, each)
			}
			return true
		})
	}
}

func operands(n ast.IsNode) (l, r ast.IsNode, ok bool) {
	switch n := n.(type) {
	case ast.NodeTypeEquals:
		return n.Left, n.Right, true
	case ast.NodeTypeNotEquals:
		return n.Left, n.Right, true
	case ast.NodeTypeContains:
		return n.Left, n.Right, true
	case ast.NodeTypeContainsAny:
		return n.Left, n.Right, true
	case ast.NodeTypeContainsAll:
		return n.Left, n.Right, true
	}
	return nil, nil, false
}

func comparedWith(attribute, literals ast.IsNode, each func(attr, string)) {
	a, ok := attribute.(ast.NodeTypeAccess)
	if !ok {
		return
	}
	of, ok := member(a.Arg, a.Value)
	if !ok || of >= attrsContext {
		return
	}
	for _, s := range stringLiterals(literals) {
		each(of, s)
	}
}

// stringLiterals are the strings of a literal, or of a set of literals.
func stringLiterals(n ast.IsNode) []string {
	if s, ok := stringLiteral(n); ok {
		return []string{s}
	}
	var out []string
	switch n := n.(type) {
	case ast.NodeTypeSet:
		for _, e := range n.Elements {
			out = append(out, stringLiterals(e)...)
		}
	case ast.NodeValue:
		if set, ok := n.Value.(types.Set); ok {
			for v := range set.All() {
				if s, ok := v.(types.String); ok {
					out = append(out, string(s))
				}
			}
		}
	}
	return out
}

// RuleIDs are the ids of the rules in Cedar text, in the order written.
func RuleIDs(text string) ([]string, error) {
	list, err := parseCedar(text)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range list {
		for _, a := range annotations(p) {
			if a.key == "id" {
				ids = append(ids, a.value)
			}
		}
	}
	return ids, nil
}
