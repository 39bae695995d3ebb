// Package clinic is the sample database of hoopctl dev: a small clinic whose
// people do not exist. Everything in it follows from a fixed seed, so that two
// machines hold the same rows; identifiers look valid (areas and groups of
// SSNs that could have been issued, check digits of NPIs), and notes hold some
// of them in prose, as notes do.
package clinic

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Patients is how many there are.
const Patients = 1000

// Schema are the statements that make the tables and views, in order.
func Schema() []string {
	return []string{
		`CREATE TABLE patients (
	id int PRIMARY KEY,
	name text NOT NULL,
	ssn text UNIQUE,
	email text,
	phone text,
	dob date,
	mrn text UNIQUE,
	zip text,
	diagnosis text,
	notes text)`,
		`CREATE TABLE visits (
	id int PRIMARY KEY,
	patient_id int NOT NULL REFERENCES patients,
	visited date NOT NULL,
	department text NOT NULL,
	provider text NOT NULL,
	npi text NOT NULL,
	reason text NOT NULL,
	summary text)`,
		`CREATE TABLE claims (
	id int PRIMARY KEY,
	patient_id int NOT NULL REFERENCES patients,
	visit_id int NOT NULL REFERENCES visits,
	member_id text NOT NULL,
	payer text NOT NULL,
	code text NOT NULL,
	amount numeric(10,2) NOT NULL,
	status text NOT NULL,
	submitted date NOT NULL)`,
		`CREATE INDEX visits_patient ON visits (patient_id)`,
		`CREATE INDEX claims_patient ON claims (patient_id)`,
		`CREATE VIEW contacts AS SELECT id, name, email, phone FROM patients`,
		`CREATE VIEW open_claims AS
	SELECT c.id, c.patient_id, p.name, p.mrn, c.payer, c.amount, c.submitted
	FROM claims c JOIN patients p ON p.id = c.patient_id
	WHERE c.status IN ('submitted', 'pending')`,
	}
}

// Rows are INSERT statements for all rows, a few hundred rows each.
func Rows() []string {
	g := &generator{r: rand.New(rand.NewPCG(1962, 19)), ssn: map[string]bool{}}
	for range providers {
		g.npis = append(g.npis, g.npi())
	}
	g.make()
	var out []string
	out = append(out, inserts("patients", g.patients)...)
	out = append(out, inserts("visits", g.visits)...)
	return append(out, inserts("claims", g.claims)...)
}

func inserts(table string, rows []string) []string {
	const each = 250
	var out []string
	for len(rows) > 0 {
		n := min(each, len(rows))
		out = append(out, "INSERT INTO "+table+" VALUES\n"+strings.Join(rows[:n], ",\n"))
		rows = rows[n:]
	}
	return out
}

// row is the values of one row as SQL. Every string here is our own.
func row(values ...any) string {
	cells := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case string:
			cells[i] = "'" + strings.ReplaceAll(v, "'", "''") + "'"
		case time.Time:
			cells[i] = "'" + v.Format(time.DateOnly) + "'"
		case nil:
			cells[i] = "NULL"
		default:
			cells[i] = fmt.Sprint(v)
		}
	}
	return "(" + strings.Join(cells, ", ") + ")"
}

type generator struct {
	r                        *rand.Rand
	ssn                      map[string]bool
	npis                     []string // of providers
	patients, visits, claims []string
}

// person is what the other tables and the notes need of a patient.
type person struct {
	id                           int
	name, ssn, email, phone, mrn string
	dob                          time.Time
	zip                          string
}

// today is the sample's present: rows must not depend on the clock.
var today = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func (g *generator) make() {
	for id := 1; id <= Patients; id++ {
		p := g.person(id)
		d := pick(g, diagnoses)
		g.patients = append(g.patients, row(p.id, p.name, p.ssn, p.email, p.phone, p.dob, p.mrn, p.zip, d, g.note(p)))
		for range 1 + g.r.IntN(4) {
			g.visit(p, d)
		}
	}
}

