package sql

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// This file walks the statements that write rows.

// writing notes that the statement, or a part of it, changes rows.
func (a *analysis) writing(kind string, where bool) {
	a.raise(policy.Write)
	a.written = append(a.written, writtenPart{kind: kind, where: where})
}

type writtenPart struct {
	kind  string
	where bool // a WHERE constrains a column of the written table
}

func (a *analysis) inserts(s *pg.InsertStmt, outer *scope, with *ctes) rows {
	with = a.with(s.GetWithClause(), outer, with)
	it := a.relation(s.GetRelation(), true)
	cols := a.targetNames(s.GetCols(), outer, with)
	var from rows
	if s.GetSelectStmt() != nil {
		from = a.query(s.GetSelectStmt(), outer, with)
	}
	cols = a.inserted(it, cols, from)
	a.sets(it.rel, cols)
	a.flows(it.rel, cols, from)
	a.fills(it, cols, s.GetSelectStmt())
	a.provides(it, cols)
	a.writing("INSERT", false)
	sc := &scope{parent: outer}
	sc.star = append(sc.star, sc.add(it))
	if oc := s.GetOnConflictClause(); oc != nil {
		a.onConflict(oc, it, sc, with)
	}
	return a.returning(s.GetReturningList(), it, sc, with)
}

// inserted names the columns that an INSERT without a list fills: the first
// ones, in order.
func (a *analysis) inserted(it *item, names []string, from rows) []string {
	if len(names) > 0 || it.open || from.open {
		return names
	}
	n := len(it.cols)
	if len(from.cols) > 0 {
		n = min(n, len(from.cols))
	}
	for _, c := range it.cols[:n] {
		names = append(names, c.name)
	}
	return names
}

// onConflict: the row that was to be inserted is called excluded.
func (a *analysis) onConflict(oc *pg.OnConflictClause, it *item, sc *scope, with *ctes) {
	for _, n := range oc.GetInfer().GetIndexElems() {
		e := n.GetIndexElem()
		if e.GetName() != "" {
			a.tests(a.column(sc, e.GetName()).set)
			continue
		}
		a.predicate(sc, with, e.GetExpr())
	}
	a.predicate(sc, with, oc.GetInfer().GetWhereClause())
	if oc.GetInfer().GetConname() != "" || oc.GetInfer() == nil {
		a.conflictKeys(it)
	}
	if oc.GetAction() != pg.OnConflictAction_ONCONFLICT_UPDATE {
		return
	}
	excluded := *it
	excluded.alias, excluded.schema = "excluded", ""
	inner := &scope{parent: sc, items: []*item{it}}
	inner.items = append(inner.items, &excluded)
	a.assignments(oc.GetTargetList(), it, inner, with)
	a.predicate(inner, with, oc.GetWhereClause())
}

// conflictKeys: which columns a conflict compares is the catalogue's to say.
func (a *analysis) conflictKeys(it *item) { a.tests(a.whole(it)) }

func (a *analysis) updates(s *pg.UpdateStmt, outer *scope, with *ctes) rows {
	with = a.with(s.GetWithClause(), outer, with)
	it := a.relation(s.GetRelation(), true)
	sc := &scope{parent: outer}
	sc.star = append(sc.star, sc.add(it))
	a.from(s.GetFromClause(), sc, with)
	a.predicate(sc, with, s.GetWhereClause())
	a.assignments(s.GetTargetList(), it, sc, with)
	a.writing("UPDATE", a.constrains(s.GetWhereClause(), it, sc, with))
	return a.returning(s.GetReturningList(), it, sc, with)
}

func (a *analysis) deletes(s *pg.DeleteStmt, outer *scope, with *ctes) rows {
	with = a.with(s.GetWithClause(), outer, with)
	it := a.relation(s.GetRelation(), true)
	sc := &scope{parent: outer}
	sc.star = append(sc.star, sc.add(it))
	a.from(s.GetUsingClause(), sc, with)
	a.predicate(sc, with, s.GetWhereClause())
	a.writing("DELETE", a.constrains(s.GetWhereClause(), it, sc, with))
	return a.returning(s.GetReturningList(), it, sc, with)
}

