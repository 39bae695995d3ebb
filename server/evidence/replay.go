package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/s2"

	"github.com/hoopctl/hoopctl/server/api"
)

// Item is one thing of a session's history: exactly one of its pointers is set.
type Item struct {
	Time      time.Time
	Event     *api.Event
	Statement *Statement
	Frame     *Frame
}

// Statement is a statement's exact text and parameters, as it was committed to.
// Text and values are foreign bytes: they may hold terminal escapes.
type Statement struct {
	Frame      uint64
	Sealed     bool // no key opens it: the rest is empty
	Text       string
	Params     [][]byte // nil is NULL
	Commitment string   // as in the event of the statement
}

// Frame is bytes that the client saw or sent. They are foreign: they may hold
// terminal escapes.
type Frame struct {
	Number uint64
	Dir    byte // 'c' to the client, 't' from it, 'n' a note
	Size   int  // of the bytes, known without the key too
	Sealed bool // no key opens it: Data is nil
	Data   []byte
}

// maxIdentityFile bounds what is read of a wrapped key.
const maxIdentityFile = 1 << 16

// ReadSession calls fn for everything that the evidence holds of a session, in
// order of time. With identities of an auditor the payload is opened; without
// (or if the session was shredded) it is shown as sealed. A frame that does not
// open, or is not where it belongs, ends it with an error that wraps
// ErrTampered. Nothing but that is verified here: [Verify] does.
func ReadSession(ctx context.Context, src Source, session string, identities []age.Identity, fn func(Item) error) error {
	if !sessionName.MatchString(session) {
		return fmt.Errorf("no session can be named %q", session)
	}
	r := &sessionReader{ctx: ctx, src: src, session: session, identities: identities, fn: fn}
	if err := r.run(); err != nil {
		return fmt.Errorf("read session %s: %w", session, err)
	}
	return nil
}

type sessionReader struct {
	ctx        context.Context
	src        Source
	session    string
	identities []age.Identity
	fn         func(Item) error

	events []api.Event // of the session, in order; those before sent are gone
	closed bool        // the session's last leaf was seen

	archives   []api.Event   // leaves of sealed files
	sealed     *sealedFrames // that is being read, or nil
	sealedLast uint64        // its last frame
	identity   age.Identity  // the session's; nil: sealed

	key    []byte // nil: sealed
	opener opener
	next   uint64
	joined []byte // payload that goes on in the next frame
}

func (r *sessionReader) run() error {
	list, err := r.src.List(r.ctx)
	if err != nil {
		return err
	}
	if err := r.readEvents(list); err != nil {
		return err
	}
	if len(r.events) == 0 {
		return fmt.Errorf("the evidence knows no session %s: %w", r.session, fs.ErrNotExist)
	}
	if err := r.readFrames(list); err != nil {
		return err
	}
	return r.sendEvents(time.Time{})
}

