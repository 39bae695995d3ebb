package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

const (
	// loginLife is how long a login can be renewed.
	loginLife = 8 * time.Hour
	// freshness is how old an authentication may be when it enrols, and a
	// token when it renews.
	freshness = 5 * time.Minute
	// workloadAge is how old a workload's token may be: orchestrators rotate
	// theirs before an hour is over.
	workloadAge = time.Hour
	maxCSR      = 8 << 10

	kindLogin = "login"
	kindUsed  = "login.used" // tokens and authentications that enrolled or renewed
)

// Store keeps documents. Names are unique within a kind. Get's and Create's
// errors answer NotFound() and Conflict() with true where that is what they say.
type Store interface {
	Get(ctx context.Context, kind, name string) ([]byte, error)
	Put(ctx context.Context, kind, name string, doc []byte) (version int64, err error)
	Create(ctx context.Context, kind, name string, doc []byte) error
	Delete(ctx context.Context, kind, name string) error
	Each(ctx context.Context, kind string, since time.Time, fn func(name string, doc []byte) error) error
}

// Evidence takes events; one is durable when Wait with its ticket returns nil.
type Evidence interface {
	Append(*api.Event) (ticket uint64, err error)
	Wait(ctx context.Context, ticket uint64) error
}

// Config of a Room.
type Config struct {
	CA       *CA
	Issuers  []Issuer
	Store    Store
	Evidence Evidence
	// Service finds the service that a workload's claims belong to. Nil: there are none.
	Service func(issuer string, claims map[string]any) (name string, spec policy.ServiceSpec, ok bool)
	// Ended is told of logins whose sessions must end: logged out, over, or
	// not renewed while their certificate lived. It must not block. May be nil.
	Ended func(Ended)
	Now   func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: silence
}

// Ended says that a login's sessions must end, and why in words.
type Ended struct {
	Login     string
	Principal policy.Principal
	Reason    string
	// Final is false if the login may still be renewed: only its certificate
	// has run out.
	Final bool
}

// Room knows who. Safe for concurrent use.
type Room struct {
	config    Config
	verifiers map[string]*verifier
	now       func() time.Time
	log       *slog.Logger

	writing sync.Mutex // held over a row's way to the store

	mu     sync.RWMutex
	logins map[string]*login
	proved map[[sha256.Size]byte]proof // certificates that were verified
	wake   chan struct{}               // the next end may have come closer
}

// login is a row of the store. It is never changed once it is in Room.logins:
// a changed copy takes its place.
type login struct {
	Name        string           `json:"name"`
	Kind        string           `json:"kind"` // Human or Workload
	Principal   policy.Principal `json:"principal"`
	KeySHA256   string           `json:"key"` // of the key's SubjectPublicKeyInfo, hex
	Source      string           `json:"source,omitempty"`
	Created     time.Time        `json:"created"`
	AuthTime    time.Time        `json:"authTime,omitzero"`
	Ends        time.Time        `json:"ends"`
	CertExpires time.Time        `json:"certExpires"`
	Token       string           `json:"token"` // digest of the token that enrolled it
	Ended       time.Time        `json:"ended,omitzero"`
	Why         string           `json:"why,omitempty"`

	told bool // Ended was called for the certificate that ran out
}

func (l *login) alive(now time.Time) bool { return l.Ended.IsZero() && now.Before(l.Ends) }

// proof says that a certificate was signed by our client authority.
type proof struct {
	login     string
	key       string
	notBefore time.Time
	notAfter  time.Time
}

// New makes a room and loads the logins that are still alive.
func New(ctx context.Context, config Config) (*Room, error) {
	r := &Room{config: config, verifiers: map[string]*verifier{}, now: config.Now, log: config.Log,
		logins: map[string]*login{}, proved: map[[sha256.Size]byte]proof{}, wake: make(chan struct{}, 1)}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	for _, issuer := range config.Issuers {
		v, err := newVerifier(issuer, r.now)
		if err != nil {
			return nil, err
		}
		if r.verifiers[v.issuer.Name] != nil {
			return nil, fmt.Errorf("issuer %s is named twice", v.issuer.Name)
		}
		r.verifiers[v.issuer.Name] = v
	}
	return r, r.load(ctx)
}

