package client

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/hoopctl/hoopctl/server/api"
)

// UnknownCAError says that nothing here vouches for the server's certificate.
// Fingerprint is of the CA that it showed: someone who can compare it with what
// the server printed at its start may pin it (LoginOptions.CAFingerprint). It
// must never be accepted without asking a person.
type UnknownCAError struct {
	Server      string
	Fingerprint string // sha256:hex
	Err         error
}

func (e *UnknownCAError) Error() string {
	return fmt.Sprintf("the certificate of %s is signed by a CA that nothing here knows (%s)", e.Server, e.Fingerprint)
}

func (e *UnknownCAError) Unwrap() []error {
	return []error{&api.Error{Code: http.StatusServiceUnavailable, Reason: api.ReasonUnavailable, Source: source, Message: e.Error(),
		Hint: "compare it with what the server printed at its start, then: hoopctl login https://" + e.Server + " --ca-fingerprint " + e.Fingerprint}, e.Err}
}

// CAChangedError says that the server's certificate is not signed by the CA
// that this login remembers, or is not for the server's name: somebody may be
// in between, or the server was set up anew. Nothing is sent to it.
type CAChangedError struct {
	Server string
	Want   string // fingerprint that was pinned or remembered
	Got    string // fingerprint of the CA that was shown, "" if it is the right one
	Err    error
}

func (e *CAChangedError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("the certificate of %s is not valid: %v", e.Server, e.Err)
	}
	return fmt.Sprintf("%s shows a CA with the fingerprint %s, but %s is the one to trust: somebody may be in between", e.Server, e.Got, e.Want)
}

func (e *CAChangedError) Unwrap() []error {
	return []error{&api.Error{Code: http.StatusServiceUnavailable, Reason: api.ReasonUnavailable, Source: source, Message: e.Error(),
		Hint: "if the server was set up anew, ask its operator for the fingerprint and log in with --ca-fingerprint"}, e.Err}
}

// Fingerprint is how a CA is named: "sha256:" and the hex of its DER's digest.
func Fingerprint(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ParseFingerprint returns a fingerprint in the form of Fingerprint. It accepts colons and capitals, as other tools print them.
func ParseFingerprint(s string) (string, error) {
	digits, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(s)), "sha256:")
	b, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if !ok || err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("CA fingerprint %q: want sha256: and 64 hex digits", s)
	}
	return "sha256:" + hex.EncodeToString(b), nil
}

// pinned trusts one CA by its fingerprint: the server sends it behind its leaf,
// and the leaf must verify to it, for the name that was asked for. The CA that
// passed is given to learned.
func pinned(server, host, pin string, learned func(*x509.Certificate)) *tls.Config {
	config := baseTLS(host)
	// Verification is whole, only done here: there are no roots before the pin is matched.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		ca := state.PeerCertificates[len(state.PeerCertificates)-1]
		if got := Fingerprint(ca); got != pin {
			return &CAChangedError{Server: server, Want: pin, Got: got, Err: errors.New("CA fingerprint differs")}
		}
		if err := verify(state.PeerCertificates, ca, host); err != nil {
			return &CAChangedError{Server: server, Want: pin, Err: err}
		}
		learned(ca)
		return nil
	}
	return config
}

func verify(chain []*x509.Certificate, root *x509.Certificate, host string) error {
	if !root.IsCA {
		return errors.New("the pinned certificate is no CA")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: host, Roots: roots, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// baseTLS is TLS 1.3 to host without anything that would carry state from one
// connection to the next.
func baseTLS(host string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: host}
}

// rooted trusts the CAs of a PEM text; "" is the system's.
func rooted(host, ca string) (*tls.Config, error) {
	config := baseTLS(host)
	if ca == "" {
		return config, nil
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM([]byte(ca)) {
		return nil, errors.New("no certificate in the PEM text of the server's CA")
	}
	return config, nil
}

func readCAFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the CA: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return "", fmt.Errorf("%s holds no PEM certificate", path)
	}
	return string(b), nil
}

func encodeCertificate(c *x509.Certificate) string {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a bytes.Buffer does not fail
	return b.String()
}

// distrust explains an error that is about the server's certificate, nil if it
// is about something else.
func (c *Client) distrust(err error) error {
	var changed *CAChangedError
	if errors.As(err, &changed) {
		return changed
	}
	var invalid *tls.CertificateVerificationError
	if !errors.As(err, &invalid) || len(invalid.UnverifiedCertificates) == 0 {
		return nil
	}
	shown := Fingerprint(invalid.UnverifiedCertificates[len(invalid.UnverifiedCertificates)-1])
	var unknown x509.UnknownAuthorityError
	isUnknown := errors.As(err, &unknown)
	known := c.remembered()
	switch {
	case known != "" && isUnknown:
		return &CAChangedError{Server: c.addr, Want: known, Got: shown, Err: err}
	case isUnknown:
		return &UnknownCAError{Server: c.addr, Fingerprint: shown, Err: err}
	default:
		return &CAChangedError{Server: c.addr, Want: known, Err: invalid.Err}
	}
}

// remembered is the fingerprint of the CA that this server's login or CAFile
// names, "" if neither does.
func (c *Client) remembered() string {
	text := ""
	if l, err := c.store.load(); err == nil && l != nil {
		text = l.CA
	} else if c.caFile != "" {
		text, _ = readCAFile(c.caFile) // unreadable: it was said when it was used
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return ""
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return Fingerprint(ca)
}
