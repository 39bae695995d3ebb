//go:build !linux

package evidence

import "os"

// datasync is a full sync here; on macOS os.File.Sync is F_FULLFSYNC.
func datasync(f *os.File) error { return f.Sync() }

// preallocate grows the file; the new space reads as zeros.
func preallocate(f *os.File, size int64) error { return growTo(f, size) }
