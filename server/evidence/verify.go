package evidence

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// Options say what a verification may trust. All of it must come from
// elsewhere than the evidence: pinned at login, or handed over.
type Options struct {
	LogKey string // the log's verifier key (vkey); required
	// Seen are checkpoints of this log that the verifier remembers, as signed
	// notes. The log must still hold what they cover: this is what tells a
	// rollback or a rewrite by whoever has the log's key.
	Seen [][]byte
	// Policy names the witnesses that must have cosigned. Nil trusts the log's key
	// alone.
	Policy *Policy
	// Ask asks those of them whose URL the policy knows for what they know now;
	// nil asks nobody.
	Ask *http.Client
	// Fresh is how old the newest leaf, and with a Policy the newest word of the
	// witnesses, may be at Now; 0 does not care.
	Fresh time.Duration
	Now   time.Time
	// CAs are the certificate authorities that approvers' certificates must
	// chain to; nil leaves that unknown.
	CAs *x509.CertPool
	// Approvers are the approvers' own keys, enrolled out of band. An answer
	// signed by one of them is proved, whoever runs the broker.
	Approvers []Approver
	// SkipRecordings leaves the recordings' frames unread.
	SkipRecordings bool
}

// Approver is a key that somebody enrolled as an approver's.
type Approver struct {
	Name string // who it belongs to, as whoever enrolled it says
	Key  ssh.PublicKey
}

// Status is what a verification found, worst first.
type Status int

// Statuses are exit codes of `audit verify`.
const (
	Intact     Status = 0
	Tampered   Status = 1
	Incomplete Status = 2
	Stale      Status = 3
)

func (s Status) String() string {
	switch s {
	case Intact:
		return "intact"
	case Tampered:
		return "tampered"
	case Incomplete:
		return "incomplete"
	case Stale:
		return "stale"
	}
	return "status " + strconv.Itoa(int(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Problem is one thing that is wrong.
type Problem struct {
	Status Status  `json:"status"`
	File   string  `json:"file,omitempty"`
	Offset int64   `json:"offset,omitempty"`
	Index  *uint64 `json:"index,omitempty"` // of the leaf
	What   string  `json:"what"`
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Status.String() + ": ")
	if p.File != "" {
		b.WriteString(p.File)
		if p.Offset > 0 {
			fmt.Fprintf(&b, " at offset %d", p.Offset)
		}
		b.WriteString(": ")
	}
	if p.Index != nil {
		fmt.Fprintf(&b, "leaf %d: ", *p.Index)
	}
	return b.String() + p.What
}

// Report is what a verification established.
type Report struct {
	Status      Status    `json:"status"`
	Origin      string    `json:"origin"`
	Leaves      uint64    `json:"leaves"`               // that were read and checked
	Signed      uint64    `json:"signed"`               // of these, covered by the signed checkpoint
	Witnessed   uint64    `json:"witnessed,omitempty"`  // of these, covered by what a quorum of witnesses cosigned
	WitnessedAt time.Time `json:"witnessedAt,omitzero"` // by then they had seen it
	Root        string    `json:"root,omitempty"`       // of the signed checkpoint, base64
	First       time.Time `json:"first,omitzero"`
	Last        time.Time `json:"last,omitzero"`
	Frames      uint64    `json:"frames"`
	Sessions    int       `json:"sessions"`
	Problems    []Problem `json:"problems,omitempty"`
	Proved      []string  `json:"proved,omitempty"`   // holds whoever runs the broker, given what was trusted
	Asserted    []string  `json:"asserted,omitempty"` // the broker says so
	Unknown     []string  `json:"unknown,omitempty"`  // could not be told
	Checkpoint  []byte    `json:"-"`                  // the signed note; remember it for the next time
}

// maxProblems keeps a report of a ruined log readable.
const maxProblems = 100

func (r *Report) add(p Problem) {
	if r.Status == Intact || p.Status < r.Status {
		r.Status = p.Status
	}
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, p)
	}
}

