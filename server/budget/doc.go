// Package budget remembers what principals have used of what policy allows them
// in a span of time: rows, bytes, statements, distinct constants. It counts
// over all sessions, and over restarts: what it hands out is in the store
// before it is handed out, a block at a time, so that neither a row nor a short
// statement costs a write. A crash loses nothing of what was used; it may count
// at most one block of each budget (1/32 of it) that was not.
//
// A budget of N per hour is a window that slides: what was used comes back as
// it becomes older than an hour, in steps of a twelfth. In no hour is more than
// N used.
package budget
