package devidp

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	// maxPending bounds unanswered device logins.
	maxPending = 1000
	// maxTries is how many wrong passwords end a device login.
	maxTries = 5
	// minPoll is the least time between two polls of one device.
	minPoll = pollInterval / 2
)

// storage is what the op keeps its things in. Device logins live in memory:
// whoever waits when the provider ends, starts anew.
type storage struct {
	config Config
	state  *state

	mu       sync.Mutex
	users    map[string]User
	services map[string]Client
	pending  map[string]*pending // by user code
	lastAuth time.Time
}

// pending is one device login that has not been collected.
type pending struct {
	deviceCode string
	from       source
	asked      time.Time
	polled     time.Time
	tries      int
	status     op.DeviceAuthorizationState
}

var (
	_              op.Storage                        = (*storage)(nil)
	_              op.DeviceAuthorizationStorage     = (*storage)(nil)
	_              op.ClientCredentialsStorage       = (*storage)(nil)
	_              op.CanSetUserinfoFromRequest      = (*storage)(nil)
	errUnsupported                                   = errors.New("not supported by the development identity provider")
	errGone                                          = errors.New("the refresh token is not valid")
	_              op.CanGetPrivateClaimsFromRequest = (*storage)(nil)
)

func newStorage(config Config) (*storage, error) {
	st, err := loadState(config.Dir, config.Now())
	if err != nil {
		return nil, err
	}
	s := &storage{config: config, state: st, services: map[string]Client{}, pending: map[string]*pending{}}
	for _, c := range config.Services {
		s.services[c.ID] = c
	}
	s.setUsers(config.Users)
	return s, nil
}

func (s *storage) setUsers(users []User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users = map[string]User{}
	for _, u := range users {
		s.users[u.Name] = u
	}
}

func (s *storage) user(name string) (User, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.users[name]
	return u, ok
}

// --- device logins

// StoreDeviceAuthorization opens a device login.
func (s *storage) StoreDeviceAuthorization(ctx context.Context, clientID, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.config.Now()
	for code, d := range s.pending {
		if now.After(d.status.Expires) {
			delete(s.pending, code)
		}
	}
	if _, taken := s.pending[userCode]; taken {
		return op.ErrDuplicateUserCode
	}
	if len(s.pending) >= maxPending {
		return oidc.ErrSlowDown().WithDescription("too many device logins are waiting")
	}
	from, _ := ctx.Value(sourceKey{}).(source)
	s.pending[userCode] = &pending{deviceCode: deviceCode, from: from, asked: now,
		status: op.DeviceAuthorizationState{ClientID: clientID, Scopes: scopes, Expires: expires}}
	return nil
}

// GetDeviceAuthorizatonState answers a poll. What is done or denied is handed
// out once. (The name is the interface's.)
func (s *storage) GetDeviceAuthorizatonState(_ context.Context, clientID, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for code, d := range s.pending {
		if !same(d.deviceCode, deviceCode) || d.status.ClientID != clientID {
			continue
		}
		now := s.config.Now()
		if now.Sub(d.polled) < minPoll {
			// The op tells a poller to slow down where its storage timed out.
			return nil, context.DeadlineExceeded
		}
		d.polled = now
		if d.status.Done || d.status.Denied || now.After(d.status.Expires) {
			delete(s.pending, code)
		}
		status := d.status
		return &status, nil
	}
	return nil, errors.New("unknown device code")
}

// waiting is what the page shows of a device login.
type waiting struct {
	Code, Client, From, Agent, Asked string
	Scopes                           []string
}

func (s *storage) waiting(userCode string) (waiting, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.open(userCode)
	if d == nil {
		return waiting{}, false
	}
	return waiting{Code: userCode, Client: d.status.ClientID, From: d.from.addr, Agent: d.from.agent,
		Asked: d.asked.Format("15:04:05"), Scopes: d.status.Scopes}, true
}

// open returns a device login that can still be answered. The caller holds mu.
func (s *storage) open(userCode string) *pending {
	d := s.pending[userCode]
	if d == nil || d.status.Done || d.status.Denied || s.config.Now().After(d.status.Expires) {
		return nil
	}
	return d
}

