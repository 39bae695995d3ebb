package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// readSnapshot reads pg_catalog in one transaction, so that what it says is of
// one moment. It reads tables of pg_catalog only, by their full names: neither
// a search_path nor an operator of the database's owner can change its meaning,
// and it takes no lock that DDL on the users' tables would hold.
func readSnapshot(ctx context.Context, conn *pgconn.PgConn, lockTimeout time.Duration) (*snapshot, error) {
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;" +
		"SET LOCAL search_path = '';" +
		"SET LOCAL lock_timeout = " + strconv.FormatInt(lockTimeout.Milliseconds(), 10) + ";" +
		"SET LOCAL statement_timeout = " + strconv.FormatInt(10*lockTimeout.Milliseconds(), 10)
	if _, err := conn.Exec(ctx, begin).ReadAll(); err != nil {
		return nil, err
	}
	r := &catalogReader{conn: conn, s: &snapshot{
		schemas: map[string]*schema{}, relations: map[uint32]*relation{},
		types: map[uint32]*typeEntry{}, functions: map[string][]*function{},
		byOID: map[uint32]*function{}, operators: map[string]bool{}, casts: map[uint32]bool{},
	}, schemaName: map[uint32]string{}}
	for _, step := range []func(context.Context) error{
		r.database, r.schemas, r.rels, r.columns, r.inheritance, r.generated, r.views, r.definitions, r.types, r.functions,
		r.extensions, r.virtual, r.operators, r.casts, r.foreignCode,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	_, err := conn.Exec(ctx, "COMMIT").ReadAll()
	return r.s, err
}

// catalogReader fills one snapshot.
type catalogReader struct {
	conn       *pgconn.PgConn
	s          *snapshot
	schemaName map[uint32]string
}

// rows runs a query of constant text and hands each row to f. The values are
// valid until f returns.
func (r *catalogReader) rows(ctx context.Context, sql string, f func(v [][]byte)) error {
	reader := r.conn.ExecParams(ctx, sql, nil, nil, nil, nil)
	for reader.NextRow() {
		f(reader.Values())
	}
	_, err := reader.Close()
	return err
}

func (r *catalogReader) database(ctx context.Context) error {
	found := false
	err := r.rows(ctx, "SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
		func(v [][]byte) { r.s.database, found = oid(v[0]), true })
	if err == nil && !found {
		err = fmt.Errorf("the database is gone")
	}
	if err == nil {
		err = r.horizon(ctx)
	}
	if err != nil {
		return err
	}
	allowed := false
	err = r.rows(ctx, "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')",
		func(v [][]byte) { allowed = string(v[0]) == "t" })
	if err != nil || !allowed {
		return err
	}
	return r.rows(ctx, "SELECT system_identifier FROM pg_catalog.pg_control_system()",
		func(v [][]byte) { r.s.system = string(v[0]) })
}

// horizon is read first, in the transaction's own snapshot: what is committed
// after it is not in what follows either.
func (r *catalogReader) horizon(ctx context.Context) error {
	text := ""
	err := r.rows(ctx, "SELECT pg_catalog.txid_current_snapshot()", func(v [][]byte) { text = string(v[0]) })
	if err == nil {
		r.s.horizon, err = parseHorizon(text)
	}
	return err
}

func (r *catalogReader) schemas(ctx context.Context) error {
	// Grantee 0 is PUBLIC.
	return r.rows(ctx, `SELECT n.oid, n.nspname, EXISTS (
			SELECT 1 FROM pg_catalog.aclexplode(COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
			WHERE a.grantee = 0 AND a.privilege_type = 'USAGE')
		FROM pg_catalog.pg_namespace n`, func(v [][]byte) {
		name := string(v[1])
		r.schemaName[oid(v[0])] = name
		r.s.schemas[name] = &schema{oid: oid(v[0]), name: name, everyone: string(v[2]) == "t",
			temporary: strings.HasPrefix(name, "pg_temp_"), relations: map[string]*relation{}}
	})
}

// rels reads everything that shares the name space of relations: an index or a
// composite type shadows a table of the same name later in the search_path.
func (r *catalogReader) rels(ctx context.Context) error {
	return r.rows(ctx, `SELECT c.oid, c.relnamespace, c.relname, c.relkind, c.xmin, c.relhasrules, c.reltype
		FROM pg_catalog.pg_class c WHERE c.relkind <> 't'`, func(v [][]byte) {
		rel := &relation{oid: oid(v[0]), schema: r.schemaName[oid(v[1])], name: string(v[2]), kind: v[3][0],
			xmin: string(v[4]), rules: string(v[5]) == "t", rowType: oid(v[6])}
		r.s.relations[rel.oid] = rel
		if in := r.s.schemas[rel.schema]; in != nil {
			in.relations[rel.name] = rel
		}
	})
}

func (r *catalogReader) columns(ctx context.Context) error {
	return r.rows(ctx, `SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated
		FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
		WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')`, func(v [][]byte) {
		rel := r.s.relations[oid(v[0])]
		if rel == nil {
			return
		}
		c := &column{num: int16(integer(v[1])), name: string(v[2]), typeOID: oid(v[3]), typmod: int32(integer(v[4])), generated: len(v[5]) > 0}
		for len(rel.columns) < int(c.num) {
			rel.columns = append(rel.columns, nil)
		}
		rel.columns[c.num-1] = c
	})
}

func (r *catalogReader) inheritance(ctx context.Context) error {
	return r.rows(ctx, `SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits ORDER BY inhrelid, inhseqno`, func(v [][]byte) {
		child, parent := r.s.relations[oid(v[0])], r.s.relations[oid(v[1])]
		if child != nil && parent != nil {
			child.parents = append(child.parents, parent)
			parent.children = append(parent.children, child)
		}
	})
}

// generated reads which columns a generated column is computed from: the
// dependencies that its pg_attrdef row has on columns of its own table.
func (r *catalogReader) generated(ctx context.Context) error {
	return r.rows(ctx, `SELECT f.adrelid, f.adnum, d.refobjsubid
		FROM pg_catalog.pg_attrdef f
		JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = f.adrelid
		WHERE d.refobjsubid <> f.adnum`, func(v [][]byte) {
		if rel := r.s.relations[oid(v[0])]; rel != nil {
			if c := rel.column(int16(integer(v[1]))); c != nil && c.generated {
				c.from = append(c.from, int16(integer(v[2])))
			}
		}
	})
}

func (r *catalogReader) views(ctx context.Context) error {
	return r.rows(ctx, `SELECT w.ev_class, d.refobjid, d.refobjsubid
		FROM pg_catalog.pg_rewrite w
		JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
		WHERE w.ev_class >= 16384 AND d.refobjid <> w.ev_class`, func(v [][]byte) {
		rel := r.s.relations[oid(v[0])]
		if rel == nil {
			return
		}
		if rel.uses == nil {
			rel.uses = map[uint32][]int16{}
		}
		rel.uses[oid(v[1])] = append(rel.uses[oid(v[1])], int16(integer(v[2])))
	})
}

// definitions reads the query trees of views, and notes rules besides them.
func (r *catalogReader) definitions(ctx context.Context) error {
	return r.rows(ctx, `SELECT w.ev_class, w.ev_type, w.ev_action FROM pg_catalog.pg_rewrite w WHERE w.ev_class >= 16384`, func(v [][]byte) {
		rel := r.s.relations[oid(v[0])]
		switch {
		case rel == nil:
		case string(v[1]) == "1" && (rel.kind == 'v' || rel.kind == 'm'):
			rel.definition = bytes.Clone(v[2])
		default:
			rel.rewritten = true
		}
	})
}

func (r *catalogReader) types(ctx context.Context) error {
	return r.rows(ctx, `SELECT oid, typnamespace, typname, typtype, typelem, typbasetype FROM pg_catalog.pg_type`, func(v [][]byte) {
		r.s.types[oid(v[0])] = &typeEntry{schema: r.schemaName[oid(v[1])], name: string(v[2]), kind: v[3][0], elem: oid(v[4]), base: oid(v[5])}
	})
}

func (r *catalogReader) functions(ctx context.Context) error {
	return r.rows(ctx, `SELECT oid, pronamespace, proname, xmin, prolang, provolatile FROM pg_catalog.pg_proc`, func(v [][]byte) {
		name := string(v[2])
		f := &function{oid: oid(v[0]), schema: r.schemaName[oid(v[1])], name: name, xmin: string(v[3]), language: oid(v[4]), volatility: v[5][0]}
		r.s.functions[name] = append(r.s.functions[name], f)
		r.s.byOID[f.oid] = f
	})
}

// extensions notes which functions came with an extension.
func (r *catalogReader) extensions(ctx context.Context) error {
	return r.rows(ctx, `SELECT d.objid, e.extname FROM pg_catalog.pg_depend d
		JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = d.refobjid
		WHERE d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass`, func(v [][]byte) {
		if f := r.s.byOID[oid(v[0])]; f != nil {
			f.extension = string(v[1])
		}
	})
}

func (r *catalogReader) operators(ctx context.Context) error {
	return r.rows(ctx, `SELECT o.oprname, o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator o WHERE o.oid >= 16384`, func(v [][]byte) {
		name, f := string(v[0]), r.s.byOID[oid(v[1])]
		trusted, seen := r.s.operators[name]
		r.s.operators[name] = (trusted || !seen) && f != nil && f.computes()
	})
}

func (r *catalogReader) casts(ctx context.Context) error {
	return r.rows(ctx, `SELECT c.casttarget, c.castfunc FROM pg_catalog.pg_cast c WHERE c.oid >= 16384 AND c.castfunc <> 0`, func(v [][]byte) {
		if f := r.s.byOID[oid(v[1])]; f == nil || !f.computes() {
			r.s.casts[oid(v[0])] = true
		}
	})
}

// virtual marks tables for whose row type somebody wrote a function: t.f then
// calls f(t), and no grammar can tell it from a column.
func (r *catalogReader) virtual(ctx context.Context) error {
	byType := map[uint32][]*relation{}
	for _, rel := range r.s.relations {
		if rel.rowType != 0 {
			byType[rel.rowType] = append(byType[rel.rowType], rel)
		}
	}
	return r.rows(ctx, `SELECT p.proargtypes[0], t.typtype FROM pg_catalog.pg_proc p
		JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
		WHERE p.oid >= 16384 AND p.pronargs - p.pronargdefaults <= 1 AND p.pronargs >= 1
			AND p.prolang NOT IN (12, 13) AND t.typtype IN ('c', 'p')`, func(v [][]byte) {
		if v[1][0] == 'p' { // anyelement, record: any row will do
			for _, rel := range r.s.relations {
				rel.virtual = rel.virtual || !rel.builtIn()
			}
			return
		}
		for _, rel := range byType[oid(v[0])] {
			rel.virtual = true
		}
	})
}

func (r *catalogReader) foreignCode(ctx context.Context) error {
	return r.rows(ctx, `SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
				WHERE o.oid >= 16384 AND p.prolang NOT IN (12, 13))
			OR EXISTS (SELECT 1 FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
				WHERE c.oid >= 16384 AND p.prolang NOT IN (12, 13))`, func(v [][]byte) {
		r.s.foreignCode = string(v[0]) == "t"
	})
}

// oid and integer read what a catalogue column of an integer type holds; a
// target that sends anything else gets 0, which names nothing.
func oid(v []byte) uint32 {
	n, err := strconv.ParseUint(string(v), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

func integer(v []byte) int64 {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
