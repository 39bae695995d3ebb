package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgproto3/v2"

	"github.com/hoopctl/hoopctl/server/session"
)

const (
	// handshakeTimeout bounds start-up, TLS and authentication together.
	handshakeTimeout = 10 * time.Second
	// maxStartup is the longest start-up packet, as in PostgreSQL (MAX_STARTUP_PACKET_LENGTH).
	maxStartup = 10_000

	// Request codes in place of a version (src/include/libpq/pqcomm.h).
	codeCancel = 80877102
	codeTLS    = 80877103
	codeGSS    = 80877104

	protocol3_2 = 3<<16 | 2
	alpn        = "postgresql"
)

// aLongTimeAgo is a deadline that has passed: it wakes what blocks on a connection.
var aLongTimeAgo = time.Unix(1, 0)

// Accept implements session.Protocol.
func (c *conn) Accept(ctx context.Context, client net.Conn, auth session.Authenticator) (session.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { client.SetDeadline(aLongTimeAgo) })
	c.client, c.owner = client, auth.Owner()
	hello, err := c.accept(ctx, auth)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	return hello, err
}

func (c *conn) accept(ctx context.Context, auth session.Authenticator) (session.Hello, error) {
	var hello session.Hello
	packet, err := c.negotiate(ctx, auth)
	if err != nil {
		return hello, err
	}
	start, err := decodeStartup(packet)
	if err != nil {
		return hello, c.refuseStartup("08P01", "invalid start-up packet", err.Error())
	}
	if auth.RequireTLS() && c.tls == nil {
		return hello, c.refuseStartup("28000", "TLS is required here", "connect with sslmode=require or better")
	}
	hello, err = c.greet(&start)
	if err != nil {
		return hello, err
	}
	if c.tls != nil {
		state := c.tls.ConnectionState()
		if hello.TLS = &state; len(state.VerifiedChains) > 0 {
			return hello, c.send(say(nil, &pgproto3.AuthenticationOk{}))
		}
	}
	if err := c.authenticate(ctx, auth, hello.User); err != nil {
		return hello, err
	}
	hello.Secret = true
	return hello, nil
}

// negotiate answers what comes before the start-up packet, and returns that
// one without its length. A client may ask for encryption once by each name.
//
// Every read takes exactly the packet: a byte that was sent ahead of a TLS
// handshake is never kept, and breaks the handshake (CVE-2021-23214).
func (c *conn) negotiate(ctx context.Context, auth session.Authenticator) ([]byte, error) {
	askedTLS, askedGSS := false, false
	for {
		packet, direct, err := c.startupPacket()
		if err != nil {
			return nil, err
		}
		if direct {
			if askedTLS {
				return nil, c.refuseStartup("08P01", "TLS was already negotiated", "")
			}
			askedTLS = true
			if err := c.directTLS(ctx, auth, packet); err != nil {
				return nil, err
			}
			continue
		}
		switch code := binary.BigEndian.Uint32(packet); {
		case code == codeTLS && !askedTLS:
			askedTLS = true
			if err := c.requestedTLS(ctx, auth); err != nil {
				return nil, err
			}
		case code == codeGSS && !askedGSS:
			askedGSS = true
			if err := c.send([]byte{'N'}); err != nil {
				return nil, err
			}
		case code == codeCancel:
			return nil, c.cancelRequest(ctx, packet[4:])
		default:
			return packet, nil
		}
	}
}

