package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// plan decides, once per result, what is done with each column. It returns a
// refusal if that cannot be decided, an error if the target's description is
// malformed.
func (a *answers) plan(r *run, frame []byte) (*session.Refusal, error) {
	fields, err := decodeRowDescription(a.fields[:0], frame)
	if err != nil {
		return nil, err
	}
	a.fields = fields
	return a.planFields(r, fields)
}

// planFields is plan for columns however they became known.
func (a *answers) planFields(r *run, fields []field) (*session.Refusal, error) {
	c := a.c
	tags := c.gate.Tags()
	known, err := c.catalog.classified(c.ctx, c.control, c.databaseOID(), tags)
	if err == nil && !known.known(fields) {
		known, err = c.catalog.fresher(c.ctx, c.control, known, tags)
	}
	settled := false
	if err == nil {
		known, settled, err = c.settledNow(r, fields, known)
	}
	if err != nil {
		c.room.log.Error("the target's catalogue cannot be read", "session", c.name, "target", c.info.Name, "error", err)
		return &session.Refusal{Code: session.CodeUnavailable, Message: "the target's catalogue cannot be read, so what may be shown cannot be decided",
			Hint: "try again; if it lasts, tell whoever runs the broker"}, nil
	}
	columns := known.provenance(fields, c.result(r, known, settled))
	plan, err := r.pass.Plan(columns)
	var refusal *session.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal, nil
	case err != nil:
		return nil, fmt.Errorf("plan of a result: %w", err)
	case len(plan.Columns) != len(fields):
		return nil, fmt.Errorf("plan of a result: %d columns for %d", len(plan.Columns), len(fields))
	}
	r.plan = newRowPlan(fields, plan)
	return nil, nil
}

// settledNow returns a catalogue that holds at this moment for what a result
// hangs on: the one given, or one read anew because something has changed.
// settled is false if anything has changed since the statement was understood,
// even if it is as it was again: what it was when the statement ran is not known.
func (c *conn) settledNow(r *run, fields []field, known *classified) (now *classified, settled bool, err error) {
	versions, err := c.catalog.versions(c.ctx, c.control, r.concerns(known.snapshot, fields))
	if err != nil {
		return nil, false, err
	}
	settled = r.seen == nil || r.seen.saw(versions)
	if known.saw(versions) {
		return known, settled, nil
	}
	c.catalog.expire(known.snapshot)
	now, err = c.catalog.classified(c.ctx, c.control, c.databaseOID(), c.gate.Tags())
	return now, false, err
}

// result says where the rows of a statement come from. What was understood by
// another catalogue counts only if nothing that it touches has changed since.
func (c *conn) result(r *run, known *classified, settled bool) result {
	from := result{dirty: c.unsettled(r.facts)}
	if !settled {
		return from
	}
	from.facts = r.facts
	if r.asked != nil && r.seen != nil && known.agrees(r.seen, r.asked.Resolved) {
		from.outputs = r.asked.Outputs
	}
	return from
}

// renamed appends the RowDescription of rows whose query nobody here has read:
// a cursor that a function opened may carry a value as the name of a column.
// Names that are not those of their table's own columns are left out.
func renamed(dst []byte, fields []field, plan *rowPlan) []byte {
	at := len(dst)
	dst = append(dst, 'T', 0, 0, 0, 0, byte(len(fields)>>8), byte(len(fields)))
	for i := range fields {
		f := &fields[i]
		name := "?column?"
		if strings.HasSuffix(plan.columns[i].Source, "."+f.Name) && !strings.Contains(f.Name, ".") {
			name = f.Name
		}
		dst = append(append(dst, name...), 0)
		dst = append(appendUint32(dst, f.TableOID), byte(uint16(f.Attnum)>>8), byte(f.Attnum))
		dst = append(appendUint32(dst, f.TypeOID), byte(uint16(f.Size)>>8), byte(f.Size))
		dst = append(appendUint32(dst, uint32(f.Typmod)), byte(uint16(f.Format)>>8), byte(f.Format))
	}
	return setLength(dst, at)
}

