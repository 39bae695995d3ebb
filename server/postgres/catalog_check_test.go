package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// shown runs a query and returns the first column of all rows.
func shown(t *testing.T, conn *pgconn.PgConn, query string) string {
	t.Helper()
	results, err := conn.Exec(t.Context(), query).ReadAll()
	if err != nil {
		t.Fatal(query, err)
	}
	var out []string
	for _, row := range results[len(results)-1].Rows {
		out = append(out, string(row[0]))
	}
	return strings.Join(out, " ")
}

// changing is a house, the database's owner on a connection of his own, and
// views that show the city at first.
func changing(t *testing.T) (*house, func(sql string)) {
	t.Helper()
	h, _ := taggedHouse(t)
	owner := func(sql string) { h.target.server.Exec(t, h.target.info.Database, sql) }
	owner("CREATE VIEW place AS SELECT city AS x FROM patients WHERE id = 1; CREATE VIEW above AS SELECT x || '' AS x FROM place")
	return h, owner
}

const viewOfSSN = "CREATE OR REPLACE VIEW place AS SELECT ssn AS x FROM patients WHERE id = 1"

// What the catalogue said a moment ago is believed for 30 s, but not of what
// somebody changed around the broker meanwhile.
func TestT35_AViewReplacedAroundTheBroker(t *testing.T) {
	h, owner := changing(t)
	conn := h.connect()
	for _, query := range []string{"SELECT x FROM place", "SELECT x FROM above", "SELECT upper(x) FROM place"} {
		if got := shown(t, conn, query); strings.ToLower(got) != "graz" {
			t.Fatalf("%s: %s", query, got)
		}
	}
	owner(viewOfSSN)
	for _, query := range []string{"SELECT x FROM place", "SELECT x FROM above", "SELECT upper(x) FROM place"} {
		if got := shown(t, conn, query); got != "***" {
			t.Errorf("%s: %s", query, got)
		}
	}
}

func TestT35_AViewReplacedBetweenParseAndExecute(t *testing.T) {
	h, owner := changing(t)
	w := h.wire()
	w.send(parse("s", "SELECT x FROM above"), syncMessage)
	w.expect("Z", "1", "ZI")
	w.send(bind("", "s"), execute("", 0), syncMessage)
	w.expect("Z", "2", "D:Graz", "C:SELECT 1", "ZI")
	owner(viewOfSSN)
	w.send(bind("", "s"), execute("", 0), syncMessage)
	w.expect("Z", "2", "D:***", "C:SELECT 1", "ZI")
	w.send(parse("t", "SELECT x FROM place"), syncMessage)
	w.expect("Z", "1", "ZI")
	owner("CREATE OR REPLACE VIEW place AS SELECT city AS x FROM patients WHERE id = 1")
	w.send(bind("", "t"), execute("", 0), syncMessage)
	w.expect("Z", "2", "D:***", "C:SELECT 1", "ZI") // what it was when it ran is not known
	w.send(bind("", "t"), execute("", 0), syncMessage)
	w.expect("Z", "2", "D:Graz", "C:SELECT 1", "ZI")
}

// A session that has changed the schema and not committed sees nothing that is
// not proved by what PostgreSQL itself says of a column; nor does its view show
// more once it is committed.
func TestT35_AViewReplacedInThisTransaction(t *testing.T) {
	h, _ := changing(t)
	conn := h.connect()
	shown(t, conn, "SELECT x FROM place")
	shown(t, conn, "BEGIN")
	shown(t, conn, viewOfSSN)
	if got := shown(t, conn, "SELECT x FROM place"); got != "***" {
		t.Errorf("before commit: %s", got)
	}
	shown(t, conn, "COMMIT")
	if got := shown(t, conn, "SELECT x FROM place"); got != "***" {
		t.Errorf("after commit: %s", got)
	}
	if got := shown(t, conn, "SELECT city FROM patients WHERE id = 1"); got != "Graz" {
		t.Errorf("an untagged column after commit: %s", got)
	}
}

