package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// This file walks expressions. Each form of the grammar is named; what is not
// named is strange: class admin, and its value may derive from anything.

// predicate analyses an expression that decides which rows there are, or in
// which order: what it reads can be inferred from the answer.
func (a *analysis) predicate(sc *scope, with *ctes, n *pg.Node) {
	if n == nil || a.equality(sc, with, n) {
		return
	}
	a.tests(a.expr(sc, with, n))
}

// expr analyses an expression and returns what its value derives from.
func (a *analysis) expr(sc *scope, with *ctes, n *pg.Node) set {
	return a.value(sc, with, n).set
}

func (a *analysis) exprs(sc *scope, with *ctes, list ...*pg.Node) set {
	sets := make([]set, 0, len(list))
	for _, n := range list {
		sets = append(sets, a.expr(sc, with, n))
	}
	return a.union(sets...)
}

// value is expr for an output: it also tells whether the value is a base
// column's own.
func (a *analysis) value(sc *scope, with *ctes, n *pg.Node) column {
	if n == nil {
		return column{}
	}
	if !a.spend() {
		return column{set: set{unknown: true}}
	}
	switch e := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return a.columnRef(sc, e.ColumnRef)
	case *pg.Node_CollateClause:
		return a.value(sc, with, e.CollateClause.GetArg())
	case *pg.Node_SubLink:
		return a.subLink(sc, with, e.SubLink)
	default:
		return column{set: a.derived(sc, with, n)}
	}
}

// derived analyses the forms that compute.
func (a *analysis) derived(sc *scope, with *ctes, n *pg.Node) set {
	switch e := n.GetNode().(type) {
	case *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_SqlvalueFunction, *pg.Node_SetToDefault, *pg.Node_CurrentOfExpr, *pg.Node_MergeSupportFunc,
		*pg.Node_String_, *pg.Node_Integer, *pg.Node_Float, *pg.Node_Boolean, *pg.Node_BitString:
		return set{}
	case *pg.Node_AExpr:
		operands := a.exprs(sc, with, e.AExpr.GetLexpr(), e.AExpr.GetRexpr())
		a.operated(e.AExpr, operands)
		return a.operator(e.AExpr.GetName()).or(operands)
	case *pg.Node_BoolExpr:
		sets := a.each(sc, with, e.BoolExpr.GetArgs())
		a.chosen(e.BoolExpr.GetArgs(), sets)
		return a.union(sets...)
	case *pg.Node_TypeCast:
		s := a.expr(sc, with, e.TypeCast.GetArg())
		a.converted(e.TypeCast, s)
		return a.typeName(e.TypeCast.GetTypeName()).or(s)
	case *pg.Node_FuncCall:
		return a.call(sc, with, e.FuncCall)
	case *pg.Node_AIndirection:
		return a.selected(sc, with, e.AIndirection)
	case *pg.Node_CaseExpr:
		return a.cases(sc, with, e.CaseExpr)
	case *pg.Node_List:
		return a.exprs(sc, with, e.List.GetItems()...)
	case *pg.Node_AArrayExpr:
		return a.exprs(sc, with, e.AArrayExpr.GetElements()...)
	case *pg.Node_RowExpr:
		return a.row(sc, with, e.RowExpr.GetArgs())
	case *pg.Node_CoalesceExpr:
		sets := a.each(sc, with, e.CoalesceExpr.GetArgs())
		a.chosen(e.CoalesceExpr.GetArgs(), sets)
		return a.union(sets...)
	case *pg.Node_MinMaxExpr:
		return a.exprs(sc, with, e.MinMaxExpr.GetArgs()...)
	case *pg.Node_NullTest:
		return a.expr(sc, with, e.NullTest.GetArg())
	case *pg.Node_BooleanTest:
		return a.expr(sc, with, e.BooleanTest.GetArg())
	case *pg.Node_NamedArgExpr:
		return a.expr(sc, with, e.NamedArgExpr.GetArg())
	case *pg.Node_GroupingFunc:
		a.exprs(sc, with, e.GroupingFunc.GetArgs()...) // a bit mask of which are grouped by
		return set{}
	default:
		return a.documents(sc, with, n)
	}
}

