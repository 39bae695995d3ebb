package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// provider is an identity provider that signs whatever a test asks it to.
type provider struct {
	*httptest.Server
	issuer string // what its discovery document says; default its URL

	mu      sync.Mutex
	keys    []jose.JSONWebKey // published
	signer  jose.JSONWebKey   // private
	fetches atomic.Int64      // of the key set
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{}
	p.rotate(t, "k1")
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		issuer := p.issuer
		if issuer == "" {
			issuer = p.URL
		}
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": issuer, "jwks_uri": p.URL + "/keys", "authorization_endpoint": p.URL + "/a", "token_endpoint": p.URL + "/t",
			// A provider's own list must not let these in.
			"id_token_signing_alg_values_supported": []string{"none", "HS256", "ES256", "RS256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: p.keys})
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// rotate publishes one new key in place of all others.
func (p *provider) rotate(t *testing.T, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.use(jose.JSONWebKey{Key: key, KeyID: id, Algorithm: "ES256", Use: "sig"})
}

func (p *provider) use(key jose.JSONWebKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signer, p.keys = key, []jose.JSONWebKey{key.Public()}
}

type claims map[string]any

// claims of a fresh login of alice.
func (p *provider) claims(now time.Time, more claims) claims {
	c := claims{
		"iss": p.URL, "sub": "alice", "aud": "hoopctl", "preferred_username": "alice", "groups": []string{"engineers"},
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "auth_time": now.Unix(), "sid": rand.Text(),
	}
	maps.Copy(c, more)
	for k, v := range c {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

func (p *provider) token(t *testing.T, c claims) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	return signToken(t, jose.SignatureAlgorithm(p.signer.Algorithm), p.signer, "JWT", c)
}

func signToken(t *testing.T, alg jose.SignatureAlgorithm, key any, typ string, c claims) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// unsigned is a token with alg none.
func unsigned(t *testing.T, c claims) string {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + enc(b) + "."
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var _ crypto.Signer = (*ecdsa.PrivateKey)(nil)
