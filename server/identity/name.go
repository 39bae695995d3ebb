package identity

import (
	"crypto/rand"
	"strings"
)

// newLoginName is "l-" and 80 random bits.
func newLoginName() string { return "l-" + strings.ToLower(rand.Text()[:16]) }
