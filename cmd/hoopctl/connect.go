package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/client/forward"
	"github.com/hoopctl/hoopctl/server/api"
)

// askOptions are the flags of every verb that may have to ask for a grant.
type askOptions struct {
	duration time.Duration
	reason   string
	purpose  string
	ticket   string
	noWait   bool
}

func (o *askOptions) flags(f *pflag.FlagSet) {
	f.DurationVar(&o.duration, "for", 0, "how long the grant should last (default: as long as the rule allows)")
	f.StringVar(&o.reason, "reason", "", "why; shown to approvers and kept in the evidence")
	f.StringVar(&o.purpose, "purpose", "", "purpose of use, where a rule asks for one: TREAT, HPAYMT, HOPERAT, …")
	f.StringVar(&o.ticket, "ticket", "", "ticket, where a rule asks for one")
	f.BoolVar(&o.noWait, "no-wait", false, "exit with 120 instead of waiting for an approval")
}

// grantFor finds a live grant on the target or asks for one, and waits for the
// people who must agree.
func (a *app) grantFor(ctx context.Context, cl *client.Client, target string, o askOptions) (api.Grant, error) {
	answer, err := cl.RequestGrant(ctx, api.GrantRequest{Target: target, For: api.Duration(o.duration), Reason: o.reason, Purpose: o.purpose, Ticket: o.ticket, Reuse: true})
	if err != nil {
		return api.Grant{}, err
	}
	if answer.Grant != nil {
		a.sayShorter(*answer.Grant, o.duration)
		return *answer.Grant, nil
	}
	if answer.Request == nil {
		return api.Grant{}, &api.Error{Reason: api.ReasonInternal, Source: "broker", Message: "the server gave neither a grant nor a request"}
	}
	r, err := a.await(ctx, cl, *answer.Request, o.noWait)
	if err != nil {
		return api.Grant{}, err
	}
	return cl.Grant(ctx, r.Status.Grant)
}

// sayShorter tells who asked for longer than there is: a rule's most, or the
// rest of a grant that lives already.
func (a *app) sayShorter(g api.Grant, asked time.Duration) {
	if left := g.Status.Expires.Sub(a.now()); asked > 0 && left < asked-time.Minute {
		fmt.Fprintf(a.err, "Asked for %s; grant %s lasts until %s.\n", span(asked), g.Metadata.Name, clock(a.now(), g.Status.Expires))
	}
}

// await waits until a request is decided. Ctrl-C and --timeout withdraw it.
func (a *app) await(ctx context.Context, cl *client.Client, r api.Request, noWait bool) (api.Request, error) {
	name := r.Metadata.Name
	if r.Status.Phase == "pending" && noWait {
		return r, &api.Error{Reason: api.ReasonPending, Source: "broker", Request: name,
			Message: fmt.Sprintf("request %s waits for %s", name, approvers(r)),
			Hint:    "the same command uses it once it is approved; see hoopctl describe request " + name}
	}
	if r.Status.Phase == "pending" {
		fmt.Fprintf(a.err, "Waiting for %s to approve %s (hoopctl approve %s). Ctrl-C withdraws it.\n", printable(approvers(r)), name, name)
		var err error
		if r, err = cl.AwaitRequest(ctx, name); err != nil {
			a.withdraw(ctx, cl, name)
			return r, err
		}
	}
	return r, decided(r)
}

// withdraw takes a question back that nobody waits for any more.
func (a *app) withdraw(ctx context.Context, cl *client.Client, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := cl.Withdraw(ctx, name); err != nil {
		fmt.Fprintf(a.err, "%s could not be withdrawn: %s\n", name, printable(err.Error()))
		return
	}
	fmt.Fprintf(a.err, "%s is withdrawn.\n", name)
}

// decided is nil for a request that was approved.
func decided(r api.Request) error {
	e := &api.Error{Source: "broker", Request: r.Metadata.Name}
	by := ""
	for _, x := range r.Status.Answers {
		if !x.Approve {
			by = " by " + x.Name
			if x.Reason != "" {
				by += ": " + x.Reason
			}
		}
	}
	switch r.Status.Phase {
	case "approved", "used":
		return nil
	case "denied":
		e.Reason, e.Message = api.ReasonDenied, fmt.Sprintf("request %s was denied%s", r.Metadata.Name, by)
	case "expired":
		e.Reason, e.Message = api.ReasonExpired, fmt.Sprintf("request %s expired: nobody answered in time", r.Metadata.Name)
	case "withdrawn":
		e.Reason, e.Message = api.ReasonWithdrawn, fmt.Sprintf("request %s was withdrawn", r.Metadata.Name)
	default:
		e.Reason, e.Message = api.ReasonInternal, fmt.Sprintf("request %s is in the unknown phase %q", r.Metadata.Name, r.Status.Phase)
	}
	return e
}

