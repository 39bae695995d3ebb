package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

const (
	maxQuorum      = 20
	maxCureExpires = 7 * 24 * time.Hour
)

// rule is one Cedar policy, as decisions use it. It is immutable.
type rule struct {
	id     string
	file   string
	line   int
	of     string // name of the Policy resource that it stands in
	policy *cedar.Policy
	order  int // among all rules of the set, in the order written
	forbid bool
	scope  scope

	reads, tests attr // attributes that the conditions read, and test for with has

	reason  string        // @reason
	approve string        // @approve: the group that may cure it; "" if none may
	quorum  int           // @quorum, 1 by default
	expires time.Duration // @expires; 0 is the house's default
	limit   int64         // @row_limit; 0 is none
	before  bool          // @before
	mask    string        // @mask
	budget  *Budget       // @budget; nil is none
}

// cure is the question that would cure r.
func (r *rule) cure() Cure {
	return Cure{Rule: r.id, Group: r.approve, Quorum: r.quorum, Expires: r.expires, Reason: r.reason, Before: r.before}
}

// linter turns the Cedar text of Policy resources into rules, and reports what
// is wrong with it.
type linter struct {
	language *language
	problems Problems
	warnings Problems
	rules    []*rule
	byID     map[string]*rule
}

// at reports a problem of the rule that stands at file and line.
func (l *linter) at(r *rule, format string, args ...any) {
	l.problems = append(l.problems, r.problem(format, args...))
}

func (r *rule) problem(format string, args ...any) Problem {
	msg := fmt.Sprintf(format, args...)
	if r.id != "" {
		msg = "rule " + r.id + ": " + msg
	}
	return Problem{File: r.file, Line: r.line, Message: msg}
}

// add reads the Cedar text of one Policy.
func (l *linter) add(res *Resource, spec *PolicySpec) {
	file, first := place(res, spec)
	list, err := parseCedar(spec.Cedar)
	if err != nil {
		line, msg := cedarError(err)
		l.problems = append(l.problems, Problem{File: file, Line: first + line - 1, Field: "spec.cedar", Message: msg})
		return
	}
	if len(list) == 0 {
		l.problems = append(l.problems, Problem{File: file, Line: first, Field: "spec.cedar", Message: "holds no policy, only comments"})
	}
	for _, p := range list {
		r := &rule{of: res.Metadata.Name, file: file, line: first + p.Position().Line - 1, policy: p, order: len(l.rules), forbid: p.Effect() == cedar.Forbid,
			scope: l.language.scope(p), quorum: 1}
		r.reads, r.tests = reads(p)
		l.annotate(r)
		for _, err := range l.language.validate(p) {
			l.at(r, "%s", err)
		}
		l.cures(r)
		l.literals(r)
		l.rules = append(l.rules, r)
	}
}

// place is the file and the line on which the Cedar text of a Policy begins. A
// resource that was not read from a file is its own file.
func place(res *Resource, spec *PolicySpec) (file string, line int) {
	if res.Origin == "" || spec.Line == 0 {
		return res.ID(), 1
	}
	file = res.Origin
	if i := strings.LastIndexByte(file, ':'); i > 0 {
		file = file[:i]
	}
	return file, spec.Line
}

// cedarError takes the line off cedar-go's `parse error at <input>:1:56 "x": …`.
func cedarError(err error) (line int, msg string) {
	msg = err.Error()
	_, rest, ok := strings.Cut(msg, "<input>:")
	if !ok {
		return 1, msg
	}
	at, _, _ := strings.Cut(rest, " ")
	l, col, _ := strings.Cut(strings.TrimSuffix(at, ":"), ":")
	n, numErr := strconv.Atoi(l)
	if numErr != nil {
		return 1, msg
	}
	what := strings.TrimSpace(strings.TrimPrefix(rest, at))
	if _, found, ok := strings.Cut(what, "exact got "); ok {
		if got, want, ok := strings.Cut(found, " want "); ok { // it has read on by one token
			return n, fmt.Sprintf("not valid Cedar before column %s: found %q where %q belongs", col, got, want)
		}
	}
	return n, "not valid Cedar at column " + col + ": " + what
}

