package policy

import (
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// This file puts requests into Cedar's words: entities and context. A record
// costs a map and a hash for each value, so only what the rules in scope read
// is put in.

// principalEntity is the principal: a User by its ID (issuer:subject), a
// Service by its resource's name, in its groups.
func (q *question) principalEntity() {
	p := &q.principal
	uid := types.NewEntityUID(typeUser, types.String(p.ID()))
	if p.Kind == Service {
		uid = types.NewEntityUID(typeService, types.String(p.Name))
	}
	groups := make([]types.EntityUID, len(p.Groups))
	for i, g := range p.Groups {
		groups[i] = types.NewEntityUID(typeGroup, types.String(g))
	}
	q.uid.Principal = uid
	q.entities.principal = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(groups...)}
}

func (s *Set) principalAttributes(p *Principal, purpose string) types.Record {
	m := types.RecordMap{"clearances": stringSet(s.Clearances(*p, purpose)), "issuer": types.String(p.Issuer)}
	if p.Kind == Service {
		m["owner"] = types.String(p.Owner)
		if p.ActsFor != "" {
			m["actsFor"] = types.NewEntityUID(typeUser, types.String(p.ActsFor))
		}
	}
	return types.NewRecord(m)
}

// targetEntity is a target with its labels.
func targetEntity(t TargetRef) types.Entity {
	names := labelNames(t.Labels)
	labels := make([]types.EntityUID, len(names))
	for i, n := range names {
		labels[i] = types.NewEntityUID(typeLabel, types.String(n))
	}
	return types.Entity{UID: types.NewEntityUID(typeTarget, types.String(t.Name)), Parents: types.NewEntityUIDSet(labels...),
		Attributes: types.NewRecord(types.RecordMap{"protocol": types.String(t.Protocol), "labels": stringSet(names)})}
}

// entityOf is targetEntity, made once for the targets of the set.
func (s *Set) entityOf(t *TargetRef) types.Entity {
	if known := s.targets[t.Name]; known != nil && known.ref.same(t) {
		return known.entity
	}
	return targetEntity(*t)
}

