package policy

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// day is a day's records of alice and of a service's job.
func day() []Recorded {
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	fp := func(c string) string { return "fp-" + strings.Repeat(c, 32) }
	read := ask(Read, Facts{Kind: "SELECT", Tables: []string{"public.visits"}, Columns: []string{"public.patients.ssn"}, Fingerprint: fp("1"), Shape: "select ssn", LiteralFree: true})
	update := ask(Write, Facts{Kind: "UPDATE", Fingerprint: fp("2"), Shape: "update visits", LiteralFree: true})
	do := ask(Write, Facts{Kind: "DO", HasWhere: true, Fingerprint: fp("3"), Shape: "do ?"})
	commit := ask(Read, Facts{Kind: "COMMIT", Transaction: "commit", Fingerprint: fp("4"), LiteralFree: true})
	grant := Request{Principal: alice(), Action: Connect, Target: clinicRef(), Via: "api"}
	mallory := read
	mallory.Principal = Principal{Kind: User, Issuer: "test", Subject: "mallory", Name: "mallory"}
	return []Recorded{
		{Request: grant, Ref: "g-1", Time: at(8), Verdict: Allow},
		{Request: read, Ref: "s-1#1", Time: at(9), Verdict: Allow, Rules: []string{"old"}},
		{Request: update, Ref: "s-1#2", Time: at(10), Verdict: Allow, Rules: []string{"old"}},
		{Request: read, Ref: "s-1#3", Time: at(11), Verdict: Allow},
		{Request: update, Ref: "s-1#4", Time: at(12), Verdict: Allow},
		{Request: do, Ref: "s-1#5", Time: at(13), Verdict: Allow},
		{Request: commit, Ref: "s-1#6", Time: at(14), Verdict: Allow},
		{Request: mallory, Ref: "s-2#1", Time: at(15), Verdict: Allow},
		{Request: read, Ref: "s-3#1", Time: at(16), Verdict: Deny},
	}
}

func TestReplay(t *testing.T) {
	changed, n := clinicSet(t).Replay(slices.Values(day()))
	if n != 9 || len(changed) != 3 {
		t.Fatalf("%d records, %+v", n, changed)
	}
	c := changed[0]
	if c.Ref != "s-1#2" || c.Times != 2 || c.Was != "allow" || c.Now != "review" || c.NowRules[0] != "no-where" || c.WasRules[0] != "old" || c.Statement != "update visits" {
		t.Errorf("%+v", c)
	}
	if changed[1].Principal != "test:mallory" || changed[1].Now != "deny" || changed[2].Was != "deny" || changed[2].Now != "allow" {
		t.Errorf("%+v", changed[1:])
	}
}

func TestLearn(t *testing.T) {
	uses := Learn(slices.Values(day()))
	if len(uses) != 3 {
		t.Fatalf("%+v", uses)
	}
	if u := uses[0]; u.Shape != "select ssn" || u.Times != 3 || u.First.Hour() != 9 || u.Last.Hour() != 15 || u.Unlisted != "" {
		t.Errorf("%+v", u)
	}
	if u := uses[2]; u.Shape != "do ?" || u.Unlisted == "" {
		t.Errorf("a statement whose literals matter is offered for the list: %+v", u)
	}
}

func TestObserve(t *testing.T) {
	o := clinicSet(t).Observe(slices.Values(day()))
	if len(o) != 2 || o[0].Name != "mallory" || o[0].Refused != 1 || len(o[0].Masked) != 0 {
		t.Fatalf("%+v", o)
	}
	if a := o[1]; a.Allowed != 6 || a.Held != 2 || a.Refused != 0 || !maps.Equal(a.Rules, map[string]int{"no-where": 2}) || !maps.Equal(a.Masked, map[string]int{"public.patients.ssn": 3}) {
		t.Errorf("%+v", a)
	}
}
