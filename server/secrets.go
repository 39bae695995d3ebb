package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/store"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

const (
	kindSecret     = "secret"
	defaultSecret  = 5 * time.Minute
	maxSecret      = 24 * time.Hour
	triesPerMinute = 30 // wrong secrets of one address
)

// secret is a short-lived secret for the native endpoint, as the store keeps
// it: its SCRAM verifier, never itself.
type secret struct {
	Handle      string           `json:"handle"`
	Verifier    string           `json:"verifier"`
	Principal   policy.Principal `json:"principal"`
	Login       string           `json:"login"`
	Grant       string           `json:"grant"`
	Expires     time.Time        `json:"expires"`
	Connections int              `json:"connections,omitempty"` // that may still be opened; 0 is any number
	Used        int              `json:"used,omitempty"`
	Source      string           `json:"source,omitempty"` // CIDR
}

// postSecret issues a secret under a grant that the caller has or gets.
func (s *Server) postSecret(c *call) (any, error) {
	in, err := read[api.SecretRequest](c)
	if err != nil {
		return nil, err
	}
	if !s.addresses.Postgres.IsValid() {
		return nil, &api.Error{Reason: api.ReasonUnavailable, Message: "this server has no native PostgreSQL endpoint", Hint: "set postgresListen in server.yaml, or use hoopctl connect"}
	}
	if in.SourceCIDR != "" {
		if _, err := netip.ParsePrefix(in.SourceCIDR); err != nil {
			return nil, invalid("--source %q is no network: write it as in 10.0.0.0/8, a single address as in 10.1.2.3/32", in.SourceCIDR)
		}
	}
	g, err := s.grants.Request(c.Context(), c.who, api.GrantRequest{Target: in.Target, Reason: in.Reason, Purpose: in.Purpose, Reuse: true}, c.source.Addr())
	if err != nil {
		return nil, err
	}
	if g.Grant == nil {
		return nil, &api.Error{Reason: api.ReasonPending, Message: fmt.Sprintf("a grant on %s needs approval: request %s", in.Target, g.Request.Metadata.Name),
			Hint: "hoopctl request wait " + g.Request.Metadata.Name + ", then ask again", Request: g.Request.Metadata.Name}
	}
	return s.issueSecret(c, in, *g.Grant)
}

func (s *Server) issueSecret(c *call, in api.SecretRequest, g api.Grant) (any, error) {
	res, ok := s.resources.get(policy.KindTarget, in.Target)
	if !ok {
		return nil, notFound("target", in.Target)
	}
	life := time.Duration(in.For)
	if life == 0 {
		life = defaultSecret
	}
	if life < 0 || life > maxSecret {
		return nil, invalid("--for must be between 1s and %s", maxSecret)
	}
	password := rand.Text()
	verifier, err := tunnel.Verifier(password)
	if err != nil {
		return nil, err
	}
	sec := secret{Handle: in.Target + "." + strings.ToLower(rand.Text()[:6]), Verifier: verifier, Principal: c.who, Login: c.login,
		Grant: g.Metadata.Name, Expires: earlier(s.now().Add(life), g.Status.Expires), Connections: in.Connections, Source: in.SourceCIDR}
	e := api.Event{Kind: api.EventSecret, Principal: c.who.ID(), Name: c.who.Name, Login: c.login, Source: c.source.String(), Target: in.Target, Grant: sec.Grant, Object: "Secret/" + sec.Handle, Expires: sec.Expires}
	if err := s.recordNow(c.Context(), &e); err != nil {
		return nil, err
	}
	body, err := json.Marshal(sec)
	if err != nil {
		return nil, err
	}
	if err := s.store.Create(c.Context(), kindSecret, sec.Handle, body); err != nil {
		return nil, fmt.Errorf("store the secret: %w", err)
	}
	return s.shownSecret(sec, password, res.Spec.(*policy.TargetSpec).Database), nil
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

func (s *Server) shownSecret(sec secret, password, database string) api.Secret {
	host, port := s.nativeHost()
	mode := "verify-full"
	if s.cfg.PostgresPlaintext == "loopback" && s.addresses.Postgres.Addr().IsLoopback() {
		mode = "prefer"
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(sec.Handle, password), Host: net.JoinHostPort(host, fmt.Sprint(port)), Path: "/" + database, RawQuery: "sslmode=" + mode}
	return api.Secret{User: sec.Handle, Password: password, Host: host, Port: port, Database: database, URL: u.String(), Expires: sec.Expires, Grant: sec.Grant}
}

// nativeHost is what drivers are told: the external name, with the port that
// the native endpoint listens on.
func (s *Server) nativeHost() (string, int) {
	host := s.addresses.Postgres.Addr().String()
	if u, err := url.Parse(s.cfg.ExternalURL); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	return host, int(s.addresses.Postgres.Port())
}

// serveNative serves one connection of an unmodified driver.
func (s *Server) serveNative(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	done := s.unfinished.begin(raw)
	proto := s.postgres.Protocol()
	auth := &nativeAuth{s: s, source: addrOf(raw)}
	hello, err := s.acceptProtocol(ctx, proto, raw, auth)
	done()
	if err != nil {
		if auth.asked && !errors.Is(err, session.ErrHandled) {
			s.tries.failed(auth.source.Addr(), s.now())
		}
		return
	}
	sec, err := s.useSecret(ctx, hello.User, auth.source)
	if err != nil {
		proto.Refuse(refusalOf(err))
		return
	}
	g, err := s.grants.Live(ctx, sec.Principal, sec.Grant)
	if err != nil {
		s.refused(sec.Principal, sec.Login, auth.source, "native", err)
		proto.Refuse(refusalOf(err))
		return
	}
	s.serveSession(ctx, proto, peer{principal: sec.Principal, login: sec.Login, grant: g, source: auth.source, via: "native"}, hello)
}

// useSecret counts a connection against the secret. The SCRAM exchange has
// proved that the client knows it. Most secrets are good for any number: those
// are only read, as the store has one writer.
func (s *Server) useSecret(ctx context.Context, handle string, source netip.AddrPort) (secret, error) {
	var sec secret
	read := func(body []byte) error {
		sec = secret{}
		if err := json.Unmarshal(body, &sec); err != nil {
			return err
		}
		return sec.usable(s.now(), source.Addr())
	}
	body, err := s.store.Get(ctx, kindSecret, handle)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return sec, errSecret
	case err != nil:
		return sec, err
	}
	if err := read(body); err != nil || sec.Connections == 0 {
		return sec, err
	}
	err = s.store.Update(ctx, kindSecret, handle, func(body []byte) ([]byte, error) {
		if body == nil {
			return nil, errSecret
		}
		if err := read(body); err != nil {
			return nil, err
		}
		sec.Used++
		return json.Marshal(sec)
	})
	return sec, err
}

