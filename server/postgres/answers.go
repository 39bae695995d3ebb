package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/hoopctl/hoopctl/server/session"
)

// obeyTimeout is how long a target may take to end a statement that was
// cancelled because its rest was refused. Then the session ends.
const obeyTimeout = 10 * time.Second

// answers is the half of a session that reads the target. Its methods run on
// one goroutine. It alone decides which byte of an answer reaches the client.
type answers struct {
	c   *conn
	in  *reader
	out window // to the client

	cur     expect // what the next message answers
	have    bool   // cur is loaded
	mark    int    // bytes of out that were recorded, or belong to no statement
	ticket  session.Ticket
	mid     bool // out ends inside a message
	swallow bool // the rest up to ReadyForQuery is not shown: the client was told of an error
	fields  []field
	fatal   atomic.Bool    // the target itself told the client why it ends
	box     *outbox        // windows that wait to be durable, nil if none need to
	durable session.Ticket // what was waited for
}

func (a *answers) start(c *conn) {
	a.c, a.in = c, newReader(c.up)
	a.out.r = a.in
}

// run reads answers until the target closes.
func (a *answers) run() (err error) {
	defer a.in.giveBack()
	defer func() { err = errors.Join(err, a.drain()) }()
	for {
		kind, size, ok, err := a.in.peek()
		if err != nil {
			return err
		}
		if ok {
			done, err := a.whole(kind, size)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		if err := a.letGo(); err != nil {
			return err
		}
		if err := a.in.fill(maxHeld + headerSize); err != nil {
			return a.closedBy(err)
		}
	}
}

// closedBy is called when the target's stream ends: as it should behind
// Terminate, else the connection is lost.
func (a *answers) closedBy(err error) error {
	if a.c.leaving.Load() {
		return errGoodbye
	}
	return fmt.Errorf("read from the target: %w", err)
}

// whole handles the next message if enough of it is there.
func (a *answers) whole(kind byte, size int) (bool, error) {
	switch {
	case size <= a.in.buffered():
		frame := a.in.take(size)
		return true, a.message(kind, frame)
	case kind == 'D' || kind == 'd':
		if size > largeBuffer {
			return a.long(kind, size)
		}
	case size > maxTold:
		return false, fmt.Errorf("%w: the target's %q says %d", errLength, kind, size-1)
	}
	return false, nil
}

// long handles a row or a piece of a COPY that is larger than the buffer. If
// it goes as it is, it is streamed and never held.
func (a *answers) long(kind byte, size int) (bool, error) {
	r, err := a.current(kind)
	if err != nil {
		return false, err
	}
	if r == nil || a.swallow || r.refused != nil {
		return true, a.in.skip(size)
	}
	if r.tagged && (r.plan == nil || !r.plan.clear) {
		if size > maxHeld {
			a.refuseRest(r, &session.Refusal{Code: codeSQLState + "54000",
				Message: fmt.Sprintf("a row of %d bytes is too large to be masked", size-1), Hint: "leave out the largest columns"})
			return true, a.in.skip(size)
		}
		return false, nil
	}
	if err := a.counted(r, size); err != nil || r.refused != nil {
		return true, errors.Join(err, a.in.skip(size))
	}
	return true, a.stream(size)
}

// stream passes a long message on as it comes.
func (a *answers) stream(size int) error {
	for size > 0 {
		n := min(size, a.in.buffered())
		a.in.take(n)
		a.out.pass(n)
		if size -= n; size == 0 {
			break
		}
		a.mid = true
		if err := a.letGo(); err != nil {
			return err
		}
		if err := a.in.fill(0); err != nil {
			return fmt.Errorf("read from the target: %w", err)
		}
	}
	a.mid = false
	return nil
}

// load makes cur the oldest answer that is owed. It is false if none is.
func (a *answers) load() bool {
	if a.have {
		return true
	}
	l := a.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.head(); h != nil {
		a.cur, a.have = *h, true
	}
	return a.have
}

// pass puts a message that goes as it came into the window.
func (a *answers) pass(frame []byte) { a.out.pass(len(frame)) }

// message handles one whole message.
func (a *answers) message(kind byte, frame []byte) error {
	switch kind {
	case 'N', 'A', 'S':
		return a.aside(kind, frame)
	}
	if !a.load() {
		if kind == 'E' {
			return a.unasked(frame)
		}
		return a.unexpected(kind)
	}
	if a.cur.ours && a.cur.kind == wantQuery {
		return a.own(kind, frame)
	}
	switch kind {
	case 'D':
		return a.row(frame)
	case 'T':
		return a.description(frame)
	case 'C':
		return a.complete(frame)
	case 'Z':
		return a.ready(frame)
	case 'E':
		return a.failure(frame)
	case '1', '2', '3', 'n', 't', 's', 'I':
		return a.simple(kind, frame)
	case 'G', 'H', 'd', 'c':
		return a.copying(kind, frame)
	}
	return a.unexpected(kind)
}

func (a *answers) unexpected(kind byte) error {
	return fmt.Errorf("%w: type %q from the target", errUnexpected, kind)
}

// unasked is an error that answers nothing: the target ends the session.
func (a *answers) unasked(frame []byte) error {
	t, err := decodeTold(frame)
	if err != nil {
		return err
	}
	if err := a.tellError(&t, frame, a.tagged()); err != nil {
		return err
	}
	a.fatal.Store(t.fatal())
	return a.letGo()
}

func (a *answers) tagged() bool { return a.c.gate.Hides() }

// current returns the statement whose rows these are.
func (a *answers) current(kind byte) (*run, error) {
	if a.load() {
		switch {
		case a.cur.kind == wantExecute:
			return a.cur.run, nil
		case a.cur.kind == wantQuery && a.cur.ours:
			return nil, nil
		case a.cur.kind == wantQuery && a.cur.at < len(a.cur.runs):
			return a.cur.runs[a.cur.at], nil
		}
	}
	return nil, a.unexpected(kind)
}

// row handles a DataRow. On a target with tags no row passes without a plan.
func (a *answers) row(frame []byte) error {
	r, err := a.current('D')
	if err != nil || r == nil {
		return orUnexpected(err, 'D')
	}
	if a.swallow || r.refused != nil {
		return nil
	}
	if err := a.counted(r, len(frame)); err != nil || r.refused != nil {
		return err
	}
	switch {
	case r.plan == nil && r.tagged:
		return fmt.Errorf("%w: a row before its description", errUnexpected)
	case r.plan == nil || r.plan.clear:
		a.pass(frame)
		return nil
	}
	out, err := r.plan.rewriteRow(a.out.tail(), frame)
	a.out.keep(out)
	return err
}

// counted counts a row of so many bytes. Behind what may go, what came before
// is let go and the gate is asked: it may hold, or refuse the rest.
func (a *answers) counted(r *run, size int) error {
	r.rows++
	r.read += int64(size)
	if r.rows <= r.may.Rows && r.read <= r.may.Bytes {
		return nil
	}
	return a.beyond(r, int64(size))
}

func (a *answers) beyond(r *run, size int64) error {
	if err := a.letGo(); err != nil {
		return err
	}
	l := a.c.ledger
	ctx, cancel := context.WithCancel(a.c.ctx)
	defer cancel()
	l.mu.Lock()
	l.limiting = cancel
	l.mu.Unlock()
	may, err := r.pass.More(ctx, session.Allowance{Rows: r.rows, Bytes: r.read}, func(h session.Hold) {
		if a.c.tellAside(holdNotice(nil, h, a.c.name)) != nil {
			cancel()
		}
	})
	l.mu.Lock()
	l.limiting = nil
	l.mu.Unlock()
	var refusal *session.Refusal
	switch {
	case err == nil:
		r.may = may
		return nil
	case a.c.ctx.Err() != nil:
		return err
	case ctx.Err() != nil:
		refusal = &session.Refusal{Code: session.CodeWithdrawn, Message: "canceling statement due to user request"}
	case !errors.As(err, &refusal) || refusal.Fatal:
		return err
	}
	r.rows, r.read = r.rows-1, r.read-size
	a.refuseRest(r, refusal)
	return nil
}

// refuseRest swallows what is still to come of a statement, cancels it on the
// target, and says why in place of its end.
func (a *answers) refuseRest(r *run, refusal *session.Refusal) {
	r.refused = refusal
	c, l := a.c, a.c.ledger
	l.mu.Lock()
	generation := l.generation
	l.mu.Unlock()
	c.helpers.Go(func() {
		if err := c.cancelTarget(c.ctx, generation); err != nil && !errors.Is(err, errLate) {
			c.room.log.Warn("cancel did not reach the target", "session", c.name, "error", err)
		}
		select {
		case <-c.ctx.Done():
		case <-time.After(obeyTimeout):
			if !r.done.Load() {
				c.stop(refusal)
			}
		}
	})
}

// description handles RowDescription: it answers a Describe, or leads the rows
// of a simple query. On a target with tags it makes the plan.
func (a *answers) description(frame []byte) error {
	var r *run
	switch a.cur.kind {
	case wantDescribe:
	case wantPortal:
		r = a.cur.run
	case wantQuery:
		var err error
		if r, err = a.current('T'); err != nil {
			return err
		}
	default:
		return a.unexpected('T')
	}
	if r != nil && r.tagged && r.refused == nil && !a.swallow {
		refusal, err := a.plan(r, frame)
		if err != nil {
			return err
		}
		if refusal != nil {
			return a.unplanned(r, refusal)
		}
	}
	if !a.cur.ours && !a.swallow && (r == nil || r.refused == nil) {
		if r != nil && r.tagged && r.source == nil {
			a.out.keep(renamed(a.out.tail(), a.fields, r.plan))
		} else {
			a.pass(frame)
		}
	}
	if a.cur.kind != wantQuery {
		if err := a.recordCurrent(); err != nil {
			return err
		}
		a.finished()
	}
	return nil
}

// unplanned refuses rows for which there is no plan.
func (a *answers) unplanned(r *run, refusal *session.Refusal) error {
	if refusal.Fatal {
		return refusal
	}
	a.refuseRest(r, refusal)
	if a.cur.kind == wantPortal {
		a.finished()
	}
	return nil
}

// complete handles CommandComplete: the outcome is on its way to the evidence
// before the client learns of it.
func (a *answers) complete(frame []byte) error {
	r, err := a.current('C')
	if err != nil {
		return err
	}
	if r == nil {
		return a.unexpected('C')
	}
	tag, err := decodeComplete(frame)
	if err != nil {
		return err
	}
	if r.refused != nil {
		return a.saidInstead(r)
	}
	if !a.swallow {
		a.pass(frame)
	}
	a.c.effect(r)
	if err := a.outcome(r, session.Outcome{Status: string(tag)}); err != nil {
		return err
	}
	a.next()
	return nil
}

// saidInstead ends a statement whose rest was refused: the client is told why,
// and nothing more of this query or pipeline.
func (a *answers) saidInstead(r *run) error {
	if !a.swallow {
		a.out.add(errorMessage(nil, r.refused, a.c.name))
	}
	if err := a.outcome(r, session.Outcome{SQLState: refusedState(r.refused)}); err != nil {
		return err
	}
	a.swallow = true
	if a.cur.kind == wantExecute {
		l := a.c.ledger
		l.mu.Lock()
		l.failed = a.cur.segment
		l.mu.Unlock()
	}
	a.next()
	return nil
}

func refusedState(r *session.Refusal) string {
	if len(r.Code) > len(codeSQLState) && string(r.Code[:len(codeSQLState)]) == codeSQLState {
		return string(r.Code[len(codeSQLState):])
	}
	return sqlstate(r.Code)
}

// next goes on to the next statement of a query, or the next entry.
func (a *answers) next() {
	if a.cur.kind == wantQuery {
		a.cur.at++
		return
	}
	a.finished()
}

// finished takes the current entry off and says what is ours to say next.
func (a *answers) finished() {
	l := a.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pop()
	a.have = false
	a.sayOwn()
}

// sayOwn says what has its turn and is owed by us alone. The ledger is locked.
func (a *answers) sayOwn() {
	l := a.c.ledger
	for h := l.head(); h != nil && h.kind == sayOwn; h = l.head() {
		a.out.add(errorMessage(nil, h.refusal, a.c.name))
		if h.ready {
			a.out.add(readyMessage(nil, l.status))
		}
		a.mark = a.out.size()
		l.pop()
	}
}

// outcome records the answer of a statement up to here, and how it ended.
func (a *answers) outcome(r *run, o session.Outcome) error {
	if err := a.record(r); err != nil {
		return err
	}
	ticket, err := r.finish(a.c, o)
	if err != nil {
		return err
	}
	a.ticket = max(a.ticket, ticket)
	return nil
}

// record gives the statement's bytes of this window, as the client will see
// them, to the evidence.
func (a *answers) record(r *run) error {
	size := a.out.size()
	if size == a.mark {
		return nil
	}
	b := a.out.since(a.mark)
	a.mark = size
	if r == nil || r.done.Load() {
		return nil
	}
	r.bytes += int64(len(b))
	ticket, err := r.record(session.ToClient, b)
	if err != nil {
		return err
	}
	a.ticket = max(a.ticket, ticket)
	return nil
}

// recordCurrent records what the window holds of the statement in progress.
func (a *answers) recordCurrent() error {
	var r *run
	if a.have {
		switch {
		case a.cur.kind == wantExecute || a.cur.kind == wantPortal && !a.cur.ours:
			r = a.cur.run
		case a.cur.kind == wantQuery && a.cur.at < len(a.cur.runs):
			r = a.cur.runs[a.cur.at]
		}
	}
	return a.record(r)
}

// ready handles ReadyForQuery.
func (a *answers) ready(frame []byte) error {
	status, err := decodeReady(frame)
	if err != nil {
		return err
	}
	if a.cur.kind != wantQuery && a.cur.kind != wantSync {
		return a.unexpected('Z')
	}
	if err := a.recordCurrent(); err != nil {
		return err
	}
	for _, r := range a.cur.runs {
		if _, err := r.finish(a.c, session.Outcome{NotRun: true}); err != nil {
			return err
		}
	}
	if !a.cur.ours {
		a.pass(frame)
	}
	a.mark = a.out.size()
	a.swallow = false
	if status == 'I' {
		a.c.transactionEnded()
	}
	l := a.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = status
	l.generation++
	if status == 'I' {
		for name, s := range l.portals {
			if s.is != nil {
				dropPortal(a.c, name)
			}
		}
	}
	l.pop()
	a.have = false
	a.sayOwn()
	return nil
}

// simple handles the messages that only say that something was done.
func (a *answers) simple(kind byte, frame []byte) error {
	e := &a.cur
	l := a.c.ledger
	fits := false
	switch kind {
	case '1':
		if fits = e.kind == wantParse; fits {
			l.mu.Lock()
			confirm(l, l.statements, e.name, e.def)
			l.mu.Unlock()
		}
	case '2':
		if fits = e.kind == wantBind; fits {
			a.bound(e)
		}
	case '3':
		if fits = e.kind == wantClose; fits {
			a.closed(e)
		}
	case 't': // ParameterDescription; RowDescription or NoData follows
		if e.kind != wantDescribe {
			return a.unexpected(kind)
		}
		if !a.swallow {
			a.pass(frame)
		}
		return nil
	case 'n':
		fits = e.kind == wantDescribe || e.kind == wantPortal
	case 's':
		fits = e.kind == wantExecute && e.run != nil
	case 'I':
		return a.empty(frame)
	}
	if !fits {
		return a.unexpected(kind)
	}
	if !e.ours && !a.swallow {
		a.pass(frame)
	}
	if kind == 's' {
		if err := a.record(e.run); err != nil {
			return err
		}
	}
	a.finished()
	return nil
}

// empty handles EmptyQueryResponse: a query or a portal without a statement.
func (a *answers) empty(frame []byte) error {
	none := a.cur.kind == wantQuery && len(a.cur.runs) == 0 || a.cur.kind == wantExecute && a.cur.run == nil
	if !none {
		return a.unexpected('I')
	}
	if !a.swallow {
		a.pass(frame)
	}
	if a.cur.kind == wantExecute {
		a.finished()
	}
	return nil
}

// bound makes a portal certain. One that it replaces is closed.
func (a *answers) bound(e *expect) {
	l := a.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.portals[e.name]; s != nil && s.is != nil && s.is != e.portal {
		s.is.close(a.c)
	}
	confirm(l, l.portals, e.name, e.portal)
}

func (a *answers) closed(e *expect) {
	l := a.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.named == 'S' {
		confirm(l, l.statements, e.name, nil)
		return
	}
	if s := l.portals[e.name]; s != nil && s.is != nil {
		s.is.close(a.c)
	}
	confirm(l, l.portals, e.name, nil)
}

// failure handles an ErrorResponse that answers something.
func (a *answers) failure(frame []byte) error {
	t, err := decodeTold(frame)
	if err != nil {
		return err
	}
	r, refusal := a.about(&t)
	switch {
	case refusal != nil:
		if !a.swallow {
			a.out.add(errorMessage(nil, refusal, a.c.name))
		}
	case !a.swallow:
		if err := a.tellError(&t, frame, r != nil && r.tagged || r == nil && a.tagged()); err != nil {
			return err
		}
	}
	if r != nil {
		o := session.Outcome{SQLState: t.code()}
		if r.refused != nil {
			o.SQLState = refusedState(r.refused)
		}
		if err := a.outcome(r, o); err != nil {
			return err
		}
	}
	if t.fatal() {
		a.fatal.Store(true)
	}
	a.swallow = a.swallow || refusal != nil
	if a.cur.kind == wantQuery {
		a.cur.at = len(a.cur.runs)
		return nil
	}
	a.skipSegment()
	return nil
}

// about returns which statement an error is about, if any, and what is said
// in its place: a refusal of ours, if there was one.
func (a *answers) about(t *told) (*run, *session.Refusal) {
	switch {
	case a.cur.kind == wantAbort:
		return nil, a.cur.refusal
	case a.cur.kind == wantExecute:
		if a.cur.run != nil {
			return a.cur.run, a.cur.run.refused
		}
	case a.cur.kind == wantPortal && a.cur.run != nil:
		return nil, nil
	case a.cur.kind == wantQuery && a.cur.at < len(a.cur.runs):
		r := a.cur.runs[a.cur.at]
		return r, r.refused
	}
	return nil, nil
}

// skipSegment takes off what the target skips after an error: everything up to
// the Sync. What it would have defined is not defined.
func (a *answers) skipSegment() {
	l := a.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	segment := a.cur.segment
	if a.cur.kind == wantParse && a.cur.name == "" {
		// PostgreSQL forgets the unnamed statement before it reads the new one.
		if s := l.statements[""]; s != nil {
			s.is = nil
		}
	}
	for h := l.head(); h != nil && h.segment == segment && h.kind != wantSync; h = l.head() {
		a.skipped(h)
		l.pop()
	}
	if a.cur.kind != wantSync {
		l.failed = segment
	}
	a.have = false
	l.cond.Broadcast()
}

// skipped takes back what an entry would have done. The ledger is locked.
func (a *answers) skipped(e *expect) {
	l := a.c.ledger
	switch {
	case e.kind == wantParse:
		discard(l, l.statements, e.name, e.def)
	case e.kind == wantBind:
		discard(l, l.portals, e.name, e.portal)
		e.portal.close(a.c)
	case e.kind == wantClose && e.named == 'S':
		discard(l, l.statements, e.name, nil)
	case e.kind == wantClose:
		discard(l, l.portals, e.name, nil)
	case e.kind == wantQuery:
		for _, r := range e.runs {
			r.finish(a.c, session.Outcome{NotRun: true})
		}
	}
}

// aside handles what belongs to no statement and may come at any time.
func (a *answers) aside(kind byte, frame []byte) error {
	if err := a.recordCurrent(); err != nil {
		return err
	}
	var name string
	shown := frame
	switch kind {
	case 'N':
		t, err := decodeTold(frame)
		if err != nil {
			return err
		}
		name = "notice"
		if a.tagged() {
			shown = scrubbed(nil, 'N', &t)
		}
	case 'S':
		key, value, err := decodeStatus(frame)
		if err != nil {
			return err
		}
		if err := a.c.reported(string(key), string(value)); err != nil {
			return err
		}
		name = "parameter"
	case 'A':
		pid, channel, _, err := decodeNotification(frame)
		if err != nil {
			return err
		}
		name = "notification"
		if a.tagged() {
			shown = say(nil, &pgproto3.NotificationResponse{PID: pid, Channel: string(channel)})
		}
	}
	shown, err := a.c.gate.Aside(name, shown)
	if err != nil {
		return err
	}
	// What a query of ours makes the target say (its log lines, for a client that
	// asked for them) is not the client's. Notifications and settings are: the
	// target sends them before whichever ReadyForQuery comes next.
	if kind == 'N' && a.ownQuery() {
		return nil
	}
	a.out.add(shown)
	a.mark = a.out.size()
	return nil
}

// ownQuery tells whether the target is busy with a query of ours. Its notices
// may come before anything that would have made it the current one.
func (a *answers) ownQuery() bool {
	if a.have {
		return a.cur.ours && a.cur.kind == wantQuery
	}
	a.c.ledger.mu.Lock()
	defer a.c.ledger.mu.Unlock()
	h := a.c.ledger.head()
	return h != nil && h.ours && h.kind == wantQuery
}

// tellError passes an error on; without the values in it where they must not
// be seen.
func (a *answers) tellError(t *told, frame []byte, scrub bool) error {
	if !scrub {
		a.pass(frame)
		return nil
	}
	a.out.keep(scrubbed(a.out.tail(), 'E', t))
	return nil
}

// own handles the answer to a query of ours.
func (a *answers) own(kind byte, frame []byte) error {
	switch kind {
	case 'D':
		if a.cur.collect == nil {
			return nil
		}
		in := cursor{b: body(frame)}
		row := make([]string, 0, 1)
		for n := in.count(4); n > 0 && !in.bad; n-- {
			size := in.int32()
			if size == -1 {
				row = append(row, "")
				continue
			}
			row = append(row, string(in.cut(int(size))))
		}
		*a.cur.collect = append(*a.cur.collect, row)
		return in.end("DataRow")
	case 'E':
		return a.ownFailed(frame)
	case 'C':
		return a.ownComplete(frame)
	case 'Z':
		return a.ready(frame)
	case 'T', 'I':
		return nil
	}
	return a.unexpected(kind)
}

func (a *answers) ownComplete(frame []byte) error {
	tag, err := decodeComplete(frame)
	if err != nil || a.cur.at >= len(a.cur.runs) {
		return err
	}
	r := a.cur.runs[a.cur.at]
	a.cur.at++
	a.c.effect(r)
	_, err = r.finish(a.c, session.Outcome{Status: string(tag)})
	return err
}

func (a *answers) ownFailed(frame []byte) error {
	t, err := decodeTold(frame)
	if err != nil {
		return err
	}
	if t.fatal() {
		return a.unasked(frame)
	}
	if a.cur.failed != nil {
		*a.cur.failed = &session.Refusal{Code: session.Code(codeSQLState + t.code()), Message: string(t.get('M')), Fatal: true}
	}
	for _, r := range a.cur.runs {
		if _, err := r.finish(a.c, session.Outcome{SQLState: t.code()}); err != nil {
			return err
		}
	}
	return nil
}

// letGo gives the window to the client, when it is durable.
func (a *answers) letGo() error {
	if err := a.recordCurrent(); err != nil {
		return err
	}
	for {
		if a.out.size() > 0 {
			if err := a.write(); err != nil {
				return err
			}
		}
		if !a.more() {
			if err := a.drain(); err != nil {
				return err
			}
		}
		if a.settle() {
			return nil
		}
	}
}

// settle tells the requests half that the client has what was taken off the
// ledger. It is false if something of ours had its turn meanwhile.
func (a *answers) settle() bool {
	l := a.c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if !a.have {
		a.sayOwn()
	}
	if a.out.size() > 0 {
		return false
	}
	if a.box == nil {
		l.settled()
		a.c.heard() // what runs for longer than a session may be idle does not end it
	}
	return true
}

// write gives the window's bytes to the client. Where they must be durable
// first and more is to come, they wait in the outbox and the next window is
// read meanwhile.
func (a *answers) write() error {
	ticket, mid := a.ticket, a.mid
	a.ticket, a.mark = 0, 0
	if a.box != nil && a.box.caughtUp(ticket) {
		if err := a.drain(); err != nil {
			return err
		}
	}
	if a.box == nil && (ticket <= a.durable || !a.more()) {
		return a.tell(ticket, mid)
	}
	if a.box == nil {
		a.box = newOutbox(a.c)
	}
	err := a.box.put(a.out.bytes(), ticket, mid)
	a.out.reset()
	return err
}

// tell gives the window to the client once the ticket's records are durable.
func (a *answers) tell(ticket session.Ticket, mid bool) error {
	var err error
	if ticket > a.durable {
		err = a.c.gate.Wait(a.c.ctx, ticket)
	}
	if err == nil {
		a.durable = max(a.durable, ticket)
		err = a.c.tell(a.out.bytes(), mid)
	}
	a.out.reset()
	return err
}

// more is true while an answer is under way: the target will go on sending.
func (a *answers) more() bool {
	a.c.ledger.mu.Lock()
	defer a.c.ledger.mu.Unlock()
	return a.c.ledger.count > 0
}

// drain waits until everything handed over was written.
func (a *answers) drain() error {
	if a.box == nil {
		return nil
	}
	durable, err := a.box.close()
	a.box, a.durable = nil, max(a.durable, durable)
	return err
}
