package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/hoopctl/hoopctl/policy"
)

// This file says of each statement of the grammar what it is called and how
// strict a class it takes. The tables deny by default: a statement that stands
// in none is of class admin.

// statement analyses one statement.
func (a *analysis) statement(n *pg.Node) {
	switch s := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		a.command("SELECT", policy.Read)
		a.returns = a.query(n, nil, nil)
		a.limit(s.SelectStmt)
		if s.SelectStmt.GetIntoClause() != nil {
			a.facts.Command = "SELECT INTO"
		}
	case *pg.Node_InsertStmt:
		a.command("INSERT", policy.Write)
		a.returns = a.query(n, nil, nil)
	case *pg.Node_UpdateStmt:
		a.command("UPDATE", policy.Write)
		a.returns = a.query(n, nil, nil)
	case *pg.Node_DeleteStmt:
		a.command("DELETE", policy.Write)
		a.returns = a.query(n, nil, nil)
	case *pg.Node_MergeStmt:
		a.command("MERGE", policy.Write)
		a.returns = a.query(n, nil, nil)
	default:
		a.wrapper(n)
	}
}

// limit notes a constant LIMIT of the outermost query.
func (a *analysis) limit(s *pg.SelectStmt) {
	if s.GetLimitOption() == pg.LimitOption_LIMIT_OPTION_WITH_TIES {
		return
	}
	if c, ok := s.GetLimitCount().GetAConst().GetVal().(*pg.A_Const_Ival); ok && c.Ival.GetIval() >= 0 {
		n := int64(c.Ival.GetIval())
		a.facts.Limit = &n
	}
}

// wrapper analyses statements that carry a query.
func (a *analysis) wrapper(n *pg.Node) {
	switch s := n.GetNode().(type) {
	case *pg.Node_ExplainStmt:
		a.explain(s.ExplainStmt)
	case *pg.Node_PrepareStmt:
		a.command("PREPARE", policy.Read)
		a.facts.Prepared = s.PrepareStmt.GetName()
		for _, t := range s.PrepareStmt.GetArgtypes() {
			a.typeName(t.GetTypeName())
		}
		a.returns = a.query(s.PrepareStmt.GetQuery(), nil, nil)
	case *pg.Node_DeclareCursorStmt:
		a.command("DECLARE CURSOR", policy.Read)
		a.facts.Cursor = s.DeclareCursorStmt.GetPortalname()
		a.returns = a.query(s.DeclareCursorStmt.GetQuery(), nil, nil)
	case *pg.Node_CopyStmt:
		a.copy(s.CopyStmt)
	case *pg.Node_CreateTableAsStmt:
		a.createAs(s.CreateTableAsStmt)
	case *pg.Node_ViewStmt:
		a.command("CREATE VIEW", policy.Schema)
		a.relation(s.ViewStmt.GetView(), true)
		a.query(s.ViewStmt.GetQuery(), nil, nil)
	default:
		a.utility(n)
	}
}

// explain: with ANALYZE the statement runs; without, it is only planned.
func (a *analysis) explain(s *pg.ExplainStmt) {
	a.command("EXPLAIN", policy.Read)
	a.literal = true
	analyse := false
	for _, n := range s.GetOptions() {
		if o := n.GetDefElem(); o.GetDefname() == "analyze" {
			analyse = optionOn(o)
		}
	}
	a.statement(s.GetQuery())
	// A plan shows what the statement compares with, and how many rows that left.
	a.returns = rows{cols: []column{{name: "QUERY PLAN", set: a.testSet.set()}}}
	if !analyse {
		// Nothing is written. What functions would do counts all the same: the
		// planner runs those that call themselves immutable.
		a.facts.Lock, a.written = false, nil
		a.facts.Class = policy.Read
		if a.odd {
			a.raise(policy.Admin)
		}
		for _, f := range a.facts.Functions {
			a.raise(named(strings.Split(f, ".")).effect.class())
		}
	}
}

// optionOn reads a Boolean option as defGetBoolean does: bare, on, true, 1.
func optionOn(o *pg.DefElem) bool {
	if o.GetArg() == nil {
		return true
	}
	switch v := strings.ToLower(optionText(o)); v {
	case "false", "off", "0":
		return false
	default:
		return true
	}
}

func optionText(o *pg.DefElem) string {
	switch v := o.GetArg().GetNode().(type) {
	case *pg.Node_String_:
		return v.String_.GetSval()
	case *pg.Node_Integer:
		return itoa(int(v.Integer.GetIval()))
	case *pg.Node_Float:
		return v.Float.GetFval()
	case *pg.Node_Boolean:
		if v.Boolean.GetBoolval() {
			return "true"
		}
		return "false"
	case *pg.Node_TypeName:
		return lastName(v.TypeName.GetNames())
	}
	return ""
}

