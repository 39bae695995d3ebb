package client_test

import (
	"bufio"
	"context"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/identity"
)

const independentVersion = "9.13.3"

// independent starts npm's oidc-provider: an identity provider by other
// authors in another language. It is installed once into the user's cache.
func independent(t *testing.T) (issuer string) {
	t.Helper()
	skip := func(why string, err error) {
		t.Helper()
		t.Skipf("NOT TESTED against an independent identity provider: %s: %v (needs node and npm, and oidc-provider@%s from npm's registry)", why, err, independentVersion)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		skip("no node", err)
	}
	dir := installed(t, skip)
	l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.CommandContext(t.Context(), node, "provider.mjs", fmt.Sprint(port))
	cmd.Dir = dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			go io.Copy(io.Discard, out)
			return fmt.Sprintf("http://127.0.0.1:%d", port)
		}
	}
	t.Fatalf("oidc-provider ended before it was ready: %v", cmd.Wait())
	return ""
}

// installed returns a folder with the provider's script and its modules.
func installed(t *testing.T, skip func(string, error)) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "hoopctl-test", "oidc-provider-"+independentVersion)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "provider.mjs"} {
		b, err := os.ReadFile(filepath.Join("testdata", "oidc-provider", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider", "package.json")); err == nil {
		return dir
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		skip("no npm", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		skip("npm install failed", fmt.Errorf("%w: %.300s", err, text))
	}
	return dir
}

var (
	formTag   = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag  = regexp.MustCompile(`<input[^>]*>`)
	attribute = regexp.MustCompile(`(name|value)="([^"]*)"`)
)

// browse answers whatever forms the provider shows until it is content.
func browse(ctx context.Context, page, user string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	h := &http.Client{Jar: jar, Timeout: 15 * time.Second}
	res, err := h.Get(page)
	for range 8 {
		if err != nil {
			return err
		}
		b, err2 := io.ReadAll(res.Body)
		res.Body.Close()
		if err2 != nil {
			return err2
		}
		text := string(b)
		if strings.Contains(text, "Sign-in Success") {
			return nil
		}
		form := formTag.FindStringSubmatch(text)
		if form == nil {
			return fmt.Errorf("%s: no form and no success: %.500s", res.Status, text)
		}
		to, err2 := res.Request.URL.Parse(html.UnescapeString(form[1]))
		if err2 != nil {
			return err2
		}
		res, err = h.PostForm(to.String(), fill(form[2], user))
	}
	return fmt.Errorf("the provider asks for ever")
}

func fill(form, user string) url.Values {
	values := url.Values{}
	for _, tag := range inputTag.FindAllString(form, -1) {
		pair := map[string]string{}
		for _, a := range attribute.FindAllStringSubmatch(tag, -1) {
			pair[a[1]] = html.UnescapeString(a[2])
		}
		switch pair["name"] {
		case "":
		case "login":
			values.Set("login", user)
		case "password":
			values.Set("password", "anything")
		default:
			values.Set(pair["name"], pair["value"])
		}
	}
	return values
}

// nextSecond waits for it: oidc-provider's ID tokens have no jti, so two of one
// second are one token, and a token is used once.
func nextSecond() {
	for at := time.Now().Unix(); time.Now().Unix() == at; {
		time.Sleep(20 * time.Millisecond)
	}
}

func TestAgainstAnIndependentProvider(t *testing.T) {
	t.Parallel()
	issuer := independent(t)
	h := newHouse(t)
	h.stop()
	h.issuer = []identity.Issuer{
		{Name: "dev", URL: issuer},
		{Name: "services", Kind: identity.Workload, URL: issuer, Audience: "hoopctl-services"},
	}
	h.start(h.addr)
	clock := &later{}
	c := h.client(at(clock))
	e, err := c.Login(t.Context(), client.LoginOptions{CAFingerprint: h.ca.Fingerprint(), Prompt: func(p client.Prompt) {
		if err := browse(t.Context(), p.Complete, "alice"); err != nil {
			t.Errorf("answer the pages: %v", err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if e.Principal.ID() != "dev:alice" || !e.Principal.In("engineers") {
		t.Errorf("%+v", e.Principal)
	}
	clock.set(11 * time.Minute)
	nextSecond()
	if who, err := c.Whoami(t.Context()); err != nil || who.Login != e.Login || h.renews.Load() != 1 {
		t.Fatalf("%+v, renewed %d times, %v", who, h.renews.Load(), err)
	}
	nextSecond()
	if who, err := c.Whoami(t.Context()); err != nil || h.renews.Load() != 2 { // with the rotated refresh token
		t.Fatalf("%+v, renewed %d times, %v", who, h.renews.Load(), err)
	}
	file := filepath.Join(t.TempDir(), "billing.json")
	if err := os.WriteFile(file, []byte(`{"clientID": "billing", "clientSecret": "0123456789abcdef"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := h.client().Login(t.Context(), client.LoginOptions{CAFingerprint: h.ca.Fingerprint(), Workload: file})
	if err != nil {
		t.Fatal(err)
	}
	if s.Principal.Kind != policy.Service || s.Principal.Name != "billing" {
		t.Errorf("%+v", s.Principal)
	}
}
