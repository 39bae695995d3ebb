package policy

import (
	"slices"
	"strings"
	"testing"
)

// Every field of every kind has its words, and no words are of a field that is
// not there (any more).
func TestFieldsAreThoseOfTheStructs(t *testing.T) {
	used := map[string]bool{}
	for _, kind := range Kinds() {
		about, fields, ok := Fields(kind)
		if !ok || about == "" {
			t.Errorf("%s is not described", kind)
		}
		used[kind] = true
		for _, f := range fields {
			used[kind+"."+f.Path] = true
			if f.Meaning == "" {
				t.Errorf("%s: field %s has no words", kind, f.Path)
			}
		}
	}
	for key := range meanings() {
		if !used[key] {
			t.Errorf("words for %s, which is no field", key)
		}
	}
	if _, _, ok := Fields("Nope"); ok {
		t.Error("a kind that does not exist is described")
	}
	_, fields, _ := Fields(KindClassification)
	at := slices.IndexFunc(fields, func(f Field) bool { return f.Path == "spec.detect.entities" })
	if at < 0 || fields[at].Type != "list of text" || !strings.Contains(fields[at].Meaning, "ssn") {
		t.Errorf("%+v", fields)
	}
}
