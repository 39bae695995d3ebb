package main

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// passSignal ends a child that should end. A Ctrl-C reaches every process of
// the console by itself, and Windows has no other signal that asks.
func passSignal(p *os.Process, s os.Signal) {
	if s != os.Interrupt {
		p.Kill()
	}
}

// childSignal answers no: Windows processes are not ended by signals.
func childSignal(*os.ProcessState) (syscall.Signal, bool) { return 0, false }

// apart starts a process without our console.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP}
}

// end ends a process: nothing can be asked of one without a console.
func end(p *os.Process) error { return p.Kill() }
