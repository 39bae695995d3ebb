package sql

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// This file walks what yields rows: SELECT, VALUES, set operations, FROM
// lists, WITH, and the statements that write and may return.

// query analyses a statement that can stand in a WITH, a COPY or a cursor.
func (a *analysis) query(n *pg.Node, outer *scope, with *ctes) rows {
	if !a.spend() {
		return unknownRows()
	}
	switch q := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		return a.selects(q.SelectStmt, outer, with)
	case *pg.Node_InsertStmt:
		return a.inserts(q.InsertStmt, outer, with)
	case *pg.Node_UpdateStmt:
		return a.updates(q.UpdateStmt, outer, with)
	case *pg.Node_DeleteStmt:
		return a.deletes(q.DeleteStmt, outer, with)
	case *pg.Node_MergeStmt:
		return a.merges(q.MergeStmt, outer, with)
	default:
		a.strange(n)
		return unknownRows()
	}
}

func unknownRows() rows { return rows{open: true, rest: set{unknown: true}} }

func (a *analysis) selects(s *pg.SelectStmt, outer *scope, with *ctes) rows {
	if !a.spend() {
		return unknownRows()
	}
	with = a.with(s.GetWithClause(), outer, with)
	var out rows
	sc := &scope{parent: outer}
	switch {
	case s.GetOp() != pg.SetOperation_SETOP_NONE:
		out = a.setOperation(s, outer, with)
		sc.add(&item{rows: out})
	case len(s.GetValuesLists()) > 0:
		out = a.values(s.GetValuesLists(), sc, with)
		sc.add(&item{rows: out})
	default:
		out = a.plain(s, sc, with)
	}
	a.ordered(s, sc, with, out)
	if s.GetIntoClause() != nil {
		a.into(s.GetIntoClause(), out)
	}
	return out
}

// plain analyses one SELECT … FROM … WHERE …, and leaves its FROM in sc.
func (a *analysis) plain(s *pg.SelectStmt, sc *scope, with *ctes) rows {
	a.from(s.GetFromClause(), sc, with)
	a.predicate(sc, with, s.GetWhereClause())
	for _, n := range s.GetWindowClause() {
		if sc.windows == nil {
			sc.windows = make(map[string]set)
		}
		w := n.GetWindowDef()
		sc.windows[w.GetName()] = a.window(sc, with, w)
	}
	outer := a.settingRow
	a.settingRow = oneSetting(s)
	out := a.targets(s.GetTargetList(), sc, with)
	a.settingRow = outer
	for _, g := range s.GetGroupClause() {
		a.sortKey(g, sc, with, out)
	}
	a.predicate(sc, with, s.GetHavingClause())
	if len(s.GetDistinctClause()) > 0 {
		a.distinct(s.GetDistinctClause(), sc, with, out)
	}
	return out
}

// distinct: DISTINCT compares every output, DISTINCT ON what it names.
func (a *analysis) distinct(on []*pg.Node, sc *scope, with *ctes, out rows) {
	if len(on) == 1 && on[0].GetNode() == nil {
		a.tests(a.all(out))
		return
	}
	for _, n := range on {
		a.orderKey(n, sc, with, out)
	}
}

// ordered analyses what comes behind a query: ORDER BY, LIMIT, FOR UPDATE.
func (a *analysis) ordered(s *pg.SelectStmt, sc *scope, with *ctes, out rows) {
	for _, n := range s.GetSortClause() {
		sort := n.GetSortBy()
		a.operator(sort.GetUseOp())
		a.orderKey(sort.GetNode(), sc, with, out)
	}
	for _, n := range []*pg.Node{s.GetLimitCount(), s.GetLimitOffset()} {
		if n != nil {
			a.literal = a.literal || hasConstant(n)
			a.predicate(sc, with, n)
		}
	}
	for range s.GetLockingClause() {
		a.facts.Lock = true
		a.raise(policy.Write)
	}
}

// orderKey analyses an ORDER BY or DISTINCT ON item. A bare name is an output's
// if there is one of that name, whatever the FROM list has.
func (a *analysis) orderKey(n *pg.Node, sc *scope, with *ctes, out rows) {
	name, found := bareName(n), false
	for _, c := range out.cols {
		if name != "" && c.name == name {
			a.tests(c.set)
			found = true
		}
	}
	if !found {
		a.sortKey(n, sc, with, out)
	}
}

