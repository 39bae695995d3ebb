package exec

import (
	"strings"
	"unicode/utf8"
)

// Split cuts a script into statements as psql does: at semicolons outside of
// quotes, dollar quotes, comments and parentheses, and outside of the BEGIN
// ATOMIC … END of a function's body. What holds nothing but comments and space
// is left out; the semicolons are not part of what is returned.
//
// It is a convenience and no security boundary: the server reads each message
// with its own grammar, and a message of several statements is refused.
// (https://www.postgresql.org/docs/current/sql-syntax-lexical.html)
func Split(script string) []string {
	var out []string
	s := splitter{text: script}
	for s.at < len(s.text) {
		start := s.at
		s.statement()
		text := script[start:s.at]
		if s.content {
			out = append(out, strings.TrimSpace(text))
		}
		s.at++ // the semicolon
	}
	return out
}

type splitter struct {
	text    string
	at      int
	depth   int  // of parentheses
	atomic  int  // of BEGIN ATOMIC and of CASE inside of it
	content bool // something other than comments and space has been seen
	word    string
}

// statement moves at to the semicolon that ends the statement, or to the end.
func (s *splitter) statement() {
	s.depth, s.atomic, s.content, s.word = 0, 0, false, ""
	for s.at < len(s.text) {
		if s.text[s.at] == ';' && s.depth == 0 && s.atomic == 0 {
			return
		}
		s.token()
	}
}

// token moves past one token, comment or space.
func (s *splitter) token() {
	c := s.text[s.at]
	switch {
	case strings.HasPrefix(s.text[s.at:], "--"):
		s.skipTo("\n")
		return
	case strings.HasPrefix(s.text[s.at:], "/*"):
		s.blockComment()
		return
	case c == ' ' || c >= '\t' && c <= '\r':
		s.at++
		return
	}
	s.content = true
	switch {
	case c == '\'':
		s.quoted('\'', strings.EqualFold(s.word, "e"))
	case c == '"':
		s.quoted('"', false)
	case c == '$':
		s.dollar()
	case c == '(' || c == '[':
		s.depth++
		s.at++
	case c == ')' || c == ']':
		s.depth = max(0, s.depth-1)
		s.at++
	case identStart(c):
		s.identifier()
		return
	default:
		s.at++
	}
	s.word = ""
}

func identStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

func identPart(c byte) bool { return identStart(c) || c >= '0' && c <= '9' || c == '$' }

// identifier reads a word and counts what nests in a function's body.
func (s *splitter) identifier() {
	start := s.at
	for s.at < len(s.text) && identPart(s.text[s.at]) {
		s.at++
	}
	last := s.word
	s.word = s.text[start:s.at]
	switch strings.ToLower(s.word) {
	case "atomic":
		if strings.EqualFold(last, "begin") {
			s.atomic++
		}
	case "case":
		if s.atomic > 0 {
			s.atomic++
		}
	case "end":
		if s.atomic > 0 {
			s.atomic--
		}
	}
}

// quoted moves past a quoted string; a doubled quote stands for itself, and a
// backslash escapes in E'…' only.
func (s *splitter) quoted(quote byte, escapes bool) {
	for s.at++; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '\\' && escapes:
			s.at++
		case c == quote:
			if s.at+1 < len(s.text) && s.text[s.at+1] == quote {
				s.at++
				continue
			}
			s.at++
			return
		}
	}
	s.at = min(s.at, len(s.text))
}

// dollar moves past $tag$…$tag$, or past a lone dollar sign.
func (s *splitter) dollar() {
	end := s.at + 1
	if end < len(s.text) && identStart(s.text[end]) {
		for end < len(s.text) && identPart(s.text[end]) && s.text[end] != '$' {
			end++
		}
	}
	if end >= len(s.text) || s.text[end] != '$' {
		s.at++
		return
	}
	tag := s.text[s.at : end+1]
	s.at = end + 1
	s.skipTo(tag)
}

// skipTo moves past the next mark, or to the end.
func (s *splitter) skipTo(mark string) {
	i := strings.Index(s.text[s.at:], mark)
	if i < 0 {
		s.at = len(s.text)
		return
	}
	s.at += i + len(mark)
}

// blockComment moves past a comment; comments nest.
func (s *splitter) blockComment() {
	for depth := 0; s.at < len(s.text); {
		switch {
		case strings.HasPrefix(s.text[s.at:], "/*"):
			depth++
			s.at += 2
		case strings.HasPrefix(s.text[s.at:], "*/"):
			depth--
			s.at += 2
			if depth == 0 {
				return
			}
		default:
			s.at++
		}
	}
}
