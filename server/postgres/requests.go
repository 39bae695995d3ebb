package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgproto3/v2"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// noPortal is the name of a portal that never exists: executing it makes the
// target fail as a refused statement would have. Clients cannot bind it.
const noPortal = "hoopctl: refused"

// requests is the half of a session that reads the client. Its methods run on
// one goroutine. It alone writes to the target.
type requests struct {
	c   *conn
	in  *reader
	out window // to the target

	segment uint64      // of messages up to a Sync; the first is 1
	open    bool        // this segment has sent something that only a Sync ends
	ran     bool        // … an Execute among it
	skip    bool        // a message of this segment was refused: skip to Sync
	began   bool        // a BEGIN is on its way
	unsure  bool        // something on its way may change what names mean or whether a transaction is open
	seen    *classified // the catalogue by which statements were understood last; nil without tags
	renamed bool        // … in this segment, so that nothing that follows in it is understood
	count   uint64      // executions so far

	admitting context.Context // what a question waits under; withdraw cancels it
	withdraw  context.CancelFunc
	upload    *run // a COPY FROM STDIN that takes data
	copies    bool // a COPY FROM STDIN was sent and has not ended, as far as is known
}

func (q *requests) start(c *conn) {
	q.c, q.in, q.segment = c, newReader(c.client), 1
	q.out.r = q.in
}

