//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of processor time in /proc/PID/stat (proc(5)): USER_HZ is
// 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// process is a program that the benchmark started.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	stop os.Signal
}

// start starts a program that ends with the benchmark. Its output goes to a
// file in the scratch folder. As root, user names whom it runs as.
func (b *bench) start(name, user string, stop os.Signal, args ...string) (*process, error) {
	log, err := os.Create(b.path(name + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.Env = b.environment()
	if cmd.SysProcAttr, err = runAs(user); err != nil {
		return nil, err
	}
	cmd.SysProcAttr.Pdeathsig = stop.(syscall.Signal)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{}), stop: stop}
	go func() { cmd.Wait(); close(p.done) }()
	b.processes = append(b.processes, p)
	return p, nil
}

// runAs are the attributes that make a child run as another user, if this one
// may do that: neither PostgreSQL nor pgbouncer runs as root.
func runAs(name string) (*syscall.SysProcAttr, error) {
	if name == "" || os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, err
}

// stopAll ends what was started, the last first.
func (b *bench) stopAll() {
	for i := len(b.processes) - 1; i >= 0; i-- {
		p := b.processes[i]
		p.cmd.Process.Signal(p.stop)
		select {
		case <-p.done:
		case <-time.After(15 * time.Second):
			p.cmd.Process.Kill()
			<-p.done
		}
	}
}

// ended is an error if the process is no more.
func (p *process) ended(b *bench) error {
	select {
	case <-p.done:
		log, _ := os.ReadFile(b.path(p.name + ".log"))
		return fmt.Errorf("%s ended: %s", p.name, bytes.TrimSpace(log))
	default:
		return nil
	}
}

// usage is what a relay's processes have used.
type usage struct {
	cpu time.Duration // user and system
	rss int64         // KiB
}

// use reads the usage of a process and of those of its children that belong to
// the relay: hoopctl's SQL parser, and not the database that `hoopctl dev`
// brings with it.
func (p *process) use() (usage, error) {
	if p == nil {
		return usage{}, nil
	}
	total, err := usageOf(p.cmd.Process.Pid)
	if err != nil {
		return total, err
	}
	for _, pid := range childrenOf(p.cmd.Process.Pid) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.Contains(line, []byte("\x00__parse\x00")) && !bytes.HasSuffix(line, []byte("__parse\x00")) {
			continue
		}
		u, err := usageOf(pid)
		if err != nil {
			continue
		}
		total.cpu += u.cpu
		total.rss += u.rss
	}
	return total, nil
}

func usageOf(pid int) (usage, error) {
	var u usage
	fields, err := stat(pid)
	if err != nil {
		return u, err
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	pages, _ := strconv.ParseInt(fields[21], 10, 64)
	u.cpu = time.Duration(user+system) * tick
	u.rss = pages * int64(os.Getpagesize()) / 1024
	return u, nil
}

// stat returns the fields of /proc/PID/stat from the third (state) on: the
// second is the program's name, which may hold anything.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields, nil
}

func childrenOf(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}
