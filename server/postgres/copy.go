package postgres

import (
	"fmt"
	"sync"

	"github.com/jackc/pgproto3/v2"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// uploads is what both halves know of COPY FROM STDIN: the client's data means
// something only while the target takes it.
type uploads struct {
	mu     sync.Mutex
	cond   sync.Cond
	active *run // takes data now
	owed   int  // sent and not ended
	ended  bool // the session ends
}

// isUpload is true for COPY FROM STDIN.
func isUpload(f *policy.Facts) bool { return f.Copy != nil && f.Copy.From && f.Copy.Where == "client" }

// sent notes a statement that is about to be sent.
func (u *uploads) sent(r *run) bool {
	if !isUpload(r.facts) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	r.owed = true
	u.owed++
	return true
}

func (u *uploads) begins(r *run) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active = r
	u.cond.Broadcast()
}

// over notes that a statement was answered or skipped.
func (u *uploads) over(r *run) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !r.owed {
		return
	}
	r.owed = false
	u.owed--
	if u.active == r {
		u.active = nil
	}
	u.cond.Broadcast()
}

func (u *uploads) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	u.cond.Broadcast()
}

// awaitUpload waits, after a COPY FROM STDIN was sent, until the target takes
// its data or has ended it: only then it is known what the client's next
// messages are to it.
func (q *requests) awaitUpload() error {
	if err := q.flush(); err != nil {
		return err
	}
	u := &q.c.uploads
	u.mu.Lock()
	defer u.mu.Unlock()
	for !u.ended && u.active == nil && u.owed > 0 {
		u.cond.Wait()
	}
	if u.ended {
		return errEnded
	}
	q.upload, q.copies = u.active, u.owed > 0
	return nil
}

// uploadsIn notes the COPY FROM STDIN among statements that are about to be sent.
func (q *requests) uploadsIn(runs []*run) (any bool) {
	for _, r := range runs {
		any = q.c.uploads.sent(r) || any
	}
	q.copies = q.copies || any
	return any
}

// uploading handles a message while the target takes data. Sync and Flush are
// dropped, as PostgreSQL does.
func (q *requests) uploading(kind byte, frame []byte) error {
	switch kind {
	case 'd', 'c', 'f':
	case 'S', 'H':
		return nil
	case 'X':
		return errGoodbye
	default:
		return fmt.Errorf("%w: type %q during COPY", errUnexpected, kind)
	}
	q.out.pass(len(frame))
	if kind == 'd' {
		return nil
	}
	q.out.add(say(nil, &pgproto3.Flush{})) // its end is awaited, also without a Sync
	if err := q.flush(); err != nil {
		return err
	}
	u := &q.c.uploads
	u.mu.Lock()
	defer u.mu.Unlock()
	q.upload, u.active = nil, nil
	return nil
}

// stream passes a long CopyData on as it comes.
func (q *requests) stream(size int) error {
	if q.copies && q.upload == nil {
		if err := q.awaitUpload(); err != nil {
			return err
		}
	}
	if q.upload == nil {
		if err := q.flush(); err != nil {
			return err
		}
		if err := q.in.skip(size); err != nil {
			return q.closed(err)
		}
		return nil
	}
	for {
		n := min(size, q.in.buffered())
		q.in.take(n)
		q.out.pass(n)
		if size -= n; size == 0 {
			return nil
		}
		if err := q.flush(); err != nil {
			return err
		}
		if err := q.in.fill(0); err != nil {
			return q.closed(err)
		}
	}
}

// recordUpload gives what is about to be sent to the evidence, and waits until
// it is durable where that is asked for.
func (q *requests) recordUpload() error {
	ticket, err := q.upload.record(session.FromClient, q.out.bytes())
	if err != nil {
		return err
	}
	return q.c.gate.Wait(q.c.ctx, ticket)
}

// copying handles what the target says during a COPY.
func (a *answers) copying(kind byte, frame []byte) error {
	r, err := a.current(kind)
	if err != nil || r == nil {
		return orUnexpected(err, kind)
	}
	switch kind {
	case 'G', 'H':
		if f := r.facts.Copy; f == nil || f.From != (kind == 'G') || r.copying != 0 {
			return a.unexpected(kind)
		}
		if _, _, err := decodeCopyResponse(frame); err != nil {
			return err
		}
		r.copying = kind
		if kind == 'G' {
			a.c.uploads.begins(r)
		} else if r.tagged && !a.swallow && r.refused == nil {
			refusal, err := a.planCopy(r, frame)
			if err != nil {
				return err
			}
			if refusal != nil {
				return a.unplanned(r, refusal)
			}
		}
	case 'd':
		if r.copying != 'H' {
			return a.unexpected(kind)
		}
		if a.swallow || r.refused != nil {
			return nil
		}
		if err := a.counted(r, len(frame)); err != nil || r.refused != nil {
			return err
		}
		if r.tagged {
			return a.copyRow(r, frame)
		}
	case 'c':
		if r.copying != 'H' {
			return a.unexpected(kind)
		}
	}
	if !a.swallow && r.refused == nil {
		a.pass(frame)
	}
	return nil
}

// copyRow shows a row of a COPY on a target with tags, by its plan.
func (a *answers) copyRow(r *run, frame []byte) error {
	switch {
	case r.plan == nil:
		return fmt.Errorf("%w: a row of COPY before its description", errUnexpected)
	case r.plan.clear:
		a.pass(frame)
		return nil
	}
	out, err := r.decode.rewrite(a.out.tail(), frame)
	a.out.keep(out)
	return err
}

func orUnexpected(err error, kind byte) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: type %q from the target", errUnexpected, kind)
}
