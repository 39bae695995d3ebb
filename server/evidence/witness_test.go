package evidence

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// witnessing is a witness that runs.
type witnessing struct {
	*Witness
	cfg WitnessConfig
	srv *httptest.Server
}

func newWitness(t testing.TB, name string, logs ...string) *witnessing {
	t.Helper()
	w := &witnessing{cfg: WitnessConfig{Dir: filepath.Join(t.TempDir(), "w"), Name: name, Logs: logs}}
	w.start(t)
	t.Cleanup(func() { w.srv.Close(); w.Close() })
	return w
}

func (w *witnessing) start(t testing.TB) {
	t.Helper()
	var err error
	if w.Witness, err = OpenWitness(w.cfg); err != nil {
		t.Fatal(err)
	}
	if w.srv == nil {
		w.srv = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) { w.Witness.ServeHTTP(out, r) }))
	}
}

// witnessedHouse is a house whose log is watched by n witnesses.
func witnessedHouse(t testing.TB, n int) (*house, string, []*witnessing) {
	t.Helper()
	h := newHouse(t)
	h.cfg.CosignEvery = time.Hour // tests say when
	h.cfg.SegmentBytes = 16 << 10
	_, key, err := loadKey(h.cfg.KeyFile, Origin(h.cfg.Node))
	if err != nil {
		t.Fatal(err)
	}
	var ws []*witnessing
	for i := range n {
		w := newWitness(t, fmt.Sprintf("audit.example/w%d", i+1), key)
		h.cfg.Witnesses = append(h.cfg.Witnesses, WitnessConf{URL: w.srv.URL, Key: w.Key()})
		ws = append(ws, w)
	}
	return h, key, ws
}

// policyOf is what an auditor holds: the witnesses' keys and where they are.
func policyOf(t testing.TB, key string, need int, ws ...*witnessing) *Policy {
	t.Helper()
	text, names := "log "+key+"\n", ""
	for i, w := range ws {
		text += fmt.Sprintf("witness w%d %s %s\n", i, w.Key(), w.srv.URL)
		names += fmt.Sprintf(" w%d", i)
	}
	p, err := ParsePolicy([]byte(fmt.Sprintf("%sgroup all %d%s\nquorum all\n", text, need, names)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func noURLs(p *Policy) *Policy {
	q := *p
	q.Witnesses = slices.Clone(p.Witnesses)
	for i := range q.Witnesses {
		q.Witnesses[i].URL = ""
	}
	return &q
}

func TestWitnessesCosignWhatGrows(t *testing.T) {
	h, key, ws := witnessedHouse(t, 2)
	l := h.open()
	session(t, l, "s-1", 5)
	if err := l.Cosign(context.Background()); err != nil {
		t.Fatal(err)
	}
	session(t, l, "s-2", 5)
	if err := l.Close(); err != nil { // the last checkpoint is cosigned on the way out
		t.Fatal(err)
	}
	p := policyOf(t, key, 2, ws...)
	r := verify(t, h.cfg.Dir, Options{LogKey: key, Policy: noURLs(p), Fresh: time.Hour, Now: time.Now()})
	want(t, r, Intact)
	if r.Witnessed != r.Leaves || r.WitnessedAt.IsZero() || !strings.Contains(strings.Join(r.Proved, "\n"), "whoever holds the log's key") {
		t.Errorf("report %+v", r)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, Policy: noURLs(p), Fresh: time.Hour, Now: time.Now().Add(2 * time.Hour)}), Stale, "the witnesses saw it last")
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, Policy: p, Ask: http.DefaultClient}), Intact)

	// a proof carries the cosignatures, and another verifier counts them
	proof, err := Prove(context.Background(), Folder(h.cfg.Dir), key, 3)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pythonWith(t, []string{key, ws[0].Key(), ws[1].Key()}, proof, "2")
	if err != nil || !strings.Contains(out, "audit.example/w1 saw it by 20") || !strings.Contains(out, "audit.example/w2 saw it by 20") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := pythonWith(t, []string{key, ws[0].Key()}, proof, "2"); err == nil {
		t.Errorf("one known witness passes for two: %s", out)
	}
}

