package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Tx is one transaction: all of it is written, or nothing. It lives as long as
// the function that it was handed to and belongs to that goroutine.
type Tx struct {
	ctx     context.Context
	tx      *sql.Tx
	now     int64
	keep    bool   // keep every version
	by      string // who changed it
	changes []Change
}

// Tx runs fn as one transaction. An error of fn, or a panic, undoes it all.
// fn must use tx alone, not the store.
func (s *Store) Tx(ctx context.Context, fn func(tx *Tx) error) error {
	return s.transact(ctx, false, "", fn)
}

// Apply is Tx, and keeps every version that is written or deleted in it, with
// the name of who did so: resources keep their history. See History.
func (s *Store) Apply(ctx context.Context, by string, fn func(tx *Tx) error) error {
	return s.transact(ctx, true, by, fn)
}

func (s *Store) transact(ctx context.Context, keep bool, by string, fn func(*Tx) error) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("store: wait to write: %w", context.Cause(ctx))
	}
	defer func() { <-s.turn }()
	changes, err := s.run(context.WithoutCancel(ctx), keep, by, fn)
	if err == nil {
		// Still in the turn: watchers hear of changes in the order in which they were made.
		s.tell(changes)
	}
	return err
}

func (s *Store) run(ctx context.Context, keep bool, by string, fn func(*Tx) error) ([]Change, error) {
	sqlTx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("store: begin: %w", err)
	}
	defer sqlTx.Rollback() // after Commit it does nothing
	tx := &Tx{ctx: ctx, tx: sqlTx, now: s.now().UnixNano(), keep: keep, by: by}
	if err := fn(tx); err != nil {
		return nil, err
	}
	if err := sqlTx.Commit(); err != nil {
		return nil, fmt.Errorf("store: commit: %w", err)
	}
	return tx.changes, nil
}

// Get returns the document's body as this transaction sees it, or ErrNotFound.
func (tx *Tx) Get(kind, name string) ([]byte, error) {
	d, err := document(tx.ctx, tx.tx, kind, name)
	return d.Body, err
}

// List returns every document of the kind as this transaction sees it, by name.
func (tx *Tx) List(kind string) ([]Document, error) {
	return list(tx.ctx, tx.tx, "SELECT name, version, created, updated, body FROM document WHERE kind = ? ORDER BY name", kind)
}

// Put writes the document, whatever was there, and returns its new version. A
// document that was deleted and comes back counts on where its kept history ended.
func (tx *Tx) Put(kind, name string, body []byte) (version int64, err error) {
	if kind == "" || name == "" {
		return 0, errors.New("store: a document needs a kind and a name")
	}
	if body == nil {
		body = []byte{}
	}
	d := Document{Kind: kind, Name: name, Body: body, Updated: time.Unix(0, tx.now)}
	var created int64
	err = tx.tx.QueryRowContext(tx.ctx, `INSERT INTO document (kind, name, version, created, updated, body)
		VALUES (?1, ?2, 1 + coalesce((SELECT max(version) FROM history WHERE kind = ?1 AND name = ?2), 0), ?3, ?3, ?4)
		ON CONFLICT (kind, name) DO UPDATE SET version = version + 1, updated = excluded.updated, body = excluded.body
		RETURNING version, created`, kind, name, tx.now, body).Scan(&d.Version, &created)
	if err != nil {
		return 0, fmt.Errorf("store: write %s %s: %w", kind, name, err)
	}
	d.Created = time.Unix(0, created)
	tx.changes = append(tx.changes, Change{Document: d})
	return d.Version, tx.remember(kind, name, d.Version, body)
}

// Delete removes the document, or returns ErrNotFound.
func (tx *Tx) Delete(kind, name string) error {
	var version int64
	err := tx.tx.QueryRowContext(tx.ctx, "DELETE FROM document WHERE kind = ? AND name = ? RETURNING version", kind, name).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s %s: %w", kind, name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("store: delete %s %s: %w", kind, name, err)
	}
	tx.changes = append(tx.changes, Change{Document: Document{Kind: kind, Name: name, Version: version + 1}, Deleted: true})
	return tx.remember(kind, name, version+1, nil)
}

func (tx *Tx) remember(kind, name string, version int64, body []byte) error {
	if !tx.keep {
		return nil
	}
	_, err := tx.tx.ExecContext(tx.ctx, "INSERT INTO history (kind, name, version, time, by, body) VALUES (?, ?, ?, ?, ?, ?)",
		kind, name, version, tx.now, tx.by, body)
	if err != nil {
		return fmt.Errorf("store: keep %s %s version %d: %w", kind, name, version, err)
	}
	return nil
}

// Version is one kept version of a document.
type Version struct {
	Version int64
	Time    time.Time
	By      string
	Deleted bool
	Body    []byte // nil if Deleted
}

// History returns the kept versions of a document, oldest first; none is no error.
func (s *Store) History(ctx context.Context, kind, name string) ([]Version, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT version, time, by, body FROM history WHERE kind = ? AND name = ? ORDER BY version", kind, name)
	if err != nil {
		return nil, fmt.Errorf("store: history of %s %s: %w", kind, name, err)
	}
	defer rows.Close()
	var all []Version
	for rows.Next() {
		var v Version
		var at int64
		if err := rows.Scan(&v.Version, &at, &v.By, &v.Body); err != nil {
			return nil, fmt.Errorf("store: history of %s %s: %w", kind, name, err)
		}
		v.Time, v.Deleted = time.Unix(0, at), v.Body == nil
		all = append(all, v)
	}
	return all, rows.Err()
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func document(ctx context.Context, q querier, kind, name string) (Document, error) {
	d := Document{Kind: kind, Name: name}
	var created, updated int64
	err := q.QueryRowContext(ctx, "SELECT version, created, updated, body FROM document WHERE kind = ? AND name = ?", kind, name).
		Scan(&d.Version, &created, &updated, &d.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return Document{}, fmt.Errorf("%s %s: %w", kind, name, ErrNotFound)
	}
	if err != nil {
		return Document{}, fmt.Errorf("store: read %s %s: %w", kind, name, err)
	}
	d.Created, d.Updated = time.Unix(0, created), time.Unix(0, updated)
	return d, nil
}

func list(ctx context.Context, q querier, query, kind string, args ...any) ([]Document, error) {
	rows, err := q.QueryContext(ctx, query, append([]any{kind}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("store: list %s: %w", kind, err)
	}
	defer rows.Close()
	var all []Document
	for rows.Next() {
		d := Document{Kind: kind}
		var created, updated int64
		if err := rows.Scan(&d.Name, &d.Version, &created, &updated, &d.Body); err != nil {
			return nil, fmt.Errorf("store: list %s: %w", kind, err)
		}
		d.Created, d.Updated = time.Unix(0, created), time.Unix(0, updated)
		all = append(all, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("store: list %s: %w", kind, err)
	}
	return all, nil
}
