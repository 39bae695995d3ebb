//go:build unix

package postgres

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// shapes is a parser that answers by shape, as the real pool does.
type shapes struct {
	sharedParser *sharedParser
	mu           sync.Mutex
	byShape      map[string][]*policy.Facts
}

func (p *shapes) Facts(ctx context.Context, principal, text string) ([]*policy.Facts, error) {
	var room [512]byte
	var ranges [4]sql.Range
	r, err := sql.Read(text, room[:0], ranges[:0])
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.byShape[string(r.Key)]; ok && len(f) == len(r.Statements) {
		out := make([]*policy.Facts, len(f))
		for i := range f {
			moved := *f[i]
			moved.Start, moved.End = r.Statements[i].Start, r.Statements[i].End
			out[i] = &moved
		}
		return out, nil
	}
	f, err := p.sharedParser.Facts(ctx, principal, text)
	if err == nil && len(f) > 0 && f[0].LiteralFree {
		p.byShape[string(r.Key)] = f
	}
	return f, err
}

func (p *shapes) Parse(ctx context.Context, principal, text string) (*sql.Parsed, error) {
	return p.sharedParser.Parse(ctx, principal, text)
}

func cpu() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec)
}

var processed = regexp.MustCompile(`transactions actually processed: (\d+)`)

// benchGate admits everything at the least cost.
type benchGate struct{ sessiontest.Gate }

type benchPass struct{}

func (benchPass) Plan(c []session.Column) (session.Plan, error) {
	return session.Plan{Columns: make([]session.ColumnPlan, len(c)), Clear: true}, nil
}
func (benchPass) Record(session.Direction, []byte) (session.Ticket, error) { return 0, nil }
func (benchPass) Allowed() session.Allowance {
	return session.Allowance{Rows: session.Unlimited, Bytes: session.Unlimited}
}
func (p benchPass) More(context.Context, session.Allowance, func(session.Hold)) (session.Allowance, error) {
	return p.Allowed(), nil
}
func (benchPass) Done(session.Outcome) (session.Ticket, error)       { return 0, nil }
func (g *benchGate) Check(context.Context, []policy.Statement) error { return nil }
func (g *benchGate) Admit(_ context.Context, b []policy.Statement, _ func(session.Hold)) ([]session.Pass, error) {
	p := make([]session.Pass, len(b))
	for i := range p {
		p[i] = benchPass{}
	}
	return p, nil
}

// BenchmarkPgbench reports this process's CPU a transaction: the relay's cost.
func BenchmarkPgbench(b *testing.B) {
	h := newHouse(b, nil)
	h.bench = &benchGate{}
	p, _ := grammar()
	h.room.config.Parser = &shapes{sharedParser: p, byShape: map[string][]*policy.Facts{}}
	h.target.info.TLSMode = "disable"
	bench := func(args ...string) string {
		out, err := exec.Command(filepath.Join(h.target.server.BinDir, "pgbench"), append(args, h.url())...).CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	bench("-i", "-s", "1", "-q")
	for _, mode := range []string{"simple", "prepared"} {
		b.Run(mode, func(b *testing.B) {
			before := cpu()
			out := bench("-n", "-S", "-M", mode, "-c", "8", "-t", fmt.Sprint(b.N/8+1))
			n, _ := strconv.Atoi(processed.FindStringSubmatch(out)[1])
			b.ReportMetric((cpu()-before)/float64(n), "cpu-µs/query")
		})
	}
}

// BenchmarkSelect reports CPU seconds a gigabyte of rows, those of the client in
// this process included.
func BenchmarkSelect(b *testing.B) {
	h := newHouse(b, nil)
	h.bench = &benchGate{}
	h.target.info.TLSMode = "disable"
	conn := h.connect()
	before, bytes := cpu(), 0
	for b.Loop() {
		bytes = 0
		r := conn.Exec(b.Context(), "SELECT n, md5(n::text), md5(n::text), repeat('x', 200) FROM generate_series(1, 200000) n")
		for r.NextResult() {
			rr := r.ResultReader()
			for rr.NextRow() {
				for _, v := range rr.Values() {
					bytes += len(v) + 4
				}
				bytes += 7
			}
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(bytes))
	b.ReportMetric((cpu()-before)/1e6/(float64(bytes)*float64(b.N)/1e9), "cpu-s/GB")
}
