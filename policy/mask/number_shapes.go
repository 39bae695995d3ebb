package mask

import "bytes"

// maxGroups bounds how many groups of digits are looked at together.
const maxGroups = 7

// groups are runs of digits with single separators between them.
type groups struct {
	n     int
	start [maxGroups]int
	end   [maxGroups]int
	sep   [maxGroups]byte // behind group i: - . / space ), 0 if nothing follows
}

func (g *groups) len(i int) int {
	if i >= g.n {
		return 0
	}
	return g.end[i] - g.start[i]
}

// same reports whether the first n groups are joined by one separator of the
// ones given.
func (g *groups) same(n int, of string) bool {
	if g.n < n {
		return false
	}
	for i := range n - 1 {
		if g.sep[i] != g.sep[0] {
			return false
		}
	}
	for i := range len(of) {
		if g.sep[0] == of[i] {
			return true
		}
	}
	return false
}

// gather reads the groups that begin with the digits b[start:end].
func (s *scanner) gather(g *groups, start, end int) {
	for {
		g.start[g.n], g.end[g.n] = start, end
		g.n++
		if g.n == maxGroups {
			return
		}
		next := end + 1
		switch sep := s.byteAt(end); sep {
		case '-', '.', '/':
		case ' ':
			if s.byteAt(next) == '(' { // +1 (415) 555-2671
				next++
			}
		case ')':
			if c := s.byteAt(next); c == ' ' || c == '-' {
				next++
			}
		default:
			return
		}
		if s.at(next)&isDigit == 0 {
			return
		}
		stop := next
		for s.at(stop)&isDigit != 0 {
			stop++
		}
		if s.at(stop)&isLetter != 0 && !(s.b[stop] == 'T' && s.at(stop+1)&isDigit != 0) {
			return // the digits of something else
		}
		g.sep[g.n-1] = s.byteAt(end)
		start, end = next, stop
	}
}

// number looks at a run of digits, together with the groups behind it.
func (s *scanner) number(start, end int) int {
	if end-start > 19 {
		return end
	}
	switch n := end - start; {
	case s.byteAt(start-1) == '-' && n > 4:
		if stop := s.serviceToken(start - 1); stop > 0 {
			return stop
		}
	case n <= 2 || n == 4:
		if n == 2 && s.byteAt(end) == '-' && s.byteAt(end+3) == '-' {
			if stop := s.mac(start, '-'); stop > 0 {
				return stop
			}
		}
		if stop := s.monthBeside(start, end); stop > 0 {
			return stop
		}
	}
	if end-start < 5 && s.alone(end) {
		if end-start == 2 || end-start == 3 {
			return max(s.age(start, end), end)
		}
		return end
	}
	var g groups
	s.gather(&g, start, end)
	if stop := s.grouped(&g); stop > 0 {
		return stop
	}
	if stop := s.phone(&g); stop > 0 {
		return stop
	}
	if stop := s.single(&g); stop > 0 {
		return stop
	}
	return end
}

// alone reports whether no group of digits follows what ends here.
func (s *scanner) alone(end int) bool {
	c := s.byteAt(end)
	if c == ' ' && s.byteAt(end+1) == '(' || c == ')' {
		return false
	}
	return s.at(end+1)&isDigit == 0
}

// joined reports whether the number goes on, to the left or behind group n-1,
// with the separator that it has inside: then it is part of something longer.
func (s *scanner) joined(g *groups, n int) bool {
	before := s.byteAt(g.start[0] - 1)
	if before == g.sep[0] && before != ' ' && s.at(g.start[0]-2)&isWord != 0 {
		return true
	}
	after := s.byteAt(g.end[n-1])
	return after == g.sep[0] && after != ' ' && s.at(g.end[n-1]+1)&isWord != 0
}

// grouped looks for what has groups of its own: addresses, SSNs, dates, cards,
// ZIP+4.
func (s *scanner) grouped(g *groups) int {
	if g.n < 2 {
		return 0
	}
	switch first := g.len(0); {
	case g.len(1) <= 3 && g.len(2) <= 3 && g.len(3) <= 3 && g.n >= 4 && g.same(4, ".") && first <= 3:
		if !s.joined(g, 4) && !s.near(ctxVersion, g.start[0]) && isIPv4(s.b[g.start[0]:g.end[3]]) {
			return s.found(IP, g.start[0], g.end[3])
		}
	case first == 3 && g.len(1) == 2 && g.len(2) == 4 && g.same(3, "- ."):
		if e := s.ssn(g); e != NoEntity && (!s.joined(g, 3) || s.near(ctxSSN, g.start[0])) {
			return s.found(e, g.start[0], g.end[2])
		}
	case first == 4 && g.len(1) >= 4:
		return s.groupedCard(g)
	case first == 5 && g.len(1) == 4 && g.sep[0] == '-':
		if !s.joined(g, 2) {
			return s.found(ZIP, g.start[0], g.end[1])
		}
	case g.n >= 3:
		if s.date(g) && !s.joined(g, 3) {
			return s.found(Date, g.start[0], g.end[2])
		}
		if s.near(ctxIMEI, g.start[0]) {
			return s.groupedIMEI(g)
		}
	}
	return 0
}

