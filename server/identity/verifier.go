package identity

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/time/rate"
)

// Kinds of Issuer.
const (
	Human    = "human"
	Workload = "workload"
)

const (
	providerTimeout = 15 * time.Second
	// providerLifetime is how long a provider's keys are trusted unseen:
	// go-oidc would keep a withdrawn key until an unknown one is shown.
	providerLifetime = time.Hour
	// tokenSkew is how far a provider's clock may be from ours.
	tokenSkew = 30 * time.Second
	maxToken  = 16 << 10
	maxText   = 255
	maxGroups = 1000
)

// Issuer is one identity provider that the server believes.
type Issuer struct {
	Name         string            // in principals' IDs: lower-case letters, digits, . _ -
	URL          string            // exactly the tokens' iss
	Kind         string            // Human (default) or Workload
	ClientID     string            // of the device flow
	Audience     string            // what aud must name; default ClientID
	SubjectClaim string            // default sub
	NameClaim    string            // default preferred_username, else the subject
	GroupsClaim  string            // default groups
	Match        map[string]string // claims that must hold; * stands for any text without /
	Scopes       []string          // that clients ask for
	CAFile       string            // PEM roots of the provider's own certificate; "" is the system's
}

var issuerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// withDefaults checks an issuer's configuration.
func (i Issuer) withDefaults() (Issuer, error) {
	if !issuerName.MatchString(i.Name) {
		return i, fmt.Errorf("issuer %q: its name must be lower-case letters, digits, . _ - (it stands in every principal's ID)", i.Name)
	}
	if i.Kind == "" {
		i.Kind = Human
	}
	if i.Kind != Human && i.Kind != Workload {
		return i, fmt.Errorf("issuer %s: kind %q is neither human nor workload", i.Name, i.Kind)
	}
	if i.ClientID == "" && i.Kind == Human {
		i.ClientID = "hoopctl"
	}
	if i.Audience == "" {
		i.Audience = i.ClientID
	}
	if i.Audience == "" {
		return i, fmt.Errorf("issuer %s: audience is needed: what the tokens' aud must name", i.Name)
	}
	if err := checkURL(i.URL); err != nil {
		return i, fmt.Errorf("issuer %s: url: %w", i.Name, err)
	}
	if i.SubjectClaim == "" {
		i.SubjectClaim = "sub"
	}
	if i.GroupsClaim == "" {
		i.GroupsClaim = "groups"
	}
	if len(i.Scopes) == 0 && i.Kind == Human {
		i.Scopes = []string{"openid", "profile", "groups", "offline_access"}
	}
	for claim, pattern := range i.Match {
		if _, err := path.Match(pattern, ""); err != nil {
			return i, fmt.Errorf("issuer %s: match %s: %w", i.Name, claim, err)
		}
	}
	return i, nil
}

// checkURL refuses what would fetch a provider's keys in plaintext over a
// network: whoever sits on it could be anyone's provider.
func checkURL(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || ip.IsLoopback()
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return fmt.Errorf("%q: want https, or http on this machine", address)
	}
	return nil
}

// verifier checks one issuer's tokens. Safe for concurrent use.
type verifier struct {
	issuer Issuer
	http   *http.Client
	now    func() time.Time

	mu       sync.Mutex
	provider *oidc.Provider
	built    time.Time
}

// algorithms that tokens may be signed with. The provider's own list of
// algorithms is not asked: none and HMAC must not get in by it.
var algorithms = []string{oidc.RS256, oidc.ES256, oidc.EdDSA, oidc.PS256, oidc.ES384, oidc.RS384, oidc.RS512}

