package postgres

import (
	"slices"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// view is a classified catalogue as one session sees it: names are looked up
// along its search_path. It implements sql.Catalog.
type view struct {
	resolver
	known *classified
	blind bool // names may mean something else: nothing is known
}

func (c *classified) seenBy(searchPath []string, role string) *view {
	return &view{resolver: resolver{snapshot: c.snapshot, path: c.effectivePath(searchPath, role)}, known: c}
}

// Relation implements sql.Catalog. Columns go by their tags' own names, so that
// lineage speaks of what is tagged whatever it is called now.
func (v *view) Relation(schema, name string) *sql.Relation {
	found, sure := v.lookup(schema, name)
	if v.blind || !sure || len(found) != 1 {
		return nil
	}
	rel := found[0]
	if rel.rewritten {
		return nil // its rules may answer with anything
	}
	out := &sql.Relation{Schema: rel.schema, Name: rel.name}
	for _, col := range rel.columns {
		if col == nil {
			continue
		}
		s := v.known.sources(rel, col.num)
		out.Columns = append(out.Columns, sql.Column{Name: col.name, Derived: true, Sources: s.refs, Bare: s.bare, Unknown: s.unknown})
	}
	return out
}

// sources is what a column shows: tags by their own names, untagged columns by
// theirs.
type sources struct {
	refs    []policy.ColumnRef
	bare    bool
	unknown bool
}

func (c *classified) sources(rel *relation, num int16) sources {
	col := rel.column(num)
	if col == nil {
		return sources{unknown: true}
	}
	own := policy.ColumnRef{Schema: rel.schema, Table: rel.name, Column: col.name}
	if t := c.hidden(rel.oid, num); t != nil {
		return sources{refs: t.sources, bare: !t.derived && len(t.sources) == 1, unknown: t.unknown}
	}
	switch {
	case rel.builtIn():
		return sources{refs: []policy.ColumnRef{own}, bare: true, unknown: !systemHarmless(rel, num)}
	case rel.table(), rel.kind == 'S':
		return sources{refs: []policy.ColumnRef{own}, bare: true}
	case rel.kind == 'v', rel.kind == 'm':
		return c.beneathColumn(rel, num)
	}
	return sources{unknown: true} // a foreign table shows what another server says
}

// beneathColumn is what a column of a view derives from.
func (c *classified) beneathColumn(rel *relation, num int16) sources {
	derives := c.origins(rel)
	if derives == nil || rel.rewritten {
		return sources{unknown: true}
	}
	from := derives[num-1]
	out := sources{unknown: from.unknown, bare: from.bare && len(from.columns) == 1}
	for id := range from.columns {
		base := c.relations[id.Relation]
		if base == nil || base == rel {
			return sources{unknown: true}
		}
		nums := []int16{id.Column}
		if id.Column == 0 {
			nums = nums[:0]
			for _, col := range base.columns {
				if col != nil {
					nums = append(nums, col.num)
				}
			}
		}
		for _, n := range nums {
			s := c.sources(base, n)
			out.unknown, out.bare = out.unknown || s.unknown, out.bare && s.bare
			for _, ref := range s.refs {
				if !slices.Contains(out.refs, ref) {
					out.refs = append(out.refs, ref)
				}
			}
		}
	}
	return out
}

// Trusted implements sql.Catalog.
func (v *view) Trusted(what sql.Code, schema, name string) bool {
	switch what {
	case sql.Function:
		return v.trustedFunction(schema, name)
	case sql.Operator:
		own, foreign := v.operators[name]
		return !foreign || own
	case sql.Cast:
		return v.trustedCast(schema, name)
	case sql.Syntax:
		return !slices.ContainsFunc(v.functions[name], func(f *function) bool { return f.schema != "pg_catalog" })
	}
	return false
}

// trustedFunction: all functions that the name may mean here compute from
// their arguments, the clock or the catalogue.
func (v *view) trustedFunction(in, name string) bool {
	known := false
	for _, f := range v.functions[name] {
		if in != "" && f.schema != in || in == "" && !v.searches(f.schema) {
			continue
		}
		if !f.pure() {
			return false
		}
		known = true
	}
	return known
}

// searches reports whether a schema is in the path.
func (v *view) searches(name string) bool {
	return slices.ContainsFunc(v.path, func(in *schema) bool { return in.name == name })
}

// trustedCast: nobody gave the database a cast of his own making to a type of
// that name.
func (v *view) trustedCast(schema, name string) bool {
	known := false
	for id, t := range v.types {
		if t.name != name || schema != "" && t.schema != schema {
			continue
		}
		if v.casts[id] {
			return false
		}
		known = true
	}
	return known
}

// pure reports whether a function computes from its arguments, the clock or
// the catalogue, and reads nothing that a client could have put somewhere.
func (f *function) pure() bool {
	if f.oid >= firstUserOID {
		return f.computes()
	}
	own := f.schema == "pg_catalog" && (f.language == languageInternal || f.language == languageSQL)
	return own && !impureNames[f.name] && !impureName(f.name) && (f.volatility != 'v' || pureVolatile[f.name])
}

func (s *snapshot) pureOID(id uint32) bool {
	f := s.byOID[id]
	return f != nil && f.pure()
}

// computes reports whether a function is of an extension whose functions see
// their arguments only.
func (f *function) computes() bool {
	return computing[f.extension] && (f.language == languageC || f.language == languageInternal)
}

// computing are extensions that add types, operators and arithmetic. Missing on
// purpose: what reads storage, statistics, files or other servers, or runs text.
var computing = map[string]bool{
	"btree_gin": true, "btree_gist": true, "citext": true, "cube": true, "earthdistance": true, "fuzzystrmatch": true, "hstore": true,
	"intarray": true, "isn": true, "ltree": true, "pg_trgm": true, "pgcrypto": true, "postgis": true, "seg": true, "unaccent": true,
	"uuid-ossp": true, "vector": true,
}