// startupPacket reads one packet without type byte. direct is true if it is
// the beginning of a TLS handshake instead; what was read of it is returned.
func (c *conn) startupPacket() (packet []byte, direct bool, err error) {
	var head [4]byte
	if _, err := io.ReadFull(c.client, head[:]); err != nil {
		return nil, false, fmt.Errorf("read start-up packet: %w", err)
	}
	if head[0] == 0x16 { // a TLS record of type handshake: no start-up packet is that long
		return head[:], true, nil
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 8 || n > maxStartup {
		return nil, false, c.refuseStartup("08P01", "invalid length of start-up packet", fmt.Sprintf("it says %d bytes", n))
	}
	packet = make([]byte, n-4)
	if _, err := io.ReadFull(c.client, packet); err != nil {
		return nil, false, fmt.Errorf("read start-up packet: %w", err)
	}
	return packet, false, nil
}

func (c *conn) requestedTLS(ctx context.Context, auth session.Authenticator) error {
	config := auth.TLS()
	if config == nil {
		return c.send([]byte{'N'})
	}
	if err := c.send([]byte{'S'}); err != nil {
		return err
	}
	return c.startTLS(ctx, config, nil)
}

// directTLS is sslnegotiation=direct of PostgreSQL 17: ALPN must name us, so
// that a browser or mail client cannot be tricked into speaking here.
func (c *conn) directTLS(ctx context.Context, auth session.Authenticator, begun []byte) error {
	config := auth.TLS()
	if config == nil {
		return errors.New("the client began TLS, which is not spoken here")
	}
	if err := c.startTLS(ctx, config, begun); err != nil {
		return err
	}
	if got := c.tls.ConnectionState().NegotiatedProtocol; got != alpn {
		return c.refuseStartup("08P01", "direct TLS needs ALPN postgresql", fmt.Sprintf("the client offered %q", got))
	}
	return nil
}

// startTLS does the handshake and notes which of our certificates was shown:
// its hash is what SCRAM-SHA-256-PLUS binds to.
func (c *conn) startTLS(ctx context.Context, config *tls.Config, begun []byte) error {
	config = config.Clone()
	config.NextProtos = []string{alpn}
	// A shown certificate is only known to us if the choice goes through here.
	choose, own := config.GetCertificate, config.Certificates
	config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := chooseCertificate(h, choose, own)
		if err == nil && len(cert.Certificate) > 0 {
			c.endPoint = endPoint(cert.Certificate[0])
		}
		return cert, err
	}
	config.Certificates = nil
	raw := c.client
	if begun != nil {
		raw = &begunConn{Conn: raw, begun: begun}
	}
	secured := tls.Server(raw, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.client, c.tls = secured, secured
	return nil
}

func chooseCertificate(h *tls.ClientHelloInfo, choose func(*tls.ClientHelloInfo) (*tls.Certificate, error), own []tls.Certificate) (*tls.Certificate, error) {
	if choose != nil {
		if cert, err := choose(h); cert != nil || err != nil {
			return cert, err
		}
	}
	for i := range own {
		if h.SupportsCertificate(&own[i]) == nil {
			return &own[i], nil
		}
	}
	if len(own) > 0 {
		return &own[0], nil
	}
	return nil, errors.New("no certificate to show")
}

// begunConn gives back the first bytes of a handshake that were read already.
type begunConn struct {
	net.Conn
	begun []byte
}

func (b *begunConn) Read(p []byte) (int, error) {
	if len(b.begun) > 0 {
		n := copy(p, b.begun)
		b.begun = b.begun[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// greet checks the start-up packet and negotiates the version.
func (c *conn) greet(start *startup) (session.Hello, error) {
	var hello session.Hello
	if start.version>>16 != 3 {
		return hello, c.refuseStartup("0A000", fmt.Sprintf("unsupported frontend protocol %d.%d", start.version>>16, start.version&0xffff), "protocol 3.0 to 3.2 are spoken")
	}
	var unknown []string
	for _, p := range start.params {
		if strings.HasPrefix(p[0], "_pq_.") {
			unknown = append(unknown, p[0])
		}
	}
	c.version = min(start.version, protocol3_2)
	if start.version > protocol3_2 || len(unknown) > 0 {
		if err := c.send(negotiateMessage(nil, c.version, unknown)); err != nil {
			return hello, err
		}
	}
	hello, asked, problem := readStartup(start)
	if problem != "" {
		return hello, c.refuseStartup("08P01", problem, "")
	}
	if hello.User == "" {
		return hello, c.refuseStartup("28000", "no user name in the start-up packet", "")
	}
	c.hello, c.asked = hello, asked
	return hello, nil
}

// harmlessSettings may be given at start-up without asking anybody: they
// change how values are written or how long the client waits, not what is read.
var harmlessSettings = []string{
	"application_name", "client_encoding", "client_min_messages", "datestyle", "default_transaction_deferrable",
	"default_transaction_isolation", "default_transaction_read_only", "extra_float_digits", "bytea_output",
	"idle_in_transaction_session_timeout", "idle_session_timeout", "intervalstyle", "jit", "lc_monetary", "lc_numeric",
	"lc_time", "lock_timeout", "statement_timeout", "timezone",
}

// These settings are for the broker alone and never reach the target.
const (
	// waitSetting: "off" asks that a statement which people must answer first
	// is refused at once, with its request's name, instead of being held.
	waitSetting = "hoopctl.wait"
	// resumeSetting names the approved request by which such a statement may
	// run; without that approval it is refused.
	resumeSetting = "hoopctl.resume"
)

// setting is one that the client asked for at start-up and that is not
// harmless: it is set by a statement that must be admitted like any other.
type setting struct{ name, value string }

// readStartup sorts the parameters. problem is why the client cannot be
// served, "" if it can.
func readStartup(start *startup) (hello session.Hello, asked []setting, problem string) {
	hello.Settings = map[string]string{}
	settings := make([]setting, 0, len(start.params))
	for _, p := range start.params {
		name, value := p[0], p[1]
		if !plain(name) || !plain(value) {
			return hello, nil, "control characters or invalid UTF-8 in the start-up packet"
		}
		switch {
		case name == "user":
			hello.User = value
		case name == "database":
			hello.Database = value
		case name == "replication":
			if !slices.Contains([]string{"false", "off", "no", "0"}, strings.ToLower(value)) {
				return hello, nil, "replication is not spoken through the broker"
			}
		case name == "options":
			more, bad := splitOptions(value)
			if bad != "" {
				return hello, nil, "cannot pass on options: " + bad
			}
			settings = append(settings, more...)
		case strings.HasPrefix(name, "_pq_."): // negotiated away
		default:
			settings = append(settings, setting{name, value})
		}
	}
	if len(hello.User) > 256 || len(hello.Database) > 256 {
		return hello, nil, "user or database name too long"
	}
	for _, s := range settings {
		lower := strings.ToLower(s.name)
		switch {
		case !settingName(lower):
			return hello, nil, fmt.Sprintf("%q is not the name of a setting", s.name)
		case lower == "client_encoding" && unsafeEncoding(s.value):
			return hello, nil, fmt.Sprintf("client_encoding %s is not safe to parse: use UTF8", s.value)
		case slices.Contains(harmlessSettings, lower), lower == waitSetting, lower == resumeSetting:
			hello.Settings[lower] = s.value
		default:
			asked = append(asked, setting{lower, s.value})
		}
	}
	hello.Application = hello.Settings["application_name"]
	return hello, asked, ""
}

// plain is valid UTF-8 without control characters. (A NUL cannot come: it ends the string.)
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// settingName is an identifier, or two with a dot between them.
func settingName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r == '_'
		if !letter && (i == 0 || r != '.' && r != '$' && (r < '0' || r > '9')) {
			return false
		}
	}
	return true
}

// unsafeEncoding is true for client encodings whose second bytes may look like
// ASCII: what the parser reads would not be what PostgreSQL reads. Those are
// the encodings that PostgreSQL allows to clients only
// (https://www.postgresql.org/docs/current/multibyte.html).
func unsafeEncoding(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "", "'", "").Replace(name))
	switch name {
	case "big5", "win950", "windows950", "gb18030", "gbk", "win936", "windows936", "johab", "sjis", "mskanji", "shiftjis",
		"win932", "windows932", "shiftjis2004", "sjis2004", "uhc", "win949", "windows949":
		return true
	}
	return false
}

