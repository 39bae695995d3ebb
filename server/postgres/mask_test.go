package postgres

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy/mask"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

// samples are values of each type, as SQL; types with a modifier stand beside
// those without.
var maskSamples = []struct {
	typ    string
	values []string
}{
	{"text", []string{"'123-45-6789'", "''", "'ada@example.org'", "'94110-1234'", "'1931-02-03'", "'naïve 日本語テキスト 99'", "'91'"}},
	{"varchar(1)", []string{"'x'", "''"}}, {"varchar(3)", []string{"'abc'"}}, {"varchar(11)", []string{"'123-45-6789'"}},
	{"varchar(22)", []string{"'MRN-0012345678'"}}, {"varchar(64)", []string{"'a@b.io'", "'日本語'"}}, {"varchar(6)", []string{"'a@b.io'"}},
	{"char(2)", []string{"'ab'", "'1'"}}, {"char(5)", []string{"'94110'", "'03601'"}}, {"char(30)", []string{"'123-45-6789'", "'a@b.io'"}},
	{"name", []string{"'patients'"}}, {`"char"`, []string{"'x'"}}, {"xml", []string{"'<a>1</a>'"}}, {"refcursor", []string{"'c'"}},
	{"smallint", []string{"93", "'-5'", "32767", "42"}}, {"int", []string{"94110", "1931", "'-2147483648'", "941101234"}}, {"bigint", []string{"123456789", "9223372036854775807", "'-9223372036854775808'"}},
	{"oid", []string{"4294967295"}}, {"xid", []string{"'7'"}}, {"cid", []string{"'7'"}}, {"xid8", []string{"'7'"}}, {"tid", []string{"'(7,8)'"}},
	{"real", []string{"1.5", "'NaN'"}}, {"double precision", []string{"'-1e300'", "'Infinity'"}}, {"money", []string{"12.34"}},
	{"numeric", []string{"123456789", "-0.00012", "1e20", "'NaN'", "'Infinity'", "12.50", "10000", "0"}},
	{"numeric(5,2)", []string{"123.45"}}, {"numeric(3,3)", []string{"0.123"}}, {"numeric(38,0)", []string{"12345678901234567890123456789012345678"}}, {"numeric(30,6)", []string{"1"}},
	{"numeric(9,0)", []string{"123456789"}}, {"numeric(2,-3)", []string{"12000"}},
	{"boolean", []string{"true", "false"}}, {"bytea", []string{`'\x313233'`, `''`}},
	{"date", []string{"'1984-05-06'", "'1931-02-03'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12345-01-01'", "'2000-02-29'"}},
	{"timestamp", []string{"'1984-05-06 07:08:09.5'", "'1931-02-03'", "'infinity'", "'0044-03-15 BC'", "'1999-12-31 23:59:59.999999'"}},
	{"timestamp(0)", []string{"'1984-05-06 07:08:09'"}}, {"timestamptz", []string{"'1984-05-06 07:08:09+02'", "'-infinity'", "'100000-05-06 07:08:09+02'"}},
	{"time", []string{"'07:08:09'"}}, {"timetz", []string{"'07:08:09+02'"}}, {"interval", []string{"'93 years 2 months'"}}, {"interval year to month", []string{"'93 years'"}},
	{"uuid", []string{"'0f8fad5b-d9cb-469f-a165-70867728950e'"}},
	{"inet", []string{"'192.168.7.1'", "'2001:db8::1/64'"}}, {"cidr", []string{"'10.0.0.0/8'"}}, {"macaddr", []string{"'08:00:2b:01:02:03'"}}, {"macaddr8", []string{"'08:00:2b:01:02:03:04:05'"}},
	{"pg_lsn", []string{"'16/B374D848'"}}, {"bit(11)", []string{"B'10110111011'"}}, {"bit", []string{"B'1'"}}, {"varbit(8)", []string{"B'101'"}}, {"varbit", []string{"B'101'"}},
	{"json", []string{`'{"ssn": "123-45-6789"}'`}}, {"jsonb", []string{`'{"ssn": ["123-45-6789", 1]}'`}}, {"jsonpath", []string{"'$.a'"}},
	{"point", []string{"'(1,2)'"}}, {"lseg", []string{"'[(1,2),(3,4)]'"}}, {"box", []string{"'(1,2),(3,4)'"}}, {"path", []string{"'((1,2),(3,4))'"}}, {"polygon", []string{"'((1,2),(3,4))'"}},
	{"line", []string{"'{1,2,3}'"}}, {"circle", []string{"'<(1,2),3>'"}}, {"tsvector", []string{"'a b'"}}, {"tsquery", []string{"'a & b'"}},
	{"int4range", []string{"'[1,5)'"}}, {"numrange", []string{"'[1,5)'"}}, {"tsrange", []string{"'[2000-01-01,)'"}}, {"tstzrange", []string{"'[2000-01-01,)'"}}, {"daterange", []string{"'[2000-01-01,)'"}}, {"int8range", []string{"'[1,5)'"}},
	{"int4multirange", []string{"'{[1,5)}'"}}, {"nummultirange", []string{"'{[1,5)}'"}}, {"tsmultirange", []string{"'{}'"}}, {"tstzmultirange", []string{"'{}'"}}, {"datemultirange", []string{"'{}'"}}, {"int8multirange", []string{"'{}'"}},
	{"pg_snapshot", []string{"pg_current_snapshot()"}}, {"regclass", []string{"'pg_class'"}}, {"mood", []string{"'sad'"}}, {"pair", []string{"ROW(1,'123-45-6789')"}}, {"citext_like", []string{"'123-45-6789'"}},
	{"text[]", []string{`ARRAY['123-45-6789', NULL, 'NULL', 'a "quoted\" one', '', '{x}']`, "'{}'", "'[0:1]={12345678,b}'", `ARRAY[['12345678','b'],['c','d']]`}},
	{"varchar(11)[]", []string{"ARRAY['123-45-6789']"}}, {"int[]", []string{"ARRAY[[1,93],[NULL,5]]"}}, {"numeric(5,2)[]", []string{"ARRAY[1.5]"}}, {"date[]", []string{"ARRAY['1984-05-06'::date, '1920-01-01']"}},
	{"uuid[]", []string{"ARRAY['0f8fad5b-d9cb-469f-a165-70867728950e'::uuid]"}}, {"box[]", []string{"ARRAY['(1,2),(3,4)'::box, '(1,2),(3,4)']"}}, {"jsonb[]", []string{`ARRAY['{"a":1}'::jsonb]`}},
	{"inet[]", []string{"ARRAY['10.0.0.1'::inet]"}}, {"bit(3)[]", []string{"ARRAY[B'101']"}}, {"int4range[]", []string{"ARRAY['[1,5)'::int4range]"}}, {"timestamptz[]", []string{"ARRAY[now()]"}}, {"mood[]", []string{"ARRAY['sad'::mood]"}},
	{"bytea[]", []string{`ARRAY['\x31'::bytea]`}}, {"point[]", []string{"ARRAY['(1,2)'::point]"}},
}

