package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

// TestMain lets stories run the real main as hoopctl, and ends the house that
// they share when all are done.
func TestMain(m *testing.M) {
	testscript.Main(stories{m}, map[string]func(){"hoopctl": main})
}

type stories struct{ *testing.M }

func (s stories) Run() int {
	defer shared.end()
	return s.M.Run()
}

// shared is the one house of all stories that change nothing in it. It is
// process state because TestMain and the stories share nothing else.
var shared houses

type houses struct {
	once  sync.Once
	house *running
	err   error
}

func (h *houses) get() (*running, error) {
	h.once.Do(func() {
		if h.house, h.err = newRunning(); h.err == nil {
			h.err = h.house.start()
		}
	})
	return h.house, h.err
}

func (h *houses) end() {
	if h.house != nil {
		h.house.remove()
	}
}

// running is a `hoopctl dev` as a process of its own.
type running struct {
	dir, ready string
	cmd        *exec.Cmd
	output     bytes.Buffer
	ended      chan struct{}
}

// newRunning makes a house's folder where PostgreSQL's own user can pass.
func newRunning() (*running, error) {
	dir, err := os.MkdirTemp("", "hoopctl-house-")
	if err != nil {
		return nil, err
	}
	return &running{dir: dir, ready: filepath.Join(dir, "ready.json")}, os.Chmod(dir, 0o711)
}

func (r *running) start(flags ...string) error {
	os.Remove(r.ready)
	args := append([]string{"dev", "--dir", filepath.Join(r.dir, "state"), "--port", "0", "--pg-port", "0", "--ready-file", r.ready}, flags...)
	r.cmd = exec.Command("hoopctl", args...)
	r.output.Reset()
	r.cmd.Stderr = &r.output
	r.ended = make(chan struct{})
	if err := r.cmd.Start(); err != nil {
		return err
	}
	go func() { r.cmd.Wait(); close(r.ended) }()
	late := time.After(2 * time.Minute) // with the race detector, on a machine that is shared
	for {
		if _, err := os.Stat(r.ready); err == nil {
			return nil
		}
		select {
		case <-r.ended:
			return fmt.Errorf("hoopctl dev ended:\n%s", r.output.String())
		case <-late:
			r.cmd.Process.Kill()
			<-r.ended
			return fmt.Errorf("hoopctl dev is not ready:\n%s", r.output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop asks the house to end and waits: it promises ten seconds.
func (r *running) stop(s os.Signal) error {
	if r.cmd == nil || r.cmd.Process == nil || r.cmd.Process.Signal(s) != nil {
		return nil
	}
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		r.cmd.Process.Kill()
		<-r.ended
		return errors.New("hoopctl dev did not end")
	}
	if code := r.cmd.ProcessState.ExitCode(); s == os.Interrupt && code != 0 {
		return fmt.Errorf("hoopctl dev ended with %d:\n%s", code, r.output.String())
	}
	return nil
}

func (r *running) remove() {
	r.stop(os.Interrupt)
	os.RemoveAll(r.dir)
}

// env are the variables that a story finds its house by.
func (r *running) env(set func(k, v string)) error {
	b, err := os.ReadFile(r.ready)
	if err != nil {
		return err
	}
	var ready readiness
	if err := json.Unmarshal(b, &ready); err != nil {
		return err
	}
	set("HOUSE", filepath.Join(r.dir, "state"))
	set("SERVER", ready.Server)
	set("CAFILE", ready.CAFile)
	set("FINGERPRINT", ready.CAFingerprint)
	set("AUDITOR", ready.AuditorKeyFile)
	set("EVIDENCE", ready.EvidenceDir)
	set("NATIVE", net.JoinHostPort(ready.Postgres.Host, strconv.Itoa(ready.Postgres.Port)))
	set("SERVERPORT", ready.Server[strings.LastIndexByte(ready.Server, ':')+1:])
	set("SAMPLE", fmt.Sprint(ready.Sample["postgres"]))
	return nil
}

// TestStories runs testdata/script/*.txtar: what users and attackers do, through
// the real main, a real server and a real PostgreSQL. testdata/script/README.md
// lists the commands that stories have beside testscript's own.
func TestStories(t *testing.T) {
	if testing.Short() {
		t.Skip("stories start a whole house")
	}
	bin, err := pgtest.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", env.Getenv("PATH")+string(filepath.ListSeparator)+bin)
			env.Setenv("HOOPCTL_HOME", filepath.Join(env.WorkDir, "home", "nobody"))
			env.Setenv("HOOPCTL_NO_BROWSER", "1")
			if cache, err := os.UserCacheDir(); err == nil {
				env.Setenv("XDG_CACHE_HOME", cache) // where the parser's compiled code lies
			}
			env.Values[own{}] = new(running)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"house":   cmdHouse,
			"as":      cmdAs,
			"exits":   cmdExits,
			"waitfor": cmdWaitFor,
			"ready":   cmdReady,
			"field":   cmdField,
			"garbage": cmdGarbage,
			"flip":    cmdFlip,
			"runs":    cmdRuns,
		},
	})
}

func must(ts *testscript.TestScript, err error) { ts.Check(err) }

// own is the key of a story's own house.
type own struct{}

// cmdHouse: `house` uses the shared house; `house own [flags]` starts one for
// this story; `house kill`, `house stop`, `house start [flags]` act upon it.
func cmdHouse(ts *testscript.TestScript, neg bool, args []string) {
	what := "shared"
	if len(args) > 0 {
		what = args[0]
	}
	r := ts.Value(own{}).(*running)
	switch what {
	case "shared":
		s, err := shared.get()
		must(ts, err)
		must(ts, s.env(ts.Setenv))
	case "own":
		fresh, err := newRunning()
		must(ts, err)
		r.dir, r.ready = fresh.dir, fresh.ready
		ts.Defer(r.remove)
		must(ts, r.start(args[1:]...))
		must(ts, r.env(ts.Setenv))
	case "kill":
		must(ts, r.stop(syscall.SIGKILL))
	case "stop":
		must(ts, r.stop(os.Interrupt))
	case "start":
		must(ts, r.start(args[1:]...))
		must(ts, r.env(ts.Setenv))
	default:
		ts.Fatalf("house %s?", what)
	}
}

