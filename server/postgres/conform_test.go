package postgres

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// client is pgx as the conformance suite's native client.
type client struct {
	conn *pgx.Conn
	raw  net.Conn
	mu   sync.Mutex
	told strings.Builder
	gone bool // it dials no more: pgx would send a cancel request for a lost connection
}

func startClient(t *testing.T, h *house, mode pgx.QueryExecMode) *client {
	c := &client{}
	config, err := pgx.ParseConfig(h.url())
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = mode
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told.WriteString(n.Message + "\n" + n.Detail + "\n" + n.Hint + "\n")
	}
	config.DialFunc = c.dial
	if c.conn, err = pgx.ConnectConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close(context.Background()) })
	return c
}

func (c *client) Run(ctx context.Context, statement string) (a sessiontest.Answer, err error) {
	rows, err := c.conn.Query(ctx, statement)
	for err == nil && rows.Next() {
		values, verr := rows.Values()
		if verr != nil {
			return a, verr
		}
		for _, v := range values {
			a.Values = append(a.Values, v.(string))
		}
	}
	if err == nil {
		err = rows.Err()
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		a.Code, a.Message, a.Detail, a.Hint = pg.Code, pg.Message, pg.Detail, pg.Hint
		if err = nil; c.conn.IsClosed() {
			err = pg
		}
	}
	return a, err
}

func (c *client) Interrupt(ctx context.Context) error { return c.conn.PgConn().CancelRequest(ctx) }

func (c *client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil, net.ErrClosed
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if c.raw == nil {
		c.raw = conn
	}
	return conn, err
}

func (c *client) HangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	c.raw.Close()
}

func (c *client) Told() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told.String()
}

func TestConformance(t *testing.T) {
	for name, mode := range map[string]pgx.QueryExecMode{"simple": pgx.QueryExecModeSimpleProtocol, "extended": pgx.QueryExecModeDescribeExec, "prepared": pgx.QueryExecModeCacheStatement} {
		t.Run(name, func(t *testing.T) {
			sessiontest.Run(t, sessiontest.Protocol{
				Start: func(t *testing.T, g *sessiontest.Gate) sessiontest.Client {
					return startClient(t, newHouse(t, g), mode)
				},
				Ask: func(marker string) string { return "SELECT '" + marker + "'::text AS v" },
				Reached: func(t *testing.T, marker string) bool {
					return strings.Contains(newHouse(t, nil).target.server.Log(t), marker)
				},
			})
		})
	}
}
