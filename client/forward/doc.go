// Package forward gives a target a place on this machine: a loopback port or a
// unix socket. Each connection to it becomes one tunnel connection to the
// server, and bytes pass both ways until both halves are closed. It knows no
// protocol of a target.
//
// Other users of the machine, containers and web pages can reach a loopback
// port too. What keeps them out is the forward's secret: 128 random bits, made
// for this forward, known to nobody but who started it. The server checks it
// in the target's own protocol (a password, for PostgreSQL) against the
// verifier that the forward announces, so the secret itself never leaves the
// machine's own connections, and it is worth nothing without the login's
// certificate and the grant.
package forward
