package sql

import (
	_ "embed"
	"strings"
	"sync"

	"github.com/hoopctl/hoopctl/policy"
)

//go:embed functions.txt
var functionTable string

// effect is what is known of a function by its name.
type effect uint8

const (
	unknownFunction effect = iota // nobody knows: at least a write, its result could hold anything
	pure
	aggregate
	window
	environment
	catalogue
	state
	writes
	administers
)

var builtins = sync.OnceValue(func() map[string]effect { //nolint:gochecknoglobals // a constant table, read once
	headings := map[string]effect{
		"pure": pure, "aggregate": aggregate, "window": window, "environment": environment,
		"catalogue": catalogue, "state": state, "write": writes, "admin": administers,
	}
	table := make(map[string]effect, 2500)
	var now effect
	for line := range strings.Lines(functionTable) {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " "):
			for _, name := range strings.Fields(line) {
				table[name] = now
			}
		default:
			now = headings[strings.TrimSpace(line)]
		}
	}
	return table
})

// function is what a call's name says about it.
type function struct {
	name   string // schema.function as searched
	effect effect
}

// named classifies a function by the parts of its name. PostgreSQL searches
// pg_catalog first unless the search_path says otherwise, and prefers a better
// match of the argument types elsewhere: that a name means the built-in
// function is confirmed with the catalogue at hand (see Resolve).
func named(parts []string) function {
	name := parts[len(parts)-1]
	e := builtins()[name]
	if len(parts) == 1 {
		if e != unknownFunction {
			return function{name: "pg_catalog." + name, effect: e}
		}
		if administrative(name) {
			return function{name: "public." + name, effect: administers}
		}
		return function{name: "public." + name}
	}
	full := strings.Join(parts, ".")
	switch {
	case parts[0] == "information_schema" && strings.HasPrefix(name, "_pg_"):
		return function{name: full, effect: pure} // its views' own helpers; drivers call some
	case parts[len(parts)-2] == "pg_catalog" && e == unknownFunction:
		return function{name: full, effect: administers}
	case parts[len(parts)-2] == "pg_catalog":
		return function{name: full, effect: e}
	case e == administers, administrative(name):
		return function{name: full, effect: administers}
	default:
		return function{name: full}
	}
}

// administrative reports whether a name that stands in no table begins as
// server administration, file access, large objects or remote execution do.
func administrative(name string) bool {
	for _, prefix := range []string{"pg_", "lo_", "dblink", "postgres_fdw_", "binary_upgrade_", "xpath_table", "brin_", "gin_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// class is the least strict class of a statement that calls the function.
func (e effect) class() policy.Class {
	switch e {
	case pure, aggregate, window, environment, catalogue, state:
		return policy.Read
	case writes, unknownFunction:
		return policy.Write
	default:
		return policy.Admin
	}
}

// operators of pg_catalog, PostgreSQL 12 to 18. Any other is a function of
// somebody's making.
var operators = sync.OnceValue(func() map[string]bool { //nolint:gochecknoglobals // a constant table, read once
	table := make(map[string]bool, 90)
	for _, op := range strings.Fields(`!! !~ !~* !~~ !~~* # ## #- #> #>> % & && &< &<| &> * *< *<= *<> *= *> *>= + - -> ->> -|- / < <->
		<< <<= <<| <= <> != <@ <^ = > >= >> >>= >^ ? ?# ?& ?- ?-| ?| ?|| @ @-@ @> @? @@ @@@ ^ ^@ | |&> |/ |>> || ||/ ~ ~* ~<=~ ~<~ ~= ~>=~ ~>~ ~~ ~~*`) {
		table[op] = true
	}
	return table
})

//go:embed relations.txt
var relationTable string

// catalogRelations are the names of pg_catalog's tables and views.
var catalogRelations = sync.OnceValue(func() map[string]bool { //nolint:gochecknoglobals // a constant table, read once
	table := make(map[string]bool, 160)
	for line := range strings.Lines(relationTable) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, name := range strings.Fields(line) {
			table[name] = true
		}
	}
	return table
})