// streamFiles are a stream's segments in order.
func streamFiles(list []api.EvidenceFile, s stream) []string {
	var names []string
	for _, f := range list {
		if strings.HasPrefix(f.Path, s.dir()+"/") && expected(f.Path) {
			names = append(names, f.Path)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return names
}

// each calls fn for the records of a segment. A torn end is not its business.
func each(ctx context.Context, src Source, name string, s stream, fn func(record) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	data, err := readFile(ctx, src, name, maxSegment)
	if err != nil {
		return err
	}
	_, _, err = parseSegment(data, s, func(_ segmentHeader, b *batch) error {
		for _, rec := range b.records {
			if err := fn(rec); err != nil {
				return err
			}
		}
		return nil
	})
	var torn *tornError
	if errors.As(err, &torn) && !torn.within || err != nil && len(bytes.TrimRight(data, "\x00")) == 0 {
		return nil
	}
	return err
}

// eachLeaf calls fn for the leaves of a segment, with their numbers.
func eachLeaf(ctx context.Context, src Source, name string, fn func(index uint64, leaf []byte) error) (uint64, error) {
	h, err := readSegmentHeader(ctx, src, name)
	if err != nil {
		return 0, err
	}
	index := h.first
	err = each(ctx, src, name, timeline, func(rec record) error {
		if rec.kind != recordLeaf {
			return nil
		}
		index++
		return fn(index-1, rec.body)
	})
	return index, err
}

func readSegmentHeader(ctx context.Context, src Source, name string) (segmentHeader, error) {
	f, err := src.Open(ctx, name)
	if err != nil {
		return segmentHeader{}, err
	}
	head := make([]byte, headerFixed+maxNode+4)
	n, err := io.ReadFull(f, head)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return segmentHeader{}, err
	}
	h, _, err := parseHeader(head[:n])
	if err != nil {
		return h, fmt.Errorf("%w: %s: %w", ErrTampered, name, err)
	}
	return h, nil
}

func (r *sessionReader) readEvents(list []api.EvidenceFile) error {
	mention := fmt.Appendf(nil, `"session":"%s"`, r.session)
	for _, name := range streamFiles(list, timeline) {
		err := each(r.ctx, r.src, name, timeline, func(rec record) error {
			if rec.kind != recordLeaf || !bytes.Contains(rec.body, mention) {
				return nil
			}
			var e api.Event
			if err := json.Unmarshal(rec.body, &e); err != nil {
				return fmt.Errorf("%w: a leaf in %s at offset %d: %w", ErrTampered, name, rec.off, err)
			}
			if e.Session == r.session {
				r.note(e)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// note takes an event of the session. Where its payload lies is not part of
// what happened in it.
func (r *sessionReader) note(e api.Event) {
	if e.Kind == api.EventArchived {
		r.archives = append(r.archives, e)
		return
	}
	r.events = append(r.events, e)
	r.closed = r.closed || e.Kind == api.EventSessionClose
}

// readFrames reads the session's frames from the segments that can hold them:
// those begun before its end, from the last one begun before its start.
func (r *sessionReader) readFrames(list []api.EvidenceFile) error {
	defer r.closeSealed()
	names := streamFiles(list, payload)
	from, to, err := r.span(names)
	if err != nil {
		return err
	}
	for _, name := range names[from:to] {
		err := each(r.ctx, r.src, name, payload, func(rec record) error {
			f, _, err := frameDigest(rec)
			if err != nil || string(f.session) != r.session {
				return err
			}
			if err := r.take(f, rec); err != nil {
				return fmt.Errorf("%s at offset %d: %w", name, rec.off, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *sessionReader) span(names []string) (from, to int, err error) {
	start, end := r.events[0].Time, r.events[len(r.events)-1].Time
	to = len(names)
	for i, name := range names {
		h, err := readSegmentHeader(r.ctx, r.src, name)
		if err != nil {
			return 0, 0, err
		}
		if h.created.Before(start) {
			from = i
		}
		if r.closed && h.created.After(end) {
			return from, i, nil
		}
	}
	return from, to, nil
}

// take opens a frame and sends it, after the events before it.
func (r *sessionReader) take(f frame, rec record) error {
	if f.sequence != r.next {
		return fmt.Errorf("%w: frame %d where frame %d belongs", ErrTampered, f.sequence, r.next)
	}
	r.next++
	if f.dir == dirKey {
		return r.unlock(f)
	}
	if err := r.sendEvents(f.at); err != nil {
		return err
	}
	if r.key == nil {
		return r.sendSealed(f)
	}
	if f.flags&flagRatchet != 0 {
		next, err := nextKey(r.key)
		if err == nil {
			err = r.use(next)
		}
		if err != nil {
			return err
		}
	}
	if rec.kind == recordDigest {
		return r.takeSealed(f, rec)
	}
	data, err := r.opener.payload(f)
	if err != nil {
		return err
	}
	return r.send(f, data)
}

func (r *sessionReader) sendEvents(until time.Time) error {
	for len(r.events) > 0 && (until.IsZero() || !r.events[0].Time.After(until)) {
		e := r.events[0]
		r.events = r.events[1:]
		if err := r.fn(Item{Time: e.Time, Event: &e}); err != nil {
			return err
		}
	}
	return nil
}

func (r *sessionReader) sendSealed(f frame) error {
	if f.dir == dirStatement {
		return r.fn(Item{Time: f.at, Statement: &Statement{Frame: f.sequence, Sealed: true}})
	}
	return r.fn(Item{Time: f.at, Frame: &Frame{Number: f.sequence, Dir: f.dir, Size: f.size, Sealed: true}})
}

func (r *sessionReader) send(f frame, data []byte) error {
	if f.dir != dirStatement {
		return r.fn(Item{Time: f.at, Frame: &Frame{Number: f.sequence, Dir: f.dir, Size: f.size, Data: data}})
	}
	if len(r.joined)+len(data) > maxStatement {
		return fmt.Errorf("%w: a statement larger than %d bytes", ErrTampered, maxStatement)
	}
	r.joined = append(r.joined, data...)
	if f.flags&flagMore != 0 {
		return nil
	}
	s, err := parseStatement(r.joined)
	if err != nil {
		return fmt.Errorf("%w: frame %d: %w", ErrTampered, f.sequence, err)
	}
	r.joined, s.Frame = nil, f.sequence
	return r.fn(Item{Time: f.at, Statement: s})
}

// unlock finds the session's frame key with the auditor's identities. Without
// them, or without the wrapped key, the session stays sealed.
func (r *sessionReader) unlock(f frame) error {
	if len(r.identities) == 0 {
		return nil
	}
	var k keyFrame
	if err := json.Unmarshal(f.box, &k); err != nil {
		return fmt.Errorf("%w: the key frame: %w", ErrTampered, err)
	}
	wrapped, err := readFile(r.ctx, r.src, keyPath(r.session), maxIdentityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	identity, err := r.unwrap(wrapped)
	if err != nil {
		return err
	}
	boxed, err := base64.StdEncoding.DecodeString(k.Key)
	if err != nil {
		return fmt.Errorf("%w: the key frame: %w", ErrTampered, err)
	}
	r.identity = identity
	key, err := unseal(boxed, identity)
	if err != nil || len(key) != 32 {
		return fmt.Errorf("%w: the session's identity does not open its key frame: %w", ErrTampered, err)
	}
	return r.use(key)
}

func (r *sessionReader) unwrap(wrapped []byte) (age.Identity, error) {
	text, err := unseal(wrapped, r.identities...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, errors.New("the identity given is none of the auditors that this session was recorded for")
	}
	if err != nil {
		return nil, fmt.Errorf("open the session's wrapped key: %w", err)
	}
	return age.ParseX25519Identity(strings.TrimSpace(string(text)))
}

func unseal(box []byte, with ...age.Identity) ([]byte, error) {
	plain, err := age.Decrypt(bytes.NewReader(box), with...)
	if err != nil {
		return nil, err
	}
	return readLimited(plain, maxIdentityFile)
}

func (r *sessionReader) use(key []byte) (err error) {
	r.key = key
	r.opener.aead, err = newAEAD(key)
	return err
}

// decompress allocates no more than the size that the frame claims, which is bounded.
func decompress(box []byte, size int) ([]byte, error) {
	if n, err := s2.DecodedLen(box); err != nil || n != size || n > maxPayload {
		return nil, fmt.Errorf("compressed data of the wrong size: %w", err)
	}
	return s2.Decode(make([]byte, size), box)
}

// parseStatement undoes statementPayload. It is bounded by b.
func parseStatement(b []byte) (*Statement, error) {
	sum := sha256.Sum256(b)
	s := &Statement{Commitment: hex.EncodeToString(sum[:])}
	if len(b) < 32+4 {
		return nil, errors.New("not a statement")
	}
	text, b, ok := cutValue(b[32:])
	if !ok || text == nil || len(b) < 4 {
		return nil, errors.New("not a statement: its text is cut short")
	}
	s.Text = string(text)
	count := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(count)*4 > uint64(len(b)) {
		return nil, errors.New("not a statement: it has fewer parameters than it says")
	}
	s.Params = make([][]byte, count)
	for i := range s.Params {
		if s.Params[i], b, ok = cutValue(b); !ok {
			return nil, errors.New("not a statement: parameter " + strconv.Itoa(i+1) + " is cut short")
		}
	}
	if len(b) > 0 {
		return nil, errors.New("not a statement: bytes are left over")
	}
	return s, nil
}

// cutValue takes a length and as many bytes off b; NULL is nil.
func cutValue(b []byte) (value, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if n == nullLength {
		return nil, b, true
	}
	if uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
