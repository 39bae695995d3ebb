package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/client/forward"
	"github.com/hoopctl/hoopctl/policy"
)

// dbColumn is one column of a target's tables, as its catalogue describes it.
type dbColumn struct {
	policy.ColumnRef
	Type    string
	Comment string
	Rows    int64 // of its table, as estimated; -1 unknown
}

// columnsQuery lists the columns of all tables that people made. Partitions
// have their parents' columns.
const columnsQuery = `SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, NULL), pg_catalog.col_description(c.oid, a.attnum), c.reltuples
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
	AND n.nspname <> 'pg_catalog' AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'
ORDER BY 1, 2, a.attnum`

func readColumns(ctx context.Context, conn *exec.Conn) ([]dbColumn, error) {
	var out []dbColumn
	err := eachRow(ctx, conn, columnsQuery, func(v [][]byte) {
		rows, err := strconv.ParseFloat(string(v[5]), 64)
		if err != nil {
			rows = -1
		}
		out = append(out, dbColumn{ColumnRef: policy.ColumnRef{Schema: string(v[0]), Table: string(v[1]), Column: string(v[2])},
			Type: string(v[3]), Comment: string(v[4]), Rows: int64(rows)})
	})
	if err != nil {
		return nil, fmt.Errorf("read the columns: %w", err)
	}
	return out, nil
}

// eachRow runs a statement and hands its rows to f; the values are f's until it
// returns.
func eachRow(ctx context.Context, conn *exec.Conn, sql string, f func(values [][]byte)) error {
	_, err := conn.Run(ctx, sql, rowFunc(f), exec.Options{})
	return err
}

// rowFunc is an exec.Writer that keeps to the rows.
type rowFunc func(values [][]byte)

func (f rowFunc) Columns([]exec.Column) error { return nil }
func (f rowFunc) Row(values [][]byte) error   { f(values); return nil }
func (f rowFunc) Copy([]byte) error           { return nil }
func (f rowFunc) End(string) error            { return nil }
func (f rowFunc) Close() error                { return nil }

// openTarget opens a session on a target under a grant, for what a verb itself
// wants to know.
func (a *app) openTarget(ctx context.Context, target, database string, ask askOptions) (*exec.Conn, map[string]string, func(), error) {
	cl, err := a.client()
	if err != nil {
		return nil, nil, nil, err
	}
	grant, err := a.grantFor(ctx, cl, target, ask)
	if err != nil {
		cl.Close()
		return nil, nil, nil, err
	}
	t, err := findTarget(ctx, cl, target)
	if err == nil && database == "" {
		database = t.Spec.Database
	}
	var private *forward.Private
	if err == nil {
		private, err = forward.NewPrivate(cl, grant.Metadata.Name)
	}
	var conn *exec.Conn
	if err == nil {
		conn, err = exec.Open(ctx, exec.Config{Dial: private.Dial, User: forwardUser, Password: private.Secret(), Database: database,
			Application: "hoopctl-discover", Notice: a.notice(false)})
	}
	if err != nil {
		cl.Close()
		return nil, nil, nil, err
	}
	return conn, t.Metadata.Labels, func() {
		conn.Close(context.WithoutCancel(ctx))
		cl.Close()
	}, nil
}

// quotedName is an identifier as SQL writes it.
func quotedName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
