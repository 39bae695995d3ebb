// Package policy decides. It is the vocabulary of the house (principal,
// target, statement, verdict), the resources that an organisation writes
// (policies, classifications, clearances, grant rules, services) and one pure
// function over them, [Set.Decide].
//
// The package reads no clock, socket or file: everything a decision depends on
// is in the [Request]. The zero value of every verdict denies. A Set is
// immutable once compiled and safe for concurrent use; a server swaps whole
// sets.
//
// policy/sql turns SQL text into [Facts]; policy/mask turns a value into the
// value to show. Nothing here imports anything of ours outside policy.
package policy
