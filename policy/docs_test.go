package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPolicyPage compiles every example of docs/policy.md, all of them as one
// set, and runs its test cases against it.
func TestPolicyPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []Resource
	var cases []byte
	fence, start := "", 0
	var block strings.Builder
	line := 0
	for text := range strings.Lines(string(page)) {
		line++
		info, isFence := strings.CutPrefix(strings.TrimSpace(text), "```")
		switch {
		case isFence && fence == "":
			fence, start = info, line
			if fence == "" {
				fence = "text"
			}
			block.Reset()
		case !isFence:
			block.WriteString(text)
		default:
			switch name := fmt.Sprintf("line-%d", start); fence {
			case "cedar":
				all = append(all, mustParse(t, name+".cedar", []byte(block.String()))...)
			case "yaml":
				all = append(all, mustParse(t, name+".yaml", []byte(block.String()))...)
			case "yaml cases":
				cases = []byte(block.String())
			}
			fence = ""
		}
	}
	set, err := Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range knownAnnotations {
		if !strings.Contains(string(page), "@"+key) {
			t.Errorf("@%s is not on the page", key)
		}
	}
	results, err := RunCases(set, "policy.md", cases, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.Passed {
			t.Errorf("%s: %v", r.Name, r.Wrong)
		}
	}
}
