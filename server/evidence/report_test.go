package evidence

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

var reportStart = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

// told numbers events and gives them times, a minute apart.
func told(events ...api.Event) []api.Event {
	for i := range events {
		events[i].V, events[i].Index, events[i].Node, events[i].Time = 1, uint64(i), "n1", reportStart.Add(time.Duration(i)*time.Minute)
	}
	return events
}

func clinicDay(evil string) []api.Event {
	return told(
		api.Event{Kind: api.EventLogin, Principal: "dev:u1", Name: "alice" + evil, Login: "l-1", Source: "10.0.0.7:4242"},
		api.Event{Kind: api.EventGrant, Principal: "dev:u1", Name: "alice", Target: "clinic", Grant: "g-1", Request: "r-1", Expires: reportStart.Add(time.Hour)},
		api.Event{Kind: api.EventApproval, Principal: "dev:u2", Name: "bob", Request: "r-1", Verdict: "allow", Rules: []string{"ask"}},
		api.Event{Kind: api.EventSessionOpen, Principal: "dev:u1", Name: "alice", Session: "s-1", Target: "clinic"},
		api.Event{Kind: api.EventStatement, Principal: "dev:u1", Session: "s-1", Sequence: 1, Statement: "select ssn from patients" + evil, Tags: []string{"phi"}, Verdict: "allow", Purpose: evil},
		api.Event{Kind: api.EventOutcome, Session: "s-1", Sequence: 1, Rows: 7, Masked: []api.MaskedColumn{{Column: "ssn" + evil, Method: "partial", Cells: 7}}},
		api.Event{Kind: api.EventStatement, Principal: "dev:u1", Session: "s-1", Sequence: 2, Statement: "drop table x", Verdict: "deny", Rules: []string{"no-ddl"}},
		api.Event{Kind: api.EventGap, Reason: "no space left on device" + evil, Attrs: map[string]string{"since": "2026-11-01T08:07:00Z"}},
		api.Event{Kind: api.EventGrantEnd, Principal: "dev:u1", Name: "alice", Target: "clinic", Grant: "g-1", Status: "revoked"},
		api.Event{Kind: api.EventResource, Principal: "dev:u9", Name: "erin", Object: "Policy/base", Digest: "sha256:00"},
	)
}

func hipaaOf(events []api.Event, since, until time.Time) *Compliance {
	h := NewHIPAA(since, until)
	for i := range events {
		h.Add(&events[i])
	}
	return h.Finish(&Report{Status: Intact, Origin: "hoopctl/n1", Proved: []string{"p"}, Unknown: []string{"<u>"}})
}

func TestHIPAAReport(t *testing.T) {
	events := clinicDay("")
	r := hipaaOf(events, time.Time{}, time.Time{})
	row := func(section, n int) Row { return r.Sections[section].Rows[n] }
	for _, c := range []struct {
		row  Row
		leaf uint64
		want string
	}{
		{row(hipaaUsers, 0), 0, "alice|dev:u1|1|1|2|1|1"},
		{row(hipaaGrants, 0), 1, "granted|alice|clinic|g-1|2026-11-01T09:00:00Z|r-1"},
		{row(hipaaGrants, 1), 8, "ended: revoked|alice|clinic|g-1"},
		{row(hipaaAnswers, 0), 2, "bob|approved|r-1|ask|no"},
		{row(hipaaAccess, 0), 4, "alice|clinic|s-1|select ssn from patients|phi|allow||7|ssn: 7 (partial)"},
		{row(hipaaDenied, 0), 6, "alice|clinic|drop table x|no-ddl"},
		{row(hipaaChanges, 0), 9, "erin|Policy/base"},
		{row(hipaaLogins, 0), 0, "login|alice|dev:u1|10.0.0.7:4242"},
		{row(hipaaIntegrity, 0), 7, "gap|no space left on device|since="},
	} {
		if text := strings.Join(c.row.Cells, "|"); !strings.Contains(text, c.want) || c.row.Leaf != c.leaf || c.row.LeafHash != hashOf(Leaf(&events[c.leaf])) {
			t.Errorf("leaf %d: %s, want leaf %d: %s", c.row.Leaf, text, c.leaf, c.want)
		}
	}
	late := hipaaOf(events, reportStart.Add(4*time.Minute), reportStart.Add(5*time.Minute))
	if s := late.Sections[hipaaAccess]; len(s.Rows) != 1 || s.Rows[0].Cells[1] != "alice" || s.Rows[0].Cells[2] != "clinic" {
		t.Errorf("what a period shows hangs on the session's beginning before it: %+v", s.Rows)
	}
	if len(late.Sections[hipaaLogins].Rows)+len(late.Sections[hipaaGrants].Rows)+len(late.Sections[hipaaDenied].Rows) != 0 {
		t.Error("the report shows what lies outside of its period")
	}
}

