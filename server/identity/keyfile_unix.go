//go:build unix

package identity

import (
	"fmt"
	"os"
)

// readKeyFile reads a private key that only its owner may read.
func readKeyFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and think about who may have", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}
