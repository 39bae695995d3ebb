//go:build unix

package server

import (
	"errors"
	"syscall"
)

// isOutOfFiles reports whether accepting failed for want of descriptors.
func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}
