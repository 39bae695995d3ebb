package postgres

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// copyRefusal refuses a COPY that cannot be masked on a target with tags: which
// columns a query has is nowhere on COPY's wire, and text in another encoding
// cannot be taken apart safely.
func (q *requests) copyRefusal(f *policy.Facts) error {
	if f.Copy == nil || f.Copy.Where != "client" || f.Copy.From || !q.c.gate.Hides() {
		return nil
	}
	refused := func(what string) error {
		return &session.Refusal{Code: session.CodePolicy, Message: what + " cannot be masked on this target", Hint: "name a table in COPY, or use SELECT (hoopctl exec -o csv)"}
	}
	switch {
	case f.Copy.Query:
		return refused("COPY of a query")
	case strings.Contains(f.Shape, "encoding"):
		return refused("COPY in another encoding")
	case len(f.Copy.Delimiter) > 1 || len(f.Copy.Quote) > 1 || len(f.Copy.Escape) > 1:
		return refused("COPY with delimiters of several bytes")
	}
	return nil
}

// planCopy makes the plan of a COPY … TO STDOUT on a target with tags: its
// columns are those that the statement names, else the table's own.
func (a *answers) planCopy(r *run, frame []byte) (*session.Refusal, error) {
	overall, announced, err := decodeCopyResponse(frame)
	if err != nil {
		return nil, err
	}
	c := a.c
	hidden := &session.Refusal{Code: session.CodePolicy, Message: "the columns of this COPY are not known, so it cannot be masked", Hint: "use SELECT"}
	known, err := c.catalog.classified(c.ctx, c.control, c.databaseOID(), c.gate.Tags())
	if err != nil {
		c.room.log.Error("the target's catalogue cannot be read", "session", c.name, "target", c.info.Name, "error", err)
		return hidden, nil
	}
	fields := c.copyFields(known, r.facts, int16(overall))
	if len(fields) == 0 || len(fields) != announced {
		return hidden, nil
	}
	refusal, err := a.planFields(r, fields)
	if refusal != nil || err != nil {
		return refusal, err
	}
	if !r.plan.clear {
		r.decode = newCopyDecoder(r.facts.Copy, r.plan)
	}
	return nil, nil
}

// copyFields are the columns of a COPY of a table, nil if they are not certain.
func (c *conn) copyFields(known *classified, f *policy.Facts, format int16) []field {
	if len(f.Relations) != 1 {
		return nil
	}
	c.context.mu.Lock()
	r := resolver{snapshot: known.snapshot, path: known.effectivePath(c.context.path, c.context.role)}
	c.context.mu.Unlock()
	found, sure := r.lookup(f.Relations[0].Schema, f.Relations[0].Name)
	if !sure || len(found) != 1 {
		return nil
	}
	rel := found[0]
	var fields []field
	add := func(col *column) {
		fields = append(fields, field{TableOID: rel.oid, Attnum: col.num, TypeOID: col.typeOID, Typmod: col.typmod, Format: format, Name: col.name})
	}
	for _, name := range f.Copy.Columns {
		col := rel.named(name)
		if col == nil {
			return nil
		}
		add(col)
	}
	if len(f.Copy.Columns) > 0 {
		return fields
	}
	for _, col := range rel.columns {
		if col != nil && !col.generated {
			add(col)
		}
	}
	return fields
}

// copyDecoder rewrites the rows of a COPY … TO STDOUT
// (https://www.postgresql.org/docs/current/sql-copy.html, "File Formats").
// PostgreSQL sends each row as one CopyData message; a message that does not
// hold whole rows is refused.
type copyDecoder struct {
	plan      *rowPlan
	format    string
	delimiter byte
	null      []byte
	quote     byte
	escape    byte
	header    bool // the next row is the header
	begun     bool // binary: the file header was seen
	value     []byte
	cell      []byte
}

func newCopyDecoder(f *policy.CopyFacts, plan *rowPlan) *copyDecoder {
	d := &copyDecoder{plan: plan, format: f.Format, delimiter: '\t', null: []byte(`\N`), quote: '"', header: f.Header}
	if f.Format == "csv" {
		d.delimiter, d.null = ',', nil
	}
	if f.Delimiter != "" {
		d.delimiter = f.Delimiter[0]
	}
	if f.Null != "" {
		d.null = []byte(f.Null)
	}
	if f.Quote != "" {
		d.quote = f.Quote[0]
	}
	if d.escape = d.quote; f.Escape != "" {
		d.escape = f.Escape[0]
	}
	return d
}

// rewrite appends the CopyData message as it may be shown.
func (d *copyDecoder) rewrite(dst, frame []byte) ([]byte, error) {
	at := len(dst)
	dst = append(dst, frame[:headerSize]...)
	out, ok := dst, false
	if data := body(frame); d.format == "binary" {
		out, ok = d.binary(dst, data)
	} else if d.header {
		d.header = false
		out, ok = append(dst, data...), true
	} else {
		out, ok = d.line(dst, data)
	}
	if !ok {
		return dst[:at], fmt.Errorf("%w: row of COPY", errMalformed)
	}
	return setLength(out, at), nil
}

// binary rewrites tuples, behind the file's header in the first message.
func (d *copyDecoder) binary(dst, data []byte) ([]byte, bool) {
	in := cursor{b: data}
	if !d.begun {
		head := in.cut(15)
		extension := in.cut(int(in.int32()))
		if in.bad || string(head[:11]) != "PGCOPY\n\xff\r\n\x00" {
			return dst, false
		}
		dst = append(dst, data[:19+len(extension)]...)
		d.begun = true
	}
	for len(in.b) > 0 && !in.bad {
		count := in.b
		n := in.int16()
		if in.bad {
			break
		}
		dst = append(dst, count[:2]...)
		if n == -1 {
			continue
		}
		if n != len(d.plan.rewrite) {
			return dst, false
		}
		dst = d.tuple(dst, &in)
	}
	return dst, !in.bad
}

