package forward

import (
	"crypto/rand"
	"encoding/hex"
)

// newID is the forward's random id: 16 hex digits.
func newID() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// newSecret is 26 characters of base32: 130 random bits.
func newSecret() string { return rand.Text() }
