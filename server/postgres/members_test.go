package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

var arrays = []string{"{}", "{a}", "{a,b}", `{"a b","c\"d","e\\f"}`, "{NULL,null,\"NULL\"}", "{{a,b},{c,d}}", "[2:3]={a,b}", "{ a , b c }", `{\a,\ }`, `{"",","}`, "{{{1},{2}}}", `{"{x}","}"}`}

// What PostgreSQL finds in an array is what is counted.
func TestT42_MembersOfArrays(t *testing.T) {
	conn, err := pgconn.Connect(t.Context(), pgtest.Start(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, a := range arrays {
		want := []string{}
		r := conn.ExecParams(t.Context(), "SELECT v FROM unnest($1::text[]) WITH ORDINALITY u(v, n) ORDER BY n", [][]byte{[]byte(a)}, nil, nil, nil).Read()
		if r.Err != nil {
			t.Fatal(a, r.Err)
		}
		for _, row := range r.Rows {
			want = append(want, fmt.Sprintf("%q %v", row[0], row[0] == nil))
		}
		binary := conn.ExecParams(t.Context(), "SELECT $1::text[]", [][]byte{[]byte(a)}, nil, nil, []int16{1}).Read()
		for _, p := range []policy.Param{{Value: []byte(a)}, {Value: binary.Rows[0][0], Binary: true}} {
			got := []string{}
			values, err := members(p)
			for _, v := range values {
				got = append(got, fmt.Sprintf("%q %v", v, v == nil))
			}
			if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("%s: %v %v, want %v", a, got, err, want)
			}
		}
	}
	for _, a := range []string{"", "{", "a", "{a}b", "{a", `{"a`, "{a}{b}", "{{{{{{{a}}}}}}}", "}", "{a}}"} {
		if v, err := members(policy.Param{Value: []byte(a)}); err == nil {
			t.Errorf("%q is read as %q", a, v)
		}
	}
}

func FuzzMembers(f *testing.F) {
	for _, a := range arrays {
		f.Add([]byte(a), false)
	}
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01a\xff\xff\xff\xff"), true)
	f.Fuzz(func(t *testing.T, b []byte, binary bool) {
		values, err := members(policy.Param{Value: b, Binary: binary})
		if err != nil && values != nil {
			t.Errorf("%q beside an error", values)
		}
	})
}

// Each member of a list counts, however it is sent; what cannot be counted is refused.
func TestT42_ConstantsOfAStatement(t *testing.T) {
	h, gate := taggedHouse(t)
	conn := h.connect()
	counted := func(query string, params ...string) string {
		t.Helper()
		var values [][]byte
		for _, p := range params {
			values = append(values, []byte(p))
		}
		var err error
		if params == nil {
			_, err = conn.Exec(t.Context(), query).ReadAll()
		} else {
			err = conn.ExecParams(t.Context(), query, values, nil, nil, nil).Read().Err
		}
		if err != nil {
			return pgErrorOf(t, err).Code
		}
		var last []string
		for _, e := range gate.Events() {
			if e.What == "admit" {
				last = last[:0]
				for _, c := range e.Constants {
					last = append(last, strings.ReplaceAll(strings.TrimPrefix(string(c), "public.patients."), "\x00", "="))
				}
			}
		}
		return strings.Join(last, " ")
	}
	for _, c := range []struct {
		query  string
		params []string
		want   string
	}{
		{"SELECT id FROM patients WHERE ssn = '1'", nil, "ssn=1"},
		{"SELECT id FROM patients WHERE ssn = '2'", nil, "ssn=2"}, // of the same shape
		{"SELECT id FROM patients WHERE ssn IN ('3', '4') AND city = '5'", nil, "ssn=3 ssn=4"},
		{"SELECT id FROM patients WHERE ssn = $1 OR ssn = $2", []string{"6", "7"}, "ssn=6 ssn=7"},
		{"SELECT id FROM patients WHERE ssn = ANY ($1)", []string{`{8,"9"}`}, "ssn=8 ssn=9"},
		{"SELECT id FROM patients WHERE ssn = ANY ($1::text[])", []string{`{{a,b},{c,d}}`}, "ssn=a ssn=b ssn=c ssn=d"},
		{"SELECT id FROM patients WHERE ssn = ANY ('{10,NULL}')", nil, "ssn=10"},
		{"SELECT id FROM patients WHERE ssn = ANY ($1)", []string{"{8"}, "42501"},
		{"PREPARE p(text) AS SELECT id FROM patients WHERE ssn = $1", nil, ""},
		{"EXECUTE p('11')", nil, "ssn=11"},
		{"EXECUTE p('1' || '2')", nil, "42501"},
		{"SELECT number FROM everyone WHERE number = '12'", nil, "ssn=12"},
	} {
		if got := counted(c.query, c.params...); got != c.want {
			t.Errorf("%s %q: counts %q, want %q", c.query, c.params, got, c.want)
		}
	}
}

func TestComparisonsOfAnotherTextOfTheSameShape(t *testing.T) {
	c := comparisons{text: "SELECT 1", at: 0, all: []comparison{{equals: []sql.Constant{{Text: "1"}}}}}
	if c.otherwise(&said{text: "SELECT 1"}) || !c.otherwise(&said{text: "SELECT 2"}) || !c.otherwise(&said{text: "SELECT 1", at: 1}) {
		t.Error("a text stands for another")
	}
}
