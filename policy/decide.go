package policy

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// Rules that are not Cedar's but the house's own. No @id can take such a name.
const (
	RuleRequest = "house:request" // the request itself cannot be decided
	RuleDefault = "house:default" // no permit fired
	RuleError   = "house:error"   // a rule could not be evaluated
	RuleService = "house:service" // the statement list of a Service
)

// Decide answers a request. It is a pure function of the set and the request:
//
//   - A request that is not whole, a service without its Service resource, and
//     a service's statement that is not on its list are denied.
//   - A rule that cannot be evaluated denies, whatever the others say.
//   - Without a permit that fires it is denied; a forbid that fires and cannot
//     be cured denies.
//   - Forbids that fire combine with AND: each must be cured. The annotations of
//     one forbid are alternatives, tried in this order: its @row_limit (unless
//     @before), by deciding again with the smallest limit in the context; then
//     its @approve. Before people are asked, it is decided once more as if they
//     had all said yes: what would still be denied is denied at once.
//
// Allow with a RowLimit may start; at row RowLimit+1 the Cures, if there are
// any, are asked and the request decided again with their approvals, else the
// stream is cut. Review must not start before all Cures are answered.
//
// A cacheable verdict stands for every request with the same principal (with
// groups and MFA), action, target, purpose, via, facts, transaction position,
// number of statements and row limit, as long as neither carries approvals.
func (s *Set) Decide(r Request) Verdict {
	v := s.decide(&r)
	v.Digest = s.Digest()
	return v
}

func (s *Set) decide(r *Request) Verdict {
	if s == nil {
		return deny(RuleRequest, "no policies are loaded", "apply policies first: hoopctl apply -f FOLDER")
	}
	if r.Action == ViewUnmasked {
		return s.decideView(r)
	}
	q, refused := s.ask(r)
	if q == nil {
		return refused
	}
	return q.masking(q.settle())
}

func deny(rule, reason, hint string) Verdict {
	return Verdict{Effect: Deny, Rules: []string{rule}, Reason: reason, Hint: hint}
}

// ask makes a question of a request, or refuses it.
func (s *Set) ask(r *Request) (*question, Verdict) {
	if r.ObjectKind == "target" && r.Target.Name == "" {
		// The caller knows the target by its name only.
		named := *r
		if named.Target, _, _ = s.Target(r.Object); named.Target.Name == "" {
			named.Target.Name = r.Object
		}
		r = &named
	}
	if why := incomplete(r); why != "" {
		return nil, deny(RuleRequest, why, "this is a fault of the broker; nothing was sent to the target")
	}
	principal := r.Principal
	if principal.Kind == Service {
		sv := s.service(principal)
		if sv == nil {
			return nil, deny(RuleService, fmt.Sprintf("no Service resource names %s of issuer %s", principal.Name, principal.Issuer), "an admin applies a Service resource for it")
		}
		if !sv.lists(r) {
			return nil, deny(RuleService, fmt.Sprintf("service %s may only run its listed statements", sv.name),
				"add "+r.Statement.Fingerprint+" to the statements of Service "+sv.name+" after review")
		}
		// The resource is what counts, not what the workload's token said.
		principal.Groups, principal.Owner = sv.spec.Groups, sv.spec.Owner
	}
	return s.question(r, principal), Verdict{}
}

// incomplete says what a request lacks to be decided, "" if nothing.
func incomplete(r *Request) string {
	class := Class(r.Action)
	switch {
	case r.Principal.Kind != User && r.Principal.Kind != Service:
		return "nobody asks"
	case r.Principal.Issuer == "" || r.Principal.Subject == "":
		return "the principal has no identity"
	case r.Principal.Kind == Service && r.Principal.Name == "":
		return "the service has no name"
	case r.Target.Name == "" && (class.known() || r.Action == Connect || r.Action == ViewUnmasked || r.ObjectKind == "" || r.ObjectKind == "target"):
		return "no target is named"
	case class.known() && (r.Statement == nil || r.Statement.Facts == nil):
		return "there is no statement"
	case class.known() && r.Statement.Class != class:
		return "the statement's class is not the one that was asked for"
	}
	return ""
}

// question is a request in Cedar's words, with the rules in its scope.
type question struct {
	set       *Set
	request   *Request
	principal Principal
	uid       types.Request // without context
	entities  entities

	permits, forbids []*rule
	limits           []*rule // the forbids with a budget
	reads, tests     attr    // of all rules in scope

	approvals []string
	limit     int64 // row limit in the context; 0 is none
	budget    int64 // what is left of the budget of the rule that is evaluated,
	budgeted  bool  // if it has one
	ahead     bool  // this is the look ahead: do not look further
	read      attr  // volatile attributes that were read
}

