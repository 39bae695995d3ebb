package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	caLifetime    = 10 * 365 * 24 * time.Hour
	leafLifetime  = 90 * 24 * time.Hour
	leafRenewal   = 30 * 24 * time.Hour // before the leaf's end
	clockSkew     = 5 * time.Minute     // certificates begin that much earlier
	fileRecheck   = time.Minute         // of CertFile
	serverCAName  = "server-ca"
	clientCAName  = "client-ca"
	pemKey        = "PRIVATE KEY"
	pemCert       = "CERTIFICATE"
	maxClientLife = 15 * time.Minute
)

// CAConfig says where the authorities' keys lie and for which names the server
// answers.
type CAConfig struct {
	// Dir holds server-ca.key, server-ca.crt, client-ca.key and client-ca.crt,
	// all 0600, made at the first start. Whoever reads it can be anyone.
	Dir string
	// Name of this server, in the authorities' common names: for people only.
	Name string
	// Names are the DNS names and addresses of the server's own certificate,
	// besides localhost, 127.0.0.1 and ::1.
	Names []string
	// CertFile and KeyFile, if set, are served instead of our own certificate.
	// They are read again when they change.
	CertFile, KeyFile string
	Now               func() time.Time // nil: time.Now
}

// CA is two authorities with separate keys, so that a leak of one does not
// forge the other: one signs the server's own certificate, the other the
// certificates of logins. Safe for concurrent use.
type CA struct {
	config CAConfig
	server authority
	client authority
	roots  *x509.CertPool // of client certificates

	mu      sync.Mutex
	leaf    *tls.Certificate
	checked time.Time // when CertFile was last looked at
	changed time.Time // its modification time then
}

// authority is a key that signs, and its own certificate.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// OpenCA loads the authorities of a folder, and makes what is missing. It
// refuses keys that others can read, and a certificate whose key is gone.
func OpenCA(config CAConfig) (*CA, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the keys' folder: %w", err)
	}
	c := &CA{config: config, roots: x509.NewCertPool()}
	var err error
	if c.server, err = c.open(serverCAName, "server CA"); err != nil {
		return nil, err
	}
	if c.client, err = c.open(clientCAName, "client CA"); err != nil {
		return nil, err
	}
	c.roots.AddCert(c.client.cert)
	if _, err := c.certificate(nil); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *CA) open(name, kind string) (authority, error) {
	a, err := c.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		a, err = c.create(name, kind)
	}
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", kind, err)
	}
	if now := c.config.Now(); now.After(a.cert.NotAfter) {
		return authority{}, fmt.Errorf("%s: it expired at %s: move %s.* away and restart; every client must log in anew",
			kind, a.cert.NotAfter.Format(time.DateOnly), filepath.Join(c.config.Dir, name))
	}
	return a, nil
}

// load reads an authority; fs.ErrNotExist if neither of its files is there.
func (c *CA) load(name string) (authority, error) {
	base := filepath.Join(c.config.Dir, name)
	certPEM, certErr := os.ReadFile(base + ".crt")
	keyPEM, keyErr := readKeyFile(base + ".key")
	switch {
	case keyErr == nil && errors.Is(certErr, fs.ErrNotExist):
		// The first start ended between the two files: no certificate of this key is out.
		return authority{}, fs.ErrNotExist
	case errors.Is(keyErr, fs.ErrNotExist) && errors.Is(certErr, fs.ErrNotExist):
		return authority{}, fs.ErrNotExist
	case errors.Is(keyErr, fs.ErrNotExist):
		return authority{}, fmt.Errorf("%s.key is missing beside %s.crt: restore it, or move the certificate away to begin anew", base, base)
	case keyErr != nil:
		return authority{}, keyErr
	case certErr != nil:
		return authority{}, certErr
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", base, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return authority{}, fmt.Errorf("%s is not an authority of ours", base)
	}
	return authority{pair.Leaf, key}, nil
}

func (c *CA) create(name, kind string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	common := "hoopctl " + kind
	if c.config.Name != "" {
		common += " of " + c.config.Name
	}
	now := c.config.Now()
	cert, err := sign(&x509.Certificate{
		Subject:   pkix.Name{CommonName: common},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}, &key.PublicKey, authority{key: key})
	if err != nil {
		return authority{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return authority{}, err
	}
	base := filepath.Join(c.config.Dir, name)
	if err := writeFile(base+".key", encodePEM(pemKey, der)); err != nil {
		return authority{}, err
	}
	return authority{cert, key}, writeFile(base+".crt", encodePEM(pemCert, cert.Raw))
}

// sign makes a certificate for pub; by without a certificate signs itself.
func sign(template *x509.Certificate, pub *ecdsa.PublicKey, by authority) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	parent := by.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Login signs a client certificate: pub's, for the login that uri names, until
// then (15 minutes at most). It returns the PEM chain, leaf first.
func (c *CA) login(pub *ecdsa.PublicKey, uri *url.URL, name string, until time.Time) ([]byte, *x509.Certificate, error) {
	now := c.config.Now()
	if until.After(now.Add(maxClientLife)) {
		until = now.Add(maxClientLife)
	}
	cert, err := sign(&x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-clockSkew), NotAfter: until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{uri}, BasicConstraintsValid: true,
	}, pub, c.client)
	if err != nil {
		return nil, nil, fmt.Errorf("sign the login's certificate: %w", err)
	}
	return append(encodePEM(pemCert, cert.Raw), encodePEM(pemCert, c.client.cert.Raw)...), cert, nil
}

