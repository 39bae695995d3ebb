// Package session is the room where a connection lives from open to close. A
// [Protocol] owns its own loop and asks a [Gate] a few questions; the Gate is
// the only door between it and the rest of the server.
//
// The security of the house is one short function, Session.Admit: decide →
// (write the question down, ask) → write the verdict down → refuse, or hand
// over a [Pass] for each statement.
package session
