package evidence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hoopctl/hoopctl/server/api"
)

// smallVolume is a file system of its own with few megabytes. Only root can
// make one; for others the failing disk of TestT71_FailsClosedAndHeals stands in.
func smallVolume(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small file system here (%v): needs root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// ballast fills a volume to the last block.
func ballast(t *testing.T, volume string) (remove func()) {
	t.Helper()
	name := filepath.Join(volume, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range []int{64 << 10, 4 << 10, 1} {
		for b := make([]byte, block); ; {
			if _, err = f.Write(b); err != nil {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// untilFull appends until the log refuses, or n leaves are durable; it returns
// what was acknowledged.
func untilFull(l *Log, n int) (acked []string, err error) {
	for i := range n {
		e := &api.Event{Kind: api.EventAdmin, Object: fmt.Sprintf("acked %d", i), Reason: "some words that take room"}
		ticket, err := l.Append(e)
		if err == nil {
			err = l.Wait(context.Background(), ticket)
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, e.Object)
	}
	return acked, nil
}

func holdsAll(t *testing.T, l *Log, acked []string) {
	t.Helper()
	have := map[string]bool{}
	for _, e := range events(t, l, api.EventQuery{Kind: []string{api.EventAdmin}}) {
		have[e.Object] = true
	}
	for _, a := range acked {
		if !have[a] {
			t.Errorf("%s was acknowledged and is not there", a)
		}
	}
}

// TestT71_AFullVolume: on a file system that is really full the log refuses,
// keeps what it acknowledged, and goes on when there is room, with a gap leaf.
func TestT71_AFullVolume(t *testing.T) {
	volume := smallVolume(t, "4m")
	h := newHouse(t)
	h.cfg.Dir, h.cfg.SegmentBytes = filepath.Join(volume, "evidence"), 64<<10
	l := h.open()
	key := l.LogKey()
	session(t, l, "s-1", 2)
	clear := ballast(t, volume)
	acked, err := untilFull(l, 10_000)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("after %d leaves: %v", len(acked), err)
	}
	if _, err := l.Append(statement(1)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full log takes a statement: %v", err)
	}
	clear()
	healed(t, l)
	session(t, l, "s-2", 2)
	holdsAll(t, l, acked)
	if got := events(t, l, api.EventQuery{Kind: []string{api.EventGap}}); len(got) != 1 {
		t.Errorf("%d gap leaves", len(got))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
}

// TestT71_SpillVolume: with a second volume nothing is refused, the evidence
// reads and verifies as one, a crash there loses nothing, and all of it comes
// home when there is room.
func TestT71_SpillVolume(t *testing.T) {
	volume := smallVolume(t, "6m")
	h := newHouse(t)
	h.cfg.Dir, h.cfg.SegmentBytes = filepath.Join(volume, "evidence"), 64<<10
	h.cfg.Spill = filepath.Join(t.TempDir(), "spill")
	l := h.open()
	key := l.LogKey()
	session(t, l, "s-1", 2)
	clear := ballast(t, volume)
	acked, err := untilFull(l, 3000)
	if err != nil {
		t.Fatalf("refused after %d leaves: %v", len(acked), err)
	}
	session(t, l, "s-2", 300)
	if _, err := os.Lstat(filepath.Join(h.cfg.Spill, "keys/s-2.key")); err != nil {
		t.Error("the volume is not full: ", err)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key, SkipRecordings: true}), Incomplete) // but for the checkpoint, for which there is no room
	crash(l)
	clear()
	l = h.open()
	holdsAll(t, l, acked)
	session(t, l, "s-3", 300) // new segments
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = h.open()
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	current := 0
	if err := filepath.WalkDir(h.cfg.Spill, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			current++
		}
		return err
	}); err != nil || current > 2 { // of each stream the segment that is written may still be there
		t.Errorf("%d files did not come home: %v", current, err)
	}
	want(t, verify(t, h.cfg.Dir, Options{LogKey: key}), Intact)
}
