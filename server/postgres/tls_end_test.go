package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/server/session"
)

// A session that ends over TLS ends TLS as well, so that drivers believe the
// last words: an end without close_notify looks like a cut.
func TestSessionsEndTLS(t *testing.T) {
	for name, end := range map[string]func(h *house, taken *pgconn.HijackedConn){
		"revoked": func(h *house, _ *pgconn.HijackedConn) {
			h.end(&session.Refusal{Code: session.CodeRevoked, Message: "grant g-1 was revoked by dave"})
		},
		"terminated": func(_ *house, taken *pgconn.HijackedConn) { taken.Conn.Write([]byte{'X', 0, 0, 0, 4}) },
		"garbage":    func(_ *house, taken *pgconn.HijackedConn) { taken.Conn.Write([]byte{'Q', 0, 0, 0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			config, err := pgconn.ParseConfig(h.url())
			if err != nil {
				t.Fatal(err)
			}
			config.TLSConfig = &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12} // an alert is legible
			raw := &lastRecord{}
			config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				var d net.Dialer
				c, err := d.DialContext(ctx, network, addr)
				raw.Conn = c
				return raw, err
			}
			conn, err := pgconn.ConnectConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			taken, err := conn.Hijack()
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Conn.Close()
			taken.Conn.SetDeadline(time.Now().Add(30 * time.Second))
			end(h, taken)
			if _, err := io.Copy(io.Discard, taken.Conn); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("the connection ended with %v", err)
			}
			if raw.kind != recordAlert {
				t.Errorf("the last record is of type %d: the end is not told from a cut", raw.kind)
			}
		})
	}
}

const recordAlert = 21

// lastRecord notes the type of the TLS record that was read last.
type lastRecord struct {
	net.Conn
	kind byte
	head []byte // of the record that is being read
	left int    // bytes of it still to come
}

func (l *lastRecord) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	for got := b[:n]; len(got) > 0; {
		if l.left > 0 {
			skip := min(l.left, len(got))
			l.left, got = l.left-skip, got[skip:]
			continue
		}
		l.head, got = append(l.head, got[0]), got[1:]
		if len(l.head) == 1 && l.head[0] == 'S' && l.kind == 0 { // the answer to SSLRequest
			l.head = nil
		}
		if len(l.head) == 5 {
			l.kind, l.left, l.head = l.head[0], int(l.head[3])<<8|int(l.head[4]), nil
		}
	}
	return n, err
}
