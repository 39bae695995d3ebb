//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	options
	dir       string
	out       io.Writer
	bin       string // of PostgreSQL's programs
	bouncer   string
	processes []*process
	house     *process // hoopctl dev

	servers []*server
	results map[cell][]sample
	idle    []idleResult
	synced  time.Duration // one small write and fdatasync in the evidence's folder
	startUp time.Duration // of hoopctl version
	crowd   *server       // of -many

	apiPort, nativePort int    // of hoopctl dev
	version             string // of PostgreSQL
}

// server is one way to the database.
type server struct {
	name     string
	what     string
	proc     *process // nil: nothing stands between
	port     int
	user     string
	password string
	bulkOnly bool
	masked   bool
	secure   bool // TLS on every side
}

// withTLS ends the names of servers that speak TLS.
const withTLS = ", TLS"

func (s *server) sslmode() string {
	if s.secure {
		return "require"
	}
	return "disable"
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) environment() []string {
	keep := []string{"PATH=" + os.Getenv("PATH"), "LANG=C", "HOME=" + os.Getenv("HOME"), "HOOPCTL_HOME=" + b.path("home"), "TMPDIR=" + os.TempDir()}
	return keep
}

// owner is whom PostgreSQL and pgbouncer run as where this user is root.
const owner = "postgres"

