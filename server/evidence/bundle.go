package evidence

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// A bundle is a part of the evidence that stands alone: a zip file, stored and
// not compressed, whose bytes follow from its content.
//
//	README.txt                        how to check it, with and without hoopctl
//	manifest.json                     a Manifest
//	checkpoints/checkpoint            the log's head; checkpoints/cosigned the newest cosigned one
//	consistency/A-B.txt               proof that the tree of A leaves begins the tree of B: hashes in base64
//	keys/SESSION.key                  a session's wrapped key
//	policy.txt                        the verifier keys that the exporter believed, one a line: for information
//	proofs/INDEX.tlog-proof           C2SP tlog-proof of the leaf
//	records/INDEX.json                the leaf's exact bytes
//	recordings/SESSION.frames         the session's frames, as records of the payload stream
//
// INDEX has ten digits. Proofs are for the cosigned head if it covers them all.

// Manifest says what is in a bundle. Verification believes none of it.
type Manifest struct {
	V       int    `json:"v"`
	Log     string `json:"log"` // its origin
	Session string `json:"session,omitempty"`
	// Since and Until bound what was asked for; zero is the log's start and its
	// head. Without Session every leaf in between is here, and one on each side.
	Since    time.Time         `json:"since,omitzero"`
	Until    time.Time         `json:"until,omitzero"`
	Head     uint64            `json:"head"` // size of the tree that the proofs are for
	Records  int               `json:"records"`
	First    uint64            `json:"first"`
	Last     uint64            `json:"last"`
	Sessions []string          `json:"sessions,omitempty"` // whose recordings are here
	Files    map[string]string `json:"files"`              // SHA-256 of each file but this one, hex
}

// BundleOptions say what a bundle is to hold.
type BundleOptions struct {
	LogKey       string
	Session      string // one session, and what led to it
	Since, Until time.Time
	Recordings   bool     // with the sessions' recordings and wrapped keys
	Witnesses    []string // verifier keys to name in policy.txt
}

// maxBundle bounds the records of a bundle: all proofs and leaves are held in
// memory while it is made.
const maxBundle = 5_000_000

// WriteBundle writes a bundle of what a source holds. The same evidence and the
// same question give the same bytes.
func WriteBundle(ctx context.Context, w io.Writer, src Source, o BundleOptions) (*Manifest, error) {
	b := &bundler{ctx: ctx, src: src, o: o}
	if err := b.write(w); err != nil {
		return nil, fmt.Errorf("export the evidence: %w", err)
	}
	return &b.manifest, nil
}

type bundler struct {
	ctx      context.Context
	src      Source
	o        BundleOptions
	cosigned Checkpoint // Note nil: none
	newest   Checkpoint
	tiles    levels
	records  []numbered
	manifest Manifest
	files    map[string][]byte
	spool    *os.File // frames, to be sorted by session
	spooled  map[string][]extent
	sealed   map[string]string // sealed files of the sessions: SHA-256, hex
}

type numbered struct {
	index uint64
	leaf  []byte
}

type extent struct{ at, n int64 }

func (b *bundler) write(w io.Writer) error {
	if err := b.readHeads(); err != nil {
		return err
	}
	if err := b.readTimeline(); err != nil {
		return err
	}
	if len(b.records) == 0 {
		return fmt.Errorf("nothing that was asked for is in the %d leaves that the checkpoint covers: %w", b.newest.Size, fs.ErrNotExist)
	}
	b.files = map[string][]byte{}
	if err := b.prove(); err != nil {
		return err
	}
	if err := b.readRotations(); err != nil {
		return err
	}
	if b.o.Recordings {
		defer b.dropSpool()
		if err := b.readRecordings(); err != nil {
			return err
		}
	}
	return b.pack(w)
}

// readRotations takes the changes of the log's key.
func (b *bundler) readRotations() error {
	for n := 1; ; n++ {
		content, err := readFile(b.ctx, b.src, rotationPath(n), maxRotation)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		b.files[rotationPath(n)] = content
	}
}

// readHeads reads the cosigned checkpoint and then the newest one.
func (b *bundler) readHeads() error {
	keys, err := readRing(b.ctx, b.src, b.o.LogKey)
	if err != nil {
		return err
	}
	for _, h := range []struct {
		name string
		into *Checkpoint
	}{{cosignedPath, &b.cosigned}, {"checkpoint", &b.newest}} {
		signed, err := readFile(b.ctx, b.src, h.name, 1<<20)
		if errors.Is(err, fs.ErrNotExist) && h.name == cosignedPath {
			continue
		}
		if err != nil {
			return err
		}
		if *h.into, err = keys.parse(signed); err != nil && h.into == &b.cosigned && keys.old(signed) {
			continue
		} else if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
	}
	if b.cosigned.Size > b.newest.Size {
		return fmt.Errorf("%w: the checkpoint was rolled back behind the cosigned one", ErrTampered)
	}
	return nil
}

