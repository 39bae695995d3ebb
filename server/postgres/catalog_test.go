package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
	"github.com/hoopctl/hoopctl/server/session"
)

// clinicTags are the classification that the tests work under.
func clinicTags() []policy.Tag {
	tag := func(table, column, name string) policy.Tag {
		return policy.Tag{Column: policy.ColumnRef{Schema: "public", Table: table, Column: column}, Tag: name, Mask: "redact", Classification: "clinic-phi"}
	}
	return []policy.Tag{tag("patients", "ssn", "phi"), tag("patients", "name", "phi"), tag("visits", "note", "phi"), tag("patients", "checked", "none")}
}

const clinicSchema = `CREATE TABLE patients(id int PRIMARY KEY, name text, ssn text, zip varchar(5), upper_ssn text GENERATED ALWAYS AS (upper(ssn)) STORED, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO patients VALUES (1, 'Ada', '123-45-6789', '94110');
CREATE TABLE doctors(id int PRIMARY KEY, city text);
INSERT INTO doctors VALUES (1, 'Oslo');
CREATE VIEW people AS SELECT id, ssn AS number FROM patients;
CREATE TABLE visits(id int, at date, note text) PARTITION BY RANGE (at);
CREATE TABLE visits_2025 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');`

// world is one database and its catalogue under a clock of the test's own.
type world struct {
	t         testing.TB
	server    *pgtest.Server
	name      string
	url       string
	catalogs  *catalogs
	catalog   *catalog
	baselines memoryBaselines
	now       time.Time
	connects  int
	timeout   time.Duration
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, server: pgtest.Start(t), baselines: memoryBaselines{}, now: time.Unix(1e9, 0)}
	w.name = w.server.Database(t, clinicSchema)
	w.url = w.server.DatabaseURL(w.name)
	w.restart()
	return w
}

// restart forgets everything that a process would.
func (w *world) restart() {
	w.catalogs = newCatalogs(catalogConfig{Now: func() time.Time { return w.now }, Baselines: w.baselines, LockTimeout: 300 * time.Millisecond, Timeout: w.timeout})
	w.catalog = w.catalogs.of(session.TargetInfo{Name: "clinic", Generation: "1"}, w.name)
}

func (w *world) connect(ctx context.Context) (*pgconn.PgConn, error) {
	w.connects++
	return pgconn.Connect(ctx, w.url)
}

func (w *world) exec(sql string) {
	w.t.Helper()
	w.server.Exec(w.t, w.name, sql)
}

