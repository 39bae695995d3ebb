package target

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/session"
)

// What we hand out converts into what a protocol takes, field for field.
var (
	_ = session.TargetInfo(Info{})
	_ = session.Credentials(Credentials{})
)

func resource(name string, change func(*policy.TargetSpec)) policy.Resource {
	spec := &policy.TargetSpec{Protocol: "postgres", Address: "db.example:5432", Database: "clinic", Credentials: policy.Credentials{Username: "app"}}
	if change != nil {
		change(spec)
	}
	return policy.Resource{Kind: policy.KindTarget, Metadata: policy.Metadata{Name: name}, Spec: spec}
}

func room(t testing.TB, cfg Config, all ...policy.Resource) *Room {
	t.Helper()
	r := New(cfg)
	r.Reload(all)
	return r
}

func get(t testing.TB, r *Room, name string) *Target {
	t.Helper()
	target, err := r.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func reason(err error) api.Reason {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// listen accepts connections on a loopback port and counts them.
func listen(t testing.TB) (port string, count *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count = new(atomic.Int64)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, count
}

func TestInfo(t *testing.T) {
	zero, hour := policy.Duration(0), policy.Duration(time.Hour)
	r := room(t, Config{}, resource("plain", nil), resource("full", func(s *policy.TargetSpec) {
		s.Address, s.Addresses = "", []string{"a:5432", "b:5432"}
		s.Database, s.Databases = "", []string{"one", "two"}
		s.TLS.Mode = "require"
		s.Session = policy.SessionSpec{Idle: &hour, Max: &zero}
	}), resource("web", func(s *policy.TargetSpec) { s.Protocol, s.Address = "http", "https://api.example/base" }))
	plain := get(t, r, "plain").Info()
	if plain.TLSMode != "verify-full" || plain.Idle != 15*time.Minute || plain.Max != 8*time.Hour || plain.IdleInTransaction != 5*time.Minute ||
		plain.HoldInTransaction != 2*time.Minute || plain.HoldMax != 15*time.Minute || plain.Addresses[0] != "db.example:5432" || plain.Database != "clinic" {
		t.Errorf("defaults: %+v", plain)
	}
	full := get(t, r, "full").Info()
	if full.TLSMode != "require" || full.Idle != time.Hour || full.Max != 0 || len(full.Addresses) != 2 || full.Database != "one" {
		t.Errorf("%+v", full)
	}
	if web := get(t, r, "web").Info(); web.Addresses[0] != "api.example:443" {
		t.Errorf("%+v", web)
	}
	if _, err := r.Get("nowhere"); reason(err) != api.ReasonNotFound {
		t.Errorf("%v", err)
	}
}

// The generation keys caches of what a place holds: it follows address and
// database, and nothing else.
func TestGeneration(t *testing.T) {
	generation := func(change func(*policy.TargetSpec)) string {
		return get(t, room(t, Config{}, resource("clinic", change)), "clinic").Info().Generation
	}
	base := generation(nil)
	for name, c := range map[string]struct {
		change func(*policy.TargetSpec)
		same   bool
	}{
		"nothing":  {nil, true},
		"password": {func(s *policy.TargetSpec) { s.Credentials.PasswordFrom.Env = "OTHER" }, true},
		"address":  {func(s *policy.TargetSpec) { s.Address = "db2.example:5432" }, false},
		"database": {func(s *policy.TargetSpec) { s.Database = "other" }, false},
	} {
		if got := generation(c.change); (got == base) != c.same {
			t.Errorf("%s: generation %s, was %s", name, got, base)
		}
	}
}

func TestGetRefusesWhatCannotBeServed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "empty.pem"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*policy.TargetSpec)
		says   string
	}{
		"no address":             {func(s *policy.TargetSpec) { s.Address = "" }, "no address"},
		"an agent":               {func(s *policy.TargetSpec) { s.Agent = "dc1" }, "no agents"},
		"ephemeral":              {func(s *policy.TargetSpec) { s.Credentials.Mode = "ephemeral" }, "ephemeral"},
		"certificate, no files":  {func(s *policy.TargetSpec) { s.Credentials.Mode = "certificate" }, "certFile"},
		"a CA file that is none": {func(s *policy.TargetSpec) { s.TLS.CAFile = "empty.pem" }, "no PEM certificate"},
		"a CA file not there":    {func(s *policy.TargetSpec) { s.TLS.CAFile = "gone.pem" }, "gone.pem"},
	} {
		_, err := room(t, Config{SecretsDir: dir}, resource("clinic", c.change)).Get("clinic")
		if reason(err) != api.ReasonUnavailable || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "clinic") {
			t.Errorf("%s: %v, want it to say %q", name, err, c.says)
		}
	}
}