// splitOptions reads the command-line form of settings (-c name=value,
// --name=value; libpq's PGOPTIONS) as PostgreSQL splits it (pg_split_opts).
// Everything else that a command line may say is refused.
func splitOptions(options string) (out []setting, bad string) {
	var words []string
	var word []rune
	open, escaped := false, false
	for _, r := range options {
		switch {
		case escaped:
			word, escaped = append(word, r), false
		case r == '\\':
			escaped, open = true, true
		case unicode.IsSpace(r):
			if open {
				words, word, open = append(words, string(word)), nil, false
			}
		default:
			word, open = append(word, r), true
		}
	}
	if open {
		words = append(words, string(word))
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		case strings.HasPrefix(w, "-c") && len(w) > 2:
			w = w[2:]
		default:
			return nil, fmt.Sprintf("%q is not -c name=value", w)
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Sprintf("%q has no value", w)
		}
		out = append(out, setting{strings.ReplaceAll(name, "-", "_"), value})
	}
	return out, ""
}

// authenticate runs SCRAM-SHA-256 against the verifier that the house keeps.
func (c *conn) authenticate(ctx context.Context, auth session.Authenticator, user string) error {
	text, err := auth.Verifier(ctx, user)
	if err != nil {
		var r *session.Refusal
		if errors.As(err, &r) {
			c.Refuse(r)
			return err
		}
		return c.refuseStartup("28000", "authentication is not possible now", err.Error())
	}
	s := scramServer{mock: text == "", binding: c.endPoint}
	if s.mock {
		s.verifier = mockVerifier(c.room.mockKey, user)
	} else if s.verifier, err = parseVerifier(text); err != nil {
		return c.refuseStartup("28000", "authentication is not possible now", "")
	}
	err = c.exchange(&s)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errProof):
		r := &session.Refusal{Code: session.CodeSecret, Message: fmt.Sprintf("wrong secret for %q", user), Fatal: true,
			Hint: "use the connection string as it was printed; a secret or forward may have ended: connect again"}
		c.Refuse(r)
		return err
	case errors.Is(err, errSCRAM):
		return c.refuseStartup("08P01", err.Error(), "")
	default:
		return err
	}
}

