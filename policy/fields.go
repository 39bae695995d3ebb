package policy

import (
	"reflect"
	"strings"
	"time"
)

// Field is one field of a kind of resource, for people who write one.
type Field struct {
	Path    string `json:"path"` // metadata.name, spec.columns[].tag
	Type    string `json:"type"` // text, true or false, number, duration, list of text, …
	Meaning string `json:"meaning"`
}

// Fields describes a kind: what it is for, and its fields in the order in
// which they are written. ok is false if there is no such kind.
func Fields(kind string) (about string, fields []Field, ok bool) {
	spec := newSpec(kind)
	if spec == nil {
		return "", nil, false
	}
	text := meanings()
	fields = []Field{
		{Path: "apiVersion", Type: "text", Meaning: APIVersion + "; may be left out"},
		{Path: "kind", Type: "text", Meaning: kind},
		{Path: "metadata.name", Type: "text", Meaning: "its name: 1 to 63 lower-case letters, digits, '-', '_' and '.'"},
		{Path: "metadata.labels", Type: "map of text", Meaning: "labels, such as env: prod; those of a Target are what rules and selectors are about"},
	}
	walkFields(reflect.TypeOf(spec).Elem(), "spec", func(path, kindOf string) {
		fields = append(fields, Field{Path: path, Type: kindOf, Meaning: text[kind+"."+path]})
	})
	return text[kind], fields, true
}

// walkFields calls each with every field below a struct that YAML knows.
func walkFields(t reflect.Type, prefix string, each func(path, kindOf string)) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		path, ft := prefix+"."+name, t.Field(i).Type
		for ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		each(path, typeName(ft))
		if ft.Kind() == reflect.Slice {
			path, ft = path+"[]", ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			walkFields(ft, path, each)
		}
	}
}

// typeName is a field's type as whoever writes YAML thinks of it.
func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]() || t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "list of mappings"
	case t.Kind() == reflect.Slice:
		return "list of text"
	case t.Kind() == reflect.Map:
		return "map of text"
	case t.Kind() == reflect.Struct:
		return "mapping"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return "whole number"
	}
	return "text"
}

