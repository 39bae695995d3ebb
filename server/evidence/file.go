package evidence

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// file is what the committer needs of an open segment. Its methods are called
// by one goroutine at a time.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	// Datasync returns when everything written is on the disk, with as much of
	// the metadata as it takes to read it back.
	Datasync() error
	Truncate(size int64) error
	Close() error
}

// disk creates segments. A test puts a failing one in its place.
type disk interface {
	// create makes a new file of size bytes that read as zeros. If the
	// file exists already it is an error that wraps fs.ErrExist.
	create(path string, size int64) (file, error)
	// open opens an existing segment to append to it, and preallocates it.
	open(path string, size int64) (file, error)
	remove(path string) error
	// syncDir makes names in dir durable.
	syncDir(dir string) error
}

// localDisk is the operating system's file system.
type localDisk struct{}

type localFile struct{ *os.File }

func (f localFile) Datasync() error { return datasync(f.File) }

func (localDisk) create(path string, size int64) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := preallocate(f, size); err != nil {
		return nil, errors.Join(fmt.Errorf("reserve %d bytes for %s: %w", size, path, err), f.Close(), os.Remove(path))
	}
	return localFile{f}, nil
}

func (localDisk) open(path string, size int64) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := preallocate(f, size); err != nil {
		return nil, errors.Join(fmt.Errorf("reserve %d bytes for %s: %w", size, path, err), f.Close())
	}
	return localFile{f}, nil
}

func (localDisk) remove(path string) error { return os.Remove(path) }

func (localDisk) syncDir(dir string) error { return syncDir(dir) }

// writeAtomic puts content in place of path so that a reader or a crash sees
// the old or the new file whole. With sync it is durable on return.
func writeAtomic(path string, content []byte, sync bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name())))
		}
	}()
	if _, err = f.Write(content); err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil || !sync {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readLimited reads a whole file that must not be larger than limit.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}

// growTo makes f at least size bytes long.
func growTo(f *os.File, size int64) error {
	st, err := f.Stat()
	if err != nil || st.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
