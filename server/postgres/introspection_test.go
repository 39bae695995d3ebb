package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
)

// What psql, DBeaver, DataGrip, pgAdmin, Metabase and ORMs ask of the catalogue
// works on a target with tags for somebody who may read and no more, and shows
// nothing that is tagged.
func TestIntrospection(t *testing.T) {
	files, err := filepath.Glob("../../testdata/sql/introspection/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	gate := maskingGate()
	gate.Deny = func(s policy.Statement) *session.Refusal {
		if s.Class == policy.Read {
			return nil
		}
		return &session.Refusal{Code: session.CodePolicy, Message: "is of class " + string(s.Class)}
	}
	h := newHouse(t, gate)
	h.target.info.Database = h.target.server.Database(t, clinic, "ANALYZE patients")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			conn := h.connect()
			for statement := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
				results, err := conn.Exec(t.Context(), statement).ReadAll()
				if err != nil {
					t.Errorf("%.200s\n%v", statement, err)
				}
				if strings.Contains(statement, "; S") { // several: no driver prepares them
					continue
				}
				extended := conn.ExecParams(t.Context(), statement, nil, nil, nil, nil).Read()
				if extended.Err != nil {
					t.Errorf("by the extended protocol: %.200s\n%v", statement, extended.Err)
				}
				for _, r := range append(results, extended) {
					for _, row := range r.Rows {
						for _, v := range row {
							if strings.Contains(string(v), "123-45-6789") {
								t.Errorf("a value is shown by %.200s", statement)
							}
						}
					}
				}
			}
		})
	}
}
