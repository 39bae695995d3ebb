package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hoopctl/hoopctl/policy/mask"
)

// Words that fields may hold, first the default.
var (
	protocols    = []string{"postgres", "http"}
	sessionAttrs = []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}
	tlsModes     = []string{"verify-full", "require", "disable"}
	bindings     = []string{"prefer", "require", "disable"}
	credModes    = []string{"static", "ephemeral", "certificate"}
	durability   = []string{"strict", "async"}
	predicates   = []string{"equality", "deny", "allow"}
	requirements = []string{"reason", "ticket", "purpose"}
	lapses       = []string{"page", "cut"}
	detectable   = mask.Entities()
)

// Methods are the mask methods, from the one that shows least to the one that
// shows most. Where several apply to one column the earliest here wins.
func Methods() []string {
	return []string{"null", "redact", "token", "year", "age", "zip3", "domain", "last4"}
}

// methodRank orders methods by strength, 0 the strongest. A method that is not
// known ranks, and is shown, as redact.
func methodRank(m string) int {
	if i := slices.Index(Methods(), m); i >= 0 {
		return i
	}
	return 1
}

// strongerMethod is the one of two methods that shows less; "" is redact.
func strongerMethod(a, b string) string {
	r := min(methodRank(a), methodRank(b))
	return Methods()[r]
}

// check reports what is wrong with a resource that decoded well, by itself;
// what it means beside others is for Compile.
func (d *decoder) check(r *Resource) {
	d.checkName("metadata.name", r.Metadata.Name)
	d.checkLabels("metadata.labels", r.Metadata.Labels)
	switch s := r.Spec.(type) {
	case *TargetSpec:
		d.checkTarget(s)
	case *ClassificationSpec:
		d.checkClassification(s)
	case *ClearanceSpec:
		d.checkGroups("spec.groups", s.Groups, true)
		d.checkNames("spec.tags", s.Tags, true)
		d.checkNames("spec.purposes", s.Purposes, false)
	case *GrantRuleSpec:
		d.checkGrantRule(s)
	case *ServiceSpec:
		d.checkService(s)
	case *PolicySpec:
		if strings.TrimSpace(s.Cedar) == "" {
			d.at("spec.cedar", "is empty")
		}
	case *ExceptionSpec:
		d.checkSelector("spec.targets", s.Targets, true)
		d.required("spec.until", s.Until)
		d.checkDate("spec.until", s.Until)
		d.required("spec.sink", s.Sink)
		d.required("spec.reason", s.Reason)
	case *LegalHoldSpec:
		d.checkSelector("spec.targets", s.Targets, len(s.Sessions) == 0)
		d.required("spec.reason", s.Reason)
	default:
		d.at("spec", "is %T, which is the spec of no kind", r.Spec)
	}
}

func (d *decoder) required(field, v string) {
	if v == "" {
		d.at(field, "is missing")
	}
}

// oneOf reports a value that is not among the known ones; "" is the default.
func (d *decoder) oneOf(field, v string, known []string) {
	if v != "" && !slices.Contains(known, v) {
		d.at(field, "is %q%s; one of %s", v, didYouMean(v, known), strings.Join(known, ", "))
	}
}

// checkName holds names to what is safe in a path, a host name, a flag and a
// Cedar entity: lower-case letters, digits, "-", "_" and ".", at most 63.
func (d *decoder) checkName(field, name string) {
	if name == "" {
		d.at(field, "is missing")
		return
	}
	if !validName(name) {
		d.at(field, "%q is not a name: 1 to 63 lower-case letters, digits, '-', '_' and '.', beginning with a letter or digit", name)
	}
}

func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '_' || c == '.'):
		default:
			return false
		}
	}
	return name != "" && len(name) <= 63
}

