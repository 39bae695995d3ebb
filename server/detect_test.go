package server_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// TestT72_ARealServersEvidence is the table of what is told of whom, on the files
// that a real server wrote about real sessions: by the log's key alone, with a
// checkpoint that was remembered, and with a witness. The last attacks are by
// somebody who has the log's own key.
func TestT72_ARealServersEvidence(t *testing.T) {
	h := newHouse(t)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(h.dir, "keys", "log.key")
	key, err := evidence.LogKeyOf(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	w, err := evidence.OpenWitness(evidence.WitnessConfig{Dir: filepath.Join(h.dir, "witness"), Name: "audit.example/w1", Logs: []string{key}})
	if err != nil {
		t.Fatal(err)
	}
	up := httptest.NewServer(w)
	t.Cleanup(up.Close)
	h.adjust = func(c *server.Config) {
		c.Evidence.Witnesses = []server.WitnessConfig{{URL: up.URL, Key: w.Key()}}
	}
	work := func() string { // sessions, an orderly end, and a copy of what is there then
		h.start()
		f := h.connect(h.as("alice"), "alice")
		for i := range 3 {
			f.psql(t, fmt.Sprintf("SELECT id, ssn, notes FROM patients WHERE id > %d AND id < 60", i), "SELECT count(*) FROM visits")
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		return copied(t, h.config().Evidence.Dir)
	}
	yesterday := work()
	today := work()
	policy, err := evidence.ParsePolicy([]byte(fmt.Sprintf("log %s\nwitness w1 %s %s\nquorum w1\n", key, w.Key(), up.URL)))
	if err != nil {
		t.Fatal(err)
	}
	seen, err := os.ReadFile(filepath.Join(yesterday, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	// told verifies a folder in the three ways.
	told := func(t *testing.T, dir string) [3]evidence.Status {
		t.Helper()
		var out [3]evidence.Status
		for i, o := range []evidence.Options{{LogKey: key}, {LogKey: key, Seen: [][]byte{seen}}, {LogKey: key, Policy: policy, Ask: up.Client(), Now: time.Now()}} {
			r, err := evidence.Verify(t.Context(), evidence.Folder(dir), o)
			if err != nil {
				t.Fatal(err)
			}
			out[i] = r.Status
		}
		return out
	}
	intact, tampered := evidence.Intact, evidence.Tampered
	all, none := [3]evidence.Status{tampered, tampered, tampered}, [3]evidence.Status{intact, intact, intact}
	// forge opens a folder's log with its own key and appends.
	forge := func(t *testing.T, dir string, n int) {
		l, err := evidence.Open(evidence.Config{Dir: dir, Node: strings.TrimPrefix(strings.Split(key, "+")[0], "hoopctl/"), KeyFile: keyFile, Recording: "none"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if _, err := l.Append(&api.Event{Kind: api.EventStatement, Name: "alice", Statement: fmt.Sprintf("select %d", i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	segment := func(dir, stream string) string { return filepath.Join(dir, stream, "00000001.log") }
	edit := func(t *testing.T, name, old, with string) {
		b, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(b), old) {
			t.Fatalf("%s does not hold %q: %v", name, old, err)
		}
		if err := os.WriteFile(name, []byte(strings.Replace(string(b), old, with, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(t *testing.T, name string, n int) { // the last n bytes that are not zeros
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		used := len(strings.TrimRight(string(b), "\x00"))
		if err := os.WriteFile(name, b[:used-n], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		attack func(t *testing.T, dir string)
		want   [3]evidence.Status
	}{
		{"T72 nothing", func(*testing.T, string) {}, none},
		{"T72 a verdict edited", func(t *testing.T, dir string) {
			edit(t, segment(dir, "log"), `"verdict":"allow"`, `"verdict":"other"`)
		}, all},
		{"T72 a name edited", func(t *testing.T, dir string) { edit(t, segment(dir, "log"), `"name":"alice"`, `"name":"carol"`) }, all},
		{"T72 a recording's first bytes changed", func(t *testing.T, dir string) { edit(t, segment(dir, "frames"), "s-1", "s-2") }, all},
		{"T72 the timeline gone", func(t *testing.T, dir string) { os.Remove(segment(dir, "log")) }, all},
		{"T72 the recordings gone", func(t *testing.T, dir string) { os.Remove(segment(dir, "frames")) }, all},
		{"T72 the tail cut off", func(t *testing.T, dir string) { cut(t, segment(dir, "log"), 2000) }, all},
		{"T72 the recordings' tail cut off", func(t *testing.T, dir string) { cut(t, segment(dir, "frames"), 500) }, all},
		{"T72 a sealed recording gone", func(t *testing.T, dir string) {
			names, err := filepath.Glob(filepath.Join(dir, "sealed", "*.age"))
			if err != nil || len(names) == 0 {
				t.Fatal("no sealed recordings", err)
			}
			os.Remove(names[0])
		}, all},
		{"T72 an old checkpoint replayed", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "checkpoint"), seen, 0o600); err != nil {
				t.Fatal(err)
			}
		}, [3]evidence.Status{tampered, tampered, tampered}}, // the cosigned one beside it is newer
		{"T72 all rolled back to yesterday", func(t *testing.T, dir string) { restore(t, dir, yesterday) }, [3]evidence.Status{intact, intact, tampered}},
		{"T72 rolled back, and another day signed with the log's key", func(t *testing.T, dir string) {
			restore(t, dir, yesterday)
			forge(t, dir, 200)
		}, [3]evidence.Status{intact, intact, tampered}},
		{"T72 all history made anew with the log's key", func(t *testing.T, dir string) {
			os.RemoveAll(dir)
			forge(t, dir, 300)
		}, [3]evidence.Status{intact, tampered, tampered}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copied(t, today)
			c.attack(t, dir)
			got := told(t, dir)
			if slices.ContainsFunc(c.want[:], func(s evidence.Status) bool { return s == tampered }) {
				for i := range got { // torn or missing is told too
					if c.want[i] == tampered && got[i] == evidence.Incomplete {
						got[i] = tampered
					}
				}
			}
			if got != c.want {
				t.Errorf("alone, with a checkpoint of yesterday, with a witness: %v, want %v", got, c.want)
			}
		})
	}
	if err := context.Cause(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func copied(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "evidence")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func restore(t *testing.T, dir, from string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
