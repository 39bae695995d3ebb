package server

import (
	"errors"
	"syscall"
)

// isOutOfFiles reports whether accepting failed for want of sockets.
func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.WSAECONNRESET) || errors.Is(err, syscall.EMFILE)
}
