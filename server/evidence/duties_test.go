package evidence

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

func TestConflictsOfDuty(t *testing.T) {
	c := NewConflicts(time.Time{}, time.Time{})
	for _, e := range told(
		api.Event{Kind: api.EventRequest, Request: "r-1", Name: "alice"},
		api.Event{Kind: api.EventApproval, Request: "r-1", Name: "bob", Verdict: "allow"},
		api.Event{Kind: api.EventRequest, Request: "r-2", Name: "bob"},
		api.Event{Kind: api.EventApproval, Request: "r-2", Name: "alice", Verdict: "allow"},
		api.Event{Kind: api.EventRequest, Request: "r-3", Name: "carol"},
		api.Event{Kind: api.EventApproval, Request: "r-3", Name: "bob", Verdict: "allow"}, // nothing came back
		api.Event{Kind: api.EventResource, Name: "erin", Object: "Policy/x"},
		api.Event{Kind: api.EventStatement, Name: "erin"},
		api.Event{Kind: api.EventResource, Name: "frank", Object: "Policy/y"},
		api.Event{Kind: api.EventSessionOpen, Session: "s-9", Name: "erin"},
		api.Event{Kind: api.EventShredded, Session: "s-9", Name: "erin"},
	) {
		c.Add(&e)
	}
	var got []string
	for _, f := range c.Conflicts() {
		got = append(got, fmt.Sprintf("%v %s %d", f.People, f.What, f.Times))
	}
	want := []string{"[alice bob] approved each other's requests 2", "[erin] changed resources, and ran statements 1", "[erin] had the recording of their own session s-9 destroyed 1"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLeavers(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l := NewLeavers(now, 30*24*time.Hour)
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	for i, e := range []api.Event{
		{Kind: api.EventLogin, Principal: "dev:a", Time: ago(50)},
		{Kind: api.EventLogin, Principal: "dev:b", Time: ago(2)},
		{Kind: api.EventLogin, Principal: "dev:c", Time: ago(2)},
		{Kind: api.EventGrant, Principal: "dev:a", Name: "gone", Grant: "g-1", Time: ago(50)},
		{Kind: api.EventGrant, Principal: "dev:b", Name: "here", Grant: "g-2", Time: ago(2)},
		{Kind: api.EventGrant, Principal: "dev:c", Name: "out", Grant: "g-3", Time: ago(2)},
		{Kind: api.EventLogout, Principal: "dev:c", Time: ago(1)},
		{Kind: api.EventGrant, Principal: "dev:d", Name: "never", Grant: "g-4", Time: ago(1)},
	} {
		e.Index = uint64(i)
		l.Add(&e)
	}
	var got []string
	for _, x := range l.Leavers() {
		got = append(got, x.Grant.Name+": "+x.Why)
	}
	if s := strings.Join(got, ", "); s != "gone: not seen for 50 days, out: logged out last, never: never seen" {
		t.Error(s)
	}
}

func TestDisclosures(t *testing.T) {
	d := NewDisclosures(time.Time{}, time.Time{}, "phi")
	ask := func(who string, n uint64, columns ...string) api.Event {
		return api.Event{Kind: api.EventStatement, Principal: "dev:" + who, Name: who, Target: "clinic", Session: "s-" + who, Sequence: n, Verdict: "allow", Tags: []string{"phi"}, Columns: columns, Purpose: "TREAT"}
	}
	answer := func(who string, n uint64, rows int64, masked ...string) api.Event {
		e := api.Event{Kind: api.EventOutcome, Session: "s-" + who, Sequence: n, Rows: rows}
		for _, m := range masked {
			e.Masked = append(e.Masked, api.MaskedColumn{Source: m})
		}
		return e
	}
	for _, e := range told(
		ask("carol", 1, "public.patients.ssn"), answer("carol", 1, 3),
		ask("carol", 2, "public.patients.ssn", "public.patients.name"), answer("carol", 2, 4, "public.patients.ssn"),
		ask("alice", 1, "public.patients.ssn"), answer("alice", 1, 9, "public.patients.ssn"), // masked
		ask("bob", 1, "public.patients.ssn"), answer("bob", 1, 0), // nothing came
	) {
		d.Add(&e)
	}
	got := d.Disclosures()
	if len(got) != 1 || got[0].Name != "carol" || got[0].Statements != 2 || got[0].Unattributed != 7 || got[0].Purpose != "TREAT" {
		t.Errorf("%+v", got)
	}
}
