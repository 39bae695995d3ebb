package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/store"
)

// docReview is the store's kind of reviews that were written down; names are
// "Service/billing@2027-06-01@due".
const docReview = "review"

// runReviews writes down, once each, that a review is due and that it lapsed:
// in the log, and in the evidence. Owners hear of it at every login.
func (s *Server) runReviews(ctx context.Context) {
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		for _, r := range s.resources.set().Reviews(s.now()) {
			if err := s.noteReview(ctx, r); err != nil && ctx.Err() == nil {
				s.log.Error("a review is not recorded", "object", r.Object, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (s *Server) noteReview(ctx context.Context, r policy.DueReview) error {
	phase, words := "due", "its owner reviews it by "+r.By.UTC().Format(time.DateOnly)
	if r.Lapsed {
		phase, words = "lapsed", "its owner did not review it by "+r.By.UTC().Format(time.DateOnly)
	}
	name := r.Object + "@" + r.By.UTC().Format(time.DateOnly) + "@" + phase
	if _, err := s.store.Get(ctx, docReview, name); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	e := api.Event{Kind: api.EventAdmin, Object: r.Object, Reason: words, Attrs: map[string]string{"review": phase, "owner": r.Owner}}
	if err := s.recordNow(ctx, &e); err != nil {
		return err
	}
	s.log.Warn(words, "object", r.Object, "owner", r.Owner)
	_, err := s.store.Put(ctx, docReview, name, nil)
	return err
}

// reviewsOf are the reviews that somebody owns, by name or ID.
func (s *Server) reviewsOf(who policy.Principal) []policy.DueReview {
	return slices.DeleteFunc(s.resources.set().Reviews(s.now()), func(r policy.DueReview) bool { return r.Owner != who.Name && r.Owner != who.ID() })
}
