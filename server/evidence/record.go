package evidence

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/s2"

	"github.com/hoopctl/hoopctl/server/api"
)

// A frame is a record of the payload stream:
//
//	len(session)[1] session sequence[8] direction[1] flags[1] time[8] size[4] box
//
// Frame 0 of a session is its key frame: box is plain JSON, see keyFrame. All
// others are AES-256-GCM boxes of size bytes of payload, compressed if flagged.
// The nonce is the sequence; the associated data is everything before the box
// and the tag of the frame before (zeros at first), so that within a session no
// frame can be moved, dropped or repeated by whoever lacks the key. Whoever has
// it is held by the timeline: leaves bind frames by the SHA-256 of these bytes.
const (
	frameFixed = 1 + 8 + 1 + 1 + 8 + 4
	tagSize    = 16

	flagCompressed byte = 1 << 0 // S2 block
	flagRatchet    byte = 1 << 1 // from this frame on the next key is used
	flagMore       byte = 1 << 2 // the payload goes on in the next frame
	flagsKnown          = flagCompressed | flagRatchet | flagMore

	dirKey       byte = 'k'
	dirNote      byte = 'n' // words of people about the session, such as an approver's reason
	dirStatement byte = 's' // text and parameters of a statement, with their salt

	ratchetBytes = 8 << 20
	ratchetEvery = 15 * time.Minute

	minCompress = 128 // shorter payloads do not gain
	maxPayload  = 16 << 20
)

var sessionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// keyFrame says for whom a session's frames are encrypted.
type keyFrame struct {
	V int `json:"v"`
	// Recipient is the session's own. Its identity lies in keys/SESSION.key,
	// wrapped to the auditors; deleting that file shreds the recording.
	Recipient string `json:"recipient"`
	// Key is an age file with the first frame key, to Recipient; base64.
	Key string `json:"key"`
	// Wrapped is the SHA-256 of keys/SESSION.key, hex.
	Wrapped string `json:"wrapped"`
	// Auditors are the recipients it is wrapped to.
	Auditors []string `json:"auditors"`
}

// RecordOptions say how a session is recorded.
type RecordOptions struct {
	// None records no payload: frames and commitments are taken and dropped.
	None bool
}

// Recording takes the payload of one session: compressed, encrypted with a key
// that only the auditors can get at, and appended to the payload stream. It may
// be used by several goroutines; frames are numbered in the order of the calls.
//
// The key is replaced by its hash-derived successor every 8 MiB and every 15
// minutes, and at Close. The old one is forgotten when what it encrypted has been
// sealed, seconds later: a thief of the server's memory can read the open
// stretch of live sessions, what waits to be sealed, and nothing before it.
type Recording struct {
	log     *Log
	session string
	none    bool

	mu        sync.Mutex
	key       []byte
	aead      cipher.AEAD
	prev      [tagSize]byte
	next      uint64 // sequence of the next frame
	keyBytes  int
	keySince  time.Time
	digests   [][sha256.Size]byte // of frames base, base+1, …
	base      uint64
	whole     hash.Hash // over all digests before base
	frame     []byte    // scratch
	aad       []byte    // scratch
	packed    []byte    // scratch
	committed *commit   // what the last frame was put into
	recipient age.Recipient
	stretch   *stretch // that the key encrypts, without its key and end
	closed    bool
}

// Record begins the recording of a session. Nothing is written before the
// first frame; the wrapped key is durable before any frame is.
func (l *Log) Record(session string, o RecordOptions) (*Recording, error) {
	r := &Recording{log: l, session: session, none: o.None, whole: sha256.New()}
	if o.None {
		return r, nil
	}
	if len(l.recipients) == 0 {
		return nil, errors.New("evidence: this log records no sessions: it has no recipients")
	}
	if !sessionName.MatchString(session) {
		return nil, fmt.Errorf("evidence: session name %q: use 1 to 64 letters, digits, dots, dashes or underscores", session)
	}
	if _, err := os.Lstat(r.keyFile()); err == nil {
		return nil, fmt.Errorf("evidence: a session named %s was recorded before: %s exists", session, r.keyFile())
	}
	if err := r.begin(); err != nil {
		return nil, fmt.Errorf("evidence: record session %s: %w", session, err)
	}
	return r, nil
}

func (r *Recording) keyFile() string { return r.log.path(keyPath(r.session)) }

// keyPath is where a session's wrapped identity lies in the folder.
func keyPath(session string) string { return "keys/" + session + ".key" }

// begin makes the session's keys and appends its key frame.
func (r *Recording) begin() error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	r.recipient = identity.Recipient()
	wrapped, err := seal([]byte(identity.String()+"\n"), r.log.recipients...)
	if err != nil {
		return err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	boxed, err := seal(key, identity.Recipient())
	if err != nil {
		return err
	}
	sum := sha256.Sum256(wrapped)
	head, err := json.Marshal(keyFrame{V: 1, Recipient: identity.Recipient().String(), Key: base64.StdEncoding.EncodeToString(boxed),
		Wrapped: hex.EncodeToString(sum[:]), Auditors: r.log.cfg.Recipients})
	if err != nil {
		return err
	}
	saved := make(chan error, 1)
	go func() { saved <- r.log.createKey(r.keyFile(), wrapped) }()
	if err := r.use(key); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frame = r.head(r.frame[:0], dirKey, 0, len(head))
	r.frame = append(r.frame, head...)
	_, err = r.put(r.frame, saved)
	return err
}

