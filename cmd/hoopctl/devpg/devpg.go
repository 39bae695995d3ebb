// Package devpg runs a real PostgreSQL for hoopctl dev: from the machine's own
// binaries, on a loopback port, in a data folder of its own that survives
// restarts, even after a kill -9 of its parent.
//
// As root, PostgreSQL runs as the user postgres, else nobody: it refuses to run
// as root. It has a process group of its own, so that a Ctrl-C at the terminal
// does not reach it before its parent has cut the sessions, and on Linux it is
// told to go down when its parent dies.
package devpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says where and as whom.
type Config struct {
	// Dir is the state's folder. The data lies in Dir/postgres, or, where
	// PostgreSQL's user cannot reach that, in a 0700 folder of the system's
	// temporary directory that Dir/postgres.path names.
	Dir string
	// Port on 127.0.0.1; 0 is any free one.
	Port int
	// Password of the superuser postgres; it must be the same at every start.
	Password string
	// BinDir holds PostgreSQL's binaries; "" looks for them.
	BinDir string
	// Say hears what a person may want to know while they wait. Nil is silence.
	Say func(format string, a ...any)
}

// Server is a running PostgreSQL. Its methods are safe for concurrent use.
type Server struct {
	Port int
	// DataDir is PostgreSQL's data folder.
	DataDir string
	// LogFile is where PostgreSQL writes.
	LogFile string
	// Fresh says that the cluster was made by this start: nothing is in it.
	Fresh bool

	bin  string
	proc *os.Process
	done chan struct{}
	err  error // how it ended; readable once done is closed
}

// startWait bounds one start, crash recovery included.
const startWait = 25 * time.Second

// Start makes the cluster if there is none, waits out what is left of an
// earlier run, and returns when PostgreSQL takes connections.
func Start(ctx context.Context, c Config) (*Server, error) {
	if c.Say == nil {
		c.Say = func(string, ...any) {}
	}
	bin, err := findBinaries(c.BinDir)
	if err != nil {
		return nil, err
	}
	run, err := runAs()
	if err != nil {
		return nil, err
	}
	if c.Dir, err = realPath(c.Dir); err != nil {
		return nil, err
	}
	root, err := dataRoot(c.Dir, run)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, DataDir: filepath.Join(root, "data"), LogFile: filepath.Join(c.Dir, "postgres.log"), done: make(chan struct{})}
	if err := s.makeCluster(ctx, c, root, run); err != nil {
		return nil, err
	}
	if err := s.waitOutStale(ctx, c); err != nil {
		return nil, err
	}
	if s.Port, err = choosePort(c.Port); err != nil {
		return nil, err
	}
	if err := s.launch(run); err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Address is host:port.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// Done is closed when PostgreSQL has ended, asked or not.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says how it ended; nil before Done and after Stop.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop ends PostgreSQL: it cuts its sessions and writes a checkpoint; if that
// takes more than 5 s it is told to stop at once, and then it is killed. It
// returns when the process is gone, after at most 8 s.
func (s *Server) Stop() {
	for _, step := range []struct {
		ask  stopMode
		wait time.Duration
	}{{stopFast, 5 * time.Second}, {stopImmediate, 2 * time.Second}, {stopKill, time.Second}} {
		s.signal(step.ask)
		select {
		case <-s.done:
			return
		case <-time.After(step.wait):
		}
	}
}

// stopMode is one of PostgreSQL's ways to shut down.
// (https://www.postgresql.org/docs/15/server-shutdown.html)
type stopMode int

const (
	stopFast stopMode = iota
	stopImmediate
	stopKill
)

// findBinaries returns the folder of postgres and initdb.
func findBinaries(dir string) (string, error) {
	if dir != "" {
		if !hasBinaries(dir) {
			return "", &MissingError{Dir: dir}
		}
		return dir, nil
	}
	for _, dir := range binaryFolders() {
		if hasBinaries(dir) {
			return dir, nil
		}
	}
	return "", &MissingError{}
}

// MissingError says that this machine has no PostgreSQL, or that the folder
// which was named, Dir, holds none.
type MissingError struct{ Dir string }

func (e *MissingError) Error() string {
	if e.Dir != "" {
		return fmt.Sprintf("there is no %s and %s in %s", exe("postgres"), exe("initdb"), e.Dir)
	}
	return "there is no PostgreSQL on this machine: hoopctl dev runs the real one, from the machine's own binaries"
}