// run reads messages until the client is done. It returns errGoodbye if the
// client said so.
func (q *requests) run() error {
	if err := q.atStartup(); err != nil {
		return err
	}
	if err := q.c.welcome(); err != nil {
		return err
	}
	q.c.limit()
	for {
		kind, size, ok, err := q.in.peek()
		if err != nil {
			return err
		}
		if ok {
			if err := q.known(kind, size); err != nil {
				return err
			}
			done, err := q.whole(kind, size)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		if err := q.flush(); err != nil {
			return err
		}
		if err := q.in.fill(maxHeld); err != nil {
			return q.closed(err)
		}
		q.c.heard()
	}
}

// closed is called when the client's stream ends without Terminate.
func (q *requests) closed(err error) error {
	if q.c.reason.Load() != nil {
		return errEnded
	}
	return gone(err)
}

// stopReading waits for a read that was begun on the reader's behalf.
func (q *requests) stopReading() {
	if q.in.ahead != nil {
		q.in.ahead.wait()
	}
	q.in.giveBack()
}

// errUnexpected is a message that has no place where it came.
var errUnexpected = errors.New("unexpected message")

// known refuses messages that nobody may send, and sizes that no honest client
// sends, before anything is read for them.
func (q *requests) known(kind byte, size int) error {
	limit := 0
	switch kind {
	case 'Q', 'P', 'B', 'F', 'd':
		limit = maxFrame + 1
	case 'D', 'E', 'C', 'f':
		limit = maxNamed
	case 'S', 'H', 'X', 'c':
		limit = headerSize
	default:
		return fmt.Errorf("%w: type %q from the client", errUnexpected, kind)
	}
	if size > limit {
		return fmt.Errorf("%w: %q says %d", errLength, kind, size-1)
	}
	return nil
}

// whole handles the next message if enough of it is there.
func (q *requests) whole(kind byte, size int) (bool, error) {
	switch {
	case size <= q.in.buffered():
		frame := q.in.take(size)
		return true, q.message(kind, frame)
	case kind == 'd' && size > largeBuffer:
		return true, q.stream(size)
	case size > maxHeld:
		return true, q.tooLong(kind, size)
	}
	return false, nil
}

// tooLong refuses a statement that is longer than what is held in memory.
func (q *requests) tooLong(kind byte, size int) error {
	if err := q.flush(); err != nil {
		return err
	}
	if err := q.in.skip(size); err != nil {
		return q.closed(err)
	}
	if q.skipping() {
		return nil
	}
	return q.refuse(&session.Refusal{Code: codeSQLState + "54000", Message: fmt.Sprintf("message of %d bytes is longer than %d", size-1, maxHeld),
		Hint: "load large values with COPY"}, kind == 'Q' || kind == 'F')
}

// message handles one whole message.
func (q *requests) message(kind byte, frame []byte) error {
	if q.copies && q.upload == nil {
		if err := q.awaitUpload(); err != nil {
			return err
		}
	}
	if q.upload != nil {
		return q.uploading(kind, frame)
	}
	switch kind {
	case 'S':
		return q.sync(frame)
	case 'X':
		return errGoodbye
	case 'H':
		q.out.pass(len(frame))
		return nil
	case 'd', 'c', 'f':
		// Outside of a COPY they are dropped, as PostgreSQL does: the client was
		// still sending when it ended.
		return nil
	}
	if q.skipping() {
		return nil
	}
	switch kind {
	case 'Q':
		return q.query(frame)
	case 'P':
		return q.parse(frame)
	case 'B':
		return q.bind(frame)
	case 'D':
		return q.describe(frame)
	case 'E':
		return q.execute(frame)
	case 'C':
		return q.close(frame)
	default: // 'F'
		return q.refuse(&session.Refusal{Code: session.CodePolicy, Message: "function calls by message are not spoken through the broker",
			Hint: "call the function with SELECT"}, true)
	}
}

// skipping is true between an error and the next Sync.
func (q *requests) skipping() bool {
	if q.skip {
		return true
	}
	l := q.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	q.skip = l.failed == q.segment
	return q.skip
}

// flush writes what is on the way. A cancel that is under way ends first, so
// that it cannot hit what is sent now.
func (q *requests) flush() error {
	if q.out.size() == 0 {
		return nil
	}
	if q.upload != nil {
		if err := q.recordUpload(); err != nil {
			return err
		}
	}
	q.c.cancelling.Lock()
	defer q.c.cancelling.Unlock()
	_, err := q.c.up.Write(q.out.bytes())
	q.out.reset()
	if err != nil {
		return fmt.Errorf("write to the target: %w", err)
	}
	return nil
}

// query handles a simple Query: all its statements are admitted together
// before any byte goes.
func (q *requests) query(frame []byte) error {
	raw, err := decodeQuery(frame)
	if err != nil {
		return err
	}
	text := string(raw)
	batch, err := q.understand(text)
	if err != nil {
		return q.refuse(err, true)
	}
	runs, err := q.admit(batch, q.seen)
	if err != nil {
		return q.refuse(err, true)
	}
	q.uploadsIn(runs)
	if !q.c.ledger.push(expect{kind: wantQuery, segment: q.segment, runs: runs}) {
		return q.unrun(runs)
	}
	q.begun(batch)
	q.out.pass(len(frame))
	return nil
}

// unrun closes what was admitted and then found to be skipped.
func (q *requests) unrun(runs []*run) error {
	for _, r := range runs {
		if _, err := r.finish(q.c, session.Outcome{NotRun: true}); err != nil {
			return err
		}
	}
	return nil
}

func (q *requests) parse(frame []byte) error {
	m, err := decodeParse(frame)
	if err != nil {
		return err
	}
	if err := q.settle(); err != nil {
		return q.refuse(err, false)
	}
	if taken, err := lookup(q.c.ledger, q.c.ledger.statements, m.name, q.segment, q.flush); err != nil {
		return err
	} else if taken != nil && len(m.name) > 0 {
		return q.refuse(&session.Refusal{Code: codeSQLState + "42P05", Message: fmt.Sprintf("prepared statement %q already exists", m.name)}, false)
	}
	text := string(m.text)
	facts, err := q.read(text)
	if err != nil {
		return q.refuse(err, false)
	}
	batch, err := q.statements(text, facts, nil)
	if err != nil {
		return q.refuse(err, false)
	}
	if len(batch) > 1 {
		return q.refuse(&session.Refusal{Code: session.CodeSyntax, Message: "cannot insert multiple commands into a prepared statement"}, false)
	}
	if len(batch) == 1 {
		if err := q.c.gate.Check(q.c.ctx, batch); err != nil {
			return q.refuse(err, false)
		}
	}
	def := &prepared{text: text, facts: facts, types: slices.Clone(m.types)}
	return q.forward(frame, expect{kind: wantParse, name: string(m.name), def: def})
}

// forward writes an entry of the extended protocol and sends the message on.
func (q *requests) forward(frame []byte, e expect) error {
	if q.entry(e) {
		q.out.pass(len(frame))
	}
	return nil
}

// entry writes an entry and notes what it defines. It is false if the target
// skips the segment.
func (q *requests) entry(e expect) bool {
	l := q.c.ledger
	e.segment = q.segment
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.pushLocked(e) {
		return false
	}
	q.open = true
	switch {
	case e.kind == wantParse:
		define(l.statements, e.name, e.def, e.segment)
	case e.kind == wantBind:
		define(l.portals, e.name, e.portal, e.segment)
	case e.kind == wantClose && e.named == 'S':
		define(l.statements, e.name, nil, e.segment)
	case e.kind == wantClose:
		define(l.portals, e.name, nil, e.segment)
	}
	return true
}

func (q *requests) bind(frame []byte) error {
	m, err := decodeBind(frame, nil)
	if err != nil {
		return err
	}
	def, err := q.statement(m.name)
	if err != nil || def == nil {
		return err
	}
	if string(m.portal) == noPortal {
		return q.refuse(&session.Refusal{Code: session.CodeProtocol, Message: "that portal name is the broker's own"}, false)
	}
	p := &portal{name: string(m.portal), reads: q.in.reads}
	if len(def.facts) > 0 {
		if len(m.params) > 0 { // the message's buffer is used again; parameters are kept
			if m, err = decodeBind(slices.Clone(frame), def.types); err != nil {
				return err
			}
		}
		if p.batch, err = q.statements(def.text, def.facts, m.params); err != nil {
			return q.refuse(err, false)
		}
		p.seen = q.seen
		runs, err := q.admit(p.batch, p.seen)
		if err != nil {
			return q.refuse(err, false)
		}
		p.run = runs[0]
	}
	if !q.entry(expect{kind: wantBind, name: p.name, portal: p}) {
		p.close(q.c)
		return nil
	}
	q.out.pass(len(frame))
	return nil
}

func (q *requests) describe(frame []byte) error {
	kind, name, err := decodeNamed(frame)
	if err != nil {
		return err
	}
	if kind == 'S' {
		def, err := q.statement(name)
		if err != nil || def == nil {
			return err
		}
		return q.forward(frame, expect{kind: wantDescribe, def: def})
	}
	if err := q.settle(); err != nil {
		return q.refuse(err, false)
	}
	p, err := q.bound(name)
	switch {
	case err != nil:
		return err
	case p != nil:
		p.described = q.count + 1
		return q.forward(frame, expect{kind: wantPortal, run: p.run})
	case q.isCursor(name):
		return q.forward(frame, expect{kind: wantPortal})
	}
	return q.noSuchPortal(name)
}

// isCursor tells whether SQL may have made a portal of that name: psycopg
// describes the cursors that it declares. Where columns are hidden it must be
// one whose text was read, or its column names could carry values.
func (q *requests) isCursor(name []byte) bool {
	if !q.c.gate.Hides() {
		return true
	}
	q.c.context.mu.Lock()
	defer q.c.context.mu.Unlock()
	return q.c.context.cursors[string(name)] != nil
}

// statement returns the prepared statement of that name; nil, having refused,
// if there is none. One that SQL prepared is none to the protocol: its text was
// judged as PREPARE, and runs by EXECUTE.
func (q *requests) statement(name []byte) (*prepared, error) {
	if err := q.settle(); err != nil {
		return nil, q.refuse(err, false)
	}
	def, err := lookup(q.c.ledger, q.c.ledger.statements, name, q.segment, q.flush)
	if err != nil {
		return nil, err
	}
	if def == nil || def.sql {
		return nil, q.refuse(&session.Refusal{Code: codeSQLState + "26000", Message: fmt.Sprintf("prepared statement %q does not exist", name)}, false)
	}
	return def, nil
}

// portal returns the portal of that name; nil, having refused, if there is none.
func (q *requests) portal(name []byte) (*portal, error) {
	if err := q.settle(); err != nil {
		return nil, q.refuse(err, false)
	}
	p, err := q.bound(name)
	if p == nil && err == nil {
		err = q.noSuchPortal(name)
	}
	return p, err
}

// bound returns the portal that Bind made by that name, nil if there is none.
func (q *requests) bound(name []byte) (*portal, error) {
	return lookup(q.c.ledger, q.c.ledger.portals, name, q.segment, q.flush)
}

func (q *requests) noSuchPortal(name []byte) error {
	return q.refuse(&session.Refusal{Code: codeSQLState + "34000", Message: fmt.Sprintf("portal %q does not exist", name)}, false)
}

func (q *requests) execute(frame []byte) error {
	name, _, err := decodeExecute(frame)
	if err != nil {
		return err
	}
	p, err := q.portal(name)
	if err != nil || p == nil {
		return err
	}
	if p.run != nil {
		if err := q.stillAdmitted(p); err != nil {
			return q.refuse(err, false)
		}
		// What a Describe said holds as long as nothing else ran: a statement
		// may close the portal and open another by its name.
		if p.run.tagged && p.described != q.count+1 {
			p.described = q.count + 1
			if !q.entry(expect{kind: wantPortal, ours: true, run: p.run}) {
				return nil
			}
			q.out.add(say(nil, &pgproto3.Describe{ObjectType: 'P', Name: p.name}))
		}
	}
	upload := p.run != nil && q.uploadsIn([]*run{p.run})
	if !q.entry(expect{kind: wantExecute, run: p.run}) {
		return nil
	}
	if p.run != nil {
		p.run.started.Store(true)
		q.ran = true
		q.count++
		p.described++ // its own run does not count
		q.begun(p.batch)
	}
	q.out.pass(len(frame))
	if upload { // the target must say that it takes data before more is understood
		q.out.add(say(nil, &pgproto3.Flush{}))
	}
	return nil
}

// stillAdmitted checks, before a portal runs, that what was admitted at Bind
// still may: the grant lives, the policy in force does not refuse it. A portal
// that ran to its end is admitted anew.
func (q *requests) stillAdmitted(p *portal) error {
	if p.run.done.Load() {
		runs, err := q.admit(p.batch, p.seen)
		if err != nil {
			return err
		}
		q.c.ledger.mu.Lock() // the answers half closes portals
		p.run = runs[0]
		q.c.ledger.mu.Unlock()
		p.described, p.reads = 0, q.in.reads
		return nil
	}
	if p.reads == q.in.reads { // Bind came in the same breath
		return nil
	}
	p.reads = q.in.reads
	return q.c.gate.Check(q.c.ctx, p.batch)
}

func (q *requests) close(frame []byte) error {
	kind, name, err := decodeNamed(frame)
	if err != nil {
		return err
	}
	e := expect{kind: wantClose, named: kind, name: string(name)}
	if kind == 'P' {
		if e.portal, err = lookup(q.c.ledger, q.c.ledger.portals, name, q.segment, q.flush); err != nil {
			return err
		}
	}
	return q.forward(frame, e)
}

func (q *requests) sync(frame []byte) error {
	q.endSegment(false)
	q.out.pass(len(frame))
	q.skip = false
	return nil
}

// endSegment notes that a Sync, the client's or one of ours, is sent.
func (q *requests) endSegment(ours bool) {
	q.c.ledger.push(expect{kind: wantSync, segment: q.segment, ours: ours})
	q.segment++
	q.open, q.ran, q.renamed = false, false, false
}

// begun notes that statements were sent: what comes after them must know.
func (q *requests) begun(batch []policy.Statement) {
	for i := range batch {
		f := batch[i].Facts
		switch f.Transaction {
		case "begin":
			q.began = true
		case "commit", "rollback", "prepare":
			q.began = false
		}
		names := changesNames(f)
		q.unsure = q.unsure || names || f.Kind == "DEALLOCATE" || f.Transaction != "" || f.Class == policy.Schema || f.Class == policy.Admin
		q.renamed = q.renamed || names && q.open
	}
}

// settle makes sure that what the next statement's names mean is known.
func (q *requests) settle() error {
	c := q.c
	if q.renamed {
		return &session.Refusal{Code: session.CodeProtocol, Message: "a statement that changes what names mean must be followed by Sync",
			Hint: "send it on its own"}
	}
	if !q.unsure && !c.context.stale() {
		return nil
	}
	if q.open { // only a Sync makes the target answer for sure; BEGIN alone is foreseen
		return nil
	}
	if err := q.flush(); err != nil {
		return err
	}
	if !c.ledger.awaitQuiet() {
		return errEnded
	}
	q.unsure = false
	c.ledger.mu.Lock()
	status := c.ledger.status
	c.ledger.mu.Unlock()
	q.began = status != 'I'
	if !c.context.stale() || status == 'E' {
		return nil
	}
	rows, err := q.ask(contextQuery)
	if err != nil {
		return err
	}
	return c.context.read(rows)
}

// inTransaction tells whether a statement that is sent now runs in a
// transaction block.
func (q *requests) inTransaction() bool {
	l := q.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	return q.began || l.status != 'I'
}

// ask runs a query of our own between two of the client's and returns its rows
// as text.
func (q *requests) ask(sql string) ([][]string, error) {
	var rows [][]string
	if !q.c.ledger.push(expect{kind: wantQuery, segment: q.segment, ours: true, collect: &rows}) {
		return nil, errEnded
	}
	q.out.add(say(nil, &pgproto3.Query{String: sql}))
	if err := q.flush(); err != nil {
		return nil, err
	}
	if !q.c.ledger.awaitQuiet() {
		return nil, errEnded
	}
	return rows, nil
}

// admit asks the gate. While people are asked, the client's stream is watched,
// so that a client that hangs up withdraws its question.
func (q *requests) admit(batch []policy.Statement, seen *classified) ([]*run, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	l := q.c.ledger
	if q.admitting == nil || q.admitting.Err() != nil {
		q.admitting, q.withdraw = context.WithCancel(q.c.ctx)
	}
	l.mu.Lock()
	l.admitting = q.withdraw
	l.mu.Unlock()
	var unwatch func()
	passes, err := q.c.gate.Admit(q.admitting, batch, func(h session.Hold) {
		unwatch = q.held(h)
	})
	l.mu.Lock()
	l.admitting = nil
	l.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	if err != nil {
		return nil, q.withdrawn(err)
	}
	if len(passes) != len(batch) {
		return nil, fmt.Errorf("%d passes for %d statements", len(passes), len(batch))
	}
	tagged := q.c.gate.Hides()
	runs := runsFor(len(batch))
	for i, r := range runs {
		r.begin(passes[i], batch[i].Facts, tagged)
		r.said, r.asked, r.seen = said{batch[i].Text, i, batch[i].Facts}, &batch[i], seen
		r.source = named(&batch[i])
	}
	return runs, nil
}

// runsFor makes room for a batch. Most are of one statement, and take one
// allocation.
func runsFor(n int) []*run {
	if n == 1 {
		var one struct {
			run  run
			runs [1]*run
		}
		one.runs[0] = &one.run
		return one.runs[:]
	}
	runs := make([]*run, n)
	for i := range runs {
		runs[i] = new(run)
	}
	return runs
}

// named is whose text names a statement's columns: nil for a cursor or a
// prepared statement that was made out of sight.
func named(s *policy.Statement) *policy.Facts {
	if s.Exposure != nil && s.Exposure.Cursor != "" || s.Kind == "EXECUTE" && s.Outputs == nil {
		return nil
	}
	return s.Facts
}

// held tells the client that people are asked. What was admitted before goes
// on its way.
func (q *requests) held(h session.Hold) (unwatch func()) {
	if err := q.flush(); err != nil {
		q.withdraw()
		return nil
	}
	if err := q.c.tellAside(holdNotice(nil, h, q.c.name)); err != nil {
		q.withdraw()
		return nil
	}
	return q.in.watch(func(error) { q.withdraw() })
}

// withdrawn gives a cancelled question its words; other errors stay.
func (q *requests) withdrawn(err error) error {
	var r *session.Refusal
	if errors.As(err, &r) || q.c.ctx.Err() != nil || q.admitting.Err() == nil {
		return err
	}
	return &session.Refusal{Code: session.CodeWithdrawn, Message: "canceling statement due to user request"}
}

// refuse answers a message with an error in its place among the answers, and
// leaves the connection usable. simple says that the message was one of the
// simple protocol, whose error is followed by ReadyForQuery.
//
// An error that is no *session.Refusal, or a fatal one, ends the session.
func (q *requests) refuse(err error, simple bool) error {
	var r *session.Refusal
	if !errors.As(err, &r) || r.Fatal || q.c.ctx.Err() != nil {
		return err
	}
	if r.Code == session.CodeHold && q.inTransaction() {
		if err := q.rollback(); err != nil {
			return err
		}
	}
	l := q.c.ledger
	q.skip = !simple
	if q.ran {
		// What ran since the last Sync must come to nothing, as it does when
		// PostgreSQL itself fails in its midst.
		if q.entry(expect{kind: wantAbort, refusal: r}) {
			q.out.add(say(nil, &pgproto3.Execute{Portal: noPortal}))
		}
		if simple {
			q.out.add(say(nil, &pgproto3.Sync{}))
			q.endSegment(false)
		}
		return q.flush()
	}
	l.mu.Lock()
	direct := l.quiet()
	if !direct {
		l.pushLocked(expect{kind: sayOwn, segment: q.segment, refusal: r, ready: simple})
	}
	status := l.status
	l.mu.Unlock()
	if direct {
		b := errorMessage(nil, r, q.c.name)
		if simple {
			b = readyMessage(b, status)
		}
		return q.c.tell(b, false)
	}
	if q.open { // the answers before it must come for it to have its turn
		q.out.add(say(nil, &pgproto3.Flush{}))
	}
	return q.flush()
}

// rollback ends the transaction on the target: a question about it was open
// for too long, and it holds locks.
func (q *requests) rollback() error {
	if q.open {
		q.out.add(say(nil, &pgproto3.Sync{}))
		q.endSegment(true)
	}
	_, err := q.ask("ROLLBACK")
	q.began = false
	return err
}
