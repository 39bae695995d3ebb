package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The house's own rules for a principal from whom tagged columns of the target
// are hidden. They hold beside whatever the policies allow: masks on an answer
// are worth nothing if the value can leave by another way. Each can be cured
// only by people that a policy names: a forbid of the same id without "house:"
// and with @approve lends it its question.
const (
	RuleMaskCode      = "house:mask-code"      // it runs, or makes, code whose work cannot be seen
	RuleMaskFunction  = "house:mask-function"  // it hands a value to code that may keep or show it
	RuleMaskPredicate = "house:mask-predicate" // which rows there are, or whether it fails, tells a value
	RuleMaskMove      = "house:mask-move"      // it moves a value to where it is not hidden
	RuleMaskWriteback = "house:mask-writeback" // it overwrites what is seen masked
	RuleMaskCursor    = "house:mask-cursor"    // it fetches from a cursor whose query was not seen
	// RuleMaskConstants and the tag's name behind a colon: it asks whether one
	// more constant is among the values of a tag.
	RuleMaskConstants = "house:mask-constants"
)

// What a principal may ask of one tag by equality: so many distinct constants
// in any hour, over all its sessions. Each tells only whether a value is there;
// together they must not be a dictionary.
const (
	ConstantsPerTag = 20
	constantsPer    = time.Hour
)

// Exposure is what a statement does with the tagged columns of its target
// besides showing them. A protocol makes it with the target's catalogue at
// hand. Columns go by their tags' own names, whatever they are called now.
type Exposure struct {
	// Code says what runs or is made that no lineage can see through: "DO",
	// "CREATE FUNCTION", a function's name. "" is nothing.
	Code string `json:"code,omitempty"`
	// Cursor is a cursor that is read and whose query is not known.
	Cursor string `json:"cursor,omitempty"`
	// Compared are tagged columns that decide which rows there are, in which
	// order, which branch is taken, or whether the statement fails.
	Compared []Compared `json:"compared,omitempty"`
	// Moved are tagged values on their way into columns.
	Moved []Moved `json:"moved,omitempty"`
	// Passed are tagged values on their way into functions that may do more
	// than compute with them.
	Passed []Passed `json:"passed,omitempty"`
	// Overwritten are tagged columns that existing rows are given other values of.
	Overwritten []ColumnRef `json:"overwritten,omitempty"`
	// Filled are tagged columns that new rows are given values of: that a key is
	// taken tells that its value is there.
	Filled []ColumnRef `json:"filled,omitempty"`
}

// Empty reports whether nothing of the kind happens.
func (e *Exposure) Empty() bool {
	return e == nil || e.Code == "" && e.Cursor == "" && len(e.Compared)+len(e.Moved)+len(e.Passed)+len(e.Overwritten)+len(e.Filled) == 0
}

// Compared is one tagged column that decides something. Its zero Column is a
// value of unknown origin.
type Compared struct {
	Column ColumnRef `json:"column"`
	// Other is true if it decides otherwise than by equality with a constant.
	Other bool `json:"other,omitempty"`
}

// Moved is a value's way into a column.
type Moved struct {
	To      ColumnRef   `json:"to"`
	From    []ColumnRef `json:"from,omitempty"` // tagged columns
	Unknown bool        `json:"unknown,omitempty"`
}

// Passed is a value's way into a function.
type Passed struct {
	Function string      `json:"function"`
	From     []ColumnRef `json:"from,omitempty"` // tagged columns
	Unknown  bool        `json:"unknown,omitempty"`
}

// masking applies the house's rules to a verdict that is no denial yet.
func (q *question) masking(v Verdict) Verdict {
	r := q.request
	if v.Effect == Deny || r.Statement == nil || r.Statement.Exposure.Empty() {
		return v
	}
	sight := q.sight()
	found := sight.against(r.Statement.Exposure)
	v.Cacheable = v.Cacheable && !sight.volatile
	for _, b := range found {
		v = q.breach(v, b)
		if v.Effect == Deny {
			return v
		}
	}
	return q.constants(v, sight)
}

// constants puts a verdict under the budgets of the hidden tags that the
// statement asks by equality. One that is used up is a broken rule.
func (q *question) constants(v Verdict, s *sight) Verdict {
	for _, b := range s.budgets(q.request.Statement.Exposure) {
		left, told := q.request.Left[b.Rule]
		if !told || left > 0 {
			v.Meters = append(slices.Clip(v.Meters), b)
			continue
		}
		tag := strings.TrimPrefix(b.Rule, RuleMaskConstants+":")
		v = q.breach(v, breach{b.Rule, fmt.Sprintf("columns tagged %s were compared with %s by you: more would tell their values", tag, b),
			"something comes back as the first of them is an hour old, or " + askCleared})
		if v.Effect == Deny {
			v.Exhausted = &b
			return v
		}
	}
	return v
}

