package api

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestSSHSignaturesOfOpenSSH: what ssh-keygen signs is taken, for the message,
// the namespace and the key that it was made with.
func TestSSHSignaturesOfOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("OpenSSH is not installed")
	}
	dir := t.TempDir()
	for kind, bits := range map[string]string{"ed25519": "256", "ecdsa": "384", "rsa": "2048"} {
		t.Run(kind, func(t *testing.T) {
			file := filepath.Join(dir, kind)
			if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", file).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			sign := func(namespace string) []byte {
				cmd := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", file)
				cmd.Stdin = strings.NewReader("the answer")
				armored, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				blob, err := ParseSSHSignature(armored)
				if err != nil {
					t.Fatal(err)
				}
				return blob
			}
			blob := sign(ApprovalNamespace)
			key, err := VerifySSH(blob, []byte("the answer"))
			if err != nil {
				t.Fatal(err)
			}
			line, err := os.ReadFile(file + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			if want, _, _, _, err := ssh.ParseAuthorizedKey(line); err != nil || !bytes.Equal(want.Marshal(), key.Marshal()) {
				t.Errorf("it was not made by %s: %v", line, err)
			}
			if _, err := VerifySSH(blob, []byte("another answer")); err == nil {
				t.Error("a signature of another message is taken")
			}
			if _, err := VerifySSH(sign("file"), []byte("the answer")); err == nil || !strings.Contains(err.Error(), `"file"`) {
				t.Errorf("a signature for another purpose: %v", err)
			}
			for i := range blob {
				bad := bytes.Clone(blob)
				bad[i] ^= 1
				if k, err := VerifySSH(bad, []byte("the answer")); err == nil && bytes.Equal(k.Marshal(), key.Marshal()) && !bytes.Equal(bad, blob) {
					t.Errorf("byte %d of the signature is free", i)
				}
			}
		})
	}
}

func FuzzSSHSignature(f *testing.F) {
	f.Add([]byte("SSHSIG\x00\x00\x00\x01"))
	f.Add([]byte("SSHSIG\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x10approval@hoopctl\x00\x00\x00\x00\x00\x00\x00\x06sha256\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, blob []byte) {
		if _, err := VerifySSH(blob, []byte("an answer that nobody signed")); err == nil {
			t.Error("taken")
		}
	})
}