// Verify reads the evidence of a source and checks all of it: the checkpoint's
// signature, every leaf against the tree and its order, tiles and bundles,
// what leaves say of each other, and the recordings' ciphertexts. It trusts
// only what Options name. An error means that it could not be done; what is
// wrong with the evidence stands in the report.
func Verify(ctx context.Context, src Source, o Options) (*Report, error) {
	if o.LogKey == "" {
		return nil, errors.New("verify the evidence: no log key; it is pinned at login, or given by the server's operator (hoopctl prints it at start)")
	}
	if o.Policy != nil && len(o.Policy.Logs) > 0 && !slices.Contains(o.Policy.Logs, o.LogKey) {
		return nil, errors.New("verify the evidence: the policy does not name this log's key")
	}
	v := &verifier{ctx: ctx, src: src, o: o, report: &Report{}, files: map[string]int64{}, ring: single(o.LogKey)}
	if err := v.run(); err != nil {
		return nil, fmt.Errorf("verify the evidence: %w", err)
	}
	return v.report, nil
}

type verifier struct {
	ctx    context.Context
	src    Source
	o      Options
	report *Report
	files  map[string]int64 // path to size

	ring     ring // the log's keys, from the trusted one on
	cp       Checkpoint
	signed   bool         // cp is valid
	marks    []rootMark   // sizes at which the root is known, ascending
	tree     tree         // over the leaves as read
	levels   []*levelFile // the tree's files, by level
	suspects []Problem    // where they and the log disagree; the root says who is wrong
	rootBad  bool
	failed   error // to read one of them
	scratch  []byte
	digests  []tlog.Hash // of the records that come next, as far as they were hashed ahead
	leaves   leafChecker
	frames   uint64 // that the timeline's marks need
	cosigned uint64 // size of the cosigned checkpoint
	vouched  vouched
}

// rootMark is a root that somebody signed for a size.
type rootMark struct {
	size uint64
	root tlog.Hash
	what string
}

func (v *verifier) run() error {
	if err := v.readHeads(); err != nil {
		return err
	}
	list, err := v.src.List(v.ctx)
	if err != nil {
		return err
	}
	v.sort(list)
	v.leaves = newLeafChecker(v.report, v.o)
	v.tree.hashed = v.checkHash
	defer v.closeLevels()
	if err := v.walk(timeline, v.leafBatch); err != nil {
		return err
	}
	if err := v.finishTimeline(); err != nil {
		return err
	}
	if v.o.SkipRecordings {
		v.report.Unknown = append(v.report.Unknown, "recordings were not read")
	} else if err := v.checkFrames(); err != nil {
		return err
	}
	v.judge()
	return nil
}

// readHeads reads the checkpoint, and those remembered.
func (v *verifier) readHeads() error {
	if err := v.readRing(); err != nil {
		return err
	}
	if err := v.readCosigned(); err != nil {
		return err
	}
	note, err := readFile(v.ctx, v.src, "checkpoint", 1<<20)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.report.add(Problem{Status: Incomplete, File: "checkpoint", What: "there is none: nothing says how long the log is"})
	case err != nil:
		return err
	default:
		v.cp, err = v.ring.parse(note)
		if err != nil {
			v.report.add(Problem{Status: Tampered, File: "checkpoint", What: err.Error()})
			break
		}
		v.signed = true
		v.report.Checkpoint, v.report.Signed, v.report.Root = note, v.cp.Size, v.cp.Root.String()
		v.marks = append(v.marks, rootMark{v.cp.Size, v.cp.Root, "the signed checkpoint"})
		v.vouch("checkpoint", v.cp)
		if v.cosigned > v.cp.Size {
			v.report.add(Problem{Status: Tampered, File: "checkpoint",
				What: fmt.Sprintf("rolled back: it covers %d leaves, the cosigned one beside it %d", v.cp.Size, v.cosigned)})
		}
	}
	for _, note := range v.o.Seen {
		cp, err := v.ring.parse(note)
		if err != nil {
			return fmt.Errorf("a remembered checkpoint: %w", err)
		}
		v.marks = append(v.marks, rootMark{cp.Size, cp.Root, "a remembered checkpoint"})
		if v.signed && cp.Size > v.cp.Size {
			v.report.add(Problem{Status: Tampered, File: "checkpoint",
				What: fmt.Sprintf("rolled back: it covers %d leaves, an earlier look saw %d", v.cp.Size, cp.Size)})
		}
	}
	slices.SortStableFunc(v.marks, func(a, b rootMark) int { return cmp.Compare(a.size, b.size) })
	return v.consult()
}

