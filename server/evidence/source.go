package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hoopctl/hoopctl/server/api"
)

// Source is an evidence folder as a reader sees it: on its own disk, or fetched
// from a server. Both methods may be called by several goroutines.
type Source interface {
	// List names every file with its size, slash-separated, in any order.
	List(ctx context.Context) ([]api.EvidenceFile, error)
	// Open reads a file from its start. A file that is gone is an error that
	// wraps fs.ErrNotExist.
	Open(ctx context.Context, path string) (io.ReadCloser, error)
}

// Ranged is a Source that can read a part of a file without what is before it.
type Ranged interface {
	// OpenAt reads a file from an offset on.
	OpenAt(ctx context.Context, path string, offset int64) (io.ReadCloser, error)
}

// openAt reads a file from an offset on, skipping what is before it if it must.
func openAt(ctx context.Context, src Source, name string, offset int64) (io.ReadCloser, error) {
	if r, ok := src.(Ranged); ok {
		return r.OpenAt(ctx, name, offset)
	}
	f, err := src.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, f, offset); err != nil {
		return nil, errors.Join(fmt.Errorf("%s ends before byte %d: %w", name, offset, err), f.Close())
	}
	return f, nil
}

// Folder is the evidence in a folder of this machine.
type Folder string

// List implements Source.
func (f Folder) List(ctx context.Context) ([]api.EvidenceFile, error) {
	var files []api.EvidenceFile
	err := filepath.WalkDir(string(f), func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil || d.IsDir() {
			return gone(err)
		}
		info, err := os.Stat(name) // what lies on a spill volume is a link
		if err != nil {
			return gone(err)
		}
		rel, err := filepath.Rel(string(f), name)
		files = append(files, api.EvidenceFile{Path: filepath.ToSlash(rel), Size: info.Size()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the evidence: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("list the evidence: %s holds no files", string(f))
	}
	return files, nil
}

// gone ignores a file that a running server replaced meanwhile.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Open implements Source.
func (f Folder) Open(_ context.Context, name string) (io.ReadCloser, error) {
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("evidence file %q: %w", name, fs.ErrInvalid)
	}
	return os.Open(filepath.Join(string(f), filepath.FromSlash(name)))
}

// OpenAt implements Ranged.
func (f Folder) OpenAt(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	r, err := f.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	if _, err := r.(io.Seeker).Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// List implements Source for a running log: segments count only as far as they
// are durable, and private files are left out. Wrapped keys are shown: they
// open with an auditor's identity only.
func (l *Log) List(ctx context.Context) ([]api.EvidenceFile, error) {
	for {
		files, err := Folder(l.cfg.Dir).List(ctx)
		if err != nil {
			return nil, err
		}
		if files, ok := l.durableOf(files); ok {
			return files, nil
		}
	}
}

// ends are the current segments, and how far they are durable.
func (l *Log) ends() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends := map[string]int64{}
	for s, p := range l.places {
		if p.number > 0 {
			ends[s.dir()+"/"+segmentName(p.number)] = p.end
		}
	}
	return ends
}

// durableOf cuts a listing to what is durable now. It is false if a segment was
// begun since the listing was made.
func (l *Log) durableOf(files []api.EvidenceFile) ([]api.EvidenceFile, bool) {
	ends := l.ends()
	files = slices.DeleteFunc(files, func(f api.EvidenceFile) bool { return !published(f.Path) || beyond(f.Path, ends) })
	seen := 0
	for i := range files {
		if end, ok := ends[files[i].Path]; ok {
			files[i].Size = end
			seen++
		}
	}
	return files, seen == len(ends)
}

// beyond reports whether a segment is newer than the durable places in ends.
func beyond(name string, ends map[string]int64) bool {
	dir := path.Dir(name)
	if dir != timeline.dir() && dir != payload.dir() {
		return false
	}
	for place := range ends {
		if path.Dir(place) == dir {
			return name > place
		}
	}
	return true
}

// Open implements Source for a running log: a segment ends where its last
// durable batch does. What it returns is an io.ReadSeeker.
func (l *Log) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	return l.OpenAt(ctx, name, 0)
}

// OpenAt implements Ranged.
func (l *Log) OpenAt(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if !published(name) {
		return nil, fmt.Errorf("evidence file %q: %w", name, fs.ErrNotExist)
	}
	f, err := Folder(l.cfg.Dir).OpenAt(ctx, name, offset)
	if err != nil {
		return nil, err
	}
	ends := l.ends()
	if end, ok := ends[name]; ok {
		part := io.NewSectionReader(f.(io.ReaderAt), 0, end)
		_, err := part.Seek(offset, io.SeekStart)
		return durablePart{part, f}, err
	}
	if beyond(name, ends) {
		return nil, errors.Join(fmt.Errorf("evidence file %q: %w", name, fs.ErrNotExist), f.Close())
	}
	return f, nil
}

// durablePart is a segment up to its last durable batch. It can be seeked in, so
// that a server can answer ranges of it.
type durablePart struct {
	*io.SectionReader
	io.Closer
}

// published reports whether a file belongs to the evidence that is shown.
func published(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	switch top {
	case "checkpoint", cosignedPath, timeline.dir(), payload.dir(), "tile":
		return true
	case "rotation":
		return rotationName.MatchString(name)
	case "sealed":
		_, _, ok := parseSealedPath(name)
		return ok
	case "keys":
		return path.Ext(name) == ".key"
	}
	return false
}

// readFile reads a whole file of a source.
func readFile(ctx context.Context, src Source, name string, limit int64) ([]byte, error) {
	f, err := src.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := readLimited(f, limit)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}
