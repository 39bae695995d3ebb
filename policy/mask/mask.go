// Package mask turns a value into the value to show. Methods never change a
// value's type: the output is legal for the PostgreSQL type it stands for, in
// text and in binary, and within its typmod.
package mask

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
	// never NULL: NULL stays NULL.
	Rewrite(dst, value []byte) (out []byte, null bool)
}
