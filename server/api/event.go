package api

import (
	"time"
)

// Kinds of Event. Kinds are API: they are never renamed.
const (
	EventLogin        = "login" // a certificate was issued for a new login
	EventRenew        = "renew" // … for a login that goes on
	EventLogout       = "logout"
	EventRequest      = "request"     // a question was opened
	EventApproval     = "approval"    // one human answered it
	EventRequestEnd   = "request.end" // approved, denied, expired, withdrawn, used
	EventGrant        = "grant"       // a grant was issued
	EventGrantEnd     = "grant.end"   // expired or revoked
	EventSessionOpen  = "session.open"
	EventSessionClose = "session.close"
	EventStatement    = "statement" // a verdict on one statement, before it runs
	EventOutcome      = "outcome"   // how the target answered it
	EventCancel       = "cancel"    // a client cancelled what ran
	EventAside        = "aside"     // what belongs to no statement: notices, parameters
	EventResource     = "resource"  // a resource was created, changed or deleted
	EventAdmin        = "admin"     // an act upon the server itself
	EventSecret       = "secret"    // a secret for the native endpoint was issued
	EventHeartbeat    = "heartbeat"
	EventGap          = "gap"      // recording was not possible for a while; says why and from when
	EventRecovery     = "recovery" // the log was opened after a crash; says what was cut
	EventSealed       = "sealed"   // a recording ended; binds all of its frames
	EventArchived     = "archived" // frames of a recording were sealed as an age file
	EventShredded     = "shredded" // a recording was destroyed; says who asked for it and why
	EventRefused      = "refused"  // a connection or call was refused before a session began
	EventKey          = "key"      // the log's signing key was changed; under the old one
	EventWitness      = "witness"  // a witness refused a checkpoint: it contradicts what it saw before
)

// Event is one leaf of the evidence's timeline: who, when, what. It never
// holds a value of a target's data: statements come without literals, subjects
// as tokens. Fields that do not belong to a kind are empty and left out.
//
// The log fills V, Index, Node and Time; callers fill the rest.
type Event struct {
	V     int       `json:"v"`
	Index uint64    `json:"index"`
	Node  string    `json:"node,omitempty"`
	Time  time.Time `json:"time"` // UTC, nanoseconds
	Kind  string    `json:"kind"`

	Principal string   `json:"principal,omitempty"` // ID: issuer:subject
	Name      string   `json:"name,omitempty"`      // what people call them
	Groups    []string `json:"groups,omitempty"`
	Login     string   `json:"login,omitempty"`
	KeySHA256 string   `json:"key,omitempty"`    // thumbprint of the login's key: hex
	Source    string   `json:"source,omitempty"` // address
	Via       string   `json:"via,omitempty"`

	Target  string `json:"target,omitempty"`
	Grant   string `json:"grant,omitempty"`
	Session string `json:"session,omitempty"`
	Request string `json:"request,omitempty"`
	Purpose string `json:"purpose,omitempty"`

	// Sequence numbers a session's statements from 1, without holes; the
	// outcome of a statement carries its number.
	Sequence    uint64   `json:"sequence,omitempty"`
	Statement   string   `json:"statement,omitempty"` // shape: literals as ?, no comments
	Fingerprint string   `json:"fingerprint,omitempty"`
	Command     string   `json:"command,omitempty"` // SELECT, …
	Class       string   `json:"class,omitempty"`
	Tables      []string `json:"tables,omitempty"`
	Columns     []string `json:"columns,omitempty"` // tagged ones only
	Tags        []string `json:"tags,omitempty"`
	// Commitment is SHA-256(salt32 ‖ text ‖ parameters) in hex; the salt lies in the encrypted recording.
	Commitment string `json:"commitment,omitempty"`

	Verdict string   `json:"verdict,omitempty"` // allow | review | deny
	Rules   []string `json:"rules,omitempty"`
	Policy  string   `json:"policy,omitempty"` // digest of the policy set
	Reason  string   `json:"reason,omitempty"` // machine-readable or the server's own words, never a person's

	Approvals []EventApproved `json:"approvals,omitempty"`

	Rows     int64          `json:"rows,omitempty"`
	Bytes    int64          `json:"bytes,omitempty"`  // to the client
	Status   string         `json:"status,omitempty"` // command tag, or "error"
	SQLState string         `json:"sqlstate,omitempty"`
	Masked   []MaskedColumn `json:"masked,omitempty"`
	// Frames are the recording's frames that hold the payload: first and last
	// number, and the SHA-256 in hex over the SHA-256 of each, encrypted as it
	// was written.
	FramesFirst  uint64 `json:"framesFirst,omitempty"`
	FramesLast   uint64 `json:"framesLast,omitempty"`
	FramesSHA256 string `json:"framesSHA256,omitempty"`

	// Object names what an admin act or resource change was about: "Target/clinic".
	Object     string    `json:"object,omitempty"`
	Digest     string    `json:"digest,omitempty"` // of the object's new content, or of what was asked
	Expires    time.Time `json:"expires,omitzero"`
	BackendPID uint32    `json:"backendPID,omitempty"`
	// Signature and Certificate are an approver's, over the answer.
	Signature   string `json:"signature,omitempty"`   // base64
	Certificate string `json:"certificate,omitempty"` // PEM

	// Attrs is what a kind needs beyond these, keys sorted in the canonical form.
	Attrs map[string]string `json:"attrs,omitempty"`
}

// EventApproved is one approval that a statement ran under.
type EventApproved struct {
	Request string `json:"request"`
	By      string `json:"by"`
	Rule    string `json:"rule"`
}

// EventQuery selects events; zero fields select all.
type EventQuery struct {
	Since, Until time.Time
	Kind         []string
	Principal    string // ID or name
	Target       string
	Table        string
	Tag          string
	Verdict      string
	Session      string
	Request      string
	Grant        string
	Approver     string
	After        uint64 // index; 0 from the start
	Limit        int    // default 100
	Descending   bool
}
