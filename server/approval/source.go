package approval

import (
	"context"
	"net/netip"

	"github.com/hoopctl/hoopctl/policy"
)

// sourceKey keys the address that a call came from in its context.
type sourceKey struct{}

// WithSource says where a call came from. Whoever looks at a request or answers
// it does so from there; policy may say that this is not the place.
func WithSource(ctx context.Context, from netip.Addr) context.Context {
	return context.WithValue(ctx, sourceKey{}, from)
}

// Source is where a call came from, for Config.MayAnswer. As an approval is
// used, it is where each answer came from when it was given. It is invalid if
// that is not known.
func Source(ctx context.Context) netip.Addr {
	from, _ := ctx.Value(sourceKey{}).(netip.Addr)
	return from
}

func sourceText(ctx context.Context) string {
	if from := Source(ctx); from.IsValid() {
		return from.String()
	}
	return ""
}

// answeredFrom is ctx, with the address from which somebody gave an answer.
func answeredFrom(ctx context.Context, rec *record, id string) context.Context {
	var from netip.Addr
	for _, a := range rec.Status.Answers {
		if a.Principal == id && a.Approve {
			from, _ = netip.ParseAddr(a.Source) // as it was written down; invalid says nothing
		}
	}
	return WithSource(ctx, from)
}

// answerer is who gave an answer, as they are known now.
func (r *Room) answerer(ctx context.Context, rec *record, id string) (policy.Principal, context.Context, error) {
	who, err := r.cfg.Current(ctx, id)
	return who, answeredFrom(ctx, rec, id), err
}
