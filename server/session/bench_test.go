package session

import (
	"context"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
)

// BenchmarkDecideCached is what policy costs a statement whose shape was
// decided before in its session; BenchmarkDecideMetered the same under a
// budget of rows, counted and given back.
func BenchmarkDecideCached(b *testing.B) {
	s, batch := benchSession(b, nil)
	set := s.cfg.Policy()
	b.ReportAllocs()
	for b.Loop() {
		s.decide(set, &batch[0], nil, nil)
	}
}

func BenchmarkDecideMetered(b *testing.B) {
	s, batch := benchSession(b, &hourly)
	set := s.cfg.Policy()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		v := s.decide(set, &batch[0], nil, nil)
		meters, _, err := s.begin(ctx, batch, []policy.Verdict{v})
		if err != nil {
			b.Fatal(err)
		}
		s.giveBack(ctx, meters[0], Outcome{Rows: 0})
	}
}

func benchSession(b *testing.B, budget *policy.Budget) (*Session, []policy.Statement) {
	b.Helper()
	h := &house{decide: func(policy.Request) policy.Verdict {
		v := policy.Verdict{Effect: policy.Allow, Rules: []string{"ok"}, Cacheable: true}
		if budget != nil {
			v.Meters = []policy.Budget{*budget}
		}
		return v
	}}
	s, err := Open(context.Background(), Config{Name: "s-1", Principal: policy.Principal{Kind: policy.User, Issuer: "dev", Subject: "alice", Name: "alice"},
		Target: policy.TargetRef{Name: "clinic"}, Policy: func() Decider { return h }, Evidence: h, Masks: h, Budgets: &purse{left: map[string]int64{"hourly": 1000}},
		Live: func() *Refusal { return nil }, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	return s, []policy.Statement{statement("SELECT 1", policy.Read)}
}