// TestT60_Addresses: what a name resolves to is checked at every dial, the
// address that was checked is the one that is dialled, and no caller can dial
// what the resource does not name.
func TestT60_Addresses(t *testing.T) {
	port, reached := listen(t)
	var answers [][]netip.Addr
	asked := 0
	resolve := func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "db.example" {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		asked++
		a := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		return a, nil
	}
	addr := netip.MustParseAddr
	dial := func(address string) error {
		target := get(t, room(t, Config{Resolve: resolve}, resource("clinic", func(s *policy.TargetSpec) { s.Address = address })), "clinic")
		conn, err := target.Dial(t.Context(), address)
		if err == nil {
			conn.Close()
		}
		return err
	}
	t.Run("T60 names", func(t *testing.T) {
		for name, c := range map[string]struct {
			to []netip.Addr
			ok bool
		}{
			"loopback":              {[]netip.Addr{addr("127.0.0.1")}, true},
			"mapped":                {[]netip.Addr{addr("::ffff:127.0.0.1")}, true},
			"the second answers":    {[]netip.Addr{addr("127.0.0.254"), addr("127.0.0.1")}, true},
			"metadata":              {[]netip.Addr{addr("169.254.169.254")}, false},
			"metadata, mapped":      {[]netip.Addr{addr("::ffff:169.254.169.254")}, false},
			"metadata behind NAT64": {[]netip.Addr{addr("64:ff9b::a9fe:a9fe")}, false},
			"metadata behind 6to4":  {[]netip.Addr{addr("2002:a9fe:a9fe::")}, false},
			"AWS over IPv6":         {[]netip.Addr{addr("fd00:ec2::254")}, false},
			"link-local":            {[]netip.Addr{addr("fe80::1")}, false},
			"link-local with zone":  {[]netip.Addr{addr("fe80::1%eth0")}, false},
			"unspecified":           {[]netip.Addr{addr("0.0.0.0")}, false},
			"one of two":            {[]netip.Addr{addr("127.0.0.1"), addr("169.254.169.254")}, false},
			"nothing":               {nil, false},
		} {
			answers = [][]netip.Addr{c.to}
			before := reached.Load()
			err := dial("db.example:" + port)
			if (err == nil) != c.ok || err != nil && reason(err) != api.ReasonUnavailable {
				t.Errorf("%s: %v", name, err)
			}
			if !c.ok && reached.Load() != before {
				t.Errorf("%s: it was dialled", name)
			}
		}
	})
	t.Run("T60 rebinding", func(t *testing.T) {
		// A name that says another address each time it is asked is asked once a dial.
		answers, asked = [][]netip.Addr{{addr("127.0.0.1")}, {addr("169.254.169.254")}}, 0
		if err := dial("db.example:" + port); err != nil || asked != 1 {
			t.Errorf("%v, asked %d times", err, asked)
		}
		if err := dial("db.example:" + port); err == nil {
			t.Error("the second answer was dialled")
		}
	})
	t.Run("T60 literals and names of metadata services", func(t *testing.T) {
		for _, a := range []string{"169.254.169.254:80", "[fe80::1%25eth0]:80", "0.0.0.0:" + port, "metadata.google.internal:80", "2852039166:80", "0x7f.1:" + port, "no-port"} {
			if err := dial(a); err == nil {
				t.Errorf("%s was dialled", a)
			}
		}
	})
	t.Run("T60 an address that is not the target's", func(t *testing.T) {
		target := get(t, room(t, Config{}, resource("clinic", nil)), "clinic")
		if _, err := target.Dial(t.Context(), "127.0.0.1:"+port); err == nil || !strings.Contains(err.Error(), "not one of its addresses") {
			t.Errorf("%v", err)
		}
	})
}

