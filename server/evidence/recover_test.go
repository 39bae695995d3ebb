package evidence

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// crash ends a log as kill -9 would: what is in memory is gone.
func crash(l *Log) {
	l.mu.Lock()
	l.closed = true
	l.pending = newCommit(l.next)
	l.mu.Unlock()
	close(l.quit)
	l.wg.Wait()
	close(l.sealer.quit)
	<-l.sealer.stopped
	l.sealer.drop("")
	close(l.behind.queue)
	<-l.behind.done
	l.leaves.release()
	l.frames.release()
	l.index.close()
	l.lock.Close()
}

func events(t testing.TB, l *Log, q api.EventQuery) []api.Event {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 1 << 20
	}
	got, err := l.Search(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestT70_TornTailAtEveryByte cuts the last batch at every byte of it, fills up
// with zeros or noise, and opens: everything acknowledged before is there, and
// what was cut is said.
func TestT70_TornTailAtEveryByte(t *testing.T) {
	for _, s := range []stream{timeline, payload} {
		t.Run("T70 "+s.dir(), func(t *testing.T) {
			h := newHouse(t)
			h.cfg.SegmentBytes = 64 << 10
			l := h.open()
			session(t, l, "s-1", 1)
			appendWait(t, l, &api.Event{Kind: api.EventSessionOpen, Session: "s-2", Name: "bob", Target: "clinic"})
			key := l.LogKey()
			if _, err := l.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
			acked := l.Size()
			rec, err := l.Record("s-2", RecordOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, _, err := rec.Frame('c', []byte("the last row")); err != nil {
				t.Fatal(err)
			}
			appendWait(t, l, &api.Event{Kind: api.EventOutcome, Session: "s-2", FramesFirst: 1, FramesLast: 1, FramesSHA256: rec.Digest(1, 1)})
			crash(l)
			name := segmentsOf(t, h.cfg.Dir, s)[0]
			whole, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var last batch
			if _, _, err := parseSegment(whole, s, func(_ segmentHeader, b *batch) error { last.start, last.end = b.start, b.end; return nil }); err != nil {
				t.Fatal(err)
			}
			for at := last.start; at < last.end; at++ { // every byte, as far as the segment goes
				torn := bytes.Clone(whole)
				clear(torn[at:last.end])
				_, end, err := parseSegment(torn, s, func(segmentHeader, *batch) error { return nil })
				if end != last.start || err == nil && at > last.start+3 { // lengths begin with zeros
					t.Fatalf("torn at %d: batches end at %d, %v", at, end, err)
				}
			}
			step := max(1, (last.end-last.start)/20) // and some of them through everything
			for at := last.start; at < last.end; at += step {
				tornAt(t, h, key, name, whole, at, last, at/step%2 == 0, acked)
			}
			tornAt(t, h, key, name, whole, last.end, last, false, acked)
		})
	}
}

func tornAt(t *testing.T, h *house, key, name string, whole []byte, at int, last batch, noise bool, acked uint64) {
	t.Helper()
	cfg := h.cfg
	cfg.Dir = copyDir(t, h.cfg.Dir)
	torn := bytes.Clone(whole)
	clear(torn[at:last.end])
	if noise && at < last.end {
		torn[last.end-1] = 0x5a
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, filepath.Base(filepath.Dir(name)), filepath.Base(name)), torn, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("torn at %d: %v", at, err)
	}
	defer l.Close()
	if got := l.Size(); got < acked {
		t.Errorf("torn at %d: %d leaves, %d were acknowledged", at, got, acked)
	}
	found := events(t, l, api.EventQuery{Kind: []string{api.EventRecovery}})
	if len(found) != 1 {
		t.Fatalf("torn at %d: %d recovery leaves", at, len(found))
	}
	// A batch that is torn in the recordings takes the leaf with it that binds them.
	cut := found[0].Attrs["cut0.bytes"]
	if (at > last.start && at < last.end || noise && at < last.end) && cut == "" {
		t.Errorf("torn at %d (noise %v): nothing says what was cut: %v", at, noise, found[0].Attrs)
	}
	if at == last.end && cut != "" {
		t.Errorf("nothing was torn, but %s bytes were cut", cut)
	}
	closed := events(t, l, api.EventQuery{Session: "s-2", Kind: []string{api.EventSessionClose}})
	if len(closed) != 1 || closed[0].Status != "crashed" || closed[0].Name != "bob" {
		t.Errorf("torn at %d: the open session was closed as %+v", at, closed)
	}
	if len(events(t, l, api.EventQuery{Session: "s-1", Kind: []string{api.EventSessionClose}})) != 1 {
		t.Errorf("torn at %d: a closed session was closed again", at)
	}
	r, err := Verify(context.Background(), l, Options{LogKey: key})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, Intact)
}

