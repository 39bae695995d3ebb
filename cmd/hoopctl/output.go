package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/hoopctl/hoopctl/server/api"
)

// column is one column of a kubectl-like table. Wide columns are for -o wide.
type column[T any] struct {
	header string
	wide   bool
	cell   func(T) string
}

// kind is how one kind of object is listed.
type kind[T any] struct {
	singular string // "grant", for -o name and messages
	plural   string // "grants"
	list     string // "GrantList"
	name     func(T) string
	columns  []column[T]
}

// listFormats are what -o may be for lists.
var listFormats = []string{"", "wide", "json", "yaml", "name"}

// oneFormats are what -o may be for a single object or an answer.
var oneFormats = []string{"", "json", "yaml"}

func checkFormat(format string, allowed []string) error {
	if slices.Contains(allowed, format) {
		return nil
	}
	return &usageError{
		message: fmt.Sprintf("-o %s is not known here", format),
		hint:    "use one of: " + strings.Join(slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return s == "" }), ", "),
	}
}

// printList prints items as the format says.
func printList[T any](w io.Writer, format string, k kind[T], items []T) error {
	switch format {
	case "json", "yaml":
		if items == nil {
			items = []T{}
		}
		return printObject(w, format, api.List[T]{APIVersion: api.APIVersion, Kind: k.list, Items: items})
	case "name":
		for _, it := range items {
			fmt.Fprintf(w, "%s/%s\n", k.singular, k.name(it))
		}
		return nil
	}
	t := newTable(w)
	k.header(t, format == "wide")
	for _, it := range items {
		k.row(t, format == "wide", it)
	}
	return t.Flush()
}

func (k kind[T]) header(w io.Writer, wide bool) {
	k.line(w, wide, func(c column[T]) string { return c.header })
}

func (k kind[T]) row(w io.Writer, wide bool, item T) {
	k.line(w, wide, func(c column[T]) string { return c.cell(item) })
}

func (k kind[T]) line(w io.Writer, wide bool, cell func(column[T]) string) {
	var cells []string
	for _, c := range k.columns {
		if c.wide && !wide {
			continue
		}
		v := printable(cell(c))
		if v == "" {
			v = "-"
		}
		cells = append(cells, v)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 3, ' ', 0) }

// printObject prints one document of JSON (indented) or YAML.
func printObject(w io.Writer, format string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write as json: %w", err)
	}
	if format != "yaml" {
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	// JSON is YAML: reading it as a node keeps the order of the fields.
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("write as yaml: %w", err)
	}
	blockStyle(&n)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return fmt.Errorf("write as yaml: %w", err)
	}
	return e.Close()
}

// blockStyle takes JSON's braces and quotes away; the encoder quotes again
// where YAML needs it, because each scalar keeps its tag. Words that were
// booleans in YAML 1.1 keep their quotes for readers that still think so.
func blockStyle(n *yaml.Node) {
	if n.Style = 0; n.Tag == "!!str" && slices.Contains([]string{"y", "n", "yes", "no", "on", "off"}, strings.ToLower(n.Value)) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// fields prints "Key:  value" lines of a description; empty values are left out.
func fields(w io.Writer, pairs ...string) error {
	t := newTable(w)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		fmt.Fprintf(t, "%s:\t%s\n", pairs[i], strings.ReplaceAll(printable(pairs[i+1]), "\n", "\n\t"))
	}
	return t.Flush()
}

// printable makes text from elsewhere harmless to a terminal: a statement, a
// reason or a name may hold escape sequences on purpose. Newlines stay; every
// other control character, and what reorders text, is shown as its escape.
func printable(s string) string {
	if strings.IndexFunc(s, unsafeRune) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafeRune(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unsafeRune(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar)
}

// span is a duration as kubectl prints it: 42s, 7m, 3h12m, 9d.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 24*time.Hour:
		h, m := int(d.Hours()), int(d.Minutes())%60
		if m == 0 {
			return strconv.Itoa(h) + "h"
		}
		return fmt.Sprintf("%dh%dm", h, m)
	default:
		return strconv.Itoa(int(d.Hours()/24)) + "d"
	}
}

// oneLine is the first n runes of s without line breaks.
func oneLine(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
