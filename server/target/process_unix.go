//go:build unix

package target

import (
	"os/exec"
	"syscall"
)

// apart gives a command a process group of its own, which is killed as one:
// what a script started shall not outlive the time that it was given.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