func (g *generator) person(id int) person {
	first, last := pick(g, firstNames), pick(g, lastNames)
	p := person{
		id:    id,
		name:  first + " " + last,
		ssn:   g.newSSN(),
		email: strings.ToLower(fmt.Sprintf("%s.%s%d@%s", first, last, id, pick(g, []string{"example.com", "example.net", "example.org", "mail.example.com"}))),
		phone: g.newPhone(),
		dob:   time.Date(1925+g.r.IntN(95), time.Month(1+g.r.IntN(12)), 1+g.r.IntN(28), 0, 0, 0, 0, time.UTC),
		mrn:   fmt.Sprintf("MRN-%08d", 10_000_000+id*7919%89_999_999),
	}
	p.zip = fmt.Sprintf("%s%02d", pick(g, zipPrefixes), g.r.IntN(100))
	return p
}

// newSSN is nine digits that could have been issued: no area 000, 666 or 9xx,
// no group 00, no serial 0000 (https://www.ssa.gov/employer/randomization.html).
func (g *generator) newSSN() string {
	for {
		area := 1 + g.r.IntN(899)
		s := fmt.Sprintf("%03d-%02d-%04d", area, 1+g.r.IntN(99), 1+g.r.IntN(9999))
		if area != 666 && !g.ssn[s] {
			g.ssn[s] = true
			return s
		}
	}
}

// newPhone lies in the numbers that are kept free for fiction: 555-0100 to 0199.
func (g *generator) newPhone() string {
	return fmt.Sprintf("%s-555-01%02d", pick(g, areaCodes), g.r.IntN(100))
}

// npi appends the check digit of a National Provider Identifier: Luhn over the
// prefix 80840 and the nine digits (45 CFR 162.406).
func (g *generator) npi() string {
	nine := fmt.Sprintf("1%08d", g.r.IntN(100_000_000))
	digits := "80840" + nine
	sum := 0
	for i := len(digits) - 1; i >= 0; i-- {
		d := int(digits[i] - '0')
		if (len(digits)-i)%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return nine + strconv.Itoa((10-sum%10)%10)
}

func (g *generator) visit(p person, diagnosis string) {
	id := len(g.visits) + 1
	on := today.AddDate(0, 0, -1-g.r.IntN(900))
	if on.Before(p.dob) {
		on = p.dob.AddDate(0, 0, 1)
	}
	by := g.r.IntN(len(providers))
	summary := any(nil)
	if g.r.IntN(4) > 0 {
		summary = strings.NewReplacer("{name}", p.name, "{phone}", p.phone, "{mrn}", p.mrn).Replace(pick(g, summaries))
	}
	g.visits = append(g.visits, row(id, p.id, on, pick(g, departments), providers[by], g.npis[by], pick(g, reasons), summary))
	if g.r.IntN(5) == 0 {
		return
	}
	code, _, _ := strings.Cut(diagnosis, " ")
	member := fmt.Sprintf("%s%09d", pick(g, []string{"AET", "BCB", "CIG", "UHC"}), g.r.IntN(1_000_000_000))
	amount := fmt.Sprintf("%d.%02d", 40+g.r.IntN(2400), g.r.IntN(100))
	g.claims = append(g.claims, row(len(g.claims)+1, p.id, id, member, pick(g, payers), code, amount, pick(g, statuses), on.AddDate(0, 0, 1+g.r.IntN(9))))
}

func (g *generator) note(p person) any {
	if g.r.IntN(8) == 0 {
		return nil
	}
	parts := []string{pick(g, plainNotes)}
	for range 1 + g.r.IntN(2) {
		parts = append(parts, strings.NewReplacer(
			"{name}", p.name, "{ssn}", p.ssn, "{email}", p.email, "{phone}", p.phone, "{mrn}", p.mrn,
			"{dob}", p.dob.Format("01/02/2006"), "{zip}", p.zip,
		).Replace(pick(g, identifyingNotes)))
	}
	return strings.Join(parts, " ")
}

func pick[T any](g *generator, from []T) T { return from[g.r.IntN(len(from))] }
