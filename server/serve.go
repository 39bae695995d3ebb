package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/tunnel"
)

// peer is who stands behind a connection that wants a session.
type peer struct {
	principal policy.Principal
	login     string
	grant     api.Grant
	source    netip.AddrPort
	via       string
}

// serveTunnel serves one tunnel connection: the certificate says who, the
// header line under which grant, and the forward's secret that it is the
// forward's own user who speaks.
func (s *Server) serveTunnel(ctx context.Context, c *tls.Conn) {
	p, hello, err := s.tunnelPeer(ctx, c)
	if err != nil {
		s.log.Info("tunnel refused", "source", addrOf(c), "error", err)
		tunnel.Reply(c, apiError(err))
		return
	}
	if err := tunnel.Reply(c, nil); err != nil {
		return
	}
	proto := s.postgres.Protocol()
	auth := forwardAuth{verifier: hello.Verifier, tls: s.localTLS, owner: p.login}
	accepted, err := s.acceptProtocol(ctx, proto, c, auth)
	if err != nil {
		return
	}
	s.serveSession(ctx, proto, p, accepted)
}

func (s *Server) tunnelPeer(ctx context.Context, c *tls.Conn) (peer, tunnel.Hello, error) {
	certs := c.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return peer{}, tunnel.Hello{}, errLogin
	}
	who, login, err := s.identity.Principal(certs[0])
	if err != nil {
		return peer{}, tunnel.Hello{}, err
	}
	hello, err := tunnel.Accept(ctx, c)
	if err != nil {
		return peer{}, tunnel.Hello{}, err
	}
	g, err := s.grants.Live(ctx, who, hello.Grant)
	if err != nil {
		s.refused(who, login, addrOf(c), "forward", err)
		return peer{}, tunnel.Hello{}, err
	}
	return peer{principal: who, login: login, grant: g, source: addrOf(c), via: "forward"}, hello, nil
}

// acceptProtocol bounds what happens before a client is known.
func (s *Server) acceptProtocol(ctx context.Context, proto session.Protocol, c net.Conn, auth session.Authenticator) (session.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	hello, err := proto.Accept(ctx, c, auth)
	if err != nil && !errors.Is(err, session.ErrHandled) {
		s.log.Info("client not accepted", "source", addrOf(c), "error", err)
	}
	return hello, err
}

// forwardAuth is what a protocol may know of a client behind a forward: mTLS
// has proved who it is, the forward's secret proves that the local process may
// use the forward.
type forwardAuth struct {
	verifier string
	tls      *tls.Config
	owner    string
}

func (a forwardAuth) Verifier(context.Context, string) (string, error) { return a.verifier, nil }
func (a forwardAuth) TLS() *tls.Config                                 { return a.tls }
func (a forwardAuth) RequireTLS() bool                                 { return false }
func (a forwardAuth) Owner() string                                    { return a.owner }

