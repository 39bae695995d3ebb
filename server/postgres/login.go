package postgres

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/server/session"
)

// connectTimeout bounds one try to log in to one address of a target.
const connectTimeout = 10 * time.Second

// upstream is a connection to the target, logged in and idle.
type upstream struct {
	net.Conn
	address string
	tls     *tls.Config // how the connection was secured, nil if it was not
	pid     uint32
	key     []byte            // the target's cancel key; no client ever sees it
	params  map[string]string // what ParameterStatus reported
}

// login opens a session for the client on the target: the first address that
// answers and has the wanted attributes. It asks for fresh credentials and
// tries once more if the target refuses those it was given.
func (c *conn) login(ctx context.Context) (*upstream, error) {
	params := c.runtimeParams()
	pg, address, err := c.connect(ctx, params, c.connectSession)
	if err != nil {
		return nil, err
	}
	err = c.readContext(ctx, pg)
	if err == nil && c.gate.Hides() {
		err = c.unpooled(ctx, pg)
	}
	if err == nil {
		err = pg.SyncConn(ctx)
	}
	if err != nil {
		pg.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	taken, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	return &upstream{Conn: taken.Conn, address: address, tls: taken.TLSConfig, pid: taken.PID, key: taken.SecretKey, params: taken.ParameterStatuses}, nil
}

// unpooled refuses a target with tags behind a connection pooler: one that
// changes backends between transactions makes role, search_path, prepared
// statements and temporary objects those of another session, and which mode a
// pooler is in cannot be asked. A pooler gives a process id of its own.
func (c *conn) unpooled(ctx context.Context, pg *pgconn.PgConn) error {
	results, err := pg.Exec(ctx, "SELECT pg_catalog.pg_backend_pid()").ReadAll()
	if err != nil {
		return fmt.Errorf("ask for the backend's process id: %w", err)
	}
	if len(results) == 1 && len(results[0].Rows) == 1 && string(results[0].Rows[0][0]) == strconv.FormatUint(uint64(pg.PID()), 10) {
		return nil
	}
	return &session.Refusal{Code: session.CodePolicy, Fatal: true, Message: fmt.Sprintf("a connection pooler stands before target %s, which has hidden columns", c.info.Name),
		Detail: "what names mean cannot be known through it", Hint: "give the target's own address"}
}

// connecting logs in with credentials and run-time parameters, and says where.
type connecting func(context.Context, session.Credentials, map[string]string) (*pgconn.PgConn, string, error)

// connect logs in to the target in one way or another, once more with fresh
// credentials if it refuses those that it was shown.
func (c *conn) connect(ctx context.Context, params map[string]string, how connecting) (*pgconn.PgConn, string, error) {
	for again := false; ; again = true {
		credentials, err := c.target.Login(ctx, again)
		if err != nil {
			return nil, "", fmt.Errorf("credentials of target %s: %w", c.info.Name, err)
		}
		pg, address, err := how(ctx, credentials, params)
		var refused *pgconn.PgError
		if err == nil || again || c.role != nil || !errors.As(err, &refused) || refused.Code != "28P01" {
			return pg, address, err
		}
	}
}

// connectSession logs in for the client.
func (c *conn) connectSession(ctx context.Context, cr session.Credentials, params map[string]string) (*pgconn.PgConn, string, error) {
	if len(cr.Roles) > 0 {
		return c.connectEphemeral(ctx, cr, params)
	}
	return c.connectAny(ctx, cr, params, c.info.Addresses, c.info.SessionAttrs)
}

// connectOwn logs in for the broker's own questions.
func (c *conn) connectOwn(ctx context.Context, cr session.Credentials, params map[string]string) (*pgconn.PgConn, string, error) {
	return c.connectAny(ctx, cr, params, c.info.Addresses, c.info.SessionAttrs)
}

// connectAny tries the addresses in order.
func (c *conn) connectAny(ctx context.Context, cr session.Credentials, params map[string]string, addresses []string, attrs string) (*pgconn.PgConn, string, error) {
	wanted := []pgconn.ValidateConnectFunc{validator(attrs)}
	if attrs == "prefer-standby" {
		wanted = []pgconn.ValidateConnectFunc{pgconn.ValidateConnectTargetSessionAttrsStandby, nil}
	}
	var all []error
	for _, validate := range wanted {
		for _, address := range addresses {
			config, err := c.clientConfig(address, cr, params)
			if err != nil {
				return nil, "", err
			}
			config.ValidateConnect = validate
			pg, err := pgconn.ConnectConfig(ctx, config)
			if err == nil {
				return pg, address, nil
			}
			all = append(all, c.explained(err))
			var refused *pgconn.PgError
			if errors.As(err, &refused) && decisive(refused.Code) || ctx.Err() != nil {
				return nil, "", errors.Join(all...)
			}
		}
	}
	if len(all) == 0 {
		all = append(all, fmt.Errorf("target %s has no address", c.info.Name))
	}
	return nil, "", errors.Join(all...)
}

// explained adds, for the log, what to do about a target that wants the
// password as it is.
func (c *conn) explained(err error) error {
	if strings.Contains(err.Error(), "server requested password authentication") { // pgconn has no type for it
		return fmt.Errorf("target %s asks for the password in the clear; let it authenticate by scram-sha-256, or set credentials.allowCleartext (needs tls.mode verify-full): %w", c.info.Name, err)
	}
	return err
}

// decisive is true for refusals that another address would repeat.
func decisive(code string) bool {
	return code == "28P01" || code == "28000" || code == "3D000" || code == "42501"
}

func validator(attrs string) pgconn.ValidateConnectFunc {
	switch attrs {
	case "read-write":
		return pgconn.ValidateConnectTargetSessionAttrsReadWrite
	case "read-only":
		return pgconn.ValidateConnectTargetSessionAttrsReadOnly
	case "primary":
		return pgconn.ValidateConnectTargetSessionAttrsPrimary
	case "standby":
		return pgconn.ValidateConnectTargetSessionAttrsStandby
	}
	return nil
}

// clientConfig is a pgconn.Config of which nothing comes from the
// environment. pgconn insists on ParseConfig, which reads PG*, ~/.pgpass and
// service files; whatever it found there is overwritten.
func (c *conn) clientConfig(address string, cr session.Credentials, params map[string]string) (*pgconn.Config, error) {
	config, err := blankConfig()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address of target %s: %w", c.info.Name, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address of target %s: port %q", c.info.Name, port)
	}
	config.Host, config.Port, config.Fallbacks = host, uint16(number), nil
	config.User, config.Password, config.Database = cr.Username, cr.Password, c.database
	config.KerberosSpn, config.KerberosSrvName = "", ""
	config.RuntimeParams = params
	config.ConnectTimeout = connectTimeout
	config.MaxProtocolMessageBodyLen = maxTold
	config.RequireAuth, config.ChannelBinding = "!password", cmp.Or(c.info.ChannelBinding, "prefer")
	if config.TLSConfig, err = c.targetTLS(host, cr.Certificate); err != nil {
		return nil, err
	}
	if cr.Cleartext && (c.info.TLSMode == "" || c.info.TLSMode == "verify-full") {
		config.RequireAuth = "" // it is proved who will read it
	}
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.target.Dial(ctx, address) }
	config.BuildFrontend = guarded(config.BuildFrontend)
	config.OnNotice, config.OnNotification, config.AfterConnect, config.AfterNetConnect = nil, nil, nil, nil
	return config, nil
}

