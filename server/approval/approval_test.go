package approval_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
	"github.com/hoopctl/hoopctl/server/store"
)

// evidence stands in for the log: it keeps leaves in memory, and fails when told to.
type evidence struct {
	mu     sync.Mutex
	leaves []api.Event
	broken atomic.Bool
}

var errDisk = errors.New("no space left on device")

func (e *evidence) Append(ev *api.Event) (uint64, error) {
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

// person is a login: a principal and a key with its certificate.
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

// house is a room on a real store, with a clock that stands still.
type house struct {
	*approval.Room
	t        testing.TB
	evidence *evidence
	store    *store.Store
	path     string

	mu     sync.Mutex
	now    time.Time
	people map[string]policy.Principal // as the house knows them now
	config func(*approval.Config)
}

func newHouse(t testing.TB, people ...person) *house {
	h := &house{t: t, evidence: new(evidence), now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), people: map[string]policy.Principal{},
		path: filepath.Join(t.TempDir(), "state.db")}
	for _, p := range people {
		h.people[p.ID()] = p.Principal
	}
	h.open()
	t.Cleanup(func() { h.store.Close() })
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.store, err = store.Open("sqlite:"+h.path, store.WithClock(h.clock)); err != nil {
		h.t.Fatal(err)
	}
	cfg := approval.Config{Store: h.store, Evidence: h.evidence, Current: h.current, Now: h.clock,
		MayAnswer: func(_ context.Context, who policy.Principal, _ *api.Request, c api.Cure) error {
			if !who.In(c.Group) {
				return fmt.Errorf("only members of %s may", c.Group)
			}
			return nil
		}}
	if h.config != nil {
		h.config(&cfg)
	}
	if h.Room, err = approval.New(h.t.Context(), cfg); err != nil {
		h.t.Fatal(err)
	}
}