// asked is what a statement asks of a tag by equality.
type asked struct {
	columns []ColumnRef // that it compares with constants
	fills   bool        // it gives new rows values of such a column
}

// budgets are those of the hidden tags that a statement asks by equality.
func (s *sight) budgets(e *Exposure) []Budget {
	var out []Budget
	ask := func(c ColumnRef) int {
		t := s.tag(c)
		if t.Predicates == "allow" || !s.hidden(c) {
			return -1
		}
		rule := RuleMaskConstants + ":" + t.Tag
		i := slices.IndexFunc(out, func(b Budget) bool { return b.Rule == rule })
		if i < 0 {
			i, out = len(out), append(out, Budget{Rule: rule, Unit: UnitConstants, Amount: ConstantsPerTag, Per: constantsPer, asked: &asked{}})
		}
		return i
	}
	for _, c := range e.Compared {
		if c.Column == (ColumnRef{}) || c.Other {
			continue
		}
		if i := ask(c.Column); i >= 0 {
			out[i].asked.columns = append(out[i].asked.columns, c.Column)
		}
	}
	for _, c := range e.Filled {
		if i := ask(c); i >= 0 {
			out[i].asked.fills = true
		}
	}
	return out
}

// Of are those among a statement's Constants that count for the budget.
func (b Budget) Of(constants [][]byte) [][]byte {
	if b.asked == nil {
		return constants
	}
	return slices.DeleteFunc(slices.Clone(constants), func(c []byte) bool {
		name, _, _ := bytes.Cut(c, []byte{0})
		return !slices.ContainsFunc(b.asked.columns, func(col ColumnRef) bool { return col.String() == string(name) })
	})
}

// Fills reports whether a statement that fails because a key is taken, or is
// missing, has to count as well: by one, whatever the key.
func (b Budget) Fills() bool { return b.asked != nil && b.asked.fills }

// Constant is one of a statement's Constants: the column and the value as it
// came, a literal's text or a parameter's bytes.
func Constant(c ColumnRef, value []byte) []byte {
	return append([]byte(c.String()+"\x00"), value...)
}

// breach adds one broken rule to a verdict: a denial, unless a policy of the
// rule's name says who may be asked.
func (q *question) breach(v Verdict, b breach) Verdict {
	name, _, _ := strings.Cut(b.rule[len("house:"):], ":")
	own := q.set.byID[name]
	if own == nil || !own.forbid || own.approve == "" {
		return Verdict{Rules: append([]string{b.rule}, v.Rules...), Reason: b.reason, Hint: b.hint, Cacheable: v.Cacheable}
	}
	cure := own.cure()
	if slices.Contains(q.request.Approvals, cure.Approval()) {
		v.Cacheable = false
		return v
	}
	if !slices.ContainsFunc(v.Cures, func(c Cure) bool { return c.Rule == cure.Rule }) {
		v.Cures = append(slices.Clone(v.Cures), cure)
	}
	if v.Effect == Allow { // its row limit would let it start unasked
		v.Cures = []Cure{cure}
	}
	v.Effect, v.Rules, v.Reason, v.Hint, v.Cacheable = Review, append([]string{b.rule}, v.Rules...), b.reason, waits(v.Cures), false
	return v
}

// breach is one rule that a statement breaks, in words.
type breach struct{ rule, reason, hint string }

// sight is what a principal may see of a target's tagged columns.
type sight struct {
	set      *Set
	request  *Request
	known    map[ColumnRef]bool
	volatile bool // it depends on what differs from one run to the next
	all      *tagging
}

func (q *question) sight() *sight {
	return &sight{set: q.set, request: q.request, known: map[ColumnRef]bool{}, all: q.set.taggingOf(&q.request.Target)}
}

// hidden reports whether a column is kept from the principal.
func (s *sight) hidden(c ColumnRef) bool {
	if h, ok := s.known[c]; ok {
		return h
	}
	r := *s.request
	r.Action, r.Column, r.Statement = ViewUnmasked, &c, s.request.Statement
	h := true
	if q, _ := s.set.ask(&r); q != nil {
		tags := s.all.all[c]
		h = len(tags) == 0 || slices.ContainsFunc(tags, func(t Tag) bool { return !q.show(t).Clear })
		s.volatile = s.volatile || q.read != 0
	}
	s.known[c] = h
	return h
}

