package mask

import (
	"bytes"
	"encoding/binary"
	"time"
)

// A date is generalised to its year. Whoever was born on it and is 90 or older
// falls into one class, year included (45 CFR 164.514(b)(2)(i)(C)); its value is
// 1900-01-01, which lies in that class itself.

// cutoff is the last day of birth of those who are 90 today.
func cutoff(today time.Time) civil {
	return civil{today.Year() - 90, int(today.Month()), today.Day()}
}

// civil is a day of the proleptic Gregorian calendar.
type civil struct{ year, month, day int }

// notAfter reports whether a is b or earlier.
func (a civil) notAfter(b civil) bool {
	if a.year != b.year {
		return a.year < b.year
	}
	if a.month != b.month {
		return a.month < b.month
	}
	return a.day <= b.day
}

// generalize returns the year to show.
func (a civil) generalize(oldest civil) int {
	if a.year < 1 || a.notAfter(oldest) {
		return 1900
	}
	return a.year
}

// newYear returns the rewriter for date, timestamp and timestamptz.
func newYear(t Type, k kind, s Settings, otherwise Rewriter) Rewriter {
	if !t.Binary {
		return &dateText{oldest: cutoff(s.Today), rest: k.text[len("1900-01-01"):], otherwise: otherwise}
	}
	return &dateBinary{oldest: cutoff(s.Today), width: k.width, otherwise: otherwise}
}

// dateText reads dates in ISO style, which the protocol pins.
type dateText struct {
	oldest    civil
	rest      []byte // what follows the date: the time and zone of midnight
	otherwise Rewriter
}

func (m *dateText) Rewrite(dst, value []byte) ([]byte, bool) {
	day, ok := parseISO(value)
	if !ok || bytes.HasSuffix(value, []byte("BC")) {
		return m.otherwise.Rewrite(dst, value)
	}
	dst = appendYear(dst, day.generalize(m.oldest))
	dst = append(dst, "-01-01"...)
	return append(dst, m.rest...), false
}

// parseISO reads a day at the front of b: four to six digits of a year, two of
// a month, two of a day, nothing else or a space or T behind.
func parseISO(b []byte) (civil, bool) {
	dash := bytes.IndexByte(b, '-')
	if dash < 4 || dash > 6 || len(b) < dash+6 || b[dash+3] != '-' {
		return civil{}, false
	}
	if len(b) > dash+6 && b[dash+6] != ' ' && b[dash+6] != 'T' {
		return civil{}, false
	}
	year, ok1 := decimal(b[:dash])
	month, ok2 := decimal(b[dash+1 : dash+3])
	day, ok3 := decimal(b[dash+4 : dash+6])
	return civil{int(year), int(month), int(day)}, ok1 && ok2 && ok3 && 1 <= month && month <= 12 && 1 <= day && day <= 31
}

func appendYear(dst []byte, year int) []byte {
	if year > 9999 {
		dst = append(dst, byte('0'+year/100000%10))
		dst = append(dst, byte('0'+year/10000%10))
	}
	return append(dst, byte('0'+year/1000%10), byte('0'+year/100%10), byte('0'+year/10%10), byte('0'+year%10))
}

// dateBinary reads days (4 bytes) or microseconds (8 bytes) since 2000-01-01.
type dateBinary struct {
	oldest    civil
	width     int
	otherwise Rewriter
}

const microsADay = 24 * 60 * 60 * 1_000_000

func (m *dateBinary) Rewrite(dst, value []byte) ([]byte, bool) {
	days, ok := m.days(value)
	if !ok {
		return m.otherwise.Rewrite(dst, value)
	}
	year := civilOf(days).generalize(m.oldest)
	first := daysOf(year)
	if m.width == 4 {
		return binary.BigEndian.AppendUint32(dst, uint32(first)), false
	}
	return binary.BigEndian.AppendUint64(dst, uint64(first*microsADay)), false
}

// days returns whole days since 2000-01-01. Infinities have none.
func (m *dateBinary) days(value []byte) (int64, bool) {
	if len(value) != m.width {
		return 0, false
	}
	if m.width == 4 {
		n := int32(binary.BigEndian.Uint32(value))
		return int64(n), n > -1<<31 && n < 1<<31-1
	}
	n := int64(binary.BigEndian.Uint64(value))
	days := n / microsADay
	if n%microsADay < 0 {
		days--
	}
	return days, n > -1<<63 && n < 1<<63-1
}

// Days from 0000-03-01 to 2000-01-01.
const daysToEpoch = 730425

// civilOf and daysOf convert between days since 2000-01-01 and the calendar
// (Howard Hinnant, chrono-compatible low-level date algorithms): package time
// holds fewer years than PostgreSQL's dates.
func civilOf(days int64) civil {
	days += daysToEpoch
	era := days / 146097
	if days < 0 {
		era = (days - 146096) / 146097
	}
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day := int(doy - (153*mp+2)/5 + 1)
	month := int(mp) + 3
	year := int(yoe + era*400)
	if month > 12 {
		month -= 12
		year++
	}
	return civil{year, month, day}
}

// daysOf is the first of January of a year after 0.
func daysOf(year int) int64 {
	y := int64(year - 1)
	return 365*y + y/4 - y/100 + y/400 + 306 - daysToEpoch
}

// yearText shows the year of a date kept as text: 1984.
type yearText struct {
	fit       fit
	oldest    civil
	otherwise Rewriter
}

func (m *yearText) Rewrite(dst, value []byte) ([]byte, bool) {
	value = bytes.TrimSpace(value)
	day, ok := parseISO(value)
	if !ok || !m.fit.holds(6) {
		return m.otherwise.Rewrite(dst, value)
	}
	if day.generalize(m.oldest) == 1900 {
		return oldClass(dst, m.fit), false
	}
	dst = appendYear(dst, day.year)
	n := 4
	if day.year > 9999 {
		n = 6
	}
	return m.fit.fill(dst, n), false
}
