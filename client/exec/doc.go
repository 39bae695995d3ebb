// Package exec runs statements for scripts: a PostgreSQL client on a tunnel
// connection, and writers that print results as a table, CSV, JSON or NDJSON.
//
// It speaks the extended protocol only, one statement at a time, and asks for
// every value as text: what is printed is what PostgreSQL itself prints. Rows
// are streamed; memory does not grow with them.
package exec