// knownAnnotations are all that a policy may carry. An unknown one is an
// error: @aprove would be a rule that nobody can cure.
var knownAnnotations = []string{"id", "reason", "approve", "quorum", "expires", "row_limit", "before", "mask", "budget"}

func (l *linter) annotate(r *rule) {
	list := annotations(r.policy)
	for _, a := range list {
		if a.key == "id" {
			r.id = a.value
		}
	}
	l.identify(r)
	for _, a := range list {
		if msg := r.set(a); msg != "" {
			l.at(r, "@%s %s", a.key, msg)
		}
	}
	has := func(key string) bool {
		return slices.ContainsFunc(list, func(a annotation) bool { return a.key == key })
	}
	for _, key := range []string{"quorum", "expires", "before"} {
		if has(key) && !has("approve") {
			l.at(r, "@%s means nothing without @approve", key)
		}
	}
	if has("before") && !has("row_limit") {
		l.at(r, "@before means nothing without @row_limit: people are always asked before it runs")
	}
	if has("budget") && has("row_limit") {
		l.at(r, "@budget and @row_limit do not fit on one rule: each cures it by itself; write two rules")
	}
	if !r.forbid {
		for _, key := range []string{"approve", "row_limit", "mask", "budget"} {
			if has(key) {
				l.at(r, "@%s belongs on a forbid: a permit with an obligation is undone by any wider permit", key)
			}
		}
	}
	l.applies(r)
}

// applies holds cures to actions that can be cured.
func (l *linter) applies(r *rule) {
	views := slices.ContainsFunc(r.scope.actions, func(a types.EntityUID) bool { return Action(a.ID) == ViewUnmasked })
	answers := slices.ContainsFunc(r.scope.actions, func(a types.EntityUID) bool { return Action(a.ID) == Approve })
	rows := slices.ContainsFunc(r.scope.actions, func(a types.EntityUID) bool { return Class(a.ID).known() })
	if r.mask != "" && !views {
		l.at(r, "@mask belongs on a forbid of viewUnmasked")
	}
	if r.limit > 0 && !rows {
		l.at(r, "@row_limit belongs on a forbid of read, write, export, schema or admin")
	}
	if r.budget != nil && (!rows || slices.ContainsFunc(r.scope.actions, func(a types.EntityUID) bool { return !Class(a.ID).known() })) {
		l.at(r, "@budget counts statements and their answers: name only read, write, export, schema, admin or statement in the rule's head")
	}
	if r.approve != "" && (views || answers) {
		l.at(r, "@approve cannot cure viewUnmasked or approve: name the actions that it is for in the rule's head")
	}
}

// known reports whether c is one of the classes, not merely ranked as the strictest.
func (c Class) known() bool {
	return c == Read || c == Write || c == Export || c == Schema || c == Admin
}

func (l *linter) identify(r *rule) {
	switch other := l.byID[r.id]; {
	case r.id == "":
		l.at(r, `has no @id("…"): every verdict in the evidence names its rules`)
	case !validName(strings.ToLower(r.id)):
		l.at(r, "@id is not a name: 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit")
	case other != nil:
		l.at(r, "@id is already taken by the rule at %s:%d", other.file, other.line)
	default:
		l.byID[r.id] = r
	}
}

// set keeps one annotation and returns what is wrong with it, "" if nothing.
func (r *rule) set(a annotation) string {
	switch a.key {
	case "id":
	case "reason":
		r.reason = a.value
		if strings.TrimSpace(a.value) == "" {
			return "is empty: say why, to the person who is refused"
		}
		if hasControl(a.value) {
			return "holds control characters"
		}
	case "approve":
		r.approve = a.value
		if !validGroup(a.value) {
			return fmt.Sprintf("%q is not a group", a.value)
		}
	case "quorum":
		n, err := strconv.Atoi(a.value)
		if err != nil || n < 1 || n > maxQuorum || strconv.Itoa(n) != a.value {
			return fmt.Sprintf("is %q; a number of people, 1 to %d", a.value, maxQuorum)
		}
		r.quorum = n
	case "expires":
		d, err := time.ParseDuration(a.value)
		if err != nil || d <= 0 || d > maxCureExpires {
			return fmt.Sprintf("is %q; how long the question stands, as in 15m, at most %s", a.value, Duration(maxCureExpires))
		}
		r.expires = d
	case "row_limit":
		n, err := strconv.ParseInt(a.value, 10, 64)
		if err != nil || n < 1 || strconv.FormatInt(n, 10) != a.value {
			return fmt.Sprintf("is %q; a number of rows, 1 or more", a.value)
		}
		r.limit = n
	case "budget":
		b, err := parseBudget(a.value)
		r.budget = &b
		if err != nil {
			return err.Error()
		}
	case "before":
		r.before = true
		if a.value != "" && a.value != "true" {
			return fmt.Sprintf("is %q; it takes no value", a.value)
		}
	case "mask":
		r.mask = a.value
		return maskProblem(a.value)
	default:
		return "is not known" + didYouMean(a.key, knownAnnotations) + "; known are @" + strings.Join(knownAnnotations, " @")
	}
	return ""
}

