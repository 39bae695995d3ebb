// Package pgtest starts a real PostgreSQL for tests: a scratch cluster of its
// own below the temporary folder, on a free loopback port, with TLS, SCRAM and
// a random password, gone when the test is.
//
// The binaries are looked for in $HOOPCTL_PG_BIN, in $PATH and where Debian
// puts them. A test that needs PostgreSQL fails without it: a proof that did
// not run is none.
package pgtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Server is a running scratch cluster. Its methods are safe for concurrent use.
type Server struct {
	Port      int
	Superuser string // "postgres"
	Password  string // of Superuser
	CA        []byte // PEM of the authority that signed the server's certificate (127.0.0.1, ::1, localhost)
	Dir       string // holds the data folder, the log and the socket
	BinDir    string // where psql and pgbench lie

	programs string // where initdb and postgres lie
	cmd      *exec.Cmd
	done     chan struct{} // closed when the postmaster is gone
	next     sync.Mutex
	n        int
}

// shared is the one cluster of a test binary whose TestMain calls Main. It is
// process state because TestMain and the tests share nothing else.
var shared struct {
	sync.Mutex
	on     bool
	server *Server
	err    error
	newer  *Server // PostgreSQL 18
	use18  bool
}

// Main runs the tests of a package on one cluster, which the first Start of
// any of them starts. It is the whole body of a TestMain:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
func Main(m *testing.M) int {
	shared.Lock()
	shared.on = true
	shared.Unlock()
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		for _, s := range []*Server{shared.server, shared.newer} {
			if s != nil {
				s.stop()
			}
		}
	}()
	return m.Run()
}

