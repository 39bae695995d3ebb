package grant_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
	"github.com/hoopctl/hoopctl/server/grant"
	"github.com/hoopctl/hoopctl/server/store"
)

const rules = `
kind: Policy
metadata: {name: all}
spec:
  cedar: |
    @id("engineers") permit(principal in Hoop::Group::"engineers", action == Hoop::Action::"connect", resource);
    @id("not-from-outside") @reason("grants are asked for from inside")
    forbid(principal, action == Hoop::Action::"connect", resource) when { !context.sourceIP.isInRange(ip("10.0.0.0/8")) };
---
kind: GrantRule
metadata: {name: dev}
spec: {groups: [engineers], targets: {matchLabels: {env: dev}}, maxFor: 2h, grace: 10m}
---
kind: GrantRule
metadata: {name: prod}
spec: {groups: [engineers], targets: {matchLabels: {env: prod}}, maxFor: 1h, approve: {groups: [approvers], quorum: 1}, require: [reason]}
---
kind: GrantRule
metadata: {name: reports}
spec: {groups: [engineers], targets: {names: [reports]}, standing: true, owner: erin, reviewBy: 2027-06-01}
`

var targets = map[string]policy.TargetRef{
	"clinic":  {Name: "clinic", Protocol: "postgres", Labels: map[string]string{"env": "dev"}},
	"prod":    {Name: "prod", Protocol: "postgres", Labels: map[string]string{"env": "prod"}},
	"reports": {Name: "reports", Protocol: "postgres", Labels: map[string]string{"env": "other"}},
}

var inside = netip.MustParseAddr("10.1.2.3")

// evidence stands in for the log: it keeps leaves in memory, and fails when told to.
type evidence struct {
	mu     sync.Mutex
	leaves []api.Event
	broken atomic.Bool
	on     func(*api.Event) // called with each leaf
}

var errDisk = errors.New("no space left on device")

