package evidence

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// follower turns durable batches into the tree's files: the hashes of each
// level, and checkpoints. All of it can be rebuilt from the timeline, so nobody
// waits for it, and a write that fails is tried again.
type follower struct {
	dir    string
	origin string
	signer note.Signer
	log    *slog.Logger

	queue chan []byte // records of a durable batch
	spare buffers     // where they go then
	done  chan struct{}

	files    sync.Mutex // held while files are written
	mu       sync.Mutex
	tree     tree
	unsaved  []levelTail // by level
	signed   Checkpoint
	progress chan struct{} // closed when leaves were added
	scratch  []byte
}

// levelTail is the hashes of a level that are not in its file yet.
type levelTail struct {
	first  uint64 // number of the first of them
	hashes []byte
}

// levelPath is the file that holds a level's tiles, one after another: hash i of
// the level is at byte 32*i, tile n at byte 8192*n, and the last may be partial.
// A file per tile, as C2SP lays them out for web servers, would cost a file's
// creation every 256 leaves; [ReadTile] shows them in that form.
func levelPath(level int) string { return "tile/" + strconv.Itoa(level) }

func newFollower(dir, origin string, signer note.Signer, spare buffers, log *slog.Logger) *follower {
	f := &follower{dir: dir, origin: origin, signer: signer, spare: spare, log: log,
		queue: make(chan []byte, 256), done: make(chan struct{}), progress: make(chan struct{})}
	f.reset(0)
	return f
}

// reset starts over with the tree of size leaves, whose right edge is to be
// filled in.
func (f *follower) reset(size uint64) {
	f.tree = tree{size: size, hashed: f.keep}
	f.unsaved = nil
}

// keep notes a hash of a level for its file.
func (f *follower) keep(level int, n uint64, h tlog.Hash) {
	for level >= len(f.unsaved) {
		f.unsaved = append(f.unsaved, levelTail{first: n})
	}
	u := &f.unsaved[level]
	if len(u.hashes) == 0 {
		u.first = n
	}
	u.hashes = append(u.hashes, h[:]...)
}

// feed hands over a durable batch. It blocks when the follower is far behind.
func (f *follower) feed(records []byte) { f.queue <- records }

// run follows until the queue is closed.
func (f *follower) run() {
	defer close(f.done)
	for records := range f.queue {
		f.take(records)
		f.spare.put(records)
	}
}

func (f *follower) take(records []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(records) > 0 {
		n := 4 + int(binary.BigEndian.Uint32(records))
		if records[4] == recordLeaf {
			f.tree.add(leafHash(records[recordHeader:n], &f.scratch))
		}
		records = records[n:]
	}
	close(f.progress)
	f.progress = make(chan struct{})
}

func (f *follower) file(path string) string { return filepath.Join(f.dir, filepath.FromSlash(path)) }

// checkpoint signs the head and publishes it, after the hashes that it needs.
// It does nothing if the tree did not grow.
func (f *follower) checkpoint() error {
	f.files.Lock()
	defer f.files.Unlock()
	f.mu.Lock()
	cp := Checkpoint{Origin: f.origin, Size: f.tree.size, Root: f.tree.root()}
	done := cp.Size == f.signed.Size && f.signed.Note != nil
	todo := f.unsaved
	f.unsaved = nil
	f.mu.Unlock()
	if err := f.save(todo); err != nil {
		return fmt.Errorf("write the tree: %w", err)
	}
	if done {
		return nil
	}
	if err := cp.sign(f.signer); err != nil {
		return err
	}
	if err := writeAtomic(f.file("checkpoint"), cp.Note, true); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	f.mu.Lock()
	f.signed = cp
	f.mu.Unlock()
	return nil
}

// save writes hashes to their levels' files; what fails is kept for the next time.
func (f *follower) save(todo []levelTail) error {
	for level, t := range todo {
		if len(t.hashes) == 0 {
			continue
		}
		if err := f.write(level, t); err != nil {
			f.putBack(todo[level:], level)
			return err
		}
	}
	return nil
}

func (f *follower) write(level int, t levelTail) error {
	file, err := os.OpenFile(f.file(levelPath(level)), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(t.hashes, int64(t.first)*tlog.HashSize)
	return errors.Join(err, file.Close())
}

// putBack keeps hashes that could not be written, before those that came since.
func (f *follower) putBack(todo []levelTail, from int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, t := range todo {
		level := from + i
		for level >= len(f.unsaved) {
			f.unsaved = append(f.unsaved, levelTail{})
		}
		if len(t.hashes) > 0 {
			f.unsaved[level] = levelTail{t.first, append(t.hashes, f.unsaved[level].hashes...)}
		}
	}
}

// at returns how many leaves have been followed, and a channel that is closed
// when that changes.
func (f *follower) at() (uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree.size, f.progress
}

// close follows what is left and signs the last checkpoint.
func (f *follower) close() error {
	close(f.queue)
	<-f.done
	return f.checkpoint()
}

// Checkpoint signs and publishes the head that covers everything that is
// durable now, without waiting for the next tick.
func (l *Log) Checkpoint(ctx context.Context) (Checkpoint, error) {
	want := l.Size()
	for {
		size, progress := l.behind.at()
		if size >= want {
			break
		}
		select {
		case <-progress:
		case <-l.quit:
			return Checkpoint{}, ErrClosed
		case <-ctx.Done():
			return Checkpoint{}, context.Cause(ctx)
		}
	}
	if err := l.behind.checkpoint(); err != nil {
		return Checkpoint{}, fmt.Errorf("evidence: %w", err)
	}
	l.behind.mu.Lock()
	defer l.behind.mu.Unlock()
	return l.behind.signed, nil
}