// classified reads anew, as after DDL through us.
func (w *world) classified(tags ...policy.Tag) *classified {
	w.t.Helper()
	w.catalogs.invalidate("clinic")
	if tags == nil {
		tags = clinicTags()
	}
	c, err := w.catalog.classified(w.t.Context(), w.connect, 0, tags)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// columns runs a query on the real server and returns the provenance of what
// its RowDescription says, one word a column: raw, hidden, or the tagged
// sources, "derived " in front if it is not bare.
func (w *world) columns(c *classified, sql string, from result) string {
	w.t.Helper()
	conn, err := pgconn.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(w.t.Context())
	description, err := conn.Prepare(w.t.Context(), "", sql, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var fields []field
	for _, f := range description.Fields {
		fields = append(fields, field{TableOID: f.TableOID, Attnum: int16(f.TableAttributeNumber), TypeOID: f.DataTypeOID, Typmod: f.TypeModifier, Name: f.Name})
	}
	var out []string
	for _, col := range c.provenance(fields, from) {
		out = append(out, w.word(c, col))
	}
	return strings.Join(out, ", ")
}

func (w *world) word(c *classified, col session.Column) string {
	if !col.Proven {
		return "hidden"
	}
	var tagged []string
	for _, source := range col.Sources {
		for _, t := range clinicTags() {
			if t.Tag != "none" && t.Column == source {
				tagged = append(tagged, source.String())
			}
		}
	}
	switch {
	case len(tagged) == 0:
		return "raw"
	case col.Bare:
		return strings.Join(tagged, "+")
	default:
		return "derived " + strings.Join(tagged, "+")
	}
}

// memoryBaselines is a store that a restart survives.
type memoryBaselines map[string][]byte

func (m memoryBaselines) UpdateBaseline(_ context.Context, key string, fn func([]byte) ([]byte, error)) error {
	doc, err := fn(m[key])
	if err == nil && doc != nil {
		m[key] = doc
	}
	return err
}

// facts of a SELECT as the grammar gives them: names as searched.
func selects(relations ...policy.Relation) *policy.Facts {
	f := &policy.Facts{Kind: "SELECT", Class: policy.Read, Relations: relations, Unresolved: len(relations) > 0}
	for _, r := range relations {
		schema := r.Schema
		if schema == "" {
			schema = "public"
		}
		f.Tables = append(f.Tables, schema+"."+r.Name)
	}
	return f
}

func calls(functions ...string) *policy.Facts { return withFunctions(selects(), functions...) }

func withFunctions(f *policy.Facts, names ...string) *policy.Facts { f.Functions = names; return f }

func withColumns(f *policy.Facts, names ...string) *policy.Facts { f.Columns = names; return f }

func TestCatalog_BareColumnsAreRawOnlyIfUntaggedInAnOrdinaryTable(t *testing.T) {
	w := newWorld(t)
	c := w.classified()
	unknown := result{}
	for sql, want := range map[string]string{
		"SELECT id, name, ssn, zip FROM patients":                             "raw, public.patients.name, public.patients.ssn, raw",
		"SELECT ssn AS zip FROM patients AS p(a, b, ssn)":                     "public.patients.ssn",
		"SELECT c FROM patients AS p(a,b,c)":                                  "public.patients.ssn",
		"SELECT number, id FROM people":                                       "hidden, hidden",
		"SELECT upper(ssn), ssn || '', count(*) OVER () FROM patients":        "hidden, hidden, hidden",
		"SELECT upper_ssn, twice FROM patients":                               "derived public.patients.ssn, raw",
		"SELECT note, at FROM visits":                                         "public.visits.note, raw",
		"SELECT note, at FROM visits_2025":                                    "public.visits.note, raw",
		"SELECT ctid, tableoid FROM patients":                                 "raw, raw",
		"SELECT p FROM patients p":                                            "hidden",
		"SELECT city FROM doctors":                                            "raw",
		"SELECT relname FROM pg_class":                                        "raw",
		"SELECT column_name FROM information_schema.columns":                  "raw",
		"SELECT rolpassword FROM pg_authid":                                   "hidden",
		"SELECT attname, attmissingval FROM pg_attribute":                     "raw, hidden",
		"SELECT histogram_bounds FROM pg_stats":                               "hidden",
		"SELECT query FROM pg_stat_activity":                                  "hidden",
		"SELECT stavalues1 FROM pg_statistic":                                 "hidden",
		"SELECT objid FROM pg_locks":                                          "hidden",
		"SELECT x FROM (SELECT ssn AS x FROM patients UNION SELECT 'a') AS s": "hidden",
		"SELECT 1": "hidden",
	} {
		if got := w.columns(c, sql, unknown); got != want {
			t.Errorf("%s:\n got %s\nwant %s", sql, got, want)
		}
	}
	if got := w.columns(c, "SELECT city FROM doctors", result{dirty: true}); got != "hidden" {
		t.Errorf("in a session that has changed the schema: got %s, want hidden", got)
	}
}

func TestCatalog_StatementsThatReachNoTaggedColumnAreShown(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE FUNCTION leak() RETURNS text LANGUAGE sql AS 'SELECT ssn FROM public.patients LIMIT 1';
		CREATE TABLE ruled(x text); CREATE RULE r AS ON INSERT TO ruled DO INSTEAD SELECT ssn FROM public.patients;
		CREATE FUNCTION "zip code"(doctors) RETURNS text LANGUAGE sql AS 'SELECT ssn FROM public.patients LIMIT 1';
		CREATE TABLE clean(id int); CREATE SEQUENCE counter;`)
	c := w.classified()
	for _, test := range []struct {
		name, sql string
		facts     *policy.Facts
		want      string
	}{
		{"constant", "SELECT 1", calls(), "raw"},
		{"the server's version", "SELECT version()", calls("pg_catalog.version"), "raw"},
		{"clock", "SELECT now(), random()", calls("pg_catalog.now", "pg_catalog.random"), "raw, raw"},
		{"show", "SHOW server_version", &policy.Facts{Kind: "SHOW"}, "raw"},
		{"expression over a clean table", "SELECT count(*) FROM clean", selects(policy.Relation{Name: "clean"}), "raw"},
		{"sequence", "SELECT last_value + 0 FROM counter", selects(policy.Relation{Name: "counter"}), "raw"},
		{"psql's \\d", "SELECT format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute", withFunctions(selects(policy.Relation{Schema: "pg_catalog", Name: "pg_attribute"}), "pg_catalog.format_type"), "raw"},
		{"missing values", "SELECT attmissingval::text FROM pg_attribute", withColumns(selects(policy.Relation{Name: "pg_attribute"}), "public.pg_attribute.attmissingval"), "hidden"},
		{"tagged table", "SELECT count(*) FROM patients", selects(policy.Relation{Name: "patients"}), "hidden"},
		{"partition of a tagged table", "SELECT max(note) FROM visits_2025", selects(policy.Relation{Name: "visits_2025"}), "hidden"},
		{"view", "SELECT max(number) FROM people", selects(policy.Relation{Name: "people"}), "hidden"},
		{"a user's function", "SELECT leak()", calls("public.leak"), "hidden"},
		{"a user's function of unknown schema", "SELECT leak()", calls("leak"), "hidden"},
		{"a function that runs text", "SELECT query_to_xml('select 1', true, false, '')", calls("pg_catalog.query_to_xml"), "hidden"},
		{"a setting", "SELECT current_setting('work_mem')", calls("pg_catalog.current_setting"), "hidden"},
		{"other sessions", "SELECT pg_stat_get_backend_activity(1)", calls("pg_catalog.pg_stat_get_backend_activity"), "hidden"},
		{"a table with rules", "SELECT max(x) FROM ruled", selects(policy.Relation{Name: "ruled"}), "hidden"},
		{"a function that looks like a column", `SELECT d."zip code" FROM doctors d`, selects(policy.Relation{Name: "doctors"}), "hidden"},
		{"nobody knows what ran", "SELECT 1", nil, "hidden"},
		{"fetch", "SELECT 1", &policy.Facts{Kind: "FETCH", Cursor: "c"}, "hidden"},
		{"execute", "SELECT 1", &policy.Facts{Kind: "EXECUTE", Prepared: "p"}, "hidden"},
		{"explain of a prepared statement", "SELECT 1", &policy.Facts{Kind: "EXPLAIN", Prepared: "p"}, "hidden"},
		{"statistics", "SELECT histogram_bounds::text FROM pg_stats", selects(policy.Relation{Name: "pg_stats"}), "hidden"},
	} {
		t.Run(test.name, func(t *testing.T) {
			facts, _ := c.resolve(test.facts, []string{"$user", "public"}, "postgres")
			if got := w.columns(c, test.sql, result{facts: facts}); got != test.want {
				t.Errorf("%s: got %s, want %s", test.sql, got, test.want)
			}
		})
	}
	shown := c.provenance([]field{{Name: "app.ssn", TypeOID: 25}}, result{facts: &policy.Facts{Kind: "SHOW"}})
	if shown[0].Proven {
		t.Error("SHOW of a setting that anybody may have put a value in is shown")
	}
	t.Run("operators of other code", func(t *testing.T) {
		w.exec(`CREATE FUNCTION op(int, int) RETURNS text LANGUAGE sql AS 'SELECT ssn FROM public.patients LIMIT 1';
			CREATE OPERATOR ### (FUNCTION = op, LEFTARG = int, RIGHTARG = int)`)
		c := w.classified()
		facts, _ := c.resolve(calls(), nil, "")
		if got := w.columns(c, "SELECT 1 OPERATOR(public.###) 2", result{facts: facts}); got != "hidden" {
			t.Errorf("got %s, want hidden", got)
		}
	})
}

