package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/approval"
	"github.com/hoopctl/hoopctl/server/budget"
	"github.com/hoopctl/hoopctl/server/evidence"
	"github.com/hoopctl/hoopctl/server/grant"
	"github.com/hoopctl/hoopctl/server/identity"
	"github.com/hoopctl/hoopctl/server/parser"
	"github.com/hoopctl/hoopctl/server/postgres"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/store"
	"github.com/hoopctl/hoopctl/server/target"
)

const (
	// storeStale is how long the store may be unreadable before nothing new
	// may start, storeLost before what lives is ended.
	storeStale = 4 * time.Second
	storeLost  = 30 * time.Second
	// drainTime is what sessions get to say goodbye when the server stops.
	drainTime = 5 * time.Second
)

// Server is the whole house. New builds it, Run runs it once.
type Server struct {
	cfg       Config
	log       *slog.Logger
	now       func() time.Time
	store     *store.Store
	evidence  *evidence.Log
	ca        *identity.CA
	identity  *identity.Room
	grants    *grant.Room
	approvals *approval.Room
	targets   *target.Room
	parser    *parser.Pool
	postgres  *postgres.Room
	budgets   *budget.Ledger
	masks     *masks
	resources *resources
	registry  *registry
	tries     tries

	tls, nativeTLS, localTLS *tls.Config
	listener, native         net.Listener
	http                     *handed
	addresses                Addresses
	unfinished               handshakes

	health   atomic.Pointer[session.Refusal] // why nothing new may start, nil if all is well
	ready    chan struct{}
	running  context.Context
	stopping <-chan struct{}
	closers  []io.Closer // in the order of their opening
}

// New opens everything that can be opened without letting anyone in: state,
// evidence, keys, resources, listeners. What it has opened is closed again if
// it fails.
func New(cfg Config) (_ *Server, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log, now: cfg.Now, registry: newRegistry(), ready: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	steps := []struct {
		what string
		do   func() error
	}{
		{"evidence", s.openEvidence},
		{"store", s.openStore},
		{"resources", s.openResources},
		{"budgets", s.openBudgets},
		{"identity", s.openIdentity},
		{"grants", s.openGrants},
		{"targets", s.openTargets},
		{"parser", s.openParser},
		{"listeners", s.openListeners},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return s, nil
}

// own notes something to be closed when the server ends.
func (s *Server) own(c io.Closer) { s.closers = append(s.closers, c) }

func (s *Server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i].Close())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *Server) openEvidence() (err error) {
	if s.evidence, err = evidence.Open(s.cfg.evidence()); err == nil {
		s.own(s.evidence)
	}
	return err
}

func (s *Server) openStore() (err error) {
	if s.store, err = store.Open(s.cfg.Store, store.WithClock(s.now)); err == nil {
		s.own(s.store)
	}
	return err
}

// openResources puts the stored resources in force, and over them those of the
// configured folder: whoever owns the folder owns them.
func (s *Server) openResources() error {
	ctx := context.Background()
	s.resources = &resources{store: s.store}
	if err := s.resources.load(ctx); err != nil {
		return err
	}
	var err error
	if s.masks, err = openMasks(filepath.Join(s.cfg.Keys, "mask.key"), s.now); err != nil {
		return err
	}
	files := s.cfg.ResourceFiles
	if s.cfg.Resources != "" {
		more, err := readFolder(s.cfg.Resources)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	if len(files) == 0 {
		return nil
	}
	p, err := s.resources.planApply(api.Apply{Files: files, Prune: true})
	if err != nil {
		return err
	}
	by := policy.Principal{Kind: policy.Service, Issuer: "server", Subject: s.cfg.Name, Name: s.cfg.Name}
	return s.commit(ctx, by, p, agreed{}, nil)
}

func (s *Server) openParser() (err error) {
	if s.parser, err = parser.New(parser.Config{Command: s.cfg.ParserCommand, CacheDir: s.cfg.ParserCache, Log: s.log}); err == nil {
		s.own(s.parser)
	}
	return err
}

// openListeners binds the ports and makes the protocol rooms that need their addresses.
func (s *Server) openListeners() (err error) {
	if s.listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
		return listenError(s.cfg.Listen, "listen", err)
	}
	s.own(quiet{s.listener})
	s.addresses.API = s.listener.Addr().(*net.TCPAddr).AddrPort()
	if s.cfg.PostgresListen != "" {
		if s.native, err = net.Listen("tcp", s.cfg.PostgresListen); err != nil {
			return listenError(s.cfg.PostgresListen, "postgresListen", err)
		}
		s.own(quiet{s.native})
		s.addresses.Postgres = s.native.Addr().(*net.TCPAddr).AddrPort()
	}
	if s.cfg.ExternalURL == "" {
		s.cfg.ExternalURL = "https://" + s.addresses.API.String()
	}
	s.http = newHanded(s.listener.Addr())
	s.postgres = postgres.New(postgres.Config{Parser: s.parser, Roles: roleJournal{s.store}, Baselines: baselines{s.store}, Log: s.log, Now: s.now})
	return nil
}

// quiet closes a listener that may be closed already.
type quiet struct{ net.Listener }

