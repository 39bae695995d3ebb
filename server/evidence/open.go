package evidence

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"

	"github.com/hoopctl/hoopctl/server/api"
)

// Origin is the name of a node's log, as its checkpoints carry it.
func Origin(node string) string { return "hoopctl/" + node }

// Open takes the folder's lock, recovers what a crash left, and starts the
// log. What was written but never acknowledged is cut off and said in a leaf;
// sessions that were open are closed as crashed. An error that wraps
// ErrTampered means that more is missing or changed than a crash explains:
// nothing was touched, run verify.
func Open(cfg Config) (*Log, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	recipients, err := cfg.recipients()
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, recipients: recipients, clock: newClock(cfg.Now, cfg.Elapsed, cfg.ClockStep),
		wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), quit: make(chan struct{}), spareLeaves: make(buffers, 4), spareFrames: make(buffers, 4)}
	l.room.L = &l.mu
	if l.witnesses, err = newCosigners(l, &cfg); err != nil {
		return nil, err
	}
	if err := l.prepare(); err != nil {
		return nil, fmt.Errorf("open the evidence in %s: %w", cfg.Dir, err)
	}
	if err := l.start(); err != nil {
		return nil, fmt.Errorf("open the evidence in %s: %w", cfg.Dir, errors.Join(err, l.lock.Close()))
	}
	return l, nil
}

