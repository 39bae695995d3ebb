package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// collection is one kind of object of the server, as get, describe and delete
// need it. The verbs know it only through object, so that one loop serves all.
type collection[T any] struct {
	kind     kind[T]
	meta     func(T) api.Meta
	list     func(context.Context, *client.Client) ([]T, error)
	get      func(context.Context, *client.Client, string) (T, error)
	watch    func(context.Context, *client.Client) iter.Seq2[client.Change[T], error] // nil: it cannot be watched
	describe func(io.Writer, T) error
	// more adds what describe has to ask the server for; nil: nothing.
	more func(context.Context, *client.Client, T) error
	// remove deletes by name and says what that broke; nil: it cannot be deleted.
	remove func(ctx context.Context, c *client.Client, name, reason string) (string, error)
}

// object hides a collection's type.
type object interface {
	names() (singular, plural string)
	print(ctx context.Context, a *app, c *client.Client, o getOptions) error
	explain(ctx context.Context, a *app, c *client.Client, name string) error
	delete(ctx context.Context, a *app, c *client.Client, name, reason string) error
	complete(ctx context.Context, c *client.Client) ([]string, error)
}

// getOptions are the flags of get.
type getOptions struct {
	names    []string
	selector string
	since    time.Duration
	watch    bool
	format   string
}

func (c collection[T]) names() (string, string) { return c.kind.singular, c.kind.plural }

func (c collection[T]) complete(ctx context.Context, cl *client.Client) ([]string, error) {
	all, err := c.list(ctx, cl)
	return namesOf(all, c.kind.name), err
}

func (c collection[T]) print(ctx context.Context, a *app, cl *client.Client, o getOptions) error {
	match, err := parseSelector(o.selector)
	if err != nil {
		return err
	}
	wanted := func(it T) bool {
		m := c.meta(it)
		return match(m.Labels) && (o.since == 0 || a.now().Sub(m.Created) <= o.since) &&
			(len(o.names) == 0 || slices.Contains(o.names, m.Name))
	}
	if o.watch {
		return c.follow(ctx, a, cl, o.format, wanted)
	}
	items, err := c.fetch(ctx, cl, o.names)
	if err != nil {
		return err
	}
	items = slices.DeleteFunc(items, func(it T) bool { return !wanted(it) })
	if len(o.names) == 1 && len(items) == 1 && (o.format == "json" || o.format == "yaml") {
		return printObject(a.out, o.format, items[0])
	}
	if len(items) == 0 && o.format == "" {
		fmt.Fprintf(a.err, "No %s.\n", c.kind.plural)
		return nil
	}
	return printList(a.out, o.format, c.kind, items)
}

