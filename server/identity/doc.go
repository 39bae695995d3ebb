// Package identity knows who. It verifies tokens of the identity providers
// that the server believes, runs the server's own certificate authorities, and
// keeps logins: a login is one key on one person's machine, certified for 15
// minutes at a time, renewed for 8 hours at most, and ended at once by logout.
//
// # What a thief would need
//
// One authentication at the provider enrols one key, once, within five
// minutes. What is stolen later is useless: an ID token was used, a refresh
// token yields tokens of an old authentication, which renew the login's own
// key and no other, and a certificate without its key opens no TLS connection.
//
// # Names
//
// Principals are keyed by the issuer's configured name and its subject claim.
// No other claim identifies anyone: addresses are unverified and reused, and
// two providers may hold the same.
//
// A certificate says only which login it belongs to
// (hoopctl://user/ISSUER/SUBJECT/login/NAME); name and groups come from the
// login's row, so that a renewal that brings fewer groups acts on certificates
// and sessions that are already out.
package identity
