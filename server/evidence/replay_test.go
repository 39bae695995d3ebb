package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/hoopctl/hoopctl/server/api"
)

func readAll(t testing.TB, src Source, session string, ids ...age.Identity) ([]Item, error) {
	t.Helper()
	var items []Item
	err := ReadSession(context.Background(), src, session, ids, func(i Item) error {
		items = append(items, i)
		return nil
	})
	return items, err
}

func TestReplay(t *testing.T) {
	h, _ := closedHouse(t, 3)
	items, err := readAll(t, Folder(h.cfg.Dir), "s-1", h.auditor)
	if err != nil {
		t.Fatal(err)
	}
	commitments := map[string]bool{}
	var statements, toClient int
	for i, it := range items {
		if i > 0 && it.Time.Before(items[i-1].Time) {
			t.Errorf("item %d comes before the one before it", i)
		}
		switch {
		case it.Event != nil && it.Event.Commitment != "":
			commitments[it.Event.Commitment] = true
		case it.Statement != nil:
			statements++
			s := it.Statement
			if s.Sealed || !strings.HasPrefix(s.Text, "SELECT name FROM patients WHERE id = ") || len(s.Params) != 2 || string(s.Params[0]) != "7" || s.Params[1] != nil {
				t.Errorf("statement %+v", s)
			}
			commitments[s.Commitment] = commitments[s.Commitment] || false
		case it.Frame != nil:
			toClient++
			if it.Frame.Sealed || len(it.Frame.Data) != it.Frame.Size {
				t.Errorf("frame %+v", it.Frame)
			}
		}
	}
	if statements != 3 || toClient != 6 || len(commitments) != 3 {
		t.Errorf("%d statements, %d frames, %d commitments", statements, toClient, len(commitments))
	}
	for c, stands := range commitments {
		if !stands {
			t.Errorf("the timeline does not hold commitment %s", c)
		}
	}
	if first, last := items[0].Event, items[len(items)-1].Event; first == nil || first.Kind != api.EventSessionOpen || last == nil || last.Kind != api.EventSessionClose {
		t.Error("the session does not start with its open and end with its close")
	}
	if _, err := readAll(t, Folder(h.cfg.Dir), "s-404"); err == nil {
		t.Error("a session that never was is read")
	}
}

// TestT78_OnlyTheAuditorsReadIt: the folder and everything that the server
// keeps open nothing; another identity is told so; a deleted key is final, and
// the evidence stays verifiable.
func TestT78_OnlyTheAuditorsReadIt(t *testing.T) {
	h, key := closedHouse(t, 3)
	sealed := func(items []Item) (n int) {
		for _, it := range items {
			if it.Statement != nil && it.Statement.Sealed && it.Statement.Text == "" || it.Frame != nil && it.Frame.Sealed && it.Frame.Data == nil {
				n++
			}
		}
		return n
	}
	items, err := readAll(t, Folder(h.cfg.Dir), "s-1")
	if err != nil || sealed(items) != 9 {
		t.Errorf("T78 without a key: %d sealed, %v", sealed(items), err)
	}
	stranger, _ := age.GenerateX25519Identity()
	if _, err := readAll(t, Folder(h.cfg.Dir), "s-1", stranger); err == nil || !strings.Contains(err.Error(), "none of the auditors") {
		t.Errorf("T78 with a stranger's identity: %v", err)
	}
	for name, content := range load(t, filepath.Dir(h.cfg.Dir)) {
		for _, secret := range []string{"row 1 of s-1", "a row that compresses", "WHERE id = 1", "AGE-SECRET-KEY"} {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("T78 %s holds %q", name, secret)
			}
		}
	}
	if err := os.Remove(h.file("keys/s-1.key")); err != nil {
		t.Fatal(err)
	}
	if items, err = readAll(t, Folder(h.cfg.Dir), "s-1", h.auditor); err != nil || sealed(items) != 9 {
		t.Errorf("T78 after shredding: %d sealed, %v", sealed(items), err)
	}
	if items, err = readAll(t, Folder(h.cfg.Dir), "s-2", h.auditor); err != nil || sealed(items) != 0 {
		t.Errorf("T78 the other session after shredding: %d sealed, %v", sealed(items), err)
	}
	r := verify(t, h.cfg.Dir, Options{LogKey: key})
	want(t, r, Intact)
	if !strings.Contains(fmt.Sprint(r.Unknown), "shredded") {
		t.Errorf("T78 the report does not say that a recording cannot be opened: %v", r.Unknown)
	}
}

