// Package postgres speaks PostgreSQL's frontend/backend protocol 3: to the
// client as a server, to the target as a client. No client should be able to
// tell it from PostgreSQL but by what policy forbids, hides or holds, and no
// hostile peer on either side may hurt it.
//
// A [Room] is shared by all connections of a server; each connection has a
// session.Protocol of its own. Two goroutines serve it:
//
//	client ── reader ── requests.go ── ledger ── target
//	client ──────────── answers.go ─── ledger ── reader ── target
//
// The first reads what the client asks, has it admitted, writes down in the
// ledger which answers are now expected, and sends it on. The second reads the
// target's answers, matches them to the ledger's head, and is the only way by
// which a byte of an answer reaches the client.
//
// Bytes from the wire are read by our own bounded reader (frame.go) and
// decoders (message.go); github.com/jackc/pgproto3/v2 only *encodes* what the
// server itself has to say (say.go), because its decoders panic on hostile
// lengths.
//
// The protocol is described in
// https://www.postgresql.org/docs/current/protocol.html.
package postgres
