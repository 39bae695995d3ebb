package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lib/pq"
)

// sqlState is what a Go driver makes of an error.
func sqlState(err error) string {
	var pgxErr *pgconn.PgError
	var pqErr *pq.Error
	code, message := "lost", ""
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &pgxErr):
		code, message = pgxErr.Code, pgxErr.Message
	case errors.As(err, &pqErr):
		code, message = string(pqErr.Code), pqErr.Message
	}
	if strings.HasPrefix(message, "hoopctl:") {
		code += " hoopctl:"
	}
	return code
}

// justState is the SQLSTATE without who said it.
func justState(err error) string { return strings.TrimSuffix(sqlState(err), " hoopctl:") }

// pgxClient uses pgx: its five ways to run a query, batches, binary COPY, a pool.
func pgxClient(stage, uri string, say func(...any)) error {
	if stage == "refused" {
		return pgxRefused(uri, say)
	}
	ctx, end := context.WithTimeout(context.Background(), 2*time.Minute)
	defer end()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		if err := pgxMode(ctx, uri, mode, say); err != nil {
			return fmt.Errorf("%s: %w", mode, err)
		}
	}
	return pgxPool(ctx, uri, say)
}

func pgxMode(ctx context.Context, uri string, mode pgx.QueryExecMode, say func(...any)) error {
	config, err := pgx.ParseConfig(uri)
	if err != nil {
		return err
	}
	config.DefaultQueryExecMode = mode
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "TRUNCATE things; INSERT INTO things VALUES (1, 'one')", pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	for i := range 3 {
		row, err := pgx.CollectOneRow(must2(c.Query(ctx, "SELECT $1::int8, $2::text, $3::bytea, ARRAY[1,NULL]::int[], '{\"a\":1}'::jsonb, 1.5::float8, date '2024-02-29', NULL::int", int64(1)<<40+int64(i), "ünï", []byte{0, 255})), pgx.RowToMap)
		say(mode, "types:", row, err)
	}
	b := &pgx.Batch{}
	for i := range 50 {
		b.Queue("INSERT INTO things VALUES ($1, $2) RETURNING id", 100+i, "batch")
	}
	say("batch:", sqlState(c.SendBatch(ctx, b).Close()))
	b = &pgx.Batch{}
	b.Queue("INSERT INTO things VALUES (800, 'a')")
	b.Queue("SELECT 1/$1::int", 0)
	b.Queue("INSERT INTO things VALUES (801, 'b')")
	var n int
	say("broken batch:", sqlState(c.SendBatch(ctx, b).Close()), c.QueryRow(ctx, "SELECT count(*) FROM things WHERE id >= 800").Scan(&n), n)
	copied, err := c.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"id", "name"}, pgx.CopyFromSlice(1000, func(i int) ([]any, error) { return []any{1000 + i, "row"}, nil }))
	say("copy:", copied, err)
	_, err = c.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{1000, "again"}}))
	say("bad copy:", sqlState(err))
	var sum int
	rows, err := c.Query(ctx, "SELECT n FROM generate_series(1, $1::int) n", 20_000)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, []any{&n}, func() error { sum += n; return nil })
	say("many rows:", sum, err)
	rows, _ = c.Query(ctx, "SELECT n FROM generate_series(1, 20000) n")
	rows.Next()
	rows.Close()
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		inner := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error {
			_, err := sp.Exec(ctx, "INSERT INTO things VALUES ($1, 'again')", 1)
			return err
		})
		say("savepoint:", sqlState(inner))
		_, err := tx.Exec(ctx, "UPDATE things SET name = $1 WHERE id = $2", "changed", 1)
		return err
	})
	tx, _ := c.Begin(ctx)
	_, failed := tx.Exec(ctx, "SELECT 1/$1::int", 0)
	_, aborted := tx.Exec(ctx, "SELECT 1")
	say("transaction:", err, sqlState(failed), sqlState(aborted), tx.Rollback(ctx))
	var large string
	err = c.QueryRow(ctx, "SELECT repeat('y', 3000000)").Scan(&large)
	say("large:", len(large), err)
	return nil
}

func must2(rows pgx.Rows, _ error) pgx.Rows { return rows } // the error comes again from the rows

