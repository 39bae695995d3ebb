package session

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
)

// Protocol speaks one wire protocol: to the client as a server, to the target
// as a client. One value serves one client connection; it closes neither side:
// its caller does.
type Protocol interface {
	// Accept does what the protocol does before anyone is known: TLS,
	// authentication, start-up. Nothing is dialled. It returns ErrHandled if
	// the connection asked for something that is already done (a cancel
	// request), any other error if the client could not be accepted (it has
	// been told). ctx bounds it; the caller sets no deadlines on client.
	Accept(ctx context.Context, client net.Conn, auth Authenticator) (Hello, error)
	// Serve dials and logs in to t, and relays until either side is done. No
	// statement reaches the target before its Pass; no byte of an answer
	// reaches the client but through it. When ctx ends, context.Cause(ctx) is
	// a *Refusal whose words the client is told before Serve returns; what runs
	// on the target is cancelled. It returns nil when the client said goodbye.
	Serve(ctx context.Context, t Target, g Gate) error
	// Refuse tells an accepted client, in the protocol's own words, why it
	// will not be served. It is called instead of Serve, at most once.
	Refuse(r *Refusal)
}

// ErrHandled is returned by Accept when nothing remains to be served.
var ErrHandled = errors.New("handled")

// Hello is what Accept learned.
type Hello struct {
	User        string               // as the client named itself; on the native endpoint the secret's handle
	Database    string               // as asked for; "" is the target's default
	Application string               // application_name
	Settings    map[string]string    // start-up settings that the protocol will pass on
	Secret      bool                 // a secret for User was proved (SCRAM)
	TLS         *tls.ConnectionState // if the protocol itself did TLS; a verified client certificate stands in it
}

// Authenticator is what Accept may know of the house.
type Authenticator interface {
	// Verifier returns the SCRAM-SHA-256 verifier in PostgreSQL's form
	// (SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, base64) of the
	// secret that user must prove. For an unknown user it returns "", nil: the
	// protocol then plays a mock exchange that cannot succeed. On a forward
	// the user does not matter. It may block for a limit on tries.
	Verifier(ctx context.Context, user string) (string, error)
	// TLS is the configuration with which the protocol may answer a client's
	// wish for TLS, nil if it may not.
	TLS() *tls.Config
	// RequireTLS says that a client must not be spoken to in plaintext.
	RequireTLS() bool
	// Owner keys what may cancel what: a cancel request that came through a
	// connection acts only on sessions of the same Owner. On a forward it is
	// the login, on the native endpoint "" (the key alone decides).
	Owner() string
}

// Target is what server/target offers to a protocol; it speaks none itself.
type Target interface {
	// Dial opens a connection: direct, or through an agent; as often as
	// needed (cancel, catalogue). network and address come from Addresses.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// Login returns fresh credentials. again is true if the last ones were
	// refused: a source with a cache must ask anew.
	Login(ctx context.Context, again bool) (Credentials, error)
	// Info says what the target's resource says.
	Info() TargetInfo
}

// TargetInfo is the part of a Target resource that a protocol needs.
type TargetInfo struct {
	Name                         string
	Generation                   string // changes when anything about address or database does: key for caches
	Addresses                    []string
	SessionAttrs                 string   // targetSessionAttrs
	Database                     string   // default
	Databases                    []string // allowed besides; empty: the default only
	TLSMode                      string   // verify-full | require | disable
	RootCAs                      []byte   // PEM, nil: the system's
	ChannelBinding               string   // prefer | require | disable; "" is prefer
	Idle, Max, IdleInTransaction time.Duration
	HoldInTransaction, HoldMax   time.Duration
}

// Credentials log in to a target.
type Credentials struct {
	Username    string
	Password    string
	Certificate *tls.Certificate
	// Cleartext says that the password may be sent as it is, over TLS that
	// proved who reads it.
	Cleartext bool
	// Roles, if there are any, say that the session must not run as Username:
	// that account makes a role for it, a member of these, and the session's
	// role is the first of them.
	Roles []string
}

// Gate is the one door between a protocol and the rest of the server. Its
// methods may be called by several goroutines of one session; Admit and Check
// by one at a time.
type Gate interface {
	// Check refuses what no approval could cure, before so much as a Parse
	// reaches the target. Nil parameters: they are not known yet.
	Check(ctx context.Context, batch []policy.Statement) error
	// Admit blocks until the whole batch may run with these parameters, and
	// returns one Pass a statement, in order. On error nothing of it must be
	// sent; a *Refusal carries the words to show the principal. hold is called
	// once if people are asked, so that the protocol can tell its client;
	// cancelling ctx withdraws the question. In strict evidence the request
	// leaf of a write is durable when Admit returns.
	Admit(ctx context.Context, batch []policy.Statement, hold func(Hold)) ([]Pass, error)
	// Tags are the tagged columns of this target, whoever may see them. It is
	// cheap and follows the policy set in force.
	Tags() []policy.Tag
	// Hides reports whether this principal may be kept from seeing a tagged
	// column raw. If not, no Plan is needed, and rows, errors and notices may be
	// forwarded unseen. It is cheap and follows the policy set in force.
	Hides() bool
	// Aside scrubs and records what belongs to no statement: notices,
	// parameter changes, notifications, uploads in flight. What it does not
	// know is dropped (nil).
	Aside(kind string, b []byte) ([]byte, error)
	// Wait blocks until what the ticket stands for is durable. Ticket 0 is
	// done at once. An error is final: the evidence is failing, end the session.
	Wait(ctx context.Context, t Ticket) error
	// Session is the session's name (s-7) and the principal's, for messages and application_name.
	Session() (name string, principal policy.Principal)
	// Opened records the target's side once: its backend's process id and the
	// server's version, when the login to the target succeeded.
	Opened(backendPID uint32, version string) error
	// Notice is what the client must be told as its session begins, "" if nothing.
	Notice() string
	// Cancelled records that the client (or the broker) cancelled what ran.
	Cancelled(by string) error
}

