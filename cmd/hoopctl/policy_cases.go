package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/parser"
)

func newPolicy(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "policy",
		Short: "Begin, test and judge a set of policies",
		Long: `Work on what decides: policies, classifications, clearances, grant rules,
services. They are resources in files; apply puts them in force. docs/policy.md
says how they are written.`,
		Example: `  hoopctl policy init --hipaa policies/
  hoopctl policy test policies/hipaa.cases.yaml
  hoopctl diff -f policies/
  hoopctl policy replay -f policies/ --since 7d`,
	}, newPolicyInit(a), newPolicyTest(a), newPolicyReplay(a), newPolicyLearn(a), newPolicyReport(a))
}

func newPolicyTest(a *app) *cobra.Command {
	var from []string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test [-f FILE|DIR] CASES.yaml…",
		Short: "Decide test cases without a server: exit 0 all as wanted, 1 not",
		Long: `Decide cases by a set of resources, here and without a server. A case names who
asks what of which target, and what must come out: docs/policy.md has the form.
Without -f the resources are those in the folder of the first file of cases.
Files named *.cases.yaml are never taken for resources.

SQL in a case is parsed by the grammar of PostgreSQL in a child process. No
catalogue confirms its names: those without a schema are looked for in public.`,
		Example: `  hoopctl policy test policies/hipaa.cases.yaml
  hoopctl policy test -f policies/ cases/*.yaml
  hoopctl policy test -f policies/ cases.yaml -o json`,
		Args: takes(1, -1, "at least one file of cases"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			if len(from) == 0 {
				from = []string{filepath.Dir(args[0])}
			}
			set, err := a.compileFiles(from, args)
			if err != nil {
				return err
			}
			p := lazyParser{}
			defer p.close()
			results, err := runCases(cmd.Context(), set, args, &p)
			if err != nil {
				return err
			}
			return a.printCases(results, verbose)
		},
	}
	cmd.Flags().StringArrayVarP(&from, "filename", "f", nil, "file or folder of resources (.yaml, .yml, .cedar); - is stdin")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "say what came out of the cases that are as wanted, too")
	return cmd
}

// compileFiles makes a set of the resources in files and folders, but for the
// files named in without. What looks wrong in them but may be right goes to stderr.
func (a *app) compileFiles(from, without []string) (*policy.Set, error) {
	files, err := a.readResources(from)
	if err != nil {
		return nil, err
	}
	var all []policy.Resource
	var problems []error
	for _, f := range files {
		if slices.ContainsFunc(without, func(w string) bool { return filepath.ToSlash(filepath.Clean(w)) == f.Name }) {
			continue
		}
		found, err := policy.ParseResources(f.Name, []byte(f.Content))
		if err != nil {
			problems = append(problems, err)
		}
		all = append(all, found...)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	set, err := policy.Compile(all)
	if err != nil {
		return nil, err
	}
	for _, w := range set.Warnings() {
		fmt.Fprintf(a.err, "warning: %s\n", printable(w.String()))
	}
	return set, nil
}

// tested is a case's result with the file that it stands in.
type tested struct {
	File string `json:"file"`
	policy.CaseResult
}

func runCases(ctx context.Context, set *policy.Set, files []string, p *lazyParser) ([]tested, error) {
	var all []tested
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the cases: %w", err)
		}
		results, err := policy.RunCases(set, file, b, func(sql string) ([]*policy.Facts, error) { return p.facts(ctx, sql) })
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			all = append(all, tested{file, r})
		}
	}
	return all, nil
}

// lazyParser starts the SQL parser's child for the first statement: most files
// of cases give facts, and its start takes a while.
type lazyParser struct{ pool *parser.Pool }

func (p *lazyParser) facts(ctx context.Context, sql string) ([]*policy.Facts, error) {
	if p.pool == nil {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program for the parser's child: %w", err)
		}
		cfg := parser.Config{Command: []string{exe, parserVerb}, Workers: 1}
		if cache, err := os.UserCacheDir(); err == nil {
			cfg.CacheDir = filepath.Join(cache, "hoopctl", "parser")
		}
		if p.pool, err = parser.New(cfg); err != nil {
			return nil, err
		}
		if err := p.pool.Ready(ctx); err != nil {
			return nil, err
		}
	}
	return p.pool.Facts(ctx, "policy test", sql)
}

func (p *lazyParser) close() {
	if p.pool != nil {
		p.pool.Close()
	}
}

// printCases prints a line for each case that is not as wanted, with what
// differs as a diff below it, and the sum.
func (a *app) printCases(results []tested, verbose bool) error {
	failed := 0
	for _, r := range results {
		if !r.Passed {
			failed++
		}
	}
	if f := a.format(); f != "" {
		list := api.List[tested]{APIVersion: api.APIVersion, Kind: "CaseResultList", Items: results}
		if err := printObject(a.out, f, list); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			a.printCase(r, verbose)
		}
		fmt.Fprintf(a.out, "%d cases, %d failed\n", len(results), failed)
	}
	if failed > 0 {
		return exitWith(exitError)
	}
	return nil
}

func (a *app) printCase(r tested, verbose bool) {
	outcome := r.Verdict
	if len(r.Rules) > 0 {
		outcome += " by " + strings.Join(r.Rules, ", ")
	}
	if r.Reason != "" {
		outcome += ": " + r.Reason
	}
	switch {
	case r.Passed && verbose:
		fmt.Fprintf(a.out, "ok    %s: %s\n", printable(r.Name), printable(outcome))
	case r.Passed:
	default:
		fmt.Fprintf(a.out, "FAIL  %s:%d: %s\n", printable(r.File), r.Line, printable(r.Name))
		fmt.Fprintf(a.out, "        decided: %s\n", printable(outcome))
		for _, d := range r.Wrong {
			a.printChangedLine('-', d.What+": "+d.Want)
			a.printChangedLine('+', d.What+": "+d.Have)
		}
	}
}

// printChangedLine prints a line of a diff, in colour where that is wanted.
func (a *app) printChangedLine(sign byte, text string) {
	line := fmt.Sprintf("%c %s", sign, printable(text))
	if a.colour(a.out) {
		colour := "\x1b[32m"
		if sign == '-' {
			colour = "\x1b[31m"
		}
		line = colour + line + "\x1b[0m"
	}
	fmt.Fprintf(a.out, "      %s\n", line)
}
