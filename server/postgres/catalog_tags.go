package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
	"github.com/hoopctl/hoopctl/server/session"
)

// classified is a snapshot under a set of tags: each tag bound to columns by
// OID and attribute number, spread over partitions, inheritance and generated
// columns. It is immutable and shared.
type classified struct {
	*snapshot
	tags  map[uint32]map[int16]*tagging
	names map[policy.ColumnRef]bool // the tags' own, those of none left out
}

// tagging says what is to be held back of one column.
type tagging struct {
	sources []policy.ColumnRef // the tags' own names, sorted
	derived bool               // it is computed from them, not one of them
	unknown bool               // it is new and nobody has classified it
}

// hidden reports what is held back of a column, nil if nothing.
func (c *classified) hidden(rel uint32, num int16) *tagging { return c.tags[rel][num] }

// under binds tags to s. Bindings and first readings are remembered, so that
// neither a rename nor a restart makes a tagged or a new column look harmless.
func (c *catalog) under(ctx context.Context, s *snapshot, tags []policy.Tag) (*classified, error) {
	digest := tagsDigest(tags)
	c.mu.Lock()
	if c.last == s && c.bound[digest] != nil {
		defer c.mu.Unlock()
		return c.share(tags, c.bound[digest]), nil
	}
	c.mu.Unlock()

	b, err := c.learned(ctx, s, tags)
	if err != nil {
		return nil, err
	}
	made := b.classify(s, tags)
	c.mu.Lock()
	if c.last == s {
		c.bound[digest] = c.share(tags, made)
	}
	c.mu.Unlock()
	return made, nil
}

func tagsDigest(tags []policy.Tag) string {
	h := sha256.New()
	for i := range tags {
		t := &tags[i]
		fmt.Fprintf(h, "%q %q %q %q %q\n", t.Column.Schema, t.Column.Table, t.Column.Column, t.Tag, t.Classification)
	}
	return string(h.Sum(nil))
}

// baseline is what must outlive a snapshot. It is of one database of one
// cluster; one made anew starts an empty baseline.
type baseline struct {
	System   string `json:"system,omitempty"`
	Database uint32 `json:"database"`
	// First holds, per classification and relation, the highest attribute
	// number at the first reading under it. Attribute numbers are never used
	// again, so that what is above it is new.
	First map[string]map[uint32]int16 `json:"first"`
	// Bound holds the columns that each tag's name has ever meant.
	Bound map[string][]columnID `json:"bound"`
}

type columnID struct {
	Relation uint32 `json:"relation"`
	Column   int16  `json:"column"`
}

func (c *catalog) baselineKey() string {
	return "catalog/" + strconv.Quote(c.key.target) + "/" + strconv.Quote(c.key.database)
}

// learned returns what is remembered of the database that s was read from,
// with what s and tags add to it, which is remembered first.
func (c *catalog) learned(ctx context.Context, s *snapshot, tags []policy.Tag) (*baseline, error) {
	c.remembering.Lock()
	defer c.remembering.Unlock()
	if c.memory != nil {
		if b := c.memory.of(s); !b.learn(s, tags) {
			return b, nil
		}
	}
	var b *baseline
	learn := func(doc []byte) ([]byte, error) {
		stored := &baseline{}
		if doc != nil {
			if err := json.Unmarshal(doc, stored); err != nil {
				return nil, err
			}
		}
		b = stored.of(s)
		if !b.learn(s, tags) {
			return nil, nil
		}
		return json.Marshal(b)
	}
	if err := c.keep(ctx, learn); err != nil {
		return nil, fmt.Errorf("remember the catalogue of %s, database %s: %w", c.key.target, c.key.database, err)
	}
	c.memory = b
	return b, nil
}

func (c *catalog) keep(ctx context.Context, learn func([]byte) ([]byte, error)) error {
	if c.config.Baselines != nil {
		return c.config.Baselines.UpdateBaseline(ctx, c.baselineKey(), learn)
	}
	var doc []byte
	if c.memory != nil {
		var err error
		if doc, err = json.Marshal(c.memory); err != nil {
			return err
		}
	}
	_, err := learn(doc)
	return err
}

// of returns a copy of b for the database that s was read from: an empty one
// if b is of another.
func (b *baseline) of(s *snapshot) *baseline {
	made := &baseline{System: s.system, Database: s.database, First: map[string]map[uint32]int16{}, Bound: map[string][]columnID{}}
	if b.System != s.system || b.Database != s.database {
		return made
	}
	for k, v := range b.First {
		made.First[k] = maps.Clone(v)
	}
	for k, v := range b.Bound {
		made.Bound[k] = slices.Clone(v)
	}
	return made
}

