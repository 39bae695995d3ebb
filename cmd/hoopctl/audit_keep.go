package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

func newAuditShred(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "shred SESSION [--reason R]",
		Short: "Destroy a session's recording for good: two people, and a leaf",
		Long: `Destroy the recording of a session that is over. It takes two people: one who may
change resources asks, with a reason (exit code 120: it waits for the other); within
a day another one, who may read the evidence, runs the same command and agrees.
What opens the recording is then deleted, and so are its sealed files; the timeline
and its proofs stand, and a leaf says who asked and who agreed. A recording under a
legal hold is not destroyed. Copies elsewhere of the session's wrapped key must be
deleted by whoever made them.`,
		Example: `  hoopctl audit shred s-7 --reason "the contract ended"     # one person
  hoopctl audit shred s-7                                   # another one`,
		Args:              takes(1, 1, "the name of a session"),
		ValidArgsFunction: a.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			s, err := cl.Shred(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return a.printShredding(s)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; shown to whoever is to agree")
	return cmd
}

func (a *app) printShredding(s api.Shredding) error {
	if a.format() != "" {
		if err := printObject(a.out, a.format(), s); err != nil {
			return err
		}
	} else if s.Agreed != "" {
		fmt.Fprintln(a.out, printable(fmt.Sprintf("the recording of %s is shredded: %s asked (%s), you agreed", s.Session, s.Name, s.Reason)))
	} else {
		fmt.Fprintln(a.out, printable(fmt.Sprintf("the recording of %s waits for a second person until %s: hoopctl audit shred %s", s.Session, stamp(s.Expires), s.Session)))
	}
	if s.Agreed == "" {
		return exitWith(exitPending)
	}
	return nil
}

func newAuditHold(a *app) *cobra.Command {
	var sessions, targets []string
	var reason string
	cmd := &cobra.Command{
		Use:   "hold NAME (--session S | --target T)… --reason R",
		Short: "Keep recordings from being destroyed: a legal hold",
		Long: `Put a LegalHold in force: the recordings of the named sessions, or of all sessions
on the named targets, are neither ended by retention nor shredded until the hold is
deleted (hoopctl delete legalholds NAME). It is a resource like any other: policy says who
may do this, and it is in the evidence.`,
		Example: `  hoopctl audit hold case-7 --session s-7 --session s-9 --reason "Smith v. Clinic"
  hoopctl audit hold case-8 --target clinic --reason "subpoena of 2026-11-20"`,
		Args: takes(1, 1, "the name of the hold"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" || len(sessions) == 0 && len(targets) == 0 {
				return usagef("want --reason, and --session or --target")
			}
			spec := policy.LegalHoldSpec{Sessions: sessions, Targets: policy.Selector{Names: targets}, Reason: reason}
			text, err := yaml.Marshal(map[string]any{"kind": policy.KindLegalHold, "metadata": map[string]string{"name": args[0]}, "spec": spec})
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			applied, err := cl.Apply(cmd.Context(), api.Apply{Files: []api.File{{Name: args[0] + ".yaml", Content: string(text)}}, Reason: reason})
			if err != nil {
				return err
			}
			if applied.Request != nil {
				fmt.Fprintln(a.out, printable(fmt.Sprintf("the hold waits for approval: request %s", applied.Request.Metadata.Name)))
				return exitWith(exitPending)
			}
			_, err = fmt.Fprintln(a.out, printable("legal hold "+args[0]+" is in force"))
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&sessions, "session", nil, "of this session; may be given several times")
	f.StringArrayVar(&targets, "target", nil, "of all sessions on this target; may be given several times")
	f.StringVar(&reason, "reason", "", "why")
	return cmd
}

func newAuditRetention(a *app) *cobra.Command {
	var o readOptions
	cmd := &cobra.Command{
		Use:   "retention",
		Short: "How far back the evidence reaches, and what became of recordings",
		Long: `Say, from verified evidence, how old the oldest event is and what became of each
recording: kept (it opens for an auditor), shredded with a leaf that says why, or
without its wrapped key and without such a leaf.`,
		Example: `  hoopctl audit retention
  hoopctl audit retention --from /backup/evidence -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			kept := evidence.NewRetention()
			verified, err := a.examine(cmd.Context(), o, kept.Add)
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			files, err := a.evidenceFiles(cmd.Context(), o.from)
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			if err := a.printRetention(kept.Finish(files, verified)); err != nil {
				return err
			}
			return a.examined(verified)
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

// evidenceFiles lists the files of a folder, a bundle, or what the server hands out.
func (a *app) evidenceFiles(ctx context.Context, from string) ([]api.EvidenceFile, error) {
	var src evidence.Source
	var open io.Closer
	var err error
	if isBundle(from) {
		src, open, err = openBundle(from)
	} else {
		src, _, err = a.evidenceSource(ctx, from, "-") // the key is of no use for listing
	}
	if err != nil {
		return nil, err
	}
	files, err := src.List(ctx)
	if open != nil {
		err = errors.Join(err, open.Close())
	}
	return files, err
}

func (a *app) printRetention(r *evidence.Retained) error {
	if a.format() != "" {
		return printObject(a.out, a.format(), r)
	}
	day := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return stamp(t)
	}
	if err := fields(a.out, "Oldest event", day(r.First), "Newest event", day(r.Last), "Events", fmt.Sprint(r.Leaves),
		"Recordings kept", fmt.Sprint(r.Kept), "Oldest kept", day(r.OldestKept), "Sealed files", fmt.Sprint(r.SealedFiles), "Shredded", fmt.Sprint(len(r.Shredded)),
		"Without their key", fmt.Sprint(len(r.Lost))); err != nil {
		return err
	}
	for _, s := range r.Shredded {
		fmt.Fprintln(a.out, printable(fmt.Sprintf("  %s  %s  %s (leaf %d)", stamp(s.Time), s.Session, s.Reason, s.Leaf)))
	}
	for _, s := range r.Lost {
		fmt.Fprintln(a.out, printable(fmt.Sprintf("  %s has no wrapped key, and no leaf says that it was shredded", s)))
	}
	return nil
}
