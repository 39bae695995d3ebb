package mask

// context is what a word says about the numbers behind it.
type context uint8

const (
	noContext context = iota
	ctxSSN
	ctxPhone
	ctxFax
	ctxNPI
	ctxMRN
	ctxABA
	ctxIMEI
	ctxAge
	ctxZIP
	ctxDate
	ctxVersion
	ctxMedical // of "medical record"
	ctxRecord
	ctxMonth
	ctxSecret   // a value follows behind : or =
	ctxPrefix   // the first letters of a token of some service
	ctxBegin    // of -----BEGIN
	ctxWWW      // of www.
	ctxTaxpayer // of an ITIN
	contexts
)

// longestWord bounds the words that the table holds.
const longestWord = 12

// contextOf looks a word up, whatever its case. The compiler turns the switch
// into a search by length and bytes; nothing is allocated.
func contextOf(word []byte) context {
	if len(word) < 2 || len(word) > longestWord {
		return noContext
	}
	var lower [longestWord]byte
	for i, c := range word {
		lower[i] = c | 0x20 // letters only come here
	}
	switch string(lower[:len(word)]) {
	case "ssn", "ssns", "social", "ss", "socsec":
		return ctxSSN
	case "itin", "tin", "taxpayer":
		return ctxTaxpayer
	case "phone", "phones", "telephone", "tel", "cell", "cellphone", "mobile", "call", "called", "ph", "contact", "pager", "dial", "sms", "reach", "reached":
		return ctxPhone
	case "fax", "facsimile", "telefax":
		return ctxFax
	case "npi", "npis", "provider", "prescriber", "physician":
		return ctxNPI
	case "mrn", "mrns", "medrec":
		return ctxMRN
	case "medical":
		return ctxMedical
	case "record":
		return ctxRecord
	case "aba", "routing", "rtn", "transit":
		return ctxABA
	case "imei":
		return ctxIMEI
	case "age", "aged", "ages":
		return ctxAge
	case "zip", "zipcode", "postal", "postcode":
		return ctxZIP
	case "dob", "born", "birth", "birthday", "birthdate", "date", "admitted", "admission", "discharged", "discharge", "died", "death", "deceased", "dod", "doa":
		return ctxDate
	case "version", "ver", "release", "build":
		return ctxVersion
	case "jan", "january", "feb", "february", "mar", "march", "apr", "april", "may", "jun", "june", "jul", "july", "aug", "august", "sep", "sept", "september", "oct", "october", "nov", "november", "dec", "december":
		return ctxMonth
	case "password", "passwd", "pwd", "passphrase", "secret", "apikey", "token":
		return ctxSecret
	case "ghp", "gho", "ghu", "ghs", "ghr", "github", "xoxb", "xoxp", "xoxa", "xoxs", "glpat", "sk", "rk", "npm", "pypi", "hf":
		return ctxPrefix
	case "begin":
		return ctxBegin
	case "www":
		return ctxWWW
	}
	return noContext
}

// firsts tells, per first letter, which lengths of words the table holds, so
// that most words of a text cost one look.
var firsts = func() (table [26]uint16) {
	for _, w := range []string{"ssn", "ssns", "social", "ss", "socsec", "itin", "tin", "taxpayer", "phone", "phones", "telephone", "tel", "cell", "cellphone", "mobile", "call", "called", "ph", "contact", "pager", "dial", "sms", "reach", "reached",
		"fax", "facsimile", "telefax", "npi", "npis", "provider", "prescriber", "physician", "mrn", "mrns", "medrec", "medical", "record", "aba", "routing", "rtn", "transit", "imei", "age", "aged", "ages", "zip", "zipcode", "postal", "postcode",
		"dob", "born", "birth", "birthday", "birthdate", "date", "admitted", "admission", "discharged", "discharge", "died", "death", "deceased", "dod", "doa", "version", "ver", "release", "build",
		"jan", "january", "feb", "february", "mar", "march", "apr", "april", "may", "jun", "june", "jul", "july", "aug", "august", "sep", "sept", "september", "oct", "october", "nov", "november", "dec", "december",
		"password", "passwd", "pwd", "passphrase", "secret", "apikey", "token", "ghp", "gho", "ghu", "ghs", "ghr", "github", "xoxb", "xoxp", "xoxa", "xoxs", "glpat", "sk", "rk", "npm", "pypi", "hf", "begin", "www"} {
		table[w[0]-'a'] |= 1 << len(w)
	}
	return table
}()

