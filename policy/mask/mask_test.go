package mask

import (
	"bytes"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"
)

func settings() Settings {
	return Settings{Tag: "phi", Keys: Keys{Tenant: "acme", Version: 1, Secret: bytes.Repeat([]byte{7}, 32)}, Today: time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC)}
}

// show is what a method makes of a text value.
func show(t testing.TB, method string, typ Type, value string) string {
	t.Helper()
	r, err := New(method, typ, settings())
	if err != nil {
		t.Fatal(err)
	}
	out, null := r.Rewrite(nil, []byte(value))
	if null {
		return "NULL"
	}
	return string(out)
}

func TestMethods_OnText(t *testing.T) {
	text, varchar := Type{OID: oidText, Typmod: -1}, func(n int32) Type { return Type{OID: oidVarchar, Typmod: n + 4} }
	for _, test := range []struct {
		method string
		typ    Type
		value  string
		want   string
	}{
		{"redact", text, "Ada", "***"}, {"redact", text, "", "***"}, {"redact", varchar(2), "Ada", "**"}, {"redact", Type{OID: oidBpchar, Typmod: 9}, "Ada  ", "***  "},
		{"", text, "Ada", "***"}, {"null", text, "Ada", "NULL"},
		{"last4", text, "123-45-6789", "***-**-6789"}, {"last4", text, "4111 1111 1111 1111", "**** **** **** 1111"}, {"last4", text, "1234567", "***"},
		{"last4", text, "a-b-c-d", "***"}, {"last4", text, "日本語テキスト漢字", "*****スト漢字"},
		{"last4", Type{OID: oidBpchar, Typmod: 16}, "123-45-6789 ", "***-**-6789 "},
		{"domain", text, "ada@example.org", "***@example.org"}, {"domain", varchar(6), "a@b.io", "*@b.io"}, {"domain", text, "no address", "***"}, {"domain", text, "@example.org", "***"},
		{"domain", text, "x@y@example.org", "***@example.org"}, {"domain", text, "a@b.io said 123-45-6789", "***"},
		{"zip3", text, "94110", "941"}, {"zip3", text, "94110-1234", "941"}, {"zip3", text, "941101234", "941"}, {"zip3", text, "03601", "000"}, {"zip3", text, "821 10", "***"},
		{"zip3", text, "K1A 0B1", "***"}, {"zip3", Type{OID: oidBpchar, Typmod: 9}, "94110", "941  "}, {"zip3", varchar(2), "94110", "**"},
		{"age", text, "42", "42"}, {"age", text, "90", "90+"}, {"age", text, "101", "90+"}, {"age", varchar(2), "91", "90"}, {"age", text, "ninety", "***"}, {"age", text, "-1", "***"},
		{"year", text, "1984-05-06", "1984"}, {"year", text, "1936-11-23", "90+"}, {"year", text, "1936-11-24", "1936"}, {"year", text, "1984-05-06T07:08:09Z", "1984"}, {"year", text, "May 6, 1984", "***"}, {"year", text, "1984-13-06", "***"},
		{"year", Type{OID: oidDate}, "1984-05-06", "1984-01-01"}, {"year", Type{OID: oidDate}, "1936-11-23", "1900-01-01"}, {"year", Type{OID: oidDate}, "0044-03-15 BC", "1900-01-01"}, {"year", Type{OID: oidDate}, "infinity", "1900-01-01"},
		{"year", Type{OID: oidTimestamptz}, "1984-05-06 07:08:09+02", "1984-01-01 00:00:00+00"}, {"year", Type{OID: oidInt4}, "1936", "1900"}, {"year", Type{OID: oidInt4}, "1984", "1984"}, {"year", Type{OID: oidInt4}, "123456789", "0"},
		{"age", Type{OID: oidInt2}, "90", "90"}, {"age", Type{OID: oidInt2}, "104", "90"}, {"age", Type{OID: oidInt2}, "33", "33"}, {"age", Type{OID: oidInt2}, "-33", "0"}, {"age", Type{OID: oidDate}, "1984-05-06", "1984-01-01"},
		{"zip3", Type{OID: oidInt4}, "94110", "941"}, {"zip3", Type{OID: oidInt4}, "3601", "0"}, {"zip3", Type{OID: oidInt4}, "1001", "10"}, {"zip3", Type{OID: oidInt4}, "941101234", "941"},
		{"last4", Type{OID: oidBool}, "t", "f"}, {"last4", Type{OID: oidInt8}, "123456789", "0"}, {"domain", Type{OID: oidJSONB}, `"a@b.io"`, "null"},
		{"redact", Type{OID: 99999}, "whatever", "NULL"}, {"redact", Type{OID: 99999, Name: "citext"}, "Ada", "***"}, {"last4", Type{OID: 2249}, `(1,123-45-6789)`, "NULL"},
		{"last4", Type{OID: 1009, Typmod: -1}, `{123-45-6789,NULL,"null","a b c d e f g h"}`, `{***-**-6789,NULL,***,"* * * * e f g h"}`},
		{"redact", Type{OID: 1009, Typmod: -1}, `[0:1][1:1]={{"a\"b"},{c}}`, `[0:1][1:1]={{***},{***}}`}, {"redact", Type{OID: 1007}, `{1,2`, "NULL"}, {"redact", Type{OID: 1007}, `{1,2}3`, "NULL"}, {"redact", Type{OID: 1007}, "{}", "{}"},
		{"null", Type{OID: 1007}, "{1,2}", "NULL"}, {"redact", Type{OID: 1020}, `{(3,4),(1,2);(7,8),(5,6)}`, `{(0,0),(0,0);(0,0),(0,0)}`},
	} {
		if got := show(t, test.method, test.typ, test.value); got != test.want {
			t.Errorf("%s of %d %q: got %q, want %q", test.method, test.typ.OID, test.value, got, test.want)
		}
	}
}

