package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/api"
)

// atHome runs hoopctl in this process, with a home and an environment of its own.
func atHome(t *testing.T, home string, environ map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, &app{
		in: strings.NewReader(""), out: &stdout, err: &stderr, now: time.Now,
		getenv:  func(k string) string { return map[string]string{"HOOPCTL_HOME": home}[k] + environ[k] },
		openURL: func(string) error { return errors.New("no browser here") },
	})
	return code, stdout.String(), stderr.String()
}

func TestExitCodes(t *testing.T) {
	refused := func(state string) error { return &exec.Error{SQLState: state, Message: "hoopctl: no"} }
	for _, c := range []struct {
		err  error
		want exitCode
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{usagef("x"), 2},
		{&api.Error{Reason: api.ReasonLoginNeeded}, 119},
		{&api.Error{Reason: api.ReasonLoginExpired}, 119},
		{&api.Error{Reason: api.ReasonPending}, 120},
		{&api.Error{Reason: api.ReasonDenied}, 121},
		{fmt.Errorf("wrapped: %w", &api.Error{Reason: api.ReasonExpired}), 122},
		{&api.Error{Reason: api.ReasonRevoked}, 123},
		{errTimeout, 124},
		{&api.Error{Reason: api.ReasonEvidence}, 125},
		{&api.Error{Reason: api.ReasonUnavailable}, 125},
		{&api.Error{Reason: api.ReasonNotFound}, 1},
		{&api.Error{Reason: "SomethingNew"}, 1},
		{refused("42501"), 121},
		{refused("57P01"), 123},
		{refused("25P03"), 122},
		{refused("58030"), 125},
		{refused("28000"), 119},
		{&exec.Error{SQLState: "42501", Message: "permission denied for table t"}, 1},
		{&signalled{syscall.SIGINT}, 130},
		{&signalled{syscall.SIGTERM}, 143},
		{commandError("x", osexec.ErrNotFound), 127},
		{commandError("x", os.ErrPermission), 126},
		{exitWith(7), 7},
		{&coded{usagef("x"), exitBroker}, 125},
	} {
		if got := codeOf(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// The table in the help is the one in the documentation.
func TestExitCodesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(exitCodesHelp) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(string(b), line) {
			t.Errorf("docs/cli.md does not say: %s", line)
		}
	}
}

func TestErrorsAsObjects(t *testing.T) {
	for _, c := range []struct {
		err  error
		want api.Error
	}{
		{usagef("bad flag"), api.Error{Code: 2, Reason: api.ReasonInvalid, Message: "bad flag", Source: "client"}},
		{withHint(errors.New("no"), "do this"), api.Error{Code: 1, Reason: "Error", Message: "no", Hint: "do this", Source: "client"}},
		{&api.Error{Code: 403, Reason: api.ReasonDenied, Message: "no", RequestID: "q-1"}, api.Error{Code: 121, Reason: api.ReasonDenied, Message: "no", RequestID: "q-1", Source: "broker"}},
		{&exec.Error{SQLState: "42P01", Message: "no relation"}, api.Error{Code: 1, Reason: "Target", Message: "no relation", Source: "target"}},
		{errTimeout, api.Error{Code: 124, Reason: "Timeout", Message: "--timeout has passed", Source: "client"}},
	} {
		var w bytes.Buffer
		report(&w, true, c.err)
		var got api.Error
		if err := json.Unmarshal(w.Bytes(), &got); err != nil {
			t.Fatalf("%v: %v in %s", c.err, err, w.String())
		}
		if got != c.want {
			t.Errorf("%v: %+v, want %+v", c.err, got, c.want)
		}
		if strings.Count(w.String(), "\n") != 1 {
			t.Errorf("%v: more than one line: %s", c.err, w.String())
		}
	}
}

// Names, reasons and statements come from others: they must not speak to the terminal.
func TestOutputIsHarmlessToTerminals(t *testing.T) {
	evil := "a\x1b]52;c;ZXZpbA==\x07b\u202ec\u0085d\re"
	items := []api.Request{{Metadata: api.Meta{Name: "r-1"}, Spec: api.RequestSpec{Kind: "statement", Name: evil, Statement: evil, Reason: evil}}}
	var list, one, failed bytes.Buffer
	if err := printList(&list, "wide", requestKind(time.Now), items); err != nil {
		t.Fatal(err)
	}
	if err := describeRequest(&one, items[0]); err != nil {
		t.Fatal(err)
	}
	report(&failed, false, withHint(errors.New(evil), evil))
	for what, s := range map[string]string{"list": list.String(), "describe": one.String(), "error": failed.String()} {
		if strings.ContainsAny(s, "\x1b\x07\r\u202e\u0085") {
			t.Errorf("%s: %q", what, s)
		}
	}
}

func TestPrinters(t *testing.T) {
	grants := []api.Grant{{Metadata: api.Meta{Name: "g-1"}, Spec: api.GrantSpec{Name: "alice", Target: "clinic"}, Status: api.GrantStatus{Phase: "revoked"}}}
	for format, want := range map[string]string{
		"":     "NAME   PRINCIPAL   TARGET   STATUS    ENDS   SESSIONS\ng-1    alice       clinic   revoked   -      0\n",
		"name": "grant/g-1\n",
	} {
		var w bytes.Buffer
		if err := printList(&w, format, grantKind(time.Now), grants); err != nil || w.String() != want {
			t.Errorf("%q: %v\n%swant\n%s", format, err, w.String(), want)
		}
	}
	var w bytes.Buffer
	if err := printList(&w, "json", grantKind(time.Now), []api.Grant(nil)); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"apiVersion\": \"hoopctl/v1\",\n  \"kind\": \"GrantList\",\n  \"items\": []\n}\n"; w.String() != want {
		t.Errorf("an empty list is %s", w.String())
	}
	w.Reset()
	if err := printObject(&w, "yaml", map[string]any{"a": "yes", "b": "1", "c": 1, "d": []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if want := "a: \"yes\"\nb: \"1\"\nc: 1\nd:\n  - x\n"; w.String() != want {
		t.Errorf("yaml:\n%s", w.String())
	}
}

func TestSelectors(t *testing.T) {
	labels := map[string]string{"env": "dev", "team": "x"}
	for s, want := range map[string]bool{
		"": true, "env=dev": true, "env==dev": true, "env=prod": false, "env!=prod": true, "env!=dev": false,
		"team": true, "!team": false, "!other": true, "other": false, "env=dev,team=x": true, "env=dev,team=y": false, "other!=x": true,
	} {
		match, err := parseSelector(s)
		if err != nil || match(labels) != want {
			t.Errorf("%q: %v, want %v", s, err, want)
		}
	}
	if _, err := parseSelector("=x"); err == nil {
		t.Error("a selector without a key is taken")
	}
}

func TestSettingsPrecedence(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "config.yaml"), []byte("output: yaml\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	version := func(environ map[string]string, args ...string) string {
		for k, v := range environ {
			t.Setenv(k, v) // viper reads the process's
		}
		code, out, errs := atHome(t, home, environ, append([]string{"version"}, args...)...)
		if code != 0 {
			t.Fatalf("%d: %s", code, errs)
		}
		return out
	}
	if out := version(nil); !strings.HasPrefix(out, "version: ") {
		t.Errorf("config.yaml is not followed: %s", out)
	}
	if out := version(map[string]string{"HOOPCTL_OUTPUT": "json"}); !strings.HasPrefix(out, "{") {
		t.Errorf("the environment does not win over config.yaml: %s", out)
	}
	if out := version(nil, "-o", "yaml"); !strings.HasPrefix(out, "version: ") {
		t.Errorf("the flag does not win over the environment: %s", out)
	}
}

func TestConfigKeepsWhatItDoesNotKnow(t *testing.T) {
	home := t.TempDir()
	path := filepath.Join(home, "config.yaml")
	if err := os.WriteFile(path, []byte("timeout: 30s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := atHome(t, home, nil, "config", "set-context", "a.B", "--server", "https://x.example"); code != 0 {
		t.Fatal(errs)
	}
	b, _ := os.ReadFile(path)
	for _, want := range []string{"timeout: 30s", "name: a.B", "currentContext: a.B"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("config.yaml lacks %q:\n%s", want, b)
		}
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("config.yaml is %v", info.Mode())
	}
}

// Every verb has words and an example, and every flag a description.
func TestHelp(t *testing.T) {
	a := &app{in: strings.NewReader(""), out: new(bytes.Buffer), err: new(bytes.Buffer), getenv: os.Getenv, now: time.Now}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "completion" || c.Name() == "help" {
			return
		}
		if c.Short == "" {
			t.Errorf("%s has no short help", c.CommandPath())
		}
		if c.Runnable() && c.Example == "" && c.HasParent() {
			t.Errorf("%s has no example", c.CommandPath())
		}
		words := strings.Fields(c.CommandPath())
		if c.Example != "" && c.HasParent() && !strings.Contains(c.Example, "hoopctl "+words[1]) {
			t.Errorf("%s: its example is of something else: %s", c.CommandPath(), c.Example)
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk(newRoot(a))
}

func TestStablePorts(t *testing.T) {
	seen := map[int]bool{}
	for i := range 2000 {
		p := stablePort("https://x.example:8443", fmt.Sprintf("target-%d", i))
		if p != stablePort("https://x.example:8443", fmt.Sprintf("target-%d", i)) || p < 20000 || p+9 > 29999 {
			t.Fatalf("port %d", p)
		}
		seen[p] = true
	}
	if len(seen) < 1500 {
		t.Errorf("only %d different ports for 2000 targets", len(seen))
	}
}

func TestPlaces(t *testing.T) {
	p := place{Host: "127.0.0.1", Port: 5, User: "hoopctl", Password: "S", Database: "it's/a db"}
	p.URL = p.uri()
	for format, want := range map[string]string{
		"uri":  "postgres://hoopctl:S@127.0.0.1:5/it%27s%2Fa%20db?sslmode=disable\n",
		"dsn":  `host=127.0.0.1 port=5 user=hoopctl password=S dbname='it\'s/a db' sslmode=disable` + "\n",
		"jdbc": "jdbc:postgresql://127.0.0.1:5/it%27s%2Fa%20db?password=S&sslmode=disable&user=hoopctl\n",
	} {
		var w bytes.Buffer
		a := &app{out: &w}
		if err := a.printPlace(format, p); err != nil || w.String() != want {
			t.Errorf("%s: %v %q, want %q", format, err, w.String(), want)
		}
	}
	var w bytes.Buffer
	if err := (&app{out: &w}).printPlace("env", p); err != nil || !strings.Contains(w.String(), `export PGDATABASE='it'\''s/a db'`) {
		t.Errorf("env: %s", w.String())
	}
	env := p.environ([]string{"PATH=/bin", "PGHOST=evil", "PGSSLROOTCERT=x", "DATABASE_URL=evil", "PGPASSFILE=x"})
	if slices.ContainsFunc(env, func(s string) bool { return strings.Contains(s, "evil") || strings.HasPrefix(s, "PGPASSFILE") }) || env[0] != "PATH=/bin" {
		t.Errorf("the caller's environment leaks: %q", env)
	}
}

func TestServerFields(t *testing.T) {
	var c server.Config
	flags := map[string]string{}
	for _, f := range serverFields(&c) {
		flags[f.path] = f.flag + " " + f.environment()
	}
	for path, want := range map[string]string{
		"listen":       "listen HOOPCTL_SERVER_LISTEN",
		"externalURL":  "external-url HOOPCTL_SERVER_EXTERNAL_URL",
		"evidence.dir": "evidence-dir HOOPCTL_SERVER_EVIDENCE_DIR",
		"tls.certFile": "tls-cert-file HOOPCTL_SERVER_TLS_CERT_FILE",
	} {
		if flags[path] != want {
			t.Errorf("%s: %q, want %q", path, flags[path], want)
		}
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{"": {}, "24h": now.Add(-24 * time.Hour), "2026-11-01T08:00:00Z": time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)} {
		if got, err := parseTime(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v", s, got, err)
		}
	}
	if _, err := parseTime("yesterday", now); err == nil {
		t.Error("yesterday is taken")
	}
	for d, want := range map[time.Duration]string{-1: "0s", 42 * time.Second: "42s", 7 * time.Minute: "7m", 3*time.Hour + 12*time.Minute: "3h12m", 2 * time.Hour: "2h", 9 * 24 * time.Hour: "9d"} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestDecidedRequests(t *testing.T) {
	for phase, want := range map[string]exitCode{"approved": 0, "used": 0, "denied": 121, "expired": 122, "withdrawn": 121, "nonsense": 125} {
		r := api.Request{Metadata: api.Meta{Name: "r-1"}, Status: api.RequestStatus{Phase: phase, Answers: []api.Approval{{Name: "bob", Reason: "no"}}}}
		err := decided(r)
		if got := codeOf(err); got != want {
			t.Errorf("%s: %d, want %d", phase, got, want)
		}
		if phase == "denied" && !strings.Contains(err.Error(), "by bob: no") {
			t.Errorf("denied: %v", err)
		}
	}
}
