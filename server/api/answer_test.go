package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The bytes are a contract with every client and verifier: they do not change.
func TestAnswerBytesAreFixed(t *testing.T) {
	got := string(AnswerBytes("r-12", "sha256:ab", true, "c0ffee", []string{"no-where", "bulk", "no-where"}))
	want := "hoopctl approval v1\nrequest 4\nr-12\ndigest 9\nsha256:ab\nanswer 7\napprove\nreason 6\nc0ffee\nrules 1\n2\n- 4\nbulk\n- 8\nno-where\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	const digest = "sha256:81016fe72b5a409cf9af51c6476a72eb944f90deecb6110899dd71ee7c9f11f5"
	if d := RequestDigest(RequestSpec{Kind: "grant", Principal: "dev:alice", Target: "clinic"}); d != digest {
		t.Errorf("digest %q", d)
	}
}

func TestAnswerIsBoundToAllThatItSays(t *testing.T) {
	key := newKey(t)
	a := Answer{Approve: true, Reason: "night shift", Cures: []string{"no-where"}, Digest: "sha256:ab"}
	if err := a.Sign("r-1", key); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify("r-1", &key.PublicKey); err != nil {
		t.Fatalf("the answer as it was signed: %v", err)
	}
	tampered := map[string]func(*Answer) string{
		"another request": func(*Answer) string { return "r-2" },
		"yes for no":      func(a *Answer) string { a.Approve = false; return "r-1" },
		"another reason":  func(a *Answer) string { a.Reason = "day shift"; return "r-1" },
		"another salt":    func(a *Answer) string { a.Salt = make([]byte, AnswerSaltSize); return "r-1" },
		"no salt":         func(a *Answer) string { a.Salt = nil; return "r-1" },
		"another digest":  func(a *Answer) string { a.Digest = "sha256:ac"; return "r-1" },
		"more rules":      func(a *Answer) string { a.Cures = []string{"bulk", "no-where"}; return "r-1" },
		"every rule":      func(a *Answer) string { a.Cures = nil; return "r-1" },
		"no signature":    func(a *Answer) string { a.Signature = nil; return "r-1" },
	}
	for name, change := range tampered {
		b := a
		if err := b.Verify(change(&b), &key.PublicKey); err == nil {
			t.Errorf("%s: it verifies", name)
		}
	}
	if err := a.Verify("r-1", &newKey(t).PublicKey); err == nil {
		t.Error("it verifies by another key")
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if a.Sign("r-1", rsaKey) == nil || a.Sign("r-1", p384) == nil || a.Verify("r-1", nil) == nil || a.Verify("r-1", (*ecdsa.PublicKey)(nil)) == nil {
		t.Error("keys other than ECDSA P-256 are taken")
	}
}

// Every field of a question changes its digest, but those that are named here
// with their reason.
func TestRequestDigestCoversEveryField(t *testing.T) {
	free := map[string]string{
		"Digest":  "it is the digest",
		"Session": "an approval may be used by a later session",
		"Facts":   "they follow from statement and binding",
	}
	base := RequestSpec{Cures: []Cure{{Rule: "a", Group: "b", Quorum: 1}}}
	typ := reflect.TypeFor[RequestSpec]()
	for i := range typ.NumField() {
		changed := base
		switch f := reflect.ValueOf(&changed).Elem().Field(i); f.Interface().(type) {
		case string:
			f.SetString("x")
		case []string:
			f.Set(reflect.ValueOf([]string{"x"}))
		case Duration:
			f.SetInt(int64(time.Hour))
		case []Cure:
			f.Set(reflect.ValueOf([]Cure{{Rule: "a", Group: "b", Quorum: 2}}))
		}
		name := typ.Field(i).Name
		if _, ok := free[name]; ok {
			continue
		}
		if RequestDigest(changed) == RequestDigest(base) {
			t.Errorf("%s may change under an approval", name)
		}
	}
}

func TestRequestDigestIsNotAmbiguous(t *testing.T) {
	seen := map[string]string{}
	for name, s := range map[string]RequestSpec{
		"one parameter with a newline": {Params: []string{"a\n- 1\nb"}},
		"two parameters":               {Params: []string{"a", "b"}},
		"joined":                       {Params: []string{"ab"}},
		"in the statement":             {Statement: "a\nparams 1\n1\n- 1\nb"},
		"shifted":                      {Statement: "a", Binding: "b"},
		"shifted back":                 {Statement: "ab"},
	} {
		d := RequestDigest(s)
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q have one digest", name, other)
		}
		seen[d] = name
	}
}

