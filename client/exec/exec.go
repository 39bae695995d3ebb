package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Config says how to reach a PostgreSQL and what to be there.
type Config struct {
	// Dial opens a connection on which PostgreSQL's protocol is spoken in
	// plaintext (a tunnel's TLS lies below). It is called once, and again for
	// each cancel request.
	Dial        func(context.Context) (net.Conn, error)
	User        string // required
	Password    string
	Database    string // "" is the target's default
	Application string // application_name
	// Settings are further start-up settings.
	Settings map[string]string
	// Notice hears notices as they come, on the goroutine that calls Run.
	Notice func(Notice)
	// CancelWait is how long a cancelled statement may take to end before the
	// connection is closed; 0 is 5 s.
	CancelWait time.Duration
}

// Notice is a NOTICE, WARNING, … of the target or the broker.
type Notice struct {
	Severity, SQLState, Message, Detail, Hint string
}

// Conn is one session. It is not safe for concurrent use.
type Conn struct {
	pg   *pgconn.PgConn
	wait time.Duration
}

// Open connects and logs in. Nothing of the environment (PG*, ~/.pgpass,
// service files) is followed: the tunnel has named the one place to go to.
func Open(ctx context.Context, c Config) (*Conn, error) {
	config, err := plainConfig()
	if err != nil {
		return nil, err
	}
	config.Host, config.Port = "hoopctl", 5432
	config.User, config.Password, config.Database = c.User, c.Password, c.Database
	config.TLSConfig, config.Fallbacks, config.ConnectTimeout = nil, nil, 0
	config.ValidateConnect, config.AfterConnect = nil, nil
	config.RuntimeParams = map[string]string{"client_encoding": "UTF8"}
	if c.Application != "" {
		config.RuntimeParams["application_name"] = c.Application
	}
	for k, v := range c.Settings {
		config.RuntimeParams[k] = v
	}
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) }
	if c.Notice != nil {
		config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			c.Notice(Notice{Severity: n.Severity, SQLState: n.Code, Message: n.Message, Detail: n.Detail, Hint: n.Hint})
		}
	}
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, explain(ctx, err)
	}
	wait := c.CancelWait
	if wait == 0 {
		wait = 5 * time.Second
	}
	return &Conn{pg: pg, wait: wait}, nil
}

// plainConfig is a Config as ParseConfig must make it, without what the
// environment would add. Every field is overwritten by the caller; what is
// named here are the settings that could make the parsing itself fail.
func plainConfig() (*pgconn.Config, error) {
	text := "host=hoopctl port=5432 user=hoopctl password='' dbname=hoopctl sslmode=disable sslcertmode=disable sslcert='' sslkey='' " +
		"sslrootcert='' sslpassword='' sslsni=0 sslnegotiation=postgres connect_timeout=0 target_session_attrs=any " +
		"passfile='' min_protocol_version=3.0 max_protocol_version=3.0 channel_binding=disable require_auth=''"
	if os.Getenv("PGSERVICE") != "" {
		// Only an existing service keeps PGSERVICE from failing or from being followed.
		f, err := os.CreateTemp("", "hoopctl-service-*")
		if err != nil {
			return nil, fmt.Errorf("set PGSERVICE aside: %w", err)
		}
		defer os.Remove(f.Name())
		_, err = f.WriteString("[hoopctl]\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("set PGSERVICE aside: %w", err)
		}
		text += " service=hoopctl servicefile='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(f.Name()) + "'"
	}
	config, err := pgconn.ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("make a connection's settings: %w", err)
	}
	return config, nil
}

// Options bound one Run.
type Options struct {
	// MaxRows stops a statement after so many rows; 0 is no bound. What the
	// statement did so far stands: it is ended, not cancelled.
	MaxRows int64
	// CopyIn is what COPY … FROM STDIN reads; nil refuses it.
	CopyIn io.Reader
}

// Result is how one statement ended.
type Result struct {
	Rows int64
	Tag  string // command tag; "" if MaxRows stopped it
	More bool   // MaxRows stopped it
}