// word looks at a run of letters.
func (s *scanner) word(start, end int) int {
	n := end - start
	first := s.b[start] | 0x20 - 'a'
	if n > longestWord || first > 25 || firsts[first]&(1<<n) == 0 {
		if n >= 10 && s.b[start] == 'e' && s.b[start+1] == 'y' && s.b[start+2] == 'J' {
			return s.jwt(start, end)
		}
		if n == 20 {
			return s.code(start, end)
		}
		return end
	}
	return s.note(contextOf(s.b[start:end]), start, end)
}

// note remembers a context word, or acts on those that begin something.
func (s *scanner) note(c context, start, end int) int {
	if s.on&(1<<Secret) == 0 && (c == ctxSecret || c == ctxPrefix || c == ctxBegin) || s.on&(1<<URL) == 0 && c == ctxWWW {
		return end
	}
	switch c {
	case noContext:
		return end
	case ctxMonth:
		return s.month(start, end)
	case ctxSecret:
		return s.assigned(end)
	case ctxPrefix:
		return s.serviceToken(start, end)
	case ctxBegin:
		return s.pem(start, end)
	case ctxWWW:
		if s.byteAt(end) == '.' && s.at(end+1)&isWord != 0 {
			return s.found(URL, start, s.urlEnd(end))
		}
		return end
	case ctxRecord:
		if end-s.last[ctxMedical] > 8 {
			return end
		}
		c = ctxMRN
	case ctxTaxpayer:
		c = ctxSSN
	}
	s.last[c] = end
	return end
}

// near reports whether a context word stands shortly before position i.
func (s *scanner) near(c context, i int) bool { return i-s.last[c] <= reach }

// assigned hides what stands behind password=, "token": and the like.
func (s *scanner) assigned(end int) int {
	i := end
	for i < len(s.b) && i-end < 4 && (s.b[i] == '"' || s.b[i] == '\'' || s.b[i] == ' ') {
		i++
	}
	if c := s.byteAt(i); c != ':' && c != '=' {
		return end
	}
	for i++; i < len(s.b) && (s.b[i] == '"' || s.b[i] == '\'' || s.b[i] == ' '); i++ {
	}
	start := i
	for i < len(s.b) && s.b[i] > ' ' && s.b[i] != '"' && s.b[i] != '\'' && s.b[i] != ',' && s.b[i] != ';' && s.b[i] != '&' {
		i++
	}
	if i-start < 4 {
		return end
	}
	return s.found(Secret, start, i)
}

// serviceToken: the prefixes that GitHub, GitLab, Slack, Stripe, npm and others
// give to their tokens, followed by at least sixteen characters.
func (s *scanner) serviceToken(start, end int) int {
	i := end
	for c := s.byteAt(i); c == '_' || c == '-' || s.at(i)&isWord != 0; c = s.byteAt(i) {
		i++
	}
	digits := false
	for _, c := range s.b[end:i] {
		digits = digits || classes[c]&isDigit != 0
	}
	if c := s.byteAt(end); c != '_' && c != '-' || i-end < 17 || !digits {
		return end
	}
	return s.found(Secret, start, i)
}

// jwt: three parts of base64url with dots between, the first of which decodes
// to {"… (RFC 7519).
func (s *scanner) jwt(start, end int) int {
	i, dots := start, 0
	for ; i < len(s.b); i++ {
		if s.b[i] == '.' && s.at(i+1)&isWord != 0 && dots < 2 {
			dots++
		} else if s.at(i)&isWord == 0 && s.b[i] != '-' && s.b[i] != '_' {
			break
		}
	}
	if dots < 2 || s.on&(1<<Secret) == 0 {
		return end
	}
	return s.found(Secret, start, i)
}