// ssn tells an SSN from an ITIN and from what is neither: no area 000, 666 or
// 9xx, no group 00, no serial 0000; an ITIN is 9xx with a group of 50–65,
// 70–88, 90–92 or 94–99.
func (s *scanner) ssn(g *groups) Entity {
	return ssnOf(s.b[g.start[0]:g.end[0]], s.b[g.start[1]:g.end[1]], s.b[g.start[2]:g.end[2]])
}

func ssnOf(area, group, serial []byte) Entity {
	if string(area) == "000" || string(area) == "666" || string(group) == "00" || string(serial) == "0000" {
		return NoEntity
	}
	if area[0] != '9' {
		return SSN
	}
	switch n, _ := decimal(group); {
	case n >= 50 && n <= 65, n >= 70 && n <= 88, n >= 90 && n <= 92, n >= 94:
		return ITIN
	}
	return NoEntity
}

// date: 1984-05-06, 5/6/1984, 06.05.1984, and 5/6/84 behind a word.
func (s *scanner) date(g *groups) bool {
	if !g.same(3, "-/.") || g.len(1) > 2 {
		return false
	}
	a, _ := decimal(s.b[g.start[0]:g.end[0]])
	b, _ := decimal(s.b[g.start[1]:g.end[1]])
	c, _ := decimal(s.b[g.start[2]:g.end[2]])
	switch {
	case g.len(0) == 4 && g.len(2) <= 2:
		return s.year(g.start[0]) && monthDay(b, c)
	case g.len(0) <= 2 && g.len(2) == 4:
		return s.year(g.start[2]) && (monthDay(a, b) || monthDay(b, a))
	case g.len(0) <= 2 && g.len(2) == 2 && g.sep[0] != '.':
		return s.near(ctxDate, g.start[0]) && (monthDay(a, b) || monthDay(b, a))
	}
	return false
}

func monthDay(month, day int64) bool { return 1 <= month && month <= 12 && 1 <= day && day <= 31 }

// groupedCard: 4-4-4-4, with up to three digits more, or 4-6-5 and 4-6-4.
func (s *scanner) groupedCard(g *groups) int {
	n := 0
	switch {
	case g.len(1) == 4 && g.len(2) == 4 && g.len(3) >= 2 && g.len(3) <= 4 && g.same(4, "- "):
		n = 4
		if g.len(3) == 4 && g.len(4) == 3 && g.sep[3] == g.sep[0] {
			n = 5
		}
	case g.len(1) == 6 && (g.len(2) == 5 || g.len(2) == 4) && g.same(3, "- "):
		n = 3
	default:
		return 0
	}
	for ; n >= 3; n-- {
		if s.joined(g, n) {
			return 0
		}
		if digits := s.b[g.start[0]:g.end[n-1]]; cardNumber(digits) {
			return s.found(CreditCard, g.start[0], g.end[n-1])
		}
		if n != 5 {
			break
		}
	}
	return 0
}

func (s *scanner) groupedIMEI(g *groups) int {
	total := 0
	for i := range g.n {
		if total += g.len(i); total == 15 {
			if luhn(s.b[g.start[0]:g.end[i]], 0) {
				return s.found(IMEI, g.start[0], g.end[i])
			}
		}
	}
	return 0
}

// phone: +, and eight to fifteen digits (E.164); or the North American plan,
// in which neither the area nor the exchange begins with 0 or 1. Behind a word
// that says so, also others.
func (s *scanner) phone(g *groups) int {
	start, e := g.start[0], Phone
	before := s.byteAt(start - 1)
	if g.n == 1 && g.len(0) != 10 && g.len(0) != 11 && before != '+' || s.digitsOf(g, 7, 1<<20) == 0 {
		return 0
	}
	if s.nearer(ctxFax, ctxPhone, start) {
		e = Fax
	}
	said := e == Fax || s.near(ctxPhone, start)
	if before == '+' || before == '(' && s.byteAt(start-2) == '+' {
		if n := s.digitsOf(g, 8, 15); n > 0 {
			from := start - 1
			if before == '(' {
				from--
			}
			return s.found(e, from, g.end[n-1])
		}
	}
	first := 0
	if g.len(0) == 1 && s.b[start] == '1' && g.n >= 4 {
		first = 1 // the trunk prefix
	}
	if s.nanp(g, first) && (!s.joined(g, first+3) || said) {
		if before == '(' {
			start--
		}
		return s.found(e, start, g.end[first+2])
	}
	if !said || g.sep[0] == 0 && g.len(0) < 7 {
		return 0
	}
	return s.saidPhone(g, e, start)
}

