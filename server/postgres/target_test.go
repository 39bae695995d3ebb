package postgres

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// refusedLogin connects and wants to be told that the target cannot be had.
func (h *house) refusedLogin(why string) *pgconn.PgError {
	h.t.Helper()
	conn, err := pgconn.Connect(h.t.Context(), h.url())
	if err == nil {
		conn.Close(context.Background())
		h.t.Fatalf("%s: logged in", why)
	}
	pg := pgErrorOf(h.t, err)
	if pg.Code != "57P03" || !strings.HasPrefix(pg.Message, "hoopctl:") {
		h.t.Errorf("%s: told %+v", why, pg)
	}
	return pg
}

// TestTargetAuthentication: one PostgreSQL that asks each account for
// something else.
func TestTargetAuthentication(t *testing.T) {
	authority, pair := clientCertificate(t, "certified")
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755) // PostgreSQL runs as another user when the tests run as root
	os.Chmod(dir, 0o755)
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hba := write("hba", "hostssl all certified all cert\nhostssl all plain all password\nhost all plain all password\nhost all old all md5\nhost all all all scram-sha-256\n")
	server := pgtest.Start(t, "hba_file="+hba, "ssl_ca_file="+write("clients.pem", string(authority)))
	server.Exec(t, "postgres", "CREATE ROLE certified LOGIN; CREATE ROLE plain LOGIN PASSWORD 'p'; SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD 'o'")
	h := newHouse(t, nil)
	h.target.server, h.target.info.Addresses, h.target.info.RootCAs = server, []string{server.Address()}, server.CA
	as := func(c session.Credentials) {
		h.target.login = func(bool) (session.Credentials, error) { return c, nil }
	}
	who := func(want string) {
		t.Helper()
		w := h.wire()
		w.send(query("SELECT current_user || ' ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
		w.expect("Z", "T", "D:"+want+" true", "C:SELECT 1", "ZI")
	}
	t.Run("a client certificate", func(t *testing.T) {
		as(session.Credentials{Username: "certified", Certificate: pair})
		who("certified")
		as(session.Credentials{Username: "certified"})
		h.refusedLogin("without it")
		_, other := clientCertificate(t, "certified")
		as(session.Credentials{Username: "certified", Certificate: other})
		h.refusedLogin("one of another authority")
	})
	t.Run("a password in the clear", func(t *testing.T) {
		as(session.Credentials{Username: "plain", Password: "p"})
		h.refusedLogin("not allowed")
		as(session.Credentials{Username: "plain", Password: "p", Cleartext: true})
		who("plain")
		for _, mode := range []string{"require", "disable"} {
			h.target.info.TLSMode = mode
			h.refusedLogin("allowed, but nobody proved who reads it: " + mode)
		}
		h.target.info.TLSMode = "verify-full"
	})
	t.Run("channel binding", func(t *testing.T) {
		as(session.Credentials{Username: "old", Password: "o"})
		who("old")
		h.target.info.ChannelBinding = "require"
		h.refusedLogin("md5 binds nothing")
		as(session.Credentials{Username: server.Superuser, Password: server.Password})
		who("postgres")
	})
	t.Run("T03 a man in the middle", func(t *testing.T) {
		as(session.Credentials{Username: server.Superuser, Password: server.Password})
		h.target.info.TLSMode, h.target.info.ChannelBinding = "require", ""
		for name, upstream := range map[string]bool{"in plaintext behind": false, "with TLS behind": true} {
			h.target.info.Addresses = []string{relay(t, server.Address(), h.cert, upstream)}
			h.target.info.ChannelBinding = "require"
			h.refusedLogin(name)
			h.target.info.TLSMode = "verify-full"
			h.refusedLogin(name)
			h.target.info.TLSMode = "require"
		}
	})
}

// clientCertificate is one for a user, and the authority that signed it.
func clientCertificate(t *testing.T, name string) (authority []byte, pair *tls.Certificate) {
	t.Helper()
	ca, pem := certificate(t)
	parent, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

var sslRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

// relay is a man in the middle with a certificate of his own.
func relay(t *testing.T, to string, cert tls.Certificate, secure bool) string {
	return fakeTarget(t, func(c net.Conn) {
		io.CopyN(io.Discard, c, 8)
		c.Write([]byte("S"))
		client := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpn}})
		server, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer server.Close()
		if secure {
			server.Write(sslRequest)
			io.ReadFull(server, make([]byte, 1))
			server = tls.Client(server, &tls.Config{InsecureSkipVerify: true})
		}
		go func() { io.Copy(server, client); server.Close() }()
		io.Copy(client, server)
	})
}