// readTimeline reads every leaf under the newest checkpoint, builds the tree,
// and keeps the leaves that were asked for.
func (b *bundler) readTimeline() error {
	pick := picker(&rangePicker{since: b.o.Since, until: b.o.Until})
	if b.o.Session != "" {
		if !sessionName.MatchString(b.o.Session) {
			return fmt.Errorf("no session can be named %q", b.o.Session)
		}
		pick = &sessionPicker{session: b.o.Session, keys: map[string]bool{}}
	}
	t := tree{hashed: b.tiles.keep}
	var scratch []byte
	err := eachRecord(b.ctx, b.src, func(index uint64, leaf []byte) error {
		if index >= b.newest.Size {
			return errEnough
		}
		if index != t.size {
			return fmt.Errorf("%w: leaf %d follows on %d leaves", ErrTampered, index, t.size)
		}
		t.add(leafHash(leaf, &scratch))
		for _, cp := range []Checkpoint{b.cosigned, b.newest} {
			if cp.Note != nil && cp.Size == t.size && cp.Root != t.root() {
				return fmt.Errorf("%w: the first %d leaves do not give the root that was signed; audit verify says more", ErrTampered, cp.Size)
			}
		}
		return pick.see(index, leaf)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if t.size < b.newest.Size {
		return fmt.Errorf("%w: the log holds %d leaves, its checkpoint covers %d", ErrTampered, t.size, b.newest.Size)
	}
	b.records = pick.picked()
	return nil
}

// eachRecord calls fn for each leaf of a source in order.
func eachRecord(ctx context.Context, src Source, fn func(index uint64, leaf []byte) error) error {
	list, err := src.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range streamFiles(list, timeline) {
		if _, err := eachLeaf(ctx, src, name, fn); err != nil {
			return err
		}
	}
	return nil
}

// Events calls fn for each event of a source in order, beginning with index
// first. It verifies nothing: Verify does.
func Events(ctx context.Context, src Source, first uint64, fn func(*api.Event) error) error {
	list, err := src.List(ctx)
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	names := streamFiles(list, timeline)
	for i, name := range names {
		if i+1 < len(names) { // whole segments before first are not read
			if h, err := readSegmentHeader(ctx, src, names[i+1]); err == nil && h.first <= first {
				continue
			}
		}
		_, err := eachLeaf(ctx, src, name, func(index uint64, leaf []byte) error {
			if index < first {
				return nil
			}
			var e api.Event
			if err := json.Unmarshal(leaf, &e); err != nil || e.Index != index {
				return fmt.Errorf("%w: leaf %d cannot be read: %w", ErrTampered, index, err)
			}
			return fn(&e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// picker chooses leaves as they come by.
type picker interface {
	see(index uint64, leaf []byte) error
	picked() []numbered
}

// rangePicker takes all leaves of a period, and one on each side, which show
// that nothing before or after belongs to it.
type rangePicker struct {
	since, until time.Time
	before       *numbered
	got          []numbered
	done         bool
}

func (p *rangePicker) see(index uint64, leaf []byte) error {
	if p.done {
		return nil
	}
	at, err := timeOf(leaf)
	if err != nil {
		return err
	}
	n := numbered{index, bytes.Clone(leaf)}
	if at.Before(p.since) && len(p.got) == 0 {
		p.before = &n
		return nil
	}
	if p.before != nil && len(p.got) == 0 {
		p.got = append(p.got, *p.before)
	}
	if len(p.got) >= maxBundle {
		return fmt.Errorf("more than %d events: ask for a shorter period", maxBundle)
	}
	p.got = append(p.got, n)
	p.done = !p.until.IsZero() && !at.Before(p.until)
	return nil
}

func (p *rangePicker) picked() []numbered {
	if len(p.got) == 0 && p.before != nil {
		return []numbered{*p.before} // it shows that nothing came since
	}
	return p.got
}

func timeOf(leaf []byte) (time.Time, error) {
	var f leafFields
	if err := scanLeaf(leaf, f.take); err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	return f.at, nil
}

// sessionPicker takes a session's leaves, and those of the login, the grant and
// the requests behind it.
type sessionPicker struct {
	session string
	got     []numbered
	others  []candidate
	keys    map[string]bool // "login/…", "grant/…", "request/…"
}

type candidate struct {
	numbered
	keys []string
}

func (p *sessionPicker) see(index uint64, leaf []byte) error {
	mine := bytes.Contains(leaf, fmt.Appendf(nil, `"session":"%s"`, p.session))
	if !mine && !bytes.Contains(leaf, []byte(`"kind":"login"`)) && !bytes.Contains(leaf, []byte(`"kind":"grant`)) &&
		!bytes.Contains(leaf, []byte(`"kind":"request`)) && !bytes.Contains(leaf, []byte(`"kind":"approval"`)) {
		return nil
	}
	var e api.Event
	if err := json.Unmarshal(leaf, &e); err != nil {
		return fmt.Errorf("%w: leaf %d: %w", ErrTampered, index, err)
	}
	n := numbered{index, bytes.Clone(leaf)}
	if e.Session == p.session {
		p.got = append(p.got, n)
		for _, k := range keysOf(&e) {
			p.keys[k] = true
		}
		return nil
	}
	switch e.Kind {
	case api.EventLogin, api.EventGrant, api.EventGrantEnd, api.EventRequest, api.EventApproval, api.EventRequestEnd:
		p.others = append(p.others, candidate{n, keysOf(&e)})
	}
	return nil
}

// keysOf name what an event belongs to.
func keysOf(e *api.Event) []string {
	var keys []string
	add := func(kind, name string) {
		if name != "" {
			keys = append(keys, kind+name)
		}
	}
	switch e.Kind {
	case api.EventApproval, api.EventRequestEnd: // whose login is another's
	default:
		add("login/", e.Login)
	}
	add("grant/", e.Grant)
	add("request/", e.Request)
	for _, a := range e.Approvals {
		add("request/", a.Request)
	}
	return keys
}

// picked adds what the session hangs on: by request and grant, and the login
// itself. A grant's own request brings its approvals.
func (p *sessionPicker) picked() []numbered {
	if len(p.got) == 0 {
		return nil
	}
	for range 2 {
		p.others = slices.DeleteFunc(p.others, func(c candidate) bool {
			if !slices.ContainsFunc(c.keys, func(k string) bool { return p.keys[k] && (!strings.HasPrefix(k, "login/") || len(c.keys) == 1) }) {
				return false
			}
			p.got = append(p.got, c.numbered)
			for _, k := range c.keys {
				if strings.HasPrefix(k, "request/") {
					p.keys[k] = true
				}
			}
			return true
		})
	}
	slices.SortFunc(p.got, func(a, b numbered) int { return cmp.Compare(a.index, b.index) })
	return p.got
}

// levels holds a whole tree by levels of tiles: 32 bytes and a bit per leaf.
type levels [][]byte

func (l *levels) keep(level int, _ uint64, h tlog.Hash) {
	for level >= len(*l) {
		*l = append(*l, nil)
	}
	(*l)[level] = append((*l)[level], h[:]...)
}

// Height implements tlog.TileReader.
func (levels) Height() int { return tileHeight }

// ReadTiles implements tlog.TileReader.
func (l levels) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		from := int(t.N) * tileWidth * tlog.HashSize
		to := from + t.W*tlog.HashSize
		if t.L >= len(l) || to > len(l[t.L]) {
			return nil, fmt.Errorf("tile %v is not in the tree", t)
		}
		out[i] = l[t.L][from:to]
	}
	return out, nil
}

// SaveTiles implements tlog.TileReader.
func (levels) SaveTiles([]tlog.Tile, [][]byte) {}

// prove makes records, proofs, checkpoints and consistency proofs.
func (b *bundler) prove() error {
	first, last := b.records[0].index, b.records[len(b.records)-1].index
	head := b.newest
	if b.cosigned.Size > last {
		head = b.cosigned
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: int64(head.Size), Hash: head.Root}, b.tiles)
	for _, r := range b.records {
		path, err := tlog.ProveRecord(int64(head.Size), int64(r.index), hashes)
		if err != nil {
			return fmt.Errorf("prove leaf %d: %w", r.index, err)
		}
		b.files[recordPath(r.index)] = r.leaf
		b.files[proofPath(r.index)] = proofText(r.index, path, head)
	}
	b.files["checkpoints/checkpoint"] = b.newest.Note
	if b.cosigned.Note != nil {
		b.files["checkpoints/cosigned"] = b.cosigned.Note
		if err := b.proveConsistent(); err != nil {
			return err
		}
	}
	b.files["policy.txt"] = []byte(strings.Join(append([]string{b.o.LogKey}, b.o.Witnesses...), "\n") + "\n")
	b.manifest = Manifest{V: 1, Log: b.newest.Origin, Session: b.o.Session, Since: b.o.Since.UTC(), Until: b.o.Until.UTC(), Head: head.Size,
		Records: len(b.records), First: first, Last: last, Files: map[string]string{}}
	return nil
}

func (b *bundler) proveConsistent() error {
	if b.cosigned.Size == 0 || b.cosigned.Size == b.newest.Size {
		return nil
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: int64(b.newest.Size), Hash: b.newest.Root}, b.tiles)
	p, err := tlog.ProveTree(int64(b.newest.Size), int64(b.cosigned.Size), hashes)
	if err != nil {
		return fmt.Errorf("prove that %d leaves begin %d: %w", b.cosigned.Size, b.newest.Size, err)
	}
	var text []byte
	for _, h := range p {
		text = append(text, base64.StdEncoding.EncodeToString(h[:])+"\n"...)
	}
	b.files[consistencyPath(b.cosigned.Size, b.newest.Size)] = text
	return nil
}

func recordPath(index uint64) string      { return fmt.Sprintf("records/%010d.json", index) }
func proofPath(index uint64) string       { return fmt.Sprintf("proofs/%010d.tlog-proof", index) }
func consistencyPath(a, b uint64) string  { return fmt.Sprintf("consistency/%d-%d.txt", a, b) }
func recordingPath(session string) string { return "recordings/" + session + ".frames" }

// readRecordings spools the frames of the sessions whose leaves are here.
func (b *bundler) readRecordings() (err error) {
	b.spooled = map[string][]extent{}
	var archived []api.Event
	for _, r := range b.records {
		var e api.Event
		if err := json.Unmarshal(r.leaf, &e); err != nil {
			return fmt.Errorf("%w: leaf %d: %w", ErrTampered, r.index, err)
		}
		if e.Kind == api.EventArchived {
			archived = append(archived, e)
		}
		if e.Session != "" && (b.o.Session == "" || e.Session == b.o.Session) {
			b.spooled[e.Session] = nil
		}
	}
	if b.spool, err = os.CreateTemp("", "hoopctl-export-*"); err != nil {
		return err
	}
	list, err := b.src.List(b.ctx)
	if err != nil {
		return err
	}
	var at int64
	for _, name := range streamFiles(list, payload) {
		err := each(b.ctx, b.src, name, payload, func(rec record) error {
			f, _, err := frameDigest(rec)
			if err != nil {
				return fmt.Errorf("%w: %s at offset %d: %w", ErrTampered, name, rec.off, err)
			}
			places, wanted := b.spooled[string(f.session)]
			if !wanted {
				return nil
			}
			n, err := b.spool.Write(appendRecord(nil, rec.kind, rec.body))
			b.spooled[string(f.session)] = append(places, extent{at, int64(n)})
			at += int64(n)
			return err
		})
		if err != nil {
			return err
		}
	}
	b.takeSealed(archived)
	return b.readKeys()
}

// takeSealed notes the sealed files of the sessions; what of them was shredded is
// not there. Their digests are those of their leaves.
func (b *bundler) takeSealed(archived []api.Event) {
	b.sealed = map[string]string{}
	for _, e := range archived {
		f, err := b.src.Open(b.ctx, e.Object)
		if _, wanted := b.spooled[e.Session]; err != nil || !wanted {
			continue
		}
		f.Close()
		b.sealed[e.Object] = strings.TrimPrefix(e.Digest, "sha256:")
	}
}

// lazyFile reads a file of a source that is opened at the first read.
type lazyFile struct {
	ctx  context.Context
	src  Source
	name string
	f    io.ReadCloser
}

func (l *lazyFile) Read(p []byte) (int, error) {
	if l.f == nil {
		f, err := l.src.Open(l.ctx, l.name)
		if err != nil {
			return 0, err
		}
		l.f = f
	}
	n, err := l.f.Read(p)
	if err != nil {
		l.f.Close()
	}
	return n, err
}

// readKeys takes the wrapped keys of the sessions that have frames. One that is
// gone was shredded, or lost.
func (b *bundler) readKeys() error {
	for session, places := range b.spooled {
		if len(places) == 0 {
			continue
		}
		b.manifest.Sessions = append(b.manifest.Sessions, session)
		key, err := readFile(b.ctx, b.src, keyPath(session), maxIdentityFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		b.files[keyPath(session)] = key
	}
	slices.Sort(b.manifest.Sessions)
	return nil
}

func (b *bundler) dropSpool() {
	if b.spool != nil {
		b.spool.Close()
		os.Remove(b.spool.Name())
	}
}

// frames reads a session's spooled frames.
func (b *bundler) frames(session string) io.Reader {
	var parts []io.Reader
	for _, p := range b.spooled[session] {
		parts = append(parts, io.NewSectionReader(b.spool, p.at, p.n))
	}
	return io.MultiReader(parts...)
}

// pack writes the zip.
func (b *bundler) pack(w io.Writer) error {
	m := &b.manifest
	b.files["README.txt"] = readme(m)
	for name, content := range b.files {
		m.Files[name] = hexSum(content)
	}
	for _, s := range m.Sessions {
		h := sha256.New()
		if _, err := io.Copy(h, b.frames(s)); err != nil {
			return err
		}
		m.Files[recordingPath(s)] = hex.EncodeToString(h.Sum(nil))
	}
	maps.Copy(m.Files, b.sealed)
	manifest, err := marshalManifest(m)
	if err != nil {
		return err
	}
	return writeZip(w, append(slices.Sorted(maps.Keys(m.Files)), manifestPath), func(name string) (io.Reader, error) {
		if session, ok := strings.CutPrefix(name, "recordings/"); ok {
			return b.frames(strings.TrimSuffix(session, ".frames")), nil
		}
		if name == manifestPath {
			return bytes.NewReader(manifest), nil
		}
		if b.sealed[name] != "" {
			return &lazyFile{ctx: b.ctx, src: b.src, name: name}, nil
		}
		return bytes.NewReader(b.files[name]), nil
	})
}

const manifestPath = "manifest.json"

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func marshalManifest(m *Manifest) ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	return append(b, '\n'), err
}

// writeZip writes files in the order of their names, stored, without times: the
// same content gives the same bytes.
func writeZip(w io.Writer, names []string, open func(name string) (io.Reader, error)) error {
	z := zip.NewWriter(w)
	slices.Sort(names)
	for _, name := range names {
		out, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			return err
		}
		in, err := open(name)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
	return z.Close()
}

// readme tells a stranger what this is. It follows from the manifest.
func readme(m *Manifest) []byte {
	what := "all events of a period"
	if m.Session != "" {
		what = "session " + m.Session + " and what led to it"
	}
	return fmt.Appendf(nil, `Evidence of %s: %s.

%d events (leaves %d to %d of the log), each with a proof that it lies at its
place in the log whose signed head is in checkpoints/.

With hoopctl (https://github.com/hoopctl/hoopctl), without a network:

    hoopctl audit verify THIS.zip --log-key KEY [--witness KEY]...
    hoopctl replay THIS.zip [SESSION] [--identity FILE]

Without hoopctl: records/N.json is one event, proofs/N.tlog-proof its proof in the
form of https://c2sp.org/tlog-proof. Any verifier of that form serves, such as the
fifty lines of Python in hoopctl's testdata/evidence/verify_tlog_proof.py:

    verify_tlog_proof.py policy.txt records/N.json proofs/N.tlog-proof NUMBER-OF-WITNESSES

The keys in policy.txt are those that the exporter believed. Take the log's key and
the witnesses' from somebody else than who gave you this file: whoever can write
here could write other keys, too.

recordings/ are the sessions as the client saw them, encrypted; keys/ open them for
an auditor with a matching age identity, and for nobody else.
`, m.Log, what, m.Records, m.First, m.Last)
}

// proofText is a C2SP tlog-proof.
func proofText(index uint64, path tlog.RecordProof, head Checkpoint) []byte {
	var t bytes.Buffer
	fmt.Fprintf(&t, "%s\nindex %d\n", proofHeader, index)
	for _, h := range path {
		t.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	t.WriteString("\n")
	t.Write(head.Note)
	return t.Bytes()
}

// eachFrameOf calls fn for the frames of a bundle's recording.
func eachFrameOf(r io.Reader, fn func(rec record) error) error {
	var head [recordHeader]byte
	for off := 0; ; {
		_, err := io.ReadFull(r, head[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		n := binary.BigEndian.Uint32(head[:])
		if err != nil || head[4] != recordFrame && head[4] != recordDigest || n < 1 || n > maxFrameRecord {
			return fmt.Errorf("at offset %d: not a frame", off)
		}
		body := make([]byte, n-1)
		if _, err := io.ReadFull(r, body); err != nil {
			return fmt.Errorf("at offset %d: the frame is cut short", off)
		}
		if err := fn(record{kind: head[4], off: off, body: body}); err != nil {
			return err
		}
		off += recordHeader + len(body)
	}
}

// maxFrameRecord bounds a frame's record: payload, header, tag and some room.
const maxFrameRecord = maxPayload + 1<<16