// nanp reports whether three groups from the first given on are a number of
// the North American plan.
func (s *scanner) nanp(g *groups, first int) bool {
	return g.len(first) == 3 && g.len(first+1) == 3 && g.len(first+2) == 4 && g.sep[first] != '/' && g.sep[first+1] != '/' &&
		s.b[g.start[first]] >= '2' && s.b[g.start[first+1]] >= '2'
}

// saidPhone has a word like phone or fax before it.
func (s *scanner) saidPhone(g *groups, e Entity, start int) int {
	if s.date(g) {
		return 0
	}
	digits := s.b[start:g.end[0]]
	if len(digits) == 11 && digits[0] == '1' {
		digits = digits[1:]
	}
	switch {
	case len(digits) == 10:
		if digits[0] >= '2' && digits[3] >= '2' || digits[0] == '0' {
			return s.found(e, start, g.end[0])
		}
	case g.len(0) == 3 && g.len(1) == 4 && digits[0] != '0' && g.sep[0] != '/' && !s.joined(g, 2):
		return s.found(e, start, g.end[1])
	case g.n >= 2:
		if n := s.digitsOf(g, 9, 15); n > 1 {
			return s.found(e, start, g.end[n-1])
		}
	}
	return 0
}

// digitsOf returns how many groups hold between low and high digits together,
// as many as can be.
func (s *scanner) digitsOf(g *groups, low, high int) int {
	total, best := 0, 0
	for i := range g.n {
		if total += g.len(i); total > high {
			break
		}
		if total >= low {
			best = i + 1
		}
		if g.sep[i] == '/' {
			break
		}
	}
	return best
}

// single looks for what is one run of digits.
func (s *scanner) single(g *groups) int {
	start, end := g.start[0], g.end[0]
	digits, e := s.b[start:end], NoEntity
	if prev := s.byteAt(start - 1); (prev == '-' || prev == '.') && s.at(start-2)&isDigit != 0 && len(digits) < 12 {
		return 0 // the end of something that was no identifier
	}
	switch n := len(digits); {
	case n == 2 || n == 3:
		return s.age(start, end)
	case n == 5 && s.near(ctxZIP, start) && g.sep[0] != '.':
		e = ZIP
	case n >= 6 && n <= 10 && s.nearer(ctxMRN, ctxNPI, start):
		e = MRN
	case n == 8 && s.near(ctxDate, start) && s.year(start) && monthDay(two(digits[4:]), two(digits[6:])):
		e = Date
	case n == 9 && s.near(ctxSSN, start):
		e = ssnOf(digits[:3], digits[3:5], digits[5:])
	case n == 9 && s.near(ctxABA, start) && routing(digits):
		e = ABA
	case n == 10 && s.near(ctxNPI, start) && (digits[0] == '1' || digits[0] == '2') && luhn(digits, 24):
		e = NPI
	case n == 15 && s.near(ctxIMEI, start) && luhn(digits, 0):
		e = IMEI
	case n >= 12 && cardNumber(digits):
		e = CreditCard
	}
	if e == NoEntity {
		return 0
	}
	return s.found(e, start, end)
}

func two(b []byte) int64 { return int64(b[0]-'0')*10 + int64(b[1]-'0') }

// age: 90 to 120, behind age or aged, or before yo, y/o, years old, year-old.
func (s *scanner) age(start, end int) int {
	if n, _ := decimal(s.b[start:end]); n < 90 || n > 120 {
		return 0
	}
	if s.aged(start) || s.old(end) {
		return s.found(Age, start, end)
	}
	return 0
}

// aged reports whether a word for age stands just before i, with no other
// number between.
func (s *scanner) aged(i int) bool {
	if s.said == ctxAge {
		return true
	}
	if bytes.IndexByte(s.b[max(i-12, 0):i], 'g') < 0 && bytes.IndexByte(s.b[max(i-12, 0):i], 'G') < 0 || !s.near(ctxAge, i) {
		return false // most numbers are spared the reading of words
	}
	for _, c := range s.b[s.last[ctxAge]:i] {
		if classes[c]&isDigit != 0 {
			return false
		}
	}
	return i-s.last[ctxAge] <= 8
}

// old reports whether what follows says that the number was an age.
func (s *scanner) old(i int) bool {
	if c := s.byteAt(i); c == ' ' || c == '-' {
		i++
	}
	rest := s.b[min(i, len(s.b)):min(i+13, len(s.b))]
	if len(rest) < 2 || rest[0]|0x20 != 'y' {
		return false
	}
	if c := rest[1] | 0x20; c == 'o' || c == '/' {
		return true
	}
	for j := 1; j+3 <= len(rest); j++ { // years old, year-old, yrs old, years of age
		if three := string(rest[j : j+3]); three == "old" || three == "of " && len(rest) > j+3 && rest[j+3] == 'a' {
			return true
		}
	}
	return false
}