func (e *evidence) Append(ev *api.Event) (uint64, error) {
	if e.on != nil {
		e.on(ev)
	}
	if e.broken.Load() {
		return 0, errDisk
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaves = append(e.leaves, *ev)
	return uint64(len(e.leaves)), nil
}

func (e *evidence) Wait(ctx context.Context, _ uint64) error {
	if e.broken.Load() {
		return errDisk
	}
	return ctx.Err()
}

func (e *evidence) of(kind string) (out []api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.leaves {
		if l.Kind == kind {
			out = append(out, l)
		}
	}
	return out
}

type person struct {
	policy.Principal
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newPerson(t testing.TB, name string, groups ...string) person {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return person{policy.Principal{Kind: policy.User, Issuer: "dev", Subject: name, Name: name, Groups: groups}, key, cert}
}

// house is the room on a real store, with the real approvals and the real policy.
type house struct {
	*grant.Room
	approvals *approval.Room
	t         testing.TB
	evidence  *evidence
	store     *store.Store
	path      string
	set       atomic.Pointer[policy.Set]

	mu     sync.Mutex
	now    time.Time
	real   bool // the clock is time.Now
	people map[string]policy.Principal
	ended  []grant.End
}

func newHouse(t testing.TB, people ...person) *house {
	h := &house{t: t, evidence: new(evidence), now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), people: map[string]policy.Principal{},
		path: filepath.Join(t.TempDir(), "state.db")}
	for _, p := range people {
		h.people[p.ID()] = p.Principal
	}
	h.rules(rules)
	h.open()
	t.Cleanup(func() { h.store.Close() })
	return h
}

func (h *house) rules(text string) {
	h.t.Helper()
	res, err := policy.ParseResources("rules.yaml", []byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	set, err := policy.Compile(res)
	if err != nil {
		h.t.Fatal(err)
	}
	h.set.Store(set)
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.store, err = store.Open("sqlite:"+h.path, store.WithClock(h.clock)); err != nil {
		h.t.Fatal(err)
	}
	h.approvals, err = approval.New(h.t.Context(), approval.Config{Store: h.store, Evidence: h.evidence, Current: h.current, Now: h.clock,
		MayAnswer: func(_ context.Context, who policy.Principal, r *api.Request, c api.Cure) error {
			ok, why := h.set.Load().MayAnswer(policy.Request{Principal: who, Target: targets[r.Spec.Target], Owner: r.Spec.Principal, Object: r.Metadata.Name, SourceIP: inside, Now: h.clock()},
				r.Spec.Chain, policy.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum})
			if !ok {
				return errors.New(why)
			}
			return nil
		}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Room, err = grant.New(h.t.Context(), grant.Config{Store: h.store, Evidence: h.evidence, Approvals: h.approvals, Decide: h.decide, Current: h.current, Now: h.clock,
		Ended: func(e grant.End) { h.mu.Lock(); defer h.mu.Unlock(); h.ended = append(h.ended, e) }})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) restart() {
	h.t.Helper()
	if err := h.store.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

func (h *house) decide(_ context.Context, q policy.Request) (policy.GrantVerdict, error) {
	t, ok := targets[q.Target.Name]
	if !ok {
		return policy.GrantVerdict{}, &api.Error{Code: 404, Reason: api.ReasonNotFound, Message: "there is no target " + q.Target.Name}
	}
	q.Target = t
	return h.set.Load().Grant(q), nil
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.real {
		return time.Now()
	}
	return h.now
}

func (h *house) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *house) current(_ context.Context, id string) (policy.Principal, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.people[id]
	if !ok {
		return policy.Principal{}, errors.New("no longer known")
	}
	return p, nil
}

func (h *house) groups(p person, groups ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.Groups = groups
	h.people[p.ID()] = p.Principal
}

func (h *house) request(p person, in api.GrantRequest) (api.GrantAnswer, error) {
	who, err := h.current(h.t.Context(), p.ID())
	if err != nil {
		return api.GrantAnswer{}, err
	}
	return h.Request(h.t.Context(), who, in, inside)
}

func (h *house) granted(p person, in api.GrantRequest) api.Grant {
	h.t.Helper()
	a, err := h.request(p, in)
	if err != nil || a.Grant == nil {
		h.t.Fatalf("%+v, %v", a, err)
	}
	return *a.Grant
}

func (h *house) waits(p person, in api.GrantRequest) api.Request {
	h.t.Helper()
	a, err := h.request(p, in)
	if err != nil || a.Request == nil {
		h.t.Fatalf("%+v, %v", a, err)
	}
	return *a.Request
}

func (h *house) answer(p person, r api.Request, approve bool) error {
	h.t.Helper()
	a := api.Answer{Approve: approve, Reason: "because", Digest: r.Spec.Digest}
	if err := a.Sign(r.Metadata.Name, p.key); err != nil {
		h.t.Fatal(err)
	}
	_, err := h.approvals.Answer(h.t.Context(), p.Principal, p.cert, r.Metadata.Name, a)
	return err
}

func (h *house) sweep() {
	h.t.Helper()
	if err := h.Sweep(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func reason(err error) api.Reason {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func hint(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

func TestRequest(t *testing.T) {
	alice, carol := newPerson(t, "alice", "engineers"), newPerson(t, "carol", "clinicians")
	h := newHouse(t, alice, carol)
	for name, c := range map[string]struct {
		who   person
		in    api.GrantRequest
		fails api.Reason
		says  string // in message or hint
		lasts time.Duration
	}{
		"issued at once":             {alice, api.GrantRequest{Target: "clinic", For: api.Duration(time.Hour)}, "", "", time.Hour},
		"for the rule's most":        {alice, api.GrantRequest{Target: "clinic"}, "", "", 2 * time.Hour},
		"capped":                     {alice, api.GrantRequest{Target: "clinic", For: api.Duration(9 * time.Hour)}, "", "", 2 * time.Hour},
		"T63 more than one may":      {carol, api.GrantRequest{Target: "clinic"}, api.ReasonDenied, "clinic", 0},
		"without what is required":   {alice, api.GrantRequest{Target: "prod"}, api.ReasonInvalid, "--reason", 0},
		"unknown target":             {alice, api.GrantRequest{Target: "nowhere"}, api.ReasonNotFound, "nowhere", 0},
		"no target":                  {alice, api.GrantRequest{}, api.ReasonInvalid, "target", 0},
		"negative":                   {alice, api.GrantRequest{Target: "clinic", For: -1}, api.ReasonInvalid, "--for", 0},
		"unknown action":             {alice, api.GrantRequest{Target: "clinic", Action: "admin"}, api.ReasonInvalid, "schema", 0},
		"a reason that plays tricks": {alice, api.GrantRequest{Target: "clinic", Reason: "\x1b[2J"}, api.ReasonInvalid, "--reason", 0},
		"a ticket without end":       {alice, api.GrantRequest{Target: "clinic", Ticket: strings.Repeat("x", 5000)}, api.ReasonInvalid, "--ticket", 0},
		"extends nothing":            {alice, api.GrantRequest{Extend: "g-99"}, api.ReasonNotFound, "g-99", 0},
		"resumes nothing":            {alice, api.GrantRequest{Resume: "r-99"}, api.ReasonNotFound, "r-99", 0},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := h.request(c.who, c.in)
			if c.fails != "" {
				if reason(err) != c.fails || !strings.Contains(err.Error()+hint(err), c.says) {
					t.Errorf("%v (%s), want %s saying %q", err, hint(err), c.fails, c.says)
				}
				return
			}
			if err != nil || a.Grant == nil {
				t.Fatalf("%+v, %v", a, err)
			}
			if left := a.Grant.Status.Expires.Sub(h.clock()); left != c.lasts || a.Grant.Status.Phase != grant.Active || a.Grant.Status.Rule != "dev" {
				t.Errorf("lasts %s, want %s: %+v", left, c.lasts, a.Grant.Status)
			}
		})
	}
	if g := h.granted(alice, api.GrantRequest{Target: "reports"}); !g.Spec.Standing || !g.Status.Expires.IsZero() {
		t.Errorf("a standing grant ends at %s", g.Status.Expires)
	}
	if _, err := h.Request(t.Context(), alice.Principal, api.GrantRequest{Target: "clinic"}, netip.MustParseAddr("203.0.113.7")); reason(err) != api.ReasonDenied || !strings.Contains(err.Error(), "not-from-outside") {
		t.Errorf("from outside: %v", err)
	}
}

func TestReuse(t *testing.T) {
	alice := newPerson(t, "alice", "engineers")
	for name, c := range map[string]struct {
		in   api.GrantRequest
		same bool
	}{
		"will do":       {api.GrantRequest{Target: "clinic", Reuse: true}, true},
		"same purpose":  {api.GrantRequest{Target: "clinic", Purpose: "TREAT", Reuse: true}, true},
		"other purpose": {api.GrantRequest{Target: "clinic", Purpose: "HRESCH", Reuse: true}, false},
		"other action":  {api.GrantRequest{Target: "clinic", Action: "schema", Reuse: true}, false},
		"shorter":       {api.GrantRequest{Target: "clinic", Purpose: "TREAT", Reuse: true, For: api.Duration(time.Minute)}, false},
		"as long":       {api.GrantRequest{Target: "clinic", Purpose: "TREAT", Reuse: true, For: api.Duration(time.Hour)}, true},
		"not wanted":    {api.GrantRequest{Target: "clinic"}, false},
	} {
		h := newHouse(t, alice)
		first := h.granted(alice, api.GrantRequest{Target: "clinic", Purpose: "TREAT", For: api.Duration(time.Hour)})
		if g := h.granted(alice, c.in); (g.Metadata.Name == first.Metadata.Name) != c.same {
			t.Errorf("%s: %s", name, g.Metadata.Name)
		}
	}
	h := newHouse(t, alice)
	first := h.granted(alice, api.GrantRequest{Target: "clinic", For: api.Duration(time.Hour)})
	h.later(time.Hour - time.Second)
	if g := h.granted(alice, api.GrantRequest{Target: "clinic", Reuse: true}); g.Metadata.Name == first.Metadata.Name {
		t.Error("a grant with one second left was reused")
	}
}

func TestLive(t *testing.T) {
	alice, mallory := newPerson(t, "alice", "engineers"), newPerson(t, "mallory", "engineers")
	h := newHouse(t, alice, mallory)
	short := h.granted(alice, api.GrantRequest{Target: "clinic", For: api.Duration(time.Hour)})
	long := h.granted(alice, api.GrantRequest{Target: "clinic", For: api.Duration(2 * time.Hour)})
	live := func(p person, key, want string, fails api.Reason) {
		t.Helper()
		g, err := h.Live(t.Context(), p.Principal, key)
		if g.Metadata.Name != want || reason(err) != fails {
			t.Errorf("%s of %s: %q, %v; want %q, %q", key, p.Name, g.Metadata.Name, err, want, fails)
		}
	}
	for range 2 {
		live(alice, short.Metadata.Name, short.Metadata.Name, "")
		live(alice, "clinic", long.Metadata.Name, "")
		live(alice, "prod", "", api.ReasonDenied)
		live(alice, "g-77", "", api.ReasonDenied)
		t.Run("T58 of someone else's", func(t *testing.T) {
			live(mallory, short.Metadata.Name, "", api.ReasonDenied)
			live(mallory, "clinic", "", api.ReasonDenied)
		})
		h.restart()
	}
	h.later(time.Hour) // time alone ends it: no sweep has run
	live(alice, short.Metadata.Name, "", api.ReasonExpired)
	h.sweep()
	live(alice, short.Metadata.Name, "", api.ReasonExpired)
	if err := h.Revoke(t.Context(), mallory.Principal, long.Metadata.Name, "wrong ticket"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		live(alice, long.Metadata.Name, "", api.ReasonRevoked)
		if _, err := h.Live(t.Context(), alice.Principal, "clinic"); err == nil || err.Error() != "grant "+long.Metadata.Name+" was revoked by mallory: wrong ticket" {
			t.Errorf("%v", err)
		}
		h.restart()
	}
}

// Ending is told at once, in words, and written down.
func TestT14_Ending(t *testing.T) {
	alice, erin := newPerson(t, "alice", "engineers"), newPerson(t, "erin", "admins")
	h := newHouse(t, alice, erin)
	a := h.granted(alice, api.GrantRequest{Target: "clinic", For: api.Duration(time.Hour)})
	b := h.granted(alice, api.GrantRequest{Target: "clinic", For: api.Duration(2 * time.Hour)})
	if err := h.Revoke(t.Context(), erin.Principal, b.Metadata.Name, "leaver"); err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), erin.Principal, b.Metadata.Name, ""); reason(err) != api.ReasonConflict {
		t.Errorf("revoked twice: %v", err)
	}
	if err := h.Revoke(t.Context(), erin.Principal, "g-99", ""); reason(err) != api.ReasonNotFound {
		t.Errorf("revoked nothing: %v", err)
	}
	h.later(time.Hour)
	h.sweep()
	h.sweep()
	var told []string
	for _, e := range h.ended {
		told = append(told, fmt.Sprint(e.Grant.Metadata.Name, " ", e.Phase, " ", e.By, " ", e.Reason, " ", e.Grace))
	}
	if want := []string{b.Metadata.Name + " revoked erin leaver 0s", a.Metadata.Name + " expired   10m0s"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	ends := h.evidence.of(api.EventGrantEnd)
	if len(ends) != 2 || ends[0].Attrs["by"] != erin.ID() || ends[0].Status != grant.Revoked || ends[1].Status != grant.Expired || ends[0].Principal != alice.ID() {
		t.Errorf("%+v", ends)
	}
	for _, e := range ends {
		if strings.Contains(fmt.Sprintf("%+v", e), "leaver") {
			t.Error("a person's words stand in the timeline")
		}
	}
	list, _ := h.List(t.Context())
	if len(list) != 2 || list[0].Status.Phase != grant.Expired || list[1].Status.Phase != grant.Revoked || list[1].Status.EndedBy != "erin" {
		t.Errorf("%+v", list)
	}
}

func TestBrokenEvidence(t *testing.T) {
	alice, erin := newPerson(t, "alice", "engineers"), newPerson(t, "erin")
	h := newHouse(t, alice, erin)
	g := h.granted(alice, api.GrantRequest{Target: "clinic"})
	h.evidence.broken.Store(true)
	if a, err := h.request(alice, api.GrantRequest{Target: "clinic"}); reason(err) != api.ReasonEvidence || !errors.Is(err, errDisk) || a.Grant != nil {
		t.Errorf("issued: %+v, %v", a, err)
	}
	if list, _ := h.List(t.Context()); len(list) != 1 {
		t.Errorf("%d grants", len(list))
	}
	// A revocation does not wait for a disk that is full.
	if err := h.Revoke(t.Context(), erin.Principal, g.Metadata.Name, ""); reason(err) != api.ReasonEvidence {
		t.Errorf("revoked: %v", err)
	}
	if _, err := h.Live(t.Context(), alice.Principal, g.Metadata.Name); reason(err) != api.ReasonRevoked {
		t.Errorf("it lives: %v", err)
	}
	if len(h.ended) != 1 {
		t.Error("its sessions were not told")
	}
}

// The leaf is durable before anyone can use the grant.
func TestLeafComesFirst(t *testing.T) {
	alice := newPerson(t, "alice", "engineers")
	h := newHouse(t, alice)
	h.evidence.on = func(e *api.Event) {
		if _, err := h.Live(t.Context(), alice.Principal, "clinic"); e.Kind == api.EventGrant && err == nil {
			t.Error("the grant lives before its leaf was written")
		}
	}
	g := h.granted(alice, api.GrantRequest{Target: "clinic", Reason: "to see"})
	leaf := h.evidence.of(api.EventGrant)
	if len(leaf) != 1 || leaf[0].Grant != g.Metadata.Name || leaf[0].Verdict != "allow" || leaf[0].Policy == "" || !leaf[0].Expires.Equal(g.Status.Expires) || leaf[0].Source != "10.1.2.3" {
		t.Errorf("%+v", leaf)
	}
}

func TestApprovedGrant(t *testing.T) {
	alice, bob := newPerson(t, "alice", "engineers"), newPerson(t, "bob", "approvers")
	in := api.GrantRequest{Target: "prod", Reason: "incident 7", For: api.Duration(30 * time.Minute)}
	t.Run("issued once", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		r := h.waits(alice, in)
		if again := h.waits(alice, in); again.Metadata.Name != r.Metadata.Name {
			t.Errorf("the same wish is asked twice: %s", again.Metadata.Name)
		}
		h.sweep()
		if _, err := h.Live(t.Context(), alice.Principal, "prod"); reason(err) != api.ReasonDenied {
			t.Fatalf("before anyone said yes: %v", err)
		}
		if a, err := h.request(alice, api.GrantRequest{Resume: r.Metadata.Name}); err != nil || a.Request == nil || a.Request.Status.Phase != "pending" {
			t.Errorf("resumed while it waits: %+v, %v", a, err)
		}
		if err := h.answer(bob, r, true); err != nil {
			t.Fatal(err)
		}
		h.later(5 * time.Minute) // its time begins when it is issued
		for range 3 {
			h.sweep()
			h.restart()
		}
		list, _ := h.List(t.Context())
		if len(list) != 1 || list[0].Status.Request != r.Metadata.Name || list[0].Status.Expires.Sub(h.clock()) != 30*time.Minute {
			t.Fatalf("%+v", list)
		}
		a, err := h.request(alice, api.GrantRequest{Resume: r.Metadata.Name})
		if err != nil || a.Grant == nil || a.Grant.Metadata.Name != list[0].Metadata.Name {
			t.Errorf("resumed: %+v, %v", a, err)
		}
		if now, _ := h.approvals.Find(t.Context(), r.Metadata.Name); now.Status.Phase != "used" || now.Status.Grant != list[0].Metadata.Name {
			t.Errorf("%+v", now.Status)
		}
		if leaves := h.evidence.of(api.EventGrant); len(leaves) != 1 || leaves[0].Request != r.Metadata.Name {
			t.Errorf("%+v", leaves)
		}
	})
	t.Run("T63 resumed by someone else", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		r := h.waits(alice, in)
		if _, err := h.request(bob, api.GrantRequest{Resume: r.Metadata.Name}); reason(err) != api.ReasonNotFound {
			t.Errorf("%v", err)
		}
	})
	t.Run("T63 approved by who asked", func(t *testing.T) {
		both := newPerson(t, "both", "engineers", "approvers")
		h := newHouse(t, both)
		r := h.waits(both, in)
		if err := h.answer(both, r, true); reason(err) != api.ReasonDenied {
			t.Errorf("%v", err)
		}
	})
	for name, c := range map[string]struct {
		change func(*house)
		says   string
	}{
		"T56 who asked left the group": {func(h *house) { h.groups(alice) }, "rules have changed"},
		"T56 who asked is gone":        {func(h *house) { h.mu.Lock(); delete(h.people, alice.ID()); h.mu.Unlock() }, "no longer known"},
		"T36 the approver left":        {func(h *house) { h.groups(bob) }, "the answer of bob to rule grantrule:prod no longer counts"},
		"the rules now ask for two":    {func(h *house) { h.rules(strings.Replace(rules, "quorum: 1", "quorum: 2", 1)) }, "rules have changed"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, alice, bob)
			r := h.waits(alice, in)
			if err := h.answer(bob, r, true); err != nil {
				t.Fatal(err)
			}
			c.change(h)
			h.sweep()
			if list, _ := h.List(t.Context()); len(list) != 0 {
				t.Fatalf("issued: %+v", list)
			}
			now, _ := h.approvals.Find(t.Context(), r.Metadata.Name)
			if now.Status.Phase != "withdrawn" || !strings.Contains(now.Status.Reason, c.says) {
				t.Errorf("%+v", now.Status)
			}
			if _, err := h.request(alice, api.GrantRequest{Resume: r.Metadata.Name}); err == nil {
				t.Error("resumed")
			}
		})
	}
	t.Run("denied", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		r := h.waits(alice, in)
		if err := h.answer(bob, r, false); err != nil {
			t.Fatal(err)
		}
		h.sweep()
		if _, err := h.request(alice, api.GrantRequest{Resume: r.Metadata.Name}); reason(err) != api.ReasonDenied || !strings.Contains(err.Error(), "because") {
			t.Errorf("%v", err)
		}
	})
}

