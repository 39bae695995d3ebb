package evidence

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/hoopctl/hoopctl/server/api"
)

// index finds the blocks of 256 leaves that may hold what a query asks for. It
// knows terms (a kind, a principal, a session …) by block, not by leaf: that
// costs about a microsecond a leaf to keep, and the leaves themselves are read
// from the tree's bundles anyway. It is derived: whatever is wrong with it, it
// is deleted and made anew.
type index struct {
	path   string
	blocks *follower
	log    *slog.Logger

	mu   sync.Mutex
	db   *sql.DB
	next uint64 // the first block that is not in it
}

const indexSchema = `
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS blocks (block INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS terms (term TEXT NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (term, block)) WITHOUT ROWID;`

// openIndex opens the index, or makes a new one if the old may not be trusted:
// after a crash it was not flushed.
func openIndex(path string, blocks *follower, trust bool, log *slog.Logger) (*index, error) {
	x := &index{path: path, blocks: blocks, log: log}
	if trust {
		err := x.open()
		if err == nil {
			return x, nil
		}
		log.Warn("the search index is damaged; rebuilding it", "err", err)
	}
	return x, x.renew()
}

func (x *index) open() error {
	db, err := sql.Open("sqlite", "file:"+x.path)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	var check string
	err = db.QueryRow("PRAGMA quick_check(1)").Scan(&check)
	if err == nil && check != "ok" {
		err = errors.New(check)
	}
	if err == nil {
		_, err = db.Exec(indexSchema)
	}
	var count, top sql.NullInt64
	if err == nil {
		err = db.QueryRow("SELECT count(*), max(block) FROM blocks").Scan(&count, &top)
	}
	if err == nil && count.Int64 > 0 && top.Int64 != count.Int64-1 {
		err = errors.New("blocks are missing")
	}
	if size, _ := x.blocks.at(); err == nil && uint64(count.Int64) > size/tileWidth {
		err = errors.New("it knows more than the log")
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	x.db, x.next = db, uint64(count.Int64)
	return nil
}

// renew starts over with an empty index. Called with the lock held, or before
// anyone else can.
func (x *index) renew() error {
	if x.db != nil {
		x.db.Close() // a damaged database may fail to close; it is deleted
		x.db = nil
	}
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		if err := ignoreMissing(os.Remove(x.path + suffix)); err != nil {
			return fmt.Errorf("rebuild the search index: %w", err)
		}
	}
	if err := x.open(); err != nil {
		return fmt.Errorf("rebuild the search index: %w", err)
	}
	return nil
}

func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db == nil {
		return nil
	}
	return x.db.Close()
}

// catchUp indexes the blocks that became whole. A failure is told and cured:
// the next one starts over.
func (x *index) catchUp() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.catchUpLocked(); err != nil {
		x.log.Warn("the search index failed; rebuilding it", "err", err)
		if err := x.renew(); err != nil {
			x.log.Warn("the search index cannot be rebuilt", "err", err)
		}
	}
}

const blocksPerTx = 256

func (x *index) catchUpLocked() error {
	if x.db == nil {
		if err := x.open(); err != nil {
			return err
		}
	}
	for {
		size, _ := x.blocks.at()
		whole := size / tileWidth
		if x.next >= whole {
			return nil
		}
		if err := x.add(x.next, min(whole, x.next+blocksPerTx)); err != nil {
			return err
		}
	}
}

