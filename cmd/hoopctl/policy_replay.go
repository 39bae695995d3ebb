package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// recordedOptions are the flags of verbs that look at recorded statements.
type recordedOptions struct {
	since, target, principal string
}

func (o recordedOptions) from(now time.Time) (time.Time, error) {
	at, err := parseTime(o.since, now)
	if err != nil || at.IsZero() {
		return at, usagef("--since %q: want a duration (24h, 7d), a date, or a time in RFC 3339", o.since)
	}
	return at, nil
}

func newPolicyReplay(a *app) *cobra.Command {
	var o recordedOptions
	var files []string
	var prune bool
	var request string
	cmd := &cobra.Command{
		Use:   "replay --since 7d -f FILE|DIR",
		Short: "Which recorded statements a new set would decide otherwise",
		Long: `Decide recorded statements again, as if the files had been applied (or the change
that waits under --request), and show those that would come out otherwise: equal
ones of one principal as one, the most frequent first. Nothing is changed, and
nothing is sent to a target. Approvals given then count as far as the new set
still asks for them.

The evidence holds no literals: a statement is decided by its shape, its class
and the tables and tagged columns that it touched. Whether a transaction was
open and what came beside it in one message is not recorded. It needs the right
to read the evidence. Exit 0: nothing would change; 1: something would.`,
		Example: `  hoopctl policy replay --since 7d -f policies/
  hoopctl policy replay --since 24h -f policies/ --principal billing
  hoopctl policy replay --since 7d --request r-12`,
		Args: takes(0, 0, "no arguments but -f or --request"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			if (len(files) == 0) == (request == "") {
				return usagef("give -f with the new set, or --request with a change that waits")
			}
			in := api.Replay{Prune: prune, Request: request, Target: o.target, Principal: o.principal}
			var err error
			if in.Since, err = o.from(a.now()); err != nil {
				return err
			}
			if request == "" {
				if in.Files, err = a.readResources(files); err != nil {
					return err
				}
			}
			return a.replayPolicies(cmd.Context(), in)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "filename", "f", nil, "file or folder of resources, as for apply; - is stdin")
	f.BoolVar(&prune, "prune", false, "as if applied with --prune")
	f.StringVar(&request, "request", "", "in place of -f: the change that waits under this request")
	o.flags(cmd, "7d")
	return cmd
}

func (o *recordedOptions) flags(cmd *cobra.Command, since string) {
	f := cmd.Flags()
	f.StringVar(&o.since, "since", since, "from here on: 24h or 7d (ago), 2026-11-01, or 2026-11-01T08:00:00Z")
	f.StringVar(&o.target, "target", "", "on this target only")
	if f.Lookup("service") == nil {
		f.StringVar(&o.principal, "principal", "", "of this principal only: ID or name")
	}
}

func (a *app) replayPolicies(ctx context.Context, in api.Replay) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	out, err := cl.Replay(ctx, in)
	if err != nil {
		return err
	}
	if f := a.format(); f != "" {
		err = printObject(a.out, f, out)
	} else {
		err = a.printReplayed(out)
	}
	if err == nil && len(out.Changed) > 0 {
		return exitWith(exitError)
	}
	return err
}

func (a *app) printReplayed(out api.Replayed) error {
	if len(out.Changed) > 0 {
		t := newTable(a.out)
		fmt.Fprintln(t, "TIMES\tPRINCIPAL\tTARGET\tWAS\tWOULD BE\tRULE\tFIRST\tSTATEMENT")
		for _, c := range out.Changed {
			rule := ""
			if len(c.NowRules) > 0 {
				rule = c.NowRules[0]
			}
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Times, printable(c.Principal), printable(c.Target), c.Was, c.Now, rule, c.Ref, printable(oneLine(c.Statement, 80)))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	sum := fmt.Sprintf("%d statements since %s decided again, %d kinds would be decided otherwise", out.Decided, stamp(out.Since), len(out.Changed))
	if out.Undecided > 0 {
		sum += fmt.Sprintf("; of %d the evidence says too little", out.Undecided)
	}
	if out.Truncated {
		sum += "; there are more, give a later --since"
	}
	_, err := fmt.Fprintln(a.err, sum)
	return err
}

func newPolicyLearn(a *app) *cobra.Command {
	var o recordedOptions
	cmd := &cobra.Command{
		Use:   "learn --service NAME --since 7d",
		Short: "Write the list of statements that a service was seen to run",
		Long: `Write a Service resource whose list of statements holds what the service ran
since then, with each statement's shape, how often it ran and what it touched
beside its fingerprint. It changes nothing: read it, take out what does not
belong, and apply it. From then on the service runs these statements only.

Statements that it has listed already stay. What cannot be listed, because its
meaning depends on its literals, stands in the comments with the reason. A
principal that is no Service yet has its list written alone. It needs the right
to read the evidence.`,
		Example: `  hoopctl policy learn --service billing --since 7d > billing.yaml
  hoopctl diff -f billing.yaml`,
		Args: takes(0, 0, "no arguments but --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			if o.principal == "" {
				return usagef("name the service with --service")
			}
			since, err := o.from(a.now())
			if err != nil {
				return err
			}
			return a.learn(cmd.Context(), api.Learn{Principal: o.principal, Target: o.target, Since: since})
		},
	}
	cmd.Flags().StringVar(&o.principal, "service", "", "whose statements: a service's name, or any principal's ID or name")
	o.flags(cmd, "7d")
	return cmd
}