// TestT60_EditedTarget: a session that knows the target as it was keeps place
// and password together; nothing that was cached for the old place goes to the new one.
func TestT60_EditedTarget(t *testing.T) {
	runs := filepath.Join(t.TempDir(), "runs")
	withSecret := func(address string) policy.Resource {
		return resource("clinic", func(s *policy.TargetSpec) {
			s.Address = address
			s.Credentials.PasswordFrom.Exec = &policy.SecretExec{Command: printer(t, runs), TTL: policy.Duration(time.Hour)}
		})
	}
	r := room(t, Config{}, withSecret("db-a.example:5432"))
	old := get(t, r, "clinic")
	login := func(target *Target) string {
		t.Helper()
		c, err := target.Login(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return c.Password
	}
	first := login(old)
	r.Reload([]policy.Resource{withSecret("db-a.example:5432")})
	if again := login(get(t, r, "clinic")); again != first {
		t.Errorf("an unchanged target lost its cached password: %s, %s", first, again)
	}
	r.Reload([]policy.Resource{withSecret("attacker.example:5432")})
	edited := get(t, r, "clinic")
	if now := login(edited); now == first {
		t.Error("the password that was cached for the old address is used for the new one")
	}
	if _, err := edited.Dial(t.Context(), "db-a.example:5432"); err == nil {
		t.Error("the edited target dials the old address")
	}
	if old.Info().Addresses[0] != "db-a.example:5432" || login(old) != first {
		t.Error("a session that began before sees the edit")
	}
	if _, err := old.Dial(t.Context(), "attacker.example:5432"); err == nil || !strings.Contains(err.Error(), "not one of") {
		t.Errorf("a session that began before dials the new address: %v", err)
	}
	r.Reload(nil)
	if _, err := r.Get("clinic"); reason(err) != api.ReasonNotFound {
		t.Errorf("a deleted target: %v", err)
	}
}

// printer is a command that prints "secret N", N counting its runs.
func printer(t testing.TB, file string) []string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the command is a shell's")
	}
	return []string{"sh", "-c", `echo run >>"$1"; echo "secret $(grep -c run "$1")"`, "sh", file}
}

func TestPasswords(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write := func(path, content string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(filepath.Join(dir, "clinic"), "hunter2\n")
	write(filepath.Join(dir, "crlf"), "hunter2\r\n")
	write(filepath.Join(dir, "spaces"), " hunter 2 \n\n")
	write(filepath.Join(dir, "empty"), "\n")
	write(filepath.Join(dir, "nul"), "a\x00b")
	write(filepath.Join(dir, "huge"), strings.Repeat("x", 70<<10))
	secret := write(filepath.Join(outside, "shadow"), "root:x")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{"link-out": secret, "link-in": "clinic", "sub/link-up": "../clinic", "sub/link-out": "../../" + filepath.Base(outside) + "/shadow"}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"CLINIC_PASSWORD": "hunter2", "EMPTY": "", "HOOPCTL_KEY": "master"}[name]
		return v, ok
	}
	file := func(n string) policy.SecretFrom { return policy.SecretFrom{File: n} }
	for name, c := range map[string]struct {
		from policy.SecretFrom
		cfg  Config
		want string
		says string
	}{
		"none":                         {policy.SecretFrom{}, Config{}, "", ""},
		"env":                          {policy.SecretFrom{Env: "CLINIC_PASSWORD"}, Config{}, "hunter2", ""},
		"env not set":                  {policy.SecretFrom{Env: "CLINIC_PASSWROD"}, Config{}, "", "CLINIC_PASSWROD is not set"},
		"env empty":                    {policy.SecretFrom{Env: "EMPTY"}, Config{}, "", "empty"},
		"env of the server's own":      {policy.SecretFrom{Env: "HOOPCTL_KEY"}, Config{}, "", "server's own"},
		"file":                         {file("clinic"), Config{SecretsDir: dir}, "hunter2", ""},
		"file, absolute":               {file(filepath.Join(dir, "clinic")), Config{SecretsDir: dir}, "hunter2", ""},
		"file with CRLF":               {file("crlf"), Config{SecretsDir: dir}, "hunter2", ""},
		"only the last newline goes":   {file("spaces"), Config{SecretsDir: dir}, " hunter 2 \n", ""},
		"link that stays":              {file("link-in"), Config{SecretsDir: dir}, "hunter2", ""},
		"link up that stays":           {file("sub/link-up"), Config{SecretsDir: dir}, "hunter2", ""},
		"link that leads out":          {file("link-out"), Config{SecretsDir: dir}, "", "link-out"},
		"relative link that leads out": {file("sub/link-out"), Config{SecretsDir: dir}, "", "link-out"},
		"dots":                         {file("../" + filepath.Base(outside) + "/shadow"), Config{SecretsDir: dir}, "", "not below secretsDir"},
		"absolute elsewhere":           {file(secret), Config{SecretsDir: dir}, "", "not below secretsDir"},
		"no secretsDir":                {file(secret), Config{}, "", "set secretsDir"},
		"dev: anywhere":                {file(secret), Config{Dev: true}, "root:x", ""},
		"dev with a folder: anywhere":  {file(secret), Config{Dev: true, SecretsDir: dir}, "root:x", ""},
		"not there":                    {file("gone"), Config{SecretsDir: dir}, "", "gone"},
		"a folder":                     {file("sub"), Config{SecretsDir: dir}, "", "not a regular file"},
		"empty":                        {file("empty"), Config{SecretsDir: dir}, "", "empty"},
		"with NUL":                     {file("nul"), Config{SecretsDir: dir}, "", "NUL"},
		"huge":                         {file("huge"), Config{SecretsDir: dir}, "", "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Env = env
			target := get(t, room(t, c.cfg, resource("clinic", func(s *policy.TargetSpec) { s.Credentials.PasswordFrom = c.from })), "clinic")
			got, err := target.Login(t.Context(), false)
			if c.says == "" && (err != nil || got.Password != c.want || got.Username != "app") {
				t.Errorf("%+v, %v", got, err)
			}
			if c.says != "" && (reason(err) != api.ReasonUnavailable || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "root:x")) {
				t.Errorf("%v, want it to say %q", err, c.says)
			}
		})
	}
}

