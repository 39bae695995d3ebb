package evidence

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"

	"github.com/hoopctl/hoopctl/server/api"
)

// Config says where a log lies and who may read its recordings.
type Config struct {
	Dir     string // the evidence folder; created 0700
	Spill   string // a folder on another volume, used while Dir's takes nothing more; "" is none
	Node    string // this server's name: letters, digits, dot, dash, underscore
	KeyFile string // the log's Ed25519 signing key (a signed-note key); created 0600 if missing
	// Recipients are the auditors' age X25519 recipients (age1…). With none,
	// Recording must be "none".
	Recipients []string
	Recording  string // "full" (default) or "none": whether sessions may be recorded at all
	Logger     *slog.Logger

	// Now is the wall clock; nil is time.Now. Elapsed is a monotonic clock
	// beside it: where the two drift apart by more than ClockStep between two
	// looks, the log fails closed until they agree again. Nil is the system's
	// if Now is nil too; else jumps are not looked for.
	Now       func() time.Time
	Elapsed   func() time.Duration
	ClockStep time.Duration // default 2 s

	SegmentBytes int64         // size that segments are given; default 16 MiB
	Linger       time.Duration // how long a record that nobody waits for may wait for others; default 20 ms: async evidence is at most 50 ms behind
	Heartbeat    time.Duration // default 60 s
	Checkpoint   time.Duration // how often the head is signed while the log grows; default 1 s
	Retry        time.Duration // how often a failed log tries to heal; default 1 s
	Seal         time.Duration // how often stretches of recordings that have ended are sealed; default 10 s

	// Witnesses cosign the head every CosignEvery if the log grew, and when it is
	// closed. A checkpoint is published as cosigned when WitnessQuorum of them
	// (0: more than half) have done so. One that does not answer holds nothing up.
	Witnesses     []WitnessConf
	WitnessQuorum int
	WitnessHTTP   *http.Client  // nil: one that follows no redirects
	CosignEvery   time.Duration // default 10 s

	disk disk // nil is the local disk
}

// WitnessConf is a witness that a log asks.
type WitnessConf struct {
	URL string // prefix of /add-checkpoint
	Key string // its verifier key
}

// Limits of what may wait in memory for the disk.
const (
	urgentBytes = 4 << 20  // a batch of this size is committed without lingering
	maxPending  = 16 << 20 // then Append and Frame block until the batch before is on the disk
)

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Errors that callers tell apart.
var (
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("the evidence log is closed")
	// ErrTampered is wrapped by Open when what lies in the folder is not what
	// this log wrote. Nothing was changed; verify says more.
	ErrTampered = errors.New("the evidence was tampered with")
)

