package mask

import (
	"fmt"
	"strings"
	"sync"
)

// Entity is a kind of identifier that the scanner finds.
type Entity uint8

// The identifiers, by the letters of 45 CFR 164.514(b)(2)(i) where they have one.
const (
	NoEntity   Entity = iota
	SSN               // (G) United States social security number
	ITIN              // (G) individual taxpayer identification number
	Email             // (F)
	Phone             // (D) NANP, E.164
	Fax               // (E) a phone number with the word fax before it
	CreditCard        // (J) 12–19 digits, Luhn
	IBAN              // (J) ISO 13616
	ABA               // (J) routing number, with its check digit and a word before it
	NPI               // (K) national provider identifier
	DEA               // (K) registration number of a prescriber
	MBI               // (I) Medicare beneficiary identifier
	VIN               // (L) vehicle identification number, with its check digit
	MRN               // (H) medical record number, with the letters MRN before it
	IP                // (O) version 4 and 6
	MAC               // (M)
	IMEI              // (M) with the letters IMEI before it
	URL               // (N)
	Date              // (C) a day or month of a year
	Age               // (C) ages of 90 and more
	ZIP               // (B) ZIP+4, or five digits with the word zip before them
	Secret            // private keys, tokens, passwords
	lastEntity
)

var entityNames = [lastEntity]string{"", "ssn", "itin", "email", "phone", "fax", "credit_card", "iban", "aba", "npi", "dea", "mbi", "vin", "mrn", "ip", "mac", "imei", "url", "date", "age", "zip", "secret"}

// String is the name that a classification uses.
func (e Entity) String() string {
	if e < lastEntity {
		return entityNames[e]
	}
	return ""
}

// Entities are the names of all that can be found.
func Entities() []string { return append([]string(nil), entityNames[1:]...) }

// Detector finds some kinds of identifiers. It is safe for concurrent use; its
// zero value finds nothing. It must not be copied.
type Detector struct {
	on    uint32
	spare sync.Pool // of *[]Hit: the room for hits that a value needs while it is rewritten
}

// borrow returns room for hits; the caller gives it back.
func (d *Detector) borrow() *[]Hit {
	if room, ok := d.spare.Get().(*[]Hit); ok {
		return room
	}
	room := make([]Hit, 0, 32)
	return &room
}

// NewDetector returns a detector of the entities named; it refuses unknown names.
func NewDetector(names ...string) (*Detector, error) {
	d := &Detector{}
	for _, name := range names {
		e := NoEntity
		for i := 1; i < int(lastEntity); i++ {
			if entityNames[i] == name {
				e = Entity(i)
			}
		}
		if e == NoEntity {
			return nil, fmt.Errorf("unknown entity %q to detect: use some of %s", name, strings.Join(Entities(), ", "))
		}
		d.on |= 1 << e
	}
	return d, nil
}

// Hit is an identifier that was found: b[Start:End].
type Hit struct {
	Start, End int
	Entity     Entity
}
