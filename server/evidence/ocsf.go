package evidence

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// ocsfVersion is the schema that events are written in. https://schema.ocsf.io/1.3.0
const ocsfVersion = "1.3.0"

// Classes of OCSF that events become.
const (
	ocsfFinding        = 2004 // Detection Finding
	ocsfAuthentication = 3002
	ocsfEntity         = 3004 // Entity Management
	ocsfUserAccess     = 3005 // User Access Management
	ocsfLifecycle      = 6002 // Application Lifecycle
	ocsfDatastore      = 6005 // Datastore Activity
)

const ocsfOther = 99

var ocsfNames = map[int]struct{ class, category string }{
	ocsfFinding:        {"Detection Finding", "Findings"},
	ocsfAuthentication: {"Authentication", "Identity & Access Management"},
	ocsfEntity:         {"Entity Management", "Identity & Access Management"},
	ocsfUserAccess:     {"User Access Management", "Identity & Access Management"},
	ocsfLifecycle:      {"Application Lifecycle", "Application Activity"},
	ocsfDatastore:      {"Datastore Activity", "Application Activity"},
}

// activity is what an event is in OCSF.
type activity struct {
	class, id int
	name      string
}

// activities are the kinds that are the same whatever else the event says.
var activities = map[string]activity{
	api.EventLogin:        {ocsfAuthentication, 1, "Logon"},
	api.EventRenew:        {ocsfAuthentication, ocsfOther, "Renew"},
	api.EventLogout:       {ocsfAuthentication, 2, "Logoff"},
	api.EventRefused:      {ocsfAuthentication, 1, "Logon"},
	api.EventSecret:       {ocsfAuthentication, ocsfOther, "Secret issued"},
	api.EventGrant:        {ocsfUserAccess, 1, "Assign Privileges"},
	api.EventGrantEnd:     {ocsfUserAccess, 2, "Revoke Privileges"},
	api.EventRequest:      {ocsfUserAccess, ocsfOther, "Request"},
	api.EventApproval:     {ocsfUserAccess, ocsfOther, "Answer"},
	api.EventRequestEnd:   {ocsfUserAccess, ocsfOther, "Request ended"},
	api.EventSessionOpen:  {ocsfDatastore, 3, "Connect"},
	api.EventSessionClose: {ocsfDatastore, ocsfOther, "Disconnect"},
	api.EventOutcome:      {ocsfDatastore, ocsfOther, "Outcome"},
	api.EventCancel:       {ocsfDatastore, ocsfOther, "Cancel"},
	api.EventAside:        {ocsfDatastore, ocsfOther, "Aside"},
	api.EventResource:     {ocsfEntity, 3, "Update"},
	api.EventAdmin:        {ocsfEntity, ocsfOther, "Administration"},
	api.EventGap:          {ocsfFinding, 1, "Create"},
	api.EventRecovery:     {ocsfFinding, 1, "Create"},
	api.EventWitness:      {ocsfFinding, 1, "Create"},
}

// commands are the activities of statements in Datastore Activity.
var commands = map[string]activity{
	"SELECT": {ocsfDatastore, 1, "Read"}, "COPY": {ocsfDatastore, 1, "Read"}, "FETCH": {ocsfDatastore, 1, "Read"},
	"UPDATE": {ocsfDatastore, 2, "Update"}, "ALTER": {ocsfDatastore, 2, "Update"},
	"INSERT": {ocsfDatastore, 5, "Write"}, "MERGE": {ocsfDatastore, 5, "Write"},
	"CREATE": {ocsfDatastore, 6, "Create"},
	"DELETE": {ocsfDatastore, 7, "Delete"}, "DROP": {ocsfDatastore, 7, "Delete"}, "TRUNCATE": {ocsfDatastore, 7, "Delete"},
}

func activityOf(e *api.Event) activity {
	if e.Kind == api.EventStatement {
		word, _, _ := strings.Cut(strings.ToUpper(e.Command), " ")
		if a, ok := commands[word]; ok {
			return a
		}
		return activity{ocsfDatastore, 4, "Query"}
	}
	if a, ok := activities[e.Kind]; ok {
		return a
	}
	return activity{ocsfLifecycle, ocsfOther, e.Kind}
}

// severity is how much an event wants to be looked at: in OCSF's numbers, and
// in syslog's (RFC 5424, 6.2.1).
func severity(e *api.Event) (id int, name string, syslog int) {
	switch {
	case e.Kind == api.EventWitness:
		return 5, "Critical", 2
	case e.Kind == api.EventGap, e.Kind == api.EventRecovery:
		return 4, "High", 3
	case e.Verdict == "deny", e.Kind == api.EventRefused:
		return 3, "Medium", 4
	case e.Kind == api.EventAdmin, e.Kind == api.EventResource, e.Verdict == "review":
		return 2, "Low", 5
	}
	return 1, "Informational", 6
}