// unsettled is true while names or columns may not be what the catalogue says:
// after DDL that is not committed, and in what such a statement itself answers.
func (c *conn) unsettled(f *policy.Facts) bool {
	c.context.mu.Lock()
	defer c.context.mu.Unlock()
	return c.context.dirty || f != nil && f.Class == policy.Schema
}

// scrubbed appends an error or notice that carries no value: what it is about
// (severity, SQLSTATE, position in the client's own text) is kept, what it
// quotes is not. A message quotes rows, literals, constraint and type names,
// and text that functions computed.
func scrubbed(dst []byte, kind byte, t *told) []byte {
	at := len(dst)
	dst = append(dst, kind, 0, 0, 0, 0)
	field := func(k byte, v []byte) {
		if len(v) > 0 {
			dst = append(append(append(dst, k), v...), 0)
		}
	}
	severity, local := t.get('V'), t.get('S')
	if !severityKnown(string(local)) {
		local = severity
	}
	if !severityKnown(string(severity)) {
		severity, local = []byte("ERROR"), []byte("ERROR")
	}
	field('S', local)
	field('V', severity)
	code := t.code()
	field('C', []byte(code))
	field('M', []byte(template(code)))
	field('D', []byte("The target's own words are withheld: they may quote values that are hidden from you."))
	if p := t.get('P'); digits(p) {
		field('P', p)
	}
	dst = append(dst, 0)
	return setLength(dst, at)
}

func severityKnown(s string) bool {
	switch s {
	case "ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "DEBUG", "INFO", "LOG":
		return true
	}
	return false
}

func digits(b []byte) bool {
	if len(b) == 0 || len(b) > 10 {
		return false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// templates are messages by SQLSTATE, else by its class
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
var templates = map[string]string{
	"00000": "notice", "01000": "warning", "22003": "numeric value out of range", "22007": "invalid date or time",
	"22008": "date or time out of range", "22012": "division by zero", "22P02": "invalid input for the type", "22001": "value too long for the type",
	"23502": "null value in a column that does not allow it", "23503": "foreign key violated", "23505": "unique constraint violated",
	"23514": "check constraint violated", "23P01": "exclusion constraint violated",
	"25P02": "current transaction is aborted, commands ignored until end of transaction block",
	"25001": "not possible in a transaction block", "25006": "not possible in a read-only transaction", "25P01": "there is no transaction in progress",
	"26000": "prepared statement does not exist", "34000": "cursor or portal does not exist",
	"40001": "could not serialize access", "40P01": "deadlock detected", "42501": "permission denied", "42601": "syntax error",
	"42703": "column does not exist", "42P01": "relation does not exist", "42883": "function or operator does not exist",
	"42804": "types do not match", "42702": "column reference is ambiguous", "42P02": "parameter does not exist", "42803": "column must be grouped or aggregated",
	"55P03": "could not obtain a lock", "57014": "canceling statement due to user request or timeout", "57P01": "terminating connection",
	"P0001": "raised by a function", "0A000": "feature not supported",
}

var classTemplates = map[string]string{
	"00": "notice", "01": "warning", "02": "no data", "08": "connection error", "0A": "feature not supported", "21": "wrong number of rows",
	"22": "invalid value", "23": "integrity constraint violated", "25": "invalid transaction state", "28": "not authorized",
	"40": "transaction rolled back", "42": "the statement cannot be run as written", "53": "insufficient resources", "54": "limit exceeded",
	"55": "object not in the required state", "57": "operator intervention", "58": "system error of the target", "P0": "raised by a function", "XX": "internal error of the target",
}

func template(code string) string {
	if m, ok := templates[code]; ok {
		return m
	}
	if m, ok := classTemplates[code[:2]]; ok {
		return m
	}
	return "error of the target"
}
