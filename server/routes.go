package server

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
	"github.com/hoopctl/hoopctl/server/session"
)

const (
	// maxBody bounds a request's body: a folder of resources fits, a flood does not.
	maxBody = 8 << 20
	// maxList bounds what one list reads from the evidence.
	maxList = 10_000
)

// call is one API call by someone who is known (or, on public routes, not).
type call struct {
	*http.Request
	id     string
	who    policy.Principal
	login  string
	cert   *x509.Certificate
	source netip.AddrPort
}

// route is one path of the API. Every route says who may call it: the matrix
// test enumerates them and fails when one has no row.
type route struct {
	method, path string
	public       bool          // no certificate needed
	needs        policy.Action // on the server, "" for any login: the handler decides by what it finds
	handle       func(s *Server, c *call) (any, error)
	stream       func(s *Server, c *call, w http.ResponseWriter) error // instead of handle
}

func routes() []route {
	return []route{
		{method: "GET", path: api.PathInfo, public: true, handle: (*Server).getInfo},
		{method: "POST", path: api.PathEnroll, public: true, handle: (*Server).postEnroll},
		{method: "POST", path: api.PathRenew, public: true, handle: (*Server).postRenew},
		{method: "GET", path: api.PathWhoami, handle: (*Server).getWhoami},
		{method: "POST", path: api.PathLogout, handle: (*Server).postLogout},
		{method: "GET", path: api.PathTargets, handle: (*Server).getTargets},
		{method: "GET", path: api.PathGrants, stream: listing("GrantList", (*Server).listGrants)},
		{method: "POST", path: api.PathGrants, handle: (*Server).postGrant},
		{method: "GET", path: api.PathGrant, handle: (*Server).getGrant},
		{method: "DELETE", path: api.PathGrant, handle: (*Server).deleteGrant},
		{method: "GET", path: api.PathRequests, stream: listing("RequestList", (*Server).listRequests)},
		{method: "GET", path: api.PathRequest, handle: (*Server).getRequest},
		{method: "DELETE", path: api.PathRequest, handle: (*Server).deleteRequest},
		{method: "POST", path: api.PathAnswer, handle: (*Server).postAnswer},
		{method: "GET", path: api.PathSessions, stream: listing("SessionList", (*Server).listSessions)},
		{method: "GET", path: api.PathSession, handle: (*Server).getSession},
		{method: "DELETE", path: api.PathSession, handle: (*Server).deleteSession},
		{method: "POST", path: api.PathShred, handle: (*Server).postShred},
		{method: "POST", path: api.PathExplain, handle: (*Server).postExplain},
		{method: "POST", path: api.PathSecrets, handle: (*Server).postSecret},
		{method: "POST", path: api.PathApply, handle: (*Server).postApply},
		{method: "GET", path: api.PathResources, handle: (*Server).getResources},
		{method: "GET", path: api.PathResource, handle: (*Server).getResource},
		{method: "DELETE", path: api.PathResource, handle: (*Server).deleteResource},
		{method: "POST", path: api.PathReplay, needs: policy.ReadEvidence, handle: (*Server).postReplay},
		{method: "POST", path: api.PathLearn, needs: policy.ReadEvidence, handle: (*Server).postLearn},
		{method: "GET", path: api.PathFired, needs: policy.ReadEvidence, handle: (*Server).getFired},
		{method: "GET", path: api.PathBudgets, needs: policy.ReadEvidence, handle: (*Server).getBudgets},
		{method: "GET", path: api.PathObserved, needs: policy.ReadEvidence, handle: (*Server).getObserved},
		{method: "GET", path: api.PathEvents, needs: policy.ReadEvidence, stream: (*Server).streamEvents},
		{method: "GET", path: api.PathCheckpoint, needs: policy.ReadEvidence, stream: (*Server).streamCheckpoint},
		{method: "GET", path: api.PathEvidenceFiles, needs: policy.ReadEvidence, handle: (*Server).getEvidenceFiles},
		{method: "GET", path: api.PathEvidenceFile, needs: policy.ReadEvidence, stream: (*Server).streamEvidenceFile},
	}
}

// api is the handler of all routes.
func (s *Server) api() http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes() {
		mux.HandleFunc(r.method+" "+r.path, s.serveRoute(r))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, requestID(), &api.Error{Code: http.StatusNotFound, Reason: api.ReasonNotFound, Message: fmt.Sprintf("no such call: %s %s", r.Method, r.URL.Path),
			Hint: "client and server may be of different versions: compare hoopctl version"})
	})
	return mux
}