// serveSession runs one session from open to close.
func (s *Server) serveSession(ctx context.Context, proto session.Protocol, p peer, hello session.Hello) {
	t, spec, err := s.sessionTarget(p.grant)
	if err != nil {
		proto.Refuse(refusalOf(err))
		return
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	sess, release, err := s.openSession(ctx, p, hello, spec)
	if err != nil {
		proto.Refuse(refusalOf(err))
		return
	}
	name, _ := sess.Session()
	l := &live{Session: sess, name: name, principal: p.principal.ID(), login: p.login, grant: p.grant.Metadata.Name, target: p.grant.Spec.Target, via: p.via, end: end, gone: make(chan struct{})}
	s.registry.add(l)
	defer s.registry.remove(l)
	// It may have ended between the look-up and the entry into the registry.
	if r := s.liveness(p.principal, l.grant); r != nil {
		end(r)
	}
	err = proto.Serve(ctx, t, sess)
	s.closeSession(ctx, l, release, err)
}

// closeSession writes the session's last leaf; ctx may have ended.
func (s *Server) closeSession(ctx context.Context, l *live, release func() error, err error) {
	reason, by := "closed", ""
	var r *session.Refusal
	switch {
	case ctx.Err() != nil && errors.As(context.Cause(ctx), &r), errors.As(err, &r):
		reason, by = string(r.Code), r.Message
	case err != nil:
		reason, by = "lost", err.Error()
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := l.Close(flush, reason, by); err != nil {
		s.log.Error("session close not recorded", "session", l.name, "error", err)
	}
	if release != nil {
		if err := release(); err != nil {
			s.log.Error("recording not sealed", "session", l.name, "error", err)
		}
	}
	s.log.Info("session closed", "session", l.name, "reason", reason, "by", by)
}

// openSession makes the session and its recording; the returned function seals
// the recording.
func (s *Server) openSession(ctx context.Context, p peer, hello session.Hello, t targetSpec) (*session.Session, func() error, error) {
	n, err := s.store.Next(ctx, "session")
	if err != nil {
		return nil, nil, fmt.Errorf("number the session: %w", err)
	}
	name := fmt.Sprintf("s-%d", n)
	rec, head, err := s.record(name, p, t)
	if err != nil {
		return nil, nil, err
	}
	cfg := session.Config{Name: name, Principal: p.principal, Login: p.login, Target: t.ref, Grant: p.grant.Metadata.Name, Purpose: p.grant.Spec.Purpose, Ticket: p.grant.Spec.Ticket,
		Source: p.source, Via: p.via, Database: database(hello, t), App: hello.Application,
		Policy: func() session.Decider { return s.resources.set() }, Approver: asker{s}, Evidence: s.evidence, Head: head, Masks: s.masks,
		Budgets: s.budgets, Observed: func() bool { return s.observed(t.ref.Name) },
		Live:   func() *session.Refusal { return s.liveness(p.principal, p.grant.Metadata.Name) },
		Strict: t.spec.Evidence != "async", NoWait: noWait(p, hello, s.resources.service(p.principal)), Resume: hello.Settings["hoopctl.resume"],
		HoldInTransaction: t.info.HoldInTransaction, HoldMax: t.info.HoldMax, Now: s.now}
	if svc := s.resources.service(p.principal); p.principal.Kind == policy.Service {
		cfg.RefuseMasks = svc == nil || !svc.AcceptsMasked
		if svc != nil && svc.Hold != nil {
			cfg.HoldMax, cfg.HoldInTransaction = min(cfg.HoldMax, time.Duration(*svc.Hold)), min(cfg.HoldInTransaction, time.Duration(*svc.Hold))
		}
	}
	var release func() error
	if rec != nil {
		cfg.Recording, release = rec, rec.Close
	}
	sess, err := session.Open(ctx, cfg)
	if err != nil && release != nil {
		release()
	}
	return sess, release, err
}

func database(hello session.Hello, t targetSpec) string {
	if hello.Database == "" {
		return t.spec.Database
	}
	return hello.Database
}

// noWait says whether a hold refuses at once with the request's name: for
// clients that said so, and for services unless their Service gives them time.
func noWait(p peer, hello session.Hello, svc *policy.ServiceSpec) bool {
	if hello.Settings["hoopctl.wait"] == "off" {
		return true
	}
	if p.principal.Kind != policy.Service {
		return false
	}
	return svc == nil || svc.Hold == nil || *svc.Hold == 0
}

// liveness says why nothing new may start under a grant, nil if all is well.
func (s *Server) liveness(p policy.Principal, grant string) *session.Refusal {
	if r := s.health.Load(); r != nil {
		return r
	}
	if _, err := s.grants.Live(context.Background(), p, grant); err != nil {
		return refusalOf(err)
	}
	return nil
}

// refused records that a known principal was refused before a session began.
func (s *Server) refused(who policy.Principal, login string, source netip.AddrPort, via string, err error) {
	e := api.Event{Kind: api.EventRefused, Principal: who.ID(), Name: who.Name, Login: login, Source: source.String(), Via: via, Reason: string(apiError(err).Reason)}
	if _, err := s.evidence.Append(&e); err != nil {
		s.log.Error("refusal not recorded", "error", err)
	}
}