// restart is what a new process finds.
func (h *house) restart() {
	h.t.Helper()
	if err := h.store.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
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

func (h *house) leaves(p person, groups ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.Groups = groups
	h.people[p.ID()] = p.Principal
}

func cure(rule, group string, quorum int) api.Cure {
	return api.Cure{Rule: rule, Group: group, Quorum: quorum}
}

func statement(who person, sql string, cures ...api.Cure) approval.Question {
	return approval.Question{Spec: api.RequestSpec{Kind: approval.KindStatement, Principal: who.ID(), Name: who.Name, Chain: []string{who.ID()}, Target: "clinic", Session: "s-1",
		Statement: sql, Digest: "sha256:binding", Facts: &policy.Facts{Kind: "DELETE", Class: policy.Write, Shape: "DELETE FROM patients WHERE ssn = ?"}, Cures: cures}}
}

func (h *house) opened(q approval.Question) api.Request {
	h.t.Helper()
	r, err := h.Open(h.t.Context(), q.Spec, q.Expires)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *house) answer(p person, r api.Request, approve bool, reason string, rules ...string) (api.Request, error) {
	h.t.Helper()
	a := api.Answer{Approve: approve, Reason: reason, Cures: rules, Digest: r.Spec.Digest}
	if err := a.Sign(r.Metadata.Name, p.key); err != nil {
		h.t.Fatal(err)
	}
	who, err := h.current(h.t.Context(), p.ID())
	if err != nil {
		who = p.Principal
	}
	return h.Answer(h.t.Context(), who, p.cert, r.Metadata.Name, a)
}

func reason(err error) api.Reason {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// The life of a request, as a table: what is done to it, and how it stands then.
func TestStateMachine(t *testing.T) {
	alice, bob, dan, carol := newPerson(t, "alice", "engineers"), newPerson(t, "bob", "dba", "approvers"), newPerson(t, "dan", "dba"), newPerson(t, "carol", "clinicians")
	yes := func(p person, rules ...string) func(*house, api.Request) error {
		return func(h *house, r api.Request) error { _, err := h.answer(p, r, true, "", rules...); return err }
	}
	no := func(p person) func(*house, api.Request) error {
		return func(h *house, r api.Request) error { _, err := h.answer(p, r, false, "not today"); return err }
	}
	use := func(h *house, r api.Request) error {
		_, err := h.Use(h.t.Context(), r.Metadata.Name, r.Spec.Digest, "")
		return err
	}
	withdraw := func(p person) func(*house, api.Request) error {
		return func(h *house, r api.Request) error {
			return h.Withdraw(h.t.Context(), p.Principal, r.Metadata.Name)
		}
	}
	late := func(h *house, r api.Request) error { h.later(16 * time.Minute); return nil }
	sweep := func(h *house, r api.Request) error { return h.Sweep(h.t.Context()) }
	type step struct {
		do    func(*house, api.Request) error
		fails api.Reason
		phase string
	}
	two, both := []api.Cure{cure("no-where", "dba", 2)}, []api.Cure{cure("no-where", "dba", 1), cure("bulk", "approvers", 1)}
	for name, c := range map[string]struct {
		cures []api.Cure
		steps []step
	}{
		"one yes suffices":                   {nil, []step{{yes(bob), "", "approved"}, {use, "", "used"}, {use, api.ReasonConflict, "used"}}},
		"used before it is approved":         {nil, []step{{use, api.ReasonPending, "pending"}}},
		"denied is final":                    {nil, []step{{no(bob), "", "denied"}, {yes(dan), api.ReasonConflict, "denied"}, {use, api.ReasonDenied, "denied"}}},
		"approved cannot be denied":          {nil, []step{{yes(bob), "", "approved"}, {no(dan), api.ReasonConflict, "approved"}}},
		"approved can be withdrawn":          {nil, []step{{yes(bob), "", "approved"}, {withdraw(alice), "", "withdrawn"}, {use, api.ReasonWithdrawn, "withdrawn"}}},
		"quorum of two":                      {two, []step{{yes(bob), "", "pending"}, {use, api.ReasonPending, "pending"}, {yes(dan), "", "approved"}, {use, "", "used"}}},
		"one person is no quorum":            {two, []step{{yes(bob), "", "pending"}, {yes(bob), api.ReasonConflict, "pending"}}},
		"one no ends a quorum":               {two, []step{{yes(bob), "", "pending"}, {no(dan), "", "denied"}}},
		"who said yes may still say no":      {two, []step{{yes(bob), "", "pending"}, {no(bob), "", "denied"}}},
		"every cure must be answered":        {both, []step{{yes(dan), "", "pending"}, {use, api.ReasonPending, "pending"}, {yes(bob), "", "approved"}}},
		"one person of both groups":          {both, []step{{yes(bob), "", "approved"}}},
		"one rule at a time":                 {both, []step{{yes(bob, "bulk"), "", "pending"}, {yes(bob, "no-where"), "", "approved"}}},
		"a rule that is not asked":           {both, []step{{yes(bob, "nonsense"), api.ReasonDenied, "pending"}}},
		"a rule of another group":            {both, []step{{yes(dan, "no-where", "bulk"), api.ReasonDenied, "pending"}}},
		"expires while it waits":             {nil, []step{{late, "", "pending"}, {yes(bob), api.ReasonExpired, "pending"}, {sweep, "", "expired"}, {use, api.ReasonExpired, "expired"}}},
		"expires after it was approved":      {nil, []step{{yes(bob), "", "approved"}, {late, "", "approved"}, {use, api.ReasonExpired, "approved"}, {sweep, "", "expired"}}},
		"withdrawn by who asked":             {nil, []step{{withdraw(alice), "", "withdrawn"}, {yes(bob), api.ReasonConflict, "withdrawn"}, {withdraw(alice), api.ReasonWithdrawn, "withdrawn"}}},
		"withdrawn by an approver":           {nil, []step{{withdraw(bob), api.ReasonDenied, "pending"}}},
		"withdrawn by a stranger":            {nil, []step{{withdraw(carol), api.ReasonNotFound, "pending"}}},
		"answered by a stranger":             {nil, []step{{yes(carol), api.ReasonDenied, "pending"}, {no(carol), api.ReasonDenied, "pending"}}},
		"T63 answered by who asked":          {nil, []step{{yes(alice), api.ReasonDenied, "pending"}, {no(alice), api.ReasonDenied, "pending"}}},
		"a no without a reason is no answer": {nil, []step{{func(h *house, r api.Request) error { _, err := h.answer(bob, r, false, "  "); return err }, api.ReasonInvalid, "pending"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, alice, bob, dan, carol)
			if c.cures == nil {
				c.cures = []api.Cure{cure("no-where", "dba", 1)}
			}
			r := h.opened(statement(alice, "DELETE FROM patients", c.cures...))
			for i, s := range c.steps {
				if err := s.do(h, r); reason(err) != s.fails || (err == nil) != (s.fails == "") {
					t.Fatalf("step %d: %v, want %q", i+1, err, s.fails)
				}
				for range 2 { // it stands so, and stands so for a new process too
					if now, err := h.Find(t.Context(), r.Metadata.Name); err != nil || now.Status.Phase != s.phase {
						t.Fatalf("step %d: %s, %v; want %s", i+1, now.Status.Phase, err, s.phase)
					}
					if i == len(c.steps)-1 && s.phase != "pending" && s.phase != "approved" {
						h.restart()
					}
				}
			}
		})
	}
}

func TestEvidenceOfARequest(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob", "dba")
	h := newHouse(t, alice, bob)
	r := h.opened(statement(alice, "DELETE FROM patients WHERE ssn = '123-45-6789'", cure("no-where", "dba", 1)))
	if _, err := h.answer(bob, r, true, "agreed with the ward"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, ""); err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, e := range h.evidence.leaves {
		story = append(story, strings.TrimSpace(e.Kind+" "+e.Name+" "+e.Verdict+e.Status))
		if s := fmt.Sprintf("%+v", e); strings.Contains(s, "123-45") || strings.Contains(s, "ward") {
			t.Errorf("the timeline holds a value or a person's words: %s", s)
		}
		if e.Digest != r.Spec.Digest {
			t.Errorf("%s is bound to %s", e.Kind, e.Digest)
		}
	}
	want := []string{"request alice", "approval bob allow", "request.end alice approved", "request.end alice used"}
	if !slices.Equal(story, want) {
		t.Errorf("the story is %q, want %q", story, want)
	}
	cert, err := api.VerifyApproval(&h.evidence.of(api.EventApproval)[0])
	if err != nil || !cert.Equal(bob.cert) {
		t.Errorf("the leaf of the answer does not prove bob's: %v", err)
	}
}

// Nothing opens a door that could not be recorded.
func TestBrokenEvidence(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob", "dba")
	h := newHouse(t, alice, bob)
	q := statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1))
	h.evidence.broken.Store(true)
	if _, err := h.Open(t.Context(), q.Spec, 0); reason(err) != api.ReasonEvidence || !errors.Is(err, errDisk) {
		t.Errorf("asked: %v", err)
	}
	h.evidence.broken.Store(false)
	r := h.opened(q)
	phase := func(want string) {
		t.Helper()
		if now, _ := h.Find(t.Context(), r.Metadata.Name); now.Status.Phase != want {
			t.Errorf("it is %s, want %s", now.Status.Phase, want)
		}
	}
	h.evidence.broken.Store(true)
	if _, err := h.answer(bob, r, true, ""); reason(err) != api.ReasonEvidence {
		t.Errorf("answered: %v", err)
	}
	phase("pending")
	h.evidence.broken.Store(false)
	if _, err := h.answer(bob, r, true, ""); err != nil {
		t.Fatalf("after it healed: %v", err)
	}
	h.evidence.broken.Store(true)
	if _, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, ""); reason(err) != api.ReasonEvidence {
		t.Errorf("used: %v", err)
	}
	phase("approved")
	// Closing a door does not wait for the disk.
	if err := h.Withdraw(t.Context(), alice.Principal, r.Metadata.Name); reason(err) != api.ReasonEvidence {
		t.Errorf("withdrawn: %v", err)
	}
	h.evidence.broken.Store(false)
	if _, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, ""); reason(err) != api.ReasonWithdrawn {
		t.Errorf("used after it was withdrawn: %v", err)
	}
}