func failed(e *api.Event) bool {
	return e.Verdict == "deny" || e.Kind == api.EventRefused || e.SQLState != "" || e.Status == "error"
}

// ocsfEvent is an event as OCSF has it. Fields are in the order of the output.
type ocsfEvent struct {
	ActivityID   int             `json:"activity_id"`
	ActivityName string          `json:"activity_name"`
	CategoryUID  int             `json:"category_uid"`
	CategoryName string          `json:"category_name"`
	ClassUID     int             `json:"class_uid"`
	ClassName    string          `json:"class_name"`
	TypeUID      int             `json:"type_uid"`
	SeverityID   int             `json:"severity_id"`
	Severity     string          `json:"severity"`
	StatusID     int             `json:"status_id"`
	Status       string          `json:"status"`
	StatusCode   string          `json:"status_code,omitempty"`
	StatusDetail string          `json:"status_detail,omitempty"`
	Time         int64           `json:"time"` // milliseconds since 1970
	Message      string          `json:"message,omitempty"`
	Metadata     ocsfMetadata    `json:"metadata"`
	Actor        *ocsfActor      `json:"actor,omitempty"`
	User         *ocsfUser       `json:"user,omitempty"`
	Source       *ocsfEndpoint   `json:"src_endpoint,omitempty"`
	Destination  *ocsfEndpoint   `json:"dst_endpoint,omitempty"`
	Database     *ocsfNamed      `json:"database,omitempty"`
	Query        *ocsfQuery      `json:"query_info,omitempty"`
	Privileges   []string        `json:"privileges,omitempty"`
	Entity       *ocsfNamed      `json:"entity,omitempty"`
	Application  *ocsfNamed      `json:"app,omitempty"`
	Finding      *ocsfFindingRef `json:"finding_info,omitempty"`
	Unmapped     ocsfUnmapped    `json:"unmapped"`
}

type ocsfMetadata struct {
	Version  string      `json:"version"`
	UID      string      `json:"uid"` // the same for each copy of an event
	LogName  string      `json:"log_name"`
	Sequence uint64      `json:"sequence"` // the leaf's index: without holes
	Product  ocsfProduct `json:"product"`
}

type ocsfProduct struct {
	Name   string `json:"name"`
	Vendor string `json:"vendor_name"`
}

type ocsfActor struct {
	User    *ocsfUser  `json:"user,omitempty"`
	Session *ocsfNamed `json:"session,omitempty"`
}

type ocsfUser struct {
	Name   string      `json:"name,omitempty"`
	UID    string      `json:"uid,omitempty"`
	Groups []ocsfNamed `json:"groups,omitempty"`
}

type ocsfNamed struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
	Type string `json:"type,omitempty"`
}

type ocsfEndpoint struct {
	IP      string `json:"ip,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	Service string `json:"svc_name,omitempty"`
	UID     string `json:"uid,omitempty"`
}

type ocsfQuery struct {
	Text  string `json:"query_string"`
	UID   string `json:"uid,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
}

type ocsfFindingRef struct {
	UID   string `json:"uid"`
	Title string `json:"title"`
}

// ocsfUnmapped keeps the whole event, and the hash by which its proof names it.
type ocsfUnmapped struct {
	Event    json.RawMessage `json:"hoopctl"`
	LeafHash string          `json:"hoopctl_leaf_hash,omitempty"` // RFC 6962, hex
}

// Leaf is the canonical bytes of an event, as they are in the log.
func Leaf(e *api.Event) []byte {
	return appendBody(appendHead(nil, e.Index, e.Node, e.Time.UTC()), e)
}

// hashOf is the hash by which the tree knows a leaf, hex. A leaf that was read
// back and holds U+FFFD may have been written with what was no UTF-8: its exact
// bytes are in the log only, and there is no hash.
func hashOf(leaf []byte) string {
	if bytes.ContainsRune(leaf, utf8.RuneError) {
		return ""
	}
	h := tlog.RecordHash(leaf)
	return hex.EncodeToString(h[:])
}

