// Package api is the contract in words between client and server: paths, JSON
// types, error reasons, and the event that the evidence is made of. Types
// only: no behaviour beyond what a type needs to be read.
//
// The API is JSON over HTTP (h2 or http/1.1) on the server's one TLS port.
// Every call but Info and Enroll needs the login's client certificate. Lists
// take ?watch=1 and then answer NDJSON: the items as they stand, a line
// {"kind":"Synced"}, then each change. Errors are [Error] with an HTTP status.
package api