// The process dies between the use of an approval and the grant: whatever comes
// first after the restart, there is one grant, of the name that the request says.
func TestApprovedGrantSurvivesACrashInBetween(t *testing.T) {
	alice, bob := newPerson(t, "alice", "engineers"), newPerson(t, "bob", "approvers")
	h := newHouse(t, alice, bob)
	r := h.waits(alice, api.GrantRequest{Target: "prod", Reason: "incident 7"})
	if err := h.answer(bob, r, true); err != nil {
		t.Fatal(err)
	}
	h.evidence.on = func(e *api.Event) { // the last thing that the process writes is that the approval is used
		if e.Kind == api.EventGrant {
			h.evidence.broken.Store(true)
		}
	}
	if err := h.Sweep(t.Context()); err == nil {
		t.Fatal("the grant was issued")
	}
	used, _ := h.approvals.Find(t.Context(), r.Metadata.Name)
	if used.Status.Phase != "used" || used.Status.Grant == "" {
		t.Fatalf("%+v", used.Status)
	}
	if a, err := h.request(alice, api.GrantRequest{Resume: r.Metadata.Name}); err != nil || a.Request == nil {
		t.Errorf("resumed while it is owed: %+v, %v", a, err)
	}
	h.evidence.on = nil
	h.evidence.broken.Store(false)
	h.restart()
	for range 2 {
		h.sweep()
		list, _ := h.List(t.Context())
		if len(list) != 1 || list[0].Metadata.Name != used.Status.Grant {
			t.Fatalf("%+v", list)
		}
		h.restart()
	}
	if err := h.Revoke(t.Context(), bob.Principal, used.Status.Grant, ""); err != nil {
		t.Fatal(err)
	}
	h.restart()
	h.sweep()
	if _, err := h.Live(t.Context(), alice.Principal, "prod"); reason(err) != api.ReasonRevoked {
		t.Errorf("a revoked grant came back: %v", err)
	}
}

