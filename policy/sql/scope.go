package sql

import (
	"slices"

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
	alias  string           // what it is called here
	schema string           // of a base relation, as written
	rel    relationName     // of a base relation; zero if derived
	index  map[string][]int // of many columns, by name; made when first asked
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
	windows map[string]set // by the name of each WINDOW: what its definition reads
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
func (a *analysis) id(rel relationName, name string) int32 {
	key := baseColumn{rel, name}
	if n, ok := a.ids[key]; ok {
		return n
	}
	n := int32(len(a.columns)) //nolint:gosec // bounded by the text
	a.ids[key] = n
	a.columns = append(a.columns, key)
	return n
}

// find says what a name may be in an item: what it derives from, whether it is
// certain that the item has it, and whether it may have it at all.
func (a *analysis) find(it *item, name string) (c column, certain, maybe bool) {
	for _, i := range a.positions(it, name) {
		c.name, c.set = name, a.union(c.set, it.cols[i].set)
		c.bare = it.cols[i].bare && !certain
		certain = true
	}
	if certain {
		return c, true, true
	}
	if it.base() && systemColumn(name) {
		return column{name: name}, true, true
	}
	if !it.open {
		return column{}, false, false
	}
	if it.base() {
		return column{name: name, set: a.searchedColumn(it, name), bare: true}, false, true
	}
	return a.passed(it.rows, name), false, true
}

// positions are where an item has columns of the name.
func (a *analysis) positions(it *item, name string) []int {
	if len(it.cols) <= 8 {
		var at []int
		for i := range it.cols {
			if it.cols[i].name == name {
				at = append(at, i)
			}
		}
		return at
	}
	if it.index == nil {
		a.spends(len(it.cols))
		it.index = make(map[string][]int, len(it.cols))
		for i := range it.cols {
			it.index[it.cols[i].name] = append(it.index[it.cols[i].name], i)
		}
	}
	return it.index[name]
}

// passed is what a column called name of open rows may derive from.
func (a *analysis) passed(r rows, name string) column {
	c := column{name: name, set: r.rest}
	for _, src := range r.sources {
		if s, _, maybe := a.find(src, name); maybe {
			c.bare = s.bare && len(r.sources) == 1 && r.rest.empty()
			c.set = a.union(c.set, s.set)
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
	if it.base() && it.open {
		return a.searchedColumn(it, "*")
	}
	return a.all(it.rows)
}

// all is everything that rows may hold.
func (a *analysis) all(r rows) set {
	sets := make([]set, 0, 1+len(r.cols)+len(r.sources))
	sets = append(sets, r.rest)
	for _, c := range r.cols {
		sets = append(sets, c.set)
	}
	for _, src := range r.sources {
		sets = append(sets, a.whole(src))
	}
	return a.union(sets...)
}

// unqualified resolves a bare column name: innermost scope first, every
// candidate where the text alone cannot decide.
func (a *analysis) unqualified(sc *scope, name string) column {
	var candidates []set
	out := column{name: name}
	for s := sc; s != nil; s = s.parent {
		found, certain := a.inScope(s, name)
		if certain.ok && !s.natural {
			if len(candidates) == 0 {
				return certain.column
			}
			return column{name: name, set: a.union(append(candidates, certain.set)...)}
		}
		for _, c := range found {
			candidates = append(candidates, c.set)
			out.bare = c.bare && len(candidates) == 1
		}
	}
	// A name that is no column may be a table's alias: the whole row.
	if it := alias(sc, name); it != nil {
		candidates, out.bare = append(candidates, a.whole(it)), false
	}
	if len(candidates) == 0 {
		return column{name: name, set: a.everything(sc).or(set{unknown: true})}
	}
	out.set = a.union(candidates...)
	return out
}

type certainty struct {
	column
	ok bool
}

func (a *analysis) inScope(s *scope, name string) (found []column, certain certainty) {
	for _, it := range s.items {
		if it.qualifiedOnly || !a.spend() {
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
	var sets []set
	for ; sc != nil; sc = sc.parent {
		for _, it := range sc.items {
			sets = append(sets, a.whole(it))
		}
	}
	return a.union(sets...)
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
	out.index = nil
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
		case it.base() || it.open:
			// The text does not say which column is renamed.
			out.cols = append(out.cols, column{name: name, set: a.whole(it)})
		}
	}
	return &out
}

// relation notes a mention of a relation and returns its item.
func (a *analysis) relation(rv *pg.RangeVar, written bool) *item {
	schema, name := rv.GetSchemaname(), rv.GetRelname()
	mention := policy.Relation{Schema: schema, Name: name, Alias: rv.GetAlias().GetAliasname(), Written: written, Only: !rv.GetInh()}
	if !a.mentions[mention] {
		a.mentions[mention] = true
		a.facts.Relations = append(a.facts.Relations, mention)
	}
	it := &item{alias: name, schema: schema, rel: searched(schema, name), rows: rows{open: true}}
	if a.catalog != nil {
		if r := a.catalog.Relation(schema, name); r != nil {
			it = a.known(r)
			it.alias = name
		} else {
			a.facts.Unresolved = true
		}
	}
	a.once(&a.facts.Tables, it.rel.String())
	if written && it.rel.schema == "pg_catalog" {
		a.raise(policy.Admin)
	}
	return a.aliased(it, rv.GetAlias())
}

func (it *item) base() bool { return it.rel != relationName{} }

// searchedColumn is a column of a relation whose columns are not known: with a
// catalogue that does not know the relation it may hold anything.
func (a *analysis) searchedColumn(it *item, name string) set {
	return set{ids: []int32{a.id(it.rel, name)}, unknown: a.catalog != nil}
}

// searched is a relation's name as the default search_path would find it.
func searched(schema, name string) relationName {
	if schema == "" {
		schema = "public"
		if catalogRelations()[name] {
			schema = "pg_catalog"
		}
	}
	return relationName{schema, name}
}

// strs are the values of a list of String nodes.
func strs(nodes []*pg.Node) []string {
	out := make([]string, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, n.GetString_().GetSval())
	}
	return out
}
