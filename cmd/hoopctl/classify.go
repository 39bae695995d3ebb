package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
)

func newClassify(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "classify",
		Short:   "Hold a database's columns to its Classification",
		Example: "  hoopctl classify check clinic",
	}, newClassifyCheck(a))
}

type classifyOptions struct {
	askOptions
	target   string
	database string
	from     []string
}

func newClassifyCheck(a *app) *cobra.Command {
	o := new(classifyOptions)
	cmd := &cobra.Command{
		Use:   "check TARGET",
		Short: "Fail if a table with tags has columns that nobody classified",
		Long: `Read the columns of the target's tables and compare them with the Classification
in force, or with one in files. A table of which one column is tagged has to
have all its columns listed, those that are harmless as tag none; a migration
that adds one and leaves it out exits with 1. So does a tag on a column that does
not exist. What is in force is read by those who may manage it; with -f nobody
has to.`,
		Example: `  hoopctl classify check clinic
  hoopctl classify check clinic -f policies/classification.yaml   # in CI, behind the migration`,
		Args:              takes(1, 1, "a target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), []string{"", "json"}); err != nil {
				return err
			}
			o.target = args[0]
			return a.classifyCheck(cmd.Context(), *o)
		},
	}
	f := cmd.Flags()
	o.askOptions.flags(f)
	f.StringArrayVarP(&o.from, "filename", "f", nil, "file or folder of resources, in place of those in force")
	f.StringVarP(&o.database, "database", "d", "", "another database of the target's")
	return cmd
}

// classified is what classify check found.
type classified struct {
	Target       string   `json:"target"`
	Tagged       int      `json:"tagged"`       // columns with a tag
	Unclassified []string `json:"unclassified"` // columns of tables with tags that nobody listed
	Missing      []string `json:"missing"`      // listed columns that do not exist
}

var errUnclassified = errors.New("the classification is not complete")

func (a *app) classifyCheck(ctx context.Context, o classifyOptions) error {
	conn, labels, done, err := a.openTarget(ctx, o.target, o.database, o.askOptions)
	if err != nil {
		return pending(err, o.noWait)
	}
	defer done()
	columns, err := readColumns(ctx, conn)
	if err != nil {
		return pending(err, o.noWait)
	}
	set, err := a.classifications(ctx, o.from)
	if err != nil {
		return err
	}
	tags := set.Tags(policy.TargetRef{Name: o.target, Protocol: "postgres", Labels: labels})
	if len(tags) == 0 {
		return withHint(fmt.Errorf("no Classification is about target %s", o.target), "hoopctl discover "+o.target+" proposes one")
	}
	found := compareColumns(o.target, columns, tags)
	if a.format() == "json" {
		if err := json.NewEncoder(a.out).Encode(found); err != nil {
			return err
		}
	} else {
		for _, c := range found.Unclassified {
			fmt.Fprintf(a.out, "not classified: %s\n", printable(c))
		}
		for _, c := range found.Missing {
			fmt.Fprintf(a.out, "does not exist: %s\n", printable(c))
		}
	}
	if n := len(found.Unclassified) + len(found.Missing); n > 0 {
		return withHint(fmt.Errorf("%w: %d columns of %s", errUnclassified, n, o.target), "tag each, or list it with tag: none")
	}
	return nil
}

// compareColumns holds the columns of a database to its tags.
func compareColumns(target string, columns []dbColumn, tags []policy.Tag) classified {
	out := classified{Target: target, Unclassified: []string{}, Missing: []string{}}
	listed, tables := map[policy.ColumnRef]bool{}, map[policy.ColumnRef]bool{}
	for _, t := range tags {
		listed[t.Column] = true
		if t.Tag != "none" {
			out.Tagged++
			tables[policy.ColumnRef{Schema: t.Column.Schema, Table: t.Column.Table}] = true
		}
	}
	there := map[policy.ColumnRef]bool{}
	for _, c := range columns {
		there[c.ColumnRef] = true
		if tables[policy.ColumnRef{Schema: c.Schema, Table: c.Table}] && !listed[c.ColumnRef] {
			out.Unclassified = append(out.Unclassified, columnName(c.ColumnRef))
		}
	}
	for _, t := range tags {
		if !there[t.Column] {
			out.Missing = append(out.Missing, columnName(t.Column))
		}
	}
	return out
}

// classifications are those of files, or, where none are named, those in force.
func (a *app) classifications(ctx context.Context, from []string) (*policy.Set, error) {
	if len(from) > 0 {
		return a.compileFiles(from, nil)
	}
	cl, err := a.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return serverClassifications(ctx, cl)
}

func serverClassifications(ctx context.Context, cl *client.Client) (*policy.Set, error) {
	list, err := cl.Resources(ctx, policy.KindClassification)
	if err != nil {
		return nil, err
	}
	var all []policy.Resource
	for _, r := range list {
		b, err := yaml.Marshal(map[string]any{"kind": r.Kind, "metadata": map[string]any{"name": r.Metadata.Name}})
		if err != nil {
			return nil, err
		}
		// JSON is YAML, and ParseResources is the one reader of specs.
		found, err := policy.ParseResources("server", append(b, "spec: "+string(r.Spec)...))
		if err != nil {
			return nil, fmt.Errorf("read classification %s: %w", r.Metadata.Name, err)
		}
		all = append(all, found...)
	}
	return policy.Compile(all)
}