// meanings says what each kind and each field of it is for. A test holds it to
// the structs: no field without its words, no words without their field.
func meanings() map[string]string {
	m := map[string]string{
		KindTarget: "what is reached, and how the server reaches it",

		"Target.spec.protocol":                              "postgres or http",
		"Target.spec.address":                               "host:port of the target; for http its base URL",
		"Target.spec.addresses":                             "in place of address: several, tried in order",
		"Target.spec.targetSessionAttrs":                    "which of several addresses will do: any (default), read-write, read-only, primary, standby, prefer-standby",
		"Target.spec.database":                              "the database that sessions are in if they name none",
		"Target.spec.databases":                             "the databases that a client may choose among; empty: database only",
		"Target.spec.tls":                                   "how the server speaks TLS to the target",
		"Target.spec.tls.mode":                              "verify-full (default), require (encrypted, whoever answers) or disable",
		"Target.spec.tls.caFile":                            "PEM file of the authority that signed the target's certificate; empty: the system's",
		"Target.spec.tls.channelBinding":                    "prefer (default), require (the log-in is tied to this very TLS connection: a man in the middle fails even with mode require) or disable",
		"Target.spec.credentials":                           "how the server logs in; nobody who connects ever sees it",
		"Target.spec.credentials.mode":                      "static (default), ephemeral (a role per session) or certificate",
		"Target.spec.credentials.username":                  "as whom the server logs in",
		"Target.spec.credentials.passwordFrom":              "where the password is to be found: exactly one of env, file and exec",
		"Target.spec.credentials.passwordFrom.env":          "a variable of the server's environment",
		"Target.spec.credentials.passwordFrom.file":         "a file below the server's secretsDir",
		"Target.spec.credentials.passwordFrom.exec":         "a command whose output is the password",
		"Target.spec.credentials.passwordFrom.exec.command": "the program and its arguments",
		"Target.spec.credentials.passwordFrom.exec.ttl":     "how long its output may be used before it is asked again",
		"Target.spec.credentials.certFile":                  "mode certificate: PEM file of the client certificate, below secretsDir",
		"Target.spec.credentials.keyFile":                   "mode certificate: PEM file of its key, below secretsDir",
		"Target.spec.credentials.allowCleartext":            "true: where the target asks for the password as it is (RDS IAM, LDAP, PAM), it gets it, over verify-full only",
		"Target.spec.credentials.roles":                     "mode ephemeral: the roles that a session's own role is a member of; the first is the session's role, and inherits what it made",
		"Target.spec.agent":                                 "name of the agent that dials the target; empty: the server dials",
		"Target.spec.evidence":                              "strict (default: nothing is done before it is on record) or async",
		"Target.spec.recording":                             "full, head:N (the first N rows of each result) or none; empty: full for people, head:100 for services",
		"Target.spec.session":                               "bounds of a session",
		"Target.spec.session.idle":                          "a session that does nothing for so long ends (default 15m; 0s: never)",
		"Target.spec.session.max":                           "no session lasts longer (default 8h)",
		"Target.spec.session.idleInTransaction":             "… and none idles longer inside a transaction (default 5m)",
		"Target.spec.hold":                                  "how long a statement may wait for people",
		"Target.spec.hold.inTransaction":                    "inside a transaction, where it holds locks (default 2m)",
		"Target.spec.hold.max":                              "elsewhere (default 15m)",
		"Target.spec.enforcement":                           "enforce (default), or observe until DATE: statements are forwarded as they are, and what would have been refused, held or masked is only recorded",

		KindClassification: "what is sensitive on some targets, and how it is shown to those who are not cleared",

		"Classification.spec.targets":          "the targets that it is about",
		"Classification.spec.columns":          "the columns that someone has looked at",
		"Classification.spec.columns[].column": "schema.table.column",
		"Classification.spec.columns[].tag":    "what it is: phi, pii, secret, any word; none: looked at and harmless",
		"Classification.spec.columns[].mask":   "how it is shown to those not cleared: null, redact (default), token, year, age, zip3, domain, last4",
		"Classification.spec.subject":          "who a row is about, for the accounting of disclosures",
		"Classification.spec.subject.column":   "the column that names the person: public.patients.mrn",
		"Classification.spec.subject.id":       "the key of that table, which foreign keys of others point to",
		"Classification.spec.fields":           "the same for JSON bodies of http targets",
		"Classification.spec.fields[].path":    "which paths: /patients/**",
		"Classification.spec.fields[].json":    "which field: $.ssn",
		"Classification.spec.fields[].tag":     "as for columns",
		"Classification.spec.fields[].mask":    "as for columns",
		"Classification.spec.detect":           "look for identifiers in text that nobody tagged, for whoever is not cleared for all of the target's tags; without it nothing is scanned",
		"Classification.spec.detect.entities":  "what to look for: " + strings.Join(detectable, ", "),
		"Classification.spec.detect.in":        "text: in columns of text, JSON and XML",
		"Classification.spec.predicates":       "tagged columns in WHERE, JOIN, ORDER BY: equality (default: column = constant only), deny or allow",

		KindClearance: "which groups see which tags as they are",

		"Clearance.spec.groups":   "who",
		"Clearance.spec.tags":     "which tags",
		"Clearance.spec.purposes": "only in sessions opened with one of these purposes (connect --purpose); empty: any",

		KindGrantRule: "how one comes by a grant, where Cedar's connect allows one",

		"GrantRule.spec.groups":         "who it is for",
		"GrantRule.spec.targets":        "on which targets",
		"GrantRule.spec.maxFor":         "the longest that a grant lasts (default 1h)",
		"GrantRule.spec.standing":       "true: the grant has no end, but an owner and a date of review",
		"GrantRule.spec.approve":        "who must agree first; empty: nobody, beyond what the policies say",
		"GrantRule.spec.approve.groups": "each of these groups must answer",
		"GrantRule.spec.approve.quorum": "so many different people of each (default 1)",
		"GrantRule.spec.require":        "what must be said: reason, ticket, purpose",
		"GrantRule.spec.idle":           "sessions under it end after so long without a statement, if the target does not end them sooner",
		"GrantRule.spec.grace":          "how long a statement that runs may go on after the grant has expired",
		"GrantRule.spec.owner":          "of a standing grant: who answers for it",
		"GrantRule.spec.reviewBy":       "of a standing grant: when the owner looks at it again",
		"GrantRule.spec.lapse":          "what happens if nobody does: page (default: the grants go on; the owner is told at every login, from 30 days before) or cut (they end at that date)",
		"GrantRule.spec.recording":      "in place of the target's",

		KindService: "a machine principal: who answers for it, how it proves itself, what it may do",

		"Service.spec.owner":         "the person who answers for it, and never approves what it asks",
		"Service.spec.issuer":        "name of the issuer, in server.yaml, that vouches for it",
		"Service.spec.match":         "claims that its token must hold, all of them, exactly",
		"Service.spec.groups":        "its groups, whatever its token says",
		"Service.spec.acceptsMasked": "true: it works with masked values and may be given them",
		"Service.spec.recipient":     "who receives what it reads, for the accounting of disclosures",
		"Service.spec.reviewBy":      "when its owner looks at it again; told at every login from 30 days before",
		"Service.spec.statements":    "fingerprints of the only statements that it may run; empty: whatever its rules allow (see hoopctl policy learn)",
		"Service.spec.hold":          "how long its statements may wait for people (default 0s: refused at once with the request's name)",

		KindPolicy: "rules in Cedar: what is permitted, what is forbidden, and what cures a forbid",

		"Policy.spec.cedar": "the rules; see docs/policy.md",

		KindException: "a time-boxed exception to failing closed",

		"Exception.spec.targets": "on which targets",
		"Exception.spec.until":   "the date at which it ends by itself",
		"Exception.spec.sink":    "where the evidence goes meanwhile",
		"Exception.spec.reason":  "why",

		KindLegalHold: "keeps recordings from ending",

		"LegalHold.spec.sessions": "of these sessions",
		"LegalHold.spec.targets":  "of all sessions on these targets",
		"LegalHold.spec.reason":   "why",
	}
	for _, at := range []string{"Classification", "GrantRule", "Exception", "LegalHold"} {
		m[at+".spec.targets.names"] = "targets by name"
		m[at+".spec.targets.matchLabels"] = "targets that have all of these labels"
	}
	return m
}
