package evidence

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/hoopctl/hoopctl/server/api"
)

// A stretch is the frames of one session under one key. When it ends, with the
// key or with the session, it is sealed: written anew as a stock age file of
// zstd frames, to the session's own recipient, so that what an auditor needs in
// six years is age and zstd. A leaf binds the file and the frames that it
// stands for. When all stretches of a segment of the payload stream are sealed,
// their frames there shrink to their digests; see [sealer.reduce].
//
// The file, as `age -d -i SESSION-IDENTITY FILE | zstd -d` shows it:
//
//	"hoopSE1\n" len(session)[1] session frame…
//	frame = sequence[8] direction[1] flags[1] time[8] size[4] payload
//
// Integers are big-endian, times in nanoseconds since 1970; flag 4 says that the
// payload goes on in the next frame, as in the payload stream.
const (
	sealedMagic  = "hoopSE1\n"
	sealedFrame  = 8 + 1 + 1 + 8 + 4
	sealedBlock  = 256 << 10 // of plaintext in one zstd frame
	maxSealing   = 32        // files that one pass writes side by side
	maxUnsealed  = 1 << 16   // stretches that may wait; of more, the keys are forgotten and the frames stay as they are
	maxSealedRun = 4 << 20   // bytes of work between two rests
)

// sealedName is every name of a sealed file: sealed/SESSION.FIRST.age.
var sealedName = regexp.MustCompile(`^sealed/([A-Za-z0-9][A-Za-z0-9._-]{0,63})\.([1-9][0-9]{0,18})\.age$`)

func sealedPath(session string, first uint64) string {
	return fmt.Sprintf("sealed/%s.%d.age", session, first)
}

// parseSealedPath undoes sealedPath.
func parseSealedPath(name string) (session string, first uint64, ok bool) {
	m := sealedName.FindStringSubmatch(name)
	if m == nil {
		return "", 0, false
	}
	first, err := strconv.ParseUint(m[2], 10, 63)
	return m[1], first, err == nil
}

// stretch is frames first to last of a session and what opens them.
type stretch struct {
	session     string
	first, last uint64
	key         []byte
	prev        [tagSize]byte // of the frame before
	to          age.Recipient // the session's own
	segment     uint64        // the payload segment in which, or after which, it begins
}

// sealer seals stretches behind the log. It is one goroutine, which rests as
// long as it works; keys wait in it for seconds.
type sealer struct {
	l       *Log
	quit    chan struct{}
	stopped chan struct{}

	mu    sync.Mutex
	queue []*stretch

	pass   sync.Mutex // one pass at a time; guards what follows
	zstd   *zstd.Encoder
	keep   map[uint64]bool // segments that cannot be reduced, or are
	worked time.Time       // since the last rest
	run    int             // bytes since the last rest
	haste  bool            // the log is closing: no rests
}

func newSealer(l *Log) *sealer {
	return &sealer{l: l, quit: make(chan struct{}), stopped: make(chan struct{}), keep: map[uint64]bool{}}
}

// take queues a stretch. It does no I/O.
func (s *sealer) take(st *stretch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxUnsealed {
		clear(st.key)
		return
	}
	s.queue = append(s.queue, st)
}

// drop forgets the stretches of a session, or with "" of all.
func (s *sealer) drop(session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(st *stretch) bool {
		if session != "" && st.session != session {
			return false
		}
		clear(st.key)
		return true
	})
}

// loop seals every so often until the log closes.
func (s *sealer) loop() {
	defer close(s.stopped)
	t := time.NewTicker(s.l.cfg.Seal)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := s.l.Seal(context.Background()); err != nil {
				s.l.cfg.Logger.Warn("recordings are not sealed; they stay as they are until they can be", "err", err)
			}
		case <-s.quit:
			return
		}
	}
}

// stop ends the loop and seals what is left, for at most a while: what cannot
// be sealed then stays in the payload stream.
func (s *sealer) stop() {
	close(s.quit)
	<-s.stopped
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.pass.Lock()
	s.haste = true
	s.pass.Unlock()
	if err := s.l.Seal(ctx); err != nil {
		s.l.cfg.Logger.Warn("some recordings could not be sealed; they stay in the payload stream", "err", err)
	}
	s.drop("")
}