func TestPasswordFileIsReadAtEachLogin(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pw")
	target := get(t, room(t, Config{SecretsDir: dir}, resource("clinic", func(s *policy.TargetSpec) { s.Credentials.PasswordFrom.File = "pw" })), "clinic")
	for _, want := range []string{"one", "two"} {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := target.Login(t.Context(), false); err != nil || c.Password != want {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

func TestCommand(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	later := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	runs := filepath.Join(t.TempDir(), "runs")
	target := get(t, room(t, Config{Now: clock}, resource("clinic", func(s *policy.TargetSpec) {
		s.Credentials.PasswordFrom.Exec = &policy.SecretExec{Command: printer(t, runs), TTL: policy.Duration(time.Minute)}
	})), "clinic")
	login := func(again bool) string {
		t.Helper()
		c, err := target.Login(t.Context(), again)
		if err != nil {
			t.Fatal(err)
		}
		return c.Password
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if c, err := target.Login(t.Context(), false); err != nil || c.Password != "secret 1" {
				t.Errorf("%s, %v", c.Password, err)
			}
		})
	}
	all.Wait()
	if got := login(true); got != "secret 2" {
		t.Errorf("after a refusal: %s", got)
	}
	if got := login(false); got != "secret 2" {
		t.Errorf("within the ttl: %s", got)
	}
	later(time.Minute)
	if got := login(false); got != "secret 3" {
		t.Errorf("after the ttl: %s", got)
	}
}

func TestCommandThatFails(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are a shell's")
	}
	t.Setenv("HOOPCTL_MASTER", "hunter2")
	for name, c := range map[string]struct {
		script string
		says   string
	}{
		"fails":                         {"echo hunter2 >&2; echo hunter2; exit 3", "exit status 3"},
		"prints nothing":                {"true", "empty"},
		"prints without end":            {"yes hunter2 | head -c 1000000", "more than"},
		"sees none of the server's own": {`test -z "$HOOPCTL_MASTER" || echo seen; exit 4`, "exit status 4"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			target := get(t, room(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, resource("clinic", func(s *policy.TargetSpec) {
				s.Credentials.PasswordFrom.Exec = &policy.SecretExec{Command: []string{"sh", "-c", c.script}}
			})), "clinic")
			_, err := target.Login(t.Context(), false)
			if reason(err) != api.ReasonUnavailable || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want it to say %q", err, c.says)
			}
			if strings.Contains(log.String(), "hunter2") {
				t.Errorf("T77 the log holds what the command said: %s", log.String())
			}
		})
	}
	t.Run("no shell reads it", func(t *testing.T) {
		target := get(t, room(t, Config{}, resource("clinic", func(s *policy.TargetSpec) {
			s.Credentials.PasswordFrom.Exec = &policy.SecretExec{Command: []string{"printf", "%s", "$(id); `id` | x"}}
		})), "clinic")
		if c, err := target.Login(t.Context(), false); err != nil || c.Password != "$(id); `id` | x" {
			t.Errorf("%q, %v", c.Password, err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		fifo := filepath.Join(t.TempDir(), "started")
		target := get(t, room(t, Config{}, resource("clinic", func(s *policy.TargetSpec) {
			// the shell's child, which a kill of the shell alone would leave
			s.Credentials.PasswordFrom.Exec = &policy.SecretExec{Command: []string{"sh", "-c", `mkfifo "$1.fifo"; sh -c 'echo $$ >"$0.pid"; : >"$0"; exec sleep 600' "$1" & cat "$1.fifo"`, "sh", fifo}}
		})), "clinic")
		done := make(chan error, 1)
		go func() { _, err := target.Login(ctx, false); done <- err }()
		for { // until the command runs
			if _, err := os.Stat(fifo); err == nil {
				break
			}
			runtime.Gosched()
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		pid, err := os.ReadFile(fifo + ".pid")
		if err != nil {
			t.Fatal(err)
		}
		for late := time.Now().Add(10 * time.Second); ; {
			out, _ := exec.Command("ps", "-o", "stat=", "-p", strings.TrimSpace(string(pid))).Output()
			if s := strings.TrimSpace(string(out)); s == "" || s[0] == 'Z' {
				break
			}
			if time.Now().After(late) {
				t.Fatal("what the command started still runs")
			}
		}
	})
}

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, _ := x509.MarshalPKCS8PrivateKey(key)
	for name, b := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login := func(certFile, keyFile string) (Credentials, error) {
		target := get(t, room(t, Config{SecretsDir: dir}, resource("clinic", func(s *policy.TargetSpec) {
			s.TLS.CAFile = "cert.pem"
			s.Credentials.Mode, s.Credentials.CertFile, s.Credentials.KeyFile = "certificate", certFile, keyFile
		})), "clinic")
		if !bytes.Contains(target.Info().RootCAs, []byte("BEGIN CERTIFICATE")) {
			t.Error("the CA file is not in Info")
		}
		return target.Login(t.Context(), false)
	}
	if c, err := login("cert.pem", "key.pem"); err != nil || c.Certificate == nil || !bytes.Equal(c.Certificate.Certificate[0], der) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := login("cert.pem", "cert.pem"); err == nil || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("%v", err)
	}
}

