// Package tunnel is the contract in bytes between client and server: one TLS
// 1.3 connection a session, an ALPN name, and one line each way. Net.Conn in,
// net.Conn out, both halves.
package tunnel

// Protocol is the ALPN name of a tunnel connection on the server's one port.
const Protocol = "hoopctl-tunnel/1"

// Hello is the client's one line (JSON, at most 4096 bytes with its newline).
// Who asks is told by the client certificate alone.
type Hello struct {
	Grant   string `json:"grant"`   // name of a grant of the caller's
	Forward string `json:"forward"` // random id of the forward: 16 hex digits
	// Verifier is the SCRAM-SHA-256 verifier of the forward's secret, in
	// PostgreSQL's form. The server checks whoever connects to the forward's
	// local port against it.
	Verifier string `json:"verifier"`
}