// documents analyses the SQL syntax of XML and JSON.
func (a *analysis) documents(sc *scope, with *ctes, n *pg.Node) set {
	switch e := n.GetNode().(type) {
	case *pg.Node_XmlExpr:
		s := a.exprs(sc, with, e.XmlExpr.GetArgs()...)
		for _, t := range e.XmlExpr.GetNamedArgs() {
			s = s.or(a.expr(sc, with, t.GetResTarget().GetVal()))
		}
		return s
	case *pg.Node_XmlSerialize:
		a.typeName(e.XmlSerialize.GetTypeName())
		return a.expr(sc, with, e.XmlSerialize.GetExpr())
	case *pg.Node_JsonValueExpr:
		return a.jsonValue(sc, with, e.JsonValueExpr)
	case *pg.Node_JsonKeyValue:
		return a.expr(sc, with, e.JsonKeyValue.GetKey()).or(a.jsonValue(sc, with, e.JsonKeyValue.GetValue()))
	case *pg.Node_JsonIsPredicate:
		return a.expr(sc, with, e.JsonIsPredicate.GetExpr())
	case *pg.Node_JsonParseExpr:
		return a.newer("json").or(a.jsonValue(sc, with, e.JsonParseExpr.GetExpr()))
	case *pg.Node_JsonScalarExpr:
		return a.newer("json_scalar").or(a.expr(sc, with, e.JsonScalarExpr.GetExpr()))
	case *pg.Node_JsonSerializeExpr:
		a.output(e.JsonSerializeExpr.GetOutput())
		return a.newer("json_serialize").or(a.jsonValue(sc, with, e.JsonSerializeExpr.GetExpr()))
	case *pg.Node_JsonObjectConstructor:
		a.output(e.JsonObjectConstructor.GetOutput())
		return a.exprs(sc, with, e.JsonObjectConstructor.GetExprs()...)
	case *pg.Node_JsonArrayConstructor:
		a.output(e.JsonArrayConstructor.GetOutput())
		return a.newer("json_array").or(a.exprs(sc, with, e.JsonArrayConstructor.GetExprs()...))
	case *pg.Node_JsonArrayQueryConstructor:
		a.output(e.JsonArrayQueryConstructor.GetOutput())
		a.facts.Aggregates = true
		return a.all(a.query(e.JsonArrayQueryConstructor.GetQuery(), sc, with))
	case *pg.Node_JsonObjectAgg:
		kv := e.JsonObjectAgg.GetArg()
		s := a.expr(sc, with, kv.GetKey()).or(a.jsonValue(sc, with, kv.GetValue()))
		return s.or(a.jsonAggregate(sc, with, e.JsonObjectAgg.GetConstructor()))
	case *pg.Node_JsonArrayAgg:
		s := a.jsonValue(sc, with, e.JsonArrayAgg.GetArg())
		return s.or(a.jsonAggregate(sc, with, e.JsonArrayAgg.GetConstructor()))
	case *pg.Node_JsonFuncExpr:
		return a.jsonFunction(sc, with, e.JsonFuncExpr)
	default:
		a.strange(n)
		return set{unknown: true}
	}
}

func (a *analysis) jsonFunction(sc *scope, with *ctes, f *pg.JsonFuncExpr) set {
	a.output(f.GetOutput())
	s := a.newer(strings.ToLower(strings.TrimSuffix(f.GetOp().String(), "_OP")))
	s = s.or(a.jsonValue(sc, with, f.GetContextItem())).or(a.expr(sc, with, f.GetPathspec()))
	s = s.or(a.jsonPassing(sc, with, f.GetPassing()))
	return s.or(a.jsonBehavior(sc, with, f.GetOnEmpty())).or(a.jsonBehavior(sc, with, f.GetOnError()))
}

// newer notes a construct that an older server reads as a call of a function
// that somebody may have made.
func (a *analysis) newer(name string) set {
	a.once(&a.facts.Functions, "pg_catalog."+name)
	return set{unknown: !a.trusted(Syntax, []string{name}, true)}
}

func (a *analysis) output(o *pg.JsonOutput) { a.typeName(o.GetTypeName()) }

func (a *analysis) jsonValue(sc *scope, with *ctes, v *pg.JsonValueExpr) set {
	if v.GetRawExpr() == nil {
		return set{}
	}
	return a.expr(sc, with, v.GetRawExpr())
}

func (a *analysis) jsonPassing(sc *scope, with *ctes, list []*pg.Node) set {
	var s set
	for _, n := range list {
		s = s.or(a.jsonValue(sc, with, n.GetJsonArgument().GetVal()))
	}
	return s
}

func (a *analysis) jsonBehavior(sc *scope, with *ctes, b *pg.JsonBehavior) set {
	return a.expr(sc, with, b.GetExpr())
}

