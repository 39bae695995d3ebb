package sql

import (
	"fmt"
	"slices"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// maxVisits bounds the nodes that one statement's analysis may visit. Nested
// recursive queries are visited again and again until nothing changes.
const maxVisits = 1_500_000

// analysis is one statement being read. Everything it does not understand
// makes it stricter; nothing makes it milder.
type analysis struct {
	catalog Catalog // nil: the text is all there is
	facts   *policy.Facts
	columns []baseColumn
	ids     map[baseColumn]int32

	readSet  marks // every column read
	testSet  marks // … by predicates
	looseSet marks // … otherwise than by equality with a constant
	tested   marks // predicates since the innermost sub-query in an expression began
	equals   map[int32][]Constant
	leaks    channels

	noted    map[noted]bool
	mentions map[policy.Relation]bool
	moved    []flow
	written  []writtenPart
	literal  bool // some fact depends on a literal's value
	odd      bool // something strange stood in it
	visits   int
	returns  rows // what the statement yields

	arguments  []Constant // of EXECUTE
	settingRow string     // the setting whose row of pg_settings is all that is being read
}

// relationName is a relation as the catalogue, or else the search for it, names it.
type relationName struct{ schema, name string }

func (r relationName) String() string { return r.schema + "." + r.name }

type baseColumn struct {
	rel  relationName
	name string // "*": the whole row
}

func (c baseColumn) String() string { return c.rel.String() + "." + c.name }

// analyse turns a parse tree into facts, one per statement. A text without a
// statement has the facts of an empty one.
func analyse(text string, tree *pg.ParseResult) ([]*policy.Facts, error) {
	if len(tree.GetStmts()) == 0 {
		return []*policy.Facts{empty(text)}, nil
	}
	out := make([]*policy.Facts, 0, len(tree.GetStmts()))
	for _, raw := range tree.GetStmts() {
		a, err := analyseOne(text, raw, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, a.facts)
	}
	return out, nil
}

func analyseOne(text string, raw *pg.RawStmt, c Catalog) (*analysis, error) {
	r, err := place(text, raw)
	if err != nil {
		return nil, err
	}
	a := newAnalysis(c)
	a.facts.Start, a.facts.End = r.Start, r.End
	a.statement(raw.GetStmt())
	if a.visits > maxVisits {
		return nil, &TooComplex{What: "steps of analysis", Limit: maxVisits, Position: chars(text, r.Start)}
	}
	a.finish(text[r.Start:r.End])
	return a, nil
}

func newAnalysis(c Catalog) *analysis {
	return &analysis{
		catalog: c, equals: make(map[int32][]Constant),
		facts: &policy.Facts{Unresolved: c == nil}, ids: make(map[baseColumn]int32),
		noted: make(map[noted]bool), mentions: make(map[policy.Relation]bool),
	}
}

func empty(text string) *policy.Facts {
	return &policy.Facts{Class: policy.Read, LiteralFree: true, Start: 0, End: len(text), Fingerprint: Fingerprint("")}
}

// place is where a statement stands, without the white space and comments
// that the grammar counts to it.
func place(text string, raw *pg.RawStmt) (Range, error) {
	start, end := int(raw.GetStmtLocation()), int(raw.GetStmtLocation()+raw.GetStmtLen())
	if raw.GetStmtLen() == 0 {
		end = len(text)
	}
	if start < 0 || end > len(text) || start > end {
		return Range{}, fmt.Errorf("place statement: grammar says bytes %d to %d of %d", start, end, len(text))
	}
	l := lexer{src: text[:end], pos: start}
	r := Range{Start: -1}
	for {
		t := l.next()
		if t.kind == kEOF {
			break
		}
		if r.Start < 0 {
			r.Start = t.start
		}
		r.End = t.end
	}
	if r.Start < 0 {
		return Range{}, fmt.Errorf("place statement: nothing at bytes %d to %d", start, end)
	}
	return r, nil
}

// spend counts a visit and reports whether there may be more.
func (a *analysis) spend() bool { return a.spends(1) }

// spends counts n visits, or n columns looked at.
func (a *analysis) spends(n int) bool {
	a.visits += n
	return a.visits <= maxVisits
}

func (a *analysis) raise(c policy.Class) {
	if a.facts.Class == "" {
		a.facts.Class = c
		return
	}
	a.facts.Class = policy.Stricter(a.facts.Class, c)
}

// strange is a form of the grammar that nobody has thought about yet.
func (a *analysis) strange(*pg.Node) {
	a.odd = true
	a.raise(policy.Admin)
	a.literal = true
}

func (a *analysis) reads(s set) {
	a.spends(len(s.ids))
	a.readSet.add(s)
}

func (a *analysis) tests(s set) {
	a.spends(len(s.ids))
	a.testSet.add(s)
	a.looseSet.add(s)
	a.tested.add(s)
}

// union is the union of sets, counted.
func (a *analysis) union(sets ...set) set {
	n := 0
	for _, s := range sets {
		n += len(s.ids)
	}
	if !a.spends(n) {
		return set{unknown: true}
	}
	return union(sets...)
}

// once notes a name in one of the facts' lists.
func (a *analysis) once(list *[]string, name string) {
	key := noted{list, name}
	if a.noted[key] {
		return
	}
	a.noted[key] = true
	*list = append(*list, name)
}

type noted struct {
	list *[]string
	name string
}

// command names the statement and its class, before its parts raise it.
func (a *analysis) command(name string, c policy.Class) {
	if a.facts.Command == "" {
		a.facts.Command = name
	}
	a.raise(c)
}

func (a *analysis) finish(statement string) {
	f := a.facts
	f.Kind = f.Command
	if n := len(a.written); n > 0 {
		f.Kind, f.HasWhere = a.worst()
	}
	f.Columns = a.names(a.readSet.set())
	f.PredicateColumns = a.names(a.testSet.set())
	slices.Sort(f.Tables)
	slices.Sort(f.WriteColumns)
	slices.Sort(f.Functions)
	f.LiteralFree = !a.literal
	f.Shape = Shape(statement)
	f.Fingerprint = Fingerprint(f.Shape)
	f.Class = policy.Stricter(f.Class, lexicalClass(statement))
}

// worst is the kind of a statement with several writing parts, and whether
// each UPDATE, DELETE and MERGE among them is narrowed: a policy that asks for
// a WHERE must see the one that lacks it, wherever it hides.
func (a *analysis) worst() (kind string, where bool) {
	where = true
	rank := func(p writtenPart) int {
		r := map[string]int{"DELETE": 4, "UPDATE": 3, "MERGE": 2, "INSERT": 1}[p.kind]
		if !p.where && p.kind != "INSERT" {
			r += 4
		}
		return r
	}
	best := 0
	for _, p := range a.written {
		if p.kind != "INSERT" && !p.where {
			where = false
		}
		if r := rank(p); r > best {
			best, kind = r, p.kind
		}
	}
	return kind, where && kind != "INSERT"
}

func (a *analysis) names(s set) []string {
	out := make([]string, 0, len(s.ids))
	for _, id := range s.ids {
		out = append(out, a.columns[id].String())
	}
	slices.Sort(out)
	return out
}

func itoa(n int) string { return strconv.Itoa(n) }
