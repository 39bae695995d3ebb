package postgres

import (
	"fmt"
	"strings"

	"github.com/jackc/pgproto3/v2"

	"github.com/hoopctl/hoopctl/server/session"
)

// encoder is what of pgproto3/v2 this room uses: messages that encode
// themselves. Nothing from the wire is ever decoded with it.
type encoder interface {
	Encode(dst []byte) ([]byte, error)
}

// say appends a message. pgproto3 refuses only messages longer than 1 GiB;
// ours are bounded by what was read, and a message that cannot be encoded is
// left out rather than sent half.
func say(dst []byte, m encoder) []byte {
	out, err := m.Encode(dst)
	if err != nil {
		return dst
	}
	return out
}

// sqlstate maps a Refusal's code to PostgreSQL's
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
func sqlstate(c session.Code) string {
	switch c {
	case session.CodePolicy:
		return "42501"
	case session.CodeRevoked:
		return "57P01"
	case session.CodeWithdrawn:
		return "57014"
	case session.CodeBudget:
		return "53400"
	case session.CodeEvidence:
		return "58030"
	case session.CodeLogin:
		return "28000"
	case session.CodeSecret:
		return "28P01"
	case session.CodeUnavailable:
		return "57P03"
	case session.CodeIdle:
		return "57P05"
	case session.CodeHold:
		return "25P03"
	case session.CodeLost:
		return "08006"
	case session.CodeUnknown:
		return "08007"
	case session.CodeDatabase:
		return "3D000"
	case session.CodeSyntax:
		return "42601"
	case session.CodeTooMany:
		return "53300"
	case session.CodeProtocol:
		return "08P01"
	default:
		return "XX000"
	}
}

// codeSQLState lets this room refuse with a SQLSTATE that no Code stands for
// (26000, 34000, 42P05 and the like), where PostgreSQL itself would.
const codeSQLState = "sqlstate:"

// errorMessage appends the ErrorResponse of a Refusal. name is the session's,
// "" if there is none yet.
func errorMessage(dst []byte, r *session.Refusal, name string) []byte {
	severity := "ERROR"
	if r.Fatal {
		severity = "FATAL"
	}
	code := sqlstate(r.Code)
	if own, ok := strings.CutPrefix(string(r.Code), codeSQLState); ok {
		code = own
	}
	return say(dst, &pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: code,
		Message: clean("hoopctl: " + r.Message), Detail: clean(detail(r, name)), Hint: clean(r.Hint),
		Position: int32(r.Position),
	})
}

// detail is the refusal's own, and the names by which somebody who is asked
// about it finds it: session, request, rules.
func detail(r *session.Refusal, name string) string {
	var parts []string
	if r.Detail != "" {
		parts = append(parts, r.Detail)
	}
	var names []string
	if name != "" {
		names = append(names, "session "+name)
	}
	if r.Request != "" {
		names = append(names, "request "+r.Request)
	}
	if len(r.Rules) > 0 {
		names = append(names, "rule "+strings.Join(r.Rules, ", "))
	}
	if len(names) > 0 {
		parts = append(parts, strings.Join(names, ", "))
	}
	return strings.Join(parts, "\n")
}

// clean takes NULs out, which would end a field early.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "") }

// noticeMessage appends a NOTICE of ours.
func noticeMessage(dst []byte, message, detail, hint string) []byte {
	return say(dst, &pgproto3.NoticeResponse{
		Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000",
		Message: clean("hoopctl: " + message), Detail: clean(detail), Hint: clean(hint),
	})
}

// holdNotice tells the client that people were asked.
func holdNotice(dst []byte, h session.Hold, name string) []byte {
	message := fmt.Sprintf("waiting for approval %s by %s", h.Request, strings.Join(h.Groups, ", "))
	detail := strings.TrimSpace(h.Reason)
	if h.Rule != "" {
		detail = strings.TrimSpace(detail + " (rule " + h.Rule + ", session " + name + ")")
	}
	hint := "Ctrl-C withdraws the request."
	if !h.Expires.IsZero() {
		hint = fmt.Sprintf("It stands until %s. %s", h.Expires.UTC().Format("15:04:05 MST"), hint)
	}
	return noticeMessage(dst, message, detail, hint)
}

func readyMessage(dst []byte, status byte) []byte {
	return append(dst, 'Z', 0, 0, 0, 5, status)
}

// keyMessage appends BackendKeyData. Protocol 3.2 has keys of up to 256 bytes,
// which pgproto3/v2 does not know.
func keyMessage(dst []byte, pid uint32, key []byte) []byte {
	n := 8 + len(key)
	dst = append(dst, 'K', byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	dst = append(dst, byte(pid>>24), byte(pid>>16), byte(pid>>8), byte(pid))
	return append(dst, key...)
}

// negotiateMessage appends NegotiateProtocolVersion (not in pgproto3/v2): the
// newest minor version spoken, and the protocol options not known.
func negotiateMessage(dst []byte, newest uint32, unknown []string) []byte {
	at := len(dst)
	dst = append(dst, 'v', 0, 0, 0, 0)
	dst = appendUint32(dst, newest)
	dst = appendUint32(dst, uint32(len(unknown)))
	for _, name := range unknown {
		dst = append(append(dst, name...), 0)
	}
	return setLength(dst, at)
}

func appendUint32(dst []byte, v uint32) []byte {
	return append(dst, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// setLength writes the length of the message that begins at at and ends with dst.
func setLength(dst []byte, at int) []byte {
	n := len(dst) - at - 1
	dst[at+1], dst[at+2], dst[at+3], dst[at+4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return dst
}
