package devidp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const testPassword = "correct horse battery"

func testConfig(t *testing.T, dir string) Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return Config{Listener: l, Dir: dir, Password: testPassword,
		Users:    []User{{"alice", []string{"engineers"}}, {"bob", []string{"approvers", "dba"}}},
		Services: []Client{{"billing", "0123456789abcdef", []string{"billing"}}}}
}

// start runs a provider until stop is called, or the test ends.
func start(t *testing.T, config Config) (p *Provider, stop func()) {
	t.Helper()
	p, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return p, stop
}

// rp is an ordinary client of the provider: x/oauth2 and go-oidc.
type rp struct {
	oauth2.Config
	provider *oidc.Provider
}

func newRP(t *testing.T, p *Provider) *rp {
	t.Helper()
	provider, err := oidc.NewProvider(t.Context(), p.URL())
	if err != nil {
		t.Fatal(err)
	}
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	return &rp{oauth2.Config{ClientID: "hoopctl", Endpoint: endpoint, Scopes: []string{"openid", "profile", "groups", "offline_access"}}, provider}
}

func (c *rp) begin(t *testing.T) *oauth2.DeviceAuthResponse {
	t.Helper()
	d, err := c.DeviceAuth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (c *rp) login(t *testing.T, user string) *oauth2.Token {
	t.Helper()
	d := c.begin(t)
	if err := Answer(t.Context(), d.VerificationURIComplete, user, testPassword); err != nil {
		t.Fatal(err)
	}
	token, err := c.DeviceAccessToken(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

type said struct {
	Subject  string   `json:"sub"`
	Name     string   `json:"preferred_username"`
	Groups   []string `json:"groups"`
	AuthTime int64    `json:"auth_time"`
	Issued   int64    `json:"iat"`
	Session  string   `json:"sid"`
}

func (c *rp) read(t *testing.T, token *oauth2.Token) said {
	t.Helper()
	raw, _ := token.Extra("id_token").(string)
	id, err := c.provider.Verifier(&oidc.Config{ClientID: "hoopctl"}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	var s said
	if err := id.Claims(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *rp) refresh(t *testing.T, refresh string) (*oauth2.Token, error) {
	t.Helper()
	return c.TokenSource(t.Context(), &oauth2.Token{RefreshToken: refresh, Expiry: time.Unix(1, 0)}).Token()
}

func code(err error) string {
	var e *oauth2.RetrieveError
	if errors.As(err, &e) {
		return e.ErrorCode
	}
	return ""
}

func TestDeviceFlow(t *testing.T) {
	t.Parallel()
	p, _ := start(t, testConfig(t, t.TempDir()))
	c := newRP(t, p)
	d := c.begin(t)
	if d.Interval != 1 || d.VerificationURI != p.URL()+"/device" || d.VerificationURIComplete != p.URL()+"/device?user_code="+d.UserCode {
		t.Errorf("%+v", d)
	}
	if err := Answer(t.Context(), d.VerificationURIComplete, "bob", testPassword); err != nil {
		t.Fatal(err)
	}
	token, err := c.DeviceAccessToken(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	s := c.read(t, token)
	if s.Subject != "bob" || s.Name != "bob" || !slices.Equal(s.Groups, []string{"approvers", "dba"}) || s.Session == "" {
		t.Errorf("%+v", s)
	}
	if age := time.Now().Unix() - s.AuthTime; age < 0 || age > 60 {
		t.Errorf("authenticated %d s ago", age)
	}
	t.Run("the access token is no JWT", func(t *testing.T) {
		if strings.Count(token.AccessToken, ".") == 2 {
			t.Error("it could be taken for an ID token")
		}
	})
	t.Run("T57 a device code is good once", func(t *testing.T) {
		_, err := c.DeviceAccessToken(t.Context(), d)
		if code(err) != "access_denied" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("T57 a user code is good once", func(t *testing.T) {
		if err := Answer(t.Context(), d.VerificationURIComplete, "alice", testPassword); err == nil {
			t.Error("answered twice")
		}
	})
	t.Run("every authentication has its own session", func(t *testing.T) {
		if again := c.read(t, c.login(t, "bob")); again.Session == s.Session {
			t.Error("two authentications look like one")
		}
	})
}

func TestRefreshTokensRotateAndOutliveARestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "idp")
	p, stop := start(t, testConfig(t, dir))
	c := newRP(t, p)
	first := c.login(t, "alice")
	before := c.read(t, first)
	second, err := c.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken {
		t.Error("the refresh token was not rotated")
	}
	if after := c.read(t, second); after.AuthTime != before.AuthTime || after.Session != before.Session || after.Issued < before.Issued {
		t.Errorf("a refreshed token must name the same authentication: %+v after %+v", after, before)
	}
	stop()
	if info, err := os.Stat(filepath.Join(dir, "devidp.json")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	p, _ = start(t, testConfig(t, dir)) // another port
	c = newRP(t, p)
	third, err := c.refresh(t, second.RefreshToken)
	if err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	if after := c.read(t, third); after.Session != before.Session {
		t.Errorf("%+v", after)
	}
	t.Run("a user's groups are those of now", func(t *testing.T) {
		p.SetUsers([]User{{"alice", []string{"interns"}}})
		if third, err = c.refresh(t, third.RefreshToken); err != nil {
			t.Fatal(err)
		}
		if s := c.read(t, third); !slices.Equal(s.Groups, []string{"interns"}) {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a user who is gone cannot refresh", func(t *testing.T) {
		p.SetUsers([]User{{"bob", nil}})
		if _, err := c.refresh(t, third.RefreshToken); code(err) != "invalid_grant" {
			t.Errorf("got %v", err)
		}
		p.SetUsers([]User{{"alice", nil}})
	})
	t.Run("a token that is shown again ends the line", func(t *testing.T) {
		if _, err := c.refresh(t, second.RefreshToken); code(err) != "invalid_grant" {
			t.Errorf("got %v", err)
		}
		if _, err := c.refresh(t, third.RefreshToken); code(err) != "invalid_grant" {
			t.Errorf("the newest token of a stolen line: %v", err)
		}
	})
}

func TestT57_DeviceFlowAbuse(t *testing.T) {
	t.Parallel()
	p, _ := start(t, testConfig(t, t.TempDir()))
	c := newRP(t, p)
	poll := func(device string) string {
		res, err := http.PostForm(p.URL()+"/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {device}, "client_id": {"hoopctl"}})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var out struct{ Error string }
		json.NewDecoder(res.Body).Decode(&out)
		return out.Error
	}
	t.Run("T57 polling too fast", func(t *testing.T) {
		d := c.begin(t)
		if e := poll(d.DeviceCode); e != "authorization_pending" {
			t.Errorf("first poll: %s", e)
		}
		if e := poll(d.DeviceCode); e != "slow_down" {
			t.Errorf("second poll at once: %s", e)
		}
	})
	t.Run("T57 a device code that was never given", func(t *testing.T) {
		if e := poll("AAAAAAAAAAAAAAAAAAAAAA"); e != "access_denied" {
			t.Error(e)
		}
	})
	t.Run("T57 five wrong passwords refuse the login", func(t *testing.T) {
		d := c.begin(t)
		for range maxTries {
			if err := Answer(t.Context(), d.VerificationURIComplete, "alice", "wrong"); err == nil {
				t.Fatal("a wrong password logged in")
			}
		}
		if err := Answer(t.Context(), d.VerificationURIComplete, "alice", testPassword); err == nil {
			t.Error("the right password after five wrong ones")
		}
		if e := poll(d.DeviceCode); e != "access_denied" {
			t.Error(e)
		}
	})
	t.Run("T57 an unknown user, no password", func(t *testing.T) {
		d := c.begin(t)
		for _, x := range [][2]string{{"mallory", testPassword}, {"", testPassword}, {"alice", ""}, {"billing", testPassword}} {
			if err := Answer(t.Context(), d.VerificationURIComplete, x[0], x[1]); err == nil {
				t.Errorf("%q with %q logged in", x[0], x[1])
			}
		}
	})
	t.Run("T57 a refusal reaches the device", func(t *testing.T) {
		d := c.begin(t)
		b := newBrowser(t)
		form := b.open(d.VerificationURIComplete)
		form.Set("answer", "deny")
		if status, text := b.post(p.URL()+"/device", form, nil); status != 200 || !strings.Contains(text, "refused") {
			t.Errorf("%d %s", status, text)
		}
		if e := poll(d.DeviceCode); e != "access_denied" {
			t.Error(e)
		}
	})
	t.Run("T57 the page says who asks and from where", func(t *testing.T) {
		req, _ := http.NewRequest("POST", p.URL()+"/device_authorization", strings.NewReader("client_id=hoopctl&scope=openid"))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("User-Agent", "<script>alert(1)</script>")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var d struct {
			Complete string `json:"verification_uri_complete"`
			Code     string `json:"user_code"`
		}
		json.NewDecoder(res.Body).Decode(&d)
		page, err := fetch(t.Context(), http.DefaultClient, "GET", d.Complete, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{d.Code, "hoopctl", "127.0.0.1", "&lt;script&gt;", "the same code"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		if strings.Contains(page, "<script>") {
			t.Error("the page runs what a stranger sent")
		}
	})
	t.Run("T57 codes cannot be guessed", func(t *testing.T) {
		p, _ := start(t, testConfig(t, t.TempDir()))
		b := newBrowser(t)
		for i := range maxGuesses + 3 {
			status, _ := b.get(p.URL() + "/device?user_code=BBBB-BBB" + string("BCDFGHJKL"[i]))
			if want := map[bool]int{true: 404, false: 429}[i < maxGuesses]; status != want {
				t.Errorf("guess %d: %d, want %d", i, status, want)
			}
		}
	})
}

// browser keeps cookies as a person's would.
type browser struct {
	t *testing.T
	h *http.Client
}

func newBrowser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, &http.Client{Jar: jar}}
}

func (b *browser) get(u string) (int, string) {
	b.t.Helper()
	res, err := b.h.Get(u)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// open reads the page's form and fills it in as alice.
func (b *browser) open(u string) url.Values {
	b.t.Helper()
	_, text := b.get(u)
	csrf, code := hiddenCSRF.FindStringSubmatch(text), hiddenCode.FindStringSubmatch(text)
	if csrf == nil || code == nil {
		b.t.Fatalf("no form in %s", text)
	}
	return url.Values{"csrf": {csrf[1]}, "user_code": {code[1]}, "username": {"alice"}, "password": {testPassword}, "answer": {"allow"}}
}

func (b *browser) post(u string, form url.Values, header map[string]string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequest("POST", u, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	res, err := b.h.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func TestThePageCannotBeAnsweredFromElsewhere(t *testing.T) {
	t.Parallel()
	p, _ := start(t, testConfig(t, t.TempDir()))
	c := newRP(t, p)
	d := c.begin(t)
	b := newBrowser(t)
	form := b.open(d.VerificationURIComplete)
	for name, try := range map[string]func() (int, string){
		"another origin": func() (int, string) {
			return b.post(p.URL()+"/device", form, map[string]string{"Origin": "https://evil.example"})
		},
		"another site, by the browser's word": func() (int, string) {
			return b.post(p.URL()+"/device", form, map[string]string{"Sec-Fetch-Site": "cross-site"})
		},
		"another browser": func() (int, string) { return newBrowser(t).post(p.URL()+"/device", form, nil) },
		"another code's form": func() (int, string) {
			other := newBrowser(t).open(c.begin(t).VerificationURIComplete)
			other.Set("user_code", form.Get("user_code"))
			return b.post(p.URL()+"/device", other, nil)
		},
		"no form at all": func() (int, string) {
			return b.post(p.URL()+"/device", url.Values{"user_code": form["user_code"], "answer": {"allow"}, "username": {"alice"}, "password": {testPassword}}, nil)
		},
		"T65 a name that was rebound to this machine": func() (int, string) {
			return b.post(p.URL()+"/device", form, map[string]string{"Host": "evil.example"})
		},
	} {
		if status, _ := try(); status < 400 {
			t.Errorf("%s: %d", name, status)
		}
	}
	if status, text := b.post(p.URL()+"/device", form, map[string]string{"Origin": p.URL()}); status != 200 {
		t.Errorf("the true one: %d %s", status, text)
	}
	res, err := http.Get(p.URL() + "/device")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", res.Header)
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	p, _ := start(t, testConfig(t, t.TempDir()))
	c := newRP(t, p)
	config := clientcredentials.Config{ClientID: "billing", ClientSecret: "0123456789abcdef", TokenURL: c.Endpoint.TokenURL, AuthStyle: oauth2.AuthStyleInHeader}
	token, err := config.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.provider.Verifier(&oidc.Config{ClientID: ServiceAudience}).Verify(t.Context(), token.AccessToken)
	if err != nil || id.Subject != "billing" {
		t.Fatalf("%+v, %v", id, err)
	}
	if _, err := c.provider.Verifier(&oidc.Config{ClientID: "hoopctl"}).Verify(t.Context(), token.AccessToken); err == nil {
		t.Error("a service's token passes for a person's")
	}
	for _, secret := range []string{"", "wrong", "0123456789abcdeF"} {
		bad := config
		bad.ClientSecret = secret
		if _, err := bad.Token(t.Context()); err == nil {
			t.Errorf("secret %q was taken", secret)
		}
	}
	bad := config
	bad.ClientID, bad.ClientSecret = "hoopctl", "0123456789abcdef"
	if _, err := bad.Token(t.Context()); err == nil {
		t.Error("the people's client got a service's token")
	}
}

func TestWhatItRefusesToBe(t *testing.T) {
	t.Parallel()
	base := testConfig(t, t.TempDir())
	for name, change := range map[string]func(*Config){
		"no listener":       func(c *Config) { c.Listener = nil },
		"no password":       func(c *Config) { c.Password = "" },
		"a short password":  func(c *Config) { c.Password = "1234567" },
		"no users":          func(c *Config) { c.Users = nil },
		"a user twice":      func(c *Config) { c.Users = append(slices.Clone(c.Users), User{Name: "bob"}) },
		"a user's service":  func(c *Config) { c.Services = []Client{{"alice", "0123456789abcdef", nil}} },
		"no secret":         func(c *Config) { c.Services = []Client{{"x", "", nil}} },
		"the client's name": func(c *Config) { c.Users = []User{{Name: "hoopctl"}} },
		"beyond loopback": func(c *Config) {
			l, err := net.Listen("tcp", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			c.Listener = l
		},
	} {
		c := base
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	t.Run("damaged state", func(t *testing.T) {
		for _, text := range []string{"", "{}", `{"key":"AA=="}`, "["} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "devidp.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := base
			c.Dir = dir
			if _, err := New(c); err == nil {
				t.Errorf("%q: accepted", text)
			}
		}
	})
}

func TestOtherFlowsAreOff(t *testing.T) {
	t.Parallel()
	p, _ := start(t, testConfig(t, t.TempDir()))
	b := newBrowser(t)
	b.h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if status, _ := b.get(p.URL() + "/authorize?client_id=hoopctl&response_type=code&scope=openid&redirect_uri=http://127.0.0.1/cb"); status < 400 {
		t.Errorf("authorization code flow: %d", status)
	}
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + ".e30."
	for _, form := range []url.Values{
		{"grant_type": {"password"}, "username": {"alice"}, "password": {testPassword}, "client_id": {"hoopctl"}},
		{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {forged}, "client_id": {"hoopctl"}},
		{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {forged}, "client_id": {"hoopctl"}},
		{"grant_type": {"authorization_code"}, "code": {"x"}, "client_id": {"hoopctl"}},
	} {
		if status, text := b.post(p.URL()+"/oauth/token", form, nil); status < 400 {
			t.Errorf("%v: %d %s", form, status, text)
		}
	}
}

func TestCodesAreReadAsPeopleTypeThem(t *testing.T) {
	for in, want := range map[string]string{"bcdf-ghjk": "BCDF-GHJK", "BCDFGHJK": "BCDF-GHJK", " bcdf ghjk ": "BCDF-GHJK", "": "", "BCDFGHJKLM": "", "<script>": "SCRI-PT"} {
		if got := normalize(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
