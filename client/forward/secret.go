package forward

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// iterations of PBKDF2, as PostgreSQL's default. The secret has 128 random
// bits: more would slow logins down and no guesser.
const iterations = 4096

// newID is the forward's random id: 16 hex digits.
func newID() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// newSecret is 26 characters of base32: 130 random bits.
func newSecret() string { return rand.Text() }

// Verifier is the SCRAM-SHA-256 verifier of a secret in PostgreSQL's form
// (RFC 5803): SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
func verifier(secret string, salt []byte) (string, error) {
	// The secret is ASCII: SASLprep leaves it as it is.
	salted, err := pbkdf2.Key(sha256.New, secret, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive the forward's verifier: %w", err)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	enc := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, enc(salt), enc(stored[:]), enc(mac(salted, "Server Key"))), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