// verify checks that a certificate was signed by the client authority itself,
// for client authentication, and is valid now. There are no intermediates: a
// login's certificate, or the server's, is no authority.
func (c *CA) verify(cert *x509.Certificate, now time.Time) error {
	if cert.IsCA {
		return errors.New("an authority's certificate is no login's")
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: c.roots, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// TLSConfig is the server's side of TLS 1.3: its certificate, renewed in
// memory, and a wish for a client's. The handshake proves that a client has
// its certificate's key; whether the certificate is anything is for
// [Room.Principal] to say, so that a client with an expired one is told in
// words. The caller sets NextProtos.
func (c *CA) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: c.certificate,
		ClientAuth:     tls.RequestClientCert,
		ClientCAs:      c.roots,
		// A ticket would stand in for the client's key until it expires.
		SessionTicketsDisabled: true,
	}
}

// Certificate is the server's own certificate as it is now, with its chain.
func (c *CA) Certificate() (*tls.Certificate, error) { return c.certificate(nil) }

// certificate is tls.Config.GetCertificate.
func (c *CA) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.config.CertFile != "" {
		return c.fromFiles()
	}
	now := c.config.Now()
	if c.leaf != nil && now.Before(c.leaf.Leaf.NotAfter.Add(-leafRenewal)) {
		return c.leaf, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the server's key: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "hoopctl server"},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	template.DNSNames, template.IPAddresses = splitNames(c.config.Names)
	cert, err := sign(template, &key.PublicKey, c.server)
	if err != nil {
		return nil, fmt.Errorf("sign the server's certificate: %w", err)
	}
	c.leaf = &tls.Certificate{Certificate: [][]byte{cert.Raw, c.server.cert.Raw}, PrivateKey: key, Leaf: cert}
	return c.leaf, nil
}

// fromFiles serves the operator's own certificate. One that cannot be read
// while an older one is still good does not stop the server.
func (c *CA) fromFiles() (*tls.Certificate, error) {
	now := c.config.Now()
	if c.leaf != nil && now.Sub(c.checked) < fileRecheck {
		return c.leaf, nil
	}
	info, err := os.Stat(c.config.CertFile)
	if err == nil && (c.leaf == nil || !info.ModTime().Equal(c.changed)) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.config.CertFile, c.config.KeyFile); err == nil {
			c.leaf, c.changed = &pair, info.ModTime()
		}
	}
	c.checked = now
	if c.leaf == nil {
		return nil, fmt.Errorf("tls.certFile: %w", err)
	}
	return c.leaf, nil
}

func splitNames(names []string) (dns []string, ips []net.IP) {
	seen := map[string]bool{}
	for _, n := range append([]string{"localhost", "127.0.0.1", "::1"}, names...) {
		if n == "" || seen[n] {
			continue
		}
		seen[n] = true
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, n)
		}
	}
	return dns, ips
}

// Fingerprint is what clients pin: "sha256:" and the hex digest of the DER of
// the last certificate that the server sends. For the operator's own
// certificate without its CA in the file it is "": there is nothing to pin.
func (c *CA) Fingerprint() string {
	cert := c.root()
	if cert == nil {
		return ""
	}
	return fingerprint(cert)
}

// PEM is the certificate that clients pin, nil if there is none.
func (c *CA) PEM() []byte {
	cert := c.root()
	if cert == nil {
		return nil
	}
	return encodePEM(pemCert, cert.Raw)
}

func (c *CA) root() *x509.Certificate {
	leaf, err := c.certificate(nil)
	if err != nil {
		return nil
	}
	cert, err := x509.ParseCertificate(leaf.Certificate[len(leaf.Certificate)-1])
	if err != nil || !cert.IsCA {
		return nil
	}
	return cert
}

// ClientPEM is the certificate of the authority that signs logins: what the
// evidence's verifier needs to check approvers' certificates.
func (c *CA) ClientPEM() []byte { return encodePEM(pemCert, c.client.cert.Raw) }

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeFile writes a new 0600 file so that a crash leaves it whole or away.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
