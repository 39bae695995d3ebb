package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/server/evidence"
)

func newAuditConflicts(a *app) *cobra.Command {
	var o readOptions
	cmd := &cobra.Command{
		Use:   "conflicts",
		Short: "Duties that conflict in one person: who approved for each other, who made the rules and used them",
		Long: `List, from verified evidence, where duties that should be apart met in one person or
in a pair: two people who approved each other's requests; somebody who changed
resources and ran statements; somebody who asked for or agreed to the destruction of
the recording of a session of their own. It is a list to look into, not a list of
misdeeds.`,
		Example: `  hoopctl audit conflicts --since 2026-10-01 --until 2027-01-01
  hoopctl audit conflicts --from backup/evidence -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), listFormats); err != nil {
				return err
			}
			since, until, err := o.bounds(a.now())
			if err != nil {
				return err
			}
			c := evidence.NewConflicts(since, until)
			verified, err := a.examine(cmd.Context(), o, c.Add)
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			return errors.Join(printList(a.out, a.format(), conflictKind(), c.Conflicts()), a.examined(verified))
		},
	}
	o.flags(cmd.Flags())
	o.period(cmd.Flags())
	return cmd
}

func conflictKind() kind[evidence.Conflict] {
	return kind[evidence.Conflict]{
		singular: "conflict", plural: "conflicts", list: "ConflictList",
		name: func(c evidence.Conflict) string { return strings.Join(c.People, "+") },
		columns: []column[evidence.Conflict]{
			{header: "PEOPLE", cell: func(c evidence.Conflict) string { return strings.Join(c.People, ", ") }},
			{header: "WHAT", cell: func(c evidence.Conflict) string { return c.What }},
			{header: "TIMES", cell: func(c evidence.Conflict) string { return fmt.Sprint(c.Times) }},
			{header: "LEAVES", cell: func(c evidence.Conflict) string { return strings.Trim(fmt.Sprint(c.Leaves), "[]") }},
		},
	}
}

func newAuditLeavers(a *app) *cobra.Command {
	var o readOptions
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "leavers [--idle 720h]",
		Short: "Grants in force of people whose login has ended or who were long not seen",
		Long: `List, from verified evidence, the grants that are in force although their holder
logged out last, or has neither logged in nor had a login renewed for a while: the
provider confirms people at each renewal, so somebody who has left is soon not seen.`,
		Example: `  hoopctl audit leavers
  hoopctl audit leavers --idle 168h -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), listFormats); err != nil {
				return err
			}
			l := evidence.NewLeavers(a.now(), idle)
			verified, err := a.examine(cmd.Context(), o, l.Add)
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			return errors.Join(printList(a.out, a.format(), leaverKind(), l.Leavers()), a.examined(verified))
		},
	}
	cmd.Flags().DurationVar(&idle, "idle", 30*24*time.Hour, "not seen for so long")
	o.flags(cmd.Flags())
	return cmd
}

func leaverKind() kind[evidence.Leaver] {
	return kind[evidence.Leaver]{
		singular: "leaver", plural: "leavers", list: "LeaverList",
		name: func(l evidence.Leaver) string { return l.Grant.Grant },
		columns: []column[evidence.Leaver]{
			{header: "NAME", cell: func(l evidence.Leaver) string { return l.Grant.Name }},
			{header: "TARGET", cell: func(l evidence.Leaver) string { return l.Grant.Target }},
			{header: "GRANT", cell: func(l evidence.Leaver) string { return l.Grant.Grant }},
			{header: "EXPIRES", cell: func(l evidence.Leaver) string { return stamp(l.Grant.Expires) }},
			{header: "SEEN", cell: func(l evidence.Leaver) string { return seenText(l.Seen) }},
			{header: "WHY", cell: func(l evidence.Leaver) string { return l.Why }},
			{header: "LEAF", cell: func(l evidence.Leaver) string { return fmt.Sprint(l.Grant.Index) }},
		},
	}
}

func seenText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return stamp(t)
}

func newAuditDisclosures(a *app) *cobra.Command {
	var o readOptions
	var tag string
	cmd := &cobra.Command{
		Use:   "disclosures [--tag phi]",
		Short: "What tagged data was shown unmasked: to whom, for which purpose, how much",
		Long: `Account, from verified evidence, for statements that showed columns of a tag without
masking all of them: by recipient and purpose, with counts of statements and rows, and
the leaves. The evidence names no subjects of rows, so that every row is counted as
unattributed: whose data it was is found by replaying the sessions named.`,
		Example: `  hoopctl audit disclosures --since 2026-11-01 --until 2026-12-01
  hoopctl audit disclosures --tag phi -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), listFormats); err != nil {
				return err
			}
			since, until, err := o.bounds(a.now())
			if err != nil {
				return err
			}
			d := evidence.NewDisclosures(since, until, tag)
			verified, err := a.examine(cmd.Context(), o, d.Add)
			if err != nil {
				return unexamined(cmd.Context(), err)
			}
			return errors.Join(printList(a.out, a.format(), disclosureKind(), d.Disclosures()), a.examined(verified))
		},
	}
	cmd.Flags().StringVar(&tag, "tag", "phi", "columns with this tag")
	o.flags(cmd.Flags())
	o.period(cmd.Flags())
	return cmd
}

func disclosureKind() kind[evidence.Disclosure] {
	return kind[evidence.Disclosure]{
		singular: "disclosure", plural: "disclosures", list: "DisclosureList",
		name: func(d evidence.Disclosure) string { return d.Name + "/" + d.Target },
		columns: []column[evidence.Disclosure]{
			{header: "RECIPIENT", cell: func(d evidence.Disclosure) string { return d.Name }},
			{header: "TARGET", cell: func(d evidence.Disclosure) string { return d.Target }},
			{header: "PURPOSE", cell: func(d evidence.Disclosure) string { return d.Purpose }},
			{header: "STATEMENTS", cell: func(d evidence.Disclosure) string { return fmt.Sprint(d.Statements) }},
			{header: "ROWS", cell: func(d evidence.Disclosure) string { return fmt.Sprint(d.Unattributed) }},
			{header: "FIRST", cell: func(d evidence.Disclosure) string { return stamp(d.First) }},
			{header: "LAST", cell: func(d evidence.Disclosure) string { return stamp(d.Last) }},
			{header: "SESSIONS", cell: func(d evidence.Disclosure) string { return strings.Join(d.Sessions, ",") }},
		},
	}
}
