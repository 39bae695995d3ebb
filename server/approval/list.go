package approval

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// List returns the requests that who may see, oldest first: what is live, and
// what ended of late. Approvers see what they may answer, others their own; all
// is for admins and auditors.
func (r *Room) List(ctx context.Context, who policy.Principal, all bool) ([]api.Request, error) {
	var out []api.Request
	for _, rec := range r.known() {
		if all || r.sees(ctx, who, rec) {
			out = append(out, r.view(ctx, who, rec))
		}
	}
	slices.SortFunc(out, func(a, b api.Request) int { return number(a.Metadata.Name) - number(b.Metadata.Name) })
	return out, nil
}

// known is every request in memory.
func (r *Room) known() []*record {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*record, 0, len(r.active)+len(r.recent))
	all = append(all, r.recent...)
	for _, q := range r.active {
		all = append(all, q.now.Load())
	}
	return all
}

func number(name string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(name, "r-"))
	return n
}

// Get returns one request as who may see it; all is for admins and auditors.
func (r *Room) Get(ctx context.Context, who policy.Principal, name string, all bool) (api.Request, error) {
	rec, err := r.lookup(ctx, name)
	if err != nil {
		return api.Request{}, err
	}
	if !all && !r.sees(ctx, who, rec) {
		return api.Request{}, noRequest(name)
	}
	return r.view(ctx, who, rec), nil
}

// Find returns one request whole, for the server's own use.
func (r *Room) Find(ctx context.Context, name string) (api.Request, error) {
	rec, err := r.lookup(ctx, name)
	if err != nil {
		return api.Request{}, err
	}
	return rec.Request, nil
}

func (r *Room) lookup(ctx context.Context, name string) (*record, error) {
	if q := r.find(name); q != nil {
		return q.now.Load(), nil
	}
	return r.past(ctx, name)
}

// Settled returns the requests of a kind that are approved now, and those that
// were used since then (zero: none).
func (r *Room) Settled(ctx context.Context, kind string, since time.Time) ([]api.Request, error) {
	var out []api.Request
	r.mu.RLock()
	for _, q := range r.active {
		if rec := q.now.Load(); rec.Spec.Kind == kind && rec.Status.Phase == Approved {
			out = append(out, rec.Request)
		}
	}
	r.mu.RUnlock()
	if since.IsZero() {
		return out, nil
	}
	err := r.cfg.Store.Each(ctx, docEnded, since, func(_ string, doc []byte) error {
		rec, err := decode(doc)
		if err == nil && rec.Spec.Kind == kind && rec.Status.Phase == Used {
			out = append(out, rec.Request)
		}
		return err
	})
	return out, err
}

// sees reports whether who may know of the request.
func (r *Room) sees(ctx context.Context, who policy.Principal, rec *record) bool {
	return inChain(who, rec) || slices.ContainsFunc(rec.Spec.Cures, func(c api.Cure) bool { return r.mayAnswer(ctx, who, rec, c) == nil })
}

// view is the request as who may see it. The statement's text and parameters
// hold values: they are for who asked and for those who may answer.
func (r *Room) view(ctx context.Context, who policy.Principal, rec *record) api.Request {
	out := rec.Request
	may, whyNot := r.answers(ctx, who, rec, nil)
	left := slices.ContainsFunc(may, func(i int) bool { return !slices.Contains(rec.By[i], who.ID()) })
	out.Status.MayAnswer = whyNot == nil && rec.Status.Phase == Pending && r.cfg.Now().Before(rec.Status.Expires) && left
	switch {
	case out.Status.MayAnswer:
	case whyNot != nil:
		out.Status.WhyNot = whyNot.Error()
	case rec.Status.Phase == Pending && r.cfg.Now().Before(rec.Status.Expires):
		out.Status.WhyNot = "you have answered it"
	default:
		out.Status.WhyNot = "it is decided"
	}
	if whyNot != nil && who.ID() != rec.Spec.Principal {
		out.Spec.Statement, out.Spec.Params, out.Spec.Binding, out.Spec.Salt = "", nil, "", ""
		if f := out.Spec.Facts; f != nil && f.SettingValue != "" {
			bare := *f
			bare.SettingValue = ""
			out.Spec.Facts = &bare
		}
	}
	return out
}