// Seal seals every stretch that has ended, and shrinks segments of which
// everything is sealed. The log does this by itself every Config.Seal.
func (l *Log) Seal(ctx context.Context) error {
	s := l.sealer
	s.pass.Lock()
	defer s.pass.Unlock()
	for {
		batch := s.next()
		if len(batch) == 0 {
			break
		}
		if err := s.seal(ctx, batch); err != nil {
			return fmt.Errorf("evidence: seal recordings: %w", err)
		}
		s.done(batch)
	}
	if err := s.reduce(ctx); err != nil {
		return fmt.Errorf("evidence: reduce sealed segments: %w", err)
	}
	if err := l.home(ctx); err != nil {
		return fmt.Errorf("evidence: bring home what lies on the spill volume: %w", err)
	}
	return nil
}

// next are the stretches of the next pass, oldest first.
func (s *sealer) next() []*stretch {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.queue, func(a, b *stretch) int { return int(a.segment) - int(b.segment) })
	return slices.Clone(s.queue[:min(len(s.queue), maxSealing)])
}

func (s *sealer) done(batch []*stretch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(st *stretch) bool { return slices.Contains(batch, st) })
	for _, st := range batch {
		clear(st.key)
	}
}

// seal writes one file for each stretch, in one walk through the segments, and
// the leaves that bind them.
func (s *sealer) seal(ctx context.Context, batch []*stretch) (err error) {
	if err := s.l.Flush(ctx); err != nil {
		return err
	}
	jobs, err := s.begin(batch)
	defer func() {
		for _, j := range jobs {
			err = errors.Join(err, j.abandon())
		}
	}()
	if err != nil {
		return err
	}
	if err := s.walk(ctx, batch[0].segment, jobs); err != nil {
		return err
	}
	return s.publish(ctx, jobs)
}

