package api

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// ApprovalNamespace is the namespace of approvers' SSH signatures: what
// `ssh-keygen -Y sign -n` is given.
const ApprovalNamespace = "approval@hoopctl"

// AttrSSHSignature is, in Event.Attrs of an EventApproval, an approver's SSH
// signature over the same bytes as Signature: the base64 of an SSHSIG blob.
const AttrSSHSignature = "sshSignature"

// maxSSHSignature bounds a signature's blob in bytes; those of security keys
// and RSA keys fit.
const maxSSHSignature = 4 << 10

const sshMagic = "SSHSIG"

// SignedBytes are what an answer's signatures are over, once it is signed: an
// approver's own key may sign them too.
func (a *Answer) SignedBytes(request string) []byte { return a.bytes(request, a.Salt) }

// ParseSSHSignature reads an SSHSIG (https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig),
// armored as ssh-keygen writes it, and returns its blob.
func ParseSSHSignature(armored []byte) ([]byte, error) {
	block, rest := pem.Decode(armored)
	if block == nil || block.Type != "SSH SIGNATURE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not an SSH signature")
	}
	if len(block.Bytes) > maxSSHSignature {
		return nil, fmt.Errorf("an SSH signature of %d bytes; at most %d are taken", len(block.Bytes), maxSSHSignature)
	}
	return block.Bytes, nil
}

// VerifySSH checks an SSHSIG blob over a message in [ApprovalNamespace], and
// returns the key that made it: ssh-ed25519, a security key (sk-), ECDSA or RSA.
// Whose key that is, is not its business. A security key must have been touched.
func VerifySSH(blob, message []byte) (ssh.PublicKey, error) {
	if len(blob) > maxSSHSignature {
		return nil, fmt.Errorf("an SSH signature of %d bytes; at most %d are taken", len(blob), maxSSHSignature)
	}
	rest, ok := bytes.CutPrefix(blob, []byte(sshMagic))
	var s struct {
		Version                                   uint32
		PublicKey, Namespace, Reserved, Hash, Sig string
	}
	if !ok || ssh.Unmarshal(rest, &s) != nil || s.Version != 1 {
		return nil, errors.New("not an SSH signature")
	}
	if s.Namespace != ApprovalNamespace {
		return nil, fmt.Errorf("the SSH signature was made for %q, not for %q", s.Namespace, ApprovalNamespace)
	}
	key, err := ssh.ParsePublicKey([]byte(s.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("the SSH signature's key: %w", err)
	}
	sig := new(ssh.Signature)
	if err := ssh.Unmarshal([]byte(s.Sig), sig); err != nil {
		return nil, fmt.Errorf("the SSH signature: %w", err)
	}
	if err := sshStrong(key, sig); err != nil {
		return nil, err
	}
	var sum []byte
	switch s.Hash {
	case "sha256":
		h := sha256.Sum256(message)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(message)
		sum = h[:]
	default:
		return nil, fmt.Errorf("the SSH signature is over a hash of kind %q", s.Hash)
	}
	signed := append([]byte(sshMagic), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{s.Namespace, s.Reserved, s.Hash, string(sum)})...)
	if err := key.Verify(signed, sig); err != nil {
		return nil, errors.New("the SSH signature does not belong to this answer and key")
	}
	return key, nil
}

// sshStrong refuses what an approval must not rest on: SHA-1, and a security key
// that signs without anybody's touch.
func sshStrong(key ssh.PublicKey, sig *ssh.Signature) error {
	const present = 1 // the flag of user presence
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		if len(sig.Rest) < 1 || sig.Rest[0]&present == 0 {
			return errors.New("the security key signed without being touched")
		}
		return nil
	case ssh.KeyAlgoRSA:
		if sig.Format == ssh.KeyAlgoRSASHA256 || sig.Format == ssh.KeyAlgoRSASHA512 {
			return nil
		}
	}
	return fmt.Errorf("an SSH signature of kind %s by a key of kind %s is not taken", sig.Format, key.Type())
}

// VerifyApprovalSSH checks the SSH signature of an EventApproval; nil, nil if it
// has none.
func VerifyApprovalSSH(e *Event) (ssh.PublicKey, error) {
	text := e.Attrs[AttrSSHSignature]
	if text == "" {
		return nil, nil
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("approval of %s: SSH signature: %w", e.Request, err)
	}
	key, err := VerifySSH(blob, signedBytes(e))
	if err != nil {
		return nil, fmt.Errorf("approval of %s: %w", e.Request, err)
	}
	return key, nil
}