func pgxPool(ctx context.Context, uri string, say func(...any)) error {
	pool, err := pgxpool.New(ctx, uri+"&pool_max_conns=8")
	if err != nil {
		return err
	}
	defer pool.Close()
	var total atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			var n int64
			if pool.QueryRow(ctx, "SELECT $1::int8 * 2", i).Scan(&n) == nil {
				total.Add(n)
			}
		})
	}
	all.Wait()
	say("pool:", total.Load())
	// A context that ends costs pgx its connection, and the pool makes another.
	short, end := context.WithTimeout(ctx, 300*time.Millisecond)
	defer end()
	_, err = pool.Exec(short, "SELECT pg_sleep(60)")
	var one int
	say("cancel:", errors.Is(err, context.DeadlineExceeded), pool.QueryRow(ctx, "SELECT 1").Scan(&one), one)
	c, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if _, err := c.Exec(ctx, "LISTEN news"); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, "NOTIFY news, 'from another'"); err != nil {
		return err
	}
	n, err := c.Conn().WaitForNotification(ctx)
	if err != nil {
		return err
	}
	say("notify:", n.Channel, n.Payload)
	say("done")
	return nil
}

func pgxRefused(uri string, say func(...any)) error {
	ctx, end := context.WithTimeout(context.Background(), 2*time.Minute)
	defer end()
	config, err := pgx.ParseConfig(uri)
	if err != nil {
		return err
	}
	noticed := make(chan struct{}, 16)
	config.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { noticed <- struct{}{} }
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { c.Close(ctx) }()
	one := func(text string) (n int) { c.QueryRow(ctx, text).Scan(&n); return n }
	_, err = c.Exec(ctx, "SELECT * FROM forbidden WHERE id = $1", 1)
	say("refused:", sqlState(err))
	say("goes on:", one("SELECT 1"))
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "DELETE FROM forbidden WHERE id = 1")
	say("refused in a transaction:", justState(err))
	_, err = tx.Exec(ctx, "SELECT 1")
	say("in the transaction:", sqlState(err))
	tx.Rollback(ctx)
	say("goes on:", one("SELECT 1"))
	b := &pgx.Batch{}
	b.Queue("INSERT INTO things VALUES (100, 'a')")
	b.Queue("SELECT * FROM forbidden")
	b.Queue("INSERT INTO things VALUES (101, 'b')")
	say("refused in a batch:", justState(c.SendBatch(ctx, b).Close()))
	say("goes on:", one("SELECT count(*)::int FROM things WHERE id >= 100"))
	say("@approve")
	tag, _ := c.Exec(ctx, "UPDATE held SET n = n + 1")
	say("approved:", tag.RowsAffected())
	for len(noticed) > 0 {
		<-noticed
	}
	go func() {
		<-noticed
		c.PgConn().CancelRequest(ctx)
	}()
	_, err = c.Exec(ctx, "DELETE FROM held")
	say("withdrawn:", justState(err))
	say("goes on:", one("SELECT 1")-1)
	if tx, err = c.Begin(ctx); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "DELETE FROM held")
	say("hold over in a transaction:", justState(err))
	tx.Rollback(ctx)
	say("goes on:", one("SELECT 1")-1)
	say("@end")
	_, err = c.Exec(ctx, "SELECT pg_sleep(60)")
	say("ended:", justState(err))
	if c, err = pgx.Connect(ctx, uri); err != nil {
		return err
	}
	say("again:", one("SELECT 1"))
	say("@revoke")
	_, err = c.Exec(ctx, "SELECT pg_sleep(60)")
	say("revoked:", justState(err))
	return noMore(func() error {
		again, err := pgx.Connect(ctx, uri)
		if err == nil {
			again.Close(ctx)
		}
		return err
	}, say)
}

func noMore(connect func() error, say func(...any)) error {
	if connect() == nil {
		say("no more: connected")
	} else {
		say("no more: refused")
	}
	return nil
}