// entities are the few that one request is about. It implements
// types.EntityGetter.
type entities struct {
	principal, resource types.Entity
	target              types.Entity // of a resource that belongs to one
	actions             types.EntityMap
}

func (e *entities) Get(uid types.EntityUID) (types.Entity, bool) {
	switch {
	case uid == e.principal.UID:
		return e.principal, true
	case uid == e.resource.UID:
		return e.resource, true
	case uid == e.target.UID:
		return e.target, true
	case uid.Type == typeAction:
		a, ok := e.actions[uid]
		return a, ok
	}
	return types.Entity{}, false
}

// question finds the rules in scope and builds the entities that they need.
func (s *Set) question(r *Request, principal Principal) *question {
	q := &question{set: s, request: r, principal: principal, approvals: r.Approvals, limit: leastLimit(r)}
	q.uid.Action = types.NewEntityUID(typeAction, types.String(r.Action))
	q.entities.actions = s.actions
	q.principalEntity()
	q.resourceEntity()
	q.scope()
	if q.reads&attrPrincipal != 0 {
		q.entities.principal.Attributes = s.principalAttributes(&q.principal, r.Purpose)
	}
	return q
}

func leastLimit(r *Request) int64 {
	limit := r.RowLimit
	if r.Statement != nil && r.Statement.RowLimit > 0 && (limit == 0 || r.Statement.RowLimit < limit) {
		limit = r.Statement.RowLimit
	}
	return limit
}

// scope looks up the rules whose heads can match.
func (q *question) scope() {
	index := q.set.index[q.uid.Action]
	if len(index) == 0 {
		return
	}
	var buf [16]types.EntityUID
	resources := append(buf[:0], types.EntityUID{}, q.uid.Resource)
	for p := range q.entities.resource.Parents.All() {
		resources = append(resources, p)
	}
	if q.entities.target.UID != q.uid.Resource {
		for p := range q.entities.target.Parents.All() {
			resources = append(resources, p)
		}
	}
	q.collect(index, types.EntityUID{}, resources)
	q.collect(index, q.uid.Principal, resources)
	for g := range q.entities.principal.Parents.All() {
		q.collect(index, g, resources)
	}
}

func (q *question) collect(index scopes, principal types.EntityUID, resources []types.EntityUID) {
	for _, r := range resources {
		b := index[scopeKey{principal, r}]
		if b == nil {
			continue
		}
		q.permits, q.forbids, q.limits = append(q.permits, b.permits...), append(q.forbids, b.forbids...), append(q.limits, b.limits...)
		for _, list := range [...][]*rule{b.permits, b.forbids, b.limits} {
			for _, rule := range list {
				q.reads, q.tests = q.reads|rule.reads, q.tests|rule.tests
			}
		}
	}
}

// candidates are the rules that one evaluation looks at; cedar.Authorize reads
// them through All.
type candidates []*rule

func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range c {
			if !yield(cedar.PolicyID(r.id), r.policy) {
				return
			}
		}
	}
}

// fired is what one evaluation found.
type fired struct {
	permits, forbids []*rule // in the order written, of the forbids those with a budget last
	meters           []*rule // forbids that only what is left of their budget keeps quiet
	failed           *rule   // the first rule that could not be evaluated
	err              string
}

// evaluate runs the rules in scope. Attributes that change from run to run are
// left out at first: only if a rule stumbles over one is everything evaluated
// with them, and the verdict known to depend on it. That is exact where the
// text of a rule is not, because most conditions never get as far as their
// approvals.
func (q *question) evaluate() fired {
	if q.reads&volatile != 0 && q.tests&volatile == 0 {
		if f := q.run(q.reads &^ volatile); f.failed == nil {
			return f
		}
	}
	f := q.run(q.reads)
	q.read |= q.reads & volatile
	return f
}

func (q *question) run(with attr) fired {
	req := q.uid
	req.Context = q.context(with)
	var f fired
	q.authorize(candidates(q.permits), req, &f, &f.permits)
	q.authorize(candidates(q.forbids), req, &f, &f.forbids)
	for _, r := range q.limits {
		q.meter(r, with, q.uid, &f)
	}
	return f
}

