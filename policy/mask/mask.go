package mask

import "time"

// Type is the wire type of a value: PostgreSQL's type OID, type modifier (-1
// for none) and format.
type Type struct {
	OID    uint32
	Typmod int32
	Binary bool
	// Name is the type's name where the OID is not built in: "citext", "" if unknown.
	Name string
}

// Rewriter rewrites one value. It is safe for concurrent use and allocates
// nothing but what it appends.
type Rewriter interface {
	// Rewrite appends to dst what to show in place of value and returns the
	// extended dst. null true means NULL, and nothing is appended. value is
	// never NULL: NULL stays NULL. value and dst do not overlap; value is not
	// kept.
	Rewrite(dst, value []byte) (out []byte, null bool)
}

// Settings are what a method needs beside the value.
type Settings struct {
	// Tag is the classification's tag ("phi"): tokens of different tags differ.
	Tag string
	// Keys make tokens. Without a secret, token is refused.
	Keys Keys
	// Today is the date of the session, from which "90 or older" is counted:
	// the day on which a year of birth has to disappear moves with the
	// calendar. Only its year, month and day count. The zero time makes year
	// and age refuse.
	Today time.Time
}

// Methods are the names that New knows, in the order in which help shows them.
func Methods() []string {
	return []string{"redact", "null", "last4", "token", "year", "zip3", "age", "domain"}
}