func (a *analysis) createAs(s *pg.CreateTableAsStmt) {
	name := "CREATE TABLE AS"
	if s.GetObjtype() == pg.ObjectType_OBJECT_MATVIEW {
		name = "CREATE MATERIALIZED VIEW"
	}
	a.command(name, policy.Schema)
	it := a.relation(s.GetInto().GetRel(), true)
	if x := s.GetQuery().GetExecuteStmt(); x != nil { // CREATE TABLE … AS EXECUTE p
		a.raise(policy.Admin)
		a.facts.Prepared, a.literal = x.GetName(), true
		a.exprs(&scope{}, nil, x.GetParams()...)
		return
	}
	a.flows(it.rel, strs(s.GetInto().GetColNames()), a.query(s.GetQuery(), nil, nil))
}

// copy: from a client it writes, to a client it exports; files and programs
// of the server are its administrators' business.
func (a *analysis) copy(s *pg.CopyStmt) {
	c := &policy.CopyFacts{From: s.GetIsFrom(), Where: "client", Format: "text", Query: s.GetQuery() != nil, Columns: strs(s.GetAttlist())}
	a.facts.Copy, a.literal = c, true
	class := policy.Export
	if c.From {
		class = policy.Write
	}
	if s.GetFilename() != "" {
		class, c.Where = policy.Admin, "file"
	}
	if s.GetIsProgram() {
		class, c.Where = policy.Admin, "program"
	}
	a.command("COPY", class)
	copyOptions(c, s.GetOptions())
	if c.Query {
		a.returns = a.query(s.GetQuery(), nil, nil)
		return
	}
	a.copyTable(s)
}

func (a *analysis) copyTable(s *pg.CopyStmt) {
	it := a.relation(s.GetRelation(), s.GetIsFrom())
	cols := strs(s.GetAttlist())
	sc := &scope{}
	sc.star = append(sc.star, sc.add(it))
	if s.GetIsFrom() {
		a.sets(it.rel, cols)
		a.overwrites(it, cols...)
		a.predicate(sc, nil, s.GetWhereClause())
		return
	}
	if len(cols) == 0 {
		a.expand(sc.star[0], &a.returns)
		return
	}
	for _, name := range cols {
		c := a.column(sc, name)
		a.reads(c.set)
		a.returns.cols = append(a.returns.cols, c)
	}
}

func copyOptions(c *policy.CopyFacts, options []*pg.Node) {
	for _, n := range options {
		o := n.GetDefElem()
		v := optionText(o)
		switch o.GetDefname() {
		case "format":
			c.Format = v
		case "delimiter":
			c.Delimiter = v
		case "null":
			c.Null = v
		case "quote":
			c.Quote = v
		case "escape":
			c.Escape = v
		case "header":
			c.Header = optionOn(o)
		}
	}
}

// verdict is a statement's name and the least strict class that it takes.
type verdict struct {
	name  string
	class policy.Class
}

