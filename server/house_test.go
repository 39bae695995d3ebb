package server_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/client/forward"
	"github.com/hoopctl/hoopctl/cmd/hoopctl/devdata"
	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/devidp"
	"github.com/hoopctl/hoopctl/server/parser"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

// TestMain lets the test binary be the parser's child, as hoopctl itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__parse" {
		os.Exit(parser.Main(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(pgtest.Main(m))
}

const sample = `
CREATE TABLE patients(id int PRIMARY KEY, name text, ssn text, email text, phone text, dob date, mrn text, zip text, diagnosis text, notes text);
INSERT INTO patients SELECT i, 'Pat '||i, lpad((100+i%600)::text,3,'0')||'-'||lpad((1+i%99)::text,2,'0')||'-'||lpad((1000+i)::text,4,'0'),
  'p'||i||'@example.org', '415-555-'||lpad(i::text,4,'0'), date '1950-01-01'+i, 'MRN'||lpad(i::text,8,'0'), '94110', 'E11.9', 'ssn 512-47-8366' FROM generate_series(1,1000) i;
CREATE TABLE visits(id int PRIMARY KEY, patient_id int REFERENCES patients, reason text);
CREATE TABLE claims(id int PRIMARY KEY, patient_id int REFERENCES patients, amount numeric);`

// house is the whole of it: server, provider, PostgreSQL, evidence.
type house struct {
	*server.Server
	t        *testing.T
	dir      string
	pg       *pgtest.Server
	database string
	idp      *devidp.Provider
	stop     func() error
	auditor  *age.X25519Identity
	caFile   string
	owned    *held
	adjust   func(*server.Config) // of what the next start uses
}

const password = "correct horse battery staple"

var users = []devidp.User{{Name: "alice", Groups: []string{"engineers"}}, {Name: "bob", Groups: []string{"approvers", "dba"}}, {Name: "carol", Groups: []string{"clinicians"}},
	{Name: "dave", Groups: []string{"auditors"}}, {Name: "erin", Groups: []string{"admins"}}, {Name: "frank", Groups: []string{"admins"}}}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), pg: pgtest.Start(t)}
	h.database = h.pg.Database(t, sample)
	var err error
	if h.auditor, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CLINIC_PASSWORD", h.pg.Password)
	h.startIDP()
	h.start()
	return h
}

func (h *house) startIDP() {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.idp, err = devidp.New(devidp.Config{Listener: l, Dir: filepath.Join(h.dir, "idp"), Users: users, Password: password})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.idp.Run(ctx) }()
	h.t.Cleanup(func() { cancel(); <-done })
}

