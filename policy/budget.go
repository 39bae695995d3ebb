package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
)

// Unit is what a budget counts.
type Unit string

const (
	UnitRows       Unit = "rows"       // rows of answers, as the target sends them
	UnitBytes      Unit = "bytes"      // bytes of those rows
	UnitStatements Unit = "statements" // statements that were let run
	UnitConstants  Unit = "constants"  // distinct constants that tagged columns were compared with
)

// Budget is how much of something one principal may have in any span of time,
// over all its sessions. Set.Decide says which budgets a statement is under;
// whoever puts the verdict into force counts.
type Budget struct {
	Rule   string        `json:"rule"` // id of the forbid that it cures
	Unit   Unit          `json:"unit"`
	Amount int64         `json:"amount"`
	Per    time.Duration `json:"per"` // ns
	Reason string        `json:"reason,omitempty"`

	asked *asked // of constants: which of them count; nil is all
}

// String is the budget in words: "1000 rows per hour".
func (b Budget) String() string {
	return fmt.Sprintf("%d %s per %s", b.Amount, b.Unit, periodName(b.Per))
}

// periods are the spans that a budget may be for.
var periods = []struct {
	name string
	span time.Duration
}{{"minute", time.Minute}, {"hour", time.Hour}, {"day", 24 * time.Hour}}

func periodName(d time.Duration) string {
	for _, p := range periods {
		if p.span == d {
			return p.name
		}
	}
	return Duration(d).String()
}

// byteUnits are multiples of bytes that @budget may be written in.
var byteUnits = []struct {
	name string
	size int64
}{{"bytes", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}}

// maxBudget keeps sums of budgets far from the end of int64.
const maxBudget = 1e15

// parseBudget reads "1000 rows per hour", "50 MB per day".
func parseBudget(s string) (Budget, error) {
	wrong := func(what string) (Budget, error) {
		return Budget{}, fmt.Errorf(`is %q: %s; write it as "1000 rows per hour" (rows, bytes, kB, MB, GB, statements or constants; per minute, hour or day)`, s, what)
	}
	words := strings.Fields(s)
	if len(words) != 4 || words[2] != "per" {
		return wrong("it is not a number, a unit, per and a time")
	}
	n, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil || n < 1 || n > maxBudget || strconv.FormatInt(n, 10) != words[0] {
		return wrong("the number is not from 1 to 10^15")
	}
	b := Budget{Amount: n}
	for _, p := range periods {
		if p.name == words[3] {
			b.Per = p.span
		}
	}
	if b.Per == 0 {
		return wrong("the time is not known")
	}
	for _, u := range byteUnits {
		if u.name != words[1] {
			continue
		}
		if b.Unit, b.Amount = UnitBytes, n*u.size; n > maxBudget/u.size {
			return wrong("it is too much")
		}
		return b, nil
	}
	b.Unit = Unit(words[1])
	if !slices.Contains([]Unit{UnitRows, UnitStatements, UnitConstants}, b.Unit) {
		return wrong("the unit is not known")
	}
	return b, nil
}

// left is what a request says is left of a rule's budget. What it says nothing
// of is whole.
func (r *Request) left(rule *rule) int64 {
	if n, ok := r.Left[rule.id]; ok {
		return n
	}
	return rule.budget.Amount
}

// meter evaluates a forbid with a budget: first as if there were none. If it
// fires then, the statement is under the budget, and the rule is cured while
// something is left.
func (q *question) meter(r *rule, with attr, req types.Request, f *fired) {
	var alone fired
	req.Context = q.context(with &^ attrBudget)
	q.authorize(candidates{r}, req, &alone, &alone.forbids)
	if alone.failed == nil && len(alone.forbids) > 0 {
		alone.forbids = nil
		q.budget, q.budgeted = q.request.left(r), true
		req.Context = q.context(with | attrBudget)
		q.budget, q.budgeted = 0, false
		q.authorize(candidates{r}, req, &alone, &alone.forbids)
		if alone.failed == nil && len(alone.forbids) == 0 {
			f.meters = append(f.meters, r)
		}
	}
	f.forbids = append(f.forbids, alone.forbids...)
	if f.failed == nil {
		f.failed, f.err = alone.failed, alone.err
	}
}

func budgets(rules []*rule) []Budget {
	var out []Budget
	for _, r := range rules {
		out = append(out, *r.budget)
	}
	return out
}

// exhausted is the denial of a statement whose budget is used up.
func (q *question) exhausted(r *rule, all []*rule) Verdict {
	v := Verdict{Rules: ids([]*rule{r}, all), Exhausted: r.budget, Reason: fmt.Sprintf("the budget of %s is used up", r.budget),
		Hint: "wait until it refills, or ask for less; see hoopctl explain " + q.request.Target.Name}
	if r.reason != "" {
		v.Reason += ": " + r.reason
	}
	return v
}
