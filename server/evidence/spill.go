package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hoopctl/hoopctl/server/api"
)

// spill is a second volume: what the evidence folder has no room for is created
// there, and a symbolic link in the folder says where it is. It is brought home
// when there is room again. The zero value is none.
type spill struct {
	dir  string
	disk disk
	used atomic.Pointer[error] // why it was used and nobody was told yet
}

// prepare makes the spill's folders.
func (s *spill) prepare() error {
	if s.dir == "" {
		return nil
	}
	for _, d := range []string{timeline.dir(), payload.dir(), "keys"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return fmt.Errorf("the spill volume: %w", err)
		}
	}
	return nil
}

// instead makes a file on the spill volume that could not be made at path,
// because of why, and links it there. make gets the name to make.
func (s *spill) instead(path string, why error, make func(path string) error) error {
	if s.dir == "" || errors.Is(why, fs.ErrExist) {
		return why
	}
	dir := filepath.Join(s.dir, filepath.Base(filepath.Dir(path)))
	there, err := filepath.Abs(filepath.Join(dir, filepath.Base(path)))
	if err == nil {
		err = make(there)
	}
	if err == nil {
		err = s.disk.syncDir(dir)
	}
	if err == nil {
		err = os.Symlink(there, path)
	}
	if err == nil {
		err = s.disk.syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(why, fmt.Errorf("and on the spill volume: %w", err))
	}
	s.used.Store(&why)
	return nil
}

// sayWhy appends a leaf that says why the spill volume is in use.
func (l *Log) sayWhy() {
	why := l.spill.used.Swap(nil)
	if why == nil {
		return
	}
	l.cfg.Logger.Error("the evidence folder's volume takes nothing more; the spill volume does", "spill", l.spill.dir, "err", *why)
	if _, err := l.Append(&api.Event{Kind: api.EventAdmin, Object: "evidence.spill", Reason: (*why).Error()}); err != nil {
		l.spill.used.CompareAndSwap(nil, why)
	}
}

// home moves what lies on the spill volume back, but for segments that are
// written now. The first that finds no room ends it: there will be another time.
func (l *Log) home(ctx context.Context) error {
	if l.spill.dir == "" {
		return nil
	}
	ends := l.ends()
	for _, d := range []string{"keys", timeline.dir(), payload.dir()} {
		list, err := os.ReadDir(l.path(d))
		if err != nil {
			return err
		}
		for _, f := range list {
			if _, current := ends[d+"/"+f.Name()]; f.Type()&fs.ModeSymlink == 0 || current {
				continue
			}
			if err := errors.Join(context.Cause(ctx), bringHome(l.path(d+"/"+f.Name()))); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringHome puts a copy of the file that a link names in the link's place. A
// crash leaves the link, or the copy.
func bringHome(link string) error {
	there, err := os.Readlink(link)
	if err != nil {
		return err
	}
	from, err := os.Open(there)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(link), ".new-*.tmp")
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Sync(), to.Close()); err == nil {
		err = os.Rename(to.Name(), link)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(to.Name())))
	}
	if err := syncDir(filepath.Dir(link)); err != nil {
		return err
	}
	return os.Remove(there)
}
