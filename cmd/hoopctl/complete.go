package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
)

// completeWait bounds what a TAB may cost.
const completeWait = 2 * time.Second

// complete offers names from the server; without a login or a server it offers
// nothing, and never asks.
func (a *app) complete(names func(context.Context, *client.Client) ([]string, error), prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	cl, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	all, err := names(ctx, cl)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fit []string
	for _, n := range all {
		if strings.HasPrefix(n, prefix) {
			fit = append(fit, n)
		}
	}
	return fit, cobra.ShellCompDirectiveNoFileComp
}

func targetNames(ctx context.Context, cl *client.Client) ([]string, error) {
	all, err := cl.Targets(ctx)
	return namesOf(all, targetKind().name), err
}

func namesOf[T any](items []T, name func(T) string) []string {
	var out []string
	for _, it := range items {
		out = append(out, name(it))
	}
	return out
}

// completeTargets completes every argument with targets.
func (a *app) completeTargets(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if err := a.loadSettings(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(targetNames, prefix)
}

// completeSecondTarget completes a verb of can-i, then a target.
func (a *app) completeSecondTarget(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"connect", "read", "write", "export", "schema", "admin"}, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeTargets(cmd, args, prefix)
}

// completeRequests completes requests that wait.
func (a *app) completeRequests(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if err := a.loadSettings(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(func(ctx context.Context, cl *client.Client) ([]string, error) {
		all, err := cl.Requests(ctx)
		var pending []string
		for _, r := range all {
			if r.Status.Phase == "pending" {
				pending = append(pending, r.Metadata.Name)
			}
		}
		return pending, err
	}, prefix)
}

// completeSessions completes sessions.
func (a *app) completeSessions(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if err := a.loadSettings(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(func(ctx context.Context, cl *client.Client) ([]string, error) {
		all, err := cl.Sessions(ctx)
		return namesOf(all, sessionKind(a.now).name), err
	}, prefix)
}
