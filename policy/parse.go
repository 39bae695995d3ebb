package policy

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// APIVersion of the resources here.
const APIVersion = "hoopctl/v1"

// maxResourceBytes bounds one file of resources: far above any that people
// write, far below what would hurt to parse.
const maxResourceBytes = 8 << 20

// Problem is one thing wrong with a resource.
type Problem struct {
	File    string // as given to ParseResources
	Line    int    // 1-based; 0 unknown
	Field   string // spec.tls.mode, spec.columns[2].mask; "" for the document
	Message string
}

func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			b.WriteString(":" + strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems is all that is wrong, in the order of the files; as an error it is
// one line for each.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// err is p as an error, nil if there are none.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// ParseResources reads the resources of one file: YAML documents, JSON (which
// is YAML), or, if the name ends in .cedar, one Policy named after the file.
// It is strict: what it does not know is an error, never ignored, because a
// misspelt field of a rule would otherwise be a rule that does not exist.
//
// The error is [Problems]: everything wrong with the file, each with its line
// and field. No resource is returned beside an error. It reads nothing but
// content; file is for messages.
func ParseResources(file string, content []byte) ([]Resource, error) {
	if len(content) > maxResourceBytes {
		return nil, Problems{{File: file, Message: fmt.Sprintf("has %d bytes; the most is %d", len(content), maxResourceBytes)}}
	}
	if !utf8.Valid(content) {
		return nil, Problems{{File: file, Message: "is not UTF-8 text"}}
	}
	if strings.HasSuffix(file, ".cedar") {
		return parseCedarFile(file, content)
	}
	var resources []Resource
	var problems Problems
	dec := yaml.NewDecoder(bytes.NewReader(content))
	seen := map[string]int{}
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, append(problems, syntaxProblem(file, err))
		}
		if len(doc.Content) == 0 || isNull(doc.Content[0]) {
			continue // an empty document: a leading or trailing ---
		}
		d := decoder{file: file, lines: map[string]int{}}
		r := d.resource(doc.Content[0])
		if line, dup := seen[r.ID()]; dup && len(d.problems) == 0 {
			d.add(doc.Content[0].Line, "metadata.name", "%s is already defined on line %d", r.ID(), line)
		}
		seen[r.ID()] = doc.Content[0].Line
		problems = append(problems, d.problems...)
		resources = append(resources, r)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return resources, nil
}

