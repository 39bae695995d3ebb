package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"
)

// ErrNotFound: there is no such document. It and ErrConflict also answer the
// questions NotFound() bool and Conflict() bool, for rooms that do not import
// this package.
var ErrNotFound error = notFound{}

// ErrConflict: the document exists already, or is not what it was.
var ErrConflict error = conflict{}

type notFound struct{}

func (notFound) Error() string  { return "not found" }
func (notFound) NotFound() bool { return true }

type conflict struct{}

func (conflict) Error() string  { return "exists already, or has changed" }
func (conflict) Conflict() bool { return true }

// Document is one document as it stands.
type Document struct {
	Kind    string
	Name    string
	Version int64 // from 1; counts the writes of this (kind, name)
	Created time.Time
	Updated time.Time
	Body    []byte
}

// Store is the state. Its methods are safe for concurrent use. Writes run one
// at a time and, once begun, to their end: a cancelled context gives up waiting
// for its turn but never leaves a write's outcome in doubt.
type Store struct {
	path  string
	file  fs.FileInfo // the file that was opened; if the path names another one, the state is lost
	now   func() time.Time
	write *sql.DB // one connection
	read  *sql.DB
	lock  *sql.DB
	held  *sql.Tx // on lock, until the end

	turn chan struct{} // capacity 1: held by the one writer

	nextMu sync.Mutex
	next   map[string]*block

	watchMu  sync.Mutex
	watchers map[*watcher]struct{}
	closed   bool
	watching sync.WaitGroup
}

// Option changes how a Store is opened.
type Option func(*Store)

// WithClock sets the clock that dates documents; the default is time.Now.
func WithClock(now func() time.Time) Option { return func(s *Store) { s.now = now } }

const (
	application = 0x686f6f70 // "hoop", PRAGMA application_id
	schema      = 1          // PRAGMA user_version
	lockWait    = 3 * time.Second
)

const tables = `
CREATE TABLE document (
	kind TEXT NOT NULL, name TEXT NOT NULL,
	version INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL, -- ns since 1970
	body BLOB NOT NULL,
	PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX document_updated ON document (kind, updated);
CREATE TABLE history (
	kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
	time INTEGER NOT NULL, by TEXT NOT NULL,
	body BLOB, -- NULL: deleted
	PRIMARY KEY (kind, name, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE sequence (name TEXT NOT NULL PRIMARY KEY, next INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`

// Open opens the store at "sqlite:PATH", making the file (0600) and its folder
// (0700) where they are missing. It waits up to 3 s for a predecessor that is
// going away, and then names what is in the way.
func Open(where string, options ...Option) (*Store, error) {
	path, err := locate(where)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, now: time.Now, turn: make(chan struct{}, 1), next: map[string]*block{}, watchers: map[*watcher]struct{}{}}
	for _, o := range options {
		o(s)
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), s.shut())
	}
	return s, nil
}

