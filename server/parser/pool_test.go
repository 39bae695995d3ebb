package parser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// The test binary is also the child, and a few children that misbehave.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__parse":
			os.Exit(Main(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
		case "__exit":
			os.Exit(3)
		}
	}
	os.Exit(m.Run())
}

// cacheDir is shared by the tests of one run, so that only the first compiles.
func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	if cfg.Command == nil {
		cfg.Command = []string{os.Args[0], "__parse"}
	}
	if cfg.CacheDir == "" {
		cfg.CacheDir = codeCache(t)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// codeCache is kept between runs where there is a place for it: compiling the
// grammar takes seconds.
func codeCache(t testing.TB) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(dir, "hoopctl", "test-parser")
}

func kindOf(t *testing.T, p *Pool, text string) string {
	t.Helper()
	facts, err := p.Facts(t.Context(), "alice", text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var kinds []string
	for _, f := range facts {
		kinds = append(kinds, f.Kind+"/"+string(f.Class))
	}
	return strings.Join(kinds, " ")
}

func TestFactsOfSeveralStatements(t *testing.T) {
	p := newPool(t, Config{})
	if got := kindOf(t, p, "SELECT 1; DROP TABLE t"); got != "SELECT/read DROP TABLE/schema" {
		t.Error(got)
	}
	if got := kindOf(t, p, " -- ping\n"); got != "/read" {
		t.Error(got)
	}
}

var _ = []any{errors.Is, fmt.Sprint, io.EOF, policy.Read, sql.Gate}
