package sql

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// This file finds the ways by which a value can be told without being shown:
// a computation that fails, takes long or yields more rows for some values, a
// function that keeps what it is given, an index or a constraint that compares
// what is stored.

// channels is what was found of one statement.
type channels struct {
	told        marks // columns that an error, a size or a time may tell
	calls       []call
	settings    int // calls of set_config
	overwritten []baseColumn
	filled      []baseColumn
}

// call is a call of a function that may do more than compute.
type call struct {
	name   string
	effect effect
	args   set
}

// tells notes that whether the statement fails, or how much it yields, depends
// on values of s. What is of unknown origin is not noted: it is hidden anyhow,
// and code that nobody knows may fail as it likes.
func (a *analysis) tells(s set) {
	a.spends(len(s.ids))
	a.leaks.told.add(set{ids: s.ids})
}

// called notes a call: what it is given, and whether it may fail on it.
func (a *analysis) called(fn function, f *pg.FuncCall, sc *scope, with *ctes, args set) {
	switch fn.effect {
	case unknownFunction, administers, state, writes:
		a.leaks.calls = append(a.leaks.calls, call{fn.name, fn.effect, args})
		if fn.name == "pg_catalog.set_config" {
			a.leaks.settings++
		}
	}
	bare := strings.TrimPrefix(fn.name, "pg_catalog.")
	switch {
	case args.empty():
	case bare == fn.name: // of somebody's making
		a.tells(args)
	case bare == "count":
		// It counts what is not NULL: of a column that says what IS NULL says,
		// of an expression it may say anything.
		if f.GetAggDistinct() || len(f.GetArgs()) != 1 || f.GetArgs()[0].GetColumnRef() == nil {
			a.tells(args)
		}
	case f.GetAggDistinct():
		a.tells(args) // how many are left shows which are equal
	case firstOnly[bare]:
		// Widths, patterns and formats make it fail or run long; the value does not.
		if len(f.GetArgs()) > 1 {
			a.tells(a.exprs(sc, with, f.GetArgs()[1:]...))
		}
	case bare == "format", bare == "to_char" && len(f.GetArgs()) != 2:
		if len(f.GetArgs()) > 0 {
			a.tells(a.expr(sc, with, f.GetArgs()[0]))
		}
	case !total[bare]:
		a.tells(args)
	}
}

func words(s string) map[string]bool {
	out := make(map[string]bool)
	for _, w := range strings.Fields(s) {
		out[w] = true
	}
	return out
}

// total are functions of PostgreSQL's own that yield one value for every
// argument, about as fast for one as for another.
var total = words(`any_value array_agg array_append array_cat array_prepend array_to_json array_to_string ascii avg bit_length bool_and bool_or
	char_length character_length concat concat_ws count date_part date_trunc dense_rank every extract first_value hashtext host initcap isfinite
	json_agg json_build_array json_object_agg jsonb_agg jsonb_build_array jsonb_object_agg lag last_value lead length lower make_json max md5 min
	nth_value num_nonnulls num_nulls octet_length overlaps position quote_ident quote_literal quote_nullable replace reverse row_number row_to_json
	split_part starts_with stddev stddev_pop stddev_samp string_agg strpos sum to_json to_jsonb translate upper var_pop var_samp variance xmlagg`)

// firstOnly are functions of which only the first argument may be a value that
// is to be kept: the others steer.
var firstOnly = words(`age btrim encode justify_days justify_hours justify_interval left lpad ltrim overlay regexp_replace right round rpad rtrim sha224 sha256
	sha384 sha512 substr substring timezone to_char trim trunc json_build_object jsonb_build_object`)

// totalOperators never fail, whatever they compare or join.
var totalOperators = words(`= <> != < > <= >= || ~~ ~~* !~~ !~~* ^@ -> ->> #> #>> @> <@ && ? ?| ?& << >> &< &> -|-`)

// operated notes an operator whose operands may make it fail.
func (a *analysis) operated(e *pg.A_Expr, operands set) {
	switch e.GetKind() {
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_OP_ALL, pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE:
		if !totalOperators[lastName(e.GetName())] {
			a.tells(operands)
		}
	case pg.A_Expr_Kind_AEXPR_SIMILAR:
		a.tells(operands)
	}
}

// converted notes a cast that may fail: one to a text never does, one of a
// column itself to a date or a time says nothing that its type does not.
func (a *analysis) converted(c *pg.TypeCast, s set) {
	if s.empty() {
		return
	}
	name := lastName(c.GetTypeName().GetNames())
	arrays := len(c.GetTypeName().GetArrayBounds()) > 0
	switch {
	case arrays:
	case name == "text", name == "varchar", name == "bpchar", name == "char", name == "name":
		return
	case c.GetArg().GetColumnRef() != nil && (name == "date" || name == "timestamp" || name == "timestamptz"):
		return
	}
	a.tells(s)
}

// chosen notes alternatives of which a later one is only worked out where an
// earlier value asks for it: if it could fail, that tells the value.
func (a *analysis) chosen(args []*pg.Node, sets []set) {
	for i, n := range args {
		if i > 0 && !quiet(n) {
			a.tells(a.union(sets[:i]...))
		}
	}
}

