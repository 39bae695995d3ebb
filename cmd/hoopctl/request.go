package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/client/tui"
	"github.com/hoopctl/hoopctl/server/api"
)

func newRequest(a *app) *cobra.Command {
	var o askOptions
	var action string
	var wait bool
	cmd := &cobra.Command{
		Use:   "request TARGET",
		Short: "Ask for a grant ahead of time",
		Long: `Ask for a grant without connecting. Prints the name of the grant if it was
issued at once, else the name of the request that people must answer. connect and
exec find the grant by themselves once it is there.`,
		Example: `  hoopctl request prod --for 1h --reason "INC-42"
  hoopctl request prod --action schema --for 30m --ticket MIG-7
  hoopctl request wait r-12 --timeout 10m
  hoopctl request extend g-12 --for 30m`,
		Args:              takes(1, 1, "a target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), append(oneFormats, "name")); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			answer, err := cl.RequestGrant(cmd.Context(), api.GrantRequest{Target: args[0], For: api.Duration(o.duration),
				Reason: o.reason, Purpose: o.purpose, Ticket: o.ticket, Action: action})
			if err != nil {
				return err
			}
			if wait && answer.Request != nil {
				r, err := a.await(cmd.Context(), cl, *answer.Request, false)
				if err != nil {
					return err
				}
				answer.Request = &r
			}
			if err := a.printAnswer(answer); err != nil || !o.noWait || answer.Request == nil {
				return err
			}
			return exitWith(exitPending)
		},
	}
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&action, "action", "", "what for, beyond connecting: schema for a migration window")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is answered")
	cmd.AddCommand(newRequestWait(a), newRequestCancel(a), newRequestExtend(a))
	return cmd
}

func newRequestExtend(a *app) *cobra.Command {
	var o askOptions
	cmd := &cobra.Command{
		Use:   "extend GRANT --for 1h",
		Short: "More time for a live grant, on top of what it has left",
		Long: `Ask for more time for a live grant of one's own. The rules see the whole that
comes of it; where they want people to agree, this waits for them.`,
		Example: `  hoopctl request extend g-12 --for 30m --reason "the import runs late"`,
		Args:    takes(1, 1, "the name of a grant"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), append(oneFormats, "name")); err != nil {
				return err
			}
			if o.duration <= 0 {
				return &usageError{message: "extend needs --for", hint: "how much longer: --for 30m"}
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			answer, err := cl.RequestGrant(cmd.Context(), api.GrantRequest{Extend: args[0], For: api.Duration(o.duration), Reason: o.reason,
				Purpose: o.purpose, Ticket: o.ticket})
			if err != nil {
				return err
			}
			if answer.Request != nil {
				r, err := a.await(cmd.Context(), cl, *answer.Request, o.noWait)
				if err != nil {
					return err
				}
				g, err := cl.Grant(cmd.Context(), r.Status.Grant)
				if err != nil {
					return err
				}
				answer = api.GrantAnswer{Grant: &g}
			}
			return a.printAnswer(answer)
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

func (a *app) printAnswer(answer api.GrantAnswer) error {
	if f := a.format(); f == "json" || f == "yaml" {
		return printObject(a.out, f, answer)
	}
	switch {
	case answer.Grant != nil:
		fmt.Fprintf(a.err, "Granted until %s.\n", clock(a.now(), answer.Grant.Status.Expires))
		fmt.Fprintln(a.out, answer.Grant.Metadata.Name)
	case answer.Request != nil:
		if r := answer.Request; r.Status.Phase == "pending" {
			fmt.Fprintf(a.err, "Waits for %s until %s.\n", printable(approvers(*r)), clock(a.now(), r.Status.Expires))
		}
		fmt.Fprintln(a.out, answer.Request.Metadata.Name)
	}
	return nil
}

func newRequestWait(a *app) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:               "wait REQUEST",
		Short:             "Wait until a request is answered: exit 0 approved, 121 denied, 122 expired, 124 --timeout",
		Example:           "  hoopctl request wait r-12 --timeout 10m",
		Args:              takes(1, 1, "the name of a request"),
		ValidArgsFunction: a.completeRequests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
				defer cancel()
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			r, err := cl.AwaitRequest(ctx, args[0])
			if err != nil {
				return causeOf(ctx, err)
			}
			if err := decided(r); err != nil {
				return err
			}
			if f := a.format(); f == "json" || f == "yaml" {
				return printObject(a.out, f, r)
			}
			_, err = fmt.Fprintln(a.out, r.Status.Phase)
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this long; the request stays")
	return cmd
}

func newRequestCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "cancel REQUEST",
		Short:             "Withdraw one's own request",
		Example:           "  hoopctl request cancel r-12",
		Args:              takes(1, 1, "the name of a request"),
		ValidArgsFunction: a.completeRequests,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if err := cl.Withdraw(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "%s is withdrawn.\n", printable(args[0]))
			return nil
		},
	}
}

// answerOptions are the flags of approve and deny.
type answerOptions struct {
	reason string
	rules  []string
	watch  bool
	sshKey string
}