func TestAgent(t *testing.T) {
	var dialled string
	agent := func(_ context.Context, agent, address string) (net.Conn, error) {
		dialled = agent + " " + address
		a, b := net.Pipe()
		b.Close()
		return a, nil
	}
	never := func(context.Context, string) ([]netip.Addr, error) {
		t.Error("a name of the agent's network was looked up here")
		return nil, errors.New("no")
	}
	r := room(t, Config{Agent: agent, Resolve: never}, resource("clinic", func(s *policy.TargetSpec) { s.Agent = "dc1" }),
		resource("bad", func(s *policy.TargetSpec) { s.Agent, s.Address = "dc1", "169.254.169.254:80" }))
	c, err := get(t, r, "clinic").Dial(t.Context(), "db.example:5432")
	if err != nil || dialled != "dc1 db.example:5432" {
		t.Fatalf("%q, %v", dialled, err)
	}
	c.Close()
	dialled = ""
	if _, err := get(t, r, "bad").Dial(t.Context(), "169.254.169.254:80"); err == nil || dialled != "" {
		t.Errorf("T60 an agent was sent to a metadata service: %v", err)
	}
}

func TestDialGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stuck := func(ctx context.Context, _ string) ([]netip.Addr, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	target := get(t, room(t, Config{Resolve: stuck}, resource("clinic", nil)), "clinic")
	if _, err := target.Dial(ctx, "db.example:5432"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	port, _ := listen(t)
	closed := fmt.Sprint("127.0.0.2:", port)
	target = get(t, room(t, Config{}, resource("clinic", func(s *policy.TargetSpec) { s.Address = closed })), "clinic")
	if _, err := target.Dial(t.Context(), closed); reason(err) != api.ReasonUnavailable || !strings.Contains(err.Error(), closed) {
		t.Errorf("nobody listens: %v", err)
	}
}
