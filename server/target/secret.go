package target

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy"
)

const (
	maxSecret   = 64 << 10 // bytes of a file or of a command's output
	execTimeout = 10 * time.Second
)

// secret caches what a command said, for one target's resource.
type secret struct {
	run  chan struct{} // capacity 1, made by the first user: one command at a time
	once sync.Once

	mu    sync.Mutex
	value string
	until time.Time
	made  time.Time
}

// Login returns the credentials, read anew: from the environment, the file or
// the command, which alone may be remembered for its ttl. again forgets what
// was remembered: the target has just refused it. Errors never hold a secret.
func (t *Target) Login(ctx context.Context, again bool) (Credentials, error) {
	c := &t.entry.spec.Credentials
	out := Credentials{Username: c.Username, Cleartext: c.AllowCleartext, Roles: c.Roles}
	var err error
	if out.Password, err = t.password(ctx, &c.PasswordFrom, again); err != nil {
		return Credentials{}, unavailable(t.info.Name, fmt.Errorf("its password: %w", err))
	}
	if c.Mode == "certificate" {
		if out.Certificate, err = t.certificate(c); err != nil {
			return Credentials{}, unavailable(t.info.Name, fmt.Errorf("its client certificate: %w", err))
		}
	}
	return out, nil
}

func (t *Target) password(ctx context.Context, from *policy.SecretFrom, again bool) (string, error) {
	switch {
	case from.Env != "":
		return t.fromEnv(from.Env)
	case from.File != "":
		b, err := t.room.readFile(from.File)
		if err != nil {
			return "", err
		}
		return text(b)
	case from.Exec != nil:
		return t.fromCommand(ctx, from.Exec, again)
	default:
		return "", nil // the target may trust the server, or take its certificate
	}
}

func (t *Target) fromEnv(name string) (string, error) {
	if strings.HasPrefix(strings.ToUpper(name), "HOOPCTL_") {
		return "", fmt.Errorf("environment variable %s is the server's own", name)
	}
	v, ok := t.room.cfg.Env(name)
	if !ok {
		return "", fmt.Errorf("environment variable %s is not set where the server runs", name)
	}
	return text([]byte(v))
}

// text is a secret as it was meant: without the newline that editors and echo
// leave at its end.
func text(b []byte) (string, error) {
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return "", errors.New("it is empty")
	case bytes.IndexByte(b, 0) >= 0:
		return "", errors.New("it holds a NUL byte")
	}
	return string(b), nil
}

func (t *Target) certificate(c *policy.Credentials) (*tls.Certificate, error) {
	cert, err := t.room.readFile(c.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := t.room.readFile(c.KeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certFile %s and keyFile %s are no pair of PEM files", c.CertFile, c.KeyFile)
	}
	return &pair, nil
}

// readFile reads a file that a resource names. Below SecretsDir it is opened
// so that neither .. nor a link leads out of the folder: whoever may write
// resources shall not read the server's other files.
func (r *Room) readFile(name string) ([]byte, error) {
	if r.cfg.SecretsDir != "" && (!r.cfg.Dev || !filepath.IsAbs(name)) {
		return readBelow(r.cfg.SecretsDir, name)
	}
	if !r.cfg.Dev {
		return nil, fmt.Errorf("file %s: the server has no secretsDir, so resources cannot name files; set secretsDir in server.yaml", name)
	}
	f, err := openRegular(os.Stat, func(n string) (*os.File, error) { return os.Open(n) }, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, name)
}

func readBelow(dir, name string) ([]byte, error) {
	rel := name
	if filepath.IsAbs(name) {
		var err error
		if rel, err = filepath.Rel(dir, name); err != nil {
			return nil, fmt.Errorf("file %s is not below secretsDir", name)
		}
	}
	if !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("file %s is not below secretsDir", name)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("secretsDir: %w", err)
	}
	defer root.Close()
	f, err := openRegular(root.Stat, root.Open, rel)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, name)
}

// openRegular looks before it opens: opening a FIFO would wait for a writer.
func openRegular(stat func(string) (fs.FileInfo, error), open func(string) (*os.File, error), name string) (*os.File, error) {
	info, err := stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("file %s is not a regular file", name)
	}
	if err != nil {
		return nil, err
	}
	return open(name)
}

func readAll(f io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", name, err)
	}
	if len(b) > maxSecret {
		return nil, fmt.Errorf("file %s is larger than %d bytes", name, maxSecret)
	}
	return b, nil
}

// fromCommand returns what the command said within its ttl, or runs it. Many
// logins at once run it once. With again, a value made before this call is not
// good enough; one that another caller fetched meanwhile is.
func (t *Target) fromCommand(ctx context.Context, from *policy.SecretExec, again bool) (string, error) {
	s := &t.entry.secret
	asked := t.room.cfg.Now()
	fresh := func() (string, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.value, s.value != "" && t.room.cfg.Now().Before(s.until) && (!again || s.made.After(asked))
	}
	if v, ok := fresh(); ok {
		return v, nil
	}
	s.once.Do(func() { s.run = make(chan struct{}, 1) })
	select {
	case s.run <- struct{}{}:
		defer func() { <-s.run }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if v, ok := fresh(); ok {
		return v, nil
	}
	v, err := t.room.command(ctx, t.info.Name, from.Command)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.made, s.until = v, t.room.cfg.Now(), t.room.cfg.Now().Add(time.Duration(from.TTL))
	return v, err
}

// command runs a command that prints a secret, without a shell. It gets the
// server's environment without the server's own variables. Nothing that it
// says is kept but the secret: its standard error may hold one, too.
func (r *Room) command(ctx context.Context, target string, argv []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", errors.New("passwordFrom.exec names no command")
	}
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(strings.ToUpper(v), "HOOPCTL_") })
	cmd.WaitDelay = time.Second // what it started may hold its output open
	apart(cmd)
	out := &bounded{max: maxSecret}
	cmd.Stdout = out
	err := cmd.Run()
	if err != nil {
		r.cfg.Log.Error("target: the command for a password failed", "target", target, "command", argv[0], "error", err,
			"hint", "run it by hand as the server's user to see what it says: that may hold secrets and is not kept")
	}
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("command %s did not end in time: %w", argv[0], ctx.Err())
	case err != nil:
		return "", fmt.Errorf("command %s failed (%w)", argv[0], err)
	case out.over:
		return "", fmt.Errorf("command %s printed more than %d bytes", argv[0], maxSecret)
	}
	v, err := text(out.kept)
	if err != nil {
		return "", fmt.Errorf("what command %s printed: %w", argv[0], err)
	}
	return v, nil
}

// bounded keeps the first max bytes and swallows the rest. It has no ReadFrom:
// io.Copy would read past the bound through it.
type bounded struct {
	kept []byte
	max  int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), b.max-len(b.kept))
	b.kept = append(b.kept, p[:keep]...)
	b.over = b.over || keep < len(p)
	return len(p), nil
}
