package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// farewell bounds how long a client may take to hear why its session ended.
const farewell = 2 * time.Second

// conn serves one client connection. It implements session.Protocol.
type conn struct {
	room *Room

	// What Accept learned.
	client   net.Conn
	tls      *tls.Conn // client, if the protocol did TLS itself
	endPoint []byte    // hash of our certificate that the client saw
	version  uint32
	hello    session.Hello
	asked    []setting
	owner    string

	// What Serve was given, and made of it before its goroutines start.
	gate      session.Gate
	target    session.Target
	info      session.TargetInfo
	name      string
	principal policy.Principal
	database  string
	up        *upstream
	role      *Role // made for this session; nil if it runs as the target's account
	catalog   *catalog
	pid       uint32
	key       []byte

	ctx        context.Context
	end        context.CancelCauseFunc
	ledger     *ledger
	cancelling sync.Mutex     // held while a statement is sent, and while a cancel is under way
	helpers    sync.WaitGroup // goroutines besides the two halves
	once       sync.Once      // of stop
	reason     atomic.Pointer[ending]
	active     atomic.Int64 // when the client was last heard or told that we are ready, Unix nanoseconds
	timers     struct {
		sync.Mutex
		running []*time.Timer // of limit
	}

	uploads  uploads
	leaving  atomic.Bool // Terminate was sent to the target
	requests requests
	answers  answers
	context  sqlContext

	// telling guards the client's stream.
	telling struct {
		sync.Mutex
		mid     bool   // the last write ended inside a message
		over    bool   // the client was told that the session ended
		waiting []byte // messages of ours that wait for a boundary
	}
}

// ending is why a session ended.
type ending struct {
	err     error
	refusal *session.Refusal // what the client was told, nil if nothing
}

// errGoodbye ends a session that the client ended in the proper way.
var errGoodbye = errors.New("the client said goodbye")

// Serve implements session.Protocol.
func (c *conn) Serve(ctx context.Context, t session.Target, g session.Gate) error {
	c.target, c.gate, c.info = t, g, t.Info()
	c.name, c.principal = g.Session()
	defer c.closeTLS()
	var refusal *session.Refusal
	if c.database, refusal = databaseOf(&c.hello, &c.info); refusal != nil {
		c.Refuse(refusal)
		return refusal
	}
	c.ctx, c.end = context.WithCancelCause(ctx)
	defer c.end(nil)
	c.catalog = c.room.catalogs.of(c.info, c.database)
	defer c.dropRole() // after the connection that runs as it is closed
	up, err := c.login(c.ctx)
	if err != nil {
		c.room.log.Warn("login to the target failed", "session", c.name, "target", c.info.Name, "error", err)
		refusal = c.loginRefusal(ctx, err)
		c.Refuse(refusal)
		return refusal
	}
	c.up = up
	defer up.Close()
	if err := g.Opened(up.pid, up.params["server_version"]); err != nil {
		refusal = &session.Refusal{Code: session.CodeEvidence, Message: "evidence unavailable", Detail: err.Error(), Fatal: true}
		c.Refuse(refusal)
		return refusal
	}
	return c.relay(ctx)
}

// relay runs both halves until either side is done.
func (c *conn) relay(ctx context.Context) error {
	c.ledger = newLedger()
	c.uploads.cond.L = &c.uploads.mu
	c.requests.start(c)
	c.answers.start(c)
	c.room.keys.register(c)
	defer c.room.keys.forget(c)
	defer context.AfterFunc(ctx, func() { c.stop(context.Cause(ctx)) })()
	defer c.unlimit()

	answered := make(chan struct{})
	go func() {
		defer close(answered)
		c.stop(c.shielded(c.answers.run))
	}()
	err := c.shielded(c.requests.run)
	if errors.Is(err, errGoodbye) {
		c.farewellTarget(answered)
	}
	c.stop(err)
	<-answered
	c.requests.stopReading()
	c.helpers.Wait()
	c.abandon()
	return c.outcome()
}

// shielded turns a panic into an error: it costs this session, never the
// process.
func (c *conn) shielded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.room.log.Error("panic in a session", "session", c.name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return f()
}