// pem hides a private key from its BEGIN to its END, or to the end of the text.
func (s *scanner) pem(start, end int) int {
	line := end
	for line < len(s.b) && line-end < 40 && s.b[line] != '-' {
		line++
	}
	if !hasSuffix(s.b[:start], "-----") || !hasSuffix(s.b[:line], "PRIVATE KEY") {
		return end
	}
	for i := line; i < len(s.b); i++ {
		if s.b[i] == 'E' && hasSuffix(s.b[:i], "-----") && hasPrefix(s.b[i:], "END ") {
			for i < len(s.b) && s.b[i] != '\n' {
				i++
			}
			return s.found(Secret, start-5, i)
		}
	}
	return s.found(Secret, start-5, len(s.b))
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

func hasSuffix(b []byte, s string) bool {
	return len(b) >= len(s) && string(b[len(b)-len(s):]) == s
}

// month looks for a date around a month's name: 12-MAR-1984, 12 March 1984,
// March 12, 1984, March 1984, and March 12 with a capital.
func (s *scanner) month(start, end int) int {
	left := start
	if day := s.digitsBefore(start); day >= 0 {
		left = day
	}
	i := end
	for s.byteAt(i) == '.' || s.byteAt(i) == ' ' || s.byteAt(i) == '-' || s.byteAt(i) == '/' || s.byteAt(i) == ',' {
		i++
	}
	n := s.digitRun(i)
	if i-end > 3 || i == end {
		n = 0
	}
	switch {
	case n == 4 && s.year(i):
		return s.found(Date, left, i+4)
	case n == 2 && left < start && s.byteAt(end) == '-':
		return s.found(Date, left, i+2)
	case n == 1 || n == 2:
		return s.monthDay(start, end, left, i, n)
	case left < start && s.b[start] < 'a':
		return s.found(Date, left, end)
	}
	return end
}

// monthDay has a month, and n digits at i behind it.
func (s *scanner) monthDay(start, end, left, i, n int) int {
	day := i + n
	if s.at(day)&isLetter != 0 { // 1st, 2nd, 3rd, 4th
		day += 2
	}
	if s.at(day)&isWord != 0 {
		return end
	}
	y := day
	for s.byteAt(y) == ',' || s.byteAt(y) == ' ' {
		y++
	}
	if y-day <= 2 && y > day && s.digitRun(y) == 4 && s.year(y) {
		return s.found(Date, left, y+4)
	}
	if v, _ := decimal(s.b[i : i+n]); s.b[start] < 'a' && v >= 1 && v <= 31 {
		return s.found(Date, left, day)
	}
	return end
}

// digitsBefore returns where one or two digits of a day begin that end just
// before a month's name, -1 if there are none.
func (s *scanner) digitsBefore(i int) int {
	if c := s.byteAt(i - 1); c != ' ' && c != '-' && c != '/' && c != '.' {
		return -1
	}
	end := i - 1
	if s.at(end-1)&isLetter != 0 { // 12th March
		end -= 2
	}
	start := end
	for start > s.floor && end-start < 3 && s.at(start-1)&isDigit != 0 {
		start--
	}
	if n := end - start; n < 1 || n > 2 || s.at(start-1)&isWord != 0 {
		return -1
	}
	return start
}

// digitRun counts the digits at i; 0 if a letter follows them directly, but
// for the two of an ordinal.
func (s *scanner) digitRun(i int) int {
	n := i
	for s.at(n)&isDigit != 0 {
		n++
	}
	if s.at(n)&isLetter != 0 && (n-i > 2 || s.at(n+1)&isLetter == 0 || s.at(n+2)&isWord != 0) {
		return 0
	}
	return n - i
}

// year reports whether four digits at i are a year that a person may have lived in.
func (s *scanner) year(i int) bool {
	c, d := s.byteAt(i), s.byteAt(i+1)
	return c == '1' && (d == '8' || d == '9') || c == '2' && d == '0'
}