// MarshalResources writes resources as YAML documents that ParseResources
// reads back as the same resources.
func MarshalResources(resources []Resource) ([]byte, error) {
	if len(resources) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for i := range resources {
		if resources[i].APIVersion == "" {
			resources = slices.Clone(resources)
			resources[i].APIVersion = APIVersion
		}
		if err := enc.Encode(resources[i]); err != nil {
			return nil, fmt.Errorf("write %s: %w", resources[i].ID(), err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write resources: %w", err)
	}
	return b.Bytes(), nil
}

func parseCedarFile(file string, content []byte) ([]Resource, error) {
	name := strings.TrimSuffix(path.Base(strings.ReplaceAll(file, `\`, "/")), ".cedar")
	d := decoder{file: file, lines: map[string]int{"metadata.name": 1, "spec.cedar": 1}}
	if hasControl(string(content)) {
		d.at("spec.cedar", "holds control characters")
	}
	r := Resource{APIVersion: APIVersion, Kind: KindPolicy, Metadata: Metadata{Name: name}, Origin: file + ":1",
		Spec: &PolicySpec{Cedar: string(content), Line: 1}}
	d.check(&r)
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	return []Resource{r}, nil
}

// syntaxProblem keeps the line of a YAML syntax error: "yaml: line 3: …".
func syntaxProblem(file string, err error) Problem {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{File: file}
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, after, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(n); err == nil {
				p.Line, msg = line, after
			}
		}
	}
	p.Message = "not valid YAML: " + msg
	return p
}

// newSpec returns the empty spec of a kind, nil if there is no such kind.
func newSpec(kind string) any {
	switch kind {
	case KindTarget:
		return new(TargetSpec)
	case KindClassification:
		return new(ClassificationSpec)
	case KindClearance:
		return new(ClearanceSpec)
	case KindGrantRule:
		return new(GrantRuleSpec)
	case KindService:
		return new(ServiceSpec)
	case KindPolicy:
		return new(PolicySpec)
	case KindException:
		return new(ExceptionSpec)
	case KindLegalHold:
		return new(LegalHoldSpec)
	}
	return nil
}

// Kinds are all kinds of resource, in the order in which people meet them.
func Kinds() []string {
	return []string{KindTarget, KindClassification, KindClearance, KindGrantRule, KindService, KindPolicy, KindException, KindLegalHold}
}

// decoder turns the nodes of one document into a Resource and remembers the
// line of each field. It is our own because yaml.v3's strict mode names Go
// types, not fields, stops at what it finds first, and turns 8 into "8".
type decoder struct {
	file     string
	lines    map[string]int
	problems Problems
	undone   int // of problems: those of fields that could not be decoded
}

func (d *decoder) add(line int, field, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Field: field, Message: fmt.Sprintf(format, args...)})
}

// at reports a problem with the value of a field, on the line of the field or
// of the nearest above it that was written. A field that could not be decoded
// has been reported; what its lack leads to is not another problem.
func (d *decoder) at(field, format string, args ...any) {
	for _, p := range d.problems[:d.undone] {
		if within(p.Field, field) || within(field, p.Field) {
			return
		}
	}
	line, f := 0, field
	for {
		if n, ok := d.lines[f]; ok {
			line = n
			break
		}
		i := strings.LastIndexAny(f, ".[")
		if i < 0 {
			line = d.lines[""]
			break
		}
		f = f[:i]
	}
	d.add(line, field, format, args...)
}

// within reports whether field is outer or stands in it.
func within(field, outer string) bool {
	rest, ok := strings.CutPrefix(field, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// head is a Resource before its kind is known.
type head struct {
	APIVersion string    `yaml:"apiVersion"`
	Kind       string    `yaml:"kind"`
	Metadata   Metadata  `yaml:"metadata"`
	Spec       yaml.Node `yaml:"spec"`
}

func (d *decoder) resource(n *yaml.Node) Resource {
	d.lines[""] = n.Line
	var h head
	d.value("", n, reflect.ValueOf(&h).Elem())
	r := Resource{APIVersion: h.APIVersion, Kind: h.Kind, Metadata: h.Metadata, Spec: newSpec(h.Kind), Origin: d.file + ":" + strconv.Itoa(n.Line)}
	if r.APIVersion == "" {
		r.APIVersion = APIVersion
	}
	if n.Kind != yaml.MappingNode {
		return r
	}
	switch {
	case r.APIVersion != APIVersion:
		d.at("apiVersion", "is %q; this version reads %s", r.APIVersion, APIVersion)
	case h.Kind == "":
		d.at("kind", "is missing; one of %s", strings.Join(Kinds(), ", "))
	case r.Spec == nil:
		d.at("kind", "unknown kind %q%s; one of %s", h.Kind, didYouMean(h.Kind, Kinds()), strings.Join(Kinds(), ", "))
	case h.Spec.Kind == 0 || isNull(&h.Spec):
		d.at("spec", "is missing")
	default:
		d.value("spec", &h.Spec, reflect.ValueOf(r.Spec).Elem())
		if p, ok := r.Spec.(*PolicySpec); ok {
			p.Line = cedarLine(&h.Spec)
		}
		d.undone = len(d.problems)
		d.check(&r)
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
	return r
}

// cedarLine is the line of the file on which the Cedar text of a Policy's spec
// begins: the one after the | of a block scalar.
func cedarLine(spec *yaml.Node) int {
	for i := 0; i+1 < len(spec.Content); i += 2 {
		if spec.Content[i].Value == "cedar" {
			v := spec.Content[i+1]
			if v.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
				return v.Line + 1
			}
			return v.Line
		}
	}
	return 0
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// value decodes n into v, which stands at field.
func (d *decoder) value(field string, n *yaml.Node, v reflect.Value) {
	d.lines[field] = n.Line
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		// An alias can stand for a billion laughs, and a reader of a rule
		// should see the rule.
		d.add(n.Line, field, "anchors and aliases are not supported; write it out")
		return
	}
	if raw, ok := v.Addr().Interface().(*yaml.Node); ok {
		*raw = *n
		return
	}
	if isNull(n) {
		return // as if it were not there
	}
	if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if n.Kind != yaml.ScalarNode {
			d.add(n.Line, field, "must be a single value, not %s", kindName(n))
		} else if err := t.UnmarshalText([]byte(n.Value)); err != nil {
			d.add(n.Line, field, "%s", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(field, n, v.Elem())
	case reflect.Struct:
		d.structure(field, n, v)
	case reflect.Map:
		d.mapping(field, n, v)
	case reflect.Slice:
		d.sequence(field, n, v)
	default:
		d.scalar(field, n, v)
	}
}

// entries calls each with every key and value of a mapping, once per key.
func (d *decoder) entries(field string, n *yaml.Node, each func(key *yaml.Node, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.add(n.Line, field, "must be a mapping of fields, not %s", kindName(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			d.add(k.Line, field, "a key must be a plain word")
			continue
		}
		if seen[k.Value] {
			d.add(k.Line, join(field, k.Value), "is given twice")
			continue
		}
		seen[k.Value] = true
		each(k, n.Content[i+1])
	}
}

func (d *decoder) structure(field string, n *yaml.Node, v reflect.Value) {
	names := fieldNames(v.Type())
	d.entries(field, n, func(k, val *yaml.Node) {
		i := slices.Index(names, k.Value)
		if i < 0 || k.Value == "-" {
			known := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == "-" })
			d.add(k.Line, join(field, k.Value), "unknown field%s; known are %s", didYouMean(k.Value, known), strings.Join(known, ", "))
			return
		}
		d.value(join(field, k.Value), val, v.Field(i))
	})
}

// fieldNames are the yaml names of a struct's fields, by index.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
	}
	return names
}

func (d *decoder) mapping(field string, n *yaml.Node, v reflect.Value) {
	m := reflect.MakeMap(v.Type())
	d.entries(field, n, func(k, val *yaml.Node) {
		e := reflect.New(v.Type().Elem()).Elem()
		if isNull(val) {
			d.add(val.Line, join(field, k.Value), "has no value")
		}
		d.value(join(field, k.Value), val, e)
		m.SetMapIndex(reflect.ValueOf(k.Value), e)
	})
	v.Set(m)
}

func (d *decoder) sequence(field string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.add(n.Line, field, "must be a list, not %s", kindName(n))
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := field + "[" + strconv.Itoa(i) + "]"
		if isNull(item) {
			d.add(item.Line, at, "has no value")
		}
		d.value(at, item, s.Index(i))
	}
	v.Set(s)
}

func (d *decoder) scalar(field string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.add(n.Line, field, "must be a single value, not %s", kindName(n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		// A bare date is text here; a bare number or true is more often a
		// mistake, and "010" and 1e3 would change on the way.
		if n.Tag != "!!str" && n.Tag != "!!timestamp" {
			d.add(n.Line, field, "must be text, not %s: quote it, as in %q", kindName(n), n.Value)
			return
		}
		if hasControl(n.Value) {
			d.add(n.Line, field, "holds control characters")
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		b, err := strconv.ParseBool(n.Value)
		if n.Tag != "!!bool" || err != nil {
			d.add(n.Line, field, "must be true or false, not %s", kindName(n))
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if n.Tag != "!!int" || err != nil || v.OverflowInt(i) {
			d.add(n.Line, field, "must be a whole number, not %s", kindName(n))
			return
		}
		v.SetInt(i)
	default:
		d.add(n.Line, field, "cannot hold a value")
	}
}

// hasControl reports characters that would act on a terminal instead of being
// shown: what is written here is printed to the people whom it is about.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' || r == utf8.RuneError
	})
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// kindName says what a node is, in words.
func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the truth value " + n.Value
	case "!!null":
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

// didYouMean is " (did you mean X?)" for a known word close to the one given, "" if none is.
func didYouMean(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}

// nearest returns the known word that differs from word by case, or by one
// edit (two in words of eight letters and more), "" if none does.
func nearest(word string, known []string) string {
	most := 1
	if len(word) >= 8 {
		most = 2
	}
	best, distance := "", most+1
	for _, k := range known {
		if strings.EqualFold(k, word) {
			return k
		}
		if abs(len(k)-len(word)) > most {
			continue
		}
		if d := edits(word, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// edits is the optimal string alignment distance of two words, in bytes.
func edits(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
