package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/devidp"
	"github.com/hoopctl/hoopctl/server/identity"
	"github.com/hoopctl/hoopctl/server/store"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

const password = "correct horse battery"

// house is a server as far as a client's login and tunnel see it: the real
// identity room behind the real API paths, and a tunnel that echoes.
type house struct {
	t      *testing.T
	dir    string
	addr   string
	ca     *identity.CA
	room   *identity.Room
	idp    *devidp.Provider
	issuer []identity.Issuer

	mu      sync.Mutex
	broken  map[string]int // status that a path answers instead
	renews  atomic.Int64
	renewed chan struct{} // holds one at most
	hellos  []tunnel.Hello
	mux     *http.ServeMux
	handed  chan net.Conn
	stopped chan struct{}
	stop    func()
}

type silent struct{}

func (silent) Append(*api.Event) (uint64, error)  { return 1, nil }
func (silent) Wait(context.Context, uint64) error { return nil }

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), broken: map[string]int{}, renewed: make(chan struct{}, 1)}
	h.startIDP()
	h.issuer = []identity.Issuer{
		{Name: "dev", URL: h.idp.URL()},
		{Name: "services", Kind: identity.Workload, URL: h.idp.URL(), Audience: devidp.ServiceAudience},
	}
	h.start("127.0.0.1:0")
	return h
}

func (h *house) startIDP() {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.idp, err = devidp.New(devidp.Config{Listener: l, Dir: filepath.Join(h.dir, "idp"), Password: password,
		Users:    []devidp.User{{Name: "alice", Groups: []string{"engineers"}}, {Name: "bob", Groups: []string{"dba"}}},
		Services: []devidp.Client{{ID: "billing", Secret: "0123456789abcdef", Groups: []string{"x"}}}})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.idp.Run(ctx) }()
	h.t.Cleanup(func() { cancel(); <-done })
}

// start runs the server on addr with the keys and logins of its folder.
func (h *house) start(addr string) {
	h.t.Helper()
	var err error
	if h.ca, err = identity.OpenCA(identity.CAConfig{Dir: filepath.Join(h.dir, "keys")}); err != nil {
		h.t.Fatal(err)
	}
	st, err := store.Open("sqlite:" + filepath.Join(h.dir, "store.db"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.room, err = identity.New(h.t.Context(), identity.Config{CA: h.ca, Store: st, Evidence: silent{}, Issuers: h.issuer,
		Service: func(_ string, claims map[string]any) (string, policy.ServiceSpec, bool) {
			return "billing", policy.ServiceSpec{Groups: []string{"billing"}}, claims["sub"] == "billing"
		}})
	if err != nil {
		h.t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr, h.handed, h.stopped = l.Addr().String(), make(chan net.Conn), make(chan struct{})
	h.routes()
	config := h.ca.TLSConfig()
	config.NextProtos = []string{tunnel.Protocol, "h2", "http/1.1"}
	go h.accept(l, config, h.stopped)
	web := &http.Server{Handler: h.mux}
	go web.Serve(&handed{h.handed, h.stopped, l.Addr()})
	var once sync.Once
	stopped := h.stopped
	h.stop = func() { once.Do(func() { close(stopped); l.Close(); web.Close(); st.Close() }) }
	h.t.Cleanup(h.stop)
}

type handed struct {
	conns chan net.Conn
	done  chan struct{}
	addr  net.Addr
}

func (l *handed) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *handed) Close() error   { return nil }
func (l *handed) Addr() net.Addr { return l.addr }

func (h *house) accept(l net.Listener, config *tls.Config, stopped chan struct{}) {
	for {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			c := tls.Server(raw, config)
			go func() { <-stopped; raw.Close() }()
			if c.Handshake() != nil {
				raw.Close()
				return
			}
			if c.ConnectionState().NegotiatedProtocol == tunnel.Protocol {
				h.tunnel(c)
				return
			}
			select {
			case h.handed <- c:
			case <-stopped:
			}
		}()
	}
}

// tunnel echoes what it reads until its client's half is closed.
func (h *house) tunnel(c *tls.Conn) {
	defer c.Close()
	hello, err := tunnel.Accept(context.Background(), c)
	if err != nil {
		return
	}
	if _, _, err := h.who(c.ConnectionState().PeerCertificates); err != nil {
		var e *api.Error
		errors.As(err, &e)
		tunnel.Reply(c, e)
		return
	}
	if hello.Grant == "g-over" {
		tunnel.Reply(c, &api.Error{Code: 410, Reason: api.ReasonRevoked, Message: "grant g-over was revoked by erin"})
		return
	}
	h.mu.Lock()
	h.hellos = append(h.hellos, hello)
	h.mu.Unlock()
	if tunnel.Reply(c, nil) == nil {
		io.Copy(c, c)
	}
}

func (h *house) who(certs []*x509.Certificate) (policy.Principal, string, error) {
	if len(certs) == 0 {
		return policy.Principal{}, "", &api.Error{Code: 401, Reason: api.ReasonLoginNeeded, Message: "login needed"}
	}
	return h.room.Principal(certs[0])
}

func (h *house) breakPath(path string, status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken[path] = status
}

// handle serves a path of the API. fn gets who calls, unless public.
func (h *house) handle(pattern string, public bool, fn func(r *http.Request, p policy.Principal, login string) (any, error)) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		status := h.broken[r.URL.Path]
		h.mu.Unlock()
		var out any
		err := error(&api.Error{Code: status, Reason: api.ReasonUnavailable, Message: "broken"})
		if status == 0 {
			var p policy.Principal
			var login string
			if err = nil; !public {
				p, login, err = h.who(r.TLS.PeerCertificates)
			}
			if err == nil {
				out, err = fn(r, p, login)
			}
		}
		var e *api.Error
		if errors.As(err, &e) {
			w.WriteHeader(e.Code)
			out = e
		} else if err != nil {
			w.WriteHeader(500)
			out = &api.Error{Code: 500, Reason: api.ReasonInternal, Message: err.Error()}
		}
		if out != nil {
			json.NewEncoder(w).Encode(out)
		}
	})
}