func (x *index) add(from, to uint64) error {
	tx, err := x.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit
	term, err := tx.Prepare("INSERT INTO terms VALUES (?, ?)")
	if err != nil {
		return err
	}
	for n := from; n < to; n++ {
		bundle, _, err := x.blocks.block(n)
		if err != nil {
			return err
		}
		terms, first, last, err := blockTerms(bundle)
		if err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
		for t := range terms {
			if _, err := term.Exec(t, n); err != nil {
				return err
			}
		}
		if _, err := tx.Exec("INSERT INTO blocks VALUES (?, ?, ?)", n, first, last); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	x.next = to
	return nil
}

// termFields are the leaf's fields that can be asked for, and the prefix of
// their terms.
var termFields = map[string]string{
	"kind": "k", "principal": "p", "name": "n", "target": "t", "verdict": "v", "session": "s", "request": "r", "grant": "g",
	"tables": "T", "tags": "G", "masked": "m", "approvals": "a",
}

// blockTerms are the distinct terms of a block, and the range of its times.
func blockTerms(bundle []byte) (terms map[string]struct{}, first, last int64, err error) {
	terms = map[string]struct{}{}
	first = 1<<63 - 1
	err = entries(bundle, tileWidth, func(_ int, leaf []byte) error {
		return scanLeaf(leaf, func(key, value []byte) error {
			if string(key) == "time" {
				t, err := leafTime(value)
				first, last = min(first, t.UnixNano()), max(last, t.UnixNano())
				return err
			}
			prefix, ok := termFields[string(key)]
			if !ok {
				return nil
			}
			return addTerms(terms, prefix, value)
		})
	})
	return terms, first, last, err
}

func addTerms(terms map[string]struct{}, prefix string, value []byte) error {
	if text, ok := plain(value); ok {
		terms[prefix+string(text)] = struct{}{}
		return nil
	}
	var err error
	switch prefix {
	case "T", "G":
		var list []string
		err = json.Unmarshal(value, &list)
		for _, s := range list {
			terms[prefix+s] = struct{}{}
		}
	case "a":
		var list []api.EventApproved
		err = json.Unmarshal(value, &list)
		for _, a := range list {
			terms["a"+a.By] = struct{}{}
		}
	case "m":
		var list []api.MaskedColumn
		err = json.Unmarshal(value, &list)
		for _, m := range list {
			terms["G"+m.Tag] = struct{}{}
		}
	default:
		var s string
		err = json.Unmarshal(value, &s)
		terms[prefix+s] = struct{}{}
	}
	return err
}

func leafTime(value []byte) (time.Time, error) {
	text, ok := plain(value)
	if !ok {
		return time.Time{}, errLeaf
	}
	var t time.Time
	err := t.UnmarshalText(text)
	return t, err
}

// candidates are the whole blocks that may hold an answer, in ascending order.
func (x *index) candidates(ctx context.Context, q api.EventQuery, whole uint64) ([]uint64, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.catchUpLocked(); err != nil {
		x.log.Warn("the search index failed; rebuilding it", "err", err)
		if err := errors.Join(x.renew(), x.catchUpLocked()); err != nil {
			return nil, err
		}
	}
	where, args := blockConditions(q, whole)
	rows, err := x.db.QueryContext(ctx, "SELECT block FROM blocks WHERE "+where+" ORDER BY block", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []uint64
	for rows.Next() {
		var n uint64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		found = append(found, n)
	}
	return found, rows.Err()
}

func blockConditions(q api.EventQuery, whole uint64) (where string, args []any) {
	where, args = "block >= ? AND block < ?", []any{q.After / tileWidth, whole}
	if !q.Since.IsZero() {
		where, args = where+" AND last >= ?", append(args, q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		where, args = where+" AND first <= ?", append(args, q.Until.UnixNano())
	}
	for _, any := range queryTerms(q) {
		where += " AND block IN (SELECT block FROM terms WHERE term IN ("
		for i, t := range any {
			if i > 0 {
				where += ","
			}
			where, args = where+"?", append(args, t)
		}
		where += "))"
	}
	return where, args
}

// queryTerms are sets of terms: of each set, a block must have one.
func queryTerms(q api.EventQuery) [][]string {
	var sets [][]string
	one := func(prefix, v string) {
		if v != "" {
			sets = append(sets, []string{prefix + v})
		}
	}
	if len(q.Kind) > 0 {
		var kinds []string
		for _, k := range q.Kind {
			kinds = append(kinds, "k"+k)
		}
		sets = append(sets, kinds)
	}
	if q.Principal != "" {
		sets = append(sets, []string{"p" + q.Principal, "n" + q.Principal})
	}
	if q.Approver != "" {
		sets = append(sets, []string{"a" + q.Approver, "k" + api.EventApproval})
	}
	one("t", q.Target)
	one("T", q.Table)
	one("G", q.Tag)
	one("v", q.Verdict)
	one("s", q.Session)
	one("r", q.Request)
	one("g", q.Grant)
	return sets
}

// Matches reports whether an event is one that the query asks for, its After
// and Limit aside. A principal or approver matches by ID or name; an approval
// matches the approver who gave it.
func Matches(q *api.EventQuery, e *api.Event) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(q.Target, e.Target) && is(q.Verdict, e.Verdict) && is(q.Session, e.Session) && is(q.Request, e.Request) && is(q.Grant, e.Grant) &&
		(len(q.Kind) == 0 || slices.Contains(q.Kind, e.Kind)) &&
		(q.Principal == "" || q.Principal == e.Principal || q.Principal == e.Name) &&
		(q.Table == "" || slices.Contains(e.Tables, q.Table)) &&
		(q.Tag == "" || slices.Contains(e.Tags, q.Tag) || slices.ContainsFunc(e.Masked, func(m api.MaskedColumn) bool { return m.Tag == q.Tag })) &&
		(q.Approver == "" || approvedBy(e, q.Approver)) &&
		(q.Since.IsZero() || !e.Time.Before(q.Since)) && (q.Until.IsZero() || !e.Time.After(q.Until))
}

func approvedBy(e *api.Event, who string) bool {
	if e.Kind == api.EventApproval {
		return who == e.Principal || who == e.Name
	}
	return slices.ContainsFunc(e.Approvals, func(a api.EventApproved) bool { return a.By == who })
}

// Search returns the events that a query asks for, oldest first unless
// Descending. It answers for everything that was durable when it was called.
func (l *Log) Search(ctx context.Context, q api.EventQuery) ([]api.Event, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	size, err := l.followed(ctx)
	if err != nil {
		return nil, err
	}
	whole := size / tileWidth
	blocks, err := l.index.candidates(ctx, q, whole)
	if err != nil {
		return nil, fmt.Errorf("evidence: search: %w", err)
	}
	blocks = append(blocks, whole)
	if q.Descending {
		slices.Reverse(blocks)
	}
	var found []api.Event
	for _, n := range blocks {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		hits, err := l.searchBlock(n, size, &q)
		if err != nil {
			return nil, fmt.Errorf("evidence: search: %w", err)
		}
		if found = append(found, hits...); len(found) >= q.Limit {
			return found[:q.Limit], nil
		}
	}
	return found, nil
}

func (l *Log) searchBlock(n, size uint64, q *api.EventQuery) ([]api.Event, error) {
	bundle, _, err := l.behind.block(n)
	if err != nil {
		return nil, err
	}
	var hits []api.Event
	err = entries(bundle, tileWidth, func(i int, leaf []byte) error {
		index := n*tileWidth + uint64(i)
		if index >= size || q.After > 0 && index <= q.After {
			return nil
		}
		var e api.Event
		if err := json.Unmarshal(leaf, &e); err != nil {
			return fmt.Errorf("leaf %d: %w", index, err)
		}
		if Matches(q, &e) {
			hits = append(hits, e)
		}
		return nil
	})
	if q.Descending {
		slices.Reverse(hits)
	}
	return hits, err
}

// followed waits until the tree holds everything that is durable now.
func (l *Log) followed(ctx context.Context) (uint64, error) {
	want := l.Size()
	for {
		size, progress := l.behind.at()
		if size >= want {
			return size, nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// Follow calls fn for each event after the given index (0: from the first) in
// order, and for each that comes, until fn fails, ctx ends or the log is closed;
// it returns that error. Only durable events are shown.
func (l *Log) Follow(ctx context.Context, after uint64, fn func(api.Event) error) error {
	next := after
	if after > 0 {
		next++
	}
	for {
		size, progress := l.behind.at()
		for next < size {
			if err := l.showBlock(ctx, &next, size, fn); err != nil {
				return err
			}
		}
		select {
		case <-progress:
		case <-l.quit:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *Log) showBlock(ctx context.Context, next *uint64, size uint64, fn func(api.Event) error) error {
	n := *next / tileWidth
	bundle, _, err := l.behind.block(n)
	if err != nil {
		return fmt.Errorf("evidence: follow: %w", err)
	}
	return entries(bundle, tileWidth, func(i int, leaf []byte) error {
		index := n*tileWidth + uint64(i)
		if index < *next || index >= size {
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var e api.Event
		if err := json.Unmarshal(leaf, &e); err != nil {
			return fmt.Errorf("evidence: leaf %d: %w", index, err)
		}
		*next = index + 1
		return fn(e)
	})
}
