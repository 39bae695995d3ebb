package parser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// The test binary is also the child, and children that misbehave.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__parse":
			os.Exit(Main(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
		case "__fake":
			os.Exit(fake())
		case "__exit":
			fmt.Fprintln(os.Stderr, "no such library")
			os.Exit(3)
		}
	}
	os.Exit(m.Run())
}

// fake is a child that does what the text tells it to.
func fake() int {
	in := bufio.NewReader(os.Stdin)
	frame := func() ([]byte, error) {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return nil, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:4])-1)
		_, err := io.ReadFull(in, body)
		return body, err
	}
	say := func(kind byte, body string) {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+1)) //nolint:gosec // short
		_, _ = os.Stdout.Write(append(append(b, kind), body...))
	}
	if _, err := frame(); err != nil {
		return 1
	}
	say('R', "")
	for {
		text, err := frame()
		if err != nil {
			return 0
		}
		facts := fmt.Sprintf(`[{"kind":"SELECT","command":"SELECT","class":"read","end":%d}]`, len(text))
		switch {
		case bytes.Contains(text, []byte("hang")):
			select {}
		case bytes.Contains(text, []byte("die")):
			return 7
		case bytes.Contains(text, []byte("garbage")):
			say('A', "\xff\xff\xff\xff")
		case bytes.Contains(text, []byte("lying length")):
			_, _ = os.Stdout.WriteString("\xff\xff\xff\xffA")
		case bytes.Contains(text, []byte("unknown frame")):
			say('Z', "")
		case bytes.Contains(text, []byte("broken")):
			say('E', `{"kind":"broken","message":"it broke"}`)
		default:
			say('A', string(binary.BigEndian.AppendUint32(nil, uint32(len(facts))))+facts) //nolint:gosec // short
		}
	}
}

func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	if cfg.Command == nil {
		cfg.Command = []string{os.Args[0], "__parse"}
		cfg.CacheDir = codeCache(t)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// codeCache is kept between runs where there is a place for it: compiling the
// grammar takes seconds.
func codeCache(t testing.TB) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(dir, "hoopctl", "test-parser")
}

func fakeCommand() []string { return []string{os.Args[0], "__fake"} }

func kinds(t *testing.T, p *Pool, principal, text string) string {
	t.Helper()
	facts, err := p.Facts(t.Context(), principal, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var out []string
	for _, f := range facts {
		out = append(out, f.Kind+"/"+string(f.Class))
	}
	return strings.Join(out, " ")
}

func TestFacts(t *testing.T) {
	p := newPool(t, Config{})
	for text, want := range map[string]string{
		"SELECT 1; DROP TABLE t": "SELECT/read DROP TABLE/schema",
		" -- ping\n":             "/read",
		"":                       "/read",
		";":                      "/read",
	} {
		for range 2 { // parsed, then remembered
			if got := kinds(t, p, "alice", text); got != want {
				t.Errorf("%q: %s, want %s", text, got, want)
			}
		}
	}
	for range 2 {
		var syntax *sql.SyntaxError
		if _, err := p.Facts(t.Context(), "alice", "SELECT ä FROM"); !errors.As(err, &syntax) || syntax.Position != 14 || syntax.SQLState != "42601" {
			t.Errorf("%#v", err)
		}
	}
	parsed, err := p.Parse(t.Context(), "alice", "SELECT 2")
	if err != nil || len(parsed.Tree) == 0 || parsed.Facts[0].Kind != "SELECT" {
		t.Errorf("%+v, %v", parsed, err)
	}
}

// TestCrashMatrix feeds what crashed, stalled or poisoned PostgreSQL's grammar
// in one binding or another. Each costs one refusal at most, and the next
// statement is judged as if nothing had been.
func TestCrashMatrix(t *testing.T) {
	p := newPool(t, Config{})
	rep := strings.Repeat
	for name, text := range map[string]string{
		"1+1+… 10 kB":            "SELECT 1" + rep("+1", 5000),
		"1+1+… 60 kB":            "SELECT 1" + rep("+1", 30000),
		"casts":                  "SELECT 1" + rep("::int", 20000),
		"UNION":                  "SELECT 1" + rep(" UNION SELECT 1", 10000),
		"JOIN":                   "SELECT 1 FROM a" + rep(" JOIN b ON true", 10000),
		"brackets":               "SELECT " + rep("(", 20000) + "1" + rep(")", 20000),
		"NOT":                    "SELECT " + rep("NOT ", 20000) + "true",
		"CASE":                   "SELECT " + rep("CASE WHEN true THEN ", 8000) + "1" + rep(" END", 8000),
		"f(f(":                   "SELECT " + rep("f(", 20000) + "1" + rep(")", 20000),
		"sub-selects":            rep("SELECT * FROM (", 10000) + "SELECT 1" + rep(") s", 10000),
		"nested comments":        rep("/*", 40000) + rep("*/", 40000) + "SELECT 1",
		"open comments":          rep("/*", 100000),
		"at the depth limit":     "SELECT " + rep("EXISTS (SELECT 1 FROM a WHERE b AND c OR NOT x LIKE ", 160) + "1" + rep(")", 160),
		"sub-selects at limit":   rep("SELECT * FROM (", 480) + "SELECT 1" + rep(") s", 480),
		"CASE at limit":          "SELECT " + rep("CASE WHEN a AND b OR c LIKE d THEN ", 480) + "1" + rep(" END", 480),
		"wide IN":                "SELECT * FROM t WHERE id IN (1" + rep(",1", 120000) + ")",
		"wide SELECT":            "SELECT a" + rep(",a", 120000) + " FROM t",
		"every column ambiguous": "SELECT 1" + wide(",c", 3000) + " FROM a" + wide(",t", 3000),
		"nested recursion":       "WITH RECURSIVE " + rep("a AS (WITH RECURSIVE ", 40) + "b AS (SELECT 1) SELECT 1" + rep(" UNION SELECT * FROM a) SELECT * FROM a", 40),
		"1 MB literal":           "SELECT '" + rep("x", 1<<20) + "'",
		"DO with a language":     "DO LANGUAGE " + rep("x", 1000) + " $$" + rep("y", 1000) + "$$",
		"NUL":                    "SELECT 1\x00",
		"invalid UTF-8":          "SELECT '\xff\xfe'",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := p.Facts(ctx, name, text)
			var syntax *sql.SyntaxError
			var complexity *sql.TooComplex
			if err != nil && !errors.As(err, &syntax) && !errors.As(err, &complexity) {
				t.Errorf("not refused for what it is: %v", err)
			}
			if got := kinds(t, p, "bob", "SELECT count(*) FROM "+"t"+strings.Map(letters, name)); got != "SELECT/read" {
				t.Errorf("the next statement: %s", got)
			}
		})
	}
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

