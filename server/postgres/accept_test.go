package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// raw opens a connection to the house and sends bytes in one segment.
func (h *house) raw(b []byte) net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr.String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(b); err != nil {
		h.t.Fatal(err)
	}
	return c
}

func packet(code uint32, params ...string) []byte {
	b := appendUint32([]byte{0, 0, 0, 0}, code)
	for _, p := range params {
		b = append(append(b, p...), 0)
	}
	if len(params) > 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// told reads everything until the server closes.
func everything(c net.Conn) string {
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestT01_BufferStuffing(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	for _, stuffed := range [][]byte{
		packet(3<<16, "user", "alice"),
		{'Q', 0, 0, 0, 13, 'S', 'E', 'L', 'E', 'C', 'T', ' ', '1', 0},
	} {
		c := h.raw(append(packet(codeTLS), stuffed...))
		if got := everything(c); !strings.HasPrefix(got, "S") || strings.Contains(got, "SCRAM") || strings.ContainsRune(got, 'Z') {
			t.Errorf("answered %q", got)
		}
	}
	// behind the refusal of GSS encryption the start-up goes on in plaintext anyway
	c := h.raw(append(packet(codeGSS), packet(3<<16, "user", "alice")...))
	b := make([]byte, 2)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "NR" {
		t.Errorf("answered %q, %v", b, err)
	}
	if len(gate.Events()) != 0 {
		t.Errorf("something ran: %s", gate.Summary())
	}
	for _, twice := range [][]byte{append(packet(codeGSS), packet(codeGSS)...), append(packet(codeGSS), packet(1234)...)} {
		if got := everything(h.raw(twice)); strings.Contains(got, "SCRAM") {
			t.Errorf("answered %q", got)
		}
	}
}

func TestT04_DirectTLS(t *testing.T) {
	h := newHouse(t, nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.roots)
	for _, c := range []struct {
		protos []string
		ok     bool
	}{{[]string{alpn}, true}, {nil, false}, {[]string{"h2", "http/1.1"}, false}, {[]string{"h2", alpn}, true}} {
		conn, err := tls.Dial("tcp", h.addr.String(), &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: c.protos})
		if err == nil {
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			conn.Write(packet(3<<16, "user", "alice"))
			var kind [1]byte
			if _, err = io.ReadFull(conn, kind[:]); err == nil && kind[0] != 'R' {
				err = fmt.Errorf("answered %q", kind)
			}
			conn.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("ALPN %q: %v", c.protos, err)
		}
	}
}

func TestTLSAndChannelBinding(t *testing.T) {
	h := newHouse(t, nil)
	h.require = true
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, h.roots, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pgconn.Connect(t.Context(), h.url()); pgErrorOf(t, err).Code != "28000" {
		t.Errorf("plaintext: %v", err)
	}
	url := strings.Replace(h.url("sslmode", "verify-full", "sslrootcert", root, "channel_binding", "require"), "127.0.0.1", "localhost", 1)
	out, stderr, err := h.psql("", "-d", url, "-c", "SELECT 'bound'")
	if err != nil || out != "bound\n" {
		t.Fatalf("psql: %v %s %s", err, out, stderr)
	}
	for _, more := range []string{"&sslnegotiation=direct", "&max_protocol_version=3.2"} {
		conn, err := pgconn.Connect(t.Context(), url+more)
		if err != nil {
			t.Fatalf("%s: %v", more, err)
		}
		conn.Close(t.Context())
	}
	for _, hello := range h.hello {
		if hello.User == "alice" && hello.Secret && hello.TLS == nil {
			t.Error("a secret was proved without TLS")
		}
	}
	h.plain = true
	if _, err := pgconn.Connect(t.Context(), url); err == nil {
		t.Error("connected where no TLS is offered")
	}
}

func TestT15_ProtocolVersions(t *testing.T) {
	h := newHouse(t, nil)
	c := h.raw(packet(3<<16|9, "user", "alice", "_pq_.fancy", "1"))
	f := pgproto3.NewFrontend(c, c)
	m, err := f.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := m.(*pgproto3.NegotiateProtocolVersion); !ok || n.NewestMinorProtocol != protocol3_2 || fmt.Sprint(n.UnrecognizedOptions) != "[_pq_.fancy]" {
		t.Errorf("answered %#v", m)
	}
	c.Close()
	for _, version := range []uint32{2 << 16, 4 << 16, 0} {
		if got := everything(h.raw(packet(version, "user", "alice"))); !strings.Contains(got, "0A000") {
			t.Errorf("version %d: %q", version>>16, got)
		}
	}
	w := h.wire("max_protocol_version", "3.2")
	if len(w.key) != 32 {
		t.Errorf("a key of %d bytes", len(w.key))
	}
	w.send(query("SELECT pg_sleep(60), 'version32'"))
	h.running("version32")
	h.cancel(w.pid, w.key[:4]) // no truncation
	h.running("version32")
	h.cancel(w.pid, w.key)
	w.expect("Z", "T", "E57014", "ZI")
}

func TestT06_LyingLengths(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	for _, n := range []uint32{0, 1, 3, 4, 7, 10_001, 0x7fffffff, 0x80000000, 0xffffffff} {
		c := h.raw(appendUint32(nil, n))
		if got := everything(c); n != 0x16030100 && got != "" && !strings.Contains(got, "08P01") {
			t.Errorf("start-up length %d: %q", n, got)
		}
	}
	for _, kind := range []byte("QPBDECSHXdcfFp") {
		for _, n := range []uint32{0, 1, 3, 1<<30 + 1, 0x7fffffff, 0xffffffff} {
			w := h.wire()
			w.conn.Write(appendUint32([]byte{kind}, n))
			got := w.closed()
			if len(got) != 1 || got[0] != "E08P01" {
				t.Errorf("%q with length %d: %q", kind, n, got)
			}
		}
	}
	for _, e := range gate.Events() {
		if e.What == "admit" {
			t.Errorf("admitted %q", e.Statement)
		}
	}
}

// A length is no reason to allocate: a peer that announces much and sends
// little costs little.
func TestT06_NothingIsAllocatedForALength(t *testing.T) {
	r := newReader(bytes.NewReader(append([]byte{'Q', 0x3f, 0xff, 0xff, 0xff}, make([]byte, 100)...)))
	if err := r.fill(maxHeld); err != nil {
		t.Fatal(err)
	}
	for r.fill(maxHeld) == nil {
	}
	if len(r.buf) > largeBuffer {
		t.Errorf("a buffer of %d bytes for 105", len(r.buf))
	}
	if idle := newReader(nil); len(idle.buf) != smallBuffer {
		t.Errorf("an idle reader keeps %d bytes", len(idle.buf))
	}
}

func TestMalformedMessages(t *testing.T) {
	h := newHouse(t, nil)
	for _, m := range []string{
		"Q\x00\x00\x00\x04", "Q\x00\x00\x00\x06x\x00y"[:7], "Q\x00\x00\x00\x07ab\x00"[:8] + "", "P\x00\x00\x00\x05x", "P\x00\x00\x00\x08\x00\x00\x00\x05",
		"B\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x01\xff\xff"[:13], "B\x00\x00\x00\x10\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00",
		"B\x00\x00\x00\x0a\x00\x00\xff\xff\x7f\xff", "D\x00\x00\x00\x06X\x00", "D\x00\x00\x00\x05S", "E\x00\x00\x00\x05\x00", "C\x00\x00\x00\x06?\x00", "S\x00\x00\x00\x05x",
	} {
		w := h.wire()
		w.conn.Write([]byte(m))
		w.conn.(*net.TCPConn).CloseWrite()
		got := w.closed()
		for _, g := range got {
			if g[0] == 'D' || g[0] == 'C' {
				t.Errorf("%q was answered: %q", m, got)
			}
		}
	}
	h.connect() // the server lives
}

func TestT10_StartupParameters(t *testing.T) {
	var gate *sessiontest.Gate
	h := newHouse(t, nil)
	h.gates = func() *sessiontest.Gate {
		gate = &sessiontest.Gate{Deny: func(s policy.Statement) *session.Refusal {
			if strings.Contains(s.Text, "attacker") || s.Setting == "role" || s.Setting == "session_authorization" {
				return &session.Refusal{Code: session.CodePolicy, Message: "not for you"}
			}
			return nil
		}}
		return gate
	}
	for _, c := range []struct{ name, value, code string }{
		{"search_path", "attacker", "42501"}, {"session_authorization", "postgres", "42501"}, {"role", "postgres", "42501"},
		{"options", "-c search_path=attacker", "42501"}, {"options", "--search-path=attacker", "42501"}, {"options", `-csearch_path=attacker`, "42501"},
		{"options", "-B 100", "08P01"}, {"options", "--single", "08P01"}, {"replication", "true", "08P01"}, {"replication", "database", "08P01"},
		{"hoopctl.principal", "dave", "42501"}, {"options", "-c hoopctl.groups=dba", "42501"}, {"standard_conforming_strings", "off", "42501"},
		{"client_encoding", "SJIS", "08P01"}, {"client_encoding", "GB18030", "08P01"}, {"evil;drop", "x", "08P01"}, {"a'b", "x", "08P01"},
	} {
		_, err := pgconn.Connect(t.Context(), h.url(c.name, c.value))
		if pg := pgErrorOf(t, err); pg.Code != c.code {
			t.Errorf("%s=%s: %s %s", c.name, c.value, pg.Code, pg.Message)
		}
	}
	pg := h.connect("search_path", `"a b", public`, "options", `-c work_mem=7MB -c app.tenant=it\'s\ me`, "datestyle", "German", "replication", "false")
	results, err := pg.Exec(t.Context(), "SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('app.tenant'), current_setting('datestyle')").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(bytes.Join(results[0].Rows[0], []byte("|"))); got != `"a b", public|7MB|it's me|German, DMY` {
		t.Errorf("settings %s", got)
	}
	var admitted []string
	for _, e := range gate.Events() {
		if e.What == "admit" {
			admitted = append(admitted, e.Statement)
		}
	}
	if len(admitted) != 4 || !strings.Contains(strings.Join(admitted, "\n"), "SET search_path TO 'a b', 'public'") {
		t.Errorf("admitted and recorded: %q", admitted)
	}
}

func TestT11_NamesOfUsersAndDatabases(t *testing.T) {
	h := newHouse(t, nil)
	for _, name := range []string{"a\nb", "a\x01b", "a\xffb", strings.Repeat("x", 300)} {
		if got := everything(h.raw(packet(3<<16, "user", "alice", "database", name))); !strings.Contains(got, "08P01") {
			t.Errorf("database %q: %q", name, got)
		}
		if got := everything(h.raw(packet(3<<16, "user", name))); !strings.Contains(got, "08P01") {
			t.Errorf("user %q: %q", name, got)
		}
	}
	if got := everything(h.raw(packet(3<<16, "user", "alice", "user", "dave"))); !strings.Contains(got, "08P01") {
		t.Errorf("two users: %q", got)
	}
	if got := everything(h.raw(packet(3<<16, "database", "x"))); !strings.Contains(got, "28000") {
		t.Errorf("no user: %q", got)
	}
	for _, db := range []string{"postgres?host=evil", "x&sslmode=disable", "host=evil", "postgres host=evil", "%00", "роstgres"} {
		config, err := pgconn.ParseConfig(h.url())
		if err != nil {
			t.Fatal(err)
		}
		config.Database = db
		if _, err := pgconn.ConnectConfig(t.Context(), config); pgErrorOf(t, err).Code != "3D000" {
			t.Errorf("database %q: %v", db, err)
		}
	}
}

func TestWrongSecrets(t *testing.T) {
	h := newHouse(t, nil)
	messages := map[string]bool{}
	for _, user := range []string{"alice", "nobody"} {
		config, err := pgconn.ParseConfig(h.url())
		if err != nil {
			t.Fatal(err)
		}
		config.User = user
		if user != "nobody" {
			config.Password = "wrong"
		}
		_, err = pgconn.ConnectConfig(t.Context(), config)
		pg := pgErrorOf(t, err)
		if pg.Code != "28P01" {
			t.Errorf("%s: %v", user, pg)
		}
		messages[strings.ReplaceAll(pg.Message, user, "")] = true
	}
	if len(messages) != 1 {
		t.Errorf("an unknown user is told otherwise: %v", messages)
	}
	// an unknown user's salt is the same each time
	salts := map[string]bool{}
	for range 2 {
		c := h.raw(packet(3<<16, "user", "nobody"))
		f := pgproto3.NewFrontend(c, c)
		if _, err := f.Receive(); err != nil {
			t.Fatal(err)
		}
		f.Send(&pgproto3.SASLInitialResponse{AuthMechanism: scramPlain, Data: []byte("n,,n=,r=abcdefghijkl")})
		f.Flush()
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		_, salt, _ := strings.Cut(string(m.(*pgproto3.AuthenticationSASLContinue).Data), ",s=")
		salts[salt] = true
		c.Close()
	}
	if len(salts) != 1 {
		t.Errorf("an unknown user's salt changes: %v", salts)
	}
}

func TestT09_MalformedSASL(t *testing.T) {
	h := newHouse(t, nil)
	initial := func(mechanism, data string, lie int) []byte {
		b := append([]byte{'p', 0, 0, 0, 0}, mechanism+"\x00"...)
		b = appendUint32(b, uint32(len(data)+lie))
		return setLength(append(b, data...), 0)
	}
	for name, b := range map[string][]byte{
		"another message": {'Q', 0, 0, 0, 5, 0}, "no length": {'p', 0, 0, 0, 4}, "a long one": append([]byte{'p', 0, 0, 0x10, 0}, make([]byte, 4092)...),
		"a lying one": {'p', 0x7f, 0xff, 0xff, 0xff}, "inner length too long": initial(scramPlain, "n,,n=,r=abcdefghij", 5), "inner length negative": initial(scramPlain, "", -1),
		"unknown mechanism": initial("PLAIN", "\x00a\x00b", 0), "plus without TLS": initial(scramPlus, "p=tls-server-end-point,,n=,r=abcdefghij", 0),
		"no nonce": initial(scramPlain, "n,,n=", 0), "short nonce": initial(scramPlain, "n,,n=,r=a", 0), "authzid": initial(scramPlain, "n,a=x,n=,r=abcdefghij", 0),
		"extension": initial(scramPlain, "n,,m=x,n=,r=abcdefghij", 0), "comma in nonce": initial(scramPlain, "n,,n=,r=abc\x01defghij", 0), "binding flag": initial(scramPlain, "p=tls-unique,,n=,r=abcdefghij", 0),
	} {
		c := h.raw(packet(3<<16, "user", "alice"))
		f := pgproto3.NewFrontend(c, c)
		if _, err := f.Receive(); err != nil {
			t.Fatal(err)
		}
		c.Write(b)
		m, err := f.Receive()
		if err == nil {
			if e, ok := m.(*pgproto3.ErrorResponse); !ok || e.Code != "08P01" {
				t.Errorf("%s: %#v", name, m)
			}
		}
		c.Close()
	}
}

func TestT12_StalledHandshake(t *testing.T) {
	h := newHouse(t, nil)
	for _, begun := range [][]byte{nil, packet(codeTLS), packet(3<<16, "user", "alice"), {0, 0}, {0x16, 3, 1}} {
		ours, theirs := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := h.room.Protocol().Accept(ctx, theirs, h)
			done <- err
		}()
		if _, err := ours.Write(begun); err != nil {
			t.Fatal(err)
		}
		if len(begun) >= 8 {
			ours.Read(make([]byte, 1)) // it is waiting for us now
		}
		cancel()
		if err := <-done; err == nil {
			t.Errorf("%q: accepted", begun)
		}
		ours.Close()
	}
}
