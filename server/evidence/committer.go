package evidence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// run is the committer: the one goroutine that writes both streams.
func (l *Log) run() {
	defer l.wg.Done()
	retry := time.NewTicker(l.cfg.Retry)
	defer retry.Stop()
	for {
		select {
		case <-l.wake:
			l.linger()
			runtime.Gosched() // sessions that can run now may add to the batch; alone, this costs nothing
			l.commitPending()
		case <-retry.C:
			l.heal()
		case <-l.quit:
			l.commitPending()
			return
		}
	}
}

// linger waits for company as long as nobody waits for the batch: a sync costs
// the same for one record and for a thousand.
func (l *Log) linger() {
	l.mu.Lock()
	hurry := l.pending.wanted || l.pending.bytes() >= urgentBytes
	l.mu.Unlock()
	if hurry {
		return
	}
	t := time.NewTimer(l.cfg.Linger)
	defer t.Stop()
	select {
	case <-l.urgent:
	case <-t.C:
	case <-l.quit:
	}
}

// commitPending writes what is pending, and releases those who wait for it.
func (l *Log) commitPending() {
	l.mu.Lock()
	c := l.pending
	if c.empty() {
		l.mu.Unlock()
		return
	}
	l.flight, l.pending = c, newCommit(l.next)
	l.pending.leaves, l.pending.frames = l.spareLeaves.get(), l.spareFrames.get()
	now := l.clock.last
	l.room.Broadcast()
	l.mu.Unlock()

	err := l.write(c, now)

	l.mu.Lock()
	l.flight = nil
	if err != nil {
		l.lose(c, err)
		l.mu.Unlock()
		return
	}
	l.durable = c.after
	l.publish()
	l.mu.Unlock()
	close(c.done)
	l.settle(c)
}

// publish lets readers see how far the segments are durable. Called with the
// lock held, by the committer.
func (l *Log) publish() {
	l.places[timeline] = place{l.leaves.number, l.leaves.end}
	l.places[payload] = place{l.frames.number, l.frames.end}
}

// settle books a durable batch where the committer and the followers need it.
func (l *Log) settle(c *commit) {
	for _, s := range c.sessions {
		if s.leaf != nil {
			l.sessions[s.name] = s.leaf
		} else {
			delete(l.sessions, s.name)
		}
	}
	l.spareFrames.put(c.frames)
	if c.nLeaves > 0 {
		l.behind.feed(c.leaves)
	}
}

// write puts a batch on the disk: both streams, then one sync of each, side by
// side. A leaf may bind frames of its own batch; should only the timeline's
// half survive a crash, its mark says how many frames it needs, and recovery
// cuts it.
func (l *Log) write(c *commit, now time.Time) error {
	if err := l.writeFrames(c, now); err != nil {
		return err
	}
	if err := l.writeLeaves(c, now); err != nil {
		return err
	}
	err := l.syncBoth(c)
	for _, k := range c.keys {
		err = errors.Join(err, <-k)
	}
	if err != nil {
		return err
	}
	l.leaves.settle()
	l.frames.settle()
	return nil
}

// syncBoth makes a batch durable; most hold leaves alone.
func (l *Log) syncBoth(c *commit) error {
	switch {
	case c.nFrames == 0:
		return l.leaves.sync()
	case c.nLeaves == 0:
		return l.frames.sync()
	}
	other := make(chan error, 1)
	go func() { other <- l.frames.sync() }()
	return errors.Join(l.leaves.sync(), <-other)
}

func (l *Log) writeFrames(c *commit, now time.Time) error {
	if c.nFrames == 0 {
		return nil
	}
	c.frames = appendMark(c.frames, mark{first: c.base.frames, count: c.nFrames})
	if !l.frames.fits(len(c.frames)) {
		h := segmentHeader{first: c.base.frames, chain: c.base.chain, created: now}
		if err := l.frames.roll(h, len(c.frames)); err != nil {
			return err
		}
	}
	return l.frames.write(c.frames)
}

// writeLeaves writes the timeline's half. The first batch of a segment starts
// with the sessions open at that time, so that recovery reads one segment only,
// however old a session is.
func (l *Log) writeLeaves(c *commit, now time.Time) error {
	if c.nLeaves == 0 {
		return nil
	}
	records := c.leaves
	if !l.leaves.fits(len(records) + markSize) {
		open := l.openRecord()
		h := segmentHeader{first: c.base.leaves, created: now}
		if err := l.leaves.roll(h, len(open)+len(records)+markSize); err != nil {
			return err
		}
	}
	if l.leaves.fresh() {
		records = append(l.openRecord(), records...)
	}
	return l.leaves.write(appendMark(records, mark{first: c.base.leaves, count: c.nLeaves, frames: c.after.frames}))
}

// openRecord holds the session.open leaf of each open session, by name.
func (l *Log) openRecord() []byte {
	b := []byte{0, 0, 0, 0, recordOpen}
	for _, name := range slices.Sorted(maps.Keys(l.sessions)) {
		leaf := l.sessions[name]
		b = binary.BigEndian.AppendUint16(b, uint16(len(leaf)))
		b = append(b, leaf...)
	}
	putLength(b)
	return b
}

