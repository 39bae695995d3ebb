package api

import (
	"encoding/json"
	"time"

	"github.com/hoopctl/hoopctl/policy"
)

// Reason is the machine-readable why of an Error. Reasons are API: they are
// never renamed.
type Reason string

const (
	ReasonInvalid      Reason = "Invalid"      // 400: the request cannot be understood
	ReasonLoginNeeded  Reason = "LoginNeeded"  // 401
	ReasonLoginExpired Reason = "LoginExpired" // 401
	ReasonDenied       Reason = "Denied"       // 403: policy, no grant, a person said no
	ReasonNotFound     Reason = "NotFound"     // 404
	ReasonConflict     Reason = "Conflict"     // 409: already answered, already exists
	ReasonPending      Reason = "Pending"      // 202 in words: a person must answer first
	ReasonExpired      Reason = "Expired"      // 410: grant or request
	ReasonWithdrawn    Reason = "Withdrawn"    // 410
	ReasonRevoked      Reason = "Revoked"      // 410
	ReasonTooMany      Reason = "TooMany"      // 429
	ReasonEvidence     Reason = "Evidence"     // 503: the evidence cannot be written; failed closed
	ReasonUnavailable  Reason = "Unavailable"  // 503: target, agent or a dependency cannot be reached
	ReasonInternal     Reason = "Internal"     // 500
)

// Error is the one shape of failure, on the wire and on stderr with -o json.
type Error struct {
	Code      int    `json:"code"` // HTTP status on the wire; exit code on stderr
	Reason    Reason `json:"reason"`
	Message   string `json:"message"`
	Hint      string `json:"hint,omitempty"`
	RequestID string `json:"requestId,omitempty"`
	SessionID string `json:"sessionId,omitempty"`
	// Request is the name of the request for approval that stands in the way.
	Request string `json:"request,omitempty"`
	Source  string `json:"source"` // "broker"
}

func (e *Error) Error() string { return e.Message }

// List is what every list answers, as kubectl's.
type List[T any] struct {
	APIVersion string `json:"apiVersion"` // "hoopctl/v1"
	Kind       string `json:"kind"`       // "GrantList"
	Items      []T    `json:"items"`
}

// APIVersion of everything here.
const APIVersion = "hoopctl/v1"

// Meta is every object's metadata.
type Meta struct {
	Name    string            `json:"name" yaml:"name"`
	Labels  map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
	Created time.Time         `json:"created,omitzero" yaml:"-"`
	Version int64             `json:"version,omitempty" yaml:"-"`
}

// Info is what a server says before it knows anyone.
type Info struct {
	Name          string   `json:"name"`
	Version       string   `json:"version"`
	CAFingerprint string   `json:"caFingerprint"` // sha256:hex of the server CA's DER
	Issuers       []Issuer `json:"issuers"`
	LogKey        string   `json:"logKey"` // the evidence log's note verifier key, pinned at login
	// ClientCA is the PEM of the authority that signs logins, pinned at login:
	// approvers' answers in the evidence must chain to it.
	ClientCA string `json:"clientCA,omitempty"`
}

// Issuer of logins that the client may use. For workloads ClientID is the
// audience that their assertions must have.
type Issuer struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind,omitempty"` // human (default) | workload
	URL      string   `json:"url"`
	ClientID string   `json:"clientID"`
	Scopes   []string `json:"scopes"`
}

// Enroll asks for a client certificate. CSR is PEM, P-256, signed by the key
// that never leaves the client's machine.
type Enroll struct {
	Issuer  string `json:"issuer"` // name
	IDToken string `json:"idToken"`
	CSR     string `json:"csr"`
	Login   string `json:"login,omitempty"` // renewals: which login
}

