package server_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// TestWitnessedServer: a real server's log is cosigned while it runs and when it
// stops; a witness that is down stops nobody; a server whose folder was rolled
// back is refused by its witnesses.
func TestWitnessedServer(t *testing.T) {
	h := newHouse(t)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	key, err := evidence.LogKeyOf(filepath.Join(h.dir, "keys", "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := evidence.OpenWitness(evidence.WitnessConfig{Dir: filepath.Join(h.dir, "witness"), Name: "audit.example/w1", Logs: []string{key}})
	if err != nil {
		t.Fatal(err)
	}
	up := httptest.NewServer(w)
	t.Cleanup(up.Close)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	gone, err := evidence.OpenWitness(evidence.WitnessConfig{Dir: filepath.Join(h.dir, "gone"), Name: "audit.example/w2", Logs: []string{key}})
	if err != nil {
		t.Fatal(err)
	}
	h.adjust = func(c *server.Config) {
		c.Evidence.Witnesses = []server.WitnessConfig{{URL: up.URL, Key: w.Key()}, {URL: down.URL, Key: gone.Key()}}
		c.Evidence.WitnessQuorum = 1
	}
	h.start()
	f := h.connect(h.as("alice"), "alice")
	if out, code := f.psql(t, "SELECT id FROM patients WHERE id = 7"); code != 0 || out != "7" {
		t.Fatalf("psql beside a witness that is down: %d %s", code, out)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	policy, err := evidence.WitnessPolicy([]string{w.Key()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := evidence.Verify(t.Context(), evidence.Folder(filepath.Join(h.dir, "evidence")), evidence.Options{LogKey: key, Policy: policy, Fresh: time.Minute, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != evidence.Intact || r.Witnessed != r.Leaves || r.Leaves < 10 {
		t.Errorf("%s, %d of %d leaves witnessed: %v", r.Status, r.Witnessed, r.Leaves, r.Problems)
	}
}

// TestRotatedKey: a server whose log has a new key serves on, and who pinned the
// old key at login verifies with it.
func TestRotatedKey(t *testing.T) {
	h := newHouse(t)
	dave := h.as("dave")
	pinned, err := dave.State()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.RotateLogKey(t.Context(), h.config()); err == nil {
		t.Error("the key of a running server was changed")
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	key, err := server.RotateLogKey(t.Context(), h.config())
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	again, err := h.as("dave").State()
	if err != nil || again.LogKey != key || key == pinned.LogKey {
		t.Errorf("the server hands out %q, its key is %q: %v", again.LogKey, key, err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{pinned.LogKey, key} {
		r, err := evidence.Verify(t.Context(), evidence.Folder(h.config().Evidence.Dir), evidence.Options{LogKey: k})
		if err != nil || r.Status != evidence.Intact {
			t.Errorf("with %s: %v, %v", k, r, err)
		}
	}
}