// The facts of the real grammar, for what ordinary clients send.
func TestCatalog_OrdinaryStatementsWithRealFacts(t *testing.T) {
	w := newWorld(t)
	parser, err := grammar()
	if err != nil {
		t.Fatal(err)
	}
	c := w.classified()
	for sql, want := range map[string]string{
		"SELECT 1, 'a' || 'b', 7 % 2":                                                          "raw, raw, raw",
		"SELECT version(), now() > timestamp '2000-01-01', current_user":                       "raw, raw, raw",
		"SELECT date '2026-01-01' + 1":                                                         "raw",
		"SELECT count(*), max(city), upper(city) FROM doctors GROUP BY city":                   "raw, raw, raw",
		"WITH a AS (SELECT id FROM doctors) SELECT id, row_number() OVER (ORDER BY id) FROM a": "raw, raw",
		"SELECT id FROM doctors UNION ALL SELECT 3":                                            "raw",
		"SELECT CASE WHEN id > 5 THEN 'late' ELSE 'early' END FROM doctors":                    "raw",
		"SELECT g FROM generate_series(1, 3) g":                                                "raw",
		"VALUES (1), (2)":                                                                      "raw",
		"INSERT INTO doctors VALUES (7, 'Rome') RETURNING id, upper(city)":                     "raw, raw",
		"SELECT relname FROM pg_class WHERE relname = 'patients'":                              "raw",
		"SELECT column_name, data_type FROM information_schema.columns":                        "raw, raw",
		"SELECT n.nspname || '', c.relname || '' FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE pg_catalog.pg_table_is_visible(c.oid)":                                                                                 "raw, raw",
		"SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef) FROM pg_catalog.pg_attribute a": "raw, raw, raw",
		"SELECT attmissingval::text FROM pg_attribute":                                         "hidden",
		"SELECT a::text FROM pg_attribute a":                                                   "hidden",
		"SELECT upper(ssn) FROM patients":                                                      "hidden",
		"SELECT id, zip FROM patients":                                                         "raw, raw",
		"SELECT (SELECT ssn FROM patients LIMIT 1)":                                            "hidden",
		"SELECT d.city FROM doctors d WHERE EXISTS (SELECT FROM patients p WHERE p.id = d.id)": "raw",
		"SELECT upper(d.city) FROM doctors d, patients p":                                      "hidden",
		"SELECT query_to_xml('select ssn from patients', true, false, '')::text":               "hidden",
		"SELECT table_to_xml('patients', true, false, '')::text":                               "hidden",
		"SELECT current_setting('a.b', true)":                                                  "hidden",
		"SELECT query || '' FROM pg_stat_activity":                                             "hidden",
		"SELECT most_common_vals::text FROM pg_stats":                                          "hidden",
		"SELECT max(number) FROM people":                                                       "hidden",
	} {
		facts, err := parser.Facts(t.Context(), "", sql)
		if err != nil || len(facts) != 1 {
			t.Fatalf("%s: %v", sql, err)
		}
		known, _ := c.resolve(facts[0], []string{"pg_catalog", "public"}, "postgres")
		if got := w.columns(c, sql, result{facts: known}); got != want {
			t.Errorf("%s:\n got %s\nwant %s\nfacts %+v", sql, got, want, *known)
		}
	}
}

