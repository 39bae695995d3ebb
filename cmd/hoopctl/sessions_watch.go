package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/client/tui"
	"github.com/hoopctl/hoopctl/server/api"
)

func newSessions(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "sessions",
		Short:   "Look on while a session runs",
		Example: "  hoopctl sessions watch s-7",
	}, newSessionsWatch(a))
}

func newSessionsWatch(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch SESSION",
		Short: "A session as it happens: statements, verdicts, outcomes",
		Long: `Show what a session did so far and what it does now, until it closes: on a terminal
as the timeline of replay, elsewhere as lines (-o ndjson: the events themselves).
Exact statements and results are sealed; replay opens them afterwards.`,
		Example:           "  hoopctl sessions watch s-7\n  hoopctl sessions watch s-7 -o ndjson",
		Args:              takes(1, 1, "the name of a session"),
		ValidArgsFunction: a.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), []string{"", "ndjson"}); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return a.watchSession(cmd.Context(), cl, args[0])
		},
	}
	return cmd
}

func (a *app) watchSession(ctx context.Context, cl *client.Client, name string) error {
	known, err := cl.Events(ctx, api.EventQuery{Session: name, Limit: 1})
	if err != nil {
		return err
	}
	if len(known) == 0 {
		return fmt.Errorf("the evidence knows no session %s", name)
	}
	p := a.newPlayer(replayOptions{}, func(string) []api.Approval { return nil })
	if a.format() == "" && !a.noInput() && isTerminal(a.out) {
		return tui.Timeline(ctx, tui.Session{Title: "session " + name + ", as it happens", Entries: func(ctx context.Context) iter.Seq2[tui.Entry, error] {
			return func(yield func(tui.Entry, error) bool) {
				for e, err := range sessionEvents(ctx, cl, name) {
					if err != nil {
						yield(tui.Entry{}, err)
						return
					}
					if !yield(entryOf(&e, p.describe(&e, nil), ""), nil) {
						return
					}
				}
			}
		}}, a.in, a.out)
	}
	for e, err := range sessionEvents(ctx, cl, name) {
		if err == nil {
			err = p.event(e.Time, &e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sessionEvents yields a session's events from the first to its close. It goes
// on where it was when the server was away for a while.
func sessionEvents(ctx context.Context, cl *client.Client, name string) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		q := api.EventQuery{Session: name, Limit: 1 << 20}
		for first := true; ; first = false {
			for change, err := range cl.WatchEvents(ctx, q) {
				if ctx.Err() != nil {
					return
				}
				var refused *api.Error
				if errors.As(err, &refused) && refused.Reason != api.ReasonUnavailable {
					yield(api.Event{}, err)
					return
				}
				if err != nil {
					break
				}
				e := change.Item
				if change.Synced || !first && e.Index <= q.After || e.Session != name {
					continue
				}
				q.After = e.Index
				if !yield(e, nil) || e.Kind == api.EventSessionClose {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Second):
			}
		}
	}
}
