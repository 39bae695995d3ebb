package evidence

import (
	"cmp"
	"container/heap"
	"crypto/sha256"
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// Compliance is a report for people: what the evidence of a period says to each
// requirement of a framework. It is made from events in the order of the log.
type Compliance struct {
	Framework string    `json:"framework"`
	Title     string    `json:"title"`
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Verified  *Report   `json:"verified"` // of the evidence that it rests on
	Sections  []Section `json:"sections"`
}

// Section is what the evidence says to one requirement.
type Section struct {
	Requirement string   `json:"requirement"`
	Title       string   `json:"title"`
	Says        string   `json:"says"` // what the rows are, and what they are not
	Columns     []string `json:"columns"`
	Rows        []Row    `json:"rows"`
}

// Row is one fact, and the leaf that it comes from. Cells are foreign text.
type Row struct {
	Cells    []string `json:"cells"`
	Leaf     uint64   `json:"leaf"`
	LeafHash string   `json:"leafHash,omitempty"` // RFC 6962, hex; none where the leaf holds what was no UTF-8
}

// Period says which time the report is about.
func (c *Compliance) Period() string {
	from, to := "the log's beginning", "the newest event"
	if !c.Since.IsZero() {
		from = stampOf(c.Since)
	}
	if !c.Until.IsZero() {
		to = stampOf(c.Until)
	}
	return "From " + from + " to " + to + ", in UTC."
}

func rowOf(e *api.Event, cells ...string) Row {
	return Row{Cells: cells, Leaf: e.Index, LeafHash: hashOf(Leaf(e))}
}

// Sections of the HIPAA report, in its order.
const (
	hipaaUsers = iota
	hipaaGrants
	hipaaAnswers
	hipaaAccess
	hipaaDenied
	hipaaChanges
	hipaaLogins
	hipaaIntegrity
	hipaaSections
)

// HIPAA gathers what the evidence says to 45 CFR 164.312 and 164.308(a)(1)(ii)(D).
// Events are added in the order of the log, from its beginning: what a period
// shows may hang on what came before it.
type HIPAA struct {
	report   Compliance
	who      map[string]string          // sessions' principals
	waiting  map[string]*pendingAccess  // statements on tagged data, by session and number
	people   map[string]*personActivity // by principal
	order    []string                   // of people
	sessions map[string]string          // sessions' targets
}

type pendingAccess struct {
	event api.Event
	row   int // in the section
}

type personActivity struct {
	first                              api.Event
	name                               string
	logins, sessions, statements, none int
	tagged                             int
}

// NewHIPAA begins a report on [since, until); zero is unbounded.
func NewHIPAA(since, until time.Time) *HIPAA {
	h := &HIPAA{who: map[string]string{}, waiting: map[string]*pendingAccess{}, people: map[string]*personActivity{}, sessions: map[string]string{}}
	h.report = Compliance{Framework: "hipaa", Title: "HIPAA Security Rule: technical safeguards, from the evidence", Since: since, Until: until, Sections: make([]Section, hipaaSections)}
	h.report.Sections = []Section{
		hipaaUsers: {Requirement: "164.312(a)(1), (a)(2)(i)", Title: "Access control: who acted, each under a name of their own",
			Says:    "Everybody who logged in, opened a session or was refused, with the identity of their provider. The leaf is their first in this period.",
			Columns: []string{"Name", "Identity", "Logins", "Sessions", "Statements", "Refused", "On tagged data"}},
		hipaaGrants: {Requirement: "164.312(a)(1), 164.308(a)(4)", Title: "Access granted and ended",
			Says:    "Every grant that was issued, ended or revoked.",
			Columns: []string{"Time", "What", "Name", "Target", "Grant", "Expires", "By request", "Rules"}},
		hipaaAnswers: {Requirement: "164.308(a)(4)(ii)(B)", Title: "Who approved or denied what",
			Says:    "Each answer of an approver. “Signed” means that the answer carries the signature of the approver's own login; the reason itself lies sealed in the recording.",
			Columns: []string{"Time", "Approver", "Answer", "Request", "Rules", "Signed"}},
		hipaaAccess: {Requirement: "164.312(b), 164.308(a)(1)(ii)(D)", Title: "Activity on data that is tagged",
			Says:    "Every statement that touched columns with a tag (such as phi), without its literals, and what the target answered. Counts of masked cells are asserted by the broker; the sealed recording holds what the client saw.",
			Columns: []string{"Time", "Name", "Target", "Session", "Statement", "Tags", "Verdict", "Approved by", "Rows", "Masked cells", "Purpose"}},
		hipaaDenied: {Requirement: "164.308(a)(1)(ii)(D)", Title: "What was refused",
			Says:    "Statements that a rule denied, and connections and calls that were refused before a session began.",
			Columns: []string{"Time", "Name", "Target", "What", "Rules", "Reason"}},
		hipaaChanges: {Requirement: "164.308(a)(1)(ii)(D), 164.316(b)", Title: "Changes of policies, targets and of the server itself",
			Says:    "Each change of a resource, with the digest of its new content and of the policy set that was in force, and each administrative act.",
			Columns: []string{"Time", "Name", "Object", "What", "Digest", "Approved by"}},
		hipaaLogins: {Requirement: "164.312(d)", Title: "Person or entity authentication",
			Says:    "Each login: the identity that the provider vouched for, where from, and the key that the login was bound to.",
			Columns: []string{"Time", "What", "Name", "Identity", "From", "Key"}},
		hipaaIntegrity: {Requirement: "164.312(b), (c)(1), (c)(2)", Title: "Whether recording was ever interrupted, and integrity",
			Says:    "Gaps (nothing was let through meanwhile), recoveries after a crash, and refusals by witnesses. Whether the evidence is whole stands at the head of this report.",
			Columns: []string{"Time", "What", "Reason", "Details"}},
	}
	return h
}

// Add takes the next event.
func (h *HIPAA) Add(e *api.Event) {
	if e.Kind == api.EventSessionOpen {
		h.who[e.Session], h.sessions[e.Session] = e.Name, e.Target
	}
	if e.Time.Before(h.report.Since) || !h.report.Until.IsZero() && !e.Time.Before(h.report.Until) {
		return
	}
	h.person(e)
	at := stampOf(e.Time)
	switch e.Kind {
	case api.EventGrant:
		expires := ""
		if !e.Expires.IsZero() {
			expires = stampOf(e.Expires)
		}
		h.add(hipaaGrants, e, at, "granted", e.Name, e.Target, e.Grant, expires, e.Request, strings.Join(e.Rules, ", "))
	case api.EventGrantEnd:
		h.add(hipaaGrants, e, at, "ended: "+strings.TrimSpace(e.Status+" "+e.Attrs["byName"]), e.Name, e.Target, e.Grant, "", e.Request, "")
	case api.EventApproval:
		answer, signed := "denied", "no"
		if e.Verdict == "allow" {
			answer = "approved"
		}
		if _, err := api.VerifyApproval(e); err == nil {
			signed = "yes"
		}
		h.add(hipaaAnswers, e, at, e.Name, answer, e.Request, strings.Join(e.Rules, ", "), signed)
	case api.EventStatement:
		h.statement(e, at)
	case api.EventOutcome:
		h.outcome(e)
	case api.EventRefused:
		h.add(hipaaDenied, e, at, e.Name, e.Target, "refused before a session ("+e.Via+")", "", e.Reason)
	case api.EventResource, api.EventAdmin:
		h.add(hipaaChanges, e, at, e.Name, e.Object, e.Kind+" "+e.Reason, e.Digest, approvers(e))
	case api.EventLogin, api.EventRenew, api.EventLogout:
		h.add(hipaaLogins, e, at, e.Kind, e.Name, e.Principal, e.Source, e.KeySHA256)
	case api.EventGap, api.EventRecovery, api.EventWitness:
		h.add(hipaaIntegrity, e, at, e.Kind, e.Reason, attrsText(e.Attrs))
	}
}

func (h *HIPAA) add(section int, e *api.Event, cells ...string) int {
	s := &h.report.Sections[section]
	s.Rows = append(s.Rows, rowOf(e, cells...))
	return len(s.Rows) - 1
}

func (h *HIPAA) person(e *api.Event) {
	switch e.Kind {
	case api.EventLogin, api.EventSessionOpen, api.EventStatement, api.EventRefused:
	default:
		return
	}
	if e.Principal == "" {
		return
	}
	p := h.people[e.Principal]
	if p == nil {
		p = &personActivity{first: *e}
		h.people[e.Principal] = p
		h.order = append(h.order, e.Principal)
	}
	if e.Name != "" {
		p.name = e.Name
	}
	switch {
	case e.Kind == api.EventLogin:
		p.logins++
	case e.Kind == api.EventSessionOpen:
		p.sessions++
	case e.Kind == api.EventRefused || e.Verdict == "deny":
		p.none++
	}
	if e.Kind == api.EventStatement {
		p.statements++
		if len(e.Tags) > 0 {
			p.tagged++
		}
	}
}

// statement notes one on tagged data; its outcome fills the row.
func (h *HIPAA) statement(e *api.Event, at string) {
	name, target := e.Name, e.Target
	if name == "" {
		name = h.who[e.Session]
	}
	if target == "" {
		target = h.sessions[e.Session]
	}
	if e.Verdict == "deny" {
		h.add(hipaaDenied, e, at, name, target, e.Statement, strings.Join(e.Rules, ", "), e.Reason)
	}
	if len(e.Tags) == 0 {
		return
	}
	verdict := e.Verdict
	if len(e.Rules) > 0 {
		verdict += " (" + strings.Join(e.Rules, ", ") + ")"
	}
	row := h.add(hipaaAccess, e, at, name, target, e.Session, e.Statement, strings.Join(e.Tags, ", "), verdict, approvers(e), "", "", e.Purpose)
	h.waiting[statementKey(e)] = &pendingAccess{event: *e, row: row}
}

func statementKey(e *api.Event) string { return e.Session + "/" + strconv.FormatUint(e.Sequence, 10) }

func (h *HIPAA) outcome(e *api.Event) {
	p := h.waiting[statementKey(e)]
	if p == nil {
		return
	}
	delete(h.waiting, statementKey(e))
	var masked []string
	for _, m := range e.Masked {
		masked = append(masked, fmt.Sprintf("%s: %d (%s)", m.Column, m.Cells, m.Method))
	}
	cells := h.report.Sections[hipaaAccess].Rows[p.row].Cells
	cells[8], cells[9] = strconv.FormatInt(e.Rows, 10), strings.Join(masked, ", ")
	if e.SQLState != "" {
		cells[8] = "error " + e.SQLState
	}
}

func approvers(e *api.Event) string {
	var by []string
	for _, a := range e.Approvals {
		by = append(by, fmt.Sprintf("%s (%s)", a.By, a.Request))
	}
	return strings.Join(by, ", ")
}

func attrsText(attrs map[string]string) string {
	var parts []string
	for k, v := range attrs {
		if k != attrChain && k != attrFrames {
			parts = append(parts, k+"="+v)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// Finish closes the report, which rests on evidence that was verified so.
func (h *HIPAA) Finish(verified *Report) *Compliance {
	for _, id := range h.order {
		p := h.people[id]
		h.add(hipaaUsers, &p.first, p.name, id, strconv.Itoa(p.logins), strconv.Itoa(p.sessions), strconv.Itoa(p.statements), strconv.Itoa(p.none), strconv.Itoa(p.tagged))
	}
	for i := range h.report.Sections {
		if h.report.Sections[i].Rows == nil {
			h.report.Sections[i].Rows = []Row{}
		}
	}
	h.report.Verified = verified
	return &h.report
}

//go:embed report.html
var reportPage string

// WriteHTML writes the report as one page that needs nothing else. It has no
// script, and the page forbids any.
func (c *Compliance) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{"text": visible, "stamp": stampOf}).Parse(reportPage)
	if err != nil {
		return err
	}
	return t.Execute(w, c)
}

// WriteJSON writes the report as one document.
func (c *Compliance) WriteJSON(w io.Writer) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(harmlessLines(b), '\n'))
	return err
}

