package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// pgFiles are libpq's two files that programs look servers up in: DBeaver,
// DataGrip, psql service=….
type pgFiles struct {
	pass, service string
	lock          string // taken while they are changed
}

// ownPGFiles are the user's, or those that PGPASSFILE and PGSERVICEFILE name.
// (https://www.postgresql.org/docs/15/libpq-pgpass.html, …/libpq-pgservice.html)
func (a *app) ownPGFiles() (pgFiles, error) {
	ours, err := a.home()
	if err != nil {
		return pgFiles{}, err
	}
	home, err := os.UserHomeDir()
	if err != nil && (a.getenv("PGPASSFILE") == "" || a.getenv("PGSERVICEFILE") == "") {
		return pgFiles{}, withHint(fmt.Errorf("find your home folder: %w", err), "set PGPASSFILE and PGSERVICEFILE")
	}
	f := pgFiles{pass: filepath.Join(home, ".pgpass"), service: filepath.Join(home, ".pg_service.conf"), lock: filepath.Join(ours, "pgpass.lock")}
	if data := a.getenv("APPDATA"); runtime.GOOS == "windows" && data != "" {
		f.pass, f.service = filepath.Join(data, "postgresql", "pgpass.conf"), filepath.Join(data, "postgresql", ".pg_service.conf")
	}
	if own := a.getenv("PGPASSFILE"); own != "" {
		f.pass = own
	}
	if own := a.getenv("PGSERVICEFILE"); own != "" {
		f.service = own
	}
	return f, nil
}

// add enters a forward under the target's name; an entry of an earlier run,
// which may have been killed, is replaced.
func (f pgFiles) add(ctx context.Context, p place) error {
	return f.locked(ctx, func() error {
		err := editBlock(f.service, p.Target, serviceEntry(p), func(rest string) error {
			if strings.Contains("\n"+rest, "\n["+p.Target+"]") {
				return withHint(fmt.Errorf("%s has a service %s of its own", f.service, p.Target), "rename it, or leave --pgpass out")
			}
			return nil
		})
		if err != nil {
			return err
		}
		return editBlock(f.pass, p.Target, passLine(p.Host, p.Port, p.User, p.Password), nil)
	})
}

// remove takes the entries of a forward out, unless a later run has replaced them.
func (f pgFiles) remove(ctx context.Context, p place) error {
	return f.locked(ctx, func() error {
		b, err := os.ReadFile(f.pass)
		if err != nil || !strings.Contains(string(b), ":"+p.Password+"\n") {
			return err
		}
		return errors.Join(editBlock(f.service, p.Target, "", nil), editBlock(f.pass, p.Target, "", nil))
	})
}

// locked keeps two runs of hoopctl from losing each other's lines.
func (f pgFiles) locked(ctx context.Context, change func() error) error {
	if err := os.MkdirAll(filepath.Dir(f.lock), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(f.lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // gives it back
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for lockFile(lock) != nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", f.lock, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return change()
}

// editBlock replaces the lines between our marks for a target, "" removes
// them. What else stands in the file stays as it is; check may refuse it.
func editBlock(path, target, lines string, check func(rest string) error) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // dot files are often links
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	begin, end := "# hoopctl connect "+target+": until it ends\n", "# end of hoopctl connect "+target+"\n"
	rest := withoutBlock(string(old), begin, end)
	if check != nil {
		if err := check(rest); err != nil {
			return err
		}
	}
	next := rest
	if lines != "" {
		if next != "" && !strings.HasSuffix(next, "\n") {
			next += "\n"
		}
		next += begin + lines + end
	}
	if bytes.Equal(old, []byte(next)) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return replaceFile(path, []byte(next))
}

func withoutBlock(s, begin, end string) string {
	i := strings.Index("\n"+s, "\n"+begin)
	if i < 0 {
		return s
	}
	j := strings.Index(s[i:], "\n"+end)
	if j < 0 {
		return s[:i] + s[i+len(begin):] // somebody removed our end: take no more than our own mark
	}
	return s[:i] + s[i+j+1+len(end):]
}

// passLine is a line of a password file, good for every database there.
func passLine(host string, port int, user, password string) string {
	escaped := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	return strings.Join([]string{escaped.Replace(host), strconv.Itoa(port), "*", escaped.Replace(user), escaped.Replace(password)}, ":") + "\n"
}

func serviceEntry(p place) string {
	return fmt.Sprintf("[%s]\nhost=%s\nport=%d\nuser=%s\ndbname=%s\nsslmode=disable\n", p.Target, p.Host, p.Port, p.User, p.Database)
}