// Every method's output is read back by PostgreSQL itself, in the format that
// it would have come in, into a column of the same type and modifier.
func TestT40_MaskedValuesAreLegalForTheirTypes(t *testing.T) {
	server := pgtest.Start(t)
	name := server.Database(t, "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN citext_like AS text")
	conn, err := pgconn.Connect(t.Context(), server.DatabaseURL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	checked := 0
	for i, s := range maskSamples {
		table := fmt.Sprintf("m%d", i)
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("CREATE TABLE %s(c %s)", table, s.typ)).ReadAll(); err != nil {
			t.Fatalf("%s: %v", s.typ, err)
		}
		for _, value := range s.values {
			for _, format := range []int16{0, 1} {
				checked += checkMasked(t, conn, table, s.typ, value, format)
			}
		}
	}
	if checked < 1000 {
		t.Errorf("only %d values were read back", checked)
	}
}

func checkMasked(t *testing.T, conn *pgconn.PgConn, table, typ, value string, format int16) (checked int) {
	insert := fmt.Sprintf("WITH gone AS (DELETE FROM %s) INSERT INTO %s VALUES (%s::%s) RETURNING c", table, table, value, typ)
	got := conn.ExecParams(t.Context(), insert, nil, nil, nil, []int16{format}).Read()
	if got.Err != nil {
		if format == 1 && strings.Contains(got.Err.Error(), "no binary output function") {
			return 0
		}
		t.Fatalf("%s: %v", insert, got.Err)
	}
	raw, field := got.Rows[0][0], got.FieldDescriptions[0]
	settings := mask.Settings{Tag: "phi", Keys: mask.Keys{Tenant: "t", Version: 1, Secret: bytes.Repeat([]byte{7}, 32)}, Today: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)}
	for _, method := range mask.Methods() {
		typeOf := mask.Type{OID: field.DataTypeOID, Typmod: field.TypeModifier, Binary: format == 1}
		r, err := mask.New(method, typeOf, settings)
		if err != nil {
			t.Fatal(err)
		}
		out, null := r.Rewrite([]byte("before"), raw)
		if !bytes.HasPrefix(out, []byte("before")) || null && len(out) != len("before") {
			t.Errorf("%s of %s::%s: does not append", method, value, typ)
		}
		if null {
			continue
		}
		out = out[len("before"):]
		if method == "redact" && len(raw) > 4 && bytes.Equal(out, raw) && value != "'{}'" && value != "0" {
			t.Errorf("%s of %s::%s (format %d): shown raw", method, value, typ, format)
		}
		update := fmt.Sprintf("UPDATE %s SET c = $1", table)
		back := conn.ExecParams(t.Context(), update, [][]byte{out}, []uint32{field.DataTypeOID}, []int16{format}, nil).Read()
		if back.Err != nil {
			t.Errorf("%s of %s::%s, format %d: PostgreSQL does not take %q: %v", method, value, typ, format, out, back.Err)
		}
		checked++
	}
	return checked
}

