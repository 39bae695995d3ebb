package evidence

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync leaves out what fsync would add: times, which nothing here needs.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// preallocate reserves blocks up to size, so that a full disk shows at the
// roll of a segment and a commit changes no metadata. New space reads as zeros.
func preallocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return growTo(f, size)
		default:
			return err
		}
	}
}