// quiet expressions never fail and do nothing.
func quiet(n *pg.Node) bool {
	switch e := n.GetNode().(type) {
	case *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_ColumnRef:
		return true
	case *pg.Node_TypeCast:
		return e.TypeCast.GetArg().GetAConst() != nil // it fails when it is read, whatever the rows
	case *pg.Node_CollateClause:
		return quiet(e.CollateClause.GetArg())
	case *pg.Node_NullTest:
		return quiet(e.NullTest.GetArg())
	case *pg.Node_BoolExpr:
		return !slices.ContainsFunc(e.BoolExpr.GetArgs(), func(n *pg.Node) bool { return !quiet(n) })
	case *pg.Node_AExpr:
		return totalOperators[lastName(e.AExpr.GetName())] && quiet(e.AExpr.GetLexpr()) && quiet(e.AExpr.GetRexpr())
	}
	return false
}

// each is exprs with the sets apart.
func (a *analysis) each(sc *scope, with *ctes, list []*pg.Node) []set {
	out := make([]set, len(list))
	for i, n := range list {
		out[i] = a.expr(sc, with, n)
	}
	return out
}

// storedIn notes the columns that DDL compares with what is stored: keys,
// conditions and expressions of constraints and indexes, conversions.
func (a *analysis) storedIn(sc *scope, n *pg.Node) {
	key := func(names ...string) {
		for _, name := range names {
			if name != "" {
				a.tells(a.column(sc, name).set)
			}
		}
	}
	switch s := n.GetNode().(type) {
	case *pg.Node_Constraint:
		c := s.Constraint
		switch c.GetContype() {
		case pg.ConstrType_CONSTR_NOTNULL, pg.ConstrType_CONSTR_NULL, pg.ConstrType_CONSTR_DEFAULT, pg.ConstrType_CONSTR_IDENTITY:
			return
		case pg.ConstrType_CONSTR_GENERATED:
		}
		key(strs(c.GetKeys())...)
		key(strs(c.GetFkAttrs())...)
		if c.GetIndexname() != "" { // USING INDEX: its columns are the catalogue's to say
			a.tells(a.whole(sc.items[0]))
		}
		a.tells(a.expr(sc, nil, c.GetRawExpr()))
		a.tells(a.expr(sc, nil, c.GetWhereClause()))
		for _, x := range c.GetExclusions() {
			for _, e := range x.GetList().GetItems() {
				a.storedIn(sc, e)
			}
		}
	case *pg.Node_IndexElem:
		key(s.IndexElem.GetName())
		a.tells(a.expr(sc, nil, s.IndexElem.GetExpr()))
	case *pg.Node_ColumnDef:
		a.tells(a.expr(sc, nil, s.ColumnDef.GetRawDefault()))
		for _, c := range s.ColumnDef.GetConstraints() {
			if t := c.GetConstraint().GetContype(); t == pg.ConstrType_CONSTR_CHECK || t == pg.ConstrType_CONSTR_GENERATED {
				a.storedIn(sc, c)
			}
		}
	}
}

// altered notes what ALTER TABLE compares or converts.
func (a *analysis) altered(s *pg.AlterTableStmt) {
	if s.GetRelation() == nil {
		return
	}
	it := a.relation(s.GetRelation(), true)
	sc := &scope{}
	sc.star = append(sc.star, sc.add(it))
	for _, n := range s.GetCmds() {
		c := n.GetAlterTableCmd()
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddConstraint, pg.AlterTableType_AT_AddColumn:
			a.storedIn(sc, c.GetDef())
		case pg.AlterTableType_AT_AlterColumnType:
			// Every value is converted, and the conversion may be of another column.
			own := a.column(sc, c.GetName()).set
			a.tells(own)
			s := a.expr(sc, nil, c.GetDef().GetColumnDef().GetRawDefault())
			a.tells(s)
			a.flows(it.rel, []string{c.GetName()}, rows{cols: []column{{set: s}}})
		case pg.AlterTableType_AT_ValidateConstraint, pg.AlterTableType_AT_AttachPartition, pg.AlterTableType_AT_AddIndexConstraint,
			pg.AlterTableType_AT_SetExpression:
			a.tells(a.whole(it))
		}
	}
}

// indexed notes what CREATE INDEX compares: unique keys, and expressions and
// conditions that are worked out for every row.
func (a *analysis) indexed(s *pg.IndexStmt) {
	it := a.relation(s.GetRelation(), true)
	sc := &scope{}
	sc.star = append(sc.star, sc.add(it))
	a.tells(a.expr(sc, nil, s.GetWhereClause()))
	for _, n := range s.GetIndexParams() {
		if s.GetUnique() || n.GetIndexElem().GetExpr() != nil {
			a.storedIn(sc, n)
		}
	}
}

