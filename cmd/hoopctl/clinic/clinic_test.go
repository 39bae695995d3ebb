package clinic_test

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/cmd/hoopctl/clinic"
	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestRowsAreTheSameEveryTime(t *testing.T) {
	if !slices.Equal(clinic.Rows(), clinic.Rows()) {
		t.Error("two calls made different rows")
	}
}

func TestSample(t *testing.T) {
	pg := pgtest.Start(t)
	db := pg.Database(t)
	load(t, pg, db)
	one := func(sql string) string { return pg.Exec(t, db, sql)[0][0] }
	for _, c := range []struct{ what, sql, want string }{
		{"patients", `SELECT count(*) FROM patients`, "1000"},
		{"ids are 1 to 1000", `SELECT min(id) || '-' || max(id) FROM patients`, "1-1000"},
		{"SSNs that were never issued", `SELECT count(*) FROM patients WHERE ssn !~ '^\d{3}-\d{2}-\d{4}$' OR ssn ~ '^(000|666|9)' OR ssn ~ '-00-' OR ssn ~ '0000$'`, "0"},
		{"phones outside of those for fiction", `SELECT count(*) FROM patients WHERE phone !~ '^\d{3}-555-01\d\d$'`, "0"},
		{"mail addresses outside of those for examples", `SELECT count(*) FROM patients WHERE email !~ '@(mail\.)?example\.(com|net|org)$'`, "0"},
		{"record numbers", `SELECT count(DISTINCT mrn) FROM patients WHERE mrn ~ '^MRN-\d{8}$'`, "1000"},
		{"every patient has a visit", `SELECT count(DISTINCT patient_id) FROM visits`, "1000"},
		{"visits before birth", `SELECT count(*) FROM visits v JOIN patients p ON p.id = v.patient_id WHERE v.visited < p.dob`, "0"},
		{"claims of another's visit", `SELECT count(*) FROM claims c JOIN visits v ON v.id = c.visit_id WHERE c.patient_id <> v.patient_id`, "0"},
		{"a provider has one NPI", `SELECT count(*) FROM (SELECT provider FROM visits GROUP BY provider HAVING count(DISTINCT npi) > 1) x`, "0"},
		{"contacts", `SELECT count(*) FROM contacts`, "1000"},
	} {
		if got := one(c.sql); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	for what, sql := range map[string]string{
		"notes that quote the SSN":   `SELECT count(*) FROM patients WHERE notes LIKE '%' || ssn || '%'`,
		"notes that quote the phone": `SELECT count(*) FROM patients WHERE notes LIKE '%' || phone || '%'`,
		"notes that are missing":     `SELECT count(*) FROM patients WHERE notes IS NULL`,
		"people over 89":             `SELECT count(*) FROM patients WHERE dob < DATE '2026-11-01' - INTERVAL '90 years'`,
		"open claims":                `SELECT count(*) FROM open_claims`,
	} {
		if n, _ := strconv.Atoi(one(sql)); n < 20 {
			t.Errorf("%s: only %d", what, n)
		}
	}
	for _, row := range pg.Exec(t, db, `SELECT DISTINCT npi FROM visits`) {
		if !luhn("80840" + row[0]) {
			t.Errorf("NPI %s has a wrong check digit", row[0])
		}
	}
}

func luhn(digits string) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			d = []int{0, 2, 4, 6, 8, 1, 3, 5, 7, 9}[d]
		}
		sum += d
	}
	return sum%10 == 0
}

func load(t *testing.T, pg *pgtest.Server, db string) {
	t.Helper()
	ctx := context.Background()
	conn, err := exec.Open(ctx, exec.Config{
		Dial:     func(context.Context) (net.Conn, error) { return net.Dial("tcp", pg.Address()) },
		User:     pg.Superuser,
		Password: pg.Password,
		Database: db,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range append(clinic.Schema(), clinic.Rows()...) {
		if _, err := conn.Run(ctx, sql, exec.Discard, exec.Options{}); err != nil {
			t.Fatalf("%v\n%s", err, sql[:min(len(sql), strings.IndexByte(sql+"\n", '\n')+200)])
		}
	}
}
