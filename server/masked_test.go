package server_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/hoopctl/hoopctl/server/api"
)

// What was masked is on record: which column, by which rule and why. No value
// is, neither those that the target held nor those that were guessed.
func TestT43_TheEvidenceHoldsNoRawValue(t *testing.T) {
	h := newHouse(t)
	f := h.connect(h.as("alice"), "alice")
	for _, sql := range []string{
		"SELECT id, ssn, mrn, notes FROM patients WHERE id < 20", "SELECT upper(ssn) FROM patients WHERE id = 7", "SELECT ssn::int FROM patients WHERE id = 7",
		"SELECT id FROM patients WHERE ssn = '107-08-1007'", "INSERT INTO patients (id, ssn) VALUES (7, '107-08-1007')", "SELECT id FROM patients WHERE ssn LIKE '107-08-1007%'",
		"SELECT 'SSN 107-08-1007'", "SELECT p FROM patients p WHERE id = 7",
	} {
		if out, _ := f.psql(t, sql); strings.Contains(out, "107-08-1007") || strings.Contains(out, "MRN00000007") {
			t.Errorf("%s shows\n%s", sql, out)
		}
	}
	dave := h.as("dave")
	awaitEvent(t, h, func(e api.Event) bool {
		return e.Kind == api.EventSessionClose && strings.Contains(fmt.Sprint(e.Masked), "ssn")
	})
	events, err := dave.Events(t.Context(), api.EventQuery{Principal: "alice", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	why := map[string]bool{}
	for _, e := range events {
		for _, m := range e.Masked {
			if m.Rule == "" || m.Method == "" {
				t.Errorf("masked without saying how: %+v", m)
			}
			why[m.Why] = true
		}
	}
	if !why["identity"] || !why["lineage"] || !why["scan"] {
		t.Errorf("reasons on record: %v", why)
	}
	scanFiles(t, h.config().Evidence.Dir, "107-08-1007", "MRN00000007", "512-47-8366")
}

// scanFiles looks for values in all files of a folder, as they are and as they
// are inside of zstd.
func scanFiles(t *testing.T, dir string, values ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, v := range values {
			if bytes.Contains(b, []byte(v)) || bytes.Contains(unpacked(b), []byte(v)) {
				t.Errorf("%s holds %s", path, v)
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files: %v", files, err)
	}
}

// unpacked are the contents of all zstd frames that begin anywhere in b.
func unpacked(b []byte) (out []byte) {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte{0x28, 0xb5, 0x2f, 0xfd})
		if i < 0 {
			return out
		}
		at += i
		if d, err := zstd.NewReader(bytes.NewReader(b[at:]), zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderConcurrency(1)); err == nil {
			part, _ := io.ReadAll(d) // what follows the frame is none
			out = append(out, part...)
			d.Close()
		}
		at++
	}
}
