package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/store"
)

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// log is evidence that a test can read, and break.
type log struct {
	mu     sync.Mutex
	events []api.Event
	broken error
}

func (l *log) Append(e *api.Event) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, l.broken
	}
	l.events = append(l.events, *e)
	return uint64(len(l.events)), nil
}

func (l *log) Wait(context.Context, uint64) error { return nil }

func (l *log) kinds() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.events {
		out = append(out, e.Kind)
	}
	return out
}

type house struct {
	*Room
	t     *testing.T
	p     *provider
	clock *clock
	log   *log
	store *store.Store
	ended chan Ended
	ca    *CA
	dir   string
}

func newHouse(t *testing.T, change ...func(*Config)) *house {
	t.Helper()
	h := &house{t: t, p: newProvider(t), clock: &clock{at: time.Now()}, log: &log{}, ended: make(chan Ended, 100), dir: t.TempDir()}
	var err error
	if h.ca, err = OpenCA(CAConfig{Dir: filepath.Join(h.dir, "keys"), Now: h.clock.now}); err != nil {
		t.Fatal(err)
	}
	if h.store, err = store.Open("sqlite:" + filepath.Join(h.dir, "store.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.store.Close() })
	h.open(change...)
	return h
}

// open makes the room anew, as a restart would.
func (h *house) open(change ...func(*Config)) {
	h.t.Helper()
	config := Config{CA: h.ca, Store: h.store, Evidence: h.log, Now: h.clock.now, Ended: func(e Ended) { h.ended <- e },
		Issuers: []Issuer{{Name: "dev", URL: h.p.URL}, {Name: "jobs", URL: h.p.URL, Kind: Workload, Audience: "hoopctl-services"}},
		Service: func(issuer string, claims map[string]any) (string, policy.ServiceSpec, bool) {
			repo, _ := Claim(claims, "repository_id")
			return "billing", policy.ServiceSpec{Owner: "dev:erin", Groups: []string{"billing"}}, issuer == "jobs" && repo == "123"
		}}
	for _, c := range change {
		c(&config)
	}
	var err error
	if h.Room, err = New(h.t.Context(), config); err != nil {
		h.t.Fatal(err)
	}
}

func csr(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(encodePEM("CERTIFICATE REQUEST", der))
}

func (h *house) enroll(key crypto.Signer, token string) (api.Enrolled, error) {
	h.t.Helper()
	return h.Enroll(h.t.Context(), api.Enroll{Issuer: "dev", IDToken: token, CSR: csr(h.t, key)}, "127.0.0.1")
}

func (h *house) renew(login string, key crypto.Signer, token string) (api.Enrolled, error) {
	h.t.Helper()
	return h.Renew(h.t.Context(), api.Enroll{Issuer: "dev", IDToken: token, CSR: csr(h.t, key), Login: login}, "127.0.0.1")
}

func (h *house) fresh(more claims) string { return h.p.token(h.t, h.p.claims(h.clock.now(), more)) }

func leaf(t *testing.T, e api.Enrolled) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(e.Certificate))
	if block == nil {
		t.Fatal("no certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func refused(t *testing.T, err error, want api.Reason, words string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *api.Error", err)
	}
	if e.Reason != want || !strings.Contains(e.Message, words) {
		t.Fatalf("got %s: %q, want %s with %q", e.Reason, e.Message, want, words)
	}
}

func TestLoginLivesByItsCertificate(t *testing.T) {
	h := newHouse(t)
	key := ecKey(t)
	e, err := h.enroll(key, h.fresh(nil))
	if err != nil {
		t.Fatal(err)
	}
	cert := leaf(t, e)
	p, login, err := h.Principal(cert)
	if err != nil {
		t.Fatal(err)
	}
	if p.ID() != "dev:alice" || p.Kind != policy.User || !p.In("engineers") || login != e.Login {
		t.Fatalf("principal %+v of login %s", p, login)
	}
	if got := cert.URIs[0].String(); got != "hoopctl://user/dev/alice/login/"+e.Login {
		t.Errorf("certificate names %s", got)
	}
	if life := cert.NotAfter.Sub(h.clock.now()); life > 15*time.Minute || life < 14*time.Minute {
		t.Errorf("certificate lives %s", life)
	}
	if !slices.Equal(h.log.kinds(), []string{api.EventLogin}) {
		t.Errorf("evidence: %v", h.log.kinds())
	}
	if ev := h.log.events[0]; ev.KeySHA256 != thumbprint(&key.PublicKey) || ev.Login != e.Login || ev.Principal != "dev:alice" {
		t.Errorf("login's leaf: %+v", ev)
	}
	h.clock.move(16 * time.Minute)
	_, _, err = h.Principal(cert)
	refused(t, err, api.ReasonLoginExpired, "expired")
}

