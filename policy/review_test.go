package policy

import (
	"testing"
	"time"
)

func TestReviewsAreToldAMonthAhead(t *testing.T) {
	set := mustCompile(t, `
kind: Service
metadata: {name: billing}
spec: {owner: erin, issuer: github, match: {sub: billing}, reviewBy: 2027-06-01}
---
kind: GrantRule
metadata: {name: reports}
spec: {groups: [engineers], targets: {names: [reports]}, standing: true, owner: bob, reviewBy: 2027-05-20, lapse: cut}
---
kind: GrantRule
metadata: {name: hourly}
spec: {groups: [engineers], targets: {names: [clinic]}}
`)
	for at, want := range map[string][]DueReview{
		"2027-04-01": nil,
		"2027-04-21": {{Object: "GrantRule/reports", Owner: "bob", Cut: true}},
		"2027-05-19": {{Object: "GrantRule/reports", Owner: "bob", Cut: true}, {Object: "Service/billing", Owner: "erin"}},
		"2027-06-01": {{Object: "GrantRule/reports", Owner: "bob", Cut: true, Lapsed: true}, {Object: "Service/billing", Owner: "erin", Lapsed: true}},
	} {
		now, _ := ParseDate(at)
		got := set.Reviews(now)
		if len(got) != len(want) {
			t.Errorf("%s: %+v", at, got)
			continue
		}
		for i := range want {
			got[i].By = time.Time{}
			if got[i] != want[i] {
				t.Errorf("%s: %+v, want %+v", at, got[i], want[i])
			}
		}
	}
}
