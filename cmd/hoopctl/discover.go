package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
)

type discoverOptions struct {
	askOptions
	target   string
	database string
	sample   int64
	tag      string
}

func newDiscover(a *app) *cobra.Command {
	o := new(discoverOptions)
	cmd := &cobra.Command{
		Use:   "discover TARGET",
		Short: "Look through a database and propose a Classification",
		Long: `Read a sample of each table in a session of your own, look through it for
identifiers, and print a Classification to review: the columns that hold some,
how many of the sampled values did, and how many of those with check digits were
right. No value that was read is printed or kept.

A column whose name or comment speaks of an identifier is proposed as well. A
comment that begins with @TAG (COMMENT ON COLUMN … IS '@phi') tags a column;
none can take a tag away. What is not proposed is not proved harmless: names and
free text are not found by pattern.

What is hidden from you is sampled masked, and not found: let somebody with a
Clearance run this. Rules on rows hold for it as for any session of yours: with a
--sample below their limit nobody has to be asked.`,
		Example: `  hoopctl discover clinic > classification.yaml
  hoopctl discover clinic --sample 5000 --tag pii
  hoopctl discover clinic -o json | jq '.columns[].column'`,
		Args:              takes(1, 1, "a target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), []string{"", "yaml", "json"}); err != nil {
				return err
			}
			if o.sample < 1 {
				return usagef("--sample is at least 1")
			}
			o.target = args[0]
			return a.discover(cmd.Context(), *o)
		},
	}
	f := cmd.Flags()
	o.askOptions.flags(f)
	f.Int64Var(&o.sample, "sample", 1000, "rows of each table that are looked at")
	f.StringVar(&o.tag, "tag", "phi", "the tag to propose")
	f.StringVarP(&o.database, "database", "d", "", "another database of the target's")
	return cmd
}

// proposal is a column that should be tagged.
type proposal struct {
	Column  string  `json:"column"`
	Type    string  `json:"type"`
	Tag     string  `json:"tag"`
	Mask    string  `json:"mask"`
	Entity  string  `json:"entity,omitempty"`
	Sampled int     `json:"sampled"`           // values that are neither NULL nor empty
	Hits    int     `json:"hits"`              // of them, those with the entity
	Checked float64 `json:"checked,omitempty"` // share of right check digits among values of that shape
	By      string  `json:"by"`                // values | name | comment
}

// surveyed is what discover found.
type surveyed struct {
	Target  string     `json:"target"`
	Tables  int        `json:"tables"`
	Columns []proposal `json:"columns"`
	Unread  []string   `json:"unread,omitempty"` // tables that could not be sampled, and why
}

func (a *app) discover(ctx context.Context, o discoverOptions) error {
	detector, err := mask.NewDetector(mask.Entities()...)
	if err != nil {
		return err
	}
	conn, _, done, err := a.openTarget(ctx, o.target, o.database, o.askOptions)
	if err != nil {
		return pending(err, o.noWait)
	}
	defer done()
	columns, err := readColumns(ctx, conn)
	if err != nil {
		return pending(err, o.noWait)
	}
	out := surveyed{Target: o.target, Columns: []proposal{}}
	for len(columns) > 0 {
		n := 1
		for n < len(columns) && columns[n].Schema == columns[0].Schema && columns[n].Table == columns[0].Table {
			n++
		}
		out.Tables++
		found, err := survey(ctx, conn, detector, columns[:n], o)
		if err != nil {
			if ctx.Err() != nil || conn.Broken() {
				return err
			}
			out.Unread = append(out.Unread, fmt.Sprintf("%s.%s: %v", columns[0].Schema, columns[0].Table, err))
		}
		out.Columns = append(out.Columns, found...)
		columns = columns[n:]
	}
	if a.format() == "json" {
		return json.NewEncoder(a.out).Encode(out)
	}
	return writeProposals(a.out, out, o, a.now())
}