func TestT70_CutBytesAreSaid(t *testing.T) {
	h := newHouse(t)
	l := h.open()
	appendWait(t, l, statement(1))
	end := l.leaves.end
	crash(l)
	name := segmentsOf(t, h.cfg.Dir, timeline)[0]
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := []byte{0, 0, 0, 200, recordLeaf, 'h', 'a', 'l', 'f'}
	if _, err := f.WriteAt(junk, end); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l = h.open()
	got := events(t, l, api.EventQuery{Kind: []string{api.EventRecovery}})[0].Attrs
	sum := sha256.Sum256(junk)
	if got["cut0.bytes"] != "9" || got["cut0.sha256"] != hex.EncodeToString(sum[:]) || got["cut0.file"] != "log/00000001.log" || got["cut0.offset"] != strconv.FormatInt(end, 10) {
		t.Errorf("the recovery leaf says %v", got)
	}
}

// TestT70_CrashBetweenSegments: the next segment exists, but nothing, or only
// its header, is in it.
func TestT70_CrashBetweenSegments(t *testing.T) {
	for name, content := range map[string]func(h segmentHeader) []byte{
		"T70 empty":       func(segmentHeader) []byte { return nil },
		"T70 zeros":       func(segmentHeader) []byte { return make([]byte, 4096) },
		"T70 half header": func(h segmentHeader) []byte { return h.append(nil)[:20] },
		"T70 header":      func(h segmentHeader) []byte { return append(h.append(nil), make([]byte, 4096)...) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			l := h.open()
			key := l.LogKey()
			appendWait(t, l, &api.Event{Kind: api.EventSessionOpen, Session: "s-1"})
			next := segmentHeader{stream: timeline, number: 2, first: l.Size(), created: time.Now(), node: h.cfg.Node}
			crash(l)
			if err := os.WriteFile(h.file("log/00000002.log"), content(next), 0o600); err != nil {
				t.Fatal(err)
			}
			l = h.open()
			if got := events(t, l, api.EventQuery{Session: "s-1"}); len(got) != 2 || got[1].Status != "crashed" {
				t.Errorf("events of the session: %+v", got)
			}
			session(t, l, "s-2", 2)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
			l = h.open()
			if got := events(t, l, api.EventQuery{Kind: []string{api.EventRecovery}}); len(got) != 1 {
				t.Errorf("%d recoveries", len(got))
			}
		})
	}
}

