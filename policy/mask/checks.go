package mask

// luhn is the check of ISO/IEC 7812-1 over the digits of b, others skipped.
// start is the sum of digits that are not written: 24 for the 80840 in front of
// an NPI.
func luhn(b []byte, start int) bool {
	sum, second := start, false
	for i := len(b) - 1; i >= 0; i-- {
		d := int(b[i] - '0')
		if d > 9 {
			continue
		}
		if second {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum, second = sum+d, !second
	}
	return sum%10 == 0
}

// cardNumber: 12 to 19 digits, the first that of a network (2 to 6), not all
// the same, Luhn.
func cardNumber(b []byte) bool {
	n, same := 0, true
	for _, c := range b {
		if c >= '0' && c <= '9' {
			n++
			same = same && c == b[0]
		}
	}
	return n >= 12 && n <= 19 && b[0] >= '2' && b[0] <= '6' && !same && luhn(b, 0)
}

// routing: the check digit of an ABA number, weights 3 7 1, and a first pair
// that the Federal Reserve gives out.
func routing(b []byte) bool {
	sum := 0
	for i, weight := range [...]int{3, 7, 1, 3, 7, 1, 3, 7, 1} {
		sum += weight * int(b[i]-'0')
	}
	front := two(b)
	return sum%10 == 0 && (front <= 12 && front > 0 || front >= 21 && front <= 32 || front >= 61 && front <= 72 || front == 80)
}

// iban: ISO 13616 by mod 97 over b, spaces skipped, the first four moved to the end.
func iban(b []byte) bool {
	rest := 0
	for pass := range 2 {
		n := 0
		for _, c := range b {
			if c == ' ' {
				continue
			}
			if n++; (n > 4) == (pass == 1) {
				continue // the first four come last
			}
			if classes[c]&isDigit != 0 {
				rest = (rest*10 + int(c-'0')) % 97
			} else {
				rest = (rest*100 + int(c|0x20-'a') + 10) % 97
			}
		}
	}
	return rest == 1
}

// ibanLength is the length of a country's IBANs, 0 for others (SWIFT's IBAN
// registry, release 99).
func ibanLength(a, b byte) int {
	switch string([]byte{a &^ 0x20, b &^ 0x20}) {
	case "NO":
		return 15
	case "BE", "BI":
		return 16
	case "DK", "FI", "FO", "GL", "NL", "FK", "SD":
		return 18
	case "MK", "SI":
		return 19
	case "AT", "BA", "EE", "KZ", "LT", "LU", "XK", "MN":
		return 20
	case "CH", "CR", "HR", "LI", "LV":
		return 21
	case "BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA":
		return 22
	case "AE", "GI", "IL", "IQ", "SO", "TL", "OM":
		return 23
	case "AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG":
		return 24
	case "LY", "PT", "ST":
		return 25
	case "IS", "TR":
		return 26
	case "DJ", "FR", "GR", "IT", "MC", "MR", "SM":
		return 27
	case "AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV":
		return 28
	case "BR", "EG", "PS", "QA", "UA":
		return 29
	case "JO", "KW", "MU", "YE":
		return 30
	case "MT", "SC":
		return 31
	case "LC":
		return 32
	case "RU":
		return 33
	}
	return 0
}

// dea: two letters (or a letter and 9), seven digits; the last is that of
// (1st+3rd+5th) + 2 × (2nd+4th+6th).
func dea(b []byte) bool {
	if classes[b[0]]&isLetter == 0 || classes[b[1]]&isLetter == 0 && b[1] != '9' {
		return false
	}
	var d [7]int
	for i := range d {
		if classes[b[2+i]]&isDigit == 0 {
			return false
		}
		d[i] = int(b[2+i] - '0')
	}
	return (d[0]+d[2]+d[4]+2*(d[1]+d[3]+d[5]))%10 == d[6]
}

// mbi: eleven characters, numeric 1-9, alphabetic without S L O I B Z,
// alphanumeric, numeric … (CMS, Understanding the MBI format).
func mbi(b []byte) bool {
	for i, form := range "CAXNAXNAANN" {
		c := b[i] &^ 0x20 // to upper case; digits are looked at as they are
		digit := classes[b[i]]&isDigit != 0
		letter := 'A' <= c && c <= 'Z' && classes[b[i]]&isLetter != 0 && c != 'S' && c != 'L' && c != 'O' && c != 'I' && c != 'B' && c != 'Z'
		switch form {
		case 'C':
			if !digit || b[i] == '0' {
				return false
			}
		case 'N':
			if !digit {
				return false
			}
		case 'A':
			if !letter {
				return false
			}
		default:
			if !digit && !letter {
				return false
			}
		}
	}
	return true
}

// vin: seventeen characters without I, O and Q; the ninth is the check digit
// (49 CFR 565.15).
func vin(b []byte) bool {
	const values = "12345678" + "." + "12345" + "." + "7" + "." + "9" + "23456789" // A–H, I, J–N, O, P, Q, R, S–Z
	sum := 0
	for i, weight := range [...]int{8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2} {
		v := 0
		switch c := b[i]; {
		case classes[c]&isDigit != 0:
			v = int(c - '0')
		case c < 0x80 && values[c|0x20-'a'] != '.':
			v = int(values[c|0x20-'a'] - '0')
		default:
			return false
		}
		sum += weight * v
	}
	check := byte('0' + sum%11)
	if sum%11 == 10 {
		check = 'X'
	}
	return b[8] == check || check == 'X' && b[8] == 'x'
}
