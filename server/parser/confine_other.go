//go:build !linux

package parser

import (
	"fmt"
	"runtime/debug"
	"strconv"
)

// confine limits what the Go runtime allocates. The WebAssembly instance
// bounds the grammar's memory on every system; processor time is bounded by
// the parent, which ends a child that takes too long.
func confine(memory string) error {
	bytes, err := strconv.ParseInt(memory, 10, 64)
	if err != nil {
		return fmt.Errorf("read the memory limit %q: %w", memory, err)
	}
	debug.SetMemoryLimit(bytes / 2)
	return nil
}