var (
	errNoCode   = errors.New("this code is not known: it was used, it expired, or it is mistyped")
	errPassword = errors.New("user or password is wrong")
	errTries    = errors.New("too many wrong passwords: the login was refused; start it again")
)

// allow answers a device login with yes, in the name of a user.
func (s *storage) allow(userCode, user, password string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.open(userCode)
	if d == nil {
		return errNoCode
	}
	_, known := s.users[user]
	if right := same(password, s.config.Password); !known || !right {
		if d.tries++; d.tries >= maxTries {
			d.status.Denied = true
			return errTries
		}
		return errPassword
	}
	d.status.Done, d.status.Subject, d.status.AMR = true, user, []string{"pwd"}
	d.status.AuthTime = s.authTime()
	return nil
}

// authTime is now, but never the same twice: it names the authentication.
func (s *storage) authTime() time.Time {
	now := s.config.Now().UTC().Round(0)
	if !now.After(s.lastAuth) {
		now = s.lastAuth.Add(time.Nanosecond)
	}
	s.lastAuth = now
	return now
}

func (s *storage) deny(userCode string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.open(userCode)
	if d == nil {
		return errNoCode
	}
	d.status.Denied = true
	return nil
}

// --- tokens

// refreshRequest is a refresh token that was shown.
type refreshRequest struct {
	session session
	scopes  []string
}

func (r *refreshRequest) GetAMR() []string            { return []string{"pwd"} }
func (r *refreshRequest) GetAudience() []string       { return []string{r.session.Client} }
func (r *refreshRequest) GetAuthTime() time.Time      { return r.session.AuthTime }
func (r *refreshRequest) GetClientID() string         { return r.session.Client }
func (r *refreshRequest) GetScopes() []string         { return r.scopes }
func (r *refreshRequest) GetSubject() string          { return r.session.User }
func (r *refreshRequest) SetCurrentScopes(s []string) { r.scopes = s }

// serviceRequest is a service that showed its secret.
type serviceRequest struct {
	client Client
	scopes []string
}

func (r *serviceRequest) GetSubject() string    { return r.client.ID }
func (r *serviceRequest) GetAudience() []string { return []string{ServiceAudience} }
func (r *serviceRequest) GetScopes() []string   { return r.scopes }

// CreateAccessToken names an access token. None is kept: no endpoint of this
// provider takes one.
func (s *storage) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return rand.Text(), s.config.Now().Add(idTokenLife), nil
}

// CreateAccessAndRefreshTokens begins a session of refresh tokens, or replaces
// the one that was shown.
func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, request op.TokenRequest, current string) (string, string, time.Time, error) {
	now := s.config.Now()
	var refresh string
	var err error
	switch r := request.(type) {
	case *op.DeviceAuthorizationState:
		refresh, err = s.state.begin(session{ID: rand.Text(), User: r.Subject, Client: r.ClientID,
			Scopes: r.Scopes, AuthTime: r.AuthTime, Expires: now.Add(refreshLife)}, now)
	case *refreshRequest:
		refresh, err = s.state.rotate(current, now)
	default:
		err = errUnsupported
	}
	return rand.Text(), refresh, now.Add(idTokenLife), err
}

// sid names an authentication: tokens that are refreshed keep it.
func (s *storage) sid(user string, authTime time.Time) string {
	mac := hmac.New(sha256.New, s.state.Secret)
	fmt.Fprintf(mac, "sid\n%s\n%d", user, authTime.UnixNano())
	return hex.EncodeToString(mac.Sum(nil)[:12])
}

// TokenRequestByRefreshToken checks a refresh token of a user who still exists.
func (s *storage) TokenRequestByRefreshToken(_ context.Context, refresh string) (op.RefreshTokenRequest, error) {
	x, err := s.state.check(refresh, s.config.Now())
	if err != nil {
		return nil, err
	}
	if _, ok := s.user(x.User); !ok {
		return nil, fmt.Errorf("user %s is gone", x.User)
	}
	return &refreshRequest{session: x, scopes: x.Scopes}, nil
}

// ClientCredentials checks a service's secret.
func (s *storage) ClientCredentials(_ context.Context, id, secret string) (op.Client, error) {
	c, ok := s.services[id]
	if right := same(c.Secret, secret); !ok || !right || secret == "" {
		return nil, errors.New("unknown client or wrong secret")
	}
	return client{id: id, service: true}, nil
}

