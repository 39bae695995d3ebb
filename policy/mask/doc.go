// Package mask turns a value into the value to show.
//
// # Methods
//
// [New] makes a [Rewriter] from a method's name and a wire type. Methods never
// change a value's type: the output is legal for the PostgreSQL type that it
// stands for, in text and in binary, and within its typmod, so that drivers and
// ORMs decode a masked row as they would the raw one.
//
//	redact  a fixed value of the type: ***, 0, 1900-01-01, 0.0.0.0, …; NULL where no value of the type is known to be legal
//	null    NULL
//	last4   letters and digits but the last four become *, if there are at least eight
//	token   a keyed HMAC: the same value gives the same token, under one tenant and tag
//	year    a date's first of January; everything at 90 years and more in one class
//	zip3    the first three digits of a ZIP code; 000 where few people live
//	age     ages of 90 and more in one class
//	domain  an e-mail address without who it is
//
// A method that a type cannot carry (the last four of a boolean) redacts: a
// fallback is never milder than what was asked for. hash is refused: an unkeyed
// hash of nine digits is undone in seconds.
//
// What year, zip3 and age leave follows 45 CFR 164.514(b)(2)(i), so that the
// output is Safe-Harbor-oriented. It is not thereby de-identified: that is a
// judgement on a whole data set.
//
// # Scanner
//
// [Detector] finds identifiers by their shape: one pass over the bytes, a table
// of 256 byte classes, check digits, and context words for what is weak. It is
// the net below the methods, for text columns that nobody tagged, JSON, bodies
// and messages. [Detector.Rewriter] uses it on values, [Stream] on a stream.
//
// The package reads no clock, file or socket.
package mask
