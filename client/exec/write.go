package exec

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Column is one column of a result.
type Column struct {
	Name string
	Type uint32 // OID
}

// Writer prints results. For each statement it is called in this order: Columns
// once if there are rows to come, Row for each, End once; or Copy for each
// piece of a COPY … TO STDOUT, then End. Values are text as PostgreSQL prints
// it, nil is NULL; they are the callee's until it returns.
type Writer interface {
	Columns([]Column) error
	Row(values [][]byte) error
	Copy(data []byte) error
	// End ends a statement; tag is the command tag, "" if there is none.
	End(tag string) error
	// Close ends the output and flushes it, also in the middle of a result.
	Close() error
}

// Formats that NewWriter knows.
func Formats() []string { return []string{"table", "csv", "json", "ndjson"} }

// NewWriter prints to w in one of Formats. json prints one document: the rows
// of the one statement, or, where there are several, a list of such lists.
func NewWriter(format string, w io.Writer, statements int) (Writer, error) {
	b := bufio.NewWriterSize(w, 64<<10)
	switch format {
	case "table", "":
		return &tableWriter{w: b}, nil
	case "csv":
		return &csvWriter{out: b, w: csv.NewWriter(b)}, nil
	case "json":
		return &jsonWriter{w: b, nested: statements > 1}, nil
	case "ndjson":
		return &ndjsonWriter{w: b}, nil
	default:
		return nil, fmt.Errorf("format %q is none of %s", format, strings.Join(Formats(), ", "))
	}
}

// Discard is a Writer that prints nothing.
var Discard Writer = discard{}

type discard struct{}

func (discard) Columns([]Column) error { return nil }
func (discard) Row([][]byte) error     { return nil }
func (discard) Copy([]byte) error      { return nil }
func (discard) End(string) error       { return nil }
func (discard) Close() error           { return nil }

// tableWriter prints aligned columns. Widths come from the first rows, which
// it keeps until there are enough of them: a result of a million rows is
// streamed, and a later cell that is wider moves what stands behind it.
type tableWriter struct {
	w       *bufio.Writer
	columns []Column
	rows    [][]string
	widths  []int
	sets    int
}

// keepRows is how many rows decide the widths.
const keepRows = 500

func (t *tableWriter) Columns(c []Column) error {
	t.columns, t.rows, t.widths = c, nil, nil
	return nil
}

func (t *tableWriter) Row(values [][]byte) error {
	cells := make([]string, len(values))
	for i, v := range values {
		cells[i] = "NULL"
		if v != nil {
			cells[i] = visible(v)
		}
	}
	if t.widths != nil {
		return t.line(cells)
	}
	t.rows = append(t.rows, cells)
	if len(t.rows) < keepRows {
		return nil
	}
	return t.head()
}

// head prints the headings and the rows that were kept.
func (t *tableWriter) head() error {
	if t.sets > 0 {
		t.w.WriteByte('\n')
	}
	t.sets++
	names := make([]string, len(t.columns))
	t.widths = make([]int, len(t.columns))
	for i, c := range t.columns {
		names[i] = visible([]byte(c.Name))
		t.widths[i] = width(names[i])
	}
	for _, r := range t.rows {
		for i, cell := range r {
			t.widths[i] = max(t.widths[i], width(cell))
		}
	}
	if err := t.line(names); err != nil {
		return err
	}
	for _, r := range t.rows {
		if err := t.line(r); err != nil {
			return err
		}
	}
	t.rows = nil
	return nil
}

func (t *tableWriter) line(cells []string) error {
	for i, cell := range cells {
		pad := t.widths[i] - width(cell)
		if pad > 0 && numeric(t.columns[i].Type) {
			t.w.WriteString(strings.Repeat(" ", pad))
			pad = 0
		}
		t.w.WriteString(cell)
		if i == len(cells)-1 {
			break
		}
		t.w.WriteString(strings.Repeat(" ", max(pad, 0)+3))
	}
	return t.w.WriteByte('\n')
}

