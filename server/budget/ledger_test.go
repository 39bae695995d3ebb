package budget

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/store"
)

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// counted counts writes, and fails them when told to.
type counted struct {
	*store.Store
	writes atomic.Int64
	fail   atomic.Bool
}

var errFull = errors.New("the disk is full")

func (c *counted) Put(ctx context.Context, kind, name string, body []byte) (int64, error) {
	c.writes.Add(1)
	if c.fail.Load() {
		return 0, errFull
	}
	return c.Store.Put(ctx, kind, name, body)
}

func open(t *testing.T, file string, c *clock) (*Ledger, *counted) {
	t.Helper()
	s, err := store.Open("sqlite:" + file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	kept := &counted{Store: s}
	return New(Config{Store: kept, Key: []byte("key"), Now: c.now}), kept
}

func start() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 1, 5, 12, 1, 0, 0, time.UTC).UnixNano())
	return c
}

var hourly = policy.Budget{Rule: "hourly", Unit: policy.UnitRows, Amount: 1000, Per: time.Hour}

func take(t *testing.T, l *Ledger, who string, n, want int64) {
	t.Helper()
	if got, err := l.Take(context.Background(), who, hourly, n); err != nil || got != want {
		t.Fatalf("Take(%d) = %d, %v, want %d", n, got, err, want)
	}
}

func TestEachPrincipalHasItsOwn(t *testing.T) {
	l, _ := open(t, filepath.Join(t.TempDir(), "s.db"), start())
	take(t, l, "dev:alice", 900, 900)
	take(t, l, "dev:alice", 200, 100)
	take(t, l, "dev:alice", 1, 0)
	take(t, l, "dev:bob", 1000, 1000)
	l.Return(context.Background(), "dev:alice", hourly, 30)
	take(t, l, "dev:alice", 100, 30)
}

// In no hour may more than the amount be used, wherever it begins.
func TestItSlides(t *testing.T) {
	c := start()
	l, _ := open(t, filepath.Join(t.TempDir(), "s.db"), c)
	var used []time.Time
	for range 200 { // every 2 minutes, as much as there is
		got, err := l.Take(context.Background(), "dev:alice", hourly, 70)
		if err != nil {
			t.Fatal(err)
		}
		for range got {
			used = append(used, c.now())
		}
		c.advance(2 * time.Minute)
	}
	first := 0
	for i := range used {
		for used[i].Sub(used[first]) >= time.Hour {
			first++
		}
		if i-first+1 > 1000 {
			t.Fatalf("%d rows in the hour up to %s", i-first+1, used[i])
		}
	}
	if len(used) < 5000 { // 6 hours and 40 minutes of 1,000
		t.Errorf("only %d rows came back in all", len(used))
	}
}

func TestItSaysWhenItRefills(t *testing.T) {
	c := start()
	l, _ := open(t, filepath.Join(t.TempDir(), "s.db"), c)
	take(t, l, "dev:alice", 600, 600)
	c.advance(20 * time.Minute)
	take(t, l, "dev:alice", 400, 400)
	left, refills, err := l.Left(context.Background(), "dev:alice", hourly)
	if err != nil || left != 0 || !refills.After(c.now()) {
		t.Fatalf("left %d, refills %s, %v", left, refills, err)
	}
	c.at.Store(refills.UnixNano() - 1)
	take(t, l, "dev:alice", 1, 0)
	c.advance(1)
	take(t, l, "dev:alice", 1000, 600)
}