// AppendOCSF appends an event as one line of OCSF JSON. Statements have no
// literals, as in the timeline; what could steer a terminal is escaped.
func AppendOCSF(b []byte, e *api.Event) ([]byte, error) {
	a := activityOf(e)
	id, name, _ := severity(e)
	leaf := Leaf(e)
	o := ocsfEvent{
		ActivityID: a.id, ActivityName: a.name, CategoryUID: a.class / 1000, CategoryName: ocsfNames[a.class].category, ClassUID: a.class, ClassName: ocsfNames[a.class].class,
		TypeUID: a.class*100 + a.id, SeverityID: id, Severity: name, StatusID: 1, Status: "Success", StatusCode: e.SQLState, StatusDetail: e.Reason,
		Time: e.Time.UnixMilli(), Message: e.Kind,
		Metadata: ocsfMetadata{Version: ocsfVersion, UID: EventID(e), LogName: Origin(e.Node), Sequence: e.Index, Product: ocsfProduct{"hoopctl", "hoopctl"}},
		Unmapped: ocsfUnmapped{Event: leaf, LeafHash: hashOf(leaf)},
	}
	if failed(e) {
		o.StatusID, o.Status = 2, "Failure"
	}
	o.actor(e)
	o.class(e, a)
	line, err := json.Marshal(&o)
	if err != nil {
		return b, fmt.Errorf("leaf %d as OCSF: %w", e.Index, err)
	}
	return append(append(b, harmless(line)...), '\n'), nil
}

// EventID names an event everywhere and always: its log and its place in it.
func EventID(e *api.Event) string { return fmt.Sprintf("%s/%d", Origin(e.Node), e.Index) }

func (o *ocsfEvent) actor(e *api.Event) {
	if e.Principal != "" || e.Name != "" {
		u := &ocsfUser{Name: e.Name, UID: e.Principal}
		for _, g := range e.Groups {
			u.Groups = append(u.Groups, ocsfNamed{Name: g})
		}
		o.Actor, o.User = &ocsfActor{User: u}, u
	}
	if uid := e.Session + e.Login; uid != "" && o.Actor != nil {
		if e.Session != "" {
			uid = e.Session
		}
		o.Actor.Session = &ocsfNamed{UID: uid}
	}
	if at, err := netip.ParseAddrPort(e.Source); err == nil {
		o.Source = &ocsfEndpoint{IP: at.Addr().String(), Port: at.Port()}
	}
}

// class fills what the event's class asks for.
func (o *ocsfEvent) class(e *api.Event, a activity) {
	switch a.class {
	case ocsfDatastore:
		o.User = nil
		o.Database = &ocsfNamed{Name: e.Target, Type: "Relational"}
		if e.Statement != "" {
			o.Query = &ocsfQuery{Text: e.Statement, UID: e.Fingerprint}
		}
		if e.Kind == api.EventOutcome {
			o.Query = &ocsfQuery{Text: e.Status, Bytes: e.Bytes}
		}
		if o.Source == nil { // only a session's first event names the address
			o.Source = &ocsfEndpoint{UID: e.Session}
		}
	case ocsfUserAccess:
		o.Privileges = []string{"connect " + e.Target}
	case ocsfEntity:
		o.User = nil
		o.Entity = &ocsfNamed{Name: e.Object, Type: e.Kind}
	case ocsfLifecycle:
		o.User = nil
		o.Application = &ocsfNamed{Name: "hoopctl", UID: e.Node}
	case ocsfFinding:
		o.User = nil
		o.Finding = &ocsfFindingRef{UID: EventID(e), Title: "evidence " + e.Kind}
	}
	if e.Target != "" && a.class != ocsfDatastore {
		o.Destination = &ocsfEndpoint{Service: e.Target}
	}
}

// harmless escapes in JSON what is no printable text: json leaves DEL, C1
// controls and what reorders text as it is. Such runes stand in strings only.
func harmless(line []byte) []byte {
	clean := true
	for i := 0; i < len(line) && clean; {
		r, n := utf8.DecodeRune(line[i:])
		clean = !unsafe(r)
		i += n
	}
	if clean {
		return line
	}
	var b bytes.Buffer
	for _, r := range string(line) {
		switch {
		case !unsafe(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

func unsafe(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}

// AppendSyslog appends an event as one message of RFC 5424: facility 13 (log
// audit), MSGID is the kind, MSG the leaf's JSON. meta's sequenceId counts as
// RFC 5424, 7.3.1 says; the index in MSG never starts over.
func AppendSyslog(b []byte, e *api.Event) []byte {
	_, _, level := severity(e)
	const facility = 13
	b = fmt.Appendf(b, "<%d>1 %s %s hoopctl - %s [meta sequenceId=\"%d\"] ", facility*8+level, e.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		syslogName(e.Node, 255), syslogName(e.Kind, 32), e.Index%(1<<31-1)+1)
	return append(b, harmless(Leaf(e))...)
}

// syslogName makes text a header field: printable ASCII without spaces.
func syslogName(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}