// validWord holds tags, purposes and labels: no space, comma, quote, colon or
// slash, which separate such words in messages and on the command line.
func validWord(s string) bool {
	for _, c := range s {
		if c <= ' ' || c == 0x7f || strings.ContainsRune(`,"'/:=;\`, c) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// checkGroups holds groups, which an identity provider names: "/eng/db" and
// "Domain Users" are groups.
func (d *decoder) checkGroups(field string, groups []string, need bool) {
	if need && len(groups) == 0 {
		d.at(field, "names none")
	}
	for i, g := range groups {
		at := field + "[" + strconv.Itoa(i) + "]"
		if !validGroup(g) {
			d.at(at, "%q is not a group: 1 to 128 printable characters, no quotes, no space around it", g)
		} else if slices.Contains(groups[:i], g) {
			d.at(at, "%q is named twice", g)
		}
	}
}

func validGroup(s string) bool {
	for _, c := range s {
		if c < ' ' || c == 0x7f || c == '"' || c == utf8.RuneError {
			return false
		}
	}
	return s != "" && len(s) <= 128 && strings.TrimSpace(s) == s
}

func (d *decoder) checkNames(field string, words []string, need bool) {
	if need && len(words) == 0 {
		d.at(field, "names none")
	}
	for i, w := range words {
		at := field + "[" + strconv.Itoa(i) + "]"
		if !validWord(w) {
			d.at(at, "%q is not a word: no spaces, commas, colons, slashes, quotes or '='", w)
		} else if slices.Contains(words[:i], w) {
			d.at(at, "%q is named twice", w)
		}
	}
}

func (d *decoder) checkLabels(field string, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		v := labels[k]
		if !validWord(k) || !validWord(v) {
			d.at(field+"."+k, "%q is not a label: key and value are words without spaces, commas, colons, slashes, quotes or '='", k+"="+v)
		}
	}
}

func (d *decoder) checkSelector(field string, s Selector, need bool) {
	if need && s.Empty() {
		d.at(field, "picks no target: give names or matchLabels")
	}
	for i, n := range s.Names {
		d.checkName(field+".names["+strconv.Itoa(i)+"]", n)
	}
	d.checkLabels(field+".matchLabels", s.MatchLabels)
}

// checkDate holds dates to 2027-06-01 or RFC 3339.
func (d *decoder) checkDate(field, v string) {
	if v == "" {
		return
	}
	if _, err := ParseDate(v); err != nil {
		d.at(field, "%s", err)
	}
}

// ParseDate reads a date of a resource: "2027-06-01" (midnight UTC, its
// beginning) or RFC 3339.
func ParseDate(s string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date: write 2027-06-01 or 2027-06-01T12:00:00Z", s)
}

func (d *decoder) checkTarget(s *TargetSpec) {
	d.required("spec.protocol", s.Protocol)
	d.oneOf("spec.protocol", s.Protocol, protocols)
	switch {
	case s.Address == "" && len(s.Addresses) == 0:
		d.at("spec.address", "is missing: give address or addresses")
	case s.Address != "" && len(s.Addresses) > 0:
		d.at("spec.addresses", "stands beside address: give one of both")
	}
	if s.Address != "" {
		d.checkAddress("spec.address", s.Protocol, s.Address)
	}
	for i, a := range s.Addresses {
		d.checkAddress("spec.addresses["+strconv.Itoa(i)+"]", s.Protocol, a)
	}
	d.oneOf("spec.targetSessionAttrs", s.TargetSessionAttrs, sessionAttrs)
	if len(s.Databases) > 0 && s.Database != "" && !slices.Contains(s.Databases, s.Database) {
		d.at("spec.database", "%q is not among databases", s.Database)
	}
	d.oneOf("spec.tls.mode", s.TLS.Mode, tlsModes)
	if s.TLS.CAFile != "" && s.TLS.Mode == "disable" {
		d.at("spec.tls.caFile", "means nothing with mode disable")
	}
	d.oneOf("spec.tls.channelBinding", s.TLS.ChannelBinding, bindings)
	if s.TLS.ChannelBinding == "require" && s.TLS.Mode == "disable" {
		d.at("spec.tls.channelBinding", "require needs TLS: mode is disable")
	}
	d.checkCredentials(s)
	if s.Agent != "" {
		d.checkName("spec.agent", s.Agent)
	}
	d.oneOf("spec.evidence", s.Evidence, durability)
	d.checkRecording("spec.recording", s.Recording)
	d.checkEnforcement(s.Enforcement)
}

func (d *decoder) checkCredentials(s *TargetSpec) {
	c := &s.Credentials
	d.oneOf("spec.credentials.mode", c.Mode, credModes)
	if s.Protocol == "postgres" && c.Username == "" {
		d.at("spec.credentials.username", "is missing: as whom the server logs in to the target")
	}
	if len(c.Roles) > 0 && c.Mode != "ephemeral" {
		d.at("spec.credentials.roles", "are for mode ephemeral: the roles that a session's own role is a member of")
	}
	if c.Mode == "ephemeral" {
		d.checkEphemeral(s)
	}
	if c.AllowCleartext && s.TLS.Mode != "" && s.TLS.Mode != "verify-full" {
		d.at("spec.credentials.allowCleartext", "needs tls.mode verify-full: nobody else proves who would read the password")
	}
	switch {
	case c.Mode == "certificate" && (c.CertFile == "" || c.KeyFile == ""):
		d.at("spec.credentials.mode", "certificate needs certFile and keyFile")
	case c.Mode != "certificate" && (c.CertFile != "" || c.KeyFile != ""):
		d.at("spec.credentials.certFile", "certFile and keyFile are for mode certificate")
	}
	p := &c.PasswordFrom
	n := 0
	for _, set := range []bool{p.Env != "", p.File != "", p.Exec != nil} {
		if set {
			n++
		}
	}
	if n > 1 {
		d.at("spec.credentials.passwordFrom", "names several sources: give one of env, file, exec")
	}
	if p.Exec != nil && len(p.Exec.Command) == 0 {
		d.at("spec.credentials.passwordFrom.exec.command", "is missing: the program and its arguments, as a list")
	}
}

// checkEphemeral: the role is made where it is used, so a standby will not do.
func (d *decoder) checkEphemeral(s *TargetSpec) {
	if len(s.Credentials.Roles) == 0 {
		d.at("spec.credentials.roles", "names none: what the role that is made for a session is a member of; the first is the session's role")
	}
	for i, r := range s.Credentials.Roles {
		at := "spec.credentials.roles[" + strconv.Itoa(i) + "]"
		switch {
		case r == "" || len(r) > 63 || strings.ContainsFunc(r, unicode.IsControl) || r == "none":
			d.at(at, "%q is not a role: 1 to 63 bytes, no control characters, not none", r)
		case slices.Contains(s.Credentials.Roles[:i], r):
			d.at(at, "%q is named twice", r)
		}
	}
	switch s.TargetSessionAttrs {
	case "read-only", "standby", "prefer-standby":
		d.at("spec.targetSessionAttrs", "is %s, where no role can be made; mode ephemeral needs any, read-write or primary", s.TargetSessionAttrs)
	}
}

// checkRecording: full, none, or head:N with N > 0 rows.
func (d *decoder) checkRecording(field, v string) {
	if v == "" || v == "full" || v == "none" {
		return
	}
	n, ok := strings.CutPrefix(v, "head:")
	if rows, err := strconv.ParseInt(n, 10, 64); !ok || err != nil || rows < 1 {
		d.at(field, "is %q; one of full, head:N (the first N rows), none", v)
	}
}

func (d *decoder) checkEnforcement(v string) {
	if _, err := parseEnforcement(v); err != nil {
		d.at("spec.enforcement", "%s", err)
	}
}

// parseEnforcement reads "enforce" or "observe until 2026-12-24", and returns
// until when a target is only observed; zero is never.
func parseEnforcement(v string) (until time.Time, err error) {
	if v == "" || v == "enforce" {
		return time.Time{}, nil
	}
	date, ok := strings.CutPrefix(v, "observe until ")
	if !ok {
		return time.Time{}, fmt.Errorf("is %q; one of enforce, or observe until 2026-12-24", v)
	}
	return ParseDate(date)
}

// ObservedUntil is when the target is enforced again by itself: until then it
// forwards what the policy would refuse. It is zero for a target that is
// enforced, and for what cannot be read.
func (s *TargetSpec) ObservedUntil() time.Time {
	until, err := parseEnforcement(s.Enforcement)
	if err != nil {
		return time.Time{}
	}
	return until
}

func (d *decoder) checkClassification(s *ClassificationSpec) {
	d.checkSelector("spec.targets", s.Targets, true)
	d.oneOf("spec.predicates", s.Predicates, predicates)
	for i := range s.Columns {
		c, at := &s.Columns[i], "spec.columns["+strconv.Itoa(i)+"]"
		d.checkColumn(at+".column", c.Column)
		d.checkTag(at, c.Tag, c.Mask)
		for j := range i {
			if s.Columns[j].Column == c.Column && s.Columns[j].Tag == c.Tag {
				d.at(at+".column", "%s is tagged %s twice", c.Column, c.Tag)
			}
		}
	}
	if s.Subject != nil {
		d.checkColumn("spec.subject.column", s.Subject.Column)
		d.checkColumn("spec.subject.id", s.Subject.ID)
	}
	for i := range s.Fields {
		f, at := &s.Fields[i], "spec.fields["+strconv.Itoa(i)+"]"
		if !strings.HasPrefix(f.Path, "/") {
			d.at(at+".path", "is %q; a path begins with /, as in /patients/**", f.Path)
		}
		if !strings.HasPrefix(f.JSON, "$") {
			d.at(at+".json", "is %q; a field begins with $, as in $.ssn", f.JSON)
		}
		d.checkTag(at, f.Tag, f.Mask)
	}
	if s.Detect != nil {
		d.checkNames("spec.detect.entities", s.Detect.Entities, true)
		for i, e := range s.Detect.Entities {
			d.oneOf("spec.detect.entities["+strconv.Itoa(i)+"]", e, detectable)
		}
		d.oneOf("spec.detect.in", s.Detect.In, []string{"text"})
	}
}

func (d *decoder) checkTag(at, tag, method string) {
	if !validWord(tag) {
		d.at(at+".tag", "%q is not a tag: a word without spaces, commas, colons, slashes, quotes or '='", tag)
	}
	switch {
	case method == "hash":
		d.at(at+".mask", "hash is refused: anyone can hash all nine-digit numbers and look it up; use token (a keyed HMAC, joinable)")
	case tag == "none" && method != "":
		d.at(at+".mask", "means nothing with tag none: the column is shown")
	default:
		d.oneOf(at+".mask", method, Methods())
	}
}

func (d *decoder) checkColumn(field, name string) {
	if _, err := ParseColumn(name); err != nil {
		d.at(field, "%s", err)
	}
}

// ParseColumn reads schema.table.column, as the catalogue spells the names; a
// name with a dot in it stands in double quotes, a quote in it is doubled.
func ParseColumn(s string) (ColumnRef, error) {
	var parts []string
	for rest := s; ; {
		part, after, ok := cutName(rest)
		parts = append(parts, part)
		if !ok || part == "" {
			return ColumnRef{}, fmt.Errorf("%q is not a column: write schema.table.column", s)
		}
		if after == "" {
			break
		}
		rest = after[1:]
	}
	if len(parts) != 3 {
		return ColumnRef{}, fmt.Errorf("%q is not a column: write schema.table.column", s)
	}
	return ColumnRef{Schema: parts[0], Table: parts[1], Column: parts[2]}, nil
}

// cutName takes one name off the front of s; after begins with the dot, if any.
func cutName(s string) (name, after string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexByte(s, '.')
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:], !strings.ContainsAny(s[:i], "\" \t\n")
	}
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			i++
			continue
		}
		after = s[i+1:]
		return strings.ReplaceAll(s[1:i], `""`, `"`), after, after == "" || after[0] == '.'
	}
	return "", "", false
}

func (d *decoder) checkGrantRule(s *GrantRuleSpec) {
	d.checkGroups("spec.groups", s.Groups, true)
	d.checkSelector("spec.targets", s.Targets, true)
	if s.MaxFor > Duration(365*24*time.Hour) {
		d.at("spec.maxFor", "is longer than a year")
	}
	for i, r := range s.Require {
		d.oneOf("spec.require["+strconv.Itoa(i)+"]", r, requirements)
	}
	if s.Approve != nil {
		d.checkGroups("spec.approve.groups", s.Approve.Groups, true)
		if s.Approve.Quorum < 0 || s.Approve.Quorum > maxQuorum {
			d.at("spec.approve.quorum", "is %d; 1 to %d people", s.Approve.Quorum, maxQuorum)
		}
	}
	if s.Standing {
		if s.Owner == "" {
			d.at("spec.owner", "is missing: a standing grant needs someone who answers for it")
		}
		if s.ReviewBy == "" {
			d.at("spec.reviewBy", "is missing: a standing grant needs a date on which its owner looks at it again")
		}
	}
	d.checkDate("spec.reviewBy", s.ReviewBy)
	d.oneOf("spec.lapse", s.Lapse, lapses)
	d.checkRecording("spec.recording", s.Recording)
}

func (d *decoder) checkService(s *ServiceSpec) {
	d.required("spec.owner", s.Owner)
	d.required("spec.issuer", s.Issuer)
	if len(s.Match) == 0 {
		d.at("spec.match", "is empty: every workload of that issuer would be this service; name the claims that only this one has")
	}
	d.checkGroups("spec.groups", s.Groups, false)
	d.checkDate("spec.reviewBy", s.ReviewBy)
	for i, fp := range s.Statements {
		if !validFingerprint(fp) {
			d.at("spec.statements["+strconv.Itoa(i)+"]", "%q is not a fingerprint: fp- and 32 hex digits, as `hoopctl explain TARGET --sql …` shows it", fp)
		}
	}
}

// validFingerprint: "fp-" and 16 bytes in lower-case hex (Facts.Fingerprint).
func validFingerprint(s string) bool {
	hex, ok := strings.CutPrefix(s, "fp-")
	return ok && len(hex) == 32 && strings.Trim(hex, "0123456789abcdef") == ""
}

// checkAddress is what can be said of an address without asking DNS. What a
// name resolves to is checked by CheckAddr at every dial.
func (d *decoder) checkAddress(field, protocol, address string) {
	hostport := address
	if protocol == "http" {
		u, err := url.Parse(address)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			d.at(field, "%q is not a base URL: http:// or https:// and a host", address)
			return
		case u.User != nil:
			d.at(field, "a password does not belong in a resource; use credentials.passwordFrom")
			return
		case u.RawQuery != "" || u.Fragment != "":
			d.at(field, "a base URL has no query and no fragment")
			return
		}
		hostport = u.Host
		if u.Port() == "" {
			hostport = u.Host + ":443"
		}
	}
	host, port, err := splitHostPort(hostport)
	if err != nil {
		d.at(field, "%q is not an address: %s", address, err)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		d.at(field, "port %q is not a number from 1 to 65535", port)
	}
	if err := CheckHost(host); err != nil {
		d.at(field, "%s", err)
	}
}

