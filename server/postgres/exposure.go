package postgres

import (
	"bytes"
	"errors"
	"slices"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// outputs are the columns of an answer by their lineage, nil if they cannot be
// told apart.
func outputs(l *sql.Lineage) []policy.Output {
	if l.Open {
		return nil
	}
	out := make([]policy.Output, len(l.Columns))
	for i, c := range l.Columns {
		out[i] = policy.Output{Sources: c.Sources, Bare: c.Bare, Unknown: c.Unknown}
	}
	return out
}

// exposure is what a statement does with tagged columns besides showing them.
// It is never nil.
func (c *classified) exposure(l *sql.Lineage) *policy.Exposure {
	e := &policy.Exposure{Code: l.Leaks.Code}
	for _, p := range l.Predicates {
		if c.names[p.Column] {
			e.Compared = append(e.Compared, policy.Compared{Column: p.Column, Other: p.Other})
		}
	}
	for _, ref := range c.tagged(l.Leaks.Told) {
		e.Compared = append(e.Compared, policy.Compared{Column: ref, Other: true})
	}
	if l.Leaks.Unknown {
		e.Compared = append(e.Compared, policy.Compared{Other: true})
	}
	for _, w := range l.Writes {
		from := c.tagged(w.Sources)
		if len(from) == 0 && !w.Unknown || !w.Unknown && slices.Equal(from, c.shownAs(w.To)) && w.Bare {
			continue
		}
		e.Moved = append(e.Moved, policy.Moved{To: w.To, From: from, Unknown: w.Unknown})
	}
	for _, p := range l.Leaks.Passed {
		if from := c.tagged(p.Sources); len(from) > 0 || p.Unknown {
			e.Passed = append(e.Passed, policy.Passed{Function: p.Function, From: from, Unknown: p.Unknown})
		}
	}
	e.Overwritten = c.allShownAs(l.Leaks.Overwritten)
	e.Filled = c.allShownAs(l.Leaks.Filled)
	return e
}

// allShownAs are the tags of columns, each once.
func (c *classified) allShownAs(refs []policy.ColumnRef) []policy.ColumnRef {
	var out []policy.ColumnRef
	for _, ref := range refs {
		for _, t := range c.shownAs(ref) {
			if !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// comparisons are the tagged columns that a statement compares with constants.
type comparisons struct {
	all       []comparison
	arguments []sql.Constant // of an EXECUTE
	// Of a statement with literals among them: the text that they stand in. One
	// of the same shape compares with others.
	text string
	at   int
}

type comparison struct {
	column policy.ColumnRef
	equals []sql.Constant
}

func (c *classified) comparisons(l *sql.Lineage, s *said) comparisons {
	out := comparisons{arguments: l.Arguments}
	for _, p := range l.Predicates {
		if !c.names[p.Column] || len(p.Equals) == 0 {
			continue
		}
		out.all = append(out.all, comparison{p.Column, p.Equals})
		if slices.ContainsFunc(p.Equals, func(k sql.Constant) bool { return k.Param == 0 }) {
			out.text, out.at = s.text, s.at
		}
	}
	return out
}

// otherwise reports whether a statement of the same shape may compare with
// other literals.
func (c *comparisons) otherwise(s *said) bool {
	return c.text != "" && (c.text != s.text || c.at != s.at)
}

// with puts the arguments of an EXECUTE in the place of parameters.
func (c comparisons) with(arguments []sql.Constant) comparisons {
	out := comparisons{text: c.text, at: c.at}
	for _, one := range c.all {
		equals := slices.Clone(one.equals)
		for i, k := range equals {
			if k.Param > 0 && k.Param <= len(arguments) {
				equals[i] = arguments[k.Param-1]
				equals[i].Array = k.Array
			}
		}
		out.all = append(out.all, comparison{one.column, equals})
	}
	return out
}

var errComputed = errors.New("an argument of EXECUTE that is compared with a hidden column is computed")

// constants are the values that a statement compares tagged columns with, as
// [policy.Statement] has them; those of parameters that are not bound yet are
// left out. Where it cannot be told how many there are, that is an error.
func (c *comparisons) constants(params []policy.Param) ([][]byte, error) {
	var out [][]byte
	for _, one := range c.all {
		for _, k := range one.equals {
			if k.Param > len(params) {
				continue
			}
			values, err := valuesOf(k, params)
			if err != nil {
				return nil, err
			}
			for _, v := range values {
				if v != nil { // NULL equals nothing
					out = append(out, policy.Constant(one.column, v))
				}
			}
		}
	}
	return out, nil
}

func valuesOf(k sql.Constant, params []policy.Param) ([][]byte, error) {
	p := policy.Param{Value: []byte(k.Text)}
	switch {
	case k.Param < 0:
		return nil, errComputed
	case k.Param > 0:
		p = params[k.Param-1]
	}
	if !k.Array || p.Value == nil {
		return [][]byte{p.Value}, nil
	}
	return members(p)
}

func (c *classified) tagged(refs []policy.ColumnRef) []policy.ColumnRef {
	var out []policy.ColumnRef
	for _, ref := range refs {
		if c.names[ref] {
			out = append(out, ref)
		}
	}
	return out
}

// shownAs are the tags of a column that goes by its present name; column "*"
// is all of the table's.
func (c *classified) shownAs(ref policy.ColumnRef) []policy.ColumnRef {
	in := c.schemas[ref.Schema]
	if in == nil || in.relations[ref.Table] == nil {
		return nil
	}
	rel := in.relations[ref.Table]
	var out []policy.ColumnRef
	for _, col := range rel.columns {
		if col != nil && (ref.Column == "*" || ref.Column == col.name) {
			out = append(out, c.tagged(c.sources(rel, col.num).refs)...)
		}
	}
	return out
}

// agrees reports whether c and an earlier catalogue say the same of relations.
func (c *classified) agrees(earlier *classified, relations []uint32) bool {
	if c == earlier {
		return true
	}
	if c.database != earlier.database || c.foreignCode != earlier.foreignCode {
		return false
	}
	for _, id := range relations {
		if !sameRelation(c.relations[id], earlier.relations[id]) || !sameTags(c.tags[id], earlier.tags[id]) {
			return false
		}
	}
	return true
}

func sameRelation(a, b *relation) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.name == b.name && a.schema == b.schema && a.kind == b.kind && a.rewritten == b.rewritten && a.virtual == b.virtual &&
		bytes.Equal(a.definition, b.definition) &&
		slices.EqualFunc(a.columns, b.columns, func(x, y *column) bool { return (x == nil) == (y == nil) && (x == nil || x.name == y.name) })
}

func sameTags(a, b map[int16]*tagging) bool {
	if len(a) != len(b) {
		return false
	}
	for num, x := range a {
		y := b[num]
		if y == nil || x.derived != y.derived || x.unknown != y.unknown || !slices.Equal(x.sources, y.sources) {
			return false
		}
	}
	return true
}