func putLength(rec []byte) { binary.BigEndian.PutUint32(rec, uint32(len(rec)-4)) }

// trouble is what a failing log remembers for its gap leaf.
type trouble struct {
	since    time.Time
	why      string
	lost     uint64            // leaves that were taken and never became durable
	refused  uint64            // calls refused since
	unclosed map[string]string // sessions whose close could not be written
	broken   bool              // segments must be cut and left
}

func (t *trouble) refuse(e *api.Event) {
	t.refused++
	if e.Kind == api.EventSessionClose && e.Session != "" {
		t.unclose(e.Session, e.Reason)
	}
}

func (t *trouble) unclose(session, reason string) {
	if t.unclosed == nil {
		t.unclosed = map[string]string{}
	}
	t.unclosed[session] = reason
}

// fail closes the log to everything new. Called with the lock held.
func (l *Log) fail(err error) {
	if l.state != nil {
		return
	}
	l.state = fmt.Errorf("evidence: %w", err)
	l.trouble.since, l.trouble.why = l.clock.last, err.Error()
	l.room.Broadcast()
	l.cfg.Logger.Error("evidence fails closed", "err", err)
}

// lose gives up a batch that could not be written, and what was added since:
// their numbers follow from it. Called with the lock held.
func (l *Log) lose(c *commit, err error) {
	l.fail(err)
	l.trouble.broken = true
	for _, c := range []*commit{c, l.pending} {
		l.trouble.lost += uint64(c.nLeaves)
		for _, s := range c.sessions {
			if s.leaf == nil {
				l.trouble.unclose(s.name, "")
			}
		}
		c.err = l.state
		close(c.done)
	}
	if l.next.ticket > l.durable.ticket {
		l.failed = append(l.failed, span{c.base.ticket + 1, l.next.ticket, l.state})
	}
	ticket := l.next.ticket
	l.next = l.durable
	l.next.ticket = ticket
	l.pending = newCommit(l.next)
}

// heal tries to go on after a failure: in new segments, with a gap leaf first.
// Until that leaf is durable the log stays closed.
func (l *Log) heal() {
	l.mu.Lock()
	if l.state == nil {
		if err := l.clock.look(); err != nil {
			l.fail(err)
		}
		l.mu.Unlock()
		return
	}
	steady := l.clock.settle()
	l.mu.Unlock()
	if !steady {
		return
	}
	l.commitPending() // what was taken before a clock jump
	if err := l.renew(); err != nil {
		l.cfg.Logger.Warn("evidence cannot heal yet", "err", err)
	}
}

// renew leaves segments that failed, and writes the gap leaf.
func (l *Log) renew() error {
	l.mu.Lock()
	broken := l.trouble.broken
	l.mu.Unlock()
	if broken {
		if err := errors.Join(l.leaves.finish(), l.frames.finish()); err != nil {
			return err
		}
	}
	c, now := l.gap()
	if err := l.write(c, now); err != nil {
		l.mu.Lock()
		l.trouble.broken = true
		l.mu.Unlock()
		return err
	}
	l.reopen(c)
	return nil
}

// reopen ends a failure whose gap leaf is durable.
func (l *Log) reopen(c *commit) {
	l.settle(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	ticket := l.next.ticket
	l.durable, l.next = c.after, c.after
	l.durable.ticket, l.next.ticket = ticket, ticket
	l.pending = newCommit(l.next)
	l.publish()
	l.cfg.Logger.Info("evidence recovered", "since", l.trouble.since, "refused", l.trouble.refused, "lost", l.trouble.lost)
	l.state, l.trouble, l.clock.jumped = nil, trouble{}, 0
}

// gap makes the batch that ends a failure: its gap leaf, and the closes that
// could not be written meanwhile.
func (l *Log) gap() (*commit, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.trouble
	c := newCommit(l.durable)
	attrs := l.durable.frameAttrs()
	attrs["since"] = t.since.UTC().Format(time.RFC3339Nano)
	attrs["refused"] = strconv.FormatUint(t.refused, 10)
	attrs["lost"] = strconv.FormatUint(t.lost, 10)
	if l.clock.jumped != 0 {
		attrs[attrClock] = l.clock.jumped.String()
	}
	l.addOwn(c, &api.Event{Kind: api.EventGap, Reason: t.why, Attrs: attrs})
	for _, name := range slices.Sorted(maps.Keys(t.unclosed)) {
		if leaf, open := l.sessions[name]; open {
			l.addOwn(c, crashed(leaf, "evidence unavailable: "+t.why))
		}
	}
	return c, l.clock.last
}

// addOwn adds a leaf to a batch that only the committer knows of.
func (l *Log) addOwn(c *commit, e *api.Event) {
	e.V, e.Index, e.Node, e.Time = 1, c.after.leaves, l.cfg.Node, l.clock.stamp()
	leaf := appendBody(appendHead(nil, e.Index, e.Node, e.Time), e)
	c.leaves = appendRecord(c.leaves, recordLeaf, leaf)
	c.nLeaves++
	c.after.leaves++
	c.noteSession(e, leaf)
}