// targetTLS is verify-full unless the resource says otherwise in so many words.
func (c *conn) targetTLS(host string, cert *tls.Certificate) (*tls.Config, error) {
	// A server that speaks another protocol on this port, and has a certificate
	// that we would believe, refuses ours (ALPACA). PostgreSQL before 17 knows no
	// ALPN and answers none.
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{alpn}}
	switch c.info.TLSMode {
	case "disable":
		return nil, nil
	case "require":
		config.InsecureSkipVerify = true
	case "", "verify-full":
		if c.info.RootCAs != nil {
			config.RootCAs = x509.NewCertPool()
			if !config.RootCAs.AppendCertsFromPEM(c.info.RootCAs) {
				return nil, fmt.Errorf("CA of target %s: no certificate in it", c.info.Name)
			}
		}
	default:
		return nil, fmt.Errorf("tls mode %q of target %s is not known", c.info.TLSMode, c.info.Name)
	}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return config, nil
}

// blankConfig parses a connection string that leaves nothing to the
// environment. PGSERVICE cannot be overridden but by another service: an empty
// one of our own.
func blankConfig() (*pgconn.Config, error) {
	text := "host=127.0.0.1 port=1 user=nobody password=none dbname=none sslmode=disable sslcertmode=allow sslnegotiation=postgres " +
		"connect_timeout=10 target_session_attrs=any min_protocol_version=3.0 max_protocol_version=3.0 channel_binding=prefer require_auth=''"
	if os.Getenv("PGSERVICE") != "" {
		f, err := os.CreateTemp("", "hoopctl-service-")
		if err != nil {
			return nil, fmt.Errorf("PGSERVICE is set and cannot be overridden (unset it): %w", err)
		}
		defer os.Remove(f.Name())
		defer f.Close()
		if _, err := f.WriteString("[hoopctl]\nuser=nobody\n"); err != nil {
			return nil, err
		}
		path := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(f.Name())
		text += " service=hoopctl servicefile='" + path + "'"
	}
	config, err := pgconn.ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("the server's PG* environment is in the way (unset it): %w", err)
	}
	return config, nil
}