// sortKey analyses a GROUP BY item: an output's number or name, or an
// expression over the FROM list, whose columns go before outputs' names.
func (a *analysis) sortKey(n *pg.Node, sc *scope, with *ctes, out rows) {
	if gs := n.GetGroupingSet(); gs != nil {
		for _, c := range gs.GetContent() {
			a.sortKey(c, sc, with, out)
		}
		return
	}
	if hasConstant(n) {
		a.literal = true // ORDER BY 2 and ORDER BY 3 are one shape
	}
	if c := n.GetAConst(); c != nil {
		a.tests(a.ordinal(c, out))
		return
	}
	if name := bareName(n); name != "" {
		for _, c := range out.cols {
			if c.name == name {
				a.tests(c.set)
			}
		}
	}
	a.predicate(sc, with, n)
}

func (a *analysis) ordinal(c *pg.A_Const, out rows) set {
	i := int(c.GetIval().GetIval())
	if i >= 1 && i <= len(out.cols) && !out.open {
		return out.cols[i-1].set
	}
	return a.all(out)
}

// bareName is the name if n is an unqualified column reference.
func bareName(n *pg.Node) string {
	f := n.GetColumnRef().GetFields()
	if len(f) != 1 {
		return ""
	}
	return f[0].GetString_().GetSval()
}

// setOperation analyses UNION, INTERSECT and EXCEPT: outputs by position, of both sides.
func (a *analysis) setOperation(s *pg.SelectStmt, outer *scope, with *ctes) rows {
	left := a.selects(s.GetLarg(), outer, with)
	right := a.selects(s.GetRarg(), outer, with)
	if s.GetOp() != pg.SetOperation_SETOP_UNION || !s.GetAll() {
		a.tests(a.all(left).or(a.all(right))) // rows are compared
	}
	return a.merged(left, right)
}

// merged is the union of two row types by position, with the names of the first.
func (a *analysis) merged(l, r rows) rows {
	if l.open || r.open || len(l.cols) != len(r.cols) {
		both := a.all(l).or(a.all(r))
		out := rows{open: true, rest: both}
		for _, c := range l.cols {
			out.cols = append(out.cols, column{name: c.name, set: both})
		}
		return out
	}
	out := rows{cols: make([]column, len(l.cols))}
	for i, c := range l.cols {
		o := r.cols[i]
		out.cols[i] = column{name: c.name, set: c.set.or(o.set), bare: c.bare && o.bare && c.set.equal(o.set)}
	}
	return out
}

func (a *analysis) values(lists []*pg.Node, sc *scope, with *ctes) rows {
	var out rows
	for i, l := range lists {
		var row rows
		for j, n := range l.GetList().GetItems() {
			row.cols = append(row.cols, column{name: valuesName(j), set: a.expr(sc, with, n)})
		}
		if i == 0 {
			out = row
		} else {
			out = a.merged(out, row)
		}
	}
	return out
}

func valuesName(i int) string { return "column" + itoa(i+1) }

// targets analyses a select list or RETURNING.
func (a *analysis) targets(list []*pg.Node, sc *scope, with *ctes) rows {
	var out rows
	for _, n := range list {
		t := n.GetResTarget()
		if t == nil {
			a.strange(n)
			continue
		}
		if a.star(t.GetVal(), sc, with, &out) {
			continue
		}
		c := a.value(sc, with, t.GetVal())
		c.name = t.GetName()
		if c.name == "" {
			c.name = figure(t.GetVal())
		}
		out.cols = append(out.cols, c)
	}
	return out
}

// star expands *, t.* and (x).* into out, and reports false for anything else.
func (a *analysis) star(n *pg.Node, sc *scope, with *ctes, out *rows) bool {
	if in := n.GetAIndirection(); in != nil {
		ind := in.GetIndirection()
		if len(ind) == 0 || ind[len(ind)-1].GetAStar() == nil {
			return false
		}
		out.open = true
		out.rest = out.rest.or(a.expr(sc, with, in.GetArg()))
		return true
	}
	f := n.GetColumnRef().GetFields()
	if len(f) == 0 || f[len(f)-1].GetAStar() == nil {
		return false
	}
	if len(f) == 1 {
		for _, r := range sc.star {
			a.expand(r, out)
		}
		return true
	}
	names := strs(f[:len(f)-1])
	it := alias(sc, names[len(names)-1])
	if it == nil {
		s := a.everything(sc)
		s.unknown = true
		out.open, out.rest = true, out.rest.or(s)
		return true
	}
	a.expand((&scope{}).add(it), out)
	return true
}

