package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
	"github.com/hoopctl/hoopctl/server/grant"
	"github.com/hoopctl/hoopctl/server/identity"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/store"
	"github.com/hoopctl/hoopctl/server/target"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

// openIdentity makes the authorities and the room that knows who.
func (s *Server) openIdentity() error {
	ca, err := identity.OpenCA(identity.CAConfig{Dir: s.cfg.Keys, Name: s.cfg.Name, Names: s.cfg.TLS.Names, CertFile: s.cfg.TLS.CertFile, KeyFile: s.cfg.TLS.KeyFile, Now: s.now})
	if err != nil {
		return err
	}
	s.ca = ca
	s.tls = ca.TLSConfig()
	s.tls.NextProtos = []string{tunnel.Protocol, "h2", "http/1.1"}
	// Applications that insist on TLS get it, inside the tunnel too; who the
	// client is has been proved outside of it.
	s.localTLS = ca.TLSConfig()
	s.localTLS.ClientAuth = tls.NoClientCert
	s.localTLS.NextProtos = []string{"postgresql"}
	s.localTLS.MinVersion = tls.VersionTLS12 // older libpq and JDBC
	s.nativeTLS = s.localTLS
	issuers := make([]identity.Issuer, len(s.cfg.Issuers))
	for i, c := range s.cfg.Issuers {
		issuers[i] = identity.Issuer{Name: c.Name, URL: c.URL, Kind: c.Kind, ClientID: c.ClientID, Audience: c.Audience, SubjectClaim: c.SubjectClaim,
			NameClaim: c.NameClaim, GroupsClaim: c.GroupsClaim, Match: c.Match, Scopes: c.Scopes, CAFile: c.CAFile}
	}
	s.identity, err = identity.New(context.Background(), identity.Config{CA: ca, Issuers: issuers, Store: s.store, Evidence: s.evidence, Now: s.now, Log: s.log, Ended: s.loginEnded,
		Service: func(issuer string, claims map[string]any) (string, policy.ServiceSpec, bool) {
			return s.resources.set().Service(issuer, claims)
		}})
	return err
}

// openGrants makes the rooms of grants and approvals: each knows the other by
// one small interface.
func (s *Server) openGrants() error {
	ctx := context.Background()
	var err error
	s.approvals, err = approval.New(ctx, approval.Config{Store: s.store, Evidence: s.evidence, MayAnswer: s.mayAnswer, Current: s.current, CheckText: s.masks.checkWords, Now: s.now, Log: s.log})
	if err != nil {
		return err
	}
	s.grants, err = grant.New(ctx, grant.Config{Store: s.store, Evidence: s.evidence, Approvals: s.approvals, Decide: s.decideGrant, Current: s.current,
		Ended: s.grantEnded, CheckText: s.masks.checkWords, Now: s.now, Log: s.log})
	return err
}

// current is a principal as its provider described it last.
func (s *Server) current(_ context.Context, id string) (policy.Principal, error) {
	return s.identity.Known(id)
}

// mayAnswer says whether a person may answer one question of a request.
func (s *Server) mayAnswer(ctx context.Context, who policy.Principal, r *api.Request, c api.Cure) error {
	set := s.resources.set()
	ref, _, _ := set.Target(r.Spec.Target)
	ok, why := set.MayAnswer(policy.Request{Principal: who, Action: policy.Approve, Target: ref, Owner: r.Spec.Principal, Object: r.Metadata.Name, ObjectKind: "request", Now: s.now(), SourceIP: approval.Source(ctx), Via: "api"},
		r.Spec.Chain, policy.Cure{Rule: c.Rule, Group: c.Group, Quorum: c.Quorum})
	if !ok {
		return errors.New(why)
	}
	return nil
}

// decideGrant asks the policy in force whether a grant may be had.
func (s *Server) decideGrant(_ context.Context, r policy.Request) (policy.GrantVerdict, error) {
	set := s.resources.set()
	ref, _, ok := set.Target(r.Target.Name)
	if !ok {
		return policy.GrantVerdict{}, notFound("target", r.Target.Name)
	}
	r.Target = ref
	return set.Grant(r), nil
}

