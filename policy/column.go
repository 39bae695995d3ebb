package policy

import (
	"fmt"
	"slices"
	"strings"
)

// tagging is what the classifications of a set say about one target.
type tagging struct {
	tags    []Tag // one for each column, sorted by name
	all     map[ColumnRef][]Tag
	columns map[string]bool // schema.table.column of those with a tag other than none
	tables  map[string]bool // their schema.table
	names   map[string]bool // their table, whatever the schema
	detect  []string        // entities to look for in text, sorted
}

// tagging merges the classifications that pick a target. A column keeps every
// tag that anyone gave it (none only if nobody gave it another), each tag its
// strongest method, and the strictest predicates of them all.
func (s *Set) tagging(t TargetRef) tagging {
	tg := tagging{all: map[ColumnRef][]Tag{}, columns: map[string]bool{}, tables: map[string]bool{}, names: map[string]bool{}}
	for i := range s.classes {
		if c := &s.classes[i]; c.spec.Targets.Matches(t) {
			if c.spec.Detect != nil {
				tg.detect = append(tg.detect, c.spec.Detect.Entities...)
			}
			for j, column := range c.columns {
				ct := &c.spec.Columns[j]
				tg.merge(Tag{Column: column, Tag: ct.Tag, Mask: ct.Mask, Classification: c.name, Predicates: c.spec.Predicates})
			}
		}
	}
	slices.Sort(tg.detect)
	tg.detect = slices.Compact(tg.detect)
	for column, tags := range tg.all {
		if len(tags) > 1 {
			tags = slices.DeleteFunc(tags, func(t Tag) bool { return t.Tag == "none" })
			tg.all[column] = tags
		}
		// The tag whose method shows least stands for the column.
		shown := tags[0]
		for _, t := range tags[1:] {
			shown.Predicates = stricterPredicates(shown.Predicates, t.Predicates)
			if methodRank(t.Mask) < methodRank(shown.Mask) {
				t.Predicates, shown = shown.Predicates, t
			}
		}
		tg.tags = append(tg.tags, shown)
		if shown.Tag != "none" {
			tg.columns[column.String()], tg.tables[column.Schema+"."+column.Table], tg.names[column.Table] = true, true, true
		}
	}
	slices.SortFunc(tg.tags, func(a, b Tag) int { return strings.Compare(a.Column.String(), b.Column.String()) })
	return tg
}

func (tg *tagging) merge(t Tag) {
	if t.Predicates == "" {
		t.Predicates = predicates[0]
	}
	if t.Tag != "none" {
		t.Mask = strongerMethod(t.Mask, t.Mask) // a method that is missing or unknown is redact
	}
	tags := tg.all[t.Column]
	i := slices.IndexFunc(tags, func(o Tag) bool { return o.Tag == t.Tag })
	if i < 0 {
		tg.all[t.Column] = append(tags, t)
		return
	}
	tags[i].Predicates = stricterPredicates(tags[i].Predicates, t.Predicates)
	if t.Tag != "none" && methodRank(t.Mask) < methodRank(tags[i].Mask) {
		tags[i].Mask, tags[i].Classification = t.Mask, t.Classification
	}
}

// stricterPredicates: deny before equality before allow.
func stricterPredicates(a, b string) string {
	for _, p := range []string{"deny", "equality"} {
		if a == p || b == p {
			return p
		}
	}
	return "allow"
}

// taggingOf is tagging, worked out once for the targets of the set.
func (s *Set) taggingOf(t *TargetRef) *tagging {
	if known := s.targets[t.Name]; known != nil && known.ref.same(t) {
		return &known.tagged
	}
	tg := s.tagging(*t)
	return &tg
}

// Tags are the classified columns of a target, one entry each, sorted by name,
// with what the strictest classification says; columns tagged none among them.
// The slice is shared and must not be changed.
func (s *Set) Tags(t TargetRef) []Tag {
	if s == nil {
		return nil
	}
	return s.taggingOf(&t).tags
}

// Detected is the tag of what the scanner finds. A target without any tagged
// column is scanned for whoever is not cleared for it; one with tags, for
// whoever is not cleared for all of them.
const Detected = "detected"

// Detect are the entities that the classifications of a target have looked for
// in text, sorted; empty if nothing is scanned. The slice is shared and must
// not be changed.
func (s *Set) Detect(t TargetRef) []string {
	if s == nil {
		return nil
	}
	return s.taggingOf(&t).detect
}