func (a *app) learn(ctx context.Context, in api.Learn) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	learned, err := cl.Learn(ctx, in)
	if err != nil {
		return err
	}
	if f := a.format(); f != "" {
		return printObject(a.out, f, learned)
	}
	spec, err := knownService(ctx, cl, in.Principal)
	if err != nil {
		return err
	}
	if learned.Truncated {
		fmt.Fprintln(a.err, "there are more statements than were looked at; give a later --since")
	}
	return writeService(a.out, in.Principal, spec, learned)
}

// knownService is the Service resource of that name, nil if there is none.
func knownService(ctx context.Context, cl *client.Client, name string) (*policy.ServiceSpec, error) {
	r, err := cl.Resource(ctx, policy.KindService, name)
	var e *api.Error
	if errors.As(err, &e) && e.Reason == api.ReasonNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := yaml.Marshal(map[string]any{"kind": r.Kind, "metadata": map[string]any{"name": r.Metadata.Name}})
	if err != nil {
		return nil, err
	}
	// JSON is YAML, and ParseResources is the one reader of specs.
	list, err := policy.ParseResources("server", append(b, "spec: "+string(r.Spec)...))
	if err != nil {
		return nil, fmt.Errorf("read service %s: %w", name, err)
	}
	spec, _ := list[0].Spec.(*policy.ServiceSpec)
	return spec, nil
}

// writeService writes the resource, and beside each fingerprint what it is of.
func writeService(w io.Writer, name string, spec *policy.ServiceSpec, learned api.Learned) error {
	var listed []string
	header := ""
	if spec != nil {
		listed = spec.Statements
		bare := *spec
		bare.Statements = nil
		b, err := policy.MarshalResources([]policy.Resource{{Kind: policy.KindService, Metadata: policy.Metadata{Name: name}, Spec: &bare}})
		if err != nil {
			return err
		}
		header = string(b)
	} else {
		header = "# There is no Service " + printable(name) + ": put this list under the spec of one.\nspec:\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Statements of %s since %s. Read each before it is applied: the service will run\n# these and no others.\n%s  statements:\n", printable(name), stamp(learned.Since), header)
	seen := map[string]bool{}
	for _, u := range learned.Statements {
		seen[u.Fingerprint] = true
		fmt.Fprintf(&b, "    # %s\n", shapeComment(u.Shape))
		note := fmt.Sprintf("%s, %d times, last %s", u.Class, u.Times, u.Last.UTC().Format(time.DateOnly))
		if len(u.Tables) > 0 {
			note += "; " + strings.Join(u.Tables, ", ")
		}
		if slices.Contains(listed, u.Fingerprint) {
			note += "; listed already"
		}
		if u.Unlisted != "" {
			fmt.Fprintf(&b, "    # NOT LISTED (%s): %s\n", printable(note), u.Unlisted)
			continue
		}
		fmt.Fprintf(&b, "    - %s # %s\n", u.Fingerprint, printable(note))
	}
	for _, fp := range listed {
		if !seen[fp] {
			fmt.Fprintf(&b, "    - %s # listed already, not seen since then\n", fp)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// shapeComment is a shape as the rest of one line of a comment.
func shapeComment(shape string) string { return printable(strings.Join(strings.Fields(shape), " ")) }

// describeFired says what a policy's rules decided lately.
func (a *app) describeFired(ctx context.Context, cl *client.Client, r api.Resource) error {
	const days = 7
	fired, err := cl.Fired(ctx, a.now().AddDate(0, 0, -days))
	var e *api.Error
	if errors.As(err, &e) && e.Reason == api.ReasonDenied {
		fmt.Fprintf(a.err, "What its rules decided lately is shown to those who may read the evidence.\n")
		return nil
	}
	if err != nil {
		return err
	}
	rules, err := rulesOf(r)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nDecisions of its rules in the last %d days (statements and grants):\n", days)
	t := newTable(a.out)
	fmt.Fprintln(t, "RULE\tALLOWED\tAGREED TO\tDENIED\tLAST")
	for _, id := range rules {
		i := slices.IndexFunc(fired.Rules, func(f api.FiredRule) bool { return f.Rule == id })
		if i < 0 {
			fmt.Fprintf(t, "%s\t0\t0\t0\tnever\n", id)
			continue
		}
		f := fired.Rules[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\n", id, f.Allowed, f.Held, f.Denied, stamp(f.Last))
	}
	return t.Flush()
}

// rulesOf are the ids of a Policy's rules.
func rulesOf(r api.Resource) ([]string, error) {
	var spec struct {
		Cedar string `yaml:"cedar"`
	}
	if err := yaml.Unmarshal(r.Spec, &spec); err != nil {
		return nil, fmt.Errorf("read policy %s: %w", r.Metadata.Name, err)
	}
	return policy.RuleIDs(spec.Cedar)
}
