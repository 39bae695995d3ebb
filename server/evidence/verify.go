package evidence

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

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
	// Fresh is how old the newest leaf may be at Now; 0 does not care.
	Fresh time.Duration
	Now   time.Time
	// CAs are the certificate authorities that approvers' certificates must
	// chain to; nil leaves that unknown.
	CAs *x509.CertPool
	// Approvers are the approvers' own keys, enrolled out of band. An answer
	// signed by one of them is proved, whoever runs the broker.
	Approvers []crypto.PublicKey
	// SkipRecordings leaves the recordings' frames unread.
	SkipRecordings bool
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
	Status     Status    `json:"status"`
	Origin     string    `json:"origin"`
	Leaves     uint64    `json:"leaves"`         // that were read and checked
	Signed     uint64    `json:"signed"`         // of these, covered by the signed checkpoint
	Root       string    `json:"root,omitempty"` // of the signed checkpoint, base64
	First      time.Time `json:"first,omitzero"`
	Last       time.Time `json:"last,omitzero"`
	Frames     uint64    `json:"frames"`
	Sessions   int       `json:"sessions"`
	Problems   []Problem `json:"problems,omitempty"`
	Proved     []string  `json:"proved,omitempty"`   // holds whoever runs the broker, given what was trusted
	Asserted   []string  `json:"asserted,omitempty"` // the broker says so
	Unknown    []string  `json:"unknown,omitempty"`  // could not be told
	Checkpoint []byte    `json:"-"`                  // the signed note; remember it for the next time
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
	v := &verifier{ctx: ctx, src: src, o: o, report: &Report{}, files: map[string]int64{}}
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

	cp       Checkpoint
	signed   bool                     // cp is valid
	marks    []rootMark               // sizes at which the root is known, ascending
	tree     tree                     // over the leaves as read
	bundle   []byte                   // entries since the last whole bundle
	partial  map[uint64][]partialTile // by the size of tree at which they stand
	suspects []Problem                // where a tile and the log disagree; the root says who is wrong
	rootBad  bool
	failed   error // to read a tile
	scratch  []byte
	leaves   leafChecker
	frames   uint64 // that the timeline's marks need
}

// partialTile is a partial tile's file; level -1 is a bundle of entries.
type partialTile struct {
	name  string
	level int
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
	v.tree.full = v.checkTile
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
	note, err := readFile(v.ctx, v.src, "checkpoint", 1<<20)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.report.add(Problem{Status: Incomplete, File: "checkpoint", What: "there is none: nothing says how long the log is"})
	case err != nil:
		return err
	default:
		v.cp, err = ParseCheckpoint(note, v.o.LogKey)
		if err != nil {
			v.report.add(Problem{Status: Tampered, File: "checkpoint", What: err.Error()})
			break
		}
		v.signed = true
		v.report.Checkpoint, v.report.Signed, v.report.Root = note, v.cp.Size, v.cp.Root.String()
		v.marks = append(v.marks, rootMark{v.cp.Size, v.cp.Root, "the signed checkpoint"})
	}
	for _, note := range v.o.Seen {
		cp, err := ParseCheckpoint(note, v.o.LogKey)
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
		if top := path.Dir(s); top == "log" || top == "frames" || strings.HasPrefix(s, "tile/") {
			v.report.add(Problem{Status: Tampered, File: s, What: "does not belong here"})
		} else {
			v.report.Unknown = append(v.report.Unknown, s+" is no part of the evidence")
		}
	}
	v.partial = map[uint64][]partialTile{}
	for name := range v.files {
		level, n, width, ok := parseTilePath(name)
		if !ok || width == tileWidth {
			continue
		}
		t, size := partialTile{name, -1}, n*tileWidth+uint64(width)
		if level != "entries" {
			t.level, _ = strconv.Atoi(level)
			size <<= tileHeight * t.level
		}
		v.partial[size] = append(v.partial[size], t)
	}
}

