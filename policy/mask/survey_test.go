package mask

import (
	"fmt"
	"testing"
)

func TestSurvey(t *testing.T) {
	s := all(t).Survey("card")
	for i := range 100 {
		number := fmt.Sprintf("411111111111%04d", i) // one in ten has the right check digit
		s.Add([]byte(number))
	}
	for range 5 {
		s.Add(nil)
		s.Add([]byte("paid with 4111 1111 1111 1111 today"))
	}
	f := s.Findings()
	if s.Values() != 105 || len(f) == 0 || f[0].Entity != CreditCard || f[0].Values != 15 || f[0].Whole != 10 || f[0].Shaped != 100 || !f[0].Entity.Checked() {
		t.Errorf("%d values: %+v", s.Values(), f)
	}
	ssn := all(t).Survey("patient_ssn")
	for i := range 9 {
		ssn.Add(fmt.Appendf(nil, "51247%04d", 8360+i))
	}
	if f := ssn.Findings(); len(f) != 1 || f[0].Entity != SSN || f[0].Whole != 9 || f[0].Entity.Checked() {
		t.Errorf("bare numbers in a column of that name: %+v", f)
	}
	for name, want := range map[string]Entity{"home_phone": Phone, "SSN": SSN, "birthDate": Date, "id": NoEntity, "zip": ZIP, "mrn": MRN, "diagnosis": NoEntity} {
		if got := NamedFor(name); got != want {
			t.Errorf("%s speaks of %q, want %q", name, got, want)
		}
	}
}
