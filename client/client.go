package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

const (
	// providerTimeout bounds one exchange with an identity provider. x/oauth2's
	// own default is none: a wedged provider would hang every command.
	providerTimeout = 15 * time.Second
	// callTimeout bounds one call that is not a watch or a download.
	callTimeout = 60 * time.Second
	// maxAnswer bounds a JSON answer in bytes.
	maxAnswer = 64 << 20
)

// Config says which server, and where its login is kept.
type Config struct {
	// Server is the server's URL: https://host[:port].
	Server string
	// Home is the folder below which logins are kept (logins/…, mode 0700).
	Home string
	// FileOnly keeps the login's key and refresh token in Home's 0600 file.
	// Otherwise they lie in Keyring, with that file as the fallback.
	FileOnly bool
	// Keyring is where secrets lie; nil is the operating system's.
	Keyring Keyring
	// CAFile is a PEM file of roots to trust for Server before there is a
	// login that remembers them; "" is the system's.
	CAFile string
	// Proxy names the proxy of a request; nil is http.ProxyFromEnvironment
	// (HTTPS_PROXY, NO_PROXY).
	Proxy func(*http.Request) (*url.URL, error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// UserAgent is sent with every call: "hoopctl/1.2.3".
	UserAgent string
	// Log hears what a person debugging would want to know; never a secret. Nil is silence.
	Log *slog.Logger
}

// Client speaks to one server. Make it with [New]; it is safe for concurrent use.
type Client struct {
	server *url.URL
	addr   string // host:port
	proxy  func(*http.Request) (*url.URL, error)
	now    func() time.Time
	agent  string
	log    *slog.Logger
	store  store
	caFile string

	mu      sync.Mutex
	current *credentials // nil until loaded
	retry   time.Time    // no renewal is tried before, after one failed
	over    string       // name of the login that Keep reported as over, "" if none
}

// New returns a client of config.Server. It reads and writes nothing yet: a
// client without a login can still ask for Info and log in.
func New(config Config) (*Client, error) {
	u, addr, err := parseServer(config.Server)
	if err != nil {
		return nil, err
	}
	if config.Home == "" {
		return nil, errors.New("client: no folder to keep the login in")
	}
	c := &Client{
		server: u, addr: addr, proxy: config.Proxy, now: config.Now,
		agent: config.UserAgent, log: config.Log, caFile: config.CAFile,
		store: newStore(config.Home, addr, config.FileOnly, config.Keyring),
	}
	if c.proxy == nil {
		c.proxy = http.ProxyFromEnvironment
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.agent == "" {
		c.agent = "hoopctl"
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// parseServer normalises a server's URL; a bare host[:port] is taken as https.
func parseServer(s string) (*url.URL, string, error) {
	if s == "" {
		return nil, "", errors.New("no server is named: hoopctl login https://host:8443")
	}
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, "", fmt.Errorf("server: %w", err)
	}
	if u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, "", fmt.Errorf("server %q: want https://host[:port] and nothing more", s)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	addr := net.JoinHostPort(strings.ToLower(u.Hostname()), port)
	return &url.URL{Scheme: "https", Host: addr}, addr, nil
}

// Server is the server's URL with its port.
func (c *Client) Server() string { return c.server.String() }

// Close lets idle connections go. The client may still be used.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		c.current.http.CloseIdleConnections()
	}
}

// Dial opens one tunnel connection for the grant: the session's bytes follow.
// forwardID is the forward's random id (16 hex digits), verifier its secret's
// SCRAM-SHA-256 verifier. A refusal by the server is an *api.Error.
func (c *Client) Dial(ctx context.Context, grant, forwardID, verifier string) (net.Conn, error) {
	hello := tunnel.Hello{Grant: grant, Forward: forwardID, Verifier: verifier}
	conn, err := c.dialTunnel(ctx, hello)
	if isExpired(err) { // our clock may be behind the server's: once more with a new certificate
		if err := c.renewNow(ctx); err != nil {
			return nil, err
		}
		conn, err = c.dialTunnel(ctx, hello)
	}
	return conn, err
}

func (c *Client) dialTunnel(ctx context.Context, hello tunnel.Hello) (net.Conn, error) {
	cred, err := c.ready(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := c.dialServer(ctx)
	if err != nil {
		return nil, c.unreachable(err)
	}
	conn, err := tunnel.Client(ctx, raw, cred.tls, hello)
	if err != nil {
		return nil, c.explain(err)
	}
	return conn, nil
}

// call sends in as JSON (nil: no body) and decodes the answer into out (nil:
// none is wanted). Errors are an *api.Error somewhere in the chain.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := c.send(ctx, method, path, query, in, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return decode(res.Body, out)
}

func decode(r io.Reader, out any) error {
	if out == nil {
		return nil
	}
	err := json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(out)
	if err != nil {
		return &failure{&api.Error{Code: http.StatusBadGateway, Reason: api.ReasonUnavailable,
			Message: "the server's answer could not be read: " + err.Error(), Source: source}, err}
	}
	return nil
}

// send returns an answer of status 2xx, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any, header http.Header) (*http.Response, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode %T: %w", in, err)
		}
	}
	cred, err := c.ready(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.sendOnce(ctx, cred.http, method, path, query, body, header)
	if isExpired(err) {
		if err := c.renewNow(ctx); err != nil {
			return nil, err
		}
		if cred, err = c.ready(ctx); err != nil {
			return nil, err
		}
		res, err = c.sendOnce(ctx, cred.http, method, path, query, body, header)
	}
	return res, err
}

