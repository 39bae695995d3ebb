package postgres

import (
	"sync"

	"github.com/hoopctl/hoopctl/server/session"
)

// maxWaiting is how much of an answer may wait to be durable while the target
// sends more. A sync takes as long for one byte as for this much, and targets
// send 8 KiB at a time: less would make bulk as slow as the disk's latency.
const maxWaiting = 256 << 10

var waitingBuffers = sync.Pool{New: func() any { b := make([]byte, 0, maxWaiting+largeBuffer); return &b }}

// outbox holds the windows of an answer that wait to be durable, and gives them
// to the client in order, on a goroutine of its own: what came while the
// evidence was written goes with the next write, all at once. It lives until
// nothing is under way.
type outbox struct {
	c    *conn
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	cond    sync.Cond
	waiting *[]byte        // what goes next
	ticket  session.Ticket // … when this is durable
	mid     bool           // … and ends inside a message
	busy    bool           // something before it is on its way
	durable session.Ticket
	closed  bool
	err     error // why nothing goes any more
}

func newOutbox(c *conn) *outbox {
	o := &outbox{c: c, done: make(chan struct{}), waiting: waitingBuffers.Get().(*[]byte)}
	o.cond.L = &o.mu
	go o.run()
	return o
}

// put adds a window. It blocks while too much waits.
func (o *outbox) put(b []byte, ticket session.Ticket, mid bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(*o.waiting) >= maxWaiting {
		o.cond.Wait()
	}
	if o.err != nil {
		return o.err
	}
	*o.waiting = append(*o.waiting, b...)
	o.ticket, o.mid = max(o.ticket, ticket), mid
	o.cond.Broadcast()
	return nil
}

// caughtUp reports whether the client has everything, and what the ticket
// stands for is durable: nothing needs to wait.
func (o *outbox) caughtUp(ticket session.Ticket) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err == nil && !o.busy && len(*o.waiting) == 0 && ticket <= o.durable
}

// close waits until everything has gone, and returns what is durable.
func (o *outbox) close() (session.Ticket, error) {
	o.mu.Lock()
	o.closed = true
	o.cond.Broadcast()
	o.mu.Unlock()
	<-o.done
	return o.durable, o.err
}

// run ends with the first error; it ends the session.
func (o *outbox) run() {
	defer close(o.done)
	batch := waitingBuffers.Get().(*[]byte)
	for {
		var ticket session.Ticket
		var mid bool
		if batch, ticket, mid = o.take(batch); batch == nil {
			return
		}
		err := o.c.gate.Wait(o.c.ctx, ticket)
		if err == nil {
			err = o.c.tell(*batch, mid)
		}
		o.mu.Lock()
		o.busy, o.durable, o.err = false, max(o.durable, ticket), err
		o.cond.Broadcast()
		o.mu.Unlock()
		if err != nil {
			o.c.stop(err)
			return
		}
	}
}

// take waits for something to go and leaves the empty buffer in its place; nil
// if nothing more will come.
func (o *outbox) take(empty *[]byte) (*[]byte, session.Ticket, bool) {
	if cap(*empty) > 2*maxWaiting { // a huge row went
		*empty = make([]byte, 0, maxWaiting+largeBuffer)
	}
	*empty = (*empty)[:0]
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(*o.waiting) == 0 && !o.closed {
		o.cond.Wait()
	}
	if len(*o.waiting) == 0 {
		waitingBuffers.Put(empty)
		waitingBuffers.Put(o.waiting)
		o.waiting = new([]byte)
		return nil, 0, false
	}
	batch := o.waiting
	o.waiting, o.busy = empty, true
	return batch, o.ticket, o.mid
}
