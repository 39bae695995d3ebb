package evidence

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// BenchmarkAppend is the cost of one event to its caller, and how many a second
// become durable when many append at once.
func BenchmarkAppend(b *testing.B) {
	h := newHouse(b)
	h.cfg.SegmentBytes, h.cfg.Linger = 64<<20, 5*time.Millisecond
	l := h.open()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		e := statement(1)
		for pb.Next() {
			if _, err := l.Append(e); err != nil {
				b.Error(err)
				return
			}
		}
	})
	if err := l.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "durable/s")
}

// BenchmarkDurable has 512 writers that each wait for every event of theirs.
func BenchmarkDurable(b *testing.B) {
	h := newHouse(b)
	h.cfg.SegmentBytes = 64 << 20
	l := h.open()
	b.SetParallelism(256)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			appendWait(b, l, statement(1))
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "durable/s")
}

// BenchmarkDurableAt10k offers 10,000 events a second and measures how long
// each takes to be durable.
func BenchmarkDurableAt10k(b *testing.B) {
	h := newHouse(b)
	h.cfg.SegmentBytes = 64 << 20
	l := h.open()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	start := time.Now()
	for i := 0; b.Loop(); i++ {
		if ahead := time.Duration(i)*100*time.Microsecond - time.Since(start); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		wg.Go(func() {
			t0 := time.Now()
			appendWait(b, l, statement(1))
			mu.Lock()
			took = append(took, time.Since(t0))
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
}

// BenchmarkVerify verifies a log of 200,000 leaves.
func BenchmarkVerify(b *testing.B) {
	h := newHouse(b)
	h.cfg.SegmentBytes = 16 << 20
	l := h.open()
	const n = 200_000
	for i := range n {
		if _, err := l.Append(statement(i)); err != nil {
			b.Fatal(err)
		}
	}
	key := l.LogKey()
	l.Close()
	for b.Loop() {
		r := verify(b, h.cfg.Dir, Options{LogKey: key})
		if r.Status != Intact {
			b.Fatal(r.Problems)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "leaves/s")
}

// BenchmarkRecord records windows of 64 KiB of masked rows.
func BenchmarkRecord(b *testing.B) {
	h := newHouse(b)
	h.cfg.SegmentBytes = 64 << 20
	l := h.open()
	rec, err := l.Record("s-1", RecordOptions{})
	if err != nil {
		b.Fatal(err)
	}
	var window []byte
	for i := 0; len(window) < 64<<10; i++ {
		window = fmt.Appendf(window, "D\x00\x00\x00\x78\x00\x0a\x00\x00\x00\x04%04d\x00\x00\x00\x0bPerson %06d\x00\x00\x00\x0b***-**-%04d\x00\x00\x00\x14user%d@example.org"+
			"\x00\x00\x00\x0a19%02d-%02d-%02d\x00\x00\x00\x08MRN%06d\x00\x00\x00\x20diagnosis %x hypertension", i, i*7919%999983, i*31%9999, i*7, i%100, i%12+1, i%28+1, i*104729%999983, i*i)
	}
	b.SetBytes(int64(len(window)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := rec.Frame('c', window); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(b.Elapsed().Seconds()*float64(1<<30)/float64(b.N*len(window)), "s/GB")
}

// BenchmarkSmallStatement is what one short query leaves behind: its
// commitment, its leaf, a frame and its outcome.
func BenchmarkSmallStatement(b *testing.B) {
	h := newHouse(b)
	h.cfg.SegmentBytes, h.cfg.Linger = 64<<20, 5*time.Millisecond
	l := h.open()
	rec, err := l.Record("s-1", RecordOptions{})
	if err != nil {
		b.Fatal(err)
	}
	row := []byte("D\x00\x00\x00\x1e\x00\x01\x00\x00\x00\x10a value of a row")
	b.ReportAllocs()
	for b.Loop() {
		e := statement(1)
		if e.Commitment, err = rec.Commit("SELECT abalance FROM pgbench_accounts WHERE aid = $1", [][]byte{[]byte("4711")}); err != nil {
			b.Fatal(err)
		}
		l.Append(e)
		_, n, err := rec.Frame('c', row)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.Append(&api.Event{Kind: api.EventOutcome, Session: "s-1", Sequence: 1, Rows: 1, Status: "SELECT 1", FramesFirst: n, FramesLast: n, FramesSHA256: rec.Digest(n, n)}); err != nil {
			b.Fatal(err)
		}
	}
}