func TestT36_ApprovalIsOfWhatWasShownAndOfNothingElse(t *testing.T) {
	alice, bob, mallory := newPerson(t, "alice"), newPerson(t, "bob", "dba"), newPerson(t, "mallory")
	h := newHouse(t, alice, bob, mallory)
	ask := func(change func(*api.RequestSpec)) api.Request {
		q := statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1))
		q.Spec.Params = []string{"1"}
		if change != nil {
			change(&q.Spec)
		}
		return h.opened(q)
	}
	r := ask(nil)

	t.Run("T36 an answer to another question", func(t *testing.T) {
		other := ask(func(s *api.RequestSpec) { s.Statement = "DELETE FROM visits" })
		swapped := r
		swapped.Metadata.Name = other.Metadata.Name
		if _, err := h.answer(bob, swapped, true, ""); reason(err) != api.ReasonConflict {
			t.Errorf("%v", err)
		}
	})
	t.Run("T36 an answer replayed on another request", func(t *testing.T) {
		other := ask(func(s *api.RequestSpec) { s.Statement = "DELETE FROM claims" })
		a := api.Answer{Approve: true, Digest: other.Spec.Digest}
		if err := a.Sign(r.Metadata.Name, bob.key); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Answer(t.Context(), bob.Principal, bob.cert, other.Metadata.Name, a); reason(err) != api.ReasonDenied {
			t.Errorf("%v", err)
		}
	})
	t.Run("T63 an answer signed by another key", func(t *testing.T) {
		a := api.Answer{Approve: true, Digest: r.Spec.Digest}
		if err := a.Sign(r.Metadata.Name, mallory.key); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Answer(t.Context(), bob.Principal, bob.cert, r.Metadata.Name, a); reason(err) != api.ReasonDenied {
			t.Errorf("%v", err)
		}
		if _, err := h.Answer(t.Context(), bob.Principal, nil, r.Metadata.Name, a); reason(err) != api.ReasonLoginNeeded {
			t.Errorf("without a certificate: %v", err)
		}
	})
	if _, err := h.answer(bob, r, true, ""); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*api.RequestSpec){
		"T36 other bytes":           func(s *api.RequestSpec) { s.Statement = "DELETE FROM  patients" },
		"T36 other parameters":      func(s *api.RequestSpec) { s.Params = []string{"2"} },
		"T36 another schema":        func(s *api.RequestSpec) { s.Digest = "sha256:other-oids" },
		"T36 another target":        func(s *api.RequestSpec) { s.Target = "clinic-prod" },
		"T36 someone else's":        func(s *api.RequestSpec) { s.Principal, s.Name, s.Chain = mallory.ID(), "mallory", nil },
		"T36 another quorum":        func(s *api.RequestSpec) { s.Cures = []api.Cure{cure("no-where", "dba", 2)} },
		"T36 for an assistant of's": func(s *api.RequestSpec) { s.Chain = append(s.Chain, "dev:erin") },
	} {
		t.Run(name, func(t *testing.T) {
			other := ask(change)
			if other.Metadata.Name == r.Metadata.Name {
				t.Fatal("it takes the approval of another question")
			}
			if _, err := h.Use(t.Context(), r.Metadata.Name, other.Spec.Digest, ""); reason(err) != api.ReasonConflict {
				t.Errorf("used for something else: %v", err)
			}
		})
	}
	if same := ask(nil); same.Metadata.Name != r.Metadata.Name || same.Status.Phase != approval.Approved {
		t.Errorf("the same question is %s, %s", same.Metadata.Name, same.Status.Phase)
	}
	if _, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, ""); err != nil {
		t.Fatal(err)
	}
	t.Run("T36 sent twice", func(t *testing.T) {
		if _, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, ""); reason(err) != api.ReasonConflict {
			t.Errorf("%v", err)
		}
		if again := ask(nil); again.Metadata.Name == r.Metadata.Name || again.Status.Phase != approval.Pending {
			t.Errorf("the same again needs no answer: %s %s", again.Metadata.Name, again.Status.Phase)
		}
	})
}