func (r *Room) load(ctx context.Context) error {
	err := r.config.Store.Each(ctx, kindLogin, time.Time{}, func(name string, doc []byte) error {
		l := new(login)
		if err := json.Unmarshal(doc, l); err != nil {
			return fmt.Errorf("login %s: %w", name, err)
		}
		if l.alive(r.now()) {
			r.logins[l.Name] = l
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load the logins: %w", err)
	}
	return nil
}

// Issuers are what clients are told of the providers, in the configured order.
func (r *Room) Issuers() []api.Issuer {
	out := make([]api.Issuer, 0, len(r.config.Issuers))
	for _, c := range r.config.Issuers {
		i := r.verifiers[c.Name].issuer
		id := i.ClientID
		if i.Kind == Workload {
			id = i.Audience
		}
		out = append(out, api.Issuer{Name: i.Name, Kind: i.Kind, URL: i.URL, ClientID: id, Scopes: i.Scopes})
	}
	return out
}

// Enroll certifies the key of a signing request for whoever authenticated at
// the provider within the last five minutes: one authentication, one token,
// one key. source is the caller's address, for the evidence. Errors are an
// *api.Error. The login's leaf is durable when Enroll returns.
func (r *Room) Enroll(ctx context.Context, e api.Enroll, source string) (api.Enrolled, error) {
	key, err := parseCSR(e.CSR)
	if err != nil {
		return api.Enrolled{}, invalid(err)
	}
	v, t, err := r.verify(ctx, e)
	if err != nil {
		return api.Enrolled{}, err
	}
	principal, err := r.principal(v, t)
	if err != nil {
		return api.Enrolled{}, r.refuse(v, t, source, err)
	}
	now := r.now()
	if err := fresh(v, t, now); err != nil {
		return api.Enrolled{}, r.refuse(v, t, source, err)
	}
	l := &login{Name: newLoginName(), Kind: v.issuer.Kind, Principal: principal, KeySHA256: thumbprint(key), Source: source,
		Created: now, AuthTime: t.authTime, Ends: now.Add(loginLife), Token: t.id}
	for _, once := range uses(v, t) {
		if err := r.use(ctx, once, t); err != nil {
			return api.Enrolled{}, r.refuse(v, t, source, err)
		}
	}
	return r.issue(ctx, l, key, source, api.EventLogin)
}

// Renew certifies a live login's key anew. The provider must have been asked
// just now: its token is at most five minutes old and was not used before, and
// what it says of name and groups holds from here on. The key is the login's
// own: a token that was stolen renews nothing for a thief. Errors are an
// *api.Error.
func (r *Room) Renew(ctx context.Context, e api.Enroll, source string) (api.Enrolled, error) {
	key, err := parseCSR(e.CSR)
	if err != nil {
		return api.Enrolled{}, invalid(err)
	}
	old, err := r.lookup(ctx, e.Login)
	if err != nil {
		return api.Enrolled{}, err
	}
	v, t, err := r.verify(ctx, e)
	if err != nil {
		return api.Enrolled{}, err
	}
	l, err := r.renewed(old, v, t, thumbprint(key))
	if err != nil {
		return api.Enrolled{}, r.refuse(v, t, source, err)
	}
	// A service may have one token for longer than a certificate lives; it renews the login that it made.
	if !(v.issuer.Kind == Workload && t.id == old.Token) {
		if err := r.use(ctx, t.id, t); err != nil {
			return api.Enrolled{}, r.refuse(v, t, source, err)
		}
	}
	return r.issue(ctx, l, key, source, api.EventRenew)
}

// renewed checks a renewal and returns the login's next row.
func (r *Room) renewed(old *login, v *verifier, t *token, key string) (*login, error) {
	if key != old.KeySHA256 {
		return nil, errors.New("the request is signed by another key than the login's")
	}
	principal, err := r.principal(v, t)
	if err != nil {
		return nil, err
	}
	if principal.ID() != old.Principal.ID() || principal.Kind != old.Principal.Kind {
		return nil, fmt.Errorf("the token is of %s, the login of %s", principal.ID(), old.Principal.ID())
	}
	if principal.Kind == policy.Service && principal.Name != old.Principal.Name {
		return nil, fmt.Errorf("the token is of the service %s, the login of %s", principal.Name, old.Principal.Name)
	}
	if v.issuer.Kind == Workload {
		if err := young(t, r.now()); err != nil {
			return nil, err
		}
	} else if t.issued.Before(r.now().Add(-freshness - tokenSkew)) {
		return nil, errors.New("the token is older than five minutes: ask the provider for a new one")
	}
	next := *old
	next.Principal, next.told = principal, false
	return &next, nil
}

// verify checks the token of an enrolment. Errors are an *api.Error.
func (r *Room) verify(ctx context.Context, e api.Enroll) (*verifier, *token, error) {
	v := r.verifiers[e.Issuer]
	if v == nil {
		return nil, nil, invalid(fmt.Errorf("unknown issuer %q", e.Issuer))
	}
	t, err := v.verify(ctx, e.IDToken)
	var away *unreachableError
	switch {
	case errors.As(err, &away):
		r.log.Error("identity provider does not answer", "issuer", v.issuer.Name, "error", err)
		return nil, nil, &api.Error{Code: http.StatusServiceUnavailable, Reason: api.ReasonUnavailable,
			Message: fmt.Sprintf("the server cannot reach the identity provider %s: %v", v.issuer.Name, err), Hint: "try again in a moment"}
	case err != nil:
		r.log.Warn("token refused", "issuer", v.issuer.Name, "error", err)
		return nil, nil, loginNeeded("the identity provider's token was refused: " + err.Error())
	}
	return v, t, nil
}

// principal says who a verified token is of.
func (r *Room) principal(v *verifier, t *token) (policy.Principal, error) {
	p := policy.Principal{Kind: policy.User, Issuer: v.issuer.Name, Subject: t.subject, Name: t.name, Groups: t.groups, MFA: t.mfa}
	if v.issuer.Kind == Human {
		return p, nil
	}
	if r.config.Service == nil {
		return p, errors.New("there are no services")
	}
	name, spec, ok := r.config.Service(v.issuer.Name, t.claims)
	if !ok {
		return p, fmt.Errorf("no Service matches the claims of %s", t.subject)
	}
	// Its groups are what its resource says, never what its token claims.
	p.Kind, p.Name, p.Groups, p.Owner, p.MFA = policy.Service, name, spec.Groups, spec.Owner, false
	return p, nil
}

// fresh refuses an authentication that is not of the last five minutes: a
// refreshed token carries the time of the first one.
func fresh(v *verifier, t *token, now time.Time) error {
	if v.issuer.Kind == Workload {
		return young(t, now)
	}
	switch {
	case t.authTime.IsZero():
		return errors.New("the token does not say when the person authenticated: the provider must put auth_time into ID tokens")
	case t.authTime.After(now.Add(tokenSkew)):
		return errors.New("the authentication lies in the future: is a clock wrong?")
	case t.authTime.Before(now.Add(-freshness - tokenSkew)):
		return fmt.Errorf("the person authenticated at %s, more than five minutes ago: log in at the provider again", t.authTime.UTC().Format(time.TimeOnly))
	}
	return nil
}

// young refuses a workload's token that was issued too long ago to be worth
// trusting, whatever its own expiry says.
func young(t *token, now time.Time) error {
	if t.issued.Before(now.Add(-workloadAge)) {
		return fmt.Errorf("the token was issued at %s, more than an hour ago", t.issued.UTC().Format(time.TimeOnly))
	}
	return nil
}

// uses names what an enrolment uses up: the token, and for a person the
// authentication that it stems from.
func uses(v *verifier, t *token) []string {
	if v.issuer.Kind == Workload {
		return []string{t.id}
	}
	text := strings.Join([]string{v.issuer.Name, t.subject, t.session, t.authTime.UTC().Format(time.RFC3339)}, "\n")
	sum := sha256.Sum256([]byte("authentication\n" + text))
	return []string{t.id, hex.EncodeToString(sum[:])}
}

// used is what the store keeps of a used token or authentication, until no
// check of time would let it through any more.
type used struct {
	Until time.Time `json:"until"`
}

var errUsed = errors.New("this authentication was used already: log in at the provider again")

func (r *Room) use(ctx context.Context, name string, t *token) error {
	until := t.expires
	if later := t.authTime.Add(freshness); later.After(until) {
		until = later
	}
	doc, err := json.Marshal(used{Until: until.Add(time.Hour)}) // beyond every leeway
	if err != nil {
		return err
	}
	err = r.config.Store.Create(ctx, kindUsed, name, doc)
	var taken interface{ Conflict() bool }
	if errors.As(err, &taken) && taken.Conflict() {
		return errUsed
	}
	if err != nil {
		return unavailable("note that a token was used", err)
	}
	return nil
}

// issue signs a certificate for l, writes the evidence, then lets l live.
func (r *Room) issue(ctx context.Context, l *login, key *ecdsa.PublicKey, source, kind string) (api.Enrolled, error) {
	chain, cert, err := r.config.CA.login(key, loginURI(l), l.Principal.Name, l.Ends)
	if err != nil {
		return api.Enrolled{}, fmt.Errorf("login %s: %w", l.Name, err)
	}
	l.CertExpires = cert.NotAfter
	err = r.record(ctx, &api.Event{Kind: kind, Principal: l.Principal.ID(), Name: l.Principal.Name, Groups: l.Principal.Groups,
		Login: l.Name, KeySHA256: l.KeySHA256, Source: source, Expires: l.Ends,
		Attrs: map[string]string{"certificate": fingerprint(cert), "kind": string(l.Principal.Kind), "mfa": fmt.Sprint(l.Principal.MFA)}})
	if err != nil {
		return api.Enrolled{}, err
	}
	if err := r.put(ctx, l); err != nil {
		return api.Enrolled{}, err
	}
	return api.Enrolled{Login: l.Name, Certificate: string(chain), Expires: cert.NotAfter, LoginEnds: l.Ends, Principal: l.Principal}, nil
}

// put makes l the login's row, in the store first. A login that ended while
// its renewal was under way stays ended.
func (r *Room) put(ctx context.Context, l *login) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.RLock()
	now := r.logins[l.Name]
	r.mu.RUnlock()
	if now != nil && !now.Ended.IsZero() {
		return expired(now)
	}
	if err := r.keep(ctx, l); err != nil {
		return err
	}
	r.show(l)
	return nil
}

// end makes l, which has ended, the login's row: in memory first, so that a
// store that fails does not keep a login alive in this process.
func (r *Room) end(ctx context.Context, l *login) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.show(l)
	return r.keep(ctx, l)
}

