package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/hoopctl/hoopctl/server/api"
)

func bundleOf(t testing.TB, src Source, o BundleOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := WriteBundle(context.Background(), &b, src, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func verifyBundle(t testing.TB, b []byte, o Options) *Report {
	t.Helper()
	r, err := VerifyBundle(context.Background(), bytes.NewReader(b), int64(len(b)), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// repacked writes a bundle again with other content, and a manifest that fits.
func repacked(t testing.TB, bundle []byte, change func(files map[string][]byte, m *Manifest)) []byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(bundle), int64(len(bundle)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if files[f.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	var m Manifest
	if err := json.Unmarshal(files[manifestPath], &m); err != nil {
		t.Fatal(err)
	}
	change(files, &m)
	files["README.txt"] = readme(&m)
	m.Files = map[string]string{}
	var names []string
	for name, content := range files {
		names = append(names, name)
		if name != manifestPath {
			m.Files[name] = hexSum(content)
		}
	}
	if files[manifestPath], err = marshalManifest(&m); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeZip(&out, names, func(n string) (io.Reader, error) { return bytes.NewReader(files[n]), nil }); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBundle(t *testing.T) {
	h, key, ws := witnessedHouse(t, 1)
	l := h.open()
	for i := range 3 {
		e := &api.Event{Kind: api.EventLogin, Name: "alice", Login: "l-1"}
		if i == 1 {
			e = &api.Event{Kind: api.EventGrant, Name: "alice", Login: "l-1", Grant: "g-1", Request: "r-1"}
		}
		if i == 2 {
			e = &api.Event{Kind: api.EventApproval, Name: "bob", Login: "l-2", Request: "r-1", Verdict: "allow"}
		}
		appendWait(t, l, e)
	}
	session(t, l, "s-1", 30)
	appendWait(t, l, &api.Event{Kind: api.EventCancel, Session: "s-2", Grant: "g-1", Login: "l-1"})
	session(t, l, "s-2", 3)
	if err := l.Cosign(context.Background()); err != nil {
		t.Fatal(err)
	}
	appendWait(t, l, &api.Event{Kind: api.EventLogout, Name: "alice"})
	if _, err := l.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	policy := noURLs(policyOf(t, key, 1, ws...))
	o := BundleOptions{LogKey: key, Session: "s-2", Recordings: true, Witnesses: []string{ws[0].Key()}}
	one := bundleOf(t, l, o)
	if !bytes.Equal(one, bundleOf(t, Folder(h.cfg.Dir), o)) {
		t.Error("the same evidence gives two bundles")
	}
	r := verifyBundle(t, one, Options{LogKey: key, Policy: policy})
	want(t, r, Intact)
	if r.Frames == 0 || r.Witnessed != r.Leaves || !strings.Contains(strings.Join(r.Proved, "\n"), "all of it was seen by w0") {
		t.Errorf("report %+v", r)
	}
	kinds := bundleKinds(t, one)
	for _, k := range []string{api.EventLogin, api.EventGrant, api.EventApproval, api.EventSessionOpen, api.EventOutcome, api.EventSealed, api.EventSessionClose} {
		if kinds[k] == 0 {
			t.Errorf("the session's bundle has no %s: %v", k, kinds)
		}
	}
	if kinds[api.EventSessionOpen] != 1 || kinds[api.EventLogout] != 0 {
		t.Errorf("it holds what is not the session's: %v", kinds)
	}
	whole := bundleOf(t, l, BundleOptions{LogKey: key})
	want(t, verifyBundle(t, whole, Options{LogKey: key}), Intact)
	want(t, verifyBundle(t, one, Options{LogKey: key, Fresh: time.Minute, Now: time.Now().Add(time.Hour)}), Stale, "older than was asked for")
	period := bundleOf(t, l, BundleOptions{LogKey: key, Until: time.Now().Add(time.Hour)})
	want(t, verifyBundle(t, period, Options{LogKey: key, Policy: policy}), Stale, "before the period ends")
	if _, err := WriteBundle(context.Background(), io.Discard, l, BundleOptions{LogKey: key, Session: "s-99"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a session that there is none of: %v", err)
	}

	t.Run("replay", func(t *testing.T) { replayBundle(t, one, h.auditor) })
	t.Run("another verifier", func(t *testing.T) { bundlePasses(t, one) })
	t.Run("T72 attacks", func(t *testing.T) { attackBundles(t, key, one, whole, policy) })
}

func bundleKinds(t testing.TB, b []byte) map[string]int {
	t.Helper()
	o, err := OpenBundle(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	if err := o.Events(func(e *api.Event) error { kinds[e.Kind]++; return nil }); err != nil {
		t.Fatal(err)
	}
	return kinds
}

// replayBundle: a bundle opens without a server, for the auditor alone.
func replayBundle(t *testing.T, b []byte, auditor *age.X25519Identity) {
	o, err := OpenBundle(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	read := func(ids ...age.Identity) (text string, err error) {
		err = o.ReadSession(context.Background(), "s-2", ids, func(i Item) error {
			if i.Statement != nil {
				text += i.Statement.Text + "\n"
			}
			if i.Frame != nil {
				text += string(i.Frame.Data)
			}
			return nil
		})
		return text, err
	}
	if text, err := read(auditor); err != nil || !strings.Contains(text, "WHERE id = 1") || !strings.Contains(text, "row 2 of s-2") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := read(); err != nil || strings.Contains(text, "row") {
		t.Errorf("without identity: %v %s", err, text)
	}
	if _, err := read(stranger); err == nil {
		t.Error("a stranger's identity opens it")
	}
}

// bundlePasses takes a record and its proof out of the zip for the verifier that
// shares no code with us.
func bundlePasses(t *testing.T, b []byte) {
	o, err := OpenBundle(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := o.read(name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, index := range o.indexes() {
		if i%5 != 0 {
			continue
		}
		p := &Proof{Index: index, Leaf: read(recordPath(index)), Text: read(proofPath(index))}
		if out, err := pythonWith(t, strings.Fields(string(read("policy.txt"))), p, "1"); err != nil || !strings.Contains(out, "saw it by") {
			t.Errorf("leaf %d: %v %s", index, err, out)
		}
	}
}

// attackBundles: the one who hands the bundle over changes it, and makes the
// manifest fit.
func attackBundles(t *testing.T, key string, one, whole []byte, policy *Policy) {
	names := func(files map[string][]byte, folder string) []string {
		var out []string
		for n := range files {
			if strings.HasPrefix(n, folder+"/") {
				out = append(out, n)
			}
		}
		slices.Sort(out)
		return out
	}
	for _, c := range []struct {
		name   string
		bundle []byte
		change func(files map[string][]byte, m *Manifest)
		status Status
		words  string
	}{
		{"T72 edit a record", one, func(f map[string][]byte, _ *Manifest) {
			n := names(f, "records")[0]
			f[n] = bytes.Replace(f[n], []byte("alice"), []byte("mallo"), 1)
		}, Tampered, "is not in the log"},
		{"T72 swap two records", one, func(f map[string][]byte, _ *Manifest) {
			n := names(f, "records")
			f[n[0]], f[n[1]] = f[n[1]], f[n[0]]
		}, Tampered, "is not in the log"},
		{"T72 drop a record of a period", whole, func(f map[string][]byte, m *Manifest) {
			delete(f, names(f, "records")[7])
			delete(f, names(f, "proofs")[7])
			m.Records--
		}, Incomplete, "are missing"},
		{"T72 drop the newest records of a period", whole, func(f map[string][]byte, m *Manifest) {
			for range 3 {
				r, p := names(f, "records"), names(f, "proofs")
				delete(f, r[len(r)-1])
				delete(f, p[len(p)-1])
				m.Records--
				m.Last--
			}
		}, Incomplete, "what came after it is missing"},
		{"T72 drop a statement of a session", one, func(f map[string][]byte, m *Manifest) {
			for _, n := range names(f, "records") {
				if bytes.Contains(f[n], []byte(`"kind":"statement"`)) && bytes.Contains(f[n], []byte(`"sequence":2`)) {
					delete(f, n)
					delete(f, "proofs/"+strings.TrimSuffix(strings.TrimPrefix(n, "records/"), ".json")+".tlog-proof")
					m.Records--
				}
			}
		}, Incomplete, "follows on 1"},
		{"T72 drop the session's beginning", one, func(f map[string][]byte, m *Manifest) {
			for _, n := range names(f, "records") {
				if bytes.Contains(f[n], []byte(`"kind":"session.open"`)) {
					delete(f, n)
					delete(f, "proofs/"+strings.TrimSuffix(strings.TrimPrefix(n, "records/"), ".json")+".tlog-proof")
					m.Records--
				}
			}
		}, Incomplete, "the beginning of session"},
		{"T72 change a frame", one, func(f map[string][]byte, _ *Manifest) {
			b := f["recordings/s-2.frames"]
			b[len(b)-1] ^= 1
		}, Tampered, "the recording was changed"},
		{"T72 cut a recording", one, func(f map[string][]byte, _ *Manifest) {
			f["recordings/s-2.frames"] = f["recordings/s-2.frames"][:300]
		}, Tampered, "cut short"},
		{"T72 exchange the wrapped key", one, func(f map[string][]byte, _ *Manifest) { f["keys/s-2.key"] = []byte("other") }, Intact, ""},
		{"T72 cosignatures removed", one, func(f map[string][]byte, m *Manifest) {
			note := f["checkpoints/cosigned"]
			cut := note[:bytes.Index(note, []byte("— audit.example"))]
			for _, n := range names(f, "proofs") {
				f[n] = bytes.Replace(f[n], note, cut, 1)
			}
			f["checkpoints/cosigned"] = cut
		}, Incomplete, "cosignatures that the policy demands"},
		{"T72 the consistency proof changed", one, func(f map[string][]byte, _ *Manifest) {
			n := names(f, "consistency")[0]
			f[n][3] ^= 1
		}, Tampered, "consistency/"},
		{"T72 a file slipped in", one, func(f map[string][]byte, _ *Manifest) { f["x.html"] = nil }, Tampered, "does not belong"},
		{"T72 another session's name", one, func(_ map[string][]byte, m *Manifest) { m.Session = "s-1" }, Incomplete, "the beginning of session s-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policy
			if bytes.Equal(c.bundle, whole) {
				p = nil
			}
			want(t, verifyBundle(t, repacked(t, c.bundle, c.change), Options{LogKey: key, Policy: p}), c.status, c.words)
		})
	}
	t.Run("T72 any byte", func(t *testing.T) {
		step := 41 // a sample of the bytes, at other places for each run's bundle
		for i := len(one) % step; i < len(one); i += step {
			bad := bytes.Clone(one)
			bad[i] ^= 1 << (i % 8)
			if r := verifyBundle(t, bad, Options{LogKey: key, Policy: policy}); r.Status == Intact {
				t.Fatalf("byte %d of %d flipped: %s", i, len(one), r.Status)
			}
		}
	})
	t.Run("T72 any length", func(t *testing.T) {
		for i := 0; i < len(one); i += 997 {
			if r := verifyBundle(t, one[:i], Options{LogKey: key}); r.Status != Tampered {
				t.Fatalf("cut to %d: %s", i, r.Status)
			}
		}
		if r := verifyBundle(t, append(bytes.Clone(one), "more"...), Options{LogKey: key}); r.Status != Tampered {
			t.Error("more at the end")
		}
	})
}

func FuzzBundle(f *testing.F) {
	h, key := closedHouse(f, 1)
	f.Add(bundleOf(f, Folder(h.cfg.Dir), BundleOptions{LogKey: key, Session: "s-2", Recordings: true}))
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := VerifyBundle(context.Background(), bytes.NewReader(b), int64(len(b)), Options{LogKey: key})
		if err != nil {
			return
		}
		if r.Status == Intact && len(r.Proved) == 0 {
			t.Error("intact, and nothing is proved")
		}
		if o, err := OpenBundle(bytes.NewReader(b), int64(len(b))); err == nil {
			o.ReadSession(context.Background(), "s-2", []age.Identity{h.auditor}, func(Item) error { return nil })
		}
	})
}

// TestBundleFile: what verify reads from a file is what was written to one.
func TestBundleFile(t *testing.T) {
	h, key := closedHouse(t, 2)
	name := filepath.Join(t.TempDir(), "b.zip")
	if err := os.WriteFile(name, bundleOf(t, Folder(h.cfg.Dir), BundleOptions{LogKey: key, Recordings: true}), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	r, err := VerifyBundle(context.Background(), f, st.Size(), Options{LogKey: key})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, Intact)
}