// Enrolled is a certificate for the CSR's key. It expires within 15 minutes.
type Enrolled struct {
	Login       string           `json:"login"`       // the login's name, in the certificate as hoopctl://user/…
	Certificate string           `json:"certificate"` // PEM chain, leaf first
	Expires     time.Time        `json:"expires"`     // of the certificate
	LoginEnds   time.Time        `json:"loginEnds"`   // of the login: 8 h at most
	Principal   policy.Principal `json:"principal"`
}

// Whoami answers who the caller is to the server.
type Whoami struct {
	Principal  policy.Principal   `json:"principal"`
	ID         string             `json:"id"`
	Clearances []string           `json:"clearances,omitempty"`
	Login      string             `json:"login"`
	Expires    time.Time          `json:"expires"`           // of the certificate
	LoginEnds  time.Time          `json:"loginEnds"`         // of the login
	Reviews    []policy.DueReview `json:"reviews,omitempty"` // that are due, of what the principal owns
}

// Target as shown to those who may ask for it.
type Target struct {
	Metadata Meta `json:"metadata"`
	Spec     struct {
		Protocol string `json:"protocol"`
		Database string `json:"database,omitempty"`
		Agent    string `json:"agent,omitempty"`
		Evidence string `json:"evidence"`
	} `json:"spec"`
	Status struct {
		Access      string `json:"access"` // "granted" | "available" | "approval" | "none": what connect would answer now
		Grant       string `json:"grant,omitempty"`
		Enforcement string `json:"enforcement,omitempty"` // "enforce", or "observe until TIME"
	} `json:"status"`
}

// Grant lets a principal open sessions on a target, for a purpose, until a time.
type Grant struct {
	Metadata Meta        `json:"metadata"`
	Spec     GrantSpec   `json:"spec"`
	Status   GrantStatus `json:"status"`
}

type GrantSpec struct {
	Principal string `json:"principal"` // ID
	Name      string `json:"name"`      // what people call the principal
	Target    string `json:"target"`
	Purpose   string `json:"purpose,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Ticket    string `json:"ticket,omitempty"`
	Action    string `json:"action,omitempty"` // "schema" for a migration window
	Standing  bool   `json:"standing,omitempty"`
}

type GrantStatus struct {
	Phase    string    `json:"phase"` // active | expired | revoked
	Expires  time.Time `json:"expires"`
	Rule     string    `json:"rule,omitempty"`    // GrantRule
	Request  string    `json:"request,omitempty"` // the request that it came from
	Sessions int       `json:"sessions"`          // live now
	EndedBy  string    `json:"endedBy,omitempty"`
	Reason   string    `json:"reason,omitempty"` // why it was revoked
}

// GrantRequest asks for a grant.
type GrantRequest struct {
	Target  string   `json:"target"`
	For     Duration `json:"for,omitempty"` // 0: the rule's most
	Reason  string   `json:"reason,omitempty"`
	Purpose string   `json:"purpose,omitempty"`
	Ticket  string   `json:"ticket,omitempty"`
	Action  string   `json:"action,omitempty"`
	Reuse   bool     `json:"reuse"`            // a live grant on the target will do
	Resume  string   `json:"resume,omitempty"` // an earlier request's name
	Extend  string   `json:"extend,omitempty"` // a live grant's name: For more on top of what it has left
}

// GrantAnswer holds one of both: the grant, or the request that must be answered first.
type GrantAnswer struct {
	Grant   *Grant   `json:"grant,omitempty"`
	Request *Request `json:"request,omitempty"`
}

// Revoked says what a revocation broke.
type Revoked struct {
	Grant    string   `json:"grant"`
	Sessions []string `json:"sessions,omitempty"`
}

// Request is a question for humans.
type Request struct {
	Metadata Meta          `json:"metadata"`
	Spec     RequestSpec   `json:"spec"`
	Status   RequestStatus `json:"status"`
}

type RequestSpec struct {
	Kind      string   `json:"kind"`            // "grant" | "statement" | "change"
	Principal string   `json:"principal"`       // ID of who asks
	Name      string   `json:"name"`            // what people call them
	Chain     []string `json:"chain,omitempty"` // IDs that may not answer: requester, owner, whom it acts for
	Target    string   `json:"target"`
	Session   string   `json:"session,omitempty"`
	Source    string   `json:"source,omitempty"`    // address that it was asked from
	Statement string   `json:"statement,omitempty"` // the exact text (of a change: the difference), shown to those who may answer
	Params    []string `json:"params,omitempty"`    // shown likewise
	Digest    string   `json:"digest"`              // what an answer is bound to: RequestDigest of this spec
	// Binding is sha256:hex over what else the statement is bound to and is not
	// shown in words: resolved OIDs, role, search_path, settings, transaction
	// position. It enters Digest.
	Binding string        `json:"binding,omitempty"`
	Salt    string        `json:"salt,omitempty"` // random, enters Digest: the evidence's copy of Digest tells nothing about the statement
	Facts   *policy.Facts `json:"facts,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Purpose string        `json:"purpose,omitempty"`
	Ticket  string        `json:"ticket,omitempty"`
	For     Duration      `json:"for,omitempty"`
	Action  string        `json:"action,omitempty"` // of a grant: "schema" for a migration window
	Grant   string        `json:"grant,omitempty"`  // the live grant that this one would extend
	Cures   []Cure        `json:"cures"`            // all must be answered
}

