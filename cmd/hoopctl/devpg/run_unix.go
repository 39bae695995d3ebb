//go:build unix

package devpg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// runner is who runs PostgreSQL.
type runner struct {
	user     string
	uid, gid int
	other    bool // it is not us
}

func runAs() (runner, error) {
	if os.Getuid() != 0 {
		return runner{uid: os.Getuid(), gid: os.Getgid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return runner{}, fmt.Errorf("read the user %s: %w", name, err)
		}
		return runner{user: name, uid: uid, gid: gid, other: true}, nil
	}
	return runner{}, errors.New("PostgreSQL refuses to run as root, and this machine has neither a user postgres nor nobody: run hoopctl dev as an ordinary user")
}

func (r runner) name() string {
	if r.other {
		return r.user
	}
	return "you"
}

// prepare lets cmd run as r, in a process group of its own.
func (r runner) prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(r.uid), Gid: uint32(r.gid)}
	}
}

// own gives a file or folder to r.
func (r runner) own(path string) error {
	if !r.other {
		return nil
	}
	if err := os.Chown(path, r.uid, r.gid); err != nil {
		return fmt.Errorf("give %s to %s: %w", path, r.user, err)
	}
	return nil
}

// owns says whether path is a folder of r's that nobody else can enter.
func (r runner) owns(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == r.uid
}

// reaches says whether r can walk to the folder and through it.
func (r runner) reaches(dir string) bool {
	if !r.other {
		return true
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return false
	}
	for ; ; abs = filepath.Dir(abs) {
		if !r.enters(abs) {
			return false
		}
		if abs == filepath.Dir(abs) {
			return true
		}
	}
}

func (r runner) enters(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	mode := info.Mode().Perm()
	switch {
	case int(s.Uid) == r.uid:
		return mode&0o100 != 0
	case int(s.Gid) == r.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// alive says whether a process has this pid.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

func (s *Server) signal(m stopMode) {
	if m == stopKill {
		// The backends follow the postmaster by themselves; this is for whatever does not.
		syscall.Kill(-s.proc.Pid, syscall.SIGKILL)
		return
	}
	sendStop(s.bin, s.proc, m)
}

func sendStop(_ string, p *os.Process, m stopMode) {
	p.Signal(map[stopMode]os.Signal{stopFast: syscall.SIGINT, stopImmediate: syscall.SIGQUIT, stopKill: syscall.SIGKILL}[m])
}