// TestT75_ReportsAreHarmless: what stands in the evidence is text in a report:
// no element or script of a page, no formula, no escape sequence.
func TestT75_ReportsAreHarmless(t *testing.T) {
	for _, evil := range []string{`<script>alert(1)</script><img src=x onerror=alert(1)>`, `"><a href="javascript:alert(1)">`, "\x1b]52;c;eA==\x07\u009b31m", "\u202egpj", `{{.Title}}`} {
		r := hipaaOf(clinicDay(evil), time.Time{}, time.Time{})
		var page, table, doc bytes.Buffer
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteCSV(&table); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteJSON(&doc); err != nil {
			t.Fatal(err)
		}
		for _, b := range []*bytes.Buffer{&page, &table, &doc} {
			if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && unsafe(r) }); i >= 0 {
				t.Errorf("%q leaves %q", evil, b.String()[max(0, i-20):i+10])
			}
		}
		checkPage(t, evil, page.Bytes())
	}
	for _, formula := range []string{`=HYPERLINK("http://x")`, "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"} {
		e := told(api.Event{Kind: api.EventLogin, Principal: formula, Name: formula})
		var table bytes.Buffer
		if err := hipaaOf(e, time.Time{}, time.Time{}).WriteCSV(&table); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&table).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			for _, cell := range row {
				if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
					t.Errorf("a spreadsheet calculates %q", cell)
				}
			}
		}
	}
}

// tag is what a browser takes for the beginning or end of an element, or a comment.
var tag = regexp.MustCompile(`<[a-zA-Z/!?][^>]*>?`)

// checkPage finds every tag of a page: those of the report alone.
func checkPage(t *testing.T, evil string, page []byte) {
	for _, found := range tag.FindAllString(string(page), -1) {
		if !ownTag.MatchString(found) {
			t.Errorf("%q made %s", evil, found)
		}
	}
}

var ownTag = regexp.MustCompile(`^</?(html( lang="en")?|head|meta [A-Za-z0-9 ="',;-]+|title|style|body|h1|h2|p|dl|dt|dd|ul|li|table|caption|thead|tbody|tr|td( class="leaf")?|th( scope="col")?|code|span( class="status intact")?)>$|^<!doctype html>$`)

func TestSampleCanBeDrawnAgain(t *testing.T) {
	draw := func(n int, seed string, events []api.Event) []uint64 {
		s := NewSampler(n, seed)
		for i := range events {
			s.Add(&events[i])
		}
		var out []uint64
		for _, e := range s.Events() {
			out = append(out, e.Index)
		}
		return out
	}
	var events []api.Event
	for i := range 2000 {
		events = append(events, api.Event{Kind: api.EventStatement, Statement: fmt.Sprint(i)})
	}
	told(events...)
	first := draw(25, "seed", events)
	backwards := slices.Clone(events)
	slices.Reverse(backwards)
	if len(first) != 25 || !slices.IsSorted(first) || !slices.Equal(first, draw(25, "seed", backwards)) {
		t.Errorf("%v", first)
	}
	if slices.Equal(first, draw(25, "other", events)) {
		t.Error("another seed draws the same")
	}
	if more := draw(50, "seed", events); !slices.ContainsFunc(more, func(i uint64) bool { return i == first[0] }) {
		t.Error("a larger sample does not hold the smaller one")
	}
	if all := draw(5000, "seed", events); len(all) != 2000 {
		t.Errorf("%d of 2000", len(all))
	}
}

func TestGrantsAt(t *testing.T) {
	events := told(
		api.Event{Kind: api.EventGrant, Grant: "g-1", Name: "alice", Expires: reportStart.Add(10 * time.Minute)},
		api.Event{Kind: api.EventGrant, Grant: "g-2", Name: "bob", Expires: reportStart.Add(time.Hour)},
		api.Event{Kind: api.EventGrantEnd, Grant: "g-2"},
		api.Event{Kind: api.EventGrant, Grant: "g-3", Name: "carol"},
	)
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{-time.Minute, ""}, {0, "g-1"}, {90 * time.Second, "g-1 g-2"}, {2 * time.Minute, "g-1"}, {5 * time.Minute, "g-1 g-3"}, {10 * time.Minute, "g-3"}, {24 * time.Hour, "g-3"}} {
		g := NewGrantsAt(reportStart.Add(c.after))
		for i := range events {
			g.Add(&events[i])
		}
		var names []string
		for _, e := range g.Grants() {
			names = append(names, e.Grant)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("after %s: %q, want %q", c.after, got, c.want)
		}
	}
}

// TestOCSFIsWhole: the line holds the leaf byte for byte, and its hash.
func TestOCSFIsWhole(t *testing.T) {
	for _, e := range clinicDay("é") {
		line, err := AppendOCSF(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			Class    int `json:"class_uid"`
			Type     int `json:"type_uid"`
			Activity int `json:"activity_id"`
			Category int `json:"category_uid"`
			Metadata struct{ UID, Version string }
			Unmapped struct {
				Hoopctl json.RawMessage
				Hash    string `json:"hoopctl_leaf_hash"`
			}
		}
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatal(err)
		}
		if o.Type != o.Class*100+o.Activity || o.Category != o.Class/1000 || o.Metadata.UID != fmt.Sprintf("hoopctl/n1/%d", e.Index) {
			t.Errorf("%s: %+v", e.Kind, o)
		}
		if string(o.Unmapped.Hoopctl) != string(Leaf(&e)) || o.Unmapped.Hash != hashOf(Leaf(&e)) {
			t.Errorf("%s: %s", e.Kind, o.Unmapped.Hoopctl)
		}
	}
}
