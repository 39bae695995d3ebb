package devpg_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/cmd/hoopctl/devpg"
)

// reachable is a folder that PostgreSQL's own user can walk to.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hoopctl-devpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, c devpg.Config) *devpg.Server {
	t.Helper()
	c.Password = "secret"
	s, err := devpg.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func query(t *testing.T, s *devpg.Server, password, sql string) error {
	t.Helper()
	conn, err := exec.Open(t.Context(), exec.Config{
		Dial: func(context.Context) (net.Conn, error) { return net.Dial("tcp", s.Address()) },
		User: "postgres", Password: password, Database: "postgres",
	})
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Run(t.Context(), sql, exec.Discard, exec.Options{})
	return err
}

func TestStartsAgainOnItsFolder(t *testing.T) {
	dir := reachable(t)
	s := start(t, devpg.Config{Dir: dir})
	if !s.Fresh {
		t.Error("a new cluster is not fresh")
	}
	if err := query(t, s, "secret", "CREATE TABLE kept (n int)"); err != nil {
		t.Fatal(err)
	}
	if err := query(t, s, "wrong", "SELECT 1"); err == nil {
		t.Error("any password will do")
	}
	s.Stop()
	<-s.Done()
	again := start(t, devpg.Config{Dir: dir, Port: s.Port})
	if again.Fresh || again.Port != s.Port {
		t.Errorf("fresh %v, port %d; want the old cluster on %d", again.Fresh, again.Port, s.Port)
	}
	if err := query(t, again, "secret", "SELECT n FROM kept"); err != nil {
		t.Error(err)
	}
}

// A postmaster.pid whose pid is another process's now, after a reboot say.
func TestStalePidFile(t *testing.T) {
	dir := reachable(t)
	s := start(t, devpg.Config{Dir: dir})
	s.Stop()
	stale := fmt.Sprintf("%d\n%s\n0\n%d\n\n127.0.0.1\n  0  0\nready   \n", os.Getpid(), s.DataDir, s.Port)
	if err := os.WriteFile(filepath.Join(s.DataDir, "postmaster.pid"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := query(t, start(t, devpg.Config{Dir: dir}), "secret", "SELECT 1"); err != nil {
		t.Error(err)
	}
}

// Below a folder that only we can enter, another user's PostgreSQL gets a
// private folder elsewhere, and finds it again.
func TestFolderThatCannotBePassed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root starts PostgreSQL as another user")
	}
	dir := filepath.Join(reachable(t), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := start(t, devpg.Config{Dir: dir})
	if strings.HasPrefix(s.DataDir, dir) {
		t.Fatalf("the data lies in %s", s.DataDir)
	}
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(s.DataDir)) })
	if info, err := os.Stat(filepath.Dir(s.DataDir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	s.Stop()
	if again := start(t, devpg.Config{Dir: dir}); again.Fresh || again.DataDir != s.DataDir {
		t.Errorf("fresh %v in %s, want %s", again.Fresh, again.DataDir, s.DataDir)
	}
}

func TestMissingBinaries(t *testing.T) {
	named := t.TempDir()
	_, err := devpg.Start(t.Context(), devpg.Config{Dir: t.TempDir(), BinDir: named})
	var missing *devpg.MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "initdb") || !strings.Contains(err.Error(), named) {
		t.Errorf("the folder that was named is not in the error: %v", err)
	}
	if hint := (&devpg.MissingError{}).Hint(); !strings.Contains(hint, "postgresql") {
		t.Errorf("the hint names no package: %s", hint)
	}
}