// Hint names the package to install.
func (*MissingError) Hint() string {
	switch runtime.GOOS {
	case "darwin":
		return "install it: brew install postgresql@18; or name the folder of initdb with --pg-bin"
	case "windows":
		return "install it: winget install PostgreSQL.PostgreSQL; or name the folder of initdb.exe with --pg-bin"
	default:
		return "install the package postgresql (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server); or name the folder of initdb with --pg-bin"
	}
}

// binaryFolders are where packages put them, the newest version first.
func binaryFolders() []string {
	var dirs []string
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	var found []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                   // the PostgreSQL project's RPMs
		"/opt/homebrew/opt/postgresql@*/bin", // Homebrew on arm64
		"/usr/local/opt/postgresql@*/bin",    // Homebrew on amd64
		"/usr/local/pgsql/bin",
		`C:\Program Files\PostgreSQL\*\bin`,
	} {
		m, _ := filepath.Glob(pattern)
		found = append(found, m...)
	}
	slices.SortStableFunc(found, func(a, b string) int { return major(b) - major(a) })
	return append(dirs, found...)
}

// major is the version in a folder's name, 0 if there is none.
func major(path string) int {
	base := filepath.Base(filepath.Dir(path))
	n, _ := strconv.Atoi(strings.TrimLeft(base, "abcdefghijklmnopqrstuvwxyz@-"))
	return n
}

func hasBinaries(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, exe(name))); err != nil {
			return false
		}
	}
	return true
}

func exe(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}