// expected reports whether a file is of a kind that the log writes.
func expected(name string) bool {
	top, rest, _ := strings.Cut(name, "/")
	switch top {
	case "checkpoint":
		return rest == ""
	case "tile":
		level, _, _, ok := parseTilePath(name)
		n, err := strconv.ParseUint(level, 10, 6)
		return ok && (level == "entries" || err == nil && strconv.FormatUint(n, 10) == level) || strings.HasPrefix(path.Base(name), ".new-")
	case "log", "frames":
		n, err := strconv.ParseUint(strings.TrimSuffix(rest, ".log"), 10, 64)
		return err == nil && segmentName(n) == rest
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
	for i, n := range numbers {
		name := s.dir() + "/" + segmentName(n)
		if n != want {
			v.report.add(Problem{Status: Tampered, File: s.dir() + "/" + segmentName(want), What: "the segment is missing"})
		}
		want = n + 1
		first := true
		err := v.readSegment(name, s, i == len(numbers)-1, func(h segmentHeader, b *batch) error {
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
func (v *verifier) readSegment(name string, s stream, last bool, take func(segmentHeader, *batch) error) error {
	data, err := readFile(v.ctx, v.src, name, maxSegment)
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
		if _, _, err = parseSegment(data, s, nothing); !last || !errors.As(err, &torn) {
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
		data = again
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
	index := v.tree.size
	v.leaves.check(file, rec, index)
	v.bundle = appendEntry(v.bundle, rec.body)
	v.tree.add(leafHash(rec.body, &v.scratch))
	v.checkRoots()
	if v.failed != nil {
		return v.failed
	}
	if v.tree.size%tileWidth == 0 {
		if err := v.checkFile(tilePath("entries", index/tileWidth, tileWidth), v.bundle, true); err != nil {
			return err
		}
		v.bundle = v.bundle[:0]
	}
	return v.checkPartials()
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

func (v *verifier) checkTile(level int, n uint64, hashes []tlog.Hash) {
	if err := v.checkFile(tilePath(strconv.Itoa(level), n, tileWidth), tileBytes(hashes), true); err != nil && v.failed == nil {
		v.failed = err
	}
}

// checkPartials compares the partial tiles that stand at exactly this size.
func (v *verifier) checkPartials() error {
	for _, p := range v.partial[v.tree.size] {
		want := v.bundle
		if p.level >= 0 {
			want = tileBytes(v.tree.levels[p.level])
		}
		if err := v.checkFile(p.name, want, false); err != nil {
			return err
		}
	}
	return nil
}

// checkFile compares a file of the tree with what the log's leaves say it must be.
func (v *verifier) checkFile(name string, want []byte, needed bool) error {
	if _, ok := v.files[name]; !ok {
		if needed && v.signed && v.tree.size < v.cp.Size/tileWidth*tileWidth {
			v.report.add(Problem{Status: Incomplete, File: name, What: "the tile is missing; the server rebuilds it from the log"})
		}
		return nil
	}
	delete(v.files, name)
	got, err := readFile(v.ctx, v.src, name, tileWidth*(maxLeaf+2))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // replaced by a wider one meanwhile
	}
	if err != nil || bytes.Equal(got, want) {
		return err
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	v.suspects = append(v.suspects, Problem{File: name, Offset: int64(at)})
	return nil
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
		s.Status, s.What = Tampered, "it differs from the log, whose root is as signed: the tile was changed"
		if v.rootBad {
			s.What = "it differs from the log: one of them was changed"
		}
		r.add(s)
	}
	for name := range v.files {
		level, n, width, ok := parseTilePath(name)
		if !ok {
			continue
		}
		v.leftover(name, level, n, width)
	}
	return nil
}

// leftover judges a tile that the walk did not meet.
func (v *verifier) leftover(name, level string, n uint64, width int) {
	l, _ := strconv.Atoi(level) // 0 for entries
	end := n*tileWidth + uint64(width)
	if l > 7 || end<<(tileHeight*l) > v.tree.size {
		v.report.add(Problem{Status: Tampered, File: name, What: "the log does not hold that many leaves"})
	}
}

// judge puts what was found into words.
func (v *verifier) judge() {
	r := v.report
	r.Origin = v.cp.Origin
	if v.o.Fresh > 0 && r.Last.Before(v.o.Now.Add(-v.o.Fresh)) {
		r.add(Problem{Status: Stale, What: fmt.Sprintf("the newest leaf is of %s: this is not the log as it is now, or its server stands still", r.Last.Format(time.RFC3339))})
	}
	if r.Status == Intact || r.Status == Stale {
		r.Proved = append(r.Proved, fmt.Sprintf("the %d leaves up to the checkpoint are those that log %s signed, in order, whole", v.cp.Size, v.cp.Origin))
		if len(v.o.Seen) > 0 {
			r.Proved = append(r.Proved, "nothing that an earlier look saw was changed or removed")
		}
	}
	if len(v.o.Seen) == 0 {
		r.Unknown = append(r.Unknown, "whether the operator rewrote the log before anyone else remembered it: no earlier checkpoint and no witness was given (intact as far as this log key can tell)")
	}
	if extra := r.Leaves - min(r.Leaves, v.cp.Size); extra > 0 && v.signed {
		r.Asserted = append(r.Asserted, fmt.Sprintf("%d leaves after the checkpoint: in order, not signed yet", extra))
	}
}
