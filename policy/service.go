package policy

import (
	"encoding/json"
	"slices"
	"strconv"
)

// service finds the Service resource of a principal: by its name and by the
// issuer that vouched for it, so that no other issuer can take the name.
func (s *Set) service(p Principal) *service {
	for i := range s.services {
		if sv := &s.services[i]; sv.name == p.Name && sv.spec.Issuer == p.Issuer {
			return sv
		}
	}
	return nil
}

// lists reports whether a service's list of statements lets a request through.
// Transaction control passes: drivers add it on their own, and it does nothing
// that a listed statement does not. A statement whose meaning depends on its
// literals never does, because its fingerprint says nothing about them.
func (sv *service) lists(r *Request) bool {
	if len(sv.statements) == 0 || r.Statement == nil || r.Statement.Facts == nil {
		return true
	}
	f := r.Statement.Facts
	return passesUnlisted(f) || unlisted(f) == "" && sv.statements[f.Fingerprint]
}

// passesUnlisted: transaction control, and the empty statement that drivers
// send to see whether a connection lives.
func passesUnlisted(f *Facts) bool {
	switch f.Transaction {
	case "begin", "commit", "rollback", "savepoint":
		return f.Class == Read
	}
	return f.Kind == "" && f.Class == Read
}

// Service finds the service that a workload's verified claims prove: the one
// Service of that issuer whose match holds in full. If several do, none is
// returned: which rights it has must not depend on an order.
func (s *Set) Service(issuer string, claims map[string]any) (name string, spec ServiceSpec, ok bool) {
	if s == nil {
		return "", ServiceSpec{}, false
	}
	for i := range s.services {
		sv := &s.services[i]
		if sv.spec.Issuer != issuer || !sv.matches(claims) {
			continue
		}
		if ok {
			return "", ServiceSpec{}, false
		}
		name, spec, ok = sv.name, *sv.spec, true
	}
	return name, spec, ok
}

func (sv *service) matches(claims map[string]any) bool {
	for k, want := range sv.spec.Match {
		if !claimIs(claims[k], want) {
			return false
		}
	}
	return len(sv.spec.Match) > 0
}

// claimIs compares a claim as JSON decoded it. A list holds if one of its
// members does, as aud and groups mean it.
func claimIs(claim any, want string) bool {
	switch c := claim.(type) {
	case string:
		return c == want
	case bool:
		return strconv.FormatBool(c) == want
	case float64:
		return strconv.FormatFloat(c, 'f', -1, 64) == want
	case json.Number:
		return c.String() == want
	case []any:
		return slices.ContainsFunc(c, func(e any) bool { return claimIs(e, want) })
	case []string:
		return slices.Contains(c, want)
	}
	return false
}
