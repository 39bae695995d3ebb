package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Standby returns a hot standby of s, of its own folder and port, that streams
// from it. It stops when t ends.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	copied, err := s.standby()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(copied.stop)
	return copied
}

func (s *Server) standby() (*Server, error) {
	dir, err := os.MkdirTemp("", "hoopctl-pg-")
	if err != nil {
		return nil, err
	}
	copied := &Server{Superuser: s.Superuser, Password: s.Password, CA: s.CA, Dir: dir, BinDir: s.BinDir, programs: s.programs}
	for _, name := range []string{"server.key", "server.crt"} {
		b, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := handOver(dir); err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(s.BinDir, "pg_basebackup"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", s.Superuser, "-D", copied.data(),
		"-R", "-c", "fast", "-X", "stream", "--no-sync")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PGPASSWORD="+s.Password)
	asOwner(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("pgtest: pg_basebackup: %w\n%s", err, out)
	}
	for range 3 { // another process may take the port that was free
		if err = copied.launch(nil); err == nil {
			return copied, nil
		}
	}
	os.RemoveAll(dir)
	return nil, err
}
