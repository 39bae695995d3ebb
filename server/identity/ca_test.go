package identity

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func openCA(t *testing.T, config CAConfig) *CA {
	t.Helper()
	ca, err := OpenCA(config)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestAuthoritiesOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	ca := openCA(t, CAConfig{Dir: dir, Name: "prod"})
	for _, name := range []string{"server-ca.key", "server-ca.crt", "client-ca.key", "client-ca.crt"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", name, info.Mode().Perm())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if ca.server.key.Equal(ca.client.key) {
		t.Error("one key for both authorities")
	}
	for _, a := range []authority{ca.server, ca.client} {
		if !a.cert.MaxPathLenZero || a.cert.MaxPathLen != 0 || !a.cert.IsCA {
			t.Errorf("%s may sign authorities", a.cert.Subject)
		}
	}
	again := openCA(t, CAConfig{Dir: dir})
	if again.Fingerprint() != ca.Fingerprint() || !again.client.cert.Equal(ca.client.cert) {
		t.Error("a restart made new authorities")
	}
	if !strings.HasPrefix(ca.Fingerprint(), "sha256:") || len(ca.Fingerprint()) != 71 {
		t.Error(ca.Fingerprint())
	}
}

func TestAuthoritiesThatAreNotWhole(t *testing.T) {
	cases := map[string]struct {
		spoil func(dir string) error
		words string // "": it is mended
	}{
		"the first start ended between key and certificate": {func(d string) error { return os.Remove(filepath.Join(d, "server-ca.crt")) }, ""},
		"the key is gone": {func(d string) error { return os.Remove(filepath.Join(d, "client-ca.key")) }, "is missing"},
		"the key is another's": {func(d string) error {
			return os.Rename(filepath.Join(d, "client-ca.key"), filepath.Join(d, "server-ca.key"))
		}, ""},
		"the certificate is torn":                  {func(d string) error { return os.WriteFile(filepath.Join(d, "server-ca.crt"), []byte("x"), 0o600) }, "server-ca"},
		"others can read the key":                  {func(d string) error { return os.Chmod(filepath.Join(d, "server-ca.key"), 0o644) }, "can be read by others"},
		"the group can read the key":               {func(d string) error { return os.Chmod(filepath.Join(d, "client-ca.key"), 0o640) }, "can be read by others"},
		"a leaf of the operator's takes its place": {func(d string) error { return copyLeaf(d) }, "not an authority"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(name, "read") {
				t.Skip("mode bits say nothing on Windows")
			}
			dir := t.TempDir()
			openCA(t, CAConfig{Dir: dir})
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := OpenCA(CAConfig{Dir: dir})
			if name == "the key is another's" {
				if err == nil {
					t.Fatal("opened with a key that is not the certificate's")
				}
				return
			}
			if (c.words == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Fatalf("got %v, want %q", err, c.words)
			}
		})
	}
}

// copyLeaf puts a leaf with its key where the client authority belongs.
func copyLeaf(dir string) error {
	ca, err := OpenCA(CAConfig{Dir: dir})
	if err != nil {
		return err
	}
	leaf, err := ca.Certificate()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "client-ca.key"), encodePEM(pemKey, key), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "client-ca.crt"), encodePEM(pemCert, leaf.Certificate[0]), 0o600)
}

func TestServerCertificateRenewsInMemory(t *testing.T) {
	c := &clock{at: time.Now()}
	ca := openCA(t, CAConfig{Dir: t.TempDir(), Names: []string{"db.example", "10.1.2.3", "localhost"}, Now: c.now})
	first, err := ca.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "db.example", "10.1.2.3"} {
		if err := first.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if len(first.Certificate) != 2 || first.Leaf.VerifyHostname("evil.example") == nil {
		t.Error("chain or names are wrong")
	}
	c.move(59 * 24 * time.Hour)
	if same, _ := ca.Certificate(); same != first {
		t.Error("renewed too early")
	}
	c.move(2 * 24 * time.Hour)
	second, err := ca.Certificate()
	if err != nil || second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Fatalf("not renewed a month before its end: %v", err)
	}
	if ca.Fingerprint() != fingerprint(ca.server.cert) {
		t.Error("the pin changed with the leaf")
	}
}

func TestAnExpiredAuthorityIsSaid(t *testing.T) {
	dir := t.TempDir()
	openCA(t, CAConfig{Dir: dir})
	_, err := OpenCA(CAConfig{Dir: dir, Now: func() time.Time { return time.Now().Add(11 * 365 * 24 * time.Hour) }})
	if err == nil || !strings.Contains(err.Error(), "expired") {
		t.Fatal(err)
	}
}

func TestOperatorsCertificate(t *testing.T) {
	other := openCA(t, CAConfig{Dir: t.TempDir(), Names: []string{"hoop.example"}})
	dir := t.TempDir()
	write := func() {
		pair, err := other.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		chain := append(encodePEM(pemCert, pair.Certificate[0]), encodePEM(pemCert, pair.Certificate[1])...)
		if err := os.WriteFile(filepath.Join(dir, "tls.crt"), chain, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tls.key"), encodePEM(pemKey, key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	c := &clock{at: time.Now()}
	ca := openCA(t, CAConfig{Dir: t.TempDir(), CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Now: c.now})
	if ca.Fingerprint() != other.Fingerprint() {
		t.Error("clients are told to pin another CA than the one that is sent")
	}
	before, _ := ca.Certificate()
	other.leaf = nil // the operator renews
	write()
	if err := os.Chtimes(filepath.Join(dir, "tls.crt"), time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	c.move(2 * time.Minute)
	after, err := ca.Certificate()
	if err != nil || after.Leaf.Equal(before.Leaf) {
		t.Errorf("a renewed file is not served: %v", err)
	}
	os.Remove(filepath.Join(dir, "tls.crt"))
	c.move(2 * time.Minute)
	if still, err := ca.Certificate(); err != nil || !still.Leaf.Equal(after.Leaf) {
		t.Errorf("a file that is away stops the server: %v", err)
	}
	if _, err := OpenCA(CAConfig{Dir: t.TempDir(), CertFile: filepath.Join(dir, "none"), KeyFile: "none"}); err == nil {
		t.Error("opened without the operator's certificate")
	}
}

// TestT58_ACertificateNeedsItsKey shows that the TLS handshake itself asks for
// the key: whoever stole the certificate alone gets no connection.
func TestT58_ACertificateNeedsItsKey(t *testing.T) {
	h := newHouse(t)
	e, err := h.enroll(ecKey(t), h.fresh(nil))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.ca.PEM())
	stolen := tls.Certificate{Certificate: [][]byte{leaf(t, e).Raw}, PrivateKey: ecKey(t)}
	a, b := net.Pipe()
	server := tls.Server(a, h.ca.TLSConfig())
	client := tls.Client(b, &tls.Config{RootCAs: roots, ServerName: "localhost",
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stolen, nil }})
	go func() {
		client.Handshake()
		io.Copy(io.Discard, client)
	}()
	if err := server.Handshake(); err == nil {
		t.Fatal("the server took a certificate from somebody without its key")
	}
	a.Close()
}