// TestT72_WitnessColumn is the detection table's third column: what the log's
// own key cannot hide from witnesses. The attacker has that key.
func TestT72_WitnessColumn(t *testing.T) {
	h, key, ws := witnessedHouse(t, 2)
	l := h.open()
	session(t, l, "s-1", 20)
	l.Close()
	yesterday := copyDir(t, h.cfg.Dir)
	l = h.open()
	session(t, l, "s-2", 20)
	l.Close()
	today := copyDir(t, h.cfg.Dir)
	// resign opens the log with its own key, without witnesses, and signs it anew.
	resign := func(t *testing.T, dir string, more func(l *Log)) {
		cfg := h.cfg
		cfg.Dir, cfg.Witnesses = dir, nil
		os.RemoveAll(filepath.Join(dir, "tile"))
		os.Remove(filepath.Join(dir, "checkpoint"))
		os.Remove(filepath.Join(dir, cosignedPath))
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if more != nil {
			more(l)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(t *testing.T, dir string, segment int) {
		names := segmentsOf(t, dir, timeline)
		rewrite(t, names[segment], timeline, func(r []record) []record {
			for i := range r {
				r[i].body = bytes.ReplaceAll(r[i].body, []byte(`"rows":2`), []byte(`"rows":1`))
			}
			return r
		})
	}
	grow := func(n int) func(l *Log) {
		return func(l *Log) { session(t, l, "s-77", n) }
	}
	for _, c := range []struct {
		name   string
		attack func(t *testing.T, dir string)
		words  string
		alone  Status // what the log's key tells without witnesses
	}{
		{"T72 everything rolled back to yesterday", func(t *testing.T, dir string) { replace(t, dir, yesterday) }, "rolled back", Intact},
		{"T72 rolled back and signed anew", func(t *testing.T, dir string) { replace(t, dir, yesterday); resign(t, dir, nil) }, "rolled back", Intact},
		{"T72 an early leaf edited and all signed anew", func(t *testing.T, dir string) { edit(t, dir, 0); resign(t, dir, nil) }, "history was rewritten", Intact},
		{"T72 rolled back, and another history appended", func(t *testing.T, dir string) { replace(t, dir, yesterday); resign(t, dir, grow(40)) }, "history was rewritten", Intact},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyDir(t, today)
			c.attack(t, dir)
			want(t, verify(t, dir, Options{LogKey: key}), c.alone)
			p := policyOf(t, key, 1, ws...)
			want(t, verify(t, dir, Options{LogKey: key, Policy: p, Ask: http.DefaultClient}), Tampered, c.words)
			// Offline, with the keys alone: old cosignatures are stale, and new ones cannot be made.
			r := verify(t, dir, Options{LogKey: key, Policy: noURLs(p), Fresh: time.Minute, Now: time.Now().Add(time.Hour)})
			if r.Status != Stale && r.Status != Incomplete {
				t.Errorf("offline: %s", r.Status)
			}
		})
	}
	t.Run("T72 a fork of the same size", func(t *testing.T) {
		dir := copyDir(t, today)
		r := verify(t, dir, Options{LogKey: key})
		cp, err := ParseCheckpoint(r.Checkpoint, key)
		if err != nil {
			t.Fatal(err)
		}
		signer, _, err := loadKey(h.cfg.KeyFile, Origin(h.cfg.Node))
		if err != nil {
			t.Fatal(err)
		}
		cp.Root[0] ^= 1
		if err := cp.sign(signer); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, "checkpoint"), cp.Note, 0o600)
		want(t, verify(t, dir, Options{LogKey: key, Policy: policyOf(t, key, 2, ws...), Ask: http.DefaultClient}), Tampered, "there are two logs")
		kept, err := os.ReadDir(filepath.Join(ws[0].cfg.Dir, refusedFolder))
		if err != nil || len(kept) == 0 {
			t.Errorf("the witness keeps no proof of the fork: %v", err)
		}
	})
	t.Run("T72 an old checkpoint beside the cosigned one", func(t *testing.T) {
		dir := copyDir(t, today)
		b, _ := os.ReadFile(filepath.Join(yesterday, "checkpoint"))
		os.WriteFile(filepath.Join(dir, "checkpoint"), b, 0o600)
		want(t, verify(t, dir, Options{LogKey: key}), Tampered, "rolled back")
	})
	t.Run("T72 a cosignature changed", func(t *testing.T) {
		dir := copyDir(t, today)
		name := filepath.Join(dir, cosignedPath)
		b, _ := os.ReadFile(name)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		last := strings.Split(lines[len(lines)-1], " ")
		raw, _ := base64.StdEncoding.DecodeString(last[2])
		raw[5] ^= 1 // its time
		lines[len(lines)-1] = strings.Join(append(last[:2], base64.StdEncoding.EncodeToString(raw)), " ")
		os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
		want(t, verify(t, dir, Options{LogKey: key, Policy: noURLs(policyOf(t, key, 1, ws...))}), Tampered, "cosignature")
	})
	t.Run("T72 the server itself is told", func(t *testing.T) {
		replace(t, h.cfg.Dir, yesterday)
		l := h.open()
		defer l.Close()
		session(t, l, "s-3", 1)
		if err := l.Cosign(context.Background()); err == nil {
			t.Fatal("witnesses cosigned a log that was rolled back")
		}
		if got := events(t, l, api.EventQuery{Kind: []string{api.EventWitness}}); len(got) != 2 || !strings.Contains(got[0].Reason, "rolled back") {
			t.Errorf("leaves: %+v", got)
		}
	})
	t.Run("T72 shorter than what was cosigned", func(t *testing.T) {
		dir := copyDir(t, yesterday)
		b, _ := os.ReadFile(filepath.Join(today, cosignedPath))
		os.WriteFile(filepath.Join(dir, cosignedPath), b, 0o600)
		cfg := h.cfg
		cfg.Dir = dir
		if l, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "tampered") {
			t.Errorf("opened: %v", err)
			l.Close()
		}
	})
}

