// Package tunnel is the contract in bytes between client and server: one TLS
// 1.3 connection a session, an ALPN name, and one line each way. Net.Conn in,
// net.Conn out, both halves.
//
//	client                                server
//	  TLS 1.3, ALPN hoopctl-tunnel/1, client certificate
//	  {"grant":"g-12","forward":"…","verifier":"…"}\n  →
//	                              ←  {}\n   or   {"error":{…}}\n
//	  … the bytes of the session, each way, until both halves are closed …
//
// Nothing is multiplexed: a stalled session cannot hold up another one, and
// the kernel's flow control is the only one. Who asks is told by the client
// certificate alone; the line says what for.
//
// The lines are read one byte at a time from the TLS connection's own buffer,
// so that no byte that follows a line is ever swallowed, on either side.
package tunnel

// Protocol is the ALPN name of a tunnel connection on the server's one port.
const Protocol = "hoopctl-tunnel/1"

// MaxLine is the most bytes that a line may have, with its newline.
const MaxLine = 4096

// Hello is the client's one line (JSON, at most MaxLine bytes with its newline).
// Who asks is told by the client certificate alone.
type Hello struct {
	Grant   string `json:"grant"`   // name of a grant of the caller's
	Forward string `json:"forward"` // random id of the forward: 16 hex digits
	// Verifier is the SCRAM-SHA-256 verifier of the forward's secret, in
	// PostgreSQL's form. The server checks whoever connects to the forward's
	// local port against it.
	Verifier string `json:"verifier"`
}
