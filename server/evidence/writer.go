package evidence

import (
	"errors"
	"fmt"
	"path/filepath"
)

// writer appends batches to one stream's current segment. It belongs to the
// committer goroutine.
type writer struct {
	disk    disk
	stream  stream
	dir     string // of the stream
	node    string
	segment int64 // bytes that a new segment is given
	spill   *spill

	f      file
	number uint64 // of the current segment
	end    int64  // what is durable
	wrote  int64  // what is written
	body   int64  // where the segment's first batch starts
	room   int64  // what is preallocated
}

func segmentName(number uint64) string { return fmt.Sprintf("%08d.log", number) }

// fits reports whether a batch of n bytes goes into the current segment.
func (w *writer) fits(n int) bool { return w.f != nil && w.wrote+int64(n) <= w.room }

// fresh reports whether the next batch is the first of its segment.
func (w *writer) fresh() bool { return w.wrote == w.body }

// roll begins a new segment with room for a batch of n bytes. The header is
// durable with the first batch.
func (w *writer) roll(h segmentHeader, n int) error {
	if err := w.finish(); err != nil {
		return err
	}
	h.stream, h.node, h.number = w.stream, w.node, w.number+1
	head := h.append(nil)
	size := max(w.segment, int64(len(head)+n))
	name := filepath.Join(w.dir, segmentName(h.number))
	f, err := w.create(name, size, head)
	if err != nil {
		err = w.spill.instead(name, err, func(there string) error {
			f, err = w.create(there, size, head)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("begin segment %s: %w", name, err)
	}
	w.f, w.number, w.room = f, h.number, size
	w.body = int64(len(head))
	w.wrote, w.end = w.body, w.body
	return nil
}

// create makes a segment's file with its header.
func (w *writer) create(name string, size int64, head []byte) (file, error) {
	f, err := w.disk.create(name, size)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(head, 0)
	if err == nil {
		err = w.disk.syncDir(filepath.Dir(name))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), w.disk.remove(name))
	}
	return f, nil
}

func (w *writer) write(batch []byte) error {
	if _, err := w.f.WriteAt(batch, w.wrote); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(w.dir, segmentName(w.number)), err)
	}
	w.wrote += int64(len(batch))
	return nil
}

// sync makes what was written durable. It counts as written down only when
// settle is called, after the other stream's sync succeeded too.
func (w *writer) sync() error {
	if w.f == nil || w.wrote == w.end {
		return nil
	}
	if err := w.f.Datasync(); err != nil {
		return fmt.Errorf("sync %s: %w", filepath.Join(w.dir, segmentName(w.number)), err)
	}
	return nil
}

func (w *writer) settle() { w.end = w.wrote }

// finish cuts the segment to what is durable and closes it. After a failed
// write or sync this is the only way on: what the kernel holds of the file
// cannot be trusted, so nothing more is ever written to it.
func (w *writer) finish() error {
	if w.f == nil {
		return nil
	}
	name := filepath.Join(w.dir, segmentName(w.number))
	if err := w.f.Truncate(w.end); err != nil {
		return fmt.Errorf("cut %s to its durable %d bytes: %w", name, w.end, err)
	}
	if err := w.f.Datasync(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	f := w.f
	w.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", name, err)
	}
	return nil
}