// connectOptions are the flags of connect.
type connectOptions struct {
	askOptions
	targets   []string
	port      int    // -1: stable per target
	listen    string // host:port, or a host alone
	address   string // its host; "" is 127.0.0.1
	remote    bool   // listen may be reached from elsewhere
	socket    string
	format    string
	client    bool
	pgpass    bool
	workload  string
	readyFile string

	detach     bool
	background bool // this is what -d started
}

// connectFormats are the ways to print where a forward listens.
var connectFormats = []string{"", "uri", "jdbc", "dsn", "env", "json"}

func newConnect(a *app) *cobra.Command {
	o := &connectOptions{port: -1}
	cmd := &cobra.Command{
		Use:   "connect TARGET…",
		Short: "Open a local port to a target, for any client",
		Long: `Find or ask for a grant, wait for approval if a rule wants one, and open a
local port. The only line on stdout is the URL to give to your client; its
password is this run's own secret and worth nothing elsewhere. Any number of
connections are served until the grant ends (exit 122), it is revoked (123), or
Ctrl-C (130).

With -d it goes on in the background when the port is open: see connect list and
connect stop. With --pgpass the target is, as long as it is open, a service of
its name in your pg_service.conf, with its password in your password file.`,
		Example: `  hoopctl connect clinic
  hoopctl connect clinic --client
  hoopctl connect clinic -d --pgpass && psql service=clinic
  hoopctl connect clinic --for 30m --reason "INC-42" -o env
  hoopctl connect clinic --workload k8s -p 5432         # a sidecar
  hoopctl connect clinic --socket ~/sockets --ready-file ready.json`,
		Args:              takes(1, -1, "at least one target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.targets, o.format = args, a.format()
			if err := o.check(); err != nil {
				return err
			}
			if o.detach {
				return a.detach(cmd.Context(), *o, cmd.Flags())
			}
			return a.connect(cmd.Context(), *o)
		},
	}
	cmd.AddCommand(newConnectList(a), newConnectStop(a))
	f := cmd.Flags()
	o.askOptions.flags(f)
	f.IntVarP(&o.port, "port", "p", -1, "local port; 0 is random (default: the same for each target, every time)")
	f.StringVar(&o.socket, "socket", "", "a unix socket in this folder instead of a port (for one target)")
	f.BoolVar(&o.client, "client", false, "start psql on it, and end with it")
	f.StringVar(&o.readyFile, "ready-file", "", "write where it listens to this file, as JSON, once it does")
	f.StringVar(&o.listen, "listen", "", "listen on this HOST or HOST:PORT instead of 127.0.0.1")
	f.BoolVar(&o.remote, "insecure-listen", false, "let --listen be an address that others can reach: what passes there is not encrypted")
	f.BoolVar(&o.pgpass, "pgpass", false, "enter the target in your libpq password and service files as long as it is open")
	f.StringVar(&o.workload, "workload", "", workloadUsage)
	f.BoolVarP(&o.detach, "detach", "d", false, "go on in the background once it is open")
	f.BoolVar(&o.background, "in-background", false, "")
	cobra.CheckErr(f.MarkHidden("in-background"))
	return cmd
}

func (o *connectOptions) check() error {
	if err := checkFormat(o.format, connectFormats); err != nil {
		return err
	}
	switch {
	case o.port < -1 || o.port > 65535:
		return usagef("-p %d is no port", o.port)
	case len(o.targets) > 1 && (o.port > 0 || o.socket != "" || o.client):
		return usagef("-p, --socket and --client are for one target")
	case o.socket != "" && o.port >= 0:
		return usagef("use -p or --socket, not both")
	case o.detach && o.client:
		return usagef("use -d or --client, not both: psql needs the terminal")
	}
	return o.checkListen()
}

