package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/server/tunnel"
)

const (
	// handshakeTimeout bounds what a peer may take before it is known.
	handshakeTimeout = 10 * time.Second
	// maxUnfinished is how many connections of one address may be unfinished
	// at once. Past it the oldest unfinished one is closed, never the newest:
	// a stalled crowd cannot keep an honest client out.
	maxUnfinished = 256
)

// handshakes bounds unfinished connections by address. Safe for concurrent use.
type handshakes struct {
	mu     sync.Mutex
	byAddr map[netip.Addr][]net.Conn
}

// begin notes an unfinished connection; the returned function ends it.
func (h *handshakes) begin(c net.Conn) (end func()) {
	addr := addrOf(c).Addr()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byAddr == nil {
		h.byAddr = map[netip.Addr][]net.Conn{}
	}
	list := append(h.byAddr[addr], c)
	if len(list) > maxUnfinished {
		list[0].Close()
		list = list[1:]
	}
	h.byAddr[addr] = list
	return func() { h.end(addr, c) }
}

func (h *handshakes) end(addr netip.Addr, c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.byAddr[addr]
	for i := range list {
		if list[i] == c {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if h.byAddr[addr] = list; len(list) == 0 {
		delete(h.byAddr, addr)
	}
}

func addrOf(c net.Conn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// accept runs handle for each connection of l, each on its own goroutine, so
// that accepting never waits for a peer. It returns when l is closed, having
// waited for every handle.
func accept(l net.Listener, handle func(net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		var temporary interface{ Timeout() bool }
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.As(err, &temporary) && temporary.Timeout(), isOutOfFiles(err):
			time.Sleep(10 * time.Millisecond) // out of descriptors: let some end
			continue
		default:
			return err
		}
		wg.Go(func() { handle(c) })
	}
}

// handed is a net.Listener whose connections are handed to it: the HTTP
// server's side of the port that it shares.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func newHanded(addr net.Addr) *handed {
	return &handed{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handed) Addr() net.Addr { return h.addr }

// hand gives a connection to the HTTP server, or closes it if that has ended.
func (h *handed) hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

// route finishes the TLS handshake of a connection on the one port and sends
// it to the room that its ALPN names.
func (s *Server) route(ctx context.Context, raw net.Conn) {
	end := s.unfinished.begin(raw)
	c := tls.Server(raw, s.tls)
	hs, cancel := context.WithTimeout(ctx, handshakeTimeout)
	err := c.HandshakeContext(hs)
	cancel()
	end()
	if err != nil {
		raw.Close()
		s.log.Debug("tls handshake", "source", addrOf(raw), "error", err)
		return
	}
	switch c.ConnectionState().NegotiatedProtocol {
	case tunnel.Protocol:
		defer c.Close()
		s.serveTunnel(ctx, c)
	case "h2", "http/1.1", "":
		s.http.hand(c)
	default:
		c.Close()
	}
}
