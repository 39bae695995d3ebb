package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Kind of principal. An AI assistant acting for a person is a Service whose
// ActsFor names that person.
type PrincipalKind string

const (
	User    PrincipalKind = "user"
	Service PrincipalKind = "service"
)

// Principal is who asks. It is keyed by the issuer's configured *name* and the
// subject that this issuer gave, never by an e-mail address: addresses are
// reused and unverified, and an issuer's URL may change.
type Principal struct {
	Kind    PrincipalKind `json:"kind"`
	Issuer  string        `json:"issuer"`  // the issuer's name in the server's configuration: "dev"
	Subject string        `json:"subject"` // the issuer's subject claim
	Name    string        `json:"name"`    // what people call it: "alice"
	Groups  []string      `json:"groups,omitempty"`
	Owner   string        `json:"owner,omitempty"`   // of a service: the person who answers for it
	ActsFor string        `json:"actsFor,omitempty"` // ID of the person an assistant acts for
	MFA     bool          `json:"mfa,omitempty"`     // the login used more than one factor (amr)
}

// ID is the stable key of the principal: issuer name, colon, subject.
func (p Principal) ID() string { return p.Issuer + ":" + p.Subject }

// In reports whether the principal is a member of the group.
func (p Principal) In(group string) bool { return slices.Contains(p.Groups, group) }

// TargetRef is what a decision may know of a target.
type TargetRef struct {
	Name     string
	Protocol string            // "postgres" | "http"
	Labels   map[string]string // metadata.labels
}

// Class is the strictest thing that a statement does, and the Cedar action that
// is asked for it. The zero value is no class and is denied.
type Class string

const (
	Read   Class = "read"
	Write  Class = "write"
	Export Class = "export" // COPY … TO STDOUT of tables or queries, bulk dumps
	Schema Class = "schema" // DDL
	Admin  Class = "admin"  // what is unknown, and what changes the session's or the server's rights
)

// Rank orders classes by strictness, Read lowest. An unknown class ranks with Admin.
func (c Class) Rank() int {
	switch c {
	case Read:
		return 1
	case Write:
		return 2
	case Export:
		return 3
	case Schema:
		return 4
	default:
		return 5
	}
}

// Stricter returns the stricter of two classes.
func Stricter(a, b Class) Class {
	if a.Rank() >= b.Rank() {
		return a
	}
	return b
}

// Facts is what the grammar says about one statement of a text, whoever runs
// it. Facts are immutable once made and shared between goroutines: they are
// cached by text or shape.
type Facts struct {
	// Kind is what the statement does to data: INSERT, UPDATE, DELETE or MERGE
	// if any part of it does that (a WITH query, what EXPLAIN ANALYZE runs or
	// PREPARE prepares), however it is wrapped; else its Command. "" is an
	// empty statement.
	Kind string `json:"kind"`
	// Command is the statement's outermost command as its command tag names
	// it: SELECT, EXPLAIN, PREPARE, COPY, CREATE TABLE, SET, BEGIN, …
	Command string `json:"command"`
	Class   Class  `json:"class"`

	Tables           []string   `json:"tables,omitempty"`           // schema.table, as resolved (or as searched: see Unresolved)
	Columns          []string   `json:"columns,omitempty"`          // schema.table.column read anywhere
	PredicateColumns []string   `json:"predicateColumns,omitempty"` // … in WHERE, JOIN, HAVING, GROUP BY, ORDER BY, CASE tests
	WriteColumns     []string   `json:"writeColumns,omitempty"`     // … set by INSERT, UPDATE, MERGE, COPY FROM
	Functions        []string   `json:"functions,omitempty"`        // schema.function, pg_catalog.-qualified when searched
	Relations        []Relation `json:"relations,omitempty"`        // every relation named, before resolution

	// HasWhere is true only if the WHERE of the written table constrains a
	// column of it and is no tautology.
	HasWhere bool `json:"hasWhere,omitempty"`
	// Aggregates is true if the statement folds many rows into fewer values
	// (aggregate functions, array or JSON building over rows).
	Aggregates bool `json:"aggregates,omitempty"`
	// Unresolved is true while Tables and Columns hold names that no catalogue
	// has confirmed.
	Unresolved bool `json:"unresolved,omitempty"`

	// Setting and SettingValue are set for SET, RESET and set_config with
	// constant arguments: lower-case name, value as text ("" for DEFAULT).
	Setting      string `json:"setting,omitempty"`
	SettingValue string `json:"settingValue,omitempty"`
	// Configures are the settings that calls of set_config name, in lower case;
	// "?" stands for a name that is not a constant.
	Configures []string `json:"configures,omitempty"`
	// Prepared is the name in PREPARE, EXECUTE and DEALLOCATE; Cursor the name
	// in DECLARE, FETCH, MOVE and CLOSE.
	Prepared string `json:"prepared,omitempty"`
	Cursor   string `json:"cursor,omitempty"`
	// Transaction is "begin", "commit", "rollback", "savepoint", "prepare" or "".
	Transaction string `json:"transaction,omitempty"`
	// Copy describes a COPY; nil for everything else.
	Copy *CopyFacts `json:"copy,omitempty"`
	// Lock is true if the statement takes row or table locks on purpose
	// (FOR UPDATE, LOCK).
	Lock bool `json:"lock,omitempty"`
	// Limit is the outermost query's LIMIT if it is a constant; nil otherwise.
	Limit *int64 `json:"limit,omitempty"`
	// LiteralFree is true if no fact depends on the value of a literal or a
	// parameter, so that the shape may stand for the text in a cache.
	LiteralFree bool `json:"literalFree,omitempty"`

	// Start and End are the statement's byte offsets in the text it came from.
	Start int `json:"start"`
	End   int `json:"end"`

	// Shape is the statement without comments and with literals as ?;
	// identifiers and aliases are kept. Fingerprint is "fp-" and the first 16
	// bytes of SHA-256 of Shape in lower-case hex.
	Shape       string `json:"shape"`
	Fingerprint string `json:"fingerprint"`
}