func wide(piece string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s%d", piece, i)
	}
	return b.String()
}

func TestT38_AStalledChildCostsOneStatement(t *testing.T) {
	p := newPool(t, Config{Command: fakeCommand(), Deadline: 20 * time.Millisecond})
	var late *sql.TooComplex
	if _, err := p.Facts(t.Context(), "mallory", "SELECT hang"); !errors.As(err, &late) || late.What != "time" {
		t.Fatalf("%v", err)
	}
	if got := kinds(t, p, "alice", "SELECT 1"); got != "SELECT/read" {
		t.Error(got)
	}
	// The text is remembered: it stalls nothing a second time.
	if _, err := p.Facts(t.Context(), "alice", "SELECT hang"); !errors.As(err, &late) {
		t.Errorf("%v", err)
	}
	// Who stalls a child waits.
	var down *Unavailable
	if _, err := p.Facts(t.Context(), "mallory", "SELECT 2"); !errors.As(err, &down) || !errors.Is(err, errStrikes) {
		t.Errorf("%v", err)
	}
}

func TestT38_AChildThatBreaksTheProtocolIsReplaced(t *testing.T) {
	for _, text := range []string{"SELECT die", "SELECT garbage", "SELECT lying length", "SELECT unknown frame", "SELECT broken"} {
		t.Run(text, func(t *testing.T) {
			p := newPool(t, Config{Command: fakeCommand(), Workers: 1})
			var broken *sql.Broken
			if _, err := p.Facts(t.Context(), "mallory", text); !errors.As(err, &broken) {
				t.Errorf("%v", err)
			}
			if got := kinds(t, p, "alice", "SELECT 1"); got != "SELECT/read" {
				t.Error(got)
			}
		})
	}
}

// A child may say what it likes: a DELETE is no read.
func TestT38_ALyingChildIsNotBelieved(t *testing.T) {
	p := newPool(t, Config{Command: fakeCommand()})
	if got := kinds(t, p, "alice", "DELETE FROM patients"); got != "SELECT/write" {
		t.Error(got)
	}
}

