package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// smallBuffer is what an idle session keeps for each side, largeBuffer what
	// one side borrows while data flows. Most statements and their answers are
	// shorter than the former, of which there are two a session.
	smallBuffer = 2 << 10
	largeBuffer = 64 << 10
	// maxFrame is the longest message that is believed to come: PostgreSQL's
	// own limit (PQ_LARGE_MESSAGE_LIMIT). Longer lengths are lies.
	maxFrame = 1 << 30
	// maxHeld is the longest message that is held in memory because it must be
	// understood as a whole: statements with their parameters, and rows of
	// which a column must be rewritten. Everything longer is streamed or refused.
	maxHeld = 16 << 20
	// maxNamed bounds messages that hold no more than a name or two.
	maxNamed = 4 << 10
	// maxTold bounds what is not data: errors, notices, descriptions.
	maxTold = 1 << 20
	// headerSize is the type byte and the length.
	headerSize = 5
)

// errLength is a length field that cannot be true.
var errLength = errors.New("message length out of range")

var largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}

// reader reads messages of one side in place: what it returns lies in its
// buffer until the next fill. It is used by one goroutine.
type reader struct {
	conn       io.Reader
	buf        []byte
	start, end int    // what was read and not consumed is buf[start:end]
	reads      uint64 // how often conn was read: equal numbers came together
	last       int    // how much the last read brought
	large      *[]byte
	small      []byte
	ahead      *ahead
}

func newReader(conn io.Reader) *reader {
	small := make([]byte, smallBuffer)
	return &reader{conn: conn, buf: small, small: small}
}

// peek returns the type and the whole size (type byte and length included) of
// the next message. ok is false if not even the header was read.
func (r *reader) peek() (kind byte, size int, ok bool, err error) {
	if r.end-r.start < headerSize {
		return 0, 0, false, nil
	}
	n := binary.BigEndian.Uint32(r.buf[r.start+1:])
	if n < 4 || n > maxFrame {
		return 0, 0, false, fmt.Errorf("%w: %q says %d", errLength, r.buf[r.start], n)
	}
	return r.buf[r.start], int(n) + 1, true, nil
}

// buffered is how much was read and not consumed.
func (r *reader) buffered() int { return r.end - r.start }

// take consumes and returns the next n bytes, which must be buffered.
func (r *reader) take(n int) []byte {
	b := r.buf[r.start : r.start+n : r.start+n]
	r.start += n
	return b
}