// Relation is one mention of a relation in a statement, as it is written.
type Relation struct {
	Schema  string `json:"schema,omitempty"`
	Name    string `json:"name"`
	Alias   string `json:"alias,omitempty"`
	Written bool   `json:"written,omitempty"` // INSERT, UPDATE, DELETE, MERGE, COPY FROM, TRUNCATE, DDL
	Only    bool   `json:"only,omitempty"`
}

// CopyFacts are the facts of COPY.
type CopyFacts struct {
	From    bool     `json:"from,omitempty"` // COPY … FROM
	Where   string   `json:"where"`          // "client" (STDIN, STDOUT), "file", "program"
	Format  string   `json:"format"`         // "text", "csv", "binary"
	Query   bool     `json:"query,omitempty"`
	Columns []string `json:"columns,omitempty"`
	// Delimiter, Null, Quote, Escape are the options as given, "" for the format's default.
	Delimiter string `json:"delimiter,omitempty"`
	Null      string `json:"null,omitempty"`
	Quote     string `json:"quote,omitempty"`
	Escape    string `json:"escape,omitempty"`
	Header    bool   `json:"header,omitempty"`
}

// Statement is one thing asked of a target, in one session, once.
type Statement struct {
	*Facts
	Text string // the exact text of the whole message it came in
	// Start and End are the statement's byte offsets in Text. They stand in
	// front of those in Facts, which may be shared by texts of one shape and
	// then hold another text's.
	Start, End    int
	Params        []Param // bound parameters, in order; nil where there are none
	Statements    int     // how many statements came in the same message
	InTransaction bool    // the target was in a transaction block when it came
	Database      string
	Role          string            // current role on the target
	SearchPath    []string          // effective search_path on the target
	Settings      map[string]string // session settings that change what the text means
	Resolved      []uint32          // OIDs of the relations that the names meant, sorted
	RowLimit      int64             // rows that the protocol promises to stop after; 0 is none
	// Exposure is what it does with tagged columns besides showing them; nil
	// where no column of the target is tagged.
	Exposure *Exposure
	// Constants are the values that it compares tagged columns with, each with
	// its column's name in front; nil where it compares none.
	Constants [][]byte
	// Outputs are the columns of its answer, in order, as far as their origin is
	// known; nil where it is not, or where no column of the target is tagged.
	Outputs []Output
}

// Output is where one column of an answer comes from. Its zero value is a
// constant.
type Output struct {
	Sources []ColumnRef // base columns, by their tags' own names where they have some
	Bare    bool        // it is its one source's own value
	Unknown bool        // it may derive from anything else besides
}

