package postgres

import (
	"crypto/tls"
	"errors"
	"io"
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
			config.TLSConfig = &tls.Config{InsecureSkipVerify: true} // of interest is the end
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
		})
	}
}