func TestCatalog_RenameDropAndAddKeepTagsByOIDAndNumber(t *testing.T) {
	w := newWorld(t)
	if got := w.columns(w.classified(), "SELECT ssn FROM patients", result{}); got != "public.patients.ssn" {
		t.Fatalf("before: %s", got)
	}
	w.exec("ALTER TABLE patients RENAME COLUMN ssn TO blood_group")
	if got := w.columns(w.classified(), "SELECT blood_group FROM patients", result{}); got != "public.patients.ssn" {
		t.Errorf("after RENAME COLUMN: %s", got)
	}
	w.exec("ALTER TABLE patients RENAME TO people_of_old; CREATE SCHEMA attic; ALTER TABLE people_of_old SET SCHEMA attic")
	if got := w.columns(w.classified(), "SELECT blood_group FROM attic.people_of_old", result{}); got != "public.patients.ssn" {
		t.Errorf("after RENAME TO and SET SCHEMA: %s", got)
	}
	w.restart()
	if got := w.columns(w.classified(), "SELECT blood_group, upper_ssn FROM attic.people_of_old", result{}); got != "public.patients.ssn, derived public.patients.ssn" {
		t.Errorf("after a restart of ours: %s", got)
	}
	w.exec("ALTER TABLE attic.people_of_old DROP COLUMN zip, ADD COLUMN zip text, ADD COLUMN checked text")
	if got := w.columns(w.classified(), "SELECT id, zip, checked FROM attic.people_of_old", result{}); got != "raw, hidden, hidden" {
		t.Errorf("columns that are new: %s", got)
	}
	w.exec("CREATE TABLE patients(id int, ssn text)")
	if got := w.columns(w.classified(), "SELECT ssn FROM patients", result{}); got != "public.patients.ssn" {
		t.Errorf("a table made anew under the tagged name: %s", got)
	}
}

