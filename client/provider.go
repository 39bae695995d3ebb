package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/hoopctl/hoopctl/server/api"
)

// provider is an identity provider as its discovery document says.
type provider struct {
	issuer api.Issuer
	config oauth2.Config
	http   *http.Client
}

// discover reads the provider's discovery document. Tokens go to https
// addresses only, or to this machine's own.
func discover(ctx context.Context, issuer api.Issuer) (*provider, error) {
	if err := safeURL(issuer.URL); err != nil {
		return nil, fmt.Errorf("identity provider %s: %w", issuer.Name, err)
	}
	h := &http.Client{Timeout: providerTimeout}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, h), providerTimeout)
	defer cancel()
	p, err := oidc.NewProvider(ctx, issuer.URL)
	if err != nil {
		return nil, fmt.Errorf("identity provider %s at %s: %w", issuer.Name, issuer.URL, err)
	}
	endpoint := p.Endpoint()
	// Detecting the style would try a password that public clients have not.
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	for _, address := range []string{endpoint.TokenURL, endpoint.DeviceAuthURL} {
		if address == "" {
			continue
		}
		if err := safeURL(address); err != nil {
			return nil, fmt.Errorf("identity provider %s: %w", issuer.Name, err)
		}
	}
	return &provider{issuer: issuer, http: h,
		config: oauth2.Config{ClientID: issuer.ClientID, Endpoint: endpoint, Scopes: issuer.Scopes}}, nil
}

// safeURL refuses addresses that would carry tokens in plaintext over a network.
func safeURL(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s is neither https nor on this machine", address)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// device runs the device authorization grant (RFC 8628).
func (p *provider) device(ctx context.Context, o LoginOptions) (*oauth2.Token, error) {
	if p.config.Endpoint.DeviceAuthURL == "" {
		return nil, fmt.Errorf("identity provider %s offers no device login (RFC 8628)", p.issuer.Name)
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, p.http)
	// The server wants an authentication of its own for each login, at most
	// five minutes old, and told as auth_time: prompt asks for the first,
	// max_age for the others (OpenID Connect Core 3.1.2.1). Providers ignore
	// what they do not know.
	answer, err := p.config.DeviceAuth(ctx, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "300"))
	if err != nil {
		return nil, fmt.Errorf("identity provider %s: start the device login: %w", p.issuer.Name, providerError(err))
	}
	o.Prompt(Prompt{Code: answer.UserCode, URL: answer.VerificationURI, Complete: answer.VerificationURIComplete})
	page := answer.VerificationURIComplete
	if page == "" {
		page = answer.VerificationURI
	}
	if o.OpenURL != nil && isWeb(page) {
		_ = o.OpenURL(page) // the page and the code were shown already
	}
	t, err := p.config.DeviceAccessToken(ctx, answer)
	if err != nil {
		return nil, fmt.Errorf("identity provider %s: %w", p.issuer.Name, providerError(err))
	}
	return t, nil
}

// refresh trades a refresh token for new tokens. The provider may have ended
// the old one by then: the caller keeps the new one before using anything.
func (p *provider) refresh(ctx context.Context, token string) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, p.http), providerTimeout)
	defer cancel()
	// A token that expired in the past forces the exchange.
	t, err := p.config.TokenSource(ctx, &oauth2.Token{RefreshToken: token, Expiry: time.Unix(1, 0)}).Token()
	if err != nil {
		return nil, providerError(err)
	}
	return t, nil
}

// providerError turns an answer of RFC 6749 into words.
func providerError(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return fmt.Errorf("no answer within %s: %w", providerTimeout, err)
		}
		return err
	}
	words := map[string]string{
		"access_denied": "the login was refused",
		"expired_token": "the code expired before it was entered",
		"invalid_grant": "the login has ended at the provider",
	}[answer.ErrorCode]
	if words == "" {
		return err
	}
	return fmt.Errorf("%s: %w", words, err)
}

// refused reports whether the provider said no, as opposed to not answering.
func refused(err error) bool {
	var answer *oauth2.RetrieveError
	return errors.As(err, &answer) && answer.ErrorCode != ""
}
