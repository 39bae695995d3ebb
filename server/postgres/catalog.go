package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// firstUserOID is the first OID that PostgreSQL gives to objects made after
// initdb (FirstNormalObjectId in access/transam.h). What is below came with
// the server and means the same in every database of that version.
const firstUserOID = 16384

// Fixed OIDs of pg_language (pg_language.dat).
const (
	languageInternal = 12
	languageC        = 13
	languageSQL      = 14
)

// Baselines keeps what the catalogue must remember beyond a restart: which
// columns were there when a database was first read under a classification,
// and which columns a tag was bound to. Package server keeps it in its store.
type Baselines interface {
	// UpdateBaseline replaces the document under key by what fn makes of it
	// (nil if there is none), atomically over all servers; nil from fn leaves
	// it as it is. An error of fn or of its own makes the catalogue unusable
	// until the next try: what is not remembered would be shown after a restart.
	UpdateBaseline(ctx context.Context, key string, fn func(doc []byte) ([]byte, error)) error
}

// catalogConfig says how long what was read of a target's catalogue is
// believed, and where its memory is.
type catalogConfig struct {
	// TTL is how long a snapshot is used without reading again; 0 is 30 s.
	// DDL that passes through this server ends it at once (invalidate); the
	// TTL bounds only what others do behind its back.
	TTL time.Duration
	// Eager is the least time between two readings that an unknown OID asks
	// for, so that a client cannot make the server read without end; 0 is 200 ms.
	Eager time.Duration
	// LockTimeout bounds waiting for one lock on pg_catalog itself; 0 is 2 s.
	// Timeout bounds a reading, login included (where no lock_timeout holds
	// yet); 0 is 15 s.
	LockTimeout time.Duration
	Timeout     time.Duration
	Baselines   Baselines // nil: remembered as long as the process lives
	Now         func() time.Time
}

// catalogs holds one catalog per target generation and database. It is safe
// for concurrent use.
type catalogs struct {
	config catalogConfig
	mu     sync.Mutex
	byKey  map[catalogKey]*catalog
}

type catalogKey struct{ target, generation, database string }

func newCatalogs(c catalogConfig) *catalogs {
	if c.TTL == 0 {
		c.TTL = 30 * time.Second
	}
	if c.Eager == 0 {
		c.Eager = 200 * time.Millisecond
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = 2 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 15 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &catalogs{config: c, byKey: map[catalogKey]*catalog{}}
}

// of returns the catalogue of one database of a target, making it if it is
// asked for the first time. A new generation of a target (its address or
// database changed) drops what was known of the old one.
func (c *catalogs) of(target session.TargetInfo, database string) *catalog {
	key := catalogKey{target.Name, target.Generation, database}
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.byKey[key]; ok {
		return found
	}
	for old := range c.byKey {
		if old.target == key.target && old.generation != key.generation {
			delete(c.byKey, old)
		}
	}
	made := &catalog{config: &c.config, key: key}
	c.byKey[key] = made
	return made
}

// invalidate makes every session of the target read its catalogue again before
// it is used the next time: DDL happened. It returns at once.
func (c *catalogs) invalidate(target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, entry := range c.byKey {
		if key.target == target {
			entry.invalidate()
		}
	}
}

// catalog is what is known of one database's pg_catalog. It is read over a
// control connection of its own: short-lived, so that it never stands in the
// way of DROP DATABASE, and reading only pg_catalog's tables, so that it never
// waits for a lock that a client holds on its own tables (pg_get_viewdef and
// its kin would).
type catalog struct {
	config *catalogConfig
	key    catalogKey

	reading sync.Mutex // held while one goroutine reads; the others wait for its result

	mu    sync.Mutex
	epoch uint64 // counts invalidations
	last  *snapshot
	bound map[string]*classified // by digest of tags, for last
	// shared holds the same by the tags' own slice, so that a statement need
	// not digest them.
	shared map[tagsKey]*classified

	checks checker

	remembering sync.Mutex // guards memory
	memory      *baseline  // what is remembered of the database that was read last
}

// connector opens a control connection to the catalogue's database, logged in
// and idle. The catalogue closes it.
type connector func(ctx context.Context) (*pgconn.PgConn, error)

// invalidate ends the life of what was read until now, also of what is being
// read at this moment: that may have been read before the change.
func (c *catalog) invalidate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
}