func TestCatalog_NewColumnsAreHiddenUntilClassified(t *testing.T) {
	w := newWorld(t)
	w.classified()
	w.exec("ALTER TABLE patients ADD COLUMN checked text, ADD COLUMN extra text; ALTER TABLE visits ADD COLUMN room text; ALTER TABLE doctors ADD COLUMN phone text")
	for range 2 {
		c := w.classified()
		for sql, want := range map[string]string{
			"SELECT checked, extra, id FROM patients": "raw, hidden, raw", // checked is listed as none
			"SELECT room FROM visits":                 "hidden",
			"SELECT room FROM visits_2025":            "hidden",
			"SELECT phone, city FROM doctors":         "hidden, raw",
		} {
			if got := w.columns(c, sql, result{}); got != want {
				t.Errorf("%s: got %s, want %s", sql, got, want)
			}
		}
		facts, _ := c.resolve(selects(policy.Relation{Name: "doctors"}), []string{"public"}, "")
		if got := w.columns(c, "SELECT upper(phone) FROM doctors", result{facts: facts}); got != "hidden" {
			t.Errorf("expression over a table with a new column: %s", got)
		}
		w.restart() // a restart is no first reading
	}
	w.exec("CREATE TABLE later(a text)")
	if got := w.columns(w.classified(), "SELECT a FROM later", result{}); got != "raw" {
		t.Errorf("a table's own first reading: %s", got)
	}
}

func TestCatalog_DatabaseMadeAnewIsAFirstReading(t *testing.T) {
	w := newWorld(t)
	w.classified()
	w.exec("ALTER TABLE doctors ADD COLUMN phone text")
	if got := w.columns(w.classified(), "SELECT phone FROM doctors", result{}); got != "hidden" {
		t.Fatalf("new column: %s", got)
	}
	w.server.Exec(t, "postgres", `DROP DATABASE "`+w.name+`"`)
	w.server.Exec(t, "postgres", `CREATE DATABASE "`+w.name+`"`)
	w.exec(clinicSchema + "ALTER TABLE doctors ADD COLUMN phone text")
	c := w.classified()
	if got := w.columns(c, "SELECT phone FROM doctors", result{}); got != "raw" {
		t.Errorf("column that was there when the new database was first read: %s", got)
	}
	if got := w.columns(c, "SELECT ssn FROM patients", result{}); got != "public.patients.ssn" {
		t.Errorf("tagged column of the new database: %s", got)
	}
}

func TestCatalog_PartitionsAndInheritance(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE visits_2026 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY RANGE (at);
		CREATE TABLE visits_q1 PARTITION OF visits_2026 FOR VALUES FROM ('2026-01-01') TO ('2026-04-01');
		CREATE TABLE loose(note text, id int, at date);
		CREATE TABLE child(own text) INHERITS (patients);
		CREATE TABLE parent(body text); CREATE TABLE tagged_child(extra text) INHERITS (parent); CREATE TABLE sibling() INHERITS (parent);`)
	tags := append(clinicTags(), policy.Tag{Column: policy.ColumnRef{Schema: "public", Table: "tagged_child", Column: "body"}, Tag: "phi", Classification: "clinic-phi"})
	c := w.classified(tags...)
	held := func(c *classified, table, column string) bool {
		rel, col := c.find(policy.ColumnRef{Schema: "public", Table: table, Column: column})
		return c.hidden(rel.oid, col.num) != nil
	}
	for _, test := range []struct {
		table, column string
		want          bool
	}{
		{"visits_q1", "note", true}, {"visits_q1", "id", false}, {"child", "ssn", true}, {"child", "own", false}, {"loose", "note", false},
		{"tagged_child", "body", true}, {"parent", "body", true}, {"sibling", "body", false}, {"tagged_child", "extra", false},
	} {
		if got := held(c, test.table, test.column); got != test.want {
			t.Errorf("%s.%s held back: %v, want %v", test.table, test.column, got, test.want)
		}
	}
	w.exec(`ALTER TABLE visits ATTACH PARTITION loose FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')`)
	if !held(w.classified(tags...), "loose", "note") {
		t.Error("an attached partition does not inherit its parent's tags")
	}
}

