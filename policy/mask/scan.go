package mask

// Byte classes of the scanner's table.
const (
	isDigit  = 1 << iota // 0-9
	isLetter             // a-z, A-Z, and every byte of a character beyond ASCII
	isSign               // : @ = _ - . stand in or behind something, or join it
	isHex                // 0-9 a-f A-F
	isLocal              // may stand in front of the @ of an address, beside letters and digits
	isWord   = isDigit | isLetter
	isStop   = isDigit | isSign // where the pass stops to look
)

// classes is the table that the pass over the bytes reads.
var classes = func() (table [256]uint8) {
	for c := range table {
		switch {
		case '0' <= c && c <= '9':
			table[c] = isDigit | isHex
		case 'a' <= c|0x20 && c|0x20 <= 'f' && c < 0x80:
			table[c] = isLetter | isHex
		case 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80, c >= 0x80:
			table[c] = isLetter
		case c == '@' || c == ':' || c == '=':
			table[c] = isSign
		case c == '.' || c == '_' || c == '-':
			table[c] = isLocal | isSign
		case c == '%' || c == '+' || c == '\'':
			table[c] = isLocal
		}
	}
	return table
}()

// reach is how many bytes before a number a context word still counts for it.
const reach = 40

// always is the position of a context word that counts everywhere: a key or a
// column's name.
const always = 1 << 40

// scanner is one pass over b. It stops only at digits and at signs: whatever is
// looked for has one of them. Words are read when a number asks what stands
// before it.
type scanner struct {
	b    []byte
	on   uint32
	hits []Hit
	// floor is the end of the last hit: nothing may begin before it.
	floor int
	base  int     // hits before it are the caller's
	said  context // what holds for all of b
	// words are the contexts of the words in reach of position read, a bit
	// each; last is where the last word of each ended.
	words uint32
	last  [contexts]int
	read  int
}

// Scan appends to dst what it finds in b, in order and without overlaps, and
// returns the extended dst. It allocates only what dst grows by.
func (d *Detector) Scan(dst []Hit, b []byte) []Hit {
	return d.scan(dst, b, noContext)
}

// scan is Scan where a key or a column's name has said what to expect.
func (d *Detector) scan(dst []Hit, b []byte, said context) []Hit {
	if d.on == 0 {
		return dst
	}
	s := scanner{b: b, on: d.on, hits: dst, base: len(dst), said: said, read: -1}
	s.run()
	return s.hits
}

func (s *scanner) run() {
	b := s.b
	for i := 0; i < len(b); {
		if i+8 <= len(b) { // most of a text is letters and spaces
			if next := b[i : i+8 : i+8]; (classes[next[0]]|classes[next[1]]|classes[next[2]]|classes[next[3]]|
				classes[next[4]]|classes[next[5]]|classes[next[6]]|classes[next[7]])&isStop == 0 {
				i += 8
				continue
			}
		}
		c := classes[b[i]]
		if c&isStop == 0 {
			i++
			continue
		}
		if c&isDigit == 0 {
			i = s.sign(i)
			continue
		}
		start, seen := i, uint8(isDigit)
		for start > s.floor && classes[b[start-1]]&isLetter != 0 { // a digit would have been stopped at
			start, seen = start-1, isWord
		}
		for i < len(b) && classes[b[i]]&isWord != 0 {
			seen |= classes[b[i]]
			i++
		}
		if seen&isLetter == 0 {
			i = s.number(start, i)
		} else {
			i = s.code(start, i)
		}
	}
}

// found notes a hit and returns where to go on. What is not asked for is not
// noted, but is still what it is: its digits are not taken for something else
// (what may hold anything, a URL or a secret, is then looked into instead).
func (s *scanner) found(e Entity, start, end int) int {
	if s.on&(1<<e) == 0 {
		return end
	}
	for len(s.hits) > s.base && s.floor > start && s.hits[len(s.hits)-1].Start >= start {
		s.hits = s.hits[:len(s.hits)-1] // a longer thing swallows what was found inside it
		s.floor = start
	}
	if start >= s.floor {
		s.hits = append(s.hits, Hit{start, end, e})
		s.floor = end
	}
	return end
}

// at returns the class of b[i], 0 outside of b.
func (s *scanner) at(i int) uint8 {
	if uint(i) < uint(len(s.b)) {
		return classes[s.b[i]]
	}
	return 0
}

// byteAt returns b[i], 0 outside of b.
func (s *scanner) byteAt(i int) byte {
	if uint(i) < uint(len(s.b)) {
		return s.b[i]
	}
	return 0
}

// sign looks at what is neither letter nor digit. It returns where to go on.
func (s *scanner) sign(i int) int {
	end := 0
	switch s.b[i] {
	case '@':
		end = s.email(i)
	case '_':
		end = s.serviceToken(i)
	case '=':
		end = s.assigned(i)
	case '-':
		if s.byteAt(i+1) == '-' && s.byteAt(i-1) != '-' {
			end = s.pem(i)
		}
	case '.':
		if s.byteAt(i-1)|0x20 == 'w' {
			end = s.www(i)
		}
	case ':':
		end = s.colon(i)
	}
	return max(end, i+1)
}

func (s *scanner) colon(i int) int {
	next := s.byteAt(i + 1)
	if next == '/' && s.byteAt(i+2) == '/' {
		return s.url(i)
	}
	if next == ':' || classes[next]&isHex != 0 {
		if end := s.colons(i); end > 0 {
			return end
		}
	}
	return s.assigned(i)
}

