package mask

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func all(t testing.TB) *Detector {
	t.Helper()
	d, err := NewDetector(Entities()...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// labelled is a line of testdata/mask: its text, and where which entity lies.
type labelled struct {
	origin string
	text   []byte
	want   []Hit
}

func readLabelled(t testing.TB) []labelled {
	t.Helper()
	files, err := filepath.Glob("../../testdata/mask/labelled*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no labelled text: %v", err)
	}
	var lines []labelled
	for _, file := range files {
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(doc), "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, parseLabelled(t, fmt.Sprintf("%s:%d", filepath.Base(file), i+1), line))
			}
		}
	}
	return lines
}

func parseLabelled(t testing.TB, origin, line string) labelled {
	l := labelled{origin: origin}
	for {
		before, rest, found := strings.Cut(line, "[[")
		l.text = append(l.text, before...)
		if !found {
			return l
		}
		mark, after, _ := strings.Cut(rest, "]]")
		name, value, ok := strings.Cut(mark, ":")
		if strings.HasPrefix(after, "]") { // a value that itself ends in ]
			value, after = value+"]", after[1:]
		}
		e := NoEntity
		for i, n := range entityNames {
			if n == name {
				e = Entity(i)
			}
		}
		if !ok || e == NoEntity {
			t.Fatalf("%s: bad mark %q", origin, mark)
		}
		l.want = append(l.want, Hit{len(l.text), len(l.text) + len(value), e})
		l.text, line = append(l.text, value...), after
	}
}

// score counts, per entity, what was found rightly, missed, and found wrongly.
type score struct{ right, missed, wrong int }

func (s score) recall() float64    { return ratio(s.right, s.right+s.missed) }
func (s score) precision() float64 { return ratio(s.right, s.right+s.wrong) }

func ratio(a, b int) float64 {
	if b == 0 {
		return 1
	}
	return float64(a) / float64(b)
}

func measure(t testing.TB, d *Detector, lines []labelled, report func(string, ...any)) map[Entity]*score {
	scores := map[Entity]*score{}
	at := func(e Entity) *score {
		if scores[e] == nil {
			scores[e] = &score{}
		}
		return scores[e]
	}
	for _, l := range lines {
		got := d.Scan(nil, l.text)
		for _, w := range l.want {
			if !contains(got, w) {
				at(w.Entity).missed++
				report("%s: missed %s %q", l.origin, w.Entity, l.text[w.Start:w.End])
			} else {
				at(w.Entity).right++
			}
		}
		for _, g := range got {
			if !contains(l.want, g) {
				at(g.Entity).wrong++
				report("%s: %q is no %s", l.origin, l.text[g.Start:g.End], g.Entity)
			}
		}
	}
	return scores
}

func contains(hits []Hit, h Hit) bool {
	for _, x := range hits {
		if x == h {
			return true
		}
	}
	return false
}

// TestMaskReport is what make mask-report runs: recall and precision of each
// entity on the labelled text, with bars.
func TestMaskReport(t *testing.T) {
	scores := measure(t, all(t), readLabelled(t), t.Logf)
	t.Logf("%-12s %6s %6s %6s %8s %9s", "entity", "right", "missed", "wrong", "recall", "precision")
	for e := Entity(1); e < lastEntity; e++ {
		s := scores[e]
		if s == nil {
			t.Errorf("%s: no labelled example", e)
			continue
		}
		t.Logf("%-12s %6d %6d %6d %8.3f %9.3f", e, s.right, s.missed, s.wrong, s.recall(), s.precision())
		if s.recall() < 0.98 || s.precision() < 0.98 {
			t.Errorf("%s: recall %.3f, precision %.3f, want 0.98 of both", e, s.recall(), s.precision())
		}
	}
}

// Each entity is found alone as it is among all, and nothing else is: what is
// not asked for is not reported.
func TestDetector_FindsOnlyWhatItIsAskedFor(t *testing.T) {
	lines := readLabelled(t)
	for _, name := range Entities() {
		d, err := NewDetector(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			got := d.Scan(nil, l.text)
			for _, g := range got {
				if g.Entity.String() != name {
					t.Fatalf("%s: asked for %s, got %s", l.origin, name, g.Entity)
				}
			}
			for _, w := range l.want {
				if w.Entity.String() == name && !contains(got, w) {
					t.Errorf("%s: %s is found among all but not alone: %q", l.origin, name, l.text[w.Start:w.End])
				}
			}
		}
	}
	if _, err := NewDetector("ssn", "shoe_size"); err == nil || !strings.Contains(err.Error(), "shoe_size") {
		t.Errorf("an unknown entity is accepted: %v", err)
	}
	if got := new(Detector).Scan(nil, []byte("123-45-6789")); len(got) != 0 {
		t.Errorf("the zero detector finds %v", got)
	}
	d, _ := NewDetector("ssn")
	if got := d.Scan(nil, []byte("https://example.org/?ssn=123-45-6789 password=123-45-6789 123-45-6789@example.org")); len(got) != 3 {
		t.Errorf("what hides in a URL, a password or an address is not looked into: %v", got)
	}
}