func (a *analysis) merges(s *pg.MergeStmt, outer *scope, with *ctes) rows {
	with = a.with(s.GetWithClause(), outer, with)
	it := a.relation(s.GetRelation(), true)
	sc := &scope{parent: outer}
	source := a.fromItem(s.GetSourceRelation(), sc, with)
	sc.star = append(sc.star, source, sc.add(it))
	a.predicate(sc, with, s.GetJoinCondition())
	where := a.constrains(s.GetJoinCondition(), it, sc, with)
	for _, n := range s.GetMergeWhenClauses() {
		w := n.GetMergeWhenClause()
		a.predicate(sc, with, w.GetCondition())
		if w.GetMatchKind() == pg.MergeMatchKind_MERGE_WHEN_NOT_MATCHED_BY_SOURCE && w.GetCommandType() != pg.CmdType_CMD_NOTHING {
			where = where && a.constrains(w.GetCondition(), it, sc, with)
		}
		a.mergeAction(w, it, sc, with)
	}
	a.writing("MERGE", where)
	return a.returning(s.GetReturningList(), it, sc, with)
}

func (a *analysis) mergeAction(w *pg.MergeWhenClause, it *item, sc *scope, with *ctes) {
	switch w.GetCommandType() {
	case pg.CmdType_CMD_UPDATE:
		a.assignments(w.GetTargetList(), it, sc, with)
	case pg.CmdType_CMD_INSERT:
		cols := a.targetNames(w.GetTargetList(), sc, with)
		var row rows
		for _, v := range w.GetValues() {
			row.cols = append(row.cols, column{set: a.expr(sc, with, v)})
		}
		cols = a.inserted(it, cols, row)
		a.sets(it.rel, cols)
		a.flows(it.rel, cols, row)
		a.provides(it, cols)
	}
}

// returning analyses RETURNING, where PostgreSQL 18 also knows the row before
// and after as old and new. An older server would call these unknown.
func (a *analysis) returning(list []*pg.Node, it *item, sc *scope, with *ctes) rows {
	if len(list) == 0 {
		return rows{}
	}
	inner := &scope{parent: sc.parent, items: sc.items, star: sc.star, natural: sc.natural}
	for _, name := range []string{"old", "new"} {
		if alias(sc, name) == nil {
			row := *it
			row.alias, row.schema, row.qualifiedOnly = name, "", true
			inner.items = append(inner.items[:len(inner.items):len(inner.items)], &row)
		}
	}
	return a.targets(list, inner, with)
}

// assignments analyses SET a = …, (b, c) = ….
func (a *analysis) assignments(list []*pg.Node, it *item, sc *scope, with *ctes) {
	for _, n := range list {
		t := n.GetResTarget()
		if t == nil {
			a.strange(n)
			continue
		}
		s := a.indirection(sc, with, t.GetIndirection())
		if m := t.GetVal().GetMultiAssignRef(); m != nil {
			s = s.or(a.multi(m, sc, with))
		} else {
			s = s.or(a.expr(sc, with, t.GetVal()))
		}
		a.sets(it.rel, []string{t.GetName()})
		a.overwrites(it, t.GetName())
		a.flows(it.rel, []string{t.GetName()}, rows{cols: []column{{set: s}}})
	}
}

// multi is one member of (a, b) = (x, y) or (a, b) = (SELECT x, y …).
func (a *analysis) multi(m *pg.MultiAssignRef, sc *scope, with *ctes) set {
	if row := m.GetSource().GetRowExpr(); row != nil && int(m.GetColno()) <= len(row.GetArgs()) && m.GetColno() > 0 {
		return a.expr(sc, with, row.GetArgs()[m.GetColno()-1])
	}
	return a.expr(sc, with, m.GetSource())
}

func (a *analysis) targetNames(list []*pg.Node, sc *scope, with *ctes) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.GetResTarget().GetName())
		a.tests(a.indirection(sc, with, n.GetResTarget().GetIndirection()))
	}
	return out
}

// sets notes written columns; no names are all of the table's.
func (a *analysis) sets(rel relationName, names []string) {
	if len(names) == 0 {
		names = []string{"*"}
	}
	for _, n := range names {
		a.once(&a.facts.WriteColumns, baseColumn{rel, n}.String())
	}
}

// flow is a value that a statement moves into a column.
type flow struct {
	rel  relationName
	name string // "*" if it cannot be told which column
	set  set
	bare bool // it is the one source's own value
}

// flows notes where written values come from: by position where positions are known.
func (a *analysis) flows(rel relationName, names []string, from rows) {
	if from.open || len(names) < len(from.cols) {
		if s := a.all(from); !s.empty() {
			a.moved = append(a.moved, flow{rel: rel, name: "*", set: s})
		}
		return
	}
	for i, c := range from.cols {
		if !c.set.empty() {
			a.moved = append(a.moved, flow{rel, names[i], c.set, c.bare})
		}
	}
}