// survey samples one table. Without a sample, names and comments still speak.
func survey(ctx context.Context, conn *exec.Conn, d *mask.Detector, columns []dbColumn, o discoverOptions) ([]proposal, error) {
	surveys := make([]*mask.Survey, len(columns))
	for i, c := range columns {
		surveys[i] = d.Survey(c.Column)
	}
	err := eachRow(ctx, conn, sampleQuery(columns, o.sample), func(values [][]byte) {
		for i, v := range values {
			if i < len(columns) && columns[i].readable() {
				surveys[i].Add(v)
			}
		}
	})
	var out []proposal
	for i, c := range columns {
		if p, ok := propose(c, surveys[i], o.tag); ok {
			out = append(out, p)
		}
	}
	return out, err
}

// sampleQuery reads some rows: of a large table from pages all over it.
func sampleQuery(columns []dbColumn, n int64) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quotedName(c.Column)
	}
	q := "SELECT " + strings.Join(names, ", ") + " FROM " + quotedName(columns[0].Schema) + "." + quotedName(columns[0].Table)
	if rows := columns[0].Rows; rows > 20*n {
		q += fmt.Sprintf(" TABLESAMPLE SYSTEM (%.6f)", max(1e-4, 500*float64(n)/float64(rows)))
	}
	return fmt.Sprintf("%s LIMIT %d", q, n)
}

// readable columns print as text in which the scanner can find something.
func (c dbColumn) readable() bool { return !strings.HasPrefix(c.Type, "bytea") }

func (c dbColumn) dated() bool { return c.Type == "date" || strings.HasPrefix(c.Type, "timestamp") }

// rarely is the share of values below which what is found may be chance.
const rarely = 0.05

// propose says how a column should be tagged, if it should.
func propose(c dbColumn, s *mask.Survey, tag string) (proposal, bool) {
	p := proposal{Column: columnName(c.ColumnRef), Type: c.Type, Tag: tag, Sampled: s.Values()}
	named := mask.NamedFor(c.Column)
	for _, f := range s.Findings() {
		if f.Entity == mask.Date && c.dated() && named != mask.Date {
			continue // every date is one; whether it is about a person its name must say
		}
		if convincing(f, s.Values(), named) {
			p.Entity, p.Hits, p.By, p.Mask = f.Entity.String(), f.Values, "values", methodFor(f.Entity)
			if f.Whole < f.Values && f.Entity != named {
				p.Mask = "redact" // prose around it
			}
			if f.Entity.Checked() && f.Shaped > 0 {
				p.Checked = float64(f.Whole) / float64(f.Shaped)
			}
			break
		}
	}
	if p.By == "" {
		p.byName(c, named)
	}
	if t, ok := commentTag(c.Comment); ok { // it adds, and takes nothing away
		p.Tag = t
		if p.By == "" {
			p.By, p.Mask = "comment", "redact"
		}
	}
	return p, p.By != ""
}

func convincing(f mask.Finding, values int, named mask.Entity) bool {
	switch {
	case f.Entity == named:
		return true
	case f.Entity.Checked() && f.Whole > 0 && float64(f.Whole) < 0.5*float64(f.Shaped):
		return false // about as many as chance makes
	case f.Whole < f.Values: // in prose one is enough
		return true
	}
	return float64(f.Values) >= rarely*float64(values)
}

// methodFor is the method that leaves most use to those who are not cleared.
func methodFor(e mask.Entity) string {
	switch e {
	case mask.SSN, mask.CreditCard, mask.Phone, mask.Fax:
		return "last4"
	case mask.Email:
		return "domain"
	case mask.Date:
		return "year"
	case mask.ZIP:
		return "zip3"
	case mask.Age:
		return "age"
	case mask.MRN, mask.MBI, mask.NPI:
		return "token"
	}
	return "redact"
}

// byName proposes a column for its name alone.
func (p *proposal) byName(c dbColumn, named mask.Entity) {
	switch {
	case named != mask.NoEntity:
		p.Entity, p.By, p.Mask = named.String(), "name", methodFor(named)
	case slices.ContainsFunc(nameWords(c.Column), func(w string) bool { return speaking[w] }):
		p.By, p.Mask = "name", "redact"
	}
}

