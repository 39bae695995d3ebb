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
// what ended since then (zero: of late). Approvers see what they may answer,
// admins and auditors all, others their own.
func (r *Room) List(ctx context.Context, who policy.Principal, since time.Time) ([]api.Request, error) {
	all := r.known()
	if !since.IsZero() {
		all = slices.DeleteFunc(all, func(rec *record) bool { return rec.Status.Phase != Pending && rec.Status.Phase != Approved })
		err := r.cfg.Store.Each(ctx, docEnded, since, func(_ string, doc []byte) error {
			rec, err := decode(doc)
			all = append(all, rec)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return r.visible(ctx, who, all), nil
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

func (r *Room) visible(ctx context.Context, who policy.Principal, all []*record) []api.Request {
	var out []api.Request
	for _, rec := range all {
		if r.sees(ctx, who, rec) {
			out = append(out, r.view(ctx, who, rec))
		}
	}
	slices.SortFunc(out, func(a, b api.Request) int { return number(a.Metadata.Name) - number(b.Metadata.Name) })
	// A request that ended between the two reads of memory and store is in both.
	return slices.CompactFunc(out, func(a, b api.Request) bool { return a.Metadata.Name == b.Metadata.Name })
}

func number(name string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(name, "r-"))
	return n
}

// Get returns one request as who may see it.
func (r *Room) Get(ctx context.Context, who policy.Principal, name string) (api.Request, error) {
	rec, err := r.lookup(ctx, name)
	if err != nil {
		return api.Request{}, err
	}
	if !r.sees(ctx, who, rec) {
		return api.Request{}, refuse(api.ReasonNotFound, "there is no request "+name, "hoopctl get requests lists those that you may see")
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

// Watch calls emit with each request that who may see, as it stands; with nil
// once that is done; and then with each change, until ctx ends or emit fails.
// A change that is overtaken by the next before emit returns is left out.
func (r *Room) Watch(ctx context.Context, who policy.Principal, emit func(*api.Request) error) error {
	sent := map[string]int64{}
	for first := true; ; first = false {
		changed := r.Changed()
		for _, req := range r.visible(ctx, who, r.known()) {
			if sent[req.Metadata.Name] == req.Metadata.Version {
				continue
			}
			sent[req.Metadata.Name] = req.Metadata.Version
			if err := emit(&req); err != nil {
				return err
			}
		}
		if first {
			if err := emit(nil); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sees reports whether who may know of the request.
func (r *Room) sees(ctx context.Context, who policy.Principal, rec *record) bool {
	if inChain(who, rec) || r.cfg.SeesAll(who) {
		return true
	}
	return slices.ContainsFunc(rec.Spec.Cures, func(c api.Cure) bool { return r.mayAnswer(ctx, who, rec, c) == nil })
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
