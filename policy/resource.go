package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Resource is one document that an organisation writes: a kind, a name, labels
// and one of the specs below. Secrets never stand in a resource, only where
// they are to be found.
type Resource struct {
	APIVersion string   `yaml:"apiVersion" json:"apiVersion"` // hoopctl/v1; may be left out
	Kind       string   `yaml:"kind" json:"kind"`
	Metadata   Metadata `yaml:"metadata" json:"metadata"`
	Spec       any      `yaml:"spec" json:"spec"` // *TargetSpec, *ClassificationSpec, …: by Kind

	// Origin is the file and line that it was read from: "phi.yaml:12"; "" if
	// it was made by a program.
	Origin string `yaml:"-" json:"-"`
}

// Metadata names a resource.
type Metadata struct {
	Name   string            `yaml:"name" json:"name"`
	Labels map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
}

// Kinds of resource.
const (
	KindTarget         = "Target"
	KindClassification = "Classification"
	KindClearance      = "Clearance"
	KindGrantRule      = "GrantRule"
	KindService        = "Service"
	KindPolicy         = "Policy"
	KindException      = "Exception"
	KindLegalHold      = "LegalHold"
)

// ID is kind and name, as errors and evidence name a resource: "Policy/engineers".
func (r Resource) ID() string { return r.Kind + "/" + r.Metadata.Name }

// Duration is a time.Duration written as "15m" in YAML and JSON. "0s" is set
// and zero; a pointer to it tells unset from zero.
type Duration time.Duration

// String is the shortest form that reads back as the same duration: "1h30m",
// not "1h30m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// MarshalText implements encoding.TextMarshaler, for JSON and YAML.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Negative durations are refused.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write a number and a unit, as in 15m, 8h or 1h30m", b)
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", b)
	}
	*d = Duration(v)
	return nil
}

// Selector picks targets: by names, or by labels that must all match. The
// empty selector picks none.
type Selector struct {
	Names       []string          `yaml:"names,omitempty" json:"names,omitempty"`
	MatchLabels map[string]string `yaml:"matchLabels,omitempty" json:"matchLabels,omitempty"`
}