// speaking are words of columns' names that speak of a person and that no
// pattern finds: names, places, prose, numbers of whatever issuer.
var speaking = map[string]bool{
	"name": true, "firstname": true, "lastname": true, "fullname": true, "surname": true, "given": true, "family": true, "maiden": true,
	"address": true, "street": true, "city": true, "county": true, "notes": true, "note": true, "comment": true, "comments": true, "summary": true,
	"narrative": true, "member": true, "beneficiary": true, "account": true, "license": true, "licence": true, "passport": true, "plate": true,
	"photo": true, "fingerprint": true, "email": true, "password": true, "secret": true,
}

// nameWords are the words of a name like firstName, first_name or FIRST NAME, in lower case.
func nameWords(name string) []string {
	var b strings.Builder
	before := ' '
	for _, r := range name {
		if unicode.IsUpper(r) && unicode.IsLower(before) {
			b.WriteByte(' ')
		}
		before = r
		if !unicode.IsLetter(r) {
			r = ' '
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.Fields(b.String())
}

// commentTag is the tag that a comment begins with: "@phi", "@phi: since 2024".
func commentTag(comment string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(comment), "@")
	if !ok {
		return "", false
	}
	end := strings.IndexFunc(rest, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
	if end >= 0 {
		rest = rest[:end]
	}
	return rest, rest != "" && rest != "none"
}

// columnName is schema.table.column as a Classification writes it.
func columnName(c policy.ColumnRef) string {
	parts := []string{c.Schema, c.Table, c.Column}
	for i, s := range parts {
		if strings.ContainsFunc(s, func(r rune) bool { return r == '.' || r == '"' || unicode.IsSpace(r) }) {
			parts[i] = quotedName(s)
		}
	}
	return strings.Join(parts, ".")
}

// writeProposals prints a Classification with what speaks for each line beside
// it. It is read back before it is printed.
func writeProposals(w io.Writer, found surveyed, o discoverOptions, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Proposed by hoopctl discover %s on %s: up to %d rows of each of %d tables were\n# looked at. Review each line; what is missing is not proved harmless.\n",
		found.Target, now.UTC().Format("2006-01-02"), o.sample, found.Tables)
	for _, u := range found.Unread {
		fmt.Fprintf(&b, "# not sampled: %s\n", printable(u))
	}
	if len(found.Columns) == 0 {
		b.WriteString("# Nothing was found.\n")
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "apiVersion: hoopctl/v1\nkind: Classification\nmetadata: {name: %s-discovered}\nspec:\n  targets: {names: [%s]}\n  columns:\n", found.Target, found.Target)
	for _, p := range found.Columns {
		fmt.Fprintf(&b, "    - {column: %s, tag: %s, mask: %s} # %s\n", yamlText(p.Column), yamlText(p.Tag), p.Mask, p.because())
	}
	if _, err := policy.ParseResources("discovered.yaml", []byte(b.String())); err != nil {
		return fmt.Errorf("what was found makes no Classification: %w", err)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// because is what speaks for a proposal.
func (p proposal) because() string {
	switch p.By {
	case "comment":
		return "the column's comment says so"
	case "name":
		return fmt.Sprintf("by its name; found in none of %d values", p.Sampled)
	}
	s := fmt.Sprintf("%s in %d of %d values", p.Entity, p.Hits, p.Sampled)
	if p.Checked > 0 {
		s += fmt.Sprintf(", check digits right in %.0f %% of that shape", 100*p.Checked)
	}
	return s
}

// yamlText is a flow scalar: plain where it reads back as itself.
func yamlText(s string) string {
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-')
	})
	if plain && unicode.IsLetter(rune(s[0])) {
		return s
	}
	b, err := json.Marshal(s) // JSON strings are YAML strings
	if err != nil {
		return `""`
	}
	return string(b)
}
