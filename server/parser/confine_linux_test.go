package parser

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// children are the processes that this one started as parsers.
func children(t *testing.T) []int {
	t.Helper()
	var out []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		var pid, parent int
		var state string
		data, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		fmt.Sscan(string(data), &pid)
		_, rest, _ := strings.Cut(string(data), ") ")
		fmt.Sscan(rest, &state, &parent)
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if parent == os.Getpid() && state != "Z" && strings.Contains(string(cmd), "__parse") {
			out = append(out, pid)
		}
	}
	return out
}

func TestTheChildIsConfined(t *testing.T) {
	t.Setenv("HOOPCTL_SECRET", "must not be seen")
	p := newPool(t, Config{Memory: 900 << 20, Workers: 1})
	pids := children(t)
	if len(pids) != 1 {
		t.Fatalf("children: %v", pids)
	}
	proc := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pids[0], name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if env := proc("environ"); env != "" {
		t.Errorf("its environment is %q", env)
	}
	limits := proc("limits")
	data := uint64(900<<20) * instrumented
	for _, want := range []string{fmt.Sprintf("Max data size             %-20d %-20d", data, data), "Max cpu time              600                  600", "Max core file size        0                    0"} {
		if !strings.Contains(limits, want) {
			t.Errorf("no %q in\n%s", want, limits)
		}
	}
	if !strings.Contains(proc("status"), "NoNewPrivs:\t1") {
		t.Error("it may gain privileges")
	}
	_ = p.Close()
	if left := children(t); len(left) != 0 {
		t.Errorf("after Close: %v", left)
	}
}

func TestAKilledChildIsReplacedWhileIdle(t *testing.T) {
	p := newPool(t, Config{Workers: 1})
	pids := children(t)
	if len(pids) != 1 {
		t.Fatalf("children: %v", pids)
	}
	proc, err := os.FindProcess(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Kill(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		if now := children(t); len(now) == 1 && now[0] != pids[0] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no new child")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := kinds(t, p, "alice", "SELECT 1"); got != "SELECT/read" {
		t.Error(got)
	}
}
