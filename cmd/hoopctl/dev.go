package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/hoopctl/hoopctl/cmd/hoopctl/devdata"
	"github.com/hoopctl/hoopctl/cmd/hoopctl/devpg"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/devidp"
)

// devOptions are the flags of dev.
type devOptions struct {
	dir       string
	port      int
	pgPort    int
	httpPort  int
	pgBin     string
	targets   []string
	readyFile string
	verbose   bool
}

func newDev(a *app) *cobra.Command {
	o := new(devOptions)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "The whole house on this machine, with a sample clinic database",
		Long: `Run everything in the foreground, without configuration: the server, a
development identity provider with five users and a service, a real PostgreSQL
with a sample clinic (from this machine's own PostgreSQL binaries, in a data
folder of its own), state in SQLite, evidence in files. It listens on loopback
only. Ctrl-C ends all of it.

Everything is kept in --dir: started again on it, also after a kill -9, it has
the same CA, users, passwords and evidence.`,
		Example: `  hoopctl dev
  hoopctl dev login alice          # in another terminal
  hoopctl dev --port 0 --pg-port 0 --dir ./state --ready-file ready.json
  hoopctl dev --target postgres://me:secret@127.0.0.1:5432/mine`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(a); err != nil {
				return err
			}
			return a.dev(cmd.Context(), *o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "folder of all its state (default: hoopctl/dev in your state folder)")
	f.IntVar(&o.port, "port", 8443, "port of API and tunnel; 0 is random")
	f.IntVar(&o.pgPort, "pg-port", 15432, "port of the native PostgreSQL endpoint; 0 is random")
	f.IntVar(&o.httpPort, "http-port", 18080, "port for HTTP targets; nothing listens on it: this version has none")
	f.StringVar(&o.pgBin, "pg-bin", "", "folder of PostgreSQL's binaries (default: look for them)")
	f.StringArrayVar(&o.targets, "target", nil, "add a database of your own: [NAME=]postgres://user:password@host:port/database")
	f.StringVar(&o.readyFile, "ready-file", "", "write where everything is to this file, as JSON, once it answers")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "print the server's log")
	cmd.AddCommand(newDevLogin(a))
	return cmd
}

func (o *devOptions) complete(a *app) (err error) {
	for name, port := range map[string]int{"--port": o.port, "--pg-port": o.pgPort, "--http-port": o.httpPort} {
		if port < 0 || port > 65535 {
			return usagef("%s %d is no port", name, port)
		}
	}
	if o.port != 0 && o.port == o.pgPort {
		return usagef("--port and --pg-port are both %d", o.port)
	}
	o.dir, err = a.devDir(o.dir)
	return err
}

// devDir is dev's state folder: the one that is named, or one that does not
// depend on HOOPCTL_HOME, so that every user's home finds the same house.
func (a *app) devDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	if state := a.getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "hoopctl", "dev"), nil
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		config, err := os.UserConfigDir()
		return filepath.Join(config, "hoopctl", "dev"), err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", withHint(fmt.Errorf("find a folder for the state: %w", err), "name one with --dir")
	}
	return filepath.Join(home, ".local", "state", "hoopctl", "dev"), nil
}

// devUsers are the people of the house.
func devUsers() []devidp.User {
	return []devidp.User{
		{Name: "alice", Groups: []string{"engineers"}},
		{Name: "bob", Groups: []string{"approvers", "dba"}},
		{Name: "carol", Groups: []string{"clinicians"}},
		{Name: "dave", Groups: []string{"auditors"}},
		{Name: "erin", Groups: []string{"admins"}},
	}
}

// devWords say what each user is for.
var devWords = map[string]string{
	"alice": "connects, reads and writes; PHI comes masked",
	"bob":   "approves",
	"carol": "connects and reads; cleared for PHI",
	"dave":  "reads the evidence, opens recordings",
	"erin":  "changes resources, ends sessions",
}

const (
	devIssuer         = "dev"
	devServiceIssuer  = "dev-services"
	devService        = "billing"
	devContext        = "dev"
	sampleDatabase    = "clinic"
	devReadyWait      = 30 * time.Second
	sampleOwner       = "clinic"
	sampleOwnerSecret = "clinic.password"
)

