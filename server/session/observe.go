package session

import (
	"context"
	"fmt"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// Attributes of the leaves of a statement that ran on a target which is only
// observed: what policy would have done.
const (
	AttrObserved   = "observed"   // "true"
	AttrWould      = "would"      // refuse | hold | cut
	AttrWouldRules = "wouldRules" // ids, separated by commas
	AttrWouldMask  = "wouldMask"  // "column method", separated by commas
)

// observed reports whether the target forwards what policy would refuse, now.
func (s *Session) observed() bool { return s.cfg.Observed != nil && s.cfg.Observed() }

// understood reports whether the grammar has read every statement of a batch:
// what it has not is refused on an observed target, too.
func understood(batch []policy.Statement) bool {
	for i := range batch {
		if batch[i].Class == "" {
			return false
		}
	}
	return true
}

// observe lets a batch run whatever policy says of it, and writes down what
// that was: nothing is refused, held, cut, masked or counted.
func (s *Session) observe(ctx context.Context, batch []policy.Statement) ([]Pass, error) {
	set := s.cfg.Policy()
	as := make([]admission, len(batch))
	for i := range batch {
		v := s.decide(set, &batch[i], nil, nil)
		as[i].verdict = policy.Verdict{Effect: policy.Allow, Rules: v.Rules, Digest: v.Digest}
		as[i].would = s.would(set, &batch[i], v)
		if v.Effect == policy.Allow {
			as[i].verdict.RowLimit, as[i].verdict.Cures = v.RowLimit, v.Cures
		}
	}
	return s.admitted(ctx, batch, as, nil, nil)
}

// would is what policy would have done with a statement.
func (s *Session) would(set Decider, st *policy.Statement, v policy.Verdict) map[string]string {
	out := map[string]string{AttrObserved: "true"}
	switch v.Effect {
	case policy.Deny:
		out[AttrWould] = "refuse"
	case policy.Review:
		out[AttrWould] = "hold"
	}
	if v.Effect != policy.Allow {
		out[AttrWouldRules] = strings.Join(v.Rules, ",")
	}
	if m := s.wouldMask(set, st); m != "" {
		out[AttrWouldMask] = m
	}
	return out
}

// wouldMask names the tagged columns that a statement reads and that would not
// be shown as they are.
func (s *Session) wouldMask(set Decider, st *policy.Statement) string {
	var out []string
	tags := set.Tags(s.cfg.Target)
	for i := range tags {
		t := &tags[i]
		name := t.Column.String()
		if t.Tag == "none" || !contains(st.Columns, name) && !contains(st.Columns, t.Column.Schema+"."+t.Column.Table+".*") {
			continue
		}
		req := s.request(policy.ViewUnmasked)
		req.Column, req.Statement = &t.Column, st
		if sh := set.Show(req, *t); !sh.Clear {
			out = append(out, name+" "+sh.Method)
		}
	}
	return strings.Join(out, ",")
}

// wouldCut notes on the outcome of an observed statement that its answer would
// not have gone that far.
func (p *pass) wouldCut(e *api.Event, o Outcome) {
	limit := p.verdict.RowLimit
	if p.would == nil || limit == 0 || o.Rows <= limit {
		return
	}
	e.Attrs = map[string]string{AttrWould: "cut", AttrWouldRules: strings.Join(p.verdict.Rules, ","), "rowLimit": fmt.Sprint(limit)}
	if len(p.verdict.Cures) > 0 {
		e.Attrs[AttrWould], e.Attrs[AttrWouldRules] = "hold", strings.Join(rulesOf(p.verdict.Cures), ",")
	}
}

// Notice implements Gate.
func (s *Session) Notice() string {
	if !s.observed() {
		return ""
	}
	return fmt.Sprintf("target %s is only observed: nothing is refused, held or masked here, and everything is recorded as you see it", s.cfg.Target.Name)
}