func TestT38_WithoutAChildEverythingIsRefused(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex
	p, err := New(Config{Command: []string{os.Args[0], "__exit"}, Log: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var down *Unavailable
	if _, err := p.Facts(t.Context(), "alice", "SELECT 1"); !errors.As(err, &down) {
		t.Errorf("%v", err)
	}
	if err := p.Ready(t.Context()); !errors.As(err, &down) || !strings.Contains(err.Error(), "no such library") {
		t.Errorf("%v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(log.String(), "no such library") {
		t.Errorf("the child's last words are not in the log: %s", log.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestCloseRefusesWhatWaits(t *testing.T) {
	p := newPool(t, Config{Command: fakeCommand(), Workers: 1, Deadline: time.Hour})
	var wg sync.WaitGroup
	errs := make([]error, 5)
	for i := range errs {
		wg.Go(func() { _, errs[i] = p.Facts(t.Context(), "alice", fmt.Sprintf("SELECT hang %d", i)) })
	}
	for len(p.queue.waiting()) < len(errs)-1 { // one hangs in the child, the others wait
		time.Sleep(time.Millisecond)
	}
	_ = p.Close()
	wg.Wait()
	for i, err := range errs {
		if err == nil {
			t.Errorf("%d: no error", i)
		}
	}
	if _, err := p.Facts(t.Context(), "alice", "SELECT 1"); !errors.Is(err, errClosed) {
		t.Errorf("%v", err)
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	p := newPool(t, Config{Command: fakeCommand(), Workers: 1, Deadline: time.Hour})
	go func() { _, _ = p.Facts(t.Context(), "mallory", "SELECT hang") }()
	for p.queue.taken.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, err := p.Facts(ctx, "alice", "SELECT 1"); done <- err }()
	for len(p.queue.waiting()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := len(p.queue.waiting()); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestPrincipalsTakeTurns(t *testing.T) {
	q := newQueue()
	for i := range 4 {
		if err := q.push(&job{principal: "loud", text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	_ = q.push(&job{principal: "quiet", text: "a"})
	_ = q.push(&job{principal: "other", text: "b"})
	gone := &job{principal: "gone", text: "c"}
	_ = q.push(gone)
	q.drop(gone)
	var got []string
	for j := q.pop(); j != nil; j = q.pop() {
		got = append(got, j.text)
	}
	if want := []string{"0", "a", "b", "1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for range maxWaiting {
		if err := q.push(&job{principal: "loud"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.push(&job{principal: "loud"}); !errors.Is(err, errCrowded) {
		t.Errorf("%v", err)
	}
	if err := q.push(&job{principal: "quiet"}); err != nil {
		t.Errorf("%v", err)
	}
}

func TestOneShapeIsParsedOnce(t *testing.T) {
	p := newPool(t, Config{})
	before := p.queue.taken.Load()
	first, err := p.Facts(t.Context(), "alice", "SELECT id FROM t WHERE a = 1 AND b IN (1, 2); DELETE FROM t WHERE a = 'x'")
	if err != nil {
		t.Fatal(err)
	}
	text := "/* a comment */ SELECT id FROM t WHERE a = 99999 AND b IN (7) ; DELETE FROM t WHERE a = 'a longer literal' "
	second, err := p.Facts(t.Context(), "alice", text)
	if err != nil {
		t.Fatal(err)
	}
	if n := p.queue.taken.Load() - before; n != 1 {
		t.Errorf("%d texts were parsed", n)
	}
	if got := text[second[1].Start:second[1].End]; got != "DELETE FROM t WHERE a = 'a longer literal'" {
		t.Errorf("the second statement is said to be %q", got)
	}
	if first[0].End == second[0].End || first[0].Fingerprint != second[0].Fingerprint {
		t.Error("the first answer's own facts were changed")
	}
	// A literal that decides, and a literal of another kind, are not passed over.
	for _, other := range []string{"SELECT id FROM t LIMIT 5", "SELECT id FROM t LIMIT 6", "SELECT id FROM t WHERE a = 'x' AND b IN (1)"} {
		before := p.queue.taken.Load()
		if _, err := p.Facts(t.Context(), "alice", other); err != nil {
			t.Fatal(err)
		}
		if p.queue.taken.Load() == before {
			t.Errorf("%s was not parsed", other)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(shards * 40_000)
	for i := range 10000 {
		c.put(hashText(fmt.Sprint(i)), &entry{parsed: &sql.Parsed{Facts: []*policy.Facts{{}}}})
	}
	kept := 0
	for i := range c.shard {
		s := &c.shard[i]
		if s.bytes > s.max || len(s.byKey) != s.order.Len() {
			t.Errorf("shard %d: %d bytes of %d, %d keys, %d in order", i, s.bytes, s.max, len(s.byKey), s.order.Len())
		}
		kept += len(s.byKey)
	}
	if kept == 0 || kept > 200 {
		t.Errorf("%d entries kept", kept)
	}
	if _, ok := c.get(hashText("9999")); !ok {
		t.Error("the newest is gone")
	}
	c.put(hashText("big"), &entry{parsed: &sql.Parsed{Tree: make([]byte, 50_000)}})
	if _, ok := c.get(hashText("big")); ok {
		t.Error("an entry larger than its shard was kept")
	}
}

func TestConcurrentUse(t *testing.T) {
	p := newPool(t, Config{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				text := fmt.Sprintf("SELECT c%d FROM t%d WHERE id = %d", i%7, g%3, i)
				facts, err := p.Facts(t.Context(), fmt.Sprint("p", g%4), text)
				if err != nil || len(facts) != 1 || facts[0].Tables[0] != fmt.Sprintf("public.t%d", g%3) || facts[0].End != len(text) {
					t.Errorf("%s: %v %v", text, facts, err)
				}
			}
		})
	}
	wg.Wait()
}
