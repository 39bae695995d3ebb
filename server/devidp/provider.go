package devidp

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	// DefaultClientID is the public client that people log in with.
	DefaultClientID = "hoopctl"
	// ServiceAudience is the aud of service's tokens. It differs from the
	// people's client, so that neither kind of token passes for the other.
	ServiceAudience = "hoopctl-services"

	pagePath     = "/device"
	pollInterval = time.Second
	codeLife     = 5 * time.Minute
	idTokenLife  = 5 * time.Minute
	refreshLife  = 24 * time.Hour
	shutdownTime = 2 * time.Second
)

// User is one made-up person. Name is also the subject.
type User struct {
	Name   string
	Groups []string
}

// Client is one service that may use the client_credentials grant. ID is also
// the subject of its tokens.
type Client struct {
	ID     string
	Secret string
	Groups []string
}

// Config of a Provider.
type Config struct {
	Listener net.Listener // TCP on a loopback address; the provider closes it
	Dir      string       // keeps the signing key and the refresh tokens over a restart
	Users    []User
	Password string // of every user
	Services []Client
	ClientID string           // of people; default DefaultClientID
	Now      func() time.Time // nil: time.Now
	Log      *slog.Logger     // nil: silence
}

// Provider is a running provider. Make it with [New], then call Run.
type Provider struct {
	config Config
	url    string
	store  *storage
	server *http.Server
	log    *slog.Logger
}

// New checks the configuration and loads the state of an earlier run. On
// error the listener stays the caller's.
func New(config Config) (*Provider, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.ClientID == "" {
		config.ClientID = DefaultClientID
	}
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("development identity provider: %w", err)
	}
	p := &Provider{config: config, url: "http://" + config.Listener.Addr().String(), log: config.Log}
	var err error
	if p.store, err = newStorage(config); err != nil {
		return nil, fmt.Errorf("development identity provider: %w", err)
	}
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: p.store.state.cryptoKey(), GrantTypeRefreshToken: true,
		SupportedScopes: []string{"openid", "profile", "groups", "offline_access"},
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: codeLife, PollInterval: pollInterval, UserFormPath: pagePath, UserCode: op.UserCodeBase20,
		},
	}, p.store, op.StaticIssuer(p.url),
		op.WithAllowInsecure(),  // plain http is right on loopback, and only there
		op.WithCORSOptions(nil), // no page of another origin has business here
	)
	if err != nil {
		return nil, fmt.Errorf("development identity provider: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle(pagePath, p.page())
	mux.Handle("/", provider)
	p.server = &http.Server{
		Handler: p.guard(withSource(mux)), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(config.Log.Handler(), slog.LevelDebug),
	}
	return p, nil
}

func (c Config) check() error {
	if c.Listener == nil {
		return errors.New("no listener")
	}
	addr, ok := c.Listener.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() {
		return fmt.Errorf("it listens on loopback addresses only, not on %s", c.Listener.Addr())
	}
	if len(c.Password) < 8 {
		return errors.New("the password has fewer than 8 characters: generate one")
	}
	if len(c.Users) == 0 {
		return errors.New("no users")
	}
	seen := map[string]bool{c.ClientID: true}
	names := make([]string, 0, len(c.Users)+len(c.Services))
	for _, u := range c.Users {
		names = append(names, u.Name)
	}
	for _, s := range c.Services {
		if len(s.Secret) < 16 {
			return fmt.Errorf("the secret of service %s has fewer than 16 characters: generate one", s.ID)
		}
		names = append(names, s.ID)
	}
	for _, n := range names {
		if n == "" || seen[n] {
			return fmt.Errorf("the name %q is empty or used twice among users, services and the client", n)
		}
		seen[n] = true
	}
	return nil
}

// URL is the issuer: http://127.0.0.1:PORT.
func (p *Provider) URL() string { return p.url }

// Run serves until ctx ends.
func (p *Provider) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(p.config.Listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("development identity provider: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if p.server.Shutdown(stop) != nil {
		p.server.Close()
	}
	<-done
	return nil
}

// SetUsers replaces the users, as a change at a real provider would: it shows
// when a login is refreshed. A user who is gone can no longer refresh.
func (p *Provider) SetUsers(users []User) { p.store.setUsers(users) }

// guard refuses requests under another name than the provider's own: a page
// elsewhere may have its name resolve to this machine.
func (p *Provider) guard(next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(p.config.Listener.Addr().String())
	hosts := []string{strings.TrimPrefix(p.url, "http://"), "localhost:" + port}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(hosts, r.Host) {
			http.Error(w, "this provider answers at "+p.url+" only", http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}

// source is who sent a request, for the page that asks whether to allow it.
type source struct{ addr, agent string }

type sourceKey struct{}

func withSource(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sourceKey{}, sourceOf(r))))
	})
}

func sourceOf(r *http.Request) source {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	agent := r.UserAgent()
	if len(agent) > 100 {
		agent = agent[:100]
	}
	return source{host, agent}
}

// same compares secrets in constant time.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// client is the op's view of who may ask for tokens.
type client struct {
	id      string
	service bool
}

var _ op.Client = client{}

func (c client) GetID() string                      { return c.id }
func (c client) RedirectURIs() []string             { return nil }
func (c client) PostLogoutRedirectURIs() []string   { return nil }
func (c client) ResponseTypes() []oidc.ResponseType { return nil }
func (c client) LoginURL(string) string             { return pagePath }
func (c client) IDTokenLifetime() time.Duration     { return idTokenLife }
func (c client) DevMode() bool                      { return false }
func (c client) IsScopeAllowed(scope string) bool   { return scope == "groups" }
func (c client) ClockSkew() time.Duration           { return 0 }

// IDTokenUserinfoClaimsAssertion puts name and groups into ID tokens.
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }

func (c client) ApplicationType() op.ApplicationType {
	if c.service {
		return op.ApplicationTypeWeb
	}
	return op.ApplicationTypeNative
}

func (c client) AuthMethod() oidc.AuthMethod {
	if c.service {
		return oidc.AuthMethodBasic
	}
	return oidc.AuthMethodNone
}

func (c client) GrantTypes() []oidc.GrantType {
	if c.service {
		return []oidc.GrantType{oidc.GrantTypeClientCredentials}
	}
	return []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken}
}

// AccessTokenType is opaque for people, so that no token of theirs but the ID
// token can be taken for one.
func (c client) AccessTokenType() op.AccessTokenType {
	if c.service {
		return op.AccessTokenTypeJWT
	}
	return op.AccessTokenTypeBearer
}

func (c client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return identity }
func (c client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return identity }

func identity(scopes []string) []string { return scopes }
