package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
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
	if f, err = parseHead(b); err != nil {
		return f, err
	}
	f.box = b[len(f.head):]
	switch {
	case f.dir == dirKey && (f.sequence != 0 || f.size != len(f.box)), f.dir != dirKey && (f.sequence == 0 || len(f.box) < tagSize):
		return f, errFrame
	}
	return f, nil
}

// parseHead reads what stands before a frame's box.
func parseHead(b []byte) (f frame, err error) {
	if len(b) < frameFixed || len(b) < frameFixed+int(b[0]) {
		return f, errFrame
	}
	n := 1 + int(b[0])
	f.session = b[1:n]
	f.sequence = binary.BigEndian.Uint64(b[n:])
	f.dir, f.flags = b[n+8], b[n+9]
	f.at = time.Unix(0, int64(binary.BigEndian.Uint64(b[n+10:]))).UTC()
	f.size = int(binary.BigEndian.Uint32(b[n+18:]))
	f.head = b[:n+22]
	if f.size > maxPayload || f.flags&^flagsKnown != 0 || len(f.session) == 0 {
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
	late     bool   // a segment was reduced after the timeline was read
}

// frameState follows one session's frames.
type frameState struct {
	next    uint64
	whole   hash.Hash
	part    hash.Hash // of the claim that is running, nil if none
	claims  []frameClaim
	sealed  []frameClaim // claims from frame 0
	archive []archive    // sealed files, in order
	stretch hash.Hash    // of the sealed file's frames that is running, nil if none
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
	if err := c.checkSealed(); err != nil {
		return err
	}
	return c.checkKeys()
}

func (c *frameChecker) batch(file string, h segmentHeader, b *batch) error {
	if b.start == segmentBody(h) && h.chain != c.chain {
		c.v.report.add(Problem{Status: Tampered, File: file, What: "the chain over the frames before this segment is not what they give"})
	}
	c.late = c.late || b.frames > c.v.tree.size
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
	f, digest, err := c.parse(rec)
	c.chain = chainFrame(c.chain, digest)
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
	if rec.kind == recordDigest && !c.elsewhere(s, string(f.session)) {
		c.v.report.add(Problem{Status: c.lateOr(Tampered), File: file, Offset: int64(rec.off),
			What: fmt.Sprintf("of frame %d of session %s only its digest is left, and no leaf names a sealed file that holds it", f.sequence, f.session)})
	}
	s.take(c, string(f.session), digest)
}

// parse is frameDigest with the hash that was made ahead.
func (c *frameChecker) parse(rec record) (frame, [sha256.Size]byte, error) {
	if rec.kind == recordDigest {
		return frameDigest(rec)
	}
	digest := c.v.digest(rec)
	f, err := parseFrame(rec.body)
	return f, digest, err
}

// frameDigest parses a frame, or what is left of one, with the SHA-256 of the
// frame as it was written.
func frameDigest(rec record) (f frame, digest [sha256.Size]byte, err error) {
	if rec.kind != recordDigest {
		f, err = parseFrame(rec.body)
		return f, sha256.Sum256(rec.body), err
	}
	d, err := parseDigest(rec.body)
	copy(digest[:], d.sum)
	return d.frame, digest, err
}

// elsewhere reports whether a leaf says where the payload of the session's next
// frame is, or that it was shredded.
func (c *frameChecker) elsewhere(s *frameState, session string) bool {
	_, shredded := c.v.leaves.shredded[session]
	return shredded || len(s.archive) > 0 && s.archive[0].first <= s.next
}

// lateOr is s, or Incomplete if a running server went on meanwhile.
func (c *frameChecker) lateOr(s Status) Status {
	if c.late {
		return Incomplete
	}
	return s
}

func (c *frameChecker) begin(session string) *frameState {
	s := &frameState{whole: sha256.New(), archive: c.v.leaves.archives[session]}
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
	s.takeArchived(c, session, digest)
	s.next++
}

// takeArchived compares what a leaf says of the frames in a sealed file.
func (s *frameState) takeArchived(c *frameChecker, session string, digest [sha256.Size]byte) {
	if len(s.archive) == 0 || s.archive[0].first > s.next {
		return
	}
	if s.archive[0].first == s.next {
		s.stretch = sha256.New()
	}
	if s.stretch != nil {
		s.stretch.Write(digest[:])
	}
	if s.archive[0].last == s.next {
		if s.stretch != nil {
			c.compare(session, s.archive[0].frameClaim, s.stretch)
		}
		s.archive, s.stretch = s.archive[1:], nil
	}
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
	for session, archives := range c.v.leaves.archives {
		if s := c.sessions[session]; s != nil {
			archives = s.archive
		}
		for _, a := range archives {
			c.v.leaves.problem(Tampered, "", 0, a.index, "frames %d to %d of session %s, which it says are sealed, are not in the recordings", a.first, a.last, session)
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
	gone, changed, shredded, left := 0, 0, 0, 0
	for session, s := range c.sessions {
		b, err := readFile(c.v.ctx, c.v.src, keyPath(session), 1<<20)
		_, said := c.v.leaves.shredded[session]
		switch {
		case errors.Is(err, fs.ErrNotExist) && said:
			shredded++
		case errors.Is(err, fs.ErrNotExist):
			gone++
		case err == nil && said:
			left++
		case err != nil:
			return err
		default:
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != s.wrapped {
				changed++
			}
		}
	}
	if shredded > 0 {
		c.v.report.Asserted = append(c.v.report.Asserted, fmt.Sprintf("%s shredded, as leaves say: the wrapped keys are not here, whether there are copies elsewhere cannot be told", counted(shredded, "recording was", "recordings were")))
	}
	if left > 0 {
		c.v.report.Unknown = append(c.v.report.Unknown, fmt.Sprintf("why the wrapped keys of %s are still here, of which a leaf says that they were shredded", counted(left, "recording", "recordings")))
	}
	if gone > 0 {
		c.v.report.Unknown = append(c.v.report.Unknown, fmt.Sprintf("what %d recordings hold: their wrapped keys are gone (lost, or shredded without a leaf)", gone))
	}
	if changed > 0 {
		c.v.report.Unknown = append(c.v.report.Unknown, fmt.Sprintf("what %d recordings hold: their wrapped keys are not those that were made for them", changed))
	}
	return nil
}

// checkSealed holds every sealed file against the leaf that binds it.
func (c *frameChecker) checkSealed() error {
	bound := map[string]bool{}
	for session, archives := range c.v.leaves.archives {
		_, shredded := c.v.leaves.shredded[session]
		for _, a := range archives {
			bound[a.file] = true
			if err := c.checkSealedFile(a, shredded); err != nil {
				return err
			}
		}
	}
	loose := 0
	for name := range c.v.files {
		if _, _, ok := parseSealedPath(name); ok && !bound[name] {
			loose++
		}
	}
	if loose > 0 {
		c.v.report.Unknown = append(c.v.report.Unknown, fmt.Sprintf("what %s that no leaf names: a running server has just written them, or a crash came before their leaves", counted(loose, "sealed file is", "sealed files are")))
	}
	return nil
}

func (c *frameChecker) checkSealedFile(a archive, shredded bool) error {
	index := a.index
	f, err := c.v.src.Open(c.v.ctx, a.file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, listed := c.v.files[a.file]; listed {
			c.v.report.add(Problem{Status: Incomplete, File: a.file, Index: &index, What: "the file vanished while it was verified"})
		} else if !shredded {
			c.v.report.add(Problem{Status: Tampered, File: a.file, Index: &index, What: "the sealed recording is missing, and no leaf says that it was shredded"})
		}
		return nil
	}
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", a.file, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != a.sum {
		c.v.report.add(Problem{Status: Tampered, File: a.file, Index: &index, What: "the sealed recording is not the file that was sealed"})
	}
	return nil
}
