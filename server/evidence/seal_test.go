package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/hoopctl/hoopctl/server/api"
)

// sealedHouse is a folder with two sessions in several payload segments, whose
// recordings are sealed, and what auditors read in them before that.
func sealedHouse(t *testing.T) (h *house, l *Log, before map[string]string) {
	t.Helper()
	h = newHouse(t)
	h.cfg.SegmentBytes = 16 << 10
	l = h.open()
	session(t, l, "s-1", 60)
	session(t, l, "s-2", 30)
	before = map[string]string{"s-1": readText(t, l, "s-1", h.auditor), "s-2": readText(t, l, "s-2", h.auditor)}
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	return h, l, before
}

// readText is what is read in a session, but for which file it came from.
func readText(t *testing.T, src Source, name string, ids ...age.Identity) string {
	t.Helper()
	items, err := readAll(t, src, name, ids...)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, it := range items {
		switch {
		case it.Statement != nil:
			fmt.Fprintf(&b, "statement %d %v %q %q %s\n", it.Statement.Frame, it.Statement.Sealed, it.Statement.Text, it.Statement.Params, it.Statement.Commitment)
		case it.Frame != nil:
			fmt.Fprintf(&b, "frame %d %c %d %v %q\n", it.Frame.Number, it.Frame.Dir, it.Frame.Size, it.Frame.Sealed, it.Frame.Data)
		default:
			fmt.Fprintf(&b, "%s %d\n", it.Event.Kind, it.Event.Sequence)
		}
	}
	return b.String()
}