// serveRoute makes a call known, asks whether it may be made, and answers. A
// panic costs the call, never the process.
func (s *Server) serveRoute(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		c := &call{Request: req, id: requestID()}
		w.Header().Set(api.HeaderRequestID, c.id)
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				s.log.Error("api call panicked", "request", c.id, "path", r.path, "panic", p, "stack", string(debug.Stack()))
				writeError(w, c.id, &api.Error{Reason: api.ReasonInternal, Message: "internal error"})
			}
		}()
		req.Body = http.MaxBytesReader(w, req.Body, maxBody)
		c.source, _ = netip.ParseAddrPort(req.RemoteAddr)
		c.Request = req.WithContext(approval.WithSource(req.Context(), c.source.Addr()))
		if err := s.admitCall(r, c); err != nil {
			s.fail(w, c, err)
			return
		}
		if r.stream != nil {
			if err := r.stream(s, c, w); err != nil {
				s.fail(w, c, err)
			}
			return
		}
		out, err := r.handle(s, c)
		if err != nil {
			s.fail(w, c, err)
			return
		}
		writeJSON(w, out)
	}
}

var errLogin = &api.Error{Code: http.StatusUnauthorized, Reason: api.ReasonLoginNeeded, Message: "login needed", Hint: "run hoopctl login"}

// admitCall finds out who calls and whether they may.
func (s *Server) admitCall(r route, c *call) error {
	if r.public {
		return nil
	}
	if c.TLS == nil || len(c.TLS.PeerCertificates) == 0 {
		return errLogin
	}
	c.cert = c.TLS.PeerCertificates[0]
	var err error
	if c.who, c.login, err = s.identity.Principal(c.cert); err != nil {
		return err
	}
	if r.needs == "" {
		return nil
	}
	return s.may(c, r.needs, "server", "", "")
}

// may asks the policy whether the caller may do something to an object. owner
// is the ID of the principal that it belongs to.
func (s *Server) may(c *call, a policy.Action, kind, name, owner string) error {
	return s.allowed(c.who, c.source.Addr(), a, kind, name, owner)
}

func (s *Server) allowed(who policy.Principal, source netip.Addr, a policy.Action, kind, name, owner string) error {
	v := s.resources.set().Decide(policy.Request{Principal: who, Action: a, ObjectKind: kind, Object: name, Owner: owner, Now: s.now(), SourceIP: source, Via: "api"})
	if v.Effect == policy.Allow {
		return nil
	}
	return mayNot(who, a, v)
}

func mayNot(who policy.Principal, a policy.Action, v policy.Verdict) error {
	e := &api.Error{Code: http.StatusForbidden, Reason: api.ReasonDenied, Message: fmt.Sprintf("%s may not %s", who.Name, spoken(a)), Hint: v.Hint}
	if v.Reason != "" {
		e.Message += ": " + v.Reason
	}
	return e
}

// mayRead says who may see what belongs to others, and read resources: whoever
// changes resources (be it that a second person looks at the change) and whoever audits. Targets are shown to all by getTargets,
// without their credentials.
func (s *Server) mayRead(who policy.Principal, source netip.Addr) error {
	if s.allowed(who, source, policy.ReadEvidence, "server", "", "") == nil {
		return nil
	}
	if v := s.manage(who, source, nil); v.Effect == policy.Deny {
		return mayNot(who, policy.Manage, v)
	}
	return nil
}

func spoken(a policy.Action) string {
	switch a {
	case policy.ReadEvidence:
		return "read the evidence"
	case policy.Manage:
		return "change resources"
	case policy.Terminate:
		return "end what belongs to others"
	default:
		return string(a)
	}
}

// sees returns which principals' objects the caller may see: admins and
// auditors all, others their own.
func (s *Server) sees(c *call) func(principal string) bool {
	if s.mayRead(c.who, c.source.Addr()) == nil {
		return func(string) bool { return true }
	}
	id := c.who.ID()
	return func(p string) bool { return p == id }
}

func (s *Server) fail(w http.ResponseWriter, c *call, err error) {
	e := apiError(err)
	if e.Reason == api.ReasonInternal {
		s.log.Error("api call failed", "request", c.id, "path", c.URL.Path, "error", err)
	}
	writeError(w, c.id, e)
}

// apiError puts any error into the API's one shape. What no room named is
// internal, and its text stays in the server's own log.
func apiError(err error) *api.Error {
	var e *api.Error
	var r *session.Refusal
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &r):
		return &api.Error{Code: http.StatusForbidden, Reason: reasonOf(r.Code), Message: r.Message, Hint: r.Hint, Request: r.Request}
	case errors.As(err, &big):
		return &api.Error{Code: http.StatusRequestEntityTooLarge, Reason: api.ReasonInvalid, Message: fmt.Sprintf("more than %d bytes", big.Limit)}
	default:
		return &api.Error{Code: http.StatusInternalServerError, Reason: api.ReasonInternal, Message: "internal error", Hint: "the server's log says more, under this request's id"}
	}
}

func reasonOf(c session.Code) api.Reason {
	switch c {
	case session.CodeRevoked:
		return api.ReasonRevoked
	case session.CodeEvidence:
		return api.ReasonEvidence
	case session.CodeUnavailable:
		return api.ReasonUnavailable
	case session.CodeLogin:
		return api.ReasonLoginNeeded
	case session.CodeWithdrawn:
		return api.ReasonWithdrawn
	default:
		return api.ReasonDenied
	}
}

