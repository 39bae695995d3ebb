package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// postExplain says what would happen. Nothing is sent to the target, so names
// are as they are searched and no catalogue confirms them.
func (s *Server) postExplain(c *call) (any, error) {
	q, err := read[api.Explain](c)
	if err != nil {
		return nil, err
	}
	res, ok := s.resources.get(policy.KindTarget, q.Target)
	if !ok {
		return nil, notFound("target", q.Target)
	}
	ref := targetRef(res)
	if q.SQL == "" {
		return s.explainVerb(c, q, ref)
	}
	facts, err := s.parser.Facts(c.Context(), c.who.ID(), q.SQL)
	if err != nil {
		return nil, parseError(err)
	}
	out := api.Explained{Allowed: true, Statements: []api.ExplainedStatement{}}
	for _, f := range facts {
		e, err := s.explainStatement(c, q, ref, f, len(facts))
		if err != nil {
			return nil, err
		}
		out.Allowed = out.Allowed && e.Verdict == policy.Allow.String()
		out.Statements = append(out.Statements, e)
	}
	return out, nil
}

// explainVerb answers `auth can-i VERB TARGET`.
func (s *Server) explainVerb(c *call, q api.Explain, ref policy.TargetRef) (any, error) {
	verb := policy.Action(q.Verb)
	if !slices.Contains(verbs, verb) {
		return nil, invalid("unknown verb %q: one of %s", q.Verb, joinVerbs())
	}
	if verb == policy.Connect {
		return s.explainConnect(c, ref), nil
	}
	req := policy.Request{Principal: c.who, Action: verb, Target: ref, Object: ref.Name, ObjectKind: "target", Now: s.now(), SourceIP: c.source.Addr(), Via: "api"}
	if st := statementFor(verb); st != nil {
		req.Statement = st
	}
	v, budgets, err := s.whatIsLeft(c.Context(), s.resources.set(), req)
	if err != nil {
		return nil, err
	}
	e := explained(v)
	e.Budgets = budgets
	return api.Explained{Allowed: v.Effect == policy.Allow, Statements: []api.ExplainedStatement{e}}, nil
}

var verbs = []policy.Action{policy.Connect, policy.Action(policy.Read), policy.Action(policy.Write), policy.Action(policy.Schema), policy.Action(policy.Export),
	policy.Action(policy.Admin), policy.Approve, policy.Manage, policy.ReadEvidence, policy.Terminate, policy.BreakGlass}

func joinVerbs() string {
	words := make([]string, len(verbs))
	for i, v := range verbs {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}

// statementFor is the plainest statement of a class, nil if the verb is none.
func statementFor(a policy.Action) *policy.Statement {
	kinds := map[policy.Action]string{policy.Action(policy.Read): "SELECT", policy.Action(policy.Write): "INSERT", policy.Action(policy.Schema): "CREATE TABLE",
		policy.Action(policy.Export): "COPY", policy.Action(policy.Admin): "ALTER SYSTEM"}
	kind, ok := kinds[a]
	if !ok {
		return nil
	}
	return &policy.Statement{Facts: &policy.Facts{Kind: kind, Class: policy.Class(a), HasWhere: true}, Statements: 1}
}

func (s *Server) explainConnect(c *call, ref policy.TargetRef) api.Explained {
	v := s.grantVerdict(c.who, ref, api.GrantRequest{Target: ref.Name}, c.source.Addr())
	e := explained(v.Verdict)
	return api.Explained{Allowed: v.Effect == policy.Allow, Statements: []api.ExplainedStatement{e}}
}

// explainStatement decides one statement as a session would, and says which
// tagged columns it would show masked.
func (s *Server) explainStatement(c *call, q api.Explain, ref policy.TargetRef, f *policy.Facts, n int) (api.ExplainedStatement, error) {
	set := s.resources.set()
	st := &policy.Statement{Facts: f, Text: q.SQL, Start: f.Start, End: f.End, Statements: n}
	action := policy.Action(f.Class)
	req := policy.Request{Principal: c.who, Action: action, Target: ref, Statement: st, Now: s.now(), SourceIP: c.source.Addr(), Via: "api"}
	v, budgets, err := s.whatIsLeft(c.Context(), set, req)
	if err != nil {
		return api.ExplainedStatement{}, err
	}
	e := explained(v)
	e.Facts, e.Budgets = f, budgets
	for _, t := range set.Tags(ref) {
		if t.Tag == "none" || !names(f, t.Column.String()) {
			continue
		}
		view := req
		view.Action, view.Column = policy.ViewUnmasked, &t.Column
		if sh := set.Show(view, t); !sh.Clear {
			e.Masked = append(e.Masked, api.MaskedColumn{Column: t.Column.String(), Source: t.Column.String(), Tag: t.Tag, Method: sh.Method, Rule: sh.Rule, Why: "identity"})
		}
	}
	return e, nil
}

// names says whether a statement reads a column by its name, or with all of its table's.
func names(f *policy.Facts, column string) bool {
	table := column[:strings.LastIndexByte(column, '.')]
	return slices.Contains(f.Columns, column) || slices.Contains(f.Columns, table+".*")
}

func explained(v policy.Verdict) api.ExplainedStatement {
	e := api.ExplainedStatement{Verdict: v.Effect.String(), Rules: v.Rules, Reason: v.Reason, Hint: v.Hint, RowLimit: v.RowLimit, Digest: v.Digest}
	for _, c := range v.Cures {
		e.Cures = append(e.Cures, api.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum, Reason: c.Reason})
	}
	return e
}

// parseError puts what the parser says into words: where, and what.
func parseError(err error) error {
	var at interface{ Position() int }
	switch {
	case errors.As(err, &at):
		return invalid("%v (at character %d)", err, at.Position())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Reason: api.ReasonUnavailable, Message: fmt.Sprintf("the SQL parser did not answer: %v", err)}
	default:
		return &api.Error{Reason: api.ReasonUnavailable, Message: err.Error()}
	}
}