// makeCluster runs initdb. It works in a folder of its own and is renamed when
// it is whole: a kill in the middle leaves nothing that looks like a cluster.
func (s *Server) makeCluster(ctx context.Context, c Config, root string, run runner) error {
	if _, err := os.Stat(filepath.Join(s.DataDir, "PG_VERSION")); err == nil {
		return s.checkVersion()
	}
	c.Say("making a PostgreSQL cluster in %s", s.DataDir)
	s.Fresh = true
	fresh := filepath.Join(root, "fresh")
	for _, dir := range []string{fresh, s.DataDir} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear %s: %w", dir, err)
		}
	}
	password := filepath.Join(root, "password")
	defer os.Remove(password)
	if err := os.WriteFile(password, []byte(c.Password+"\n"), 0o600); err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	if err := run.own(password); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, exe("initdb")), "-D", fresh, "-U", "postgres", "-A", "scram-sha-256",
		"--pwfile", password, "-E", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir, cmd.Env = root, cleanEnv()
	run.prepare(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	if err := os.WriteFile(filepath.Join(fresh, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	if err := os.Rename(fresh, s.DataDir); err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	return nil
}

// hba lets every role into every database with its password, from this machine.
const hba = `# Written by hoopctl dev.
# TYPE  DATABASE  USER  ADDRESS        METHOD
host    all       all   127.0.0.1/32   scram-sha-256
host    all       all   ::1/128        scram-sha-256
`

// checkVersion names a data folder of another major version instead of letting
// PostgreSQL fail with it.
func (s *Server) checkVersion() error {
	b, err := os.ReadFile(filepath.Join(s.DataDir, "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("read the cluster's version: %w", err)
	}
	out, err := exec.Command(filepath.Join(s.bin, exe("postgres")), "--version").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", filepath.Join(s.bin, exe("postgres")), err)
	}
	have, want := strings.TrimSpace(string(b)), string(out)
	words := strings.Fields(want) // postgres (PostgreSQL) 15.18 (Debian …)
	if len(words) < 3 || strings.Split(words[2], ".")[0] == have {
		return nil
	}
	return fmt.Errorf("the data in %s is of PostgreSQL %s, the binaries in %s are of %s: use another --dir, or name the older binaries with --pg-bin", s.DataDir, have, s.bin, words[2])
}

// pidFile is what postmaster.pid says.
// (https://github.com/postgres/postgres/blob/REL_15_STABLE/src/include/utils/pidfile.h)
type pidFile struct {
	pid    int
	status string // starting, stopping, ready, standby
}

func (s *Server) readPidFile() (pidFile, bool) {
	b, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, false
	}
	lines := strings.Split(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return pidFile{}, false
	}
	f := pidFile{pid: pid}
	if len(lines) > 7 {
		f.status = strings.TrimSpace(lines[7])
	}
	return f, true
}

// waitOutStale waits for the PostgreSQL of a run that was killed: it may still
// be shutting down. One that nobody told to (outside Linux) is told now. A
// postmaster.pid without a PostgreSQL behind it is left to the new one.
func (s *Server) waitOutStale(ctx context.Context, c Config) error {
	deadline := time.Now().Add(15 * time.Second)
	for told := false; ; {
		f, ok := s.readPidFile()
		if !ok || !alive(f.pid) {
			return nil
		}
		if !servesData(f.pid, s.DataDir) {
			// The pid is another process's now. PostgreSQL would take it for a postmaster.
			c.Say("removing a stale postmaster.pid (pid %d is another process now)", f.pid)
			return os.Remove(filepath.Join(s.DataDir, "postmaster.pid"))
		}
		if !told {
			c.Say("waiting for the PostgreSQL of an earlier run to end (pid %d)", f.pid)
			told = true
			if p, err := os.FindProcess(f.pid); err == nil {
				sendStop(s.bin, p, stopFast)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("PostgreSQL of an earlier run still uses %s (pid %d, named in postmaster.pid): end it first", s.DataDir, f.pid)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// choosePort checks that the port is free, or finds one.
func choosePort(port int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) launch(run runner) error {
	// PostgreSQL's user need not reach Dir: it inherits the open file.
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.bin, exe("postgres")), "-D", s.DataDir, "-p", strconv.Itoa(s.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300",
		"-c", "logging_collector=off", "-c", "password_encryption=scram-sha-256")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.DataDir, cleanEnv(), log, log
	run.prepare(cmd)
	run.follow(cmd)
	started := make(chan error)
	go func() {
		// Linux ties a child's life to the *thread* that started it.
		runtime.LockOSThread()
		err := cmd.Start()
		s.proc = cmd.Process
		started <- err
		if err == nil {
			s.err = cmd.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	return nil
}

// awaitReady polls postmaster.pid, as pg_ctl does: PostgreSQL has no event to await.
func (s *Server) awaitReady(ctx context.Context) error {
	late := time.Now().Add(startWait)
	for {
		if f, ok := s.readPidFile(); ok && f.pid == s.proc.Pid && f.status == "ready" {
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("PostgreSQL did not start:\n%s", s.tail())
		default:
		}
		if time.Now().After(late) {
			return fmt.Errorf("PostgreSQL was not ready within %v:\n%s", startWait, s.tail())
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// tail is the end of PostgreSQL's log.
func (s *Server) tail() []byte {
	b, err := os.ReadFile(s.LogFile)
	if err != nil {
		return []byte(err.Error())
	}
	if len(b) > 1500 {
		b = b[len(b)-1500:]
	}
	return bytes.TrimSpace(b)
}

// cleanEnv is our environment without what would redirect PostgreSQL.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG")
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// realPath is absolute and without symbolic links, as a process's working
// directory is shown.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// dataRoot is the folder that the cluster lies in, made if need be.
func dataRoot(dir string, run runner) (string, error) {
	note := filepath.Join(dir, "postgres.path")
	if b, err := os.ReadFile(note); err == nil {
		root := strings.TrimSpace(string(b))
		// Whoever cleans temporary folders may have made room for a stranger's.
		if run.owns(root) {
			return root, nil
		}
	}
	root := filepath.Join(dir, "postgres")
	if run.reaches(dir) {
		if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("make PostgreSQL's folder: %w", err)
		}
		return root, run.own(root)
	}
	root, err := temporaryRoot(run)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(note, []byte(root+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("note PostgreSQL's folder: %w", err)
	}
	return root, nil
}

// temporaryRoot makes a 0700 folder below the system's temporary directory.
func temporaryRoot(run runner) (string, error) {
	for _, tmp := range []string{os.TempDir(), "/var/tmp", "/tmp"} {
		if !run.reaches(tmp) {
			continue
		}
		root, err := os.MkdirTemp(tmp, "hoopctl-dev-postgres-")
		if err == nil {
			root, err = realPath(root)
		}
		if err != nil {
			return "", fmt.Errorf("make PostgreSQL's folder: %w", err)
		}
		return root, run.own(root)
	}
	return "", fmt.Errorf("PostgreSQL runs as %s, which can reach neither --dir nor %s", run.name(), os.TempDir())
}
