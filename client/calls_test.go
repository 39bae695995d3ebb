package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

func newCSR(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// paths are the constants of the API's paths, read from its source.
func paths(t *testing.T) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../server/api/paths.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			v, ok := s.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(v.Names[0].Name, "Path") {
				continue
			}
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out[v.Names[0].Name] = text
		}
	}
	return out
}

func TestEveryPathHasACall(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	h.login(c, "alice")
	asked := map[string]bool{}
	var mu sync.Mutex
	for _, path := range paths(t) {
		switch path {
		case api.PathInfo, api.PathEnroll, api.PathRenew, api.PathWhoami, api.PathLogout:
			continue // served by the real room, and called by every other test
		}
		h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked[r.Method+" "+path] = true
			mu.Unlock()
			for _, name := range []string{"name", "kind", "path"} {
				if v := r.PathValue(name); strings.Contains(path, "{"+name) && v != "a b/c" {
					t.Errorf("%s: %s is %q", path, name, v)
				}
			}
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusPartialContent)
			}
			io.WriteString(w, "{}")
		})
	}
	ctx, n := t.Context(), "a b/c"
	calls := map[string]func() error{
		"GET " + api.PathTargets:       func() error { _, err := c.Targets(ctx); return err },
		"GET " + api.PathGrants:        func() error { _, err := c.Grants(ctx); return err },
		"POST " + api.PathGrants:       func() error { _, err := c.RequestGrant(ctx, api.GrantRequest{Target: "clinic"}); return err },
		"GET " + api.PathGrant:         func() error { _, err := c.Grant(ctx, n); return err },
		"DELETE " + api.PathGrant:      func() error { _, err := c.RevokeGrant(ctx, n, "why"); return err },
		"GET " + api.PathRequests:      func() error { _, err := c.Requests(ctx); return err },
		"GET " + api.PathRequest:       func() error { _, err := c.Request(ctx, n); return err },
		"DELETE " + api.PathRequest:    func() error { return c.Withdraw(ctx, n) },
		"POST " + api.PathAnswer:       func() error { _, err := c.Answer(ctx, shown(n), true, "ok"); return err },
		"GET " + api.PathSessions:      func() error { _, err := c.Sessions(ctx); return err },
		"GET " + api.PathSession:       func() error { _, err := c.Session(ctx, n); return err },
		"DELETE " + api.PathSession:    func() error { return c.EndSession(ctx, n, "why") },
		"POST " + api.PathShred:        func() error { _, err := c.Shred(ctx, n, ""); return err },
		"POST " + api.PathExplain:      func() error { _, err := c.Explain(ctx, api.Explain{}); return err },
		"POST " + api.PathSecrets:      func() error { _, err := c.Secret(ctx, api.SecretRequest{}); return err },
		"POST " + api.PathApply:        func() error { _, err := c.Apply(ctx, api.Apply{}); return err },
		"GET " + api.PathResources:     func() error { _, err := c.Resources(ctx, n); return err },
		"GET " + api.PathResource:      func() error { _, err := c.Resource(ctx, n, n); return err },
		"DELETE " + api.PathResource:   func() error { _, err := c.DeleteResource(ctx, n, n, ""); return err },
		"POST " + api.PathReplay:       func() error { _, err := c.Replay(ctx, api.Replay{}); return err },
		"POST " + api.PathLearn:        func() error { _, err := c.Learn(ctx, api.Learn{Principal: n}); return err },
		"GET " + api.PathFired:         func() error { _, err := c.Fired(ctx, time.Now()); return err },
		"GET " + api.PathBudgets:       func() error { _, err := c.Budgets(ctx, n); return err },
		"GET " + api.PathObserved:      func() error { _, err := c.Observed(ctx, n, time.Now()); return err },
		"GET " + api.PathEvents:        func() error { _, err := c.Events(ctx, api.EventQuery{Kind: []string{"login"}}); return err },
		"GET " + api.PathCheckpoint:    func() error { _, err := c.Checkpoint(ctx); return err },
		"GET " + api.PathEvidenceFiles: func() error { _, err := c.EvidenceFiles(ctx); return err },
		"GET " + api.PathEvidenceFile: func() error {
			r, err := c.EvidenceFile(ctx, n, 3, 4)
			if err == nil {
				r.Close()
			}
			return err
		},
	}
	for name, call := range calls {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !asked[name] {
			t.Errorf("%s was not asked", name)
		}
	}
	for constant, path := range paths(t) {
		served := path == api.PathInfo || path == api.PathEnroll || path == api.PathRenew || path == api.PathWhoami || path == api.PathLogout
		for name := range calls {
			served = served || strings.HasSuffix(name, " "+path)
		}
		if !served {
			t.Errorf("no call asks %s (%s)", constant, path)
		}
	}
}

// shown is a request as an approver sees it.
func shown(name string) api.Request {
	r := api.Request{Metadata: api.Meta{Name: name}, Spec: api.RequestSpec{Kind: "statement", Principal: "dev:bob", Target: "clinic", Statement: "delete from t"}}
	r.Spec.Digest = api.RequestDigest(r.Spec)
	return r
}

func TestAnswersAreSignedByTheLoginsKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	h.login(c, "alice")
	verified := make(chan error, 1)
	h.mux.HandleFunc("POST "+api.PathAnswer, func(w http.ResponseWriter, r *http.Request) {
		var a api.Answer
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			verified <- err
			return
		}
		verified <- errors.Join(a.Verify(r.PathValue("name"), r.TLS.PeerCertificates[0].PublicKey), differs(a, shown("r-1")))
		io.WriteString(w, "{}")
	})
	if _, err := c.Answer(t.Context(), shown("r-1"), true, "looks right", "no-where"); err != nil {
		t.Fatal(err)
	}
	if err := <-verified; err != nil {
		t.Fatal(err)
	}
	lie := shown("r-1")
	lie.Spec.Statement = "select 1" // the server shows one thing and asks for a signature on another
	if _, err := c.Answer(t.Context(), lie, true, ""); err == nil || !strings.Contains(err.Error(), "nothing was signed") {
		t.Fatalf("signed: %v", err)
	}
}

func differs(a api.Answer, r api.Request) error {
	if !a.Approve || a.Reason != "looks right" || len(a.Cures) != 1 || a.Digest != r.Spec.Digest {
		return fmt.Errorf("%+v", a)
	}
	return nil
}

func TestWatches(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	h.login(c, "alice")
	lines := func(path string, text ...string) {
		h.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("watch") != "1" {
				t.Errorf("%s without watch", path)
			}
			for _, l := range text {
				io.WriteString(w, l+"\n")
			}
		})
	}
	lines(api.PathSessions, `{"metadata":{"name":"s-1"},"spec":{"source":"127.0.0.1"}}`, "", `{"kind":"Synced"}`, `{"metadata":{"name":"s-2"}}`)
	lines(api.PathRequests, `{"kind":"Synced"}`, `{"code":503,"reason":"Evidence","message":"failed closed","source":"broker"}`)
	lines(api.PathTargets, `not JSON`)
	lines(api.PathEvents, `{"kind":"login","index":1,"source":"127.0.0.1","reason":"x"}`, strings.Repeat("x", 5<<20))

	var got []string
	var last error
	for change, err := range c.WatchSessions(t.Context()) {
		if last = err; err == nil && change.Synced {
			got = append(got, "synced")
		} else if err == nil {
			got = append(got, change.Item.Metadata.Name)
		}
	}
	if fmt.Sprint(got) != "[s-1 synced s-2]" {
		t.Errorf("%v", got)
	}
	wantReason(t, last, api.ReasonUnavailable) // the stream's plain end is a loss
	last = nil
	for _, err := range c.WatchRequests(t.Context()) {
		last = err
	}
	wantReason(t, last, api.ReasonEvidence)
	for _, err := range c.WatchTargets(t.Context()) {
		last = err
	}
	if last == nil {
		t.Error("a line that is not JSON was taken")
	}
	n := 0
	for change, err := range c.WatchEvents(t.Context(), api.EventQuery{}) {
		if last = err; err == nil && change.Item.Kind == "login" {
			n++
		}
	}
	if n != 1 || last == nil {
		t.Errorf("%d events, then %v", n, last)
	}
	for range c.WatchSessions(t.Context()) {
		break // a consumer that has had enough ends the connection
	}
}

func TestAwaitRequest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	h.login(c, "alice")
	var mu sync.Mutex
	phase, tries := "pending", 0
	item := func() string {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprintf(`{"metadata":{"name":"r-1"},"status":{"phase":%q}}`, phase)
	}
	h.mux.HandleFunc("GET "+api.PathRequest, func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") != "r-1" {
			w.WriteHeader(404)
			io.WriteString(w, `{"code":404,"reason":"NotFound","message":"no such request"}`)
			return
		}
		io.WriteString(w, item())
	})
	h.mux.HandleFunc("GET "+api.PathRequests, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, item()+"\n"+`{"kind":"Synced"}`+"\n")
		w.(http.Flusher).Flush()
		mu.Lock()
		tries++
		first := tries == 1
		if !first {
			phase = "approved"
		}
		mu.Unlock()
		if !first { // the first watch ends as if the server restarted
			io.WriteString(w, item()+"\n")
		}
	})
	r, err := c.AwaitRequest(t.Context(), "r-1")
	if err != nil || r.Status.Phase != "approved" {
		t.Fatalf("%+v, %v", r.Status, err)
	}
	_, err = c.AwaitRequest(t.Context(), "r-2")
	wantReason(t, err, api.ReasonNotFound)
	phase = "pending"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.AwaitRequest(ctx, "r-1"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSomethingElseAnswers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.client()
	h.login(c, "alice")
	h.mux.HandleFunc("GET "+api.PathTargets, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, "<html>nginx</html>")
	})
	h.mux.HandleFunc("GET "+api.PathSessions, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://evil.example/", http.StatusFound)
	})
	h.mux.HandleFunc("GET "+api.PathGrants, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"items":`) })
	_, err := c.Targets(t.Context())
	wantReason(t, err, api.ReasonUnavailable)
	_, err = c.Sessions(t.Context())
	wantReason(t, err, api.ReasonUnavailable)
	_, err = c.Grants(t.Context())
	wantReason(t, err, api.ReasonUnavailable)
}