// fill reads at least one byte more. What was returned before is gone. The
// buffer grows only as bytes come, never because a length says so, and not
// beyond limit bytes.
func (r *reader) fill(limit int) error {
	if err := r.room(limit); err != nil {
		return err
	}
	var n int
	var err error
	if r.ahead != nil {
		var last bool
		if n, err, last = r.ahead.collect(r.buf[r.end:]); last {
			r.ahead = nil
		}
		if n == 0 && err == nil {
			return r.fill(limit)
		}
	} else {
		n, err = r.conn.Read(r.buf[r.end:])
	}
	r.end += n
	r.last = n
	r.reads++
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// room makes place for another byte.
func (r *reader) room(limit int) error {
	if r.start == r.end {
		r.start, r.end = 0, 0
		r.settle()
		return nil
	}
	// Targets cut rows where their own buffers end: behind the beginning of one
	// there would be room for ever smaller reads.
	if free := len(r.buf) - r.end; free >= len(r.buf)/2 || free > 0 && r.start == 0 {
		return nil
	}
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	if r.end < len(r.buf) {
		return nil
	}
	if len(r.buf) >= limit && len(r.buf) >= largeBuffer {
		return fmt.Errorf("%w: more than %d bytes in one message", errLength, limit)
	}
	r.grow(min(2*len(r.buf), max(limit, largeBuffer)))
	return nil
}

// settle picks the buffer for the next read while nothing is buffered: large
// if the last read filled what it was given, small if little came.
func (r *reader) settle() {
	switch {
	case r.last >= smallBuffer && r.large == nil:
		r.borrow()
	case r.last < smallBuffer && len(r.buf) != smallBuffer:
		r.release()
	case len(r.buf) > largeBuffer:
		r.release()
		r.borrow()
	}
}

func (r *reader) grow(size int) {
	old := r.buf[r.start:r.end]
	if size <= largeBuffer {
		large := largeBuffers.Get().(*[]byte)
		copy(*large, old)
		r.large, r.buf = large, *large
	} else {
		bigger := make([]byte, size)
		copy(bigger, old)
		r.giveBack()
		r.buf = bigger
	}
	r.start, r.end = 0, len(old)
}

func (r *reader) borrow() {
	r.large = largeBuffers.Get().(*[]byte)
	r.buf = *r.large
}

// release goes back to the small buffer. Nothing may be buffered.
func (r *reader) release() {
	r.giveBack()
	r.buf = r.small
}

func (r *reader) giveBack() {
	if r.large != nil {
		largeBuffers.Put(r.large)
		r.large = nil
	}
}

// skip discards n bytes that belong to a message nobody wants.
func (r *reader) skip(n int) error {
	for {
		have := min(n, r.buffered())
		r.start += have
		if n -= have; n == 0 {
			return nil
		}
		if err := r.fill(0); err != nil {
			return err
		}
	}
}

// ahead reads on behind the back of a reader whose owner waits for something
// else, so that a peer that hangs up is noticed. It uses no deadlines: a
// connection that carries another (a tunnel through a WebSocket) may not
// survive one. A read that it began goes on when nobody watches any more, and
// is then the owner's next.
type ahead struct {
	conn io.Reader

	mu   sync.Mutex
	cond sync.Cond
	buf  []byte
	off  int // what of buf was collected
	err  error
	gone func(error)   // nil: nobody watches
	done chan struct{} // closed when no read is under way
}

// watch reads ahead until a buffer is full or unwatch is called, and calls gone
// if the connection ends meanwhile. The owner must not fill before it called
// unwatch.
func (r *reader) watch(gone func(error)) (unwatch func()) {
	a := r.ahead
	if a == nil {
		a = &ahead{conn: r.conn}
		a.cond.L = &a.mu
		r.ahead = a
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.err != nil:
		gone(a.err)
	case a.idle():
		a.gone, a.done = gone, make(chan struct{})
		go a.run()
	default:
		a.gone = gone
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.gone = nil
	}
}

// idle is true if no read is under way. mu is held.
func (a *ahead) idle() bool {
	if a.done == nil {
		return true
	}
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

func (a *ahead) run() {
	chunk := make([]byte, smallBuffer)
	for {
		n, err := a.conn.Read(chunk)
		a.mu.Lock()
		a.buf = append(a.buf, chunk[:n]...)
		a.err = err
		gone := a.gone
		over := err != nil || gone == nil || len(a.buf)-a.off >= smallBuffer
		if over {
			close(a.done)
		}
		a.cond.Broadcast()
		a.mu.Unlock()
		if err != nil && gone != nil {
			gone(err)
		}
		if over {
			return
		}
	}
}

// collect waits for what was read ahead and copies it to dst. last is true if
// nothing is left, and none under way: the owner may read for itself again.
func (a *ahead) collect(dst []byte) (n int, err error, last bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.off == len(a.buf) && !a.idle() {
		a.cond.Wait()
	}
	n = copy(dst, a.buf[a.off:])
	if a.off += n; a.off == len(a.buf) {
		a.buf, a.off = a.buf[:0], 0
	}
	if n == 0 {
		err = a.err
	}
	return n, err, len(a.buf) == 0 && a.err == nil && a.idle()
}

// wait returns when no read is under way.
func (a *ahead) wait() {
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	if done != nil {
		<-done
	}
}
