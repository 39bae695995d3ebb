package postgres

import (
	"slices"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
)

// resolve returns facts with the names that they were searched by replaced by
// what those mean in this database, and the OIDs of all relations concerned,
// sorted. The facts given are not changed.
//
// Names are looked up as PostgreSQL does: temporary relations, then
// pg_catalog, then the search_path ("$user" is the role). What cannot be
// decided from here stays in the facts under every name that it may have, and
// Unresolved stays true. A view, a partition and an inheritance child bring the
// tables that they read along, so that a rule that names a table holds for
// whatever reads it; as with GRANT, a rule on a partition does not hold for its
// parent.
func (s *snapshot) resolve(facts *policy.Facts, searchPath []string, role string) (*policy.Facts, []uint32) {
	if facts == nil {
		return nil, nil
	}
	r := &resolver{snapshot: s, path: s.effectivePath(searchPath, role), meant: map[string][]*relation{}, complete: true}
	for i := range facts.Relations {
		r.relation(&facts.Relations[i])
	}
	out := *facts
	out.Tables = r.tables(facts.Tables)
	out.Columns = r.columns(facts.Columns, true)
	out.PredicateColumns = r.columns(facts.PredicateColumns, true)
	out.WriteColumns = r.columns(facts.WriteColumns, false)
	out.Functions = r.functionNames(facts.Functions)
	out.Unresolved = !r.complete
	return &out, r.oids()
}

// effectivePath is the search_path with pg_catalog where PostgreSQL implies it
// and without schemas that do not exist.
func (s *snapshot) effectivePath(searchPath []string, role string) []*schema {
	var path []*schema
	if !slices.Contains(searchPath, "pg_catalog") && s.schemas["pg_catalog"] != nil {
		path = append(path, s.schemas["pg_catalog"])
	}
	for _, name := range searchPath {
		if name == "$user" {
			name = role
		}
		if in := s.schemas[name]; in != nil && !slices.Contains(path, in) {
			path = append(path, in)
		}
	}
	return path
}

// resolver resolves the names of one statement.
type resolver struct {
	*snapshot
	path     []*schema
	meant    map[string][]*relation // by the name that facts use
	complete bool
}

// relation looks a mention up. The grammar cannot know where a name without a
// schema lies: its facts say public, or pg_catalog for the names that lie there
// in PostgreSQL; both stand for what is found.
func (r *resolver) relation(mention *policy.Relation) {
	found, sure := r.lookup(mention.Schema, mention.Name)
	r.complete = r.complete && sure
	guesses := []string{mention.Schema}
	if mention.Schema == "" {
		guesses = []string{"public", "pg_catalog"}
	}
	for _, guess := range guesses {
		name := guess + "." + mention.Name
		r.meant[name] = append(r.meant[name], found...)
	}
}

// lookup returns what a name may mean; sure is true if it is exactly that. A
// relation that does not exist is not sure either: it may be about to.
func (r *resolver) lookup(schemaName, name string) (found []*relation, sure bool) {
	if schemaName != "" && schemaName != "pg_temp" {
		if in := r.schemas[schemaName]; in != nil && in.relations[name] != nil {
			return []*relation{in.relations[name]}, true
		}
		return nil, false
	}
	sure = true
	for _, in := range r.schemas {
		// Which pg_temp_N is the session's own cannot be seen from here.
		if in.temporary && in.relations[name] != nil {
			found, sure = append(found, in.relations[name]), false
		}
	}
	if schemaName == "pg_temp" {
		return found, false
	}
	for i, in := range r.path {
		rel := in.relations[name]
		if rel == nil {
			continue
		}
		found = append(found, rel)
		if in.everyone {
			return found, sure
		}
		// A role without USAGE on the schema skips it.
		if shadowed(r.path[i+1:], name) {
			sure = false
			continue
		}
		return found, sure
	}
	return found, sure && len(found) > 0
}

func shadowed(path []*schema, name string) bool {
	return slices.ContainsFunc(path, func(in *schema) bool { return in.relations[name] != nil })
}

