package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
	"github.com/zalando/go-keyring"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// Keyring keeps small secrets for the person who is logged in to the machine.
// Get returns an error that is fs.ErrNotExist for what is not there.
type Keyring interface {
	Set(service, user, secret string) error
	Get(service, user string) (string, error)
	Delete(service, user string) error
}

// systemKeyring is the operating system's: Keychain, Credential Manager, or
// the Secret Service over D-Bus.
type systemKeyring struct{}

func (systemKeyring) Set(service, user, secret string) error {
	return keyring.Set(service, user, secret)
}

func (systemKeyring) Get(service, user string) (string, error) {
	s, err := keyring.Get(service, user)
	if errors.Is(err, keyring.ErrNotFound) {
		return "", fs.ErrNotExist
	}
	return s, err
}

func (systemKeyring) Delete(service, user string) error {
	err := keyring.Delete(service, user)
	if errors.Is(err, keyring.ErrNotFound) {
		return nil
	}
	return err
}

const keyringService = "hoopctl"

// login is one login as it is kept: what is needed to speak to its server, and
// the secret unless a keyring holds it.
type login struct {
	Server      string           `json:"server"`
	CA          string           `json:"ca,omitempty"`       // PEM of the server's own CA; "" is the system's roots
	LogKey      string           `json:"logKey,omitempty"`   // the evidence log's verifier key as it was at login
	ClientCA    string           `json:"clientCA,omitempty"` // PEM of the authority that signs logins, as it was at login
	Issuer      api.Issuer       `json:"issuer"`
	Workload    string           `json:"workload,omitempty"` // where a service finds its assertion; "" is a person
	Login       string           `json:"login"`
	Certificate string           `json:"certificate"` // PEM chain, leaf first
	Expires     time.Time        `json:"expires"`
	LoginEnds   time.Time        `json:"loginEnds"`
	Principal   policy.Principal `json:"principal"`
	InKeyring   bool             `json:"inKeyring,omitempty"`
	Secret      *secret          `json:"secret,omitempty"`
}

// secret is what must not leave the machine. It is small enough (< 2.5 KB) for
// Windows' Credential Manager as long as the refresh token is.
type secret struct {
	Key     []byte `json:"key"` // PKCS #8
	Refresh string `json:"refresh,omitempty"`
}

// store keeps one login of one server. Its methods are not for concurrent use:
// writers hold the lock.
type store struct {
	dir     string
	name    string // file name without suffix
	addr    string
	keyring Keyring // nil: never
}

func newStore(home, addr string, fileOnly bool, k Keyring) store {
	if k == nil {
		k = systemKeyring{}
	}
	if fileOnly {
		k = nil
	}
	// The address in the name is for people; the digest keeps names apart and legal.
	sum := sha256.Sum256([]byte(addr))
	return store{dir: filepath.Join(home, "logins"), name: legal(addr) + "-" + hex.EncodeToString(sum[:4]), addr: addr, keyring: k}
}

// legal replaces what some file system refuses in a name.
func legal(s string) string {
	b := []byte(s)
	for i, c := range b {
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-'
		if !ok {
			b[i] = '_'
		}
	}
	return string(b)
}

func (s store) path() string { return filepath.Join(s.dir, s.name+".json") }

// lock keeps other processes of this person from changing the login until the
// returned function is called. It waits as long as ctx lets it.
func (s store) lock(ctx context.Context) (unlock func(), err error) {
	if err := privateDir(s.dir); err != nil {
		return nil, err
	}
	type locked struct {
		unlock func()
		err    error
	}
	done := make(chan locked, 1)
	go func() {
		unlock, err := lockedfile.MutexAt(filepath.Join(s.dir, s.name+".lock")).Lock()
		done <- locked{unlock, err}
	}()
	select {
	case l := <-done:
		if l.err != nil {
			return nil, fmt.Errorf("lock the login: %w", l.err)
		}
		return l.unlock, nil
	case <-ctx.Done():
		go func() { // whoever holds it is bounded by its own timeouts
			if l := <-done; l.err == nil {
				l.unlock()
			}
		}()
		return nil, fmt.Errorf("another hoopctl is renewing this login: %w", ctx.Err())
	}
}

// load reads the login, nil if there is none. A file that others may read or
// write is refused: its key may be known, or may not be ours.
func (s store) load() (*login, error) {
	b, err := readPrivate(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the login: %w", err)
	}
	l := new(login)
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("the login in %s is damaged: %w (hoopctl login makes a new one)", s.path(), err)
	}
	if l.InKeyring {
		if err := s.fromKeyring(l); err != nil {
			return nil, err
		}
	}
	if l.Secret == nil {
		return nil, nil
	}
	return l, nil
}

func (s store) fromKeyring(l *login) error {
	k := s.keyring
	if k == nil {
		k = systemKeyring{}
	}
	text, err := k.Get(keyringService, s.addr)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the login's key from the keyring: %w", err)
	}
	l.Secret = new(secret)
	if err := json.Unmarshal([]byte(text), l.Secret); err != nil {
		return fmt.Errorf("the keyring's entry for %s is damaged: %w", s.addr, err)
	}
	return nil
}

// save writes the login so that a crash leaves the old or the new one.
func (s store) save(l *login) error {
	if err := privateDir(s.dir); err != nil {
		return err
	}
	kept := *l
	kept.InKeyring = s.toKeyring(l.Secret)
	if kept.InKeyring {
		kept.Secret = nil
	}
	b, err := json.MarshalIndent(&kept, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the login: %w", err)
	}
	if err := writePrivate(s.path(), append(b, '\n')); err != nil {
		return fmt.Errorf("keep the login: %w", err)
	}
	return nil
}

// toKeyring reports whether the keyring holds the secret now. Where there is
// none (headless machines), the 0600 file does.
func (s store) toKeyring(x *secret) bool {
	if s.keyring == nil || x == nil {
		return false
	}
	b, err := json.Marshal(x)
	return err == nil && s.keyring.Set(keyringService, s.addr, string(b)) == nil
}

// remove forgets the login.
func (s store) remove() error {
	if s.keyring != nil {
		// Where there is no keyring nothing lies in it; the file is what counts.
		_ = s.keyring.Delete(keyringService, s.addr)
	}
	err := os.Remove(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writePrivate replaces path by a 0600 file with b, durably.
func writePrivate(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*") // 0600, O_EXCL
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