// TestWitnessesMayBeDown: a quorum suffices, and without it the log goes on.
func TestWitnessesMayBeDown(t *testing.T) {
	h, key, ws := witnessedHouse(t, 3)
	ws[2].srv.Close()
	l := h.open()
	session(t, l, "s-1", 2)
	if err := l.Cosign(context.Background()); err == nil || !strings.Contains(err.Error(), "audit.example/w3") {
		t.Errorf("the witness that is down is not named: %v", err)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, Policy: noURLs(policyOf(t, key, 2, ws...))}), Intact)
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, Policy: noURLs(policyOf(t, key, 3, ws...))}), Incomplete, "cosignatures that the policy demands")
	ws[0].srv.Close()
	ws[1].srv.Close()
	session(t, l, "s-2", 2)
	if err := l.Cosign(context.Background()); err == nil {
		t.Error("cosigned by nobody")
	}
	session(t, l, "s-3", 2)
	if err := l.Close(); err != nil {
		t.Errorf("the log did not close without its witnesses: %v", err)
	}
	r := verify(t, h.cfg.Dir, Options{LogKey: key, Policy: noURLs(policyOf(t, key, 2, ws...))})
	want(t, r, Intact)
	if r.Witnessed >= r.Leaves || r.Witnessed == 0 {
		t.Errorf("witnessed %d of %d", r.Witnessed, r.Leaves)
	}
}