// readRing follows changes of the log's key from the trusted one.
func (v *verifier) readRing() error {
	r, err := readRing(v.ctx, v.src, v.o.LogKey)
	if err != nil && !errors.Is(err, ErrTampered) {
		return err
	}
	if err != nil {
		v.report.add(Problem{Status: Tampered, What: err.Error()})
	}
	v.ring = r
	v.marks = append(v.marks, r.marks...)
	if n := len(r.epochs) - 1; n > 0 {
		v.report.Proved = append(v.report.Proved, "the log's key was changed "+counted(n, "time", "times")+" since the one that you trust, each time under the key before")
	}
	return nil
}

// sort books the files and names those that do not belong.
func (v *verifier) sort(list []api.EvidenceFile) {
	var strange []string
	for _, f := range list {
		v.files[f.Path] = f.Size
		if !expected(f.Path) {
			strange = append(strange, f.Path)
		}
	}
	slices.Sort(strange)
	for _, s := range strange {
		if top := path.Dir(s); top == "log" || top == "frames" || top == "sealed" || top == "rotation" || strings.HasPrefix(s, "tile/") {
			v.report.add(Problem{Status: Tampered, File: s, What: "does not belong here"})
		} else {
			v.report.Unknown = append(v.report.Unknown, s+" is no part of the evidence")
		}
	}
}

// expected reports whether a file is of a kind that the log writes.
func expected(name string) bool {
	top, rest, _ := strings.Cut(name, "/")
	switch top {
	case "checkpoint", cosignedPath:
		return rest == ""
	case "tile":
		n, err := strconv.Atoi(rest)
		return err == nil && n >= 0 && n < maxLevels && name == levelPath(n)
	case "log", "frames":
		n, err := strconv.ParseUint(strings.TrimSuffix(rest, ".log"), 10, 64)
		return err == nil && segmentName(n) == rest
	}
	if top == "rotation" {
		return rotationName.MatchString(name)
	}
	if top == "sealed" {
		_, _, ok := parseSealedPath(name)
		return ok || strings.HasPrefix(rest, ".new-")
	}
	ext := path.Ext(name)
	return ext == ".key" || ext == ".db" || ext == ".lock" || strings.HasPrefix(path.Base(name), ".new-")
}