func (r *Room) keep(ctx context.Context, l *login) error {
	doc, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := r.config.Store.Put(ctx, kindLogin, l.Name, doc); err != nil {
		return unavailable("keep the login", err)
	}
	return nil
}

func (r *Room) show(l *login) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logins[l.Name] = l
	r.poke()
}

func (r *Room) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// record appends an event and waits until it is durable.
func (r *Room) record(ctx context.Context, e *api.Event) error {
	ticket, err := r.config.Evidence.Append(e)
	if err == nil {
		err = r.config.Evidence.Wait(ctx, ticket)
	}
	if err != nil {
		r.log.Error("evidence refused an event", "kind", e.Kind, "error", err)
		return &api.Error{Code: http.StatusServiceUnavailable, Reason: api.ReasonEvidence,
			Message: "the evidence cannot be written, so no login begins or goes on", Hint: "tell the server's operator"}
	}
	return nil
}

// refuse records that a token which the provider did sign was refused, and
// returns err in the API's shape.
func (r *Room) refuse(v *verifier, t *token, source string, err error) error {
	r.log.Warn("login refused", "issuer", v.issuer.Name, "subject", t.subject, "source", source, "error", err)
	// Nothing is let in: the answer does not wait for the disk.
	_, _ = r.config.Evidence.Append(&api.Event{Kind: api.EventRefused, Principal: v.issuer.Name + ":" + t.subject, Name: t.name,
		Source: source, Via: "enroll", Reason: err.Error()})
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return loginNeeded(err.Error())
}

