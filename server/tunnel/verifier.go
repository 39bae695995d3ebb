package tunnel

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// iterations of PBKDF2, as PostgreSQL's default. Secrets here have 128 random
// bits and more: more would slow logins down and no guesser.
const iterations = 4096

// Verifier is the SCRAM-SHA-256 verifier of a secret in PostgreSQL's form
// (RFC 5803): SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, under a salt
// of its own. It cannot be turned back into the secret. The secret must be
// ASCII, which SASLprep leaves as it is.
func Verifier(secret string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(sha256.New, secret, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive a verifier: %w", err)
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