func (a *analysis) jsonAggregate(sc *scope, with *ctes, c *pg.JsonAggConstructor) set {
	a.facts.Aggregates = true
	a.output(c.GetOutput())
	s := a.sorting(sc, with, c.GetAggOrder()).or(a.expr(sc, with, c.GetAggFilter()))
	a.tests(s)
	return s.or(a.window(sc, with, c.GetOver()))
}

// columnRef resolves a.b.c, and t.* where a value is meant: the whole row.
func (a *analysis) columnRef(sc *scope, ref *pg.ColumnRef) column {
	f := ref.GetFields()
	if len(f) == 0 {
		return column{set: set{unknown: true}}
	}
	if f[len(f)-1].GetAStar() != nil {
		return a.wholeRow(sc, strs(f[:len(f)-1]))
	}
	var c column
	switch names := strs(f); len(names) {
	case 1:
		c = a.column(sc, names[0])
	case 2:
		c = a.qualified(sc, "", names[0], names[1])
	case 3:
		c = a.qualified(sc, names[0], names[1], names[2])
	default:
		c = a.qualified(sc, names[len(names)-3], names[len(names)-2], names[len(names)-1])
	}
	a.reads(c.set)
	return c
}

func (a *analysis) column(sc *scope, name string) column { return a.unqualified(sc, name) }

func (a *analysis) wholeRow(sc *scope, names []string) column {
	var s set
	if len(names) == 0 {
		s = a.everything(sc) // count(*) is no column reference; this is
	} else if it := alias(sc, names[len(names)-1]); it != nil {
		s = a.whole(it)
	} else {
		s = a.everything(sc)
		s.unknown = true
	}
	a.reads(s)
	return column{set: s}
}

func (a *analysis) row(sc *scope, with *ctes, args []*pg.Node) set { return a.exprs(sc, with, args...) }

// selected is a subscript or a field of a composite value.
func (a *analysis) selected(sc *scope, with *ctes, in *pg.A_Indirection) set {
	ind := in.GetIndirection()
	if name := bareName(in.GetArg()); name != "" && len(ind) > 0 {
		// (p).ssn, where p is a table: that column, and not the whole row.
		if it := alias(sc, name); it != nil && ind[0].GetString_() != nil && !a.named(sc, name) {
			c := a.qualified(sc, "", name, ind[0].GetString_().GetSval())
			a.reads(c.set)
			return c.set.or(a.indirection(sc, with, ind[1:]))
		}
	}
	return a.expr(sc, with, in.GetArg()).or(a.indirection(sc, with, ind))
}

// named reports whether some item certainly has, or may have, a column of the name.
func (a *analysis) named(sc *scope, name string) bool {
	for s := sc; s != nil; s = s.parent {
		if found, _ := a.inScope(s, name); len(found) > 0 {
			return true
		}
	}
	return false
}

func (a *analysis) indirection(sc *scope, with *ctes, list []*pg.Node) set {
	var s set
	for _, n := range list {
		if i := n.GetAIndices(); i != nil {
			s = s.or(a.exprs(sc, with, i.GetLidx(), i.GetUidx()))
		}
	}
	return s
}

// cases: which branch is taken shows what the tests read.
func (a *analysis) cases(sc *scope, with *ctes, c *pg.CaseExpr) set {
	test := a.expr(sc, with, c.GetArg())
	s := a.expr(sc, with, c.GetDefresult())
	for _, n := range c.GetArgs() {
		w := n.GetCaseWhen()
		test = test.or(a.expr(sc, with, w.GetExpr()))
		s = s.or(a.expr(sc, with, w.GetResult()))
	}
	a.tests(test)
	return s.or(test)
}

// subLink is a query in an expression. Of EXISTS, IN, ANY and ALL the value
// shows what the query compared, not only what it yields.
func (a *analysis) subLink(sc *scope, with *ctes, l *pg.SubLink) column {
	tested := a.operator(l.GetOperName()).or(a.expr(sc, with, l.GetTestexpr()))
	outer := a.tested
	a.tested = marks{}
	out := a.query(l.GetSubselect(), sc, with)
	inner := a.tested.set()
	outer.add(inner)
	a.tested = outer
	all := a.all(out)
	switch l.GetSubLinkType() {
	case pg.SubLinkType_EXPR_SUBLINK, pg.SubLinkType_MULTIEXPR_SUBLINK:
		if len(out.cols) == 1 && !out.open {
			return out.cols[0]
		}
		return column{set: all}
	case pg.SubLinkType_ARRAY_SUBLINK:
		a.facts.Aggregates = true
		return column{set: all}
	case pg.SubLinkType_EXISTS_SUBLINK:
		return column{set: inner}
	default:
		a.tests(all)
		return column{set: tested.or(all).or(inner)}
	}
}