func (q *question) authorize(c candidates, req types.Request, f *fired, into *[]*rule) {
	if len(c) == 0 {
		return
	}
	_, diag := cedar.Authorize(c, &q.entities, req)
	for _, reason := range diag.Reasons {
		*into = append(*into, q.set.byID[string(reason.PolicyID)])
	}
	slices.SortFunc(*into, func(a, b *rule) int { return a.order - b.order })
	for _, e := range diag.Errors {
		if r := q.set.byID[string(e.PolicyID)]; f.failed == nil || r.order < f.failed.order {
			f.failed, f.err = r, e.Message
		}
	}
}

// settle decides, curing what can be cured by a row limit and asking for what
// people can cure.
func (q *question) settle() Verdict {
	base := q.limit
	f := q.evaluate()
	before := f.forbids
	for f.failed == nil && q.lower(f.forbids) {
		f = q.evaluate()
		before = merge(before, f.forbids)
	}
	limited := without(before, f.forbids)
	if len(limited) == 0 {
		q.limit = base // lowering it helped nobody
	}
	v := q.verdict(f, limited)
	v.RowLimit = 0
	if v.Effect != Deny {
		v.RowLimit = q.limit
	}
	v.Cacheable = v.Effect != Review && len(q.request.Approvals) == 0 && len(q.request.Left) == 0 && q.read&^attrApprovals == 0
	if v.Effect != Deny {
		v.Meters = budgets(f.meters)
	}
	return v
}

// lower takes the smallest @row_limit of the forbids that fire as the limit
// and reports whether that is new.
func (q *question) lower(forbids []*rule) bool {
	if q.request.Statement == nil {
		return false
	}
	least := q.limit
	for _, r := range forbids {
		if r.limit > 0 && !r.before && (least == 0 || r.limit < least) {
			least = r.limit
		}
	}
	lowered := least != q.limit
	q.limit = least
	return lowered
}