func TestWitnessProtocol(t *testing.T) {
	signer, vkey, err := loadKey(filepath.Join(t.TempDir(), "k"), Origin("n"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := loadKey(filepath.Join(t.TempDir(), "k"), Origin("n"))
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := loadKey(filepath.Join(t.TempDir(), "k"), Origin("other"))
	if err != nil {
		t.Fatal(err)
	}
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for i := range int64(20) {
		hs, err := tlog.StoredHashes(i, fmt.Appendf(nil, "leaf %d", i), reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, hs...)
	}
	head := func(size int64) Checkpoint {
		root, err := tlog.TreeHash(size, reader)
		if err != nil {
			t.Fatal(err)
		}
		cp := Checkpoint{Origin: Origin("n"), Size: uint64(size), Root: root}
		if err := cp.sign(signer); err != nil {
			t.Fatal(err)
		}
		return cp
	}
	body := func(old, proveFrom int64, cp Checkpoint) string {
		b := fmt.Sprintf("old %d\n", old)
		if proveFrom > 0 {
			p, err := tlog.ProveTree(int64(cp.Size), proveFrom, reader)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range p {
				b += base64.StdEncoding.EncodeToString(x[:]) + "\n"
			}
		}
		return b + "\n" + string(cp.Note)
	}
	by := func(s interface {
		Name() string
		KeyHash() uint32
		Sign([]byte) ([]byte, error)
	}, origin string) Checkpoint {
		cp := head(5)
		cp.Origin = origin
		if err := cp.sign(s); err != nil {
			t.Fatal(err)
		}
		return cp
	}
	fork := head(7)
	fork.Root[3] ^= 1
	if err := fork.sign(signer); err != nil {
		t.Fatal(err)
	}
	w := newWitness(t, "w.example", vkey)
	post := func(body string) (int, string, string) {
		res, err := http.Post(w.srv.URL+"/some/prefix/add-checkpoint", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, res.Header.Get("Content-Type"), string(b)
	}
	for _, c := range []struct {
		name, body string
		code       int
		answer     string
	}{
		{"nonsense", "hello", 400, ""},
		{"too many hashes", "old 1\n" + strings.Repeat(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", 64) + "\n" + string(head(5).Note), 400, ""},
		{"a leading zero", strings.Replace(body(0, 0, head(5)), "old 0", "old 00", 1), 400, ""},
		{"another log", body(0, 0, by(other, Origin("other"))), 404, ""},
		{"another key of that name", body(0, 0, by(stranger, Origin("n"))), 403, ""},
		{"old beyond new", body(6, 0, head(5)), 400, ""},
		{"not from the start", body(3, 3, head(5)), 409, "0\n"},
		{"a proof from nothing", body(0, 3, head(5)), 422, ""},
		{"first", body(0, 0, head(5)), 200, "— w.example "},
		{"once more", body(5, 0, head(5)), 200, "— w.example "},
		{"from the start again", body(0, 0, head(7)), 409, "5\n"},
		{"without proof", body(5, 0, head(7)), 422, ""},
		{"a proof from elsewhere", body(5, 4, head(7)), 422, ""},
		{"grown", body(5, 5, head(7)), 200, "— w.example "},
		{"rolled back", body(5, 0, head(5)), 409, "7\n"},
		{"a fork", body(7, 0, fork), 409, "7\n"},
		{"grown more", body(7, 7, head(20)), 200, "— w.example "},
	} {
		code, kind, answer := post(c.body)
		if code != c.code || !strings.HasPrefix(answer, c.answer) {
			t.Errorf("%s: %d %q, want %d %q", c.name, code, answer, c.code, c.answer)
		}
		if code == 409 && kind != "text/x.tlog.size" {
			t.Errorf("%s: content type %s", c.name, kind)
		}
	}
	// What it saw outlives it, and who loses the state cannot go on under the key.
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	if code, _, answer := post(body(7, 7, head(20))); code != 409 || answer != "20\n" {
		t.Errorf("after a restart: %d %q", code, answer)
	}
	w.Close()
	os.Remove(filepath.Join(w.cfg.Dir, witnessStateFile))
	if _, err := OpenWitness(w.cfg); err == nil || !strings.Contains(err.Error(), "retire the key") {
		t.Errorf("a witness without its state: %v", err)
	}
}

// TestAWitnessThatCannotWriteSignsNothing: persisting comes before signing.
func TestAWitnessThatCannotWriteSignsNothing(t *testing.T) {
	h, key := closedHouse(t, 1)
	w := newWitness(t, "w.example", key)
	cp, _ := os.ReadFile(h.file("checkpoint"))
	w.cfg.Dir = filepath.Join(w.cfg.Dir, "gone")
	w.Witness.cfg.Dir = w.cfg.Dir
	for range 2 {
		if line, err := w.add(append([]byte("old 0\n\n"), cp...)); err == nil {
			t.Errorf("signed: %s", line)
		}
	}
}

// TestWitnessUnderConcurrency: whatever order submissions come in, what was
// cosigned never goes back.
func TestWitnessUnderConcurrency(t *testing.T) {
	h, key, ws := witnessedHouse(t, 1)
	l := h.open()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			appendWait(t, l, statement(i+1))
			cp, err := l.Checkpoint(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			a := asked{http: http.DefaultClient, at: WitnessAt{Name: "w", Key: mustWitnessKey(t, ws[0].Key()), URL: ws[0].srv.URL}, src: l, cp: cp}
			a.cosign(context.Background()) // an overtaken one is refused
		})
	}
	wg.Wait()
	l.Close()
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, Policy: policyOf(t, key, 1, ws...), Ask: http.DefaultClient}), Intact)
}