// call is a function call: its value derives from all arguments, and from
// what only the function knows unless it is known to be pure.
func (a *analysis) call(sc *scope, with *ctes, f *pg.FuncCall) set {
	fn := a.function(strs(f.GetFuncname()))
	args := a.exprs(sc, with, f.GetArgs()...)
	decides := a.sorting(sc, with, f.GetAggOrder()).or(a.expr(sc, with, f.GetAggFilter()))
	a.tests(decides)
	decides = decides.or(a.window(sc, with, f.GetOver()))
	a.called(fn, f, sc, with, args)
	switch fn.effect {
	case aggregate:
		a.facts.Aggregates = true
		if fn.name == "pg_catalog.count" {
			return decides // how many there are says nothing of what they are
		}
	case unknownFunction:
		a.facts.Aggregates = true // it may be one
		a.literal = true
		decides.unknown = true
	case administers, state:
		a.literal = true
		decides.unknown = true
	case catalogue:
		a.literal = true
	}
	if fn.name == "pg_catalog.set_config" {
		a.setConfig(f.GetArgs())
	}
	return args.or(decides)
}

// function notes a function, and says what it does. A name that may mean code
// of somebody's making is nobody knows what; one that the catalogue vouches
// for still needs the class of an unknown, but what it returns is known.
func (a *analysis) function(parts []string) function {
	fn := named(parts)
	a.once(&a.facts.Functions, fn.name)
	own := fn.effect != unknownFunction
	trusted := len(parts) > 1 && parts[len(parts)-2] == "pg_catalog" || a.trusted(Function, parts, own)
	switch {
	case own && !trusted && fn.effect.class() == policy.Read:
		fn.effect = unknownFunction
	case !own && trusted:
		a.raise(fn.effect.class())
		fn.effect = pure
	}
	a.raise(fn.effect.class())
	return fn
}

func (a *analysis) sorting(sc *scope, with *ctes, list []*pg.Node) set {
	var s set
	for _, n := range list {
		a.operator(n.GetSortBy().GetUseOp())
		s = s.or(a.expr(sc, with, n.GetSortBy().GetNode()))
	}
	return s
}

func (a *analysis) window(sc *scope, with *ctes, w *pg.WindowDef) set {
	if w == nil {
		return set{}
	}
	s := a.exprs(sc, with, w.GetPartitionClause()...).or(a.sorting(sc, with, w.GetOrderClause()))
	s = s.or(a.exprs(sc, with, w.GetStartOffset(), w.GetEndOffset()))
	a.tests(s)
	// OVER w, OVER (w …): what the WINDOW clause says under that name.
	return s.or(sc.windows[w.GetName()]).or(sc.windows[w.GetRefname()])
}

// operator notes an operator that is none of PostgreSQL's own: a function of somebody's making.
func (a *analysis) operator(name []*pg.Node) set {
	parts := strs(name)
	if len(parts) == 0 {
		return set{}
	}
	op := parts[len(parts)-1]
	own := (len(parts) == 1 || parts[0] == "pg_catalog") && (operators()[op] || keywordOperator(op))
	if own && (len(parts) > 1 || keywordOperator(op) || a.trusted(Operator, parts, true)) {
		return set{}
	}
	schema := "public"
	if len(parts) > 1 {
		schema = parts[0]
	}
	a.once(&a.facts.Functions, schema+"."+op)
	if own {
		return set{unknown: true} // it may be PostgreSQL's own, and may be another's
	}
	a.raise(policy.Write)
	a.literal = true
	return set{unknown: !a.trusted(Operator, parts, false)}
}

// keywordOperator: BETWEEN and its kin stand in an A_Expr by name.
func keywordOperator(op string) bool {
	switch op {
	case "BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC", "NOT BETWEEN SYMMETRIC":
		return true
	}
	return false
}

// typeName notes a type. A cast of a literal to reg… names an object of the
// catalogue, so the literal matters.
func (a *analysis) typeName(t *pg.TypeName) set {
	names := strs(t.GetNames())
	for _, name := range names {
		if strings.HasPrefix(name, "reg") {
			a.literal = true
		}
	}
	if a.catalog == nil || len(names) == 0 || len(names) > 1 && names[0] == "pg_catalog" || a.trusted(Cast, names, true) {
		return set{}
	}
	return set{unknown: true}
}

