package postgres

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
	"github.com/hoopctl/hoopctl/server/session"
)

// prepared is a prepared statement: what Parse or PREPARE defined.
type prepared struct {
	text  string
	facts []*policy.Facts // none for an empty statement
	types []byte          // parameter type OIDs that Parse named
	sql   bool            // made by PREPARE: usable by EXECUTE only
}

// portal is a bound statement: text and parameters are known, and admitted.
type portal struct {
	name  string
	batch []policy.Statement // one statement, or none if it is empty
	seen  *classified        // the catalogue by which it was understood
	run   *run               // nil if the statement is empty
	reads uint64             // of the client's reader when it was admitted
	// described is the number of executions before the last Describe: what it
	// said holds only as long as nothing else ran.
	described uint64
}

// close ends what the portal admitted and did not finish.
func (p *portal) close(c *conn) {
	switch {
	case p.run == nil:
	case p.run.started.Load():
		p.run.finish(c, session.Outcome{Status: "CLOSED"})
	default:
		p.run.finish(c, session.Outcome{NotRun: true})
	}
}

// run is one admitted statement on its way through its answer. The requests
// half makes it; from then on it belongs to the answers half.
type run struct {
	pass   session.Pass
	facts  *policy.Facts
	said   said              // its text, for what is named after it
	source *policy.Facts     // whose text names its columns, nil if that was not seen
	asked  *policy.Statement // as it was understood, with the origin of its rows
	seen   *classified       // the catalogue by which it was understood; nil without tags
	tagged bool              // rows need a plan

	started, done atomic.Bool

	plan    *rowPlan
	rows    int64
	read    int64             // bytes of the rows, as the target sent them
	may     session.Allowance // before the gate must be asked
	bytes   int64
	refused *session.Refusal // the rest of the answer is swallowed and this is said instead
	copying byte             // 'G' or 'H' while a COPY is under way
	owed    bool             // counted by uploads
	decode  *copyDecoder     // of a COPY TO STDOUT of which a column is rewritten

	use sync.Mutex // of pass: during an upload both halves record
}

func (r *run) begin(pass session.Pass, facts *policy.Facts, tagged bool) {
	r.pass, r.facts, r.tagged, r.may = pass, facts, tagged, pass.Allowed()
}

// text is what was said, apart from the run: what is named after it lives as
// long as the name.
func (r *run) text() *said {
	text := r.said
	return &text
}

// changes is true if running it may have changed the target for good, without
// a COMMIT that is still to come.
func (r *run) changes(status byte) bool {
	if r == nil || r.done.Load() {
		return false
	}
	switch r.facts.Transaction {
	case "commit", "prepare":
		return true
	case "":
		return status == 'I' && r.facts.Class != policy.Read
	default:
		return false
	}
}

// finish records the outcome, once. The ticket is what the answer waits for.
func (r *run) finish(c *conn, o session.Outcome) (session.Ticket, error) {
	if r == nil || !r.done.CompareAndSwap(false, true) {
		return 0, nil
	}
	o.Rows, o.Bytes, o.Read = r.rows, r.bytes, r.read
	if r.plan != nil {
		o.Masked = r.plan.masked()
	}
	c.uploads.over(r)
	r.use.Lock()
	defer r.use.Unlock()
	ticket, err := r.pass.Done(o)
	if err != nil {
		c.room.log.Error("outcome not recorded", "session", c.name, "error", err)
	}
	return ticket, err
}

// record gives bytes to the evidence.
func (r *run) record(dir session.Direction, b []byte) (session.Ticket, error) {
	r.use.Lock()
	defer r.use.Unlock()
	return r.pass.Record(dir, b)
}

// rowPlan says what to do with the columns of the rows that come.
type rowPlan struct {
	names   []string
	columns []session.ColumnPlan
	rewrite []mask.Rewriter // nil entries go as they are
	cells   []int64         // that were rewritten
	clear   bool
}

func newRowPlan(fields []field, plan session.Plan) *rowPlan {
	p := &rowPlan{clear: true, columns: plan.Columns, names: make([]string, len(fields)), rewrite: make([]mask.Rewriter, len(fields)), cells: make([]int64, len(fields))}
	for i := range fields {
		p.names[i] = fields[i].Name
		if i < len(plan.Columns) {
			p.rewrite[i] = plan.Columns[i].Rewrite
		}
		p.clear = p.clear && p.rewrite[i] == nil
	}
	return p
}

func (p *rowPlan) masked() []session.MaskedColumn {
	var out []session.MaskedColumn
	for i, r := range p.rewrite {
		if r != nil && !(p.scans(i) && p.cells[i] == 0) {
			out = append(out, session.MaskedColumn{ColumnPlan: p.columns[i], Name: p.names[i], Cells: p.cells[i]})
		}
	}
	return out
}

// scans reports whether a column is only looked through.
func (p *rowPlan) scans(i int) bool { return i < len(p.columns) && p.columns[i].Scan }

// counts notes that a value was rewritten, and reports whether it was: of a
// column that is looked through, most are not.
func (p *rowPlan) counts(i int, before, after []byte) bool {
	if p.scans(i) && bytes.Equal(before, after) {
		return false
	}
	p.cells[i]++
	return true
}

// cell appends a length and the value to show in column i.
func (p *rowPlan) cell(dst, value []byte, i int) []byte {
	at := len(dst) + 4
	dst = rewriteValue(dst, value, p.rewrite[i])
	p.counts(i, value, dst[at:])
	return dst
}

// nulls reports whether NULL is rewritten in a column, too.
func (p *rowPlan) nulls(i int) bool {
	return p.rewrite[i] != nil && i < len(p.columns) && p.columns[i].Nulls
}

// rewriteRow appends the DataRow as it may be shown. Columns that go as they
// are are copied together.
func (p *rowPlan) rewriteRow(dst, frame []byte) ([]byte, error) {
	in := cursor{b: body(frame)}
	if n := in.int16(); n != len(p.rewrite) {
		in.bad = true
	}
	if in.bad {
		return dst, in.end("DataRow")
	}
	at, from := len(dst), 0 // from: what of the frame is not copied yet
	for i, rewrite := range p.rewrite {
		start := len(frame) - len(in.b)
		size := in.int32()
		null := size == -1 && !in.bad
		var value []byte
		if !null {
			value = in.cut(int(size))
		}
		if in.bad {
			break
		}
		if rewrite == nil || null && !p.nulls(i) {
			continue
		}
		dst = p.cell(append(dst, frame[from:start]...), value, i)
		from = len(frame) - len(in.b)
	}
	if err := in.end("DataRow"); err != nil {
		return dst[:at], err
	}
	return setLength(append(dst, frame[from:]...), at), nil
}

// rewriteValue appends a length and the value to show.
func rewriteValue(dst, value []byte, rewrite mask.Rewriter) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst, null := rewrite.Rewrite(dst, value)
	n := uint32(len(dst) - at - 4)
	if null {
		dst, n = dst[:at+4], 1<<32-1
	}
	dst[at], dst[at+1], dst[at+2], dst[at+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return dst
}
