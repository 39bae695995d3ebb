package client

import (
	"fmt"
	"os"
)

// privateDir makes dir. On Windows a profile's folder is its owner's by the
// access control list that it inherits; mode bits say nothing.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return nil
}

func readPrivate(path string) ([]byte, error) { return os.ReadFile(path) }

// syncDir has nothing to do: NTFS journals renames.
func syncDir(string) error { return nil }