func newApprove(a *app) *cobra.Command {
	var o answerOptions
	cmd := &cobra.Command{
		Use:   "approve [REQUEST…]",
		Short: "Answer requests: the queue on a terminal, or by name",
		Long: `Without a name, on a terminal: the queue of what waits, live, with the exact
statement, who asks and why, and the rule. With names: approve these. An answer
is signed with this login's key and bound to exactly what was shown. Nobody
answers a request of their own.

With --ssh-key the answer is signed with your own key as well (by ssh-keygen, so
that agents, passphrases and security keys work): whoever has your public key can
then prove that it was you, without believing the broker (audit verify --approvers).`,
		Example: `  hoopctl approve
  hoopctl approve r-12 --reason "checked with the team"
  hoopctl approve r-12 --ssh-key ~/.ssh/id_ed25519_sk
  hoopctl approve --watch -o json`,
		ValidArgsFunction: a.completeRequests,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return a.answer(cmd.Context(), args, true, o)
			}
			if o.sshKey != "" {
				return usagef("--ssh-key goes with the names of requests")
			}
			return a.approveQueue(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.reason, "reason", "", "why; kept with the answer")
	cmd.Flags().StringSliceVar(&o.rules, "rule", nil, "answer only for these rules (default: all that you may)")
	cmd.Flags().StringVar(&o.sshKey, "ssh-key", "", "sign with this SSH key too: of requests that are named")
	cmd.Flags().BoolVar(&o.watch, "watch", false, "print what waits, line by line, instead of the queue")
	return cmd
}

func newDeny(a *app) *cobra.Command {
	var o answerOptions
	cmd := &cobra.Command{
		Use:               "deny REQUEST… --reason R",
		Short:             "Say no to requests, with the reason that who asks is told",
		Example:           `  hoopctl deny r-12 --reason "add a WHERE"`,
		Args:              takes(1, -1, "the name of a request"),
		ValidArgsFunction: a.completeRequests,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.reason == "" {
				return &usageError{message: "deny needs --reason", hint: "who asks is told why"}
			}
			return a.answer(cmd.Context(), args, false, o)
		},
	}
	cmd.Flags().StringVar(&o.reason, "reason", "", "why")
	cmd.Flags().StringSliceVar(&o.rules, "rule", nil, "answer only for these rules (default: all that you may)")
	cmd.Flags().StringVar(&o.sshKey, "ssh-key", "", "sign with this SSH key too")
	return cmd
}

// sshSigner signs with an SSH key by ssh-keygen, nil for "".
func (a *app) sshSigner(ctx context.Context, key string) func([]byte) ([]byte, error) {
	if key == "" {
		return nil
	}
	return func(message []byte) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "ssh-keygen", "-q", "-Y", "sign", "-n", api.ApprovalNamespace, "-f", key)
		cmd.Stdin, cmd.Stderr = bytes.NewReader(message), a.err
		out, err := cmd.Output()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("ssh-keygen is not installed")
		}
		if err != nil {
			return nil, fmt.Errorf("ssh-keygen -Y sign: %w", err)
		}
		return out, nil
	}
}

// answer shows each request on stderr as it is signed, and answers it.
func (a *app) answer(ctx context.Context, names []string, approve bool, o answerOptions) error {
	if err := checkFormat(a.format(), append(oneFormats, "name")); err != nil {
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, name := range names {
		shown, err := cl.Request(ctx, name)
		if err != nil {
			return err
		}
		r, err := cl.AnswerWith(ctx, shown, approve, o.reason, a.sshSigner(ctx, o.sshKey), o.rules...)
		if err != nil {
			return err
		}
		if err := a.printAnswered(r); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printAnswered(r api.Request) error {
	switch f := a.format(); f {
	case "json", "yaml":
		return printObject(a.out, f, r)
	case "name":
		_, err := fmt.Fprintf(a.out, "request/%s\n", r.Metadata.Name)
		return err
	}
	on := r.Spec.Target
	if r.Spec.Kind == "change" {
		on = asksFor(r)
	}
	line := fmt.Sprintf("request %s of %s on %s: %s", r.Metadata.Name, r.Spec.Name, on, r.Status.Phase)
	if r.Status.Phase == "pending" {
		line += fmt.Sprintf(", still waits for %s", approvers(r))
	}
	_, err := fmt.Fprintln(a.out, printable(line))
	return err
}

// approveQueue is the queue: a screen on a terminal, lines elsewhere.
func (a *app) approveQueue(ctx context.Context, o answerOptions) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	if !o.watch && !a.noInput() && isTerminal(a.out) {
		return tui.Approve(ctx, queue{cl}, a.in, a.out, a.now)
	}
	c := requests(a.now)
	pending := func(r api.Request) bool { return r.Status.Phase == "pending" && r.Status.MayAnswer }
	if o.watch {
		return c.follow(ctx, a, cl, a.format(), pending)
	}
	all, err := cl.Requests(ctx)
	if err != nil {
		return err
	}
	var waiting []api.Request
	for _, r := range all {
		if pending(r) {
			waiting = append(waiting, r)
		}
	}
	if len(waiting) == 0 && a.format() == "" {
		fmt.Fprintln(a.err, "Nothing waits for you.")
		return nil
	}
	return printList(a.out, a.format(), c.kind, waiting)
}

// queue adapts the client to the screen of approvals.
type queue struct{ *client.Client }

// Follow goes on when the server was away for a while.
func (q queue) Follow(ctx context.Context) iter.Seq2[api.Request, error] {
	return func(yield func(api.Request, error) bool) {
		for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, 10*time.Second) {
			for change, err := range q.WatchRequests(ctx) {
				if ctx.Err() != nil {
					return
				}
				if err == nil {
					wait = time.Second
				}
				if change.Synced && err == nil {
					continue
				}
				if !yield(change.Item, err) {
					return
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}
}

func (q queue) Answer(ctx context.Context, shown api.Request, approve bool, reason string) (api.Request, error) {
	return q.Client.Answer(ctx, shown, approve, reason)
}

var _ tui.Approvals = queue{}
