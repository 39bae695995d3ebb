package evidence

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/hoopctl/hoopctl/server/api"
)

// index finds the blocks of 256 leaves that may hold what a query asks for, and
// where in the log they start. It knows terms (a kind, a principal, a session …)
// by block, not by leaf: that costs about a microsecond a leaf to keep, and the
// leaves themselves stand in the log. It is derived: whatever is wrong with it,
// it is deleted and made anew.
type index struct {
	path string
	src  Source // the log's own files, as far as they are durable
	log  *slog.Logger

	mu   sync.Mutex
	db   *sql.DB
	next cursor // where the first block starts that is not in it
}

// cursor is a place in the timeline: the start of a leaf's record, or the end of
// a segment whose successor holds it.
type cursor struct {
	leaf    uint64
	segment uint64
	offset  int64
}

const indexSchema = `
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS blocks (block INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
	segment INTEGER NOT NULL, offset INTEGER NOT NULL); -- first and last: times; offset: of the block's first leaf
CREATE TABLE IF NOT EXISTS terms (term TEXT NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (term, block)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tail (one INTEGER PRIMARY KEY CHECK (one = 1), leaf INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL);`

// openIndex opens the index, or makes a new one if the old may not be trusted:
// after a crash it was not flushed.
func openIndex(path string, src Source, trust bool, size uint64, log *slog.Logger) (*index, error) {
	x := &index{path: path, src: src, log: log}
	if trust {
		err := x.open(size)
		if err == nil {
			return x, nil
		}
		log.Warn("the search index is damaged; rebuilding it", "err", err)
	}
	return x, x.renew()
}