// Start returns a running cluster: the package's one if its TestMain calls
// [Main], else one that stops when t ends. It fails t if there is no
// PostgreSQL or it does not start within a minute. After [Use18] it is the
// cluster of PostgreSQL 18.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.use18 && len(settings) == 0 {
		return shared.newer
	}
	if shared.on && len(settings) == 0 {
		if shared.server == nil && shared.err == nil {
			shared.server, shared.err = start("", nil)
		}
		if shared.err != nil {
			t.Fatal(shared.err)
		}
		return shared.server
	}
	programs := ""
	if shared.use18 {
		programs = shared.newer.programs
	}
	s, err := start(programs, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

// Use18 makes every Start until t ends return PostgreSQL 18, so that one test
// can run others again on it. It skips t, with the reason, where
// .ci/setup.sh could not install PostgreSQL 18; it fails t where it is there
// and does not start. Only for packages whose TestMain calls [Main], and whose
// tests are not parallel.
func Use18(t testing.TB) {
	t.Helper()
	dir, err := BinDir18()
	if err != nil {
		t.Skip("SKIPPED: " + err.Error())
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.newer == nil {
		if shared.newer, err = start(dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	shared.use18 = true
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		shared.use18 = false
	})
}

// URL is a connection string for Superuser on the database "postgres", without TLS.
func (s *Server) URL() string { return s.DatabaseURL("postgres") }

// DatabaseURL is URL for another database.
func (s *Server) DatabaseURL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(s.Superuser, s.Password),
		Host:     s.Address(),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Address is host:port.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// Database makes an empty database for t, runs the SQL in it and returns its
// name. It is dropped, with whoever is still connected, when t ends.
func (s *Server) Database(t testing.TB, sql ...string) string {
	t.Helper()
	s.next.Lock()
	s.n++
	name := fmt.Sprintf("t%d_%d", s.n, os.Getpid())
	s.next.Unlock()
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	t.Cleanup(func() { s.Exec(t, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	for _, q := range sql {
		s.Exec(t, name, q)
	}
	return name
}

// Exec runs SQL (several statements are one transaction) as Superuser and
// returns the last result's rows as text, NULL as "<null>".
func (s *Server) Exec(t testing.TB, database, sql string) [][]string {
	t.Helper()
	rows, err := s.exec(database, sql)
	if err != nil {
		t.Fatalf("pgtest: %s: %v", sql, err)
	}
	return rows
}

func (s *Server) exec(database, sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, s.DatabaseURL(database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	var rows [][]string
	for _, row := range results[len(results)-1].Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			if cells[i] = string(v); v == nil {
				cells[i] = "<null>"
			}
		}
		rows = append(rows, cells)
	}
	return rows, nil
}

// Log is what the server has logged so far. log_statement is all: a statement
// that is not in it never arrived.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (s *Server) logPath() string { return filepath.Join(s.Dir, "log") }

// BinDir is the folder of PostgreSQL's binaries: $HOOPCTL_PG_BIN, that of
// initdb in $PATH, or the newest below /usr/lib/postgresql.
func BinDir() (string, error) {
	if dir := os.Getenv("HOOPCTL_PG_BIN"); dir != "" {
		return dir, nil
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real // its siblings lie beside the file, not beside the link
		}
		return filepath.Dir(p), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errors.New("pgtest: no PostgreSQL here: install the package postgresql (Debian: apt-get install postgresql) or set HOOPCTL_PG_BIN to the folder of initdb")
	}
	slices.SortFunc(found, func(a, b string) int { return debianMajor(a) - debianMajor(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

// BinDir18 is the folder of PostgreSQL 18's initdb and postgres (it may hold no
// clients): $HOOPCTL_PG18_BIN, Debian's, or what .ci/setup.sh installed.
func BinDir18() (string, error) {
	for _, pattern := range []string{
		filepath.Join(os.Getenv("HOOPCTL_PG18_BIN"), "initdb"),
		"/usr/lib/postgresql/18/bin/initdb",
		filepath.Join(Packages(), "@embedded-postgres", "*", "native", "bin", "initdb"),
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 && filepath.IsAbs(found[0]) {
			return filepath.Dir(found[0]), nil
		}
	}
	return "", errors.New("no PostgreSQL 18 here: run .ci/setup.sh, or set HOOPCTL_PG18_BIN to the folder of its initdb")
}

// Packages is the node_modules into which .ci/setup.sh installs what
// testdata/clients/package.json names. It may not exist.
func Packages() string {
	cache := os.Getenv("HOOPCTL_TEST_CACHE")
	switch {
	case cache != "":
	case os.Getuid() == 0:
		cache = "/var/cache/hoopctl-test" // PostgreSQL's own user cannot pass root's home
	case os.Getenv("XDG_CACHE_HOME") != "":
		cache = filepath.Join(os.Getenv("XDG_CACHE_HOME"), "hoopctl-test")
	default:
		cache = filepath.Join(os.Getenv("HOME"), ".cache", "hoopctl-test")
	}
	return filepath.Join(cache, "npm", "node_modules")
}

func debianMajor(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

// start runs the server programs in a folder, "" for those beside the clients.
func start(programs string, settings []string) (*Server, error) {
	bin, err := BinDir()
	if err != nil {
		return nil, err
	}
	if programs == "" {
		programs = bin
	}
	dir, err := os.MkdirTemp("", "hoopctl-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{Superuser: "postgres", Password: rand.Text(), Dir: dir, BinDir: bin, programs: programs}
	if err := s.init(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	// The port was free a moment ago; another process may take it meanwhile.
	for range 3 {
		if err = s.launch(settings); err == nil {
			return s, nil
		}
	}
	os.RemoveAll(dir)
	return nil, err
}

func (s *Server) init() error {
	password := filepath.Join(s.Dir, "password")
	if err := os.WriteFile(password, []byte(s.Password), 0o600); err != nil {
		return err
	}
	key, cert, err := s.certificates()
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{"server.key": key, "server.crt": cert} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), b, 0o600); err != nil {
			return err
		}
	}
	if err := handOver(s.Dir); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.programs, "initdb"), "-D", s.data(), "-U", s.Superuser, "-A", "scram-sha-256",
		"--pwfile", password, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	cmd.Dir = s.Dir
	asOwner(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: initdb: %w\n%s", err, out)
	}
	return os.Remove(password)
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) launch(settings []string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.Port = port
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", s.data(), "-p", strconv.Itoa(port)}
	for _, set := range append([]string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=" + s.Dir, "fsync=off", "log_statement=all",
		"ssl=on", "ssl_key_file=" + filepath.Join(s.Dir, "server.key"), "ssl_cert_file=" + filepath.Join(s.Dir, "server.crt"),
		"max_connections=200", "max_prepared_transactions=5", "shared_buffers=32MB",
	}, settings...) {
		args = append(args, "-c", set)
	}
	s.cmd = exec.Command(filepath.Join(s.programs, "postgres"), args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, log, log
	asOwner(s.cmd)
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("pgtest: start postgres: %w", err)
	}
	s.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		cmd.Wait()
	}(s.cmd, s.done)
	return s.ready()
}

// ready polls, because a postmaster has no event to await.
func (s *Server) ready() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for {
		if _, err := s.exec("postgres", "SELECT 1"); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("pgtest: postgres did not start:\n%s", s.tail())
		case <-late:
			s.halt()
			return fmt.Errorf("pgtest: postgres was not ready within a minute:\n%s", s.tail())
		}
	}
}

func (s *Server) tail() []byte {
	b, _ := os.ReadFile(s.logPath())
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return bytes.TrimSpace(b)
}

func (s *Server) stop() {
	s.halt()
	os.RemoveAll(s.Dir)
}

// halt is PostgreSQL's immediate shutdown: nothing in a scratch cluster is
// worth a checkpoint.
func (s *Server) halt() {
	s.cmd.Process.Signal(immediate)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		s.cmd.Process.Kill()
		<-s.done
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// certificates makes an authority of one use and the server's certificate.
func (s *Server) certificates() (key, cert []byte, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pgtest CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return nil, nil, err
	}
	s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}), nil
}