// refusalOf puts an error of a room into the words of a session.
func refusalOf(err error) *session.Refusal {
	var r *session.Refusal
	if errors.As(err, &r) {
		return r
	}
	e := apiError(err)
	code := session.CodePolicy
	switch e.Reason {
	case api.ReasonRevoked, api.ReasonExpired:
		code = session.CodeRevoked
	case api.ReasonEvidence:
		code = session.CodeEvidence
	case api.ReasonUnavailable, api.ReasonInternal:
		code = session.CodeUnavailable
	case api.ReasonLoginNeeded, api.ReasonLoginExpired:
		code = session.CodeLogin
	}
	return &session.Refusal{Code: code, Message: e.Message, Hint: e.Hint, Request: e.Request, Fatal: true}
}

func writeError(w http.ResponseWriter, id string, e *api.Error) {
	out := *e
	out.RequestID, out.Source = id, "broker"
	if out.Code < 400 || out.Code > 599 {
		out.Code = statusOf(out.Reason)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(out.Code)
	json.NewEncoder(w).Encode(&out)
}

func statusOf(r api.Reason) int {
	switch r {
	case api.ReasonInvalid:
		return http.StatusBadRequest
	case api.ReasonLoginNeeded, api.ReasonLoginExpired:
		return http.StatusUnauthorized
	case api.ReasonDenied, api.ReasonPending:
		return http.StatusForbidden
	case api.ReasonNotFound:
		return http.StatusNotFound
	case api.ReasonConflict:
		return http.StatusConflict
	case api.ReasonExpired, api.ReasonWithdrawn, api.ReasonRevoked:
		return http.StatusGone
	case api.ReasonTooMany:
		return http.StatusTooManyRequests
	case api.ReasonEvidence, api.ReasonUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	if v == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// read decodes a call's body strictly: a field that is not known is a mistake
// of whoever wrote it, not something to pass over.
func read[T any](c *call) (T, error) {
	var v T
	d := json.NewDecoder(c.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return v, err
		}
		return v, invalid("the request's body: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return v, invalid("the request's body goes on after its JSON")
	}
	return v, nil
}

func invalid(format string, a ...any) *api.Error {
	return &api.Error{Code: http.StatusBadRequest, Reason: api.ReasonInvalid, Message: fmt.Sprintf(format, a...)}
}

func notFound(kind, name string) *api.Error {
	return &api.Error{Code: http.StatusNotFound, Reason: api.ReasonNotFound, Message: fmt.Sprintf("%s %q not found", kind, name), Hint: "hoopctl get " + kind + "s lists them"}
}

func requestID() string {
	var b [8]byte
	rand.Read(b[:])
	return "q-" + hex.EncodeToString(b[:])
}

// listing serves a list, once or watched: with ?watch=1 the items as they
// stand, a line {"kind":"Synced"}, then each item that changes.
func listing[T any](kind string, list func(*Server, *call) ([]T, func() <-chan struct{}, error)) func(*Server, *call, http.ResponseWriter) error {
	return func(s *Server, c *call, w http.ResponseWriter) error {
		items, changed, err := list(s, c)
		if err != nil {
			return err
		}
		if c.URL.Query().Get("watch") == "" {
			if items == nil {
				items = []T{}
			}
			writeJSON(w, api.List[T]{APIVersion: api.APIVersion, Kind: kind, Items: items})
			return nil
		}
		wait := changed()
		if items, _, err = list(s, c); err != nil {
			return err
		}
		out := newLines(w)
		seen := map[string]bool{}
		if err := out.fresh(items, seen); err != nil {
			return nil
		}
		out.write(map[string]string{"kind": "Synced"})
		for {
			select {
			case <-wait:
			case <-c.Context().Done():
				return nil
			case <-s.stopping:
				return nil
			}
			wait = changed()
			if items, _, err = list(s, c); err != nil {
				s.log.Error("watch ended", "kind", kind, "error", err)
				return nil
			}
			if err := out.fresh(items, seen); err != nil {
				return nil
			}
		}
	}
}

// lines writes NDJSON and flushes each time.
type lines struct {
	w   http.ResponseWriter
	enc *json.Encoder
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lines{w: w, enc: json.NewEncoder(w)}
}

func (l *lines) write(v any) error {
	if err := l.enc.Encode(v); err != nil {
		return err
	}
	return http.NewResponseController(l.w).Flush()
}

// fresh writes the items that are not as they were when last written. seen
// holds what was: items are small and lists are short.
func (l *lines) fresh(items any, seen map[string]bool) error {
	raw, err := json.Marshal(items)
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	now := make(map[string]bool, len(list))
	for _, item := range list {
		now[string(item)] = true
		if !seen[string(item)] {
			if err := l.write(item); err != nil {
				return err
			}
		}
	}
	clear(seen)
	for k := range now {
		seen[k] = true
	}
	return nil
}

// either returns a channel closed when one of two is.
func either(ctx context.Context, a, b <-chan struct{}) <-chan struct{} {
	out := make(chan struct{})
	go func() {
		defer close(out)
		select {
		case <-a:
		case <-b:
		case <-ctx.Done():
		}
	}()
	return out
}

func number(s string) int64 {
	var n int64
	fmt.Sscan(s, &n)
	return n
}