// email: at most 64 bytes in front (RFC 5321), labels with at least one dot
// behind, the last of letters.
func (s *scanner) email(at int) int {
	start := at
	for start > 0 && at-start < 64 && s.at(start-1)&(isWord|isLocal) != 0 {
		start--
	}
	for start < at && s.at(start)&isWord == 0 {
		start++
	}
	end, dot := at+1, 0
	for end < len(s.b) && end-at < 255 && (s.at(end)&isWord != 0 || s.b[end] == '-' || s.b[end] == '.') {
		if s.b[end] == '.' {
			if s.at(end+1)&isWord == 0 {
				break
			}
			dot = end
		}
		end++
	}
	for end > at && s.b[end-1] == '-' {
		end--
	}
	if start == at || dot == 0 || end-dot < 3 || s.at(dot+1)&isLetter == 0 {
		return 0
	}
	return s.found(Email, start, end)
}

// url: a scheme, :// and everything up to a space, a quote or an angle bracket.
func (s *scanner) url(colon int) int {
	start := colon
	for start > 0 && colon-start < 16 && (s.at(start-1)&isWord != 0 || s.b[start-1] == '+' || s.b[start-1] == '-') {
		start--
	}
	for start < colon && s.at(start)&isLetter == 0 {
		start++
	}
	if s.on&(1<<URL) == 0 || colon-start < 2 || s.at(colon+3) == 0 && s.byteAt(colon+3) != '[' {
		return 0
	}
	return s.found(URL, start, s.urlEnd(colon+3))
}

func (s *scanner) urlEnd(i int) int {
	for i < len(s.b) && s.b[i] > ' ' && s.b[i] != '"' && s.b[i] != '<' && s.b[i] != '>' && s.b[i] != '\\' && s.b[i] != '`' {
		i++
	}
	for i > 0 {
		switch s.b[i-1] {
		case '.', ',', ';', ':', '!', '?', ')', ']', '}', '\'':
			i--
			continue
		}
		break
	}
	return i
}

// colons looks for a MAC or an IPv6 address around its first colon.
func (s *scanner) colons(colon int) int {
	start := colon
	for start > s.floor && colon-start < 5 && s.at(start-1)&isHex != 0 {
		start--
	}
	if s.at(start-1)&isWord != 0 || s.byteAt(start-1) == ':' {
		return 0
	}
	if end := s.mac(start, ':'); end > 0 {
		return end
	}
	end := start
	for end < len(s.b) && end-start < 46 && (s.at(end)&isHex != 0 || s.b[end] == ':' || s.b[end] == '.') {
		end++
	}
	for end > start && (s.b[end-1] == '.' || s.b[end-1] == ':' && s.byteAt(end-2) != ':') {
		end--
	}
	if s.at(end)&isWord != 0 || !isIPv6(s.b[start:end]) {
		return 0
	}
	if s.byteAt(end) == '%' { // a zone
		for end++; s.at(end)&isWord != 0; end++ {
		}
	}
	return s.found(IP, start, end)
}

// mac: six pairs of hexadecimal digits between the same separator.
func (s *scanner) mac(start int, sep byte) int {
	end := start + 17
	if end > len(s.b) || s.at(end)&isWord != 0 || s.byteAt(end) == sep || s.at(start-1)&isWord != 0 {
		return 0
	}
	for i := start; i < end; i++ {
		if (i-start)%3 == 2 {
			if s.b[i] != sep {
				return 0
			}
		} else if s.at(i)&isHex == 0 {
			return 0
		}
	}
	return s.found(MAC, start, end)
}

// isIPv6 checks groups of up to four hexadecimal digits: eight, or fewer with
// one ::, the last two perhaps as dotted decimals (RFC 4291, 2.2). One that has
// neither a digit nor four groups is not taken: a::b is also a name in C++.
func isIPv6(b []byte) bool {
	groups, run, gap, telling := 0, 0, false, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '.':
			if run == 0 || groups == 0 && !gap {
				return false
			}
			return (groups+2 == 8 || gap && groups+2 < 8) && isIPv4(b[i-run:])
		case c != ':':
			if run++; run > 4 || classes[c]&isHex == 0 {
				return false
			}
			telling = telling || classes[c]&isDigit != 0
		case i+1 < len(b) && b[i+1] == ':':
			if gap || i == 0 && len(b) == 2 {
				return false
			}
			if run > 0 {
				groups++
			}
			gap, run = true, 0
			i++
		default:
			if run == 0 {
				return false
			}
			groups, run = groups+1, 0
		}
	}
	if run > 0 {
		groups++
	} else if len(b) > 0 && !(len(b) >= 2 && b[len(b)-2] == ':') {
		return false
	}
	return (telling || groups >= 4) && (groups == 8 && !gap || gap && groups < 8)
}

func isIPv4(b []byte) bool {
	parts, n, digits := 0, 0, 0
	for _, c := range b {
		if c == '.' {
			if digits == 0 {
				return false
			}
			parts, n, digits = parts+1, 0, 0
			continue
		}
		n = n*10 + int(c-'0')
		if digits++; c < '0' || c > '9' || digits > 3 || n > 255 {
			return false
		}
	}
	return parts == 3 && digits > 0
}