// expire ends the life of a snapshot that was found to be out of date, if it is
// still the last: several results may find it so at once.
func (c *catalog) expire(s *snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == s {
		c.epoch++
	}
}

// classified returns the catalogue under these tags, reading it if what is
// known is too old. The result is immutable and shared. An error means that
// nothing is known: hide or refuse.
//
// database is the OID of the session's own database, 0 if any will do: what
// was read of another that had the same name before is of no use to it.
func (c *catalog) classified(ctx context.Context, connect connector, database uint32, tags []policy.Tag) (*classified, error) {
	if known := c.ready(database, tags); known != nil {
		return known, nil
	}
	s, err := c.snapshot(ctx, connect, database, 0)
	if err != nil {
		return nil, err
	}
	return c.under(ctx, s, tags)
}

// fresher returns a catalogue read after the one given, because it did not
// know an OID. If that one was read less than Eager ago it is returned as it
// is, and what it does not know stays hidden.
func (c *catalog) fresher(ctx context.Context, connect connector, than *classified, tags []policy.Tag) (*classified, error) {
	if c.config.Now().Sub(than.read) < c.config.Eager {
		return than, nil
	}
	s, err := c.snapshot(ctx, connect, than.database, than.version+1)
	if err != nil {
		return nil, err
	}
	return c.under(ctx, s, tags)
}

// snapshot returns one of at least the version given, of the database given,
// that no invalidation and no TTL has ended.
func (c *catalog) snapshot(ctx context.Context, connect connector, database uint32, atLeast uint64) (*snapshot, error) {
	if s := c.usable(database, atLeast); s != nil {
		return s, nil
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if s := c.usable(database, atLeast); s != nil {
		return s, nil // another goroutine read it while we waited
	}
	c.mu.Lock()
	epoch, old := c.epoch, c.last
	c.mu.Unlock()
	s, err := c.read(ctx, connect)
	if err != nil {
		return nil, fmt.Errorf("read the catalogue of %s, database %s: %w", c.key.target, c.key.database, err)
	}
	s.epoch, s.read, s.version = epoch, c.config.Now(), 1
	if old != nil {
		s.version = old.version + 1
	}
	if database != 0 && s.database != database {
		return nil, fmt.Errorf("read the catalogue of %s: database %s was made anew while the session was open", c.key.target, c.key.database)
	}
	c.mu.Lock()
	c.last, c.bound, c.shared = s, map[string]*classified{}, nil
	c.mu.Unlock()
	return s, nil
}

// ready returns what is at hand, nil if something must be read or bound first.
// It is asked for every statement.
func (c *catalog) ready(database uint32, tags []policy.Tag) *classified {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.usableLocked(database, 0) == nil {
		return nil
	}
	return c.shared[keyOf(tags)]
}

// tagsKey tells one policy set's tags of a target from another's: sets share
// the slice and never change it, and the key keeps it alive.
type tagsKey struct {
	first *policy.Tag
	count int
}

// share notes what a set's tags were bound to. mu is held.
func (c *catalog) share(tags []policy.Tag, known *classified) *classified {
	if c.shared == nil {
		c.shared = map[tagsKey]*classified{}
	}
	c.shared[keyOf(tags)] = known
	return known
}

func keyOf(tags []policy.Tag) tagsKey {
	if len(tags) == 0 {
		return tagsKey{}
	}
	return tagsKey{&tags[0], len(tags)}
}

func (c *catalog) usable(database uint32, atLeast uint64) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usableLocked(database, atLeast)
}

func (c *catalog) usableLocked(database uint32, atLeast uint64) *snapshot {
	s := c.last
	if s == nil || database != 0 && s.database != database || s.epoch != c.epoch || s.version < atLeast || c.config.Now().Sub(s.read) >= c.config.TTL {
		return nil
	}
	return s
}