func (a *analysis) expand(r rows, out *rows) {
	a.reads(a.all(r))
	*out = concat(*out, r)
}

// with analyses a WITH clause and returns the chain with its queries in sight.
func (a *analysis) with(w *pg.WithClause, outer *scope, env *ctes) *ctes {
	for _, n := range w.GetCtes() {
		c := n.GetCommonTableExpr()
		var out rows
		if w.GetRecursive() {
			out = a.recursive(c, outer, env)
		} else {
			out = a.query(c.GetCtequery(), outer, env)
		}
		out = a.renamed(out, strs(c.GetAliascolnames()))
		a.searchAndCycle(c, &out, outer, env)
		env = &ctes{parent: env, name: c.GetCtename(), rows: out}
	}
	return env
}

// recursive finds the least fixpoint: what the query yields when it sees
// itself as what it yielded before. Sets only grow, so it ends.
func (a *analysis) recursive(c *pg.CommonTableExpr, outer *scope, env *ctes) rows {
	names := strs(c.GetAliascolnames())
	var out rows
	if s := c.GetCtequery().GetSelectStmt(); s != nil && s.GetOp() != pg.SetOperation_SETOP_NONE {
		// The first branch cannot see itself; it gives names and number of columns.
		out = a.selects(s.GetLarg(), outer, a.with(s.GetWithClause(), outer, env))
	}
	for {
		self := &ctes{parent: env, name: c.GetCtename(), rows: a.renamed(out, names)}
		next := a.query(c.GetCtequery(), outer, self)
		if len(next.cols) == len(out.cols) && next.open == out.open && a.all(next).equal(a.all(out)) && sameSets(next, out) {
			return next
		}
		if !a.spend() {
			return unknownRows()
		}
		out = next
	}
}

func sameSets(x, y rows) bool {
	for i := range x.cols {
		if !x.cols[i].set.equal(y.cols[i].set) {
			return false
		}
	}
	return true
}

func (a *analysis) renamed(r rows, names []string) rows {
	it := a.aliased(&item{rows: r}, &pg.Alias{Colnames: stringNodes(names)})
	return it.rows
}

func stringNodes(names []string) []*pg.Node {
	out := make([]*pg.Node, len(names))
	for i, n := range names {
		out[i] = pg.MakeStrNode(n)
	}
	return out
}

// searchAndCycle adds the columns of SEARCH and CYCLE, which hold what they order by.
func (a *analysis) searchAndCycle(c *pg.CommonTableExpr, out *rows, outer *scope, env *ctes) {
	all := a.all(*out)
	if s := c.GetSearchClause(); s != nil {
		out.cols = append(out.cols, column{name: s.GetSearchSeqColumn(), set: all})
		a.tests(all)
	}
	if cy := c.GetCycleClause(); cy != nil {
		sc := &scope{parent: outer}
		mark := a.expr(sc, env, cy.GetCycleMarkValue()).or(a.expr(sc, env, cy.GetCycleMarkDefault()))
		out.cols = append(out.cols, column{name: cy.GetCycleMarkColumn(), set: mark.or(all)}, column{name: cy.GetCyclePathColumn(), set: all})
		a.tests(all)
	}
}

// from adds the items of a FROM list to sc, in order, so that LATERAL sees
// what stands to its left.
func (a *analysis) from(list []*pg.Node, sc *scope, with *ctes) {
	for _, n := range list {
		sc.star = append(sc.star, a.fromItem(n, sc, with))
	}
}