// Cure is one question of a request: Quorum distinct people of Group must say yes to Rule.
type Cure struct {
	Rule   string `json:"rule"`
	Group  string `json:"group"`
	Quorum int    `json:"quorum"`
	Reason string `json:"reason,omitempty"`
}

type RequestStatus struct {
	Phase   string     `json:"phase"` // pending | approved | denied | expired | withdrawn | used
	Expires time.Time  `json:"expires"`
	Answers []Approval `json:"answers,omitempty"`
	Grant   string     `json:"grant,omitempty"` // issued from it
	Reason  string     `json:"reason,omitempty"`
	// MayAnswer says whether the caller may; WhyNot says why not.
	MayAnswer bool   `json:"mayAnswer"`
	WhyNot    string `json:"whyNot,omitempty"`
}

// Answer is one human's signed answer. Signature is over AnswerBytes by the
// login's key (ECDSA P-256 with SHA-256, ASN.1): see Sign.
type Answer struct {
	Approve   bool     `json:"approve"`
	Reason    string   `json:"reason,omitempty"`
	Cures     []string `json:"cures,omitempty"` // rules answered; empty: every one that the caller may
	Digest    string   `json:"digest"`          // RequestSpec.Digest, as the approver saw it
	Salt      []byte   `json:"salt"`            // AnswerSaltSize random bytes, for ReasonCommitment
	Signature []byte   `json:"signature"`
	// SSHSignature is the approver's own besides, over SignedBytes: an SSHSIG blob
	// in ApprovalNamespace. It proves the answer to those who know the approver's
	// key, whoever runs the broker.
	SSHSignature []byte `json:"sshSignature,omitempty"`
}

// Approval is an Answer as it is kept.
type Approval struct {
	Principal   string    `json:"principal"`
	Name        string    `json:"name"`
	Groups      []string  `json:"groups,omitempty"` // in which capacity
	Rules       []string  `json:"rules,omitempty"`
	Approve     bool      `json:"approve"`
	Reason      string    `json:"reason,omitempty"`
	Time        time.Time `json:"time"`
	Digest      string    `json:"digest"`
	Source      string    `json:"source,omitempty"`      // address that it was given from
	Certificate string    `json:"certificate,omitempty"` // PEM leaf whose key signed
	AllRules    bool      `json:"allRules,omitempty"`    // signed for every rule that they may answer
	Salt        []byte    `json:"salt,omitempty"`        // of the commitment to Reason
	Signature   []byte    `json:"signature"`

	SSHSignature []byte `json:"sshSignature,omitempty"` // see Answer
}

