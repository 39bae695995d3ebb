package sql

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// column is one column of a row type that names can refer to.
type column struct {
	name string
	set  set
	bare bool // it is a base column's own value, and set holds that column alone
}

// rows is what a query, a table or a function in FROM yields.
type rows struct {
	cols []column
	// open: there may be further columns, in unknown number. A name that is
	// none of cols may be one of a source's, or derive from rest.
	open    bool
	sources []*item
	rest    set
}

// item is one entry of a FROM list.
type item struct {
	rows
	alias  string // what it is called here
	schema string // of a base relation, as written
	rel    string // of a base relation: schema.table as searched; "" if derived
	// qualifiedOnly: old and new in RETURNING, which bare names do not reach.
	qualifiedOnly bool
}

// scope is what names mean at one level of a query.
type scope struct {
	parent *scope
	items  []*item
	star   []rows // what * expands to, one for each entry of the FROM list
	// natural: columns may have been merged behind the analysis's back, so a
	// name found in one item may mean another's too.
	natural bool
}

// ctes is a chain of the WITH queries in sight.
type ctes struct {
	parent *ctes
	name   string
	rows   rows
}

func (c *ctes) find(name string) (rows, bool) {
	for ; c != nil; c = c.parent {
		if c.name == name {
			return c.rows, true
		}
	}
	return rows{}, false
}

// id numbers a base column.
func (a *analysis) id(rel, name string) int32 {
	key := rel + "." + name
	if n, ok := a.ids[key]; ok {
		return n
	}
	n := int32(len(a.columns)) //nolint:gosec // bounded by the text
	a.ids[key] = n
	a.columns = append(a.columns, baseColumn{rel, name})
	return n
}

// find says what a name may be in an item: what it derives from, whether it is
// certain that the item has it, and whether it may have it at all.
func (a *analysis) find(it *item, name string) (c column, certain, maybe bool) {
	for _, col := range it.cols {
		if col.name == name {
			c.set = c.set.or(col.set)
			c.bare = col.bare && !certain
			certain = true
		}
	}
	if certain {
		return c, true, true
	}
	if it.rel != "" && systemColumn(name) {
		return column{name: name}, true, true
	}
	if !it.open {
		return column{}, false, false
	}
	if it.rel != "" {
		return column{name: name, set: set{ids: []int32{a.id(it.rel, name)}}, bare: true}, false, true
	}
	return a.passed(it.rows, name), false, true
}

// passed is what a column called name of open rows may derive from.
func (a *analysis) passed(r rows, name string) column {
	c := column{name: name, set: r.rest}
	for _, src := range r.sources {
		if s, _, maybe := a.find(src, name); maybe {
			c.bare = s.bare && len(r.sources) == 1 && r.rest.empty()
			c.set = c.set.or(s.set)
		}
	}
	return c
}

func systemColumn(name string) bool {
	switch name {
	case "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid":
		return true
	}
	return false
}

// whole is a row of the item as one value.
func (a *analysis) whole(it *item) set {
	if it.rel != "" && it.open {
		return set{ids: []int32{a.id(it.rel, "*")}}
	}
	return a.all(it.rows)
}

// all is everything that rows may hold.
func (a *analysis) all(r rows) set {
	s := r.rest
	for _, c := range r.cols {
		s = s.or(c.set)
	}
	for _, src := range r.sources {
		s = s.or(a.whole(src))
	}
	return s
}

// unqualified resolves a bare column name: innermost scope first, every
// candidate where the text alone cannot decide.
func (a *analysis) unqualified(sc *scope, name string) column {
	out, candidates := column{name: name}, 0
	for s := sc; s != nil; s = s.parent {
		found, certain := a.inScope(s, name)
		if certain.ok && !s.natural {
			if candidates == 0 {
				return certain.column
			}
			out.set, out.bare = out.set.or(certain.set), false
			return out
		}
		for _, c := range found {
			candidates++
			out.set = out.set.or(c.set)
			out.bare = c.bare && candidates == 1
		}
	}
	// A name that is no column may be a table's alias: the whole row.
	if it := alias(sc, name); it != nil {
		out.set, out.bare = out.set.or(a.whole(it)), false
		candidates++
	}
	if candidates == 0 {
		out.set = a.everything(sc)
		out.set.unknown = true
	}
	return out
}

type certainty struct {
	column
	ok bool
}

func (a *analysis) inScope(s *scope, name string) (found []column, certain certainty) {
	for _, it := range s.items {
		if it.qualifiedOnly {
			continue
		}
		c, sure, maybe := a.find(it, name)
		if sure && !certain.ok {
			certain = certainty{c, true}
		}
		if maybe {
			found = append(found, c)
		}
	}
	return found, certain
}

// everything is what a name that could not be placed may derive from.
func (a *analysis) everything(sc *scope) set {
	var s set
	for ; sc != nil; sc = sc.parent {
		for _, it := range sc.items {
			s = s.or(a.whole(it))
		}
	}
	return s
}

func alias(sc *scope, name string) *item {
	for ; sc != nil; sc = sc.parent {
		for _, it := range sc.items {
			if it.alias == name {
				return it
			}
		}
	}
	return nil
}

// qualified resolves table.column and schema.table.column.
func (a *analysis) qualified(sc *scope, schema, table, name string) column {
	for s := sc; s != nil; s = s.parent {
		for _, it := range s.items {
			if it.alias != table || schema != "" && it.schema != "" && it.schema != schema {
				continue
			}
			if c, _, maybe := a.find(it, name); maybe {
				return c
			}
			// No such column: f(t) written as t.f, or a name that was figured wrongly.
			u := a.whole(it)
			u.unknown = true
			return column{name: name, set: u}
		}
	}
	u := a.everything(sc)
	u.unknown = true
	return column{name: name, set: u}
}

// aliased applies AS alias(a, b, …) to an item.
func (a *analysis) aliased(it *item, as *pg.Alias) *item {
	if as == nil {
		return it
	}
	out := *it
	out.alias, out.schema = as.Aliasname, ""
	names := strs(as.Colnames)
	if len(names) == 0 {
		return &out
	}
	out.cols = slices.Clone(it.cols)
	for i, name := range names {
		switch {
		case i < len(out.cols):
			out.cols[i].name = name
		case it.rel != "" || it.open:
			// The text does not say which column is renamed.
			out.cols = append(out.cols, column{name: name, set: a.whole(it)})
		}
	}
	return &out
}

// relation notes a mention of a relation and returns its item.
func (a *analysis) relation(rv *pg.RangeVar, written bool) *item {
	schema, name := rv.GetSchemaname(), rv.GetRelname()
	a.facts.Relations = appendNew(a.facts.Relations, policy.Relation{
		Schema: schema, Name: name, Alias: rv.GetAlias().GetAliasname(), Written: written, Only: !rv.GetInh(),
	})
	full := searched(schema, name)
	a.facts.Tables = appendNew(a.facts.Tables, full)
	if written && strings.HasPrefix(full, "pg_catalog.") {
		a.raise(policy.Admin)
	}
	it := &item{alias: name, schema: schema, rel: full, rows: rows{open: true}}
	return a.aliased(it, rv.GetAlias())
}

// searched is a relation's name as the default search_path would find it.
func searched(schema, name string) string {
	if schema == "" {
		schema = "public"
		if catalogRelations()[name] {
			schema = "pg_catalog"
		}
	}
	return schema + "." + name
}

func appendNew[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}

// strs are the values of a list of String nodes.
func strs(nodes []*pg.Node) []string {
	out := make([]string, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, n.GetString_().GetSval())
	}
	return out
}