func maskProblem(method string) string {
	if method == "hash" {
		return "hash is refused: anyone can hash all nine-digit numbers and look it up; use token"
	}
	if !slices.Contains(Methods(), method) {
		return fmt.Sprintf("is %q%s; one of %s", method, didYouMean(method, Methods()), strings.Join(Methods(), ", "))
	}
	return ""
}

// cures holds each cure annotation to the literal that proves it, and each
// such literal to an annotation: a rule that asks for what it would not accept
// could never be met, and one that accepts what is never asked could be met by
// another rule's approval.
func (l *linter) cures(r *rule) {
	c := curesOf(r.policy)
	want := r.cure().Approval()
	if r.approve != "" && r.forbid && len(c.approvals) == 0 {
		l.at(r, `@approve("%s") has no matching cure: the rule needs unless { context.approvals.contains("%s") }`, r.approve, want)
	}
	for _, a := range c.approvals {
		switch {
		case !r.forbid:
			l.at(r, "a permit must not depend on approvals: write a forbid with @approve")
		case r.approve == "":
			l.at(r, "is cured by the approval %q, which nobody is asked for: add @approve", a)
		case a != want:
			l.at(r, "is cured by the approval %q, but its annotations ask for %q", a, want)
		}
	}
	l.budgetCure(r, &c)
	if c.stray&attrApprovals != 0 && !r.forbid {
		l.at(r, "a permit must not depend on approvals: write a forbid with @approve")
	} else if c.stray&attrApprovals != 0 {
		l.at(r, `context.approvals may only be read as unless { context.approvals.contains("%s") }`, want)
	}
	if r.limit > 0 && r.forbid && len(c.limits) == 0 {
		l.at(r, `@row_limit("%d") has no matching cure: the rule needs unless { context has rowLimit && context.rowLimit <= %d }`, r.limit, r.limit)
	}
	for _, n := range c.limits {
		if r.limit > 0 && n != r.limit {
			l.at(r, "is cured by a row limit of %d, but @row_limit says %d", n, r.limit)
		}
	}
}

// budgetCure holds @budget to its proof. A rule that reads a budget which
// nobody counts would never fire, or always.
func (l *linter) budgetCure(r *rule, c *cures) {
	const proof = "unless { context has budget && context.budget > 0 }"
	switch {
	case r.budget == nil && (c.budget || c.stray&attrBudget != 0):
		l.at(r, `reads context.budget, but nothing is counted for it: add @budget("1000 rows per hour")`)
	case r.budget != nil && r.forbid && !c.budget:
		l.at(r, "@budget has no matching cure: the rule needs %s", proof)
	case c.stray&attrBudget != 0:
		l.at(r, "context.budget may only be read as %s", proof)
	}
	if r.budget != nil {
		r.budget.Rule, r.budget.Reason = r.id, r.reason
	}
}

// literals finds strings that no request can ever equal. A forbid with such a
// typo would be valid Cedar, and never fire.
func (l *linter) literals(r *rule) {
	compared(r.policy, func(of attr, s string) {
		if msg := literalProblem(of, s); msg != "" {
			l.at(r, "%s", msg)
		}
	})
}