// TestT70_KillNine runs a child process that records under load and reports what
// was acknowledged, kills it, and looks for it all, over and over on the same
// folder.
func TestT70_KillNine(t *testing.T) {
	if dir := os.Getenv("EVIDENCE_CHILD"); dir != "" {
		child(dir)
		return
	}
	h := newHouse(t)
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	if n, err := strconv.Atoi(os.Getenv("EVIDENCE_ROUNDS")); err == nil { // make soak-evidence
		rounds = n
	}
	acked := map[string]bool{}
	var key string
	for round := range rounds {
		for _, token := range killed(t, h, round) {
			acked[token] = true
		}
		cfg := h.cfg
		cfg.Recipients = []string{h.auditor.Recipient().String()}
		l, err := Open(cfg)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		key = l.LogKey()
		have := map[string]bool{}
		for _, e := range events(t, l, api.EventQuery{}) {
			have[e.Object] = true
		}
		for token := range acked {
			if !have[token] {
				t.Errorf("round %d: %s was acknowledged and is gone", round, token)
			}
		}
		r, err := Verify(context.Background(), l, Options{LogKey: key})
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, Intact)
		if n := len(events(t, l, api.EventQuery{Kind: []string{api.EventRecovery}})); n != round+1 {
			t.Errorf("round %d: %d recovery leaves", round, n)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
	t.Logf("%d acknowledged in %d rounds", len(acked), rounds)
}

// killed runs a child until some hundred records are acknowledged, kills it and
// returns all that it reported.
func killed(t *testing.T, h *house, round int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestT70_KillNine$")
	cmd.Env = append(os.Environ(), "EVIDENCE_CHILD="+h.cfg.Dir, "EVIDENCE_KEY="+h.cfg.KeyFile, "EVIDENCE_TO="+h.cfg.Recipients[0],
		"EVIDENCE_ROUND="+strconv.Itoa(round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []string
	enough := 100 + rand.IntN(400)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if token, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
			acked = append(acked, token)
		}
		if len(acked) == enough {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if len(acked) < enough {
		t.Fatalf("the child ended by itself after %d", len(acked))
	}
	return acked
}

// child records from many goroutines and says what is durable, until it is killed.
func child(dir string) {
	l, err := Open(Config{Dir: dir, Node: "node1", KeyFile: os.Getenv("EVIDENCE_KEY"), Recipients: []string{os.Getenv("EVIDENCE_TO")},
		SegmentBytes: 64 << 10, Linger: time.Microsecond, Checkpoint: 20 * time.Millisecond, Seal: 10 * time.Millisecond})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	round := os.Getenv("EVIDENCE_ROUND")
	var mu sync.Mutex
	var wg sync.WaitGroup
	wg.Go(func() { // short sessions, whose recordings are sealed, their segments reduced, some of them shredded
		for i := 0; ; i++ {
			name := fmt.Sprintf("short-%s-%d", round, i)
			l.Append(&api.Event{Kind: api.EventSessionOpen, Session: name})
			rec, err := l.Record(name, RecordOptions{})
			if err != nil {
				return
			}
			rec.Frame('c', bytes.Repeat([]byte(name), 2000))
			rec.Close()
			l.Append(&api.Event{Kind: api.EventSessionClose, Session: name})
			if i%10 == 9 && l.Shred(context.Background(), api.Event{Session: name}) != nil {
				return
			}
		}
	})
	for w := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("s-%s-%d", round, w)
			l.Append(&api.Event{Kind: api.EventSessionOpen, Session: name})
			rec, err := l.Record(name, RecordOptions{})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			for i := 0; ; i++ {
				_, frame, err := rec.Frame('c', bytes.Repeat([]byte("row"), i%500+1))
				if err != nil {
					return
				}
				e := &api.Event{Kind: api.EventOutcome, Session: name, Object: fmt.Sprintf("%s/%d", name, i), FramesFirst: frame, FramesLast: frame, FramesSHA256: rec.Digest(frame, frame)}
				ticket, err := l.Append(e)
				if err != nil || l.Wait(context.Background(), ticket) != nil {
					return
				}
				mu.Lock()
				fmt.Println("acked " + e.Object)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// badDisk is a local disk that fails when told to.
type badDisk struct {
	localDisk
	writes, syncs, creates atomic.Pointer[error]
	short                  atomic.Bool // a failing write leaves half of itself
}

func (d *badDisk) fail(p *atomic.Pointer[error], err error) { p.Store(&err) }

func failure(p *atomic.Pointer[error]) error {
	if e := p.Load(); e != nil {
		return *e
	}
	return nil
}

type badFile struct {
	file
	disk *badDisk
}

func (d *badDisk) create(path string, size int64) (file, error) {
	if err := failure(&d.creates); err != nil {
		return nil, err
	}
	f, err := d.localDisk.create(path, size)
	return badFile{f, d}, err
}

func (d *badDisk) open(path string, size int64) (file, error) {
	f, err := d.localDisk.open(path, size)
	return badFile{f, d}, err
}

func (f badFile) WriteAt(p []byte, off int64) (int, error) {
	if err := failure(&f.disk.writes); err != nil {
		n := 0
		if f.disk.short.Load() {
			n, _ = f.file.WriteAt(p[:len(p)/2], off)
		}
		return n, err
	}
	return f.file.WriteAt(p, off)
}

func (f badFile) Datasync() error {
	if err := failure(&f.disk.syncs); err != nil {
		return err
	}
	return f.file.Datasync()
}

// healed waits until a log is well again.
func healed(t testing.TB, l *Log) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for l.Healthy() != nil {
		if time.Now().After(deadline) {
			t.Fatal("the log does not heal:", l.Healthy())
		}
		time.Sleep(time.Millisecond)
	}
}

// TestT71_FailsClosedAndHeals: while the disk fails nothing is acknowledged;
// afterwards a gap leaf says so, and nothing acknowledged is missing.
func TestT71_FailsClosedAndHeals(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(*badDisk, error)
		err  error
	}{
		"T71 fsync error":           {func(d *badDisk, err error) { d.fail(&d.syncs, err) }, syscall.EIO},
		"T71 disk full":             {func(d *badDisk, err error) { d.fail(&d.writes, err); d.fail(&d.creates, err) }, syscall.ENOSPC},
		"T71 disk full, torn":       {func(d *badDisk, err error) { d.short.Store(true); d.fail(&d.writes, err) }, syscall.ENOSPC},
		"T71 no room for a segment": {func(d *badDisk, err error) { d.fail(&d.creates, err); d.fail(&d.writes, err) }, syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			d := &badDisk{}
			h := newHouse(t)
			h.cfg.disk = d
			l := h.open()
			ctx := context.Background()
			session(t, l, "s-1", 2)
			appendWait(t, l, &api.Event{Kind: api.EventSessionOpen, Session: "s-2", Name: "bob"})
			rec, err := l.Record("s-2", RecordOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			before := l.Size()

			c.fail(d, c.err)
			lost := statement(1)
			lost.Object = "lost"
			ticket, err := l.Append(lost)
			if err != nil {
				t.Fatal(err)
			}
			frameTicket, _, err := rec.Frame('c', []byte("lost too"))
			if err != nil && !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			if err := l.Wait(ctx, ticket); !errors.Is(err, c.err) {
				t.Errorf("Wait: %v", err)
			}
			if _, err := l.Append(statement(2)); !errors.Is(err, c.err) {
				t.Errorf("Append while failing: %v", err)
			}
			if _, err := l.Append(&api.Event{Kind: api.EventSessionClose, Session: "s-2"}); err == nil {
				t.Error("a close was taken while failing")
			}
			if _, _, err := rec.Frame('c', []byte("x")); err == nil {
				t.Error("a frame was taken while failing")
			}

			c.fail(d, nil)
			d.short.Store(false)
			healed(t, l)
			for _, ticket := range []uint64{ticket, frameTicket} {
				if ticket > 0 && l.Wait(ctx, ticket) == nil {
					t.Errorf("ticket %d counts as durable after healing", ticket)
				}
			}
			if _, _, err := rec.Frame('c', []byte("x")); err == nil {
				t.Error("a recording with a hole goes on")
			}
			session(t, l, "s-3", 2)
			gap := events(t, l, api.EventQuery{Kind: []string{api.EventGap}})
			if len(gap) != 1 || gap[0].Index != before || gap[0].Attrs["lost"] != "1" || gap[0].Attrs["refused"] == "0" || !strings.Contains(gap[0].Reason, c.err.Error()) {
				t.Errorf("gap leaf %+v", gap)
			}
			if got := events(t, l, api.EventQuery{Session: "s-2", Kind: []string{api.EventSessionClose}}); len(got) != 1 || got[0].Name != "bob" {
				t.Errorf("the session that could not be closed: %+v", got)
			}
			for _, e := range events(t, l, api.EventQuery{}) {
				if e.Object == "lost" {
					t.Error("what was refused is in the log")
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			want(t, verify(t, h.cfg.Dir, Options{LogKey: l.LogKey()}), Intact)
			h.open() // and it opens as if nothing had been
		})
	}
}

// TestT71_CrashWhileFailing: a batch whose sync failed lies on the disk all the
// same. That is allowed: it was refused, not promised.
func TestT71_CrashWhileFailing(t *testing.T) {
	d := &badDisk{}
	h := newHouse(t)
	h.cfg.disk, h.cfg.Retry = d, time.Hour
	l := h.open()
	appendWait(t, l, statement(1))
	d.fail(&d.syncs, syscall.EIO)
	ticket, err := l.Append(statement(2))
	if err != nil || l.Wait(context.Background(), ticket) == nil {
		t.Fatal("acknowledged without a sync")
	}
	crash(l)
	h.cfg.disk = nil
	l = h.open()
	l.Close()
	want(t, verify(t, h.cfg.Dir, Options{LogKey: l.LogKey()}), Intact)
}

func TestT71_ClockJump(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		t.Run("T71 "+jump.String(), func(t *testing.T) {
			var offset atomic.Int64
			start := time.Now()
			h := newHouse(t)
			h.cfg.Now = func() time.Time { return start.Add(time.Since(start) + time.Duration(offset.Load())) }
			h.cfg.Elapsed = func() time.Duration { return time.Since(start) }
			l := h.open()
			taken, err := l.Append(statement(1))
			if err != nil {
				t.Fatal(err)
			}
			offset.Store(int64(jump))
			for err == nil { // until the jump is noticed, which is at the latest now
				_, err = l.Append(statement(2))
				if err == nil && l.Healthy() == nil {
					if n := len(events(t, l, api.EventQuery{Kind: []string{api.EventGap}})); n > 0 {
						break // it has healed already
					}
				}
			}
			healed(t, l)
			if err := l.Wait(context.Background(), taken); err != nil {
				t.Errorf("what was taken before the jump: %v", err)
			}
			appendWait(t, l, statement(3))
			gap := events(t, l, api.EventQuery{Kind: []string{api.EventGap}})
			if len(gap) != 1 {
				t.Fatalf("%d gap leaves", len(gap))
			}
			if d, err := time.ParseDuration(gap[0].Attrs[attrClock]); err != nil || (d-jump).Abs() > 10*time.Second {
				t.Errorf("the gap leaf says that the clock jumped by %q", gap[0].Attrs[attrClock])
			}
			l.Close()
			want(t, verify(t, h.cfg.Dir, Options{LogKey: l.LogKey()}), Intact)
		})
	}
}

func TestWaitHonoursItsContext(t *testing.T) {
	d := &badDisk{}
	h := newHouse(t)
	h.cfg.disk, h.cfg.Linger = d, time.Hour
	l := h.open()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ticket, err := l.Append(statement(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(ctx, ticket); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	if err := l.Wait(context.Background(), 1<<40); err == nil {
		t.Error("a ticket that was never issued is durable")
	}
	if err := l.Wait(context.Background(), 0); err != nil {
		t.Error(err)
	}
}

// TestWithinHoldsBackWhoRunsAhead: while a sync is stuck, a session in async
// evidence goes on for the lag that it is allowed, and no longer.
func TestWithinHoldsBackWhoRunsAhead(t *testing.T) {
	d := &slowDisk{gate: make(chan struct{})}
	h := newHouse(t)
	h.cfg.disk = d
	l := h.open()
	d.slow.Store(true)
	if _, err := l.Append(statement(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := l.Within(ctx, time.Hour); err != nil {
		t.Errorf("inside its lag: %v", err)
	}
	if err := l.Within(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind a stuck disk: %v", err)
	}
	close(d.gate)
	if err := l.Within(context.Background(), 0); err != nil {
		t.Errorf("after the disk went on: %v", err)
	}
}

// slowDisk is a local disk whose syncs wait at a gate.
type slowDisk struct {
	localDisk
	slow atomic.Bool
	gate chan struct{}
}

type slowFile struct {
	file
	disk *slowDisk
}

func (d *slowDisk) create(path string, size int64) (file, error) {
	f, err := d.localDisk.create(path, size)
	return slowFile{f, d}, err
}

func (f slowFile) Datasync() error {
	if f.disk.slow.Load() {
		<-f.disk.gate
	}
	return f.file.Datasync()
}
