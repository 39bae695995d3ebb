package forward

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

// server is what a forward dials: each connection is handed to handle.
type server struct {
	mu       sync.Mutex
	listener net.Listener
	refuse   error
	dials    []string
	handle   func(net.Conn)
}

func newServer(t *testing.T, handle func(net.Conn)) *server {
	t.Helper()
	s := &server{handle: handle}
	s.start(t)
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.handle(c)
		}
	}()
}

func (s *server) Dial(ctx context.Context, grant, forwardID, verifier string) (net.Conn, error) {
	s.mu.Lock()
	s.dials = append(s.dials, grant+" "+forwardID+" "+verifier)
	refuse, addr := s.refuse, s.listener.Addr().String()
	s.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

func (s *server) refuseWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

// upper answers what it read, in capitals, once the client's half is closed.
func upper(c net.Conn) {
	defer c.Close()
	if b, err := io.ReadAll(c); err == nil {
		c.Write(bytes.ToUpper(b))
	}
}

func echo(c net.Conn) {
	defer c.Close()
	io.Copy(c, c)
}

// run serves a forward until the test ends.
func run(t *testing.T, config Config) (*Forward, <-chan error, context.CancelFunc) {
	t.Helper()
	f, err := Listen(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx) }()
	t.Cleanup(cancel)
	return f, done, cancel
}

func dial(t *testing.T, f *Forward) net.Conn {
	t.Helper()
	c, err := net.Dial(f.Addr().Network(), f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func says(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("%q, %v", b, err)
	}
}

func isClosed(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes of a connection that should be closed", n)
	}
}

func TestHalvesCloseOnTheirOwn(t *testing.T) {
	s := newServer(t, upper)
	f, _, _ := run(t, Config{Dialer: s, Grant: "g-1"})
	c := dial(t, f)
	big := strings.Repeat("hello ", 1<<18)
	go func() {
		io.WriteString(c, big)
		tunnel.CloseWrite(c)
	}()
	b, err := io.ReadAll(c)
	if err != nil || string(b) != strings.ToUpper(big) {
		t.Fatalf("%d bytes of %d, %v", len(b), len(big), err)
	}
	if got := strings.Fields(s.dials[0]); got[0] != "g-1" || got[1] != f.ID() || len(f.ID()) != 16 {
		t.Errorf("%v", got)
	}
}

