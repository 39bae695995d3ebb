package postgres

import (
	"context"
	"errors"
	"sync"

	"github.com/hoopctl/hoopctl/server/session"
)

// errEnded is what waiting returns when the session ends.
var errEnded = errors.New("the session ends")

// ledger is what the two halves of a session share: which answers the target
// owes, in order, and what the names of statements and portals mean. The
// requests half writes entries before it sends; the answers half takes them off.
type ledger struct {
	mu   sync.Mutex
	cond *sync.Cond // the ledger became quiet, a name became certain, or the session ends

	ring    []expect
	first   int // index of the oldest entry in ring
	count   int
	pending int // entries taken off whose bytes the client has not got yet

	status     byte   // of the last ReadyForQuery
	generation uint64 // counts ReadyForQuery: what a cancel is bound to
	executing  int    // entries that run something on the target
	failed     uint64 // segment in which the target failed: it ignores the rest of it
	ended      bool
	admitting  context.CancelFunc // withdraws the question that the requests half waits for
	limiting   context.CancelFunc // … that the answers half waits for

	statements map[string]*slot[prepared]
	portals    map[string]*slot[portal]
}

func newLedger() *ledger {
	l := &ledger{ring: make([]expect, 4), status: 'I', statements: map[string]*slot[prepared]{}, portals: map[string]*slot[portal]{}}
	l.cond = sync.NewCond(&l.mu)
	return l
}

// slot is what a name means. PostgreSQL skips everything between an error and
// the next Sync, so a definition only counts once its answer came; until then
// it is known to hold for what follows in the same segment (if it is skipped,
// so is what follows).
type slot[T any] struct {
	is      *T     // what the target has confirmed
	next    *T     // what the last message said, nil: closed
	open    bool   // next is unconfirmed
	segment uint64 // of next
}

type expectKind byte

const (
	wantQuery expectKind = iota + 1
	wantParse
	wantBind
	wantDescribe // of a statement
	wantPortal   // Describe of a portal
	wantExecute
	wantClose
	wantSync
	wantAbort // an Execute of ours that must fail, so that the target aborts as it would after an error of its own
	sayOwn    // nothing is owed: an answer of ours has its turn
)

// expect is one answer that is owed.
type expect struct {
	kind    expectKind
	ours    bool   // asked by us: the client does not see the answer
	segment uint64 // messages up to a Sync are one segment
	named   byte   // of wantClose: 'S' or 'P'
	name    string
	def     *prepared
	portal  *portal // of wantBind and wantClose
	run     *run    // of wantPortal and wantExecute
	runs    []*run  // of wantQuery: one per statement
	at      int     // which of runs is being answered
	refusal *session.Refusal
	ready   bool              // of sayOwn: ReadyForQuery follows
	collect *[][]string       // of a query of ours: its rows
	failed  **session.Refusal // … and why it failed
}

// push writes an entry. It is refused if the target skips the segment: the
// message must then not be sent.
func (l *ledger) push(e expect) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pushLocked(e)
}

func (l *ledger) pushLocked(e expect) bool {
	if e.segment == l.failed && e.kind != wantSync {
		return false
	}
	if l.count == len(l.ring) {
		l.enlarge()
	}
	l.ring[(l.first+l.count)%len(l.ring)] = e
	l.count++
	if e.kind == wantQuery || e.kind == wantExecute {
		l.executing++
	}
	return true
}

func (l *ledger) enlarge() {
	bigger := make([]expect, 2*len(l.ring))
	for i := range l.count {
		bigger[i] = l.ring[(l.first+i)%len(l.ring)]
	}
	l.ring, l.first = bigger, 0
}

// head returns the oldest entry, nil if nothing is owed. The pointer is good
// until mu is released.
func (l *ledger) head() *expect {
	if l.count == 0 {
		return nil
	}
	return &l.ring[l.first]
}

// pop takes the oldest entry off; its bytes are on their way to the client.
func (l *ledger) pop() {
	e := &l.ring[l.first]
	if e.kind == wantQuery || e.kind == wantExecute {
		l.executing--
	}
	*e = expect{}
	l.first = (l.first + 1) % len(l.ring)
	l.count--
	l.pending++
}

// quiet is true if nothing is owed and nothing is on its way.
func (l *ledger) quiet() bool { return l.count == 0 && l.pending == 0 }

// running is true while the target runs something.
func (l *ledger) running() bool { return l.executing > 0 }

// settled is called when all that was taken off has reached the client.
func (l *ledger) settled() {
	l.pending = 0
	l.cond.Broadcast()
}

// awaitQuiet blocks until the client has every answer. It returns false if the
// session ends.
func (l *ledger) awaitQuiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended && !l.quiet() {
		l.cond.Wait()
	}
	return !l.ended
}

// end wakes whoever waits.
func (l *ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.cond.Broadcast()
}

// lookup returns what a name means for a message of this segment, nil if
// nothing. If that is not certain yet it calls flush, so that the target
// answers, and waits.
func lookup[T any](l *ledger, names map[string]*slot[T], name []byte, segment uint64, flush func() error) (*T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for flushed := false; ; {
		s := names[string(name)]
		switch {
		case s == nil:
			return nil, nil
		case !s.open:
			return s.is, nil
		case s.segment == segment:
			return s.next, nil
		case l.ended:
			return nil, errEnded
		case flushed:
			l.cond.Wait()
		default:
			flushed = true
			l.mu.Unlock()
			err := flush()
			l.mu.Lock()
			if err != nil {
				return nil, err
			}
		}
	}
}

// define notes an unconfirmed meaning; nil closes the name.
func define[T any](names map[string]*slot[T], name string, to *T, segment uint64) {
	s := names[name]
	if s == nil {
		s = &slot[T]{}
		names[name] = s
	}
	s.next, s.open, s.segment = to, true, segment
}

// confirm makes a meaning certain: the target answered.
func confirm[T any](l *ledger, names map[string]*slot[T], name string, to *T) {
	s := names[name]
	if s == nil {
		s = &slot[T]{}
		names[name] = s
	}
	s.is = to
	settle(l, names, name, s, to)
}

// discard takes an unconfirmed meaning back: the target skipped the message.
func discard[T any](l *ledger, names map[string]*slot[T], name string, to *T) {
	if s := names[name]; s != nil {
		settle(l, names, name, s, to)
	}
}

func settle[T any](l *ledger, names map[string]*slot[T], name string, s *slot[T], to *T) {
	if s.open && s.next == to {
		s.next, s.open = nil, false
		l.cond.Broadcast()
	}
	if s.is == nil && !s.open {
		delete(names, name)
	}
}
