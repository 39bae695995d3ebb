package evidence

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/hoopctl/hoopctl/server/api"
)

// The log's key is changed by a leaf under the old key that names the new one.
// rotation/00000001.proof holds that leaf, a line, and its tlog-proof under a
// checkpoint that the old key signed: whoever pinned the old key follows from
// there. What the old key signs about more leaves than that counts no more.
var rotationName = regexp.MustCompile(`^rotation/[0-9]{8}\.proof$`)

func rotationPath(n int) string { return fmt.Sprintf("rotation/%08d.proof", n) }

// Attributes of the leaf that changes the key.
const (
	attrOldKey = "oldKey"
	attrNewKey = "newKey"
)

const maxRotation = 1 << 18 // bytes: a leaf, 64 hashes, a signed note

// epoch is a key of the log, and how many leaves it may speak of; 0 is no end.
type epoch struct {
	key   string
	until uint64
}

// ring is the keys of a log from one that is trusted on.
type ring struct {
	epochs  []epoch
	retired []string // keys before the trusted one, as the log says
	marks   []rootMark
}

// single is the ring of a log whose key never changed.
func single(key string) ring { return ring{epochs: []epoch{{key: key}}} }

// current is the key that signs now.
func (r ring) current() string { return r.epochs[len(r.epochs)-1].key }

// parse reads a checkpoint that one of the keys signed while it was in force.
func (r ring) parse(signed []byte) (Checkpoint, error) {
	var first error
	for _, e := range r.epochs {
		cp, err := ParseCheckpoint(signed, e.key)
		switch {
		case err == nil && e.until > 0 && cp.Size > e.until:
			return cp, fmt.Errorf("the checkpoint of %d leaves is signed with a key that was retired at leaf %d", cp.Size, e.until)
		case err == nil:
			return cp, nil
		case first == nil:
			first = err
		}
	}
	return Checkpoint{}, first
}

// old reports whether a key that was retired before the trusted one signed this.
func (r ring) old(signed []byte) bool {
	return slices.ContainsFunc(r.retired, func(key string) bool { _, err := ParseCheckpoint(signed, key); return err == nil })
}

// readRing follows the changes of a log's key from the one that is trusted. An
// error that wraps ErrTampered names the file that is not as the log writes it.
func readRing(ctx context.Context, src Source, trusted string) (ring, error) {
	r := single(trusted)
	for n := 1; ; n++ {
		name := rotationPath(n)
		b, err := readFile(ctx, src, name, maxRotation)
		if errors.Is(err, fs.ErrNotExist) {
			return r, nil
		}
		if err != nil {
			return r, err
		}
		if err := r.follow(name, b); err != nil {
			return r, fmt.Errorf("%w: %s: %w", ErrTampered, name, err)
		}
	}
}

// follow takes one change of the key: it must be signed by the key in force, or
// have been made before the trusted key was.
func (r *ring) follow(name string, b []byte) error {
	leaf, text, ok := bytes.Cut(b, []byte("\n"))
	var e api.Event
	if !ok || json.Unmarshal(leaf, &e) != nil || e.Kind != api.EventKey {
		return errors.New("it does not begin with the leaf of a change of the log's key")
	}
	before, now := e.Attrs[attrOldKey], e.Attrs[attrNewKey]
	if _, err := note.NewVerifier(now); err != nil {
		return fmt.Errorf("the new key: %w", err)
	}
	last := &r.epochs[len(r.epochs)-1]
	if before != last.key && len(r.epochs) > 1 {
		return errors.New("it changes another key than the one in force")
	}
	cp, err := CheckProof(&Proof{Index: e.Index, Leaf: leaf, Text: text}, before)
	if err != nil {
		return err
	}
	r.marks = append(r.marks, rootMark{cp.Size, cp.Root, "the checkpoint under which the log's key was changed (" + name + ")"})
	if before != last.key {
		r.retired = append(r.retired, before)
		return nil
	}
	last.until = cp.Size
	r.epochs = append(r.epochs, epoch{key: now})
	return nil
}