func literalProblem(of attr, s string) string {
	switch of {
	case attrKind:
		if s != strings.ToUpper(s) || s == "" {
			return fmt.Sprintf("context.kind is in capitals and never %q; write %q", s, strings.ToUpper(s))
		}
	case attrTables, attrFunctions:
		if n := strings.Count(s, "."); n < 1 {
			return fmt.Sprintf("tables and functions are named schema.name and never %q; write %q", s, "public."+s)
		}
	case attrColumns, attrPredicateColumns, attrWriteColumns:
		if n := strings.Count(s, "."); n < 2 {
			return fmt.Sprintf("columns are named schema.table.column and never %q", s)
		}
	case attrVia:
		known := []string{"forward", "native", "exec", "api"}
		if !slices.Contains(known, s) {
			return fmt.Sprintf("context.via is never %q%s; one of %s", s, didYouMean(s, known), strings.Join(known, ", "))
		}
	}
	return ""
}

// vocabulary is the groups and labels that a set knows of besides its rules.
type vocabulary struct {
	targets bool            // there are targets, so that labels can be known
	labels  map[string]bool // "env=dev"
	groups  map[string]bool
}

// names holds the groups and labels that rules name to those known elsewhere.
// A misspelt label is valid Cedar; in a permit it gives nobody anything, in a
// forbid it forbids nothing, so there it is refused. What only looks
// unfamiliar is a warning: groups come from the identity provider, and targets
// come later than the rules for them.
func (l *linter) names(v *vocabulary) {
	mentions := map[types.EntityUID]map[*rule]bool{}
	for _, r := range l.rules {
		named(r.policy, func(e types.EntityUID) {
			if mentions[e] == nil {
				mentions[e] = map[*rule]bool{}
			}
			mentions[e][r] = true
		})
	}
	for _, r := range l.rules {
		seen := map[types.EntityUID]bool{}
		named(r.policy, func(e types.EntityUID) {
			if !seen[e] {
				seen[e] = true
				l.name(r, e, v, len(mentions[e]) > 1)
			}
		})
		if near := v.misspelt(v.groups, r.approve); r.approve != "" && near != "" {
			l.warnings = append(l.warnings, r.problem("group %q of @approve is named nowhere else; did you mean %q?", r.approve, near))
		}
	}
}

func (l *linter) name(r *rule, e types.EntityUID, v *vocabulary, repeated bool) {
	name := string(e.ID)
	switch e.Type {
	case typeLabel:
		key, value, ok := strings.Cut(name, "=")
		if !ok || key == "" || value == "" {
			l.at(r, "%q is not a label: write key=value, as in env=prod", name)
		} else if v.targets && !v.labels[name] && !repeated {
			l.unknownLabel(r, name, v)
		}
	case typeGroup:
		near := v.misspelt(v.groups, name)
		switch {
		case near == "" || repeated:
		case r.forbid:
			l.at(r, "group %q is named nowhere else; did you mean %q?", name, near)
		default:
			l.warnings = append(l.warnings, r.problem("group %q is named nowhere else; did you mean %q?", name, near))
		}
	}
}

// unknownLabel is about a label that nothing else in the set names. In a
// forbid it is refused if its key is unknown or its value is one slip from one
// that is known; else it may well be for targets to come.
func (l *linter) unknownLabel(r *rule, name string, v *vocabulary) {
	near := v.misspelt(v.labels, name)
	known := slices.ContainsFunc(keys(v.labels), func(have string) bool {
		key, _, _ := strings.Cut(have, "=")
		return strings.HasPrefix(name, key+"=")
	})
	switch {
	case near != "" && r.forbid:
		l.at(r, "no target carries the label %q, so that this forbid would forbid nothing; did you mean %q?", name, near)
	case !known && r.forbid:
		l.at(r, "no target carries a label like %q, so that this forbid would forbid nothing; known labels are %s. If its targets are still to come, name it in a GrantRule's or Classification's matchLabels",
			name, strings.Join(keys(v.labels), ", "))
	default:
		l.warnings = append(l.warnings, r.problem("no target carries the label %q%s", name, didYouMean(name, keys(v.labels))))
	}
}

// misspelt returns the known word that an unknown one was probably meant to
// be. Words that differ in digits only (team1, team2) are different on purpose.
func (v *vocabulary) misspelt(known map[string]bool, word string) string {
	if known[word] {
		return ""
	}
	near := nearest(word, keys(known))
	digits := func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}
	if strings.Map(digits, near) == strings.Map(digits, word) {
		return ""
	}
	return near
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
