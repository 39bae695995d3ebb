// Package client dials. It logs in at the organisation's identity provider,
// keeps the login's key and certificate, calls the server's API with typed
// methods, and opens tunnel connections.
//
// A login is a P-256 key that is made on this machine and never leaves it, a
// certificate of the server's CA for it that lives 15 minutes, and the
// provider's refresh token, with which a new certificate is asked for until
// the login ends (8 h at most). None of the three is of use to a thief without
// the key: the server issues a certificate for one key per authentication, and
// accepts renewals of it by the same key only.
//
// A [Client] is safe for concurrent use, by several processes too: they share
// the login's file under a lock, and renew once between them.
package client