// Param is a bound parameter as it came on the wire. Value nil is NULL.
type Param struct {
	Value  []byte
	Binary bool
	Type   uint32 // OID if the client named it
}

// Action is what a Request asks for: a Class, or one of these.
type Action string

const (
	Connect      Action = "connect"
	ViewUnmasked Action = "viewUnmasked"
	Approve      Action = "approve"
	Manage       Action = "manage"
	ReadEvidence Action = "readEvidence"
	Terminate    Action = "terminate"
	BreakGlass   Action = "breakglass"
)

// Request is everything that a decision depends on.
type Request struct {
	Principal Principal
	Action    Action // Connect … or Action(statement.Class)
	Target    TargetRef
	Statement *Statement // for statement classes
	Column    *ColumnRef // for ViewUnmasked
	// Owner is the ID of the principal that a Session or Request resource
	// belongs to (terminate, approve). Object is its name; ObjectKind is
	// "target" (default), "session", "request" or "server".
	Owner      string
	Object     string
	ObjectKind string

	Approvals []string // "rule/group:count", as answered so far
	RowLimit  int64    // promised by the broker while curing; 0 is none
	// Left is what is left of the budgets of rules, by their ids. A rule that is
	// not named has its whole budget.
	Left map[string]int64

	Duration time.Duration // connect: how long the grant is asked for
	Purpose  string
	Ticket   string
	Reason   string
	Now      time.Time
	SourceIP netip.Addr
	Via      string // "forward", "native", "exec", "api"
}

// ColumnRef names one column of a target's catalogue.
type ColumnRef struct {
	Schema string `json:"schema"`
	Table  string `json:"table"`
	Column string `json:"column"`
}

// String is schema.table.column.
func (c ColumnRef) String() string { return c.Schema + "." + c.Table + "." + c.Column }

// Effect is what a Verdict says to do. The zero value denies.
type Effect uint8

const (
	Deny Effect = iota
	Review
	Allow
)

func (e Effect) String() string {
	switch e {
	case Allow:
		return "allow"
	case Review:
		return "review"
	default:
		return "deny"
	}
}

// Verdict is the answer to a Request.
type Verdict struct {
	Effect Effect
	Rules  []string // ids of the rules that decided, the deciding one first
	Reason string   // shown to the principal: why
	Hint   string   // shown to the principal: the way out
	// Cures say who would have to answer what for a Review to become Allow: all of them.
	Cures []Cure
	// RowLimit, if not 0, is how many source rows may pass before the stream
	// must stop: cut if there are no Cures, asked if there are (unless
	// Before: then people are asked before it runs).
	RowLimit int64
	// Meters are the budgets that it is under: it may go as far as something is
	// left of each. Where nothing is, Decide is asked again with that in Left.
	Meters []Budget
	// Exhausted is the budget that was used up, if that is why it is denied.
	Exhausted *Budget
	// Cacheable is false if the verdict read something that differs from one
	// run of the same shape to the next: now, source address, approvals, budgets.
	Cacheable bool
	// Digest is the policy set's: "sha256:" and 64 hex digits.
	Digest string
}

// Cure is one question for humans that would cure one forbid.
type Cure struct {
	Rule    string        // id of the forbid
	Group   string        // who may answer
	Quorum  int           // how many distinct people must
	Expires time.Duration // how long the question stands; 0 is the house's default
	Reason  string        // the forbid's @reason
	Before  bool          // ask before it runs even where a row limit could let it start
}

// Approval is the form in which a Set expects an answered Cure in
// Request.Approvals: "no-where/dba:2".
func (c Cure) Approval() string { return c.Rule + "/" + c.Group + ":" + strconv.Itoa(c.Quorum) }

// Tag says that a column is sensitive, and how it is shown to those not cleared.
type Tag struct {
	Column         ColumnRef
	Tag            string // "phi"; "none" marks a column as looked at and harmless
	Mask           string // method; "" is redact
	Classification string // name of the resource that says so
	Predicates     string // deny | equality | allow
}

// Showing is the verdict on one tagged column for one principal.
type Showing struct {
	Clear  bool   // as it is
	Method string // else: how it is masked
	Rule   string // the rule that decided
	Tag    string
}
