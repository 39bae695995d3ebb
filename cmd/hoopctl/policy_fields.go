package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/policy"
)

func newExplainResource(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain-resource KIND[.FIELD]",
		Short: "What the fields of a kind of resource mean",
		Example: `  hoopctl explain-resource target
  hoopctl explain-resource target.credentials
  hoopctl explain-resource classification -o json`,
		Args:      takes(1, 1, "a kind: "+strings.Join(policy.Kinds(), ", ")),
		ValidArgs: policy.Kinds(),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			word, path, _ := strings.Cut(args[0], ".")
			kind, ok := resourceKind(word)
			if !ok {
				return &usageError{message: fmt.Sprintf("unknown kind %q", word), hint: "use one of: " + strings.Join(policy.Kinds(), ", ")}
			}
			return a.explainFields(kind, path)
		},
	}
}

// resourceKind finds a kind by its name, in any case, in the singular or plural.
func resourceKind(word string) (string, bool) {
	for _, k := range policy.Kinds() {
		many := k + "s"
		if strings.HasSuffix(k, "y") {
			many = strings.TrimSuffix(k, "y") + "ies"
		}
		if strings.EqualFold(word, k) || strings.EqualFold(word, many) {
			return k, true
		}
	}
	return "", false
}

// explainFields prints a kind's fields, or those at and below one of them.
func (a *app) explainFields(kind, path string) error {
	about, fields, _ := policy.Fields(kind)
	if path != "" {
		path = strings.TrimPrefix(path, "spec.")
		fields = slices.DeleteFunc(fields, func(f policy.Field) bool {
			short := strings.ReplaceAll(strings.TrimPrefix(f.Path, "spec."), "[]", "")
			return short != path && !strings.HasPrefix(short, path+".")
		})
		if len(fields) == 0 {
			return &usageError{message: fmt.Sprintf("%s has no field %s", kind, path), hint: "see hoopctl explain-resource " + strings.ToLower(kind)}
		}
	}
	if f := a.format(); f != "" {
		return printObject(a.out, f, map[string]any{"kind": kind, "about": about, "fields": fields})
	}
	fmt.Fprintf(a.out, "%s: %s.\n\n", kind, about)
	t := newTable(a.out)
	fmt.Fprintln(t, "FIELD\tTYPE\tMEANING")
	for _, f := range fields {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Path, f.Type, f.Meaning)
	}
	return t.Flush()
}