// fromItem adds what one FROM entry names (a join names several) and returns
// the row type that * expands to.
func (a *analysis) fromItem(n *pg.Node, sc *scope, with *ctes) rows {
	if !a.spend() {
		return unknownRows()
	}
	switch f := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		return sc.add(a.table(f.RangeVar, with))
	case *pg.Node_RangeSubselect:
		// What is not LATERAL may still be analysed as if it were: it can only see more.
		out := a.query(f.RangeSubselect.GetSubquery(), sc, with)
		return sc.add(a.aliased(&item{rows: out}, f.RangeSubselect.GetAlias()))
	case *pg.Node_RangeFunction:
		return sc.add(a.rangeFunction(f.RangeFunction, sc, with))
	case *pg.Node_RangeTableFunc:
		return sc.add(a.xmlTable(f.RangeTableFunc, sc, with))
	case *pg.Node_JsonTable:
		return sc.add(a.jsonTable(f.JsonTable, sc, with))
	case *pg.Node_RangeTableSample:
		return a.sampled(f.RangeTableSample, sc, with)
	case *pg.Node_JoinExpr:
		return a.join(f.JoinExpr, sc, with)
	default:
		a.strange(n)
		return sc.add(&item{rows: unknownRows()})
	}
}

func (sc *scope) add(it *item) rows {
	sc.items = append(sc.items, it)
	if it.base() && it.open {
		return rows{open: true, sources: []*item{it}, cols: it.cols}
	}
	return it.rows
}

// table is a name in FROM: a WITH query in sight, or a relation.
func (a *analysis) table(rv *pg.RangeVar, with *ctes) *item {
	if rv.GetSchemaname() == "" {
		if r, ok := with.find(rv.GetRelname()); ok {
			return a.aliased(&item{alias: rv.GetRelname(), rows: r}, rv.GetAlias())
		}
	}
	return a.relation(rv, false)
}

func (a *analysis) sampled(s *pg.RangeTableSample, sc *scope, with *ctes) rows {
	added := a.fromItem(s.GetRelation(), sc, with)
	for _, n := range append(s.GetArgs(), s.GetRepeatable()) {
		a.predicate(sc, with, n)
	}
	if m := strs(s.GetMethod()); len(m) != 1 || m[0] != "system" && m[0] != "bernoulli" {
		a.raise(policy.Write) // a handler of an extension
	}
	return added
}

// rangeFunction: what a function in FROM yields derives from its arguments;
// its columns' names are not known from the text.
func (a *analysis) rangeFunction(f *pg.RangeFunction, sc *scope, with *ctes) *item {
	var s set
	name := ""
	for _, n := range f.GetFunctions() {
		items := n.GetList().GetItems()
		if len(items) == 0 {
			continue
		}
		s = s.or(a.expr(sc, with, items[0]))
		name = figure(items[0])
		for _, defs := range items[1:] {
			a.columnDefs(defs.GetList().GetItems())
		}
	}
	a.columnDefs(f.GetColdeflist())
	it := &item{alias: name, rows: rows{open: true, rest: s}}
	if as := f.GetAlias(); as != nil {
		it.alias = as.GetAliasname()
		for _, c := range strs(as.GetColnames()) {
			it.cols = append(it.cols, column{name: c, set: s})
		}
	}
	return it
}

func (a *analysis) columnDefs(defs []*pg.Node) {
	for _, d := range defs {
		a.typeName(d.GetColumnDef().GetTypeName())
	}
}

func (a *analysis) xmlTable(t *pg.RangeTableFunc, sc *scope, with *ctes) *item {
	s := a.expr(sc, with, t.GetDocexpr()).or(a.expr(sc, with, t.GetRowexpr()))
	for _, n := range t.GetNamespaces() {
		s = s.or(a.expr(sc, with, n.GetResTarget().GetVal()))
	}
	it := &item{}
	for _, n := range t.GetColumns() {
		c := n.GetRangeTableFuncCol()
		a.typeName(c.GetTypeName())
		s = s.or(a.expr(sc, with, c.GetColexpr())).or(a.expr(sc, with, c.GetColdefexpr()))
		it.cols = append(it.cols, column{name: c.GetColname()})
	}
	return a.filled(it, s, t.GetAlias())
}

// filled gives every column of it the same sources.
func (a *analysis) filled(it *item, s set, as *pg.Alias) *item {
	for i := range it.cols {
		it.cols[i].set = s
	}
	return a.aliased(it, as)
}

