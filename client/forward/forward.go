package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

const (
	// defaultMax is how many connections of one forward may be open at once.
	defaultMax = 256
	// dialTimeout bounds opening one tunnel connection; the server may be
	// writing evidence, or waking up.
	dialTimeout = 60 * time.Second
	bufferSize  = 64 << 10
)

// Dialer opens tunnel connections; *client.Client is one.
type Dialer interface {
	// Dial opens one for the grant. A refusal by the server is an *api.Error.
	Dial(ctx context.Context, grant, forwardID, verifier string) (net.Conn, error)
}

// Config of a Forward.
type Config struct {
	Dialer Dialer
	Grant  string
	// Listen is host:port, port 0 for a random one. Default 127.0.0.1:0.
	// Hosts beyond loopback are refused unless Remote is set.
	Listen string
	Remote bool
	// SocketDir, if set, is where a unix socket is made instead of a port,
	// named .s.PGSQL.5432 as libpq looks for it: 0600, ours alone.
	SocketDir string
	// MaxConnections at once; default 256. One more is closed at once.
	MaxConnections int
	// Failed is told of each connection that could not be opened. It may be
	// called by several goroutines at once. May be nil.
	Failed func(error)
	Log    *slog.Logger // nil: silence
}

// Forward listens. Make it with [Listen], then call Serve.
type Forward struct {
	config   Config
	listener net.Listener
	id       string
	secret   string
	verifier string
	log      *slog.Logger

	drained chan struct{} // closed by Drain

	mu    sync.Mutex
	conns map[net.Conn]bool // local sides, for closing
}

// Listen opens the port or socket. Nothing is accepted before Serve.
func Listen(config Config) (*Forward, error) {
	if config.MaxConnections <= 0 {
		config.MaxConnections = defaultMax
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	f := &Forward{config: config, id: newID(), secret: newSecret(), log: config.Log, conns: map[net.Conn]bool{}, drained: make(chan struct{})}
	var err error
	if f.verifier, err = tunnel.Verifier(f.secret); err != nil {
		return nil, err
	}
	f.listener, err = config.open()
	return f, err
}

func (c Config) open() (net.Listener, error) {
	if c.SocketDir != "" {
		return listenSocket(c.SocketDir)
	}
	address := c.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open the local port: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); !c.Remote && (!ok || !a.IP.IsLoopback()) {
		l.Close()
		return nil, fmt.Errorf("open the local port: %s can be reached from other machines, and what passes is not encrypted", l.Addr())
	}
	return l, nil
}

// ID names the forward to the server.
func (f *Forward) ID() string { return f.id }

// Secret is what a client must show to use the forward.
func (f *Forward) Secret() string { return f.secret }

// Addr is where it listens: a *net.TCPAddr or a *net.UnixAddr.
func (f *Forward) Addr() net.Addr { return f.listener.Addr() }

// Port is the local port; 5432 for a socket, as libpq counts.
func (f *Forward) Port() int {
	if a, ok := f.listener.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return socketPort
}

// Close stops listening. Serve does it too; Close is for a forward that is
// never served.
func (f *Forward) Close() error { return f.listener.Close() }

// Drain lets nobody new in. Serve then returns nil once the connections that
// are open have ended by themselves, or ctx has: a server that ends sessions
// tells their clients why, and those words must still pass. It is called at most once.
func (f *Forward) Drain() {
	close(f.drained)
	f.listener.Close()
}

func (f *Forward) isDrained() bool {
	select {
	case <-f.drained:
		return true
	default:
		return false
	}
}

// await returns when the connections have ended, or ctx has.
func (f *Forward) await(ctx context.Context, wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Serve accepts connections until ctx ends (it then returns ctx's error) or
// the server says that the grant is over (it returns that *api.Error). It
// survives everything else: a server that restarts, a login that expired; new
// connections work again when they can. It returns when every connection is
// closed.
func (f *Forward) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, f.shut)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer f.shut()
	slots := make(chan struct{}, f.config.MaxConnections)
	for {
		local, err := f.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				local.Close()
			}
			return context.Cause(ctx)
		}
		if err != nil {
			if f.isDrained() {
				f.await(ctx, &wg)
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("the forward was closed: %w", err)
			}
			time.Sleep(20 * time.Millisecond) // out of descriptors: let some end
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			f.fail(fmt.Errorf("more than %d connections at once", f.config.MaxConnections))
			local.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if over := f.serve(ctx, local); over != nil {
				cancel(over)
			}
		})
	}
}

// shut closes the listener and every connection.
func (f *Forward) shut() {
	f.listener.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

func (f *Forward) track(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = true
}

func (f *Forward) forget(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	c.Close()
}

// serve relays one connection. It returns an error only if the grant is over.
func (f *Forward) serve(ctx context.Context, local net.Conn) (over error) {
	f.track(local)
	defer f.forget(local)
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	remote, err := f.config.Dialer.Dial(dialing, f.config.Grant, f.id, f.verifier)
	if err != nil {
		f.fail(err)
		if isOver(err) {
			return err
		}
		return nil
	}
	f.track(remote)
	defer f.forget(remote)
	if ctx.Err() != nil {
		return nil // shut may have run before remote was known to it
	}
	splice(local, remote)
	return nil
}

func (f *Forward) fail(err error) {
	f.log.Info("a connection of the forward failed", "forward", f.id, "error", err)
	if f.config.Failed != nil {
		f.config.Failed(err)
	}
}

// isOver reports whether no later connection under this grant can work.
func isOver(err error) bool {
	var e *api.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Reason {
	case api.ReasonExpired, api.ReasonRevoked, api.ReasonNotFound, api.ReasonWithdrawn:
		return true
	default:
		return false
	}
}

// splice copies both ways. The end of one half is passed on and the other goes
// on; an error ends both.
func splice(a, b net.Conn) {
	done := make(chan error, 2)
	half := func(dst, src net.Conn) {
		_, err := io.CopyBuffer(onlyWriter{dst}, onlyReader{src}, make([]byte, bufferSize))
		if err == nil {
			err = tunnel.CloseWrite(dst)
		}
		done <- err
	}
	go half(a, b)
	go half(b, a)
	if err := <-done; err != nil {
		a.Close()
		b.Close()
	}
	<-done
}

// onlyReader and onlyWriter hide ReadFrom and WriteTo, whose shortcuts would
// not use the buffer: one side is TLS, so the kernel cannot splice anyway.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }
