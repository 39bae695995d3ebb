package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/hoopctl/hoopctl/server/api"
)

// exitCode is API: scripts branch on it, so a code never changes its meaning.
// What the broker says lies in 119–125, where it never collides with a code of
// psql (0–3), of gh (4, 8) or of a child that exec passes through.
type exitCode int

const (
	exitOK       exitCode = 0
	exitError    exitCode = 1
	exitUsage    exitCode = 2
	exitLogin    exitCode = 119
	exitPending  exitCode = 120
	exitDenied   exitCode = 121
	exitExpired  exitCode = 122
	exitCut      exitCode = 123
	exitTimeout  exitCode = 124
	exitBroker   exitCode = 125
	exitCannot   exitCode = 126
	exitNotFound exitCode = 127
	exitSignal   exitCode = 128 // plus the signal's number
)

// exitCodesHelp is `hoopctl help exit-codes`. docs/cli.md holds the same table
// and a test compares them.
const exitCodesHelp = `Every verb of hoopctl exits with one of these codes.

    0  ok
    1  error: what was asked for does not exist or did not work; a target's own error
    2  usage: an unknown verb or flag, a value that cannot be read
  119  login needed, or the login has expired
  120  approval pending (with --no-wait)
  121  denied: no grant, a policy, or a person said no
  122  the approval or the grant expired
  123  the server cut the session: revoked, ended by an admin, idle
  124  --timeout has passed
  125  broker failure: unreachable, or evidence or masking failed closed
  126  the local command cannot be executed
  127  the local command was not found
128+n  ended by signal n (130: Ctrl-C)

exec TARGET -- CMD and connect --client exit with the child's own code.
auth can-i: 0 yes, 1 no, 2 error.
diff: 0 same, 1 different, 2 error.
audit verify: 0 intact, 1 tampered, 2 incomplete, 3 stale, 125 could not run.
server and dev: 0 when a signal asked them to stop and they did.
`

// usageError is a command line that cannot be understood.
type usageError struct {
	message string
	hint    string
}

func (e *usageError) Error() string { return e.message }

func usagef(format string, a ...any) error { return &usageError{message: fmt.Sprintf(format, a...)} }

// hinted is an error with the way out of it.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

func withHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

// silentExit ends with a code and says nothing more: everything was said, or
// the code is the answer (auth can-i, diff, a child's own code).
type silentExit struct{ code exitCode }

func (e *silentExit) Error() string { return fmt.Sprintf("exit status %d", int(e.code)) }

func exitWith(code exitCode) error {
	if code == exitOK {
		return nil
	}
	return &silentExit{code}
}

// coded gives an error the exit code of its verb's own table.
type coded struct {
	err  error
	code exitCode
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// signalled is the cause of a context that a signal ended.
type signalled struct{ signal os.Signal }

func (e *signalled) Error() string { return e.signal.String() }

func (e *signalled) code() exitCode {
	if s, ok := e.signal.(syscall.Signal); ok {
		return exitSignal + exitCode(s)
	}
	return exitError
}

// errTimeout is the cause of a context whose --timeout has passed.
var errTimeout = errors.New("--timeout has passed")

// exitCoder is an error of another room that knows what became of it:
// a statement's refusal in client/exec.
type exitCoder interface{ BrokerReason() (api.Reason, bool) }

// codeOf is the one switch from errors to exit codes.
func codeOf(err error) exitCode {
	var (
		silent *silentExit
		own    *coded
		usage  *usageError
		signal *signalled
		broker *api.Error
		remote exitCoder
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return silent.code
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &signal):
		return signal.code()
	case errors.Is(err, errTimeout):
		return exitTimeout
	case errors.As(err, &broker):
		return reasonCode(broker.Reason)
	case errors.As(err, &remote):
		if reason, ok := remote.BrokerReason(); ok {
			return reasonCode(reason)
		}
		return exitError
	case errors.Is(err, exec.ErrNotFound):
		return exitNotFound
	default:
		return exitError
	}
}

func reasonCode(r api.Reason) exitCode {
	switch r {
	case api.ReasonLoginNeeded, api.ReasonLoginExpired:
		return exitLogin
	case api.ReasonPending:
		return exitPending
	case api.ReasonDenied, api.ReasonWithdrawn:
		return exitDenied
	case api.ReasonExpired:
		return exitExpired
	case api.ReasonRevoked:
		return exitCut
	case api.ReasonEvidence, api.ReasonUnavailable, api.ReasonInternal:
		return exitBroker
	default:
		return exitError
	}
}

// describeError is err as the one object that -o json prints.
func describeError(err error) *api.Error {
	out := &api.Error{Reason: api.ReasonInternal, Source: "client"}
	var (
		usage  *usageError
		broker *api.Error
		remote interface{ APIError() *api.Error }
		help   *hinted
	)
	switch {
	case errors.As(err, &broker):
		*out = *broker
	case errors.As(err, &remote):
		*out = *remote.APIError()
	case errors.As(err, &usage):
		out.Reason, out.Hint = api.ReasonInvalid, usage.hint
	default:
		out.Reason = localReason(codeOf(err))
	}
	// The wrapping says what was being done; a bare api.Error says its own words.
	out.Message = err.Error()
	if errors.As(err, &help) {
		out.Hint = help.hint
	}
	out.Code = int(codeOf(err))
	if out.Source == "" {
		out.Source = "broker"
	}
	return out
}

// localReason names what went wrong on this side of the wire.
func localReason(c exitCode) api.Reason {
	switch {
	case c == exitTimeout:
		return "Timeout"
	case c == exitCannot, c == exitNotFound:
		return "Command"
	case c > exitSignal:
		return "Signal"
	case c == exitBroker:
		return api.ReasonUnavailable
	default:
		return "Error"
	}
}

// report tells people or programs what went wrong. Nothing is said of a code
// that is itself the answer.
func report(w io.Writer, asJSON bool, err error) {
	var silent *silentExit
	var signal *signalled
	if err == nil || errors.As(err, &silent) || errors.As(err, &signal) && !asJSON {
		return // whoever pressed Ctrl-C knows
	}
	e := describeError(err)
	if asJSON {
		json.NewEncoder(w).Encode(e)
		return
	}
	fmt.Fprintf(w, "hoopctl: %s\n", printable(strings.TrimPrefix(e.Message, "hoopctl: ")))
	if e.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable(e.Hint))
	}
	if e.RequestID != "" && e.Code == int(exitBroker) {
		fmt.Fprintf(w, "request id: %s\n", printable(e.RequestID))
	}
}

// causeOf prefers why a context ended over the "context canceled" that every
// call below it reports.
func causeOf(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}
