package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/budget"
)

// openBudgets opens the ledger of what principals used. Its marks of values are
// made with a key of their own, out of the one that tokens are made with: the
// store alone is worth nothing to whoever tries values against it.
func (s *Server) openBudgets() error {
	h := hmac.New(sha256.New, s.masks.keys.Secret)
	h.Write([]byte("hoopctl budgets v1"))
	s.budgets = budget.New(budget.Config{Store: s.store, Key: h.Sum(nil), Now: s.now})
	s.own(s.budgets)
	return nil
}

// budgetsOf says what is left to a principal of the budgets that a verdict
// names, the one that is used up included.
func (s *Server) budgetsOf(ctx context.Context, who string, v policy.Verdict) ([]api.Budget, error) {
	all := v.Meters
	if v.Exhausted != nil {
		all = append([]policy.Budget{*v.Exhausted}, all...)
	}
	var out []api.Budget
	for _, b := range all {
		left, refills, err := s.budgets.Left(ctx, who, b)
		if err != nil {
			return nil, fmt.Errorf("read the budget of rule %s: %w", b.Rule, err)
		}
		out = append(out, api.Budget{Rule: b.Rule, Budget: b.String(), Unit: string(b.Unit), Amount: b.Amount, Left: left, Refills: refills})
	}
	return out, nil
}

// whatIsLeft decides a request anew as long as the budgets that it is under
// are used up: it comes to the verdict that a session would come to.
func (s *Server) whatIsLeft(ctx context.Context, set *policy.Set, r policy.Request) (policy.Verdict, []api.Budget, error) {
	for {
		v := set.Decide(r)
		budgets, err := s.budgetsOf(ctx, r.Principal.ID(), v)
		if err != nil || v.Exhausted != nil {
			return v, budgets, err
		}
		spent := ""
		for _, b := range budgets {
			if _, told := r.Left[b.Rule]; b.Left == 0 && !told {
				spent = b.Rule
			}
		}
		if spent == "" {
			return v, budgets, nil
		}
		left := map[string]int64{spent: 0}
		for rule, n := range r.Left {
			left[rule] = n
		}
		r.Left = left
	}
}

// getBudgets lists who has used how much of the budgets of a policy's rules.
func (s *Server) getBudgets(c *call) (any, error) {
	set := s.resources.set()
	out := api.List[api.BudgetUse]{APIVersion: api.APIVersion, Kind: "BudgetUseList", Items: []api.BudgetUse{}}
	for _, rule := range set.Budgets() {
		if of := c.URL.Query().Get("policy"); of != "" && of != rule.Policy {
			continue
		}
		used, err := s.budgets.Used(c.Context(), *rule.Budget)
		if err != nil {
			return nil, err
		}
		for _, u := range used {
			use := api.BudgetUse{Rule: rule.ID, Policy: rule.Policy, Budget: rule.Budget.String(), Unit: string(rule.Budget.Unit), Amount: rule.Budget.Amount,
				Used: u.Used, Principal: u.Principal, Refills: u.Refills}
			if p, err := s.identity.Known(u.Principal); err == nil {
				use.Name = p.Name
			}
			out.Items = append(out.Items, use)
		}
	}
	return out, nil
}