// Session is one client connection to a target, open to close.
type Session struct {
	Metadata Meta          `json:"metadata"`
	Spec     SessionSpec   `json:"spec"`
	Status   SessionStatus `json:"status"`
}

type SessionSpec struct {
	Principal   string `json:"principal"`
	Name        string `json:"name"`
	Target      string `json:"target"`
	Grant       string `json:"grant"`
	Database    string `json:"database,omitempty"`
	Application string `json:"application,omitempty"`
	Via         string `json:"via"`              // forward | native
	Source      string `json:"source,omitempty"` // address
}

type SessionStatus struct {
	Phase      string    `json:"phase"` // open | waiting | closed | crashed
	Closed     time.Time `json:"closed,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	Statements int64     `json:"statements"`
	Rows       int64     `json:"rows"`
	Masked     int64     `json:"masked"`            // cells
	Bytes      int64     `json:"bytes"`             // to the client
	Request    string    `json:"request,omitempty"` // it waits for
	// MaskedColumns are what its answers hid, summed over its statements.
	MaskedColumns []MaskedColumn `json:"maskedColumns,omitempty"`
}

// Explain asks what would happen; nothing is sent to the target.
type Explain struct {
	Target string `json:"target"`
	Verb   string `json:"verb,omitempty"` // connect, read, write, …; "" with SQL: the statement's class
	SQL    string `json:"sql,omitempty"`
}

// Explained is the answer, one item per statement (or one for the verb).
type Explained struct {
	Allowed    bool                 `json:"allowed"` // every item is allowed without a human
	Statements []ExplainedStatement `json:"statements"`
}

type ExplainedStatement struct {
	Facts    *policy.Facts  `json:"facts,omitempty"`
	Verdict  string         `json:"verdict"` // allow | review | deny
	Rules    []string       `json:"rules,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Hint     string         `json:"hint,omitempty"`
	Cures    []Cure         `json:"cures,omitempty"`
	RowLimit int64          `json:"rowLimit,omitempty"`
	Masked   []MaskedColumn `json:"masked,omitempty"`
	Budgets  []Budget       `json:"budgets,omitempty"` // that it is under, and what is left of them
	Digest   string         `json:"policy"`
}

// MaskedColumn says how a column would be, or was, shown.
type MaskedColumn struct {
	Column string `json:"column"`           // output name, or schema.table.column
	Source string `json:"source,omitempty"` // schema.table.column, comma-separated if several
	Tag    string `json:"tag,omitempty"`
	Method string `json:"method"`
	Rule   string `json:"rule,omitempty"`
	Why    string `json:"why"` // identity | lineage | scan | unknown
	Cells  int64  `json:"cells,omitempty"`
}

