package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// defaultGrantFor is the most that a grant lasts where no GrantRule says.
const defaultGrantFor = time.Hour

// GrantVerdict is the answer to who asks for a grant: the verdict of connect
// under the GrantRule that fits. The zero value denies.
type GrantVerdict struct {
	Verdict
	// GrantRule is the name of the rule that the grant is under; "" if none
	// matched and Cedar alone decided.
	GrantRule string
	// For is how long the grant is to be issued for: what was asked, at most
	// MaxFor; MaxFor if nothing was asked.
	For, MaxFor time.Duration
	// Missing are the fields that the rule requires and the request lacks:
	// reason, ticket, purpose. While there are any, the effect is Deny.
	Missing []string
	// Standing grants do not expire; Owner looks at them again by ReviewBy,
	// and Lapse says what happens if nobody does: page or cut.
	Standing bool
	Owner    string
	ReviewBy time.Time
	Lapse    string
	// Idle and Grace are the rule's own, nil where it says nothing. Recording
	// is "" likewise.
	Idle, Grace *time.Duration
	Recording   string
}

// grantRulePrefix begins the Rule of a cure that a GrantRule asks for. No @id can.
const grantRulePrefix = "grantrule:"

// Grant decides whether the principal may have a grant on the target. Of the
// GrantRules that match its groups and the target, one counts, in this order:
//
//  1. the longest of those that need no approval and allow the asked duration;
//  2. the longest of those that need approval and allow it;
//  3. the longest that needs no approval, capping the duration;
//  4. the longest that needs approval, capping it.
//
// Equals go by name. Without a matching rule, Cedar's connect decides alone:
// at most one hour, not standing, nothing required. A rule never widens what
// Cedar says: connect is decided with the duration that would be issued, and
// must be allowed, or cured together with the rule's own approval.
// r.Action is taken as Connect; r.Duration 0 asks for the most.
func (s *Set) Grant(r Request) GrantVerdict {
	r.Action = Connect
	if s == nil {
		return GrantVerdict{Verdict: s.Decide(r)}
	}
	groups := r.Principal.Groups
	if r.Principal.Kind == Service {
		groups = nil
		if sv := s.service(r.Principal); sv != nil {
			groups = sv.spec.Groups
		}
	}
	g := GrantVerdict{MaxFor: defaultGrantFor}
	rule := s.grantRule(groups, r.Target, r.Duration)
	if rule != nil {
		g.under(rule)
	}
	g.For = g.MaxFor
	if r.Duration > 0 {
		g.For = min(r.Duration, g.MaxFor)
	}
	r.Duration = g.For
	g.Verdict = s.Decide(r)
	if rule == nil || g.Effect == Deny {
		return g
	}
	if g.require(rule.spec.Require, &r); g.Effect == Deny {
		return g
	}
	g.approve(rule, r.Approvals)
	return g
}

// under copies what the rule says of the grant.
func (g *GrantVerdict) under(r *grantRule) {
	spec := r.spec
	g.GrantRule, g.MaxFor, g.Standing, g.Owner, g.Lapse, g.Recording = r.name, r.maxFor(), spec.Standing, spec.Owner, spec.Lapse, spec.Recording
	if g.Standing && g.Lapse == "" {
		g.Lapse = lapses[0]
	}
	if t, err := ParseDate(spec.ReviewBy); err == nil {
		g.ReviewBy = t
	}
	g.Idle, g.Grace = (*time.Duration)(spec.Idle), (*time.Duration)(spec.Grace)
}

func (r *grantRule) maxFor() time.Duration {
	if r.spec.MaxFor > 0 {
		return time.Duration(r.spec.MaxFor)
	}
	return defaultGrantFor
}

