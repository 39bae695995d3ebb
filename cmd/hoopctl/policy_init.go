package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/cmd/hoopctl/devdata"
)

func newPolicyInit(a *app) *cobra.Command {
	var hipaa bool
	cmd := &cobra.Command{
		Use:   "init [--hipaa] DIR",
		Short: "Write a commented set to begin with",
		Long: `Write a set of resources to begin with into a folder: policies, grant rules and
a classification, each rule with the reason that it is there, and test cases
that say what the set promises. Read it, replace names of groups, labels and
columns by yours, and keep it in version control. Files that exist are never
written over.

--hipaa: for databases with protected health information. It names the sections
of 45 CFR 164 that a rule serves, and holds changes of the rules themselves for
a second admin. It is a beginning, not compliance.`,
		Example: `  hoopctl policy init policies/
  hoopctl policy init --hipaa policies/ && hoopctl policy test policies/hipaa.cases.yaml`,
		Args: takes(1, 1, "a folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			set := "starter"
			if hipaa {
				set = "hipaa"
			}
			written, err := writeSet(set, args[0])
			if err != nil {
				return err
			}
			for _, name := range written {
				fmt.Fprintln(a.out, printable(name))
			}
			fmt.Fprintf(a.err, "Read them, then: hoopctl policy test %s\n", printable(filepath.Join(args[0], set+".cases.yaml")))
			return nil
		},
	}
	cmd.Flags().BoolVar(&hipaa, "hipaa", false, "for databases with protected health information")
	return cmd
}

// writeSet writes the files of one of the sets that come with hoopctl, all or
// none: it looks for what is in the way before it writes.
func writeSet(set, dir string) (written []string, err error) {
	entries, err := fs.ReadDir(devdata.FS, set)
	if err != nil {
		return nil, fmt.Errorf("read the %s set: %w", set, err)
	}
	var there []string
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, name)
		}
	}
	if len(there) > 0 {
		return nil, withHint(fmt.Errorf("not written: %s exists already", strings.Join(there, ", ")), "name another folder, or move it away")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	for _, e := range entries {
		b, err := fs.ReadFile(devdata.FS, set+"/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("read the %s set: %w", set, err)
		}
		name := filepath.Join(dir, e.Name())
		if err := writeNew(name, b); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		written = append(written, name)
	}
	return written, nil
}

// writeNew writes a file that must not exist.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
