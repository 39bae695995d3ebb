package mask

import "bytes"

// Survey counts what the scanner finds in the values of one column, to propose
// how the column should be tagged. It keeps no value. It is not safe for
// concurrent use.
type Survey struct {
	detector *Detector
	said     context
	hits     []Hit
	values   int
	found    [lastEntity]Finding
	shapes   map[string]*shapeCount
}

// Finding is how often one entity was found.
type Finding struct {
	Entity Entity
	Values int // in which it stands
	Whole  int // which are nothing else
	// Shaped are the values of the same shape (digits, letters and signs at the
	// same places) as those that are nothing else. Of an entity with check
	// digits, Whole of Shaped is how many are right: one in ten by chance.
	Shaped int
}

// Checked reports whether an entity has check digits.
func (e Entity) Checked() bool {
	switch e {
	case CreditCard, IBAN, ABA, NPI, DEA, VIN, IMEI:
		return true
	}
	return false
}

type shapeCount struct {
	values int
	whole  [lastEntity]int
}

// Bounds of a survey: what is longer is prose and has no shape worth counting.
const (
	maxShape  = 40
	maxShapes = 256
)

// Survey begins a survey of a column. The column's name says what bare numbers
// in it are.
func (d *Detector) Survey(column string) *Survey {
	return &Survey{detector: d, said: keyContext([]byte(column)), shapes: map[string]*shapeCount{}}
}

// Add looks through one value; NULL is none. value is not kept.
func (s *Survey) Add(value []byte) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 {
		return
	}
	s.values++
	s.hits = s.detector.scan(s.hits[:0], value, s.said)
	shape := s.shape(value)
	var seen uint32
	for _, h := range s.hits {
		f := &s.found[h.Entity]
		if seen&(1<<h.Entity) == 0 {
			f.Values++
		}
		seen |= 1 << h.Entity
		if h.Start == 0 && h.End == len(value) {
			f.Whole++
			if shape != nil {
				shape.whole[h.Entity]++
			}
		}
	}
}

// shape counts the value's shape: 9 for digits, A for letters.
func (s *Survey) shape(value []byte) *shapeCount {
	if len(value) > maxShape {
		return nil
	}
	var buf [maxShape]byte
	shape := append(buf[:0], value...)
	for i, c := range shape {
		switch {
		case classes[c]&isDigit != 0:
			shape[i] = '9'
		case classes[c]&isLetter != 0:
			shape[i] = 'A'
		}
	}
	n := s.shapes[string(shape)]
	if n == nil && len(s.shapes) < maxShapes {
		n = &shapeCount{}
		s.shapes[string(shape)] = n
	}
	if n != nil {
		n.values++
	}
	return n
}

// Values are how many were looked through, without NULL and empty ones.
func (s *Survey) Values() int { return s.values }

// Findings are what was found, the most frequent first.
func (s *Survey) Findings() []Finding {
	var out []Finding
	for e := range s.found {
		f := s.found[e]
		if f.Values == 0 {
			continue
		}
		f.Entity = Entity(e)
		for _, n := range s.shapes {
			if n.whole[e] > 0 {
				f.Shaped += n.values
			}
		}
		at := len(out)
		for at > 0 && out[at-1].Values < f.Values {
			at--
		}
		out = append(out[:at], append([]Finding{f}, out[at:]...)...)
	}
	return out
}

// NamedFor is the entity that a column's name speaks of: home_phone, SSN,
// birthDate; NoEntity if it speaks of none.
func NamedFor(column string) Entity {
	switch keyContext([]byte(column)) {
	case ctxSSN:
		return SSN
	case ctxPhone:
		return Phone
	case ctxFax:
		return Fax
	case ctxNPI:
		return NPI
	case ctxMRN:
		return MRN
	case ctxABA:
		return ABA
	case ctxIMEI:
		return IMEI
	case ctxAge:
		return Age
	case ctxZIP:
		return ZIP
	case ctxDate:
		return Date
	}
	return NoEntity
}
