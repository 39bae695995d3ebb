package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/devidp"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

func TestLoginWithTheDeviceFlow(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := filepath.Join(t.TempDir(), "home")
	c := h.client(home(dir))
	opened := ""
	o := h.as("alice")
	prompted := o.Prompt
	o.Prompt = func(p client.Prompt) {
		if opened != "" {
			t.Error("the page was opened before its code was shown")
		}
		if len(p.Code) != 9 || p.URL != h.idp.URL()+"/device" {
			t.Errorf("%+v", p)
		}
		prompted(p)
	}
	o.OpenURL = func(u string) error { opened = u; return errors.New("no browser here") }
	e, err := c.Login(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if e.Principal.ID() != "dev:alice" || !e.Principal.In("engineers") || !strings.HasPrefix(opened, h.idp.URL()+"/device?user_code=") {
		t.Errorf("%+v, opened %q", e.Principal, opened)
	}
	who, err := c.Whoami(t.Context())
	if err != nil || who.ID != "dev:alice" || who.Login != e.Login {
		t.Fatalf("%+v, %v", who, err)
	}
	state, err := c.State()
	if err != nil || state.Name != "alice" || state.LogKey != "test+1+key" || state.Keyring {
		t.Errorf("%+v, %v", state, err)
	}
	t.Run("a second process uses it", func(t *testing.T) {
		who, err := h.client(home(dir)).Whoami(t.Context())
		if err != nil || who.Login != e.Login {
			t.Fatalf("%+v, %v", who, err)
		}
	})
	t.Run("its file is the person's alone", func(t *testing.T) {
		for _, path := range loginFiles(t, dir) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 && !strings.HasSuffix(path, ".lock") {
				t.Errorf("%s has mode %04o", path, info.Mode().Perm())
			}
		}
	})
	t.Run("logout ends it on both sides", func(t *testing.T) {
		stolen := copyHome(t, dir)
		if err := c.Logout(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := c.Whoami(t.Context())
		wantReason(t, err, api.ReasonLoginNeeded)
		_, err = h.client(home(stolen)).Whoami(t.Context())
		wantReason(t, err, api.ReasonLoginExpired)
		if err := c.Logout(t.Context()); err != nil {
			t.Errorf("a second logout: %v", err)
		}
	})
}

func loginFiles(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "logins", "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%v, %v", paths, err)
	}
	return append(paths, filepath.Join(dir, "logins"))
}

func loginFile(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "logins", "*.json"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%v, %v", paths, err)
	}
	return paths[0]
}

