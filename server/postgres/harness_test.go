package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// grammar is the real SQL parser in this process, one for all tests.
var grammar = sync.OnceValues(func() (*sharedParser, error) {
	toWorker, parentOut := io.Pipe()
	parentIn, fromWorker := io.Pipe()
	go sql.ServeWorker(toWorker, fromWorker)
	client, err := sql.NewClient(parentIn, parentOut, "")
	return &sharedParser{client: client}, err
})

type sharedParser struct {
	mu     sync.Mutex
	client *sql.Client
	cache  map[string][]*policy.Facts
}

func (p *sharedParser) Facts(_ context.Context, _, text string) ([]*policy.Facts, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.cache[text]; ok {
		return f, nil
	}
	parsed, err := p.client.Parse(text)
	if err != nil {
		return nil, err
	}
	if p.cache == nil || len(p.cache) > 10_000 {
		p.cache = map[string][]*policy.Facts{}
	}
	p.cache[text] = parsed.Facts
	return parsed.Facts, nil
}

func (p *sharedParser) Parse(_ context.Context, _, text string) (*sql.Parsed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client.Parse(text)
}

// house is a server of one listener: every connection is served by the room
// under test, with a gate from the test.
type house struct {
	t       testing.TB
	room    *Room
	target  *testTarget
	addr    *net.TCPAddr
	secret  string // of every user but "nobody"
	cert    tls.Certificate
	roots   []byte
	plain   bool // no TLS offered
	require bool
	owner   atomic.Value // string

	mu    sync.Mutex
	gates func() *sessiontest.Gate
	last  *sessiontest.Gate
	wg    sync.WaitGroup
	ctx   context.Context
	end   context.CancelCauseFunc
	ended chan error   // what Serve returned, in order
	bench session.Gate // in place of gates, for benchmarks
	hello []session.Hello
}

type houseOption func(*house)

func newHouse(t testing.TB, gate *sessiontest.Gate, options ...houseOption) *house {
	t.Helper()
	server := pgtest.Start(t)
	parser, err := grammar()
	if err != nil {
		t.Fatal(err)
	}
	if gate == nil {
		gate = &sessiontest.Gate{}
	}
	h := &house{t: t, secret: rand.Text(), gates: func() *sessiontest.Gate { return gate }, ended: make(chan error, 10_000),
		target: &testTarget{server: server, info: session.TargetInfo{Name: "clinic", Generation: "1", Addresses: []string{server.Address()},
			Database: "postgres", TLSMode: "verify-full", RootCAs: server.CA, HoldMax: time.Minute, HoldInTransaction: time.Minute}}}
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	h.room = New(Config{Parser: parser, Log: log})
	for _, o := range options {
		o(h)
	}
	h.cert, h.roots = certificate(t)
	h.ctx, h.end = context.WithCancelCause(context.Background())
	h.listen()
	return h
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	defer func() { recover() }() // a session may outlive its test by a moment
	if strings.Contains(string(b), "panic in a session") {
		w.t.Errorf("%s", b)
		return len(b), nil
	}
	w.t.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

func (h *house) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().(*net.TCPAddr)
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			h.wg.Add(1)
			go func() {
				defer h.wg.Done()
				defer client.Close()
				h.serve(client)
			}()
		}
	}()
	h.t.Cleanup(func() {
		h.end(&session.Refusal{Code: session.CodeUnavailable, Message: "the server shuts down", Fatal: true})
		l.Close()
		h.wg.Wait()
	})
}

func (h *house) serve(client net.Conn) {
	p := h.room.Protocol()
	hello, err := p.Accept(h.ctx, client, h)
	h.mu.Lock()
	h.hello = append(h.hello, hello)
	h.mu.Unlock()
	if err != nil {
		h.ended <- fmt.Errorf("accept: %w", err)
		return
	}
	h.mu.Lock()
	gate := h.gates()
	h.last = gate
	h.mu.Unlock()
	if h.bench != nil {
		p.Serve(h.ctx, h.target, h.bench)
		return
	}
	h.ended <- p.Serve(h.ctx, h.target, gate)
}

// Verifier and what follows make the house a session.Authenticator.
func (h *house) Verifier(_ context.Context, user string) (string, error) {
	if user == "nobody" {
		return "", nil
	}
	return scramVerifier(h.secret), nil
}

func (h *house) TLS() *tls.Config {
	if h.plain {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{h.cert}, MinVersion: tls.VersionTLS12}
}

func (h *house) RequireTLS() bool { return h.require }
func (h *house) Owner() string {
	owner, _ := h.owner.Load().(string)
	return owner
}

func scramVerifier(password string) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	salted, err := pbkdf2.Key(sha256.New, password, salt, 4096, 32)
	if err != nil {
		panic(err)
	}
	mac := func(key []byte, m string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(m))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$4096:%s$%s:%s", b64(salt), b64(stored[:]), b64(mac(salted, "Server Key")))
}

// url is a connection string to the house.
func (h *house) url(params ...string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("alice", h.secret), Host: h.addr.String(), Path: "/" + h.target.info.Database}
	q := url.Values{}
	q.Set("sslmode", "disable")
	for i := 0; i+1 < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // libpq knows no +
	return u.String()
}

// connect is a pgconn client of the house.
func (h *house) connect(params ...string) *pgconn.PgConn {
	h.t.Helper()
	conn, err := pgconn.Connect(h.t.Context(), h.url(params...))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// psql runs the real psql and returns what it printed.
func (h *house) psql(stdin string, args ...string) (stdout, stderr string, err error) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), filepath.Join(h.target.server.BinDir, "psql"),
		append([]string{"-X", "-A", "-t", "-v", "VERBOSITY=verbose", h.url()}, args...)...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C.UTF-8"}
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// testTarget is the scratch cluster as a session.Target.
type testTarget struct {
	server *pgtest.Server
	info   session.TargetInfo
	dial   func(ctx context.Context, address string) (net.Conn, error)
	login  func(again bool) (session.Credentials, error)

	mu    sync.Mutex
	dials int
}

func (t *testTarget) Dial(ctx context.Context, address string) (net.Conn, error) {
	t.mu.Lock()
	t.dials++
	t.mu.Unlock()
	if t.dial != nil {
		return t.dial(ctx, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

func (t *testTarget) Login(_ context.Context, again bool) (session.Credentials, error) {
	if t.login != nil {
		return t.login(again)
	}
	return session.Credentials{Username: t.server.Superuser, Password: t.server.Password}, nil
}

func (t *testTarget) Info() session.TargetInfo { return t.info }

// certificate is the house's own, self-signed, for localhost.
func certificate(t testing.TB) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pgErrorOf(t testing.TB, err error) *pgconn.PgError {
	t.Helper()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		t.Fatalf("not an error of the server: %v", err)
	}
	return pg
}