// start starts the server on the house's folder; h.stop stops it in order.
func (h *house) start() {
	h.t.Helper()
	config := h.config()
	if h.adjust != nil {
		h.adjust(&config)
	}
	s, err := server.New(config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	h.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	h.t.Cleanup(func() {
		if err := h.stop(); err != nil {
			h.t.Errorf("the server ended with %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		h.t.Fatalf("the server did not start: %v", err)
	case <-time.After(time.Minute):
		h.t.Fatal("the server is not ready after a minute")
	}
	if h.caFile, err = s.CAFile(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) config() server.Config {
	return server.Config{Listen: "127.0.0.1:0", PostgresListen: "127.0.0.1:0", PostgresPlaintext: "loopback", Store: "sqlite:" + filepath.Join(h.dir, "state.db"),
		Keys: filepath.Join(h.dir, "keys"), ParserCache: parserCache(h.t), Evidence: server.EvidenceConfig{Dir: filepath.Join(h.dir, "evidence"), Recipients: []string{h.auditor.Recipient().String()}},
		Issuers: []server.IssuerConfig{{Name: "dev", URL: h.idp.URL(), Kind: "human"}}, ResourceFiles: h.resources(), Name: "test", Dev: true, Log: testLog(h.t)}
}

// parserCache is shared by all tests of a run: compiling the grammar takes seconds.
func parserCache(t *testing.T) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "hoopctl-test-parser")
}

func (h *house) resources() []api.File {
	var files []api.File
	entries, _ := fs.ReadDir(devdata.FS, ".")
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".yaml" {
			continue
		}
		b, err := fs.ReadFile(devdata.FS, e.Name())
		if err != nil {
			h.t.Fatal(err)
		}
		files = append(files, api.File{Name: e.Name(), Content: string(b)})
	}
	target := fmt.Sprintf(`kind: Target
metadata: {name: clinic, labels: {suite: clinic, env: dev, data: phi}}
spec: {protocol: postgres, address: %q, database: %q, tls: {mode: disable}, credentials: {username: %s, passwordFrom: {env: CLINIC_PASSWORD}}}
`, h.pg.Address(), h.database, h.pg.Superuser)
	return append(files, api.File{Name: "targets.yaml", Content: target})
}

func testLog(t *testing.T) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// as logs a user in by the real device flow and returns their client.
func (h *house) as(user string) *client.Client {
	h.t.Helper()
	c := h.client(user)
	_, err := c.Login(h.t.Context(), client.LoginOptions{CAFile: h.caFile, Prompt: func(client.Prompt) {},
		OpenURL: func(page string) error { return devidp.Answer(h.t.Context(), page, user, password) }})
	if err != nil {
		h.t.Fatalf("log in as %s: %v", user, err)
	}
	return c
}

func (h *house) client(user string) *client.Client {
	c, err := client.New(client.Config{Server: "https://" + h.Addresses().API.String(), Home: filepath.Join(h.dir, "home", user), FileOnly: true, CAFile: h.caFile, Log: testLog(h.t)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Close)
	return c
}

// connect gets a grant on clinic and opens a forward under it.
func (h *house) connect(c *client.Client, user string) *forwarded {
	h.t.Helper()
	a, err := c.RequestGrant(h.t.Context(), api.GrantRequest{Target: "clinic", Reuse: true, Reason: "test"})
	if err != nil {
		h.t.Fatalf("grant for %s: %v", user, err)
	}
	if a.Grant == nil {
		h.t.Fatalf("grant for %s needs approval: %+v", user, a.Request)
	}
	f, err := forward.Listen(forward.Config{Dialer: c, Grant: a.Grant.Metadata.Name})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx) }()
	h.t.Cleanup(func() { cancel(); <-done })
	return &forwarded{Forward: f, grant: a.Grant.Metadata.Name, url: fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", user, f.Secret(), f.Addr(), h.database), pg: h.pg}
}

type forwarded struct {
	*forward.Forward
	grant, url string
	pg         *pgtest.Server
}

// psql runs the real psql through the forward; its output is both streams.
func (f *forwarded) psql(t *testing.T, sql ...string) (string, int) {
	t.Helper()
	return psql(t, f.pg, f.url, sql...)
}

func psql(t *testing.T, pg *pgtest.Server, url string, sql ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	args := []string{"-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-d", url}
	for _, q := range sql {
		args = append(args, "-c", q)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(pg.BinDir, "psql"), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// held is a grant with a session that stays open under it.
type held struct {
	grant, session string
	gone           chan struct{}
}

// alive asks the server: psql itself notices only when it next speaks.
func (l *held) alive(t *testing.T, c *client.Client) bool {
	t.Helper()
	s, err := c.Session(t.Context(), l.session)
	return err == nil && s.Status.Phase == "open"
}

// hold opens a session for a user and keeps it open until it is ended.
func (h *house) hold(user string) *held {
	h.t.Helper()
	f := h.connect(h.client(user), user)
	l := &held{grant: f.grant, gone: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, filepath.Join(h.pg.BinDir, "psql"), "-X", "-d", f.url)
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { cmd.Wait(); close(l.gone) }()
	h.t.Cleanup(func() { in.Close(); cancel(); <-l.gone })
	for change, err := range h.client(user).WatchSessions(h.t.Context()) {
		if err != nil {
			h.t.Fatal(err)
		}
		if s := change.Item; s.Spec.Grant == l.grant && (s.Status.Phase == "open" || s.Status.Phase == "waiting") {
			l.session = s.Metadata.Name
			return l
		}
	}
	return l
}
