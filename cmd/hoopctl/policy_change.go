package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/server/api"
)

// agreeHelp is said by every verb that changes resources.
const agreeHelp = `Where policy wants a second person to look at changes, they see the difference and
answer with hoopctl approve; this waits for them. The server makes the change as
soon as they have agreed, once, and only if it is still what was shown.`

// awaitChange waits for the people whom a change of resources needs, if it
// needs any, and says what became of it. Ctrl-C withdraws the question.
func (a *app) awaitChange(ctx context.Context, cl *client.Client, done api.Applied, noWait bool) (api.Applied, error) {
	if done.Request == nil {
		return done, nil
	}
	if noWait {
		return done, &api.Error{Reason: api.ReasonPending, Source: "broker", Request: done.Request.Metadata.Name,
			Message: fmt.Sprintf("request %s waits for %s", done.Request.Metadata.Name, approvers(*done.Request)),
			Hint:    "the server makes the change when they agree; hoopctl request wait " + done.Request.Metadata.Name + " says when"}
	}
	r, err := a.await(ctx, cl, *done.Request, false)
	if err != nil {
		return done, err
	}
	return cl.Apply(ctx, api.Apply{Resume: r.Metadata.Name})
}

// deleteResource deletes one resource, with the agreement of others where that is needed.
func (a *app) deleteResource(ctx context.Context, cl *client.Client, kind, name, reason string) (string, error) {
	done, err := cl.DeleteResource(ctx, kind, name, reason)
	if err != nil {
		return "", err
	}
	_, err = a.awaitChange(ctx, cl, done, a.settings.GetBool("no-wait"))
	return "deleted", err
}

// sayNeeds tells on stderr whom a change would have to be shown to.
func (a *app) sayNeeds(would api.Applied) {
	changes := slices.ContainsFunc(would.Results, func(r api.AppliedResource) bool { return r.Action != "unchanged" })
	if len(would.Needs) == 0 || !changes {
		return
	}
	asked := api.Request{Spec: api.RequestSpec{Cures: would.Needs}}
	fmt.Fprintf(a.err, "apply would wait for %s: %s\n", printable(approvers(asked)), printable(cureText(asked, func(c api.Cure) string { return c.Reason })))
}

// changeSummary is what a request for a change asks for, in one line: the
// lines of its difference that are not of a resource's text.
func changeSummary(r api.Request) string {
	var parts []string
	for line := range strings.Lines(r.Spec.Statement) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.ContainsAny(line[:1], " +-") {
			parts = append(parts, line)
		}
	}
	if len(parts) == 0 {
		return "a change of resources" // shown to those who may not read it
	}
	return strings.Join(parts, ", ")
}
