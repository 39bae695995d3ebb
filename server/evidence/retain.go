package evidence

import (
	"slices"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// Retained says how far back evidence reaches, and what became of recordings.
type Retained struct {
	First       time.Time      `json:"first"`
	Last        time.Time      `json:"last"`
	Leaves      uint64         `json:"leaves"`
	Kept        int            `json:"kept"` // recordings that open for an auditor
	OldestKept  time.Time      `json:"oldestKept,omitzero"`
	SealedFiles int            `json:"sealedFiles"`
	Shredded    []ShreddedInto `json:"shredded"`
	Lost        []string       `json:"lost"` // sessions whose wrapped key is gone without a leaf
}

// ShreddedInto is a recording that was destroyed.
type ShreddedInto struct {
	Session string    `json:"session"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason"`
	Leaf    uint64    `json:"leaf"`
}

// Retention gathers [Retained] from events in order. It is not for concurrent use.
type Retention struct {
	began    map[string]time.Time // recordings
	opened   map[string]time.Time // sessions
	shredded []ShreddedInto
}

// NewRetention begins with nothing.
func NewRetention() *Retention {
	return &Retention{began: map[string]time.Time{}, opened: map[string]time.Time{}}
}

// Add takes the next event.
func (r *Retention) Add(e *api.Event) {
	switch e.Kind {
	case api.EventSessionOpen:
		r.opened[e.Session] = e.Time
	case api.EventSealed, api.EventArchived:
		if _, known := r.began[e.Session]; !known {
			r.began[e.Session] = r.opened[e.Session]
		}
	case api.EventSessionClose:
		delete(r.opened, e.Session)
	case api.EventShredded:
		r.shredded = append(r.shredded, ShreddedInto{e.Session, e.Time, e.Reason, e.Index})
	}
}

// Finish compares what the events say with the files that are there.
func (r *Retention) Finish(files []api.EvidenceFile, verified *Report) *Retained {
	out := &Retained{First: verified.First, Last: verified.Last, Leaves: verified.Leaves, Shredded: r.shredded, Lost: []string{}}
	keys := map[string]bool{}
	for _, f := range files {
		if name, ok := strings.CutPrefix(f.Path, "keys/"); ok {
			keys[strings.TrimSuffix(name, ".key")] = true
		}
		if _, _, ok := parseSealedPath(f.Path); ok {
			out.SealedFiles++
		}
	}
	gone := map[string]bool{}
	for _, s := range r.shredded {
		gone[s.Session] = true
	}
	for session, began := range r.began {
		switch {
		case keys[session]:
			out.Kept++
			if out.OldestKept.IsZero() || began.Before(out.OldestKept) {
				out.OldestKept = began
			}
		case !gone[session]:
			out.Lost = append(out.Lost, session)
		}
	}
	slices.Sort(out.Lost)
	if out.Shredded == nil {
		out.Shredded = []ShreddedInto{}
	}
	return out
}