// TestT78_ALiveRecordingForgetsItsKeys: what a recording holds in memory after
// 8 MiB, and after Close, opens nothing from before.
func TestT78_ALiveRecordingForgetsItsKeys(t *testing.T) {
	h := newHouse(t)
	start := time.Now()
	var later atomic.Int64
	h.cfg.Now = func() time.Time { return start.Add(time.Duration(later.Load())) }
	l := h.open()
	appendWait(t, l, &api.Event{Kind: api.EventSessionOpen, Session: "s-1"})
	rec, err := l.Record("s-1", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{1})
	var sent [][]byte
	keys := map[string]bool{string(rec.key): true}
	for i := range 40 {
		b := make([]byte, 1<<20)
		if i%2 == 0 {
			noise.Read(b)
		}
		if i == 30 {
			later.Store(int64(time.Hour))
		}
		sent = append(sent, b)
		if _, _, err := rec.Frame('c', b); err != nil {
			t.Fatal(err)
		}
		keys[string(rec.key)] = true
	}
	huge := make([]byte, 20<<20) // takes two frames
	huge[0], huge[len(huge)-1] = 1, 2
	if _, last, err := rec.Frame('c', huge); err != nil || last != 42 {
		t.Fatal(last, err)
	}
	if len(keys) < 6 {
		t.Errorf("T78 40 MiB were encrypted with %d keys", len(keys))
	}
	if _, err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	if rec.key != nil || rec.aead != nil {
		t.Error("T78 the key outlives Close")
	}
	if _, _, err := rec.Frame('c', nil); err == nil {
		t.Error("T78 a closed recording takes a frame")
	}
	if err := l.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	items, err := readAll(t, l, "s-1", h.auditor)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, it := range items {
		if it.Frame != nil && n < len(sent) {
			if !bytes.Equal(it.Frame.Data, sent[n]) {
				t.Errorf("frame %d does not come back as it was", n)
			}
			n++
		}
	}
	if n != len(sent) {
		t.Errorf("%d of %d frames came back", n, len(sent))
	}
}

func TestReplayToldOfChangedFrames(t *testing.T) {
	h, _ := closedHouse(t, 3)
	rewrite(t, segmentsOf(t, h.cfg.Dir, payload)[0], payload, func(r []record) []record {
		r[2].body[len(r[2].body)-1] ^= 1
		return r
	})
	if _, err := readAll(t, Folder(h.cfg.Dir), "s-1", h.auditor); !errors.Is(err, ErrTampered) {
		t.Errorf("replay of a changed frame: %v", err)
	}
}

func TestASessionIsRecordedOnce(t *testing.T) {
	h, _ := closedHouse(t, 1)
	l := h.open()
	if _, err := l.Record("s-1", RecordOptions{}); err == nil {
		t.Error("a second recording of the same name")
	}
	if _, err := l.Record("../s-1", RecordOptions{}); err == nil {
		t.Error("a session's name that leaves the folder")
	}
	appendWait(t, l, statement(1)) // and the log still works
}

// TestProofPassesAnotherVerifier hands proofs to a verifier that shares no code
// with this one.
func TestProofPassesAnotherVerifier(t *testing.T) {
	h, key := closedHouse(t, 200)
	src := Folder(h.cfg.Dir)
	ctx := context.Background()
	cp := verify(t, h.cfg.Dir, Options{LogKey: key}).Signed
	for _, index := range []uint64{0, 1, 255, 256, 300, cp - 1} {
		p, err := Prove(ctx, src, key, index)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := CheckProof(p, key); err != nil {
			t.Errorf("proof of leaf %d: %v", index, err)
		}
		other := *p
		other.Leaf = bytes.Replace(p.Leaf, []byte("node1"), []byte("node2"), 1)
		if _, err := CheckProof(&other, key); !errors.Is(err, ErrTampered) {
			t.Errorf("proof of a changed leaf %d: %v", index, err)
		}
		out, err := python(t, key, p)
		if err != nil || !strings.HasPrefix(out, fmt.Sprintf("OK record #%d of %d", index, cp)) {
			t.Errorf("the other verifier on leaf %d: %s %v", index, out, err)
		}
		if out, err := python(t, key, &other); err == nil {
			t.Errorf("the other verifier takes a changed leaf: %s", out)
		}
	}
	if _, err := Prove(ctx, src, key, cp); err == nil {
		t.Error("a proof of a leaf that the checkpoint does not cover")
	}
}

func python(t *testing.T, key string, p *Proof) (string, error) {
	t.Helper()
	return pythonWith(t, []string{key}, p, "0")
}

// pythonWith asks for that many cosignatures by the keys.
func pythonWith(t *testing.T, keys []string, p *Proof, witnesses string) (string, error) {
	t.Helper()
	const script = "../../testdata/evidence/verify_tlog_proof.py"
	interpreter := "/usr/bin/python3"
	if err := exec.Command(interpreter, "-c", "import cryptography").Run(); err != nil {
		t.Skip("needs python3 with cryptography (apt-get install python3-cryptography)")
	}
	dir := t.TempDir()
	names := []string{filepath.Join(dir, "policy.txt"), filepath.Join(dir, "record.json"), filepath.Join(dir, "record.tlog-proof")}
	for i, content := range [][]byte{[]byte(strings.Join(keys, "\n") + "\n"), p.Leaf, p.Text} {
		if err := os.WriteFile(names[i], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(interpreter, append(append([]string{script}, names...), witnesses)...).CombinedOutput()
	return string(out), err
}

func FuzzStatement(f *testing.F) {
	b, _ := statementPayload("SELECT $1", [][]byte{nil, []byte("x"), {}})
	f.Add(b)
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStatement(b)
		if err != nil {
			return
		}
		again, err := statementPayload(s.Text, s.Params)
		if err != nil || !bytes.Equal(again[32:], b[32:]) {
			t.Fatalf("%x becomes %x", b, again)
		}
	})
}

func FuzzProof(f *testing.F) {
	f.Add([]byte(proofHeader + "\nindex 0\n\nhopctl/n\n1\nAAAA\n\n— x AAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := CheckProof(&Proof{Text: b}, "hoopctl/n+00000000+AQ=="); err == nil {
			t.Fatal("a proof without a log")
		}
		parseCheckpointText(string(b))
	})
}