func (t *tableWriter) Copy(data []byte) error { _, err := t.w.Write(data); return err }

func (t *tableWriter) End(string) error {
	if t.columns != nil && t.widths == nil {
		if err := t.head(); err != nil {
			return err
		}
	}
	t.columns, t.widths = nil, nil
	return t.w.Flush()
}

func (t *tableWriter) Close() error { return t.End("") }

// width is how many cells of a terminal s takes: runes, and none for marks
// that combine. (Wide runes count as one: tables stay readable, if uneven.)
func width(s string) int {
	n := 0
	for _, r := range s {
		if !unicode.Is(unicode.Mn, r) {
			n++
		}
	}
	return n
}

// visible is a value in one line that cannot speak to the terminal: control
// characters, and what reorders text, appear as escapes.
func visible(v []byte) string {
	if bytes.IndexFunc(v, hidden) < 0 {
		return string(v)
	}
	var b strings.Builder
	for _, r := range string(v) {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError
}

// csvWriter prints RFC 4180, a heading per result, an empty line between two.
// NULL is an empty field; an empty string is "" with its quotes, as COPY … CSV
// writes them.
type csvWriter struct {
	out  *bufio.Writer
	w    *csv.Writer
	sets int
}

func (c *csvWriter) Columns(columns []Column) error {
	if c.sets++; c.sets > 1 {
		c.out.WriteByte('\n')
	}
	names := make([]string, len(columns))
	for i, col := range columns {
		names[i] = col.Name
	}
	c.w.Write(names)
	c.w.Flush()
	return c.w.Error()
}

func (c *csvWriter) Row(values [][]byte) error {
	for i, v := range values {
		if i > 0 {
			c.out.WriteByte(',')
		}
		switch {
		case v == nil:
		case len(v) == 0:
			c.out.WriteString(`""`)
		case needsQuotes(v):
			c.out.WriteByte('"')
			c.out.Write(bytes.ReplaceAll(v, []byte{'"'}, []byte{'"', '"'}))
			c.out.WriteByte('"')
		default:
			c.out.Write(v)
		}
	}
	return c.out.WriteByte('\n')
}

func needsQuotes(v []byte) bool {
	return bytes.ContainsAny(v, ",\"\r\n") || v[0] == ' ' || v[len(v)-1] == ' ' || string(v) == `\.`
}

func (c *csvWriter) Copy(data []byte) error { _, err := c.out.Write(data); return err }
func (c *csvWriter) End(string) error       { return c.out.Flush() }
func (c *csvWriter) Close() error           { return c.out.Flush() }

// object appends a row as a JSON object whose keys stand in the result's order.
func object(dst []byte, keys [][]byte, columns []Column, values [][]byte) []byte {
	dst = append(dst, '{')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, keys[i]...)
		dst = append(dst, ':')
		dst = jsonValue(dst, columns[i].Type, v)
	}
	return append(dst, '}')
}

// jsonKeys are the columns' names as JSON strings. A name that comes twice gets
// a number: an object with the same key twice loses one of them in most readers.
func jsonKeys(columns []Column) [][]byte {
	seen := map[string]int{}
	keys := make([][]byte, len(columns))
	for i, c := range columns {
		seen[c.Name]++
		name := c.Name
		if n := seen[c.Name]; n > 1 {
			name = fmt.Sprintf("%s_%d", c.Name, n)
		}
		keys[i] = jsonString(nil, []byte(name))
	}
	return keys
}

// OIDs of the built-in types whose text is JSON as it stands.
// (https://github.com/postgres/postgres/blob/REL_15_STABLE/src/include/catalog/pg_type.dat)
const (
	oidBool    = 16
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidOID     = 26
	oidJSON    = 114
	oidFloat4  = 700
	oidFloat8  = 701
	oidNumeric = 1700
	oidJSONB   = 3802
)

