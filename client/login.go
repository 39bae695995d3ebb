package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"golang.org/x/oauth2"

	"github.com/hoopctl/hoopctl/server/api"
)

// LoginOptions say how to log in.
type LoginOptions struct {
	// CAFingerprint pins the server's CA: sha256:hex. It wins over CAFile and
	// over what an earlier login remembered.
	CAFingerprint string
	// CAFile is a PEM file with the server's CA; it wins over Config.CAFile.
	CAFile string
	// Issuer is the name of the identity provider, "" where the server has one.
	Issuer string
	// Prompt shows code and page to the person, before anything is opened. The
	// page's address may hold the code already (complete). It must not be nil
	// unless Workload is set.
	Prompt func(Prompt)
	// OpenURL tries to open the page in a browser; its error is a hint to
	// nobody, since Prompt came first. Nil opens nothing. Only http and https
	// addresses are passed.
	OpenURL func(url string) error
	// Workload logs a service in instead of a person: "k8s", "github", or the
	// path of a file. See [Assertion].
	Workload string
}

// Prompt is what a person needs to answer the provider's page.
type Prompt struct {
	Code     string // BCDF-GHJK
	URL      string // where to type it in
	Complete string // the same page with the code filled in; may be ""
}

// Login logs in and keeps the login, in place of an earlier one for the same
// server. It blocks while the person answers the provider's page; cancelling
// ctx gives up.
func (c *Client) Login(ctx context.Context, o LoginOptions) (api.Enrolled, error) {
	l, anonymous, err := c.trust(o)
	if err != nil {
		return api.Enrolled{}, err
	}
	defer anonymous.CloseIdleConnections()
	info, err := c.info(ctx, anonymous)
	if err != nil {
		return api.Enrolled{}, err
	}
	if l.Issuer, err = choose(info.Issuers, o.Issuer, o.Workload); err != nil {
		return api.Enrolled{}, err
	}
	l.LogKey, l.ClientCA, l.Workload, l.Secret = info.LogKey, info.ClientCA, o.Workload, new(secret)
	token, err := c.authenticate(ctx, l, o)
	if err != nil {
		return api.Enrolled{}, err
	}
	enrolled, err := c.enroll(ctx, anonymous, l, token)
	if err != nil {
		return api.Enrolled{}, err
	}
	return enrolled, c.keep(ctx, l)
}

// trust decides what vouches for the server. The login that it returns is
// filled with the CA once a first connection has been made.
func (c *Client) trust(o LoginOptions) (*login, *http.Client, error) {
	l := &login{Server: c.server.String()}
	host := c.server.Hostname()
	if o.CAFingerprint != "" {
		pin, err := ParseFingerprint(o.CAFingerprint)
		if err != nil {
			return nil, nil, err
		}
		learned := func(ca *x509.Certificate) { l.CA = encodeCertificate(ca) }
		return l, c.transport(pinned(c.addr, host, pin, learned)), nil
	}
	ca, err := c.knownCA(o.CAFile)
	if err != nil {
		return nil, nil, err
	}
	l.CA = ca
	config, err := rooted(host, ca)
	if err != nil {
		return nil, nil, err
	}
	return l, c.transport(config), nil
}

// knownCA is the PEM of the CA that vouches for the server, "" for the system's roots.
func (c *Client) knownCA(file string) (string, error) {
	if file != "" {
		return readCAFile(file)
	}
	if l, err := c.store.load(); err == nil && l != nil {
		return l.CA, nil
	}
	if c.caFile != "" {
		return readCAFile(c.caFile)
	}
	return "", nil
}

// Info asks the server what it says to anyone. It needs no login, but a reason
// to trust the server's certificate: a login's, CAFile's, or the system's.
func (c *Client) Info(ctx context.Context) (api.Info, error) {
	_, anonymous, err := c.trust(LoginOptions{})
	if err != nil {
		return api.Info{}, err
	}
	defer anonymous.CloseIdleConnections()
	return c.info(ctx, anonymous)
}

func (c *Client) info(ctx context.Context, anonymous *http.Client) (api.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	var info api.Info
	res, err := c.sendOnce(ctx, anonymous, http.MethodGet, api.PathInfo, nil, nil, nil)
	if err != nil {
		return info, err
	}
	defer res.Body.Close()
	return info, decode(res.Body, &info)
}