// devState is what must be the same at the next start. It lies in dev.json,
// 0600, in a folder that nobody else can list.
type devState struct {
	Password         string `json:"password"`         // of every user
	PostgresPassword string `json:"postgresPassword"` // of the sample's superuser
	ClinicPassword   string `json:"clinicPassword"`   // of the role that the server logs in with
	ServiceSecret    string `json:"serviceSecret"`
	IssuerPort       int    `json:"issuerPort"`
	PostgresPort     int    `json:"postgresPort"` // of the sample's own PostgreSQL
	Port             int    `json:"port"`         // of the API, as it was last time
	NativePort       int    `json:"nativePort"`   // of the native PostgreSQL endpoint
}

// readiness is the ready file.
type readiness struct {
	Server         string         `json:"server"`
	CAFile         string         `json:"caFile"`
	CAFingerprint  string         `json:"caFingerprint"`
	Issuer         string         `json:"issuer"`
	Password       string         `json:"password"`
	AuditorKeyFile string         `json:"auditorKeyFile"`
	EvidenceDir    string         `json:"evidenceDir"`
	Postgres       endpoint       `json:"postgres"`
	Users          []devUser      `json:"users"`
	Services       []devClient    `json:"services"`
	Sample         map[string]any `json:"sample"`
	PID            int            `json:"pid"`
}

type endpoint struct {
	Host string `json:"host"`
	Port int    `json:"port"`
}

type devUser struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
}

type devClient struct {
	Name         string   `json:"name"`
	Groups       []string `json:"groups"`
	ClientID     string   `json:"clientID"`
	ClientSecret string   `json:"clientSecret"`
	WorkloadFile string   `json:"workloadFile"`
}

// house is a dev that is being started, or runs.
type house struct {
	*app
	o       devOptions
	state   devState
	log     *slog.Logger
	auditor *age.X25519Identity
	pg      *devpg.Server
	idp     *devidp.Provider
	server  *server.Server
}

// dev runs the house until ctx ends. It answers nil when a signal asked for
// the end.
func (a *app) dev(ctx context.Context, o devOptions) error {
	unlock, err := openDevDir(o.dir)
	if err != nil {
		return err
	}
	defer unlock()
	for flag, port := range map[string]int{"--port": o.port, "--pg-port": o.pgPort} {
		// Before PostgreSQL starts: what cannot work fails at once.
		if port != 0 && !isFree(port) {
			return portTaken(flag, fmt.Errorf("127.0.0.1:%d is in use", port))
		}
	}
	h := &house{app: a, o: o}
	logFile, err := h.openLog()
	if err != nil {
		return err
	}
	defer logFile.Close()
	if err := h.loadState(); err != nil {
		return err
	}
	for _, t := range o.targets {
		if _, err := h.ownTarget(t); err != nil {
			return err
		}
	}
	started := a.now()
	if err := h.startSample(ctx); err != nil {
		return causeOf(ctx, err)
	}
	defer h.pg.Stop()
	err = h.runServers(ctx, started)
	var signal *signalled
	if errors.As(context.Cause(ctx), &signal) {
		fmt.Fprintln(a.err, "Stopping.")
		return nil
	}
	return err
}

// openDevDir makes the folder and takes its lock: two houses on one folder
// would write over each other.
func openDevDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	if os.Getuid() == 0 {
		// PostgreSQL's own user passes through to its data. What is secret here is 0600 or 0700 itself.
		if err := os.Chmod(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make the state folder: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "dev.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, withHint(fmt.Errorf("hoopctl dev runs on %s already", dir), "end it, or choose another folder with --dir")
	}
	return func() {
		os.Remove(filepath.Join(dir, "ready.json"))
		f.Close()
	}, nil
}

// openLog lets the server and the provider speak into DIR/hoopctl.log, and on
// stderr with --verbose.
func (h *house) openLog() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(h.o.dir, "hoopctl.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	handler := slog.Handler(slog.NewTextHandler(f, nil))
	if h.o.verbose {
		handler = slog.NewTextHandler(h.err, nil)
	}
	h.log = slog.New(handler)
	slog.SetDefault(h.log) // the OpenID library speaks to no other, once for every poll of a login
	return f, nil
}

// loadState reads the passwords of an earlier run, or makes them.
func (h *house) loadState() error {
	file := filepath.Join(h.o.dir, "dev.json")
	b, err := os.ReadFile(file)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &h.state); err != nil {
			return withHint(fmt.Errorf("read %s: %w", file, err), "remove the whole folder to begin anew")
		}
	case errors.Is(err, os.ErrNotExist):
		h.state = devState{Password: words(), PostgresPassword: rand.Text(), ClinicPassword: rand.Text(), ServiceSecret: rand.Text()}
		if err := writeJSONFile(file, h.state); err != nil {
			return err
		}
	default:
		return fmt.Errorf("read the state: %w", err)
	}
	secrets := filepath.Join(h.o.dir, "secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		return fmt.Errorf("make the folder of secrets: %w", err)
	}
	if err := replaceFile(filepath.Join(secrets, sampleOwnerSecret), []byte(h.state.ClinicPassword)); err != nil {
		return err
	}
	if err := writeJSONFile(h.workloadFile(), map[string]string{"clientID": devService, "clientSecret": h.state.ServiceSecret}); err != nil {
		return err
	}
	return h.loadAuditor()
}