func numeric(oid uint32) bool {
	return slices.Contains([]uint32{oidInt8, oidInt2, oidInt4, oidOID, oidFloat4, oidFloat8, oidNumeric}, oid)
}

// jsonValue appends a value as row_to_json would: numbers, booleans and JSON as
// such, everything else as the string that PostgreSQL prints.
func jsonValue(dst []byte, oid uint32, v []byte) []byte {
	switch {
	case v == nil:
		return append(dst, "null"...)
	case oid == oidBool && string(v) == "t":
		return append(dst, "true"...)
	case oid == oidBool && string(v) == "f":
		return append(dst, "false"...)
	case (numeric(oid) || oid == oidJSON || oid == oidJSONB) && json.Valid(v): // NaN and Infinity are not
		var b bytes.Buffer
		if json.Compact(&b, v) == nil {
			return append(dst, b.Bytes()...)
		}
	}
	return jsonString(dst, v)
}

// jsonString appends a JSON string; <, > and & stay as they are.
func jsonString(dst, v []byte) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	// Encoding a string cannot fail; bytes that are no UTF-8 become U+FFFD.
	_ = e.Encode(string(v))
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}

// jsonWriter prints one document.
type jsonWriter struct {
	w       *bufio.Writer
	nested  bool
	columns []Column
	keys    [][]byte
	buf     []byte
	open    bool // the outer list has begun
	ended   bool // a statement has ended
	sets    int
	rows    int
}

func (j *jsonWriter) begin() {
	if j.nested && !j.open {
		j.w.WriteString("[\n")
	}
	j.open = true
}

func (j *jsonWriter) Columns(c []Column) error {
	j.begin()
	if j.sets > 0 {
		j.w.WriteString(",\n")
	}
	j.sets++
	j.columns, j.keys, j.rows = c, jsonKeys(c), 0
	return j.w.WriteByte('[')
}

func (j *jsonWriter) Row(values [][]byte) error {
	sep := ",\n "
	if j.rows == 0 {
		sep = "\n "
	}
	j.rows++
	j.w.WriteString(sep)
	j.buf = object(j.buf[:0], j.keys, j.columns, values)
	_, err := j.w.Write(j.buf)
	return err
}

func (j *jsonWriter) Copy([]byte) error { return errCopy }

func (j *jsonWriter) End(string) error {
	j.ended = true
	j.endSet()
	return j.w.Flush()
}

func (j *jsonWriter) endSet() {
	if j.columns == nil {
		return
	}
	if j.rows > 0 {
		j.w.WriteByte('\n')
	}
	j.w.WriteByte(']')
	j.columns = nil
}

// Close makes a whole document of what there is; where no statement got as far
// as an answer there is none.
func (j *jsonWriter) Close() error {
	j.endSet()
	switch {
	case !j.ended && j.sets == 0:
	case j.nested:
		j.begin()
		j.w.WriteString("\n]\n")
	case j.sets == 0:
		j.w.WriteString("[]\n")
	default:
		j.w.WriteByte('\n')
	}
	return j.w.Flush()
}

var errCopy = fmt.Errorf("COPY TO STDOUT has its own format: use -o table or csv, or SELECT")

// ndjsonWriter prints one object a row and a line.
type ndjsonWriter struct {
	w       *bufio.Writer
	columns []Column
	keys    [][]byte
	buf     []byte
}

func (n *ndjsonWriter) Columns(c []Column) error {
	n.columns, n.keys = c, jsonKeys(c)
	return nil
}

func (n *ndjsonWriter) Row(values [][]byte) error {
	n.buf = append(object(n.buf[:0], n.keys, n.columns, values), '\n')
	_, err := n.w.Write(n.buf)
	return err
}

func (n *ndjsonWriter) Copy([]byte) error { return errCopy }
func (n *ndjsonWriter) End(string) error  { return n.w.Flush() }
func (n *ndjsonWriter) Close() error      { return n.w.Flush() }
