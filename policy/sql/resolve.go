package sql

import (
	"errors"
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// Catalog is what Resolve must know of a database, as one session sees it at
// one moment. Its answers must not change while Resolve runs.
type Catalog interface {
	// Relation is what a name means in a FROM list or as a written table; schema
	// is "" where none is written. It returns nil for what it does not know, and
	// for a name of which it cannot be certain (a temporary table of the session
	// may hide it): everything that is read there is then unknown.
	Relation(schema, name string) *Relation
	// Trusted reports whether all code that the name may mean here computes from
	// its arguments alone and shows them to nobody. It is asked for the names
	// of functions and operators, and of types for casts to them; schema is ""
	// where none is written. It is false for a name that the catalogue does not
	// know, and for one of pg_catalog's where the session's path leads to
	// another of that name.
	Trusted(what Code, schema, name string) bool
}

// Code is a kind of name that runs code.
type Code uint8

const (
	Function Code = iota + 1
	Operator
	Cast
	// Syntax is a word that newer versions read as syntax and older ones as a
	// function's name (json_value): trusted unless somebody made such a function.
	Syntax
)

// Relation is a table or a view.
type Relation struct {
	Schema, Name string
	Columns      []Column // in order, without dropped ones
}

// Column of a relation.
type Column struct {
	Name string
	// Derived is true for what is computed: a column of a view or a generated
	// one. Sources are then the base columns that it derives from, and Unknown
	// says that there may be others; Bare, that it is its one source's own value.
	Derived bool
	Sources []policy.ColumnRef
	Bare    bool
	Unknown bool
}

// Lineage is what a statement's answer and its writes derive from, and what
// can be inferred from them.
type Lineage struct {
	// Columns are the statement's outputs in order; nil if it returns no rows,
	// or if Open.
	Columns []Output
	// Open says that the outputs cannot be told apart: whatever is returned may
	// derive from Any.
	Open bool
	Any  Output
	// Writes are the flows of values into columns: SET, INSERT, COPY FROM,
	// CREATE TABLE AS.
	Writes []Flow
	// Predicates are the columns that decide which rows there are, in which
	// order, or which branch is taken.
	Predicates []Predicate
	// Leaks are the other ways by which a value can be told.
	Leaks Leaks
	// Arguments are those of an EXECUTE, by position. One that is computed has
	// Param -1.
	Arguments []Constant
}

// Output is one column of an answer.
type Output struct {
	Name    string
	Sources []policy.ColumnRef // sorted; nil if it derives from no column
	Bare    bool               // it is its one source's own value
	Unknown bool               // it may derive from anything else besides
}

// Flow is a value's way into a column.
type Flow struct {
	To      policy.ColumnRef // Column "*": it cannot be told which of the table
	Sources []policy.ColumnRef
	Bare    bool // it is its one source's own value
	Unknown bool
}

// Predicate is a column that decides.
type Predicate struct {
	Column policy.ColumnRef
	// Equals are the constants that it is compared with by = or IN.
	Equals []Constant
	// Other is true if it decides in another way as well: a range, a pattern, a
	// function of it, an order, a group, a join.
	Other bool
}

// Constant is what a predicate compares with.
type Constant struct {
	Param int    // 1-based number of a parameter; 0 for a literal
	Text  string // of a literal, as PostgreSQL reads it
	Array bool   // it is an array of which any member may be the one
}

// maxTree bounds the parse trees that are resolved: a wide statement's tree
// takes many times its text in memory.
const maxTree = 2 << 20

// Resolve reads one statement of a parse tree (see [Client.Parse]) with the
// catalogue at hand. text is the text that the tree was made of. The facts it
// returns are complete ones for the statement, with names as the catalogue
// knows them; Unresolved remains true where it did not. It is a pure function,
// safe for concurrent use.
//
// An error means that nothing is known: nothing of the statement may be shown
// or sent.
func Resolve(text string, tree []byte, statement int, c Catalog) (facts *policy.Facts, lineage *Lineage, err error) {
	defer func() {
		if p := recover(); p != nil {
			facts, lineage, err = nil, nil, fmt.Errorf("resolve: the parse tree is not one: %v", p)
		}
	}()
	if len(tree) > maxTree {
		return nil, nil, &TooComplex{What: "bytes of parse tree", Limit: maxTree}
	}
	parsed, err := decode(tree)
	if err != nil {
		return nil, nil, err
	}
	if statement < 0 || statement >= len(parsed.GetStmts()) {
		return nil, nil, errors.New("resolve: no such statement in the parse tree")
	}
	a, err := analyseOne(text, parsed.GetStmts()[statement], c)
	if err != nil {
		return nil, nil, err
	}
	return a.facts, a.lineage(), nil
}

func (a *analysis) lineage() *Lineage {
	l := &Lineage{Predicates: a.predicates(), Leaks: a.leaked(), Arguments: a.arguments}
	for _, m := range a.moved {
		l.Writes = append(l.Writes, Flow{To: reference(baseColumn{m.rel, m.name}), Sources: a.references(m.set), Unknown: m.set.unknown,
			Bare: m.bare && len(m.set.ids) == 1 && !m.set.unknown})
	}
	r := a.returns
	if r.open {
		l.Open = true
		all := a.all(r)
		l.Any = Output{Sources: a.references(all), Unknown: all.unknown}
		return l
	}
	for _, c := range r.cols {
		l.Columns = append(l.Columns, Output{Name: c.name, Sources: a.references(c.set), Unknown: c.set.unknown, Bare: c.bare && len(c.set.ids) == 1 && !c.set.unknown})
	}
	return l
}

func (a *analysis) references(s set) []policy.ColumnRef {
	var out []policy.ColumnRef
	for _, id := range s.ids {
		out = append(out, reference(a.columns[id]))
	}
	slices.SortFunc(out, compareRefs)
	return out
}

func compareRefs(x, y policy.ColumnRef) int {
	for _, p := range [][2]string{{x.Schema, y.Schema}, {x.Table, y.Table}, {x.Column, y.Column}} {
		if p[0] != p[1] {
			if p[0] < p[1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

func reference(c baseColumn) policy.ColumnRef {
	return policy.ColumnRef{Schema: c.rel.schema, Table: c.rel.name, Column: c.name}
}

func (a *analysis) predicates() []Predicate {
	loose := a.looseSet.set()
	var out []Predicate
	for _, id := range a.testSet.set().ids {
		out = append(out, Predicate{Column: reference(a.columns[id]), Equals: a.equals[id], Other: slices.Contains(loose.ids, id)})
	}
	slices.SortFunc(out, func(x, y Predicate) int { return compareRefs(x.Column, y.Column) })
	return out
}

// known is the item of a relation that the catalogue knows.
func (a *analysis) known(r *Relation) *item {
	rel := relationName{r.Schema, r.Name}
	it := &item{alias: r.Name, schema: r.Schema, rel: rel, rows: rows{cols: make([]column, 0, len(r.Columns))}}
	a.spends(len(r.Columns))
	for _, c := range r.Columns {
		col := column{name: c.Name, bare: true, set: set{ids: []int32{a.id(rel, c.Name)}}}
		if c.Derived {
			col.bare = c.Bare
			col.set = set{unknown: c.Unknown}
			for _, s := range c.Sources {
				col.set = col.set.or(set{ids: []int32{a.id(relationName{s.Schema, s.Table}, s.Column)}})
			}
		}
		it.cols = append(it.cols, col)
	}
	return it
}

// trusted reports whether a name's code computes from its arguments alone.
func (a *analysis) trusted(what Code, parts []string, ours bool) bool {
	if a.catalog == nil {
		return ours
	}
	schema := ""
	if len(parts) > 1 {
		schema = parts[len(parts)-2]
	}
	return a.catalog.Trusted(what, schema, parts[len(parts)-1])
}

// equality takes apart what a predicate tests: column = constant, column IN
// (constants) and column = ANY (array), joined by AND and OR, tell no more of a
// column than whether it is one of those. It reports whether n was of that form.
func (a *analysis) equality(sc *scope, with *ctes, n *pg.Node) bool {
	if b := n.GetBoolExpr(); b != nil && b.GetBoolop() != pg.BoolExprType_NOT_EXPR {
		for _, arg := range b.GetArgs() {
			a.predicate(sc, with, arg)
		}
		return true
	}
	e := n.GetAExpr()
	if e == nil || len(e.GetName()) != 1 || lastName(e.GetName()) != "=" || !a.trusted(Operator, []string{"="}, true) {
		return false
	}
	var constants []Constant
	ref, ok := e.GetLexpr(), false
	switch e.GetKind() {
	case pg.A_Expr_Kind_AEXPR_OP:
		if constants, ok = constant(e.GetRexpr()); !ok {
			ref = e.GetRexpr()
			constants, ok = constant(e.GetLexpr())
		}
	case pg.A_Expr_Kind_AEXPR_IN:
		constants, ok = constantList(e.GetRexpr().GetList().GetItems())
	case pg.A_Expr_Kind_AEXPR_OP_ANY:
		constants, ok = constantArray(e.GetRexpr())
	}
	if !ok || ref.GetColumnRef() == nil {
		return false
	}
	c := a.columnRef(sc, ref.GetColumnRef())
	if !c.bare || len(c.set.ids) != 1 || a.exprs(sc, with, e.GetLexpr(), e.GetRexpr()).unknown {
		return false
	}
	a.testSet.add(c.set)
	a.tested.add(c.set)
	id := c.set.ids[0]
	for _, k := range constants {
		if a.spend() && !slices.Contains(a.equals[id], k) {
			a.equals[id] = append(a.equals[id], k)
		}
	}
	return true
}

// argued notes the arguments of an EXECUTE.
func (a *analysis) argued(list []*pg.Node) {
	for _, n := range list {
		c, ok := constant(n)
		if !ok || len(c) != 1 {
			c = []Constant{{Param: -1}}
		}
		a.arguments = append(a.arguments, c[0])
	}
}

func constantList(list []*pg.Node) ([]Constant, bool) {
	var out []Constant
	for _, n := range list {
		c, ok := constant(n)
		if !ok {
			return nil, false
		}
		out = append(out, c...)
	}
	return out, len(out) > 0
}

// constantArray reads what stands behind ANY: ARRAY[…], or an array as one
// constant.
func constantArray(n *pg.Node) ([]Constant, bool) {
	if c := n.GetTypeCast(); c != nil && c.GetArg().GetAArrayExpr() != nil {
		n = c.GetArg()
	}
	if e := n.GetAArrayExpr(); e != nil {
		return constantList(e.GetElements())
	}
	out, ok := constant(n)
	for i := range out {
		out[i].Array = true
	}
	return out, ok
}

// constant reads a literal or a parameter, with or without a cast.
func constant(n *pg.Node) ([]Constant, bool) {
	switch v := n.GetNode().(type) {
	case *pg.Node_TypeCast:
		return constant(v.TypeCast.GetArg())
	case *pg.Node_ParamRef:
		return []Constant{{Param: int(v.ParamRef.GetNumber())}}, v.ParamRef.GetNumber() > 0
	case *pg.Node_AConst:
		return []Constant{{Text: constantText(v.AConst)}}, true
	}
	return nil, false
}

func constantText(c *pg.A_Const) string {
	switch v := c.GetVal().(type) {
	case *pg.A_Const_Ival:
		return itoa(int(v.Ival.GetIval()))
	case *pg.A_Const_Fval:
		return v.Fval.GetFval()
	case *pg.A_Const_Boolval:
		return map[bool]string{true: "true", false: "false"}[v.Boolval.GetBoolval()]
	case *pg.A_Const_Sval:
		return v.Sval.GetSval()
	case *pg.A_Const_Bsval:
		return v.Bsval.GetBsval()
	}
	return ""
}