func (a *analysis) jsonTable(t *pg.JsonTable, sc *scope, with *ctes) *item {
	s := a.newer("json_table").or(a.jsonValue(sc, with, t.GetContextItem())).or(a.jsonPassing(sc, with, t.GetPassing()))
	s = s.or(a.expr(sc, with, t.GetPathspec().GetString_())).or(a.jsonBehavior(sc, with, t.GetOnError()))
	it := &item{}
	s = s.or(a.jsonColumns(t.GetColumns(), it, sc, with))
	return a.filled(it, s, t.GetAlias())
}

func (a *analysis) jsonColumns(list []*pg.Node, it *item, sc *scope, with *ctes) set {
	var s set
	for _, n := range list {
		c := n.GetJsonTableColumn()
		a.typeName(c.GetTypeName())
		s = s.or(a.expr(sc, with, c.GetPathspec().GetString_()))
		s = s.or(a.jsonBehavior(sc, with, c.GetOnEmpty())).or(a.jsonBehavior(sc, with, c.GetOnError()))
		if c.GetColtype() == pg.JsonTableColumnType_JTC_NESTED {
			s = s.or(a.jsonColumns(c.GetColumns(), it, sc, with))
			continue
		}
		it.cols = append(it.cols, column{name: c.GetName()})
	}
	return s
}

// join adds both sides, tests its condition, and merges columns of USING.
func (a *analysis) join(j *pg.JoinExpr, sc *scope, with *ctes) rows {
	at := len(sc.items)
	left := a.fromItem(j.GetLarg(), sc, with)
	mid := len(sc.items)
	right := a.fromItem(j.GetRarg(), sc, with)
	a.predicate(sc, with, j.GetQuals())
	using := strs(j.GetUsingClause())
	if j.GetIsNatural() {
		using = a.natural(left, right, sc)
	}
	out := concat(left, right)
	if len(using) > 0 {
		m := a.using(using, sc.items[at:mid], sc.items[mid:])
		m.alias = j.GetJoinUsingAlias().GetAliasname()
		sc.items = slices.Insert(sc.items, at, m)
		out = concat(m.rows, concat(without(left, using), without(right, using)))
	}
	if as := j.GetAlias(); as != nil {
		// The joined items are hidden behind one name.
		it := a.aliased(&item{rows: out}, as)
		sc.items = append(sc.items[:at:at], it)
		return it.rows
	}
	return out
}

// natural is the list of columns that a NATURAL JOIN merges. Where a side's
// columns are not known, every column may be compared.
func (a *analysis) natural(left, right rows, sc *scope) []string {
	if left.open || right.open {
		sc.natural = true
		a.tests(a.all(left).or(a.all(right)))
		return nil
	}
	var names []string
	r := &item{rows: right}
	for _, l := range left.cols {
		if len(a.positions(r, l.name)) > 0 && !slices.Contains(names, l.name) {
			names = append(names, l.name)
		}
	}
	return names
}

func concat(l, r rows) rows {
	return rows{
		cols:    slices.Concat(l.cols, r.cols),
		open:    l.open || r.open,
		sources: slices.Concat(l.sources, r.sources),
		rest:    l.rest.or(r.rest),
	}
}

func without(r rows, names []string) rows {
	r.cols = slices.DeleteFunc(slices.Clone(r.cols), func(c column) bool { return slices.Contains(names, c.name) })
	return r
}

// using is the item of merged columns. It goes in front of the joined ones: a
// bare name finds it first, and it is certain.
func (a *analysis) using(names []string, left, right []*item) *item {
	m := &item{}
	for _, name := range names {
		l, r := a.among(left, name), a.among(right, name)
		s := l.set.or(r.set)
		a.reads(s)
		a.tests(s)
		m.cols = append(m.cols, column{name: name, set: s})
	}
	return m
}

// among finds a name in the items of one side; merged columns come first.
func (a *analysis) among(items []*item, name string) column {
	var out column
	for _, it := range items {
		c, certain, maybe := a.find(it, name)
		if certain {
			return c
		}
		if maybe {
			out.set = out.set.or(c.set)
		}
	}
	return out
}

// into is SELECT … INTO t: it creates a table.
func (a *analysis) into(c *pg.IntoClause, out rows) {
	it := a.relation(c.GetRel(), true)
	a.flows(it.rel, strs(c.GetColNames()), out)
	a.raise(policy.Schema)
}