func TestItOutlivesRestarts(t *testing.T) {
	file, c := filepath.Join(t.TempDir(), "s.db"), start()
	l, s := open(t, file, c)
	take(t, l, "dev:alice", 500, 500)
	if err := errors.Join(l.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	l, s = open(t, file, c)
	take(t, l, "dev:alice", 1, 1)
	if left, _, _ := l.Left(context.Background(), "dev:alice", hourly); left != 499 {
		t.Errorf("left %d after an orderly end, want 499", left)
	}
	s.Close() // as kill -9 would: nothing is said
	l, _ = open(t, file, c)
	left, _, _ := l.Left(context.Background(), "dev:alice", hourly)
	if left > 499 || left < 499-1000/block {
		t.Errorf("left %d after a crash: it may lose a block, and not forget what was used", left)
	}
}

// A row, and a short statement, cost no write.
func TestWritesAreFew(t *testing.T) {
	l, s := open(t, filepath.Join(t.TempDir(), "s.db"), start())
	for range 900 {
		take(t, l, "dev:alice", 1, 1)
	}
	if n := s.writes.Load(); n > block {
		t.Errorf("%d writes for 900 rows", n)
	}
}

func TestWhatCannotBeKeptIsNotHandedOut(t *testing.T) {
	l, s := open(t, filepath.Join(t.TempDir(), "s.db"), start())
	s.fail.Store(true)
	if got, err := l.Take(context.Background(), "dev:alice", hourly, 10); !errors.Is(err, errFull) || got != 0 {
		t.Fatalf("Take = %d, %v", got, err)
	}
	constants := policy.Budget{Rule: "c", Unit: policy.UnitConstants, Amount: 5, Per: time.Hour}
	if _, err := l.Distinct(context.Background(), "dev:alice", constants, [][]byte{[]byte("x")}); !errors.Is(err, errFull) {
		t.Fatalf("Distinct: %v", err)
	}
	s.fail.Store(false)
	take(t, l, "dev:alice", 1000, 1000)
}

func TestDistinctConstants(t *testing.T) {
	ctx, c, file := context.Background(), start(), filepath.Join(t.TempDir(), "s.db")
	l, s := open(t, file, c)
	b := policy.Budget{Rule: "guesses", Unit: policy.UnitConstants, Amount: 3, Per: time.Hour}
	try := func(want bool, values ...string) {
		t.Helper()
		var list [][]byte
		for _, v := range values {
			list = append(list, []byte(v))
		}
		if ok, err := l.Distinct(ctx, "dev:alice", b, list); err != nil || ok != want {
			t.Fatalf("%v: %v, %v", values, ok, err)
		}
	}
	try(true, "123-45-6789", "123-45-6789")
	try(true, "123-45-6789")
	try(false, "a", "b", "c") // all or nothing
	try(true, "a", "b")
	try(false, "c")
	try(true, "b")
	docs, err := s.List(ctx, kind)
	if err != nil || len(docs) != 1 || strings.Contains(string(docs[0].Body), "123-45") {
		t.Fatalf("the store keeps %v, %v", docs, err)
	}
	s.Close()
	l, _ = open(t, file, c)
	try(false, "c")
	c.advance(2 * time.Hour)
	try(true, "c", "d", "e")
}

func TestSweepForgetsWhatCountsNoMore(t *testing.T) {
	ctx, c := context.Background(), start()
	l, s := open(t, filepath.Join(t.TempDir(), "s.db"), c)
	take(t, l, "dev:alice", 10, 10)
	if used, err := l.Used(ctx, hourly); err != nil || len(used) != 1 || used[0].Used != 10 || used[0].Principal != "dev:alice" {
		t.Fatalf("used: %+v, %v", used, err)
	}
	c.advance(3 * time.Hour)
	if err := l.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if docs, _ := s.List(ctx, kind); len(docs) != 0 {
		t.Errorf("%d documents remain", len(docs))
	}
	take(t, l, "dev:alice", 1000, 1000)
}

func TestSessionsAtOnceShareOneBudget(t *testing.T) {
	l, _ := open(t, filepath.Join(t.TempDir(), "s.db"), start())
	var sum atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				got, err := l.Take(context.Background(), "dev:alice", hourly, 3)
				if err != nil {
					t.Error(err)
				}
				if got == 3 {
					l.Return(context.Background(), "dev:alice", hourly, 1)
					got--
				}
				sum.Add(got)
			}
		})
	}
	all.Wait()
	if sum.Load() != 1000 {
		t.Errorf("%d rows of 1000 were handed out", sum.Load())
	}
}