var errSecret = &session.Refusal{Code: session.CodeSecret, Message: "unknown or expired secret", Hint: "hoopctl secret TARGET issues a new one", Fatal: true}

func (sec *secret) usable(now time.Time, source netip.Addr) error {
	switch {
	case !now.Before(sec.Expires):
		return errSecret
	case sec.Connections > 0 && sec.Used >= sec.Connections:
		return &session.Refusal{Code: session.CodeSecret, Message: fmt.Sprintf("this secret was good for %d connections", sec.Connections), Hint: errSecret.Hint, Fatal: true}
	case sec.Source != "" && !within(sec.Source, source):
		return &session.Refusal{Code: session.CodeSecret, Message: "this secret may not be used from " + source.String(), Fatal: true}
	}
	return nil
}

func within(cidr string, a netip.Addr) bool {
	p, err := netip.ParsePrefix(cidr)
	return err == nil && p.Contains(a)
}

// nativeAuth is what a protocol may know of a client of the native endpoint.
type nativeAuth struct {
	s      *Server
	source netip.AddrPort
	asked  bool // a verifier was looked up: a failure after that is a wrong secret
}

// Verifier implements session.Authenticator. An unknown, used up or expired
// secret is like no secret: the client learns no more than that.
func (a *nativeAuth) Verifier(ctx context.Context, user string) (string, error) {
	if err := a.s.tries.wait(a.source.Addr(), a.s.now()); err != nil {
		return "", err
	}
	a.asked = true
	body, err := a.s.store.Get(ctx, kindSecret, user)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	var sec secret
	if err != nil || json.Unmarshal(body, &sec) != nil {
		return "", fmt.Errorf("look up the secret: %w", err)
	}
	if sec.usable(a.s.now(), a.source.Addr()) != nil {
		return "", nil
	}
	return sec.Verifier, nil
}

func (a *nativeAuth) TLS() *tls.Config { return a.s.nativeTLS }

// RequireTLS is true but for loopback clients where the configuration says so.
func (a *nativeAuth) RequireTLS() bool {
	return a.s.cfg.PostgresPlaintext != "loopback" || !a.source.Addr().IsLoopback()
}

func (a *nativeAuth) Owner() string { return "" }

// tries limits wrong secrets by address. Safe for concurrent use.
type tries struct {
	mu     sync.Mutex
	byAddr map[netip.Addr][]time.Time
}

func (t *tries) failed(a netip.Addr, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byAddr == nil {
		t.byAddr = map[netip.Addr][]time.Time{}
	}
	t.byAddr[a] = append(recent(t.byAddr[a], now), now)
}

func (t *tries) wait(a netip.Addr, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := recent(t.byAddr[a], now)
	if len(list) == 0 {
		delete(t.byAddr, a)
	}
	if len(list) >= triesPerMinute {
		return &session.Refusal{Code: session.CodeTooMany, Message: "too many wrong secrets from this address", Hint: "wait a minute", Fatal: true}
	}
	return nil
}

func recent(list []time.Time, now time.Time) []time.Time {
	for len(list) > 0 && now.Sub(list[0]) > time.Minute {
		list = list[1:]
	}
	return list
}

// sweepSecrets forgets secrets that have expired.
func (s *Server) sweepSecrets(ctx context.Context) error {
	docs, err := s.store.List(ctx, kindSecret)
	if err != nil {
		return err
	}
	for _, d := range docs {
		var sec secret
		if json.Unmarshal(d.Body, &sec) == nil && s.now().Before(sec.Expires) {
			continue
		}
		if err := s.store.Delete(ctx, kindSecret, d.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}