// tables replaces searched names, and adds what the relations read.
func (r *resolver) tables(names []string) []string {
	var out []string
	for _, name := range names {
		rels, searched := r.meant[name]
		if !searched || len(rels) == 0 {
			out = append(out, name)
			r.complete = r.complete && searched && len(rels) > 0
		}
	}
	for _, rel := range r.reached() {
		out = append(out, rel.qualified())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// reached are the relations that the statement names and all that those read.
func (r *resolver) reached() []*relation {
	var found []*relation
	seen := map[*relation]bool{}
	var add func(rel *relation)
	add = func(rel *relation) {
		if rel == nil || seen[rel] {
			return
		}
		seen[rel] = true
		found = append(found, rel)
		for _, up := range rel.parents {
			add(up)
		}
		for base := range rel.uses {
			add(r.relations[base])
		}
	}
	for _, rels := range r.meant {
		for _, rel := range rels {
			add(rel)
		}
	}
	return found
}

func (r *resolver) oids() []uint32 {
	var out []uint32
	for _, rel := range r.reached() {
		out = append(out, rel.oid)
	}
	slices.Sort(out)
	return out
}

// columns replaces the table's part of searched column names. With through,
// a column of a view adds the base columns that the view reads (which of them
// it shows is not known here: all), and one of a partition adds its parents'.
func (r *resolver) columns(names []string, through bool) []string {
	var out []string
	for _, name := range names {
		table, col, ok := r.split(name)
		if !ok {
			out = append(out, name)
			r.complete = false
			continue
		}
		for _, rel := range r.meant[table] {
			out = append(out, r.expand(rel, col, through)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// split finds the table in schema.table.column: any of the three may hold dots.
func (r *resolver) split(name string) (table, col string, ok bool) {
	for known, rels := range r.meant {
		if len(rels) > 0 && strings.HasPrefix(name, known+".") && len(known) > len(table) {
			table, col, ok = known, name[len(known)+1:], true
		}
	}
	return table, col, ok
}

func (r *resolver) expand(rel *relation, col string, through bool) []string {
	cols := []string{col}
	if col == "*" {
		cols = cols[:0]
		for _, c := range rel.columns {
			if c != nil {
				cols = append(cols, c.name)
			}
		}
	}
	var out []string
	for _, c := range cols {
		out = append(out, rel.qualified()+"."+c)
		if !through {
			continue
		}
		for _, up := range rel.ancestors() {
			if up.named(c) != nil {
				out = append(out, up.qualified()+"."+c)
			}
		}
	}
	if through && len(rel.uses) > 0 {
		out = append(out, r.beneath(rel, map[uint32]bool{})...)
	}
	return out
}

// beneath are all base columns that a view mentions.
func (r *resolver) beneath(view *relation, seen map[uint32]bool) []string {
	if seen[view.oid] {
		return nil
	}
	seen[view.oid] = true
	var out []string
	for base, nums := range view.uses {
		rel := r.relations[base]
		if rel == nil {
			continue
		}
		for _, c := range rel.columns {
			if c != nil && (slices.Contains(nums, 0) || slices.Contains(nums, c.num)) {
				out = append(out, rel.qualified()+"."+c.name)
			}
		}
		out = append(out, r.beneath(rel, seen)...)
	}
	return out
}

// functionNames adds to each function that was found in pg_catalog the ones of
// the same name elsewhere in the path: PostgreSQL picks by argument types, and
// a user's lower(varchar) wins over pg_catalog.lower(text).
func (r *resolver) functionNames(names []string) []string {
	out := slices.Clone(names)
	for _, name := range names {
		bare, found := strings.CutPrefix(name, "pg_catalog.")
		if !found {
			continue
		}
		for _, f := range r.functions[bare] {
			if f.schema != "pg_catalog" && slices.ContainsFunc(r.path, func(in *schema) bool { return in.name == f.schema }) {
				out = append(out, f.schema+"."+bare)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// harmless reports whether a statement can reach no tagged or new column, so
// that whatever it computes may be shown. All of these must hold:
//
//   - it is a SELECT, VALUES, TABLE, SHOW, EXPLAIN, INSERT, UPDATE, DELETE or
//     MERGE whose text is all there is to it (no EXECUTE, FETCH, CALL or DO);
//   - every relation is resolved, and is an ordinary table without rules, none
//     of whose columns is held back, or a system relation that holds names and
//     settings only;
//   - every function is PostgreSQL's own, and computes from its arguments, the
//     clock or the catalogue;
//   - nobody gave the database operators or casts of other code, nor the tables
//     functions that look like columns.
func (c *classified) harmless(facts *policy.Facts, fields []field) bool {
	if facts == nil || facts.Unresolved || facts.Prepared != "" || facts.Cursor != "" || facts.Copy != nil {
		return false
	}
	switch facts.Kind {
	case "SHOW":
		return harmlessShow(fields)
	case "SELECT", "VALUES", "TABLE", "EXPLAIN", "INSERT", "UPDATE", "DELETE", "MERGE":
	default:
		return false
	}
	if c.foreignCode {
		return false
	}
	for _, name := range facts.Tables {
		if !c.harmlessTable(name) {
			return false
		}
	}
	if slices.Contains(facts.Columns, "pg_catalog.pg_attribute.attmissingval") {
		return false
	}
	return !slices.ContainsFunc(facts.Functions, func(name string) bool { return !c.pure(name) })
}

// harmlessShow lets the server's own settings through. A setting with a dot in
// its name holds whatever somebody put there.
func harmlessShow(fields []field) bool {
	return !slices.ContainsFunc(fields, func(f field) bool { return strings.Contains(f.Name, ".") })
}

// harmlessTable takes schema.table as resolve wrote it.
func (c *classified) harmlessTable(name string) bool {
	found := false
	for schemaName, in := range c.schemas {
		rest, ok := strings.CutPrefix(name, schemaName+".")
		if !ok || in.relations[rest] == nil {
			continue
		}
		if found = c.harmlessRelation(in.relations[rest]); !found {
			return false
		}
	}
	return found
}

func (c *classified) harmlessRelation(rel *relation) bool {
	if rel.builtIn() {
		return systemHarmless(rel, 0)
	}
	if rel.kind == 'S' {
		return true
	}
	return rel.table() && !rel.rules && !rel.virtual && len(c.tags[rel.oid]) == 0
}

// pure reports whether every function of that name is PostgreSQL's own and
// reads nothing that a client could have put somewhere.
func (s *snapshot) pure(qualified string) bool {
	name, ok := strings.CutPrefix(qualified, "pg_catalog.")
	if !ok || impureNames[name] || impureName(name) {
		return false
	}
	known := false
	for _, f := range s.functions[name] {
		if f.schema != "pg_catalog" {
			continue
		}
		own := f.oid < firstUserOID && (f.language == languageInternal || f.language == languageSQL)
		if !own || f.volatility == 'v' && !pureVolatile[name] {
			return false
		}
		known = true
	}
	return known
}