// Who left the group between approval and run does not count.
func TestT36_ApproverWhoLeft(t *testing.T) {
	alice, bob, dan := newPerson(t, "alice"), newPerson(t, "bob", "dba"), newPerson(t, "dan", "dba")
	for name, leave := range map[string]func(*house){
		"left the group": func(h *house) { h.leaves(bob) },
		"is gone":        func(h *house) { h.mu.Lock(); delete(h.people, bob.ID()); h.mu.Unlock() },
	} {
		t.Run("T56 "+name, func(t *testing.T) {
			h := newHouse(t, alice, bob, dan)
			r := h.opened(statement(alice, "DELETE FROM patients", cure("no-where", "dba", 2)))
			for _, p := range []person{bob, dan} {
				if _, err := h.answer(p, r, true, ""); err != nil {
					t.Fatal(err)
				}
			}
			leave(h)
			_, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, "")
			if reason(err) != api.ReasonWithdrawn || !strings.Contains(err.Error(), "bob") {
				t.Errorf("%v", err)
			}
			if now, _ := h.Find(t.Context(), r.Metadata.Name); now.Status.Phase != approval.Withdrawn {
				t.Errorf("it is %s", now.Status.Phase)
			}
		})
	}
}

func TestT63_NobodyAnswersTheirOwn(t *testing.T) {
	erin, bob := newPerson(t, "erin", "dba"), newPerson(t, "bob", "dba")
	service := newPerson(t, "billing", "dba")
	service.Kind, service.Owner = policy.Service, "erin"
	assistant := newPerson(t, "copilot", "dba")
	assistant.ActsFor = erin.ID()
	double := newPerson(t, "erin", "dba")
	double.Issuer = "other"
	for name, c := range map[string]struct {
		chain []string
		who   person
	}{
		"who asked":                      {nil, service},
		"the owner by name":              {[]string{"erin"}, erin},
		"the owner by ID":                {[]string{erin.ID()}, erin},
		"a namesake of the owner":        {[]string{"erin"}, double},
		"a service of the owner":         {[]string{erin.ID()}, service},
		"an assistant of who asked":      {[]string{erin.ID()}, assistant},
		"a service, whoever asked":       {nil, service},
		"an assistant, whoever asked":    {nil, assistant},
		"a service named like the owner": {[]string{"billing"}, service},
	} {
		t.Run("T63 "+name, func(t *testing.T) {
			h := newHouse(t, erin, bob, service, assistant, double)
			q := statement(service, "DELETE FROM claims", cure("no-where", "dba", 1))
			if strings.Contains(name, "whoever") {
				q = statement(bob, "DELETE FROM claims", cure("no-where", "dba", 1))
			}
			q.Spec.Chain = append(q.Spec.Chain, c.chain...)
			r := h.opened(q)
			if _, err := h.answer(c.who, r, true, ""); reason(err) != api.ReasonDenied {
				t.Errorf("%v", err)
			}
			if shown, err := h.Get(t.Context(), c.who.Principal, r.Metadata.Name, true); err != nil || shown.Status.MayAnswer || shown.Status.WhyNot == "" {
				t.Errorf("shown as answerable: %+v, %v", shown.Status, err)
			}
			if refused := h.evidence.of(api.EventRefused); len(refused) != 1 || refused[0].Principal != c.who.ID() {
				t.Errorf("the attempt left %d leaves", len(refused))
			}
		})
	}
}

// An approver learns what they answer; an auditor that there is something; others nothing.
func TestWhoSeesWhat(t *testing.T) {
	alice, bob, dave, carol := newPerson(t, "alice"), newPerson(t, "bob", "dba"), newPerson(t, "dave", "auditors"), newPerson(t, "carol")
	h := newHouse(t, alice, bob, dave, carol)
	q := statement(alice, "DELETE FROM patients WHERE ssn = '123-45-6789'", cure("no-where", "dba", 1))
	q.Spec.Params = []string{"123-45-6789"}
	r := h.opened(q)
	for _, c := range []struct {
		who              person
		all              bool
		sees, whole, may bool
	}{
		{alice, false, true, true, false}, {bob, false, true, true, true}, {dave, true, true, false, false}, {carol, false, false, false, false}, {dave, false, false, false, false},
	} {
		list, err := h.List(t.Context(), c.who.Principal, c.all)
		if err != nil || (len(list) == 1) != c.sees {
			t.Errorf("%s lists %d requests, %v", c.who.Name, len(list), err)
			continue
		}
		got, err := h.Get(t.Context(), c.who.Principal, r.Metadata.Name, c.all)
		if !c.sees {
			if reason(err) != api.ReasonNotFound {
				t.Errorf("%s gets it: %v", c.who.Name, err)
			}
			continue
		}
		if whole := got.Spec.Statement != "" && len(got.Spec.Params) == 1; whole != c.whole || list[0].Spec.Statement != got.Spec.Statement {
			t.Errorf("%s sees the statement: %v", c.who.Name, whole)
		}
		if got.Status.MayAnswer != c.may || (got.Status.WhyNot == "") != c.may {
			t.Errorf("%s: %+v", c.who.Name, got.Status)
		}
		if c.whole && api.RequestDigest(got.Spec) != got.Spec.Digest {
			t.Errorf("what %s is shown does not have the digest that they would sign", c.who.Name)
		}
	}
	if _, err := h.answer(bob, r, true, ""); err != nil {
		t.Fatal(err)
	}
	if got, _ := h.Get(t.Context(), bob.Principal, r.Metadata.Name, false); got.Status.MayAnswer {
		t.Error("a decided request is shown as answerable")
	}
}

// ask runs Ask beside the test and hands over the request once it is open.
func (h *house) ask(ctx context.Context, q approval.Question) (api.Request, <-chan error, <-chan approval.Answer) {
	h.t.Helper()
	open, done, answer := make(chan api.Request, 1), make(chan error, 1), make(chan approval.Answer, 1)
	go func() {
		a, err := h.Ask(ctx, q, func(r api.Request) { open <- r })
		answer <- a
		done <- err
	}()
	select {
	case r := <-open:
		return r, done, answer
	case err := <-done:
		h.t.Fatalf("Ask returned %v before it asked", err)
		panic("unreachable")
	}
}

func TestAsk(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob", "dba")
	q := statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1))
	t.Run("approved", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		r, done, answer := h.ask(t.Context(), q)
		if _, err := h.answer(bob, r, true, ""); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		a := <-answer
		if want := []api.EventApproved{{Request: r.Metadata.Name, By: bob.ID(), Rule: "no-where"}}; !slices.Equal(a.By, want) || a.Request.Status.Phase != approval.Used {
			t.Errorf("%+v", a)
		}
		if _, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, ""); reason(err) != api.ReasonConflict {
			t.Errorf("used again: %v", err)
		}
	})
	t.Run("denied with the reason", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		r, done, _ := h.ask(t.Context(), q)
		if _, err := h.answer(bob, r, false, "wrong table"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; reason(err) != api.ReasonDenied || !strings.Contains(err.Error(), "bob said no: wrong table") {
			t.Errorf("%v", err)
		}
	})
	t.Run("T37 withdrawn when who asked goes away", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		ctx, cancel := context.WithCancelCause(t.Context())
		r, done, _ := h.ask(ctx, q)
		gone := errors.New("client closed the connection")
		cancel(gone)
		if err := <-done; !errors.Is(err, gone) {
			t.Errorf("%v", err)
		}
		if _, err := h.answer(bob, r, true, ""); reason(err) != api.ReasonConflict {
			t.Errorf("answered afterwards: %v", err)
		}
		ends := h.evidence.of(api.EventRequestEnd)
		if len(ends) != 1 || ends[0].Status != approval.Withdrawn {
			t.Errorf("the evidence says %+v", ends)
		}
	})
	t.Run("expired", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		_, done, _ := h.ask(t.Context(), q)
		h.later(time.Hour)
		if err := h.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; reason(err) != api.ReasonExpired {
			t.Errorf("%v", err)
		}
	})
	t.Run("another session's waiting question is not shared", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		first, done, _ := h.ask(t.Context(), q)
		second, done2, _ := h.ask(t.Context(), q)
		if first.Metadata.Name == second.Metadata.Name || first.Spec.Digest == second.Spec.Digest {
			t.Fatal("two sessions wait for one answer")
		}
		for _, r := range []api.Request{first, second} {
			if _, err := h.answer(bob, r, true, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(<-done, <-done2); err != nil {
			t.Error(err)
		}
	})
	t.Run("not waited for, and resumed once", func(t *testing.T) {
		h := newHouse(t, alice, bob)
		detached := q
		detached.Detached = true
		_, err := h.Ask(t.Context(), detached, nil)
		var e *api.Error
		if !errors.As(err, &e) || e.Reason != api.ReasonPending || e.Request == "" {
			t.Fatalf("%v", err)
		}
		h.restart()
		r, err := h.Find(t.Context(), e.Request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.answer(bob, r, true, ""); err != nil {
			t.Fatal(err)
		}
		h.restart()
		later := q
		later.Spec.Session = "s-2"
		if a, err := h.Ask(t.Context(), later, func(api.Request) { t.Error("it asked again") }); err != nil || a.Request.Metadata.Name != e.Request {
			t.Fatalf("%+v, %v", a, err)
		}
		if _, err = h.Ask(t.Context(), detached, nil); reason(err) != api.ReasonPending {
			t.Errorf("resumed twice: %v", err)
		}
	})
}

// A question that is held dies with the process that held it; what nobody waits for lives.
func TestRestartWithdrawsWhatWasHeld(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob", "dba")
	h := newHouse(t, alice, bob)
	ctx, cancel := context.WithCancel(t.Context())
	held, done, _ := h.ask(ctx, statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1)))
	grantQ := statement(alice, "", cure("engineers", "dba", 1))
	grantQ.Spec.Kind = approval.KindGrant
	waits := h.opened(grantQ)
	// The process dies: nothing of it gets to write any more.
	h.evidence.broken.Store(true)
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	h.evidence.broken.Store(false)
	h.open()
	if r, err := h.Find(t.Context(), held.Metadata.Name); err != nil || r.Status.Phase != approval.Withdrawn || !strings.Contains(r.Status.Reason, "restarted") {
		t.Errorf("held: %+v, %v", r.Status, err)
	}
	if r, err := h.Find(t.Context(), waits.Metadata.Name); err != nil || r.Status.Phase != approval.Pending {
		t.Errorf("waits: %+v, %v", r.Status, err)
	}
	if _, err := h.answer(bob, waits, true, ""); err != nil {
		t.Error(err)
	}
}

// However many race to answer and to use, an approval is used at most once,
// never after a no, and never without its quorum.
// With Resume one request's answer is meant and no other: nothing else opens,
// nothing waits, and it runs what was approved, for whom, once.
func TestT36_ResumeIsOfOneRequestOnly(t *testing.T) {
	alice, carol, bob := newPerson(t, "alice"), newPerson(t, "carol"), newPerson(t, "bob", "dba")
	h := newHouse(t, alice, carol, bob)
	q := statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1))
	r := h.opened(q)
	resume := func(q approval.Question, name string) error {
		q.Resume = name
		_, err := h.Ask(t.Context(), q, func(api.Request) { t.Error("something was asked") })
		return err
	}
	if err := resume(q, r.Metadata.Name); reason(err) != api.ReasonPending {
		t.Errorf("before the answer: %v", err)
	}
	if _, err := h.answer(bob, r, true, ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		q    approval.Question
		r    string
		want api.Reason
	}{
		{"another statement", statement(alice, "DELETE FROM visits", cure("no-where", "dba", 1)), r.Metadata.Name, api.ReasonConflict},
		{"another rule", statement(alice, "DELETE FROM patients", cure("other", "dba", 1)), r.Metadata.Name, api.ReasonConflict},
		{"another's request", statement(carol, "DELETE FROM patients", cure("no-where", "dba", 1)), r.Metadata.Name, api.ReasonNotFound},
		{"no request", q, "r-99", api.ReasonNotFound},
	} {
		if err := resume(c.q, c.r); reason(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := resume(q, r.Metadata.Name); err != nil {
		t.Errorf("what was approved: %v", err)
	}
	if err := resume(q, r.Metadata.Name); reason(err) != api.ReasonConflict {
		t.Errorf("again: %v", err)
	}
	if live := len(h.evidence.of(api.EventRequest)); live != 1 {
		t.Errorf("%d requests were opened", live)
	}
}

func TestApprovalIsUsedAtMostOnce(t *testing.T) {
	alice := newPerson(t, "alice")
	var dbas []person
	for i := range 4 {
		dbas = append(dbas, newPerson(t, fmt.Sprint("dba", i), "dba"))
	}
	h := newHouse(t, append(dbas, alice)...)
	h.config = func(c *approval.Config) { c.PerMinute = 1000 }
	h.restart()
	for round := range 12 {
		r := h.opened(statement(alice, fmt.Sprint("DELETE FROM t", round), cure("no-where", "dba", 2)))
		var used, yes, no atomic.Int64
		var all sync.WaitGroup
		start := make(chan struct{})
		for i, p := range dbas {
			all.Go(func() {
				<-start
				approve := i > 0 || round%3 != 0
				if _, err := h.answer(p, r, approve, "because"); err == nil && approve {
					yes.Add(1)
				} else if err == nil {
					no.Add(1)
				}
			})
		}
		for range 4 {
			all.Go(func() {
				<-start
				for range 20 {
					_, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, "")
					if err == nil {
						used.Add(1)
					}
					if err == nil || reason(err) != api.ReasonPending {
						return
					}
				}
			})
		}
		close(start)
		all.Wait()
		_, err := h.Use(t.Context(), r.Metadata.Name, r.Spec.Digest, "")
		if err == nil {
			used.Add(1)
		}
		end, _ := h.Find(t.Context(), r.Metadata.Name)
		switch {
		case used.Load() > 1:
			t.Fatalf("round %d: used %d times", round, used.Load())
		case used.Load() == 1 && (yes.Load() < 2 || no.Load() > 0 || end.Status.Phase != approval.Used):
			t.Fatalf("round %d: used with %d yes, %d no, as %s", round, yes.Load(), no.Load(), end.Status.Phase)
		case used.Load() == 0 && no.Load() == 0:
			t.Fatalf("round %d: %d yes and nobody could use it: %s", round, yes.Load(), end.Status.Phase)
		}
		uses := 0
		for _, e := range h.evidence.of(api.EventRequestEnd) {
			if e.Request == r.Metadata.Name && e.Status == approval.Used {
				uses++
			}
		}
		if int64(uses) != used.Load() {
			t.Fatalf("round %d: used %d times, the evidence says %d", round, used.Load(), uses)
		}
	}
}

func TestSpamIsBounded(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob", "dba")
	h := newHouse(t, alice, bob)
	h.config = func(c *approval.Config) { c.MaxPending, c.PerMinute = 3, 5 }
	h.restart()
	ask := func(n int) error {
		_, err := h.Open(t.Context(), statement(alice, fmt.Sprint("DELETE FROM t", n), cure("no-where", "dba", 1)).Spec, 0)
		return err
	}
	for n := range 3 {
		if err := ask(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(3); reason(err) != api.ReasonTooMany {
		t.Errorf("a fourth waits: %v", err)
	}
	if err := ask(0); err != nil {
		t.Errorf("asking again what is open: %v", err)
	}
	list, _ := h.List(t.Context(), alice.Principal, false)
	for _, r := range list {
		if err := h.Withdraw(t.Context(), alice.Principal, r.Metadata.Name); err != nil {
			t.Fatal(err)
		}
	}
	var last error
	for n := range 5 {
		if last = ask(10 + n); last != nil {
			break
		}
		h.Withdraw(t.Context(), alice.Principal, fmt.Sprint("r-", 4+n))
	}
	if reason(last) != api.ReasonTooMany {
		t.Errorf("more than five a minute: %v", last)
	}
	h.later(time.Minute)
	if err := ask(99); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestWordsAreChecked(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob", "dba")
	h := newHouse(t, alice, bob)
	h.config = func(c *approval.Config) {
		c.CheckText = func(s string) error {
			if strings.Contains(s, "123-45-6789") {
				return errors.New("it holds what looks like an SSN")
			}
			return nil
		}
	}
	h.restart()
	r := h.opened(statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1)))
	for _, words := range []string{"for 123-45-6789", "\x1b]52;c;aGk=\x07", "\xff", strings.Repeat("x", 2000), "a\u202eb"} {
		if _, err := h.answer(bob, r, true, words); reason(err) != api.ReasonInvalid || strings.Contains(err.Error(), "6789") {
			t.Errorf("%q: %v", words, err)
		}
	}
	if _, err := h.answer(bob, r, true, "agreed.\nSee the ward's list, über"); err != nil {
		t.Error(err)
	}
}

func TestQuestionsThatNobodyCouldAnswer(t *testing.T) {
	alice := newPerson(t, "alice")
	h := newHouse(t, alice)
	good := statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1)).Spec
	for name, change := range map[string]func(*api.RequestSpec){
		"no cure":      func(s *api.RequestSpec) { s.Cures = nil },
		"no quorum":    func(s *api.RequestSpec) { s.Cures = []api.Cure{cure("no-where", "dba", 0)} },
		"no group":     func(s *api.RequestSpec) { s.Cures = []api.Cure{cure("no-where", "", 1)} },
		"no rule":      func(s *api.RequestSpec) { s.Cures = []api.Cure{cure("", "dba", 1)} },
		"no principal": func(s *api.RequestSpec) { s.Principal = "" },
		"no kind":      func(s *api.RequestSpec) { s.Kind = "" },
		"endless":      func(s *api.RequestSpec) { s.Statement = strings.Repeat("x", 2<<20) },
	} {
		spec := good
		change(&spec)
		if r, err := h.Open(t.Context(), spec, 0); err == nil {
			t.Errorf("%s: opened %s", name, r.Metadata.Name)
		}
	}
	if len(h.evidence.leaves) != 0 {
		t.Errorf("%d leaves", len(h.evidence.leaves))
	}
}

// Whatever a client sends as an answer, only what an approver's key signed, for
// this request as it was shown, moves it.
func FuzzAnswer(f *testing.F) {
	alice, bob := newPerson(f, "alice"), newPerson(f, "bob", "dba")
	h := newHouse(f, alice, bob)
	h.config = func(c *approval.Config) { c.PerMinute = 1 << 30 }
	h.restart()
	r := h.opened(statement(alice, "DELETE FROM patients", cure("no-where", "dba", 1)))
	digest, _ := json.Marshal(r.Spec.Digest)
	f.Add([]byte(`{"approve":true,"digest":` + string(digest) + `,"salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","signature":"MAYCAQECAQE="}`))
	f.Add([]byte(`{"approve":false,"reason":"no","cures":["no-where",""],"digest":"sha256:","signature":null}`))
	f.Add([]byte(`{"approve":true,"digest":null,"salt":"","signature":""}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a api.Answer
		if json.Unmarshal(b, &a) != nil {
			return
		}
		for _, digest := range []string{a.Digest, r.Spec.Digest} {
			a.Digest = digest
			if _, err := h.Answer(context.Background(), bob.Principal, bob.cert, r.Metadata.Name, a); err == nil {
				t.Errorf("%+v was taken", a)
			}
		}
		if now, _ := h.Find(context.Background(), r.Metadata.Name); now.Status.Phase != approval.Pending {
			t.Errorf("%+v made it %s", a, now.Status.Phase)
		}
	})
}
