package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The first line of what is hashed or signed here. A signature made for one
// purpose never verifies for another.
const (
	answerDomain  = "hoopctl approval v1\n"
	requestDomain = "hoopctl request v1\n"
)

// AnswerSaltSize is the size of Answer.Salt in bytes.
const AnswerSaltSize = 32

// RequestDigest is what an answer is bound to: "sha256:" and 64 hex digits over
// everything of the question that people are shown, and over Binding. Digest,
// Session and Facts do not enter: an approval may be used by a later session
// of the same principal, and facts follow from the statement and the binding.
//
// An approver's client computes it from the question on the screen and refuses
// to sign when it differs from Digest.
func RequestDigest(s RequestSpec) string {
	b := make([]byte, 0, 512+len(s.Statement))
	b = append(b, requestDomain...)
	b = appendField(b, "salt", s.Salt)
	b = appendField(b, "kind", s.Kind)
	b = appendField(b, "principal", s.Principal)
	b = appendField(b, "name", s.Name)
	b = appendList(b, "chain", s.Chain)
	b = appendField(b, "target", s.Target)
	b = appendField(b, "source", s.Source)
	b = appendField(b, "grant", s.Grant)
	b = appendField(b, "action", s.Action)
	b = appendField(b, "statement", s.Statement)
	b = appendList(b, "params", s.Params)
	b = appendField(b, "binding", s.Binding)
	b = appendField(b, "reason", s.Reason)
	b = appendField(b, "purpose", s.Purpose)
	b = appendField(b, "ticket", s.Ticket)
	b = appendField(b, "for", time.Duration(s.For).String())
	b = appendField(b, "cures", strconv.Itoa(len(s.Cures)))
	for _, c := range s.Cures {
		b = appendField(b, "rule", c.Rule)
		b = appendField(b, "group", c.Group)
		b = appendField(b, "quorum", strconv.Itoa(c.Quorum))
		b = appendField(b, "why", c.Reason)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// AnswerBytes is what an approver signs: the request's name and digest, yes or
// no, the commitment to the reason, and the rules answered (none: every rule
// that the approver may answer). Fields carry their lengths, so that no reason
// or name can pass for another field; the order of rules and repetitions do
// not matter. The reason itself is not in it: whoever holds a leaf of the
// evidence can check the signature without reading what a person wrote.
func AnswerBytes(request, digest string, approve bool, commitment string, rules []string) []byte {
	word := "deny"
	if approve {
		word = "approve"
	}
	b := make([]byte, 0, 256)
	b = append(b, answerDomain...)
	b = appendField(b, "request", request)
	b = appendField(b, "digest", digest)
	b = appendField(b, "answer", word)
	b = appendField(b, "reason", commitment)
	return appendList(b, "rules", canonical(rules))
}

// ReasonCommitment is SHA-256(salt ‖ reason) in hex. The salt keeps a short
// reason from being guessed out of the evidence.
func ReasonCommitment(salt []byte, reason string) string {
	h := sha256.New()
	h.Write(salt)
	io.WriteString(h, reason) // a hash never fails
	return hex.EncodeToString(h.Sum(nil))
}

// Sign fills Salt and Signature of an answer to the request with the login's
// key, an ECDSA P-256 key. The other fields must be final.
func (a *Answer) Sign(request string, key crypto.Signer) error {
	if _, err := p256(key.Public()); err != nil {
		return fmt.Errorf("sign the answer to %s: %w", request, err)
	}
	salt := make([]byte, AnswerSaltSize)
	if _, err := rand.Read(salt); err != nil {
		return fmt.Errorf("sign the answer to %s: %w", request, err)
	}
	sum := sha256.Sum256(a.bytes(request, salt))
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign the answer to %s: %w", request, err)
	}
	a.Salt, a.Signature = salt, sig
	return nil
}

// Verify checks that the answer was signed for this request by pub, an ECDSA
// P-256 key. Nil means it was.
func (a *Answer) Verify(request string, pub crypto.PublicKey) error {
	if len(a.Salt) != AnswerSaltSize {
		return fmt.Errorf("the answer's salt has %d bytes, want %d", len(a.Salt), AnswerSaltSize)
	}
	return verify(pub, a.bytes(request, a.Salt), a.Signature)
}

func (a *Answer) bytes(request string, salt []byte) []byte {
	return AnswerBytes(request, a.Digest, a.Approve, ReasonCommitment(salt, a.Reason), a.Cures)
}

// Keys of Event.Attrs that an EventApproval carries.
const (
	// AttrAllRules is "true" if the approver signed for "every rule that I may
	// answer" instead of naming rules.
	AttrAllRules = "allRules"
)

// VerifyApproval checks an EventApproval against itself: that Signature is by
// the key in Certificate, over Request, Digest, Verdict (allow is yes),
// Commitment and Rules. It returns that certificate. Whether the certificate
// is an approver's is not its business.
func VerifyApproval(e *Event) (*x509.Certificate, error) {
	if e.Verdict != "allow" && e.Verdict != "deny" {
		return nil, fmt.Errorf("approval of %s: verdict %q is neither allow nor deny", e.Request, e.Verdict)
	}
	block, rest := pem.Decode([]byte(e.Certificate))
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 && strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("approval of %s: want one PEM certificate", e.Request)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("approval of %s: %w", e.Request, err)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signature)
	if err != nil {
		return nil, fmt.Errorf("approval of %s: signature: %w", e.Request, err)
	}
	if err := verify(cert.PublicKey, signedBytes(e), sig); err != nil {
		return nil, fmt.Errorf("approval of %s: %w", e.Request, err)
	}
	return cert, nil
}

// signedBytes are what the signatures of an EventApproval are over.
func signedBytes(e *Event) []byte {
	rules := e.Rules
	if e.Attrs[AttrAllRules] == "true" {
		rules = nil
	}
	return AnswerBytes(e.Request, e.Digest, e.Verdict == "allow", e.Commitment, rules)
}

func verify(pub crypto.PublicKey, signed, sig []byte) error {
	key, err := p256(pub)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(signed)
	if !ecdsa.VerifyASN1(key, sum[:], sig) {
		return errors.New("the signature does not belong to this answer and key")
	}
	return nil
}

func p256(pub crypto.PublicKey) (*ecdsa.PublicKey, error) {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key == nil || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("answers are signed with ECDSA P-256 keys, not %T", pub)
	}
	return key, nil
}

func canonical(rules []string) []string {
	s := slices.Clone(rules)
	slices.Sort(s)
	return slices.Compact(s)
}

// appendField appends "name length\nvalue\n": unambiguous whatever value holds.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(value)), 10)
	b = append(b, '\n')
	b = append(b, value...)
	return append(b, '\n')
}

func appendList(b []byte, name string, values []string) []byte {
	b = appendField(b, name, strconv.Itoa(len(values)))
	for _, v := range values {
		b = appendField(b, "-", v)
	}
	return b
}