// Principal says who a client certificate is of, and which login it belongs
// to. The TLS handshake has proved that the client has its key. It checks
// signer, purpose, time, key, and that the login lives; errors are an
// *api.Error. It is cheap: a certificate's signature is verified once.
func (r *Room) Principal(cert *x509.Certificate) (policy.Principal, string, error) {
	now := r.now()
	p, err := r.prove(cert, now)
	if err != nil {
		return policy.Principal{}, "", loginNeeded("the client certificate is not a login's: " + err.Error())
	}
	if now.After(p.notAfter) {
		return policy.Principal{}, "", &api.Error{Code: http.StatusUnauthorized, Reason: api.ReasonLoginExpired,
			Message: "the login's certificate expired at " + p.notAfter.UTC().Format(time.TimeOnly) + " UTC and was not renewed", Hint: "hoopctl login"}
	}
	l, err := r.lookup(context.Background(), p.login)
	if err != nil {
		return policy.Principal{}, "", err
	}
	if l.KeySHA256 != p.key {
		return policy.Principal{}, "", loginNeeded("the certificate's key is not the login's")
	}
	return l.Principal, l.Name, nil
}

// maxProved bounds the certificates that are remembered as verified.
const maxProved = 10_000

func (r *Room) prove(cert *x509.Certificate, now time.Time) (proof, error) {
	id := sha256.Sum256(cert.Raw)
	r.mu.RLock()
	p, ok := r.proved[id]
	r.mu.RUnlock()
	if ok && !now.Before(p.notBefore) {
		return p, nil
	}
	// One that has expired is judged as of its last moment: it may still be told in words that it expired.
	at := now
	if now.After(cert.NotAfter) {
		at = cert.NotAfter
	}
	if err := r.config.CA.verify(cert, at); err != nil {
		return proof{}, err
	}
	name, err := loginOf(cert)
	if err != nil {
		return proof{}, err
	}
	p = proof{login: name, key: spki(cert.RawSubjectPublicKeyInfo), notBefore: cert.NotBefore, notAfter: cert.NotAfter}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.proved) >= maxProved {
		clear(r.proved)
	}
	r.proved[id] = p
	return p, nil
}