// fills notes an INSERT of computed rows into columns: where one is unique,
// that it fails, or what is left out, tells what is stored.
func (a *analysis) fills(it *item, names []string, source *pg.Node) {
	if source == nil || len(source.GetSelectStmt().GetValuesLists()) > 0 {
		return
	}
	if len(names) == 0 {
		a.tells(a.whole(it))
		return
	}
	sc := &scope{}
	sc.star = append(sc.star, sc.add(it))
	for _, name := range names {
		a.tells(a.column(sc, name).set)
	}
}

// overwrites notes columns of which existing rows are given other values.
func (a *analysis) overwrites(it *item, names ...string) {
	for _, name := range names {
		a.leaks.overwritten = append(a.leaks.overwritten, baseColumn{it.rel, name})
	}
	if len(names) == 0 {
		a.leaks.overwritten = append(a.leaks.overwritten, baseColumn{it.rel, "*"})
	}
}

// provides notes columns of which new rows are given values: where one is a key,
// an error tells whether the value is there already.
func (a *analysis) provides(it *item, names []string) {
	for _, name := range names {
		a.leaks.filled = append(a.leaks.filled, baseColumn{it.rel, name})
	}
	if len(names) == 0 {
		a.leaks.filled = append(a.leaks.filled, baseColumn{it.rel, "*"})
	}
}

// Leaks are the ways by which a statement's values can be told without being
// shown.
type Leaks struct {
	// Told are the columns on whose values it depends whether the statement
	// fails, how long it takes or how much it yields.
	Told []policy.ColumnRef
	// Code is a function, or a kind of statement, whose work cannot be seen and
	// may reach anything; "" if there is none.
	Code string
	// Passed are the values that go into functions which may keep or show them.
	Passed []Passed
	// Overwritten are the columns, as the catalogue calls them, of which
	// existing rows are given other values. Column "*" is all of the table's.
	Overwritten []policy.ColumnRef
	// Filled are the columns of which new rows are given values, named as in
	// Overwritten.
	Filled []policy.ColumnRef
	// Unknown is true if what decides about rows may derive from anything.
	Unknown bool
}

// Passed are values on their way into a function.
type Passed struct {
	Function string
	Sources  []policy.ColumnRef
	Unknown  bool
}

func (a *analysis) leaked() Leaks {
	l := Leaks{Told: a.references(a.leaks.told.set()), Unknown: a.looseSet.unknown, Code: a.code()}
	for _, c := range a.leaks.calls {
		if !c.args.empty() {
			// Where a value of unknown origin goes, matters of what tells it on only.
			l.Passed = append(l.Passed, Passed{c.name, a.references(c.args), c.args.unknown && c.effect == administers})
		}
	}
	for _, c := range a.leaks.overwritten {
		l.Overwritten = append(l.Overwritten, reference(c))
	}
	for _, c := range a.leaks.filled {
		l.Filled = append(l.Filled, reference(c))
	}
	return l
}

// plainAdmin are functions of class admin that do with constants no more than
// they say.
var plainAdmin = words(`pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_xact_lock
	pg_advisory_xact_lock_shared pg_cancel_backend pg_notify pg_reload_conf pg_terminate_backend pg_try_advisory_lock pg_try_advisory_lock_shared
	pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared set_config setval`)

// plainCommands of class admin move no values and run nobody's code.
var plainCommands = map[string]bool{
	"SET": true, "RESET": true, "LISTEN": true, "NOTIFY": true, "COMMENT": true, "GRANT": true, "REVOKE": true, "GRANT ROLE": true, "REVOKE ROLE": true,
	"CREATE ROLE": true, "ALTER ROLE": true, "DROP ROLE": true, "COMMIT PREPARED": true, "ROLLBACK PREPARED": true,
}

// code says what in a statement of class admin may reach anything. Of those
// that are admin for no reason that is known here, the statement itself.
func (a *analysis) code() string {
	if a.facts.Class != policy.Admin {
		return ""
	}
	admin := false
	for _, c := range a.leaks.calls {
		if c.effect != administers {
			continue
		}
		name, own := strings.CutPrefix(c.name, "pg_catalog.")
		if !own || !plainAdmin[name] || name == "set_config" && (a.leaks.settings > 1 || a.facts.Setting == "") {
			return c.name
		}
		admin = true
	}
	switch {
	case plainCommands[a.facts.Command]:
		return ""
	case admin && !a.odd && !a.writesCatalogue() && a.queries():
		return ""
	}
	return a.facts.Command
}

// queries reports whether the statement's command is one that is admin only
// for what it calls.
func (a *analysis) queries() bool {
	switch a.facts.Command {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "EXPLAIN", "PREPARE", "DECLARE CURSOR":
		return true
	}
	return false
}

func (a *analysis) writesCatalogue() bool {
	return slices.ContainsFunc(a.facts.WriteColumns, func(c string) bool { return strings.HasPrefix(c, "pg_catalog.") }) ||
		slices.ContainsFunc(a.facts.Relations, func(r policy.Relation) bool {
			return r.Written && (r.Schema == "pg_catalog" || r.Schema == "" && catalogRelations()[r.Name])
		})
}
