package postgres

import (
	"fmt"
	"maps"
	"strconv"
)

// This file finds what the columns of a view derive from, in the query tree
// that PostgreSQL keeps of it (pg_rewrite.ev_action, written by outfuncs.c).
// pg_get_viewdef would be easier to read and waits for the client's locks.
//
// The tree's form is the same in all versions: nodes of labelled fields, lists,
// words. Their meaning is read by label; a node that is not known shows all
// that stands in it. What does not read as expected leaves the view unknown.

// node is one value of a tree: a node with fields, a list, or a word.
type node struct {
	name   string // of a node: "VAR"
	fields map[string]*node
	list   []*node
	word   string
}

// maxTreeDepth bounds nesting; PostgreSQL's own stack does at about the same.
const maxTreeDepth = 2000

type treeReader struct {
	b     []byte
	depth int
}

func readTree(b []byte) (*node, error) {
	r := &treeReader{b: b}
	n, err := r.value()
	if err != nil {
		return nil, err
	}
	if tok, ok := r.next(); ok {
		return nil, fmt.Errorf("query tree: %q behind the end", tok)
	}
	return n, nil
}

// next returns the next token: a bracket or a word, as pg_strtok cuts them.
func (r *treeReader) next() (string, bool) {
	for len(r.b) > 0 && (r.b[0] == ' ' || r.b[0] == '\n' || r.b[0] == '\t') {
		r.b = r.b[1:]
	}
	if len(r.b) == 0 {
		return "", false
	}
	if bracket(r.b[0]) {
		tok := string(r.b[:1])
		r.b = r.b[1:]
		return tok, true
	}
	n := 0
	for n < len(r.b) && r.b[n] != ' ' && r.b[n] != '\n' && r.b[n] != '\t' && !bracket(r.b[n]) {
		if r.b[n] == '\\' {
			n++
		}
		n++
	}
	n = min(n, len(r.b))
	tok := string(r.b[:n])
	r.b = r.b[n:]
	return tok, true
}

func bracket(c byte) bool { return c == '(' || c == ')' || c == '{' || c == '}' }

func (r *treeReader) value() (*node, error) {
	tok, ok := r.next()
	if r.depth++; !ok || r.depth > maxTreeDepth {
		return nil, fmt.Errorf("query tree: ends early or is too deep")
	}
	defer func() { r.depth-- }()
	switch tok {
	case "{":
		return r.node()
	case "(":
		n := &node{}
		for !r.closes(")") {
			v, err := r.value()
			if err != nil {
				return nil, err
			}
			n.list = append(n.list, v)
		}
		return n, nil
	case ")", "}":
		return nil, fmt.Errorf("query tree: unexpected %q", tok)
	}
	return &node{word: tok}, nil
}

// closes takes the bracket if it is the next token.
func (r *treeReader) closes(bracket string) bool {
	rest := r.b
	if tok, _ := r.next(); tok == bracket {
		return true
	}
	r.b = rest
	return false
}

// node reads what stands behind {: its name, then labels with one value each.
// A value may look like a label (a column may be called ":expr"), so labels
// are known by their place only.
func (r *treeReader) node() (*node, error) {
	name, ok := r.next()
	if !ok || bracket(name[0]) {
		return nil, fmt.Errorf("query tree: a node without a name")
	}
	n := &node{name: name, fields: map[string]*node{}}
	for !r.closes("}") {
		label, ok := r.next()
		if !ok || len(label) < 2 || label[0] != ':' {
			return nil, fmt.Errorf("query tree: %q where a label of %s should be", label, name)
		}
		v, err := r.value()
		if err != nil {
			return nil, err
		}
		if err := r.datum(v); err != nil {
			return nil, err
		}
		n.fields[label[1:]] = v
	}
	return n, nil
}

// datum takes the bytes that follow the length of a constant: 4 [ 1 0 0 0 ].
func (r *treeReader) datum(v *node) error {
	if v.word == "" {
		return nil
	}
	rest := r.b
	if tok, _ := r.next(); tok != "[" {
		r.b = rest
		return nil
	}
	for {
		tok, ok := r.next()
		if !ok {
			return fmt.Errorf("query tree: a constant without an end")
		}
		if tok == "]" {
			return nil
		}
	}
}

func (n *node) field(label string) *node {
	if n == nil || n.fields == nil {
		return nil
	}
	return n.fields[label]
}