// grantRule picks the rule that counts; see Grant for the order.
func (s *Set) grantRule(groups []string, t TargetRef, asked time.Duration) *grantRule {
	var best *grantRule
	bestClass := 0
	for i := range s.grantRules { // sorted by name
		r := &s.grantRules[i]
		if !r.spec.Targets.Matches(t) || !slices.ContainsFunc(r.spec.Groups, func(g string) bool { return slices.Contains(groups, g) }) {
			continue
		}
		class := 1
		if r.spec.Approve != nil {
			class++
		}
		if asked > r.maxFor() {
			class += 2
		}
		if best == nil || class < bestClass || class == bestClass && r.maxFor() > best.maxFor() {
			best, bestClass = r, class
		}
	}
	return best
}

// require denies while fields are missing.
func (g *GrantVerdict) require(fields []string, r *Request) {
	have := map[string]string{"reason": r.Reason, "ticket": r.Ticket, "purpose": r.Purpose}
	for _, f := range fields {
		if strings.TrimSpace(have[f]) == "" {
			g.Missing = append(g.Missing, f)
		}
	}
	if len(g.Missing) == 0 {
		return
	}
	flags := make([]string, len(g.Missing))
	for i, f := range g.Missing {
		flags[i] = "--" + f
	}
	g.Verdict = Verdict{Rules: append([]string{grantRulePrefix + g.GrantRule}, g.Rules...), Digest: g.Digest,
		Reason: fmt.Sprintf("a grant on %s needs a %s", r.Target.Name, strings.Join(g.Missing, " and a ")), Hint: "say it with " + strings.Join(flags, " and ")}
}

// approve adds the rule's own questions: each of its groups must answer, each
// with the rule's quorum.
func (g *GrantVerdict) approve(r *grantRule, approvals []string) {
	if r.spec.Approve == nil {
		return
	}
	var mine []Cure
	for _, group := range r.spec.Approve.Groups {
		c := Cure{Rule: grantRulePrefix + r.name, Group: group, Quorum: max(1, r.spec.Approve.Quorum), Reason: "grants under rule " + r.name + " are approved"}
		if !slices.Contains(approvals, c.Approval()) {
			mine = append(mine, c)
		}
	}
	if len(mine) == 0 {
		return
	}
	g.Effect, g.Cacheable = Review, false
	g.Rules = append([]string{grantRulePrefix + r.name}, g.Rules...)
	g.Cures = append(slices.Clone(g.Cures), mine...)
	g.Hint = waits(g.Cures)
	if g.Reason == "" {
		g.Reason = mine[0].Reason
	}
}

// MayAnswer decides whether a person may answer a question, and if not says
// why. approver is a request by that person: its Action is taken as Approve,
// its Target is the one that the question is about, its Owner the requester's
// ID, its Object the question's name. chain are the IDs (or names) of those
// who may not answer it: the requester, the owner of a service, the person
// whom an assistant acts for.
//
// The right to answer comes from the cure itself: the policy that says
// @approve("dba") has said that members of dba may. So a person may answer who
// is a User, a member of the cure's group, and not in the chain, unless a
// Cedar forbid of the action approve fires (an evaluation error counts as
// one). A permit is not needed, and a permit alone gives nobody the right.
func (s *Set) MayAnswer(approver Request, chain []string, c Cure) (ok bool, why string) {
	p := approver.Principal
	switch {
	case s == nil:
		return false, "no policies are loaded"
	case p.Kind != User:
		return false, "only people answer"
	case c.Group == "" || !p.In(c.Group):
		return false, "only members of " + c.Group + " may answer this"
	case slices.Contains(chain, p.ID()) || p.Name != "" && slices.Contains(chain, p.Name) || approver.Owner == p.ID():
		return false, "nobody answers their own request"
	}
	approver.Action, approver.ObjectKind = Approve, "request"
	q, refused := s.ask(&approver)
	if q == nil {
		return false, refused.Reason
	}
	f := q.evaluate()
	switch {
	case f.failed != nil:
		return false, "rule " + f.failed.id + " could not be evaluated: " + f.err
	case len(f.forbids) > 0:
		if r := f.forbids[0]; r.reason != "" {
			return false, r.reason + " (rule " + r.id + ")"
		}
		return false, "rule " + f.forbids[0].id + " forbids it"
	}
	return true, ""
}