func mustWitnessKey(t testing.TB, s string) WitnessKey {
	t.Helper()
	k, err := ParseWitnessKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestAHostileWitness gets nothing of its own into a checkpoint.
func TestAHostileWitness(t *testing.T) {
	h, key, ws := witnessedHouse(t, 1)
	for name, answer := range map[string]http.HandlerFunc{
		"no signature":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "— audit.example/w1 AAAA\n") },
		"another's text": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hoopctl/node1\n1\nAAAA\n\n") },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				w.Write(bytes.Repeat([]byte("— audit.example/w1 AAAA\n"), 1000))
			}
		},
		"a size that never fits": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentTypeSize)
			w.WriteHeader(409)
			io.WriteString(w, "-1\n")
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, ws[0].srv.URL+"/add-checkpoint", http.StatusTemporaryRedirect)
		},
	} {
		srv := httptest.NewServer(answer)
		cfg := h.cfg
		cfg.Dir = filepath.Join(t.TempDir(), "e")
		cfg.Witnesses = []WitnessConf{{URL: srv.URL, Key: ws[0].Key()}}
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Cosign(context.Background()); err == nil {
			t.Errorf("%s: cosigned", name)
		}
		l.Close()
		if _, err := os.Stat(filepath.Join(cfg.Dir, cosignedPath)); err == nil {
			t.Errorf("%s: a cosigned checkpoint is published", name)
		}
		srv.Close()
	}
	_ = key
}

func TestPolicies(t *testing.T) {
	var keys []string
	for i := range 4 {
		seed := bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize)
		keys = append(keys, newWitnessKey(fmt.Sprintf("w%d", i), ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)).String())
	}
	text := fmt.Sprintf("# auditors\nwitness a %s\nwitness b\t%s https://b.example/\nwitness c %s\nwitness d %s\ngroup x 2 a b c\ngroup y all x d\nquorum y\n", keys[0], keys[1], keys[2], keys[3])
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	at := func(s ...int64) (out []time.Time) {
		for _, x := range s {
			var when time.Time
			if x > 0 {
				when = time.Unix(x, 0)
			}
			out = append(out, when)
		}
		return out
	}
	for _, c := range []struct {
		times []time.Time
		want  int64
	}{{at(9, 5, 0, 7), 5}, {at(9, 5, 8, 7), 7}, {at(9, 0, 0, 7), 0}, {at(9, 5, 8, 0), 0}, {at(9, 5, 8, 20), 8}} {
		got := p.quorum.time(c.times)
		if c.want == 0 && !got.IsZero() || c.want > 0 && got.Unix() != c.want {
			t.Errorf("%v: %v, want %d", c.times, got, c.want)
		}
	}
	if p.Witnesses[1].URL != "https://b.example/" {
		t.Errorf("%+v", p.Witnesses[1])
	}
	for _, bad := range []string{"", "witness a " + keys[0], "quorum b\n", "witness a " + keys[0] + "\nwitness b " + keys[0] + "\nquorum a",
		"witness a " + keys[0] + "\ngroup g 2 a\nquorum g", "witness a " + keys[0] + "\ngroup g 2 a a\nquorum g", "witness none " + keys[0] + "\nquorum none",
		"witness a " + strings.Replace(keys[0], "w0", "w9", 1) + "\nquorum a", "witness a " + keys[0] + "\nquorum a\nquorum a", keys[0] + "\nquorum none"} {
		if p, err := ParsePolicy([]byte(bad)); err == nil {
			t.Errorf("accepted %q: %+v", bad, p)
		}
	}
	if p, err := WitnessPolicy(keys, 0); err != nil || !p.quorum.time(at(1, 2, 3, 0)).IsZero() {
		t.Errorf("all of four: %v", err)
	}
	if _, err := WitnessPolicy(append(keys, keys[0]), 5); err == nil {
		t.Error("one key counts as two witnesses")
	}
}

func FuzzSubmission(f *testing.F) {
	f.Add([]byte("old 0\n\nlog\n1\nAAAA\n\n— log AAAA\n"))
	f.Add([]byte("old 12\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n\nx\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSubmission(b)
		if err == nil && (len(s.proof) > maxProofLines || len(s.note) > len(b)) {
			t.Errorf("%+v", s)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	k := newWitnessKey("w", make([]byte, ed25519.PublicKeySize)).String()
	f.Add([]byte("witness a " + k + "\ngroup g any a\nquorum g\n"))
	f.Add([]byte(k + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePolicy(b)
		if err != nil {
			return
		}
		if !p.quorum.none && !p.quorum.time(make([]time.Time, len(p.Witnesses))).IsZero() {
			t.Error("satisfied by nobody")
		}
	})
}