func merge(a, b []*rule) []*rule {
	out := slices.Clone(a)
	for _, r := range b {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

func without(a, b []*rule) []*rule {
	var out []*rule
	for _, r := range a {
		if !slices.Contains(b, r) {
			out = append(out, r)
		}
	}
	return out
}

// verdict puts what fired into a verdict. limited are the forbids that only
// the row limit keeps quiet.
func (q *question) verdict(f fired, limited []*rule) Verdict {
	if f.failed != nil {
		return Verdict{Rules: []string{f.failed.id, RuleError}, Reason: fmt.Sprintf("rule %s could not be evaluated: %s", f.failed.id, f.err),
			Hint: "whoever writes the policies must correct it; until then what it might forbid is denied"}
	}
	for _, r := range f.forbids {
		switch {
		case r.approve != "":
		case r.budget != nil:
			return q.exhausted(r, f.forbids)
		default:
			return q.forbidden(r, f.forbids)
		}
	}
	switch {
	case len(f.permits) == 0:
		return q.unpermitted(f.forbids)
	case len(f.forbids) > 0:
		return q.review(f)
	default:
		return q.allowed(f, limited)
	}
}

func (q *question) forbidden(r *rule, all []*rule) Verdict {
	v := Verdict{Rules: ids([]*rule{r}, all), Reason: r.reason, Hint: "rule " + r.id + " forbids it; see hoopctl explain " + q.request.Target.Name}
	if v.Reason == "" {
		v.Reason = "rule " + r.id + " forbids it"
	}
	if r.limit > 0 && q.request.Statement != nil {
		v.Hint = fmt.Sprintf("rule %s allows %d rows, and no limit on rows bounds what this statement shows; select rows instead of an aggregate", r.id, r.limit)
	}
	return v
}

// unpermitted says that nothing allows it, and whom it is allowed to.
func (q *question) unpermitted(forbids []*rule) Verdict {
	v := Verdict{Rules: ids(nil, forbids), Reason: "no rule lets " + q.principalName() + " " + q.doing()}
	v.Rules = append([]string{RuleDefault}, v.Rules...)
	if groups := q.permittedGroups(); len(groups) > 0 {
		v.Hint = "it is open to " + groupList(groups) + "; ask an admin whether you belong there"
	} else {
		v.Hint = "no rule opens it to anyone; ask an admin to write one"
	}
	return v
}

func (q *question) principalName() string {
	if q.principal.Name != "" {
		return q.principal.Name
	}
	return q.principal.ID()
}

// doing is the request in words: "run write statements on clinic".
func (q *question) doing() string {
	on := q.request.Target.Name
	switch {
	case q.request.ObjectKind == "server":
		on = "the server"
	case on == "":
		on = strings.TrimSpace("any " + q.request.ObjectKind)
	}
	switch a := q.request.Action; {
	case a == Connect:
		return "connect to " + on
	case Class(a).known():
		return "run " + string(a) + " statements on " + on
	default:
		return string(a) + " on " + on
	}
}

// permittedGroups are the groups that a permit for this action and target names.
func (q *question) permittedGroups() []string {
	var groups []string
	for key, b := range q.set.index[q.uid.Action] {
		if len(b.permits) == 0 || key.principal.Type != typeGroup || !q.inResource(key.resource) {
			continue
		}
		groups = append(groups, string(key.principal.ID))
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

func (q *question) inResource(uid types.EntityUID) bool {
	return uid.IsZero() || uid == q.uid.Resource || q.entities.resource.Parents.Contains(uid) || q.entities.target.Parents.Contains(uid)
}

func groupList(groups []string) string {
	if len(groups) == 1 {
		return "group " + groups[0]
	}
	return "groups " + strings.Join(groups[:len(groups)-1], ", ") + " and " + groups[len(groups)-1]
}

func (q *question) review(f fired) Verdict {
	v := Verdict{Effect: Review, Rules: ids(f.forbids, f.permits), Cures: curesFor(f.forbids)}
	if q.ahead {
		return v
	}
	after := q.after(v.Cures)
	if after.Effect != Allow {
		if after.Effect == Review {
			after = q.forbidden(f.forbids[0], f.forbids)
			after.Hint = "no approval would satisfy rule " + f.forbids[0].id + " here"
		}
		return Verdict{Rules: after.Rules, Reason: after.Reason, Hint: after.Hint}
	}
	v.Reason = reasons(f.forbids)
	v.Hint = waits(v.Cures)
	return v
}

func (q *question) allowed(f fired, limited []*rule) Verdict {
	v := Verdict{Effect: Allow, Rules: ids(f.permits, append(slices.Clone(limited), f.meters...))}
	if len(limited) == 0 {
		return v
	}
	v.Reason = reasons(limited)
	var stops []*rule // the forbids that fire again at the row after the limit
	for _, r := range limited {
		if r.limit == q.limit {
			stops = append(stops, r)
		}
	}
	if len(stops) == 0 || slices.ContainsFunc(stops, func(r *rule) bool { return r.approve == "" }) {
		return v
	}
	if cures := curesFor(stops); q.ahead || q.after(cures).Effect != Deny {
		v.Cures = cures
		v.Hint = fmt.Sprintf("after %d rows: %s", q.limit, waits(cures))
	}
	return v
}

// after decides as if the cures had been answered with yes.
func (q *question) after(cures []Cure) Verdict {
	next := *q
	next.ahead, next.limit = true, leastLimit(q.request)
	next.approvals = slices.Clone(q.approvals)
	for _, c := range cures {
		if slices.Contains(q.approvals, c.Approval()) {
			return Verdict{Effect: Review} // it was answered, and did not cure
		}
		next.approvals = append(next.approvals, c.Approval())
	}
	return next.settle()
}

func curesFor(rules []*rule) []Cure {
	out := make([]Cure, len(rules))
	for i, r := range rules {
		out[i] = r.cure()
	}
	return out
}

// ids are the names of rules, the first ones first, each once.
func ids(first, then []*rule) []string {
	out := make([]string, 0, len(first)+len(then))
	for _, r := range first {
		out = append(out, r.id)
	}
	for _, r := range then {
		if !slices.Contains(first, r) {
			out = append(out, r.id)
		}
	}
	return out
}

func reasons(rules []*rule) string {
	var out []string
	for _, r := range rules {
		if r.reason != "" && !slices.Contains(out, r.reason) {
			out = append(out, r.reason)
		}
	}
	if len(out) == 0 {
		return "rule " + rules[0].id + " asks for it"
	}
	return strings.Join(out, "; ")
}

// waits says who must answer: "dba must approve (2 people)".
func waits(cures []Cure) string {
	out := make([]string, 0, len(cures))
	for _, c := range cures {
		w := c.Group + " must approve (rule " + c.Rule
		if c.Quorum > 1 {
			w += fmt.Sprintf(", %d people", c.Quorum)
		}
		out = append(out, w+")")
	}
	return strings.Join(out, " and ")
}