func seal(plain []byte, to ...age.Recipient) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// createKey writes a session's wrapped key.
func (l *Log) createKey(path string, wrapped []byte) error {
	err := createDurable(path, wrapped)
	if err == nil {
		return nil
	}
	return l.spill.instead(path, err, func(there string) error { return createDurable(there, wrapped) })
}

// createDurable writes a new file; an existing one is an error: no session's
// key is ever replaced.
func createDurable(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// use makes key the frame key.
func (r *Recording) use(key []byte) error {
	aead, err := newAEAD(key)
	if err != nil {
		return err
	}
	clear(r.key)
	r.key, r.aead, r.keyBytes = key, aead, 0
	return nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nextKey is the key after key. There is no way back.
func nextKey(key []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, key, nil, "hoopctl frame key", 32)
}

// Frame records b, bytes that the client saw ('c') or sent ('t'). b is not
// kept. It returns the ticket that [Log.Wait] takes and the number of the frame;
// of more than 16 MiB, which take several frames, the last one's. It blocks only
// while more than 16 MiB wait for the disk. An error is final for the recording.
func (r *Recording) Frame(dir byte, b []byte) (ticket, frame uint64, err error) {
	if dir != 'c' && dir != 't' {
		return 0, 0, fmt.Errorf("evidence: frame of unknown direction %q", dir)
	}
	return r.add(dir, b)
}

// Note records words about the session that must not stand in the timeline,
// such as an approver's reason: only auditors read them. It shows in replay as
// a frame of direction 'n'.
func (r *Recording) Note(b []byte) error {
	_, _, err := r.add(dirNote, b)
	return err
}

func (r *Recording) add(dir byte, b []byte) (ticket, frame uint64, err error) {
	if r.none {
		return 0, 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		part, flags := b, byte(0)
		if len(part) > maxPayload {
			part, flags = b[:maxPayload], flagMore
		}
		b = b[len(part):]
		if ticket, err = r.one(dir, part, flags); err != nil || flags&flagMore == 0 {
			return ticket, r.next - 1, err
		}
	}
}

// one boxes one payload and hands it to the log. Called with the lock held.
func (r *Recording) one(dir byte, b []byte, flags byte) (uint64, error) {
	if r.closed {
		return 0, fmt.Errorf("evidence: the recording of session %s is closed", r.session)
	}
	due, err := r.ratchet(len(b))
	if err != nil {
		return 0, err
	}
	box := b
	if len(b) >= minCompress {
		if n := s2.MaxEncodedLen(len(b)); cap(r.packed) < n {
			r.packed = make([]byte, n)
		}
		if p := s2.Encode(r.packed[:cap(r.packed)], b); len(p) < len(b) {
			box, flags = p, flags|flagCompressed
		}
	}
	r.frame = r.head(r.frame[:0], dir, flags|due, len(b))
	r.aad = append(append(r.aad[:0], r.frame...), r.prev[:]...)
	nonce := frameNonce(r.next)
	r.frame = r.aead.Seal(slices.Grow(r.frame, len(box)+tagSize), nonce[:], box, r.aad)
	copy(r.prev[:], r.frame[len(r.frame)-tagSize:])
	return r.put(r.frame, nil)
}

func frameNonce(sequence uint64) (n [12]byte) {
	binary.BigEndian.PutUint64(n[4:], sequence)
	return n
}

// ratchet replaces the key when it is due, and returns the flag that says so.
func (r *Recording) ratchet(n int) (byte, error) {
	now := r.log.cfg.Now()
	if r.keySince.IsZero() {
		r.keySince = now
		r.beginStretch()
	}
	if r.keyBytes == 0 || r.keyBytes+n <= ratchetBytes && now.Sub(r.keySince) < ratchetEvery {
		r.keyBytes += n + 1
		return 0, nil
	}
	next, err := nextKey(r.key)
	r.endStretch()
	if err == nil {
		err = r.use(next)
	}
	r.beginStretch()
	r.keySince, r.keyBytes = now, n+1
	return flagRatchet, err
}

// beginStretch notes where the key begins to be used.
func (r *Recording) beginStretch() {
	r.stretch = &stretch{session: r.session, first: r.next, prev: r.prev, to: r.recipient, segment: r.log.currentSegment()}
}

// endStretch hands what the key encrypted to the sealer, with the key.
func (r *Recording) endStretch() {
	st := r.stretch
	if r.stretch = nil; st == nil || r.key == nil || r.next <= st.first {
		return
	}
	st.last, st.key = r.next-1, bytes.Clone(r.key)
	r.log.sealer.take(st)
}

func (r *Recording) head(b []byte, dir, flags byte, size int) []byte {
	b = append(b, byte(len(r.session)))
	b = append(b, r.session...)
	b = binary.BigEndian.AppendUint64(b, r.next)
	b = append(b, dir, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(r.log.cfg.Now().UnixNano()))
	return binary.BigEndian.AppendUint32(b, uint32(size))
}

// put hands a frame to the log. Called with r's lock held, so that sequences
// and places in the log have the same order.
func (r *Recording) put(frame []byte, saved <-chan error) (uint64, error) {
	digest := sha256.Sum256(frame)
	ticket, err := r.log.addFrame(r, frame, digest, saved)
	if err != nil {
		r.forget()
		return 0, err
	}
	r.digests = append(r.digests, digest)
	r.next++
	return ticket, nil
}

func chainFrame(chain, digest [sha256.Size]byte) [sha256.Size]byte {
	var b [2 * sha256.Size]byte
	copy(b[:], chain[:])
	copy(b[sha256.Size:], digest[:])
	return sha256.Sum256(b[:])
}

// addFrame puts a frame into the pending batch.
func (l *Log) addFrame(r *Recording, frame []byte, digest [sha256.Size]byte, saved <-chan error) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admit(); err != nil {
		l.trouble.refused++
		return 0, err
	}
	if r.committed != nil && r.committed.lost() {
		return 0, errLost
	}
	p := l.pending
	if saved != nil {
		p.keys = append(p.keys, saved)
	}
	r.committed = p
	p.frames = appendRecord(p.frames, recordFrame, frame)
	p.nFrames++
	l.next.frames++
	l.next.chain = chainFrame(l.next.chain, digest)
	return l.issue(), nil
}

