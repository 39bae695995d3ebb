package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/client/forward"
	"github.com/hoopctl/hoopctl/server/api"
)

// hop is one step on the way to a target, as doctor found it.
type hop struct {
	Name   string        `json:"name"`
	Took   time.Duration `json:"-"`
	Millis float64       `json:"ms"`
	OK     bool          `json:"ok"`
	Found  string        `json:"found,omitempty"` // what was found there, or why it failed
}

func newDoctor(a *app) *cobra.Command {
	var o askOptions
	cmd := &cobra.Command{
		Use:   "doctor TARGET",
		Short: "Time each hop from here to a target, and name the one that fails",
		Long: `Go the way of a session, hop by hop: the server's name, its port, its
certificate, your login, a grant, the tunnel, the target, SELECT 1. The first hop
that fails is named, with what it said; the exit code is that hop's. It is a session
like any other: policy decides it and the evidence has it.`,
		Example:           "  hoopctl doctor clinic",
		Args:              takes(1, 1, "a target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			return a.doctor(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.reason, "reason", "", "why, where a rule asks for a reason")
	f.StringVar(&o.purpose, "purpose", "", "purpose of use, where a rule asks for one")
	f.StringVar(&o.ticket, "ticket", "", "ticket, where a rule asks for one")
	return cmd
}

// patient is one examination: each step may use what those before it found.
type patient struct {
	a      *app
	cl     *client.Client
	target string
	ask    askOptions

	hops     []hop
	server   *url.URL
	grant    api.Grant
	database string
	private  *forward.Private
	tunnel   net.Conn
	session  *exec.Conn
}

// doctor examines until a hop fails, and says so.
func (a *app) doctor(ctx context.Context, target string, ask askOptions) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	ask.noWait = true
	p := &patient{a: a, cl: cl, target: target, ask: ask}
	defer p.close()
	failed := p.examine(ctx)
	if f := a.format(); f != "" {
		if err := printObject(a.out, f, p.hops); err != nil {
			return err
		}
	}
	if failed == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", p.hops[len(p.hops)-1].Name, failed)
}

func (p *patient) close() {
	if p.session != nil {
		p.session.Close(context.Background())
	} else if p.tunnel != nil {
		p.tunnel.Close()
	}
}

func (p *patient) examine(ctx context.Context) (err error) {
	if p.server, err = url.Parse(p.cl.Server()); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"name", p.name}, {"port", p.port}, {"server", p.info}, {"login", p.login}, {"grant", p.findGrant}, {"tunnel", p.dial}, {"target", p.open}, {"SELECT 1", p.query},
	} {
		within, cancel := context.WithTimeout(ctx, time.Minute)
		start := p.a.now()
		found, err := step.do(within)
		cancel()
		h := hop{Name: step.name, Took: p.a.now().Sub(start), OK: err == nil, Found: found}
		h.Millis = float64(h.Took.Microseconds()) / 1000
		if err != nil {
			h.Found = err.Error()
		}
		p.hops = append(p.hops, h)
		p.say(h)
		if err != nil {
			return err
		}
	}
	return nil
}

// say tells a hop at once: the next one may take a while.
func (p *patient) say(h hop) {
	if p.a.format() != "" {
		return
	}
	verdict := printable(h.Found)
	if !h.OK {
		verdict = "FAILED"
	}
	fmt.Fprintf(p.a.out, "%-9s %9.1f ms   %s\n", h.Name, h.Millis, verdict)
}

// proxied says whether another machine resolves and dials for us.
func (p *patient) proxied() bool {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: p.server})
	return proxy != nil || err != nil
}

func (p *patient) name(ctx context.Context) (string, error) {
	if p.proxied() {
		return "left to the proxy", nil
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, p.server.Hostname())
	if err != nil {
		return "", brokerFailure(err)
	}
	return fmt.Sprintf("%s is %s", p.server.Hostname(), addrs[0]), nil
}

func (p *patient) port(ctx context.Context) (string, error) {
	if p.proxied() {
		return "left to the proxy", nil
	}
	address := net.JoinHostPort(p.server.Hostname(), cmp.Or(p.server.Port(), "443"))
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", brokerFailure(err)
	}
	conn.Close()
	return address + " answers", nil
}

// brokerFailure gives a failure on this side of the server the exit code of
// any other verb that cannot reach it.
func brokerFailure(err error) error {
	return &api.Error{Reason: api.ReasonUnavailable, Source: "client", Message: err.Error(), Hint: "is the server running, and is the address right? (--server, --context)"}
}

func (p *patient) info(ctx context.Context) (string, error) {
	info, err := p.cl.Info(ctx)
	return "its certificate is good; version " + info.Version, err
}

func (p *patient) login(ctx context.Context) (string, error) {
	who, err := p.cl.Whoami(ctx)
	return fmt.Sprintf("%s until %s", who.Principal.Name, clock(p.a.now(), who.LoginEnds)), err
}

func (p *patient) findGrant(ctx context.Context) (string, error) {
	t, err := findTarget(ctx, p.cl, p.target)
	if err != nil {
		return "", err
	}
	p.database = t.Spec.Database
	p.grant, err = p.a.grantFor(ctx, p.cl, p.target, p.ask)
	return fmt.Sprintf("%s until %s", p.grant.Metadata.Name, clock(p.a.now(), p.grant.Status.Expires)), err
}

func (p *patient) dial(ctx context.Context) (found string, err error) {
	if p.private, err = forward.NewPrivate(p.cl, p.grant.Metadata.Name); err == nil {
		p.tunnel, err = p.private.Dial(ctx)
	}
	return "the server takes the grant", err
}

// open logs in to the server through the tunnel, which logs in to the target.
func (p *patient) open(ctx context.Context) (found string, err error) {
	first := true
	dial := func(ctx context.Context) (net.Conn, error) {
		if first {
			first = false
			return p.tunnel, nil
		}
		return p.private.Dial(ctx) // for a cancel
	}
	p.session, err = exec.Open(ctx, exec.Config{Dial: dial, User: forwardUser, Password: p.private.Secret(), Database: p.database, Application: "hoopctl-doctor"})
	return "the server reached it and is logged in", err
}

func (p *patient) query(ctx context.Context) (string, error) {
	w, err := exec.NewWriter("csv", io.Discard, 1)
	if err == nil {
		_, err = p.session.Run(ctx, "SELECT 1", w, exec.Options{})
	}
	return "answered", err
}