// choose picks the issuer: by name, or the only one of its kind.
func choose(issuers []api.Issuer, name, workload string) (api.Issuer, error) {
	want := "human"
	if workload != "" {
		want = "workload"
	}
	var fit []api.Issuer
	var names []string
	for _, i := range issuers {
		kind := i.Kind
		if kind == "" {
			kind = "human"
		}
		if kind != want {
			continue
		}
		names = append(names, i.Name)
		if name == "" || name == i.Name {
			fit = append(fit, i)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(names) == 0:
		return api.Issuer{}, fmt.Errorf("the server has no identity provider for %s logins", want)
	case len(fit) == 0:
		return api.Issuer{}, fmt.Errorf("the server has no identity provider %q for %s logins, only %q", name, want, names)
	default:
		return api.Issuer{}, fmt.Errorf("the server has several identity providers: name one with --issuer: %q", names)
	}
}

// authenticate returns a fresh token that says who we are, and keeps the
// refresh token in l.
func (c *Client) authenticate(ctx context.Context, l *login, o LoginOptions) (string, error) {
	if o.Workload != "" {
		return Assertion(ctx, o.Workload, l.Issuer)
	}
	if o.Prompt == nil {
		return "", errors.New("login: nobody to show the code to")
	}
	p, err := discover(ctx, l.Issuer)
	if err != nil {
		return "", err
	}
	t, err := p.device(ctx, o)
	if err != nil {
		return "", err
	}
	l.Secret.Refresh = t.RefreshToken
	return idToken(t)
}

// enroll makes the login's key and has it certified.
func (c *Client) enroll(ctx context.Context, anonymous *http.Client, l *login, token string) (api.Enrolled, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return api.Enrolled{}, fmt.Errorf("make the login's key: %w", err)
	}
	if l.Secret.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return api.Enrolled{}, fmt.Errorf("encode the login's key: %w", err)
	}
	return c.certify(ctx, anonymous, api.PathEnroll, l, key, token)
}

// certify has the server sign a certificate for key and notes it in l.
func (c *Client) certify(ctx context.Context, anonymous *http.Client, path string, l *login, key *ecdsa.PrivateKey, token string) (api.Enrolled, error) {
	csr, err := newCSR(key)
	if err != nil {
		return api.Enrolled{}, err
	}
	body, err := json.Marshal(api.Enroll{Issuer: l.Issuer.Name, IDToken: token, CSR: csr, Login: l.Login})
	if err != nil {
		return api.Enrolled{}, fmt.Errorf("encode the enrolment: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var e api.Enrolled
	res, err := c.sendOnce(ctx, anonymous, http.MethodPost, path, nil, body, nil)
	if err != nil {
		return e, err
	}
	defer res.Body.Close()
	if err := decode(res.Body, &e); err != nil {
		return e, err
	}
	if _, err := tls.X509KeyPair([]byte(e.Certificate), encodeKey(key)); err != nil {
		return e, fmt.Errorf("the server's certificate does not fit the key that was sent: %w", err)
	}
	l.Login, l.Certificate, l.Expires, l.LoginEnds, l.Principal = e.Login, e.Certificate, e.Expires, e.LoginEnds, e.Principal
	return e, nil
}

// newCSR is a PEM signing request. It names nobody: the server says who we are.
func newCSR(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", fmt.Errorf("make the certificate request: %w", err)
	}
	return encodePEM("CERTIFICATE REQUEST", der), nil
}

func encodeKey(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil // X509KeyPair says that there is no key
	}
	return []byte(encodePEM("PRIVATE KEY", der))
}

func encodePEM(kind string, der []byte) string {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) // a bytes.Buffer does not fail
	return b.String()
}

// keep stores a new login and uses it from now on.
func (c *Client) keep(ctx context.Context, l *login) error {
	unlock, err := c.store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.store.save(l); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.use(l)
}

// Logout ends the login at the server and forgets it here. It forgets it also
// where the server cannot be told; the error then says that the certificate
// lives on until it expires.
func (c *Client) Logout(ctx context.Context) error {
	l, err := c.store.load()
	if err == nil && l == nil {
		return nil
	}
	var told error
	if err == nil {
		told = c.call(ctx, http.MethodPost, api.PathLogout, nil, nil, nil)
	}
	c.mu.Lock()
	if c.current != nil {
		c.current.http.CloseIdleConnections()
	}
	c.current = nil
	c.mu.Unlock()
	if err := c.store.remove(); err != nil {
		return fmt.Errorf("forget the login: %w", err)
	}
	var refused *api.Error
	if errors.As(told, &refused) && refused.Code == http.StatusUnauthorized {
		return nil // it had ended already
	}
	if told != nil {
		return fmt.Errorf("the login is forgotten here, but the server could not be told; its certificate ends by %s: %w",
			l.Expires.Format("15:04:05"), told)
	}
	return nil
}

// isWeb reports whether an address may be opened in a browser: it comes from
// the provider, and other schemes start other programs.
func isWeb(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// idToken is the token that says who we are.
func idToken(t *oauth2.Token) (string, error) {
	id, ok := t.Extra("id_token").(string)
	if !ok || id == "" {
		return "", errors.New("the identity provider returned no ID token: its client needs the scope openid, and ID tokens when refreshing")
	}
	return id, nil
}
