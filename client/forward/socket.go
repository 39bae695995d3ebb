package forward

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
)

const (
	// socketPort is the port that libpq reads out of a socket's name.
	socketPort = 5432
	socketName = ".s.PGSQL.5432"
)

// socket is a listener whose file was moved to where clients look for it.
type socket struct {
	net.Listener
	path string
	made os.FileInfo
	once sync.Once
}

// listenSocket makes the socket in a private folder first, so that nobody can
// connect before it is ours alone, and moves it into place. A socket that
// nobody listens on any more is replaced; a live one is not.
func listenSocket(dir string) (net.Listener, error) {
	path, err := filepath.Abs(filepath.Join(dir, socketName))
	if err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("open the local socket: %s is in use", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("open the local socket: %s exists and is no socket", path)
	}
	private, err := os.MkdirTemp(dir, ".h")
	if err != nil {
		return nil, fmt.Errorf("open the local socket: %w", err)
	}
	defer os.RemoveAll(private)
	return moveIn(filepath.Join(private, "s"), path)
}

func moveIn(from, path string) (net.Listener, error) {
	l, err := net.Listen("unix", from)
	if err != nil {
		return nil, fmt.Errorf("open the local socket: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	s := &socket{Listener: l, path: path}
	if err = os.Chmod(from, 0o600); err == nil {
		if s.made, err = os.Lstat(from); err == nil {
			err = os.Rename(from, path)
		}
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open the local socket: %w", err)
	}
	return s, nil
}

// Addr is where clients find the socket.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the file too, unless another forward has taken its place.
func (s *socket) Close() error {
	err := s.Listener.Close()
	s.once.Do(func() {
		if info, e := os.Lstat(s.path); e == nil && os.SameFile(info, s.made) {
			os.Remove(s.path)
		}
	})
	return err
}
