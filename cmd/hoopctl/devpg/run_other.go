//go:build unix && !linux

package devpg

import (
	"os/exec"
	"strconv"
	"strings"
)

// follow does nothing here: only Linux lets a child follow its parent. The
// next start ends what a kill -9 left.
func (r runner) follow(*exec.Cmd) {}

// servesData says whether the process is a PostgreSQL on the data folder.
func servesData(pid int, dataDir string) bool {
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres") && strings.Contains(string(out), dataDir)
}