// libPQClient uses lib/pq through database/sql: prepared statements, its COPY,
// contexts.
func libPQClient(stage, uri string, say func(...any)) error {
	ctx, end := context.WithTimeout(context.Background(), 2*time.Minute)
	defer end()
	db, err := sql.Open("postgres", uri)
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if stage == "refused" {
		return libPQRefused(ctx, db, c, say)
	}
	var a int64
	var s, j string
	var bin []byte
	var null sql.NullString
	err = c.QueryRowContext(ctx, "SELECT $1::int8, $2::text, $3::bytea, '{\"a\": 1}'::jsonb, NULL::text", int64(1)<<40, "ünï", []byte{0, 255}).Scan(&a, &s, &bin, &j, &null)
	say("types:", a, s, bin, j, null, err)
	stmt, err := c.PrepareContext(ctx, "SELECT id + $1 FROM things WHERE id = $2")
	if err != nil {
		return err
	}
	for i := range 20 {
		if err := stmt.QueryRow(i, 1).Scan(&a); err != nil || a != int64(1+i) {
			return fmt.Errorf("prepared: %d, %w", a, err)
		}
	}
	say("prepared:", a, stmt.Close())
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	in, err := tx.Prepare("COPY things (id, name) FROM STDIN")
	if err != nil {
		return err
	}
	for i := range 1000 {
		if _, err := in.Exec(1000+i, "row\t\\"); err != nil {
			return err
		}
	}
	_, err = in.Exec()
	say("copy:", err, in.Close(), tx.Commit())
	tx, _ = c.BeginTx(ctx, nil)
	in, _ = tx.Prepare("COPY things (id, name) FROM STDIN")
	in.Exec(1000, "again")
	_, err = in.Exec()
	in.Close()
	_, aborted := tx.Exec("SELECT 1")
	say("bad copy:", sqlState(err), sqlState(aborted), tx.Rollback())
	rows, err := c.QueryContext(ctx, "SELECT n FROM generate_series(1, $1::int) n", 20_000)
	if err != nil {
		return err
	}
	var sum int64
	for rows.Next() {
		if err := rows.Scan(&a); err != nil {
			return err
		}
		sum += a
	}
	say("many rows:", sum, rows.Err())
	rows, err = c.QueryContext(ctx, "SELECT 1; SELECT 2, 3")
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	next := rows.NextResultSet()
	columns, err := rows.Columns()
	say("several:", next, columns, err, rows.Close())
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = db.ExecContext(short, "SELECT pg_sleep(60)")
	stop()
	say("cancel:", justState(err), db.QueryRowContext(ctx, "SELECT 1").Scan(&a), a)
	_, err = c.ExecContext(ctx, "SELECT 1/0")
	say("error:", sqlState(err), c.QueryRowContext(ctx, "SELECT count(*) FROM things").Scan(&a), a)
	listener := pq.NewListener(uri, time.Second, time.Minute, nil)
	defer listener.Close()
	if err := listener.Listen("news"); err != nil {
		return err
	}
	if _, err := db.Exec("NOTIFY news, 'from another'"); err != nil {
		return err
	}
	n := <-listener.Notify
	say("notify:", n.Channel, n.Extra)
	db.SetMaxOpenConns(8)
	var total atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			var n int64
			if db.QueryRow("SELECT $1::int8 * 2", i).Scan(&n) == nil {
				total.Add(n)
			}
		})
	}
	all.Wait()
	say("pool:", total.Load())
	say("done")
	return nil
}

func libPQRefused(ctx context.Context, db *sql.DB, c *sql.Conn, say func(...any)) error {
	one := func(text string) (n int) { c.QueryRowContext(ctx, text).Scan(&n); return n }
	exec := func(text string, args ...any) error { _, err := c.ExecContext(ctx, text, args...); return err }
	say("refused:", sqlState(exec("SELECT * FROM forbidden WHERE id = $1", 1)))
	say("goes on:", one("SELECT 1"))
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.Exec("DELETE FROM forbidden WHERE id = 1")
	say("refused in a transaction:", justState(err))
	_, err = tx.Exec("SELECT 1")
	say("in the transaction:", sqlState(err))
	tx.Rollback()
	say("goes on:", one("SELECT 1"))
	say("refused in a batch:", justState(exec("INSERT INTO things VALUES (100, NULL); SELECT * FROM forbidden")))
	say("goes on:", one("SELECT count(*) FROM things WHERE id >= 100"))
	say("@approve")
	r, err := c.ExecContext(ctx, "UPDATE held SET n = n + 1")
	if err != nil {
		return err
	}
	n, _ := r.RowsAffected()
	say("approved:", n)
	// A context that ends makes lib/pq ask for the cancellation.
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = db.ExecContext(short, "DELETE FROM held")
	stop()
	say("withdrawn:", justState(err))
	say("goes on:", one("SELECT 1")-1)
	if tx, err = c.BeginTx(ctx, nil); err != nil {
		return err
	}
	_, err = tx.Exec("DELETE FROM held")
	say("hold over in a transaction:", justState(err))
	// lib/pq gives up a connection whose transaction the server has ended; the
	// pool makes another.
	tx.Rollback()
	c.Close()
	if c, err = db.Conn(ctx); err != nil {
		return err
	}
	say("goes on:", one("SELECT 1")-1)
	say("@end")
	say("ended:", justState(exec("SELECT pg_sleep(60)")))
	c.Close()
	if c, err = db.Conn(ctx); err != nil {
		return err
	}
	defer c.Close()
	say("again:", one("SELECT 1"))
	say("@revoke")
	say("revoked:", justState(exec("SELECT pg_sleep(60)")))
	return noMore(func() error { return db.PingContext(ctx) }, say)
}