// fetch gets the named objects, or all.
func (c collection[T]) fetch(ctx context.Context, cl *client.Client, names []string) ([]T, error) {
	if len(names) == 0 {
		return c.list(ctx, cl)
	}
	var items []T
	for _, n := range names {
		it, err := c.get(ctx, cl, n)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// follow prints what is there, and then every change, a line (with -o json a
// JSON line) each, until ctx ends.
func (c collection[T]) follow(ctx context.Context, a *app, cl *client.Client, format string, wanted func(T) bool) error {
	if c.watch == nil {
		return usagef("%s cannot be watched", c.kind.plural)
	}
	s := stream[T]{w: a.out, kind: c.kind, format: format}
	for change, err := range c.watch(ctx, cl) {
		if err != nil {
			return err
		}
		if change.Synced || !wanted(change.Item) {
			continue
		}
		if err := s.print(change.Item); err != nil {
			return err
		}
	}
	return nil
}

// stream prints a table's rows as they come: a column is as wide as the widest
// cell so far.
type stream[T any] struct {
	w      io.Writer
	kind   kind[T]
	format string
	widths []int
}

func (s *stream[T]) print(item T) error {
	switch s.format {
	case "json":
		return json.NewEncoder(s.w).Encode(item)
	case "yaml":
		fmt.Fprintln(s.w, "---")
		return printObject(s.w, "yaml", item)
	case "name":
		_, err := fmt.Fprintf(s.w, "%s/%s\n", s.kind.singular, s.kind.name(item))
		return err
	}
	var b bytes.Buffer
	if s.widths == nil {
		s.kind.header(&b, s.format == "wide")
	}
	s.kind.row(&b, s.format == "wide", item)
	var lines [][]string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	for _, cells := range lines {
		if s.widths == nil {
			s.widths = make([]int, len(cells))
		}
		for i, cell := range cells {
			s.widths[i] = max(s.widths[i], len([]rune(cell)), 8)
		}
	}
	for _, cells := range lines {
		for i, cell := range cells[:len(cells)-1] {
			cells[i] = cell + strings.Repeat(" ", s.widths[i]-len([]rune(cell)))
		}
		if _, err := fmt.Fprintln(s.w, strings.Join(cells, "   ")); err != nil {
			return err
		}
	}
	return nil
}

func (c collection[T]) explain(ctx context.Context, a *app, cl *client.Client, name string) error {
	it, err := c.get(ctx, cl, name)
	if err != nil {
		return err
	}
	if a.format() != "" {
		return printObject(a.out, a.format(), it)
	}
	if err := c.describe(a.out, it); err != nil || c.more == nil {
		return err
	}
	return c.more(ctx, cl, it)
}

func (c collection[T]) delete(ctx context.Context, a *app, cl *client.Client, name, reason string) error {
	if c.remove == nil {
		return usagef("%s cannot be deleted", c.kind.plural)
	}
	broke, err := c.remove(ctx, cl, name, reason)
	if err != nil {
		return err
	}
	switch a.format() {
	case "name":
		_, err = fmt.Fprintf(a.out, "%s/%s\n", c.kind.singular, name)
	case "":
		_, err = fmt.Fprintf(a.out, "%s %s %s\n", c.kind.singular, name, broke)
	default:
		err = printObject(a.out, a.format(), map[string]string{"kind": c.kind.singular, "name": name, "result": broke})
	}
	return err
}

// parseSelector reads -l: key=value, key!=value, key, !key, joined by commas.
func parseSelector(s string) (func(map[string]string) bool, error) {
	var tests []func(map[string]string) bool
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		key, value, eq := strings.Cut(part, "=")
		key, not := strings.CutSuffix(strings.TrimSuffix(key, "="), "!")
		value = strings.TrimPrefix(value, "=")
		absent := false
		if !eq {
			key, absent = strings.CutPrefix(key, "!")
		}
		if key == "" {
			return nil, usagef("-l %q: want key=value, key!=value, key or !key", part)
		}
		tests = append(tests, func(labels map[string]string) bool {
			have, ok := labels[key]
			switch {
			case !eq:
				return ok != absent
			case not:
				return have != value
			default:
				return ok && have == value
			}
		})
	}
	return func(labels map[string]string) bool {
		for _, t := range tests {
			if !t(labels) {
				return false
			}
		}
		return true
	}, nil
}

// objects are the kinds that the verbs know.
func objects(a *app) []object {
	all := []object{targets(a), grants(a.now), requests(a.now), sessions(a.now)}
	for _, k := range []string{policy.KindPolicy, policy.KindClassification, policy.KindService, policy.KindGrantRule, policy.KindClearance, policy.KindException, policy.KindLegalHold} {
		all = append(all, resources(a, k))
	}
	return all
}

// objectNamed finds a kind by its singular or plural, in any case.
func objectNamed(a *app, word string) (object, error) {
	var known []string
	for _, o := range objects(a) {
		one, many := o.names()
		if strings.EqualFold(word, one) || strings.EqualFold(word, many) {
			return o, nil
		}
		known = append(known, many)
	}
	return nil, &usageError{message: fmt.Sprintf("unknown kind %q", word), hint: "use one of: " + strings.Join(known, ", ")}
}

// asNamed reads KIND NAME… and, as -o name prints it, KIND/NAME…: kubectl takes
// both. All must be of one kind.
func asNamed(args []string) ([]string, error) {
	if len(args) == 0 {
		return args, nil
	}
	kind, first, slashed := strings.Cut(args[0], "/")
	out := []string{kind}
	if slashed {
		out = append(out, first)
	}
	for _, arg := range args[1:] {
		of, name, slashed := strings.Cut(arg, "/")
		if slashed && !strings.EqualFold(of, kind) && !strings.EqualFold(of+"s", kind) {
			return nil, usagef("%s is not of the kind %s: one kind at a time", arg, kind)
		}
		if !slashed {
			name = arg
		}
		out = append(out, name)
	}
	return out, nil
}

// takesNamed is takes, of arguments that asNamed reads.
func takesNamed(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		args, err := asNamed(args)
		if err != nil {
			return err
		}
		return takes(low, high, what)(cmd, args)
	}
}

