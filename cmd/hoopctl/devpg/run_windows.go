package devpg

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// runner is who runs PostgreSQL: on Windows always us. (It drops an
// administrator's rights only through pg_ctl; as an administrator it says so
// and ends.)
type runner struct{}

func runAs() (runner, error) { return runner{}, nil }

func (runner) name() string          { return "you" }
func (runner) own(string) error      { return nil }
func (runner) owns(path string) bool { info, err := os.Lstat(path); return err == nil && info.IsDir() }
func (runner) reaches(string) bool   { return true }
func (runner) follow(*exec.Cmd)      {}

func (runner) prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid) // opens the process
	if err != nil {
		return false
	}
	p.Release()
	return true
}

// servesData says whether the process is a PostgreSQL; tasklist does not tell
// the folder.
func servesData(pid int, _ string) bool {
	out, err := exec.Command("tasklist", "/FO", "CSV", "/NH", "/FI", "PID eq "+strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(strings.ToLower(string(out)), "postgres.exe")
}

func (s *Server) signal(m stopMode) { sendStop(s.bin, s.proc, m) }

// sendStop asks through pg_ctl, which knows PostgreSQL's own signals on Windows.
func sendStop(bin string, p *os.Process, m stopMode) {
	if m == stopKill {
		p.Kill()
		return
	}
	name := map[stopMode]string{stopFast: "INT", stopImmediate: "QUIT"}[m]
	exec.Command(filepath.Join(bin, "pg_ctl.exe"), "kill", name, strconv.Itoa(p.Pid)).Run()
}
