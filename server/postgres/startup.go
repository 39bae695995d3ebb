package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgproto3/v2"

	"github.com/hoopctl/hoopctl/server/session"
)

// atStartup sets what the client asked for in its start-up packet and what is
// not harmless, each by a statement that is admitted like any other. What is
// refused ends the session: the client would believe it was set.
func (q *requests) atStartup() error {
	for _, s := range q.c.asked {
		if err := q.set(settingStatement(s)); err != nil {
			var r *session.Refusal
			if errors.As(err, &r) {
				told := *r
				told.Message = fmt.Sprintf("start-up setting %s: %s", s.name, r.Message)
				return &told
			}
			return err
		}
	}
	return nil
}

// settingStatement is the SQL for one setting. The name is an identifier of
// letters, digits, _, $ and one dot (settingName).
func settingStatement(s setting) string {
	switch s.name {
	case "role":
		return "SET ROLE " + asLiteral(s.value)
	case "session_authorization":
		return "SET SESSION AUTHORIZATION " + asLiteral(s.value)
	case "search_path":
		var names []string
		for _, name := range strings.Split(s.value, ",") {
			names = append(names, asLiteral(strings.Trim(strings.TrimSpace(name), `"`)))
		}
		return "SET search_path TO " + strings.Join(names, ", ")
	}
	return "SET " + s.name + " TO " + asLiteral(s.value)
}

// asLiteral quotes a value for SQL; standard_conforming_strings is on.
func asLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// set runs one statement on behalf of the client.
func (q *requests) set(sql string) error {
	batch, err := q.understand(sql)
	if err != nil {
		return err
	}
	runs, err := q.admit(batch, q.seen)
	if err != nil {
		return err
	}
	var failed *session.Refusal
	if !q.c.ledger.push(expect{kind: wantQuery, segment: q.segment, ours: true, runs: runs, failed: &failed}) {
		return errEnded
	}
	q.begun(batch)
	q.out.add(say(nil, &pgproto3.Query{String: sql}))
	if err := q.flush(); err != nil {
		return err
	}
	if !q.c.ledger.awaitQuiet() {
		return errEnded
	}
	if failed != nil {
		return failed
	}
	return nil
}