func certificate(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func approvalEvent(t testing.TB, key *ecdsa.PrivateKey, a Answer) *Event {
	verdict := "deny"
	if a.Approve {
		verdict = "allow"
	}
	e := &Event{Kind: EventApproval, Request: "r-1", Digest: a.Digest, Verdict: verdict, Rules: a.Cures, Commitment: ReasonCommitment(a.Salt, a.Reason),
		Signature: base64.StdEncoding.EncodeToString(a.Signature), Certificate: certificate(t, key)}
	if len(a.Cures) == 0 {
		e.Rules, e.Attrs = []string{"whatever", "it", "was"}, map[string]string{AttrAllRules: "true"}
	}
	return e
}

func TestVerifyApproval(t *testing.T) {
	key := newKey(t)
	for _, a := range []Answer{
		{Approve: true, Reason: "ok", Cures: []string{"no-where"}, Digest: "sha256:ab"},
		{Approve: false, Reason: "no", Digest: "sha256:ab"},
	} {
		if err := a.Sign("r-1", key); err != nil {
			t.Fatal(err)
		}
		e := approvalEvent(t, key, a)
		if _, err := VerifyApproval(e); err != nil {
			t.Errorf("%+v: %v", a, err)
		}
		flipped := *e
		if flipped.Verdict = "allow"; e.Verdict == "allow" {
			flipped.Verdict = "deny"
		}
		if _, err := VerifyApproval(&flipped); err == nil {
			t.Error("a flipped verdict verifies")
		}
		foreign := *e
		foreign.Certificate = certificate(t, newKey(t))
		if _, err := VerifyApproval(&foreign); err == nil {
			t.Error("it verifies under a certificate of another key")
		}
	}
}

// OpenSSL agrees with what we sign.
func TestSignatureVerifiesWithOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl on this machine")
	}
	key := newKey(t)
	a := Answer{Approve: true, Reason: "ok", Digest: "sha256:ab"}
	if err := a.Sign("r-1", key); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pub, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	for name, b := range map[string][]byte{
		"pub.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), "sig": a.Signature,
		"signed": AnswerBytes("r-1", a.Digest, true, ReasonCommitment(a.Salt, a.Reason), nil),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(openssl, "dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "signed")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v", out, err)
	}
}

// No two different answers have the same bytes, and the bytes say the answer back.
func FuzzAnswerBytes(f *testing.F) {
	f.Add("r-1", "sha256:ab", true, "c", "a", "b", "r-1", "sha256:ab", true, "c", "a", "b")
	f.Add("r-1\ndigest 1\nx", "", true, "", "", "", "r-1", "x", true, "", "", "")
	f.Add("", "", false, "", "a\n- 1\nb", "", "", "", false, "", "a", "b")
	f.Fuzz(func(t *testing.T, n1, d1 string, y1 bool, c1, a1, b1, n2, d2 string, y2 bool, c2, a2, b2 string) {
		r1, r2 := canonical([]string{a1, b1}), canonical([]string{a2, b2})
		same := n1 == n2 && d1 == d2 && y1 == y2 && c1 == c2 && reflect.DeepEqual(r1, r2)
		x, y := AnswerBytes(n1, d1, y1, c1, []string{a1, b1}), AnswerBytes(n2, d2, y2, c2, []string{b2, a2})
		if (string(x) == string(y)) != same {
			t.Errorf("same answer: %v, same bytes: %v\n%q\n%q", same, !same, x, y)
		}
	})
}

func FuzzVerifyApproval(f *testing.F) {
	key := newKey(f)
	a := Answer{Approve: true, Reason: "ok", Digest: "sha256:ab"}
	if err := a.Sign("r-1", key); err != nil {
		f.Fatal(err)
	}
	e := approvalEvent(f, key, a)
	f.Add(e.Certificate, e.Signature, "allow", "r-1")
	f.Add(strings.Repeat(e.Certificate, 2), e.Signature, "allow", "r-1")
	f.Add("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "", "deny", "")
	want := sha256.Sum256([]byte(e.Signature + e.Certificate))
	f.Fuzz(func(t *testing.T, cert, sig, verdict, request string) {
		got := *e
		got.Certificate, got.Signature, got.Verdict, got.Request = cert, sig, verdict, request
		_, err := VerifyApproval(&got)
		if err == nil && (verdict != "allow" || request != "r-1") {
			t.Errorf("verdict %q of request %q verifies", verdict, request)
		}
		if err != nil && sha256.Sum256([]byte(sig+cert)) == want && verdict == "allow" && request == "r-1" {
			t.Errorf("the true one does not verify: %v", err)
		}
	})
}