func (c *conn) exchange(s *scramServer) error {
	mechanisms := []string{scramPlain}
	if s.binding != nil {
		mechanisms = []string{scramPlus, scramPlain}
	}
	if err := c.send(say(nil, &pgproto3.AuthenticationSASL{AuthMechanisms: mechanisms})); err != nil {
		return err
	}
	message, err := c.saslMessage()
	if err != nil {
		return err
	}
	in := cursor{b: message}
	mechanism := string(in.text())
	first := in.cut(int(in.int32()))
	if in.end("SASLInitialResponse") != nil {
		return errSCRAM
	}
	answer, err := s.first(mechanism, first)
	if err != nil {
		return err
	}
	if err := c.send(say(nil, &pgproto3.AuthenticationSASLContinue{Data: answer})); err != nil {
		return err
	}
	if message, err = c.saslMessage(); err != nil {
		return err
	}
	if answer, err = s.final(message); err != nil {
		return err
	}
	out := say(nil, &pgproto3.AuthenticationSASLFinal{Data: answer})
	return c.send(say(out, &pgproto3.AuthenticationOk{}))
}

// saslMessage reads the body of one 'p' message.
func (c *conn) saslMessage() ([]byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(c.client, head[:]); err != nil {
		return nil, fmt.Errorf("read SASL message: %w", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != 'p' || n < 4 || n > maxSASL+4 {
		return nil, fmt.Errorf("%w: expected a SASL response of at most %d bytes", errSCRAM, maxSASL)
	}
	message := make([]byte, n-4)
	if _, err := io.ReadFull(c.client, message); err != nil {
		return nil, fmt.Errorf("read SASL message: %w", err)
	}
	return message, nil
}

// send writes to the client during start-up, when nobody else does.
func (c *conn) send(b []byte) error {
	if _, err := c.client.Write(b); err != nil {
		return fmt.Errorf("write to the client: %w", err)
	}
	return nil
}

// refuseStartup tells the client why not and returns the same as an error.
func (c *conn) refuseStartup(code, message, detail string) error {
	c.send(say(nil, &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code,
		Message: clean("hoopctl: " + message), Detail: clean(detail)}))
	c.closeTLS()
	if detail != "" {
		return fmt.Errorf("%s: %s", message, detail)
	}
	return errors.New(message)
}

// closeTLS says that nothing more comes, as PostgreSQL does: without it the end
// looks like a cut to the client's TLS, and libpq tells of a broken transport
// behind the reason that it was given.
func (c *conn) closeTLS() {
	if c.tls != nil {
		c.tls.SetWriteDeadline(time.Now().Add(farewell))
		c.tls.CloseWrite()
	}
}

// Refuse implements session.Protocol.
func (c *conn) Refuse(r *session.Refusal) {
	fatal := *r
	fatal.Fatal = true
	c.client.SetWriteDeadline(time.Now().Add(farewell))
	c.client.Write(errorMessage(nil, &fatal, ""))
	c.closeTLS()
}

// databases that a target offers: its default, and those it lists.
func databaseOf(hello *session.Hello, info *session.TargetInfo) (string, *session.Refusal) {
	asked := hello.Database
	if asked == "" || asked == info.Database {
		return info.Database, nil
	}
	if slices.Contains(info.Databases, asked) {
		return asked, nil
	}
	if asked == hello.User { // libpq's default where no database was named
		return info.Database, nil
	}
	offered := append([]string{info.Database}, info.Databases...)
	return "", &session.Refusal{Code: session.CodeDatabase, Fatal: true,
		Message: fmt.Sprintf("target %s has no database %q", info.Name, asked),
		Hint:    "it offers " + strings.Join(slices.Compact(offered), ", ")}
}
