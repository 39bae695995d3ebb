package exec

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/server/api"
)

// Error is a statement's failure, in the target's words or the broker's. The
// broker's begin with "hoopctl:".
type Error struct {
	SQLState string
	Severity string // ERROR, FATAL or PANIC
	Message  string
	Detail   string
	Hint     string
	Position int // 1-based character in the statement; 0 is unknown
}

func (e *Error) Error() string { return e.Message }

// Broker says whether the broker itself speaks, and not the target through it.
func (e *Error) Broker() bool { return strings.HasPrefix(e.Message, "hoopctl:") }

// BrokerReason is the API's reason for what the broker said by SQLSTATE; false
// for a target's own error, which is none of the broker's outcomes.
func (e *Error) BrokerReason() (api.Reason, bool) {
	if !e.Broker() {
		return "", false
	}
	if e.SQLState == "42501" && strings.HasPrefix(e.Detail, "pending") { // opened, and nobody waits for it
		return api.ReasonPending, true
	}
	if e.SQLState == "57P01" && strings.HasSuffix(e.Message, " expired") { // the one end of a session that nobody decided
		return api.ReasonExpired, true
	}
	switch e.SQLState {
	case "42501", "53400": // policy, a person's no, budget
		return api.ReasonDenied, true
	case "57014": // withdrawn, or cancelled while held
		return api.ReasonWithdrawn, true
	case "57P01", "57P05": // revoked or ended; idle
		return api.ReasonRevoked, true
	case "25P03": // nobody answered in time
		return api.ReasonExpired, true
	case "28000":
		return api.ReasonLoginNeeded, true
	case "58030":
		return api.ReasonEvidence, true
	case "57P03", "08006", "08007", "28P01", "08P01", "53300":
		return api.ReasonUnavailable, true
	case "42601", "3D000":
		return api.ReasonInvalid, true
	default:
		return api.ReasonInternal, true
	}
}

// APIError is e in the one shape of failure.
func (e *Error) APIError() *api.Error {
	out := &api.Error{Reason: "Target", Message: e.Message, Hint: e.Hint, Source: "target"}
	if reason, ok := e.BrokerReason(); ok {
		out.Reason, out.Source = reason, "broker"
		out.SessionID, out.Request = named(e.Detail, "session"), named(e.Detail, "request")
	} else if e.Detail != "" {
		out.Message += " (" + e.Detail + ")"
	}
	return out
}

// named finds the value of "key value" in a DETAIL such as
// "session s-7, request r-12, rule no-where".
func named(detail, key string) string {
	words := strings.FieldsFunc(detail, func(r rune) bool { return r == ' ' || r == ',' || r == ';' || r == '\n' })
	for i := 0; i+1 < len(words); i++ {
		if strings.EqualFold(strings.TrimSuffix(words[i], ":"), key) {
			return strings.TrimRight(words[i+1], ".:")
		}
	}
	return ""
}

// ErrLost says that the connection ended without a word, so that nobody knows
// whether the statement ran.
var ErrLost = errors.New("the connection to the broker was lost")

// explain turns pgconn's errors into ours. What ended ctx comes first: a
// deadline looks like a network error from below.
func explain(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return &Error{SQLState: pg.Code, Severity: pg.Severity, Message: pg.Message, Detail: pg.Detail, Hint: pg.Hint, Position: int(pg.Position)}
	}
	var refused *api.Error
	if errors.As(err, &refused) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &lost{err}
}

// lost is ErrLost with what the network said.
type lost struct{ cause error }

func (l *lost) Error() string   { return ErrLost.Error() + ": " + l.cause.Error() }
func (l *lost) Unwrap() []error { return []error{ErrLost, l.cause} }

func (l *lost) BrokerReason() (api.Reason, bool) { return api.ReasonUnavailable, true }

func (l *lost) APIError() *api.Error {
	return &api.Error{Reason: api.ReasonUnavailable, Message: l.Error(), Source: "client",
		Hint: "the outcome of the last statement is unknown: look at hoopctl audit search"}
}