func newGet(a *app) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get KIND [NAME…]",
		Short: "List targets, grants, requests, sessions, or resources",
		Example: `  hoopctl get targets
  hoopctl get requests -w
  hoopctl get sessions --since 1h -o json`,
		Args:              takesNamed(1, -1, "a kind, and names if you like"),
		ValidArgsFunction: a.completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := asNamed(args)
			if err != nil {
				return err
			}
			ob, err := objectNamed(a, args[0])
			if err != nil {
				return err
			}
			o.names, o.format = args[1:], a.format()
			if err := checkFormat(o.format, listFormats); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return ob.print(cmd.Context(), a, cl, o)
		},
	}
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "only those with these labels: env=dev,team!=x")
	cmd.Flags().DurationVar(&o.since, "since", 0, "only those that began this long ago or later: 90m, 24h")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on with every change")
	return cmd
}

func newDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "describe KIND NAME",
		Short:             "Show everything about one object",
		Example:           "  hoopctl describe request r-12\n  hoopctl describe target clinic",
		Args:              takesNamed(2, 2, "a kind and a name"),
		ValidArgsFunction: a.completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := asNamed(args)
			if err != nil {
				return err
			}
			ob, err := objectNamed(a, args[0])
			if err != nil {
				return err
			}
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return ob.explain(cmd.Context(), a, cl, args[1])
		},
	}
}