// lost reports whether a commit failed; its frames are gone, and a recording
// with a hole must not go on.
func (c *commit) lost() bool {
	select {
	case <-c.done:
		return c.err != nil
	default:
		return false
	}
}

// Commit keeps the exact text of a statement and its parameters (nil is NULL)
// in the recording, and returns the commitment that stands for them in the
// timeline: the SHA-256 of the frame's payload, which starts with a random salt.
// A log that records nothing commits to nothing: it returns "".
func (r *Recording) Commit(text string, params [][]byte) (commitment string, err error) {
	if r.none {
		return "", nil
	}
	b, err := statementPayload(text, params)
	if err != nil {
		return "", err
	}
	if _, _, err := r.add(dirStatement, b); err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// statementPayload is salt[32] len[4] text count[4] (len[4] value)…, where the
// length of NULL is 0xffffffff.
func statementPayload(text string, params [][]byte) ([]byte, error) {
	size := 32 + 4 + len(text) + 4
	for _, p := range params {
		size += 4 + len(p)
	}
	if size > maxStatement {
		return nil, fmt.Errorf("evidence: a statement of %d bytes with its parameters; at most %d can be recorded", size, maxStatement)
	}
	b := make([]byte, 32, size)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(params)))
	for _, p := range params {
		if p == nil {
			b = binary.BigEndian.AppendUint32(b, nullLength)
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b, nil
}

const (
	maxStatement = 256 << 20
	nullLength   = 1<<32 - 1
)

// Digest binds frames first to last, as they were written, into a leaf: the
// SHA-256 in hex over the SHA-256 of each. It is "" for frames that were never
// recorded or asked for before. Each range may be asked for once, in order.
func (r *Recording) Digest(first, last uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.none || first > last || last >= r.next || first < r.base {
		return ""
	}
	h := sha256.New()
	for _, d := range r.digests[first-r.base : last-r.base+1] {
		h.Write(d[:])
	}
	r.fold(last + 1)
	return hex.EncodeToString(h.Sum(nil))
}

// fold moves the digests of frames before n into the hash over all of them.
func (r *Recording) fold(n uint64) {
	done := n - r.base
	for _, d := range r.digests[:done] {
		r.whole.Write(d[:])
	}
	r.digests = append(r.digests[:0], r.digests[done:]...)
	r.base = n
}

// Close ends the recording: the key is forgotten, and a leaf binds all of the
// session's frames. The ticket is that leaf's. Closing twice does nothing.
func (r *Recording) Close() (ticket uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.none || r.closed {
		return 0, nil
	}
	r.endStretch()
	r.forget()
	r.fold(r.next)
	if r.committed.lost() {
		return 0, errLost
	}
	return r.log.Append(&api.Event{Kind: api.EventSealed, Session: r.session, FramesLast: r.next - 1, FramesSHA256: hex.EncodeToString(r.whole.Sum(nil)),
		Attrs: map[string]string{attrFrames: strconv.FormatUint(r.next, 10)}})
}

// forget makes the recording useless to whoever holds it.
func (r *Recording) forget() {
	clear(r.key)
	r.key, r.aead, r.closed = nil, nil, true
	r.frame, r.packed = nil, nil
}