func (c *Config) defaults() error {
	if !nodeName.MatchString(c.Node) {
		return fmt.Errorf("evidence: node name %q: use 1 to 64 letters, digits, dots, dashes or underscores", c.Node)
	}
	if c.Dir == "" || c.KeyFile == "" {
		return errors.New("evidence: the folder and the file of the log's signing key must be named")
	}
	if c.Elapsed == nil && c.Now == nil {
		start := time.Now()
		c.Elapsed = func() time.Duration { return time.Since(start) }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.disk == nil {
		c.disk = localDisk{}
	}
	setDefault(&c.ClockStep, 2*time.Second)
	setDefault(&c.SegmentBytes, 16<<20)
	setDefault(&c.Linger, 20*time.Millisecond)
	setDefault(&c.Heartbeat, time.Minute)
	setDefault(&c.Checkpoint, time.Second)
	setDefault(&c.Retry, time.Second)
	setDefault(&c.CosignEvery, 10*time.Second)
	setDefault(&c.Seal, 10*time.Second)
	if c.SegmentBytes > maxSegment/2 {
		return fmt.Errorf("evidence: segments of %d bytes are larger than %d", c.SegmentBytes, maxSegment/2)
	}
	return nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Log is one node's evidence, open for writing. Its methods may be called by
// any number of goroutines.
type Log struct {
	cfg        Config
	lock       *os.File
	signer     note.Signer
	key        string // the verifier key
	recipients []age.Recipient
	behind     *follower
	index      *index
	witnesses  *cosigners
	sealer     *sealer
	spill      spill

	mu      sync.Mutex
	room    sync.Cond // signalled when pending was taken
	pending *commit
	flight  *commit // being written, or nil
	next    position
	durable position
	failed  []span // tickets that never became durable, in order
	state   error  // why the log is failing; nil if all is well
	trouble trouble
	clock   clock
	closing bool // Close was called
	closed  bool
	places  map[stream]place // how far each stream's current segment is durable

	spareLeaves, spareFrames buffers // apart, as frames need much larger ones

	wake   chan struct{} // there is something to commit
	urgent chan struct{} // somebody waits for it
	quit   chan struct{}
	wg     sync.WaitGroup

	// Of the committer goroutine:
	leaves, frames writer
	sessions       map[string][]byte // open sessions' session.open leaves, as durable
}

// position counts what the log holds.
type position struct {
	ticket uint64
	leaves uint64
	frames uint64
	chain  [sha256.Size]byte // over the frames
}

// place is a point in a stream's segments.
type place struct {
	number uint64
	end    int64
}

// span is tickets that failed, and why.
type span struct {
	first, last uint64
	err         error
}

// commit is a batch in the making.
type commit struct {
	leaves, frames   []byte // records
	nLeaves, nFrames uint32
	base             position // before it
	after            position // after it
	sessions         []sessionChange
	keys             []<-chan error // key files that must be durable with it
	wanted           bool           // somebody waits
	began            time.Time      // when the first record was added
	done             chan struct{}
	err              error // set before done is closed
}

// sessionChange is a session that opens (leaf set) or closes in a batch.
type sessionChange struct {
	name string
	leaf []byte
}

func newCommit(at position) *commit {
	return &commit{base: at, after: at, done: make(chan struct{})}
}

// buffers are batches' buffers between uses: growing them anew for each batch
// would copy every byte twice.
type buffers chan []byte

const keptBuffer = 24 << 20 // larger ones are left to the garbage collector

func (b buffers) get() []byte {
	select {
	case buf := <-b:
		return buf[:0]
	default:
		return nil
	}
}

func (b buffers) put(buf []byte) {
	if cap(buf) == 0 || cap(buf) > keptBuffer {
		return
	}
	select {
	case b <- buf:
	default:
	}
}

func (c *commit) empty() bool { return c.nLeaves == 0 && c.nFrames == 0 }
func (c *commit) bytes() int  { return len(c.leaves) + len(c.frames) }

// LogKey is the verifier key (https://c2sp.org/signed-note) with which
// checkpoints are checked. Hand it to those who verify, out of band.
func (l *Log) LogKey() string { return l.key }

// Append adds an event to the timeline and returns the ticket that [Log.Wait]
// takes. It does no I/O. It fills V, Index, Node and Time. An error means that
// nothing was recorded: the caller must not go on with what the event says.
//
// A Statement that would not fit a leaf of 65,535 bytes is cut; an event that
// does not fit for other reasons is an error.
func (l *Log) Append(e *api.Event) (ticket uint64, err error) {
	var space [1024]byte
	body := appendBody(space[:0], e)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.append(e, body)
}

// append is called with the lock held; body is e's.
func (l *Log) append(e *api.Event, body []byte) (uint64, error) {
	if err := l.admit(); err != nil {
		l.trouble.refuse(e)
		return 0, err
	}
	p := l.pending
	mark := len(p.leaves)
	e.V, e.Index, e.Node, e.Time = 1, l.next.leaves, l.cfg.Node, l.clock.stamp()
	p.leaves = append(p.leaves, 0, 0, 0, 0, recordLeaf)
	start := len(p.leaves)
	p.leaves = appendHead(p.leaves, e.Index, e.Node, e.Time)
	if size := len(p.leaves) - start + len(body); size > maxLeaf {
		cut, err := trimmed(e, size)
		if err != nil {
			p.leaves = p.leaves[:mark]
			return 0, fmt.Errorf("evidence: %w", err)
		}
		short := *e
		short.Statement = cut
		body = appendBody(nil, &short)
	}
	p.leaves = append(p.leaves, body...)
	putLength(p.leaves[mark:])
	p.nLeaves++
	p.noteSession(e, p.leaves[start:])
	l.next.leaves++
	return l.issue(), nil
}

// issue hands out the next ticket and wakes the committer. Called with the
// lock held, after something was added to pending.
func (l *Log) issue() uint64 {
	if l.pending.began.IsZero() {
		l.pending.began = time.Now()
	}
	l.next.ticket++
	l.pending.after = l.next
	signal(l.wake)
	if l.pending.bytes() >= urgentBytes {
		signal(l.urgent)
	}
	return l.next.ticket
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// admit says why nothing may be added now, nil if something may. It blocks
// while too much waits for the disk. Called with the lock held.
func (l *Log) admit() error {
	for l.state == nil && !l.closed && l.pending.bytes() >= maxPending {
		l.room.Wait()
	}
	switch {
	case l.closed:
		return ErrClosed
	case l.state != nil:
		return l.state
	}
	if err := l.clock.look(); err != nil {
		l.fail(err)
		return l.state
	}
	return nil
}

func (c *commit) noteSession(e *api.Event, leaf []byte) {
	switch {
	case e.Session == "":
	case e.Kind == api.EventSessionOpen:
		c.sessions = append(c.sessions, sessionChange{e.Session, append([]byte(nil), leaf...)})
	case e.Kind == api.EventSessionClose:
		c.sessions = append(c.sessions, sessionChange{name: e.Session})
	}
}

// Wait blocks until what the ticket stands for is durable. Ticket 0 is durable
// at once. Tickets are ordered over events and frames: when one is durable, all
// smaller ones are. Any error but ctx's is final for this ticket.
func (l *Log) Wait(ctx context.Context, ticket uint64) error {
	l.mu.Lock()
	c, err := l.find(ticket)
	if c != nil && !c.wanted {
		c.wanted = true
		signal(l.urgent)
	}
	l.mu.Unlock()
	if c == nil {
		return err
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the evidence to be written: %w", context.Cause(ctx))
	}
}

// find returns the commit that a ticket waits for; nil if its fate is known.
func (l *Log) find(ticket uint64) (*commit, error) {
	for _, s := range l.failed {
		if ticket >= s.first && ticket <= s.last {
			return nil, s.err
		}
	}
	switch {
	case ticket <= l.durable.ticket:
		return nil, nil
	case l.flight != nil && ticket <= l.flight.after.ticket:
		return l.flight, nil
	case ticket <= l.next.ticket:
		return l.pending, nil
	}
	return nil, fmt.Errorf("evidence: ticket %d was never issued", ticket)
}

var errLost = errors.New("the evidence could not be written")

// Flush blocks until everything added so far is durable.
func (l *Log) Flush(ctx context.Context) error {
	l.mu.Lock()
	t := l.next.ticket
	l.mu.Unlock()
	return l.Wait(ctx, t)
}

// Within blocks while anything that was added longer than lag ago is not
// durable: it keeps a session that does not wait for its own records (async
// evidence) from running ahead of a slow disk. Any error but ctx's means that
// what was added lately is lost.
func (l *Log) Within(ctx context.Context, lag time.Duration) error {
	l.mu.Lock()
	c := l.flight
	if c == nil && !l.pending.empty() {
		c = l.pending
	}
	state := l.state
	l.mu.Unlock()
	if state != nil {
		return state
	}
	if c == nil || time.Since(c.began) <= lag {
		return nil
	}
	return l.Wait(ctx, c.after.ticket)
}

// Healthy returns nil, or why the log refuses everything just now.
func (l *Log) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return l.state
}

// Size is how many leaves are durable.
func (l *Log) Size() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.leaves
}

// Close commits what is pending, writes the last leaf and checkpoint, and lets
// go of the folder. Recordings still open end without being sealed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closing || l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closing = true
	l.mu.Unlock()
	l.sealer.stop()
	l.mu.Lock()
	var err error
	if l.state == nil {
		err = l.beat(closedReason)
	} else {
		err = fmt.Errorf("closed while failing: %w", l.state)
	}
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	close(l.quit)
	l.wg.Wait()
	err = errors.Join(err, l.leaves.finish(), l.frames.finish(), l.behind.close())
	l.lastCosign()
	return errors.Join(err, l.index.close(), l.lock.Close())
}

// beat appends a heartbeat: it says that the log was alive, and binds all
// frames so far into the tree. Called with the lock held.
func (l *Log) beat(reason string) error {
	e := api.Event{Kind: api.EventHeartbeat, Reason: reason, Attrs: l.next.frameAttrs()}
	_, err := l.append(&e, appendBody(nil, &e))
	return err
}

// Reasons of the first and last heartbeat of a run.
const (
	openedReason = "log opened"
	closedReason = "log closed"
)

// Attributes with which a leaf binds all frames before it.
const (
	attrFrames = "frames"      // how many frames the payload stream holds
	attrChain  = "framesChain" // the chain over them, hex
)

func (p position) frameAttrs() map[string]string {
	return map[string]string{attrFrames: fmt.Sprint(p.frames), attrChain: fmt.Sprintf("%x", p.chain)}
}

func (l *Log) path(name string) string { return filepath.Join(l.cfg.Dir, filepath.FromSlash(name)) }
