package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// applyOptions are the flags of apply and diff.
type applyOptions struct {
	files  []string
	dryRun string
	prune  bool
	reason string
	noWait bool
}

func (o *applyOptions) flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.files, "filename", "f", nil, "file or folder of resources (.yaml, .yml, .cedar); - is stdin")
	f.BoolVar(&o.prune, "prune", false, "delete what was applied from these files before and stands in them no more")
}

func newApply(a *app) *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR",
		Short: "Create and change resources, all or none",
		Long: `Send resources to the server, which checks all of them before any is changed: an
error names file, line and field. A folder is one transaction. Every change is
evidence.

` + agreeHelp,
		Example: `  hoopctl apply -f policies/
  hoopctl apply -f policies/ --prune --reason "CHG-81: analysts read claims"
  hoopctl apply -f target.yaml --dry-run=server`,
		Args: takes(0, 0, "no arguments but -f"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), append(oneFormats, "name")); err != nil {
				return err
			}
			if o.dryRun != "" && o.dryRun != "none" && o.dryRun != "server" {
				return usagef("--dry-run is server or none, not %q", o.dryRun)
			}
			return a.applyAndWait(cmd.Context(), o)
		},
	}
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&o.dryRun, "dry-run", "", "server: check and say what would change, and change nothing")
	cmd.Flags().Lookup("dry-run").NoOptDefVal = "server"
	cmd.Flags().StringVar(&o.reason, "reason", "", "why; shown to those who must agree")
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "do not wait where people must agree: exit 120, and the change is made when they do")
	return cmd
}

func newDiff(a *app) *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:     "diff -f FILE|DIR",
		Short:   "What apply would change: exit 0 nothing, 1 something, 2 error",
		Example: "  hoopctl diff -f policies/",
		Args:    takes(0, 0, "no arguments but -f"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return &coded{err, exitUsage}
			}
			defer cl.Close()
			would, err := a.apply(cmd.Context(), cl, o, true)
			if err != nil {
				return &coded{err, exitUsage}
			}
			a.sayNeeds(would)
			changed := slices.DeleteFunc(would.Results, func(r api.AppliedResource) bool { return r.Action == "unchanged" })
			if would.Results = changed; a.format() != "" {
				if err := printObject(a.out, a.format(), would); err != nil {
					return &coded{err, exitUsage}
				}
			} else {
				a.printDiff(changed)
			}
			if len(changed) > 0 {
				return exitWith(exitError)
			}
			return nil
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

// applyAndWait applies, and waits for those who must agree first.
func (a *app) applyAndWait(ctx context.Context, o applyOptions) error {
	dry := o.dryRun == "server"
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	done, err := a.apply(ctx, cl, o, dry)
	if err == nil {
		done, err = a.awaitChange(ctx, cl, done, o.noWait)
	}
	if err != nil {
		return err
	}
	if dry {
		a.sayNeeds(done)
	}
	return a.printApplied(done, dry)
}

func (a *app) apply(ctx context.Context, cl *client.Client, o applyOptions, dryRun bool) (api.Applied, error) {
	files, err := a.readResources(o.files)
	if err != nil {
		return api.Applied{}, err
	}
	done, err := cl.Apply(ctx, api.Apply{Files: files, DryRun: dryRun, Prune: o.prune, Reason: o.reason})
	if err == nil && len(done.Results) == 0 {
		err = withHint(errNothing, "the files hold no resource")
	}
	return done, err
}

// readResources reads files, and folders with all that is below them. The
// server parses them, so that every error is said in one voice.
func (a *app) readResources(paths []string) ([]api.File, error) {
	if len(paths) == 0 {
		return nil, usagef("name what to apply with -f")
	}
	var files []api.File
	for _, p := range paths {
		if p == "-" {
			b, err := io.ReadAll(a.in)
			if err != nil {
				return nil, fmt.Errorf("read stdin: %w", err)
			}
			files = append(files, api.File{Name: "stdin.yaml", Content: string(b)})
			continue
		}
		found, err := resourceFiles(p)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, withHint(errNothing, "resources lie in files that end in .yaml, .yml or .cedar")
	}
	return files, nil
}

var errNothing = errors.New("there is nothing to apply")

func resourceFiles(root string) ([]api.File, error) {
	var files []api.File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if path != root && !slices.Contains([]string{".yaml", ".yml", ".cedar"}, strings.ToLower(filepath.Ext(path))) {
			return nil
		}
		if path != root && policy.IsCases(path) {
			return nil // what `policy test` reads
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, api.File{Name: filepath.ToSlash(path), Content: string(b)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	return files, nil
}

func (a *app) printApplied(done api.Applied, dryRun bool) error {
	switch f := a.format(); f {
	case "json", "yaml":
		return printObject(a.out, f, done)
	case "name":
		for _, r := range done.Results {
			fmt.Fprintf(a.out, "%s/%s\n", strings.ToLower(r.Kind), r.Name)
		}
		return nil
	}
	suffix := ""
	if dryRun {
		suffix = " (server dry run)"
	}
	for _, r := range done.Results {
		fmt.Fprintf(a.out, "%s/%s %s%s\n", strings.ToLower(r.Kind), printable(r.Name), r.Action, suffix)
	}
	return nil
}

// printDiff prints unified diffs, coloured on a terminal.
func (a *app) printDiff(changed []api.AppliedResource) {
	colour := a.colour(a.out)
	for _, r := range changed {
		fmt.Fprintf(a.out, "%s/%s %s\n", strings.ToLower(r.Kind), printable(r.Name), r.Action)
		for line := range strings.Lines(r.Diff) {
			line = printable(strings.TrimSuffix(line, "\n"))
			switch {
			case colour && strings.HasPrefix(line, "+"):
				line = "\x1b[32m" + line + "\x1b[0m"
			case colour && strings.HasPrefix(line, "-"):
				line = "\x1b[31m" + line + "\x1b[0m"
			}
			fmt.Fprintln(a.out, line)
		}
	}
}
