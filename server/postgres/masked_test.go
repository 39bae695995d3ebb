package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

const clinic = `CREATE TABLE patients (id int primary key, ssn text, city text);
INSERT INTO patients VALUES (1, '123-45-6789', 'Graz'), (2, NULL, 'Linz');
CREATE TABLE rooms (id int, name text); INSERT INTO rooms VALUES (1, 'blue');
CREATE VIEW everyone AS SELECT id, ssn AS number FROM patients;`

// maskingGate hides what is not proven and what is tagged.
func maskingGate() *sessiontest.Gate {
	return &sessiontest.Gate{
		Tagged: []policy.Tag{{Column: policy.ColumnRef{Schema: "public", Table: "patients", Column: "ssn"}, Tag: "phi", Mask: "redact"}},
		Hide: func(c session.Column) session.ColumnPlan {
			for _, s := range c.Sources {
				if s.Column == "ssn" {
					return session.ColumnPlan{Rewrite: stars{}, Method: "redact", Tag: "phi", Why: c.Why}
				}
			}
			if !c.Proven {
				return session.ColumnPlan{Rewrite: stars{}, Method: "redact", Why: c.Why}
			}
			return session.ColumnPlan{}
		},
	}
}

func taggedHouse(t *testing.T) (*house, *sessiontest.Gate) {
	gate := maskingGate()
	h := newHouse(t, gate)
	h.target.info.Database = h.target.server.Database(t, clinic)
	return h, gate
}

func TestT40_ColumnsOfATaggedTarget(t *testing.T) {
	h, _ := taggedHouse(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		config, err := pgx.ParseConfig(h.url())
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = mode
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		for sql, want := range map[string]string{
			"SELECT id, ssn, city FROM patients ORDER BY id":                     "[1 *** Graz] [2 <nil> Linz]",
			"SELECT ssn AS city, city AS ssn FROM patients WHERE id = 1":         "[*** Graz]",
			"SELECT p.ssn FROM patients p JOIN rooms r USING (id)":               "[***]",
			"SELECT substr(ssn, 1, 3) FROM patients WHERE id = 1":                "[***]",
			"SELECT number FROM everyone WHERE id = 1":                           "[***]",
			"SELECT name FROM rooms":                                             "[blue]",
			"SELECT 1 + 1, 'x'::text":                                            "[2 x]",
			"UPDATE patients SET city = 'Graz' WHERE id = 1 RETURNING city, ssn": "[Graz ***]",
			"UPDATE patients SET city = 'Graz' WHERE id = 1 RETURNING city":      "[Graz]",
		} {
			for range 2 {
				rows, err := conn.Query(t.Context(), sql)
				if err != nil {
					t.Fatal(sql, err)
				}
				var got []string
				for rows.Next() {
					values, err := rows.Values()
					if err != nil {
						t.Fatal(sql, err)
					}
					got = append(got, fmt.Sprint(values))
				}
				if err := rows.Err(); err != nil || strings.Join(got, " ") != want {
					t.Errorf("%s, %s: %s %v, want %s", mode, sql, got, err, want)
				}
			}
		}
	}
}

// A client may execute without ever asking what the columns are, and after
// something else took the portal's place.
func TestT40_RowsWithoutADescribe(t *testing.T) {
	h, gate := taggedHouse(t)
	w := h.wire()
	w.send(parse("", "SELECT ssn FROM patients ORDER BY id"), bind("", ""), execute("", 0), syncMessage)
	w.expect("Z", "1", "2", "D:***", "D:", "C:SELECT 2", "ZI")
	w.send(parse("s", "SELECT ssn FROM patients ORDER BY id"), &pgproto3.Describe{ObjectType: 'S', Name: "s"}, syncMessage)
	w.expect("Z", "1", "t", "T", "ZI")
	for range 2 {
		w.send(bind("", "s"), execute("", 0), syncMessage)
		w.expect("Z", "2", "D:***", "D:", "C:SELECT 2", "ZI")
	}
	w.send(bind("", "s"), &pgproto3.Describe{ObjectType: 'P'}, execute("", 1), execute("", 0), syncMessage)
	w.expect("Z", "2", "T", "D:***", "s", "D:", "C:SELECT 1", "ZI")
	w.send(query("BEGIN"), query("DECLARE c CURSOR FOR SELECT ssn FROM patients"), query("FETCH ALL c"), execute("c", 0), syncMessage)
	for range 3 {
		w.until("Z")
	}
	w.expect("Z", "E34000", "ZT")
	w.send(query("PREPARE p AS SELECT ssn FROM patients WHERE id = 1"), query("EXECUTE p"))
	w.expect("Z", "C:PREPARE", "ZT")
	w.expect("Z", "T", "D:***", "C:SELECT 1", "ZT")
	for _, e := range gate.Events() {
		if strings.Contains(string(e.Bytes), "123-45-6789") {
			t.Errorf("%s of %q holds the raw value", e.What, e.Statement)
		}
		if e.What == "done" && e.Outcome.Status == "SELECT 2" && (len(e.Outcome.Masked) != 1 || e.Outcome.Masked[0].Cells != 1 || e.Outcome.Masked[0].Name != "ssn") {
			t.Errorf("masked %+v", e.Outcome.Masked)
		}
	}
}

// A function may open a cursor whose columns are named by values.
func TestT41_ColumnNamesCarryNoValues(t *testing.T) {
	h, _ := taggedHouse(t)
	w := h.wire()
	w.send(query("BEGIN"), query(`DO $$ DECLARE s text; BEGIN SELECT ssn INTO s FROM patients WHERE id = 1; EXECUTE format('DECLARE cc CURSOR FOR SELECT 1 AS %I, id AS %I, city FROM patients', s, s); END $$`))
	w.until("Z")
	w.until("Z")
	w.send(query("FETCH 1 FROM cc"))
	m, err := w.f.Receive()
	if err != nil {
		t.Fatal(err)
	}
	description, ok := m.(*pgproto3.RowDescription)
	if !ok {
		t.Fatalf("%#v", m)
	}
	var names []string
	for _, f := range description.Fields {
		names = append(names, string(f.Name))
	}
	if strings.Contains(strings.Join(names, " "), "123") || len(names) != 3 {
		t.Errorf("columns %q", names)
	}
	w.until("Z")
}

// A pooler that hands out another backend is known by its process id.
func TestPoolerBeforeATargetWithTags(t *testing.T) {
	gate := maskingGate()
	h, pooler := hostileHouse(t, gate, func(int) []byte { return nil })
	pooler.pid = "4711"
	_, err := pgconn.Connect(t.Context(), h.url())
	if pg := pgErrorOf(t, err); pg.Code != "42501" || !strings.Contains(pg.Message, "pooler") {
		t.Errorf("told %+v", pg)
	}
}

func TestT41_ErrorsAndNoticesCarryNoValues(t *testing.T) {
	h, _ := taggedHouse(t)
	w := h.wire()
	for _, sql := range []string{
		"SELECT ssn::int FROM patients", "SELECT xmlparse(document ssn) FROM patients", "INSERT INTO patients SELECT id, ssn, city FROM patients",
		"DO $$ DECLARE v text; BEGIN SELECT ssn INTO v FROM patients WHERE id = 1; RAISE NOTICE '%', v; RAISE EXCEPTION '%', v; END $$",
		"SET TimeZone = 'no such zone 123-45-6789'",
	} {
		w.send(query(sql))
		for {
			m, err := w.f.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(fmt.Sprintf("%+v", m), "123-45-6789") {
				t.Errorf("%s: %+v", sql, m)
			}
			if _, ok := m.(*pgproto3.ReadyForQuery); ok {
				break
			}
		}
	}
	w.send(query("LISTEN c"))
	w.until("Z")
	h.target.server.Exec(t, h.target.info.Database, "SELECT pg_notify('c', ssn) FROM patients WHERE id = 1")
	w.expect("A", "A:c=")
}

func TestPinsOnATaggedTarget(t *testing.T) {
	h, _ := taggedHouse(t)
	w := h.wire()
	for sql, want := range map[string]string{
		"SET bytea_output = 'escape'": "E42501", "SET client_min_messages = debug5": "E42501", "SET DateStyle = 'German'": "E42501", "SET debug_print_plan = on": "E42501",
		"SET intervalstyle = iso_8601": "E42501", "SET client_encoding = 'LATIN1'": "E42501", "SET standard_conforming_strings = off": "E42501",
		"SET extra_float_digits = 3": "C:SET", "SET client_encoding = 'UTF8'": "C:SET", "SET DateStyle = ISO": "C:SET", "SET standard_conforming_strings = on": "C:SET",
		"SET client_min_messages = warning": "C:SET", "DISCARD ALL": "C:DISCARD ALL", "RESET ALL": "C:RESET", "SET TimeZone = 'UTC'": "C:SET", "SHOW client_encoding": "T", "SET NAMES 'utf8'": "C:SET",
	} {
		w.send(query(sql))
		if got := w.until("Z"); got[0] != want && (len(got) < 2 || got[1] != want) {
			t.Errorf("%s: %q", sql, got)
		}
	}
}