// checkListen splits --listen: its port goes where -p puts it.
func (o *connectOptions) checkListen() error {
	if o.listen == "" {
		if o.remote {
			return usagef("--insecure-listen is about --listen, which is missing")
		}
		return nil
	}
	if o.socket != "" {
		return usagef("use --listen or --socket, not both")
	}
	host, port, err := net.SplitHostPort(o.listen)
	if err != nil {
		host, port = strings.Trim(o.listen, "[]"), ""
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil:
			return usagef("--listen %s: %q is no port", o.listen, port)
		case o.port >= 0 && o.port != int(n):
			return usagef("--listen %s and -p %d name two ports", o.listen, o.port)
		case len(o.targets) > 1 && n > 0:
			return usagef("--listen with a port is for one target")
		}
		o.port = int(n)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && !o.remote {
		return withHint(usagef("--listen %s: others could reach it, and what passes there is not encrypted", o.listen),
			"let them use hoopctl themselves, or ssh -L; --insecure-listen opens it all the same")
	}
	o.address = host
	return nil
}

// place is where a forward listens, as scripts read it.
type place struct {
	Target   string    `json:"target"`
	URL      string    `json:"url"`
	Host     string    `json:"host"`
	Port     int       `json:"port"`
	User     string    `json:"user"`
	Password string    `json:"password"`
	Database string    `json:"database"`
	Grant    string    `json:"grant"`
	Expires  time.Time `json:"expires"`
}

// opened is one target's forward.
type opened struct {
	place
	forward *forward.Forward
	grant   api.Grant
}

func (a *app) connect(ctx context.Context, o connectOptions) error {
	if !o.background { // else -d has logged in
		if err := a.serviceLogin(ctx, o.workload); err != nil {
			return err
		}
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	var all []opened
	for _, t := range o.targets {
		f, err := a.open(ctx, cl, t, o)
		if err != nil {
			return err
		}
		defer f.forward.Close()
		all = append(all, f)
	}
	for _, f := range all {
		if o.client || o.background {
			break
		}
		if err := a.printPlace(o.format, f.place); err != nil {
			return err
		}
	}
	over, err := a.tellOthers(ctx, o, all)
	if err != nil {
		return err
	}
	defer over()
	return a.serve(ctx, cl, o, all)
}

// tellOthers writes down where the forwards listen, for the programs that were
// promised to find it; the returned function takes back what does not stay.
func (a *app) tellOthers(ctx context.Context, o connectOptions, all []opened) (func(), error) {
	var undo []func()
	over := func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	places := placesOf(all)
	if o.pgpass {
		files, err := a.ownPGFiles()
		if err != nil {
			return nil, err
		}
		for _, p := range places {
			if err := files.add(ctx, p); err != nil {
				over()
				return nil, err
			}
			undo = append(undo, func() {
				if err := files.remove(context.WithoutCancel(ctx), p); err != nil {
					report(a.err, false, fmt.Errorf("take %s out of %s: %w", p.Target, files.pass, err))
				}
			})
			fmt.Fprintf(a.err, "It is the service %s in %s: psql service=%[1]s\n", printable(p.Target), files.service)
		}
	}
	if o.background {
		gone, err := a.announce(places)
		if err != nil {
			over()
			return nil, err
		}
		undo = append(undo, gone)
	}
	if err := writeReady(o.readyFile, places); err != nil {
		over()
		return nil, err
	}
	return over, nil
}

func placesOf(all []opened) []place {
	places := make([]place, len(all))
	for i, f := range all {
		places[i] = f.place
	}
	return places
}

func writeReady(path string, places []place) error {
	if path == "" {
		return nil
	}
	return writeJSONFile(path, places)
}

// open asks for a grant and listens.
func (a *app) open(ctx context.Context, cl *client.Client, target string, o connectOptions) (opened, error) {
	grant, err := a.grantFor(ctx, cl, target, o.askOptions)
	if err != nil {
		return opened{}, err
	}
	t, err := findTarget(ctx, cl, target)
	if err != nil {
		return opened{}, err
	}
	config := forward.Config{Dialer: cl, Grant: grant.Metadata.Name, SocketDir: o.socket, Listen: cmp.Or(o.address, "127.0.0.1"), Remote: o.remote, Failed: a.sayOnce()}
	f, err := a.listen(config, cl.Server(), target, o.port)
	if err != nil {
		return opened{}, err
	}
	p := place{
		Target: target, Host: o.host(), Port: f.Port(), User: forwardUser, Password: f.Secret(),
		Database: t.Spec.Database, Grant: grant.Metadata.Name, Expires: grant.Status.Expires,
	}
	if o.socket != "" {
		p.Host = filepath.Dir(f.Addr().String())
	}
	p.URL = p.uri()
	a.warnObserved(t)
	fmt.Fprintf(a.err, "%s is open under grant %s until %s.\n", printable(target), grant.Metadata.Name, clock(a.now(), grant.Status.Expires))
	return opened{p, f, grant}, nil
}

// host is where clients of this machine find it.
func (o connectOptions) host() string {
	if ip := net.ParseIP(o.address); o.address == "" || ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return o.address
}

// forwardUser is the user in a forward's URL. It does not matter: the login's
// certificate has said who it is.
const forwardUser = "hoopctl"

// listen opens the port that was asked for, or the target's stable one. If
// another program has that, the next few are tried: the same few every time.
func (a *app) listen(config forward.Config, server, target string, port int) (*forward.Forward, error) {
	host := config.Listen
	if config.SocketDir != "" || port >= 0 {
		config.Listen = net.JoinHostPort(host, strconv.Itoa(max(port, 0)))
		f, err := forward.Listen(config)
		if err != nil && port > 0 {
			return nil, withHint(err, "choose another port with -p, or -p 0 for any")
		}
		return f, err
	}
	first := stablePort(server, target)
	for i := range 10 {
		config.Listen = net.JoinHostPort(host, strconv.Itoa(first+i))
		if f, err := forward.Listen(config); err == nil {
			return f, nil
		}
	}
	config.Listen = net.JoinHostPort(host, "0")
	return forward.Listen(config)
}

// stablePort is a target's own port: between 20000 and 29989, below the ranges
// from which systems take ports for outgoing connections.
func stablePort(server, target string) int {
	h := fnv.New32a()
	h.Write([]byte(server + "\x00" + target))
	return 20000 + int(h.Sum32()%9990)
}

// sayOnce prints why connections could not be opened; a pool that tries again
// and again is told once in five seconds.
func (a *app) sayOnce() func(error) {
	var mu sync.Mutex
	var last string
	var when time.Time
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err.Error() == last && a.now().Sub(when) < 5*time.Second {
			return
		}
		last, when = err.Error(), a.now()
		report(a.err, a.format() == "json", err)
	}
}