func TestNew_RefusesWhatItCannotKeep(t *testing.T) {
	none := Settings{}
	for method, want := range map[string]string{
		"hash": "use token", "sha256": "unknown mask method", "token": "needs a key", "year": "needs the session's date", "age": "needs the session's date", "Redact": "unknown",
	} {
		if r, err := New(method, Type{OID: oidText}, none); err == nil || !strings.Contains(err.Error(), want) || r != nil {
			t.Errorf("%s: %v, %v", method, r, err)
		}
	}
	short := settings()
	short.Keys.Secret = short.Keys.Secret[:31]
	if _, err := New("token", Type{OID: oidText}, short); err == nil {
		t.Error("a short key makes tokens")
	}
}

func TestToken_IsKeyedByTenantTagVersionAndKind(t *testing.T) {
	base := settings()
	token := func(s Settings, typ Type, value string) string {
		r, err := New("token", typ, s)
		if err != nil {
			t.Fatal(err)
		}
		out, _ := r.Rewrite(nil, []byte(value))
		return string(out)
	}
	text := Type{OID: oidText, Typmod: -1}
	first := token(base, text, "123-45-6789")
	if !regexp.MustCompile(`^tok1_[a-z2-7]{20}$`).MatchString(first) {
		t.Errorf("%q is no token", first)
	}
	if token(base, text, "123-45-6789") != first || token(base, Type{OID: oidVarchar, Typmod: 68}, "123-45-6789") != first {
		t.Error("the same value gives two tokens")
	}
	seen := map[string]string{first: "base"}
	for name, change := range map[string]func(*Settings){
		"tenant": func(s *Settings) { s.Keys.Tenant = "other" }, "tag": func(s *Settings) { s.Tag = "pii" }, "version": func(s *Settings) { s.Keys.Version = 2 },
		"secret": func(s *Settings) { s.Keys.Secret = bytes.Repeat([]byte{8}, 32) }, "shifted": func(s *Settings) { s.Keys.Tenant, s.Tag = "acme\n3:phi", "" },
	} {
		s := base
		change(&s)
		got := strings.TrimPrefix(token(s, text, "123-45-6789"), "tok2_")
		got = strings.TrimPrefix(got, "tok1_")
		for other, by := range seen {
			if strings.HasSuffix(other, got) {
				t.Errorf("changing %s gives the token of %s", name, by)
			}
		}
		seen[got] = name
	}
	if got := token(base, Type{OID: oidVarchar, Typmod: 4 + 20}, "x"); len(got) != 20 || strings.Contains(got, "_") {
		t.Errorf("varchar(20): %q", got)
	}
	if got := token(base, Type{OID: oidVarchar, Typmod: 4 + 19}, "x"); got != "***" {
		t.Errorf("a token that does not fit is cut: %q", got)
	}
	if got := token(base, Type{OID: oidUUID}, "0f8fad5b-d9cb-469f-a165-70867728950e"); !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(got) {
		t.Errorf("no version 8 UUID: %s", got)
	}
	if got := token(base, Type{OID: oidNumeric, Typmod: (9<<16 | 2) + 4}, "1234567.89"); !regexp.MustCompile(`^[1-9]\d{0,6}\.00$`).MatchString(got) {
		t.Errorf("numeric(9,2): %s", got)
	}
}

// The construction is pinned: a change of it would break every join on tokens
// that anybody has stored. Computed independently with Python's hmac and
// hashlib (testdata/mask/token.py).
func TestToken_PinnedVector(t *testing.T) {
	if got := show(t, "token", Type{OID: oidText, Typmod: -1}, "123-45-6789"); got != "tok1_jdnjilpvyetsifhodqwr" {
		t.Errorf("got %s, want tok1_jdnjilpvyetsifhodqwr", got)
	}
}