func (b *bench) setUp(ctx context.Context) error {
	if err := b.findPrograms(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "PostgreSQL and data …")
	if err := b.startPostgres(ctx); err != nil {
		return err
	}
	for _, secure := range []bool{false, true} {
		if err := b.startRelay(secure); err != nil {
			return err
		}
		if err := b.startBouncer(secure); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, "hoopctl …")
	if err := b.startHouse(ctx); err != nil {
		return err
	}
	if err := b.gather(ctx); err != nil {
		return err
	}
	for _, s := range b.servers {
		if err := b.check(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	var err error
	b.synced, err = syncTime(b.path("dev"))
	return err
}

// findPrograms looks for what is measured against, and installs pgbouncer
// where that asks no question.
func (b *bench) findPrograms() error {
	folders := []string{os.Getenv("HOOPCTL_PG_BIN")}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(found, func(x, y string) int { return pgMajor(y) - pgMajor(x) })
	folders = append(folders, found...)
	if p, err := exec.LookPath("initdb"); err == nil {
		folders = append(folders, filepath.Dir(p))
	}
	for _, f := range folders {
		if f != "" && isFile(filepath.Join(f, "initdb")) && isFile(filepath.Join(f, "pgbench")) {
			b.bin = f
			break
		}
	}
	if b.bin == "" {
		return errors.New("PostgreSQL's initdb and pgbench are not there: apt-get install postgresql postgresql-contrib, or set HOOPCTL_PG_BIN")
	}
	if b.bouncer = findBouncer(); b.bouncer == "" && os.Getuid() == 0 {
		fmt.Fprintln(os.Stderr, "installing pgbouncer")
		// Not as a service: nothing may be left running.
		if err := exec.Command("sh", "-c", `apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pgbouncer >/dev/null`).Run(); err != nil {
			return fmt.Errorf("install pgbouncer: %w", err)
		}
		b.bouncer = findBouncer()
	}
	if b.bouncer == "" {
		return errors.New("pgbouncer is not there: sudo apt-get install pgbouncer")
	}
	return nil
}

func findBouncer() string {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	return ""
}

func pgMajor(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

func isFile(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// startPostgres makes a scratch cluster without fsync and fills it: pgbench's
// tables at scale 10, and 200,000 patients of 307 bytes a row on the wire.
func (b *bench) startPostgres(ctx context.Context) error {
	data := b.path("pg")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := b.give(data); err != nil {
		return err
	}
	if _, err := b.as(ctx, owner, filepath.Join(b.bin, "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C"); err != nil {
		return err
	}
	port := freePort()
	conf := fmt.Sprintf("listen_addresses='127.0.0.1'\nport=%d\nunix_socket_directories='%s'\nfsync=off\nsynchronous_commit=off\nfull_page_writes=off\n"+
		"shared_buffers=256MB\nmax_connections=%d\nmax_wal_size=4GB\nautovacuum=off\nssl=on\n", port, data, 8*b.options.idle+200)
	if err := os.WriteFile(filepath.Join(data, "postgresql.auto.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	if err := b.certificate(data, "server"); err != nil {
		return err
	}
	p, err := b.start("postgres", owner, syscall.SIGINT, filepath.Join(b.bin, "postgres"), "-D", data)
	if err != nil {
		return err
	}
	b.servers = append(b.servers, &server{name: "direct", what: "client to PostgreSQL", port: port, user: "postgres"},
		&server{name: "direct" + withTLS, what: "client to PostgreSQL", port: port, user: "postgres", secure: true})
	if err := b.await(ctx, p, port, false); err != nil {
		return err
	}
	return b.fill(ctx, port)
}

const makePatients = `CREATE TABLE patients (id int PRIMARY KEY, name text, ssn text, email text, phone text, dob date, mrn text, zip text, diagnosis text, notes text);
INSERT INTO patients SELECT g, 'Given' || g % 977 || ' Family' || g % 1013, to_char(g % 900 + 1, 'FM000') || '-' || to_char(g % 99 + 1, 'FM00') || '-' || to_char(g % 9999 + 1, 'FM0000'),
 'person' || g || '@example.org', '+1-555-' || to_char(g % 1000, 'FM000') || '-' || to_char(g % 10000, 'FM0000'), date '1940-01-01' + g % 25000,
 'MRN' || to_char(g, 'FM00000000'), to_char(g % 100000, 'FM00000'), 'ICD-' || g % 5000, repeat('follow-up as planned; ', 6) || md5(g::text) FROM generate_series(1, 200000) g`

func (b *bench) fill(ctx context.Context, port int) error {
	c, err := dial(port, "postgres", "", "postgres", false)
	if err != nil {
		return err
	}
	defer c.Close()
	row, err := c.value("SHOW server_version")
	if err != nil {
		return err
	}
	b.version = row
	if _, err := c.query("CREATE DATABASE bench"); err != nil {
		return err
	}
	if _, err := b.pgbench(ctx, &server{port: port, user: "postgres"}, "-i", "-q", "-s", "10"); err != nil {
		return err
	}
	db, err := dial(port, "postgres", "", "bench", false)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, sql := range strings.Split(makePatients, ";\n") {
		if _, err := db.query(sql); err != nil {
			return err
		}
	}
	_, err = db.query("VACUUM (FREEZE, ANALYZE)")
	return err
}

// certificate makes a self-signed certificate for localhost: NAME.crt and
// NAME.key in a folder of PostgreSQL's user. Nobody here verifies it.
func (b *bench) certificate(dir, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		file := filepath.Join(dir, name+suffix)
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
		if err := b.give(file); err != nil {
			return err
		}
	}
	return nil
}

// peer appends a server beside hoopctl and waits for it.
func (b *bench) peer(p *process, name, what string, port int, secure bool) error {
	s := &server{name: name, what: what, proc: p, port: port, user: "postgres", secure: secure}
	if secure {
		s.name += withTLS
	}
	b.servers = append(b.servers, s)
	return b.await(context.Background(), p, port, secure)
}

func (b *bench) startRelay(secure bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	port := freePort()
	cert, key, name := "", "", "relay"
	if secure {
		cert, key, name = b.path("pg/server.crt"), b.path("pg/server.key"), "relay-tls"
	}
	p, err := b.start(name, "", syscall.SIGTERM, self, "relay", address(port), address(b.servers[0].port), cert, key)
	if err != nil {
		return err
	}
	return b.peer(p, "go relay", "two copies through 64 KiB", port, secure)
}

func (b *bench) startBouncer(secure bool) error {
	name, more := "bouncer", ""
	if secure {
		name = "bouncer-tls"
		more = fmt.Sprintf("client_tls_sslmode=require\nclient_tls_cert_file=%s\nclient_tls_key_file=%s\nserver_tls_sslmode=require\n", b.path("pg/server.crt"), b.path("pg/server.key"))
	}
	p, port, err := b.bouncerIn(name, "session", 4*b.options.idle+100, 2*b.options.idle+50, more)
	if err != nil {
		return err
	}
	return b.peer(p, "pgbouncer", "session mode", port, secure)
}

// bouncerIn starts a pgbouncer with settings of its own.
func (b *bench) bouncerIn(name, mode string, clients, pool int, more string) (*process, int, error) {
	port := freePort()
	dir := b.path(name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, 0, err
	}
	users, conf := filepath.Join(dir, "users.txt"), filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(users, []byte("\"postgres\" \"\"\n"), 0o644); err != nil {
		return nil, 0, err
	}
	text := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%d\nunix_socket_dir=\nauth_type=trust\nauth_file=%s\n"+
		"pool_mode=%s\nmax_client_conn=%d\ndefault_pool_size=%d\nlog_connections=0\nlog_disconnections=0\nlog_stats=0\nignore_startup_parameters=extra_float_digits,hoopctl.principal,hoopctl.groups,search_path,client_min_messages\n%s",
		b.servers[0].port, port, users, mode, clients, pool, more)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, 0, err
	}
	p, err := b.start(name, owner, syscall.SIGTERM, b.bouncer, conf)
	return p, port, err
}

// variants are the ways in which hoopctl is measured.
var variants = []struct {
	target, name, what, evidence, recording string
	masked, bulkOnly, secure                bool
}{
	{"b-async", "hoopctl async", "policy; evidence at most 50 ms behind; no payload recorded", "async", "none", false, false, false},
	{"b-strict", "hoopctl strict", "policy; nothing leaves before its evidence is on the disk; no payload recorded", "strict", "none", false, false, false},
	{"b-async-rec", "hoopctl async, recorded", "async, and all payload recorded: compressed, encrypted", "async", "full", false, false, false},
	{"b-strict-rec", "hoopctl strict, recorded", "strict, and all payload recorded: the default", "strict", "full", false, false, false},
	{"b-async-mask", "hoopctl async, masked", "async, one column masked", "async", "none", true, true, false},
	{"b-strict-rec-mask", "hoopctl strict, recorded, masked", "strict, recorded, one column masked", "strict", "full", true, true, false},
	{"b-async-tls", "hoopctl async" + withTLS, "the same with TLS to client and target", "async", "none", false, false, true},
	{"b-strict-rec-tls", "hoopctl strict, recorded" + withTLS, "the same with TLS to client and target", "strict", "full", false, false, true},
}

// startHouse runs `hoopctl dev` with targets of our own, and takes a secret of
// the native endpoint for each.
func (b *bench) startHouse(ctx context.Context) error {
	b.apiPort, b.nativePort = freePort(), freePort()
	if err := b.startServer(ctx); err != nil {
		return err
	}
	dev := b.path("dev")
	if err := os.WriteFile(b.path("target.password"), []byte(rand.Text()), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(b.path("bench.yaml"), []byte(b.resources()), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{{"dev", "login", "erin", "--dir", dev}, {"apply", "-f", b.path("bench.yaml")}, {"dev", "login", "alice", "--dir", dev}} {
		if _, err := b.as(ctx, "", append([]string{b.hoopctl}, args...)...); err != nil {
			return err
		}
	}
	for _, v := range variants {
		secret, err := b.secret(ctx, v.target)
		if err != nil {
			return err
		}
		b.servers = append(b.servers, &server{name: v.name, what: v.what, proc: b.house, port: secret.Port, user: secret.User, password: secret.Password,
			bulkOnly: v.bulkOnly, masked: v.masked, secure: v.secure})
	}
	return nil
}

// startServer runs `hoopctl dev` until it is ready, on the ports and the folder
// that it had before.
func (b *bench) startServer(ctx context.Context) (err error) {
	ready := b.path("ready.json")
	if b.house, err = b.start("hoopctl", "", syscall.SIGTERM, b.hoopctl, "dev", "--dir", b.path("dev"), "--port", strconv.Itoa(b.apiPort), "--pg-port", strconv.Itoa(b.nativePort),
		"--pg-bin", b.bin, "--ready-file", ready); err != nil {
		return err
	}
	for !isFile(ready) {
		if err := pause(ctx, b.house, b); err != nil {
			return err
		}
	}
	return nil
}

// secret is how a client logs in at the native endpoint.
type secret struct {
	User, Password string
	Port           int
}

func (b *bench) secret(ctx context.Context, target string) (s secret, err error) {
	out, err := b.as(ctx, "", b.hoopctl, "secret", target, "--for", "1h", "-o", "json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("hoopctl secret: %w", err)
	}
	return s, nil
}

// gather makes the target of -many: strict, recorded, with TLS to the client,
// and behind it a pgbouncer that gives PostgreSQL only what runs.
func (b *bench) gather(ctx context.Context) error {
	if b.many == 0 {
		return nil
	}
	p, port, err := b.bouncerIn("bouncer-many", "transaction", b.many+200, 20, "")
	if err != nil {
		return err
	}
	if err := b.await(ctx, p, port, false); err != nil {
		return err
	}
	text := fmt.Sprintf("kind: Target\nmetadata: {name: b-many, labels: {suite: bench, masked: \"false\"}}\nspec: {protocol: postgres, address: %q, database: bench, tls: {mode: disable}, evidence: strict, recording: full, "+
		"credentials: {username: postgres, passwordFrom: {file: %q}}}\n", address(port), b.path("target.password"))
	if err := os.WriteFile(b.path("many.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{{"dev", "login", "erin", "--dir", b.path("dev")}, {"apply", "-f", b.path("many.yaml")}, {"dev", "login", "alice", "--dir", b.path("dev")}} {
		if _, err := b.as(ctx, "", append([]string{b.hoopctl}, args...)...); err != nil {
			return err
		}
	}
	s, err := b.secret(ctx, "b-many")
	b.crowd = &server{name: "hoopctl strict, recorded, TLS to the client", proc: b.house, port: s.Port, user: s.User, password: s.Password, secure: true}
	return err
}

// resources are the targets, a policy that lets engineers do everything on
// them, and a tag on one column for the masked ones. Nothing is tagged on the
// others: rows pass them unseen.
func (b *bench) resources() string {
	var s strings.Builder
	for _, v := range variants {
		mode := "disable"
		if v.secure {
			mode = "require"
		}
		fmt.Fprintf(&s, "kind: Target\nmetadata: {name: %s, labels: {suite: bench, masked: %q}}\nspec: {protocol: postgres, address: %q, database: bench, tls: {mode: %s}, evidence: %s, recording: %s, "+
			"credentials: {username: postgres, passwordFrom: {file: %q}}}\n---\n",
			v.target, strconv.FormatBool(v.masked), address(b.servers[0].port), mode, v.evidence, v.recording, b.path("target.password"))
	}
	s.WriteString(`kind: Classification
metadata: {name: bench}
spec:
  targets: {matchLabels: {suite: bench, masked: "true"}}
  columns: [{column: public.patients.ssn, tag: phi, mask: last4}]
---
kind: GrantRule
metadata: {name: bench}
spec: {groups: [engineers], targets: {matchLabels: {suite: bench}}, maxFor: 2h}
---
kind: Policy
metadata: {name: bench}
spec:
  cedar: |
    @id("bench") permit(principal in Hoop::Group::"engineers", action in [Hoop::Action::"connect", Hoop::Action::"statement"], resource in Hoop::Label::"suite=bench");
`)
	return s.String()
}

// check makes sure that a way leads to the data, and shows of it what it must.
func (b *bench) check(s *server) error {
	c, err := dial(s.port, s.user, s.password, "bench", s.secure)
	if err != nil {
		return err
	}
	defer c.Close()
	got, err := c.value("SELECT ssn FROM patients WHERE id = 1")
	if err != nil {
		return err
	}
	if want := "002-02-0002"; (got == want) == s.masked {
		return fmt.Errorf("it shows %q where the table holds %q", got, want)
	}
	return nil
}

func (b *bench) give(path string) error {
	attr, err := runAs(owner)
	if err != nil || attr.Credential == nil {
		return err
	}
	return os.Chown(path, int(attr.Credential.Uid), int(attr.Credential.Gid))
}

// as runs a program to its end and returns what it printed.
func (b *bench) as(ctx context.Context, user string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var err error
	if cmd.SysProcAttr, err = runAs(user); err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Env = "/", b.environment()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(args[0]), args[min(1, len(args)-1)], err)
	}
	return out, nil
}

// await waits until a server answers.
func (b *bench) await(ctx context.Context, p *process, port int, secure bool) error {
	for {
		c, err := dial(port, "postgres", "", "postgres", secure)
		if err == nil {
			c.Close()
			return nil
		}
		if err := pause(ctx, p, b); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, p *process, b *bench) error {
	if err := p.ended(b); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s did not start: %w", p.name, context.Cause(ctx))
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// syncTime is the median time of a small write and its fdatasync: what strict
// evidence waits for at least once a statement.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, 1<<20); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	times := make([]time.Duration, 101)
	for i := range times {
		begun := time.Now()
		if _, err := f.WriteAt(make([]byte, 512), int64(i)*512); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		times[i] = time.Since(begun)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