// Show decides how a tagged column is shown to the request's principal, for
// its purpose: it asks viewUnmasked for the tag and for every other tag that
// the set knows for that column. Only if all are allowed is it clear. Else the
// method is the strongest of the tags' own and of the @mask of each rule that
// forbade it; a method that is missing or unknown is redact. r.Column may be
// nil; tag.Column is what counts. The zero Showing hides.
func (s *Set) Show(r Request, tag Tag) Showing {
	hidden := Showing{Method: strongerMethod(tag.Mask, tag.Mask), Rule: RuleRequest, Tag: tag.Tag}
	if s == nil {
		return hidden
	}
	tags := s.taggingOf(&r.Target).all[tag.Column]
	if !slices.ContainsFunc(tags, func(t Tag) bool { return t.Tag == tag.Tag }) && (tag.Tag != "none" || len(tags) == 0) {
		tags = append(slices.Clone(tags), tag)
	}
	r.Action, r.Column = ViewUnmasked, &tag.Column
	q, refused := s.ask(&r)
	if q == nil {
		hidden.Rule = refused.Rules[0]
		return hidden
	}
	shown := Showing{Clear: true, Tag: tag.Tag}
	for _, t := range tags {
		sh := q.show(t)
		if !sh.Clear && (shown.Clear || methodRank(sh.Method) < methodRank(shown.Method)) {
			shown = sh
		}
	}
	return shown
}

// show asks viewUnmasked for one tag. A tag of none is shown: someone looked
// at the column and found it harmless.
func (q *question) show(t Tag) Showing {
	if t.Tag == "none" {
		return Showing{Clear: true, Tag: t.Tag}
	}
	q.columnTag(t.Column, t.Tag)
	f := q.evaluate()
	hidden := Showing{Method: strongerMethod(t.Mask, t.Mask), Tag: t.Tag}
	switch {
	case f.failed != nil:
		hidden.Method, hidden.Rule = "redact", f.failed.id
	case len(f.forbids) > 0:
		hidden.Rule = f.forbids[0].id
		for _, r := range f.forbids {
			if r.mask != "" {
				hidden.Method = strongerMethod(hidden.Method, r.mask)
			}
		}
	case len(f.permits) == 0:
		hidden.Rule = RuleDefault
	default:
		return Showing{Clear: true, Rule: f.permits[0].id, Tag: t.Tag}
	}
	return hidden
}

// constant are the attributes that stay the same for all that one principal
// does in one session.
const constant = attrPurpose | attrVia | attrMFA | attrSourceIP | attrPrincipal | attrResource

// SeesAll reports whether the request's principal is shown every tagged column
// of the target as it is, whatever it runs and whenever: then nothing has to be
// looked at for its sake. Of the request, the statement, the column and the time
// do not matter. A rule that reads one of these makes it false.
func (s *Set) SeesAll(r Request) bool {
	if s == nil {
		return false
	}
	all := s.taggingOf(&r.Target)
	r.Action, r.Statement, r.Approvals = ViewUnmasked, nil, nil
	tagged := false
	for column, tags := range all.all {
		for _, t := range tags {
			if t.Tag == "none" {
				continue
			}
			if tagged = true; !s.always(r, column, t) {
				return false
			}
		}
	}
	return tagged || len(all.detect) == 0 || s.always(r, ColumnRef{}, Tag{Tag: Detected})
}

func (s *Set) always(r Request, column ColumnRef, t Tag) bool {
	r.Column = &column
	q, _ := s.ask(&r)
	return q != nil && q.show(t).Clear && q.reads&^constant == 0
}

// decideView is Decide for viewUnmasked: Allow if the column is clear.
func (s *Set) decideView(r *Request) Verdict {
	if r.Column == nil {
		return deny(RuleRequest, "no column is named", "")
	}
	tags := s.taggingOf(&r.Target).all[*r.Column]
	if len(tags) == 0 {
		return Verdict{Effect: Allow, Reason: r.Column.String() + " is not tagged"}
	}
	sh := s.Show(*r, tags[0])
	v := Verdict{Rules: []string{sh.Rule}}
	if sh.Clear {
		v.Effect = Allow
		return v
	}
	v.Reason = fmt.Sprintf("%s is tagged %s and shown by method %s", r.Column, sh.Tag, sh.Method)
	v.Hint = "it is shown to those with a Clearance for tag " + sh.Tag
	return v
}

// Clearances are the tags that the principal's groups are cleared for, for a
// purpose; sorted. A Clearance that names purposes counts for these only.
func (s *Set) Clearances(p Principal, purpose string) []string {
	if s == nil {
		return nil
	}
	var tags []string
	for _, c := range s.clearances {
		if len(c.Purposes) > 0 && !slices.Contains(c.Purposes, purpose) {
			continue
		}
		if slices.ContainsFunc(c.Groups, p.In) {
			tags = append(tags, c.Tags...)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}