// learn notes the first readings and bindings that s brings. It reports
// whether anything was new.
func (b *baseline) learn(s *snapshot, tags []policy.Tag) bool {
	changed := false
	for i := range tags {
		first := b.First[tags[i].Classification]
		if first == nil {
			first = map[uint32]int16{}
			b.First[tags[i].Classification] = first
		}
		if rel, col := s.find(tags[i].Column); col != nil {
			name, id := tags[i].Column.String(), columnID{rel.oid, col.num}
			if !slices.Contains(b.Bound[name], id) {
				b.Bound[name], changed = append(b.Bound[name], id), true
			}
		}
	}
	for _, first := range b.First {
		changed = s.firstReading(first) || changed
	}
	return changed
}

// firstReading adds the tables that first has not seen, and drops those that
// are gone. One with a higher OID than all that s knows is not gone: it was
// made after s was read, and another goroutine or server has seen it.
func (s *snapshot) firstReading(first map[uint32]int16) bool {
	changed := false
	newest := uint32(0)
	for id, rel := range s.relations {
		newest = max(newest, id)
		if _, seen := first[id]; !seen && rel.table() && !rel.builtIn() {
			first[id], changed = int16(len(rel.columns)), true
		}
	}
	for id := range first {
		if s.relations[id] == nil && id < newest {
			delete(first, id)
			changed = true
		}
	}
	return changed
}

// find returns the column that a tag's name means now.
func (s *snapshot) find(ref policy.ColumnRef) (*relation, *column) {
	in := s.schemas[ref.Schema]
	if in == nil || in.relations[ref.Table] == nil {
		return nil, nil
	}
	rel := in.relations[ref.Table]
	return rel, rel.named(ref.Column)
}

// table reports whether rel is an ordinary table: what its columns hold is
// stored under their own OID and number, and nothing is computed on the way out.
func (r *relation) table() bool { return r.kind == 'r' || r.kind == 'p' }

func (b *baseline) classify(s *snapshot, tags []policy.Tag) *classified {
	c := &classified{snapshot: s, tags: map[uint32]map[int16]*tagging{}, names: map[policy.ColumnRef]bool{}}
	looked := map[columnID]bool{}
	for i := range tags {
		if tags[i].Tag != "none" {
			c.names[tags[i].Column] = true
		}
		bound := b.Bound[tags[i].Column.String()]
		if len(bound) == 0 && tags[i].Tag != "none" {
			c.doubt(tags[i].Column)
		}
		for _, id := range bound {
			looked[id] = true
			if rel := s.relations[id.Relation]; rel != nil && rel.column(id.Column) != nil && tags[i].Tag != "none" {
				c.spread(rel, rel.column(id.Column), tags[i].Column)
			}
		}
	}
	for _, rel := range s.relations {
		c.markNew(rel, b.First, looked)
		c.markGenerated(rel)
	}
	return c
}

// doubt hides a table of which a tagged column was never seen: it may have been
// renamed before the first reading, so that any of them may be it.
func (c *classified) doubt(ref policy.ColumnRef) {
	in := c.schemas[ref.Schema]
	if in == nil || in.relations[ref.Table] == nil {
		return
	}
	rel := in.relations[ref.Table]
	for _, col := range rel.columns {
		if col == nil {
			continue
		}
		c.mark(rel, col.num).unknown = true
		for _, other := range slices.Concat(rel.descendants(), rel.ancestors()) {
			if same := other.named(col.name); same != nil {
				c.mark(other, same.num).unknown = true
			}
		}
	}
}

// spread tags a column, and the columns of the same name in every child (a
// partition holds its parent's values) and every parent (reading the parent
// reads the child). Siblings keep what is theirs.
func (c *classified) spread(rel *relation, col *column, ref policy.ColumnRef) {
	c.mark(rel, col.num).add(ref)
	for _, other := range slices.Concat(rel.descendants(), rel.ancestors()) {
		if same := other.named(col.name); same != nil {
			c.mark(other, same.num).add(ref)
		}
	}
}

func (c *classified) mark(rel *relation, num int16) *tagging {
	if c.tags[rel.oid] == nil {
		c.tags[rel.oid] = map[int16]*tagging{}
	}
	if c.tags[rel.oid][num] == nil {
		c.tags[rel.oid][num] = &tagging{}
	}
	return c.tags[rel.oid][num]
}

func (t *tagging) add(refs ...policy.ColumnRef) {
	for _, ref := range refs {
		if !slices.Contains(t.sources, ref) {
			t.sources = append(t.sources, ref)
		}
	}
	slices.SortFunc(t.sources, func(a, b policy.ColumnRef) int { return strings.Compare(a.String(), b.String()) })
}

// markNew hides the columns that were added after the first reading, until
// they are tagged or listed as none.
func (c *classified) markNew(rel *relation, first map[string]map[uint32]int16, looked map[columnID]bool) {
	for _, col := range rel.columns {
		if col == nil || looked[columnID{rel.oid, col.num}] {
			continue
		}
		for _, seen := range first {
			if highest, known := seen[rel.oid]; known && col.num > highest {
				c.mark(rel, col.num).unknown = true
				for _, up := range rel.ancestors() {
					if same := up.named(col.name); same != nil && !looked[columnID{up.oid, same.num}] {
						c.mark(up, same.num).unknown = true
					}
				}
			}
		}
	}
}

