package parser

import (
	"fmt"
	"os"
	"testing"

	"github.com/hoopctl/hoopctl/policy/sql"
)

const oltp = "SELECT a.id, b.name FROM accounts a JOIN branches b ON b.id = a.bid WHERE a.id = $1 AND b.x = 'y'"

func benchPool(b *testing.B) *Pool {
	b.Helper()
	p, err := New(Config{Command: []string{os.Args[0], "__parse"}, CacheDir: codeCache(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	if err := p.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkFactsExact(b *testing.B) {
	p := benchPool(b)
	if _, err := p.Facts(b.Context(), "alice", oltp); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.Facts(b.Context(), "alice", oltp); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkFactsByShape(b *testing.B) {
	p := benchPool(b)
	texts := make([]string, 1000)
	for i := range texts {
		texts[i] = fmt.Sprintf("SELECT a.id, b.name FROM accounts a JOIN branches b ON b.id = a.bid WHERE a.id = %d AND b.x = 'y'", i)
	}
	if _, err := p.Facts(b.Context(), "alice", texts[0]); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := p.Facts(b.Context(), "alice", texts[i%1000]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFactsParsed asks the child every time.
func BenchmarkFactsParsed(b *testing.B) {
	p := benchPool(b)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		text := fmt.Sprintf("SELECT a.id, b.name FROM accounts a JOIN branches b ON b.id = a.bid WHERE a.id = $1 AND b.x%d = 'y'", i)
		if _, err := p.Facts(b.Context(), "alice", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGate(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := sql.Gate(oltp); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	b.ReportAllocs()
	var room [512]byte
	var ranges [4]sql.Range
	for b.Loop() {
		if _, err := sql.Read(oltp, room[:0], ranges[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
