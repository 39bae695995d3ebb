package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

const (
	// renewBefore is how long before its end a certificate is renewed.
	renewBefore = 5 * time.Minute
	// retryAfter is the pause after a renewal that failed while the
	// certificate is still good.
	retryAfter = 20 * time.Second
	// keepStep is how often Keep looks at the clock, or for a new login.
	keepStep = 5 * time.Second
	// noLogin stands for the absence of a login in Client.over.
	noLogin = "none"
)

// LoginState is what this machine knows of its login, without asking anyone.
type LoginState struct {
	Server    string
	Login     string
	Issuer    string
	Name      string
	Expires   time.Time // of the certificate
	LoginEnds time.Time
	CA        string // PEM, "" for the system's roots
	LogKey    string // the evidence log's verifier key, as it was at login
	ClientCA  string // PEM of the authority that signs logins, as it was at login; "" if it was not told
	Keyring   bool   // the secret lies in the keyring
}

// State returns what is known of the login; an *api.Error LoginNeeded if there is none.
func (c *Client) State() (LoginState, error) {
	l, err := c.store.load()
	if err != nil {
		return LoginState{}, err
	}
	if l == nil {
		return LoginState{}, c.loginNeeded("there is no login for " + c.addr)
	}
	return LoginState{Server: l.Server, Login: l.Login, Issuer: l.Issuer.Name, Name: l.Principal.Name, Expires: l.Expires,
		LoginEnds: l.LoginEnds, CA: l.CA, LogKey: l.LogKey, ClientCA: l.ClientCA, Keyring: l.InKeyring}, nil
}

// Keep renews the certificate in time until ctx ends: for commands that live
// longer than it, such as an open forward. A provider or server that is away
// is asked again. When the login ends Keep returns why, once; called again it
// waits for somebody to log in anew on this machine and goes on with that.
func (c *Client) Keep(ctx context.Context) error {
	for {
		wait, err := c.keepOnce(ctx)
		if err != nil {
			return err
		}
		// Short steps: a laptop that slept must not wait on for what is left on a timer that stood still.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(wait, keepStep)):
		}
	}
}

// keepOnce renews if it is time and returns when to look again.
func (c *Client) keepOnce(ctx context.Context) (time.Duration, error) {
	if c.stillOver() {
		return keepStep, nil
	}
	cred, err := c.ready(ctx)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case isLoginOver(err):
		c.noteOver()
		return 0, err
	case err != nil, cred.tooOld(c.now()):
		return retryAfter, nil
	}
	return max(cred.leaf.NotAfter.Add(-renewBefore).Sub(c.now())+time.Second, time.Second), nil
}

// noteOver remembers which login Keep has reported as over.
func (c *Client) noteOver() {
	name := noLogin
	if l, err := c.store.load(); err == nil && l != nil {
		name = l.Login
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = name
}

// stillOver reports whether nobody has logged in since. Nobody is asked but
// the login's file.
func (c *Client) stillOver() bool {
	c.mu.Lock()
	over := c.over
	c.mu.Unlock()
	if over == "" {
		return false
	}
	l, err := c.store.load()
	if err != nil || l == nil || l.Login == over {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = ""
	return false
}

func isLoginOver(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Reason == api.ReasonLoginNeeded || e.Reason == api.ReasonLoginExpired)
}

// ready returns credentials that are good for now, renewed if it was time.
func (c *Client) ready(ctx context.Context) (*credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil || c.current.tooOld(c.now()) {
		// Another process may have renewed, or logged in anew.
		if err := c.reload(); err != nil {
			return nil, err
		}
	}
	now := c.now()
	if !c.current.tooOld(now) {
		return c.current, nil
	}
	alive := now.Before(c.current.leaf.NotAfter)
	if alive && now.Before(c.retry) {
		return c.current, nil
	}
	err := c.renew(ctx, false)
	if err != nil && ctx.Err() != nil {
		return nil, err // the caller gave up, not the provider
	}
	if err != nil && alive && !isLoginOver(err) {
		c.log.Warn("the login's certificate could not be renewed yet", "error", err)
		c.retry = now.Add(retryAfter)
		return c.current, nil
	}
	if err != nil {
		return nil, err
	}
	return c.current, nil
}

// renewNow renews whatever our own clock says of the certificate.
func (c *Client) renewNow(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		if err := c.reload(); err != nil {
			return err
		}
	}
	return c.renew(ctx, true)
}

func (cred *credentials) tooOld(now time.Time) bool {
	return !now.Before(cred.leaf.NotAfter.Add(-renewBefore))
}

// reload takes the login from the store. The caller holds c.mu.
func (c *Client) reload() error {
	l, err := c.store.load()
	if err != nil {
		return err
	}
	if l == nil {
		c.current = nil
		return c.loginNeeded("there is no login for " + c.addr)
	}
	if c.current != nil && c.current.login.Certificate == l.Certificate {
		return nil
	}
	return c.use(l)
}