func (c *catalog) read(ctx context.Context, connect connector) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	return readSnapshot(ctx, conn, c.config.LockTimeout)
}

// snapshot is pg_catalog of one database at one moment. It is immutable.
type snapshot struct {
	read    time.Time
	epoch   uint64
	version uint64 // counts readings of this catalogue: a key for plans

	system   string // the cluster's system identifier, "" if it may not be read
	database uint32 // OID: it changes if a database is dropped and made anew
	horizon  horizon

	schemas   map[string]*schema
	relations map[uint32]*relation
	types     map[uint32]*typeEntry
	functions map[string][]*function // by name
	byOID     map[uint32]*function
	// operators that came with no PostgreSQL, by name: true if all of that name
	// are code of extensions that compute from their operands alone.
	operators map[string]bool
	// casts by the type that they make, where somebody's own code does it.
	casts map[uint32]bool
	// foreignCode is true if the database has operators or casts whose code is
	// neither PostgreSQL's own nor C: an expression without any function call
	// may then read any table.
	foreignCode bool
}

type schema struct {
	oid       uint32
	name      string
	everyone  bool // PUBLIC has USAGE, so that no role skips it in its search_path
	temporary bool // pg_temp_N
	relations map[string]*relation
}

type relation struct {
	oid      uint32
	schema   string
	name     string
	kind     byte // relkind
	xmin     string
	rules    bool // ON INSERT, UPDATE, DELETE rules may answer with anything
	virtual  bool // a function can be called as if it were a column
	rowType  uint32
	parents  []*relation
	children []*relation
	columns  []*column // by attnum, dropped ones nil
	// uses are the columns that a view's rewritten query mentions, by base
	// relation; attnum 0 is the whole row.
	uses map[uint32][]int16
	// definition is a view's query tree; rewritten says that there are rules
	// besides it.
	definition []byte
	rewritten  bool
	once       sync.Once
	derives    []origin // what its columns derive from: see origins
}

type column struct {
	num       int16
	name      string
	typeOID   uint32
	typmod    int32
	generated bool
	// from are the columns of the same table that a generated column reads.
	from []int16
}

type typeEntry struct {
	schema string
	name   string
	kind   byte // typtype
	elem   uint32
	base   uint32
}

type function struct {
	oid        uint32
	schema     string
	name       string
	extension  string // that it belongs to, "" for none
	xmin       string
	language   uint32
	volatility byte
}

func (r *relation) column(num int16) *column {
	if num < 1 || int(num) > len(r.columns) {
		return nil
	}
	return r.columns[num-1]
}

func (r *relation) named(name string) *column {
	for _, c := range r.columns {
		if c != nil && c.name == name {
			return c
		}
	}
	return nil
}

func (r *relation) qualified() string { return r.schema + "." + r.name }

func (r *relation) builtIn() bool { return r.oid < firstUserOID }

// ancestors returns every table that this one is a partition or an inheritance
// child of, nearest first.
func (r *relation) ancestors() []*relation {
	return walk(r, func(x *relation) []*relation { return x.parents })
}

// descendants returns every partition and inheritance child.
func (r *relation) descendants() []*relation {
	return walk(r, func(x *relation) []*relation { return x.children })
}

func walk(from *relation, next func(*relation) []*relation) []*relation {
	var found []*relation
	seen := map[uint32]bool{from.oid: true}
	for queue := next(from); len(queue) > 0; queue = queue[1:] {
		r := queue[0]
		if seen[r.oid] {
			continue
		}
		seen[r.oid] = true
		found = append(found, r)
		queue = append(slices.Clip(queue), next(r)...)
	}
	return found
}

// typeName is the name of a type that is not built in, "" for the others.
func (s *snapshot) typeName(oid uint32) string {
	if t := s.types[oid]; t != nil && oid >= firstUserOID {
		return t.name
	}
	return ""
}