func (x *index) open(size uint64) error {
	db, err := sql.Open("sqlite", "file:"+x.path)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	next, err := checkIndex(db)
	if err == nil && next.leaf > size {
		err = errors.New("it knows more than the log")
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	x.db, x.next = db, next
	return nil
}

// checkIndex looks whether a database is sound, and where it ends.
func checkIndex(db *sql.DB) (next cursor, err error) {
	var check string
	if err = db.QueryRow("PRAGMA quick_check(1)").Scan(&check); err != nil {
		return next, err
	}
	if check != "ok" {
		return next, errors.New(check)
	}
	if _, err = db.Exec(indexSchema); err != nil {
		return next, err
	}
	var count, top sql.NullInt64
	if err = db.QueryRow("SELECT count(*), max(block) FROM blocks").Scan(&count, &top); err != nil {
		return next, err
	}
	err = db.QueryRow("SELECT leaf, segment, offset FROM tail").Scan(&next.leaf, &next.segment, &next.offset)
	if errors.Is(err, sql.ErrNoRows) {
		next, err = cursor{segment: 1}, nil
	}
	if err == nil && (count.Int64 > 0 && top.Int64 != count.Int64-1 || uint64(count.Int64)*tileWidth != next.leaf) {
		err = errors.New("blocks are missing")
	}
	return next, err
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
	if err := x.open(0); err != nil {
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

// leavesPerTx is how much is indexed in one transaction.
const leavesPerTx = 256 * tileWidth

func (x *index) catchUpLocked() error {
	if x.db == nil {
		return errors.New("it could not be opened")
	}
	for {
		from := x.next.leaf
		if err := x.add(); err != nil || x.next.leaf == from {
			return err
		}
	}
}

// add indexes the whole blocks from where the index ends, up to a
// transaction's worth.
func (x *index) add() error {
	tx, err := x.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit
	insert, err := tx.Prepare("INSERT INTO terms VALUES (?, ?)")
	if err != nil {
		return err
	}
	defer insert.Close()
	block := newBlock(x.next)
	next := x.next
	err = x.read(context.Background(), x.next, func(at, after cursor, leaf []byte) error {
		if err := block.add(at, leaf); err != nil {
			return fmt.Errorf("leaf %d: %w", at.leaf, err)
		}
		if after.leaf%tileWidth > 0 {
			return nil
		}
		if err := block.save(tx, insert); err != nil {
			return err
		}
		next, block = after, newBlock(after)
		if next.leaf-x.next.leaf >= leavesPerTx {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) || next == x.next {
		return err
	}
	if _, err := tx.Exec("INSERT OR REPLACE INTO tail VALUES (1, ?, ?, ?)", next.leaf, next.segment, next.offset); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	x.next = next
	return nil
}

// errEnough ends a read that has what it wants.
var errEnough = errors.New("enough")

// read calls fn for the durable leaves from a place on, with the places of
// each and of what follows it. The log wrote them under this process's lock, so
// they are not checked again.
func (x *index) read(ctx context.Context, at cursor, fn func(at, after cursor, leaf []byte) error) error {
	for {
		f, err := x.segmentFrom(ctx, &at)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the next segment is not begun
		}
		if err != nil {
			return err
		}
		if err := errors.Join(readRecords(f, &at, fn), f.Close()); err != nil {
			return err
		}
		at = cursor{leaf: at.leaf, segment: at.segment + 1}
	}
}

// segmentFrom opens a segment at a place; offset 0 is moved after the header.
func (x *index) segmentFrom(ctx context.Context, at *cursor) (io.ReadCloser, error) {
	name := timeline.dir() + "/" + segmentName(at.segment)
	if at.offset == 0 {
		h, err := readSegmentHeader(ctx, x.src, name)
		if err != nil {
			return nil, err
		}
		at.offset = int64(segmentBody(h))
	}
	return openAt(ctx, x.src, name, at.offset)
}

func readRecords(r io.Reader, at *cursor, fn func(at, after cursor, leaf []byte) error) error {
	in := bufio.NewReaderSize(r, 2*maxLeaf)
	for {
		head, err := in.Peek(recordHeader)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n := 4 + int(binary.BigEndian.Uint32(head))
		if n < recordHeader {
			return nil // preallocated space
		}
		after := cursor{at.leaf, at.segment, at.offset + int64(n)}
		if head[4] == recordLeaf {
			after.leaf++
			rec, err := in.Peek(n)
			if err == nil {
				err = fn(*at, after, rec[recordHeader:])
			}
			if err != nil {
				return err
			}
		}
		if _, err := in.Discard(n); err != nil {
			return err
		}
		*at = after
	}
}

// blockEntry is a block in the making.
type blockEntry struct {
	start       cursor
	terms       map[string]struct{}
	lists       map[string]struct{} // fields of several terms, as they stood in leaves: most repeat
	first, last int64               // times
}

func newBlock(start cursor) *blockEntry {
	return &blockEntry{start: start, terms: map[string]struct{}{}, lists: map[string]struct{}{}, first: 1<<63 - 1}
}

func (b *blockEntry) add(at cursor, leaf []byte) error {
	if at.leaf%tileWidth == 0 {
		b.start = at
	}
	return scanLeaf(leaf, func(key, value []byte) error {
		if string(key) == "time" {
			t, err := leafTime(value)
			b.first, b.last = min(b.first, t.UnixNano()), max(b.last, t.UnixNano())
			return err
		}
		if prefix, ok := termFields[string(key)]; ok {
			return b.addTerms(prefix, value)
		}
		return nil
	})
}

// save stores the block; insert is the statement for its terms, of which there
// are many: parsing it for each would cost more than storing them.
func (b *blockEntry) save(tx *sql.Tx, insert *sql.Stmt) error {
	n := b.start.leaf / tileWidth
	if _, err := tx.Exec("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", n, b.first, b.last, b.start.segment, b.start.offset); err != nil {
		return err
	}
	for t := range b.terms {
		if _, err := insert.Exec(t, n); err != nil {
			return err
		}
	}
	return nil
}

// termFields are the leaf's fields that can be asked for, and the prefix of
// their terms.
var termFields = map[string]string{
	"kind": "k", "principal": "p", "name": "n", "target": "t", "verdict": "v", "session": "s", "request": "r", "grant": "g",
	"tables": "T", "tags": "G", "masked": "m", "approvals": "a",
}

func (b *blockEntry) addTerms(prefix string, value []byte) error {
	terms := b.terms
	if text, ok := plain(value); ok {
		var space [128]byte
		term := append(append(space[:0], prefix...), text...)
		if _, known := terms[string(term)]; !known { // known ones, which are most, cost no allocation
			terms[string(term)] = struct{}{}
		}
		return nil
	}
	var err error
	switch prefix {
	case "T", "G":
		var space [256]byte
		raw := append(append(space[:0], prefix...), value...)
		if _, known := b.lists[string(raw)]; known {
			return nil
		}
		b.lists[string(raw)] = struct{}{}
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

// candidates are the places of the blocks that may hold an answer, in ascending
// order; the last is where the part starts that is not indexed.
func (x *index) candidates(ctx context.Context, q api.EventQuery) ([]cursor, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.catchUpLocked(); err != nil {
		x.log.Warn("the search index failed; rebuilding it", "err", err)
		if err := x.renew(); err != nil {
			return nil, err
		}
		if err := x.catchUpLocked(); err != nil {
			return nil, err
		}
	}
	where, args := blockConditions(q)
	rows, err := x.db.QueryContext(ctx, "SELECT block, segment, offset FROM blocks WHERE "+where+" ORDER BY block", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []cursor
	for rows.Next() {
		var c cursor
		if err := rows.Scan(&c.leaf, &c.segment, &c.offset); err != nil {
			return nil, err
		}
		c.leaf *= tileWidth
		found = append(found, c)
	}
	return append(found, x.next), rows.Err()
}

func blockConditions(q api.EventQuery) (where string, args []any) {
	where, args = "block >= ?", []any{q.After / tileWidth}
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
	found, err := l.search(ctx, &q)
	if err != nil {
		return nil, fmt.Errorf("evidence: search: %w", err)
	}
	return found, nil
}

func (l *Log) search(ctx context.Context, q *api.EventQuery) ([]api.Event, error) {
	size := l.Size()
	blocks, err := l.index.candidates(ctx, *q)
	if err != nil {
		return nil, err
	}
	if q.Descending {
		slices.Reverse(blocks)
	}
	var found []api.Event
	for _, c := range blocks {
		hits, err := l.searchBlock(ctx, c, size, q)
		if err != nil {
			return nil, err
		}
		if found = append(found, hits...); len(found) >= q.Limit {
			return found[:q.Limit], nil
		}
	}
	return found, nil
}

// searchBlock searches the leaves from a block's start to its end.
func (l *Log) searchBlock(ctx context.Context, c cursor, size uint64, q *api.EventQuery) ([]api.Event, error) {
	var hits []api.Event
	end := min(size, (c.leaf/tileWidth+1)*tileWidth)
	err := l.index.read(ctx, c, func(at, _ cursor, leaf []byte) error {
		if at.leaf >= end {
			return errEnough
		}
		if q.After > 0 && at.leaf <= q.After {
			return nil
		}
		var e api.Event
		if err := json.Unmarshal(leaf, &e); err != nil {
			return fmt.Errorf("leaf %d: %w", at.leaf, err)
		}
		if Matches(q, &e) {
			hits = append(hits, e)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if q.Descending {
		slices.Reverse(hits)
	}
	return hits, err
}

// Follow calls fn for each event after the given index (0: from the first) in
// order, and for each that comes, until fn fails, ctx ends or the log is closed;
// it returns that error. Only durable events are shown.
func (l *Log) Follow(ctx context.Context, after uint64, fn func(api.Event) error) error {
	next := after
	if after > 0 {
		next++
	}
	at, err := l.index.find(ctx, next)
	if err != nil {
		return fmt.Errorf("evidence: follow: %w", err)
	}
	for {
		_, progress := l.behind.at()
		err := l.index.read(ctx, at, func(c, after cursor, leaf []byte) error {
			at = after
			if c.leaf < next {
				return nil
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
			var e api.Event
			if err := json.Unmarshal(leaf, &e); err != nil {
				return fmt.Errorf("evidence: leaf %d: %w", c.leaf, err)
			}
			return fn(e)
		})
		if err != nil {
			return err
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

// find is the start of the block that holds a leaf, or of what is not indexed.
func (x *index) find(ctx context.Context, leaf uint64) (cursor, error) {
	blocks, err := x.candidates(ctx, api.EventQuery{After: leaf})
	if err != nil {
		return cursor{}, err
	}
	return blocks[0], nil
}
