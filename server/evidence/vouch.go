package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// witnessClock is how far a witness's clock may be ahead of the verifier's.
const witnessClock = 5 * time.Minute

// vouched is what the witnesses of the policy say of the log.
type vouched struct {
	size uint64    // up to here a quorum cosigned
	at   time.Time // the quorum had seen it by then
	by   []string
}

// readCosigned reads the newest cosigned checkpoint. It is read before the
// newest one: of an honest log it is never larger.
func (v *verifier) readCosigned() error {
	note, err := readFile(v.ctx, v.src, cosignedPath, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	cp, err := v.ring.parse(note)
	if err != nil && v.ring.old(note) {
		v.report.Unknown = append(v.report.Unknown, "what the cosignatures on the cosigned checkpoint are worth: the log signed it with a key that was retired before the one that you trust")
		return nil
	}
	if err != nil {
		v.report.add(Problem{Status: Tampered, File: cosignedPath, What: err.Error()})
		return nil
	}
	v.cosigned = cp.Size
	v.marks = append(v.marks, rootMark{cp.Size, cp.Root, "the cosigned checkpoint"})
	v.vouch(cosignedPath, cp)
	return nil
}

// vouch takes what the policy's witnesses say of a checkpoint.
func (v *verifier) vouch(file string, cp Checkpoint) {
	p := v.o.Policy
	if p == nil {
		return
	}
	times, err := cosignedAt(cp.Note, p.keys())
	if err != nil {
		v.report.add(Problem{Status: Tampered, File: file, What: fmt.Sprintf("a cosignature is not what its witness signed: %v", err)})
		return
	}
	var by []string
	for i, t := range times {
		switch {
		case t.IsZero():
		case !v.o.Now.IsZero() && t.After(v.o.Now.Add(witnessClock)):
			v.report.Unknown = append(v.report.Unknown, fmt.Sprintf("when witness %s cosigned: its time %s has not come yet, so it does not count", p.Witnesses[i].Name, t.Format(time.RFC3339)))
			times[i] = time.Time{}
		default:
			by = append(by, p.Witnesses[i].Name)
		}
	}
	if at := p.quorum.time(times); !at.IsZero() && (cp.Size > v.vouched.size || cp.Size == v.vouched.size && at.After(v.vouched.at)) {
		v.vouched = vouched{cp.Size, at, by}
	}
}

// consult asks those witnesses of the policy whose address it knows for what
// they know of this log now: the only way to tell a log that was rolled back
// together with all its signatures.
func (v *verifier) consult() error {
	if v.o.Policy == nil || v.o.Ask == nil || !v.signed || v.cp.Size == 0 {
		return nil
	}
	cp := v.cp
	for _, w := range v.o.Policy.Witnesses {
		if w.URL == "" {
			continue
		}
		line, seen, err := v.askOne(w, cp)
		var no *Accusation
		switch {
		case err == nil:
			seen.Note = append(bytes.Clone(seen.Note), line...)
			cp = seen
		case errors.As(err, &no):
			v.report.add(Problem{Status: Tampered, File: "checkpoint", What: no.Error()})
		case v.ctx.Err() != nil:
			return context.Cause(v.ctx)
		default:
			v.report.Unknown = append(v.report.Unknown, fmt.Sprintf("what witness %s knows of the log: %v", w.Name, err))
		}
	}
	v.vouch("checkpoint", cp)
	return nil
}

// askOne asks a witness about a checkpoint; should it know a later one of a log
// that is being written, about that.
func (v *verifier) askOne(w WitnessAt, cp Checkpoint) ([]byte, Checkpoint, error) {
	for range 5 {
		a := asked{http: v.o.Ask, at: w, src: v.src, cp: cp, known: cp.Size}
		line, _, err := a.cosign(v.ctx)
		var no *Accusation
		if !errors.As(err, &no) {
			return line, cp, err
		}
		later, ok := v.later(cp)
		if !ok {
			return nil, cp, err
		}
		cp = later
	}
	return nil, cp, errors.New("the log grows too fast to be asked about")
}

// later reads the checkpoint again: true if it is a newer one that goes on from cp.
func (v *verifier) later(cp Checkpoint) (Checkpoint, bool) {
	note, err := readFile(v.ctx, v.src, "checkpoint", 1<<20)
	if err != nil {
		return cp, false
	}
	next, err := v.ring.parse(note)
	if err != nil || next.Size <= cp.Size {
		return cp, false
	}
	proof, err := proveTree(v.ctx, v.src, next, cp.Size)
	if err != nil || tlog.CheckTree(proof, int64(next.Size), next.Root, int64(cp.Size), cp.Root) != nil {
		return cp, false
	}
	return next, true
}

// judgeWitnesses says what the witnesses' word is worth.
func (v *verifier) judgeWitnesses() {
	r, p, w := v.report, v.o.Policy, v.vouched
	switch {
	case p == nil:
		if v.cosigned > 0 {
			r.Unknown = append(r.Unknown, "what the cosignatures on the checkpoint are worth: no witness's key was given")
		}
		return
	case p.quorum.none:
		return
	case w.size == 0:
		r.add(Problem{Status: Incomplete, File: cosignedPath, What: "no checkpoint has the cosignatures that the policy demands: nobody but the log's own key vouches for it"})
		return
	}
	r.Witnessed, r.WitnessedAt = w.size, w.at
	if v.o.Fresh > 0 && w.at.Before(v.o.Now.Add(-v.o.Fresh)) {
		r.add(Problem{Status: Stale, File: cosignedPath, What: fmt.Sprintf("the witnesses saw it last at %s: what they saw since is not here, or nobody asked them", w.at.Format(time.RFC3339))})
	}
	if v.o.Fresh == 0 {
		r.Unknown = append(r.Unknown, fmt.Sprintf("whether there is more, seen by the witnesses after %s, and withheld here: say how new it must be, or where they can be asked", w.at.Format(time.RFC3339)))
	}
	if r.Status == Intact || r.Status == Stale {
		r.Proved = append(r.Proved, fmt.Sprintf("the first %d leaves were seen by %s by %s, and what they saw before that was not rolled back or rewritten, whoever holds the log's key",
			w.size, strings.Join(w.by, ", "), w.at.Format(time.RFC3339)))
	}
	if r.Leaves > w.size {
		r.Asserted = append(r.Asserted, fmt.Sprintf("%d leaves after those that the witnesses saw", r.Leaves-w.size))
	}
}