func TestT35_ATableMadeAnew(t *testing.T) {
	h, owner := changing(t)
	conn := h.connect()
	shown(t, conn, "SELECT ssn FROM patients")
	owner("DROP TABLE patients CASCADE; CREATE TABLE patients (ssn text, city text, id int primary key); INSERT INTO patients VALUES ('512-47-8366', 'Graz', 1)")
	for query, want := range map[string]string{"SELECT ssn FROM patients": "***", "SELECT city FROM patients": "Graz", "SELECT upper(ssn) FROM patients": "***"} {
		if got := shown(t, conn, query); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
}

// A child that is attached brings its own tags along.
func TestT35_AChildAttachedAroundTheBroker(t *testing.T) {
	h, owner := changing(t)
	owner("CREATE TABLE parent (id int, ssn text); CREATE TABLE other (id int, ssn text)")
	conn := h.connect()
	shown(t, conn, "SELECT ssn FROM parent")
	owner("CREATE TABLE heir () INHERITS (patients, parent); INSERT INTO heir (id, ssn) VALUES (9, '512-47-8366')")
	if got := shown(t, conn, "SELECT ssn || '' FROM parent"); got != "***" {
		t.Errorf("an expression: %s", got)
	}
	if got := shown(t, conn, "SELECT ssn FROM parent"); got != "***" {
		t.Errorf("the column: %s", got)
	}
}

// A relation that comes before the one that was meant.
func TestT35_ANameShadowedAroundTheBroker(t *testing.T) {
	h, owner := changing(t)
	owner("CREATE SCHEMA front; GRANT USAGE ON SCHEMA front TO PUBLIC")
	conn := h.connect()
	shown(t, conn, "SET search_path = front, public")
	if got := shown(t, conn, "SELECT x || '' FROM place"); got != "Graz" {
		t.Fatal(got)
	}
	owner("CREATE VIEW front.place AS SELECT ssn AS x FROM public.patients WHERE id = 1")
	if got := shown(t, conn, "SELECT x || '' FROM place"); got != "***" {
		t.Errorf("shows %s", got)
	}
}

func TestT35_ADatabaseMadeAnew(t *testing.T) {
	h, _ := changing(t)
	shown(t, h.connect(), "SELECT ssn FROM patients")
	name := h.target.info.Database
	h.target.server.Exec(t, "postgres", fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", name))
	h.target.server.Exec(t, "postgres", "CREATE DATABASE "+name)
	h.target.server.Exec(t, name, "CREATE TABLE patients (city text, id int, ssn text); INSERT INTO patients VALUES ('Graz', 1, '512-47-8366'); CREATE VIEW place AS SELECT ssn AS x FROM patients")
	conn := h.connect()
	for query, want := range map[string]string{"SELECT ssn FROM patients": "***", "SELECT x FROM place": "***", "SELECT city FROM patients": "Graz"} {
		if got := shown(t, conn, query); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
}

// Somebody replaces the view over and over while it is read: whatever comes,
// it is never the value.
func TestT35_AViewReplacedAllTheTime(t *testing.T) {
	h, owner := changing(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 40 {
			owner(viewOfSSN)
			owner("CREATE OR REPLACE VIEW place AS SELECT city AS x FROM patients WHERE id = 1")
		}
	}()
	conn, err := pgx.Connect(t.Context(), h.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	seen := map[string]int{}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for _, query := range []string{"SELECT x FROM place", "SELECT x FROM above"} {
			var x string
			if err := conn.QueryRow(t.Context(), query).Scan(&x); err != nil {
				t.Fatal(err)
			}
			if seen[x]++; x != "***" && x != "Graz" {
				t.Fatalf("%s shows %s", query, x)
			}
		}
	}
	t.Log(seen)
}

func TestHorizon(t *testing.T) {
	h, err := parseHorizon("100:205:100,203")
	if err != nil {
		t.Fatal(err)
	}
	for xmin, want := range map[uint32]bool{1: true, 2: true, 99: true, 100: false, 101: true, 203: false, 204: true, 205: false, 300: false} {
		if h.saw(xmin) != want {
			t.Errorf("%d: %v", xmin, !want)
		}
	}
	if h, err = parseHorizon("8589934600:8589934600:"); err != nil || h.saw(9) || !h.saw(7) || !h.saw(4294967295) {
		t.Errorf("behind a wrap of the ids: %+v %v", h, err)
	}
	for _, bad := range []string{"", "1:2", "a:b:c", "1:2:x", "1:99999999999999999999:"} {
		if h, err := parseHorizon(bad); err == nil {
			t.Errorf("%q is %+v", bad, h)
		}
	}
	if (horizon{}).saw(5) {
		t.Error("the zero horizon has seen something")
	}
}