// keys is the ring of the folder as its own server sees it: it has the current
// key, and trusts the folder for those before.
func (l *Log) keys() (ring, error) {
	first := l.key
	b, err := os.ReadFile(l.path(rotationPath(1)))
	if err == nil {
		var e api.Event
		leaf, _, _ := bytes.Cut(b, []byte("\n"))
		if json.Unmarshal(leaf, &e) == nil && e.Attrs[attrOldKey] != "" {
			first = e.Attrs[attrOldKey]
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return ring{}, err
	}
	r, err := readRing(context.Background(), Folder(l.cfg.Dir), first)
	if err == nil && r.current() != l.key {
		err = fmt.Errorf("%w: the key that the folder's rotations end with is not the one in %s", ErrTampered, l.cfg.KeyFile)
	}
	return r, err
}

// Rotate gives a log that nobody has open a new signing key, and returns the
// new verifier key. Those who pinned the old one go on with it: the change is in
// the log, under the old key. Witnesses must be told the new key; they refuse
// the log until then. The old key is deleted.
func Rotate(ctx context.Context, cfg Config) (key string, err error) {
	l, err := Open(cfg)
	if err != nil {
		return "", err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, l.Close())
		}
	}()
	skey, key, err := note.GenerateKey(rand.Reader, Origin(l.cfg.Node))
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	// The new key is on the disk before anything names it.
	if err := createDurable(nextKeyFile(l.cfg.KeyFile), []byte(skey+"\n")); err != nil {
		return "", fmt.Errorf("keep the new key: %w", err)
	}
	if err := l.announce(ctx, key); err != nil {
		return "", fmt.Errorf("announce the new key: %w", err)
	}
	l.behind.files.Lock()
	l.behind.signer = signer
	l.behind.files.Unlock()
	closed = true
	if err := l.Close(); err != nil {
		return "", err
	}
	return key, promote(l.cfg.KeyFile)
}

// announce writes the leaf, and its proof under the old key.
func (l *Log) announce(ctx context.Context, key string) error {
	e := api.Event{Kind: api.EventKey, Object: "log", Attrs: map[string]string{attrOldKey: l.key, attrNewKey: key}}
	ticket, err := l.Append(&e)
	if err == nil {
		err = l.Wait(ctx, ticket)
	}
	if err != nil {
		return err
	}
	cp, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	proof, err := prove(ctx, l, cp, e.Index)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.path("rotation"), 0o700); err != nil {
		return err
	}
	n := 1
	for ; ; n++ {
		if _, err := os.Lstat(l.path(rotationPath(n))); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	content := append(append(bytes.Clone(proof.Leaf), '\n'), proof.Text...)
	if err := writeAtomic(l.path(rotationPath(n)), content, true); err != nil {
		return err
	}
	return syncDir(l.cfg.Dir)
}

func nextKeyFile(file string) string { return file + ".next" }

// promote puts the new key in the old one's place.
func promote(file string) error {
	if err := os.Rename(nextKeyFile(file), file); err != nil {
		return fmt.Errorf("put the new key in place: %w", err)
	}
	return syncDir(filepath.Dir(file))
}

// settleRotation ends a change of the key that a crash interrupted: it counts if
// the folder says so, else the new key is deleted.
func (l *Log) settleRotation() error {
	file := l.cfg.KeyFile
	next, err := LogKeyOf(nextKeyFile(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		b, err := os.ReadFile(l.path(rotationPath(n)))
		if errors.Is(err, fs.ErrNotExist) {
			return os.Remove(nextKeyFile(file))
		}
		if err != nil {
			return err
		}
		var e api.Event
		leaf, _, _ := bytes.Cut(b, []byte("\n"))
		if json.Unmarshal(leaf, &e) == nil && strings.TrimSpace(e.Attrs[attrNewKey]) == next {
			return promote(file)
		}
	}
}
