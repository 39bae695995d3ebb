package mask

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzJSON: the walker takes what encoding/json takes and nothing else, gives
// JSON of the same form, and leaves no identifier that the scanner finds in a
// decoded string.
func FuzzJSON(f *testing.F) {
	d, err := NewDetector("ssn", "email", "credit_card")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{`{"ssn": 123456789, "a": ["\u0031\u0032\u0033-45-6789", {"b": null}]}`, `[1,]`, `"\ud83d\ude00"`, `{"a":"\"123-45-6789\\"}`, ` [ ] `, `-0.5e+10`, `{"a@b.io":{"c":[true,false]}}`, "\"\xff\"", `"\ud800"`} {
		f.Add([]byte(s))
	}
	r, err := d.Rewriter("", Type{OID: oidJSON, Typmod: -1}, nil, settings())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		out, null := r.Rewrite(nil, doc)
		if json.Valid(doc) == null && bytes.Count(doc, []byte("["))+bytes.Count(doc, []byte("{")) < maxJSONDepth {
			t.Fatalf("valid %v, null %v: %q", json.Valid(doc), null, doc)
		}
		if null {
			return
		}
		var value any
		if err := json.Unmarshal(out, &value); err != nil {
			t.Fatalf("%q becomes %q: %v", doc, out, err)
		}
		clean(t, d, value)
	})
}

// clean walks decoded values.
func clean(t *testing.T, d *Detector, value any) {
	switch v := value.(type) {
	case string:
		if hits := d.Scan(nil, []byte(v)); len(hits) > 0 {
			t.Fatalf("%q is shown", v)
		}
	case []any:
		for _, x := range v {
			clean(t, d, x)
		}
	case map[string]any:
		for k, x := range v {
			clean(t, d, k)
			clean(t, d, x)
		}
	}
}
