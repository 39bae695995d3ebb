package target

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// The house's defaults for what a Target leaves out.
const (
	defaultIdle              = 15 * time.Minute
	defaultMax               = 8 * time.Hour
	defaultIdleInTransaction = 5 * time.Minute
	defaultHoldInTransaction = 2 * time.Minute
	defaultHoldMax           = 15 * time.Minute

	dialTimeout    = 10 * time.Second // for all addresses of a name together
	resolveTimeout = 5 * time.Second
)

// Config is what the room is made of; its zero value dials directly and takes
// passwords from the environment and from commands only.
type Config struct {
	// SecretsDir is the folder below which password, key and CA files lie. Links
	// that lead out of it are not followed. "" : no files, unless Dev.
	SecretsDir string
	// Dev lets files lie anywhere.
	Dev bool
	// Agent dials the address from the agent's network. Nil: this server has no agents.
	Agent func(ctx context.Context, agent, address string) (net.Conn, error)
	// Resolve looks a host up; nil is the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Env looks an environment variable up; nil is os.LookupEnv.
	Env func(string) (string, bool)
	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: silence
}

// Info is the part of a Target resource that a protocol needs: field for field
// session.TargetInfo, into which it converts.
type Info struct {
	Name                         string
	Generation                   string
	Addresses                    []string
	SessionAttrs                 string
	Database                     string
	Databases                    []string
	TLSMode                      string
	RootCAs                      []byte
	ChannelBinding               string
	Idle, Max, IdleInTransaction time.Duration
	HoldInTransaction, HoldMax   time.Duration
}

// Credentials log in to a target: field for field session.Credentials, into
// which it converts.
type Credentials struct {
	Username    string
	Password    string
	Certificate *tls.Certificate
	Cleartext   bool
	Roles       []string
}

// Room is the room. Its methods are safe for concurrent use.
type Room struct {
	cfg Config

	mu      sync.RWMutex
	targets map[string]*entry
}

// entry is one target's resource, and what must not outlive it: when anything
// in the resource changes, cached secrets go with the entry.
type entry struct {
	name       string
	spec       policy.TargetSpec
	generation string // of everything
	place      string // of what catalogues hang on: addresses and databases
	addresses  []string
	secret     secret
}

// New opens the room. It knows no target before Reload.
func New(cfg Config) *Room {
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Env == nil {
		cfg.Env = os.LookupEnv
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Room{cfg: cfg, targets: map[string]*entry{}}
}

// Reload puts these Target resources in force, and no others. A target whose
// resource did not change keeps its cached secrets; any change drops them.
func (r *Room) Reload(all []policy.Resource) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[string]*entry, len(all))
	for _, res := range all {
		spec, ok := res.Spec.(*policy.TargetSpec)
		if !ok {
			continue
		}
		e := newEntry(res.Metadata.Name, spec)
		if old := r.targets[e.name]; old != nil && old.generation == e.generation {
			e = old
		}
		next[e.name] = e
	}
	r.targets = next
}

func newEntry(name string, spec *policy.TargetSpec) *entry {
	e := &entry{name: name, spec: *spec, generation: digest(name, spec)}
	e.addresses = slices.Clone(spec.Addresses)
	if spec.Address != "" {
		e.addresses = append([]string{spec.Address}, e.addresses...)
	}
	e.place = digest(name, spec.Protocol, e.addresses, spec.Agent, spec.Database, spec.Databases, spec.TLS)
	for i, a := range e.addresses {
		e.addresses[i] = hostPort(spec.Protocol, a)
	}
	return e
}