func newVerifier(issuer Issuer, now func() time.Time) (*verifier, error) {
	issuer, err := issuer.withDefaults()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if issuer.CAFile != "" {
		pem, err := os.ReadFile(issuer.CAFile)
		if err != nil {
			return nil, fmt.Errorf("issuer %s: caFile: %w", issuer.Name, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("issuer %s: caFile %s holds no PEM certificate", issuer.Name, issuer.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	throttled := &throttle{next: transport, limit: rate.NewLimiter(rate.Every(10*time.Second), 5), now: now}
	return &verifier{issuer: issuer, now: now, http: &http.Client{Timeout: providerTimeout, Transport: throttled}}, nil
}

// throttle bounds what strangers can make us ask of a provider: a token with
// an unknown key id makes go-oidc fetch the key set, each time.
type throttle struct {
	next  http.RoundTripper
	limit *rate.Limiter
	now   func() time.Time
}

// errThrottled ends a fetch. The keys were seen a moment ago, so a token that
// none of them fits is taken for forged.
var errThrottled = errors.New("no known key fits, and the provider was asked too often just now")

func (t *throttle) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.limit.AllowN(t.now(), 1) {
		return nil, errThrottled
	}
	return t.next.RoundTrip(req)
}

// unreachableError is a provider that does not answer, as opposed to a token
// that is wrong.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// current is the provider as discovered within the last hour.
func (v *verifier) current(ctx context.Context) (*oidc.Provider, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.provider != nil && v.now().Sub(v.built) < providerLifetime {
		return v.provider, nil
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, v.http), providerTimeout)
	defer cancel()
	p, err := oidc.NewProvider(ctx, v.issuer.URL)
	if err != nil {
		return nil, &unreachableError{fmt.Errorf("discover the identity provider %s at %s: %w", v.issuer.Name, v.issuer.URL, err)}
	}
	v.provider, v.built = p, v.now()
	return p, nil
}

// token is what a verified token says.
type token struct {
	subject  string
	name     string
	groups   []string
	mfa      bool
	issued   time.Time
	authTime time.Time // zero: it does not say
	session  string    // sid, "" if it does not say
	id       string    // digest of what was signed: names the token whatever its signature's encoding
	expires  time.Time
	claims   map[string]any
}

// verify checks a token: signature by a key of the issuer with an algorithm of
// ours, iss, aud, azp, exp, nbf, iat, typ and the issuer's match.
func (v *verifier) verify(ctx context.Context, raw string) (*token, error) {
	if len(raw) > maxToken {
		return nil, fmt.Errorf("the token is longer than %d bytes", maxToken)
	}
	if err := v.checkType(raw); err != nil {
		return nil, err
	}
	p, err := v.current(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, v.http), providerTimeout)
	defer cancel()
	verified, err := p.Verifier(&oidc.Config{
		ClientID: v.issuer.Audience, SupportedSigningAlgs: algorithms,
		// exp has no leeway there and nbf five minutes.
		Now: func() time.Time { return v.now().Add(-tokenSkew) },
	}).Verify(ctx, raw)
	if err != nil {
		if isUnreachable(err) {
			return nil, &unreachableError{err}
		}
		return nil, err
	}
	return v.read(raw, verified)
}

// isUnreachable reports whether keys could not be fetched, so that a correct
// token may be refused for it. go-oidc passes causes on as text.
func isUnreachable(err error) bool {
	text := err.Error()
	return strings.Contains(text, "fetching keys") && !strings.Contains(text, errThrottled.Error())
}

// checkType refuses access tokens (RFC 9068) where a person's ID token is
// wanted: they say that a client may call something, not that someone logged in.
func (v *verifier) checkType(raw string) error {
	head, _, _ := strings.Cut(raw, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return errors.New("the token is not a JWT")
	}
	var header struct {
		Type string `json:"typ"`
	}
	if err := json.Unmarshal(b, &header); err != nil {
		return errors.New("the token is not a JWT")
	}
	kind := strings.TrimPrefix(strings.ToLower(header.Type), "application/")
	if kind == "" || kind == "jwt" || v.issuer.Kind == Workload && kind == "at+jwt" {
		return nil
	}
	return fmt.Errorf("a token of type %q is not an ID token", header.Type)
}

func (v *verifier) read(raw string, verified *oidc.IDToken) (*token, error) {
	t := &token{issued: verified.IssuedAt, expires: verified.Expiry, claims: map[string]any{}}
	if err := verified.Claims(&t.claims); err != nil {
		return nil, fmt.Errorf("read the token's claims: %w", err)
	}
	if err := v.checkParty(verified.Audience, t.claims); err != nil {
		return nil, err
	}
	if t.issued.IsZero() || t.issued.Unix() == 0 {
		return nil, errors.New("the token does not say when it was issued (iat)")
	}
	if t.issued.After(v.now().Add(tokenSkew)) {
		return nil, errors.New("the token was issued in the future: is a clock wrong?")
	}
	if err := v.checkMatch(t.claims); err != nil {
		return nil, err
	}
	signed := raw[:strings.LastIndexByte(raw, '.')]
	sum := sha256.Sum256([]byte(v.issuer.Name + "\n" + signed))
	t.id = hex.EncodeToString(sum[:])
	return t, v.readWho(t)
}

// checkParty refuses a token that was issued for somebody else and merely
// names us among its audiences (OpenID Connect Core 3.1.3.7).
func (v *verifier) checkParty(audience []string, claims map[string]any) error {
	azp, has := claims["azp"]
	if !has {
		if len(audience) > 1 && v.issuer.Kind == Human {
			return errors.New("the token has several audiences and no azp")
		}
		return nil
	}
	if v.issuer.Kind == Workload {
		return nil // it names the service itself; match decides
	}
	if azp != v.issuer.Audience && azp != v.issuer.ClientID {
		return fmt.Errorf("the token was issued for the client %q", azp)
	}
	return nil
}

func (v *verifier) checkMatch(claims map[string]any) error {
	for claim, pattern := range v.issuer.Match {
		value, ok := Claim(claims, claim)
		if hit, err := path.Match(pattern, value); !ok || err != nil || !hit {
			return fmt.Errorf("the token's claim %s is not %q", claim, pattern)
		}
	}
	return nil
}

// Claim returns a claim as text. Nested ones are named with dots:
// kubernetes.io is one name, so the longest name that fits comes first.
func Claim(claims map[string]any, name string) (string, bool) {
	if value, ok := claims[name]; ok {
		return claimText(value)
	}
	for i := len(name) - 1; i > 0; i-- {
		if name[i] != '.' {
			continue
		}
		if inner, ok := claims[name[:i]].(map[string]any); ok {
			return Claim(inner, name[i+1:])
		}
	}
	return "", false
}

func claimText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return fmt.Sprint(v), true
	case float64:
		if v == float64(int64(v)) {
			return fmt.Sprint(int64(v)), true
		}
	}
	return "", false
}

