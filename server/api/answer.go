package api

import (
	"slices"
	"strconv"
)

// answerDomain keeps a signature over an answer from meaning anything else.
const answerDomain = "hoopctl approval v1\n"

// AnswerBytes are the bytes that an approver's key signs: the request's name,
// the digest of what was shown, yes or no, the reason, and the rules answered
// (in any order; none: every one that the approver may). Every field is a
// netstring (length, colon, bytes, newline), so that no two answers have the
// same bytes. Client, server and the evidence's verifier share it.
func AnswerBytes(request, digest string, approve bool, reason string, cures []string) []byte {
	cures = slices.Compact(slices.Sorted(slices.Values(cures)))
	verdict := "deny"
	if approve {
		verdict = "approve"
	}
	b := []byte(answerDomain)
	for _, field := range []string{request, digest, verdict, reason, strconv.Itoa(len(cures))} {
		b = appendNetstring(b, field)
	}
	for _, rule := range cures {
		b = appendNetstring(b, rule)
	}
	return b
}

func appendNetstring(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	b = append(b, s...)
	return append(b, '\n')
}
