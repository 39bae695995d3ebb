package postgres

import (
	"strings"
	"testing"
)

func TestPsqlTalksThroughTheRoom(t *testing.T) {
	h := newHouse(t, nil)
	out, stderr, err := h.psql("SELECT 1 AS one, 'x' AS two;\n\\conninfo\nSELECT n FROM generate_series(1,5) n;\nselect bad;\nSELECT 2;\n")
	if err != nil {
		t.Fatalf("psql: %v\n%s\n%s", err, out, stderr)
	}
	if !strings.HasPrefix(out, "1|x\n") || !strings.Contains(out, "1\n2\n3\n4\n5\n2\n") {
		t.Errorf("psql printed\n%s", out)
	}
	if !strings.Contains(stderr, `ERROR:  42703: column "bad" does not exist`) {
		t.Errorf("psql complained\n%s", stderr)
	}
}