// use makes l the login that connections are opened with. The caller holds c.mu.
func (c *Client) use(l *login) error {
	key, err := l.key()
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(l.Certificate), encodeKey(key))
	if err != nil {
		return fmt.Errorf("the login in %s is damaged: %w (hoopctl login makes a new one)", c.store.path(), err)
	}
	config, err := rooted(c.server.Hostname(), l.CA)
	if err != nil {
		return err
	}
	config.Certificates = []tls.Certificate{pair}
	// Sent whichever CAs the server hints at: there is only this one.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	if c.current != nil {
		c.current.http.CloseIdleConnections()
	}
	c.retry = time.Time{}
	c.current = &credentials{login: l, leaf: pair.Leaf, tls: config, http: c.transport(config)}
	return nil
}

func (l *login) key() (*ecdsa.PrivateKey, error) {
	any, err := x509.ParsePKCS8PrivateKey(l.Secret.Key)
	if err != nil {
		return nil, fmt.Errorf("the login's key is damaged: %w", err)
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the login's key is a %T, not ECDSA", any)
	}
	return key, nil
}

// renew gets a new certificate for the login's key: the provider is asked
// anew, under the lock that all processes of this login share. The caller
// holds c.mu and has loaded c.current.
func (c *Client) renew(ctx context.Context, force bool) error {
	unlock, err := c.store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	had := c.current.login.Certificate
	if err := c.reload(); err != nil {
		return err
	}
	renewed := c.current.login.Certificate != had
	if renewed || !force && !c.current.tooOld(c.now()) {
		return nil // another process did while we waited for the lock
	}
	l := *c.current.login
	kept := *l.Secret
	l.Secret = &kept
	if !c.now().Before(l.LoginEnds) {
		return c.loginExpired("the login ended at " + l.LoginEnds.Local().Format("15:04"))
	}
	return c.renewAs(ctx, &l)
}

// renewAs renews a copy of the current login.
func (c *Client) renewAs(ctx context.Context, l *login) error {
	key, err := l.key()
	if err != nil {
		return err
	}
	config, err := rooted(c.server.Hostname(), l.CA)
	if err != nil {
		return err
	}
	anonymous := c.transport(config)
	defer anonymous.CloseIdleConnections()
	if err := c.moved(ctx, anonymous, l); err != nil {
		return err
	}
	token, err := c.again(ctx, l)
	if err != nil {
		return err
	}
	if _, err := c.certify(ctx, anonymous, api.PathRenew, l, key, token); err != nil {
		return err
	}
	if err := c.store.save(l); err != nil {
		return err
	}
	return c.use(l)
}

// moved learns the provider's address as it is now. One that was on this
// machine and still is may have another port; any other change could send our
// refresh token to a stranger and is refused.
func (c *Client) moved(ctx context.Context, anonymous *http.Client, l *login) error {
	info, err := c.info(ctx, anonymous)
	if err != nil {
		return err
	}
	for _, i := range info.Issuers {
		if i.Name != l.Issuer.Name {
			continue
		}
		if i.URL != l.Issuer.URL && !(isLocal(i.URL) && isLocal(l.Issuer.URL)) {
			return c.loginExpired(fmt.Sprintf("the identity provider %s moved from %s to %s", i.Name, l.Issuer.URL, i.URL))
		}
		l.Issuer = i
		return nil
	}
	return c.loginExpired(fmt.Sprintf("the server no longer knows the identity provider %s", l.Issuer.Name))
}

func isLocal(address string) bool {
	u, err := parseURL(address)
	return err == nil && isLoopback(u.Hostname())
}

// again proves once more who we are. A new refresh token is kept before
// anything is done with what came with it: the old one is void by now.
func (c *Client) again(ctx context.Context, l *login) (string, error) {
	if l.Workload != "" {
		return Assertion(ctx, l.Workload, l.Issuer)
	}
	if l.Secret.Refresh == "" {
		return "", c.loginExpired("the identity provider gave no refresh token (scope offline_access), so the login cannot be renewed")
	}
	p, err := discover(ctx, l.Issuer)
	if err != nil {
		return "", unavailable(err)
	}
	t, err := p.refresh(ctx, l.Secret.Refresh)
	if err != nil && refused(err) {
		return "", c.loginExpired(fmt.Sprintf("identity provider %s: %v", l.Issuer.Name, err))
	}
	if err != nil {
		return "", unavailable(fmt.Errorf("identity provider %s: %w", l.Issuer.Name, err))
	}
	if t.RefreshToken != "" && t.RefreshToken != l.Secret.Refresh {
		l.Secret.Refresh = t.RefreshToken
		if err := c.store.save(l); err != nil {
			return "", err
		}
	}
	return idToken(t)
}

func unavailable(err error) error {
	return &failure{&api.Error{Code: http.StatusServiceUnavailable, Reason: api.ReasonUnavailable, Source: source, Message: err.Error()}, err}
}

func (c *Client) loginNeeded(why string) error {
	return &api.Error{Code: http.StatusUnauthorized, Reason: api.ReasonLoginNeeded, Source: source,
		Message: why, Hint: "hoopctl login " + c.server.String()}
}

func (c *Client) loginExpired(why string) error {
	return &api.Error{Code: http.StatusUnauthorized, Reason: api.ReasonLoginExpired, Source: source,
		Message: why, Hint: "hoopctl login " + c.server.String()}
}