func TestT35_NamesMeanWhatPostgreSQLSaysTheyMean(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE SCHEMA app; CREATE TABLE app.doctors(id int); CREATE TABLE public."Patients"(id int);
		CREATE SCHEMA shy; CREATE TABLE shy.visits(id int); CREATE TABLE public.pg_class(x text);
		GRANT USAGE ON SCHEMA app TO PUBLIC; CREATE VIEW over_view AS SELECT number FROM people; CREATE SCHEMA bob; CREATE TABLE bob.doctors(id int); GRANT USAGE ON SCHEMA bob TO PUBLIC;
		CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
		CREATE TABLE "a.b"(id int);`)
	c := w.classified()
	for _, test := range []struct {
		name       string
		facts      *policy.Facts
		path       []string
		role       string
		tables     []string
		unresolved bool
	}{
		{"public", selects(policy.Relation{Name: "patients"}), []string{"public"}, "", []string{"public.patients"}, false},
		{"quoted case", selects(policy.Relation{Name: "Patients"}), []string{"public"}, "", []string{"public.Patients"}, false},
		{"first of the path", selects(policy.Relation{Name: "doctors"}), []string{"app", "public"}, "", []string{"app.doctors"}, false},
		{"$user", selects(policy.Relation{Name: "doctors"}), []string{"$user", "public"}, "bob", []string{"bob.doctors"}, false},
		{"$user without a schema", selects(policy.Relation{Name: "doctors"}), []string{"$user", "public"}, "eve", []string{"public.doctors"}, false},
		{"written schema", selects(policy.Relation{Schema: "app", Name: "doctors"}), []string{"public"}, "", []string{"app.doctors"}, false},
		{"not in the path", selects(policy.Relation{Name: "doctors"}), nil, "", []string{"public.doctors"}, true},
		{"a schema that the role may have to skip", selects(policy.Relation{Name: "visits"}), []string{"shy", "public"}, "", []string{"public.visits", "shy.visits"}, true},
		{"pg_catalog is implied first", selects(policy.Relation{Name: "pg_class"}), []string{"public"}, "", []string{"pg_catalog.pg_class"}, false},
		{"pg_catalog put last", selects(policy.Relation{Name: "pg_class"}), []string{"public", "pg_catalog"}, "", []string{"public.pg_class"}, false},
		{"a view brings what it reads", selects(policy.Relation{Name: "over_view"}), []string{"public"}, "", []string{"public.over_view", "public.patients", "public.people"}, false},
		{"a partition brings its parent", selects(policy.Relation{Name: "visits_2025"}), []string{"public"}, "", []string{"public.visits", "public.visits_2025"}, false},
		{"a dot in a name", selects(policy.Relation{Name: "a.b"}), []string{"public"}, "", []string{"public.a.b"}, false},
		{"unknown", selects(policy.Relation{Name: "nosuch"}), []string{"public"}, "", []string{"public.nosuch"}, true},
		{"pg_temp of whoever", selects(policy.Relation{Schema: "pg_temp", Name: "doctors"}), []string{"public"}, "", []string{"pg_temp.doctors"}, true},
	} {
		t.Run("T35 "+test.name, func(t *testing.T) {
			facts, oids := c.resolve(test.facts, test.path, test.role)
			if !slices.Equal(facts.Tables, test.tables) || facts.Unresolved != test.unresolved {
				t.Errorf("got %v unresolved %v, want %v %v", facts.Tables, facts.Unresolved, test.tables, test.unresolved)
			}
			if !test.unresolved && len(oids) != len(test.tables) {
				t.Errorf("%d OIDs for %v", len(oids), facts.Tables)
			}
		})
	}
	t.Run("T35 columns", func(t *testing.T) {
		in := selects(policy.Relation{Name: "people"}, policy.Relation{Name: "doctors"})
		in.Columns = []string{"public.people.number", "public.doctors.*"}
		facts, _ := c.resolve(in, []string{"app", "public"}, "")
		want := []string{"app.doctors.id", "public.patients.id", "public.patients.ssn", "public.people.number"}
		if !slices.Equal(facts.Columns, want) {
			t.Errorf("got %v, want %v", facts.Columns, want)
		}
	})
	t.Run("T35 a user's function of a built-in's name", func(t *testing.T) {
		facts, _ := c.resolve(calls("pg_catalog.lower"), []string{"public"}, "")
		if got := w.columns(c, "SELECT lower('A'::varchar)", result{facts: facts}); got != "hidden" {
			t.Errorf("got %s, want hidden", got)
		}
	})
	t.Run("T35 a temporary table shadows", func(t *testing.T) {
		conn, err := pgconn.Connect(t.Context(), w.url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE doctors AS SELECT ssn AS city FROM patients").ReadAll(); err != nil {
			t.Fatal(err)
		}
		c := w.classified()
		facts, _ := c.resolve(selects(policy.Relation{Name: "doctors"}), []string{"public"}, "")
		if !facts.Unresolved || !slices.Contains(facts.Tables, "public.doctors") || len(facts.Tables) != 2 {
			t.Errorf("got %v, unresolved %v: both must be named, and neither be sure", facts.Tables, facts.Unresolved)
		}
	})
}

func TestCatalog_IsReadAgainWhenItMust(t *testing.T) {
	w := newWorld(t)
	ctx, tags := t.Context(), clinicTags()
	get := func() *classified {
		c, err := w.catalog.classified(ctx, w.connect, 0, tags)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := get()
	if get() != first || w.connects != 1 {
		t.Errorf("read %d times within the TTL", w.connects)
	}
	w.now = w.now.Add(31 * time.Second)
	second := get()
	if second == first || w.connects != 2 || second.version <= first.version {
		t.Errorf("not read again after the TTL")
	}
	w.exec("CREATE TABLE fresh(a int)")
	unknown := []field{{TableOID: uint32(integer([]byte(w.server.Exec(t, w.name, "SELECT 'fresh'::regclass::oid")[0][0]))), Attnum: 1}}
	if second.known(unknown) {
		t.Error("a table that was made later is known")
	}
	if c, err := w.catalog.fresher(ctx, w.connect, second, tags); err != nil || c != second {
		t.Error("an unknown OID makes us read without end")
	}
	w.now = w.now.Add(time.Second)
	third, err := w.catalog.fresher(ctx, w.connect, second, tags)
	if err != nil || !third.known(unknown) {
		t.Errorf("a fresher catalogue does not know the new table: %v", err)
	}
	w.catalogs.invalidate("other")
	if get() != third {
		t.Error("DDL on another target ends this one's")
	}
	w.catalogs.invalidate("clinic")
	if get() == third {
		t.Error("DDL does not end what was read before")
	}
}

func TestCatalog_FailsClosed(t *testing.T) {
	w := newWorld(t)
	down := errors.New("target is down")
	refuse := func(context.Context) (*pgconn.PgConn, error) { return nil, down }
	w.classified()
	w.now = w.now.Add(time.Minute)
	if _, err := w.catalog.classified(t.Context(), refuse, 0, clinicTags()); !errors.Is(err, down) {
		t.Errorf("a catalogue that is too old is used when the target does not answer: %v", err)
	}
	w.baselines[w.catalog.baselineKey()] = []byte("{broken")
	w.restart()
	if _, err := w.catalog.classified(t.Context(), w.connect, 0, clinicTags()); err == nil {
		t.Error("a lost memory passes for a first reading")
	}
}

// A client that locks its own tables, or even pg_class, must not stop the
// control connection for longer than its lock timeout.
func TestCatalog_DoesNotWaitForClientsLocks(t *testing.T) {
	w := newWorld(t)
	conn, err := pgconn.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE patients, people, visits IN ACCESS EXCLUSIVE MODE; ALTER TABLE patients RENAME COLUMN ssn TO x").ReadAll(); err != nil {
		t.Fatal(err)
	}
	w.classified()
	if _, err := conn.Exec(t.Context(), "LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	w.timeout = time.Second
	w.restart()
	_, err = w.catalog.classified(t.Context(), w.connect, 0, clinicTags())
	var refused *pgconn.PgError
	if !errors.As(err, &refused) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with pg_class locked: %v, want an error within the time given", err)
	}
}

func TestCatalog_BaselinesOfTwoServersAreMerged(t *testing.T) {
	w := newWorld(t)
	w.classified()
	other := newCatalogs(catalogConfig{Now: func() time.Time { return w.now }, Baselines: w.baselines}).of(session.TargetInfo{Name: "clinic", Generation: "1"}, w.name)
	w.exec("CREATE TABLE later(a text)")
	w.classified() // the first server sees the table with one column
	w.exec("ALTER TABLE later ADD COLUMN b text")
	c, err := other.classified(t.Context(), w.connect, 0, clinicTags())
	if err != nil {
		t.Fatal(err)
	}
	if got := w.columns(c, "SELECT a, b FROM later", result{}); got != "raw, hidden" {
		t.Errorf("the second server calls new what the first has seen: %s", got)
	}
	var b baseline
	if err := json.Unmarshal(w.baselines[w.catalog.baselineKey()], &b); err != nil || len(b.Bound) == 0 {
		t.Errorf("nothing was remembered: %v", err)
	}
}

// Two clusters give the same OIDs to different tables: what was remembered of
// one must not decide about the other.
func TestCatalog_AnotherClusterIsAnotherDatabase(t *testing.T) {
	b := &baseline{System: "1", Database: 5, First: map[string]map[uint32]int16{"c": {16400: 2}}, Bound: map[string][]columnID{"public.t.x": {{16400, 1}}}}
	for _, s := range []*snapshot{{system: "2", database: 5}, {system: "1", database: 6}} {
		if got := b.of(s); len(got.First) != 0 || len(got.Bound) != 0 || got.System != s.system || got.Database != s.database {
			t.Errorf("cluster %s, database %d: %+v is remembered of another", s.system, s.database, got)
		}
	}
	if got := b.of(&snapshot{system: "1", database: 5}); len(got.First) != 1 || len(got.Bound) != 1 {
		t.Errorf("the same database: %+v", got)
	}
}

func TestCatalog_WhatWasReadOfADatabaseIsNotUsedForOneMadeAnew(t *testing.T) {
	w := newWorld(t)
	before := w.classified()
	w.remake("ALTER TABLE patients RENAME ssn TO blood_group")

	after, err := w.catalog.classified(t.Context(), w.connect, w.oid(), clinicTags())
	if err != nil {
		t.Fatal(err)
	}
	if after.database == before.database {
		t.Fatal("the catalogue of the database that is gone was used")
	}
	if got := w.columns(after, "SELECT blood_group, id FROM patients", result{}); got != "hidden, hidden" {
		t.Errorf("the tagged column was renamed before it was ever seen: %s", got)
	}

	w.remake("")
	again, err := w.catalog.classified(t.Context(), w.connect, w.oid(), clinicTags())
	if err != nil {
		t.Fatal(err)
	}
	if got := w.columns(again, "SELECT ssn, id FROM patients", result{}); got != "public.patients.ssn, raw" {
		t.Errorf("made anew as it was: %s", got)
	}
	if _, err := w.catalog.classified(t.Context(), w.connect, after.database, clinicTags()); err == nil {
		t.Error("a session of the database that is gone got the catalogue of the new one")
	}
}

// remake drops the database and makes it anew from the schema.
func (w *world) remake(sql string) {
	w.t.Helper()
	w.server.Exec(w.t, "postgres", "DROP DATABASE "+w.name+" WITH (FORCE)")
	w.server.Exec(w.t, "postgres", "CREATE DATABASE "+w.name)
	w.exec(clinicSchema)
	if sql != "" {
		w.exec(sql)
	}
}

// oid is the database's OID now.
func (w *world) oid() uint32 {
	w.t.Helper()
	conn, err := w.connect(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(w.t.Context())
	read := conn.ExecParams(w.t.Context(), "SELECT oid FROM pg_database WHERE datname = current_database()", nil, nil, nil, nil).Read()
	if read.Err != nil || len(read.Rows) != 1 {
		w.t.Fatal(read.Err)
	}
	return oid(read.Rows[0][0])
}
