package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// readOptions say which evidence a report is made from.
type readOptions struct {
	from         string // folder or bundle; "" asks the server
	logKey       string
	witnesses    witnessFlags
	since, until string
}

func (o *readOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.from, "from", "", "read a folder of evidence or a bundle instead of asking the server")
	f.StringVar(&o.logKey, "log-key", "", "the log's verifier key (default: the one pinned at login)")
	o.witnesses.flags(f)
}

func (o *readOptions) period(f *pflag.FlagSet) {
	f.StringVar(&o.since, "since", "", "from here on: 24h (ago), 2026-11-01, or 2026-11-01T08:00:00Z")
	f.StringVar(&o.until, "until", "", "up to here")
}

func (o *readOptions) bounds(now time.Time) (since, until time.Time, err error) {
	if since, err = parseTime(o.since, now); err != nil {
		return since, until, usagef("--since %q: want a duration (24h), a date, or a time in RFC 3339", o.since)
	}
	if until, err = parseTime(o.until, now); err != nil {
		return since, until, usagef("--until %q: want a duration (24h), a date, or a time in RFC 3339", o.until)
	}
	return since, until, nil
}

// examine verifies evidence, but for the recordings, and then calls fn for each
// event that was verified. A report that rests on less would prove nothing.
func (a *app) examine(ctx context.Context, o readOptions, fn func(*api.Event)) (*evidence.Report, error) {
	report, err := a.verify(ctx, verifyOptions{dir: o.from, logKey: o.logKey, witnesses: o.witnesses, skipRecordings: true})
	if err != nil {
		return nil, err
	}
	if report.Status == evidence.Tampered {
		err := fmt.Errorf("the evidence was tampered with: %s", report.Problems[0])
		return nil, &coded{withHint(err, "nothing is made from it; audit verify says all that is wrong"), exitCode(report.Status)}
	}
	take := func(e *api.Event) error {
		if e.Index < report.Leaves || isBundle(o.from) { // not what came since
			fn(e)
		}
		return nil
	}
	if isBundle(o.from) {
		b, f, err := openBundle(o.from)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return report, b.Events(take)
	}
	key := o.logKey
	if key == "" {
		key = "-" // of no use for reading
	}
	src, _, err := a.evidenceSource(ctx, o.from, key)
	if err != nil {
		return nil, err
	}
	return report, evidence.Events(ctx, src, 0, take)
}

func newAuditReport(a *app) *cobra.Command {
	var o readOptions
	var framework, format string
	cmd := &cobra.Command{
		Use:   "report --framework hipaa [-o FILE]",
		Short: "A report for a compliance officer, each row with its leaf of the log",
		Long: `Make a report from the evidence itself: who acted, who was granted what and by
whom, every statement on tagged data with what was masked, what was refused, what
was changed, logins, and whether recording was ever interrupted. Each row names the
leaf that it comes from. The evidence is verified first, here, and the report
says at its head what that proved; the exit code is that of audit verify. From
evidence that was tampered with nothing is made.

HTML is one page without scripts, to be read and printed; CSV has one cell a line.`,
		Example: `  hoopctl audit report --framework hipaa --since 2026-11-01 --until 2026-12-01 -o november.html
  hoopctl audit report --framework hipaa --format json --from november.zip`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if framework != "hipaa" {
				return usagef("--framework %q: want hipaa", framework)
			}
			write, ok := map[string]func(*evidence.Compliance, io.Writer) error{"html": (*evidence.Compliance).WriteHTML,
				"csv": (*evidence.Compliance).WriteCSV, "json": (*evidence.Compliance).WriteJSON}[format]
			if !ok {
				return usagef("--format %q: want html, csv or json", format)
			}
			since, until, err := o.bounds(a.now())
			if err != nil {
				return err
			}
			h := evidence.NewHIPAA(since, until)
			verified, err := a.examine(cmd.Context(), o, h.Add)
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			report := h.Finish(verified)
			if file := a.format(); file != "" {
				err = writeWhole(file, func(w io.Writer) error { return write(report, w) })
			} else {
				err = write(report, a.out)
			}
			if err != nil {
				return &coded{err, exitBroker}
			}
			return a.examined(verified)
		},
	}
	f := cmd.Flags()
	f.StringVar(&framework, "framework", "hipaa", "hipaa: 45 CFR 164.312 and 164.308(a)(1)(ii)(D)")
	f.StringVar(&format, "format", "html", "html, csv or json")
	o.flags(f)
	o.period(f)
	return cmd
}

// unexamined is what kept evidence from being read: tampering has its own code.
func unexamined(ctx context.Context, err error) error {
	var own *coded
	if errors.As(err, &own) {
		return err
	}
	return verifyFailed(ctx, err)
}

