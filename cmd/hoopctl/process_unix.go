//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// passSignal hands a signal on to a child. A Ctrl-C at the terminal has
// reached the whole foreground group already: passing it on would make two,
// and many clients take the second for "leave now".
func passSignal(p *os.Process, s os.Signal) {
	if s == os.Interrupt && inForeground() {
		return
	}
	p.Signal(s)
}

// inForeground says whether we are in the foreground of a terminal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// childSignal is the signal that ended a child, if one did.
func childSignal(s *os.ProcessState) (syscall.Signal, bool) {
	w, ok := s.Sys().(syscall.WaitStatus)
	if !ok || !w.Signaled() {
		return 0, false
	}
	return w.Signal(), true
}

// apart starts a process in a session of its own: what happens to our terminal
// is nothing to it.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// end asks a process to end.
func end(p *os.Process) error { return p.Signal(os.Interrupt) }
