package evidence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// follower turns durable batches into the tree's files: tiles, bundles and
// checkpoints. All of it can be rebuilt from the timeline, so nobody waits for
// it, and a write that fails is tried again.
type follower struct {
	dir    string
	origin string
	signer note.Signer
	log    *slog.Logger

	queue chan []byte // records of a durable batch
	done  chan struct{}

	files    sync.Mutex // held while files are written
	mu       sync.Mutex
	tree     tree
	bundle   []byte // the entries since the last whole bundle
	unsaved  []tileFile
	signed   Checkpoint
	progress chan struct{} // closed when leaves were added
	scratch  []byte
}

// tileFile is a whole tile or bundle on its way to the disk.
type tileFile struct {
	path    string
	content []byte
}

func newFollower(dir, origin string, signer note.Signer, log *slog.Logger) *follower {
	f := &follower{dir: dir, origin: origin, signer: signer, log: log,
		queue: make(chan []byte, 256), done: make(chan struct{}), progress: make(chan struct{})}
	f.tree.full = f.keepTile
	return f
}

// feed hands over a durable batch. It blocks when the follower is far behind.
func (f *follower) feed(records []byte) { f.queue <- records }

// run follows until the queue is closed.
func (f *follower) run() {
	defer close(f.done)
	for records := range f.queue {
		f.take(records)
		f.save()
	}
}

func (f *follower) take(records []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(records) > 0 {
		n := 4 + int(binary.BigEndian.Uint32(records))
		if records[4] == recordLeaf {
			f.add(records[recordHeader:n])
		}
		records = records[n:]
	}
	close(f.progress)
	f.progress = make(chan struct{})
}

// add puts one leaf into tree and bundle. Called with the lock held.
func (f *follower) add(leaf []byte) {
	f.bundle = appendEntry(f.bundle, leaf)
	f.tree.add(leafHash(leaf, &f.scratch))
	if f.tree.size%tileWidth == 0 {
		path := tilePath("entries", f.tree.size/tileWidth-1, tileWidth)
		f.unsaved = append(f.unsaved, tileFile{path, f.bundle})
		f.bundle = nil
	}
}

func (f *follower) keepTile(level int, n uint64, hashes []tlog.Hash) {
	f.unsaved = append(f.unsaved, tileFile{tilePath(strconv.Itoa(level), n, tileWidth), tileBytes(hashes)})
}

// save writes whole tiles. What cannot be written stays for the next time.
func (f *follower) save() error {
	f.files.Lock()
	defer f.files.Unlock()
	return f.saveLocked()
}

func (f *follower) saveLocked() error {
	f.mu.Lock()
	todo := f.unsaved
	f.mu.Unlock()
	saved := 0
	var err error
	for _, t := range todo {
		if err = f.write(t.path, t.content); err != nil {
			f.log.Warn("cannot write a tile; trying again later", "tile", t.path, "err", err)
			break
		}
		if err = os.RemoveAll(f.file(t.path + ".p")); err != nil {
			break
		}
		saved++
	}
	f.mu.Lock()
	f.unsaved = f.unsaved[saved:]
	f.mu.Unlock()
	return err
}

func (f *follower) file(path string) string { return filepath.Join(f.dir, filepath.FromSlash(path)) }

func (f *follower) write(path string, content []byte) error {
	name := f.file(path)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return writeAtomic(name, content, false)
}

// checkpoint signs the head and publishes it with the tiles that it needs. It
// does nothing if the tree did not grow.
func (f *follower) checkpoint() error {
	f.files.Lock()
	defer f.files.Unlock()
	f.mu.Lock()
	cp := Checkpoint{Origin: f.origin, Size: f.tree.size, Root: f.tree.root()}
	old := f.signed
	edge := f.edge()
	f.mu.Unlock()
	if cp.Size == old.Size && old.Note != nil {
		return nil
	}
	if err := f.saveLocked(); err != nil {
		return fmt.Errorf("write the tree's tiles: %w", err)
	}
	for _, t := range edge {
		if err := f.write(t.path, t.content); err != nil {
			return fmt.Errorf("write the tree's tiles: %w", err)
		}
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
	return f.dropPartials(old.Size, cp.Size)
}

// edge are the partial tiles of the tree as it is. Called with the lock held.
func (f *follower) edge() []tileFile {
	var files []tileFile
	for level, hs := range f.tree.levels {
		if len(hs) > 0 {
			files = append(files, tileFile{tilePath(strconv.Itoa(level), f.tree.size>>(tileHeight*(level+1)), len(hs)), tileBytes(hs)})
		}
	}
	if w := int(f.tree.size % tileWidth); w > 0 {
		files = append(files, tileFile{tilePath("entries", f.tree.size/tileWidth, w), append([]byte(nil), f.bundle...)})
	}
	return files
}

// dropPartials deletes the partial tiles that an older checkpoint needed and
// the newer one does not.
func (f *follower) dropPartials(old, size uint64) error {
	keep := map[string]bool{}
	for _, p := range partials(size) {
		keep[p] = true
	}
	for _, p := range partials(old) {
		if keep[p] {
			continue
		}
		if err := ignoreMissing(os.Remove(f.file(p))); err != nil {
			return fmt.Errorf("delete an outdated tile: %w", err)
		}
	}
	return nil
}

// partials are the paths of the partial tiles of a tree of that size.
func partials(size uint64) []string {
	var paths []string
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		if w := int(size >> (tileHeight * level) % tileWidth); w > 0 {
			paths = append(paths, tilePath(strconv.Itoa(level), size>>(tileHeight*(level+1)), w))
		}
	}
	if w := int(size % tileWidth); w > 0 {
		paths = append(paths, tilePath("entries", size/tileWidth, w))
	}
	return paths
}

// block returns the entries n*256 to n*256+255, as many as there are, and how
// many that is. The result must not be changed.
func (f *follower) block(n uint64) (bundle []byte, count int, err error) {
	f.mu.Lock()
	whole := f.tree.size / tileWidth
	if n > whole {
		f.mu.Unlock()
		return nil, 0, nil
	}
	if n == whole {
		bundle, count = f.bundle[:len(f.bundle):len(f.bundle)], int(f.tree.size%tileWidth)
		f.mu.Unlock()
		return bundle, count, nil
	}
	path := tilePath("entries", n, tileWidth)
	for _, t := range f.unsaved {
		if t.path == path {
			bundle = t.content
		}
	}
	f.mu.Unlock()
	if bundle == nil {
		bundle, err = os.ReadFile(f.file(path))
	}
	return bundle, tileWidth, err
}

// at returns how many leaves have been followed, and a channel that is closed
// when that changes.
func (f *follower) at() (uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree.size, f.progress
}

// latest is the last checkpoint.
func (f *follower) latest() Checkpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signed
}

// close follows what is left and signs the last checkpoint.
func (f *follower) close() error {
	close(f.queue)
	<-f.done
	return f.checkpoint()
}

// readTile reads a tile's file, or what will be one.
func (f *follower) readTile(path string) ([]byte, error) {
	b, err := os.ReadFile(f.file(path))
	if errors.Is(err, fs.ErrNotExist) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, t := range f.unsaved {
			if t.path == path {
				return t.content, nil
			}
		}
	}
	return b, err
}