func (n *node) items(label string) []*node {
	if f := n.field(label); f != nil {
		return f.list
	}
	return nil
}

// number reads a field that holds an integer; ok is false if it does not.
func (n *node) number(label string) (int, bool) {
	f := n.field(label)
	if f == nil {
		return 0, false
	}
	v, err := strconv.Atoi(f.word)
	return v, err == nil
}

func (n *node) text(label string) string {
	if f := n.field(label); f != nil {
		return f.word
	}
	return ""
}

// origin is what a value of a view derives from.
type origin struct {
	columns map[columnID]bool // column 0: the whole row
	unknown bool
	bare    bool // it is its one column's own value
}

func (o *origin) add(p origin) {
	o.unknown = o.unknown || p.unknown
	if o.columns == nil {
		o.columns = make(map[columnID]bool, len(p.columns))
	}
	maps.Copy(o.columns, p.columns)
}

// viewReader reads one view's tree.
type viewReader struct {
	*snapshot
	left  int // steps that may still be taken
	cycle map[*node]bool
}

// maxViewSteps bounds the reading of one view.
const maxViewSteps = 1_000_000

// level is one query and those around it.
type level struct {
	query *node
	outer *level
}

func (l *level) up(n int) *level {
	for ; n > 0 && l != nil; n-- {
		l = l.outer
	}
	return l
}

// origins says what each column of a view derives from; nil if that cannot be
// told. It is worked out once for a snapshot.
func (s *snapshot) origins(view *relation) []origin {
	view.once.Do(func() {
		if len(view.definition) == 0 {
			return
		}
		tree, err := readTree(view.definition)
		if err != nil || len(tree.list) != 1 || tree.list[0].name != "QUERY" {
			return
		}
		r := &viewReader{snapshot: s, left: maxViewSteps, cycle: map[*node]bool{}}
		out := r.query(tree.list[0], nil)
		if r.left > 0 && len(out) == len(view.columns) {
			view.derives = out
		}
	})
	return view.derives
}

func unknownOrigin() origin { return origin{unknown: true} }

func (r *viewReader) spend() bool {
	r.left--
	return r.left > 0
}

// query returns the origins of a query's columns.
func (r *viewReader) query(q *node, outer *level) []origin {
	here := &level{q, outer}
	if kind, ok := q.number("commandType"); !r.spend() || !ok || kind != 1 {
		return nil
	}
	if ops := q.field("setOperations"); ops != nil && ops.name != "" {
		return r.setOperation(here)
	}
	var out []origin
	for _, t := range q.items("targetList") {
		if t.text("resjunk") != "false" {
			continue
		}
		out = append(out, r.expr(t.field("expr"), here))
	}
	return out
}

// setOperation is the union, by position, of all its branches.
func (r *viewReader) setOperation(here *level) []origin {
	var out []origin
	for _, rte := range here.query.items("rtable") {
		if kind, _ := rte.number("rtekind"); kind != 1 {
			continue
		}
		branch := r.query(rte.field("subquery"), here)
		if branch == nil || out != nil && len(branch) != len(out) {
			return nil
		}
		if out == nil {
			out = make([]origin, len(branch))
		}
		for i := range branch {
			out[i].add(branch[i])
		}
	}
	return out
}

// codeLabels are the fields that hold the OID of a function that a node calls.
var codeLabels = []string{"funcid", "opfuncid", "aggfnoid", "winfnoid", "hashfuncid", "negfuncid", "elemfuncid"}

// expr is what an expression derives from: everything that stands in it.
func (r *viewReader) expr(n *node, here *level) origin {
	if n == nil || n.word != "" {
		return origin{}
	}
	if !r.spend() {
		return unknownOrigin()
	}
	switch n.name {
	case "VAR":
		return r.variable(n, here)
	case "QUERY":
		return r.everything(n, here)
	}
	var out origin
	for _, label := range codeLabels {
		if id, ok := n.number(label); ok && id != 0 && !r.pureOID(uint32(id)) {
			out.unknown = true
		}
	}
	if n.name == "OPEXPR" || n.name == "SCALARARRAYOPEXPR" || n.name == "DISTINCTEXPR" || n.name == "NULLIFEXPR" || n.name == "ROWCOMPAREEXPR" {
		out.unknown = out.unknown || r.foreignCode
	}
	for _, f := range n.fields {
		out.add(r.expr(f, here))
	}
	for _, item := range n.list {
		out.add(r.expr(item, here))
	}
	return out
}

