package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, path string, options ...Option) *Store {
	t.Helper()
	s, err := Open("sqlite:"+path, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func scratch(t testing.TB) *Store { return open(t, filepath.Join(t.TempDir(), "state", "state.db")) }

func TestDocuments(t *testing.T) {
	clock := time.Date(2026, 11, 23, 9, 0, 0, 7, time.UTC)
	path := filepath.Join(t.TempDir(), "state", "state.db")
	s := open(t, path, WithClock(func() time.Time { return clock }))
	ctx := t.Context()

	if _, err := s.Get(ctx, "grant", "g-1"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	for want := range int64(3) {
		v, err := s.Put(ctx, "grant", "g-1", []byte(strconv.FormatInt(want, 10)))
		if err != nil || v != want+1 {
			t.Fatalf("put: version %d, %v", v, err)
		}
		clock = clock.Add(time.Second)
	}
	if err := s.Create(ctx, "grant", "g-1", nil); !errors.Is(err, ErrConflict) {
		t.Fatalf("create of what exists: %v", err)
	}
	if err := s.Create(ctx, "grant", "g-0", []byte("zero")); err != nil {
		t.Fatal(err)
	}
	d, err := s.Document(ctx, "grant", "g-1")
	if err != nil || string(d.Body) != "2" || d.Version != 3 || d.Updated.Sub(d.Created) != 2*time.Second {
		t.Fatalf("%+v, %v", d, err)
	}

	// What was acknowledged is there after a restart.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	all, err := s.List(ctx, "grant")
	if err != nil || len(all) != 2 || all[0].Name != "g-0" || all[1].Name != "g-1" || string(all[1].Body) != "2" {
		t.Fatalf("%+v, %v", all, err)
	}
	var since []string
	err = s.Each(ctx, "grant", clock, func(name string, _ []byte) error { since = append(since, name); return nil })
	if err != nil || !slices.Equal(since, []string{"g-0"}) {
		t.Fatalf("since: %v, %v", since, err)
	}
	if err := s.Move(ctx, "grant", "g-1", "grant.ended", []byte("over")); err != nil {
		t.Fatal(err)
	}
	if err := s.Move(ctx, "grant", "g-1", "grant.ended", []byte("twice")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a document moved twice: %v", err)
	}
	if body, err := s.Get(ctx, "grant.ended", "g-1"); err != nil || string(body) != "over" {
		t.Fatalf("%s, %v", body, err)
	}
	if err := s.Delete(ctx, "grant", "g-0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "grant", "g-0"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("delete of nothing: %v", err)
	}
}

func TestErrorsAnswerQuestions(t *testing.T) {
	s := scratch(t)
	_, err := s.Get(t.Context(), "a", "b")
	var q interface{ NotFound() bool }
	if !errors.As(err, &q) || !q.NotFound() {
		t.Errorf("%v does not say that it is NotFound", err)
	}
}

func TestUpdateIsAtomic(t *testing.T) {
	s := scratch(t)
	const writers, each = 8, 10
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				err := s.Update(t.Context(), "count", "c", func(b []byte) ([]byte, error) {
					n, _ := strconv.Atoi(string(b))
					return strconv.AppendInt(nil, int64(n+1), 10), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if b, err := s.Get(t.Context(), "count", "c"); err != nil || string(b) != strconv.Itoa(writers*each) {
		t.Fatalf("%s, %v; want %d", b, err, writers*each)
	}
	wrong := errors.New("no")
	if err := s.Update(t.Context(), "count", "c", func([]byte) ([]byte, error) { return []byte("x"), wrong }); err != wrong {
		t.Fatal(err)
	}
	if d, _ := s.Document(t.Context(), "count", "c"); d.Version != writers*each {
		t.Errorf("a failed update wrote version %d", d.Version)
	}
}

func TestApplyIsAllOrNothingAndKeepsHistory(t *testing.T) {
	s := scratch(t)
	ctx := t.Context()
	put := func(by, name, body string) {
		t.Helper()
		if err := s.Apply(ctx, by, func(tx *Tx) error { _, err := tx.Put("Target", name, []byte(body)); return err }); err != nil {
			t.Fatal(err)
		}
	}
	put("erin", "clinic", "one")
	broken := errors.New("line 7: unknown field")
	err := s.Apply(ctx, "mallory", func(tx *Tx) error {
		if _, err := tx.Put("Target", "clinic", []byte("two")); err != nil {
			return err
		}
		return broken
	})
	if err != broken {
		t.Fatal(err)
	}
	func() {
		defer func() { recover() }()
		s.Apply(ctx, "mallory", func(tx *Tx) error { tx.Delete("Target", "clinic"); panic("boom") })
	}()
	if b, _ := s.Get(ctx, "Target", "clinic"); string(b) != "one" {
		t.Fatalf("after a failed apply: %s", b)
	}
	put("bob", "clinic", "two")
	if err := s.Apply(ctx, "erin", func(tx *Tx) error { return tx.Delete("Target", "clinic") }); err != nil {
		t.Fatal(err)
	}
	put("bob", "clinic", "three")
	all, err := s.History(ctx, "Target", "clinic")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range all {
		got = append(got, fmt.Sprintf("%d %s %s %v", v.Version, v.By, v.Body, v.Deleted))
	}
	want := []string{"1 erin one false", "2 bob two false", "3 erin  true", "4 bob three false"}
	if !slices.Equal(got, want) {
		t.Fatalf("history\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A panic in a transaction must not keep the turn: the next writer would wait for ever.
func TestPanicGivesTheTurnBack(t *testing.T) {
	s := scratch(t)
	func() {
		defer func() { recover() }()
		s.Tx(t.Context(), func(*Tx) error { panic("boom") })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.Put(ctx, "a", "b", nil); err != nil {
		t.Fatal(err)
	}
}

func TestNamesAreNeverReused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	next := func() int64 {
		t.Helper()
		n, err := s.Next(t.Context(), "session")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for want := int64(1); want <= blockSize+3; want++ {
		if n := next(); n != want {
			t.Fatalf("got %d, want %d", n, want)
		}
	}
	last := next()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	if n := next(); n != last+1 {
		t.Errorf("after a clean end: %d, want %d", n, last+1)
	}
	if n, _ := s.Next(t.Context(), "grant"); n != 1 {
		t.Errorf("another sequence starts at %d", n)
	}
}

func TestWatch(t *testing.T) {
	s := scratch(t)
	ctx, cancel := context.WithCancel(t.Context())
	changes := s.Watch(ctx, "grant")
	for i := range 100 { // nobody reads yet: writers must not wait
		if _, err := s.Put(t.Context(), "grant", "g-1", []byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
		s.Put(t.Context(), "other", "o", nil)
	}
	if err := s.Delete(t.Context(), "grant", "g-1"); err != nil {
		t.Fatal(err)
	}
	s.Put(t.Context(), "grant", "g-2", []byte("two"))
	var last Change
	for c := range changes {
		if c.Kind != "grant" {
			t.Fatalf("%+v", c)
		}
		if last = c; c.Name == "g-2" {
			break
		}
		if c.Deleted && c.Version <= 100 {
			t.Errorf("deleted at version %d", c.Version)
		}
	}
	if string(last.Body) != "two" || last.Version != 1 {
		t.Errorf("%+v", last)
	}
	cancel()
	for range changes {
	}
	more := s.Watch(t.Context(), "grant")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range more {
	}
	if _, open := <-s.Watch(t.Context(), "grant"); open {
		t.Error("a closed store has changes")
	}
}

func TestFilesAreForTheOwnerAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing on Windows")
	}
	dir := filepath.Join(t.TempDir(), "odd ?#%41 name")
	path := filepath.Join(dir, "state.db")
	s := open(t, path)
	if _, err := s.Put(t.Context(), "a", "b", []byte("c")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", p, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("a store that others could read stays so: %o", info.Mode().Perm())
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	held := filepath.Join(dir, "held.db")
	open(t, held)
	whole := filepath.Join(dir, "whole.db")
	s := open(t, whole)
	for i := range 200 {
		s.Put(t.Context(), "k", strconv.Itoa(i), make([]byte, 4096))
	}
	s.Close()
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(b)
	for i := range damaged[8192:] {
		damaged[8192+i] ^= 0x5a
	}
	newer := slices.Clone(b)
	newer[63] = 9 // user_version, big-endian at offset 60
	foreign := slices.Clone(b)
	foreign[71] ^= 1 // application_id
	for _, c := range []struct{ name, where, says string }{
		{"no scheme", "/var/lib/state.db", "want sqlite:PATH"},
		{"postgres with a password", "postgres://u:hunter2@db/x", "want sqlite:PATH"},
		{"no path", "sqlite:", "no path"},
		{"a folder", "sqlite:" + dir, "is a directory"},
		{"text", "sqlite:" + write("text.db", []byte(strings.Repeat("not a database\n", 99))), "restore it from a backup"},
		{"damaged", "sqlite:" + write("damaged.db", damaged), "restore it from a backup"},
		{"newer", "sqlite:" + write("newer.db", newer), "schema 9"},
		{"of something else", "sqlite:" + write("foreign.db", foreign), "of something else"},
		{"held", "sqlite:" + held, "another server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(c.where)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v; want it to say %q", err, c.says)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "windows" {
		return // an open file cannot be renamed there
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("a store whose file is gone is well")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("a store whose file was replaced: %v", err)
	}
}

func TestWaitingWriterGivesUp(t *testing.T) {
	s := scratch(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Tx(t.Context(), func(*Tx) error {
		cancel()
		_, err := s.Put(ctx, "a", "b", nil) // its turn never comes
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestT70_KillLosesNothingAcknowledged kills a process in the middle of its
// writes, again and again: what it had acknowledged is there, whole, and no
// number is given out twice.
func TestT70_KillLosesNothingAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	acknowledged, numbers := 0, map[string]bool{}
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "STORE_CRASH_CHILD="+path, "STORE_CRASH_FROM="+strconv.Itoa(acknowledged))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			words := strings.Fields(lines.Text())
			if len(words) != 2 {
				t.Fatalf("child said %q", lines.Text())
			}
			acknowledged, _ = strconv.Atoi(words[0])
			if numbers[words[1]] {
				t.Fatalf("number %s came twice", words[1])
			}
			numbers[words[1]] = true
			if n++; n == 20+7*round {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		verifyCrash(t, path, acknowledged)
	}
}

func verifyCrash(t *testing.T, path string, acknowledged int) {
	t.Helper()
	s, err := Open("sqlite:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	docs, err := s.List(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) < acknowledged || len(docs) > acknowledged+1 {
		t.Fatalf("%d documents, %d acknowledged", len(docs), acknowledged)
	}
	for i, d := range docs {
		if want := fmt.Sprintf("%06d", i+1); d.Name != want || string(d.Body) != strings.Repeat(want, 100) {
			t.Fatalf("document %d is %s", i, d.Name)
		}
		// Both halves of the transaction, or none.
		if _, err := s.Get(t.Context(), "twin", d.Name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMain(m *testing.M) {
	if path := os.Getenv("STORE_CRASH_CHILD"); path != "" {
		crashChild(path)
		return
	}
	os.Exit(m.Run())
}

// crashChild writes until it is killed, and says each number once it is durable.
func crashChild(path string) {
	s, err := Open("sqlite:" + path)
	if err != nil {
		fmt.Println("open failed:", err)
		return
	}
	docs, err := s.List(context.Background(), "n")
	for i := len(docs) + 1; err == nil; i++ {
		name := fmt.Sprintf("%06d", i)
		err = s.Tx(context.Background(), func(tx *Tx) error {
			_, err := tx.Put("n", name, []byte(strings.Repeat(name, 100)))
			_, err2 := tx.Put("twin", name, nil)
			return errors.Join(err, err2)
		})
		n, err2 := s.Next(context.Background(), "number")
		if err = errors.Join(err, err2); err == nil {
			fmt.Println(i, n)
		}
	}
	fmt.Println("write failed:", err)
}

func BenchmarkPut(b *testing.B) {
	s := scratch(b)
	for b.Loop() {
		if _, err := s.Put(b.Context(), "k", "n", []byte("body")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	s := scratch(b)
	for b.Loop() {
		if _, err := s.Next(b.Context(), "n"); err != nil {
			b.Fatal(err)
		}
	}
}
