package mask

// code looks at a run of letters and digits.
func (s *scanner) code(start, end int) int {
	b := s.b[start:end]
	if s.byteAt(start-1) == '-' {
		if stop := s.serviceToken(start - 1); stop > 0 {
			return stop
		}
	}
	switch n := len(b); {
	case n == 2 && s.byteAt(end) == '-' && s.byteAt(end+3) == '-':
		if stop := s.mac(start, '-'); stop > 0 {
			return stop
		}
	case n == 4 && s.byteAt(end) == '-' && s.byteAt(end+4) == '-':
		if stop := s.dashedMBI(start); stop > 0 {
			return stop
		}
	case n == 8 || n == 9:
		if n == 9 && dea(b) {
			return s.found(DEA, start, end)
		}
		if s.glued(b) {
			return s.found(Date, start, end)
		}
	case n == 11 && mbi(b):
		return s.found(MBI, start, end)
	case n == 17 && vin(b):
		return s.found(VIN, start, end)
	case n == 20 && (hasPrefix(b, "AKIA") || hasPrefix(b, "ASIA")):
		return s.found(Secret, start, end)
	}
	if len(b) >= 10 && hasPrefix(b, "eyJ") {
		if stop := s.jwt(start); stop > 0 {
			return stop
		}
	}
	if len(b) >= 4 && hasPrefix(b, "AIza") && end-start >= 30 {
		return s.found(Secret, start, end)
	}
	if stop := s.iban(start, end); stop > 0 {
		return stop
	}
	return s.mixed(start, end)
}

// dashedMBI is an MBI as it is printed: 1EG4-TE5-MK73.
func (s *scanner) dashedMBI(start int) int {
	if start+13 > len(s.b) || s.b[start+8] != '-' || s.at(start+13)&isWord != 0 {
		return 0
	}
	var plain [11]byte
	copy(plain[:4], s.b[start:])
	copy(plain[4:7], s.b[start+5:])
	copy(plain[7:], s.b[start+9:start+13])
	if !mbi(plain[:]) {
		return 0
	}
	return s.found(MBI, start, start+13)
}

// glued is a date like 06MAY1984.
func (s *scanner) glued(b []byte) bool {
	day := len(b) - 7
	for i, c := range b {
		if (i < day || i >= day+3) != (classes[c]&isDigit != 0) {
			return false
		}
	}
	c := b[len(b)-4]
	return contextOf(b[day:day+3]) == ctxMonth && (c == '1' || c == '2')
}

// iban: two letters of a country and two digits in front, in one piece or in
// groups of four.
func (s *scanner) iban(start, end int) int {
	if end-start < 4 || s.at(start)&isLetter == 0 || s.at(start+1)&isLetter == 0 || s.at(start+2)&isDigit == 0 || s.at(start+3)&isDigit == 0 {
		return 0
	}
	want := ibanLength(s.b[start], s.b[start+1])
	if want == 0 {
		return 0
	}
	n, i := 0, start
	for ; n < want; i++ {
		if c := s.at(i); c&isWord != 0 && s.b[i] < 0x80 {
			n++
		} else if s.byteAt(i) != ' ' || n%4 != 0 || s.at(i+1)&isWord == 0 {
			return 0
		}
	}
	if s.at(i)&isWord != 0 || !iban(s.b[start:i]) {
		return 0
	}
	return s.found(IBAN, start, i)
}

// mixed takes a context word off the digits that are glued to it (MRN0012345,
// SSN123-45-6789, tel4155552671), and a unit off an age (93yo).
func (s *scanner) mixed(start, end int) int {
	i := start
	if s.at(i)&isDigit != 0 {
		for s.at(i)&isDigit != 0 {
			i++
		}
		n := i - start
		if n == 2 || n == 3 {
			if stop := s.age(start, i); stop > 0 {
				return stop
			}
		}
		if n <= 2 && end-i == 2 { // 4th July
			if stop := s.monthBeside(start, end); stop > 0 {
				return stop
			}
		}
		return end
	}
	for s.at(i)&isLetter != 0 {
		i++
	}
	for j := i; j < end; j++ {
		if s.at(j)&isDigit == 0 {
			return end
		}
	}
	if contextOf(s.b[start:i]) == noContext {
		return end
	}
	return s.number(i, end)
}
