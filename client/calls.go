package client

import (
	"bufio"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// at fills the values of a path of the API: at(api.PathGrant, "name", "g-12").
func at(path string, pairs ...string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		path = strings.Replace(path, "{"+pairs[i]+"}", url.PathEscape(pairs[i+1]), 1)
	}
	return path
}

// reason is the query of a call that takes an optional reason.
func reason(why string) url.Values {
	if why == "" {
		return nil
	}
	return url.Values{"reason": {why}}
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.call(ctx, http.MethodGet, path, nil, nil, &out)
	return out, err
}

func list[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	var out api.List[T]
	err := c.call(ctx, http.MethodGet, path, query, nil, &out)
	return out.Items, err
}

func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	err := c.call(ctx, http.MethodPost, path, nil, in, &out)
	return out, err
}

// Whoami asks the server who we are to it.
func (c *Client) Whoami(ctx context.Context) (api.Whoami, error) {
	return get[api.Whoami](ctx, c, api.PathWhoami)
}

// Targets lists what may be asked for.
func (c *Client) Targets(ctx context.Context) ([]api.Target, error) {
	return list[api.Target](ctx, c, api.PathTargets, nil)
}

// Grants lists grants: our own, or all for those who may see them.
func (c *Client) Grants(ctx context.Context) ([]api.Grant, error) {
	return list[api.Grant](ctx, c, api.PathGrants, nil)
}

// Grant returns one grant.
func (c *Client) Grant(ctx context.Context, name string) (api.Grant, error) {
	return get[api.Grant](ctx, c, at(api.PathGrant, "name", name))
}

// RequestGrant asks for a grant. The answer holds the grant, or the request
// that people must answer first; being refused is an *api.Error.
func (c *Client) RequestGrant(ctx context.Context, r api.GrantRequest) (api.GrantAnswer, error) {
	return post[api.GrantAnswer](ctx, c, api.PathGrants, r)
}

// RevokeGrant ends a grant and the sessions that live by it.
func (c *Client) RevokeGrant(ctx context.Context, name, why string) (api.Revoked, error) {
	var out api.Revoked
	err := c.call(ctx, http.MethodDelete, at(api.PathGrant, "name", name), reason(why), nil, &out)
	return out, err
}

// Shred asks that the recording of a session be destroyed, or agrees to what
// somebody else asked: it takes two people. Agreed is empty while it waits.
func (c *Client) Shred(ctx context.Context, session, why string) (api.Shredding, error) {
	return post[api.Shredding](ctx, c, at(api.PathShred, "name", session), api.Shred{Reason: why})
}

// Requests lists the requests that we made or may answer (or all, for those who may see them).
func (c *Client) Requests(ctx context.Context) ([]api.Request, error) {
	return list[api.Request](ctx, c, api.PathRequests, nil)
}

// Request returns one request.
func (c *Client) Request(ctx context.Context, name string) (api.Request, error) {
	return get[api.Request](ctx, c, at(api.PathRequest, "name", name))
}

// Withdraw takes one's own request back.
func (c *Client) Withdraw(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, at(api.PathRequest, "name", name), nil, nil, nil)
}

// Answer answers a request as it was shown to us: the signature, by the login's
// key, binds name, digest, verdict, reason and rules (none: every one that we
// may answer). The request that is passed must be the one that the approver
// saw; if it has changed since, the server refuses.
func (c *Client) Answer(ctx context.Context, shown api.Request, approve bool, why string, rules ...string) (api.Request, error) {
	return c.AnswerWith(ctx, shown, approve, why, nil, rules...)
}

// AnswerWith is [Client.Answer] with a second signature, by the approver's own
// SSH key. sign gets the bytes and returns an armored SSHSIG in
// [api.ApprovalNamespace], as `ssh-keygen -Y sign` writes it; nil is none.
func (c *Client) AnswerWith(ctx context.Context, shown api.Request, approve bool, why string, sign func([]byte) ([]byte, error), rules ...string) (api.Request, error) {
	cred, err := c.ready(ctx)
	if err != nil {
		return api.Request{}, err
	}
	name := shown.Metadata.Name
	if want := api.RequestDigest(shown.Spec); shown.Spec.Digest != want {
		if s := shown.Status; s.Phase == "pending" && !s.MayAnswer && s.WhyNot != "" { // part of it was kept from us for that reason
			return api.Request{}, &api.Error{Reason: api.ReasonDenied, Source: "broker", Request: name,
				Message: "you may not answer request " + name + ": " + s.WhyNot, Hint: "ask someone who may"}
		}
		return api.Request{}, fmt.Errorf("request %s: its digest is not that of what is shown; nothing was signed", name)
	}
	key, ok := cred.tls.Certificates[0].PrivateKey.(crypto.Signer)
	if !ok {
		return api.Request{}, errors.New("the login has no key to sign with")
	}
	answer := api.Answer{Approve: approve, Reason: why, Cures: rules, Digest: shown.Spec.Digest}
	if err := answer.Sign(name, key); err != nil {
		return api.Request{}, err
	}
	if sign != nil {
		armored, err := sign(answer.SignedBytes(name))
		if err == nil {
			answer.SSHSignature, err = api.ParseSSHSignature(armored)
		}
		if err != nil {
			return api.Request{}, fmt.Errorf("sign the answer to %s with your own key: %w", name, err)
		}
	}
	return post[api.Request](ctx, c, at(api.PathAnswer, "name", name), answer)
}

