package evidence

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeyRotation: who pinned the first key follows to the third; who pinned the
// newest one verifies too; and what is done to the chain of keys is told.
func TestKeyRotation(t *testing.T) {
	h := newHouse(t)
	l := h.open()
	first := l.LogKey()
	session(t, l, "s-1", 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	before := verify(t, h.cfg.Dir, Options{LogKey: first})
	oldKeyFile, err := os.ReadFile(h.cfg.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Rotate(ctx, h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	l = h.open()
	if l.LogKey() != second {
		t.Errorf("the log signs with %s after its key became %s", l.LogKey(), second)
	}
	session(t, l, "s-2", 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	third, err := Rotate(ctx, h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	l = h.open()
	session(t, l, "s-3", 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{first, second, third} {
		r := verify(t, h.cfg.Dir, Options{LogKey: key})
		want(t, r, Intact)
		if said := strings.Contains(strings.Join(r.Proved, "\n"), "key was changed"); said != (i < 2) {
			t.Errorf("from key %d: proved %v", i, r.Proved)
		}
		b := bundleOf(t, Folder(h.cfg.Dir), BundleOptions{LogKey: key, Recordings: true})
		want(t, verifyBundle(t, b, Options{LogKey: key}), Intact)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: first, Seen: [][]byte{before.Checkpoint}}), Intact)
	if _, err := os.Stat(nextKeyFile(h.cfg.KeyFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the new key lies in two places: %v", err)
	}

	t.Run("T72 the old key signs on", func(t *testing.T) { // a thief of the retired key forges what came after
		cfg := h.cfg
		cfg.Dir = copyDir(t, h.cfg.Dir)
		cfg.KeyFile = filepath.Join(t.TempDir(), "log.key")
		if err := os.WriteFile(cfg.KeyFile, oldKeyFile, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(cfg); !errors.Is(err, ErrTampered) {
			t.Errorf("a server with a retired key opens the log: %v", err)
		}
		os.RemoveAll(filepath.Join(cfg.Dir, "rotation"))
		os.Remove(filepath.Join(cfg.Dir, "checkpoint"))
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		stolen := load(t, cfg.Dir)
		for name, b := range load(t, h.cfg.Dir) {
			if strings.HasPrefix(name, "rotation/") {
				stolen[name] = b
			}
		}
		r, err := Verify(ctx, stolen, Options{LogKey: first})
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, Tampered, "retired")
	})
	files := load(t, h.cfg.Dir)
	for _, name := range []string{rotationPath(1), rotationPath(2)} {
		content := files[name]
		for i := 0; i < len(content); i++ {
			changed := bytes.Clone(content)
			changed[i] ^= 1 << (i % 8)
			files[name] = changed
			r, err := Verify(ctx, files, Options{LogKey: first, SkipRecordings: true})
			if err != nil {
				t.Fatal(err)
			}
			if r.Status == Intact {
				t.Errorf("T72 flipping byte %d of %s is not told", i, name)
			}
		}
		files[name] = content
	}
	delete(files, rotationPath(1))
	r, err := Verify(ctx, files, Options{LogKey: first})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, Tampered, "not signed by")
}

// TestT70_CrashWhileRotating: the change of the key counts if the folder names
// the new key, and not if it does not.
func TestT70_CrashWhileRotating(t *testing.T) {
	h := newHouse(t)
	l := h.open()
	first := l.LogKey()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := makeKey(nextKeyFile(h.cfg.KeyFile), Origin(h.cfg.Node))
	if err != nil {
		t.Fatal(err)
	}
	l = h.open() // nothing names it
	if _, err := os.Stat(nextKeyFile(h.cfg.KeyFile)); l.LogKey() != first || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that nothing names is kept: %v", err)
	}
	if err := os.WriteFile(nextKeyFile(h.cfg.KeyFile), next, 0o600); err != nil {
		t.Fatal(err)
	}
	_, second, err := parseKey("", next)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.announce(context.Background(), second); err != nil {
		t.Fatal(err)
	}
	crash(l)
	l = h.open()
	if l.LogKey() != second {
		t.Error("the change that the folder names does not count")
	}
	session(t, l, "s-1", 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{first, second} {
		want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
	}
}