// guarded puts a guard between a target and pgconn's decoders. It is generic
// because the type that pgconn's frontend builder returns belongs to a package
// that this one does not import.
func guarded[F any](build func(io.Reader, io.Writer) F) func(io.Reader, io.Writer) F {
	return func(r io.Reader, w io.Writer) F { return build(&loginGuard{r: r}, w) }
}

// loginGuard reads along what a target says during log-in and stops it where
// it asks for more than an honest server does: PBKDF2 rounds without end,
// messages without end.
type loginGuard struct {
	r    io.Reader
	head [headerSize]byte
	n    int    // bytes of head that were read
	left int    // bytes of the message that are to come
	sasl []byte // body of an authentication request
}

func (g *loginGuard) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if bad := g.inspect(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

func (g *loginGuard) inspect(b []byte) error {
	for len(b) > 0 {
		if g.left == 0 && g.n < headerSize {
			took := copy(g.head[g.n:], b)
			g.n, b = g.n+took, b[took:]
			if g.n < headerSize {
				return nil
			}
			size := binary.BigEndian.Uint32(g.head[1:])
			if size < 4 || size > maxTold {
				return fmt.Errorf("%w: the target's %q says %d", errLength, g.head[0], size)
			}
			g.left, g.sasl = int(size)-4, g.sasl[:0]
		}
		took := min(g.left, len(b))
		if g.head[0] == 'R' {
			if len(g.sasl)+took > 4096 {
				return fmt.Errorf("%w: the target's authentication request", errLength)
			}
			g.sasl = append(g.sasl, b[:took]...)
		}
		g.left, b = g.left-took, b[took:]
		if g.left == 0 {
			g.n = 0
			if err := g.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

// check reads the iteration count of a server-first-message
// (AuthenticationSASLContinue, code 11).
func (g *loginGuard) check() error {
	if g.head[0] != 'R' || len(g.sasl) < 4 || binary.BigEndian.Uint32(g.sasl) != 11 {
		return nil
	}
	for _, part := range strings.Split(string(g.sasl[4:]), ",") {
		if count, ok := strings.CutPrefix(part, "i="); ok {
			if n, err := strconv.Atoi(count); err != nil || n > maxIterations {
				return fmt.Errorf("the target asks for %.20q SCRAM iterations, more than %d", count, maxIterations)
			}
		}
	}
	return nil
}

// runtimeParams are the settings that the session starts with on the target:
// the client's harmless ones, who it is, and what must not be otherwise.
func (c *conn) runtimeParams() map[string]string {
	params := map[string]string{}
	for name, value := range c.hello.Settings {
		if name != waitSetting && name != resumeSetting {
			params[name] = value
		}
	}
	if params["client_encoding"] == "" {
		params["client_encoding"] = "UTF8"
	}
	params["application_name"] = applicationName(c.hello.Application, c.principal.Name, c.name)
	// As start-up settings they survive RESET ALL and DISCARD ALL.
	params["hoopctl.principal"] = c.principal.Name
	params["hoopctl.groups"] = strings.Join(c.principal.Groups, ",")
	params["standard_conforming_strings"] = "on"
	if c.gate.Hides() {
		for name, value := range pinned {
			params[name] = value
		}
	}
	return params
}

// pinned are settings that change how values look or what is told beside
// them. On a target with tags they start, and stay, as the masks know them.
var pinned = map[string]string{
	"client_encoding": "UTF8", "bytea_output": "hex", "datestyle": "ISO, MDY", "intervalstyle": "postgres",
	"client_min_messages": "notice", "xmlbinary": "base64",
}

// applicationName is the client's own and who is behind it, within the 63
// bytes that PostgreSQL keeps.
func applicationName(own, principal, session string) string {
	tail := fmt.Sprintf("[hoopctl:%s:%s]", principal, session)
	const most = 63
	if len(tail) > most {
		tail = tail[:most]
	}
	if room := most - len(tail) - 1; room > 0 && own != "" {
		return own[:min(len(own), room)] + " " + tail
	}
	return tail
}

// control opens a short-lived connection of the broker's own to the client's
// database of the target: the catalogue is read over it.
func (c *conn) control(ctx context.Context) (*pgconn.PgConn, error) {
	pg, _, err := c.connect(ctx, map[string]string{"application_name": "hoopctl catalogue", "client_encoding": "UTF8"}, c.connectOwn)
	return pg, err
}

// loginRefusal puts a failed log-in into words for the client. What the target
// said of the broker's own credentials is for the log, not for the client.
func (c *conn) loginRefusal(ctx context.Context, err error) *session.Refusal {
	var own *session.Refusal
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &own) || errors.As(err, &own) {
		return own
	}
	r := &session.Refusal{Code: session.CodeUnavailable, Fatal: true,
		Message: fmt.Sprintf("target %s cannot be reached", c.info.Name),
		Hint:    "try again; if it lasts, tell whoever runs the broker"}
	if role := (roleError{}); errors.As(err, &role) {
		r.Message = fmt.Sprintf("target %s did not let the broker make a role for this session", c.info.Name)
		return r
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return r
	}
	switch {
	case pg.Code == "08P01" && strings.HasPrefix(pg.Message, "unsupported startup parameter"):
		// PgBouncer's words for what its ignore_startup_parameters does not name.
		r.Message = fmt.Sprintf("a connection pooler stands before target %s, and refuses what a session must start with", c.info.Name)
		r.Hint = "give the target's own address"
	case pg.Code == "3D000":
		r.Code, r.Message = session.CodeDatabase, fmt.Sprintf("target %s has no database %q", c.info.Name, c.database)
	case pg.Code == "53300":
		r.Code, r.Message = session.CodeTooMany, fmt.Sprintf("target %s takes no more connections", c.info.Name)
	case strings.HasPrefix(pg.Code, "28"):
		r.Message = fmt.Sprintf("target %s refused the broker's own credentials", c.info.Name)
	case strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "42"):
		r.Code = session.CodeProtocol
		r.Message = fmt.Sprintf("target %s refused the session's settings", c.info.Name)
		r.Detail = pg.Message
	}
	return r
}