// farewellTarget lets the target finish what it was asked, as PostgreSQL does
// when Terminate stands behind statements, and waits for it to close.
func (c *conn) farewellTarget(answered <-chan struct{}) {
	c.leaving.Store(true)
	c.requests.out.add(say(nil, &pgproto3.Terminate{}))
	if c.requests.flush() != nil {
		return
	}
	c.ledger.mu.Lock()
	idle := c.ledger.quiet()
	c.ledger.mu.Unlock()
	if idle { // it owes nothing: no need to wait for its close
		return
	}
	<-answered
}

// stop ends the session; the first reason counts. A *session.Refusal is told to
// the client, what runs on the target is cancelled, and both halves wake.
func (c *conn) stop(err error) {
	c.once.Do(func() { c.stopOnce(err) })
}

func (c *conn) stopOnce(err error) {
	if err == nil {
		err = errGoodbye
	}
	end := &ending{err: err}
	errors.As(err, &end.refusal)
	if end.refusal == nil && !errors.Is(err, errGoodbye) {
		end.refusal = c.lost(err)
	}
	c.reason.Store(end)
	c.client.SetWriteDeadline(time.Now().Add(farewell))
	if end.refusal != nil {
		c.tellLast(end.refusal)
	}
	c.end(err)
	c.ledger.mu.Lock()
	running, generation := c.ledger.running(), c.ledger.generation
	c.ledger.mu.Unlock()
	if running {
		c.helpers.Go(func() {
			if err := c.cancelTarget(context.WithoutCancel(c.ctx), generation); err != nil && !errors.Is(err, errLate) {
				c.room.log.Warn("cancel did not reach the target", "session", c.name, "error", err)
			}
			c.up.SetDeadline(aLongTimeAgo)
		})
	} else {
		c.up.SetDeadline(aLongTimeAgo)
	}
	c.client.SetReadDeadline(aLongTimeAgo)
	c.ledger.end()
	c.uploads.end()
}

// clientGone marks errors of the client's side: nobody is there to be told.
type clientGone struct{ error }

func (c clientGone) Unwrap() error { return c.error }

// lost says what a broken connection or protocol means for the client.
func (c *conn) lost(err error) *session.Refusal {
	var gone clientGone
	if errors.As(err, &gone) || c.answers.fatal.Load() {
		return nil // nobody to tell, or the target told it
	}
	if errors.Is(err, errMalformed) || errors.Is(err, errLength) || errors.Is(err, errUnexpected) {
		return &session.Refusal{Code: session.CodeProtocol, Fatal: true, Message: "protocol violation", Detail: err.Error()}
	}
	if c.ledgerUnsure() {
		return &session.Refusal{Code: session.CodeUnknown, Fatal: true,
			Message: "the connection to the target was lost; the outcome of the statement is unknown",
			Hint:    fmt.Sprintf("look at what it did before you repeat it: session %s", c.name)}
	}
	return &session.Refusal{Code: session.CodeLost, Fatal: true, Message: "the connection to the target was lost; an open transaction is rolled back",
		Hint: "connect again"}
}

// ledgerUnsure is true if something was sent that may have changed the target
// for good, and its answer did not come.
func (c *conn) ledgerUnsure() bool {
	l := c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.count {
		e := &l.ring[(l.first+i)%len(l.ring)]
		for _, r := range e.runs {
			if r.changes(l.status) {
				return true
			}
		}
		if e.kind == wantExecute && e.run.changes(l.status) {
			return true
		}
	}
	return false
}

// outcome is what Serve returns.
func (c *conn) outcome() error {
	end := c.reason.Load()
	switch {
	case errors.Is(end.err, errGoodbye):
		return nil
	case end.refusal != nil:
		return end.refusal
	default:
		return end.err
	}
}

// tell writes to the client. mid says that b ends inside a message.
func (c *conn) tell(b []byte, mid bool) error {
	c.telling.Lock()
	defer c.telling.Unlock()
	return c.tellLocked(b, mid)
}

func (c *conn) tellLocked(b []byte, mid bool) error {
	if c.telling.over {
		return errEnded
	}
	c.telling.mid = mid
	if _, err := c.client.Write(b); err != nil {
		c.telling.over = true
		return clientGone{fmt.Errorf("write to the client: %w", err)}
	}
	if !mid && len(c.telling.waiting) > 0 {
		waiting := c.telling.waiting
		c.telling.waiting = nil
		return c.tellLocked(waiting, false)
	}
	return nil
}