// Matches reports whether the selector picks a target of that name and labels.
// Names and labels are alternatives: either may pick.
func (s Selector) Matches(t TargetRef) bool {
	if slices.Contains(s.Names, t.Name) {
		return true
	}
	if len(s.MatchLabels) == 0 {
		return false
	}
	for k, v := range s.MatchLabels {
		if have, ok := t.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Empty reports whether the selector picks nothing.
func (s Selector) Empty() bool { return len(s.Names) == 0 && len(s.MatchLabels) == 0 }

// labels are the selector's labels in the form "env=dev", sorted.
func (s Selector) labels() []string { return labelNames(s.MatchLabels) }

func labelNames(labels map[string]string) []string {
	out := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return out
}

// TargetSpec says what is reached and how.
type TargetSpec struct {
	Protocol           string      `yaml:"protocol" json:"protocol"`                   // postgres | http
	Address            string      `yaml:"address,omitempty" json:"address,omitempty"` // host:port; http: a base URL
	Addresses          []string    `yaml:"addresses,omitempty" json:"addresses,omitempty"`
	TargetSessionAttrs string      `yaml:"targetSessionAttrs,omitempty" json:"targetSessionAttrs,omitempty"` // any (default) | read-write | primary | standby | prefer-standby | read-only
	Database           string      `yaml:"database,omitempty" json:"database,omitempty"`
	Databases          []string    `yaml:"databases,omitempty" json:"databases,omitempty"` // clients choose among these; Database is the default
	TLS                TargetTLS   `yaml:"tls,omitempty" json:"tls,omitzero"`
	Credentials        Credentials `yaml:"credentials,omitempty" json:"credentials,omitzero"`
	Agent              string      `yaml:"agent,omitempty" json:"agent,omitempty"`
	Evidence           string      `yaml:"evidence,omitempty" json:"evidence,omitempty"`   // strict (default) | async
	Recording          string      `yaml:"recording,omitempty" json:"recording,omitempty"` // full | head:N | none; "" is the house's default
	Session            SessionSpec `yaml:"session,omitempty" json:"session,omitzero"`
	Hold               HoldSpec    `yaml:"hold,omitempty" json:"hold,omitzero"`
	Enforcement        string      `yaml:"enforcement,omitempty" json:"enforcement,omitempty"` // enforce (default)
}

// TargetTLS is how the server speaks TLS to a target.
type TargetTLS struct {
	Mode   string `yaml:"mode,omitempty" json:"mode,omitempty"` // verify-full (default) | require | disable
	CAFile string `yaml:"caFile,omitempty" json:"caFile,omitempty"`
	// ChannelBinding ties a SCRAM log-in to the TLS connection that it is made
	// on: prefer (default) | require | disable.
	ChannelBinding string `yaml:"channelBinding,omitempty" json:"channelBinding,omitempty"`
}

// Credentials say how the server logs in to a target.
type Credentials struct {
	Mode         string     `yaml:"mode,omitempty" json:"mode,omitempty"` // static (default) | ephemeral | certificate
	Username     string     `yaml:"username,omitempty" json:"username,omitempty"`
	PasswordFrom SecretFrom `yaml:"passwordFrom,omitempty" json:"passwordFrom,omitzero"`
	// CertFile and KeyFile are the PEM client certificate and its key, for mode
	// certificate; both below the server's secretsDir.
	CertFile string `yaml:"certFile,omitempty" json:"certFile,omitempty"`
	KeyFile  string `yaml:"keyFile,omitempty" json:"keyFile,omitempty"`
	// AllowCleartext lets the password go to the target as it is, where the
	// target asks for that: RDS IAM, LDAP and PAM do. Only over verify-full.
	AllowCleartext bool `yaml:"allowCleartext,omitempty" json:"allowCleartext,omitempty"`
	// Roles are what the role that mode ephemeral makes for a session is a
	// member of; the first is the session's role and inherits what it owned.
	Roles []string `yaml:"roles,omitempty" json:"roles,omitempty"`
}

// SecretFrom says where a secret is to be found: exactly one field is set.
type SecretFrom struct {
	Env  string      `yaml:"env,omitempty" json:"env,omitempty"`
	File string      `yaml:"file,omitempty" json:"file,omitempty"` // below the server's secretsDir
	Exec *SecretExec `yaml:"exec,omitempty" json:"exec,omitempty"`
}

// SecretExec is a command whose standard output is the secret.
type SecretExec struct {
	Command []string `yaml:"command" json:"command"`
	TTL     Duration `yaml:"ttl,omitempty" json:"ttl,omitempty"`
}

// SessionSpec bounds a session. Nil fields take the house's defaults: idle 15m, max 8h, idleInTransaction 5m.
type SessionSpec struct {
	Idle              *Duration `yaml:"idle,omitempty" json:"idle,omitempty"`
	Max               *Duration `yaml:"max,omitempty" json:"max,omitempty"`
	IdleInTransaction *Duration `yaml:"idleInTransaction,omitempty" json:"idleInTransaction,omitempty"`
}

// HoldSpec bounds how long a statement may wait for people. Nil fields take
// the defaults: inTransaction 2m, max 15m.
type HoldSpec struct {
	InTransaction *Duration `yaml:"inTransaction,omitempty" json:"inTransaction,omitempty"`
	Max           *Duration `yaml:"max,omitempty" json:"max,omitempty"`
}

// ClassificationSpec says what is sensitive, and how it is shown to those not cleared.
type ClassificationSpec struct {
	Targets    Selector     `yaml:"targets" json:"targets"`
	Columns    []ColumnTag  `yaml:"columns,omitempty" json:"columns,omitempty"`
	Subject    *SubjectSpec `yaml:"subject,omitempty" json:"subject,omitempty"`
	Fields     []FieldTag   `yaml:"fields,omitempty" json:"fields,omitempty"`
	Detect     *DetectSpec  `yaml:"detect,omitempty" json:"detect,omitempty"`
	Predicates string       `yaml:"predicates,omitempty" json:"predicates,omitempty"` // deny | equality (default) | allow
}

// ColumnTag tags one column: schema.table.column.
type ColumnTag struct {
	Column string `yaml:"column" json:"column"`
	Tag    string `yaml:"tag" json:"tag"` // "none": looked at and harmless
	Mask   string `yaml:"mask,omitempty" json:"mask,omitempty"`
}

// SubjectSpec says who a row is about.
type SubjectSpec struct {
	Column string `yaml:"column" json:"column"`
	ID     string `yaml:"id" json:"id"`
}

// FieldTag tags a field of HTTP bodies.
type FieldTag struct {
	Path string `yaml:"path" json:"path"`
	JSON string `yaml:"json" json:"json"`
	Tag  string `yaml:"tag" json:"tag"`
	Mask string `yaml:"mask,omitempty" json:"mask,omitempty"`
}

// DetectSpec turns the scanner on.
type DetectSpec struct {
	Entities []string `yaml:"entities" json:"entities"`
	In       string   `yaml:"in,omitempty" json:"in,omitempty"` // text
}

// ClearanceSpec says which groups may see which tags, for which purposes (none named: any).
type ClearanceSpec struct {
	Groups   []string `yaml:"groups" json:"groups"`
	Tags     []string `yaml:"tags" json:"tags"`
	Purposes []string `yaml:"purposes,omitempty" json:"purposes,omitempty"`
}

// GrantRuleSpec says how one comes by a grant.
type GrantRuleSpec struct {
	Groups    []string     `yaml:"groups" json:"groups"`
	Targets   Selector     `yaml:"targets" json:"targets"`
	MaxFor    Duration     `yaml:"maxFor,omitempty" json:"maxFor,omitempty"` // default 1h
	Standing  bool         `yaml:"standing,omitempty" json:"standing,omitempty"`
	Approve   *ApproveSpec `yaml:"approve,omitempty" json:"approve,omitempty"`
	Require   []string     `yaml:"require,omitempty" json:"require,omitempty"` // reason | ticket | purpose
	Idle      *Duration    `yaml:"idle,omitempty" json:"idle,omitempty"`
	Grace     *Duration    `yaml:"grace,omitempty" json:"grace,omitempty"`
	Owner     string       `yaml:"owner,omitempty" json:"owner,omitempty"`       // of a standing grant
	ReviewBy  string       `yaml:"reviewBy,omitempty" json:"reviewBy,omitempty"` // date
	Lapse     string       `yaml:"lapse,omitempty" json:"lapse,omitempty"`       // page (default) | cut
	Recording string       `yaml:"recording,omitempty" json:"recording,omitempty"`
}

// ApproveSpec says who must answer.
type ApproveSpec struct {
	Groups []string `yaml:"groups" json:"groups"`
	Quorum int      `yaml:"quorum,omitempty" json:"quorum,omitempty"` // default 1
}

// ServiceSpec is a machine principal: its owner, how it proves itself, what it may do.
type ServiceSpec struct {
	Owner         string            `yaml:"owner" json:"owner"`
	Issuer        string            `yaml:"issuer" json:"issuer"`
	Match         map[string]string `yaml:"match" json:"match"`
	Groups        []string          `yaml:"groups,omitempty" json:"groups,omitempty"`
	AcceptsMasked bool              `yaml:"acceptsMasked,omitempty" json:"acceptsMasked,omitempty"`
	Recipient     string            `yaml:"recipient,omitempty" json:"recipient,omitempty"`
	ReviewBy      string            `yaml:"reviewBy,omitempty" json:"reviewBy,omitempty"`
	Statements    []string          `yaml:"statements,omitempty" json:"statements,omitempty"` // fingerprints
	Hold          *Duration         `yaml:"hold,omitempty" json:"hold,omitempty"`             // default 0s
}

// PolicySpec holds Cedar text.
type PolicySpec struct {
	Cedar string `yaml:"cedar" json:"cedar"`

	// Line is the line of Origin's file on which Cedar's first line stands, 0
	// if it was not read from a file.
	Line int `yaml:"-" json:"-"`
}

// ExceptionSpec is a time-boxed exception to failing closed; it names its second evidence sink.
type ExceptionSpec struct {
	Targets Selector `yaml:"targets" json:"targets"`
	Until   string   `yaml:"until" json:"until"`
	Sink    string   `yaml:"sink" json:"sink"`
	Reason  string   `yaml:"reason" json:"reason"`
}

// LegalHoldSpec keeps recordings from ending.
type LegalHoldSpec struct {
	Sessions []string `yaml:"sessions,omitempty" json:"sessions,omitempty"`
	Targets  Selector `yaml:"targets,omitempty" json:"targets,omitzero"`
	Reason   string   `yaml:"reason" json:"reason"`
}