func globbed(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestSealedRecordingsAreReadAsBefore: sealed files hold what the frames held,
// the frames shrink to digests, and verify and bundles go on from those.
func TestSealedRecordingsAreReadAsBefore(t *testing.T) {
	h, l, before := sealedHouse(t)
	if n := len(globbed(t, h.cfg.Dir, "sealed/*.age")); n != 2 {
		t.Errorf("%d sealed files of two sessions", n)
	}
	small := 0
	for _, name := range globbed(t, h.cfg.Dir, "frames/*.log") {
		if done, err := isReduced(name); err != nil {
			t.Error(err)
		} else if done {
			small++
		}
	}
	if small == 0 {
		t.Error("no segment was reduced to digests")
	}
	for name, was := range before {
		if is := readText(t, l, name, h.auditor); is != was {
			t.Errorf("%s reads otherwise after it was sealed:\n%s\nbefore:\n%s", name, is, was)
		}
	}
	if text := readText(t, l, "s-1"); strings.Contains(text, "row 1 of") || !strings.Contains(text, "true") {
		t.Errorf("without an identity: %s", text)
	}
	key := l.LogKey()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)

	l = h.open() // recovery and new recordings go on behind reduced segments
	session(t, l, "s-3", 3)
	if _, err := l.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	b := bundleOf(t, l, BundleOptions{LogKey: key, Recordings: true})
	want(t, verifyBundle(t, b, Options{LogKey: key}), Intact)
	open, err := OpenBundle(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := open.ReadSession(context.Background(), "s-1", []age.Identity{h.auditor}, func(it Item) error {
		if it.Frame != nil && bytes.HasPrefix(it.Frame.Data, []byte("row ")) {
			n++
		}
		return nil
	}); err != nil || n != 60 {
		t.Errorf("the bundle shows %d rows of 60, %v", n, err)
	}
}

// TestSealedFilesOpenWithStockTools: age and zstd are all that an auditor needs.
// The zstd of this machine reads them, and a reader of the format that shares
// no code with the writer checks that each frame is there.
func TestSealedFilesOpenWithStockTools(t *testing.T) {
	h, l, _ := sealedHouse(t)
	wrapped, err := os.ReadFile(h.file("keys/s-1.key"))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := age.Decrypt(bytes.NewReader(wrapped), h.auditor)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := age.ParseIdentities(inner)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(h.file(sealedPath("s-1", 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed, err := age.Decrypt(f, ids...)
	if err != nil {
		t.Fatal(err)
	}
	plain := unzstd(t, packed)
	for _, part := range []string{"hoopSE1\n\x03s-1", "row 59 of s-1", "WHERE id = 59"} {
		if !bytes.Contains(plain, []byte(part)) {
			t.Errorf("%q is not in it", part)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func unzstd(t *testing.T, packed io.Reader) []byte {
	t.Helper()
	tool, err := exec.LookPath("zstd")
	if err != nil {
		z, err := zstd.NewReader(packed)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	cmd := exec.Command(tool, "-dc")
	cmd.Stdin = packed
	plain, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// TestT72_SealedFiles: what is done to sealed files and to what is left of
// their frames is told.
func TestT72_SealedFiles(t *testing.T) {
	h, l, _ := sealedHouse(t)
	key := l.LogKey()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	flip := func(dir, name string) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := "frames/" + segmentName(1)
	for name, attack := range map[string]struct {
		do     func(dir string)
		status Status
		words  string
	}{
		"T72 changed": {func(dir string) { flip(dir, sealedPath("s-1", 1)) }, Tampered, "not the file that was sealed"},
		"T72 missing": {func(dir string) { os.Remove(filepath.Join(dir, sealedPath("s-1", 1))) }, Tampered, "no leaf says that it was shredded"},
		"T72 swapped": {func(dir string) {
			a, b := filepath.Join(dir, sealedPath("s-1", 1)), filepath.Join(dir, sealedPath("s-2", 1))
			os.Rename(a, a+"x")
			os.Rename(b, a)
			os.Rename(a+"x", b)
		}, Tampered, "not the file that was sealed"},
		"T72 digest changed": {func(dir string) {
			rewrite(t, filepath.Join(dir, first), payload, func(r []record) []record {
				r[2].body[len(r[2].body)-1] ^= 1
				return r
			})
		}, Tampered, "not those that it binds"},
		"T72 digest dropped": {func(dir string) {
			rewrite(t, filepath.Join(dir, first), payload, func(r []record) []record { return append(r[:2], r[3:]...) })
		}, Tampered, ""},
		"T72 frames of nobody's": {func(dir string) { // the last segment is not reduced: whoever does so without a leaf is told
			names := globbed(t, dir, "frames/*.log")
			rewrite(t, names[len(names)-1], payload, func(r []record) []record {
				f, err := parseFrame(r[len(r)-1].body)
				if err != nil {
					t.Fatal(err)
				}
				r[len(r)-1] = record{kind: recordDigest, body: appendDigest(nil, f, r[len(r)-1].body)[recordHeader+1:]}
				return r
			})
		}, Tampered, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, h.cfg.Dir)
			attack.do(dir)
			want(t, verify(t, dir, Options{LogKey: key}), attack.status, attack.words)
		})
	}
	if _, err := readAll(t, Folder(h.cfg.Dir), "s-1", h.auditor); err != nil {
		t.Error(err)
	}
	dir := copyDir(t, h.cfg.Dir)
	flip(dir, sealedPath("s-1", 1))
	if _, err := readAll(t, Folder(dir), "s-1", h.auditor); err == nil {
		t.Error("T72 a changed sealed file is replayed")
	}
}

// TestT78_ShreddedForGood: after a recording was shredded its auditors open
// nothing of it, sealed or not, and the proofs stand.
func TestT78_ShreddedForGood(t *testing.T) {
	h, l, before := sealedHouse(t)
	stolen := copyDir(t, h.cfg.Dir)
	ctx := context.Background()
	if err := l.Shred(ctx, api.Event{Session: "s-1", Name: "erin", Principal: "dev:erin", Reason: "asked for by the hospital"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	if left := append(globbed(t, h.cfg.Dir, "sealed/s-1.*"), globbed(t, h.cfg.Dir, "keys/s-1.*")...); len(left) > 0 {
		t.Errorf("T78 left: %v", left)
	}
	if text := readText(t, l, "s-1", h.auditor); strings.Contains(text, "row 1 of") || strings.Contains(text, "WHERE id = 1") {
		t.Errorf("T78 a shredded session is read: %s", text)
	}
	if is := readText(t, l, "s-2", h.auditor); is != before["s-2"] {
		t.Error("T78 the other session does not read as before")
	}
	key := l.LogKey()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, h.cfg.Dir, Options{LogKey: key})
	want(t, r, Intact)
	if !strings.Contains(fmt.Sprint(r.Asserted), "1 recording was shredded") {
		t.Errorf("T78 the report does not say so: %v", r.Asserted)
	}
	// A copy of the evidence without the wrapped key opens nothing either.
	if err := os.Remove(filepath.Join(stolen, "keys/s-1.key")); err != nil {
		t.Fatal(err)
	}
	if text := readText(t, Folder(stolen), "s-1", h.auditor); strings.Contains(text, "row 1 of") {
		t.Error("T78 a locked copy is read without its wrapped key")
	}
}

// TestT78_CrashWhileShreddingOrSealing: the start after a crash ends both.
func TestT78_CrashWhileShreddingOrSealing(t *testing.T) {
	h, l, _ := sealedHouse(t)
	appendWait(t, l, &api.Event{Kind: api.EventShredded, Session: "s-1"}) // … and before anything was deleted
	loose := h.file(sealedPath("s-2", 77))
	if err := os.WriteFile(loose, []byte("a file whose leaf never was"), 0o600); err != nil {
		t.Fatal(err)
	}
	crash(l)
	l = h.open()
	for _, name := range []string{h.file("keys/s-1.key"), h.file(sealedPath("s-1", 1)), loose} {
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("T78 %s is still there: %v", name, err)
		}
	}
	key := l.LogKey()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
}

// TestACrashedSessionStaysReadable: its keys died with the server, so it is
// never sealed, and its segments are left whole.
func TestACrashedSessionStaysReadable(t *testing.T) {
	h := newHouse(t)
	h.cfg.SegmentBytes = 16 << 10
	l := h.open()
	session(t, l, "s-1", 20)
	crash(l)
	l = h.open()
	session(t, l, "s-2", 60)
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	if names := globbed(t, h.cfg.Dir, "sealed/s-1.*"); len(names) != 0 {
		t.Errorf("sealed without a key: %v", names)
	}
	if text := readText(t, l, "s-1", h.auditor); !strings.Contains(text, "row 19 of s-1") {
		t.Errorf("it cannot be read: %s", text)
	}
	key := l.LogKey()
	l.Close()
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
}

// TestSealingALongSession: stretches are sealed one by one while it goes on.
func TestSealingALongSession(t *testing.T) {
	h := newHouse(t)
	h.cfg.SegmentBytes = 4 << 20
	l := h.open()
	appendWait(t, l, &api.Event{Kind: api.EventSessionOpen, Session: "s-1"})
	rec, err := l.Record("s-1", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if _, _, err := rec.Frame('c', bytes.Repeat([]byte{byte(i)}, 700<<10)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			if err := l.Seal(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(globbed(t, h.cfg.Dir, "sealed/s-1.*")); n < 2 {
		t.Errorf("%d stretches of a live session are sealed", n)
	}
	check := func() {
		t.Helper()
		items, err := readAll(t, l, "s-1", h.auditor)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, it := range items {
			if it.Frame != nil {
				if !bytes.Equal(it.Frame.Data, bytes.Repeat([]byte{byte(n)}, 700<<10)) {
					t.Fatalf("frame %d is not what was recorded", n)
				}
				n++
			}
		}
		if n != 40 {
			t.Errorf("%d of 40 frames", n)
		}
	}
	check()
	if _, err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	appendWait(t, l, &api.Event{Kind: api.EventSessionClose, Session: "s-1"})
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	check()
	key := l.LogKey()
	l.Close()
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
}

func FuzzSealed(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("hoopSE1\n\x03s-1" + strings.Repeat("\x00", 7) + "\x01c\x00" + strings.Repeat("\x00", 8) + "\x00\x00\x00\x02hi"))
	f.Add([]byte("hoopSE1\n\x03s-1" + strings.Repeat("\xff", 40)))
	f.Fuzz(func(t *testing.T, plain []byte) {
		box, err := seal(z.EncodeAll(plain, nil), id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		s, err := newSealedFrames(bytes.NewReader(box), "s-1", id)
		if err != nil {
			return
		}
		s.file = io.NopCloser(nil)
		defer s.close()
		total := 0
		for {
			fr, err := s.next()
			if err != nil {
				return
			}
			if total += len(fr.box); total > len(plain) {
				t.Fatalf("%d bytes of payload in %d bytes", total, len(plain))
			}
		}
	})
}
