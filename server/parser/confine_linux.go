package parser

import (
	"fmt"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// confine limits this process for good: memory, processor time, open files,
// core dumps, new privileges. A parser that was taken over could still only
// answer wrongly, and its answer is checked against the lexer's.
func confine(memory string) error {
	bytes, err := strconv.ParseUint(memory, 10, 63)
	if err != nil {
		return fmt.Errorf("read the memory limit %q: %w", memory, err)
	}
	debug.SetMemoryLimit(int64(bytes / 2)) //nolint:gosec // 63 bits
	bytes *= instrumented
	limits := []struct {
		what     int
		soft, hi uint64
	}{
		// What is written to counts as data. Address space is reserved in
		// large pieces by the Go runtime and costs nothing, so its limit is loose.
		{unix.RLIMIT_DATA, bytes, bytes},
		{unix.RLIMIT_AS, bytes + 4<<30, bytes + 4<<30},
		{unix.RLIMIT_CPU, 600, 600},
		{unix.RLIMIT_NOFILE, 32, 32},
		{unix.RLIMIT_CORE, 0, 0},
		{unix.RLIMIT_FSIZE, 256 << 20, 256 << 20},
	}
	for _, l := range limits {
		if err := lower(l.what, l.soft, l.hi); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	return nil
}

// lower sets a limit, and leaves one that is lower already.
func lower(what int, soft, hard uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(what, &now); err != nil {
		return fmt.Errorf("read limit %d: %w", what, err)
	}
	want := unix.Rlimit{Cur: min(soft, now.Cur), Max: min(hard, now.Max)}
	if err := unix.Setrlimit(what, &want); err != nil {
		return fmt.Errorf("set limit %d: %w", what, err)
	}
	return nil
}