// Ticket stands for records that are on their way to the disk. Tickets are
// ordered: when one is done, all smaller ones are. 0 is done.
type Ticket uint64

// Hold tells a protocol that people were asked.
type Hold struct {
	Request string // its name: r-12
	Rule    string
	Groups  []string // who may answer
	Reason  string
	Expires time.Time
}

// Pass follows one admitted statement through its answer. It is used by one
// goroutine at a time.
type Pass interface {
	// Plan says, once per result, what to do with each column. A row without
	// a plan is never sent where Tags is not empty.
	Plan(columns []Column) (Plan, error)
	// Record takes the bytes as the client will see them (or sent them). They
	// may be released when the Ticket is done: at once in async, when durable
	// in strict; the next window is written meanwhile. b is not kept.
	Record(dir Direction, b []byte) (Ticket, error)
	// Allowed is how much of the answer may go before More must be asked, at
	// first.
	Allowed() Allowance
	// More is asked with what the answer comes to with its next row, before
	// that is sent, when that is more than was allowed. It returns how much may
	// go in all, or a *Refusal when a row limit or budget is passed (the
	// protocol cancels the statement on the target and tells the client), after
	// asking people if that can be cured: it then blocks, as Admit does, and
	// hold is called once.
	More(ctx context.Context, with Allowance, hold func(Hold)) (Allowance, error)
	// Done records how the target answered. It is called exactly once.
	// CommandComplete is released when the Ticket is done.
	Done(o Outcome) (Ticket, error)
}

// Direction of recorded bytes.
type Direction byte

const (
	ToClient   Direction = 'c' // what the client saw
	FromClient Direction = 't' // what the client sent
)

// Outcome is how the target answered one statement.
type Outcome struct {
	Rows     int64
	Bytes    int64  // to the client
	Read     int64  // bytes of the rows, as the target sent them
	Status   string // command tag: "SELECT 5"; "" on error
	SQLState string // on error
	Masked   []MaskedColumn
	// Unknown: the connection to the target was lost before the answer was whole.
	Unknown bool
	// NotRun: it was admitted, but the target never ran it (an earlier statement
	// of its message or pipeline failed, or the client did not execute it).
	NotRun bool
}

// MaskedColumn is what happened to one column of one result.
type MaskedColumn struct {
	ColumnPlan
	Name  string
	Cells int64
}

// Column is one column of a result, as far as the protocol could trace it.
type Column struct {
	Name string // output name
	Type mask.Type
	// Sources are the base columns that it derives from, nil if it derives from none.
	Sources []policy.ColumnRef
	Bare    bool   // it is the one source column's own value
	Proven  bool   // Sources is complete; false: hidden from those not cleared for all of the target's tags
	Why     string // identity | lineage | unknown
}

// Plan says what to do with each column of a result, in order.
type Plan struct {
	Columns []ColumnPlan
	Clear   bool // every column goes as it is
}

// ColumnPlan says what to do with one column. Rewrite nil: as it is.
type ColumnPlan struct {
	Rewrite mask.Rewriter
	// Nulls says that NULL is rewritten as well, as an empty value: whether a
	// derived value is NULL may tell what it derives from.
	Nulls bool
	// Scan says that Rewrite changes only the values in which it finds
	// something.
	Scan   bool
	Method string
	Tag    string
	Rule   string
	Source string // schema.table.column, comma-separated if several
	Why    string
}

// Code is the machine-readable why of a Refusal. A protocol maps it to its own
// codes (SQLSTATE, HTTP status).
type Code string

const (
	CodePolicy      Code = "policy"      // 42501
	CodeRevoked     Code = "revoked"     // 57P01: revoked, expired, ended by an admin
	CodeWithdrawn   Code = "withdrawn"   // 57014: cancelled while held
	CodeBudget      Code = "budget"      // 53400
	CodeEvidence    Code = "evidence"    // 58030
	CodeLogin       Code = "login"       // 28000
	CodeSecret      Code = "secret"      // 28P01
	CodeUnavailable Code = "unavailable" // 57P03: agent, drain, target
	CodeIdle        Code = "idle"        // 57P05
	CodeHold        Code = "hold"        // 25P03: held too long in a transaction, idle in transaction
	CodeLost        Code = "lost"        // 08006
	CodeUnknown     Code = "unknown"     // 08007: outcome unknown
	CodeDatabase    Code = "database"    // 3D000
	CodeSyntax      Code = "syntax"      // 42601: SQL that does not parse
	CodeTooMany     Code = "toomany"     // 53300
	CodeProtocol    Code = "protocol"    // 08P01
)

// Refusal is a no in words that a principal can act on. Its zero value is not valid.
type Refusal struct {
	Code     Code
	Message  string // without the "hoopctl: " in front
	Detail   string
	Hint     string
	Rules    []string
	Request  string // the request's name if one stands in the way
	Fatal    bool   // the session ends with it
	Position int    // 1-based character in the statement's text, 0 unknown
}

func (r *Refusal) Error() string { return r.Message }