func TestDDLMakesOthersReadTheCatalogueAgain(t *testing.T) {
	h, _ := taggedHouse(t)
	a, b := h.wire(), h.wire()
	b.send(query("SELECT * FROM rooms"))
	b.expect("Z", "T", "D:1,blue", "C:SELECT 1", "ZI")
	a.send(query("ALTER TABLE patients RENAME ssn TO harmless"))
	a.until("Z")
	b.send(query("SELECT harmless FROM patients WHERE id = 1"))
	b.expect("Z", "T", "D:***", "C:SELECT 1", "ZI")
	// in a transaction that changed the schema nothing is certain until it ends
	a.send(query("BEGIN"), query("ALTER TABLE rooms RENAME name TO n2"), query("SELECT n2 FROM rooms"), query("COMMIT"), query("SELECT n2 FROM rooms"))
	a.until("Z")
	a.until("Z")
	a.expect("Z", "T", "D:***", "C:SELECT 1", "ZT")
	a.until("Z")
	a.expect("Z", "T", "D:blue", "C:SELECT 1", "ZI")
}

// What a text means is decided by the search_path that it will run under.
func TestT35_SearchPath(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	h.target.info.Database = h.target.server.Database(t, clinic, "CREATE SCHEMA shadow; GRANT USAGE ON SCHEMA shadow TO PUBLIC; CREATE TABLE shadow.rooms (id int, name text)")
	w := h.wire()
	tables := func(sql ...string) string {
		t.Helper()
		for _, q := range sql {
			w.send(query(q))
			w.until("Z")
		}
		var last []string
		for _, e := range gate.Events() {
			if e.What == "admit" && e.Kind == "SELECT" {
				last = e.Facts.Tables
			}
		}
		return strings.Join(last, ",")
	}
	for _, c := range []struct {
		sql  []string
		want string
	}{
		{[]string{"SELECT * FROM rooms"}, "public.rooms"},
		{[]string{"SET search_path = shadow, public", "SELECT * FROM rooms"}, "shadow.rooms"},
		{[]string{"RESET search_path", "SELECT * FROM rooms"}, "public.rooms"},
		{[]string{"BEGIN", "SET LOCAL search_path = shadow", "SELECT * FROM rooms"}, "shadow.rooms"},
		{[]string{"ROLLBACK", "SELECT * FROM rooms"}, "public.rooms"},
		{[]string{"SELECT set_config('search_path', 'shadow', false)", "SELECT * FROM rooms"}, "shadow.rooms"},
		{[]string{"DISCARD ALL", "SELECT * FROM rooms"}, "public.rooms"},
		{[]string{"CREATE TEMP TABLE rooms (a int)", "SELECT * FROM rooms"}, "pg_temp.rooms"},
	} {
		got := tables(c.sql...)
		if c.want == "pg_temp.rooms" && strings.HasPrefix(got, "pg_temp") && strings.HasSuffix(got, ".rooms") {
			continue
		}
		if got != c.want {
			t.Errorf("%q reads %s, want %s", c.sql, got, c.want)
		}
	}
	w.send(query("SET search_path = shadow; SELECT * FROM rooms"))
	w.expect("Z", "E42501", "ZI")
	w.send(parse("", "SET search_path = shadow"), bind("", ""), execute("", 0), parse("", "SELECT * FROM rooms"), bind("", ""), execute("", 0), syncMessage)
	got := w.until("Z")
	if got[len(got)-2] != "E08P01" {
		t.Errorf("in one pipeline: %q", got)
	}
}

