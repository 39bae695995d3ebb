package evidence

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/hoopctl/hoopctl/server/api"
)

// session records one small session from open to close.
func session(t testing.TB, l *Log, name string, statements int) {
	t.Helper()
	ctx := context.Background()
	appendWait(t, l, &api.Event{Kind: api.EventSessionOpen, Session: name, Target: "clinic", Name: "alice", Principal: "dev:u1"})
	rec, err := l.Record(name, RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range statements {
		e := statement(i + 1)
		e.Session = name
		if e.Commitment, err = rec.Commit(fmt.Sprintf("SELECT name FROM patients WHERE id = %d", i), [][]byte{[]byte("7"), nil}); err != nil {
			t.Fatal(err)
		}
		if _, err = l.Append(e); err != nil {
			t.Fatal(err)
		}
		_, first, err := rec.Frame('c', fmt.Appendf(nil, "row %d of %s", i, name))
		if err != nil {
			t.Fatal(err)
		}
		_, last, err := rec.Frame('c', bytes.Repeat([]byte("a row that compresses "), 50))
		if err != nil {
			t.Fatal(err)
		}
		out := &api.Event{Kind: api.EventOutcome, Session: name, Sequence: uint64(i + 1), Rows: 2, Status: "SELECT 2",
			FramesFirst: first, FramesLast: last, FramesSHA256: rec.Digest(first, last)}
		ticket, err := l.Append(out)
		if err == nil {
			err = l.Wait(ctx, ticket)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	appendWait(t, l, &api.Event{Kind: api.EventSessionClose, Session: name, Reason: "client said goodbye"})
}

// closedHouse is a folder with some history, closed properly.
func closedHouse(t testing.TB, statements int) (*house, string) {
	t.Helper()
	h := newHouse(t)
	h.cfg.SegmentBytes = 16 << 10
	l := h.open()
	session(t, l, "s-1", statements)
	session(t, l, "s-2", 2)
	key := l.LogKey()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return h, key
}

func verify(t testing.TB, dir string, o Options) *Report {
	t.Helper()
	r, err := Verify(context.Background(), Folder(dir), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func want(t testing.TB, r *Report, s Status, words ...string) {
	t.Helper()
	text := fmt.Sprint(r.Problems)
	if r.Status != s {
		t.Errorf("status %s, want %s: %s", r.Status, s, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no problem says %q: %s", w, text)
		}
	}
}

func TestVerifyIntact(t *testing.T) {
	h, key := closedHouse(t, 300)
	r := verify(t, h.cfg.Dir, Options{LogKey: key})
	want(t, r, Intact)
	if r.Leaves != r.Signed || r.Leaves < 600 || r.Frames < 900 || r.Sessions != 2 || len(r.Proved) == 0 || len(r.Unknown) == 0 {
		t.Errorf("report %+v", r)
	}
	// the log goes on, and an earlier look holds it to what it said
	l := h.open()
	session(t, l, "s-3", 3)
	if _, err := l.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	live, err := Verify(context.Background(), l, Options{LogKey: key, Seen: [][]byte{r.Checkpoint}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, live, Intact)
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, Fresh: time.Minute, Now: time.Now().Add(time.Hour)}), Stale)
	if _, err := Verify(context.Background(), l, Options{}); err == nil {
		t.Error("verified without a key")
	}
}

// TestARunningLogShowsWhatIsDurable: its files end at the last durable batch,
// can be seeked in, and private ones are not shown.
func TestARunningLogShowsWhatIsDurable(t *testing.T) {
	h := newHouse(t)
	l := h.open()
	session(t, l, "s-1", 2)
	ctx := context.Background()
	list, err := l.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if strings.HasSuffix(f.Path, ".db") || strings.HasSuffix(f.Path, ".lock") {
			t.Errorf("%s is shown", f.Path)
		}
		r, err := l.Open(ctx, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || int64(len(b)) < f.Size || strings.HasSuffix(f.Path, ".log") && b[len(b)-1] == 0 && int64(len(b)) >= h.cfg.SegmentBytes {
			t.Errorf("%s: %d bytes, listed with %d, %v", f.Path, len(b), f.Size, err)
		}
		if _, err := r.(io.Seeker).Seek(0, io.SeekStart); err != nil {
			t.Error(err)
		}
		r.Close()
	}
	for _, name := range []string{"index.db", "evidence.lock", "../keys/log.key", "log/00000099.log", "/etc/passwd"} {
		if _, err := l.Open(ctx, name); err == nil {
			t.Errorf("%s can be read", name)
		}
	}
	// and the tree's tiles can be had in the layout of tlog-tiles
	if _, err := l.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	size := int(l.Size())
	hashes, err := ReadTile(ctx, l, tilePath("0", 0, size))
	if err != nil || len(hashes) != 32*size {
		t.Fatalf("tile of %d leaves: %d bytes, %v", size, len(hashes), err)
	}
	bundle, err := ReadTile(ctx, l, tilePath("entries", 0, size))
	if err != nil {
		t.Fatal(err)
	}
	var scratch []byte
	if err := entries(bundle, size, func(i int, leaf []byte) error {
		if h := leafHash(leaf, &scratch); !bytes.Equal(h[:], hashes[32*i:32*i+32]) {
			t.Errorf("entry %d does not have the hash of its tile", i)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if _, err := ReadTile(ctx, l, tilePath("0", 0, 256)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tile that is not full: %v", err)
	}
}

// copyDir copies an evidence folder, so that each attack starts from the same.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "evidence")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// memory is a Source that lies in memory.
type memory map[string][]byte

func (m memory) List(context.Context) ([]api.EvidenceFile, error) {
	var files []api.EvidenceFile
	for name, b := range m {
		files = append(files, api.EvidenceFile{Path: name, Size: int64(len(b))})
	}
	return files, nil
}

func (m memory) Open(_ context.Context, name string) (io.ReadCloser, error) {
	b, ok := m[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func load(t testing.TB, dir string) memory {
	t.Helper()
	m := memory{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err == nil {
			m[filepath.ToSlash(rel)], err = os.ReadFile(name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestT72_FlippedByteInAnyFile flips one bit at a time in every file of a
// folder but the index, the keys and the lock: in each byte of small files and
// of the first and last 100 of larger ones, in every 29th between. With
// EVIDENCE_FLIPS=all (make soak-evidence) in each byte of all files.
func TestT72_FlippedByteInAnyFile(t *testing.T) {
	h := newHouse(t)
	h.cfg.SegmentBytes = 4 << 10
	l := h.open()
	session(t, l, "s-1", 8)
	if err := l.Seal(context.Background()); err != nil { // sealed files, and reduced segments
		t.Fatal(err)
	}
	for i := range 300 {
		if _, err := l.Append(&api.Event{Kind: api.EventAdmin, Object: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	key := l.LogKey()
	l.Close()
	synctest.Test(t, func(t *testing.T) { flipAll(t, load(t, h.cfg.Dir), key) }) // nobody waits for a tail to change
}

func flipAll(t *testing.T, files memory, key string) {
	flips := 0
	check := func(o Options) Status {
		r, err := Verify(context.Background(), files, o)
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if s := check(Options{LogKey: key}); s != Intact {
		t.Fatalf("status %s before anything was flipped", s)
	}
	for name, content := range files {
		if ext := filepath.Ext(name); ext == ".db" || ext == ".key" || ext == ".lock" {
			continue
		}
		for i := 0; i < len(content); i++ {
			if os.Getenv("EVIDENCE_FLIPS") != "all" && i == 100 && len(content) > 1000 {
				i += (len(content) - 200) % 29
			}
			if os.Getenv("EVIDENCE_FLIPS") != "all" && i >= 100 && i < len(content)-100 && len(content) > 1000 {
				i += 28
			}
			flips++
			content[i] ^= 1 << (i % 8)
			if check(Options{LogKey: key}) == Intact {
				t.Errorf("flipping byte %d of %s is not told", i, name)
			}
			content[i] ^= 1 << (i % 8)
		}
	}
	if s := check(Options{LogKey: key}); s != Intact {
		t.Fatalf("status %s after all flips were undone", s)
	}
	t.Logf("%d bytes in %d files", flips, len(files))
}

// segmentsOf parses a stream's segments of a folder.
func segmentsOf(t testing.TB, dir string, s stream) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, s.dir(), "*.log"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names
}

// rewrite lets an attacker change a segment's records, who then writes marks
// with right checksums: no key is needed for that.
func rewrite(t testing.TB, name string, s stream, change func(records []record) []record) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	h, body, err := parseHeader(data)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(data[:body])
	var all []record
	var frames uint64
	if _, _, err := parseSegment(data, s, func(_ segmentHeader, b *batch) error {
		frames = b.frames
		for _, r := range b.records {
			all = append(all, record{kind: r.kind, body: bytes.Clone(r.body)})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	m := mark{first: h.first, frames: frames}
	var records []byte
	for _, r := range change(all) {
		records = appendRecord(records, r.kind, r.body)
		if r.kind != recordOpen {
			m.count++
		}
	}
	if err := os.WriteFile(name, append(out, appendMark(records, m)...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestT72_DetectionTable(t *testing.T) {
	h, key := closedHouse(t, 40)
	older := verify(t, h.cfg.Dir, Options{LogKey: key}).Checkpoint
	yesterday := copyDir(t, h.cfg.Dir)
	l := h.open()
	session(t, l, "s-9", 3)
	l.Close()
	newer := verify(t, h.cfg.Dir, Options{LogKey: key}).Checkpoint
	for _, c := range []struct {
		name   string
		attack func(dir string)
		seen   []byte
		status Status
		words  string
	}{
		{"T72 edit a leaf", func(dir string) {
			rewrite(t, segmentsOf(t, dir, timeline)[0], timeline, func(r []record) []record {
				r[5].body = bytes.Replace(r[5].body, []byte("alice"), []byte("mallo"), 1)
				return r
			})
		}, nil, Tampered, "do not give the root"},
		{"T72 delete a leaf", func(dir string) {
			rewrite(t, segmentsOf(t, dir, timeline)[0], timeline, func(r []record) []record { return append(r[:5:5], r[6:]...) })
		}, nil, Tampered, "calls itself leaf"},
		{"T72 swap two leaves", func(dir string) {
			rewrite(t, segmentsOf(t, dir, timeline)[0], timeline, func(r []record) []record { r[5], r[6] = r[6], r[5]; return r })
		}, nil, Tampered, "calls itself leaf"},
		{"T72 cut the tail", func(dir string) {
			names := segmentsOf(t, dir, timeline)
			rewrite(t, names[len(names)-1], timeline, func(r []record) []record { return r[:len(r)-1] })
		}, nil, Tampered, "the rest was cut off"},
		{"T72 remove the last segment", func(dir string) {
			names := segmentsOf(t, dir, timeline)
			os.Remove(names[len(names)-1])
		}, nil, Tampered, "the rest was cut off"},
		{"T72 remove a segment in the middle", func(dir string) { os.Remove(segmentsOf(t, dir, timeline)[1]) }, nil, Tampered, "missing"},
		{"T72 change a frame", func(dir string) {
			rewrite(t, segmentsOf(t, dir, payload)[0], payload, func(r []record) []record { r[3].body[len(r[3].body)-1] ^= 1; return r })
		}, nil, Tampered, "the recording was changed"},
		{"T72 delete a frame", func(dir string) {
			rewrite(t, segmentsOf(t, dir, payload)[0], payload, func(r []record) []record { return append(r[:3:3], r[4:]...) })
		}, nil, Tampered, "where frame"},
		{"T72 delete a whole recording", func(dir string) {
			for _, n := range segmentsOf(t, dir, payload) {
				os.Remove(n)
			}
		}, nil, Tampered, "not in the recordings"},
		{"T72 another log's checkpoint", func(dir string) {
			other, _ := closedHouse(t, 1)
			b, _ := os.ReadFile(other.file("checkpoint"))
			os.WriteFile(filepath.Join(dir, "checkpoint"), b, 0o600)
		}, nil, Tampered, "not signed by"},
		{"T72 an old checkpoint replayed, remembered by nobody", func(dir string) { os.WriteFile(filepath.Join(dir, "checkpoint"), older, 0o600) }, nil, Intact, ""},
		{"T72 an old checkpoint replayed", func(dir string) { os.WriteFile(filepath.Join(dir, "checkpoint"), older, 0o600) }, newer, Tampered, "rolled back"},
		{"T72 rolled back to yesterday, remembered by nobody", func(dir string) { replace(t, dir, yesterday) }, nil, Intact, ""},
		{"T72 rolled back to yesterday", func(dir string) { replace(t, dir, yesterday) }, newer, Tampered, "rolled back"},
		{"T72 no checkpoint", func(dir string) { os.Remove(filepath.Join(dir, "checkpoint")) }, nil, Incomplete, "there is none"},
		{"T72 the tree's hashes removed", func(dir string) { os.RemoveAll(filepath.Join(dir, "tile")) }, nil, Incomplete, "hashes of the tree are missing"},
		{"T72 the tree's hashes too long", func(dir string) {
			name := filepath.Join(dir, "tile", "0")
			b, _ := os.ReadFile(name)
			os.WriteFile(name, append(b, make([]byte, 32)...), 0o600)
		}, nil, Tampered, "more leaves than the log has"},
		{"T72 a file slipped in", func(dir string) { os.WriteFile(filepath.Join(dir, "log", "x"), nil, 0o600) }, nil, Tampered, "does not belong"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyDir(t, h.cfg.Dir)
			c.attack(dir)
			o := Options{LogKey: key}
			if c.seen != nil {
				o.Seen = [][]byte{c.seen}
			}
			want(t, verify(t, dir, o), c.status, c.words)
		})
	}
}

func replace(t testing.TB, dir, with string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(with)); err != nil {
		t.Fatal(err)
	}
}

// TestT72_RewrittenWithTheLogsOwnKey: the operator edits a leaf and signs anew.
// Only who remembers an older checkpoint can tell.
func TestT72_RewrittenWithTheLogsOwnKey(t *testing.T) {
	h, key := closedHouse(t, 3)
	seen := verify(t, h.cfg.Dir, Options{LogKey: key}).Checkpoint
	l := h.open()
	session(t, l, "s-9", 1)
	l.Close()
	for i, n := range segmentsOf(t, h.cfg.Dir, timeline) {
		if i == 0 {
			rewrite(t, n, timeline, func(r []record) []record {
				for i := range r { // everywhere, or the lists of open sessions give it away
					r[i].body = bytes.ReplaceAll(r[i].body, []byte(`"rows":2`), []byte(`"rows":1`))
				}
				return r
			})
		}
	}
	os.RemoveAll(h.file("tile"))
	os.Remove(h.file("checkpoint"))
	l = h.open()
	l.Close()
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, Seen: [][]byte{seen}}), Tampered, "remembered checkpoint")
}

func TestT72_OpenRefusesWhatWasTampered(t *testing.T) {
	h, _ := closedHouse(t, 20)
	for name, attack := range map[string]func(dir string){
		"T72 the tail cut": func(dir string) {
			names := segmentsOf(t, dir, timeline)
			rewrite(t, names[len(names)-1], timeline, func(r []record) []record { return r[:len(r)-1] })
		},
		"T72 the last segment removed": func(dir string) {
			names := segmentsOf(t, dir, timeline)
			os.Remove(names[len(names)-1])
		},
		"T72 an edited leaf": func(dir string) {
			names := segmentsOf(t, dir, timeline)
			rewrite(t, names[len(names)-1], timeline, func(r []record) []record {
				r[len(r)-1].body = bytes.Replace(r[len(r)-1].body, []byte("node1"), []byte("node2"), 1)
				return r
			})
		},
		"T72 damage with whole batches after it": func(dir string) {
			names := segmentsOf(t, dir, timeline)
			data, _ := os.ReadFile(names[len(names)-1])
			_, body, _ := parseHeader(data)
			data[body+9] ^= 1
			os.WriteFile(names[len(names)-1], data, 0o600)
		},
		"T72 the recordings removed": func(dir string) {
			for _, n := range segmentsOf(t, dir, payload) {
				os.Remove(n)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := h.cfg
			cfg.Dir = copyDir(t, h.cfg.Dir)
			attack(cfg.Dir)
			before := listing(t, cfg.Dir)
			l, err := Open(cfg)
			if err == nil {
				l.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), ErrTampered.Error()) {
				t.Errorf("error %v", err)
			}
			if after := listing(t, cfg.Dir); after != before {
				t.Errorf("Open changed the evidence:\n%s\n%s", before, after)
			}
		})
	}
}

func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".lock") {
			return err
		}
		content, err := os.ReadFile(name)
		fmt.Fprintf(&b, "%s %08x\n", strings.TrimPrefix(name, dir), crc32.ChecksumIEEE(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func FuzzSegment(f *testing.F) {
	h := segmentHeader{stream: timeline, number: 1, node: "n", created: time.Unix(1, 0)}
	head := h.append(nil)
	good := appendMark(appendRecord(nil, recordLeaf, []byte(`{"v":1}`)), mark{count: 1})
	f.Add(append(bytes.Clone(head), good...))
	f.Add(append(append(bytes.Clone(head), good...), 0xff, 0xff, 0xff, 0xff, 'L'))
	f.Add(binary.BigEndian.AppendUint32(head, 1<<31))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range []stream{timeline, payload} {
			next := uint64(0)
			_, end, err := parseSegment(data, s, func(h segmentHeader, b *batch) error {
				if next != 0 && b.first != next {
					t.Fatal("batches do not follow on each other")
				}
				next = b.first + uint64(b.count)
				return nil
			})
			if end > len(data) || err == nil && len(bytes.TrimRight(data[end:], "\x00")) > 0 {
				t.Fatalf("end %d of %d, %v", end, len(data), err)
			}
		}
		parseFrame(data)
		entries(data, tileWidth, func(int, []byte) error { return nil })
	})
}

// issuer is a CA that certifies approvers' keys.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func certify(t testing.TB, ca *issuer, name string) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute)}
	parent, signer := tmpl, key
	if ca.cert != nil {
		parent, signer = ca.cert, ca.key
	} else {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func newIssuer(t testing.TB) *issuer {
	key, cert := certify(t, &issuer{}, "ca")
	return &issuer{cert, key}
}

// TestVerifyApprovals: what an approver signed is held to the key; a CA other
// than the broker's, and an answer turned round, are told.
func TestVerifyApprovals(t *testing.T) {
	ca, other := newIssuer(t), newIssuer(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair := private
	touched := securityKey{private, 1}
	for _, c := range []struct {
		name   string
		ca     *issuer
		change func(*api.Event)
		o      func(*Options, *ecdsa.PrivateKey)
		status Status
		words  string
	}{
		{"by an enrolled key", ca, nil, func(o *Options, k *ecdsa.PrivateKey) { o.Approvers = enrolled(t, "bob", k) }, Intact, "Proved: 1 answer of an approver, signed by their enrolled keys (bob: 1)"},
		{"by their own SSH key", ca, sshSigned(t, pair, ""), func(o *Options, _ *ecdsa.PrivateKey) { o.Approvers = enrolled(t, "bob", pair) }, Intact, "Proved: 1 answer of an approver, signed by"},
		{"by a security key", ca, sshSigned(t, touched, ""), func(o *Options, _ *ecdsa.PrivateKey) { o.Approvers = enrolled(t, "bob", touched) }, Intact, "Proved: 1 answer of an approver, signed by"},
		{"by a security key that nobody touched", ca, sshSigned(t, securityKey{pair, 0}, ""), nil, Tampered, "without being touched"},
		{"by an SSH key that nobody enrolled", ca, sshSigned(t, pair, ""), func(o *Options, _ *ecdsa.PrivateKey) { o.Approvers = enrolled(t, "bob", touched) }, Intact, "Asserted: 1 answer of an approver"},
		{"by an SSH key, for another answer", ca, sshSigned(t, pair, "r-2"), nil, Tampered, "does not belong"},
		{"by the broker's CA", ca, nil, nil, Intact, "Asserted: 1 answer of an approver, signed under"},
		{"no signature", ca, func(e *api.Event) { e.Signature = "" }, nil, Intact, "1 answer of an approver, without a signature"},
		{"by another CA", other, nil, nil, Tampered, "was not issued by"},
		{"a no turned into a yes", ca, func(e *api.Event) { e.Verdict = "deny" }, nil, Tampered, "does not belong"},
		{"for another request", ca, func(e *api.Event) { e.Request = "r-2" }, nil, Tampered, "does not belong"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, cert := certify(t, c.ca, "bob")
			a := api.Answer{Approve: true, Reason: "fine", Cures: []string{"no-where"}, Digest: "sha256:00"}
			if err := a.Sign("r-1", key); err != nil {
				t.Fatal(err)
			}
			e := &api.Event{Kind: api.EventApproval, Name: "bob", Request: "r-1", Digest: a.Digest, Verdict: "allow", Rules: a.Cures,
				Commitment: api.ReasonCommitment(a.Salt, a.Reason), Signature: base64.StdEncoding.EncodeToString(a.Signature),
				Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))}
			if c.change != nil {
				c.change(e)
			}
			h := newHouse(t)
			l := h.open()
			appendWait(t, l, e)
			l.Close()
			o := Options{LogKey: l.LogKey(), CAs: pool}
			if c.o != nil {
				c.o(&o, key)
			}
			r := verify(t, h.cfg.Dir, o)
			text := fmt.Sprint(r.Problems)
			for _, s := range r.Proved {
				text += " Proved: " + s
			}
			for _, s := range r.Asserted {
				text += " Asserted: " + s
			}
			if r.Status != c.status || !strings.Contains(text, c.words) {
				t.Errorf("status %s: %s", r.Status, text)
			}
		})
	}
}

// securityKey is an ed25519 key in a token, which says whether it was touched.
type securityKey struct {
	ed25519.PrivateKey
	touched byte
}

const application = "ssh:"

// sshPublic is a key as OpenSSH enrolls it.
func sshPublic(t testing.TB, key crypto.Signer) ssh.PublicKey {
	t.Helper()
	blob := []byte(nil)
	sk, isToken := key.(securityKey)
	if isToken {
		blob = ssh.Marshal(struct{ Kind, Key, Application string }{ssh.KeyAlgoSKED25519, string(sk.Public().(ed25519.PublicKey)), application})
	} else {
		k, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		blob = k.Marshal()
	}
	k, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func enrolled(t testing.TB, name string, key crypto.Signer) []Approver {
	return []Approver{{Name: name, Key: sshPublic(t, key)}}
}

// sshSigned puts an SSH signature beside an answer, made as PROTOCOL.sshsig and
// PROTOCOL.u2f say; for the answer to another request, if one is named.
func sshSigned(t testing.TB, key crypto.Signer, other string) func(*api.Event) {
	return func(e *api.Event) {
		request := e.Request
		if other != "" {
			request = other
		}
		sum := sha512.Sum512(api.AnswerBytes(request, e.Digest, true, e.Commitment, e.Rules))
		signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{api.ApprovalNamespace, "", "sha512", string(sum[:])})...)
		var sig []byte
		if sk, ok := key.(securityKey); ok {
			app, message := sha256.Sum256([]byte(application)), sha256.Sum256(signed)
			box := append(append(app[:], sk.touched, 0, 0, 0, 7), message[:]...)
			sig = append(ssh.Marshal(struct{ Kind, Sig string }{ssh.KeyAlgoSKED25519, string(ed25519.Sign(sk.PrivateKey, box))}), sk.touched, 0, 0, 0, 7)
		} else {
			sig = ssh.Marshal(struct{ Kind, Sig string }{ssh.KeyAlgoED25519, string(ed25519.Sign(key.(ed25519.PrivateKey), signed))})
		}
		blob := append([]byte("SSHSIG"), ssh.Marshal(struct {
			Version                                   uint32
			PublicKey, Namespace, Reserved, Hash, Sig string
		}{1, string(sshPublic(t, key).Marshal()), api.ApprovalNamespace, "", "sha512", string(sig)})...)
		e.Attrs = map[string]string{api.AttrSSHSignature: base64.StdEncoding.EncodeToString(blob)}
	}
}
