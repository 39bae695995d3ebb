// Package grant is where one comes in: it issues, finds, extends, revokes and
// expires grants. Whether a principal may have one is policy's to decide, and
// people's where policy says so; that a grant is live is known here, in memory,
// so that every new session and every statement can ask.
//
// A grant counts once its leaf in the evidence is durable and it lies in the
// store. Ending one is the other way round: it ends in memory first, at once
// and whatever else fails, and is then written down.
//
// A request that people approved becomes a grant exactly once, also if the
// server dies between the approval and the grant: the grant's name is written
// into the request in the step that uses it up.
package grant
