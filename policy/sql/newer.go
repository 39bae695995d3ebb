package sql

import "strings"

// This file tells syntax that came with PostgreSQL 18 from mere mistakes, in
// texts that the grammar of 17 has refused. It words an error and decides
// nothing. https://www.postgresql.org/docs/18/release-18.html

// newer are the words by which such syntax is known: "" stands for any one token.
var newer = [][]string{ //nolint:gochecknoglobals // a constant table; Go has no constant slices
	{"virtual"},                       // generated columns
	{"without", "overlaps"},           // temporal keys
	{"period"},                        // … and references
	{"enforced"},                      // CHECK … NOT ENFORCED
	{"returning", "with"},             // RETURNING WITH (OLD AS o)
	{"vacuum", "only"},                //
	{"analyze", "only"},               //
	{"constraint", "", "not", "null"}, // named NOT NULL as a table constraint
	{"alter", "constraint", "", "inherit"},
	{"alter", "constraint", "", "no", "inherit"},
}

// seemsNewer reports whether a text holds what only PostgreSQL 18 knows.
func seemsNewer(text string) bool {
	words := lowerWords(text)
	for i := range words {
		for _, pattern := range newer {
			if begins(words[i:], pattern) {
				return true
			}
		}
	}
	return false
}

func begins(words, pattern []string) bool {
	if len(words) < len(pattern) {
		return false
	}
	for i, p := range pattern {
		if p != "" && words[i] != p {
			return false
		}
	}
	return true
}

// lowerWords are the tokens of a text, unquoted words in lower case and
// anything else as it stands.
func lowerWords(text string) []string {
	l := lexer{src: text}
	var out []string
	for {
		switch t := l.next(); t.kind {
		case kEOF, kBad:
			return out
		case kIdent:
			out = append(out, strings.ToLower(text[t.start:t.end]))
		case kString:
			out = append(out, "'")
		default:
			out = append(out, text[t.start:t.end])
		}
	}
}

const newerHint = "; if that is syntax of PostgreSQL 18: hoopctl reads SQL as PostgreSQL 17 does, and what it cannot read it refuses"