func (t *TargetRef) same(o *TargetRef) bool {
	if t.Name != o.Name || t.Protocol != o.Protocol || len(t.Labels) != len(o.Labels) {
		return false
	}
	for k, v := range t.Labels {
		if w, ok := o.Labels[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// resourceEntity is what is asked for: the target, or a column, session or
// request of it, or the server.
func (q *question) resourceEntity() {
	r := q.request
	q.entities.target = q.set.entityOf(&r.Target)
	target := q.entities.target.UID
	var belongs types.Entity
	if r.Target.Name != "" {
		belongs.Parents = types.NewEntityUIDSet(target)
	}
	switch {
	case r.Action == ViewUnmasked && r.Column != nil:
		belongs.UID = types.NewEntityUID(typeColumn, types.String(r.Target.Name+"/"+r.Column.String()))
	case r.ObjectKind == "session":
		belongs.UID = types.NewEntityUID(typeSession, types.String(r.Object))
		belongs.Attributes = types.NewRecord(types.RecordMap{"owner": types.String(r.Owner)})
	case r.ObjectKind == "request", r.Action == Approve:
		belongs.UID = types.NewEntityUID(typeRequest, types.String(r.Object))
		belongs.Attributes = types.NewRecord(types.RecordMap{"requester": types.String(r.Owner)})
	case r.ObjectKind == "server":
		belongs = types.Entity{UID: types.NewEntityUID(typeServer, "server")}
	default:
		belongs = q.entities.target
	}
	q.uid.Resource, q.entities.resource = belongs.UID, belongs
}

// columnTag gives a column's entity the tag that is asked about.
func (q *question) columnTag(column ColumnRef, tag string) {
	q.entities.resource.Attributes = types.NewRecord(types.RecordMap{"tag": types.String(tag), "name": types.String(column.String())})
}

// context is the record of the wanted attributes. What the request does not
// have is left out: a rule that needs it without testing for it cannot be
// evaluated, and denies.
func (q *question) context(with attr) types.Record {
	if with&(attrsContext-1) == 0 {
		return types.Record{}
	}
	m := make(types.RecordMap, len(contextNames))
	for i, name := range contextNames {
		if with&(1<<i) == 0 {
			continue
		}
		if v := q.attribute(1 << i); v != nil {
			m[name] = v
		}
	}
	return types.NewRecord(m)
}

// attribute is the value of one attribute, nil if the request has none.
func (q *question) attribute(a attr) types.Value {
	if a&statementAttrs != 0 {
		return q.statementAttribute(a)
	}
	r := q.request
	switch a {
	case attrRowLimit:
		return optionalLong(q.limit, q.limit > 0)
	case attrBudget:
		return optionalLong(q.budget, q.budgeted)
	case attrApprovals:
		return stringSet(q.approvals)
	case attrDuration:
		return optionalLong(int64(r.Duration.Seconds()), r.Duration > 0)
	case attrPurpose:
		return optionalString(r.Purpose)
	case attrTicket:
		return optionalString(r.Ticket)
	case attrNow:
		if r.Now.IsZero() {
			return nil
		}
		return cedar.NewDatetime(r.Now)
	case attrSourceIP:
		ip := r.SourceIP.WithZone("").Unmap()
		if !ip.IsValid() {
			return nil
		}
		prefix, err := ip.Prefix(ip.BitLen())
		if err != nil {
			return nil
		}
		return types.IPAddr(prefix)
	case attrVia:
		return types.String(r.Via)
	case attrMFA:
		return types.Boolean(r.Principal.MFA)
	}
	return nil // method, operation, contentType: of protocols that have them
}

// statementAttrs are those that a statement gives; empty without one.
const statementAttrs = attrKind | attrTables | attrColumns | attrPredicateColumns | attrWriteColumns | attrFunctions | attrHasWhere |
	attrAggregatesTagged | attrStatements | attrInTransaction | attrFingerprint

func (q *question) statementAttribute(a attr) types.Value {
	st, f := q.request.Statement, &Facts{}
	if st == nil {
		st = &Statement{}
	}
	if st.Facts != nil {
		f = st.Facts
	}
	switch a {
	case attrKind:
		return types.String(f.Kind)
	case attrTables:
		return stringSet(f.Tables)
	case attrColumns:
		return stringSet(f.Columns)
	case attrPredicateColumns:
		return stringSet(f.PredicateColumns)
	case attrWriteColumns:
		return stringSet(f.WriteColumns)
	case attrFunctions:
		return stringSet(f.Functions)
	case attrHasWhere:
		return types.Boolean(f.HasWhere)
	case attrAggregatesTagged:
		return types.Boolean(q.set.aggregatesTagged(&q.request.Target, f))
	case attrStatements:
		return types.Long(st.Statements)
	case attrInTransaction:
		return types.Boolean(st.InTransaction)
	default:
		return optionalString(f.Fingerprint)
	}
}

func optionalLong(n int64, has bool) types.Value {
	if !has {
		return nil
	}
	return types.Long(n)
}

func optionalString(s string) types.Value {
	if s == "" {
		return nil
	}
	return types.String(s)
}

func stringSet(words []string) types.Set {
	if len(words) == 0 {
		return types.Set{}
	}
	vals := make([]types.Value, len(words))
	for i, w := range words {
		vals[i] = types.String(w)
	}
	return types.NewSet(vals...)
}

// aggregatesTagged reports whether a statement folds rows of a tagged column
// into fewer values, so that a limit on rows would not limit what it shows.
// While names are not resolved, any table that may be a tagged one counts.
func (s *Set) aggregatesTagged(t *TargetRef, f *Facts) bool {
	if !f.Aggregates {
		return false
	}
	tg := s.taggingOf(t)
	for _, c := range f.Columns {
		if tg.columns[c] || strings.HasSuffix(c, ".*") && tg.tables[strings.TrimSuffix(c, ".*")] {
			return true
		}
	}
	if !f.Unresolved {
		return false
	}
	for _, name := range f.Tables {
		if tg.tables[name] || tg.names[name[strings.LastIndexByte(name, '.')+1:]] {
			return true
		}
	}
	return false
}
