package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/server/api"
)

func newPolicyReport(a *app) *cobra.Command {
	var o recordedOptions
	cmd := &cobra.Command{
		Use:   "report TARGET",
		Short: "What would have been refused, held or masked on an observed target",
		Long: `Say what the policies would have done on a target that is only observed
(enforcement: observe until DATE), by principal and by statement: refused, held
for people, cut after a number of rows, shown masked. It is read from the
evidence, which holds the verdict of the moment beside each statement that ran.
It needs the right to read the evidence. Nothing is sent to the target.`,
		Example: `  hoopctl policy report clinic
  hoopctl policy report clinic --since 24h -o json`,
		Args:              takes(1, 1, "a target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			since, err := o.from(a.now())
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			out, err := cl.Observed(cmd.Context(), args[0], since)
			if err != nil {
				return err
			}
			if f := a.format(); f != "" {
				return printObject(a.out, f, out)
			}
			return a.printObserved(out)
		},
	}
	cmd.Flags().StringVar(&o.since, "since", "7d", "from here on: 24h or 7d (ago), 2026-11-01, or 2026-11-01T08:00:00Z")
	return cmd
}

func (a *app) printObserved(out api.Observed) error {
	state := "is enforced now"
	if a.now().Before(out.Until) {
		state = "is only observed until " + stamp(out.Until)
	}
	fmt.Fprintf(a.err, "Target %s %s.\n", printable(out.Target), state)
	if len(out.Principals) == 0 {
		fmt.Fprintf(a.err, "Nothing ran while it was observed, since %s.\n", stamp(out.Since))
		return nil
	}
	t := newTable(a.out)
	fmt.Fprintln(t, "PRINCIPAL\tSTATEMENTS\tREFUSED\tHELD\tCUT\tMASKED")
	for _, p := range out.Principals {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\n", printable(p.Name), p.Statements, p.Refused, p.Held, p.Cut, p.Masked)
	}
	if err := t.Flush(); err != nil || len(out.Changed) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	t = newTable(a.out)
	fmt.Fprintln(t, "TIMES\tPRINCIPAL\tWOULD BE\tBY\tFIRST\tSTATEMENT")
	for _, c := range out.Changed {
		by := c.Rules
		if len(by) == 0 {
			by = c.Masked
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", c.Times, printable(c.Name), c.Would, printable(oneLine(strings.Join(by, ", "), 60)), c.First, printable(oneLine(c.Statement, 80)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if out.Truncated {
		fmt.Fprintln(a.err, "there is more than was looked at; give a later --since")
	}
	return nil
}

// enforcing is the prefix of a target's enforcement that nobody needs to be told of.
const enforcing = "enforce"

func onlyObserved(t api.Target) bool {
	return t.Status.Enforcement != "" && t.Status.Enforcement != enforcing
}

// warnObserved says aloud which of the targets do not enforce anything.
func (a *app) warnObserved(targets ...api.Target) {
	for _, t := range targets {
		if onlyObserved(t) {
			fmt.Fprintf(a.err, "WARNING: target %s is only observed (%s): nothing is refused, held or masked there.\n", printable(t.Metadata.Name), printable(t.Status.Enforcement))
		}
	}
}

// afterLogin says what whoever has just logged in must hear: which targets are
// only observed, and what of theirs is to be reviewed. A server that does not
// answer says so at the next command.
func (a *app) afterLogin(ctx context.Context, cl *client.Client) {
	if all, err := cl.Targets(ctx); err == nil {
		a.warnObserved(all...)
	}
	me, err := cl.Whoami(ctx)
	if err != nil {
		return
	}
	for _, r := range me.Reviews {
		by := r.By.UTC().Format(time.DateOnly)
		what := "is to be reviewed by you by " + by
		if r.Lapsed {
			what = "was to be reviewed by you by " + by
		}
		if r.Cut {
			what += "; grants under it end then"
		}
		fmt.Fprintf(a.err, "WARNING: %s %s. Look at it, and apply it with a later reviewBy.\n", printable(r.Object), what)
	}
}

// describeBudgets says who has used how much of the budgets of a policy's rules.
func (a *app) describeBudgets(ctx context.Context, cl *client.Client, policy string) error {
	used, err := cl.Budgets(ctx, policy)
	var e *api.Error
	if errors.As(err, &e) && e.Reason == api.ReasonDenied || err == nil && len(used) == 0 {
		return nil // describeFired has said who may see it
	}
	if err != nil {
		return err
	}
	slices.SortFunc(used, func(a, b api.BudgetUse) int { return int(b.Used*a.Amount - a.Used*b.Amount) })
	fmt.Fprintf(a.out, "\nBudgets of its rules in use:\n")
	t := newTable(a.out)
	fmt.Fprintln(t, "RULE\tBUDGET\tPRINCIPAL\tUSED\tLEFT\tREFILLS")
	for _, u := range used {
		name := u.Name
		if name == "" {
			name = u.Principal
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", u.Rule, u.Budget, printable(name), u.Used, max(0, u.Amount-u.Used), stamp(u.Refills))
	}
	return t.Flush()
}

// budgetText is what is left of a budget, in one line.
func budgetText(b api.Budget) string {
	s := fmt.Sprintf("%d left of %s (rule %s)", b.Left, b.Budget, b.Rule)
	if !b.Refills.IsZero() {
		s += ", something comes back at " + b.Refills.UTC().Format("15:04:05 UTC")
	}
	return s
}
