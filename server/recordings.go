package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/store"
)

const (
	// docShred is a recording that somebody asked to destroy, under its session's name.
	docShred = "shred"
	// shredStands is how long a second person may agree to it.
	shredStands = 24 * time.Hour
	// retentionEvery is how often recordings are looked at that may be too old.
	retentionEvery = time.Hour
)

// postShred destroys a recording once two people want it: one who may change
// resources, then another one who may read the evidence.
func (s *Server) postShred(c *call) (any, error) {
	in, err := read[api.Shred](c)
	if err != nil {
		return nil, err
	}
	name := c.PathValue("name")
	asked, err := s.shredAsked(c.Context(), name)
	if err != nil {
		return nil, err
	}
	if asked == nil || asked.Asked == c.who.ID() {
		return s.askShred(c, name, in.Reason)
	}
	if err := s.may(c, policy.ReadEvidence, "server", "", ""); err != nil {
		return nil, err
	}
	if err := s.mayShred(c.Context(), name); err != nil {
		return nil, err
	}
	return s.shred(c, *asked)
}

// shredAsked is what stands of a question to destroy a recording, nil if nothing does.
func (s *Server) shredAsked(ctx context.Context, name string) (*api.Shredding, error) {
	body, err := s.store.Get(ctx, docShred, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	asked := new(api.Shredding)
	if err == nil {
		err = json.Unmarshal(body, asked)
	}
	if err != nil {
		return nil, fmt.Errorf("who asked to shred %s: %w", name, err)
	}
	if !s.now().Before(asked.Expires) {
		return nil, nil
	}
	return asked, nil
}

func (s *Server) askShred(c *call, name, reason string) (any, error) {
	if err := s.may(c, policy.Manage, "server", "", ""); err != nil {
		return nil, err
	}
	if reason == "" {
		return nil, invalid("a reason is missing: why is this recording to be destroyed?")
	}
	if err := s.masks.checkWords(reason); err != nil {
		return nil, invalid("the reason cannot be kept: %v", err)
	}
	if err := s.mayShred(c.Context(), name); err != nil {
		return nil, err
	}
	out := api.Shredding{Session: name, Asked: c.who.ID(), Name: c.who.Name, Reason: reason, Expires: s.now().Add(shredStands).UTC()}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	e := api.Event{Kind: api.EventAdmin, Principal: c.who.ID(), Name: c.who.Name, Login: c.login, Source: c.source.String(), Session: name, Object: "recording", Reason: "asked to be shredded", Expires: out.Expires}
	if err := s.recordNow(c.Context(), &e); err != nil {
		return nil, err
	}
	if _, err := s.store.Put(c.Context(), docShred, name, body); err != nil {
		return nil, fmt.Errorf("keep the question to shred %s: %w", name, err)
	}
	return out, nil
}

func (s *Server) shred(c *call, asked api.Shredding) (any, error) {
	e := api.Event{Principal: asked.Asked, Name: asked.Name, Session: asked.Session, Reason: "asked for and agreed to by two people",
		Approvals: []api.EventApproved{{By: c.who.ID(), Rule: "two-people"}}}
	if err := s.evidence.Shred(c.Context(), e); err != nil {
		s.log.Error("a recording is not shredded", "session", asked.Session, "error", err)
		return nil, &api.Error{Reason: api.ReasonEvidence, Message: "the recording of " + asked.Session + " is not shredded, or not whole", Hint: "ask again; tell whoever runs the broker"}
	}
	asked.Agreed, asked.Expires = c.who.ID(), time.Time{}
	if err := s.store.Delete(c.Context(), docShred, asked.Session); err != nil {
		s.log.Error("the question to shred a recording still stands", "session", asked.Session, "error", err)
	}
	return asked, nil
}

// mayShred says why a session's recording cannot be destroyed now.
func (s *Server) mayShred(ctx context.Context, name string) error {
	leaves, err := s.evidence.Search(ctx, api.EventQuery{Session: name, Kind: []string{api.EventSessionOpen, api.EventSessionClose, api.EventShredded}})
	if err != nil {
		return err
	}
	conflict := func(hint, format string, a ...any) error {
		return &api.Error{Code: http.StatusConflict, Reason: api.ReasonConflict, Message: fmt.Sprintf(format, a...), Hint: hint}
	}
	has := func(kind string) bool {
		return slices.ContainsFunc(leaves, func(e api.Event) bool { return e.Kind == kind })
	}
	switch {
	case len(leaves) == 0:
		return notFound("session", name)
	case has(api.EventShredded):
		return conflict("", "the recording of %s was shredded before", name)
	case !has(api.EventSessionClose):
		return conflict("hoopctl delete session "+name+" ends it", "session %s is open", name)
	}
	if hold := s.holdOn(name, leaves[0].Target); hold != "" {
		return conflict("hoopctl describe legalhold "+hold, "the recording of %s is under legal hold %s", name, hold)
	}
	return nil
}

// holdOn names a legal hold that keeps a session's recording, "" if none does. A
// hold that cannot be read keeps everything.
func (s *Server) holdOn(session, target string) string {
	for _, res := range s.resources.all(policy.KindLegalHold) {
		spec, ok := res.Spec.(*policy.LegalHoldSpec)
		if !ok || slices.Contains(spec.Sessions, session) {
			return res.Metadata.Name
		}
		if spec.Targets.Empty() {
			continue
		}
		ref, _, known := s.resources.set().Target(target)
		if !known {
			ref = policy.TargetRef{Name: target} // deleted meanwhile: its labels are not known, its name is
		}
		if spec.Targets.Matches(ref) {
			return res.Metadata.Name
		}
	}
	return ""
}

// runRetention ends recordings that are older than they may get, until ctx ends.
func (s *Server) runRetention(ctx context.Context) {
	keep, err := parseKeep(s.cfg.Evidence.Retention.Recordings)
	if err != nil || keep == 0 { // complete has checked it
		return
	}
	t := time.NewTicker(retentionEvery)
	defer t.Stop()
	for {
		if err := s.endRecordings(ctx, keep); err != nil && ctx.Err() == nil {
			s.log.Error("recordings past their retention are still there", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// endRecordings shreds what ended longer ago than recordings are kept, and is
// under no hold.
func (s *Server) endRecordings(ctx context.Context, keep time.Duration) error {
	before := s.now().Add(-keep)
	names, err := s.evidence.Recorded(before)
	if err != nil {
		return err
	}
	for _, name := range names {
		closed, err := s.evidence.Search(ctx, api.EventQuery{Session: name, Kind: []string{api.EventSessionClose}, Limit: 1})
		if err != nil {
			return err
		}
		if len(closed) == 0 || closed[0].Time.After(before) || s.holdOn(name, closed[0].Target) != "" {
			continue
		}
		e := api.Event{Session: name, Name: s.cfg.Name, Reason: "retention: recordings are kept " + s.cfg.Evidence.Retention.Recordings}
		if err := s.evidence.Shred(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// parseKeep reads how long something is kept: a Go duration, days or years.
func parseKeep(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	const day = 24 * time.Hour
	for suffix, unit := range map[string]time.Duration{"d": day, "y": 365 * day} {
		digits, ok := strings.CutSuffix(text, suffix)
		if n, err := strconv.ParseUint(digits, 10, 16); ok && err == nil && n > 0 && n <= 100*365 {
			return time.Duration(n) * unit, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q: want a duration such as 90d, 6y or 12h", text)
}