func newDelete(a *app) *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete KIND NAME…",
		Short: "Revoke a grant, end a session, withdraw a request, delete a resource",
		Long: `Delete objects and say what that broke. A deleted grant is revoked: its live
sessions end within five seconds, and what they run is cancelled. A deleted
session ends. A deleted request is withdrawn. On a terminal it asks first, unless
--yes or --no-input is given; without a terminal it never asks.

` + agreeHelp,
		Example: `  hoopctl delete grant g-12 --reason "left the team"
  hoopctl delete session s-7
  hoopctl delete policy engineers --yes`,
		Args:              takesNamed(2, -1, "a kind and at least one name"),
		ValidArgsFunction: a.completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := asNamed(args)
			if err != nil {
				return err
			}
			ob, err := objectNamed(a, args[0])
			if err != nil {
				return err
			}
			if err := checkFormat(a.format(), append(oneFormats, "name")); err != nil {
				return err
			}
			one, _ := ob.names()
			if !yes && !a.noInput() && !a.confirm(fmt.Sprintf("Delete %s %s?", one, strings.Join(args[1:], ", "))) {
				return errors.New("not deleted")
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			for _, name := range args[1:] {
				if err := ob.delete(cmd.Context(), a, cl, name, reason); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; those who are cut off, or must agree, are told")
	cmd.Flags().Bool("no-wait", false, "do not wait where people must agree: exit 120, and it is deleted when they do")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks on stderr and reads the answer from the terminal.
func (a *app) confirm(question string) bool {
	fmt.Fprintf(a.err, "%s [y/N] ", printable(question))
	line, _ := bufio.NewReader(a.in).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

// completeObjects completes a kind, then names of it.
func (a *app) completeObjects(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		var kinds []string
		for _, o := range objects(a) {
			if _, many := o.names(); strings.HasPrefix(many, prefix) {
				kinds = append(kinds, many)
			}
		}
		return kinds, cobra.ShellCompDirectiveNoFileComp
	}
	ob, err := objectNamed(a, args[0])
	if err == nil {
		err = a.loadSettings(cmd)
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(ob.complete, prefix)
}

func targetKind() kind[api.Target] {
	return kind[api.Target]{
		singular: "target", plural: "targets", list: "TargetList",
		name: func(t api.Target) string { return t.Metadata.Name },
		columns: []column[api.Target]{
			{header: "NAME", cell: func(t api.Target) string { return t.Metadata.Name }},
			{header: "PROTOCOL", cell: func(t api.Target) string { return t.Spec.Protocol }},
			{header: "DATABASE", cell: func(t api.Target) string { return t.Spec.Database }},
			{header: "ACCESS", cell: func(t api.Target) string {
				if onlyObserved(t) {
					return t.Status.Access + " (only observed)"
				}
				return t.Status.Access
			}},
			{header: "GRANT", cell: func(t api.Target) string { return t.Status.Grant }},
			{header: "LABELS", cell: func(t api.Target) string { return labelText(t.Metadata.Labels) }},
			{header: "AGENT", wide: true, cell: func(t api.Target) string { return t.Spec.Agent }},
			{header: "EVIDENCE", wide: true, cell: func(t api.Target) string { return t.Spec.Evidence }},
			{header: "ENFORCEMENT", wide: true, cell: func(t api.Target) string { return t.Status.Enforcement }},
		},
	}
}

func labelText(labels map[string]string) string {
	var out []string
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func targets(a *app) collection[api.Target] {
	return collection[api.Target]{
		kind: targetKind(),
		meta: func(t api.Target) api.Meta { return t.Metadata },
		list: func(ctx context.Context, c *client.Client) ([]api.Target, error) { return c.Targets(ctx) },
		get:  findTarget,
		describe: func(w io.Writer, t api.Target) error {
			return fields(w, "Name", t.Metadata.Name, "Protocol", t.Spec.Protocol, "Database", t.Spec.Database, "Labels", labelText(t.Metadata.Labels),
				"Agent", t.Spec.Agent, "Evidence", t.Spec.Evidence, "Enforcement", t.Status.Enforcement, "Access", t.Status.Access, "Grant", t.Status.Grant)
		},
		remove: func(ctx context.Context, c *client.Client, name, reason string) (string, error) {
			return a.deleteResource(ctx, c, policy.KindTarget, name, reason)
		},
	}
}

// findTarget looks a target up among those that we may ask for.
func findTarget(ctx context.Context, c *client.Client, name string) (api.Target, error) {
	all, err := c.Targets(ctx)
	if err != nil {
		return api.Target{}, err
	}
	for _, t := range all {
		if t.Metadata.Name == name {
			return t, nil
		}
	}
	return api.Target{}, &api.Error{Reason: api.ReasonNotFound, Message: fmt.Sprintf("there is no target %q that you may ask for", name), Hint: "see hoopctl get targets", Source: "broker"}
}

func grantKind(now func() time.Time) kind[api.Grant] {
	return kind[api.Grant]{
		singular: "grant", plural: "grants", list: "GrantList",
		name: func(g api.Grant) string { return g.Metadata.Name },
		columns: []column[api.Grant]{
			{header: "NAME", cell: func(g api.Grant) string { return g.Metadata.Name }},
			{header: "PRINCIPAL", cell: func(g api.Grant) string { return g.Spec.Name }},
			{header: "TARGET", cell: func(g api.Grant) string { return g.Spec.Target }},
			{header: "STATUS", cell: func(g api.Grant) string { return g.Status.Phase }},
			{header: "ENDS", cell: func(g api.Grant) string { return endsIn(now, g) }},
			{header: "SESSIONS", cell: func(g api.Grant) string { return strconv.Itoa(g.Status.Sessions) }},
			{header: "RULE", wide: true, cell: func(g api.Grant) string { return g.Status.Rule }},
			{header: "REQUEST", wide: true, cell: func(g api.Grant) string { return g.Status.Request }},
			{header: "PURPOSE", wide: true, cell: func(g api.Grant) string { return g.Spec.Purpose }},
			{header: "REASON", wide: true, cell: func(g api.Grant) string { return oneLine(g.Spec.Reason, 40) }},
		},
	}
}

func endsIn(now func() time.Time, g api.Grant) string {
	switch {
	case g.Status.Phase != "active":
		return ""
	case g.Spec.Standing:
		return "standing"
	default:
		return "in " + span(g.Status.Expires.Sub(now()))
	}
}

func grants(now func() time.Time) collection[api.Grant] {
	return collection[api.Grant]{
		kind: grantKind(now),
		meta: func(g api.Grant) api.Meta { return g.Metadata },
		list: func(ctx context.Context, c *client.Client) ([]api.Grant, error) { return c.Grants(ctx) },
		get:  func(ctx context.Context, c *client.Client, name string) (api.Grant, error) { return c.Grant(ctx, name) },
		watch: func(ctx context.Context, c *client.Client) iter.Seq2[client.Change[api.Grant], error] {
			return c.WatchGrants(ctx)
		},
		describe: func(w io.Writer, g api.Grant) error {
			return fields(w, "Name", g.Metadata.Name, "Principal", g.Spec.Name+" ("+g.Spec.Principal+")", "Target", g.Spec.Target, "Status", g.Status.Phase,
				"Created", stamp(g.Metadata.Created), "Ends", stamp(g.Status.Expires), "Action", g.Spec.Action, "Purpose", g.Spec.Purpose, "Ticket", g.Spec.Ticket,
				"Reason", g.Spec.Reason, "Rule", g.Status.Rule, "Request", g.Status.Request, "Live sessions", strconv.Itoa(g.Status.Sessions),
				"Ended by", g.Status.EndedBy, "Ended because", g.Status.Reason)
		},
		remove: func(ctx context.Context, c *client.Client, name, reason string) (string, error) {
			r, err := c.RevokeGrant(ctx, name, reason)
			if len(r.Sessions) == 0 {
				return "revoked; it had no live sessions", err
			}
			return "revoked; ended " + strings.Join(r.Sessions, ", "), err
		},
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

func requestKind(now func() time.Time) kind[api.Request] {
	return kind[api.Request]{
		singular: "request", plural: "requests", list: "RequestList",
		name: func(r api.Request) string { return r.Metadata.Name },
		columns: []column[api.Request]{
			{header: "NAME", cell: func(r api.Request) string { return r.Metadata.Name }},
			{header: "BY", cell: func(r api.Request) string { return r.Spec.Name }},
			{header: "TARGET", cell: func(r api.Request) string { return r.Spec.Target }},
			{header: "ASKS FOR", cell: asksFor},
			{header: "STATUS", cell: func(r api.Request) string { return r.Status.Phase }},
			{header: "APPROVERS", cell: approvers},
			{header: "AGE", cell: func(r api.Request) string { return span(now().Sub(r.Metadata.Created)) }},
			{header: "SESSION", wide: true, cell: func(r api.Request) string { return r.Spec.Session }},
			{header: "RULES", wide: true, cell: func(r api.Request) string { return cureText(r, func(c api.Cure) string { return c.Rule }) }},
			{header: "REASON", wide: true, cell: func(r api.Request) string { return oneLine(r.Spec.Reason, 40) }},
			{header: "MAY I", wide: true, cell: func(r api.Request) string { return cmp.Or(r.Status.WhyNot, "yes") }},
		},
	}
}

func asksFor(r api.Request) string {
	if r.Spec.Kind == "change" {
		return oneLine(changeSummary(r), 50)
	}
	if r.Spec.Kind == "statement" {
		return oneLine(r.Spec.Statement, 50)
	}
	if r.Spec.For == 0 {
		return "a grant"
	}
	return "a grant for " + span(time.Duration(r.Spec.For))
}

func approvers(r api.Request) string {
	return cureText(r, func(c api.Cure) string {
		if c.Quorum > 1 {
			return fmt.Sprintf("%d of %s", c.Quorum, c.Group)
		}
		return c.Group
	})
}

func cureText(r api.Request, text func(api.Cure) string) string {
	var out []string
	for _, c := range r.Spec.Cures {
		if t := text(c); !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return strings.Join(out, " and ")
}

func requests(now func() time.Time) collection[api.Request] {
	return collection[api.Request]{
		kind: requestKind(now),
		meta: func(r api.Request) api.Meta { return r.Metadata },
		list: func(ctx context.Context, c *client.Client) ([]api.Request, error) { return c.Requests(ctx) },
		get: func(ctx context.Context, c *client.Client, name string) (api.Request, error) {
			return c.Request(ctx, name)
		},
		watch: func(ctx context.Context, c *client.Client) iter.Seq2[client.Change[api.Request], error] {
			return c.WatchRequests(ctx)
		},
		describe: describeRequest,
		remove: func(ctx context.Context, c *client.Client, name, _ string) (string, error) {
			return "withdrawn", c.Withdraw(ctx, name)
		},
	}
}

func describeRequest(w io.Writer, r api.Request) error {
	pairs := []string{"Name", r.Metadata.Name, "Asked by", r.Spec.Name + " (" + r.Spec.Principal + ")", "Target", r.Spec.Target, "Session", r.Spec.Session,
		"Asks for", asksFor(r), "Status", r.Status.Phase, "Status reason", r.Status.Reason, "Created", stamp(r.Metadata.Created), "Expires", stamp(r.Status.Expires),
		"Reason", r.Spec.Reason, "Purpose", r.Spec.Purpose, "Ticket", r.Spec.Ticket}
	switch {
	case r.Spec.Kind == "change":
		pairs = append(pairs, "Change", r.Spec.Statement)
	case r.Spec.Statement != "":
		pairs = append(pairs, "Statement", r.Spec.Statement)
	}
	for i, p := range r.Spec.Params {
		pairs = append(pairs, fmt.Sprintf("$%d", i+1), p)
	}
	if f := r.Spec.Facts; f != nil {
		pairs = append(pairs, "Class", string(f.Class), "Tables", strings.Join(f.Tables, ", "))
	}
	for _, c := range r.Spec.Cures {
		pairs = append(pairs, "Needs", strings.TrimSpace(fmt.Sprintf("%d of %s for rule %s: %s", c.Quorum, c.Group, c.Rule, c.Reason)))
	}
	for _, x := range r.Status.Answers {
		word := "denied"
		if x.Approve {
			word = "approved"
		}
		pairs = append(pairs, "Answer", strings.TrimSpace(fmt.Sprintf("%s %s at %s %s", x.Name, word, stamp(x.Time), x.Reason)))
	}
	return fields(w, append(pairs, "Grant", r.Status.Grant, "Digest", r.Spec.Digest, "You may not answer", r.Status.WhyNot)...)
}

func sessionKind(now func() time.Time) kind[api.Session] {
	return kind[api.Session]{
		singular: "session", plural: "sessions", list: "SessionList",
		name: func(s api.Session) string { return s.Metadata.Name },
		columns: []column[api.Session]{
			{header: "NAME", cell: func(s api.Session) string { return s.Metadata.Name }},
			{header: "PRINCIPAL", cell: func(s api.Session) string { return s.Spec.Name }},
			{header: "TARGET", cell: func(s api.Session) string { return s.Spec.Target }},
			{header: "STATUS", cell: func(s api.Session) string { return strings.TrimSpace(s.Status.Phase + " " + s.Status.Request) }},
			{header: "STATEMENTS", cell: func(s api.Session) string { return strconv.FormatInt(s.Status.Statements, 10) }},
			{header: "ROWS", cell: func(s api.Session) string { return strconv.FormatInt(s.Status.Rows, 10) }},
			{header: "MASKED", cell: func(s api.Session) string { return strconv.FormatInt(s.Status.Masked, 10) }},
			{header: "AGE", cell: func(s api.Session) string { return span(now().Sub(s.Metadata.Created)) }},
			{header: "GRANT", wide: true, cell: func(s api.Session) string { return s.Spec.Grant }},
			{header: "DATABASE", wide: true, cell: func(s api.Session) string { return s.Spec.Database }},
			{header: "APPLICATION", wide: true, cell: func(s api.Session) string { return s.Spec.Application }},
			{header: "VIA", wide: true, cell: func(s api.Session) string { return s.Spec.Via }},
			{header: "SOURCE", wide: true, cell: func(s api.Session) string { return s.Spec.Source }},
			{header: "ENDED", wide: true, cell: func(s api.Session) string { return s.Status.Reason }},
		},
	}
}

func sessions(now func() time.Time) collection[api.Session] {
	return collection[api.Session]{
		kind: sessionKind(now),
		meta: func(s api.Session) api.Meta { return s.Metadata },
		list: func(ctx context.Context, c *client.Client) ([]api.Session, error) { return c.Sessions(ctx) },
		get: func(ctx context.Context, c *client.Client, name string) (api.Session, error) {
			return c.Session(ctx, name)
		},
		watch: func(ctx context.Context, c *client.Client) iter.Seq2[client.Change[api.Session], error] {
			return c.WatchSessions(ctx)
		},
		describe: func(w io.Writer, s api.Session) error {
			pairs := []string{"Name", s.Metadata.Name, "Principal", s.Spec.Name + " (" + s.Spec.Principal + ")", "Target", s.Spec.Target, "Grant", s.Spec.Grant,
				"Database", s.Spec.Database, "Application", s.Spec.Application, "Via", s.Spec.Via, "Source", s.Spec.Source, "Status", s.Status.Phase,
				"Waits for", s.Status.Request, "Opened", stamp(s.Metadata.Created), "Closed", stamp(s.Status.Closed), "Reason", s.Status.Reason,
				"Statements", strconv.FormatInt(s.Status.Statements, 10), "Rows", strconv.FormatInt(s.Status.Rows, 10),
				"Bytes to client", strconv.FormatInt(s.Status.Bytes, 10), "Cells masked", strconv.FormatInt(s.Status.Masked, 10)}
			for _, m := range s.Status.MaskedColumns {
				pairs = append(pairs, "Masked", fmt.Sprintf("%s, %d cells", maskedWords(m), m.Cells))
			}
			return fields(w, pairs...)
		},
		remove: func(ctx context.Context, c *client.Client, name, reason string) (string, error) {
			return "ended", c.EndSession(ctx, name, reason)
		},
	}
}

func resources(a *app, k string) collection[api.Resource] {
	one := strings.ToLower(k)
	many := one + "s"
	if strings.HasSuffix(one, "y") {
		many = strings.TrimSuffix(one, "y") + "ies"
	}
	return collection[api.Resource]{
		kind: kind[api.Resource]{
			singular: one, plural: many, list: k + "List",
			name: func(r api.Resource) string { return r.Metadata.Name },
			columns: []column[api.Resource]{
				{header: "NAME", cell: func(r api.Resource) string { return r.Metadata.Name }},
				{header: "LABELS", cell: func(r api.Resource) string { return labelText(r.Metadata.Labels) }},
				{header: "SPEC", wide: true, cell: func(r api.Resource) string { return oneLine(string(r.Spec), 80) }},
			},
		},
		meta: func(r api.Resource) api.Meta { return r.Metadata },
		list: func(ctx context.Context, c *client.Client) ([]api.Resource, error) { return c.Resources(ctx, k) },
		get: func(ctx context.Context, c *client.Client, name string) (api.Resource, error) {
			return c.Resource(ctx, k, name)
		},
		describe: func(w io.Writer, r api.Resource) error { return printObject(w, "yaml", r) },
		more: func(ctx context.Context, c *client.Client, r api.Resource) error {
			if k != policy.KindPolicy {
				return nil
			}
			if err := a.describeFired(ctx, c, r); err != nil {
				return err
			}
			return a.describeBudgets(ctx, c, r.Metadata.Name)
		},
		remove: func(ctx context.Context, c *client.Client, name, reason string) (string, error) {
			return a.deleteResource(ctx, c, k, name, reason)
		},
	}
}
