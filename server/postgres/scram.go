package postgres

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

const (
	scramPlain = "SCRAM-SHA-256"
	scramPlus  = "SCRAM-SHA-256-PLUS"
	// maxSASL is the longest SASL message of a client, as in PostgreSQL
	// (PG_MAX_SASL_MESSAGE_LENGTH).
	maxSASL = 1024
	// maxIterations bounds what a verifier, ours or a target's, may ask for:
	// PostgreSQL's default is 4096.
	maxIterations = 100_000
)

// scramServer is the server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) and
// its -PLUS form with tls-server-end-point (RFC 5929) for one connection. The
// user name inside SCRAM is ignored, as PostgreSQL does: the start-up packet's counts.
type scramServer struct {
	verifier verifier
	binding  []byte // hash of our certificate; nil: -PLUS was not offered
	mock     bool   // there is no such secret: run to the end, then fail
	plus     bool   // the client chose -PLUS

	gs2         string
	clientBare  string
	serverFirst string
	nonce       string
}

// verifier is what the server keeps of a password: it cannot be used to log in
// elsewhere, nor here.
type verifier struct {
	iterations           int
	salt                 []byte
	storedKey, serverKey []byte
}

// parseVerifier reads PostgreSQL's form,
// SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> (pg_authid.rolpassword).
func parseVerifier(s string) (v verifier, err error) {
	bad := errors.New("not a SCRAM-SHA-256 verifier")
	rest, ok := strings.CutPrefix(s, scramPlain+"$")
	head, keys, ok2 := strings.Cut(rest, "$")
	iterations, salt, ok3 := strings.Cut(head, ":")
	stored, server, ok4 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 || !ok4 {
		return v, bad
	}
	if v.iterations, err = strconv.Atoi(iterations); err != nil || v.iterations < 1 || v.iterations > maxIterations {
		return v, bad
	}
	for _, f := range []struct {
		text string
		dst  *[]byte
		size int
	}{{salt, &v.salt, 0}, {stored, &v.storedKey, sha256.Size}, {server, &v.serverKey, sha256.Size}} {
		b, err := base64.StdEncoding.DecodeString(f.text)
		if err != nil || len(b) == 0 || f.size != 0 && len(b) != f.size {
			return v, bad
		}
		*f.dst = b
	}
	return v, nil
}

// mockVerifier is what an unknown user is asked to prove: the same for the
// same name, so that asking twice does not tell, and matched by no password.
func mockVerifier(key []byte, user string) verifier {
	salt := hmacSHA256(key, []byte("salt\x00"+user))[:16]
	return verifier{iterations: 4096, salt: salt, storedKey: hmacSHA256(key, []byte("stored\x00"+user)), serverKey: hmacSHA256(key, []byte("server\x00"+user))}
}

var errSCRAM = errors.New("malformed SCRAM message")

// first takes client-first-message and returns server-first-message.
func (s *scramServer) first(mechanism string, message []byte) ([]byte, error) {
	switch {
	case mechanism == scramPlus && s.binding != nil:
		s.plus = true
	case mechanism != scramPlain:
		return nil, fmt.Errorf("%w: mechanism not offered", errSCRAM)
	}
	if err := s.header(string(message)); err != nil {
		return nil, err
	}
	name, nonce, ok := strings.Cut(s.clientBare, ",")
	if strings.HasPrefix(name, "m=") {
		return nil, fmt.Errorf("%w: extensions are not supported", errSCRAM)
	}
	nonce, ok2 := strings.CutPrefix(nonce, "r=")
	nonce, _, _ = strings.Cut(nonce, ",")
	if !ok || !ok2 || !strings.HasPrefix(name, "n=") || len(nonce) < 8 || !printable(nonce) {
		return nil, errSCRAM
	}
	s.nonce = nonce + rand.Text()
	s.serverFirst = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(s.verifier.salt), s.verifier.iterations)
	return []byte(s.serverFirst), nil
}

// header splits off the GS2 header, which says what the client thinks of
// channel binding.
func (s *scramServer) header(message string) error {
	flag, rest, ok := strings.Cut(message, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok || !ok2 {
		return errSCRAM
	}
	switch {
	case authzid != "":
		return fmt.Errorf("%w: authorization identity is not supported", errSCRAM)
	case s.plus != (flag == "p=tls-server-end-point"):
		return fmt.Errorf("%w: channel binding does not fit the mechanism", errSCRAM)
	case flag == "y" && s.binding != nil:
		return errors.New("the client supports channel binding but was told that we do not: somebody is in the middle")
	case !s.plus && flag != "n" && flag != "y":
		return errSCRAM
	}
	s.gs2, s.clientBare = flag+",,", bare
	return nil
}

// printable is RFC 5802's nonce: printable ASCII but the comma.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e || r == ',' })
}

var errProof = errors.New("the secret was not proved")

// final takes client-final-message and returns server-final-message. Every
// reason why the proof does not hold is the same error.
func (s *scramServer) final(message []byte) ([]byte, error) {
	text := string(message)
	at := strings.LastIndex(text, ",p=")
	if at < 0 {
		return nil, errSCRAM
	}
	withoutProof := text[:at]
	proof, err := base64.StdEncoding.DecodeString(text[at+3:])
	if err != nil || len(proof) != sha256.Size {
		return nil, errSCRAM
	}
	binding, nonce, ok := strings.Cut(withoutProof, ",")
	if !ok || !strings.HasPrefix(binding, "c=") || !strings.HasPrefix(nonce, "r=") {
		return nil, errSCRAM
	}
	got, err := base64.StdEncoding.DecodeString(binding[2:])
	if err != nil {
		return nil, errSCRAM
	}
	want := []byte(s.gs2)
	if s.plus {
		want = append(want, s.binding...)
	}
	authMessage := []byte(s.clientBare + "," + s.serverFirst + "," + withoutProof)
	clientKey := hmacSHA256(s.verifier.storedKey, authMessage)
	subtle.XORBytes(clientKey, clientKey, proof)
	stored := sha256.Sum256(clientKey)
	if subtle.ConstantTimeCompare(stored[:], s.verifier.storedKey) != 1 || !bytes.Equal(got, want) || nonce[2:] != s.nonce || s.mock {
		return nil, errProof
	}
	signature := hmacSHA256(s.verifier.serverKey, authMessage)
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), nil
}

func hmacSHA256(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

// endPoint is the tls-server-end-point binding of a certificate (DER): its
// hash by the hash of its signature, SHA-256 for weaker ones. nil if its
// algorithm has none (Ed25519): -PLUS is then not offered.
func endPoint(der []byte) []byte {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	var h hash.Hash
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.SHA256WithRSA, x509.ECDSAWithSHA256, x509.SHA256WithRSAPSS:
		h = sha256.New()
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h = sha512.New384()
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h = sha512.New()
	default:
		return nil
	}
	h.Write(der)
	return h.Sum(nil)
}