// SecretRequest asks for a short-lived secret for the native endpoint.
type SecretRequest struct {
	Target      string   `json:"target"`
	For         Duration `json:"for,omitempty"`         // default 5 min
	Connections int      `json:"connections,omitempty"` // 0: unlimited until it expires
	SourceCIDR  string   `json:"sourceCIDR,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	Purpose     string   `json:"purpose,omitempty"`
}

// Secret is shown once: the server keeps its SCRAM verifier only.
type Secret struct {
	User     string    `json:"user"`     // the handle: clinic.k7q3
	Password string    `json:"password"` // 128 random bits
	Host     string    `json:"host"`
	Port     int       `json:"port"`
	Database string    `json:"database"`
	URL      string    `json:"url"`
	Expires  time.Time `json:"expires"`
	Grant    string    `json:"grant"`
}

// Apply sends resources as they were written; the server parses them, so that
// an error names file, line and field once and for all.
type Apply struct {
	Files  []File `json:"files"`
	DryRun bool   `json:"dryRun,omitempty"`
	Prune  bool   `json:"prune,omitempty"`
	Reason string `json:"reason,omitempty"` // shown to those who must agree, if anybody must
	Resume string `json:"resume,omitempty"` // an earlier change's request: what became of it; nothing else is looked at
}

// File is a YAML (or .cedar) document with the name it had on the client.
type File struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// Applied says what became of each resource: created, configured, unchanged, pruned.
type Applied struct {
	Results []AppliedResource `json:"results"`
	Digest  string            `json:"policy"`
	// Request, if set, is what the change waits for: nothing is changed yet, and
	// Results and Digest are what would be.
	Request *Request `json:"request,omitempty"`
	// Needs says, in a dry run, who would have to agree.
	Needs []Cure `json:"needs,omitempty"`
}

type AppliedResource struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
	Diff   string `json:"diff,omitempty"`
}

// Replay asks which recorded statements would be decided otherwise if Files
// were applied (as Apply does), or the change that waits under Request.
type Replay struct {
	Files     []File    `json:"files,omitempty"`
	Prune     bool      `json:"prune,omitempty"`
	Request   string    `json:"request,omitempty"`
	Since     time.Time `json:"since"`
	Target    string    `json:"target,omitempty"`
	Principal string    `json:"principal,omitempty"` // ID or name
}

// Replayed is the answer.
type Replayed struct {
	Since     time.Time        `json:"since"`
	Policy    string           `json:"policy"`              // digest of the set that decided
	Decided   int              `json:"decided"`             // statements
	Undecided int              `json:"undecided,omitempty"` // statements of which the evidence says too little
	Truncated bool             `json:"truncated,omitempty"` // there are more since then
	Changed   []policy.Changed `json:"changed"`
}

// Learn asks which statements a principal ran.
type Learn struct {
	Principal string    `json:"principal"` // ID or name
	Target    string    `json:"target,omitempty"`
	Since     time.Time `json:"since"`
}

// Learned is the answer, the most frequent first.
type Learned struct {
	Principal  string       `json:"principal"`
	Since      time.Time    `json:"since"`
	Undecided  int          `json:"undecided,omitempty"`
	Truncated  bool         `json:"truncated,omitempty"`
	Statements []policy.Use `json:"statements"`
}

// Fired says what rules decided lately, by the evidence.
type Fired struct {
	Since     time.Time   `json:"since"`
	Truncated bool        `json:"truncated,omitempty"`
	Rules     []FiredRule `json:"rules"`
}

// FiredRule counts the statements and grants in whose verdict a rule stands.
type FiredRule struct {
	Rule    string    `json:"rule"`
	Policy  string    `json:"policy,omitempty"` // name of the resource that it stands in; "" if it is the house's own, or gone
	Allowed int       `json:"allowed"`
	Held    int       `json:"held"` // people agreed to it
	Denied  int       `json:"denied"`
	Last    time.Time `json:"last"`
}

// Resource is any stored resource, as JSON of its YAML. Secrets never stand in it.
type Resource struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   Meta            `json:"metadata"`
	Spec       json.RawMessage `json:"spec"`
}

// EvidenceFiles lists the evidence folder as it is now, for a client that verifies.
type EvidenceFiles struct {
	Files []EvidenceFile `json:"files"`
}

type EvidenceFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// Duration is a time.Duration that reads and writes as "1h30m" in JSON and YAML.
type Duration time.Duration

func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Shred asks that the recording of a session be destroyed, or agrees to it.
type Shred struct {
	Reason string `json:"reason,omitempty"` // of whoever asks first; they are shown to whoever agrees
}

// Shredding is what became of that: it takes two people.
type Shredding struct {
	Session string    `json:"session"`
	Asked   string    `json:"asked"` // who asked: ID
	Name    string    `json:"name"`
	Reason  string    `json:"reason"`
	Expires time.Time `json:"expires,omitzero"` // until then a second person may agree
	Agreed  string    `json:"agreed,omitempty"` // who agreed: ID; "" while nobody has
}