// any returns the first hidden tag of the target.
func (s *sight) any() (Tag, bool) {
	for _, t := range s.all.tags {
		if t.Tag != "none" && s.hidden(t.Column) {
			return t, true
		}
	}
	return Tag{}, false
}

// first returns the first hidden column of a list; unknown stands for any.
func (s *sight) first(list []ColumnRef, unknown bool) (Tag, bool) {
	for _, c := range list {
		if s.hidden(c) {
			return s.tag(c), true
		}
	}
	if unknown {
		if _, ok := s.any(); ok {
			return Tag{}, true
		}
	}
	return Tag{}, false
}

func (s *sight) tag(c ColumnRef) Tag {
	for _, t := range s.all.tags {
		if t.Column == c {
			return t
		}
	}
	return Tag{Column: c, Tag: "?"}
}

// what names a hidden value: "public.patients.ssn, which is tagged phi".
func what(t Tag) string {
	if t.Tag == "" {
		return "a value of unknown origin"
	}
	return fmt.Sprintf("%s, which is tagged %s and hidden from you,", t.Column, t.Tag)
}

func (s *sight) against(e *Exposure) []breach {
	var out []breach
	for _, rule := range []func(*Exposure) *breach{s.code, s.cursor, s.passed, s.moved, s.overwritten, s.compared} {
		if b := rule(e); b != nil {
			out = append(out, *b)
		}
	}
	return out
}

const askCleared = "somebody with a Clearance for the tag can run it"

func (s *sight) code(e *Exposure) *breach {
	if e.Code == "" {
		return nil
	}
	t, hidden := s.any()
	if !hidden {
		return nil
	}
	return &breach{RuleMaskCode, fmt.Sprintf("what %s does cannot be seen, on a target where columns tagged %s are hidden from you", e.Code, t.Tag), askCleared}
}

func (s *sight) cursor(e *Exposure) *breach {
	if e.Cursor == "" {
		return nil
	}
	if _, hidden := s.any(); !hidden {
		return nil
	}
	return &breach{RuleMaskCursor, fmt.Sprintf("the query of cursor %q was not seen, so what it yields cannot be masked", e.Cursor),
		"declare the cursor in this session, in a message of its own, or use SELECT"}
}

func (s *sight) passed(e *Exposure) *breach {
	for _, p := range e.Passed {
		if t, hidden := s.first(p.From, p.Unknown); hidden {
			return &breach{RuleMaskFunction, fmt.Sprintf("%s goes into %s, which may keep or show it", what(t), p.Function),
				"call it with constants or untagged columns, or " + askCleared}
		}
	}
	return nil
}

func (s *sight) moved(e *Exposure) *breach {
	for _, m := range e.Moved {
		if t, hidden := s.first(m.From, m.Unknown); hidden {
			return &breach{RuleMaskMove, fmt.Sprintf("%s would be written to %s, where it is not hidden", what(t), m.To),
				"leave the column out, or " + askCleared}
		}
	}
	return nil
}

func (s *sight) overwritten(e *Exposure) *breach {
	for _, c := range e.Overwritten {
		if s.hidden(c) {
			return &breach{RuleMaskWriteback, fmt.Sprintf("%s is hidden from you: setting it in existing rows would overwrite it with what you see, the mask", c),
				"leave the column out of the SET list, or " + askCleared}
		}
	}
	return nil
}

func (s *sight) compared(e *Exposure) *breach {
	for _, c := range e.Compared {
		if c.Column == (ColumnRef{}) {
			if t, hidden := s.any(); hidden && s.strictest() != "allow" {
				return &breach{RuleMaskPredicate, fmt.Sprintf("a value of unknown origin decides about rows, on a target where columns tagged %s are hidden from you", t.Tag),
					"use PostgreSQL's own functions over untagged columns, or " + askCleared}
			}
			continue
		}
		t := s.tag(c.Column)
		if t.Predicates == "allow" || t.Predicates == "equality" && !c.Other || !s.hidden(c.Column) {
			continue
		}
		hint := "compare it with constants only (column = constant, column IN (constants)), or " + askCleared
		if t.Predicates != "equality" {
			hint = "leave it out of WHERE, JOIN, ORDER BY and GROUP BY, or " + askCleared
		}
		return &breach{RuleMaskPredicate, fmt.Sprintf("%s decides about rows, about their order or about failing: the answer would tell it", what(t)), hint}
	}
	return nil
}

// strictest is the strictest of the hidden tags' predicates.
func (s *sight) strictest() string {
	out := "allow"
	for _, t := range s.all.tags {
		if t.Tag != "none" && s.hidden(t.Column) {
			out = stricterPredicates(out, t.Predicates)
		}
	}
	return out
}