func locate(where string) (string, error) {
	scheme, path, found := strings.Cut(where, ":")
	if !found || scheme != "sqlite" {
		// Only the scheme is repeated: a database URL may hold a password.
		return "", fmt.Errorf("store %q: want sqlite:PATH", scheme+":…")
	}
	path = strings.TrimPrefix(path, "//")
	if path == "" || strings.ContainsRune(path, 0) {
		return "", errors.New("store sqlite: has no path; want sqlite:PATH")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	return path, nil
}

func (s *Store) open() (err error) {
	if err := prepare(s.path); err != nil {
		return err
	}
	if err := prepare(s.path + ".lock"); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if s.file, err = os.Stat(s.path); err != nil {
		return err
	}
	common := url.Values{"_busy_timeout": {"5000"}, "_pragma": {"foreign_keys(1)", "trusted_schema(0)"}}
	writer := url.Values{"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}}
	if s.write, err = connect(s.path, 1, common, writer); err != nil {
		return fmt.Errorf("it cannot be read as a database of ours: %w; restore it from a backup", err)
	}
	if err := s.migrate(); err != nil {
		return err
	}
	s.read, err = connect(s.path, 4, common, url.Values{"_query_only": {"1"}})
	return err
}

// prepare makes the file for its owner's eyes only. SQLite gives its -wal and
// -shm files the mode of the file itself.
func prepare(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(path, 0o600)
	}
	return errors.Join(err, f.Close())
}

// takeLock holds an exclusive transaction on a small database of its own for
// as long as the process lives: two servers on one file would each believe
// their own memory of who holds which grant. SQLite's lock works alike on every
// platform and dies with the process.
func (s *Store) takeLock() (err error) {
	wait := url.Values{"_busy_timeout": {fmt.Sprint(lockWait.Milliseconds())}, "_txlock": {"exclusive"}, "_journal_mode": {"MEMORY"}}
	if s.lock, err = connect(s.path+".lock", 1, wait); err == nil {
		s.held, err = s.lock.Begin()
	}
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == 5 { // SQLITE_BUSY
		return errors.New("another server has it open; stop that one, or give this one a store of its own")
	}
	return err
}

func connect(path string, connections int, options ...url.Values) (*sql.DB, error) {
	all := url.Values{}
	for _, o := range options {
		for k, v := range o {
			all[k] = append(all[k], v...)
		}
	}
	// A URI escapes what a path may hold and SQLite would take for an option.
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path)}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path // C:/…
	}
	db, err := sql.Open("sqlite", u.String()+"?"+all.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	if err := db.Ping(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// migrate makes the tables in an empty file, and refuses a file that is not
// ours, is newer than we are, or is damaged.
func (s *Store) migrate() error {
	var app, version, objects int
	var check string
	row := s.write.QueryRow(`SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema), (SELECT quick_check FROM pragma_quick_check LIMIT 1)`)
	if err := row.Scan(&app, &version, &objects, &check); err != nil {
		return fmt.Errorf("it cannot be read: %w; restore it from a backup", err)
	}
	switch {
	case check != "ok":
		return fmt.Errorf("it is damaged (%s); restore it from a backup", check)
	case objects == 0 && app == 0:
		_, err := s.write.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;", tables, application, schema))
		return err
	case app != application:
		return errors.New("it is a database of something else")
	case version != schema:
		return fmt.Errorf("it has schema %d and this version of hoopctl knows schema %d; run the version that made it", version, schema)
	}
	return nil
}

// Close gives back what was reserved, ends every Watch, and closes the file.
func (s *Store) Close() error {
	s.watchMu.Lock()
	s.closed = true
	for w := range s.watchers {
		w.stop()
	}
	s.watchMu.Unlock()
	s.watching.Wait()
	return errors.Join(s.giveBack(context.Background()), s.shut())
}

func (s *Store) shut() error {
	var errs []error
	if s.held != nil {
		errs = append(errs, s.held.Rollback())
	}
	for _, db := range []*sql.DB{s.read, s.write, s.lock} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Check reads the store and reports whether it can be read, from the file that
// was opened: a server asks it every second, and stops relaying when it has
// failed for 4 s.
func (s *Store) Check(ctx context.Context) error {
	info, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if !os.SameFile(info, s.file) {
		return fmt.Errorf("store: %s was replaced by another file", s.path)
	}
	var one int
	if err := s.read.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM document LIMIT 1)").Scan(&one); err != nil {
		return fmt.Errorf("store: read %s: %w", s.path, err)
	}
	return nil
}

// Get returns the document's body, or ErrNotFound.
func (s *Store) Get(ctx context.Context, kind, name string) ([]byte, error) {
	d, err := s.Document(ctx, kind, name)
	return d.Body, err
}

// Document returns the document with its version and times, or ErrNotFound.
func (s *Store) Document(ctx context.Context, kind, name string) (Document, error) {
	return document(ctx, s.read, kind, name)
}

// List returns every document of the kind, ordered by name as bytes.
func (s *Store) List(ctx context.Context, kind string) ([]Document, error) {
	return list(ctx, s.read, "SELECT name, version, created, updated, body FROM document WHERE kind = ? ORDER BY name", kind)
}

// Each calls fn with the documents of the kind that were written at or after
// since (zero: all), oldest write first. It stops at fn's error and returns it.
// They are read before the first call: fn may write to the store.
func (s *Store) Each(ctx context.Context, kind string, since time.Time, fn func(name string, body []byte) error) error {
	from := int64(0)
	if !since.IsZero() {
		from = since.UnixNano()
	}
	docs, err := list(ctx, s.read, "SELECT name, version, created, updated, body FROM document WHERE kind = ? AND updated >= ? ORDER BY updated, name", kind, from)
	if err != nil {
		return err
	}
	for _, d := range docs {
		if err := fn(d.Name, d.Body); err != nil {
			return err
		}
	}
	return nil
}

// Put writes the document, whatever was there, and returns its new version.
func (s *Store) Put(ctx context.Context, kind, name string, body []byte) (version int64, err error) {
	err = s.Tx(ctx, func(tx *Tx) error {
		version, err = tx.Put(kind, name, body)
		return err
	})
	return version, err
}

// Create writes a document that must not exist; if it does, ErrConflict.
func (s *Store) Create(ctx context.Context, kind, name string, body []byte) error {
	return s.Tx(ctx, func(tx *Tx) error {
		switch _, err := tx.Get(kind, name); {
		case err == nil:
			return fmt.Errorf("%s %s: %w", kind, name, ErrConflict)
		case !errors.Is(err, ErrNotFound):
			return err
		}
		_, err := tx.Put(kind, name, body)
		return err
	})
}

// Update reads the document and writes what fn makes of it, as one step. fn
// gets nil if there is none; its error ends the update and is returned; nil
// without an error changes nothing. fn must not use the store.
func (s *Store) Update(ctx context.Context, kind, name string, fn func(body []byte) ([]byte, error)) error {
	return s.Tx(ctx, func(tx *Tx) error {
		old, err := tx.Get(kind, name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		body, err := fn(old)
		if err != nil || body == nil {
			return err
		}
		_, err = tx.Put(kind, name, body)
		return err
	})
}

// Move takes the document out of one kind and writes body under the same name
// in another, as one step: what has ended leaves the kind of what is live. If
// it is no longer in kind, ErrNotFound, and nothing is written.
func (s *Store) Move(ctx context.Context, kind, name, to string, body []byte) error {
	return s.Tx(ctx, func(tx *Tx) error {
		if err := tx.Delete(kind, name); err != nil {
			return err
		}
		_, err := tx.Put(to, name, body)
		return err
	})
}

// Delete removes the document, or returns ErrNotFound.
func (s *Store) Delete(ctx context.Context, kind, name string) error {
	return s.Tx(ctx, func(tx *Tx) error { return tx.Delete(kind, name) })
}