func (h *house) workloadFile() string {
	return filepath.Join(h.o.dir, "secrets", devService+".json")
}

// words is a password that can be typed: 64 random bits.
func words() string {
	const letters = "abcdefghijkmnpqrstuvwxyz23456789" // 32: five bits each
	b := make([]byte, 13)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = letters[b[i]%32]
	}
	return string(b[:4]) + "-" + string(b[4:8]) + "-" + string(b[8:])
}

func (h *house) auditorFile() string { return filepath.Join(h.o.dir, "auditor.key") }

// loadAuditor reads or makes the age identity that opens recordings.
func (h *house) loadAuditor() error {
	b, err := os.ReadFile(h.auditorFile())
	if errors.Is(err, os.ErrNotExist) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return fmt.Errorf("make the auditor's identity: %w", err)
		}
		h.auditor = id
		return replaceFile(h.auditorFile(), fmt.Appendf(nil, "# the auditor's identity: opens the recordings of this house\n# public key: %s\n%s\n", id.Recipient(), id))
	}
	if err != nil {
		return fmt.Errorf("read the auditor's identity: %w", err)
	}
	ids, err := age.ParseIdentities(strings.NewReader(string(b)))
	if err != nil || len(ids) != 1 {
		return fmt.Errorf("read %s: want one age identity: %v", h.auditorFile(), err)
	}
	id, ok := ids[0].(*age.X25519Identity)
	if !ok {
		return fmt.Errorf("read %s: want an X25519 identity", h.auditorFile())
	}
	h.auditor = id
	return nil
}

// runServers starts provider and server, says where they are, and runs them
// until ctx ends or one of them fails.
func (h *house) runServers(ctx context.Context, started time.Time) error {
	issuer, err := h.listenIssuer()
	if err != nil {
		return err
	}
	h.idp, err = devidp.New(devidp.Config{
		Listener: issuer, Dir: filepath.Join(h.o.dir, "idp"), Users: devUsers(), Password: h.state.Password,
		Services: []devidp.Client{{ID: devService, Secret: h.state.ServiceSecret, Groups: []string{devService}}}, Log: h.log,
	})
	if err != nil {
		issuer.Close()
		return fmt.Errorf("identity provider: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	// The provider outlives the server by a moment: what runs may still ask it.
	idpCtx, stopIDP := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return h.idp.Run(idpCtx) })
	g.Go(func() error {
		defer stopIDP()
		return h.serve(ctx, started)
	})
	return g.Wait()
}

// listenIssuer takes the port of last time if it is free: logins name the
// provider by it.
func (h *house) listenIssuer() (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(h.state.IssuerPort)))
	if err != nil && h.state.IssuerPort != 0 {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the identity provider: %w", err)
	}
	h.state.IssuerPort = l.Addr().(*net.TCPAddr).Port
	if err := writeJSONFile(filepath.Join(h.o.dir, "dev.json"), h.state); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serve runs the server, and ends with PostgreSQL if that ends first.
