package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// This file asks whether what a catalogue says of a statement still holds at
// the moment of its answer. By then the target holds the statement's locks:
// what was changed before is committed and seen here, what is changed after
// does not matter to it.

// horizon is what a reading of the catalogue could see: the transaction ids of
// pg_current_snapshot, cut to the 32 bits that stand in xmin.
type horizon struct {
	next    uint32 // the first that was not given yet
	running []uint32
	known   bool
}

// parseHorizon reads xmin:xmax:xip,xip (the output of pg_snapshot).
func parseHorizon(s string) (horizon, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return horizon{}, fmt.Errorf("snapshot %.40q: not three parts", s)
	}
	next, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return horizon{}, fmt.Errorf("snapshot %.40q: %w", s, err)
	}
	h := horizon{next: uint32(next), known: true}
	for _, x := range strings.Split(parts[2], ",") {
		if x == "" {
			continue
		}
		id, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return horizon{}, fmt.Errorf("snapshot %.40q: %w", s, err)
		}
		h.running = append(h.running, uint32(id))
	}
	return h, nil
}

// saw reports whether a row of that xmin was visible. Ids are compared as
// PostgreSQL does, modulo 2^32; 1 and 2 are older than all (transam.h).
func (h horizon) saw(xmin uint32) bool {
	if !h.known || xmin == 0 { // nothing was read, or no transaction's id
		return false
	}
	if xmin < 3 {
		return true
	}
	return int32(xmin-h.next) < 0 && !slices.Contains(h.running, xmin)
}

// concerns are the objects that the meaning of one result hangs on.
type concerns struct {
	relations []uint32
	names     []string // of relations, without schema: another may have come before it in the search_path
	functions []string
}

// changedQuery lists the xmin of every row of pg_catalog that says something
// of them, of operators and of casts that people made.
const changedQuery = `SELECT DISTINCT x::pg_catalog.text FROM (
	SELECT xmin AS x FROM pg_catalog.pg_class WHERE oid = ANY ($1) OR relname = ANY ($2) AND relkind <> 't'
	UNION ALL SELECT xmin FROM pg_catalog.pg_attribute WHERE attrelid = ANY ($1) AND attnum > 0
	UNION ALL SELECT xmin FROM pg_catalog.pg_rewrite WHERE ev_class = ANY ($1)
	UNION ALL SELECT xmin FROM pg_catalog.pg_inherits WHERE inhparent = ANY ($1)
	UNION ALL SELECT xmin FROM pg_catalog.pg_proc WHERE proname = ANY ($3)
	UNION ALL SELECT xmin FROM pg_catalog.pg_operator WHERE oid >= 16384
	UNION ALL SELECT xmin FROM pg_catalog.pg_cast WHERE oid >= 16384) rows`

// versions are the xmin of all that a result hangs on, as they are now. An
// error means that they cannot be told.
func (c *catalog) versions(ctx context.Context, connect connector, about concerns) ([]uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	found, err := c.checks.ask(ctx, about)
	if err == nil {
		return found, nil
	}
	// The connection that was kept may have ended: of its own, or with its database.
	conn, err := connect(ctx)
	if err == nil {
		err = c.checks.prepare(ctx, conn, c.config.LockTimeout)
	}
	if err != nil {
		return nil, fmt.Errorf("check the catalogue of %s, database %s: %w", c.key.target, c.key.database, err)
	}
	c.checks.keep(conn)
	return c.checks.ask(ctx, about)
}

// saw reports whether a reading could see all these rows: nothing has changed
// since.
func (s *snapshot) saw(versions []uint32) bool {
	return !slices.ContainsFunc(versions, func(x uint32) bool { return !s.horizon.saw(x) })
}

// checker keeps one connection between checks: to log in for each would cost
// more than most statements. It closes soon after the last, so that it does not
// stand in the way of DROP DATABASE for long (which itself waits for 5 s).
type checker struct {
	mu   sync.Mutex
	conn *pgconn.PgConn // nil while none is kept, or it is in use
	idle *time.Timer
}

// keptFor is how long a connection stays open after a check.
const keptFor = 2 * time.Second

const changedName = "changed"

func (k *checker) prepare(ctx context.Context, conn *pgconn.PgConn, lockTimeout time.Duration) error {
	settings := fmt.Sprintf("SET search_path = ''; SET default_transaction_read_only = on; SET lock_timeout = %d; SET statement_timeout = %d",
		lockTimeout.Milliseconds(), 10*lockTimeout.Milliseconds())
	_, err := conn.Exec(ctx, settings).ReadAll()
	if err == nil {
		// oid[], name[], name[]
		_, err = conn.Prepare(ctx, changedName, changedQuery, []uint32{1028, 1003, 1003})
	}
	if err != nil {
		conn.Close(ctx)
	}
	return err
}

// take returns the connection that is kept, nil if there is none.
func (k *checker) take() *pgconn.PgConn {
	k.mu.Lock()
	defer k.mu.Unlock()
	conn := k.conn
	if k.conn = nil; k.idle != nil {
		k.idle.Stop()
	}
	return conn
}

func (k *checker) keep(conn *pgconn.PgConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != nil { // two checks at once, and one was quicker
		conn.Close(context.Background())
		return
	}
	k.conn = conn
	k.idle = time.AfterFunc(keptFor, func() {
		if old := k.take(); old != nil {
			old.Close(context.Background())
		}
	})
}

var errNoConnection = fmt.Errorf("no connection is kept")

func (k *checker) ask(ctx context.Context, about concerns) ([]uint32, error) {
	conn := k.take()
	if conn == nil {
		return nil, errNoConnection
	}
	reader := conn.ExecPrepared(ctx, changedName, [][]byte{oidArray(about.relations), nameArray(about.names), nameArray(about.functions)}, nil, nil)
	var found []uint32
	for reader.NextRow() {
		found = append(found, oid(reader.Values()[0]))
	}
	if _, err := reader.Close(); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	k.keep(conn)
	return found, nil
}

func oidArray(ids []uint32) []byte {
	b := []byte{'{'}
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	return append(b, '}')
}

func nameArray(names []string) []byte {
	b := []byte{'{'}
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)...)
		b = append(b, '"')
	}
	return append(b, '}')
}

// concerns of a result: the relations that its statement reaches and that its
// description names, and the functions that it calls.
func (r *run) concerns(s *snapshot, fields []field) concerns {
	var out concerns
	if r.asked != nil {
		out.relations = slices.Clone(r.asked.Resolved)
		for _, name := range r.asked.Functions {
			out.functions = append(out.functions, name[strings.IndexByte(name, '.')+1:])
		}
		for i := range r.asked.Relations {
			out.names = append(out.names, r.asked.Relations[i].Name)
		}
	}
	for i := range fields {
		if id := fields[i].TableOID; id != 0 && !slices.Contains(out.relations, id) {
			out.relations = append(out.relations, id)
		}
	}
	out.relations = slices.DeleteFunc(out.relations, func(id uint32) bool { return id < firstUserOID })
	for _, id := range out.relations { // reading it reads its children
		if rel := s.relations[id]; rel != nil {
			for _, child := range rel.descendants() {
				out.relations = append(out.relations, child.oid)
			}
		}
	}
	return out
}