// cmdAs: `as alice` logs alice in, once, and makes her the one who runs what follows.
func cmdAs(ts *testscript.TestScript, neg bool, args []string) {
	home := ts.MkAbs(filepath.Join("home", args[0]))
	ts.Setenv("HOOPCTL_HOME", home)
	if _, err := os.Stat(filepath.Join(home, "config.yaml")); err == nil && len(args) == 1 {
		return
	}
	must(ts, ts.Exec("hoopctl", "dev", "login", args[0], "--dir", ts.Getenv("HOUSE")))
}

// cmdExits: `exits 121 hoopctl …` runs a command and checks its exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	must(ts, err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		must(ts, err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdWaitFor: `waitfor REGEXP COMMAND…` runs the command until its stdout matches.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile(args[0])
	late := time.Now().Add(time.Minute)
	for {
		ts.Exec(args[1], args[2:]...)
		if want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(late) {
			ts.Fatalf("never: %s", args[0])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// cmdReady: `ready FILE VAR` waits for a ready file of connect and sets VAR to its URL.
func cmdReady(ts *testscript.TestScript, neg bool, args []string) {
	late := time.Now().Add(time.Minute)
	for {
		var places []place
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && json.Unmarshal(b, &places) == nil && len(places) > 0 {
			ts.Setenv(args[1], places[0].URL)
			ts.Setenv(args[1]+"_PORT", strconv.Itoa(places[0].Port))
			ts.Setenv(args[1]+"_GRANT", places[0].Grant)
			return
		}
		if time.Now().After(late) {
			ts.Fatalf("%s is never written", args[0])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cmdField: `field VAR FILE PATH` sets VAR to a value in a JSON file ("stdout"
// is the last command's): items.0.metadata.name. For an array, - is the last.
func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	var v any
	must(ts, json.Unmarshal([]byte(ts.ReadFile(args[1])), &v))
	for _, key := range strings.Split(args[2], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i := len(x) - 1
			if key != "-" {
				var err error
				i, err = strconv.Atoi(key)
				must(ts, err)
			}
			if i < 0 || i >= len(x) {
				ts.Fatalf("%s: there is no element %s of %d", args[2], key, len(x))
			}
			v = x[i]
		default:
			ts.Fatalf("%s: nothing at %s", args[2], key)
		}
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

// cmdGarbage: `garbage HOST:PORT|URL…` sends what no client sends, and wants
// each connection closed, without an answer that goes on.
func cmdGarbage(ts *testscript.TestScript, neg bool, args []string) {
	for _, addr := range args {
		if u, err := url.Parse(addr); err == nil && u.Host != "" {
			addr = u.Host
		}
		for _, bad := range []string{
			"GET / HTTP/1.1\r\n\r\n",
			"\x00\x00\x00\x00\x00\x00\x00\x00",
			"\x00\x00\x00\x04\x00\x03\x00\x00",
			"\x7f\xff\xff\xff\x00\x03\x00\x00user\x00",
			"\xff\xff\xff\xff\x00\x03\x00\x00",
			"\x00\x00\x00\x09\x00\x03\x00\x00\x00",
			"\x00\x00\x00\x08\x04\xd2\x16\x2fQ\x00\x00\x00\x0dSELECT 1\x00",
			"\x16\x03\x01\xff\xff" + strings.Repeat("A", 512),
			strings.Repeat("\x00\xff", 5000),
		} {
			conn, err := net.Dial("tcp", addr)
			must(ts, err)
			must(ts, conn.SetDeadline(time.Now().Add(30*time.Second)))
			io.WriteString(conn, bad)
			if c, ok := conn.(*net.TCPConn); ok {
				c.CloseWrite()
			}
			answer, err := io.ReadAll(io.LimitReader(conn, 1<<20))
			conn.Close()
			var netErr net.Error
			if errors.As(err, &netErr) && netErr.Timeout() {
				ts.Fatalf("%s: %.12q keeps the connection open", addr, bad)
			}
			if len(answer) > 4096 {
				ts.Fatalf("%s: %.12q gets %d bytes of answer", addr, bad, len(answer))
			}
		}
	}
}

// cmdFlip: `flip DIR` flips one bit in the middle of the newest segment of the
// evidence's log.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "log", "*"))
	must(ts, err)
	if len(files) == 0 {
		ts.Fatalf("there is no log in %s", args[0])
	}
	name := files[len(files)-1]
	b, err := os.ReadFile(name)
	must(ts, err)
	used := len(bytes.TrimRight(b, "\x00"))
	b[used/2] ^= 1
	must(ts, os.WriteFile(name, b, 0o600))
}

// cmdRuns: `runs TEXT` wants a process whose command line holds the text; `!
// runs TEXT` waits until there is none.
func cmdRuns(ts *testscript.TestScript, neg bool, args []string) {
	late := time.Now().Add(10 * time.Second)
	for {
		out, err := exec.Command("ps", "-eo", "args").Output()
		must(ts, err)
		found := false
		for line := range strings.Lines(string(out)) {
			found = found || strings.Contains(line, args[0])
		}
		if found != neg {
			return
		}
		if time.Now().After(late) {
			ts.Fatalf("runs %s: %v", args[0], found)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
