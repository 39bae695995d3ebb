package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// house is a log's surroundings in a test.
type house struct {
	t       testing.TB
	cfg     Config
	auditor *age.X25519Identity
}

func newHouse(t testing.TB) *house {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &house{t: t, auditor: id, cfg: Config{Dir: filepath.Join(dir, "evidence"), Node: "node1", KeyFile: filepath.Join(dir, "keys", "log.key"),
		Recipients: []string{id.Recipient().String()}, SegmentBytes: 1 << 20, Linger: time.Microsecond, Retry: time.Millisecond, Checkpoint: time.Hour}}
}

func (h *house) open() *Log {
	h.t.Helper()
	l, err := Open(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { l.Close() })
	return l
}

func (h *house) file(path string) string { return filepath.Join(h.cfg.Dir, filepath.FromSlash(path)) }

func appendWait(t testing.TB, l *Log, e *api.Event) uint64 {
	t.Helper()
	ticket, err := l.Append(e)
	if err == nil {
		err = l.Wait(context.Background(), ticket)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e.Index
}

func statement(n int) *api.Event {
	return &api.Event{Kind: api.EventStatement, Principal: "dev:u1", Name: "alice", Session: "s-1", Target: "clinic", Sequence: uint64(n),
		Statement: "SELECT name FROM patients WHERE id = ?", Fingerprint: "fp-0123456789abcdef", Command: "SELECT", Class: "read",
		Tables: []string{"public.patients"}, Verdict: "allow", Rules: []string{"engineers-read"}, Policy: "sha256:00"}
}

// fill puts something into every field of a struct, so that one forgotten by
// the encoder shows.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("v%d \"<&>\\\u2028\x01\té\xff", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"z": "1", "a": "2", "é": "3"}))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 11, 23, 1, 2, 3, 450_000_000, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("a kind of field that the leaf encoder does not know: " + v.Kind().String())
	}
}

func canonicalLeaf(e *api.Event) []byte {
	return appendBody(appendHead(nil, e.Index, e.Node, e.Time), e)
}

func jsonLeaf(t testing.TB, e *api.Event) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestLeafIsWhatJSONWouldWrite(t *testing.T) {
	var full api.Event
	n := 0
	fill(reflect.ValueOf(&full).Elem(), &n)
	full.V = 1
	for _, e := range []*api.Event{&full, {V: 1, Node: "n", Kind: "gap"}, {V: 1, Index: 7, Node: "n", Time: time.Unix(1, 2).UTC(), Kind: "x", Rows: -1}} {
		if got, want := string(canonicalLeaf(e)), jsonLeaf(t, e); got != want {
			t.Errorf("leaf\n got %s\nwant %s", got, want)
		}
	}
}