func (s *sealer) begin(batch []*stretch) (jobs []*sealing, err error) {
	if s.zstd == nil {
		if s.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)); err != nil {
			return nil, err
		}
	}
	s.worked, s.run = time.Now(), 0
	for _, st := range batch {
		j, err := newSealing(st, s.zstd, s.l.path("sealed"))
		if err != nil {
			return jobs, err
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// walk gives each job its frames. Frames of a stretch that was lost with a
// failed batch are not there; such a job stays incomplete.
func (s *sealer) walk(ctx context.Context, from uint64, jobs []*sealing) error {
	bySession := map[string][]*sealing{}
	for _, j := range jobs {
		bySession[j.session] = append(bySession[j.session], j)
	}
	left := len(jobs)
	list, err := s.l.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range streamFiles(list, payload) {
		if segmentNumber(name) < from || left == 0 {
			continue
		}
		err := each(ctx, s.l, name, payload, func(rec record) error {
			if rec.kind != recordFrame {
				return nil
			}
			f, err := parseFrame(rec.body)
			if err != nil {
				return err
			}
			for _, j := range bySession[string(f.session)] {
				if f.sequence != j.next || j.next > j.last {
					continue
				}
				if err := j.take(f, rec.body); err != nil {
					return err
				}
				if j.next > j.last {
					left--
				}
			}
			return s.rest(ctx, len(rec.body))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rest lets sessions have the processor: it waits as long as was worked.
func (s *sealer) rest(ctx context.Context, n int) error {
	if s.run += n; s.run < maxSealedRun {
		return nil
	}
	d := min(time.Since(s.worked), time.Second)
	s.run = 0
	defer func() { s.worked = time.Now() }()
	if s.haste {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.quit: // the pass goes on, in haste
		s.haste = true
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// publish makes the files durable, and then their leaves.
func (s *sealer) publish(ctx context.Context, jobs []*sealing) error {
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j *sealing) bool { return j.next <= j.last })
	for _, j := range jobs {
		if err := j.finish(); err != nil {
			return err
		}
		if err := os.Rename(j.out.Name(), s.l.path(sealedPath(j.session, j.first))); err != nil {
			return err
		}
		j.placed = true
	}
	if err := s.l.cfg.disk.syncDir(s.l.path("sealed")); err != nil {
		return err
	}
	var last uint64
	for _, j := range jobs {
		t, err := s.l.Append(j.leaf())
		if err != nil {
			return err
		}
		last = t
	}
	return s.l.Wait(ctx, last)
}

// sealing is one sealed file in the making.
type sealing struct {
	*stretch
	zstd   *zstd.Encoder
	open   opener
	next   uint64 // sequence of the frame that comes next
	out    *os.File
	digest hash.Hash // of the file
	frames hash.Hash // over the digests of the frames
	box    io.WriteCloser
	size   int64 // of the file
	bytes  int64 // of payload
	plain  []byte
	packed []byte
	placed bool // it has its name
}

func newSealing(st *stretch, enc *zstd.Encoder, dir string) (*sealing, error) {
	j := &sealing{stretch: st, zstd: enc, next: st.first, digest: sha256.New(), frames: sha256.New(), plain: make([]byte, 0, sealedBlock)}
	j.open.prev = st.prev
	var err error
	if j.open.aead, err = newAEAD(st.key); err != nil {
		return nil, err
	}
	if j.out, err = os.CreateTemp(dir, ".new-*.tmp"); err != nil {
		return nil, err
	}
	if j.box, err = age.Encrypt(countingWriter{io.MultiWriter(j.out, j.digest), &j.size}, st.to); err != nil {
		return nil, errors.Join(err, j.abandon())
	}
	j.plain = append(append(j.plain, sealedMagic...), byte(len(st.session)))
	j.plain = append(j.plain, st.session...)
	return j, nil
}

type countingWriter struct {
	w io.Writer
	n *int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}

// take adds the next frame; body is its whole record.
func (j *sealing) take(f frame, body []byte) error {
	data, err := j.open.payload(f)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	j.frames.Write(sum[:])
	j.next++
	j.bytes += int64(len(data))
	j.plain = binary.BigEndian.AppendUint64(j.plain, f.sequence)
	j.plain = append(j.plain, f.dir, f.flags&flagMore)
	j.plain = binary.BigEndian.AppendUint64(j.plain, uint64(f.at.UnixNano()))
	j.plain = binary.BigEndian.AppendUint32(j.plain, uint32(len(data)))
	j.plain = append(j.plain, data...)
	if len(j.plain) < sealedBlock {
		return nil
	}
	return j.flush()
}

// flush writes what is held as zstd frames of at most sealedBlock each, which a
// reader can open one by one.
func (j *sealing) flush() error {
	for b := j.plain; len(b) > 0; {
		n := min(len(b), sealedBlock)
		j.packed = j.zstd.EncodeAll(b[:n], j.packed[:0])
		b = b[n:]
		if _, err := j.box.Write(j.packed); err != nil {
			return err
		}
	}
	if clear(j.plain); cap(j.plain) > 2*sealedBlock {
		j.plain = make([]byte, 0, sealedBlock)
	}
	j.plain = j.plain[:0]
	return nil
}

// finish makes the file whole and durable.
func (j *sealing) finish() error {
	if err := j.flush(); err != nil {
		return err
	}
	if err := j.box.Close(); err != nil {
		return err
	}
	return errors.Join(j.out.Sync(), j.out.Close())
}

// abandon removes a file that did not get its name.
func (j *sealing) abandon() error {
	if j.placed || j.out == nil {
		return nil
	}
	j.out.Close() // it may be closed already, and is of no use
	return ignoreMissing(os.Remove(j.out.Name()))
}

// Attributes of a leaf that binds a sealed file.
const (
	attrSize    = "size"    // of the file
	attrPayload = "payload" // bytes in it
)

func (j *sealing) leaf() *api.Event {
	return &api.Event{Kind: api.EventArchived, Session: j.session, FramesFirst: j.first, FramesLast: j.last, FramesSHA256: hex.EncodeToString(j.frames.Sum(nil)),
		Object: sealedPath(j.session, j.first), Digest: "sha256:" + hex.EncodeToString(j.digest.Sum(nil)),
		Attrs: map[string]string{attrSize: strconv.FormatInt(j.size, 10), attrPayload: strconv.FormatInt(j.bytes, 10)}}
}

// segmentNumber is the number in a segment's name, 0 of anything else.
func segmentNumber(name string) uint64 {
	_, base, _ := strings.Cut(name, "/")
	n, err := strconv.ParseUint(strings.TrimSuffix(base, ".log"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// opener opens the frames of a stretch in order.
type opener struct {
	aead cipher.AEAD
	prev [tagSize]byte
	aad  []byte
}

// payload is what a frame holds.
func (o *opener) payload(f frame) ([]byte, error) {
	nonce := frameNonce(f.sequence)
	o.aad = append(append(o.aad[:0], f.head...), o.prev[:]...)
	box, err := o.aead.Open(nil, nonce[:], f.box, o.aad)
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d does not open with the session's key", ErrTampered, f.sequence)
	}
	copy(o.prev[:], f.box[len(f.box)-tagSize:])
	if f.flags&flagCompressed != 0 {
		box, err = decompress(box, f.size)
	}
	if err != nil || len(box) != f.size {
		return nil, fmt.Errorf("%w: frame %d holds %d bytes, it says %d", ErrTampered, f.sequence, len(box), f.size)
	}
	return box, nil
}

// A frame whose stretch is sealed shrinks to a record of its digest: the frame's
// head, its tag, and the SHA-256 of the whole frame as it was. All that leaves
// bind can still be checked, and the frames after it can be opened.
const digestFixed = tagSize + sha256.Size

func appendDigest(b []byte, f frame, body []byte) []byte {
	sum := sha256.Sum256(body)
	rec := append(bytes.Clone(f.head), f.box[len(f.box)-tagSize:]...)
	return appendRecord(b, recordDigest, append(rec, sum[:]...))
}

// digested is a parsed digest record; its fields alias the record.
type digested struct {
	frame    // without a box
	tag, sum []byte
}

func parseDigest(b []byte) (d digested, err error) {
	if len(b) < frameFixed || len(b) != frameFixed+int(b[0])+digestFixed {
		return d, errFrame
	}
	n := len(b) - digestFixed
	d.tag, d.sum = b[n:n+tagSize], b[n+tagSize:]
	if d.frame, err = parseHead(b[:n]); err == nil && d.dir == dirKey {
		err = errFrame // a key frame is never reduced
	}
	return d, err
}

// reduce replaces finished segments of which everything is sealed or shredded
// by what is left to check: key frames, and digests for the rest. The batches
// keep their numbers; their marks say how many leaves the log held then, which
// tells a reader of an older timeline that it cannot know why.
func (s *sealer) reduce(ctx context.Context) error {
	current := s.l.currentSegment()
	list, err := s.l.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range streamFiles(list, payload) {
		n := segmentNumber(name)
		if n >= current || s.keep[n] {
			continue
		}
		if err := s.reduceOne(ctx, n, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := s.rest(ctx, maxSealedRun); err != nil {
			return err
		}
	}
	return nil
}

func (s *sealer) reduceOne(ctx context.Context, n uint64, name string) error {
	path := s.l.path(name)
	if done, err := isReduced(path); err != nil || done {
		s.keep[n] = done
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	leaves := s.l.Size()
	gone := s.knownSealed(ctx)
	small, again, err := reduced(data, leaves, gone)
	switch {
	case err != nil:
		return err
	case small == nil:
		s.keep[n] = !again
		return nil
	}
	s.keep[n] = true
	there, linked := os.Readlink(path)
	if err := writeAtomic(path, small, true); err != nil || linked != nil {
		return err
	}
	return os.Remove(there)
}

// isReduced looks at a segment's last mark.
func isReduced(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() < markSize {
		return false, err
	}
	var end [markSize]byte
	if _, err := f.ReadAt(end[:], st.Size()-markSize); err != nil {
		return false, err
	}
	return end[4] == recordMark && binary.BigEndian.Uint32(end[:]) == 1+markBody && binary.BigEndian.Uint64(end[recordHeader+12:]) > 0, nil
}

// fate is what became of a frame's payload elsewhere.
type fate byte

const (
	fateHot  fate = iota // it is only here, and will stay
	fateOpen             // it may be sealed later
	fateElsewhere
)

// reduced is a segment without what lies elsewhere; nil if something in it does
// not. again says that it may do so later.
func reduced(data []byte, leaves uint64, where func(session string, frame uint64) (fate, error)) (small []byte, again bool, err error) {
	stays := false
	_, _, err = parseSegment(data, payload, func(h segmentHeader, b *batch) error {
		if small == nil {
			small = h.append(nil)
		}
		var records []byte
		for _, rec := range b.records {
			f, err := parseFrame(rec.body)
			if err != nil {
				return err
			}
			if f.dir == dirKey {
				records = appendRecord(records, recordFrame, rec.body)
				continue
			}
			at, err := where(string(f.session), f.sequence)
			if err != nil {
				return err
			}
			stays, again = stays || at != fateElsewhere, again || at == fateOpen
			records = appendDigest(records, f, rec.body)
		}
		small = append(small, appendMark(records, mark{first: b.first, count: b.count, frames: leaves})...)
		return nil
	})
	if err != nil || stays {
		return nil, again, err
	}
	return small, false, nil
}

// knownSealed looks up where the payload of frames is, a session at a time.
func (s *sealer) knownSealed(ctx context.Context) func(session string, frame uint64) (fate, error) {
	type known struct {
		ranges    [][2]uint64
		shredded  bool
		unsettled bool
	}
	sessions := map[string]*known{}
	return func(session string, frame uint64) (fate, error) {
		k := sessions[session]
		if k == nil {
			k = &known{unsettled: s.waits(session)}
			events, err := s.l.Search(ctx, api.EventQuery{Session: session, Kind: []string{api.EventArchived, api.EventShredded, api.EventSessionClose}, Limit: 1 << 20})
			if err != nil {
				return fateHot, err
			}
			closed := false
			for _, e := range events {
				closed = closed || e.Kind == api.EventSessionClose
				k.shredded = k.shredded || e.Kind == api.EventShredded
				if e.Kind == api.EventArchived {
					k.ranges = append(k.ranges, [2]uint64{e.FramesFirst, e.FramesLast})
				}
			}
			k.unsettled = k.unsettled || !closed
			sessions[session] = k
		}
		sealed := slices.ContainsFunc(k.ranges, func(r [2]uint64) bool { return frame >= r[0] && frame <= r[1] })
		switch {
		case k.shredded || sealed:
			return fateElsewhere, nil
		case k.unsettled:
			return fateOpen, nil
		}
		return fateHot, nil
	}
}

// waits reports whether stretches of a session wait to be sealed.
func (s *sealer) waits(session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.queue, func(st *stretch) bool { return st.session == session })
}

// currentSegment is the number of the payload segment that is written now.
func (l *Log) currentSegment() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.places[payload].number
}

// Shred destroys the recording of a session that is over: a leaf says who asked
// for it and why, and then every copy that this log has of its wrapped key, and
// its sealed files, are deleted. Copies elsewhere must be deleted by whoever made
// them. The event names Session, Principal, Name, Request and the Reason.
func (l *Log) Shred(ctx context.Context, e api.Event) error {
	if !sessionName.MatchString(e.Session) {
		return fmt.Errorf("evidence: no session can be named %q", e.Session)
	}
	e.Kind = api.EventShredded
	ticket, err := l.Append(&e)
	if err == nil {
		err = l.Wait(ctx, ticket)
	}
	if err != nil {
		return fmt.Errorf("evidence: shred the recording of session %s: %w", e.Session, err)
	}
	l.sealer.pass.Lock() // not while a pass writes files of it
	defer l.sealer.pass.Unlock()
	l.sealer.drop(e.Session)
	clear(l.sealer.keep) // segments may be reduced now
	if err := l.erase(e.Session); err != nil {
		return fmt.Errorf("evidence: shred the recording of session %s: %w", e.Session, err)
	}
	return nil
}

// erase deletes what is sealed of a session, and last what opens it.
func (l *Log) erase(session string) error {
	names, err := filepath.Glob(l.path("sealed/" + session + ".*.age"))
	errs := []error{err}
	for _, name := range names {
		if of, _, ok := parseSealedPath("sealed/" + filepath.Base(name)); ok && of == session {
			errs = append(errs, ignoreMissing(os.Remove(name)))
		}
	}
	if there, err := os.Readlink(l.path(keyPath(session))); err == nil { // on the spill volume
		errs = append(errs, ignoreMissing(os.Remove(there)))
	}
	errs = append(errs, ignoreMissing(os.Remove(l.path(keyPath(session)))))
	return errors.Join(append(errs, l.cfg.disk.syncDir(l.path("keys")), l.cfg.disk.syncDir(l.path("sealed")))...)
}

// Recorded names the sessions whose recording can still be opened and was begun
// before a time, for a retention period to end them.
func (l *Log) Recorded(before time.Time) ([]string, error) {
	list, err := os.ReadDir(l.path("keys"))
	if err != nil {
		return nil, fmt.Errorf("evidence: list the recordings: %w", err)
	}
	var names []string
	for _, f := range list {
		name, ok := strings.CutSuffix(f.Name(), ".key")
		info, err := f.Info()
		if ok && sessionName.MatchString(name) && err == nil && info.ModTime().Before(before) {
			names = append(names, name)
		}
	}
	return names, nil
}

// settleCrash ends what a crash left half done: recordings that were to be
// shredded, and sealed files without a leaf, whose frames are still there.
func (l *Log) settleCrash(ctx context.Context) error {
	shredded, err := l.Search(ctx, api.EventQuery{Kind: []string{api.EventShredded}, Limit: 1 << 24})
	if err != nil {
		return err
	}
	for _, e := range shredded {
		if _, err := os.Lstat(l.path(keyPath(e.Session))); err == nil {
			if err := l.erase(e.Session); err != nil {
				return err
			}
		}
	}
	list, err := os.ReadDir(l.path("sealed"))
	if err != nil {
		return err
	}
	for _, f := range list {
		name := "sealed/" + f.Name()
		session, _, ok := parseSealedPath(name)
		if !ok {
			continue
		}
		if slices.ContainsFunc(shredded, func(e api.Event) bool { return e.Session == session }) {
			if err := os.Remove(l.path(name)); err != nil {
				return err
			}
			continue
		}
		bound, err := l.Search(ctx, api.EventQuery{Session: session, Kind: []string{api.EventArchived}, Limit: 1 << 20})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(bound, func(e api.Event) bool { return e.Object == name }) {
			if err := os.Remove(l.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}