func (d *copyDecoder) tuple(dst []byte, in *cursor) []byte {
	for i, rewrite := range d.plan.rewrite {
		whole := in.b
		size := in.int32()
		if in.bad {
			return dst
		}
		if size == -1 && !d.plan.nulls(i) {
			dst = append(dst, whole[:4]...)
			continue
		}
		var value []byte
		if size != -1 {
			value = in.cut(int(size))
		}
		switch {
		case in.bad:
			return dst
		case rewrite == nil:
			dst = append(dst, whole[:4+len(value)]...)
		default:
			dst = d.plan.cell(dst, value, i)
		}
	}
	return dst
}

// line rewrites one row of text or CSV, which ends with a newline. Columns that
// go as they are are copied together.
func (d *copyDecoder) line(dst, data []byte) ([]byte, bool) {
	if len(data) == 0 || data[len(data)-1] != '\n' {
		return dst, false
	}
	rest := data[:len(data)-1]
	if bytes.HasSuffix(rest, []byte{'\r'}) && d.format == "text" { // a target on Windows
		return dst, false
	}
	if d.format == "text" && bytes.IndexByte(rest, '\n') >= 0 { // two rows in one message
		return dst, false
	}
	from, at := 0, 0 // what is not copied yet, and where the next field begins
	for i, rewrite := range d.plan.rewrite {
		if i > 0 {
			if at == len(rest) || rest[at] != d.delimiter {
				return dst, false
			}
			at++
		}
		raw, ok := d.cut(rest[at:], rewrite != nil)
		if !ok {
			return dst, false
		}
		if rewrite != nil {
			dst = append(dst, rest[from:at]...)
			if dst, ok = d.cellOf(dst, raw, i); !ok {
				return dst, false
			}
			from = at + len(raw)
		}
		at += len(raw)
	}
	if at != len(rest) {
		return dst, false
	}
	return append(append(dst, rest[from:]...), '\n'), true
}

// cellOf appends a column that is rewritten. raw is as it was written; a CSV
// field's value lies in d.value.
func (d *copyDecoder) cellOf(dst, raw []byte, i int) ([]byte, bool) {
	null := bytes.Equal(raw, d.null)
	if null && !d.plan.nulls(i) {
		return append(dst, raw...), true
	}
	value := d.value
	if d.format != "csv" && !null {
		if value = raw; bytes.IndexByte(raw, '\\') >= 0 {
			var ok bool
			if d.value, ok = unescape(d.value[:0], raw); !ok {
				return dst, false
			}
			value = d.value
		}
	}
	if null {
		value = nil
	}
	d.cell, null = d.plan.rewrite[i].Rewrite(d.cell[:0], value)
	if !d.plan.counts(i, value, d.cell) {
		return append(dst, raw...), true
	}
	if null {
		return append(dst, d.null...), true
	}
	return d.quoted(dst, d.cell), true
}

// cut returns the first field of a row as it is written. Of a CSV field that is
// wanted it leaves the value in d.value.
func (d *copyDecoder) cut(b []byte, wanted bool) (raw []byte, ok bool) {
	if d.format == "csv" {
		return d.cutCSV(b, wanted)
	}
	n := bytes.IndexByte(b, d.delimiter)
	if n < 0 {
		n = len(b)
	}
	if bytes.IndexByte(b[:n], '\\') < 0 {
		return b[:n], true
	}
	for n = 0; n < len(b) && b[n] != d.delimiter; n++ {
		if b[n] == '\\' {
			n++
		}
	}
	if n > len(b) {
		return nil, false
	}
	return b[:n], true
}

// unescape reads the backslash sequences of COPY's text format.
func unescape(dst, raw []byte) ([]byte, bool) {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		if i++; i == len(raw) {
			return dst, false
		}
		if at := strings.IndexByte("bfnrtv", raw[i]); at >= 0 {
			dst = append(dst, "\b\f\n\r\t\v"[at])
			continue
		}
		dst = append(dst, raw[i])
	}
	return dst, true
}

// cutCSV is cut for CSV. An unquoted field that spells NULL is NULL; a quoted
// one never equals d.null as it is written.
func (d *copyDecoder) cutCSV(b []byte, wanted bool) (raw []byte, ok bool) {
	d.value = d.value[:0]
	n, inside := 0, false
	for ; n < len(b); n++ {
		ch := b[n]
		switch {
		case inside && ch == d.escape && n+1 < len(b) && (b[n+1] == d.quote || b[n+1] == d.escape):
			n++
			ch = b[n]
		case ch == d.quote:
			inside = !inside
			continue
		case !inside && ch == d.delimiter:
			return b[:n], true
		case !inside && (ch == '\n' || ch == '\r'):
			return nil, false
		}
		if wanted {
			d.value = append(d.value, ch)
		}
	}
	return b[:n], !inside
}

// quoted appends a value as the format writes it.
func (d *copyDecoder) quoted(dst, value []byte) []byte {
	if d.format == "csv" {
		dst = append(dst, d.quote)
		for _, ch := range value {
			if ch == d.quote || ch == d.escape {
				dst = append(dst, d.escape)
			}
			dst = append(dst, ch)
		}
		return append(dst, d.quote)
	}
	for _, ch := range value {
		if at := strings.IndexByte("\b\f\n\r\t\v", ch); at >= 0 {
			dst = append(dst, '\\', "bfnrtv"[at])
			continue
		}
		if ch == '\\' || ch == d.delimiter {
			dst = append(dst, '\\')
		}
		dst = append(dst, ch)
	}
	return dst
}
