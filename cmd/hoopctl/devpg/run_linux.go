package devpg

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// follow lets PostgreSQL go down with us, even after a kill -9: SIGQUIT is its
// immediate shutdown, which leaves recovery to the next start.
func (r runner) follow(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT }

// servesData says whether the process is a PostgreSQL on the data folder,
// which a postmaster has as its working directory.
func servesData(pid int, dataDir string) bool {
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil {
		return cwd == dataDir
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(cmdline, []byte("\x00"+dataDir+"\x00"))
}
