//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	version string        // of PostgreSQL
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
	before   usage
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
	if err := b.startRelay(); err != nil {
		return err
	}
	if err := b.startBouncer(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "hoopctl …")
	if err := b.startHouse(ctx); err != nil {
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
		"shared_buffers=256MB\nmax_connections=%d\nmax_wal_size=4GB\nautovacuum=off\nssl=off\n", port, data, 4*b.options.idle+100)
	if err := os.WriteFile(filepath.Join(data, "postgresql.auto.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	p, err := b.start("postgres", owner, syscall.SIGINT, filepath.Join(b.bin, "postgres"), "-D", data)
	if err != nil {
		return err
	}
	b.servers = append(b.servers, &server{name: "direct", what: "client to PostgreSQL", port: port, user: "postgres"})
	if err := b.await(ctx, p, port); err != nil {
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

func (b *bench) startRelay() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	port := freePort()
	p, err := b.start("relay", "", syscall.SIGTERM, self, "relay", address(port), address(b.servers[0].port))
	if err != nil {
		return err
	}
	b.servers = append(b.servers, &server{name: "go relay", what: "two copies through 64 KiB", proc: p, port: port, user: "postgres"})
	return b.await(context.Background(), p, port)
}

func (b *bench) startBouncer() error {
	port := freePort()
	dir := b.path("bouncer")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	users, conf := filepath.Join(dir, "users.txt"), filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(users, []byte("\"postgres\" \"\"\n"), 0o644); err != nil {
		return err
	}
	text := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%d\nunix_socket_dir=\nauth_type=trust\nauth_file=%s\n"+
		"pool_mode=session\nmax_client_conn=%d\ndefault_pool_size=%d\nlog_connections=0\nlog_disconnections=0\nlog_stats=0\nignore_startup_parameters=extra_float_digits\n",
		b.servers[0].port, port, users, 4*b.options.idle+100, 2*b.options.idle+50)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	p, err := b.start("pgbouncer", owner, syscall.SIGTERM, b.bouncer, conf)
	if err != nil {
		return err
	}
	b.servers = append(b.servers, &server{name: "pgbouncer", what: "session mode", proc: p, port: port, user: "postgres"})
	return b.await(context.Background(), p, port)
}

// variants are the ways in which hoopctl is measured.
var variants = []struct {
	target, name, what, evidence, recording string
	masked, bulkOnly                        bool
}{
	{"b-async", "hoopctl async", "policy; evidence at most 50 ms behind; no payload recorded", "async", "none", false, false},
	{"b-strict", "hoopctl strict", "policy; nothing leaves before its evidence is on the disk; no payload recorded", "strict", "none", false, false},
	{"b-async-rec", "hoopctl async, recorded", "async, and all payload recorded: compressed, encrypted", "async", "full", false, false},
	{"b-strict-rec", "hoopctl strict, recorded", "strict, and all payload recorded: the default", "strict", "full", false, false},
	{"b-async-mask", "hoopctl async, masked", "async, one column masked", "async", "none", true, true},
	{"b-strict-rec-mask", "hoopctl strict, recorded, masked", "strict, recorded, one column masked", "strict", "full", true, true},
}

// startHouse runs `hoopctl dev` with targets of our own, and takes a secret of
// the native endpoint for each.
func (b *bench) startHouse(ctx context.Context) (err error) {
	ready := b.path("ready.json")
	dev := b.path("dev")
	if b.house, err = b.start("hoopctl", "", syscall.SIGTERM, b.hoopctl, "dev", "--dir", dev, "--port", "0", "--pg-port", "0", "--pg-bin", b.bin, "--ready-file", ready); err != nil {
		return err
	}
	for !isFile(ready) {
		if err := pause(ctx, b.house, b); err != nil {
			return err
		}
	}
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
		out, err := b.as(ctx, "", b.hoopctl, "secret", v.target, "--for", "1h", "-o", "json")
		if err != nil {
			return err
		}
		var secret struct {
			User, Password string
			Port           int
		}
		if err := json.Unmarshal(out, &secret); err != nil {
			return fmt.Errorf("hoopctl secret: %w", err)
		}
		b.servers = append(b.servers, &server{name: v.name, what: v.what, proc: b.house, port: secret.Port, user: secret.User, password: secret.Password, bulkOnly: v.bulkOnly, masked: v.masked})
	}
	return nil
}

// resources are the targets, a policy that lets engineers do everything on
// them, and a tag on one column for the masked ones. Nothing is tagged on the
// others: rows pass them unseen.
func (b *bench) resources() string {
	var s strings.Builder
	for _, v := range variants {
		fmt.Fprintf(&s, "kind: Target\nmetadata: {name: %s, labels: {suite: bench, masked: %q}}\nspec: {protocol: postgres, address: %q, database: bench, tls: {mode: disable}, evidence: %s, recording: %s, "+
			"credentials: {username: postgres, passwordFrom: {file: %q}}}\n---\n",
			v.target, strconv.FormatBool(v.masked), address(b.servers[0].port), v.evidence, v.recording, b.path("target.password"))
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
	c, err := dial(s.port, s.user, s.password, "bench", false)
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
func (b *bench) await(ctx context.Context, p *process, port int) error {
	for {
		c, err := dial(port, "postgres", "", "postgres", false)
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
