package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/postgres"
	"github.com/hoopctl/hoopctl/server/store"
)

// docRole is the store's kind of roles that may exist on targets for one
// session, by their names.
const docRole = "role"

const (
	rolesEvery   = time.Minute      // between looks at roles whose session has ended
	rolesLongest = time.Hour        // … at one that would not go, at last
	roleTimeout  = 30 * time.Second // of one
)

// roleJournal remembers ephemeral roles in the store: it implements postgres.Journal.
type roleJournal struct{ store *store.Store }

func (j roleJournal) RoleMade(ctx context.Context, r postgres.Role) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return j.store.Create(ctx, docRole, r.Name, body)
}

func (j roleJournal) RoleGone(ctx context.Context, r postgres.Role) error {
	if err := j.store.Delete(ctx, docRole, r.Name); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// reaper drops the roles that a crash or an unreachable target left behind.
type reaper struct {
	s    *Server
	next map[string]time.Time     // when a role is looked at again
	wait map[string]time.Duration // how long it was put off last
}

// reapRoles runs until ctx ends: at once, for what the last run of the server
// left, then as long as there may be more.
func (s *Server) reapRoles(ctx context.Context) error {
	r := reaper{s: s, next: map[string]time.Time{}, wait: map[string]time.Duration{}}
	tick := time.NewTicker(rolesEvery)
	defer tick.Stop()
	for {
		if err := r.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("ephemeral roles not looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweep looks at each role once. A role is in the store only while its session
// is in the registry, or when nobody else will drop it.
func (r *reaper) sweep(ctx context.Context) error {
	docs, err := r.s.store.List(ctx, docRole)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, d := range docs {
		var role postgres.Role
		if err := json.Unmarshal(d.Body, &role); err != nil {
			return fmt.Errorf("stored role %s: %w", d.Name, err)
		}
		if ctx.Err() != nil || r.s.registry.get(role.Session) != nil || now.Before(r.next[role.Name]) {
			continue
		}
		if err := r.reap(ctx, role); err != nil {
			r.putOff(now, role, err)
		}
	}
	return nil
}

func (r *reaper) reap(ctx context.Context, role postgres.Role) error {
	t, err := r.s.targets.Get(role.Target)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, roleTimeout)
	defer cancel()
	joined := sessionTarget{Target: t}
	found, err := r.s.postgres.DropRole(ctx, joined, role)
	if err != nil {
		return err
	}
	delete(r.next, role.Name)
	delete(r.wait, role.Name)
	switch moved := role.Place != joined.Info().Generation; {
	case found:
		r.s.log.Info("a role that a session left was dropped", "target", role.Target, "role", role.Name, "session", role.Session)
	case moved:
		r.s.log.Warn("a role may be left where the target was before its address changed; its password has expired: drop it there", "target", role.Target, "role", role.Name)
	}
	return nil
}

// putOff tries again in a minute, then in two, four … up to an hour.
func (r *reaper) putOff(now time.Time, role postgres.Role, err error) {
	wait := min(max(2*r.wait[role.Name], rolesEvery), rolesLongest)
	r.wait[role.Name], r.next[role.Name] = wait, now.Add(wait-time.Second)
	var gone *api.Error
	if errors.As(err, &gone) && gone.Reason == api.ReasonNotFound {
		err = errors.New("there is no such target any more: drop the role by hand, or apply the target again")
	}
	r.s.log.Warn("a role that a session left cannot be dropped", "target", role.Target, "role", role.Name, "session", role.Session, "again in", wait, "error", err)
}
