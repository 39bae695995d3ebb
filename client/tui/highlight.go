package tui

import (
	"strings"
	"unicode"
)

// highlight sets a statement's keywords apart. It changes no character of it:
// what is signed is what is read.
func highlight(sql string) string {
	var b strings.Builder
	for len(sql) > 0 {
		n := word(sql)
		if n == 0 {
			n = other(sql)
			b.WriteString(sql[:n])
		} else if keywords[strings.ToUpper(sql[:n])] {
			b.WriteString(bold.Render(sql[:n]))
		} else {
			b.WriteString(sql[:n])
		}
		sql = sql[n:]
	}
	return b.String()
}

// word is the length of the identifier or keyword that s begins with.
func word(s string) int {
	for i, r := range s {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			return i
		}
	}
	return len(s)
}

// other is the length of what is no word: a quoted text whole, else one character.
func other(s string) int {
	if q := s[0]; q == '\'' || q == '"' {
		if i := strings.IndexByte(s[1:], q); i >= 0 {
			return i + 2
		}
		return len(s)
	}
	for i := range s {
		if i > 0 {
			return i
		}
	}
	return len(s)
}

var keywords = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`SELECT FROM WHERE AND OR NOT INSERT INTO VALUES UPDATE SET DELETE MERGE USING JOIN LEFT RIGHT INNER OUTER ON
		GROUP BY ORDER HAVING LIMIT OFFSET UNION ALL DISTINCT RETURNING WITH AS CREATE ALTER DROP TABLE VIEW INDEX TRUNCATE GRANT REVOKE COPY TO BEGIN COMMIT
		ROLLBACK CASE WHEN THEN ELSE END EXISTS IN IS NULL LIKE BETWEEN EXPLAIN ANALYZE`) {
		m[w] = true
	}
	return m
}()