func (h *house) routes() {
	h.mux = http.NewServeMux()
	enroll := func(fn func(context.Context, api.Enroll, string) (api.Enrolled, error)) func(*http.Request, policy.Principal, string) (any, error) {
		return func(r *http.Request, _ policy.Principal, _ string) (any, error) {
			var e api.Enroll
			if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
				return nil, err
			}
			return fn(r.Context(), e, r.RemoteAddr)
		}
	}
	h.handle("GET "+api.PathInfo, true, func(*http.Request, policy.Principal, string) (any, error) {
		return api.Info{Name: "test", CAFingerprint: h.ca.Fingerprint(), Issuers: h.room.Issuers(), LogKey: "test+1+key"}, nil
	})
	h.handle("POST "+api.PathEnroll, true, enroll(func(ctx context.Context, e api.Enroll, s string) (api.Enrolled, error) {
		return h.room.Enroll(ctx, e, s)
	}))
	h.handle("POST "+api.PathRenew, true, enroll(func(ctx context.Context, e api.Enroll, s string) (api.Enrolled, error) {
		h.renews.Add(1)
		out, err := h.room.Renew(ctx, e, s)
		select {
		case h.renewed <- struct{}{}:
		default:
		}
		return out, err
	}))
	h.handle("GET "+api.PathWhoami, false, func(_ *http.Request, p policy.Principal, login string) (any, error) {
		return api.Whoami{Principal: p, ID: p.ID(), Login: login}, nil
	})
	h.handle("POST "+api.PathLogout, false, func(r *http.Request, p policy.Principal, login string) (any, error) {
		return nil, h.room.Logout(r.Context(), login, p, r.RemoteAddr, "")
	})
}

func (h *house) url() string { return "https://" + h.addr }

// client is one person's, on a machine of its own.
func (h *house) client(change ...func(*client.Config)) *client.Client {
	h.t.Helper()
	config := client.Config{Server: h.url(), Home: filepath.Join(h.t.TempDir(), "home"), FileOnly: true}
	for _, c := range change {
		c(&config)
	}
	c, err := client.New(config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Close)
	return c
}

// as answers the provider's page in somebody's name.
func (h *house) as(user string) client.LoginOptions {
	return client.LoginOptions{CAFingerprint: h.ca.Fingerprint(), Prompt: func(p client.Prompt) {
		if err := devidp.Answer(h.t.Context(), p.Complete, user, password); err != nil {
			h.t.Errorf("answer the page: %v", err)
		}
	}}
}

func (h *house) login(c *client.Client, user string) api.Enrolled {
	h.t.Helper()
	e, err := c.Login(h.t.Context(), h.as(user))
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// later is a clock that runs ahead once it is told to.
type later struct{ ahead atomic.Int64 }

func (l *later) now() time.Time            { return time.Now().Add(time.Duration(l.ahead.Load())) }
func (l *later) set(d time.Duration)       { l.ahead.Store(int64(d)) }
func at(l *later) func(c *client.Config)   { return func(c *client.Config) { c.Now = l.now } }
func home(dir string) func(*client.Config) { return func(c *client.Config) { c.Home = dir } }

func wantReason(t *testing.T, err error, want api.Reason) *api.Error {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *api.Error %s", err, want)
	}
	if e.Reason != want {
		t.Fatalf("got %s (%v), want %s", e.Reason, err, want)
	}
	return e
}
