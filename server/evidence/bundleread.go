package evidence

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// Bundle is an open bundle. It is a [Source] of the wrapped keys in it.
type Bundle struct {
	at       io.ReaderAt
	size     int64
	files    map[string]*zip.File
	manifest Manifest
}

var _ Source = (*Bundle)(nil)

// bundlePath is every name that a bundle may hold.
var bundlePath = regexp.MustCompile(`^(README\.txt|manifest\.json|policy\.txt|checkpoints/(checkpoint|cosigned)|consistency/[0-9]{1,19}-[0-9]{1,19}\.txt|` +
	`keys/[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.key|proofs/[0-9]{10,19}\.tlog-proof|records/[0-9]{10,19}\.json|rotation/[0-9]{8}\.proof|sealed/[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.[1-9][0-9]{0,18}\.age|recordings/[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.frames)$`)

// What a small file of a bundle may have; recordings are read as they come.
const (
	maxBundleFile = 1 << 20
	maxManifest   = 1 << 30
)

// OpenBundle reads a bundle's list of files and its manifest. It verifies
// nothing. An error that wraps ErrTampered says that it is none, or not whole.
func OpenBundle(at io.ReaderAt, size int64) (*Bundle, error) {
	z, err := zip.NewReader(at, size)
	if err != nil {
		return nil, fmt.Errorf("%w: not a bundle: %w", ErrTampered, err)
	}
	b := &Bundle{at: at, size: size, files: map[string]*zip.File{}}
	for _, f := range z.File {
		switch {
		case !bundlePath.MatchString(f.Name):
			return nil, fmt.Errorf("%w: %q does not belong into a bundle", ErrTampered, f.Name)
		case b.files[f.Name] != nil:
			return nil, fmt.Errorf("%w: the bundle holds %s twice", ErrTampered, f.Name)
		case f.Method != zip.Store || f.UncompressedSize64 > uint64(size):
			return nil, fmt.Errorf("%w: %s is compressed, or larger than the bundle", ErrTampered, f.Name)
		}
		b.files[f.Name] = f
	}
	text, err := b.read(manifestPath, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&b.manifest); err != nil || b.manifest.V != 1 {
		return nil, fmt.Errorf("%w: the manifest cannot be read: version %d, %w", ErrTampered, b.manifest.V, err)
	}
	return b, nil
}

// Manifest is what the bundle says of itself.
func (b *Bundle) Manifest() Manifest { return b.manifest }

// Sessions are those that have an event in the bundle, in order of appearance.
func (b *Bundle) Sessions() ([]string, error) {
	var names []string
	for _, index := range b.indexes() {
		e, err := b.event(index)
		if err != nil {
			return nil, err
		}
		if e.Session != "" && !slices.Contains(names, e.Session) {
			names = append(names, e.Session)
		}
	}
	return names, nil
}

// List implements Source.
func (b *Bundle) List(context.Context) ([]api.EvidenceFile, error) {
	var files []api.EvidenceFile
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		files = append(files, api.EvidenceFile{Path: name, Size: int64(b.files[name].UncompressedSize64)})
	}
	return files, nil
}

// Open implements Source.
func (b *Bundle) Open(_ context.Context, name string) (io.ReadCloser, error) {
	f := b.files[name]
	if f == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return f.Open()
}

func (b *Bundle) read(name string, limit int64) ([]byte, error) {
	return readFile(context.Background(), b, name, limit)
}