// markGenerated makes a column that is computed from tagged ones as secret as
// they are. A generated column cannot read another generated one.
func (c *classified) markGenerated(rel *relation) {
	for _, col := range rel.columns {
		if col == nil || !col.generated {
			continue
		}
		for _, from := range col.from {
			read := rel.columns[0:0:0]
			if from == 0 { // the whole row
				read = rel.columns
			} else if one := rel.column(from); one != nil {
				read = []*column{one}
			}
			for _, one := range read {
				if one == nil || one == col {
					continue
				}
				if t := c.hidden(rel.oid, one.num); t != nil {
					mine := c.mark(rel, col.num)
					mine.derived = mine.derived || len(mine.sources) == 0
					mine.unknown = mine.unknown || t.unknown
					mine.add(t.sources...)
				}
			}
		}
	}
}

// field is one column of a RowDescription.
type field struct {
	TableOID uint32
	Attnum   int16
	TypeOID  uint32
	Size     int16 // the type's, as RowDescription tells it
	Typmod   int32
	Format   int16
	Name     string
}

// result describes where rows come from.
type result struct {
	// facts are those of the statement that makes the rows, resolved by this
	// same catalogue: of a FETCH its DECLARE's, of an EXECUTE its PREPARE's.
	// nil if that is not known.
	facts *policy.Facts
	// outputs are where its columns come from, nil if that is not known.
	outputs []policy.Output
	// dirty is true while names or columns may mean something else in this
	// session than the catalogue says: it changed them and has not committed,
	// or it has temporary objects. Nothing is then proven.
	dirty bool
}

// known reports whether every table that the fields name is in the catalogue;
// if not, a fresher one may know it.
func (c *classified) known(fields []field) bool {
	for i := range fields {
		f := &fields[i]
		if f.TableOID == 0 {
			continue
		}
		rel := c.relations[f.TableOID]
		if rel == nil || f.Attnum > 0 && rel.column(f.Attnum) == nil {
			return false
		}
	}
	return true
}

// provenance says of each column of a result which tagged columns it shows.
// A column is proven only if
//
//   - its table OID and attribute number name a column of an ordinary table
//     (or of a harmless system relation): then its sources are that column's
//     tags, or the column itself; or
//   - the whole statement can reach no tagged column (see harmless).
//
// What is left (expressions, views, functions, new columns) is not proven, and
// hidden from those who are not cleared for all of the target's tags.
func (c *classified) provenance(fields []field, from result) []session.Column {
	columns := make([]session.Column, len(fields))
	harmless := !from.dirty && c.harmless(from.facts, fields)
	for i := range fields {
		f := &fields[i]
		col := &columns[i]
		col.Name = f.Name
		col.Type = mask.Type{OID: f.TypeOID, Typmod: f.Typmod, Binary: f.Format == 1, Name: c.typeName(f.TypeOID)}
		col.Why = "unknown"
		switch {
		case from.dirty:
		case f.TableOID != 0 && c.identify(f, col):
			col.Why = "identity"
			if !agree(col, from.outputs, i, len(fields)) {
				*col = session.Column{Name: f.Name, Type: col.Type, Why: "identity and lineage disagree"}
			}
		case len(from.outputs) == len(fields) && !from.outputs[i].Unknown:
			col.Proven, col.Why = true, "lineage"
			col.Sources, col.Bare = from.outputs[i].Sources, from.outputs[i].Bare
		case harmless:
			col.Proven, col.Why = true, "lineage"
		}
	}
	return columns
}

// agree reports whether what the target says of a column, and what its text
// says, are the same; where the text says nothing, they are.
func agree(col *session.Column, outputs []policy.Output, i, n int) bool {
	if len(outputs) != n || outputs[i].Unknown {
		return true
	}
	return !slices.ContainsFunc(col.Sources, func(c policy.ColumnRef) bool { return !slices.Contains(outputs[i].Sources, c) })
}

// identify fills col if f names a column of an ordinary table.
func (c *classified) identify(f *field, col *session.Column) bool {
	rel := c.relations[f.TableOID]
	if rel == nil {
		return false
	}
	if rel.builtIn() {
		col.Proven = systemHarmless(rel, f.Attnum)
		return col.Proven
	}
	if !rel.table() {
		return false
	}
	if f.Attnum < 0 { // ctid, xmin, tableoid: where a row lies, not what it says
		col.Proven = true
		return true
	}
	named := rel.column(f.Attnum)
	if named == nil {
		return false
	}
	t := c.hidden(rel.oid, f.Attnum)
	switch {
	case t == nil:
		col.Sources, col.Bare = []policy.ColumnRef{{Schema: rel.schema, Table: rel.name, Column: named.name}}, true
	case t.unknown:
		return false
	default:
		col.Sources, col.Bare = t.sources, !t.derived
	}
	col.Proven = true
	return true
}