// ClientCredentialsTokenRequest is what a service's token will say.
func (s *storage) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	c, ok := s.services[id]
	if !ok {
		return nil, errors.New("unknown client")
	}
	return &serviceRequest{client: c, scopes: scopes}, nil
}

// AuthorizeClientIDSecret is for the endpoints that services use.
func (s *storage) AuthorizeClientIDSecret(ctx context.Context, id, secret string) error {
	_, err := s.ClientCredentials(ctx, id, secret)
	return err
}

// GetClientByClientID knows the people's client and the services.
func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id == s.config.ClientID {
		return client{id: id}, nil
	}
	if _, ok := s.services[id]; ok {
		return client{id: id, service: true}, nil
	}
	return nil, oidc.ErrInvalidClient().WithDescription("unknown client")
}

// SetUserinfoFromRequest fills an ID token: who, in which groups, and which
// authentication it stems from.
func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	u, ok := s.user(r.GetSubject())
	if !ok {
		return fmt.Errorf("user %s is gone", r.GetSubject())
	}
	info.Subject = u.Name
	info.PreferredUsername = u.Name
	info.Name = strings.ToUpper(u.Name[:1]) + u.Name[1:]
	if slices.Contains(scopes, "groups") {
		info.AppendClaims("groups", append([]string{}, u.Groups...))
	}
	info.AppendClaims("sid", s.sid(u.Name, r.GetAuthTime()))
	return nil
}

// GetPrivateClaimsFromRequest fills a service's token.
func (s *storage) GetPrivateClaimsFromRequest(_ context.Context, r op.TokenRequest, _ []string) (map[string]any, error) {
	service, ok := r.(*serviceRequest)
	if !ok {
		return nil, nil
	}
	return map[string]any{"groups": append([]string{}, service.client.Groups...)}, nil
}

// RevokeToken ends the session of a refresh token (RFC 7009). What is not one
// is no error.
func (s *storage) RevokeToken(_ context.Context, token, _, clientID string) *oidc.Error {
	if err := s.state.end(token, clientID); err != nil {
		return oidc.ErrServerError().WithParent(err)
	}
	return nil
}

// GetRefreshTokenInfo tells the op which tokens are refresh tokens.
func (s *storage) GetRefreshTokenInfo(_ context.Context, clientID, token string) (string, string, error) {
	x, err := s.state.check(token, s.config.Now())
	if err != nil || x.Client != clientID {
		return "", "", op.ErrInvalidRefreshToken
	}
	return x.User, token, nil
}

// --- keys

type signingKey struct {
	id  string
	key any
}

func (k signingKey) ID() string                                  { return k.id }
func (k signingKey) Key() any                                    { return k.key }
func (k signingKey) Use() string                                 { return "sig" }
func (k signingKey) Algorithm() jose.SignatureAlgorithm          { return jose.ES256 }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) {
	return signingKey{s.state.keyID(), s.state.signer}, nil
}

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{signingKey{s.state.keyID(), &s.state.signer.PublicKey}}, nil
}

// Health is part of the op's storage.
func (s *storage) Health(context.Context) error { return nil }

// --- what this provider does not do: redirects, introspection, assertions

func (s *storage) CreateAuthRequest(context.Context, *oidc.AuthRequest, string) (op.AuthRequest, error) {
	return nil, oidc.ErrUnauthorizedClient().WithDescription("only the device flow is offered")
}

func (s *storage) AuthRequestByID(context.Context, string) (op.AuthRequest, error) {
	return nil, errUnsupported
}

func (s *storage) AuthRequestByCode(context.Context, string) (op.AuthRequest, error) {
	return nil, errUnsupported
}

func (s *storage) SaveAuthCode(context.Context, string, string) error     { return errUnsupported }
func (s *storage) DeleteAuthRequest(context.Context, string) error        { return errUnsupported }
func (s *storage) TerminateSession(context.Context, string, string) error { return errUnsupported }

func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil // SetUserinfoFromRequest does it
}

func (s *storage) SetUserinfoFromToken(context.Context, *oidc.UserInfo, string, string, string) error {
	return errUnsupported
}

func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errUnsupported
}

func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil // GetPrivateClaimsFromRequest does it
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errUnsupported
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errUnsupported
}