func (c *Client) sendOnce(ctx context.Context, h *http.Client, method, path string, query url.Values, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	req.URL.RawQuery = query.Encode()
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.agent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := h.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, readError(res)
}

// readError turns an answer that is no success into an *api.Error, whatever
// stands in it: something that is not our server may have answered.
func readError(res *http.Response) error {
	var e api.Error
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if json.Unmarshal(b, &e) != nil || e.Reason == "" {
		return &api.Error{Code: res.StatusCode, Reason: api.ReasonUnavailable, Source: source,
			Message: fmt.Sprintf("%s answered %s, and not as a hoopctl server does", res.Request.URL.Host, res.Status),
			Hint:    "is that the server's address, and is there something between?"}
	}
	if e.RequestID == "" {
		e.RequestID = res.Header.Get(api.HeaderRequestID)
	}
	return &e
}

const source = "broker"

// failure is an *api.Error with what caused it.
type failure struct {
	said  *api.Error
	cause error
}

func (f *failure) Error() string   { return f.said.Message }
func (f *failure) Unwrap() []error { return []error{f.said, f.cause} }

// unreachable explains why no answer came. The cause stays in the chain.
func (c *Client) unreachable(err error) error {
	if why := c.distrust(err); why != nil {
		return why
	}
	var u *url.Error
	cause := err
	if errors.As(err, &u) {
		cause = u.Err
	}
	return &failure{&api.Error{Code: http.StatusServiceUnavailable, Reason: api.ReasonUnavailable, Source: source,
		Message: fmt.Sprintf("%s cannot be reached: %v", c.addr, cause),
		Hint:    "is the server running, and is the address right? (--server, --context)"}, err}
}

// explain leaves a server's refusal as it is and explains everything else.
func (c *Client) explain(err error) error {
	var refused *api.Error
	if errors.As(err, &refused) {
		return err
	}
	return c.unreachable(err)
}

func isExpired(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Reason == api.ReasonLoginExpired
}

// transport returns an HTTP client that speaks TLS as config says.
func (c *Client) transport(config *tls.Config) *http.Client {
	config = config.Clone()
	config.NextProtos = nil
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 c.proxy,
			TLSClientConfig:       config,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: callTimeout,
			IdleConnTimeout:       90 * time.Second,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		},
		// The API never redirects; following one would send requests elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// credentials are a loaded login, ready to be shown to the server.
type credentials struct {
	login *login
	leaf  *x509.Certificate
	tls   *tls.Config
	http  *http.Client
}
