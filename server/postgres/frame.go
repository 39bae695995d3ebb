package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// smallBuffer is what an idle session keeps for each side, largeBuffer what
	// one side borrows while data flows.
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
	// maxFrame is the longest message that is believed to come: PostgreSQL's
	// own limit (PQ_LARGE_MESSAGE_LIMIT). Longer lengths are lies.
	maxFrame = 1 << 30
	// maxHeld is the longest message that is held in memory because it must be
	// understood as a whole: statements with their parameters, and rows of
	// which a column must be rewritten. Everything longer is streamed or refused.
	maxHeld = 16 << 20
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
		n, err = r.ahead.collect(r.buf[r.end:])
		if r.ahead.empty() {
			r.ahead = nil
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
	if r.end < len(r.buf) {
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
// survive one.
type ahead struct {
	stop atomic.Bool
	done chan struct{} // closed when buf and err are the owner's
	buf  []byte
	err  error
	off  int // what of buf was collected
}

// watch reads into a buffer of its own until it is full or unwatch is called,
// and calls gone if the connection ends meanwhile. The owner must not fill
// before it called unwatch.
func (r *reader) watch(gone func(error)) (unwatch func()) {
	previous := r.ahead
	a := &ahead{done: make(chan struct{})}
	r.ahead = a
	go a.run(r.conn, previous, gone)
	return func() { a.stop.Store(true) }
}

func (a *ahead) run(conn io.Reader, previous *ahead, gone func(error)) {
	defer close(a.done)
	a.buf = make([]byte, 0, smallBuffer)
	if previous != nil { // its Read may still be under way: two must not run at once
		<-previous.done
		a.buf, a.err = append(a.buf, previous.buf[previous.off:]...), previous.err
	}
	for a.err == nil && len(a.buf) < smallBuffer && (len(a.buf) == 0 || !a.stop.Load()) {
		var n int
		n, a.err = conn.Read(a.buf[len(a.buf):smallBuffer])
		a.buf = a.buf[:len(a.buf)+n]
	}
	if a.err != nil && !a.stop.Load() {
		gone(a.err)
	}
}

// collect waits for what was read ahead and copies it to dst.
func (a *ahead) collect(dst []byte) (int, error) {
	<-a.done
	n := copy(dst, a.buf[a.off:])
	a.off += n
	if n == 0 {
		return 0, a.err
	}
	return n, nil
}

// empty is true when the owner may read for itself again.
func (a *ahead) empty() bool { return a.off == len(a.buf) && a.err == nil }