// examined says when what was printed rests on evidence that is not whole.
func (a *app) examined(r *evidence.Report) error {
	if r.Status != evidence.Intact {
		fmt.Fprintf(a.err, "The evidence is %s; audit verify says more.\n", r.Status)
	}
	return exitWith(exitCode(r.Status))
}

func newAuditSample(a *app) *cobra.Command {
	var o readOptions
	var n int
	var seed string
	var q api.EventQuery
	cmd := &cobra.Command{
		Use:   "sample --seed S",
		Short: "A sample of events that anybody can draw again",
		Long: `Draw a sample of events from verified evidence: those whose SHA-256(seed, 0, leaf)
is smallest. The same seed, period and filters give the same sample to anybody;
choose the seed after the period has ended, and nobody could prepare for it.`,
		Example: `  hoopctl audit sample --n 25 --seed 2026-12-01 --since 2026-11-01 --until 2026-12-01 --kind statement
  hoopctl audit sample --n 5 --seed dice-4-2-6 --kind approval -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), listFormats); err != nil {
				return err
			}
			if n < 1 || n > 100_000 || seed == "" {
				return usagef("want --seed, and --n from 1 to 100000")
			}
			var err error
			if q.Since, q.Until, err = o.bounds(a.now()); err != nil {
				return err
			}
			s := evidence.NewSampler(n, seed)
			verified, err := a.examine(cmd.Context(), o, func(e *api.Event) {
				if evidence.Matches(&q, e) {
					s.Add(e)
				}
			})
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			return errors.Join(printList(a.out, a.format(), eventKind(), s.Events()), a.examined(verified))
		},
	}
	f := cmd.Flags()
	f.IntVar(&n, "n", 25, "so many events")
	f.StringVar(&seed, "seed", "", "what the draw hangs on")
	f.StringSliceVar(&q.Kind, "kind", nil, "kinds of event: statement, approval, login, …")
	f.StringVar(&q.Target, "target", "", "on this target")
	f.StringVar(&q.Tag, "tag", "", "that touch columns with this tag: phi")
	o.flags(f)
	o.period(f)
	return cmd
}

func newAuditAccess(a *app) *cobra.Command {
	var o readOptions
	var when string
	cmd := &cobra.Command{
		Use:   "access [--at TIME]",
		Short: "Who held access at a time: the grants in force, from the evidence",
		Long: `List the grants that were in force at a time: issued by then, neither expired nor
ended. It is read from verified evidence, each row with its leaf. What somebody
could have asked for besides is a matter of the policy of that time, of which the
evidence holds the digest (column POLICY) and not the text.`,
		Example: `  hoopctl audit access --at 2026-11-15
  hoopctl audit access --at 2026-11-15T08:00:00Z --from backup/evidence --log-key "$(cat log.vkey)" -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), listFormats); err != nil {
				return err
			}
			at, err := parseTime(when, a.now())
			if err != nil {
				return usagef("--at %q: want a duration (24h ago), a date, or a time in RFC 3339", when)
			}
			if at.IsZero() {
				at = a.now()
			}
			g := evidence.NewGrantsAt(at)
			verified, err := a.examine(cmd.Context(), o, g.Add)
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			if verified.Last.Before(at) && a.format() == "" {
				fmt.Fprintf(a.err, "The evidence ends at %s, before that time.\n", stamp(verified.Last))
			}
			return errors.Join(printList(a.out, a.format(), accessKind(), g.Grants()), a.examined(verified))
		},
	}
	f := cmd.Flags()
	f.StringVar(&when, "at", "", "a date, a time in RFC 3339, or a duration ago (default: now)")
	o.flags(f)
	return cmd
}

func accessKind() kind[api.Event] {
	return kind[api.Event]{
		singular: "grant", plural: "grants", list: "EventList",
		name: func(e api.Event) string { return e.Grant },
		columns: []column[api.Event]{
			{header: "NAME", cell: func(e api.Event) string { return e.Name }},
			{header: "TARGET", cell: func(e api.Event) string { return e.Target }},
			{header: "GRANT", cell: func(e api.Event) string { return e.Grant }},
			{header: "SINCE", cell: func(e api.Event) string { return stamp(e.Time) }},
			{header: "EXPIRES", cell: func(e api.Event) string { return stamp(e.Expires) }},
			{header: "REQUEST", cell: func(e api.Event) string { return e.Request }},
			{header: "LEAF", cell: func(e api.Event) string { return fmt.Sprint(e.Index) }},
			{header: "IDENTITY", wide: true, cell: func(e api.Event) string { return e.Principal }},
			{header: "POLICY", wide: true, cell: func(e api.Event) string { return e.Policy }},
		},
	}
}
