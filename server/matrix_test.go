package server_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/api"
)

// Who calls, in the columns' order of the matrix.
var callers = []string{"nobody", "alice", "bob", "carol", "dave", "erin"}

// matrix says what each call answers to each caller: y if they may (the call
// then succeeds, or fails for what it asks, not for who asks), n if not. alice
// owns grant g-1 and session s-1; the objects named nope are nobody's.
var matrix = map[string]string{
	"GET " + api.PathInfo:          "yyyyyy",
	"POST " + api.PathEnroll:       "yyyyyy",
	"POST " + api.PathRenew:        "yyyyyy",
	"GET " + api.PathWhoami:        "nyyyyy",
	"POST " + api.PathLogout:       "nyyyyy",
	"GET " + api.PathTargets:       "nyyyyy",
	"GET " + api.PathGrants:        "nyyyyy",
	"POST " + api.PathGrants:       "nynynn", // alice and carol may connect
	"GET " + api.PathGrant:         "nynnyy", // its owner, auditors, admins
	"DELETE " + api.PathGrant:      "nynnny",
	"GET " + api.PathRequests:      "nyyyyy",
	"GET " + api.PathRequest:       "nnnnnn", // of nobody's: not found, for all
	"DELETE " + api.PathRequest:    "nnnnnn",
	"POST " + api.PathAnswer:       "nnnnnn",
	"GET " + api.PathSessions:      "nyyyyy",
	"GET " + api.PathSession:       "nynnyy",
	"DELETE " + api.PathSession:    "nynnny",
	"POST " + api.PathShred:        "nnnnny", // the second person is another one, who may read the evidence
	"POST " + api.PathExplain:      "nyyyyy",
	"POST " + api.PathSecrets:      "nynynn",
	"POST " + api.PathApply:        "nnnnny",
	"GET " + api.PathResources:     "nnnnyy",
	"GET " + api.PathResource:      "nnnnyy",
	"DELETE " + api.PathResource:   "nnnnny",
	"POST " + api.PathReplay:       "nnnnyy",
	"POST " + api.PathLearn:        "nnnnyy",
	"GET " + api.PathFired:         "nnnnyy",
	"GET " + api.PathBudgets:       "nnnnyy",
	"GET " + api.PathObserved:      "nnnnyy",
	"GET " + api.PathEvents:        "nnnnyy",
	"GET " + api.PathCheckpoint:    "nnnnyy",
	"GET " + api.PathEvidenceFiles: "nnnnyy",
	"GET " + api.PathEvidenceFile:  "nnnnyy",
}

// bodies are what calls with a body are sent.
var bodies = map[string]any{
	"POST " + api.PathEnroll:  api.Enroll{},
	"POST " + api.PathRenew:   api.Enroll{},
	"POST " + api.PathLogout:  nil,
	"POST " + api.PathGrants:  api.GrantRequest{Target: "clinic"},
	"POST " + api.PathShred:   api.Shred{Reason: "asked for"},
	"POST " + api.PathExplain: api.Explain{Target: "clinic", SQL: "SELECT 1"},
	"POST " + api.PathSecrets: api.SecretRequest{Target: "clinic"},
	"POST " + api.PathApply:   api.Apply{DryRun: true},
	"POST " + api.PathAnswer:  api.Answer{},
	"POST " + api.PathReplay:  api.Replay{},
	"POST " + api.PathLearn:   api.Learn{Principal: "alice"},
}

// T51, T52, T61: every call of the API by everyone. A call without a row fails.
func TestT51_T61_EveryCallByEveryone(t *testing.T) {
	h := newHouse(t)
	clients := map[string]*http.Client{"nobody": h.raw("")}
	for _, u := range callers[1:] {
		h.as(u)
		clients[u] = h.raw(u)
	}
	for _, route := range server.Routes() {
		row, ok := matrix[route]
		if !ok {
			t.Errorf("%s has no row in the matrix", route)
			continue
		}
		// The last column first, owners last: what a call ends is still there for the others' no.
		for _, i := range []int{0, 2, 3, 4, 5, 1} {
			who := callers[i]
			if strings.Contains(route, api.PathLogout) && who != "nobody" {
				continue // it would end the test's own logins; see TestLogoutEndsTheLogin
			}
			h.own()
			status, reason := call(t, clients[who], h, route)
			if got := mayAnswer(status, reason); got != (row[i] == 'y') {
				t.Errorf("%s by %s: %d %s, want %c", route, who, status, reason, row[i])
			}
		}
	}
}

// mayAnswer tells "not you" (401, 403 Denied, 404 of what is not yours) from
// every other answer.
func mayAnswer(status int, reason api.Reason) bool {
	switch reason {
	case api.ReasonDenied, api.ReasonNotFound, api.ReasonLoginExpired:
		return false
	case api.ReasonLoginNeeded:
		return false
	}
	return status < 500
}

// own makes sure that alice has a live grant and session to be named.
func (h *house) own() {
	h.t.Helper()
	if h.owned == nil || !h.owned.alive(h.t, h.client("alice")) {
		h.owned = h.hold("alice")
	}
}

func call(t *testing.T, c *http.Client, h *house, route string) (int, api.Reason) {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	switch {
	case strings.Contains(path, "/grants/"):
		path = strings.Replace(path, "{name}", h.owned.grant, 1)
	case strings.Contains(path, "/sessions/"):
		path = strings.Replace(path, "{name}", h.owned.session, 1)
	case method == http.MethodDelete && strings.Contains(path, "/resources/"):
		path = "/v1/resources/targets/nope"
	}
	path = strings.NewReplacer("{name}", "clinic", "{kind}", "targets", "{path...}", "checkpoint").Replace(path)
	var body io.Reader
	if method == http.MethodPost {
		b, _ := json.Marshal(bodies[route])
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+h.Addresses().API.String()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", route, err)
	}
	defer res.Body.Close()
	var e api.Error
	raw, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 400 {
		if err := json.Unmarshal(raw, &e); err != nil || e.RequestID == "" || e.Message == "" {
			t.Errorf("%s: an error without shape: %s", route, raw)
		}
		// An admin's delete of what is not there is a yes.
		if e.Reason == api.ReasonNotFound && strings.HasSuffix(path, "/nope") {
			return res.StatusCode, ""
		}
		// Enrolment without a token is refused for what it lacks.
		if strings.HasSuffix(path, "/enroll") || strings.HasSuffix(path, "/renew") {
			return http.StatusBadRequest, api.ReasonInvalid
		}
	}
	return res.StatusCode, e.Reason
}

// raw is an HTTP client with the certificate of a user's login, of nobody's if user is "".
func (h *house) raw(user string) *http.Client {
	h.t.Helper()
	roots := x509.NewCertPool()
	pemCA, err := os.ReadFile(h.caFile)
	if err != nil || !roots.AppendCertsFromPEM(pemCA) {
		h.t.Fatalf("CA: %v", err)
	}
	config := &tls.Config{RootCAs: roots}
	if user != "" {
		config.Certificates = []tls.Certificate{h.certificate(user)}
	}
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}

// certificate reads a login's certificate and key out of its 0600 file.
func (h *house) certificate(user string) tls.Certificate {
	h.t.Helper()
	var file struct {
		Certificate string
		Secret      struct{ Key []byte }
	}
	err := filepath.WalkDir(filepath.Join(h.dir, "home", user), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".json" {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &file)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	cert, err := tls.X509KeyPair([]byte(file.Certificate), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: file.Secret.Key}))
	if err != nil {
		h.t.Fatalf("login of %s: %v", user, err)
	}
	return cert
}