func hasConstant(n *pg.Node) bool {
	if n.GetAConst() != nil {
		return true
	}
	if c := n.GetTypeCast(); c != nil {
		return hasConstant(c.GetArg())
	}
	if e := n.GetAExpr(); e != nil {
		return e.GetLexpr() != nil && hasConstant(e.GetLexpr()) || e.GetRexpr() != nil && hasConstant(e.GetRexpr())
	}
	return false
}

// figure is the name that PostgreSQL gives an output that has none
// (FigureColname in parse_target.c).
func figure(n *pg.Node) string {
	if name, _ := figured(n); name != "" {
		return name
	}
	return "?column?"
}

// figured returns a name and how strongly it is meant: 2 outdoes a type's
// name or "case", which are 1.
func figured(n *pg.Node) (string, int) {
	switch e := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return lastName(e.ColumnRef.GetFields()), 2
	case *pg.Node_AIndirection:
		if name := lastName(e.AIndirection.GetIndirection()); name != "" {
			return name, 2
		}
		return figured(e.AIndirection.GetArg())
	case *pg.Node_FuncCall:
		return lastName(e.FuncCall.GetFuncname()), 2
	case *pg.Node_TypeCast:
		if name, strength := figured(e.TypeCast.GetArg()); strength > 1 {
			return name, strength
		}
		return lastName(e.TypeCast.GetTypeName().GetNames()), 1
	case *pg.Node_CollateClause:
		return figured(e.CollateClause.GetArg())
	case *pg.Node_CaseExpr:
		if name, strength := figured(e.CaseExpr.GetDefresult()); strength > 1 {
			return name, strength
		}
		return "case", 1
	case *pg.Node_AExpr:
		if e.AExpr.GetKind() == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
		return "", 0
	case *pg.Node_SubLink:
		return figuredQuery(e.SubLink)
	default:
		return figuredFixed(n)
	}
}

func lastName(list []*pg.Node) string {
	for i := len(list) - 1; i >= 0; i-- {
		if s := list[i].GetString_(); s != nil {
			return s.GetSval()
		}
	}
	return ""
}

func figuredQuery(l *pg.SubLink) (string, int) {
	switch l.GetSubLinkType() {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return "exists", 2
	case pg.SubLinkType_ARRAY_SUBLINK:
		return "array", 2
	case pg.SubLinkType_EXPR_SUBLINK:
		if list := l.GetSubselect().GetSelectStmt().GetTargetList(); len(list) > 0 {
			if name := list[0].GetResTarget().GetName(); name != "" {
				return name, 2
			}
			return figured(list[0].GetResTarget().GetVal())
		}
	}
	return "", 0
}

func figuredFixed(n *pg.Node) (string, int) {
	switch e := n.GetNode().(type) {
	case *pg.Node_GroupingFunc:
		return "grouping", 2
	case *pg.Node_MergeSupportFunc:
		return "merge_action", 2
	case *pg.Node_AArrayExpr:
		return "array", 2
	case *pg.Node_RowExpr:
		return "row", 2
	case *pg.Node_CoalesceExpr:
		return "coalesce", 2
	case *pg.Node_MinMaxExpr:
		if e.MinMaxExpr.GetOp() == pg.MinMaxOp_IS_LEAST {
			return "least", 2
		}
		return "greatest", 2
	case *pg.Node_SqlvalueFunction:
		name := strings.ToLower(strings.TrimPrefix(e.SqlvalueFunction.GetOp().String(), "SVFOP_"))
		return strings.TrimSuffix(name, "_n"), 2
	case *pg.Node_XmlExpr:
		if e.XmlExpr.GetOp() == pg.XmlExprOp_IS_DOCUMENT {
			return "", 0
		}
		return strings.ToLower(strings.TrimPrefix(e.XmlExpr.GetOp().String(), "IS_")), 2
	case *pg.Node_XmlSerialize:
		return "xmlserialize", 2
	case *pg.Node_JsonParseExpr:
		return "json", 2
	case *pg.Node_JsonScalarExpr:
		return "json_scalar", 2
	case *pg.Node_JsonSerializeExpr:
		return "json_serialize", 2
	case *pg.Node_JsonObjectConstructor:
		return "json_object", 2
	case *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayQueryConstructor:
		return "json_array", 2
	case *pg.Node_JsonObjectAgg:
		return "json_objectagg", 2
	case *pg.Node_JsonArrayAgg:
		return "json_arrayagg", 2
	case *pg.Node_JsonFuncExpr:
		return strings.ToLower(strings.TrimSuffix(e.JsonFuncExpr.GetOp().String(), "_OP")), 2
	}
	return "", 0
}
