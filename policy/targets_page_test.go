package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTargetsPage holds docs/targets.md to what a Target is: its examples are
// Targets, and every field of one is on the page.
func TestTargetsPage(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "docs", "targets.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	const head = "kind: Target\nmetadata: {name: x}\nspec:\n  protocol: postgres\n  address: db.example.com:5432\n"
	examples := 0
	for _, block := range strings.Split(page, "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(block, "kind: Target") {
			block = head + block
		}
		mustParse(t, "targets.yaml", []byte(block))
		examples++
	}
	if examples < 4 {
		t.Errorf("%d examples", examples)
	}
	_, fields, _ := Fields(KindTarget)
	for _, f := range fields {
		name := strings.TrimSuffix(f.Path[strings.LastIndexByte(f.Path, '.')+1:], "[]")
		if strings.HasPrefix(f.Path, "spec.") && !strings.Contains(page, name) {
			t.Errorf("%s is not on the page", f.Path)
		}
	}
}