func (c *Config) recipients() ([]age.Recipient, error) {
	switch {
	case c.Recording == "none":
		return nil, nil
	case c.Recording != "" && c.Recording != "full":
		return nil, fmt.Errorf("evidence: recording %q: use full or none", c.Recording)
	case len(c.Recipients) == 0:
		return nil, errors.New("evidence: sessions are to be recorded, but no auditor could read it: " +
			"name at least one age recipient (age-keygen makes one), or turn recording off")
	}
	var out []age.Recipient
	for _, s := range c.Recipients {
		r, err := age.ParseX25519Recipient(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("evidence: recipient %q: %w", s, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// prepare makes the folder and takes its lock.
func (l *Log) prepare() error {
	for _, d := range []string{"", "log", "frames", "tile", "keys", "sealed"} {
		if err := os.MkdirAll(l.path(d), 0o700); err != nil {
			return err
		}
	}
	l.spill.dir, l.spill.disk = l.cfg.Spill, l.cfg.disk
	if err := l.spill.prepare(); err != nil {
		return err
	}
	f, err := lock(l.path("evidence.lock"))
	if err != nil {
		return err
	}
	l.lock = f
	return nil
}

// start recovers and sets everything in motion.
func (l *Log) start() error {
	if err := removeTemporary(l.cfg.Dir); err != nil {
		return err
	}
	if err := l.settleRotation(); err != nil {
		return fmt.Errorf("a change of the log's key: %w", err)
	}
	signer, key, err := loadKey(l.cfg.KeyFile, Origin(l.cfg.Node))
	if err != nil {
		return err
	}
	l.signer, l.key = signer, key
	leaves, frames, err := l.recover()
	if err != nil {
		return err
	}
	return l.begin(leaves, frames)
}

// recover reads both streams' ends and decides what must be cut. It changes
// nothing on the disk.
func (l *Log) recover() (leaves, frames *recovered, err error) {
	keys, err := l.keys()
	if err != nil {
		return nil, nil, err
	}
	cp, err := readCheckpoint(l.cfg.Dir, keys)
	if err != nil {
		return nil, nil, err
	}
	if frames, err = recoverStream(l.cfg.Dir, payload, l.cfg.Node); err != nil {
		return nil, nil, err
	}
	if leaves, err = recoverStream(l.cfg.Dir, timeline, l.cfg.Node); err != nil {
		return nil, nil, err
	}
	if err = leaves.undoLast(l.path("log"), frames.next); err != nil {
		return nil, nil, err
	}
	if err = l.checkCosigned(keys, cp, leaves.next); err != nil {
		return nil, nil, err
	}
	l.behind = newFollower(l.cfg.Dir, Origin(l.cfg.Node), l.signer, l.spareLeaves, l.cfg.Logger)
	return leaves, frames, l.behind.restore(cp, leaves.headers, leaves.next)
}

// begin cuts, opens the streams, and writes the first leaves.
func (l *Log) begin(leaves, frames *recovered) error {
	clean := bytes.Contains(leaves.lastLeaf, []byte(`"kind":"heartbeat","reason":"`+closedReason+`"`))
	l.leaves, l.frames = l.writer(timeline), l.writer(payload)
	if err := errors.Join(l.leaves.resume(leaves), l.frames.resume(frames)); err != nil {
		return errors.Join(err, l.leaves.release(), l.frames.release())
	}
	l.next = position{leaves: leaves.next, frames: frames.next, chain: frames.chain}
	l.durable = l.next
	l.pending = newCommit(l.next)
	l.places = map[stream]place{}
	l.publish()
	l.sessions = leaves.open
	if err := l.sayOpened(leaves, frames, clean); err != nil {
		return errors.Join(err, l.leaves.release(), l.frames.release())
	}
	var err error
	if l.index, err = openIndex(l.path("index.db"), l, clean || leaves.next == 0, leaves.next, l.cfg.Logger); err != nil {
		return errors.Join(err, l.leaves.release(), l.frames.release())
	}
	go l.behind.run()
	l.wg.Add(2)
	go l.run()
	go l.tick()
	l.sealer = newSealer(l)
	if len(l.witnesses.list) > 0 {
		l.wg.Add(1)
		go l.watchWitnesses()
	}
	if err := l.Flush(context.Background()); err != nil {
		return err
	}
	if !clean && leaves.next > 0 {
		if err := l.settleCrash(context.Background()); err != nil {
			l.cfg.Logger.Warn("what a crash left of sealed recordings is not tidied up", "err", err)
		}
	}
	go l.sealer.loop()
	return nil
}

// sayOpened appends what this opening has to tell. The committer is not
// running yet.
func (l *Log) sayOpened(leaves, frames *recovered, clean bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	cuts := append(slices.Clone(leaves.cuts), frames.cuts...)
	if leaves.next == 0 || clean && len(cuts) == 0 {
		return l.beat(openedReason)
	}
	events := []*api.Event{recoveryEvent(cuts, l.next.frameAttrs(), len(leaves.open))}
	for _, name := range slices.Sorted(maps.Keys(leaves.open)) {
		events = append(events, crashed(leaves.open[name], "the server crashed"))
	}
	for _, e := range events {
		if _, err := l.append(e, appendBody(nil, e)); err != nil {
			return err
		}
	}
	l.cfg.Logger.Warn("evidence was not closed properly", "cuts", len(cuts), "crashedSessions", len(leaves.open))
	return nil
}

func (l *Log) writer(s stream) writer {
	return writer{disk: l.cfg.disk, stream: s, dir: l.path(s.dir()), node: l.cfg.Node, segment: l.cfg.SegmentBytes, spill: &l.spill}
}

// resume cuts what recovery found after the last batch, and goes on in the last
// segment.
func (w *writer) resume(r *recovered) error {
	if r.remove != "" {
		if err := errors.Join(w.disk.remove(r.remove), w.disk.syncDir(w.dir)); err != nil {
			return err
		}
	}
	w.number = r.number
	if r.number == 0 {
		return nil
	}
	name := filepath.Join(w.dir, segmentName(r.number))
	if err := os.Truncate(name, r.end); err != nil {
		return err
	}
	w.room = max(w.segment, r.end)
	f, err := w.disk.open(name, w.room)
	if err != nil {
		return err
	}
	w.f, w.end, w.wrote, w.body = f, r.end, r.end, r.body
	return f.Datasync()
}

// release closes the current segment as it is.
func (w *writer) release() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return f.Close()
}

// tick looks at the clock, beats, signs checkpoints and feeds the index.
func (l *Log) tick() {
	defer l.wg.Done()
	beat := time.NewTicker(l.cfg.Heartbeat)
	sign := time.NewTicker(l.cfg.Checkpoint)
	defer beat.Stop()
	defer sign.Stop()
	for {
		select {
		case <-beat.C:
			l.mu.Lock()
			if l.state == nil {
				if err := l.beat(""); err != nil {
					l.cfg.Logger.Warn("no heartbeat", "err", err)
				}
			}
			l.mu.Unlock()
		case <-sign.C:
			if err := l.behind.checkpoint(); err != nil {
				l.cfg.Logger.Warn("no checkpoint", "err", err)
			}
			l.index.catchUp()
			l.sayWhy()
		case <-l.quit:
			return
		}
	}
}

// removeTemporary deletes what a crash left of files that were being replaced.
func removeTemporary(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasPrefix(d.Name(), ".new-") && strings.HasSuffix(d.Name(), ".tmp") {
			err = os.Remove(path)
		}
		return err
	})
}

// loadKey reads the log's signing key, or makes it.
func loadKey(path, origin string) (note.Signer, string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = makeKey(path, origin)
	}
	if err != nil {
		return nil, "", fmt.Errorf("the log's signing key: %w", err)
	}
	s, vkey, err := parseKey(path, b)
	if err == nil && s.Name() != origin {
		err = fmt.Errorf("the signing key in %s is of log %q, this log is %q: give this node its own key file", path, s.Name(), origin)
	}
	return s, vkey, err
}

// LogKeyOf is the verifier key that belongs to the signing key in a file.
func LogKeyOf(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("the log's signing key: %w", err)
	}
	_, vkey, err := parseKey(path, b)
	return vkey, err
}

func parseKey(path string, b []byte) (note.Signer, string, error) {
	skey := strings.TrimSpace(string(b))
	s, err := note.NewSigner(skey)
	if err != nil {
		return nil, "", fmt.Errorf("the log's signing key in %s: %w", path, err)
	}
	parts := strings.SplitN(skey, "+", 5) // PRIVATE+KEY+name+hash+base64, and base64 may hold a plus
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, "", fmt.Errorf("the signing key in %s holds no Ed25519 seed", path)
	}
	public := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(s.Name(), public)
	return s, vkey, err
}

func makeKey(path, origin string) ([]byte, error) {
	skey, _, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(skey + "\n")
	return []byte(skey), errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
}