func TestArrayBinary_RefusesLies(t *testing.T) {
	good := "00000001 00000000 00000019 00000001 00000001 00000003 616263"
	typ := Type{OID: 1009, Typmod: -1, Binary: true}
	decode := func(s string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := show(t, "redact", typ, decode(good)); got != decode("00000001 00000000 00000019 00000001 00000001 00000003 2a2a2a") {
		t.Errorf("got %x", got)
	}
	if got := show(t, "redact", typ, decode("00000000 00000000 00000019")); got != decode("00000000 00000000 00000019") {
		t.Errorf("empty array: %x", got)
	}
	for name, bad := range map[string]string{
		"element too long": "00000001 00000000 00000019 00000001 00000001 00000004 616263",
		"negative length":  "00000001 00000000 00000019 00000001 00000001 fffffffe 616263",
		"other element":    "00000001 00000000 00000017 00000001 00000001 00000003 616263",
		"too many":         "00000001 00000000 00000019 7fffffff 00000001 00000003 616263",
		"product":          "00000002 00000000 00000019 7fffffff 00000001 7fffffff 00000001",
		"dimensions":       "00000007 00000000 00000019 00000001 00000001 00000003 616263",
		"rest":             good + "00",
		"cut":              "00000001 00000000 0000",
		"negative size":    "00000001 00000000 00000019 ffffffff 00000001",
	} {
		if got := show(t, "redact", typ, decode(bad)); got != "NULL" {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func TestRewriters_AllocateNothing(t *testing.T) {
	if racing {
		t.Skip("the race detector makes pools allocate")
	}
	text := Type{OID: oidText, Typmod: -1}
	for _, test := range []struct {
		method string
		typ    Type
		value  string
	}{
		{"redact", text, "Ada"}, {"last4", text, "123-45-6789"}, {"token", text, "123-45-6789"}, {"domain", text, "ada@example.org"}, {"zip3", text, "94110"}, {"age", text, "93"}, {"year", text, "1984-05-06"},
		{"token", Type{OID: oidInt4}, "42"}, {"token", Type{OID: oidUUID}, "0f8fad5b-d9cb-469f-a165-70867728950e"}, {"token", Type{OID: oidNumeric, Typmod: -1}, "12.5"}, {"year", Type{OID: oidDate}, "1984-05-06"},
		{"last4", Type{OID: 1009, Typmod: -1}, `{123-45-6789,NULL,"a b c d e f g h"}`}, {"redact", Type{OID: oidJSONB, Binary: true}, "\x01{}"},
	} {
		r, err := New(test.method, test.typ, settings())
		if err != nil {
			t.Fatal(err)
		}
		dst, value := make([]byte, 0, 1024), []byte(test.value)
		if n := testing.AllocsPerRun(200, func() { r.Rewrite(dst, value) }); n >= 1 {
			t.Errorf("%s of %s: %v allocations", test.method, test.value, n)
		}
	}
}

// FuzzRewriters feeds every method with bytes of a hostile target: nothing
// panics, dst's front stays, and NULL appends nothing.
func FuzzRewriters(f *testing.F) {
	f.Add(uint32(25), int32(-1), false, []byte("123-45-6789"))
	f.Add(uint32(1009), int32(-1), false, []byte(`[0:1]={"a\"b",NULL}`))
	f.Add(uint32(1009), int32(-1), true, []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x03abc"))
	f.Add(uint32(1700), int32(-1), true, []byte("\x00\x01\x00\x00\x40\x00\x00\x02\x00\x2a"))
	f.Add(uint32(1700), int32(65538), true, []byte("\x00\x02\x00\x01\x00\x00\x00\x00\x00\x01\x00\x2a"))
	f.Add(uint32(1082), int32(-1), true, []byte("\xff\xff\x71\x54"))
	f.Add(uint32(1184), int32(-1), false, []byte("1984-05-06 07:08:09+02"))
	f.Add(uint32(1042), int32(9), false, []byte("94110"))
	f.Fuzz(func(t *testing.T, oid uint32, typmod int32, bin bool, value []byte) {
		if typmod > 1<<16 {
			typmod = 1 << 16
		}
		for _, method := range Methods() {
			typ := Type{OID: oid, Typmod: typmod, Binary: bin}
			r, err := New(method, typ, settings())
			if err != nil {
				t.Fatal(err)
			}
			kept := bytes.Clone(value)
			out, null := r.Rewrite([]byte("front"), value)
			if !bytes.HasPrefix(out, []byte("front")) || null && len(out) != 5 {
				t.Fatalf("%s: %q null %v", method, out, null)
			}
			if !bytes.Equal(kept, value) {
				t.Fatalf("%s changes its input", method)
			}
			legal(t, method, typ, out[5:], null)
		}
	})
}

// legal checks what a value of a type must look like, independent of how the
// rewriters make it.
func legal(t *testing.T, method string, typ Type, out []byte, null bool) {
	t.Helper()
	if null {
		return
	}
	ok := true
	switch k := kindOf(typ); {
	case k.family == familyText && typ.Typmod > 4 && (typ.OID == oidVarchar || typ.OID == oidBpchar):
		ok = len([]rune(string(out))) <= int(typ.Typmod)-4
	case k.family == familyInt && typ.Binary, k.family == familyDate && typ.Binary:
		ok = len(out) == k.width
	case k.family == familyDate:
		_, ok = parseISO(out)
	case k.family == familyUUID && typ.Binary:
		ok = len(out) == 16
	case k.family == familyNumeric && typ.Binary:
		_, ok = appendNumeric(nil, out)
	}
	if !ok {
		t.Fatalf("%s of type %+v: %q is not legal", method, typ, out)
	}
}
