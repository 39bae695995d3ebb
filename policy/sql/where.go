package sql

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// constrains reports whether a WHERE narrows the rows of it: it must compare a
// column of it with something else, on every path that makes it true. What
// holds for every row does not count: true, 1 = 1, id = id, id IS NOT NULL,
// name LIKE '%'. Neither does anything whose meaning the text does not show.
func (a *analysis) constrains(n *pg.Node, it *item, sc *scope, with *ctes) bool {
	w := where{analysis: a, it: it, sc: sc, with: with}
	return n != nil && w.holds(n, false, false)
}

type where struct {
	*analysis
	it   *item
	sc   *scope
	with *ctes
}

// holds walks the Boolean structure. negated: under an odd number of NOTs.
// loose: in a disjunction, where "differs from x" together with "is x" would
// be every row, so only positive tests count.
func (w *where) holds(n *pg.Node, negated, loose bool) bool {
	if !w.spend() {
		return false
	}
	switch e := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		return w.boolean(e.BoolExpr, negated, loose)
	case *pg.Node_AExpr:
		return w.compares(e.AExpr, negated, loose)
	case *pg.Node_NullTest:
		isNull := (e.NullTest.GetNulltesttype() == pg.NullTestType_IS_NULL) != negated
		return isNull && w.mentions(e.NullTest.GetArg())
	case *pg.Node_BooleanTest:
		return w.booleanTest(e.BooleanTest, negated, loose)
	case *pg.Node_ColumnRef:
		return w.mentions(n)
	case *pg.Node_CollateClause:
		return w.holds(e.CollateClause.GetArg(), negated, loose)
	case *pg.Node_SubLink:
		return w.subLink(e.SubLink, negated, loose)
	case *pg.Node_FuncCall:
		return w.function(e.FuncCall)
	case *pg.Node_CurrentOfExpr:
		return !negated
	default:
		return false
	}
}

func (w *where) boolean(b *pg.BoolExpr, negated, loose bool) bool {
	if b.GetBoolop() == pg.BoolExprType_NOT_EXPR {
		return len(b.GetArgs()) == 1 && w.holds(b.GetArgs()[0], !negated, loose)
	}
	if (b.GetBoolop() == pg.BoolExprType_AND_EXPR) != negated {
		return slices.ContainsFunc(b.GetArgs(), func(n *pg.Node) bool { return w.holds(n, negated, loose) })
	}
	return !slices.ContainsFunc(b.GetArgs(), func(n *pg.Node) bool { return !w.holds(n, negated, true) })
}

func (w *where) booleanTest(b *pg.BooleanTest, negated, loose bool) bool {
	switch b.GetBooltesttype() {
	case pg.BoolTestType_IS_TRUE, pg.BoolTestType_IS_NOT_FALSE:
		return w.holds(b.GetArg(), negated, loose)
	case pg.BoolTestType_IS_FALSE, pg.BoolTestType_IS_NOT_TRUE:
		return w.holds(b.GetArg(), !negated, loose)
	default:
		return false
	}
}

// compares: the two sides must not depend on the same columns of the table.
func (w *where) compares(e *pg.A_Expr, negated, loose bool) bool {
	differs := false
	switch e.GetKind() {
	case pg.A_Expr_Kind_AEXPR_NULLIF:
		return false
	case pg.A_Expr_Kind_AEXPR_DISTINCT:
		if isNull(e.GetRexpr()) || isNull(e.GetLexpr()) {
			return negated && w.mentions(e.GetLexpr()) // IS DISTINCT FROM NULL is IS NOT NULL
		}
		differs = true
	case pg.A_Expr_Kind_AEXPR_NOT_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM, pg.A_Expr_Kind_AEXPR_OP_ALL:
		differs = true
	case pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE, pg.A_Expr_Kind_AEXPR_SIMILAR:
		w.literal = true // LIKE '%' and LIKE 'x' are one shape
		if matchesAll(e.GetRexpr()) {
			return false
		}
	}
	op := lastName(e.GetName())
	differs = differs || op == "<>" || strings.HasPrefix(op, "!")
	if loose && differs != negated {
		return false
	}
	l, r := w.own(e.GetLexpr()), w.own(e.GetRexpr())
	return !slices.Equal(l, r)
}

func isNull(n *pg.Node) bool { return n.GetAConst().GetIsnull() }

// matchesAll reports whether a LIKE pattern is made of % alone. The grammar
// wraps the pattern of SIMILAR TO and of LIKE … ESCAPE in a call.
func matchesAll(n *pg.Node) bool {
	if f := n.GetFuncCall(); f != nil && len(f.GetArgs()) > 0 {
		return matchesAll(f.GetArgs()[0])
	}
	c, ok := n.GetAConst().GetVal().(*pg.A_Const_Sval)
	return ok && c.Sval.GetSval() != "" && strings.Trim(c.Sval.GetSval(), "%") == ""
}

// own are the columns of the table that an expression reads.
func (w *where) own(n *pg.Node) []int32 {
	var out []int32
	for _, id := range w.expr(w.sc, w.with, n).ids {
		if w.columns[id].rel == w.it.rel {
			out = append(out, id)
		}
	}
	return out
}

func (w *where) mentions(n *pg.Node) bool { return len(w.own(n)) > 0 }

// function counts where a column goes in beside something else, as in
// starts_with(name, 'a'); f(name) alone may be true of every row.
func (w *where) function(f *pg.FuncCall) bool {
	own, other := false, false
	for _, n := range f.GetArgs() {
		if w.mentions(n) {
			own = true
		} else {
			other = true
		}
	}
	return own && other
}

func (w *where) subLink(l *pg.SubLink, negated, loose bool) bool {
	if negated && loose {
		return false
	}
	s := l.GetSubselect().GetSelectStmt()
	inner := *w
	inner.sc = &scope{parent: w.sc}
	inner.with = w.analysis.with(s.GetWithClause(), w.sc, w.with)
	inner.from(s.GetFromClause(), inner.sc, inner.with)
	narrowed := s.GetWhereClause() != nil && inner.holds(s.GetWhereClause(), false, false)
	switch l.GetSubLinkType() {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return narrowed
	case pg.SubLinkType_ANY_SUBLINK:
		if op := lastName(l.GetOperName()); op != "" && op != "=" {
			return false
		}
		tested := w.own(l.GetTestexpr())
		yields := w.own(&pg.Node{Node: &pg.Node_SubLink{SubLink: &pg.SubLink{
			SubLinkType: pg.SubLinkType_EXPR_SUBLINK, Subselect: l.GetSubselect(),
		}}})
		// id IN (SELECT id FROM the same table) is every row unless that query is narrowed.
		return len(tested) > 0 && (narrowed || !slices.Equal(tested, yields))
	default:
		return false
	}
}
