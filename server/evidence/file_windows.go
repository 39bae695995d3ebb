package evidence

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: NTFS journals names with the files' own metadata, and
// a directory handle cannot be flushed.
func syncDir(string) error { return nil }

// lock takes the folder's lock file, or says that another process holds it.
// The lock ends with the process, however it ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	if err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{}); err != nil {
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			err = fmt.Errorf("%s is held by another process: a server is running on this folder; stop it first", path)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