func TestRestartKeepsLogins(t *testing.T) {
	h := newHouse(t)
	e, err := h.enroll(ecKey(t), h.fresh(nil))
	if err != nil {
		t.Fatal(err)
	}
	token := h.fresh(nil)
	if _, err := h.enroll(ecKey(t), token); err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(CAConfig{Dir: filepath.Join(h.dir, "keys"), Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	if ca.Fingerprint() != h.ca.Fingerprint() {
		t.Error("the CA changed over a restart")
	}
	h.ca = ca
	h.open()
	if _, _, err := h.Principal(leaf(t, e)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	_, err = h.enroll(ecKey(t), token)
	refused(t, err, api.ReasonLoginNeeded, "used already")
}

func TestRenewalFollowsTheProvider(t *testing.T) {
	h := newHouse(t)
	key := ecKey(t)
	first := h.p.claims(h.clock.now(), nil)
	e, err := h.enroll(key, h.p.token(t, first))
	if err != nil {
		t.Fatal(err)
	}
	again := func(more claims) string { // what a refresh brings: new iat, old auth_time and sid
		c := h.p.claims(h.clock.now(), claims{"auth_time": first["auth_time"], "sid": first["sid"]})
		for k, v := range more {
			c[k] = v
		}
		return h.p.token(t, c)
	}
	for range 3 {
		h.clock.move(14 * time.Minute)
		if e, err = h.renew(e.Login, key, again(nil)); err != nil {
			t.Fatal(err)
		}
	}
	old := leaf(t, e)
	t.Run("T56 a group removed at the provider is gone at the renewal", func(t *testing.T) {
		if _, err := h.renew(e.Login, key, again(claims{"groups": []string{}})); err != nil {
			t.Fatal(err)
		}
		p, _, err := h.Principal(old) // a certificate from before the renewal, too
		if err != nil || p.In("engineers") {
			t.Fatalf("%+v, %v", p, err)
		}
		if p, err := h.Current(e.Login); err != nil || p.In("engineers") {
			t.Fatalf("a session still sees %+v, %v", p, err)
		}
	})
	t.Run("a stale token renews nothing", func(t *testing.T) {
		stale := again(claims{"exp": h.clock.now().Add(time.Hour).Unix()})
		h.clock.move(6 * time.Minute)
		_, err := h.renew(e.Login, key, stale)
		refused(t, err, api.ReasonLoginNeeded, "older than five minutes")
	})
	t.Run("a token renews once", func(t *testing.T) {
		token := again(nil)
		if _, err := h.renew(e.Login, key, token); err != nil {
			t.Fatal(err)
		}
		_, err := h.renew(e.Login, key, token)
		refused(t, err, api.ReasonLoginNeeded, "used already")
	})
	t.Run("a login is over after 8 hours", func(t *testing.T) {
		for h.clock.now().Before(e.LoginEnds.Add(-14 * time.Minute)) {
			h.clock.move(13 * time.Minute)
			last, err := h.renew(e.Login, key, again(nil))
			if err != nil {
				t.Fatal(err)
			}
			if last.Expires.After(e.LoginEnds) {
				t.Fatalf("a certificate outlives its login: %s after %s", last.Expires, e.LoginEnds)
			}
		}
		h.clock.move(14 * time.Minute)
		_, err := h.renew(e.Login, key, again(nil))
		refused(t, err, api.ReasonLoginExpired, "over")
	})
}

func TestStolenThingsAreUseless(t *testing.T) {
	h := newHouse(t)
	key, thief := ecKey(t), ecKey(t)
	c := h.p.claims(h.clock.now(), nil)
	token := h.p.token(t, c)
	e, err := h.enroll(key, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("T58 a stolen ID token", func(t *testing.T) {
		_, err := h.enroll(thief, token)
		refused(t, err, api.ReasonLoginNeeded, "used already")
		_, err = h.renew(e.Login, thief, token)
		refused(t, err, api.ReasonLoginNeeded, "another key")
	})
	t.Run("T58 a stolen refresh token", func(t *testing.T) {
		// It yields fresh tokens of the old authentication.
		h.clock.move(time.Minute)
		refreshed := func() string {
			return h.p.token(t, h.p.claims(h.clock.now(), claims{"auth_time": c["auth_time"], "sid": c["sid"]}))
		}
		_, err := h.enroll(thief, refreshed())
		refused(t, err, api.ReasonLoginNeeded, "used already")
		_, err = h.renew(e.Login, thief, refreshed())
		refused(t, err, api.ReasonLoginNeeded, "another key")
		h.clock.move(10 * time.Minute)
		_, err = h.enroll(thief, refreshed())
		refused(t, err, api.ReasonLoginNeeded, "more than five minutes ago")
	})
	t.Run("T58 another login's renewal", func(t *testing.T) {
		bob := h.fresh(claims{"sub": "bob"})
		_, err := h.renew(e.Login, key, bob)
		refused(t, err, api.ReasonLoginNeeded, "the token is of dev:bob")
	})
	t.Run("a request signed by another key", func(t *testing.T) {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		der[len(der)-3] ^= 1
		_, err = h.Enroll(t.Context(), api.Enroll{Issuer: "dev", IDToken: h.fresh(nil), CSR: string(encodePEM("CERTIFICATE REQUEST", der))}, "")
		refused(t, err, api.ReasonInvalid, "")
	})
	t.Run("a token whose signature was written otherwise is the same token", func(t *testing.T) {
		h := newHouse(t)
		token := h.fresh(nil)
		if _, err := h.enroll(ecKey(t), token); err != nil {
			t.Fatal(err)
		}
		// Every ECDSA signature (r, s) has a twin (r, n-s) that verifies too.
		parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		sig := parsed.Signatures[0].Signature
		n := ecKey(t).Params().N
		s := new(big.Int).Sub(n, new(big.Int).SetBytes(sig[32:]))
		twin := append(slices.Clone(sig[:32]), s.FillBytes(make([]byte, 32))...)
		forged := token[:strings.LastIndexByte(token, '.')+1] + b64(twin)
		if _, err := h.verifiers["dev"].verify(t.Context(), forged); err != nil {
			t.Fatalf("the twin should verify: %v", err)
		}
		_, err = h.enroll(ecKey(t), forged)
		refused(t, err, api.ReasonLoginNeeded, "used already")
	})
}

func TestConcurrentEnrolmentsOfOneAuthentication(t *testing.T) {
	h := newHouse(t)
	base := h.p.claims(h.clock.now(), nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		c := h.p.claims(h.clock.now(), claims{"sid": base["sid"], "jti": fmt.Sprint(i)})
		token, key := h.p.token(t, c), ecKey(t)
		wg.Go(func() {
			if _, err := h.enroll(key, token); err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Fatalf("one authentication enrolled %d keys", won)
	}
}

func TestLogoutIsImmediate(t *testing.T) {
	h := newHouse(t)
	key := ecKey(t)
	e, err := h.enroll(key, h.fresh(nil))
	if err != nil {
		t.Fatal(err)
	}
	alice, _, err := h.Principal(leaf(t, e))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Logout(t.Context(), e.Login, alice, "127.0.0.1", ""); err != nil {
		t.Fatal(err)
	}
	_, _, err = h.Principal(leaf(t, e))
	refused(t, err, api.ReasonLoginExpired, "logged out")
	if got := <-h.ended; got.Login != e.Login || !got.Final {
		t.Errorf("told %+v", got)
	}
	_, err = h.renew(e.Login, key, h.fresh(nil))
	refused(t, err, api.ReasonLoginExpired, "logged out")
	h.open()
	_, _, err = h.Principal(leaf(t, e))
	refused(t, err, api.ReasonLoginExpired, "logged out")
	if kinds := h.log.kinds(); kinds[len(kinds)-1] != api.EventLogout {
		t.Errorf("evidence: %v", kinds)
	}
}

func TestLogoutAllEndsEveryLogin(t *testing.T) {
	h := newHouse(t)
	var certs []*x509.Certificate
	for range 3 {
		e, err := h.enroll(ecKey(t), h.fresh(nil))
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, leaf(t, e))
	}
	other, err := h.enroll(ecKey(t), h.fresh(claims{"sub": "bob"}))
	if err != nil {
		t.Fatal(err)
	}
	names, err := h.LogoutAll(t.Context(), "dev:alice", policy.Principal{Issuer: "dev", Subject: "erin"}, "", "laptop lost")
	if err != nil || len(names) != 3 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, c := range certs {
		_, _, err := h.Principal(c)
		refused(t, err, api.ReasonLoginExpired, "laptop lost")
	}
	if _, _, err := h.Principal(leaf(t, other)); err != nil {
		t.Errorf("bob was logged out too: %v", err)
	}
}

func TestALapsedLoginIsToldAndRevives(t *testing.T) {
	h := newHouse(t)
	key := ecKey(t)
	e, err := h.enroll(key, h.fresh(nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	h.clock.move(16 * time.Minute)
	if got := <-h.ended; got.Login != e.Login || got.Final {
		t.Errorf("told %+v", got)
	}
	if _, err := h.Current(e.Login); err == nil {
		t.Error("a session of a lapsed login goes on")
	}
	if _, err := h.renew(e.Login, key, h.fresh(nil)); err != nil {
		t.Fatalf("a login within its 8 hours can be renewed: %v", err)
	}
	if _, err := h.Current(e.Login); err != nil {
		t.Error(err)
	}
	h.clock.move(8 * time.Hour)
	if got := <-h.ended; !got.Final {
		t.Errorf("told %+v", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNothingIsLetInWithoutEvidence(t *testing.T) {
	h := newHouse(t)
	h.log.broken = errors.New("disk full")
	_, err := h.enroll(ecKey(t), h.fresh(nil))
	refused(t, err, api.ReasonEvidence, "evidence")
	if len(h.logins) != 0 {
		t.Error("a login lives that the evidence does not know")
	}
}

func TestServices(t *testing.T) {
	h := newHouse(t)
	enroll := func(key crypto.Signer, token string) (api.Enrolled, error) {
		return h.Enroll(t.Context(), api.Enroll{Issuer: "jobs", IDToken: token, CSR: csr(t, key)}, "")
	}
	job := func(more claims) string {
		c := claims{"aud": "hoopctl-services", "sub": "repo:acme/app:ref:refs/heads/main", "repository_id": "123", "auth_time": nil, "groups": []string{"admins"}}
		for k, v := range more {
			c[k] = v
		}
		return h.fresh(c)
	}
	key := ecKey(t)
	token := job(nil)
	e, err := enroll(key, token)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := h.Principal(leaf(t, e))
	if err != nil {
		t.Fatal(err)
	}
	if p.Kind != policy.Service || p.Name != "billing" || p.Owner != "dev:erin" || !slices.Equal(p.Groups, []string{"billing"}) {
		t.Errorf("groups of a service are its resource's, never its token's: %+v", p)
	}
	if _, err := enroll(ecKey(t), token); err == nil {
		t.Error("an assertion enrolled twice")
	}
	renew := func(token string) error {
		_, err := h.Renew(t.Context(), api.Enroll{Issuer: "jobs", IDToken: token, CSR: csr(t, key), Login: e.Login}, "")
		return err
	}
	if err := renew(token); err != nil {
		t.Errorf("the same assertion renews its own login: %v", err)
	}
	if err := renew(job(nil)); err != nil {
		t.Errorf("a new assertion renews it: %v", err)
	}
	_, err = enroll(ecKey(t), job(claims{"repository_id": "456"}))
	refused(t, err, api.ReasonLoginNeeded, "no Service matches")
	_, err = enroll(ecKey(t), h.fresh(nil))
	refused(t, err, api.ReasonLoginNeeded, "audience") // a person's token
	_, err = h.enroll(ecKey(t), job(nil))
	refused(t, err, api.ReasonLoginNeeded, "audience") // a service's, as a person
	h.clock.move(61 * time.Minute)
	_, err = enroll(ecKey(t), job(claims{"iat": h.clock.now().Add(-61 * time.Minute).Unix(), "exp": h.clock.now().Add(time.Hour).Unix()}))
	refused(t, err, api.ReasonLoginNeeded, "more than an hour ago")
}

func TestT50_OnlyTheClientAuthorityMakesLogins(t *testing.T) {
	h := newHouse(t)
	loginKey := ecKey(t)
	e, err := h.enroll(loginKey, h.fresh(nil))
	if err != nil {
		t.Fatal(err)
	}
	good := leaf(t, e)
	uri := good.URIs[0]
	now := h.clock.now()
	template := func() *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: "alice"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(10 * time.Minute),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{uri}, BasicConstraintsValid: true}
	}
	// Each is right in all but one thing: even the key is the login's own.
	key := loginKey
	make := func(by authority, change func(*x509.Certificate)) *x509.Certificate {
		t.Helper()
		c := template()
		if change != nil {
			change(c)
		}
		if by.key == nil {
			by.key = key
		}
		cert, err := sign(c, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	stranger, err := OpenCA(CAConfig{Dir: t.TempDir(), Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	leafKey := ecKey(t)
	mine, err := h.enroll(leafKey, h.fresh(claims{"sub": "mallory"}))
	if err != nil {
		t.Fatal(err)
	}
	server, err := h.ca.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	client := h.ca.client
	if p, _, err := h.Principal(make(client, nil)); err != nil || p.ID() != "dev:alice" {
		t.Fatalf("what the cases below start from is not right: %+v, %v", p, err)
	}
	key = ecKey(t)
	anotherKey := make(client, nil)
	key = loginKey
	for name, cert := range map[string]*x509.Certificate{
		"T50 signed by the server authority":        make(h.ca.server, nil),
		"T50 signed by another installation":        make(stranger.client, nil),
		"T50 signed by itself":                      make(authority{}, nil),
		"T50 a login's certificate as an authority": make(authority{cert: leaf(t, mine), key: leafKey}, nil),
		"T50 the server's own certificate":          server.Leaf,
		"T50 the client authority's own":            client.cert,
		"T50 the server authority's own":            h.ca.server.cert,
		"T50 an authority below the client's":       make(client, func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }),
		"T50 for servers only":                      make(client, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"T50 for no purpose":                        make(client, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }),
		"T50 not valid yet":                         make(client, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }),
		"T50 expired":                               make(client, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }),
		"T50 another key under the same login":      anotherKey,
		"T50 no login":                              make(client, func(c *x509.Certificate) { c.URIs = nil }),
		"T50 two logins":                            make(client, func(c *x509.Certificate) { c.URIs = append(c.URIs, uri) }),
		"T50 another scheme":                        make(client, func(c *x509.Certificate) { c.URIs[0] = &url.URL{Scheme: "spiffe", Host: "user", Path: uri.Path} }),
		"T50 a login that never was": make(client, func(c *x509.Certificate) {
			c.URIs[0] = &url.URL{Scheme: "hoopctl", Host: "user", Path: "/dev/alice/login/l-none"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			p, login, err := h.Principal(cert)
			var e *api.Error
			if !errors.As(err, &e) || e.Code != 401 {
				t.Fatalf("let in as %+v (%s): %v", p, login, err)
			}
			if p.ID() != ":" || login != "" {
				t.Errorf("a refusal names %+v, %s", p, login)
			}
		})
	}
	if _, _, err := h.Principal(good); err != nil {
		t.Errorf("the true one: %v", err)
	}
}

func TestT55_PeopleAreKeyedByIssuerAndSubject(t *testing.T) {
	other := newProvider(t)
	h := newHouse(t, func(c *Config) {
		c.Issuers = append(c.Issuers, Issuer{Name: "other", URL: other.URL})
	})
	who := func(issuer string, p *provider, c claims) (policy.Principal, error) {
		e, err := h.Enroll(t.Context(), api.Enroll{Issuer: issuer, IDToken: p.token(t, p.claims(h.clock.now(), c)), CSR: csr(t, ecKey(t))}, "")
		return e.Principal, err
	}
	alice, err := who("dev", h.p, claims{"email": "alice@acme.example", "email_verified": true})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("T55 the same e-mail and name at a second provider", func(t *testing.T) {
		p, err := who("other", other, claims{"email": "alice@acme.example", "email_verified": true})
		if err != nil || p.ID() == alice.ID() {
			t.Fatalf("%s, %v", p.ID(), err)
		}
	})
	t.Run("T55 another subject with alice's name", func(t *testing.T) {
		p, err := who("dev", h.p, claims{"sub": "mallory", "preferred_username": "alice", "email": "alice@acme.example"})
		if err != nil || p.ID() != "dev:mallory" {
			t.Fatalf("%s, %v", p.ID(), err)
		}
	})
	t.Run("T55 no groups claim is no groups", func(t *testing.T) {
		p, err := who("dev", h.p, claims{"groups": nil})
		if err != nil || len(p.Groups) != 0 {
			t.Fatalf("%+v, %v", p, err)
		}
	})
	for name, c := range map[string]claims{
		"T55 no subject":               {"sub": nil},
		"T55 an empty subject":         {"sub": ""},
		"T55 a subject that is a list": {"sub": []string{"alice"}},
		"T55 a subject with controls":  {"sub": "alice\n"},
		"T55 a very long subject":      {"sub": strings.Repeat("a", 300)},
		"T55 groups that are numbers":  {"groups": []int{1}},
		"T55 groups that are an object": {"groups": map[string]bool{
			"admins": true}},
		"T55 no time of authentication": {"auth_time": nil},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := who("dev", h.p, c); err == nil {
				t.Fatalf("let in as %+v", p)
			}
		})
	}
	t.Run("T55 a subject that looks like a path stays one name", func(t *testing.T) {
		p, err := who("dev", h.p, claims{"sub": "x/login/l-1?a=b#c|%2f"})
		if err != nil || p.Subject != "x/login/l-1?a=b#c|%2f" {
			t.Fatalf("%+v, %v", p, err)
		}
	})
}

func TestOddSubjectsStayInTheirCertificates(t *testing.T) {
	h := newHouse(t)
	for _, sub := range []string{"x/login/l-1", "auth0|12", "repo:acme/app:ref:refs/heads/main", "a b", "ü", "a%2Fb", "..", "a?b#c"} {
		e, err := h.enroll(ecKey(t), h.fresh(claims{"sub": sub}))
		if err != nil {
			t.Fatalf("%q: %v", sub, err)
		}
		p, login, err := h.Principal(leaf(t, e))
		if err != nil || p.Subject != sub || login != e.Login {
			t.Errorf("%q: %+v, %s, %v", sub, p, login, err)
		}
	}
}

func TestT57_Tokens(t *testing.T) {
	h := newHouse(t)
	now := h.clock.now()
	key := h.p.signer
	public := key.Key.(*ecdsa.PrivateKey).PublicKey
	der, err := x509.MarshalPKIXPublicKey(&public)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newProvider(t)
	rs := rsaKey(t)
	good := func(more claims) claims { return h.p.claims(now, more) }
	for name, token := range map[string]string{
		"T57 alg none":                       unsigned(t, good(nil)),
		"T57 HMAC with the public key (PEM)": signToken(t, jose.HS256, encodePEM("PUBLIC KEY", der), "JWT", good(nil)),
		"T57 HMAC with the public key (DER)": signToken(t, jose.HS256, der, "JWT", good(nil)),
		"T57 a key of one's own":             signToken(t, jose.ES256, jose.JSONWebKey{Key: ecKey(t), KeyID: "k1"}, "JWT", good(nil)),
		"T57 an RSA key under the same id":   signToken(t, jose.RS256, jose.JSONWebKey{Key: rs, KeyID: "k1"}, "JWT", good(nil)),
		"T57 another audience":               h.p.token(t, good(claims{"aud": "someone-else"})),
		"T57 ours among others, no azp":      h.p.token(t, good(claims{"aud": []string{"hoopctl", "someone-else"}})),
		"T57 ours, for another party":        h.p.token(t, good(claims{"azp": "someone-else"})),
		"T57 an issuer mixed up":             h.p.token(t, good(claims{"iss": stranger.URL})),
		"T57 another issuer's token":         stranger.token(t, stranger.claims(now, nil)),
		"T57 the issuer with a slash more":   h.p.token(t, good(claims{"iss": h.p.URL + "/"})),
		"T57 expired":                        h.p.token(t, good(claims{"exp": now.Add(-time.Minute).Unix()})),
		"T57 no expiry":                      h.p.token(t, good(claims{"exp": nil})),
		"T57 not valid yet":                  h.p.token(t, good(claims{"nbf": now.Add(time.Hour).Unix()})),
		"T57 issued in the future":           h.p.token(t, good(claims{"iat": now.Add(10 * time.Minute).Unix(), "exp": now.Add(time.Hour).Unix()})),
		"T57 no time of issue":               h.p.token(t, good(claims{"iat": nil})),
		"T57 an access token":                signToken(t, jose.ES256, key, "at+jwt", good(nil)),
		"T57 an access token, long form":     signToken(t, jose.ES256, key, "application/at+jwt", good(nil)),
		"T57 an old authentication":          h.p.token(t, good(claims{"auth_time": now.Add(-time.Hour).Unix()})),
		"T57 a future authentication":        h.p.token(t, good(claims{"auth_time": now.Add(time.Hour).Unix()})),
		"T57 nothing":                        "",
		"T57 dots":                           "..",
		"T57 not base64":                     "a.b.c",
		"T57 very long":                      strings.Repeat("a", maxToken+1),
		"T57 a signature cut off":            strings.TrimRight(h.p.token(t, good(nil)), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := h.enroll(ecKey(t), token); err == nil {
				t.Fatalf("let in as %+v", e.Principal)
			} else {
				refused(t, err, api.ReasonLoginNeeded, "")
			}
		})
	}
	t.Run("T57 a clock that is a little off is borne", func(t *testing.T) {
		for _, c := range []claims{
			{"exp": now.Add(-20 * time.Second).Unix()},
			{"iat": now.Add(20 * time.Second).Unix(), "auth_time": now.Add(20 * time.Second).Unix()},
			{"aud": []string{"hoopctl", "x"}, "azp": "hoopctl"},
		} {
			if _, err := h.enroll(ecKey(t), h.p.token(t, good(c))); err != nil {
				t.Errorf("%v: %v", c, err)
			}
		}
	})
	t.Run("T57 an unknown issuer", func(t *testing.T) {
		_, err := h.Enroll(t.Context(), api.Enroll{Issuer: "evil", IDToken: h.fresh(nil), CSR: csr(t, ecKey(t))}, "")
		refused(t, err, api.ReasonInvalid, "unknown issuer")
	})
}

func TestT57_KeyRotation(t *testing.T) {
	h := newHouse(t)
	if _, err := h.enroll(ecKey(t), h.fresh(nil)); err != nil {
		t.Fatal(err)
	}
	old := h.p.signer
	h.p.rotate(t, "k2")
	if _, err := h.enroll(ecKey(t), h.fresh(nil)); err != nil {
		t.Fatalf("T57 a token of the new key: %v", err)
	}
	withdrawn := func() string {
		return signToken(t, jose.ES256, old, "JWT", h.p.claims(h.clock.now(), nil))
	}
	if _, err := h.enroll(ecKey(t), withdrawn()); err == nil {
		t.Error("T57 a withdrawn key is believed after its successor was seen")
	}
	t.Run("T57 a withdrawn key is forgotten within the hour without a successor", func(t *testing.T) {
		h := newHouse(t)
		if _, err := h.enroll(ecKey(t), h.fresh(nil)); err != nil {
			t.Fatal(err)
		}
		old := h.p.signer
		h.p.rotate(t, "k2")
		h.clock.move(time.Hour + time.Minute)
		_, err := h.enroll(ecKey(t), signToken(t, jose.ES256, old, "JWT", h.p.claims(h.clock.now(), nil)))
		refused(t, err, api.ReasonLoginNeeded, "")
	})
}

func TestT57_ForgedKeyIDsDoNotHammerTheProvider(t *testing.T) {
	h := newHouse(t)
	if _, err := h.enroll(ecKey(t), h.fresh(nil)); err != nil {
		t.Fatal(err)
	}
	forger := ecKey(t)
	for i := range 50 {
		token := signToken(t, jose.ES256, jose.JSONWebKey{Key: forger, KeyID: fmt.Sprint("x", i)}, "JWT", h.p.claims(h.clock.now(), nil))
		if _, err := h.enroll(ecKey(t), token); err == nil {
			t.Fatal("let in")
		}
	}
	if n := h.p.fetches.Load(); n > 6 {
		t.Errorf("50 forged tokens made us fetch the keys %d times", n)
	}
	if _, err := h.enroll(ecKey(t), h.fresh(nil)); err != nil {
		t.Errorf("an honest token of a known key: %v", err)
	}
}

func TestAProviderThatIsAwayIsNotAWrongToken(t *testing.T) {
	h := newHouse(t)
	token := h.fresh(nil)
	h.p.Close()
	_, err := h.enroll(ecKey(t), token)
	refused(t, err, api.ReasonUnavailable, "cannot reach the identity provider dev")
}

func TestDiscoveryMustNameTheConfiguredIssuer(t *testing.T) {
	h := newHouse(t)
	h.p.issuer = "https://accounts.example"
	_, err := h.enroll(ecKey(t), h.fresh(nil))
	if err == nil {
		t.Fatal("let in")
	}
}

func TestRequestsForCertificates(t *testing.T) {
	h := newHouse(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, ecKey(t))
	for name, text := range map[string]string{
		"empty":      "",
		"not PEM":    "hello",
		"a key":      string(encodePEM("PRIVATE KEY", []byte("x"))),
		"rsa":        csr(t, rsaKey(t)),
		"ed25519":    csr(t, edKey),
		"two":        good + good,
		"very long":  good + strings.Repeat("\n", maxCSR),
		"cut in DER": string(encodePEM("CERTIFICATE REQUEST", []byte{0x30, 0x82, 0xff, 0xff})),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.Enroll(t.Context(), api.Enroll{Issuer: "dev", IDToken: h.fresh(nil), CSR: text}, "")
			refused(t, err, api.ReasonInvalid, "")
		})
	}
	t.Run("what it asks for is not given", func(t *testing.T) {
		key := ecKey(t)
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "erin"},
			DNSNames: []string{"localhost"}, URIs: []*url.URL{{Scheme: "hoopctl", Host: "user", Path: "/dev/erin/login/l-1"}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		e, err := h.Enroll(t.Context(), api.Enroll{Issuer: "dev", IDToken: h.fresh(nil), CSR: string(encodePEM("CERTIFICATE REQUEST", der))}, "")
		if err != nil {
			t.Fatal(err)
		}
		c := leaf(t, e)
		if c.Subject.CommonName != "alice" || len(c.DNSNames) != 0 || len(c.URIs) != 1 || !strings.Contains(c.URIs[0].Path, "/alice/") || c.IsCA {
			t.Errorf("%+v %v %v", c.Subject, c.DNSNames, c.URIs)
		}
	})
}

func TestIssuersAreChecked(t *testing.T) {
	for name, issuer := range map[string]Issuer{
		"no name":          {URL: "https://x"},
		"a colon":          {Name: "a:b", URL: "https://x"},
		"plain http":       {Name: "a", URL: "http://idp.example"},
		"no address":       {Name: "a"},
		"kind":             {Name: "a", URL: "https://x", Kind: "robot"},
		"no audience":      {Name: "a", URL: "https://x", Kind: Workload},
		"a broken pattern": {Name: "a", URL: "https://x", Match: map[string]string{"a": "["}},
		"no CA file":       {Name: "a", URL: "https://x", CAFile: "/does/not/exist"},
	} {
		if _, err := newVerifier(issuer, time.Now); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMatchOfAnIssuer(t *testing.T) {
	claims := map[string]any{"hd": "acme.example", "kubernetes.io": map[string]any{"namespace": "prod"}, "n": 12.0, "yes": true}
	for _, c := range []struct {
		match map[string]string
		ok    bool
	}{
		{map[string]string{"hd": "acme.example"}, true},
		{map[string]string{"hd": "evil.example"}, false},
		{map[string]string{"kubernetes.io.namespace": "prod"}, true},
		{map[string]string{"kubernetes.io.namespace": "p*"}, true},
		{map[string]string{"kubernetes.io": "*"}, false},
		{map[string]string{"n": "12", "yes": "true"}, true},
		{map[string]string{"absent": "*"}, false},
	} {
		v := &verifier{issuer: Issuer{Match: c.match}}
		if err := v.checkMatch(claims); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.match, err)
		}
	}
}

func TestMFA(t *testing.T) {
	for _, c := range []struct {
		amr any
		ok  bool
	}{{nil, false}, {[]any{"pwd"}, false}, {[]any{"pwd", "pin"}, false}, {[]any{"pwd", "otp"}, true}, {[]any{"mfa"}, true}, {"mfa", false}, {[]any{"pwd", "geo"}, false}} {
		if got := usedMFA(c.amr); got != c.ok {
			t.Errorf("%v: %v", c.amr, got)
		}
	}
}

func TestPruneForgetsWhatNoCheckNeeds(t *testing.T) {
	h := newHouse(t)
	token := h.fresh(nil)
	if _, err := h.enroll(ecKey(t), token); err != nil {
		t.Fatal(err)
	}
	count := func(kind string) (n int) {
		if err := h.store.Each(t.Context(), kind, time.Time{}, func(string, []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := h.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if count(kindUsed) != 2 || count(kindLogin) != 1 {
		t.Fatalf("too early: %d, %d", count(kindUsed), count(kindLogin))
	}
	h.clock.move(48 * time.Hour)
	if err := h.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if count(kindUsed) != 0 || count(kindLogin) != 0 {
		t.Errorf("left: %d, %d", count(kindUsed), count(kindLogin))
	}
	_, err := h.enroll(ecKey(t), token)
	refused(t, err, api.ReasonLoginNeeded, "expired")
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func FuzzCSR(f *testing.F) {
	f.Add("")
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := parseCSR(text)
		if (key == nil) == (err == nil) {
			t.Fatal("a key or an error")
		}
	})
}