// AwaitRequest returns a request once people (or time) have decided it: its
// phase is no longer "pending". It survives a server that goes away for a
// while, and returns when ctx ends.
func (c *Client) AwaitRequest(ctx context.Context, name string) (api.Request, error) {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		r, err := c.Request(ctx, name)
		if err == nil && r.Status.Phase != "pending" {
			return r, nil
		}
		if err != nil && !isUnavailable(err) {
			return r, err
		}
		if err == nil {
			if r, err := c.watchRequest(ctx, name); err == nil {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return api.Request{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

var errWatchEnded = errors.New("the watch ended")

func (c *Client) watchRequest(ctx context.Context, name string) (api.Request, error) {
	for change, err := range c.WatchRequests(ctx) {
		if err != nil {
			return api.Request{}, err
		}
		if !change.Synced && change.Item.Metadata.Name == name && change.Item.Status.Phase != "pending" {
			return change.Item, nil
		}
	}
	return api.Request{}, errWatchEnded
}

func isUnavailable(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Reason == api.ReasonUnavailable
}

// Sessions lists sessions: our own, or all for those who may see them.
func (c *Client) Sessions(ctx context.Context) ([]api.Session, error) {
	return list[api.Session](ctx, c, api.PathSessions, nil)
}

// Session returns one session.
func (c *Client) Session(ctx context.Context, name string) (api.Session, error) {
	return get[api.Session](ctx, c, at(api.PathSession, "name", name))
}

// EndSession ends a live session; its client is told by whom and why.
func (c *Client) EndSession(ctx context.Context, name, why string) error {
	return c.call(ctx, http.MethodDelete, at(api.PathSession, "name", name), reason(why), nil, nil)
}

// Explain asks what would happen. Nothing is sent to the target.
func (c *Client) Explain(ctx context.Context, e api.Explain) (api.Explained, error) {
	return post[api.Explained](ctx, c, api.PathExplain, e)
}

// Secret asks for a short-lived secret for the native endpoint. It is shown once.
func (c *Client) Secret(ctx context.Context, r api.SecretRequest) (api.Secret, error) {
	return post[api.Secret](ctx, c, api.PathSecrets, r)
}

// Apply creates, changes and, with Prune, deletes resources, all or none. If
// the answer has a Request, people must agree first: await it, then ask with
// Resume what became of it.
func (c *Client) Apply(ctx context.Context, a api.Apply) (api.Applied, error) {
	return post[api.Applied](ctx, c, api.PathApply, a)
}

// Resources lists the resources of a kind ("Target", …).
func (c *Client) Resources(ctx context.Context, kind string) ([]api.Resource, error) {
	return list[api.Resource](ctx, c, at(api.PathResources, "kind", kind), nil)
}

// Resource returns one resource.
func (c *Client) Resource(ctx context.Context, kind, name string) (api.Resource, error) {
	return get[api.Resource](ctx, c, at(api.PathResource, "kind", kind, "name", name))
}

// DeleteResource deletes one resource; people may have to agree first, as with Apply.
func (c *Client) DeleteResource(ctx context.Context, kind, name, why string) (api.Applied, error) {
	var out api.Applied
	err := c.call(ctx, http.MethodDelete, at(api.PathResource, "kind", kind, "name", name), reason(why), nil, &out)
	return out, err
}

// Replay asks which recorded statements another set would decide otherwise.
func (c *Client) Replay(ctx context.Context, r api.Replay) (api.Replayed, error) {
	return post[api.Replayed](ctx, c, api.PathReplay, r)
}

// Learn asks which statements a principal ran.
func (c *Client) Learn(ctx context.Context, l api.Learn) (api.Learned, error) {
	return post[api.Learned](ctx, c, api.PathLearn, l)
}

// Fired asks what rules decided since then.
func (c *Client) Fired(ctx context.Context, since time.Time) (api.Fired, error) {
	var out api.Fired
	err := c.call(ctx, http.MethodGet, api.PathFired, url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}}, nil, &out)
	return out, err
}

// Events searches the evidence's timeline.
func (c *Client) Events(ctx context.Context, q api.EventQuery) ([]api.Event, error) {
	return list[api.Event](ctx, c, api.PathEvents, q.Values())
}

// Checkpoint returns the log's newest checkpoint: a signed note.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, api.PathCheckpoint, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(io.LimitReader(res.Body, 1<<20))
}

// EvidenceFiles lists the evidence folder's files as they are now.
func (c *Client) EvidenceFiles(ctx context.Context) (api.EvidenceFiles, error) {
	return get[api.EvidenceFiles](ctx, c, api.PathEvidenceFiles)
}

// EvidenceFile reads length bytes of a file of the evidence from offset on;
// length < 0 is all of the rest. The caller closes it. ctx bounds the reading.
func (c *Client) EvidenceFile(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error) {
	if length == 0 {
		return http.NoBody, nil
	}
	segments := strings.Split(path, "/")
	for i := range segments {
		segments[i] = url.PathEscape(segments[i])
	}
	p := strings.Replace(api.PathEvidenceFile, "{path...}", strings.Join(segments, "/"), 1)
	var header http.Header
	whole := offset == 0 && length < 0
	if !whole {
		header = http.Header{"Range": {byteRange(offset, length)}}
	}
	res, err := c.send(ctx, http.MethodGet, p, nil, nil, header)
	if err != nil {
		return nil, err
	}
	if !whole && res.StatusCode != http.StatusPartialContent {
		res.Body.Close()
		return nil, &api.Error{Code: http.StatusBadGateway, Reason: api.ReasonUnavailable, Source: source,
			Message: fmt.Sprintf("evidence file %s: the server answered %s to a range", path, res.Status)}
	}
	return res.Body, nil
}

func byteRange(offset, length int64) string {
	s := "bytes=" + strconv.FormatInt(offset, 10) + "-"
	if length > 0 {
		s += strconv.FormatInt(offset+length-1, 10)
	}
	return s
}

// Change is one line of a watch: an item as it is now, or the mark that all
// items as they stood at the start have been sent.
type Change[T any] struct {
	Item   T
	Synced bool
}

// WatchTargets follows Targets; see [Client.WatchGrants].
func (c *Client) WatchTargets(ctx context.Context) iter.Seq2[Change[api.Target], error] {
	return watch[api.Target](ctx, c, api.PathTargets, nil)
}

// WatchGrants yields the grants as they stand, a Change with Synced, then each
// change. It ends after an error: the connection's, the server's, or ctx's.
func (c *Client) WatchGrants(ctx context.Context) iter.Seq2[Change[api.Grant], error] {
	return watch[api.Grant](ctx, c, api.PathGrants, nil)
}

// WatchRequests follows Requests; see [Client.WatchGrants].
func (c *Client) WatchRequests(ctx context.Context) iter.Seq2[Change[api.Request], error] {
	return watch[api.Request](ctx, c, api.PathRequests, nil)
}

// WatchSessions follows Sessions; see [Client.WatchGrants].
func (c *Client) WatchSessions(ctx context.Context) iter.Seq2[Change[api.Session], error] {
	return watch[api.Session](ctx, c, api.PathSessions, nil)
}

// WatchResources follows Resources; see [Client.WatchGrants].
func (c *Client) WatchResources(ctx context.Context, kind string) iter.Seq2[Change[api.Resource], error] {
	return watch[api.Resource](ctx, c, at(api.PathResources, "kind", kind), nil)
}

// WatchEvents follows Events; see [Client.WatchGrants].
func (c *Client) WatchEvents(ctx context.Context, q api.EventQuery) iter.Seq2[Change[api.Event], error] {
	return watch[api.Event](ctx, c, api.PathEvents, q.Values())
}

// maxLine bounds one line of a watch in bytes: a request shows a statement of
// at most 256 KiB, and its facts.
const maxLine = 4 << 20

func watch[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[Change[T], error] {
	return func(yield func(Change[T], error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if query == nil {
			query = url.Values{}
		}
		query.Set("watch", "1")
		res, err := c.send(ctx, http.MethodGet, path, query, nil, nil)
		if err != nil {
			yield(Change[T]{}, err)
			return
		}
		defer res.Body.Close()
		if err := readLines(res.Body, yield); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			} else {
				err = c.explain(err)
			}
			yield(Change[T]{}, err)
		}
	}
}

// readLines yields each line until the consumer has had enough (nil) or the
// stream fails: its plain end is a failure too, since a watch has none.
func readLines[T any](r io.Reader, yield func(Change[T], error) bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue // a line to keep the connection alive
		}
		change, err := parseLine[T](lines.Bytes())
		if err != nil {
			return err
		}
		if !yield(change, nil) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// parseLine reads one line: an item, the mark, or an error that ends the watch.
func parseLine[T any](line []byte) (Change[T], error) {
	var mark struct {
		Kind   string     `json:"kind"`
		Reason api.Reason `json:"reason"`
		Source string     `json:"source"`
	}
	// Items may use the same names for other things, in other types: an error here says nothing.
	_ = json.Unmarshal(line, &mark)
	if mark.Kind == "Synced" {
		return Change[T]{Synced: true}, nil
	}
	if mark.Source == source && mark.Reason != "" {
		e := new(api.Error)
		if err := json.Unmarshal(line, e); err != nil {
			return Change[T]{}, err
		}
		return Change[T]{}, e
	}
	var change Change[T]
	if err := json.Unmarshal(line, &change.Item); err != nil {
		return change, fmt.Errorf("a line of the watch cannot be read: %w", err)
	}
	return change, nil
}
