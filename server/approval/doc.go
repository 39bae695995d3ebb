// Package approval is where someone must say yes. It keeps questions for
// humans, whoever asks them: a grant that waits, a statement that is held.
//
// A request goes one way:
//
//	pending → approved → used
//	        → denied | expired | withdrawn      (approved can expire or be withdrawn too)
//
// Every step is a leaf of the evidence first, then a write to the store, then
// memory; a step to "approved" or "used" that cannot be recorded does not
// happen. An answer counts only if it is signed by the key of the login that
// gave it, over the digest of what was shown; nobody in the request's own chain
// may give one; and when the approval is used, everyone who gave one must still
// be allowed to. It is used once, whoever races.
package approval