func splitHostPort(s string) (host, port string, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", fmt.Errorf("write host:port")
	}
	host, port = s[:i], s[i+1:]
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return host[1 : len(host)-1], port, nil
	}
	if host == "" {
		return "", "", fmt.Errorf("write host:port")
	}
	if strings.ContainsAny(host, ":[]") {
		return "", "", fmt.Errorf("an IPv6 address stands in brackets: [2001:db8::1]:5432")
	}
	return host, port, nil
}

// CheckHost refuses the host of a target's address that no target may have:
// addresses that CheckAddr refuses, the names of cloud metadata services, and
// numbers that some resolvers read as an address in disguise (0x7f.1, 2852039166).
func CheckHost(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		return CheckAddr(addr)
	}
	h := strings.TrimSuffix(strings.ToLower(host), ".")
	if h == "" || len(h) > 253 {
		return fmt.Errorf("%q is not a host", host)
	}
	for _, c := range h {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return fmt.Errorf("%q is not a host name: %q does not belong in one", host, c)
		}
	}
	last := h[strings.LastIndexByte(h, '.')+1:]
	if last == "" || last[0] >= '0' && last[0] <= '9' {
		return fmt.Errorf("%q is neither a host name nor an address in its plain form", host)
	}
	for _, m := range []string{"metadata", "metadata.google.internal", "instance-data", "metadata.goog", "metadata.azure.internal", "metadata.tencentyun.com"} {
		if h == m || strings.HasPrefix(h, "instance-data.") {
			return fmt.Errorf("%q is a cloud's metadata service, which holds the server's own credentials", host)
		}
	}
	return nil
}

