// Package target turns a target's name into a place to dial and credentials to
// log in with. It speaks no protocol.
//
// What it hands out is a snapshot of the resource: address and credentials
// belong together, so that a session that began before an edit never sends the
// new password to the old host, or the old password to the new one. Addresses
// are checked after they were resolved, and the address that was checked is the
// one that is dialled.
package target