// harmlessLines is harmless for JSON of several lines.
func harmlessLines(b []byte) []byte {
	var out []byte
	for i, line := range strings.Split(string(b), "\n") {
		if i > 0 {
			out = append(out, '\n')
		}
		out = append(out, harmless([]byte(line))...)
	}
	return out
}

// WriteCSV writes the report's rows, one table after another in one shape:
// requirement, section, leaf, its hash, then the row's cells as "Column: text".
func (c *Compliance) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.Write([]string{"requirement", "section", "leaf", "leafHash", "column", "value"})
	for _, s := range c.Sections {
		for _, r := range s.Rows {
			for i, cell := range r.Cells {
				out.Write([]string{s.Requirement, s.Title, strconv.FormatUint(r.Leaf, 10), r.LeafHash, s.Columns[i], cellText(cell)})
			}
		}
	}
	out.Flush()
	return out.Error()
}

// cellText keeps a spreadsheet from taking text for a formula, and shows what
// cannot be seen.
func cellText(s string) string {
	s = visible(s)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}

// visible shows control characters and what reorders text as escapes.
func visible(s string) string {
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafe(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Sampler draws a sample of events that anybody can draw again: those whose
// SHA-256(seed ‖ 0 ‖ leaf) is smallest. Neither the order nor the number of events
// helps whoever would like a certain one in it, or not, if the seed is chosen
// after they were recorded.
type Sampler struct {
	n    int
	seed string
	heap samples
}

type sampled struct {
	rank  [sha256.Size]byte
	event api.Event
}

// samples is a heap with the largest rank first.
type samples []sampled

func (s samples) Len() int           { return len(s) }
func (s samples) Less(i, j int) bool { return string(s[i].rank[:]) > string(s[j].rank[:]) }
func (s samples) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *samples) Push(x any)        { *s = append(*s, x.(sampled)) }
func (s *samples) Pop() any          { old := *s; x := old[len(old)-1]; *s = old[:len(old)-1]; return x }

// NewSampler draws n events by a seed.
func NewSampler(n int, seed string) *Sampler { return &Sampler{n: n, seed: seed} }

// Add offers an event.
func (s *Sampler) Add(e *api.Event) {
	h := sha256.New()
	io.WriteString(h, s.seed+"\x00")
	h.Write(Leaf(e))
	x := sampled{event: *e}
	h.Sum(x.rank[:0])
	heap.Push(&s.heap, x)
	if len(s.heap) > s.n {
		heap.Pop(&s.heap)
	}
}

// Events are those drawn, in the order of the log.
func (s *Sampler) Events() []api.Event {
	out := make([]api.Event, len(s.heap))
	for i, x := range s.heap {
		out[i] = x.event
	}
	slices.SortFunc(out, func(a, b api.Event) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

// GrantsAt gathers the grants that were in force at a time: issued before it, and
// neither expired nor ended by then.
type GrantsAt struct {
	at   time.Time
	open map[string]api.Event
}

// NewGrantsAt asks for the grants in force at a time.
func NewGrantsAt(at time.Time) *GrantsAt { return &GrantsAt{at: at, open: map[string]api.Event{}} }

// Add takes the next event of the log.
func (g *GrantsAt) Add(e *api.Event) {
	switch {
	case e.Time.After(g.at):
	case e.Kind == api.EventGrant:
		g.open[e.Grant] = *e
	case e.Kind == api.EventGrantEnd:
		delete(g.open, e.Grant)
	}
}

// Grants are those in force, in the order of their issue.
func (g *GrantsAt) Grants() []api.Event {
	var out []api.Event
	for _, e := range g.open {
		if e.Expires.IsZero() || e.Expires.After(g.at) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b api.Event) int { return cmp.Compare(a.Index, b.Index) })
	return out
}