// indexes are the numbers of the records, ascending.
func (b *Bundle) indexes() []uint64 {
	var all []uint64
	for name := range b.files {
		if digits, ok := strings.CutPrefix(name, "records/"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(digits, ".json"), 10, 63)
			if err == nil {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all
}

func (b *Bundle) event(index uint64) (*api.Event, error) {
	leaf, err := b.read(recordPath(index), maxBundleFile)
	if err != nil {
		return nil, err
	}
	e := new(api.Event)
	if err := json.Unmarshal(leaf, e); err != nil {
		return nil, fmt.Errorf("%w: leaf %d: %w", ErrTampered, index, err)
	}
	return e, nil
}

// Events calls fn for each event in the bundle, in order. It verifies nothing.
func (b *Bundle) Events(fn func(*api.Event) error) error {
	for _, index := range b.indexes() {
		e, err := b.event(index)
		if err == nil {
			err = fn(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadSession is [ReadSession] over what a bundle holds.
func (b *Bundle) ReadSession(ctx context.Context, session string, identities []age.Identity, fn func(Item) error) error {
	if !sessionName.MatchString(session) {
		return fmt.Errorf("no session can be named %q", session)
	}
	r := &sessionReader{ctx: ctx, src: b, session: session, identities: identities, fn: fn}
	err := b.Events(func(e *api.Event) error {
		if e.Session == session {
			r.note(*e)
		}
		return context.Cause(ctx)
	})
	if err != nil {
		return err
	}
	if len(r.events) == 0 {
		return fmt.Errorf("the bundle knows no session %s: %w", session, fs.ErrNotExist)
	}
	if f := b.files[recordingPath(session)]; f != nil {
		in, err := f.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		err = eachFrameOf(bufio.NewReaderSize(in, 64<<10), func(rec record) error {
			f, _, err := frameDigest(rec)
			if err != nil || string(f.session) != session {
				return fmt.Errorf("%w: at offset %d: not a frame of session %s", ErrTampered, rec.off, session)
			}
			return r.take(f, rec)
		})
		r.closeSealed()
		if err != nil {
			return fmt.Errorf("read session %s: %w", session, err)
		}
	}
	return r.sendEvents(time.Time{})
}

// VerifyBundle checks a bundle as [Verify] does a folder, offline: Options.Ask
// is not used. What is no bundle is reported as tampered.
func VerifyBundle(ctx context.Context, at io.ReaderAt, size int64, o Options) (*Report, error) {
	if o.LogKey == "" {
		return nil, errors.New("verify the bundle: no log key; give it with --log-key, or in a policy: the one inside proves nothing")
	}
	if o.Policy != nil && len(o.Policy.Logs) > 0 && !slices.Contains(o.Policy.Logs, o.LogKey) {
		return nil, errors.New("verify the bundle: the policy does not name this log's key")
	}
	r := &Report{}
	b, err := OpenBundle(at, size)
	if errors.Is(err, ErrTampered) {
		r.add(Problem{Status: Tampered, What: err.Error()})
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("verify the bundle: %w", err)
	}
	v := &bundleVerifier{bundle: b, verifier: &verifier{ctx: ctx, src: b, o: o, report: r, files: map[string]int64{}, ring: single(o.LogKey)}}
	v.leaves = newLeafChecker(r, o)
	v.leaves.partial = true
	if err := v.run(); err != nil {
		return nil, fmt.Errorf("verify the bundle: %w", err)
	}
	return r, nil
}

type bundleVerifier struct {
	*verifier
	bundle *Bundle
	heads  []Checkpoint // whose signature holds
	before time.Time    // of the first record
	opened bool         // the session's first leaf is here
	closed bool         // … its last
	hole   bool         // between the first and the last record leaves are missing
}

// tampered books what is wrong with a file.
func (v *bundleVerifier) tampered(file, format string, a ...any) {
	v.report.add(Problem{Status: Tampered, File: file, What: fmt.Sprintf(format, a...)})
}

func (v *bundleVerifier) run() error {
	for _, step := range []func() error{v.checkBytes, v.checkFiles, v.readRing, v.checkHeads, v.checkRecords, v.checkRecordings} {
		if err := step(); err != nil {
			return err
		}
	}
	v.judgeBundle()
	return nil
}

// checkBytes makes the zip anew from its content, and compares: so that no byte
// of it is free, not those either that no reader of zip files looks at.
func (v *bundleVerifier) checkBytes() error {
	c := &comparer{with: bufio.NewReaderSize(io.NewSectionReader(v.bundle.at, 0, v.bundle.size), 256<<10)}
	err := writeZip(c, slices.Collect(maps.Keys(v.bundle.files)), func(name string) (io.Reader, error) {
		if err := context.Cause(v.ctx); err != nil {
			return nil, err
		}
		return v.bundle.Open(v.ctx, name)
	})
	switch {
	case v.ctx.Err() != nil:
		return context.Cause(v.ctx)
	case err != nil: // content that does not fit its checksum, or other bytes
		v.tampered("", "the zip file is not as it was written: %v", err)
	case !c.ended():
		v.tampered("", "the zip file goes on after its end")
	}
	return nil
}

// comparer is a writer that wants to be written what with holds.
type comparer struct {
	with *bufio.Reader
	buf  []byte
	at   int64
}

func (c *comparer) Write(p []byte) (int, error) {
	if cap(c.buf) < len(p) {
		c.buf = make([]byte, len(p))
	}
	n, err := io.ReadFull(c.with, c.buf[:len(p)])
	if err != nil || !bytes.Equal(c.buf[:n], p) {
		return 0, fmt.Errorf("it differs after byte %d", c.at)
	}
	c.at += int64(n)
	return n, nil
}

func (c *comparer) ended() bool {
	_, err := c.with.ReadByte()
	return errors.Is(err, io.EOF)
}

// checkFiles holds the files against the manifest.
func (v *bundleVerifier) checkFiles() error {
	m := &v.bundle.manifest
	for name, f := range v.bundle.files {
		if name == manifestPath {
			continue
		}
		if sum, err := sumOf(f); err != nil || m.Files[name] != sum {
			v.tampered(name, "it is not the file that the manifest names")
		}
	}
	for name := range m.Files {
		if v.bundle.files[name] == nil {
			v.report.add(Problem{Status: Tampered, File: name, What: "the manifest names it, and it is not here"})
		}
	}
	if text, err := v.bundle.read("README.txt", maxBundleFile); err != nil || !bytes.Equal(text, readme(m)) {
		v.tampered("README.txt", "it does not say what the manifest says")
	}
	if text, err := marshalManifest(m); err == nil {
		if is, err := v.bundle.read(manifestPath, maxManifest); err != nil || !bytes.Equal(text, is) {
			v.tampered(manifestPath, "it is not written as a manifest is")
		}
	}
	if text, err := v.bundle.read("policy.txt", maxBundleFile); err != nil || !strings.HasPrefix(string(text), v.o.LogKey+"\n") {
		v.report.Unknown = append(v.report.Unknown, "why the bundle's own list of keys begins with another log's key than the one that you gave")
	}
	return nil
}

func sumOf(f *zip.File) (string, error) {
	in, err := f.Open()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, in)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, in.Close())
}

// checkHeads checks the checkpoints, and that one goes on from the other.
func (v *bundleVerifier) checkHeads() error {
	byName := map[string]Checkpoint{}
	for _, name := range []string{"checkpoints/cosigned", "checkpoints/checkpoint"} {
		signed, err := v.bundle.read(name, maxBundleFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var cp Checkpoint
		if err == nil {
			cp, err = v.ring.parse(signed)
		}
		if err != nil && name == "checkpoints/cosigned" && v.ring.old(signed) {
			v.report.Unknown = append(v.report.Unknown, "what the cosignatures are worth: the log signed that checkpoint with a key that was retired before the one that you trust")
			continue
		}
		if err != nil {
			v.tampered(name, "%v", err)
			continue
		}
		v.vouch(name, cp)
		v.heads, byName[name] = append(v.heads, cp), cp
		v.checkSeen(name, cp)
	}
	newest, ok := byName["checkpoints/checkpoint"]
	if !ok {
		v.report.add(Problem{Status: Incomplete, File: "checkpoints/checkpoint", What: "it is missing: nothing says which log this is of"})
		return nil
	}
	v.cp, v.signed = newest, true
	v.report.Root = newest.Root.String()
	if old, ok := byName["checkpoints/cosigned"]; ok {
		v.cosigned = old.Size
		v.checkConsistent(old, newest)
	}
	return nil
}

// checkSeen compares a head with what this machine remembers of the log.
func (v *bundleVerifier) checkSeen(name string, cp Checkpoint) {
	for _, signed := range v.o.Seen {
		seen, err := v.ring.parse(signed)
		if err == nil && seen.Size == cp.Size && seen.Root != cp.Root {
			v.tampered(name, "an earlier look saw another tree of %d leaves: there are two logs", cp.Size)
		}
	}
}

func (v *bundleVerifier) checkConsistent(old, newest Checkpoint) {
	name := consistencyPath(old.Size, newest.Size)
	switch {
	case old.Size > newest.Size:
		v.tampered("checkpoints/checkpoint", "rolled back: it covers %d leaves, the cosigned one %d", newest.Size, old.Size)
		return
	case old.Size == newest.Size:
		if old.Root != newest.Root {
			v.tampered("checkpoints/checkpoint", "it is of another tree than the cosigned one: there are two logs")
		}
		return
	case old.Size == 0:
		return
	}
	text, err := v.bundle.read(name, maxBundleFile)
	if err != nil {
		v.report.add(Problem{Status: Incomplete, File: name, What: "it is missing: nothing shows that the checkpoint goes on from the cosigned one"})
		return
	}
	var p tlog.TreeProof
	for line := range strings.Lines(string(text)) {
		h, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
		if err != nil || len(h) != tlog.HashSize {
			v.tampered(name, "it holds %.60q where a hash belongs", line)
			return
		}
		p = append(p, tlog.Hash(h))
	}
	if err := tlog.CheckTree(p, int64(newest.Size), newest.Root, int64(old.Size), old.Root); err != nil {
		v.tampered(name, "the checkpoint does not go on from the cosigned one: %v", err)
	}
}

// checkRecords checks each record's proof, and the records against each other.
func (v *bundleVerifier) checkRecords() error {
	m, r := &v.bundle.manifest, v.report
	indexes := v.bundle.indexes()
	for i, index := range indexes {
		if err := context.Cause(v.ctx); err != nil {
			return err
		}
		v.hole = v.hole || i > 0 && index != indexes[i-1]+1
		if err := v.checkRecord(index, i == 0, i == len(indexes)-1); err != nil {
			return err
		}
	}
	r.Leaves, r.Signed = uint64(len(indexes)), uint64(len(indexes))
	v.leaves.finish()
	if len(indexes) == 0 || m.Records != len(indexes) || m.First != indexes[0] || m.Last != indexes[len(indexes)-1] || m.Log != v.cp.Origin {
		v.tampered(manifestPath, "what it says of the log and of how many records there are is not so")
	}
	for name := range v.bundle.files {
		if digits, ok := strings.CutPrefix(name, "proofs/"); ok && v.bundle.files["records/"+strings.TrimSuffix(digits, ".tlog-proof")+".json"] == nil {
			v.tampered(name, "the record that it proves is missing")
		}
	}
	return nil
}

func (v *bundleVerifier) checkRecord(index uint64, first, last bool) error {
	name := recordPath(index)
	leaf, err := v.bundle.read(name, maxBundleFile)
	if err != nil {
		v.tampered(name, "%v", err)
		return nil
	}
	proof, err := v.bundle.read(proofPath(index), maxBundleFile)
	if err != nil {
		v.report.add(Problem{Status: Incomplete, File: name, Index: &index, What: "it has no proof"})
		return nil
	}
	cp, err := checkProof(&Proof{Index: index, Leaf: leaf, Text: proof}, v.ring)
	if err == nil && !slices.ContainsFunc(v.heads, func(h Checkpoint) bool { return bytes.Equal(h.Note, cp.Note) && cp.Size == v.bundle.manifest.Head }) {
		err = errors.New("its proof is for another checkpoint than the bundle's")
	}
	if err != nil {
		v.report.add(Problem{Status: Tampered, File: proofPath(index), Index: &index, What: err.Error()})
		return nil
	}
	v.leaves.check(name, record{kind: recordLeaf, body: leaf}, index)
	return v.checkScope(name, index, leaf, first, last)
}

// checkScope holds a record against what the manifest says was asked for.
func (v *bundleVerifier) checkScope(name string, index uint64, leaf []byte, first, last bool) error {
	m := &v.bundle.manifest
	var e api.Event
	if err := json.Unmarshal(leaf, &e); err != nil {
		v.tampered(name, "%v", err)
		return nil
	}
	if first {
		v.report.First, v.before = e.Time, e.Time
	}
	if m.Session != "" {
		v.opened = v.opened || e.Session == m.Session && e.Kind == api.EventSessionOpen
		v.closed = v.closed || e.Session == m.Session && e.Kind == api.EventSessionClose
		return nil
	}
	if first && index > 0 && !m.Since.IsZero() && !e.Time.Before(m.Since) {
		v.report.add(Problem{Status: Incomplete, Index: &index, What: "the period begins before the first record: what was before that is missing"})
	}
	if last && index+1 < v.cp.Size && (m.Until.IsZero() || e.Time.Before(m.Until)) {
		v.report.add(Problem{Status: Incomplete, Index: &index, What: "the period ends after the last record: what came after it is missing"})
	}
	return nil
}

// checkRecordings holds the recordings against the records that bind them.
func (v *bundleVerifier) checkRecordings() error {
	m := &v.bundle.manifest
	if len(m.Sessions) == 0 {
		v.report.Unknown = append(v.report.Unknown, "what the sessions' recordings hold: they are not in the bundle")
		return nil
	}
	for session := range v.leaves.claims {
		if !slices.Contains(m.Sessions, session) {
			delete(v.leaves.claims, session)
		}
	}
	for session := range v.leaves.archives {
		if !slices.Contains(m.Sessions, session) {
			delete(v.leaves.archives, session)
		}
	}
	sealed := true
	c := &frameChecker{v: v.verifier, sessions: map[string]*frameState{}}
	for _, session := range m.Sessions {
		sealed = sealed && slices.ContainsFunc(v.leaves.claims[session], func(c frameClaim) bool { return c.first == 0 })
		name := recordingPath(session)
		in, err := v.bundle.Open(v.ctx, name)
		if err != nil {
			v.tampered(name, "%v", err)
			continue
		}
		err = eachFrameOf(bufio.NewReaderSize(in, 64<<10), func(rec record) error {
			if f, _, err := frameDigest(rec); err != nil || string(f.session) != session {
				return fmt.Errorf("at offset %d: not a frame of session %s", rec.off, session)
			}
			c.take(name, rec)
			c.count++
			return context.Cause(v.ctx)
		})
		in.Close()
		if v.ctx.Err() != nil {
			return context.Cause(v.ctx)
		}
		if err != nil {
			v.tampered(name, "%v", err)
		}
	}
	if sealed {
		c.bound = c.count
	}
	c.finish()
	if err := c.checkSealed(); err != nil {
		v.tampered("sealed", "%v", err)
	}
	if err := c.checkKeys(); err != nil {
		v.tampered("keys", "%v", err)
	}
	return context.Cause(v.ctx)
}

// judgeBundle puts what was found into words.
func (v *bundleVerifier) judgeBundle() {
	r, m := v.report, &v.bundle.manifest
	r.Origin = v.cp.Origin
	v.judgeFresh()
	good := r.Status == Intact || r.Status == Stale
	if good {
		r.Proved = append(r.Proved, fmt.Sprintf("each of the %d events lies at its place in the log whose head of %d leaves %s signed", r.Leaves, m.Head, v.cp.Origin))
	}
	switch {
	case m.Session == "" && v.hole:
		r.add(Problem{Status: Incomplete, What: fmt.Sprintf("leaves between %d and %d are missing", m.First, m.Last)})
	case m.Session == "" && good:
		r.Proved = append(r.Proved, fmt.Sprintf("nothing that the log holds between leaf %d (%s) and leaf %d (%s) is missing", m.First, stampOf(r.First), m.Last, stampOf(r.Last)))
	case m.Session != "" && !v.opened:
		r.add(Problem{Status: Incomplete, What: fmt.Sprintf("the beginning of session %s is missing", m.Session)})
	case m.Session != "":
		what := "its last leaf is not here, it may go on"
		if v.closed {
			what = "it is here from open to close, and its statements are numbered without a hole"
		}
		r.Unknown = append(r.Unknown, fmt.Sprintf("whether the log says more on session %s: a selection cannot prove that; %s", m.Session, what))
	}
	v.judgeBundleWitnesses()
}

// judgeFresh says whether the bundle is as new as it must be: with witnesses,
// their word must be at least as new as the end of the period.
func (v *bundleVerifier) judgeFresh() {
	r, at, who := v.report, v.report.Last, "the newest event is of"
	if v.o.Policy != nil && !v.o.Policy.quorum.none {
		at, who = v.vouched.at, "the witnesses saw the log last at"
	}
	end := v.bundle.manifest.Until
	if v.o.Fresh > 0 && at.Before(v.o.Now.Add(-v.o.Fresh)) {
		r.add(Problem{Status: Stale, What: fmt.Sprintf("%s %s: older than was asked for", who, stampOf(at))})
	} else if v.vouched.size > 0 && at.Before(end) {
		r.add(Problem{Status: Stale, What: fmt.Sprintf("%s %s, before the period ends: what came after that may have been withheld", who, stampOf(at))})
	}
}

func (v *bundleVerifier) judgeBundleWitnesses() {
	r := v.report
	switch w := v.vouched; {
	case v.o.Policy == nil:
		r.Unknown = append(r.Unknown, "whether the operator rewrote the log: no witness's key was given (intact as far as this log key can tell)")
	case v.o.Policy.quorum.none:
	case w.size == 0:
		r.add(Problem{Status: Incomplete, File: "checkpoints/cosigned", What: "no checkpoint has the cosignatures that the policy demands: nobody but the log's own key vouches for it"})
	case w.size <= v.bundle.manifest.Last:
		r.Witnessed, r.WitnessedAt = min(w.size, r.Leaves), w.at
		r.Asserted = append(r.Asserted, fmt.Sprintf("the events from leaf %d on: the witnesses had not seen them", w.size))
	default:
		r.Witnessed, r.WitnessedAt = r.Leaves, w.at
		if r.Status == Intact || r.Status == Stale {
			r.Proved = append(r.Proved, fmt.Sprintf("all of it was seen by %s by %s, whoever holds the log's key", strings.Join(w.by, ", "), stampOf(w.at)))
		}
	}
}

func stampOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }
