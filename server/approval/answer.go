package approval

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// Answer takes one person's signed answer. cert is the certificate of the login
// that the call came with: its key must have signed. One no from anyone who may
// answer denies the whole request; it is approved when every cure has a yes
// from as many different people as its quorum says.
//
// It returns the request as it stands afterwards, as that person may see it.
func (r *Room) Answer(ctx context.Context, who policy.Principal, cert *x509.Certificate, name string, a api.Answer) (api.Request, error) {
	q := r.find(name)
	if q == nil {
		return api.Request{}, r.goneFor(ctx, who, name)
	}
	q.step.Lock()
	defer q.step.Unlock()
	rec := q.now.Load()
	cures, err := r.check(ctx, who, cert, rec, &a)
	if err != nil {
		r.refused(who, rec, err)
		return api.Request{}, err
	}
	next := rec.clone()
	given := r.approval(who, cert, rec, cures, &a)
	given.Source = sourceText(ctx)
	next.Status.Answers = append(next.Status.Answers, given)
	ticket, err := r.cfg.Evidence.Append(answering(rec, &given))
	if err != nil {
		return api.Request{}, unrecorded(err)
	}
	next.count(who, cures, &a)
	if next.Status.Phase == Pending {
		err = r.counted(ctx, q, next, ticket)
	} else {
		err = r.settle(ctx, q, next) // its leaf comes after the answer's: when it is durable, so is that
	}
	if err != nil {
		return api.Request{}, err
	}
	return r.view(ctx, who, q.now.Load()), nil
}

// counted keeps an answer after which the request still waits for others.
func (r *Room) counted(ctx context.Context, q *request, next *record, ticket uint64) error {
	if err := r.cfg.Evidence.Wait(ctx, ticket); err != nil {
		return unrecorded(err)
	}
	if err := r.put(ctx, next); err != nil {
		return err
	}
	r.replace(q, next)
	return nil
}

// count adds the answer to what each cure has, and decides the phase.
func (rec *record) count(who policy.Principal, cures []int, a *api.Answer) {
	if !a.Approve {
		rec.Status.Phase, rec.Status.Reason = Denied, who.Name+" said no"
		if a.Reason != "" {
			rec.Status.Reason += ": " + a.Reason
		}
		return
	}
	for _, i := range cures {
		rec.By[i] = append(rec.By[i], who.ID())
	}
	for i, c := range rec.Spec.Cures {
		if len(rec.By[i]) < c.Quorum {
			return
		}
	}
	rec.Status.Phase = Approved
}

// check returns the indices of the cures that the answer counts for. The order
// of the checks is the order in which they may tell a stranger something.
func (r *Room) check(ctx context.Context, who policy.Principal, cert *x509.Certificate, rec *record, a *api.Answer) ([]int, error) {
	name := rec.Metadata.Name
	cures, err := r.answers(ctx, who, rec, a.Cures)
	if err != nil {
		return nil, err
	}
	if rec.Status.Phase != Pending {
		return nil, conflict(name, rec)
	}
	if !r.cfg.Now().Before(rec.Status.Expires) {
		return nil, ended(name, Expired, "")
	}
	if a.Digest != rec.Spec.Digest {
		return nil, refuse(api.ReasonConflict, "the answer is to something else than request "+name+" asks", "look at the request again")
	}
	if cert == nil {
		return nil, refuse(api.ReasonLoginNeeded, "an answer needs a login", "hoopctl login")
	}
	if err := a.Verify(name, cert.PublicKey); err != nil {
		return nil, refuse(api.ReasonDenied, "the answer to "+name+" is not signed by your login's key", "update hoopctl, or log in again")
	}
	if len(a.SSHSignature) > 0 {
		if _, err := api.VerifySSH(a.SSHSignature, a.SignedBytes(name)); err != nil {
			return nil, refuse(api.ReasonInvalid, err.Error(), "sign again, or leave --ssh-key out")
		}
	}
	if !a.Approve && strings.TrimSpace(a.Reason) == "" {
		return nil, refuse(api.ReasonInvalid, "a no needs a reason", "add --reason")
	}
	if err := r.words(a.Reason); err != nil {
		return nil, err
	}
	if !a.Approve {
		return cures, nil
	}
	open := slices.DeleteFunc(slices.Clone(cures), func(i int) bool { return slices.Contains(rec.By[i], who.ID()) })
	if len(open) == 0 {
		return nil, refuse(api.ReasonConflict, "you have answered request "+name+" already", "others must answer now")
	}
	return open, nil
}

// conflict is said to who answers a request that is decided.
func conflict(name string, rec *record) error {
	e := ended(name, rec.Status.Phase, "")
	e.Reason, e.Code, e.Hint = api.ReasonConflict, 409, "there is nothing left to answer"
	return e
}

// answers lists the cures that who may answer; only those of rules, if rules
// are named, and then each named one must be among them.
func (r *Room) answers(ctx context.Context, who policy.Principal, rec *record, rules []string) ([]int, error) {
	var may []int
	var whyNot error
	named := map[string]bool{}
	for _, rule := range rules {
		named[rule] = false
	}
	for i, c := range rec.Spec.Cures {
		if _, ok := named[c.Rule]; len(rules) > 0 && !ok {
			continue
		}
		if err := r.mayAnswer(ctx, who, rec, c); err != nil {
			whyNot = err
			continue
		}
		may = append(may, i)
		named[c.Rule] = true
	}
	for rule, ok := range named {
		if !ok && len(may) > 0 {
			return nil, refuse(api.ReasonDenied, fmt.Sprintf("you may not answer rule %q of request %s", rule, rec.Metadata.Name), "answer those that you may")
		}
	}
	if len(may) == 0 && !r.sees(ctx, who, rec) {
		return nil, refuse(api.ReasonDenied, "you may not answer request "+rec.Metadata.Name, "ask someone who may")
	}
	if len(may) == 0 {
		if whyNot == nil {
			whyNot = errors.New("it asks nothing of that name")
		}
		return nil, refuse(api.ReasonDenied, "you may not answer request "+rec.Metadata.Name+": "+whyNot.Error(), "ask someone who may")
	}
	return may, nil
}

// mayAnswer is the one place that says who may answer one cure of a request.
func (r *Room) mayAnswer(ctx context.Context, who policy.Principal, rec *record, c api.Cure) error {
	switch {
	case who.Kind != policy.User || who.ActsFor != "":
		return errors.New("only people answer")
	case inChain(who, rec):
		return errors.New("nobody answers their own request")
	}
	return r.cfg.MayAnswer(ctx, who, &rec.Request, c)
}

// inChain reports whether who asked, or answers for who asked, or acts for
// them. Owners of services are named by people's names as well as by IDs; a
// namesake loses the right to answer rather than an owner gaining it.
func inChain(who policy.Principal, rec *record) bool {
	return slices.ContainsFunc(rec.Spec.Chain, func(id string) bool {
		return id != "" && (id == who.ID() || id == who.Name || id == who.ActsFor || id == who.Owner)
	})
}

func (r *Room) approval(who policy.Principal, cert *x509.Certificate, rec *record, cures []int, a *api.Answer) api.Approval {
	given := api.Approval{Principal: who.ID(), Name: who.Name, Approve: a.Approve, Reason: a.Reason, Time: r.cfg.Now().UTC(), Digest: a.Digest,
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		AllRules:    len(a.Cures) == 0, Salt: a.Salt, Signature: a.Signature, SSHSignature: a.SSHSignature}
	for _, i := range cures {
		c := rec.Spec.Cures[i]
		given.Groups, given.Rules = append(given.Groups, c.Group), append(given.Rules, c.Rule)
	}
	if !given.AllRules {
		given.Rules = slices.Clone(a.Cures) // as they were signed
	}
	slices.Sort(given.Groups)
	slices.Sort(given.Rules)
	given.Groups, given.Rules = slices.Compact(given.Groups), slices.Compact(given.Rules)
	return given
}

// answering is the leaf of one answer; api.VerifyApproval checks it.
func answering(rec *record, given *api.Approval) *api.Event {
	e := leaf(api.EventApproval, rec)
	e.Principal, e.Name, e.Groups, e.Rules = given.Principal, given.Name, given.Groups, given.Rules
	e.Verdict = "deny"
	if given.Approve {
		e.Verdict = "allow"
	}
	e.Commitment = api.ReasonCommitment(given.Salt, given.Reason)
	e.Signature = base64.StdEncoding.EncodeToString(given.Signature)
	e.Certificate = given.Certificate
	if block, _ := pem.Decode([]byte(given.Certificate)); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
			e.KeySHA256 = hex.EncodeToString(sum[:])
		}
	}
	if given.AllRules {
		e.Attrs = map[string]string{api.AttrAllRules: "true"}
	}
	if len(given.SSHSignature) > 0 {
		if e.Attrs == nil {
			e.Attrs = map[string]string{}
		}
		e.Attrs[api.AttrSSHSignature] = base64.StdEncoding.EncodeToString(given.SSHSignature)
	}
	return e
}

// refused leaves a trace of an answer that was not taken: whoever tries to
// approve their own request is seen. It changes nothing, so it is not waited for.
func (r *Room) refused(who policy.Principal, rec *record, why error) {
	var e *api.Error
	if !errors.As(why, &e) || e.Reason != api.ReasonDenied || !r.mayBeLoud(who.ID()) {
		return
	}
	ev := leaf(api.EventRefused, rec)
	ev.Principal, ev.Name, ev.Reason = who.ID(), who.Name, "approval: "+string(e.Reason)
	if _, err := r.cfg.Evidence.Append(ev); err != nil {
		r.cfg.Log.Error("approval: a refused answer was not recorded", "request", rec.Metadata.Name, "error", err)
	}
}

// mayBeLoud bounds how many leaves a principal can make by being refused: one
// principal's attempts come out of the same allowance as its requests.
func (r *Room) mayBeLoud(principal string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limiter(principal).AllowN(r.cfg.Now(), 1)
}

// goneFor answers who for a request that is no longer live.
func (r *Room) goneFor(ctx context.Context, who policy.Principal, name string) error {
	rec, err := r.past(ctx, name)
	if err != nil {
		return err
	}
	if !r.sees(ctx, who, rec) {
		return noRequest(name)
	}
	return conflict(name, rec)
}