// tellAside writes messages that may stand between any two others.
func (c *conn) tellAside(b []byte) error {
	c.telling.Lock()
	defer c.telling.Unlock()
	if c.telling.mid {
		c.telling.waiting = append(c.telling.waiting, b...)
		return nil
	}
	return c.tellLocked(b, false)
}

// tellLast writes the reason for the end; nothing is written after it. Inside
// a message nothing can be said: the client sees the connection close.
func (c *conn) tellLast(r *session.Refusal) {
	fatal := *r
	fatal.Fatal = true
	c.telling.Lock()
	defer c.telling.Unlock()
	if !c.telling.mid && !c.telling.over {
		c.client.Write(errorMessage(nil, &fatal, c.name))
	}
	c.telling.over = true
}

// welcome ends the start-up: the target's true parameters, our cancel key, ready.
func (c *conn) welcome() error {
	var b []byte
	c.context.mu.Lock()
	params := maps.Clone(c.up.params)
	c.context.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(params)) {
		b = say(b, &pgproto3.ParameterStatus{Name: name, Value: params[name]})
	}
	b = keyMessage(b, c.pid, c.key)
	if n := c.gate.Notice(); n != "" {
		b = noticeMessage(b, n, "session "+c.name, "")
	}
	b = readyMessage(b, 'I')
	return c.tell(b, false)
}

// limit watches, from when the client is told that we are ready, the session's
// age and how long it is idle.
func (c *conn) limit() {
	c.timers.Lock()
	defer c.timers.Unlock()
	if c.info.Max > 0 {
		c.timers.running = append(c.timers.running, time.AfterFunc(c.info.Max, func() {
			c.stop(&session.Refusal{Code: session.CodeRevoked, Fatal: true, Message: fmt.Sprintf("the session reached its longest time, %s", c.info.Max),
				Hint: "connect again"})
		}))
	}
	c.heard()
	if least := leastPositive(c.info.Idle, c.info.IdleInTransaction); least > 0 {
		var idle *time.Timer
		idle = time.AfterFunc(least, func() {
			if next := c.idle(); next > 0 {
				idle.Reset(next)
			}
		})
		c.timers.running = append(c.timers.running, idle)
	}
}

// unlimit ends what limit began.
func (c *conn) unlimit() {
	c.timers.Lock()
	defer c.timers.Unlock()
	for _, t := range c.timers.running {
		t.Stop()
	}
}

// heard notes that the client was heard, or told that we are ready.
func (c *conn) heard() { c.active.Store(time.Now().UnixNano()) }

func leastPositive(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// idle ends the session if it did nothing for too long, else it returns when
// to look again.
func (c *conn) idle() time.Duration {
	c.ledger.mu.Lock()
	status, busy := c.ledger.status, !c.ledger.quiet() || c.ledger.admitting != nil || c.ledger.ended
	c.ledger.mu.Unlock()
	least := leastPositive(c.info.Idle, c.info.IdleInTransaction)
	since := time.Since(time.Unix(0, c.active.Load()))
	switch {
	case busy:
		return least
	case status != 'I' && c.info.IdleInTransaction > 0:
		if since >= c.info.IdleInTransaction {
			c.stop(&session.Refusal{Code: session.CodeHold, Fatal: true,
				Message: fmt.Sprintf("idle in a transaction for %s; it is rolled back", c.info.IdleInTransaction), Hint: "connect again"})
			return 0
		}
		return c.info.IdleInTransaction - since
	case status == 'I' && c.info.Idle > 0:
		if since >= c.info.Idle {
			c.stop(&session.Refusal{Code: session.CodeIdle, Fatal: true,
				Message: fmt.Sprintf("idle for %s", c.info.Idle), Hint: "connect again"})
			return 0
		}
		return c.info.Idle - since
	default:
		return least
	}
}

// abandon closes what was admitted and not answered.
func (c *conn) abandon() {
	l := c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; l.count > 0; l.pop() {
		e := l.head()
		for _, r := range e.runs {
			r.finish(c, session.Outcome{Unknown: true})
		}
		if e.kind == wantExecute {
			e.run.finish(c, session.Outcome{Unknown: true})
		}
		if e.kind == wantBind {
			e.portal.close(c)
		}
	}
	for _, s := range l.portals {
		for _, p := range []*portal{s.is, s.next} {
			if p != nil {
				p.close(c)
			}
		}
	}
}

// gone turns the client's end of file into what it means.
func gone(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return clientGone{fmt.Errorf("the client hung up: %w", err)}
}