// everything is what the answer of a query in an expression may tell: what it
// yields and what it compares.
func (r *viewReader) everything(q *node, outer *level) origin {
	here := &level{q, outer}
	var out origin
	for _, label := range []string{"targetList", "jointree", "havingQual", "limitOffset", "limitCount"} {
		out.add(r.expr(q.field(label), here))
	}
	if kind, ok := q.number("commandType"); !ok || kind != 1 {
		out.unknown = true
	}
	if ops := q.field("setOperations"); ops != nil && ops.name != "" {
		for _, col := range r.setOperation(here) {
			out.add(col)
		}
	}
	for _, rte := range q.items("rtable") { // a derived table may have narrowed the rows by anything
		switch kind, _ := rte.number("rtekind"); kind {
		case 1:
			out.add(r.everything(rte.field("subquery"), here))
		case 3:
			out.add(r.expr(rte.field("functions"), here))
		}
	}
	return out
}

func (r *viewReader) variable(v *node, here *level) origin {
	no, ok1 := v.number("varno")
	att, ok2 := v.number("varattno")
	up, ok3 := v.number("varlevelsup")
	at := here.up(up)
	if !ok1 || !ok2 || !ok3 || at == nil {
		return unknownOrigin()
	}
	rtable := at.query.items("rtable")
	if no < 1 || no > len(rtable) {
		return unknownOrigin()
	}
	return r.entry(rtable[no-1], att, at)
}

// entry is column att of a range table entry, 0 for the whole row. The kinds
// are those of RTEKind in parsenodes.h.
func (r *viewReader) entry(rte *node, att int, at *level) origin {
	kind, ok := rte.number("rtekind")
	if !ok {
		return unknownOrigin()
	}
	switch kind {
	case 0: // relation
		id, ok := rte.number("relid")
		if !ok || id == 0 {
			return unknownOrigin()
		}
		if att < 0 {
			return origin{}
		}
		return origin{columns: map[columnID]bool{{uint32(id), int16(att)}: true}, bare: att > 0}
	case 1: // subquery
		return pick(r.query(rte.field("subquery"), at), att)
	case 2: // join
		return r.items(rte.items("joinaliasvars"), att, at)
	case 3: // function
		return derivedFrom(r.expr(rte.field("functions"), at))
	case 4: // XMLTABLE, JSON_TABLE
		return derivedFrom(r.expr(rte.field("tablefunc"), at))
	case 5: // VALUES
		return derivedFrom(r.expr(rte.field("values_lists"), at))
	case 6:
		return r.cte(rte, att, at)
	case 8:
		return origin{}
	case 9: // GROUP BY
		return r.items(rte.items("groupexprs"), att, at)
	}
	return unknownOrigin()
}

func derivedFrom(o origin) origin {
	o.bare = false
	return o
}

// items is expression att of a list, all of them for 0.
func (r *viewReader) items(list []*node, att int, at *level) origin {
	if att > 0 && att <= len(list) {
		return r.expr(list[att-1], at)
	}
	if att != 0 {
		return unknownOrigin()
	}
	var out origin
	for _, n := range list {
		out.add(r.expr(n, at))
	}
	return out
}

// pick is column att of a query, all of them for 0.
func pick(cols []origin, att int) origin {
	if cols == nil {
		return unknownOrigin()
	}
	if att > 0 && att <= len(cols) {
		return cols[att-1]
	}
	if att != 0 {
		return unknownOrigin()
	}
	var out origin
	for _, c := range cols {
		out.add(c)
	}
	return out
}

// cte is a column of a WITH query. Of a recursive one, each column may derive
// from all that stands in it.
func (r *viewReader) cte(rte *node, att int, at *level) origin {
	up, ok := rte.number("ctelevelsup")
	owner := at.up(up)
	if !ok || owner == nil {
		return unknownOrigin()
	}
	for _, c := range owner.query.items("cteList") {
		if c.text("ctename") != rte.text("ctename") {
			continue
		}
		q := c.field("ctequery")
		if c.text("cterecursive") == "false" {
			return pick(r.query(q, owner), att)
		}
		if r.cycle[c] {
			return origin{}
		}
		r.cycle[c] = true
		defer delete(r.cycle, c)
		return r.everything(q, owner)
	}
	return unknownOrigin()
}