func (h *house) serve(ctx context.Context, started time.Time) error {
	config, err := h.config()
	if err != nil {
		return err
	}
	h.say("Starting the server.")
	if h.server, err = server.New(config); err != nil {
		return portHint(err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.server.Run(ctx) })
	g.Go(func() error {
		select {
		case <-h.server.Ready():
			return h.announce(started)
		case <-ctx.Done():
			return nil
		case <-time.After(devReadyWait):
			return fmt.Errorf("the server is not ready after %s: see %s", devReadyWait, filepath.Join(h.o.dir, "hoopctl.log"))
		}
	})
	g.Go(func() error {
		select {
		case <-h.pg.Done():
			return fmt.Errorf("PostgreSQL ended: see %s", h.pg.LogFile)
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// portHint names dev's own flags where a port is taken.
func portHint(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) {
		return err
	}
	flag := "--port"
	if strings.Contains(err.Error(), "postgresListen") {
		flag = "--pg-port"
	}
	return portTaken(flag, op)
}

func portTaken(flag string, err error) error {
	return withHint(fmt.Errorf("%s: %w", flag, err), "another program has that port: choose another with "+flag+", or "+flag+" 0 for any")
}

// config is the server's configuration.
func (h *house) config() (server.Config, error) {
	dir := h.o.dir
	files, err := h.resources()
	if err != nil {
		return server.Config{}, err
	}
	local := func(port, last int) string {
		// A random port stays the same over restarts where it can: contexts and open forwards go on.
		if port == 0 && last != 0 && isFree(last) {
			port = last
		}
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	return server.Config{
		Listen:            local(h.o.port, h.state.Port),
		PostgresListen:    local(h.o.pgPort, h.state.NativePort),
		PostgresPlaintext: "loopback",
		Keys:              filepath.Join(dir, "keys"),
		Store:             "sqlite:" + filepath.Join(dir, "state.db"),
		Evidence:          server.EvidenceConfig{Dir: filepath.Join(dir, "evidence"), Recipients: []string{h.auditor.Recipient().String()}},
		Issuers: []server.IssuerConfig{
			{Name: devIssuer, URL: h.idp.URL(), Kind: "human"},
			{Name: devServiceIssuer, URL: h.idp.URL(), Kind: "workload", ClientID: devidp.ServiceAudience, Audience: devidp.ServiceAudience, NameClaim: "sub"},
		},
		Name:          "dev",
		ResourceFiles: files,
		ParserCache:   h.parserCache(),
		Version:       build().Version,
		Dev:           true,
		Log:           h.log,
		Now:           h.now,
	}, nil
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// parserCache is shared by all of this user's houses: compiling the grammar
// takes seconds.
func (h *house) parserCache() string {
	if cache := h.getenv("XDG_CACHE_HOME"); filepath.IsAbs(cache) {
		return filepath.Join(cache, "hoopctl", "parser")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return filepath.Join(h.o.dir, "parser-cache")
	}
	return filepath.Join(cache, "hoopctl", "parser")
}

// resources are dev's rules, the sample's targets and those of --target.
func (h *house) resources() ([]api.File, error) {
	entries, err := fs.ReadDir(devdata.FS, ".")
	if err != nil {
		return nil, fmt.Errorf("read dev's resources: %w", err)
	}
	var files []api.File
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := fs.ReadFile(devdata.FS, e.Name())
		if err != nil {
			return nil, fmt.Errorf("read dev's resources: %w", err)
		}
		files = append(files, api.File{Name: path.Join("dev", e.Name()), Content: string(b)})
	}
	labels := map[string]string{"suite": "clinic", "env": "dev", "data": "phi"}
	spec := policy.TargetSpec{
		Protocol: "postgres", Address: h.pg.Address(), Database: sampleDatabase, TLS: policy.TargetTLS{Mode: "disable"},
		Credentials: policy.Credentials{Username: sampleOwner, PasswordFrom: policy.SecretFrom{File: filepath.Join(h.o.dir, "secrets", sampleOwnerSecret)}},
	}
	targets := []policy.Resource{
		{Kind: policy.KindTarget, Metadata: policy.Metadata{Name: "clinic", Labels: labels}, Spec: spec},
		{Kind: policy.KindTarget, Metadata: policy.Metadata{Name: "clinic-direct", Labels: labels}, Spec: spec},
	}
	for _, t := range h.o.targets {
		own, err := h.ownTarget(t)
		if err != nil {
			return nil, err
		}
		targets = append(targets, own)
	}
	for _, t := range targets {
		t.APIVersion = api.APIVersion
		b, err := yaml.Marshal(t)
		if err != nil {
			return nil, fmt.Errorf("write target %s: %w", t.Metadata.Name, err)
		}
		files = append(files, api.File{Name: path.Join("dev", "target-"+t.Metadata.Name+".yaml"), Content: string(b)})
	}
	return files, nil
}

// ownTarget reads --target. The password goes to a file of its own: a resource
// holds no secrets. The labels let dev's engineers in; nothing in it is tagged.
func (h *house) ownTarget(arg string) (policy.Resource, error) {
	name, text, named := strings.Cut(arg, "=")
	if !named || strings.Contains(name, "://") {
		name, text = "", arg
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Hostname() == "" || u.User.Username() == "" {
		return policy.Resource{}, usagef("--target: want [NAME=]postgres://user:password@host:port/database")
	}
	database := strings.TrimPrefix(u.Path, "/")
	if database == "" {
		database = u.User.Username()
	}
	if name == "" {
		name = strings.ToLower(strings.ReplaceAll(database, "_", "-"))
	}
	if slices.Contains([]string{"clinic", "clinic-direct"}, name) {
		return policy.Resource{}, usagef("--target: the name %s is the sample's: choose another with NAME=postgres://…", name)
	}
	mode := u.Query().Get("sslmode")
	if mode == "" {
		if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			mode = "disable"
		}
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	password, _ := u.User.Password()
	file := filepath.Join(h.o.dir, "secrets", "target-"+url.PathEscape(name)+".password")
	if err := replaceFile(file, []byte(password)); err != nil {
		return policy.Resource{}, err
	}
	return policy.Resource{
		Kind:     policy.KindTarget,
		Metadata: policy.Metadata{Name: name, Labels: map[string]string{"suite": "clinic", "env": "dev"}},
		Spec: policy.TargetSpec{
			Protocol: "postgres", Address: net.JoinHostPort(u.Hostname(), port), Database: database, TLS: policy.TargetTLS{Mode: mode},
			Credentials: policy.Credentials{Username: u.User.Username(), PasswordFrom: policy.SecretFrom{File: file}},
		},
	}, nil
}

func (h *house) say(format string, args ...any) { fmt.Fprintf(h.err, format+"\n", args...) }

// announce writes the ready files and prints the table of users.
func (h *house) announce(started time.Time) error {
	ca, err := h.server.CAFile()
	if err != nil {
		return err
	}
	at := h.server.Addresses()
	h.state.Port, h.state.NativePort = int(at.API.Port()), int(at.Postgres.Port())
	if err := writeJSONFile(filepath.Join(h.o.dir, "dev.json"), h.state); err != nil {
		return err
	}
	r := readiness{
		Server: "https://" + at.API.String(), CAFile: ca, Issuer: h.idp.URL(), Password: h.state.Password,
		AuditorKeyFile: h.auditorFile(), EvidenceDir: filepath.Join(h.o.dir, "evidence"),
		Postgres: endpoint{Host: at.Postgres.Addr().String(), Port: int(at.Postgres.Port())},
		Services: []devClient{{Name: devService, Groups: []string{devService}, ClientID: devService, ClientSecret: h.state.ServiceSecret, WorkloadFile: h.workloadFile()}},
		Sample:   map[string]any{"postgres": h.sampleURL()},
		PID:      os.Getpid(),
	}
	if r.CAFingerprint, err = fingerprintFile(ca); err != nil {
		return err
	}
	for _, u := range devUsers() {
		r.Users = append(r.Users, devUser{u.Name, u.Groups})
	}
	if err := writeJSONFile(filepath.Join(h.o.dir, "ready.json"), r); err != nil {
		return err
	}
	if h.o.readyFile != "" {
		if err := writeJSONFile(h.o.readyFile, r); err != nil {
			return err
		}
	}
	return h.printHouse(r, h.now().Sub(started))
}

func (h *house) sampleURL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", h.state.PostgresPassword), Host: h.pg.Address(), Path: "/" + sampleDatabase}
	return u.String()
}

func (h *house) printHouse(r readiness, took time.Duration) error {
	w := h.err
	fmt.Fprintf(w, "\nReady after %.1f s. Everything is kept in %s.\n\n", took.Seconds(), h.o.dir)
	t := newTable(w)
	fmt.Fprintf(t, "server\t%s\nCA\t%s\nidentity provider\t%s\nnative PostgreSQL\t%s:%d\nsample PostgreSQL\t%s (direct, not through the broker)\nevidence\t%s\n",
		r.Server, r.CAFingerprint, r.Issuer, r.Postgres.Host, r.Postgres.Port, h.pg.Address(), r.EvidenceDir)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nUsers, all with the password %s:\n\n", r.Password)
	fmt.Fprintln(t, "USER\tGROUPS\t")
	for _, u := range r.Users {
		fmt.Fprintf(t, "%s\t%s\t%s\n", u.Name, strings.Join(u.Groups, ", "), devWords[u.Name])
	}
	fmt.Fprintf(t, "%s\t%s\t%s\n", devService, devService, "a service: runs its own statements only")
	if err := t.Flush(); err != nil {
		return err
	}
	flag := ""
	if def, err := h.devDir(""); err != nil || def != h.o.dir {
		flag = " --dir " + h.o.dir
	}
	fmt.Fprintf(w, "\nIn another terminal:\n\n  hoopctl dev login alice%s\n  hoopctl connect clinic --client\n\nCtrl-C ends all of it.\n", flag)
	return nil
}