// digest identifies values by their JSON.
func digest(values ...any) string {
	b, err := json.Marshal(values)
	if err != nil {
		// A resource is plain data; if it ever were not, nothing may be cached under it.
		b = fmt.Appendf(nil, "%p %v", values, time.Now())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// hostPort is the place to dial for an address as it is written: of an http
// base URL its host, with the scheme's port.
func hostPort(protocol, address string) string {
	if protocol != "http" {
		return address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Port() != "" {
		if err == nil && u.Host != "" {
			return u.Host
		}
		return address
	}
	if u.Scheme == "http" {
		return net.JoinHostPort(u.Hostname(), "80")
	}
	return net.JoinHostPort(u.Hostname(), "443")
}

// Get returns the target as its resource stands now, for one session. The
// error is an *api.Error: NotFound, or Unavailable for a resource that this
// server cannot serve.
func (r *Room) Get(name string) (*Target, error) {
	r.mu.RLock()
	e := r.targets[name]
	r.mu.RUnlock()
	if e == nil {
		return nil, refuse(api.ReasonNotFound, "there is no target "+name, "hoopctl get targets lists them")
	}
	t := &Target{room: r, entry: e}
	if err := t.fill(); err != nil {
		return nil, unavailable(name, err)
	}
	return t, nil
}

// Target is one target as its resource stood when it was asked for. It offers
// what session.Target wants, with this package's own types.
type Target struct {
	room  *Room
	entry *entry
	info  Info
}

func (t *Target) fill() error {
	e, s := t.entry, &t.entry.spec
	if len(e.addresses) == 0 {
		return errors.New("it has no address")
	}
	if s.Agent != "" && t.room.cfg.Agent == nil {
		return fmt.Errorf("it is reached through agent %s, and this server has no agents", s.Agent)
	}
	if err := checkMode(s); err != nil {
		return err
	}
	cas, err := t.rootCAs(s.TLS.CAFile)
	if err != nil {
		return err
	}
	t.info = Info{Name: e.name, Generation: e.place, Addresses: e.addresses, SessionAttrs: s.TargetSessionAttrs, Database: s.Database, Databases: s.Databases,
		TLSMode: orString(s.TLS.Mode, "verify-full"), RootCAs: cas, ChannelBinding: s.TLS.ChannelBinding,
		Idle: or(s.Session.Idle, defaultIdle), Max: or(s.Session.Max, defaultMax), IdleInTransaction: or(s.Session.IdleInTransaction, defaultIdleInTransaction),
		HoldInTransaction: or(s.Hold.InTransaction, defaultHoldInTransaction), HoldMax: or(s.Hold.Max, defaultHoldMax)}
	if t.info.Database == "" && len(s.Databases) > 0 {
		t.info.Database = s.Databases[0]
	}
	return nil
}

// checkMode refuses the credentials that this server cannot honour. Logging in
// with the account that makes ephemeral roles instead of with such a role
// would hand a session that account's rights.
func checkMode(s *policy.TargetSpec) error {
	c := &s.Credentials
	switch c.Mode {
	case "", "static":
		return nil
	case "certificate":
		if c.CertFile == "" || c.KeyFile == "" {
			return errors.New("credentials.mode is certificate: credentials.certFile and credentials.keyFile must name the PEM files")
		}
		return nil
	case "ephemeral":
		if len(c.Roles) == 0 {
			return errors.New("credentials.mode is ephemeral: credentials.roles must name what a session's own role is a member of")
		}
		return nil
	default:
		return fmt.Errorf("credentials.mode %q is not known; static, ephemeral and certificate are", c.Mode)
	}
}

func (t *Target) rootCAs(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := t.room.readFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls.caFile: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.caFile %s holds no PEM certificate", file)
	}
	return pem, nil
}

func or(d *policy.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return time.Duration(*d)
}

func orString(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Info says what the resource says. Its slices are not to be changed.
func (t *Target) Info() Info { return t.info }

// Dial opens a connection to one of Info().Addresses: direct, or through the
// target's agent. Any other address is refused, whoever asks.
func (t *Target) Dial(ctx context.Context, address string) (net.Conn, error) {
	if !slices.Contains(t.info.Addresses, address) {
		return nil, unavailable(t.info.Name, fmt.Errorf("%s is not one of its addresses", address))
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := t.dial(ctx, address)
	if err != nil {
		return nil, unavailable(t.info.Name, fmt.Errorf("reach %s: %w", address, err))
	}
	return conn, nil
}

func (t *Target) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if err := policy.CheckHost(host); err != nil {
		return nil, err
	}
	if agent := t.entry.spec.Agent; agent != "" {
		// The name means what it means in the agent's network; the agent checks what it resolves to.
		return t.room.cfg.Agent(ctx, agent, address)
	}
	addrs, err := t.room.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	return dialFirst(ctx, addrs, port)
}

// resolve returns the addresses of a host, all of them allowed. One that is not
// spoils the name: whoever put it there is not to be believed about the others.
func (r *Room) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, policy.CheckAddr(addr)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := r.cfg.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
		if err := policy.CheckAddr(a); err != nil {
			return nil, fmt.Errorf("%s resolves to an address that no target may have: %w", host, err)
		}
	}
	return addrs, nil
}

// dialFirst tries the addresses in order, each with an even share of the time
// that is left. It dials numbers, never a name: what was checked is what is dialled.
func dialFirst(ctx context.Context, addrs []netip.Addr, port string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	var errs []error
	end, _ := ctx.Deadline() // Dial has set one
	for i, a := range addrs {
		share, cancel := context.WithTimeout(ctx, time.Until(end)/time.Duration(len(addrs)-i))
		conn, err := d.DialContext(share, "tcp", net.JoinHostPort(a.String(), port))
		cancel()
		if err == nil {
			return conn, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// unavailable is a target's failure in words for the principal, with its cause.
func unavailable(name string, err error) error {
	return &failure{refuse(api.ReasonUnavailable, "target "+name+": "+err.Error(), "hoopctl doctor "+name+" looks at each hop; tell whoever runs the target or the broker"), err}
}

type failure struct {
	said  *api.Error
	cause error
}

func (f *failure) Error() string   { return f.said.Error() }
func (f *failure) Unwrap() []error { return []error{f.said, f.cause} }

func refuse(why api.Reason, message, hint string) *api.Error {
	code := http.StatusServiceUnavailable
	if why == api.ReasonNotFound {
		code = http.StatusNotFound
	}
	return &api.Error{Code: code, Reason: why, Message: message, Hint: hint, Source: "broker"}
}
