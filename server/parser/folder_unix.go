//go:build unix

package parser

import (
	"fmt"
	"os"
	"syscall"
)

// ownFolder makes the folder, and refuses one that somebody else could put
// code into.
func ownFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the code cache: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the code cache: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("the code cache %s is no folder", dir)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("the code cache %s may be written to by others than its owner: chmod 0700 it", dir)
	case ok && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("the code cache %s belongs to user %d, not to %d: what is in it would be executed", dir, st.Uid, os.Geteuid())
	}
	return nil
}
