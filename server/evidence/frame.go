package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"time"
)

// frame is a parsed frame record; its fields alias the record.
type frame struct {
	session  []byte
	sequence uint64
	dir      byte
	flags    byte
	at       time.Time
	size     int // of the payload
	head     []byte
	box      []byte
}

var errFrame = errors.New("not a frame")

// parseFrame reads a frame record's body. It is bounded by the body.
func parseFrame(b []byte) (f frame, err error) {
	if len(b) < frameFixed || len(b) < frameFixed+int(b[0]) {
		return f, errFrame
	}
	n := 1 + int(b[0])
	f.session = b[1:n]
	f.sequence = binary.BigEndian.Uint64(b[n:])
	f.dir, f.flags = b[n+8], b[n+9]
	f.at = time.Unix(0, int64(binary.BigEndian.Uint64(b[n+10:]))).UTC()
	f.size = int(binary.BigEndian.Uint32(b[n+18:]))
	f.head, f.box = b[:n+22], b[n+22:]
	switch {
	case f.size > maxPayload, f.flags&^flagsKnown != 0, len(f.session) == 0:
		return f, errFrame
	case f.dir == dirKey && (f.sequence != 0 || f.size != len(f.box)), f.dir != dirKey && (f.sequence == 0 || len(f.box) < tagSize):
		return f, errFrame
	}
	return f, nil
}

// frameChecker holds the recordings' frames against what the timeline says.
type frameChecker struct {
	v        *verifier
	count    uint64
	chain    [sha256.Size]byte
	chains   []chainClaim
	sessions map[string]*frameState
	bound    uint64 // frames up to here are bound by a chain in the tree
}

// frameState follows one session's frames.
type frameState struct {
	next    uint64
	whole   hash.Hash
	part    hash.Hash // of the claim that is running, nil if none
	claims  []frameClaim
	sealed  []frameClaim // claims from frame 0
	wrapped string       // digest of the wrapped key
}

func (v *verifier) checkFrames() error {
	c := &frameChecker{v: v, chains: v.leaves.chains, sessions: map[string]*frameState{}}
	if err := v.walk(payload, c.batch); err != nil {
		return err
	}
	c.passChains()
	if c.count < v.frames {
		v.report.add(Problem{Status: Tampered, What: fmt.Sprintf("the recordings hold %d frames, the timeline was written after %d", c.count, v.frames)})
	}
	c.finish()
	return c.checkKeys()
}

func (c *frameChecker) batch(file string, h segmentHeader, b *batch) error {
	if b.start == segmentBody(h) && h.chain != c.chain {
		c.v.report.add(Problem{Status: Tampered, File: file, What: "the chain over the frames before this segment is not what they give"})
	}
	for _, rec := range b.records {
		c.passChains()
		c.take(file, rec)
		c.count++
	}
	return nil
}

func segmentBody(h segmentHeader) int { return headerFixed + len(h.node) + 4 }

// passChains compares the chain where a leaf says what it is.
func (c *frameChecker) passChains() {
	for len(c.chains) > 0 && c.chains[0].frames <= c.count {
		claim := c.chains[0]
		c.chains = c.chains[1:]
		if claim.chain != c.chain {
			c.v.leaves.problem(Tampered, "", 0, claim.index, "the first %d frames are not those that it binds: a recording was changed", claim.frames)
		}
		c.bound = claim.frames
	}
}

func (c *frameChecker) take(file string, rec record) {
	digest := sha256.Sum256(rec.body)
	c.chain = chainFrame(c.chain, digest)
	f, err := parseFrame(rec.body)
	if err != nil {
		c.v.report.add(Problem{Status: Tampered, File: file, Offset: int64(rec.off), What: err.Error()})
		return
	}
	s := c.sessions[string(f.session)]
	if s == nil {
		s = c.begin(string(f.session))
	}
	if f.sequence != s.next {
		c.v.report.add(Problem{Status: Tampered, File: file, Offset: int64(rec.off),
			What: fmt.Sprintf("frame %d of session %s where frame %d belongs", f.sequence, f.session, s.next)})
	}
	if f.dir == dirKey {
		var k keyFrame
		if err := json.Unmarshal(f.box, &k); err != nil {
			c.v.report.add(Problem{Status: Tampered, File: file, Offset: int64(rec.off), What: fmt.Sprintf("the key frame of session %s: %v", f.session, err)})
		}
		s.wrapped = k.Wrapped
	}
	c.v.report.Frames++
	s.next = f.sequence
	s.take(c, string(f.session), digest)
}

func (c *frameChecker) begin(session string) *frameState {
	s := &frameState{whole: sha256.New()}
	for _, claim := range c.v.leaves.claims[session] {
		if claim.first == 0 {
			s.sealed = append(s.sealed, claim)
		} else {
			s.claims = append(s.claims, claim)
		}
	}
	c.sessions[session] = s
	return s
}

// take adds the digest of the session's next frame, and compares the claims
// that end with it.
func (s *frameState) take(c *frameChecker, session string, digest [sha256.Size]byte) {
	s.whole.Write(digest[:])
	if len(s.claims) > 0 && s.claims[0].first == s.next {
		s.part = sha256.New()
	}
	if s.part != nil {
		s.part.Write(digest[:])
	}
	for s.part != nil && len(s.claims) > 0 && s.claims[0].last == s.next {
		c.compare(session, s.claims[0], s.part)
		s.claims, s.part = s.claims[1:], nil
	}
	for len(s.sealed) > 0 && s.sealed[0].last == s.next {
		c.compare(session, s.sealed[0], s.whole)
		s.sealed = s.sealed[1:]
	}
	s.next++
}

func (c *frameChecker) compare(session string, claim frameClaim, h hash.Hash) {
	if [sha256.Size]byte(h.Sum(nil)) != claim.digest {
		c.v.leaves.problem(Tampered, "", 0, claim.index, "frames %d to %d of session %s are not those that it binds: the recording was changed", claim.first, claim.last, session)
	}
}

// finish reports claims whose frames are not there.
func (c *frameChecker) finish() {
	for session, claims := range c.v.leaves.claims {
		s := c.sessions[session]
		if s != nil {
			claims = append(s.claims, s.sealed...)
		}
		for _, claim := range claims {
			c.v.leaves.problem(Tampered, "", 0, claim.index, "frames %d to %d of session %s are not in the recordings", claim.first, claim.last, session)
		}
	}
	for _, claim := range c.chains {
		c.v.leaves.problem(Tampered, "", 0, claim.index, "it binds %d frames, %d are there", claim.frames, c.count)
	}
	if c.count > c.bound && c.v.report.Status == Intact {
		c.v.report.Asserted = append(c.v.report.Asserted, fmt.Sprintf("%d frames at the end are bound by no leaf yet, but for those of statements that are done", c.count-c.bound))
	}
}

// checkKeys counts the recordings that the auditors can still open.
func (c *frameChecker) checkKeys() error {
	gone, changed := 0, 0
	for session, s := range c.sessions {
		b, err := readFile(c.v.ctx, c.v.src, keyPath(session), 1<<20)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			gone++
		case err != nil:
			return err
		default:
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != s.wrapped {
				changed++
			}
		}
	}
	if gone > 0 {
		c.v.report.Unknown = append(c.v.report.Unknown, fmt.Sprintf("what %d recordings hold: their wrapped keys are gone (shredded, or lost)", gone))
	}
	if changed > 0 {
		c.v.report.Unknown = append(c.v.report.Unknown, fmt.Sprintf("what %d recordings hold: their wrapped keys are not those that were made for them", changed))
	}
	return nil
}