// CheckAddr refuses an address that no target may have, whatever name led to
// it: link-local, cloud metadata services, multicast and the unspecified
// address, also inside IPv4-mapped, NAT64 and 6to4 addresses. Loopback and
// private networks are legal. A dialer asks it about each address that it is
// about to use, after resolution.
func CheckAddr(addr netip.Addr) error {
	a := plainAddr(addr.WithZone("").Unmap())
	switch {
	case !a.IsValid() || a.IsUnspecified():
		return fmt.Errorf("%s is no address of a target", addr)
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is a multicast or broadcast address", addr)
	case a.IsLinkLocalUnicast():
		return fmt.Errorf("%s is link-local, where cloud metadata services answer with the server's own credentials", addr)
	}
	for _, m := range metadataAddrs {
		if a == m {
			return fmt.Errorf("%s is a cloud's metadata service, which holds the server's own credentials", addr)
		}
	}
	return nil
}

// metadataAddrs are metadata services that are not link-local: AWS over IPv6,
// Alibaba, Azure's wire server, Oracle.
var metadataAddrs = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("192.0.0.192"),
}

// plainAddr unwraps the IPv4 address that NAT64 (RFC 6052, 64:ff9b::/96) and
// 6to4 (RFC 3056, 2002::/16) addresses carry.
func plainAddr(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case b[0] == 0x00 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b:
		return netip.AddrFrom4([4]byte(b[12:16]))
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}