// lookup returns a login that lives. Errors are an *api.Error.
func (r *Room) lookup(ctx context.Context, name string) (*login, error) {
	r.mu.RLock()
	l := r.logins[name]
	r.mu.RUnlock()
	if l == nil {
		var err error
		if l, err = r.fetch(ctx, name); err != nil {
			return nil, err
		}
	}
	if !l.alive(r.now()) {
		return nil, expired(l)
	}
	return l, nil
}

// fetch reads a login that another server on the same store has made.
func (r *Room) fetch(ctx context.Context, name string) (*login, error) {
	doc, err := r.config.Store.Get(ctx, kindLogin, name)
	var missing interface{ NotFound() bool }
	if errors.As(err, &missing) && missing.NotFound() {
		return nil, loginNeeded("the login is not known here: it has ended, or the server was set up anew")
	}
	if err != nil {
		return nil, unavailable("read the login", err)
	}
	l := new(login)
	if err := json.Unmarshal(doc, l); err != nil {
		return nil, fmt.Errorf("login %s: %w", name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.logins[name]; known != nil {
		return known, nil
	}
	r.logins[name] = l
	r.poke()
	return l, nil
}

// Current is the principal of a login as its provider described it last, for
// sessions that outlive a renewal. The error, an *api.Error, says that the
// login has ended or was not renewed in time.
func (r *Room) Current(name string) (policy.Principal, error) {
	l, err := r.lookup(context.Background(), name)
	if err != nil {
		return policy.Principal{}, err
	}
	if r.now().After(l.CertExpires) {
		return policy.Principal{}, lapsed()
	}
	return l.Principal, nil
}

// Known is the principal with this ID as its provider described it last, by
// any login of it that lives. The error, an *api.Error, says that there is none.
func (r *Room) Known(id string) (policy.Principal, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var newest *login
	for _, l := range r.logins {
		if l.Principal.ID() == id && l.alive(r.now()) && (newest == nil || l.CertExpires.After(newest.CertExpires)) {
			newest = l
		}
	}
	if newest == nil {
		return policy.Principal{}, &api.Error{Code: http.StatusNotFound, Reason: api.ReasonNotFound, Message: id + " is not logged in"}
	}
	return newest.Principal, nil
}

// Ends is when a login ends at the latest, however often it is renewed.
func (r *Room) Ends(name string) (time.Time, error) {
	l, err := r.lookup(context.Background(), name)
	if err != nil {
		return time.Time{}, err
	}
	return l.Ends, nil
}

// Logout ends a login at once: no certificate of it is accepted any more. by
// is who did it, reason why, in words for the people whose sessions end.
func (r *Room) Logout(ctx context.Context, name string, by policy.Principal, source, reason string) error {
	l, err := r.lookup(ctx, name)
	if err != nil {
		return err
	}
	if reason == "" {
		reason = "logged out"
	}
	ended := *l
	ended.Ended, ended.Why = r.now(), reason
	kept := r.end(ctx, &ended)
	r.tell(&ended, reason, true)
	recorded := r.record(ctx, &api.Event{Kind: api.EventLogout, Principal: l.Principal.ID(), Name: l.Principal.Name, Login: l.Name,
		KeySHA256: l.KeySHA256, Source: source, Reason: reason, Attrs: map[string]string{"by": by.ID()}})
	return errors.Join(kept, recorded)
}

// LogoutAll ends every login of a principal and returns their names.
func (r *Room) LogoutAll(ctx context.Context, principal string, by policy.Principal, source, reason string) ([]string, error) {
	var names []string
	r.mu.RLock()
	for _, l := range r.logins {
		if l.Principal.ID() == principal && l.alive(r.now()) {
			names = append(names, l.Name)
		}
	}
	r.mu.RUnlock()
	for _, name := range names {
		if err := r.Logout(ctx, name, by, source, reason); err != nil {
			return names, err
		}
	}
	return names, nil
}

func (r *Room) tell(l *login, reason string, final bool) {
	if r.config.Ended != nil {
		r.config.Ended(Ended{Login: l.Name, Principal: l.Principal, Reason: reason, Final: final})
	}
}

// Run notices logins that end or lapse and forgets what is over, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	prune := time.NewTicker(10 * time.Minute)
	defer prune.Stop()
	for {
		// Never longer than a second late, and right after the clock jumped.
		wait := min(max(r.lapse(), 10*time.Millisecond), time.Second)
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-time.After(wait):
		case <-prune.C:
			if err := r.prune(ctx); err != nil {
				r.log.Warn("old logins could not be forgotten", "error", err)
			}
		}
	}
}

