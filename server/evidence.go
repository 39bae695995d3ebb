package server

import (
	"context"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
	"github.com/hoopctl/hoopctl/server/evidence"
	"github.com/hoopctl/hoopctl/server/session"
)

// recording joins the evidence's recording to what a session asks of one.
type recording struct{ *evidence.Recording }

func (r recording) Frame(dir session.Direction, b []byte) (uint64, uint64, error) {
	return r.Recording.Frame(byte(dir), b)
}

func (r recording) Close() error {
	_, err := r.Recording.Close()
	return err
}

// evidence is how the log is opened.
func (c *Config) evidence() evidence.Config {
	var witnesses []evidence.WitnessConf
	for _, w := range c.Evidence.Witnesses {
		witnesses = append(witnesses, evidence.WitnessConf(w))
	}
	e := c.Evidence
	return evidence.Config{Dir: e.Dir, Node: c.Name, KeyFile: filepath.Join(c.Keys, "log.key"), Spill: e.Spill, Recipients: e.Recipients,
		Witnesses: witnesses, WitnessQuorum: e.WitnessQuorum, Now: c.Now, Logger: c.Log}
}

// RotateLogKey gives the evidence log of a server that is not running a new
// signing key, and returns its verifier key; see [evidence.Rotate].
func RotateLogKey(ctx context.Context, c Config) (string, error) {
	if err := c.complete(); err != nil {
		return "", err
	}
	return evidence.Rotate(ctx, c.evidence())
}

// serviceHead is how many rows of each result a service's recording keeps
// where nobody says otherwise: the columns and a sample, not the bulk.
const serviceHead = 100

// record begins the recording of a session as its target, its grant's rule or
// the house say: people full, services the head of each result.
func (s *Server) record(name string, p peer, t targetSpec) (*recording, int64, error) {
	mode := t.spec.Recording
	if rule := s.grantRule(p.grant); rule != nil && rule.Recording != "" {
		mode = rule.Recording
	}
	head := int64(0)
	switch {
	case mode == "none":
		return nil, 0, nil
	case strings.HasPrefix(mode, "head:"):
		head, _ = strconv.ParseInt(strings.TrimPrefix(mode, "head:"), 10, 64) // checked when the resource was read
	case mode == "" && p.principal.Kind == policy.Service:
		head = serviceHead
	}
	r, err := s.evidence.Record(name, evidence.RecordOptions{})
	if err != nil {
		return nil, 0, &session.Refusal{Code: session.CodeEvidence, Message: "evidence unavailable", Detail: err.Error(), Fatal: true}
	}
	return &recording{r}, head, nil
}

func (s *Server) streamCheckpoint(c *call, w http.ResponseWriter) error {
	f, err := s.evidence.Open(c.Context(), "checkpoint")
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.Copy(w, f) // a client that went away is told nothing
	return nil
}

func (s *Server) getEvidenceFiles(c *call) (any, error) {
	files, err := s.evidence.List(c.Context())
	if err != nil {
		return nil, err
	}
	return api.EvidenceFiles{Files: files}, nil
}

// streamEvidenceFile sends a file of the evidence as it stands. Only what List
// shows can be asked for.
func (s *Server) streamEvidenceFile(c *call, w http.ResponseWriter) error {
	name := path.Clean(c.PathValue("path"))
	files, err := s.evidence.List(c.Context())
	if err != nil {
		return err
	}
	known := false
	for _, f := range files {
		known = known || f.Path == name
	}
	if !known {
		return notFound("evidence file", name)
	}
	f, err := s.evidence.Open(c.Context(), name)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if rs, ok := f.(io.ReadSeeker); ok {
		http.ServeContent(w, c.Request, "", time.Time{}, rs)
		return nil
	}
	io.Copy(w, f)
	return nil
}

// asker joins the room of approvals to what a session asks of one.
type asker struct{ s *Server }

func (a asker) Ask(ctx context.Context, q session.Question, opened func(session.Hold)) ([]session.Approved, error) {
	ans, err := a.s.approvals.Ask(ctx, approval.Question{Spec: q.Spec, Expires: q.Expires, Detached: q.NoWait, Resume: q.Resume}, func(r api.Request) { opened(holdOf(r)) })
	if err == nil {
		return approved(ans), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, heldRefusal(err)
}

// approved joins who said yes with what they said.
func approved(ans approval.Answer) []session.Approved {
	out := make([]session.Approved, len(ans.By))
	for i, by := range ans.By {
		out[i].EventApproved = by
		for _, a := range ans.Request.Status.Answers {
			if a.Principal == by.By && a.Approve {
				out[i].Name, out[i].Reason = a.Name, a.Reason
			}
		}
	}
	return out
}

func holdOf(r api.Request) session.Hold {
	h := session.Hold{Request: r.Metadata.Name, Expires: r.Status.Expires}
	for i, c := range r.Spec.Cures {
		if h.Groups = append(h.Groups, c.Group); i == 0 {
			h.Rule, h.Reason = c.Rule, c.Reason
		}
	}
	return h
}

// heldRefusal puts what became of a question into the words of a session.
func heldRefusal(err error) *session.Refusal {
	e := apiError(err)
	r := &session.Refusal{Code: session.CodePolicy, Message: e.Message, Hint: e.Hint, Request: e.Request}
	switch e.Reason {
	case api.ReasonEvidence:
		r.Code, r.Fatal = session.CodeEvidence, true
	case api.ReasonExpired:
		r.Code = session.CodeHold
	case api.ReasonPending:
		r.Detail = "pending: it runs once when it is sent again after the approval"
	case api.ReasonInternal:
		r.Code = session.CodeUnavailable
	}
	return r
}