// serve relays until the first forward is over: its grant ended, or ctx did.
func (a *app) serve(ctx context.Context, cl *client.Client, o connectOptions, all []opened) error {
	g, gctx := errgroup.WithContext(ctx)
	gctx, cancel := context.WithCancelCause(gctx)
	defer cancel(nil)
	for _, f := range all {
		served := make(chan struct{})
		g.Go(func() error {
			defer close(served)
			return orNil(f.forward.Serve(gctx))
		})
		g.Go(func() error {
			over := a.watchGrant(gctx, cl, f.grant)
			if over == nil {
				return nil
			}
			// The server ends what lives, with words that must still reach the clients.
			f.forward.Drain()
			select {
			case <-served:
			case <-time.After(lastWords):
			case <-gctx.Done():
			}
			cancel(over)
			return nil
		})
	}
	// A login that ends does not end the forward: new connections are told to log in.
	g.Go(func() error { a.keepLogin(gctx, cl, o.workload); return nil })
	if o.client {
		g.Go(func() error {
			defer cancel(errClientEnded)
			return a.runChild(gctx, a.nativeClient(all[0].place))
		})
	}
	err := g.Wait()
	var silent *silentExit
	if errors.As(err, &silent) {
		return err
	}
	switch cause := context.Cause(gctx); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(cause, errClientEnded):
		return err
	case cause != nil:
		return cause
	default:
		return err
	}
}

var errClientEnded = errors.New("the client ended")

// lastWords is how long sessions may live after their grant's end: the server
// promises to end them within five seconds.
const lastWords = 6 * time.Second

// orNil leaves out errors that only say that the context ended.
func orNil(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, errClientEnded) {
		return nil
	}
	return err
}

