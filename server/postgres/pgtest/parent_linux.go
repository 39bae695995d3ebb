package pgtest

import "syscall"

// withParent puts the postmaster in a group of its own, so that Ctrl-C of a
// test run does not reach it first, and lets it go down with the test binary.
func withParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
}