// readWho takes subject, name and groups from the claims. A groups claim that
// is missing means no groups; one that is not a list of names is refused.
func (v *verifier) readWho(t *token) error {
	subject, ok := t.claims[v.issuer.SubjectClaim].(string)
	if !ok || !isPlain(subject) {
		return fmt.Errorf("the token's claim %s names nobody", v.issuer.SubjectClaim)
	}
	t.subject, t.name = subject, subject
	claim := v.issuer.NameClaim
	if claim == "" {
		claim = "preferred_username"
	}
	if name, ok := t.claims[claim].(string); ok && isPlain(name) {
		t.name = name
	}
	groups, err := readGroups(t.claims[v.issuer.GroupsClaim])
	if err != nil {
		return fmt.Errorf("the token's claim %s: %w", v.issuer.GroupsClaim, err)
	}
	t.groups = groups
	t.session, _ = t.claims["sid"].(string)
	if at, ok := t.claims["auth_time"].(float64); ok && at > 0 {
		t.authTime = time.Unix(int64(at), 0)
	}
	t.mfa = usedMFA(t.claims["amr"])
	return nil
}

func readGroups(claim any) ([]string, error) {
	switch c := claim.(type) {
	case nil:
		return nil, nil
	case string:
		claim = []any{c}
	}
	list, ok := claim.([]any)
	if !ok || len(list) > maxGroups {
		return nil, fmt.Errorf("want a list of at most %d names", maxGroups)
	}
	groups := make([]string, 0, len(list))
	for _, g := range list {
		name, ok := g.(string)
		if !ok || !isPlain(name) {
			return nil, errors.New("it holds something that is not a name")
		}
		groups = append(groups, name)
	}
	return groups, nil
}

// isPlain reports whether a text from a provider can stand in names, logs and
// certificates.
func isPlain(s string) bool {
	if s == "" || len(s) > maxText || !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// factors of the authentication methods of RFC 8176: what one knows, has, is.
var factors = map[string]string{
	"pwd": "knows", "pin": "knows", "kba": "knows",
	"otp": "has", "hwk": "has", "swk": "has", "sms": "has", "tel": "has", "sc": "has", "pop": "has",
	"fpt": "is", "face": "is", "iris": "is", "retina": "is", "vbm": "is",
}

// usedMFA reads amr: mfa itself, or methods of two different factors.
func usedMFA(claim any) bool {
	list, _ := claim.([]any)
	seen := map[string]bool{}
	for _, m := range list {
		if m == "mfa" {
			return true
		}
		if s, ok := m.(string); ok && factors[s] != "" {
			seen[factors[s]] = true
		}
	}
	return len(seen) > 1
}
