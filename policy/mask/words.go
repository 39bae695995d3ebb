package mask

import "strings"

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
	ctxWWW      // of www.
	ctxTaxpayer // of an ITIN
	contexts
)

// longestWord bounds the words that the table holds.
const longestWord = 12

// contextFront holds, per first letter, the second letters of the words below,
// so that most words cost one look.
var contextFront = func() (table [32]uint32) {
	for _, front := range strings.Fields("so ss it ti ta ph te ce mo ca co pa di sm re fa np pr mr me ab ro rt tr im ag zi po do bo bi da ad de ve bu ja fe ma ap ju au se oc no pw to gh gi xo gl sk rk py hf ww") {
		table[front[0]&31] |= 1 << (front[1] & 31)
	}
	return table
}()

// contextOf looks a word up, whatever its case. The compiler turns the switch
// into a search by length and bytes; nothing is allocated.
func contextOf(word []byte) context {
	if len(word) < 2 || len(word) > longestWord || contextFront[word[0]&31]&(1<<(word[1]&31)) == 0 {
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
	case "www":
		return ctxWWW
	}
	return noContext
}

// before reads the words in reach of position i.
func (s *scanner) before(i int) {
	if s.read == i {
		return
	}
	s.read, s.words = i, 1<<s.said
	s.last[s.said] = always
	at := max(i-reach, 0)
	for at > 0 && at < i && classes[s.b[at-1]]&isLetter != 0 { // not the end of a longer word
		at++
	}
	for at < i {
		if classes[s.b[at]]&isLetter == 0 {
			at++
			continue
		}
		start := at
		for at < i && classes[s.b[at]]&isLetter != 0 {
			at++
		}
		s.note(contextOf(s.b[start:at]), at)
	}
}

// note remembers a context word that ends at position end.
func (s *scanner) note(c context, end int) {
	switch c {
	case noContext:
		return
	case ctxTaxpayer:
		c = ctxSSN
	case ctxRecord:
		if s.words&(1<<ctxMedical) == 0 || end-s.last[ctxMedical] > len("_record") {
			return
		}
		c = ctxMRN
	}
	if s.words |= 1 << c; c != s.said {
		s.last[c] = end
	}
}

// near reports whether a context word stands shortly before position i.
func (s *scanner) near(c context, i int) bool {
	s.before(i)
	return s.words&(1<<c) != 0
}

// nearer reports whether a word of one context, if there is one, stands closer
// to position i than those of another.
func (s *scanner) nearer(c, than context, i int) bool {
	return s.near(c, i) && (s.words&(1<<than) == 0 || s.last[c] >= s.last[than])
}

// wordBefore returns where the run of letters that ends at i begins.
func (s *scanner) wordBefore(i int) int {
	start := i
	for start > s.floor && i-start <= longestWord && s.at(start-1)&isLetter != 0 {
		start--
	}
	return start
}

// assigned hides what stands behind password=, "token": and the like.
func (s *scanner) assigned(sign int) int {
	if s.on&(1<<Secret) == 0 {
		return 0
	}
	end := sign
	for end > s.floor && sign-end < 3 && (s.b[end-1] == '"' || s.b[end-1] == '\'' || s.b[end-1] == ' ') {
		end--
	}
	if contextOf(s.b[s.wordBefore(end):end]) != ctxSecret {
		return 0
	}
	i := sign + 1
	for i < len(s.b) && (s.b[i] == '"' || s.b[i] == '\'' || s.b[i] == ' ') {
		i++
	}
	start := i
	for i < len(s.b) && s.b[i] > ' ' && s.b[i] != '"' && s.b[i] != '\'' && s.b[i] != ',' && s.b[i] != ';' && s.b[i] != '&' {
		i++
	}
	if i-start < 4 {
		return 0
	}
	return s.found(Secret, start, i)
}

// serviceToken: the prefixes that GitHub, GitLab, Slack, Stripe, npm and others
// give to their tokens, followed by the sign (_ or -) and at least sixteen
// characters, some of them digits.
func (s *scanner) serviceToken(sign int) int {
	start := s.wordBefore(sign)
	if s.on&(1<<Secret) == 0 || s.at(start-1)&isWord != 0 || contextOf(s.b[start:sign]) != ctxPrefix {
		return 0
	}
	i, digits := sign+1, false
	for c := s.byteAt(i); c == '_' || c == '-' || s.at(i)&isWord != 0; c = s.byteAt(i) {
		digits = digits || s.at(i)&isDigit != 0
		i++
	}
	if i-sign < 17 || !digits {
		return 0
	}
	return s.found(Secret, start, i)
}

// jwt: three parts of base64url with dots between, the first of which decodes
// to {"… (RFC 7519).
func (s *scanner) jwt(start int) int {
	i, dots := start, 0
	for ; i < len(s.b); i++ {
		if s.b[i] == '.' && s.at(i+1)&isWord != 0 && dots < 2 {
			dots++
		} else if s.at(i)&isWord == 0 && s.b[i] != '-' && s.b[i] != '_' {
			break
		}
	}
	if dots < 2 || s.on&(1<<Secret) == 0 {
		return 0
	}
	return s.found(Secret, start, i)
}

// pem hides a private key from its BEGIN to its END, or to the end of the text.
func (s *scanner) pem(start int) int {
	if s.on&(1<<Secret) == 0 || !hasPrefix(s.b[start:], "-----BEGIN ") {
		return 0
	}
	line := start + len("-----BEGIN ")
	for line < len(s.b) && line-start < 48 && s.b[line] != '-' {
		line++
	}
	if !hasSuffix(s.b[:line], "PRIVATE KEY") {
		return 0
	}
	for i := line; i < len(s.b); i++ {
		if s.b[i] == 'E' && hasSuffix(s.b[:i], "-----") && hasPrefix(s.b[i:], "END ") {
			for i < len(s.b) && s.b[i] != '\n' {
				i++
			}
			return s.found(Secret, start, i)
		}
	}
	return s.found(Secret, start, len(s.b))
}

func (s *scanner) www(dot int) int {
	start := s.wordBefore(dot)
	if s.on&(1<<URL) == 0 || contextOf(s.b[start:dot]) != ctxWWW || s.at(start-1)&isWord != 0 || s.at(dot+1)&isWord == 0 {
		return 0
	}
	return s.found(URL, start, s.urlEnd(dot))
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

func hasSuffix(b []byte, s string) bool {
	return len(b) >= len(s) && string(b[len(b)-len(s):]) == s
}

// monthBeside looks for a month's name before or behind the digits of a day or
// a year, b[start:end].
func (s *scanner) monthBeside(start, end int) int {
	if s.at(start-1)&isWord != 0 {
		return 0
	}
	i := start
	for i > s.floor && start-i < 3 && (s.b[i-1] == ' ' || s.b[i-1] == '-' || s.b[i-1] == '/' || s.b[i-1] == '.' || s.b[i-1] == ',') {
		i--
	}
	if word := s.wordBefore(i); i < start && s.at(word-1)&isLetter == 0 && contextOf(s.b[word:i]) == ctxMonth {
		if stop := s.month(word, i); stop > end-1 {
			return stop
		}
	}
	i = end
	if c := s.byteAt(i); c == ' ' || c == '-' || c == '/' || c == '.' {
		i++
	}
	stop := i
	for stop-i <= longestWord && s.at(stop)&isLetter != 0 {
		stop++
	}
	if i == end || s.at(stop)&isWord != 0 || contextOf(s.b[i:stop]) != ctxMonth {
		return 0
	}
	if to := s.month(i, stop); to > stop || s.floor == stop {
		return to
	}
	return 0
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