// Run runs one statement and hands its rows to w as they come. When ctx ends,
// the statement is cancelled on the target, and Run answers with ctx's cause.
// After an *Error that is not FATAL the connection can be used again.
func (c *Conn) Run(ctx context.Context, sql string, w Writer, o Options) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, context.Cause(ctx)
	}
	stop := c.cancelWhenDone(ctx)
	defer stop()
	f := c.pg.Frontend()
	f.SendParse(&pgproto3.Parse{Query: sql})
	f.SendBind(&pgproto3.Bind{})
	f.SendDescribe(&pgproto3.Describe{ObjectType: 'P'})
	f.SendExecute(&pgproto3.Execute{MaxRows: uint32(min(o.MaxRows, 1<<31-1))})
	f.SendSync(&pgproto3.Sync{})
	if err := f.Flush(); err != nil {
		return Result{}, explain(ctx, err)
	}
	result, err := c.answer(w, o)
	if err != nil {
		var own *writeError
		if errors.As(err, &own) {
			c.pg.Close(context.WithoutCancel(ctx))
			return result, own.err
		}
		err = explain(ctx, err)
	}
	var pg *Error
	if errors.As(err, &pg) && pg.SQLState == "57014" && ctx.Err() != nil {
		return result, context.Cause(ctx)
	}
	return result, err
}

// writeError tells what the caller's writer said from what the network said.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

// answer reads everything up to ReadyForQuery. A failing writer ends it early.
func (c *Conn) answer(w Writer, o Options) (Result, error) {
	var (
		result Result
		failed error
	)
	for {
		message, err := c.pg.ReceiveMessage(context.Background())
		if err != nil {
			return result, err
		}
		switch m := message.(type) {
		case *pgproto3.RowDescription:
			err = w.Columns(columns(m))
		case *pgproto3.DataRow:
			result.Rows++
			err = w.Row(m.Values)
		case *pgproto3.CommandComplete:
			result.Tag = string(m.CommandTag)
			err = w.End(result.Tag)
		case *pgproto3.PortalSuspended:
			result.More = true
			err = w.End("")
		case *pgproto3.EmptyQueryResponse:
			err = w.End("")
		case *pgproto3.CopyData:
			err = w.Copy(m.Data)
		case *pgproto3.CopyInResponse:
			failed = errors.Join(failed, c.copyIn(o.CopyIn))
		case *pgproto3.ErrorResponse:
			failed = errors.Join(failed, pgconn.ErrorResponseToPgError(m))
		case *pgproto3.ReadyForQuery:
			return result, failed
		}
		if err != nil {
			return result, &writeError{err}
		}
	}
}

func columns(m *pgproto3.RowDescription) []Column {
	out := make([]Column, len(m.Fields))
	for i, f := range m.Fields {
		out[i] = Column{Name: string(f.Name), Type: f.DataTypeOID}
	}
	return out
}

// copyIn sends what COPY … FROM STDIN reads, and the Sync that PostgreSQL threw
// away while it was copying.
func (c *Conn) copyIn(r io.Reader) error {
	f := c.pg.Frontend()
	if r == nil {
		f.Send(&pgproto3.CopyFail{Message: "there is no input for COPY FROM STDIN"})
		f.SendSync(&pgproto3.Sync{})
		return f.Flush()
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			f.Send(&pgproto3.CopyData{Data: buf[:n]})
			if err := f.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			f.Send(&pgproto3.CopyDone{})
			break
		}
		if err != nil {
			f.Send(&pgproto3.CopyFail{Message: err.Error()})
			break
		}
	}
	f.SendSync(&pgproto3.Sync{})
	return f.Flush()
}

// cancelWhenDone asks the target to cancel when ctx ends, and closes the
// connection if that does not help. The returned function ends the watch.
func (c *Conn) cancelWhenDone(ctx context.Context) (stop func()) {
	finished := make(chan struct{})
	gone := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		defer close(gone)
		ask, done := context.WithTimeout(context.WithoutCancel(ctx), c.wait)
		defer done()
		c.pg.CancelRequest(ask)
		select {
		case <-finished:
		case <-ask.Done():
			c.pg.Conn().Close()
		}
	})
	return func() {
		close(finished)
		if !undo() {
			<-gone
		}
	}
}

// Broken says that the connection can no longer be used.
func (c *Conn) Broken() bool { return c.pg.IsClosed() }

// Close says goodbye and closes the connection.
func (c *Conn) Close(ctx context.Context) error { return c.pg.Close(ctx) }