func TestExtend(t *testing.T) {
	alice, bob, mallory := newPerson(t, "alice", "engineers"), newPerson(t, "bob", "approvers"), newPerson(t, "mallory", "engineers")
	h := newHouse(t, alice, bob, mallory)
	g := h.granted(alice, api.GrantRequest{Target: "clinic", For: api.Duration(time.Hour)})
	more := api.GrantRequest{Extend: g.Metadata.Name, For: api.Duration(30 * time.Minute)}
	longer := h.granted(alice, more)
	if longer.Metadata.Name != g.Metadata.Name || longer.Status.Expires.Sub(h.clock()) != 90*time.Minute {
		t.Errorf("%+v", longer.Status)
	}
	h.granted(alice, more)
	if _, err := h.request(alice, more); reason(err) != api.ReasonDenied {
		t.Errorf("past what the rule allows: %v", err)
	}
	if _, err := h.request(mallory, more); reason(err) != api.ReasonNotFound {
		t.Errorf("T58 someone else's: %v", err)
	}
	h.restart()
	h.later(110 * time.Minute)
	h.sweep()
	if _, err := h.Live(t.Context(), alice.Principal, g.Metadata.Name); err != nil {
		t.Errorf("after the restart it has its old end: %v", err)
	}
	h.later(10 * time.Minute)
	if _, err := h.request(alice, more); reason(err) != api.ReasonNotFound {
		t.Errorf("after its end: %v", err)
	}

	// On prod the extension is asked for, and applied once.
	r := h.waits(alice, api.GrantRequest{Target: "prod", Reason: "incident 7", For: api.Duration(20 * time.Minute)})
	if err := h.answer(bob, r, true); err != nil {
		t.Fatal(err)
	}
	h.sweep()
	p, err := h.Live(t.Context(), alice.Principal, "prod")
	if err != nil {
		t.Fatal(err)
	}
	r2 := h.waits(alice, api.GrantRequest{Extend: p.Metadata.Name, For: api.Duration(10 * time.Minute)})
	if r2.Metadata.Name == r.Metadata.Name || r2.Spec.Grant != p.Metadata.Name {
		t.Fatalf("%+v", r2)
	}
	if err := h.answer(bob, r2, true); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.sweep()
		h.restart()
	}
	if now, err := h.Live(t.Context(), alice.Principal, "prod"); err != nil || now.Status.Expires.Sub(h.clock()) != 30*time.Minute || now.Metadata.Name != p.Metadata.Name {
		t.Errorf("%+v, %v", now.Status, err)
	}
}