func TestScan_AppendsAndAllocatesNothing(t *testing.T) {
	d := all(t)
	text := []byte("SSN 123-45-6789, ada@example.org, MRN 00123456")
	kept := Hit{7, 9, MRN}
	got := d.Scan([]Hit{kept}, []byte("1@b.io"))
	if len(got) != 2 || got[0] != kept {
		t.Errorf("the caller's hits are touched: %v", got)
	}
	hits := make([]Hit, 0, 16)
	if n := testing.AllocsPerRun(100, func() { d.Scan(hits, text) }); n != 0 {
		t.Errorf("%v allocations a scan", n)
	}
	if racing {
		t.Skip("the race detector makes pools allocate")
	}
	r, err := d.Rewriter("note", Type{OID: oidText, Typmod: -1}, nil, settings())
	if err != nil {
		t.Fatal(err)
	}
	j, err := d.Rewriter("doc", Type{OID: oidJSONB, Typmod: -1, Binary: true}, nil, settings())
	if err != nil {
		t.Fatal(err)
	}
	dst, doc := make([]byte, 0, 4096), []byte("\x01{\"ssn\": 123456789, \"a\": [\"\\u0031 123-45-6789\", {\"b\": null}]}")
	if n := testing.AllocsPerRun(100, func() { r.Rewrite(dst, text); j.Rewrite(dst, doc) }); n != 0 {
		t.Errorf("%v allocations a value", n)
	}
}

func TestDetector_RewritesHitsByTheirMethods(t *testing.T) {
	d := all(t)
	methods := map[Entity]string{CreditCard: "last4", Email: "domain", ZIP: "zip3"}
	for _, test := range []struct {
		column string
		typ    Type
		value  string
		want   string
	}{
		{"note", Type{OID: oidText, Typmod: -1}, "SSN 123-45-6789, card 4111 1111 1111 1111, ada@example.org, zip 94110.", "SSN ***, card **** **** **** 1111, ***@example.org, zip 941."},
		{"note", Type{OID: oidText, Typmod: -1}, "nothing here", "nothing here"},
		{"patient_ssn", Type{OID: oidText, Typmod: -1}, "123456789", "***"},
		{"homePhone", Type{OID: oidVarchar, Typmod: 14}, "4155552671", "***"},
		{"id", Type{OID: oidVarchar, Typmod: 14}, "4155552671", "4155552671"},
		{"note", Type{OID: oidVarchar, Typmod: 4 + 6}, "a@b.io", "***"}, // ***@b.io would be too long
		{"notes", Type{OID: 1009, Typmod: -1}, `{"SSN 123-45-6789",ok}`, `{"SSN ***",ok}`},
		{"doc", Type{OID: oidJSON, Typmod: -1}, `{"ssn": 123456789, "n": 5, "card": "4111111111111111"}`, `{"ssn": 0, "n": 5, "card": "************1111"}`},
		{"doc", Type{OID: oidJSON, Typmod: -1}, `{"SSN": ["123456789", {"zip": 94110, "x": 94110}]}`, `{"SSN": ["***", {"zip": 0, "x": 94110}]}`},
		{"doc", Type{OID: oidJSON, Typmod: -1}, `{"a": "\u0031\u0032\u0033-45-6789"}`, `{"a": "***"}`},
		{"doc", Type{OID: oidJSON, Typmod: -1}, `{"a": "tab\t\"quoted\" \u00e9 1\/2", "b": "\ud83d\ude00"}`, `{"a": "tab\t\"quoted\" \u00e9 1\/2", "b": "\ud83d\ude00"}`},
		{"doc", Type{OID: oidJSON, Typmod: -1}, `{"123-45-6789": 1}`, `{"***": 1}`},
		{"doc", Type{OID: oidJSON, Typmod: -1}, `{"a": "{\"ssn\": \"123456789\"}"}`, `{"a": "{\"ssn\": \"***\"}"}`},
		{"doc", Type{OID: oidJSON, Typmod: -1}, `{"a": 1, "a": "123-45-6789"}`, `{"a": 1, "a": "***"}`},
		{"doc", Type{OID: oidJSONB, Typmod: -1, Binary: true}, "\x01\"123-45-6789\"", "\x01\"***\""},
		{"doc", Type{OID: oidJSONB, Typmod: -1, Binary: true}, "\x02\"123-45-6789\"", "NULL"},
	} {
		r, err := d.Rewriter(test.column, test.typ, methods, settings())
		if err != nil {
			t.Fatal(err)
		}
		out, null := r.Rewrite(nil, []byte(test.value))
		got := string(out)
		if null {
			got = "NULL"
		}
		if got != test.want {
			t.Errorf("%s %q:\n got %s\nwant %s", test.column, test.value, got, test.want)
		}
	}
	if r, err := d.Rewriter("n", Type{OID: oidInt4}, nil, settings()); r != nil || err != nil {
		t.Errorf("integers are scanned: %v %v", r, err)
	}
	if _, err := d.Rewriter("n", Type{OID: oidText}, map[Entity]string{SSN: "hash"}, settings()); err == nil {
		t.Error("method hash is accepted for a hit")
	}
}

func TestJSON_WhatIsNoneIsNull(t *testing.T) {
	r, err := all(t).Rewriter("doc", Type{OID: oidJSON, Typmod: -1}, nil, settings())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{", "[1,]", "{,}", "[,1]", `{"a":}`, `{"a" 1}`, `{"a":1,}`, `{1:2}`, "[1 2]", "01", "1.", "-", "1e", "tru", `"a`, `"a\"`, `"\x"`, `"\u12"`, "\"\x01\"", "[1]]", "1 1", "]", "nullnull", strings.Repeat("[", 2000) + strings.Repeat("]", 2000)} {
		if out, null := r.Rewrite(nil, []byte(bad)); !null || len(out) != 0 {
			t.Errorf("%.40q: %q", bad, out)
		}
	}
	for _, good := range []string{"1", "-0.5e+10", `""`, "[]", "{}", "[[],{}]", ` { "a" : [ 1 , true , null ] } `, `"\u0000"`, `[{"a":{"b":[]}},[[[]]]]`, strings.Repeat("[", 1000) + strings.Repeat("]", 1000)} {
		if out, null := r.Rewrite(nil, []byte(good)); null || string(out) != good {
			t.Errorf("%.40q: %q %v", good, out, null)
		}
	}
}

func TestIsIPv6_AgreesWithNetip(t *testing.T) {
	for _, s := range []string{"::", "::1", "1::", "1::2", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", ":1", "1:", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4",
		"::1.2.3.256", "::1.2.3", "1.2.3.4", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", ":::", "", ":", "fe80::a:b"} {
		a, err := netip.ParseAddr(s)
		want := err == nil && a.Is6() && s != "::" // the unspecified address says nothing
		if got := isIPv6([]byte(s)); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}

func TestStream_HoldsBackWhatMayBecomeAnIdentifier(t *testing.T) {
	s, err := all(t).Stream(nil, settings())
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, piece := range []string{"SSN 123-", "45-67", "89 of ada@exam", "ple.org\n-----BEGIN PRIVATE KEY-----\nMIIE", "vQIBADANBg\n-----END PRIVATE KEY-----\nfine\n"} {
		out = s.Write(out, []byte(piece))
	}
	out = s.Flush(out)
	if got, want := string(out), "SSN *** of ***\n***\nfine\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	long := append(bytes.Repeat([]byte("x1"), windowSize), " then 123-45-6789 and more"...)
	if out := s.Flush(s.Write(nil, long)); bytes.Contains(out, []byte("6789")) || len(out) > 64 {
		t.Errorf("a run without a break is shown: %d bytes", len(out))
	}
}

// FuzzStream: wherever the bytes are cut, the same comes out, and no hit stays.
func FuzzStream(f *testing.F) {
	d := all(f)
	for _, l := range readLabelled(f) {
		f.Add(l.text, uint16(7), uint16(3))
	}
	f.Add(bytes.Repeat([]byte("4111 1111 1111 1111 "), 2000), uint16(4096), uint16(1))
	f.Add(append(bytes.Repeat([]byte("a"), 17000), " 123-45-6789\n-----BEGIN PRIVATE KEY-----\nabc\n"...), uint16(1), uint16(9999))
	f.Fuzz(func(t *testing.T, text []byte, first, step uint16) {
		whole, err := d.Stream(nil, settings())
		if err != nil {
			t.Fatal(err)
		}
		want := whole.Flush(whole.Write(nil, text))
		var got []byte
		rest := text
		for n := int(first); len(rest) > 0; n = int(step%61) + 1 {
			n = min(n, len(rest))
			got = whole.Write(got, rest[:n])
			rest = rest[n:]
		}
		if got = whole.Flush(got); !bytes.Equal(got, want) {
			t.Fatalf("in pieces %q, whole %q", got, want)
		}
	})
}

// FuzzScan: hits are in order, inside the text and apart; one entity alone is
// looked for without a crash.
func FuzzScan(f *testing.F) {
	d := all(f)
	one, err := NewDetector("ssn", "phone")
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range readLabelled(f) {
		f.Add(l.text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, d := range []*Detector{d, one} {
			end := 0
			for _, h := range d.Scan(nil, text) {
				if h.Start < end || h.End <= h.Start || h.End > len(text) || h.Entity == NoEntity {
					t.Fatalf("%+v after %d of %d", h, end, len(text))
				}
				end = h.End
			}
		}
	})
}