func FuzzLeaf(f *testing.F) {
	f.Add("SELECT \"x\"\n\x00\u2029", "k", int64(-3), []byte(`{"a":"b","c":[1,{"d":"]"}]}`))
	f.Fuzz(func(t *testing.T, text, key string, n int64, raw []byte) {
		e := &api.Event{V: 1, Node: "n", Kind: key, Statement: text, Rows: n, Tables: []string{text, key}, Attrs: map[string]string{key: text, "b": key}}
		if key == "b" || strings.ToValidUTF8(key, "\ufffd") != key {
			e.Attrs = nil // the two keys may collide
		}
		leaf := canonicalLeaf(e)
		if want := jsonLeaf(t, e); string(leaf) != want {
			t.Fatalf("leaf\n got %q\nwant %q", leaf, want)
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(leaf, &fields); err != nil {
			t.Fatal(err)
		}
		err := scanLeaf(leaf, func(k, v []byte) error {
			if string(fields[string(k)]) != string(v) {
				t.Fatalf("field %q: scanned %q, JSON says %q", k, v, fields[string(k)])
			}
			delete(fields, string(k))
			return nil
		})
		if err != nil || len(fields) > 0 {
			t.Fatalf("scan: %v, missed %v", err, fields)
		}
		scanLeaf(raw, func(k, v []byte) error { return nil }) // must not panic
	})
}

func TestTreeIsRFC6962(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(idx []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range idx {
			out = append(out, stored[i])
		}
		return out, nil
	})
	var tr tree
	var scratch []byte
	for n := range int64(70_000) {
		leaf := fmt.Appendf(nil, "leaf %d", n)
		hs, err := tlog.StoredHashes(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		tr.add(leafHash(leaf, &scratch))
		if n < 600 || n%997 == 0 || n > 65_500 && n < 65_600 {
			want, err := tlog.TreeHash(n+1, reader)
			if err != nil {
				t.Fatal(err)
			}
			if tr.root() != want {
				t.Fatalf("root of %d leaves differs from tlog's", n+1)
			}
		}
	}
}

func TestTilePaths(t *testing.T) {
	for _, c := range []struct {
		level string
		n     uint64
		width int
		want  string
	}{{"0", 0, 256, "tile/0/000"}, {"1", 5, 17, "tile/1/005.p/17"}, {"entries", 1234067, 256, "tile/entries/x001/x234/067"}} {
		got := tilePath(c.level, c.n, c.width)
		level, n, width, ok := parseTilePath(got)
		if got != c.want || !ok || level != c.level || n != c.n || width != c.width {
			t.Errorf("tilePath = %s, want %s; parsed %s %d %d %v", got, c.want, level, n, width, ok)
		}
	}
	for _, bad := range []string{"tile/0/0", "tile/0/x000/001", "tile/0/001.p/256", "tile/0/001.p/0", "tile/0/../x", "tile/0", "x/0/001", "tile/0/1000"} {
		if _, _, _, ok := parseTilePath(bad); ok {
			t.Errorf("%q is taken for a tile", bad)
		}
	}
}

func TestConcurrentAppendsAreOrderedAndDurable(t *testing.T) {
	h := newHouse(t)
	l := h.open()
	rec, err := l.Record("s-1", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				ticket, err := l.Append(statement(w*1000 + i))
				if i%3 == 0 && err == nil {
					ticket, _, err = rec.Frame('c', bytes.Repeat([]byte("row "), i))
				}
				if err == nil && i%5 == 0 {
					err = l.Wait(context.Background(), ticket)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if _, err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = h.open()
	events, err := l.Search(context.Background(), api.EventQuery{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 1600+5 { // opened, sealed, archived, closed, opened
		t.Fatalf("found %d events", len(events))
	}
	for i, e := range events {
		if e.Index != uint64(i) || i > 0 && e.Time.Before(events[i-1].Time) {
			t.Fatalf("event %d has index %d and time %s", i, e.Index, e.Time)
		}
	}
}

func TestSearchAndFollow(t *testing.T) {
	h := newHouse(t)
	l := h.open()
	ctx := context.Background()
	for i := range 1000 {
		e := statement(i)
		e.Target = []string{"clinic", "billing"}[i%2]
		if i == 700 {
			e.Verdict, e.Name, e.Tables, e.Tags, e.Approvals = "deny", "mallory", []string{"public.claims"}, []string{"phi"},
				[]api.EventApproved{{Request: "r-1", By: "dev:bob", Rule: "x"}}
		}
		if _, err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]api.EventQuery{"verdict": {Verdict: "deny"}, "name": {Principal: "mallory"}, "table": {Table: "public.claims"},
		"tag": {Tag: "phi"}, "approver": {Approver: "dev:bob"}} {
		got, err := l.Search(ctx, q)
		if err != nil || len(got) != 1 || got[0].Sequence != 700 {
			t.Errorf("search by %s: %d events, %v", name, len(got), err)
		}
	}
	got, err := l.Search(ctx, api.EventQuery{Target: "billing", Descending: true, Limit: 3})
	if err != nil || len(got) != 3 || got[0].Sequence != 999 || got[2].Sequence != 995 {
		t.Errorf("the last three of billing: %v, %v", got, err)
	}
	if got, err = l.Search(ctx, api.EventQuery{After: 900, Target: "clinic", Limit: 2}); err != nil || len(got) != 2 || got[0].Index != 901 {
		t.Errorf("after 900: %v, %v", got, err)
	}

	// a damaged index must not hide anything
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.file("index.db"), []byte("not a database, but long enough to be read as one"), 0o600); err != nil {
		t.Fatal(err)
	}
	l = h.open()
	if got, err := l.Search(ctx, api.EventQuery{Verdict: "deny"}); err != nil || len(got) != 1 {
		t.Errorf("search after the index was damaged: %d events, %v", len(got), err)
	}

	follow, stop := context.WithCancelCause(ctx)
	var seen []uint64
	done := make(chan error)
	go func() {
		done <- l.Follow(follow, 1000, func(e api.Event) error {
			seen = append(seen, e.Index)
			if e.Name == "last" {
				stop(io.EOF)
			}
			return nil
		})
	}()
	appendWait(t, l, &api.Event{Kind: api.EventAdmin, Name: "last"})
	if err := <-done; err != io.EOF {
		t.Fatal(err)
	}
	if len(seen) != 3 || seen[0] != 1001 || seen[2] != 1003 { // closed, opened, last
		t.Errorf("followed %v", seen)
	}
}

func TestOpenRefuses(t *testing.T) {
	h := newHouse(t)
	l := h.open()
	if _, err := Open(h.cfg); err == nil || !strings.Contains(err.Error(), "held by another process") {
		t.Errorf("a second server on the folder: %v", err)
	}
	l.Close()
	for want, change := range map[string]func(*Config){
		"no auditor could read": func(c *Config) { c.Recipients = nil },
		"recipient":             func(c *Config) { c.Recipients = []string{"age1nonsense"} },
		"node name":             func(c *Config) { c.Node = "../x" },
		"is of log":             func(c *Config) { c.Node = "node2" },
	} {
		cfg := h.cfg
		change(&cfg)
		if l, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
			if err == nil {
				l.Close()
			}
		}
	}
	none := h.cfg
	none.Recording, none.Recipients = "none", nil
	l, err := Open(none)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Record("s-1", RecordOptions{}); err == nil {
		t.Error("a log without recipients records a session")
	}
	rec, err := l.Record("s-1", RecordOptions{None: true})
	if err != nil {
		t.Fatal(err)
	}
	if ticket, _, err := rec.Frame('c', []byte("x")); ticket != 0 || err != nil {
		t.Errorf("frame of an unrecorded session: %d, %v", ticket, err)
	}
}

func TestLongStatementIsCutNotRefused(t *testing.T) {
	l := newHouse(t).open()
	e := statement(1)
	e.Statement = strings.Repeat("é", 50_000)
	index := appendWait(t, l, e)
	got, err := l.Search(context.Background(), api.EventQuery{After: index - 1, Limit: 1, Kind: []string{api.EventStatement}})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if s := got[0].Statement; !strings.HasSuffix(s, "é…") || len(s) < 60_000 {
		t.Errorf("statement of %d bytes ends with %q", len(s), s[len(s)-8:])
	}
	if _, err := l.Append(&api.Event{Kind: "x", Reason: strings.Repeat("x", 70_000)}); err == nil {
		t.Error("an event too large for a leaf was taken")
	}
	appendWait(t, l, statement(2)) // and the log goes on
}