func (q quiet) Close() error {
	if err := q.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func listenError(address, field string, err error) error {
	return fmt.Errorf("%s %s: %w (is another server running? choose another address with %s)", field, address, err, field)
}

// Ready is closed once everything answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addresses are what the server listens on, known since New.
func (s *Server) Addresses() Addresses { return s.addresses }

// CAFile is the file of the CA's certificate that clients pin; "" if the
// configured certificate is of another authority.
func (s *Server) CAFile() (string, error) { return s.writeCA() }

// Run serves until ctx ends, then drains: nothing new is let in, sessions are
// told why and get a few seconds, the evidence is closed last. It returns nil
// after an orderly end.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	run, stop := context.WithCancel(ctx)
	defer stop()
	s.running, s.stopping = run, run.Done()
	sessions, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	srv := &http.Server{Handler: s.api(), ReadHeaderTimeout: handshakeTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		TLSConfig: s.tls, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	g, gctx := errgroup.WithContext(run)
	g.Go(func() error { return accept(s.listener, func(c net.Conn) { s.route(sessions, c) }) })
	if s.native != nil {
		g.Go(func() error { return accept(s.native, func(c net.Conn) { s.serveNative(sessions, c) }) })
	}
	g.Go(func() error {
		if err := srv.Serve(s.http); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error { return s.identity.Run(gctx) })
	g.Go(func() error { return s.grants.Run(gctx) })
	g.Go(func() error { return s.approvals.Run(gctx) })
	g.Go(func() error { return s.runChanges(gctx) })
	g.Go(func() error { s.runRetention(gctx); return nil })
	g.Go(func() error { return s.reapRoles(gctx) })
	g.Go(func() error { s.runReviews(gctx); return nil })
	g.Go(func() error { s.watchStore(gctx); return nil })
	g.Go(func() error {
		<-gctx.Done()
		s.drain(srv, cut)
		return nil
	})
	if err := s.parser.Ready(run); err != nil {
		stop()
		return errors.Join(fmt.Errorf("the SQL parser did not start: %w", err), g.Wait())
	}
	s.log.Info("server ready", "api", s.addresses.API, "postgres", s.addresses.Postgres)
	close(s.ready)
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// drain ends what lives, in the order in which it may still need the rest.
func (s *Server) drain(srv *http.Server, cut context.CancelCauseFunc) {
	s.listener.Close()
	if s.native != nil {
		s.native.Close()
	}
	cut(&session.Refusal{Code: session.CodeRevoked, Message: "the server is shutting down", Hint: "connect again in a moment", Fatal: true})
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	s.registry.drain(ctx)
	if err := srv.Shutdown(ctx); err != nil {
		srv.Close()
	}
	s.http.Close()
}

// watchStore holds the lease that every grant is: a server that cannot read
// its store lets nothing new start after 4 s, and ends what lives at 30 s.
func (s *Server) watchStore(ctx context.Context) {
	last := time.Now()
	swept := last
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		check, cancel := context.WithTimeout(ctx, time.Second)
		err := s.store.Check(check)
		cancel()
		if err == nil {
			last = time.Now()
			s.health.Store(nil)
			if last.Sub(swept) > time.Minute {
				swept = last
				if err := s.sweepSecrets(ctx); err != nil {
					s.log.Error("expired secrets not swept", "error", err)
				}
				if err := s.budgets.Sweep(ctx); err != nil {
					s.log.Error("budgets not swept", "error", err)
				}
			}
			continue
		}
		s.unreadable(time.Since(last), err)
	}
}

func (s *Server) unreadable(since time.Duration, err error) {
	if since < storeStale {
		return
	}
	why := &session.Refusal{Code: session.CodeUnavailable, Message: "the broker cannot read its state", Hint: "nothing new starts until it can; tell whoever runs it", Fatal: true}
	s.health.Store(why)
	s.log.Error("store unreadable", "since", since, "error", err)
	if since >= storeLost {
		s.registry.endAll(func(*live) bool { return true }, why)
	}
}

// complete checks the configuration and fills its defaults in.
func (c *Config) complete() error {
	if c.Evidence.Dir == "" {
		return errors.New("evidence.dir is not set: nothing may run that cannot be recorded")
	}
	if c.Store == "" {
		return errors.New("store is not set: sqlite:PATH")
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8443"
	}
	if c.Keys == "" {
		c.Keys = filepath.Join(filepath.Dir(filepath.Clean(c.Evidence.Dir)), "keys")
	}
	if c.ParserCache == "" {
		c.ParserCache = filepath.Join(filepath.Dir(c.Keys), "parser-cache")
	}
	if c.PostgresPlaintext != "" && c.PostgresPlaintext != "loopback" {
		return fmt.Errorf("postgresPlaintext is %q: only loopback may be spoken to in plaintext", c.PostgresPlaintext)
	}
	if c.Name == "" {
		c.Name, _ = os.Hostname()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ParserCommand == nil {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program for the parser's child: %w", err)
		}
		c.ParserCommand = []string{exe, "__parse"}
	}
	if _, err := parseKeep(c.Evidence.Retention.Recordings); err != nil {
		return fmt.Errorf("evidence.retention.recordings: %w", err)
	}
	for i := range c.Issuers {
		if err := c.Issuers[i].complete(); err != nil {
			return fmt.Errorf("issuers[%d]: %w", i, err)
		}
	}
	return nil
}

func (i *IssuerConfig) complete() error {
	if i.Name == "" || i.URL == "" {
		return errors.New("name and url must be set")
	}
	switch i.Kind {
	case "":
		i.Kind = "human"
	case "human", "workload":
	default:
		return fmt.Errorf("kind %q is neither human nor workload", i.Kind)
	}
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&i.ClientID, "hoopctl")
	set(&i.Audience, i.ClientID)
	set(&i.SubjectClaim, "sub")
	set(&i.GroupsClaim, "groups")
	if len(i.Scopes) == 0 {
		i.Scopes = []string{"openid", "profile", "groups", "offline_access"}
	}
	return nil
}