func copyHome(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	b, err := os.ReadFile(loginFile(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(to, "logins"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "logins", filepath.Base(loginFile(t, dir))), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestWithoutALogin(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	_, err := c.Whoami(t.Context())
	if e := wantReason(t, err, api.ReasonLoginNeeded); !strings.Contains(e.Hint, "hoopctl login "+h.url()) {
		t.Errorf("hint %q", e.Hint)
	}
	_, err = c.Dial(t.Context(), "g-1", "0123456789abcdef", "v")
	wantReason(t, err, api.ReasonLoginNeeded)
	_, err = c.State()
	wantReason(t, err, api.ReasonLoginNeeded)
}

func TestServersAreNamedPlainly(t *testing.T) {
	for _, s := range []string{"", "http://host", "https://", "https://host/path", "https://u:p@host", "https://host?x=1", "ftp://host", "https://host#f"} {
		if _, err := client.New(client.Config{Server: s, Home: t.TempDir()}); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
	for in, want := range map[string]string{"https://Host": "https://host:443", "host:8443": "https://host:8443", "https://[::1]:1/": "https://[::1]:1"} {
		c, err := client.New(client.Config{Server: in, Home: t.TempDir()})
		if err != nil || c.Server() != want {
			t.Errorf("%q: %v, %v", in, c, err)
		}
	}
}

func TestTheServersCAIsPinned(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	t.Run("nothing vouches for it", func(t *testing.T) {
		o := h.as("alice")
		o.CAFingerprint = ""
		_, err := h.client().Login(t.Context(), o)
		var unknown *client.UnknownCAError
		if !errors.As(err, &unknown) || unknown.Fingerprint != h.ca.Fingerprint() {
			t.Fatalf("got %v", err)
		}
		if e := wantReason(t, err, api.ReasonUnavailable); !strings.Contains(e.Hint, "--ca-fingerprint "+h.ca.Fingerprint()) {
			t.Errorf("hint %q", e.Hint)
		}
	})
	t.Run("a wrong pin", func(t *testing.T) {
		o := h.as("alice")
		o.CAFingerprint = "sha256:" + strings.Repeat("ab", 32)
		_, err := h.client().Login(t.Context(), o)
		var changed *client.CAChangedError
		if !errors.As(err, &changed) || changed.Got != h.ca.Fingerprint() {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a pin that is none", func(t *testing.T) {
		for _, pin := range []string{"sha256:", "abc", "sha1:" + strings.Repeat("ab", 32), strings.Repeat("ab", 32)} {
			o := h.as("alice")
			o.CAFingerprint = pin
			if _, err := h.client().Login(t.Context(), o); err == nil || !strings.Contains(err.Error(), "fingerprint") {
				t.Errorf("%q: %v", pin, err)
			}
		}
	})
	t.Run("a CA file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(path, h.ca.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		o := h.as("alice")
		o.CAFingerprint, o.CAFile = "", path
		c := h.client()
		if _, err := c.Login(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Whoami(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the right CA for another name", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("needs a second loopback address")
		}
		l, err := net.Listen("tcp", "127.0.0.2:0") // the certificate is for 127.0.0.1
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		go relay(l, h.addr)
		c := h.client(func(c *client.Config) { c.Server = "https://" + l.Addr().String() })
		_, err = c.Login(t.Context(), h.as("alice"))
		var changed *client.CAChangedError
		if !errors.As(err, &changed) || changed.Got != "" {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a leaf pinned as if it were a CA", func(t *testing.T) {
		leaf, err := h.ca.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		o := h.as("alice")
		o.CAFingerprint = client.Fingerprint(leaf.Leaf)
		if _, err := h.client().Login(t.Context(), o); err == nil {
			t.Fatal("accepted")
		}
	})
}

// relay passes connections of l on to addr.
func relay(l net.Listener, addr string) {
	for {
		a, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			b, err := net.Dial("tcp", addr)
			if err != nil {
				a.Close()
				return
			}
			go func() { io.Copy(a, b); a.Close() }()
			io.Copy(b, a)
			b.Close()
		}()
	}
}

func TestAChangedCAIsAHardError(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := filepath.Join(t.TempDir(), "home")
	c := h.client(home(dir))
	h.login(c, "alice")
	before := h.ca.Fingerprint()
	h.stop()
	if err := os.RemoveAll(filepath.Join(h.dir, "keys")); err != nil {
		t.Fatal(err)
	}
	h.start(h.addr)
	c = h.client(home(dir))
	for name, try := range map[string]func() error{
		"a call":  func() error { _, err := c.Whoami(t.Context()); return err },
		"a dial":  func() error { _, err := c.Dial(t.Context(), "g-1", "0123456789abcdef", "v"); return err },
		"a login": func() error { o := h.as("alice"); o.CAFingerprint = ""; _, err := c.Login(t.Context(), o); return err },
	} {
		err := try()
		var changed *client.CAChangedError
		if !errors.As(err, &changed) || changed.Want != before || changed.Got != h.ca.Fingerprint() {
			t.Errorf("%s: got %v", name, err)
		}
	}
	h.login(c, "alice") // with the new pin it is meant
	if _, err := c.Whoami(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCertificatesAreRenewedInTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	clock := &later{}
	dir := filepath.Join(t.TempDir(), "home")
	c := h.client(home(dir), at(clock))
	e := h.login(c, "alice")
	if _, err := c.Whoami(t.Context()); err != nil || h.renews.Load() != 0 {
		t.Fatalf("renewed %d times, %v", h.renews.Load(), err)
	}
	clock.set(11 * time.Minute)
	who, err := c.Whoami(t.Context())
	if err != nil || who.Login != e.Login || h.renews.Load() != 1 {
		t.Fatalf("%+v, renewed %d times, %v", who, h.renews.Load(), err)
	}
	t.Run("several processes do not renew each other out of the login", func(t *testing.T) {
		had, err := os.ReadFile(loginFile(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		var clients []*client.Client
		for range 4 {
			c := h.client(home(dir), at(clock))
			if _, err := c.State(); err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				if _, err := c.Whoami(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		now, err := os.ReadFile(loginFile(t, dir))
		if err != nil || string(now) == string(had) {
			t.Errorf("nothing was renewed: %v", err)
		}
	})
	t.Run("the provider's groups come along", func(t *testing.T) {
		h.idp.SetUsers([]devidp.User{{Name: "alice", Groups: []string{"interns"}}})
		who, err := h.client(home(dir), at(clock)).Whoami(t.Context())
		if err != nil || who.Principal.In("engineers") || !who.Principal.In("interns") {
			t.Fatalf("%+v, %v", who.Principal, err)
		}
	})
	t.Run("T14 a person who is gone at the provider is out at the renewal", func(t *testing.T) {
		h.idp.SetUsers([]devidp.User{{Name: "bob"}})
		_, err := h.client(home(dir), at(clock)).Whoami(t.Context())
		if e := wantReason(t, err, api.ReasonLoginExpired); !strings.Contains(e.Message, "ended at the provider") {
			t.Errorf("%q", e.Message)
		}
	})
}

func TestARotatedRefreshTokenIsKeptBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	clock := &later{}
	dir := filepath.Join(t.TempDir(), "home")
	h.login(h.client(home(dir), at(clock)), "alice")
	clock.set(11 * time.Minute)
	h.breakPath(api.PathRenew, http.StatusServiceUnavailable)
	// The certificate is still good: the call goes on with it. The provider has rotated by then.
	if _, err := h.client(home(dir), at(clock)).Whoami(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.renews.Load() != 0 {
		t.Fatal("the server was to be broken")
	}
	h.breakPath(api.PathRenew, 0)
	if _, err := h.client(home(dir), at(clock)).Whoami(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.renews.Load() != 1 {
		t.Error("the login was not renewed: its refresh token was lost on the way")
	}
}

func TestAStolenRefreshTokenEndsTheLogin(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	clock := &later{}
	dir := filepath.Join(t.TempDir(), "home")
	h.login(h.client(home(dir), at(clock)), "alice")
	var kept struct{ Secret struct{ Refresh string } }
	b, err := os.ReadFile(loginFile(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &kept); err != nil || kept.Secret.Refresh == "" {
		t.Fatal(err)
	}
	refresh := func() (int, string) {
		res, err := http.PostForm(h.idp.URL()+"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {kept.Secret.Refresh}, "client_id": {"hoopctl"}})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var out struct {
			IDToken string `json:"id_token"`
		}
		json.NewDecoder(res.Body).Decode(&out)
		return res.StatusCode, out.IDToken
	}
	status, id := refresh()
	if status != http.StatusOK || id == "" {
		t.Fatalf("the thief's refresh: %d", status)
	}
	_, err = h.room.Enroll(t.Context(), api.Enroll{Issuer: "dev", IDToken: id, CSR: newCSR(t)}, "")
	wantReason(t, err, api.ReasonLoginNeeded)
	if status, _ := refresh(); status == http.StatusOK {
		t.Error("a refresh token was taken twice")
	}
	clock.set(11 * time.Minute)
	_, err = h.client(home(dir), at(clock)).Whoami(t.Context())
	wantReason(t, err, api.ReasonLoginExpired) // both lines of refresh tokens are cut
}

func TestKeepRenewsUntilTheLoginEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	clock := &later{}
	dir := filepath.Join(t.TempDir(), "home")
	c := h.client(home(dir), at(clock))
	h.login(c, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	clock.set(11 * time.Minute)
	go func() { done <- c.Keep(ctx) }()
	<-h.renewed
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	clock.set(9 * time.Hour)
	err := c.Keep(t.Context())
	wantReason(t, err, api.ReasonLoginExpired)
	t.Run("and revives with a new login", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- c.Keep(ctx) }()
		clock.set(0)
		h.login(h.client(home(dir), at(clock)), "alice")
		clock.set(11 * time.Minute)
		<-h.renewed
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestAFileThatOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("mode bits say nothing on Windows")
	}
	h := newHouse(t)
	for name, spoil := range map[string]func(path string) error{
		"others may read it":      func(p string) error { return os.Chmod(p, 0o644) },
		"the group may write it":  func(p string) error { return os.Chmod(p, 0o620) },
		"it is a symbolic link":   func(p string) error { return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p)) },
		"it is torn":              func(p string) error { return os.WriteFile(p, []byte(`{"server":`), 0o600) },
		"its key is another kind": func(p string) error { return replace(p, `"key": "`, `"key": "AAAA`) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "home")
			h.login(h.client(home(dir)), "alice")
			if err := spoil(loginFile(t, dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := h.client(home(dir)).Whoami(t.Context()); err == nil {
				t.Fatal("used")
			}
		})
	}
	t.Run("others may write the folder", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "home")
		if err := os.MkdirAll(filepath.Join(dir, "logins"), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "logins"), 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := h.client(home(dir)).Login(t.Context(), h.as("alice")); err == nil || !strings.Contains(err.Error(), "chmod 700") {
			t.Fatalf("got %v", err)
		}
	})
}

func replace(path, old, new string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Replace(string(b), old, new, 1)), 0o600)
}

// keyring is a keyring in memory.
type keyring struct {
	mu    sync.Mutex
	items map[string]string
	away  bool
}

func (k *keyring) Set(service, user, secret string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return errors.New(`exec: "dbus-launch": executable file not found in $PATH`)
	}
	k.items[service+"/"+user] = secret
	return nil
}

func (k *keyring) Get(service, user string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.items[service+"/"+user]
	if !ok {
		return "", fs.ErrNotExist
	}
	return s, nil
}

func (k *keyring) Delete(service, user string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.items, service+"/"+user)
	return nil
}

func TestSecretsLieInTheKeyringWhereThereIsOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, away := range []bool{false, true} {
		k := &keyring{items: map[string]string{}, away: away}
		dir := filepath.Join(t.TempDir(), "home")
		with := func(c *client.Config) { c.Home, c.Keyring, c.FileOnly = dir, k, false }
		c := h.client(with)
		h.login(c, "alice")
		if _, err := h.client(with).Whoami(t.Context()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(loginFile(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		if inFile := strings.Contains(string(b), `"key"`); inFile != away {
			t.Errorf("keyring away %v, key in the file %v", away, inFile)
		}
		for _, secret := range k.items {
			if len(secret) > 2500 {
				t.Errorf("%d bytes do not fit Windows' keyring", len(secret))
			}
		}
		state, err := c.State()
		if err != nil || state.Keyring == away {
			t.Errorf("%+v, %v", state, err)
		}
		if err := c.Logout(t.Context()); err != nil || len(k.items) != 0 {
			t.Errorf("left in the keyring: %v, %v", k.items, err)
		}
	}
}

func TestServicesLogInByTheirAssertion(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	clock := &later{}
	file := filepath.Join(t.TempDir(), "billing.json")
	if err := os.WriteFile(file, []byte(`{"clientID": "billing", "clientSecret": "0123456789abcdef"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := h.client(at(clock))
	e, err := c.Login(t.Context(), client.LoginOptions{CAFingerprint: h.ca.Fingerprint(), Workload: file})
	if err != nil {
		t.Fatal(err)
	}
	if e.Principal.Kind != policy.Service || e.Principal.Name != "billing" || e.Principal.In("x") {
		t.Errorf("%+v", e.Principal)
	}
	clock.set(11 * time.Minute)
	if who, err := c.Whoami(t.Context()); err != nil || who.ID != "services:billing" || h.renews.Load() != 1 {
		t.Errorf("%+v, %v", who, err)
	}
	if err := os.WriteFile(file, []byte(`{"clientID": "billing", "clientSecret": "wrong"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client().Login(t.Context(), client.LoginOptions{CAFingerprint: h.ca.Fingerprint(), Workload: file}); err == nil {
		t.Error("a wrong secret logged in")
	}
}

func TestTunnelConnections(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	h.login(c, "alice")
	conn, err := c.Dial(t.Context(), "g-1", "0123456789abcdef", "verifier")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello")
	if err := tunnel.CloseWrite(conn); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if want := (tunnel.Hello{Grant: "g-1", Forward: "0123456789abcdef", Verifier: "verifier"}); h.hellos[0] != want {
		t.Errorf("%+v", h.hellos)
	}
	_, err = c.Dial(t.Context(), "g-over", "0123456789abcdef", "v")
	if e := wantReason(t, err, api.ReasonRevoked); !strings.Contains(e.Message, "revoked by erin") {
		t.Error(e.Message)
	}
	t.Run("a server that is away", func(t *testing.T) {
		h.stop()
		_, err := c.Dial(t.Context(), "g-1", "0123456789abcdef", "v")
		wantReason(t, err, api.ReasonUnavailable)
		_, err = c.Whoami(t.Context())
		if e := wantReason(t, err, api.ReasonUnavailable); !strings.Contains(e.Message, h.addr) {
			t.Error(e.Message)
		}
	})
	t.Run("and back", func(t *testing.T) {
		h.start(h.addr)
		conn, err := c.Dial(t.Context(), "g-1", "0123456789abcdef", "v")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

func TestThroughAProxy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var connects, authorized atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host == "" {
			http.Error(w, "CONNECT only", http.StatusBadRequest)
			return
		}
		connects.Add(1)
		if r.Header.Get("Proxy-Authorization") == "Basic dXNlcjpwdw==" {
			authorized.Add(1)
		} else {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		from, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		go func() { io.Copy(from, to); from.Close() }()
		io.Copy(to, buffered)
		to.Close()
	}))
	defer proxy.Close()
	through := func(user *url.Userinfo) func(*client.Config) {
		u, _ := url.Parse(proxy.URL)
		u.User = user
		return func(c *client.Config) { c.Proxy = func(*http.Request) (*url.URL, error) { return u, nil } }
	}
	dir := filepath.Join(t.TempDir(), "home")
	c := h.client(home(dir), through(url.UserPassword("user", "pw")))
	h.login(c, "alice")
	if _, err := c.Whoami(t.Context()); err != nil {
		t.Fatal(err)
	}
	had := connects.Load()
	conn, err := c.Dial(t.Context(), "g-1", "0123456789abcdef", "v")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "x")
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	conn.Close()
	if connects.Load() != had+1 || authorized.Load() != connects.Load() {
		t.Errorf("%d connects, %d authorized", connects.Load(), authorized.Load())
	}
	_, err = h.client(home(dir), through(nil)).Dial(t.Context(), "g-1", "0123456789abcdef", "v")
	if e := wantReason(t, err, api.ReasonUnavailable); !strings.Contains(e.Message, "407") || strings.Contains(e.Message, "pw") {
		t.Error(e.Message)
	}
}
