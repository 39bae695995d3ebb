package api

import "time"

// Budget is what is left of a budget to one principal.
type Budget struct {
	Rule    string    `json:"rule"`
	Budget  string    `json:"budget"` // in words: "1000 rows per hour"
	Unit    string    `json:"unit"`   // rows | bytes | statements | constants
	Amount  int64     `json:"amount"`
	Left    int64     `json:"left"`
	Refills time.Time `json:"refills,omitzero"` // when the next of it comes back
}

// BudgetUse is what one principal has used of the budget of a rule.
type BudgetUse struct {
	Rule      string    `json:"rule"`
	Policy    string    `json:"policy"` // name of the resource that the rule stands in
	Budget    string    `json:"budget"`
	Unit      string    `json:"unit"`
	Amount    int64     `json:"amount"`
	Used      int64     `json:"used"`
	Principal string    `json:"principal"`      // its ID
	Name      string    `json:"name,omitempty"` // as its provider called it last
	Refills   time.Time `json:"refills,omitzero"`
}

// Observed is what policy would have done with what ran on a target while it
// was only observed, by the evidence.
type Observed struct {
	Target     string           `json:"target"`
	Since      time.Time        `json:"since"`
	Until      time.Time        `json:"until,omitzero"` // it is observed until then; zero: it is enforced
	Principals []ObservedBy     `json:"principals"`
	Changed    []ObservedChange `json:"changed"` // the most frequent first
	Truncated  bool             `json:"truncated,omitempty"`
}

// ObservedBy counts one principal's statements.
type ObservedBy struct {
	Principal  string `json:"principal"`
	Name       string `json:"name"`
	Statements int    `json:"statements"`
	Refused    int    `json:"refused"` // … of them would have been
	Held       int    `json:"held"`
	Cut        int    `json:"cut"` // after their row limit
	Masked     int    `json:"masked"`
}

// ObservedChange is one shape of statement that would have gone otherwise.
type ObservedChange struct {
	Name      string   `json:"name"`  // of the principal
	Would     string   `json:"would"` // refused | held | cut | masked
	Rules     []string `json:"rules,omitempty"`
	Masked    []string `json:"masked,omitempty"` // column: method
	Statement string   `json:"statement"`        // its shape
	Times     int      `json:"times"`
	First     string   `json:"first"` // session#sequence
}