// grantEnded ends the sessions that live by a grant: at once if it was revoked;
// if it expired, as soon as nothing runs in them, at the end of its grace at
// the latest.
func (s *Server) grantEnded(e grant.End) {
	name := e.Grant.Metadata.Name
	under := func(l *live) bool { return l.grant == name }
	why := &session.Refusal{Code: session.CodeRevoked, Message: fmt.Sprintf("grant %s expired", name), Hint: "hoopctl connect asks for a new one", Fatal: true}
	if e.Phase == grant.Revoked {
		why.Message, why.Detail = fmt.Sprintf("grant %s was revoked by %s", name, e.By), e.Reason
	}
	if e.Phase == grant.Revoked || e.Grace <= 0 {
		s.registry.endAll(under, why)
		return
	}
	for _, l := range s.registry.list(under) {
		l.WhenIdle(func() { l.end(why) })
	}
	time.AfterFunc(e.Grace, func() { s.registry.endAll(under, why) })
}

func (s *Server) openTargets() error {
	s.targets = target.New(target.Config{SecretsDir: s.cfg.SecretsDir, Dev: s.cfg.Dev, Now: s.now, Log: s.log})
	s.targets.Reload(s.resources.all(policy.KindTarget))
	return nil
}

// sessionTarget joins a target to what a protocol asks of one.
type sessionTarget struct {
	*target.Target
	idle time.Duration // of the grant's rule; 0 is none
}

func (t sessionTarget) Login(ctx context.Context, again bool) (session.Credentials, error) {
	c, err := t.Target.Login(ctx, again)
	return session.Credentials(c), err
}

func (t sessionTarget) Info() session.TargetInfo {
	info := session.TargetInfo(t.Target.Info())
	if t.idle > 0 && (info.Idle == 0 || t.idle < info.Idle) {
		info.Idle = t.idle
	}
	return info
}

// grantRule is the rule that a grant was issued under, nil if none.
func (s *Server) grantRule(g api.Grant) *policy.GrantRuleSpec {
	rule, ok := s.resources.get(policy.KindGrantRule, g.Status.Rule)
	if !ok {
		return nil
	}
	return rule.Spec.(*policy.GrantRuleSpec)
}

// targetSpec is a target as its resource stood when a session opened.
type targetSpec struct {
	ref  policy.TargetRef
	spec *policy.TargetSpec
	info session.TargetInfo
}

// sessionTarget is the target of a grant, as it stands now. The grant's rule may
// end an idle session sooner than the target does.
func (s *Server) sessionTarget(g api.Grant) (session.Target, targetSpec, error) {
	name := g.Spec.Target
	ref, spec, ok := s.resources.set().Target(name)
	if !ok {
		return nil, targetSpec{}, notFound("target", name)
	}
	t, err := s.targets.Get(name)
	if err != nil {
		return nil, targetSpec{}, err
	}
	joined := sessionTarget{Target: t}
	if rule := s.grantRule(g); rule != nil && rule.Idle != nil {
		joined.idle = time.Duration(*rule.Idle)
	}
	return joined, targetSpec{ref: ref, spec: spec, info: joined.Info()}, nil
}

// baselines keeps what catalogues must remember beyond a restart.
type baselines struct{ store *store.Store }

func (b baselines) UpdateBaseline(ctx context.Context, key string, fn func([]byte) ([]byte, error)) error {
	return b.store.Update(ctx, "baseline", key, fn)
}

// loginEnded ends the sessions that came through forwards of the login. Those
// of the native endpoint live by their grant.
func (s *Server) loginEnded(e identity.Ended) {
	why := &session.Refusal{Code: session.CodeLost, Message: e.Reason, Hint: "run hoopctl login; the forward goes on afterwards", Fatal: true}
	if e.Final {
		why.Code = session.CodeRevoked
	}
	s.registry.endAll(func(l *live) bool { return l.login == e.Login && l.via == "forward" }, why)
}

// writeCA puts the CA that clients pin where they can find it, and returns the
// file's name.
func (s *Server) writeCA() (string, error) {
	pem := s.ca.PEM()
	if pem == nil {
		return "", nil
	}
	file := filepath.Join(s.cfg.Keys, "ca.pem")
	if err := os.WriteFile(file, pem, 0o644); err != nil {
		return "", fmt.Errorf("write the CA's certificate: %w", err)
	}
	return file, nil
}