// segments are a stream's segment numbers, ascending.
func (v *verifier) segments(s stream) []uint64 {
	var numbers []uint64
	for name := range v.files {
		if rest, ok := strings.CutPrefix(name, s.dir()+"/"); ok && expected(name) {
			n, _ := strconv.ParseUint(strings.TrimSuffix(rest, ".log"), 10, 64)
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// walk calls take for each batch of a stream, and reports where the stream
// does not hold together.
func (v *verifier) walk(s stream, take func(file string, h segmentHeader, b *batch) error) error {
	numbers := v.segments(s)
	next, want := uint64(0), uint64(1)
	ctx, stop := context.WithCancel(v.ctx)
	defer stop()
	ahead := readAhead(ctx, v.src, s, numbers)
	for i, n := range numbers {
		name := s.dir() + "/" + segmentName(n)
		if n != want {
			v.report.add(Problem{Status: Tampered, File: s.dir() + "/" + segmentName(want), What: "the segment is missing"})
		}
		want = n + 1
		first := true
		read, ok := <-ahead
		if !ok {
			return context.Cause(v.ctx)
		}
		err := v.readSegment(name, s, i == len(numbers)-1, read, func(h segmentHeader, b *batch) error {
			if first && (h.number != n || h.first != next) {
				v.report.add(Problem{Status: Tampered, File: name,
					What: fmt.Sprintf("it is segment %d and begins with %s %d; segment %d with %d belongs here", h.number, s.unit(), h.first, n, next)})
			}
			first = false
			next = b.first + uint64(b.count)
			return take(name, h, b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rereads is how often the end of a log that a server is writing is read again.
const rereads = 5

// readSegment reads one segment. The last one may be in the middle of a write;
// it is read again as long as it changes.
func (v *verifier) readSegment(name string, s stream, last bool, read readSegment, take func(segmentHeader, *batch) error) error {
	data, err := read.data, read.err
	v.digests = read.digests
	if errors.Is(err, fs.ErrNotExist) {
		v.report.add(Problem{Status: Incomplete, File: name, What: "the file vanished while it was verified"})
		return nil
	}
	if err != nil {
		return err
	}
	nothing := func(segmentHeader, *batch) error { return nil }
	for range rereads {
		var torn *tornError
		if !last {
			break
		}
		if _, _, err = parseSegment(data, s, nothing); !errors.As(err, &torn) {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-v.ctx.Done():
			return context.Cause(v.ctx)
		}
		again, err := readFile(v.ctx, v.src, name, maxSegment)
		if err != nil || bytes.Equal(again, data) {
			break
		}
		data, v.digests = again, nil
	}
	h, end, err := parseSegment(data, s, take)
	var torn *tornError
	switch {
	case err == nil:
		if h.node != "" && v.signed && Origin(h.node) != v.cp.Origin {
			v.report.add(Problem{Status: Tampered, File: name, What: fmt.Sprintf("it belongs to node %q, the checkpoint to log %q", h.node, v.cp.Origin)})
		}
	case errors.As(err, &torn) && last && !torn.within:
		v.report.add(Problem{Status: Incomplete, File: name, Offset: int64(end),
			What: fmt.Sprintf("%v. A crash leaves this; the server cuts it, and says so, when it starts", torn)})
	case errors.As(err, &torn):
		v.report.add(Problem{Status: Tampered, File: name, Offset: int64(end), What: torn.Error()})
	case end == 0 && last && len(bytes.TrimRight(data, "\x00")) == 0:
		// created, and the crash came before its first batch
	case end == 0:
		v.report.add(Problem{Status: Tampered, File: name, What: err.Error()})
	default:
		return err
	}
	return nil
}

// leafBatch takes the leaves of one batch.
func (v *verifier) leafBatch(file string, h segmentHeader, b *batch) error {
	if err := context.Cause(v.ctx); err != nil {
		return err
	}
	for _, rec := range b.records {
		if rec.kind == recordOpen {
			v.leaves.checkOpen(file, rec)
			continue
		}
		if err := v.leaf(file, rec); err != nil {
			return err
		}
	}
	if b.frames < v.frames {
		v.report.add(Problem{Status: Tampered, File: file, Offset: int64(b.start), What: "the count of frames goes back"})
	}
	v.frames = b.frames
	return nil
}

func (v *verifier) leaf(file string, rec record) error {
	v.leaves.check(file, rec, v.tree.size)
	v.tree.add(v.digest(rec))
	v.checkRoots()
	return v.failed
}

// checkRoots compares the root at the sizes that somebody signed.
func (v *verifier) checkRoots() {
	for len(v.marks) > 0 && v.marks[0].size <= v.tree.size {
		m := v.marks[0]
		v.marks = v.marks[1:]
		if m.size == v.tree.size && v.tree.root() != m.root {
			v.rootBad = true
			v.report.add(Problem{Status: Tampered, What: fmt.Sprintf("the first %d leaves do not give the root of %s: something in them was changed", m.size, m.what)})
		}
	}
}

// maxLevels is the height of the tallest tree in levels of tiles.
const maxLevels = 8

// levelFile is the file of one level of the tree, read along with the log.
type levelFile struct {
	name string
	file io.ReadCloser // nil: there is none
	r    *bufio.Reader
	done bool // it ended before the log did
	bad  bool // a difference was found
}

// checkHash compares a hash with what the level's file says it is.
func (v *verifier) checkHash(level int, n uint64, h tlog.Hash) {
	if level >= len(v.levels) {
		v.levels = append(v.levels, v.openLevel(level))
	}
	f := v.levels[level]
	if f.done || f.bad {
		return
	}
	said, err := f.r.Peek(tlog.HashSize)
	switch {
	case len(said) == 0 && errors.Is(err, io.EOF):
		f.done = true
		v.missing(f.name, (n+1)<<(tileHeight*level))
		return
	case err != nil && !errors.Is(err, io.EOF):
		v.failed = fmt.Errorf("read %s: %w", f.name, err)
		return
	}
	if !bytes.Equal(said, h[:]) {
		f.bad = true
		p := Problem{File: f.name, Offset: int64(n) * tlog.HashSize}
		if level == 0 {
			p.Index = &n
		}
		v.suspects = append(v.suspects, p)
	}
	f.r.Discard(len(said)) // they are buffered: it cannot fail
}

func (v *verifier) openLevel(level int) *levelFile {
	f := &levelFile{name: levelPath(level)}
	if size, ok := v.files[f.name]; ok {
		file, err := v.src.Open(v.ctx, f.name)
		if err == nil { // what was added since the log was listed may be ahead of what is read of it
			f.file, f.r = file, bufio.NewReaderSize(io.LimitReader(file, size), 64<<10)
			return f
		}
		v.failed = err
	}
	f.done = true
	v.missing(f.name, 1<<(tileHeight*level))
	return f
}

// missing reports a tree's file that lacks a hash which a tree of size leaves has.
func (v *verifier) missing(name string, size uint64) {
	if v.signed && size <= v.cp.Size {
		v.report.add(Problem{Status: Incomplete, File: name, What: "hashes of the tree are missing; the server rebuilds them from the log"})
	}
}

func (v *verifier) closeLevels() {
	for _, f := range v.levels {
		if f.file != nil {
			f.file.Close() // it was only read
		}
	}
}

// checkLevelEnds reports what the tree's files hold beyond the log.
func (v *verifier) checkLevelEnds() {
	read := map[string]bool{}
	for _, f := range v.levels {
		read[f.name] = true
		if f.file == nil || f.done || f.bad {
			continue
		}
		if _, err := f.r.Peek(1); err == nil {
			v.beyond(f.name)
		}
	}
	for name, size := range v.files {
		if strings.HasPrefix(name, "tile/") && expected(name) && !read[name] && size > 0 {
			v.beyond(name)
		}
	}
}

// beyond reports hashes of leaves that the log does not hold. It is no
// problem if the log has begun a new segment since it was listed.
func (v *verifier) beyond(name string) {
	if list, err := v.src.List(v.ctx); err == nil && len(streamFiles(list, timeline)) > len(v.segments(timeline)) {
		return
	}
	v.report.add(Problem{Status: Tampered, File: name, What: "it holds hashes of more leaves than the log has"})
}

// finishTimeline says what the end of the timeline tells.
func (v *verifier) finishTimeline() error {
	r := v.report
	r.Leaves = v.tree.size
	v.leaves.finish()
	for _, m := range v.marks {
		if m.size > v.tree.size {
			r.add(Problem{Status: Tampered, What: fmt.Sprintf("the log holds %d leaves, %s covers %d: the rest was cut off", v.tree.size, m.what, m.size)})
		} else if m.size == 0 && v.tree.size == 0 && m.root != v.tree.root() {
			r.add(Problem{Status: Tampered, What: "the root of the empty log is wrong"})
		}
	}
	for _, s := range v.suspects {
		s.Status, s.What = Tampered, "it differs from the log, whose root is as signed: the file was changed"
		if v.rootBad {
			s.What = "it differs from the log: one of them was changed"
		}
		r.add(s)
	}
	v.checkLevelEnds()
	return nil
}

// judge puts what was found into words.
func (v *verifier) judge() {
	r := v.report
	r.Origin = v.cp.Origin
	if v.o.Fresh > 0 && r.Last.Before(v.o.Now.Add(-v.o.Fresh)) {
		r.add(Problem{Status: Stale, What: fmt.Sprintf("the newest leaf is of %s: this is not the log as it is now, or its server stands still", r.Last.Format(time.RFC3339))})
	}
	if r.Status == Intact || r.Status == Stale {
		r.Proved = append(r.Proved, fmt.Sprintf("the checkpoint covers what log %s signed, in order, whole: %s", v.cp.Origin, counted(int(v.cp.Size), "leaf", "leaves")))
		if len(v.o.Seen) > 0 {
			r.Proved = append(r.Proved, "nothing that an earlier look saw was changed or removed")
		}
	}
	v.judgeWitnesses()
	if len(v.o.Seen) == 0 && v.vouched.size == 0 {
		r.Unknown = append(r.Unknown, "whether the operator rewrote the log before anyone else remembered it: no earlier checkpoint and no witness was given (intact as far as this log key can tell)")
	}
	if extra := r.Leaves - min(r.Leaves, v.cp.Size); extra > 0 && v.signed {
		r.Asserted = append(r.Asserted, fmt.Sprintf("%d leaves after the checkpoint: in order, not signed yet", extra))
	}
}

// readSegment is a segment's bytes, and the hashes of its leaves or frames in
// order: reading and hashing take as long as everything else, and need nothing
// of it, so they are done one segment ahead.
type readSegment struct {
	data    []byte
	digests []tlog.Hash
	err     error
}

// readAhead reads segments in order. The channel is closed after the last one,
// or when ctx ends.
func readAhead(ctx context.Context, src Source, s stream, numbers []uint64) <-chan readSegment {
	out := make(chan readSegment) // unbuffered: one is read while one is checked
	go func() {
		defer close(out)
		for _, n := range numbers {
			var r readSegment
			if r.data, r.err = readFile(ctx, src, s.dir()+"/"+segmentName(n), maxSegment); r.err == nil {
				r.digests = digestsOf(r.data, s)
			}
			select {
			case out <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// digestsOf hashes a segment's leaves or frames, as far as it can be read.
func digestsOf(data []byte, s stream) []tlog.Hash {
	var out []tlog.Hash
	var scratch []byte
	// How the segment ends is for the verifier to say, who reads it again.
	_, _, _ = parseSegment(data, s, func(_ segmentHeader, b *batch) error {
		for _, rec := range b.records {
			switch rec.kind {
			case recordLeaf:
				out = append(out, leafHash(rec.body, &scratch))
			case recordFrame:
				out = append(out, sha256.Sum256(rec.body))
			}
		}
		return nil
	})
	return out
}

// digest is the hash of a leaf or a frame: the one made ahead, which must be
// asked for in order.
func (v *verifier) digest(rec record) tlog.Hash {
	if len(v.digests) > 0 {
		h := v.digests[0]
		v.digests = v.digests[1:]
		return h
	}
	if rec.kind == recordLeaf {
		return leafHash(rec.body, &v.scratch)
	}
	return sha256.Sum256(rec.body)
}