func TestManyConnectionsAtOnce(t *testing.T) {
	s := newServer(t, echo)
	f, done, cancel := run(t, Config{Dialer: s, Grant: "g-1"})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c, err := net.Dial("tcp", f.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			text := []byte(rand.Text())
			c.Write(text)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	open := dial(t, f)
	says(t, open, "x")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	isClosed(t, open)
	if c, err := net.Dial("tcp", f.Addr().String()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func TestItSurvivesAServerThatRestarts(t *testing.T) {
	s := newServer(t, echo)
	failed := make(chan error, 1)
	f, _, _ := run(t, Config{Dialer: s, Failed: func(err error) { failed <- err }})
	says(t, dial(t, f), "before")
	s.listener.Close()
	isClosed(t, dial(t, f))
	if err := <-failed; err == nil {
		t.Error("nobody was told why")
	}
	s.refuseWith(&api.Error{Reason: api.ReasonLoginExpired, Message: "log in"})
	isClosed(t, dial(t, f))
	if err := <-failed; err == nil || err.Error() != "log in" {
		t.Error(err)
	}
	s.start(t)
	s.refuseWith(nil)
	says(t, dial(t, f), "after")
}

func TestItEndsWithItsGrant(t *testing.T) {
	for _, reason := range []api.Reason{api.ReasonRevoked, api.ReasonExpired, api.ReasonNotFound} {
		s := newServer(t, echo)
		f, done, _ := run(t, Config{Dialer: s})
		open := dial(t, f)
		says(t, open, "x")
		s.refuseWith(&api.Error{Reason: reason, Message: "grant g-1 is over"})
		isClosed(t, dial(t, f))
		var e *api.Error
		if err := <-done; !errors.As(err, &e) || e.Reason != reason {
			t.Errorf("%s: %v", reason, err)
		}
		isClosed(t, open)
	}
}

func TestItIsBounded(t *testing.T) {
	s := newServer(t, echo)
	failed := make(chan error, 10)
	f, _, _ := run(t, Config{Dialer: s, MaxConnections: 2, Failed: func(err error) { failed <- err }})
	a, b := dial(t, f), dial(t, f)
	says(t, a, "a")
	says(t, b, "b")
	isClosed(t, dial(t, f))
	if err := <-failed; !strings.Contains(err.Error(), "more than 2") {
		t.Error(err)
	}
	says(t, a, "still")
	a.Close()
	for { // its place is free as soon as it is noticed
		c := dial(t, f)
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
			break
		}
	}
}

func TestACutServerCutsTheClient(t *testing.T) {
	conns := make(chan net.Conn, 1)
	s := newServer(t, func(c net.Conn) { conns <- c })
	f, _, _ := run(t, Config{Dialer: s})
	c := dial(t, f)
	far := <-conns
	io.WriteString(far, "FATAL")
	far.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(c); err != nil || string(b) != "FATAL" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestT65_TheLocalPort(t *testing.T) {
	s := newServer(t, echo)
	t.Run("T65 only loopback", func(t *testing.T) {
		for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
			if f, err := Listen(Config{Dialer: s, Listen: address}); err == nil {
				f.Close()
				t.Errorf("listens on %s", address)
			}
		}
		f, err := Listen(Config{Dialer: s, Listen: "0.0.0.0:0", Remote: true})
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
	t.Run("T65 a secret for each forward, announced as its verifier only", func(t *testing.T) {
		f, _, _ := run(t, Config{Dialer: s})
		g, _, _ := run(t, Config{Dialer: s})
		if f.Secret() == g.Secret() || f.ID() == g.ID() || len(f.Secret()) < 26 {
			t.Errorf("%q and %q", f.Secret(), g.Secret())
		}
		says(t, dial(t, f), "x")
		for _, d := range s.dials {
			if strings.Contains(d, f.Secret()) {
				t.Error("the secret was sent to the server")
			}
		}
		if !proves(t, f.verifier, f.Secret()) {
			t.Error("an independent SCRAM client cannot log in with the secret")
		}
		if proves(t, f.verifier, g.Secret()) || proves(t, f.verifier, strings.ToLower(f.Secret())) {
			t.Error("another secret logs in")
		}
	})
	t.Run("T65 a taken port is said", func(t *testing.T) {
		f, _, _ := run(t, Config{Dialer: s})
		if _, err := Listen(Config{Dialer: s, Listen: "127.0.0.1:" + strconv.Itoa(f.Port())}); err == nil {
			t.Error("two forwards on one port")
		}
	})
}

// proves runs the SCRAM exchange of an independent library (xdg-go/scram)
// between a client with the secret and a server with the verifier.
func proves(t *testing.T, verifier, secret string) bool {
	t.Helper()
	parts := strings.FieldsFunc(verifier, func(r rune) bool { return r == '$' || r == ':' })
	if len(parts) != 5 || parts[0] != "SCRAM-SHA-256" {
		t.Fatalf("verifier %q", verifier)
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var raw [3][]byte
	for i, p := range parts[2:] {
		if raw[i], err = base64.StdEncoding.DecodeString(p); err != nil {
			t.Fatal(err)
		}
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
		return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(raw[0]), Iters: n}, StoredKey: raw[1], ServerKey: raw[2]}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := scram.SHA256.NewClient("x", secret, "")
	if err != nil {
		t.Fatal(err)
	}
	c, v := client.NewConversation(), server.NewConversation()
	message := ""
	for !c.Done() {
		if message, err = c.Step(message); err != nil {
			return false
		}
		if v.Done() {
			break
		}
		if message, err = v.Step(message); err != nil {
			return false
		}
	}
	return c.Valid() && v.Valid()
}

func TestT65_TheSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on Windows")
	}
	s := newServer(t, echo)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	f, done, cancel := run(t, Config{Dialer: s, SocketDir: dir})
	path := filepath.Join(dir, ".s.PGSQL.5432")
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 || info.Mode().Perm() != 0o600 || f.Port() != 5432 {
		t.Fatalf("%v, %v, port %d", info, err, f.Port())
	}
	says(t, dial(t, f), "hello")
	if _, err := Listen(Config{Dialer: s, SocketDir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a live socket was taken over: %v", err)
	}
	cancel()
	<-done
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	t.Run("T65 a socket that nobody listens on is replaced", func(t *testing.T) {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		f, _, _ := run(t, Config{Dialer: s, SocketDir: dir})
		says(t, dial(t, f), "hello")
	})
	t.Run("T65 a file is not", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, ".s.PGSQL.5432")
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(Config{Dialer: s, SocketDir: dir}); err == nil {
			t.Error("a file was overwritten")
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// What a server says before it ends a session must pass, though the grant is over.
func TestDrainLetsLastWordsPass(t *testing.T) {
	far, near := net.Pipe()
	f, err := Listen(Config{Dialer: dialerFunc(func(context.Context, string, string, string) (net.Conn, error) { return near, nil }), Grant: "g-1"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(t.Context()) }()
	local, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if _, err := local.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	f.Drain()
	if c, err := net.Dial("tcp", f.Addr().String()); err == nil {
		c.Close()
		t.Error("a drained forward lets others in")
	}
	if _, err := far.Write([]byte("revoked")); err != nil {
		t.Fatal(err)
	}
	far.Close()
	if b, err := io.ReadAll(local); err != nil || string(b) != "revoked" {
		t.Errorf("the client heard %q, %v", b, err)
	}
	local.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

type dialerFunc func(ctx context.Context, grant, forwardID, verifier string) (net.Conn, error)

func (d dialerFunc) Dial(ctx context.Context, grant, forwardID, verifier string) (net.Conn, error) {
	return d(ctx, grant, forwardID, verifier)
}
