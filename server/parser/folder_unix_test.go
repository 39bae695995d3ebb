//go:build unix

package parser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheCodeCacheBelongsToNobodyElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "cache")
	if err := ownFolder(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // what is refused
		t.Fatal(err)
	}
	_, err := New(Config{Command: []string{"x"}, CacheDir: dir})
	if err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("%v", err)
	}
}