// lapse tells of logins whose time has come and returns when to look next.
func (r *Room) lapse() time.Duration {
	now, next := r.now(), time.Minute
	var over, stale []*login
	r.mu.Lock()
	for name, l := range r.logins {
		switch {
		case !l.Ended.IsZero():
			continue
		case !now.Before(l.Ends):
			over = append(over, l)
			delete(r.logins, name)
		case now.After(l.CertExpires) && !l.told:
			told := *l
			told.told = true
			r.logins[name] = &told
			stale = append(stale, l)
		case !l.told:
			next = min(next, l.CertExpires.Sub(now))
		}
	}
	r.mu.Unlock()
	for _, l := range over {
		r.tell(l, "the login is over: log in again", true)
	}
	for _, l := range stale {
		r.tell(l, "the login's certificate was not renewed", false)
	}
	return next
}

// prune deletes what no check needs any more.
func (r *Room) prune(ctx context.Context) error {
	now := r.now()
	var old []string
	err := r.config.Store.Each(ctx, kindUsed, time.Time{}, func(name string, doc []byte) error {
		var u used
		if json.Unmarshal(doc, &u) != nil || now.After(u.Until) {
			old = append(old, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := r.config.Store.Delete(ctx, kindUsed, name); err != nil {
			return err
		}
	}
	return r.pruneLogins(ctx, now)
}

// pruneLogins forgets logins a day after they ended: the evidence has them.
func (r *Room) pruneLogins(ctx context.Context, now time.Time) error {
	var old []string
	err := r.config.Store.Each(ctx, kindLogin, time.Time{}, func(name string, doc []byte) error {
		var l login
		if json.Unmarshal(doc, &l) == nil && now.After(l.Ends.Add(24*time.Hour)) {
			old = append(old, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := r.config.Store.Delete(ctx, kindLogin, name); err != nil {
			return err
		}
		r.mu.Lock()
		delete(r.logins, name)
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range r.proved {
		if now.After(p.notAfter) {
			delete(r.proved, id)
		}
	}
	return nil
}

// parseCSR returns the key of a signing request that its owner signed. Nothing
// else in it counts: names and extensions are ours to give.
func parseCSR(text string) (*ecdsa.PublicKey, error) {
	if len(text) > maxCSR {
		return nil, fmt.Errorf("the certificate request is longer than %d bytes", maxCSR)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("want one PEM certificate request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate request cannot be read: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate request's key is not ECDSA P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed by its own key: %w", err)
	}
	return key, nil
}

// thumbprint names a key: SHA-256 of its SubjectPublicKeyInfo, hex.
func thumbprint(key *ecdsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "" // a P-256 key always encodes; "" equals no row's
	}
	return spki(der)
}

func spki(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// loginURI is what a certificate says: hoopctl://user/ISSUER/SUBJECT/login/NAME.
func loginURI(l *login) *url.URL {
	parts := []string{"", l.Principal.Issuer, l.Principal.Subject, "login", l.Name}
	raw := make([]string, len(parts))
	for i, p := range parts {
		raw[i] = url.PathEscape(p)
	}
	return &url.URL{Scheme: "hoopctl", Host: string(l.Principal.Kind), Path: strings.Join(parts, "/"), RawPath: strings.Join(raw, "/")}
}

// loginOf reads a certificate's login.
func loginOf(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "hoopctl" {
		return "", errors.New("it names no login")
	}
	parts := strings.Split(cert.URIs[0].EscapedPath(), "/")
	if len(parts) != 5 || parts[3] != "login" || parts[4] == "" {
		return "", errors.New("it names no login")
	}
	return url.PathUnescape(parts[4])
}

func invalid(err error) error {
	return &api.Error{Code: http.StatusBadRequest, Reason: api.ReasonInvalid, Message: err.Error()}
}

func loginNeeded(why string) error {
	return &api.Error{Code: http.StatusUnauthorized, Reason: api.ReasonLoginNeeded, Message: why, Hint: "hoopctl login"}
}

func lapsed() error {
	return &api.Error{Code: http.StatusUnauthorized, Reason: api.ReasonLoginExpired, Message: "the login's certificate was not renewed", Hint: "hoopctl login"}
}

func expired(l *login) error {
	e := &api.Error{Code: http.StatusUnauthorized, Reason: api.ReasonLoginExpired, Message: "the login is over", Hint: "hoopctl login"}
	if !l.Ended.IsZero() {
		e.Message = "the login has ended: " + l.Why
	}
	return e
}

func unavailable(doing string, err error) error {
	return &api.Error{Code: http.StatusServiceUnavailable, Reason: api.ReasonUnavailable, Message: doing + ": " + err.Error()}
}
