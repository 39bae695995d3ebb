package devidp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// state is what outlives a restart: DIR/devidp.json, 0600.
type state struct {
	Key      []byte              `json:"key"`    // of ID tokens: PKCS #8, P-256
	Secret   []byte              `json:"secret"` // 32 bytes: encrypts access tokens, names authentications
	Sessions map[string]*session `json:"sessions"`

	mu     sync.Mutex
	path   string
	signer *ecdsa.PrivateKey
}

// session is one login's line of refresh tokens, of which one is valid.
type session struct {
	ID       string    `json:"id"`
	User     string    `json:"user"`
	Client   string    `json:"client"`
	Scopes   []string  `json:"scopes"`
	AuthTime time.Time `json:"authTime"`
	Expires  time.Time `json:"expires"`
	Hash     string    `json:"hash"` // SHA-256 of the valid token
}

func loadState(dir string, now time.Time) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	st := &state{path: filepath.Join(dir, "devidp.json"), Sessions: map[string]*session{}}
	b, err := os.ReadFile(st.path)
	if errors.Is(err, fs.ErrNotExist) {
		return st, st.create()
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, st); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w (remove it: everyone logs in anew)", st.path, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(st.Key)
	signer, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok || len(st.Secret) != 32 {
		return nil, fmt.Errorf("%s holds no key of ours (remove it: everyone logs in anew)", st.path)
	}
	st.signer = signer
	st.prune(now)
	return st, nil
}

func (st *state) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if st.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return err
	}
	st.signer, st.Secret = key, make([]byte, 32)
	rand.Read(st.Secret) // never fails
	return st.save()
}

func (st *state) cryptoKey() (k [32]byte) {
	copy(k[:], st.Secret)
	return k
}

func (st *state) keyID() string {
	sum := sha256.Sum256(st.Key)
	return hex.EncodeToString(sum[:8])
}

func (st *state) prune(now time.Time) {
	for id, x := range st.Sessions {
		if now.After(x.Expires) {
			delete(st.Sessions, id)
		}
	}
}

// begin opens a session and returns its first refresh token.
func (st *state) begin(x session, now time.Time) (string, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.prune(now)
	st.Sessions[x.ID] = &x
	return st.next(&x)
}

// next makes the session's token anew and keeps it. The caller holds mu.
func (st *state) next(x *session) (string, error) {
	token := x.ID + "." + rand.Text()
	x.Hash = hash(token)
	return token, st.save()
}

// find returns the session that a token is, or was, of. A token that was
// replaced is a stolen one, or its thief has the other: the session ends. The
// caller holds mu.
func (st *state) find(token string, now time.Time) (*session, error) {
	id, _, _ := strings.Cut(token, ".")
	x := st.Sessions[id]
	if x == nil || now.After(x.Expires) {
		return nil, errGone
	}
	if !same(x.Hash, hash(token)) {
		delete(st.Sessions, id)
		return nil, errors.Join(errGone, st.save())
	}
	return x, nil
}

func (st *state) check(token string, now time.Time) (session, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	x, err := st.find(token, now)
	if err != nil {
		return session{}, err
	}
	return *x, nil
}

// rotate replaces a token, once: the second of two who show it at the same
// time ends the session.
func (st *state) rotate(token string, now time.Time) (string, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	x, err := st.find(token, now)
	if err != nil {
		return "", err
	}
	x.Expires = now.Add(refreshLife)
	return st.next(x)
}

func (st *state) end(token, client string) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	id, _, _ := strings.Cut(token, ".")
	x := st.Sessions[id]
	if x == nil || x.Client != client || !same(x.Hash, hash(token)) {
		return nil
	}
	delete(st.Sessions, id)
	return st.save()
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// save replaces the file so that a crash leaves the old or the new one. The
// caller holds mu, or is alone.
func (st *state) save() error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(st.path), "devidp.json.tmp*")
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
	return os.Rename(f.Name(), st.path)
}