// fakeTarget serves each connection to a free port, and returns its address.
func fakeTarget(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

// TestT04_TargetOfAnotherProtocol: a server with a certificate that we would
// believe, which means to speak something else over it, hears nothing of ours.
func TestT04_TargetOfAnotherProtocol(t *testing.T) {
	h := newHouse(t, nil)
	heard := make(chan []byte, 10)
	h.target.info.RootCAs = h.roots
	h.target.info.Addresses = []string{fakeTarget(t, func(c net.Conn) {
		io.CopyN(io.Discard, c, 8)
		c.Write([]byte("S"))
		other := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{h.cert}, NextProtos: []string{"h2", "http/1.1"}})
		b, _ := io.ReadAll(other)
		heard <- b
	})}
	h.refusedLogin("a web server")
	if b := <-heard; len(b) > 0 {
		t.Errorf("it heard %q", b)
	}
}

func TestTargetSessionAttrs(t *testing.T) {
	primary := pgtest.Start(t)
	ephemeral, _, _ := ephemeralHouse(t)
	standby := primary.Standby(t)
	h := newHouse(t, nil)
	for _, c := range []struct {
		attrs     string
		addresses []string
		standby   string // "" : nobody will do
	}{
		{"", []string{standby.Address(), primary.Address()}, "t"},
		{"any", []string{primary.Address(), standby.Address()}, "f"},
		{"primary", []string{standby.Address(), primary.Address()}, "f"},
		{"read-write", []string{standby.Address(), primary.Address()}, "f"},
		{"standby", []string{primary.Address(), standby.Address()}, "t"},
		{"read-only", []string{primary.Address(), standby.Address()}, "t"},
		{"prefer-standby", []string{primary.Address(), standby.Address()}, "t"},
		{"prefer-standby", []string{primary.Address(), "127.0.0.1:1"}, "f"},
		{"primary", []string{standby.Address()}, ""},
		{"standby", []string{primary.Address()}, ""},
	} {
		h.target.info.SessionAttrs, h.target.info.Addresses = c.attrs, c.addresses
		if c.standby == "" {
			h.refusedLogin(c.attrs)
			continue
		}
		w := h.wire()
		w.send(query("SELECT pg_is_in_recovery()"))
		w.expect("Z", "T", "D:"+c.standby, "C:SELECT 1", "ZI")
	}
	// a role is made where it can be made, and the session runs there
	ephemeral.target.info.Addresses = []string{standby.Address(), primary.Address()}
	w := ephemeral.wire()
	w.send(query("SELECT pg_is_in_recovery(), session_user LIKE 'hoopctl\\_%'"))
	w.expect("Z", "T", "D:f,t", "C:SELECT 1", "ZI")
}

// TestPooler: a real PgBouncer behind us. Through it names may mean another
// session's, and whoever stands behind a session is not passed on.
func TestPooler(t *testing.T) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Skip("no pgbouncer here: install the package pgbouncer")
		}
	}
	server := pgtest.Start(t)
	for _, mode := range []string{"session", "transaction"} {
		for _, passes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, identity ignored %v", mode, passes), func(t *testing.T) {
				gate := &sessiontest.Gate{}
				h := newHouse(t, gate)
				h.target.info.Addresses, h.target.info.TLSMode = []string{pgbouncer(t, program, server, mode, passes)}, "disable"
				if !passes {
					pg := h.refusedLogin("without who it is")
					if !strings.Contains(pg.Message, "connection pooler") || !strings.Contains(pg.Hint, "own address") {
						t.Errorf("told %+v", pg)
					}
					return
				}
				h.connect() // a target without tags may be had, in so many words of the pooler's
				gate.Tagged = []policy.Tag{{Tag: "phi"}}
				_, err := pgconn.Connect(t.Context(), h.url())
				if pg := pgErrorOf(t, err); pg.Code != "42501" || !strings.Contains(pg.Message, "connection pooler") {
					t.Errorf("told %+v", pg)
				}
			})
		}
	}
}

// pgbouncer starts one before the server and returns its address.
func pgbouncer(t *testing.T, program string, server *pgtest.Server, mode string, ignore bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir, err := os.MkdirTemp("", "hoopctl-pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = %s\npool_mode = %s\n",
		server.Port, port, filepath.Join(dir, "users"), mode)
	if ignore {
		config += "ignore_startup_parameters = hoopctl.principal,hoopctl.groups,intervalstyle,bytea_output,client_min_messages,xmlbinary\n"
	}
	for name, content := range map[string]string{"ini": config, "users": fmt.Sprintf("%q %q\n", server.Superuser, server.Password)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(dir, 0o755)
	args := []string{filepath.Join(dir, "ini")}
	if me, err := user.Current(); err == nil && me.Uid == "0" { // it does not run as root
		args = append([]string{"-u", "nobody"}, args...)
	}
	var said bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr, cmd.Stdout = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // it tells nobody when it listens
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return address
		}
		if time.Now().After(late) {
			t.Fatal(errors.Join(err, errors.New(said.String())))
		}
	}
}