// utility analyses everything else.
func (a *analysis) utility(n *pg.Node) {
	switch s := n.GetNode().(type) {
	case *pg.Node_TransactionStmt:
		a.transaction(s.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		a.setting(s.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		a.command("SHOW", policy.Read)
		a.facts.Setting, a.literal = strings.ToLower(s.VariableShowStmt.GetName()), true
		a.shown()
	case *pg.Node_ExecuteStmt:
		// What it runs was said by its PREPARE, which only the session knows.
		a.command("EXECUTE", policy.Admin)
		a.facts.Prepared, a.literal = s.ExecuteStmt.GetName(), true
		a.returns = unknownRows()
		a.exprs(&scope{}, nil, s.ExecuteStmt.GetParams()...)
		a.argued(s.ExecuteStmt.GetParams())
	case *pg.Node_DeallocateStmt:
		a.command("DEALLOCATE", policy.Read)
		a.facts.Prepared = s.DeallocateStmt.GetName()
	case *pg.Node_FetchStmt:
		a.fetch(s.FetchStmt)
	case *pg.Node_ClosePortalStmt:
		a.command("CLOSE CURSOR", policy.Read)
		a.facts.Cursor = s.ClosePortalStmt.GetPortalname()
	case *pg.Node_LockStmt:
		a.command("LOCK TABLE", policy.Write)
		a.facts.Lock = true
		a.sweep(s.LockStmt, false)
	case *pg.Node_CallStmt:
		a.command("CALL", policy.Admin)
		a.literal = true
		a.call(&scope{}, nil, s.CallStmt.GetFunccall())
		a.returns = unknownRows()
	default:
		v := judge(n)
		a.command(v.name, v.class)
		switch {
		case n.GetAlterTableStmt() != nil:
			a.altered(n.GetAlterTableStmt())
		case n.GetIndexStmt() != nil:
			a.indexed(n.GetIndexStmt())
		}
		a.literal = true
		if m := inner(n); m != nil {
			a.sweep(m, v.class.Rank() > policy.Read.Rank())
		}
		a.objects(n)
	}
}

// objects notes the relations that DROP and COMMENT name in lists of strings.
func (a *analysis) objects(n *pg.Node) {
	var kind pg.ObjectType
	var list []*pg.Node
	switch s := n.GetNode().(type) {
	case *pg.Node_DropStmt:
		kind, list = s.DropStmt.GetRemoveType(), s.DropStmt.GetObjects()
	case *pg.Node_CommentStmt:
		kind, list = s.CommentStmt.GetObjtype(), []*pg.Node{s.CommentStmt.GetObject()}
	case *pg.Node_SecLabelStmt:
		kind, list = s.SecLabelStmt.GetObjtype(), []*pg.Node{s.SecLabelStmt.GetObject()}
	default:
		return
	}
	for _, o := range list {
		names := strs(o.GetList().GetItems())
		switch kind {
		case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_FOREIGN_TABLE,
			pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_SEQUENCE:
		case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY, pg.ObjectType_OBJECT_TABCONSTRAINT:
			names = names[:max(len(names)-1, 0)] // the last is the thing on the table
		default:
			continue
		}
		a.relationNamed(names)
	}
}

func (a *analysis) relationNamed(names []string) {
	switch len(names) {
	case 0:
	case 1:
		a.relation(&pg.RangeVar{Relname: names[0], Inh: true}, true)
	default:
		a.relation(&pg.RangeVar{Schemaname: names[len(names)-2], Relname: names[len(names)-1], Inh: true}, true)
	}
}

func (a *analysis) fetch(s *pg.FetchStmt) {
	name := "FETCH"
	if s.GetIsmove() {
		name = "MOVE"
	}
	a.command(name, policy.Read)
	a.facts.Cursor, a.literal = s.GetPortalname(), true
	if !s.GetIsmove() {
		a.returns = unknownRows() // what the cursor was declared for is the session's to say
	}
}

// shown: a setting of the server's own names nothing of a row; one with a dot
// in its name holds whatever somebody put there, and ALL shows those too.
func (a *analysis) shown() {
	name := a.facts.Setting
	a.returns = rows{cols: []column{{name: name, set: set{unknown: strings.Contains(name, ".")}}}}
	if name == "all" {
		a.returns = unknownRows()
	}
}

func (a *analysis) transaction(s *pg.TransactionStmt) {
	k := s.GetKind()
	table := map[pg.TransactionStmtKind][2]string{
		pg.TransactionStmtKind_TRANS_STMT_BEGIN:             {"BEGIN", "begin"},
		pg.TransactionStmtKind_TRANS_STMT_START:             {"START TRANSACTION", "begin"},
		pg.TransactionStmtKind_TRANS_STMT_COMMIT:            {"COMMIT", "commit"},
		pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:          {"ROLLBACK", "rollback"},
		pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:         {"SAVEPOINT", "savepoint"},
		pg.TransactionStmtKind_TRANS_STMT_RELEASE:           {"RELEASE", "savepoint"},
		pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:       {"ROLLBACK", "savepoint"},
		pg.TransactionStmtKind_TRANS_STMT_PREPARE:           {"PREPARE TRANSACTION", "prepare"},
		pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:   {"COMMIT PREPARED", ""},
		pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED: {"ROLLBACK PREPARED", ""},
	}
	v, known := table[k]
	class := policy.Read
	switch {
	case k == pg.TransactionStmtKind_TRANS_STMT_PREPARE:
		class = policy.Write // its locks outlive the session
	case !known || v[1] == "":
		class = policy.Admin // somebody else's transaction
	}
	a.command(v[0], class)
	a.facts.Transaction = v[1]
	a.literal = true
}

// inner is the message inside a node.
func inner(n *pg.Node) proto.Message {
	m := n.ProtoReflect()
	fd := m.WhichOneof(m.Descriptor().Oneofs().ByName("node"))
	if fd == nil || fd.Message() == nil {
		return nil
	}
	return m.Get(fd).Message().Interface()
}

// sweep notes every relation, function, operator and type that stands anywhere
// in a statement whose structure has no part in its class: DDL runs the
// functions of its defaults, checks and index expressions, now or later.
func (a *analysis) sweep(m proto.Message, written bool) {
	if !a.spend() || m == nil {
		return
	}
	switch n := m.(type) {
	case *pg.RangeVar:
		if n != nil {
			a.relation(n, written)
		}
		return
	case *pg.FuncCall:
		fn := named(strs(n.GetFuncname()))
		a.once(&a.facts.Functions, fn.name)
		if fn.effect != unknownFunction {
			a.raise(fn.effect.class())
		}
	case *pg.SelectStmt:
		a.query(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: n}}, nil, nil)
		return
	}
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				a.sweep(v.List().Get(i).Message().Interface(), written)
			}
		default:
			a.sweep(v.Message().Interface(), written)
		}
		return true
	})
}