// TestT56_GroupsRemoved: what policy would no longer allow ends, once the house
// knows of it.
func TestT56_GroupsRemoved(t *testing.T) {
	alice, ann, bob := newPerson(t, "alice", "engineers"), newPerson(t, "ann", "engineers"), newPerson(t, "bob", "approvers")
	h := newHouse(t, alice, ann, bob)
	h.granted(alice, api.GrantRequest{Target: "clinic"})
	kept := h.granted(ann, api.GrantRequest{Target: "clinic"})
	r := h.waits(ann, api.GrantRequest{Target: "prod", Reason: "incident 7"})
	if err := h.answer(bob, r, true); err != nil {
		t.Fatal(err)
	}
	h.sweep()
	if err := h.Recheck(t.Context()); err != nil || len(h.ended) != 0 {
		t.Fatalf("nothing changed, and %d grants ended: %v", len(h.ended), err)
	}
	h.groups(alice, "leavers")
	if err := h.Recheck(t.Context(), ann.ID()); err != nil || len(h.ended) != 0 {
		t.Fatalf("ann did not change, and %d grants ended: %v", len(h.ended), err)
	}
	if err := h.Recheck(t.Context(), alice.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Live(t.Context(), alice.Principal, "clinic"); reason(err) != api.ReasonRevoked || !strings.Contains(err.Error(), "policy") {
		t.Errorf("%v", err)
	}
	if _, err := h.Live(t.Context(), ann.Principal, kept.Metadata.Name); err != nil {
		t.Errorf("%v", err)
	}
	// A new policy set counts for grants that were issued under the old one.
	h.rules(strings.Replace(rules, `connect", resource);`, `connect", resource in Hoop::Label::"env=prod");`, 1))
	if err := h.Recheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Live(t.Context(), ann.Principal, "clinic"); reason(err) != api.ReasonRevoked {
		t.Errorf("%v", err)
	}
	if _, err := h.Live(t.Context(), ann.Principal, "prod"); err != nil {
		t.Errorf("an approved grant that is still allowed ended: %v", err)
	}
	h.mu.Lock()
	delete(h.people, ann.ID())
	h.mu.Unlock()
	if err := h.Recheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Live(t.Context(), ann.Principal, "prod"); reason(err) != api.ReasonRevoked {
		t.Errorf("of someone who is gone: %v", err)
	}
}

// Run needs no one to push it: it expires on time and issues what was approved.
func TestRun(t *testing.T) {
	alice, bob := newPerson(t, "alice", "engineers"), newPerson(t, "bob", "approvers")
	path := filepath.Join(t.TempDir(), "state.db")
	synctest.Test(t, func(t *testing.T) {
		h := &house{t: t, evidence: new(evidence), real: true, people: map[string]policy.Principal{alice.ID(): alice.Principal, bob.ID(): bob.Principal}, path: path}
		h.rules(rules)
		h.open()
		defer func() { h.store.Close() }()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { h.Run(ctx) })
		running.Go(func() { h.approvals.Run(ctx) })
		defer running.Wait()
		defer cancel()

		g := h.granted(alice, api.GrantRequest{Target: "clinic", For: api.Duration(90 * time.Second)})
		r := h.waits(alice, api.GrantRequest{Target: "prod", Reason: "incident 7"})
		synctest.Wait()
		if _, err := h.Live(t.Context(), alice.Principal, g.Metadata.Name); err != nil {
			t.Fatalf("it ended early: %v", err)
		}
		time.Sleep(90*time.Second + time.Second) // fake time: it passes when all are idle
		synctest.Wait()
		h.mu.Lock()
		ended := slices.Clone(h.ended)
		h.mu.Unlock()
		if len(ended) != 1 || ended[0].Grant.Metadata.Name != g.Metadata.Name {
			t.Fatalf("ended: %+v", ended)
		}
		changed := h.Changed()
		if err := h.answer(bob, r, true); err != nil {
			t.Fatal(err)
		}
		<-changed
		if _, err := h.Live(t.Context(), alice.Principal, "prod"); err != nil {
			t.Error(err)
		}
		expired := h.waits(alice, api.GrantRequest{Target: "prod", Reason: "another"})
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if now, _ := h.approvals.Find(t.Context(), expired.Metadata.Name); now.Status.Phase != "expired" {
			t.Errorf("%+v", now.Status)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	alice, bob := newPerson(t, "alice", "engineers"), newPerson(t, "bob", "approvers")
	h := newHouse(t, alice, bob)
	r := h.waits(alice, api.GrantRequest{Target: "prod", Reason: "incident 7"})
	if err := h.answer(bob, r, true); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var revoked atomic.Int64
	g := h.granted(alice, api.GrantRequest{Target: "clinic"})
	for range 8 {
		all.Go(func() {
			h.Sweep(t.Context())
			h.Live(t.Context(), alice.Principal, "clinic")
			h.List(t.Context())
			h.request(alice, api.GrantRequest{Extend: g.Metadata.Name, For: api.Duration(time.Minute)})
			if h.Revoke(t.Context(), bob.Principal, g.Metadata.Name, "") == nil {
				revoked.Add(1)
			}
		})
	}
	all.Wait()
	prod := 0
	list, _ := h.List(t.Context())
	for _, g := range list {
		if g.Spec.Target == "prod" {
			prod++
		}
	}
	if prod != 1 || revoked.Load() != 1 || len(h.evidence.of(api.EventGrant)) > 3 {
		t.Errorf("%d grants of one approval, %d revocations of one grant", prod, revoked.Load())
	}
	if _, err := h.Live(t.Context(), alice.Principal, g.Metadata.Name); reason(err) != api.ReasonRevoked {
		t.Errorf("%v", err)
	}
}

func BenchmarkLive(b *testing.B) {
	alice := newPerson(b, "alice", "engineers")
	h := newHouse(b, alice)
	g := h.granted(alice, api.GrantRequest{Target: "clinic"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Live(b.Context(), alice.Principal, g.Metadata.Name); err != nil {
			b.Fatal(err)
		}
	}
}