// COPY's wire does not say what its columns are; the statement and the
// catalogue do.
func TestT40_CopyOut(t *testing.T) {
	h, gate := taggedHouse(t)
	h.target.server.Exec(t, h.target.info.Database, `INSERT INTO patients VALUES (3, E'9\t9\\9,"\n', E'a\t"b"\n,\\'), (4, '', '')`)
	pg := h.connect()
	for sql, want := range map[string]string{
		"COPY patients TO STDOUT": "1\t***\tGraz\n2\t\\N\tLinz\n3\t***\ta\\t\"b\"\\n,\\\\\n4\t***\t\n",
		"COPY patients (ssn, id) TO STDOUT (DELIMITER '|', NULL 'none')": "***|1\nnone|2\n***|3\n***|4\n",
		"COPY patients TO STDOUT (FORMAT csv, HEADER)":                   "id,ssn,city\n1,\"***\",Graz\n2,,Linz\n3,\"***\",\"a\t\"\"b\"\"\n,\\\"\n4,\"***\",\"\"\n",
		"COPY public.patients (ssn) TO STDOUT CSV QUOTE '''' ESCAPE '#'": "'***'\n\n'***'\n'***'\n",
		"COPY rooms TO STDOUT": "1\tblue\n",
	} {
		var out strings.Builder
		if _, err := pg.CopyTo(t.Context(), &out, sql); err != nil || out.String() != want {
			t.Errorf("%s: %v\ngot  %q\nwant %q", sql, err, out.String(), want)
		}
	}
	var out bytes.Buffer
	if _, err := pg.CopyTo(t.Context(), &out, "COPY patients TO STDOUT (FORMAT binary)"); err != nil || bytes.Contains(out.Bytes(), []byte("123-45")) || bytes.Count(out.Bytes(), []byte("***")) != 3 {
		t.Errorf("binary: %v %q", err, out.Bytes())
	}
	h.target.server.Exec(t, h.target.info.Database, "CREATE TABLE back (LIKE patients)")
	if tag, err := pg.CopyFrom(t.Context(), &out, "COPY back FROM STDIN (FORMAT binary)"); err != nil || tag.String() != "COPY 4" {
		t.Errorf("what was shown is no COPY file any more: %v", err)
	}
	for _, sql := range []string{"COPY (SELECT ssn FROM patients) TO STDOUT", "COPY (SELECT 1) TO STDOUT", "COPY patients TO STDOUT (ENCODING 'SJIS')"} {
		var out strings.Builder
		if _, err := pg.CopyTo(t.Context(), &out, sql); out.String() != "" || err == nil {
			t.Errorf("%s: %v %q", sql, err, out.String())
		}
	}
	for _, e := range gate.Events() {
		if strings.Contains(string(e.Bytes), "123-45-6789") && e.Dir == session.ToClient {
			t.Errorf("%s of %q holds the raw value", e.What, e.Statement)
		}
		if e.What == "done" && e.Statement == "COPY patients TO STDOUT" && (len(e.Outcome.Masked) != 1 || e.Outcome.Masked[0].Cells != 3) {
			t.Errorf("masked %+v", e.Outcome.Masked)
		}
	}
}

// A cursor that SQL declared is a portal: psycopg asks for its columns. On a
// target with tags only of one whose text was read.
func TestT40_DescribeOfACursor(t *testing.T) {
	h, _ := taggedHouse(t)
	w := h.wire()
	w.send(query("BEGIN"), query("DECLARE c CURSOR FOR SELECT id, ssn FROM patients ORDER BY id"))
	w.until("Z")
	w.until("Z")
	w.send(&pgproto3.Describe{ObjectType: 'P', Name: "c"}, syncMessage)
	w.expect("Z", "T", "ZT")
	w.send(query("FETCH 1 FROM c"))
	w.expect("Z", "T", "D:1,***", "C:FETCH 1", "ZT")
	w.send(query("CLOSE c"))
	w.until("Z")
	w.send(&pgproto3.Describe{ObjectType: 'P', Name: "c"}, syncMessage)
	w.expect("Z", "E34000", "ZT")
}

// Whoever is cleared for everything works as if nothing were tagged: the
// target's own words, any COPY, any setting.
func TestTheClearedWorkAsIfNothingWereTagged(t *testing.T) {
	h, gate := taggedHouse(t)
	gate.Cleared = true
	conn := h.connect()
	if _, err := conn.Exec(t.Context(), "SELECT ssn::int FROM patients WHERE id = 1").ReadAll(); !strings.Contains(pgErrorOf(t, err).Message, "123-45-6789") {
		t.Errorf("told %v", err)
	}
	for _, sql := range []string{"SET bytea_output = escape", "DO $$ BEGIN END $$", "SELECT 1 FROM patients WHERE ssn LIKE '1%'"} {
		if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	var out strings.Builder
	if _, err := conn.CopyTo(t.Context(), &out, "COPY (SELECT ssn || '!' FROM patients ORDER BY id) TO STDOUT"); err != nil || out.String() != "123-45-6789!\n\\N\n" {
		t.Errorf("%v %q", err, out.String())
	}
	for _, e := range gate.Events() {
		if e.What == "plan" {
			t.Errorf("a plan of %q", e.Statement)
		}
	}
}