// The same value gives the same token whatever format it came in, and the
// generalised value means the same.
func TestT40_FormatsAgree(t *testing.T) {
	server := pgtest.Start(t)
	conn, err := pgconn.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	settings := mask.Settings{Tag: "phi", Keys: mask.Keys{Secret: bytes.Repeat([]byte{7}, 32)}, Today: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)}
	for _, value := range []string{"'MRN-1'::text", "42::int", "42::bigint", "'0f8fad5b-d9cb-469f-a165-70867728950e'::uuid", "12.50::numeric", "-0.00012::numeric", "123456789012345678::numeric", "10000::numeric", "0::numeric",
		"'1984-05-06'::date", "'1931-02-03'::date", "'1984-05-06 07:08:09'::timestamp", "'1899-12-31'::date", "'1936-11-23'::date", "'1936-11-24'::date", "'2024-02-29'::date", "93::int", "89::smallint", "1936::int", "1937::int",
		"'1936-11-23 23:59:59'::timestamp", "'12345-01-01'::date", "ARRAY[42,43]", "ARRAY['x','y']", "'1700-03-01'::date", "'2400-12-31 23:59:59.999999'::timestamp"} {
		for _, method := range []string{"token", "year", "age", "zip3", "redact"} {
			var shown []string
			for _, format := range []int16{0, 1} {
				got := conn.ExecParams(t.Context(), "SELECT "+value, nil, nil, nil, []int16{format}).Read()
				if got.Err != nil {
					t.Fatal(got.Err)
				}
				f := got.FieldDescriptions[0]
				r, err := mask.New(method, mask.Type{OID: f.DataTypeOID, Typmod: f.TypeModifier, Binary: format == 1}, settings)
				if err != nil {
					t.Fatal(err)
				}
				out, _ := r.Rewrite(nil, got.Rows[0][0])
				back := conn.ExecParams(t.Context(), "SELECT $1", [][]byte{out}, []uint32{f.DataTypeOID}, []int16{format}, []int16{0}).Read()
				if back.Err != nil {
					t.Fatalf("%s of %s in format %d: %v", method, value, format, back.Err)
				}
				shown = append(shown, string(back.Rows[0][0]))
			}
			if slices.Compact(slices.Clone(shown))[0] != shown[1] {
				t.Errorf("%s of %s: %s as text, %s as binary", method, value, shown[0], shown[1])
			}
		}
	}
}