// watchGrant warns before a grant ends, and returns why when it has; nil if ctx
// ended first.
func (a *app) watchGrant(ctx context.Context, cl *client.Client, g api.Grant) error {
	warnings := []time.Duration{10 * time.Minute, time.Minute}
	timer := time.NewTimer(0)
	defer timer.Stop()
	changes := grantChanges(ctx, cl, g.Metadata.Name)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case g = <-changes:
		}
		if g.Status.Phase != "active" {
			return grantOver(g)
		}
		left := g.Status.Expires.Sub(a.now())
		if g.Spec.Standing {
			timer.Reset(time.Hour)
			continue
		}
		for len(warnings) > 0 && left <= warnings[0] {
			if len(warnings) == 1 || left > warnings[1] {
				fmt.Fprintf(a.err, "Grant %s on %s ends in %s.\n", g.Metadata.Name, printable(g.Spec.Target), span(left))
			}
			warnings = warnings[1:]
		}
		next := left
		if len(warnings) > 0 {
			next = left - warnings[0]
		}
		// Past its end the server says so; this only asks again if it does not.
		timer.Reset(max(next, time.Second))
		if left < -5*time.Second {
			g.Status.Phase = "expired"
			return grantOver(g)
		}
	}
}

// grantChanges follows one grant and goes on after a server that went away.
func grantChanges(ctx context.Context, cl *client.Client, name string) <-chan api.Grant {
	out := make(chan api.Grant)
	go func() {
		for ctx.Err() == nil {
			for change, err := range cl.WatchGrants(ctx) {
				if err != nil {
					break
				}
				if change.Synced || change.Item.Metadata.Name != name {
					continue
				}
				select {
				case out <- change.Item:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// grantOver is a grant's end as an error.
func grantOver(g api.Grant) error {
	e := &api.Error{Source: "broker", Hint: "ask for a new one: hoopctl connect " + g.Spec.Target}
	if g.Status.Phase == "revoked" {
		e.Reason, e.Message = api.ReasonRevoked, fmt.Sprintf("grant %s was revoked", g.Metadata.Name)
		if g.Status.EndedBy != "" {
			e.Message += " by " + g.Status.EndedBy
		}
		if g.Status.Reason != "" {
			e.Message += ": " + g.Status.Reason
		}
		return e
	}
	e.Reason, e.Message = api.ReasonExpired, fmt.Sprintf("grant %s expired", g.Metadata.Name)
	return e
}

// nativeClient is psql on a forward, with nothing of the caller's own PG*.
func (a *app) nativeClient(p place) *exec.Cmd {
	cmd := exec.Command("psql")
	cmd.Env = p.environ(os.Environ())
	return cmd
}

// environ is a child's environment: the caller's without any PG* or
// DATABASE_URL, and where the forward listens.
func (p place) environ(base []string) []string {
	env := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "PG") || name == "DATABASE_URL" || name == "HOOPCTL_URL"
	})
	return append(env, p.variables()...)
}

func (p place) variables() []string {
	return []string{
		"PGHOST=" + p.Host, "PGPORT=" + strconv.Itoa(p.Port), "PGUSER=" + p.User, "PGPASSWORD=" + p.Password,
		"PGDATABASE=" + p.Database, "PGSSLMODE=disable", "DATABASE_URL=" + p.URL,
	}
}

// uri is libpq's connection URI. TLS would be spoken with ourselves: the
// tunnel begins in this process.
// (https://www.postgresql.org/docs/15/libpq-connect.html#id-1.7.3.8.3.6)
func (p place) uri() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(p.User, p.Password), Path: "/" + p.Database, RawPath: "/" + url.PathEscape(p.Database)}
	q := url.Values{"sslmode": {"disable"}}
	if filepath.IsAbs(p.Host) {
		q.Set("host", p.Host)
	} else {
		u.Host = net.JoinHostPort(p.Host, strconv.Itoa(p.Port))
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func (a *app) printPlace(format string, p place) error {
	var line string
	switch format {
	case "", "uri":
		line = p.URL
	case "jdbc":
		q := url.Values{"user": {p.User}, "password": {p.Password}, "sslmode": {"disable"}}
		line = fmt.Sprintf("jdbc:postgresql://%s/%s?%s", net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), url.PathEscape(p.Database), q.Encode())
	case "dsn":
		line = fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", quoteDSN(p.Host), p.Port, p.User, p.Password, quoteDSN(p.Database))
	case "env":
		for _, v := range p.variables() {
			name, value, _ := strings.Cut(v, "=")
			fmt.Fprintf(a.out, "export %s=%s\n", name, quoteShell(value))
		}
		return nil
	case "json":
		return writeJSONLine(a.out, p)
	}
	_, err := fmt.Fprintln(a.out, line)
	return err
}

func quoteDSN(s string) string {
	if s != "" && !strings.ContainsAny(s, ` '\`) {
		return s
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
