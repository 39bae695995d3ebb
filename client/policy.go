package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// Budgets lists who has used how much of the budgets of a policy's rules; ""
// is every policy's.
func (c *Client) Budgets(ctx context.Context, policy string) ([]api.BudgetUse, error) {
	var query url.Values
	if policy != "" {
		query = url.Values{"policy": {policy}}
	}
	return list[api.BudgetUse](ctx, c, api.PathBudgets, query)
}

// Observed asks what policy would have done on a target that is only observed.
func (c *Client) Observed(ctx context.Context, target string, since time.Time) (api.Observed, error) {
	var out api.Observed
	err := c.call(ctx, http.MethodGet, api.PathObserved, url.Values{"target": {target}, "since": {since.UTC().Format(time.RFC3339Nano)}}, nil, &out)
	return out, err
}
