package evidence

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/hoopctl/hoopctl/server/api"
)

// silence is how long a log may be without a leaf before a verification says
// so: three heartbeats.
const silence = 3 * time.Minute

// leafChecker holds the timeline's leaves against each other.
type leafChecker struct {
	report   *Report
	o        Options
	partial  bool // leaves in between may be left out
	last     time.Time
	node     string
	sessions map[string]*sessionState // open ones
	claims   map[string][]frameClaim  // by session
	archives map[string][]archive     // by session
	shredded map[string]uint64        // by session: the leaf that says so
	chains   []chainClaim
	approved int            // answers whose signature holds
	proved   int            // … by an enrolled key
	provedBy map[string]int // … by whose
	unsigned int            // answers without a signature
	fields   leafFields
}

// sessionState follows one open session.
type sessionState struct {
	sequence uint64 // of its last statement
	leaf     []byte
}

// frameClaim is what a leaf says of a session's frames.
type frameClaim struct {
	first, last uint64
	digest      [sha256.Size]byte
	index       uint64 // of the leaf
}

// chainClaim is what a leaf says of all frames before it.
type chainClaim struct {
	frames uint64
	chain  [sha256.Size]byte
	index  uint64
}

// archive is what a leaf says of a sealed file and the frames in it.
type archive struct {
	frameClaim
	file string
	sum  string // SHA-256 of the file, hex
}

// leafFields are the fields of a leaf that are always looked at.
type leafFields struct {
	v, index, sequence, first, last     uint64
	node, kind, session, digest, reason []byte
	object, sum                         []byte
	at                                  time.Time
	attrs                               []byte
}

func newLeafChecker(r *Report, o Options) leafChecker {
	return leafChecker{report: r, o: o, sessions: map[string]*sessionState{}, claims: map[string][]frameClaim{},
		archives: map[string][]archive{}, shredded: map[string]uint64{}, provedBy: map[string]int{}}
}

func (c *leafChecker) problem(s Status, file string, off int, index uint64, format string, args ...any) {
	c.report.add(Problem{Status: s, File: file, Offset: int64(off), Index: &index, What: fmt.Sprintf(format, args...)})
}

// check takes the leaf at a place of the tree.
func (c *leafChecker) check(file string, rec record, index uint64) {
	f := &c.fields
	*f = leafFields{}
	if err := scanLeaf(rec.body, f.take); err != nil {
		c.problem(Tampered, file, rec.off, index, "%v", err)
		return
	}
	if f.v != 1 || f.index != index {
		c.problem(Tampered, file, rec.off, index, "it calls itself leaf %d of version %d", f.index, f.v)
	}
	c.checkNode(file, rec, index)
	c.checkTime(file, rec, index)
	c.checkKind(file, rec, index)
}

func (f *leafFields) take(key, value []byte) (err error) {
	switch string(key) {
	case "v":
		f.v, err = number(value)
	case "index":
		f.index, err = number(value)
	case "node":
		f.node = value
	case "time":
		f.at, err = leafTime(value)
	case "kind":
		f.kind = unquote(value)
	case "session":
		f.session = unquote(value)
	case "sequence":
		f.sequence, err = number(value)
	case "reason":
		f.reason = unquote(value)
	case "framesFirst":
		f.first, err = number(value)
	case "framesLast":
		f.last, err = number(value)
	case "framesSHA256":
		f.digest = unquote(value)
	case "object":
		f.object = unquote(value)
	case "digest":
		f.sum = unquote(value)
	case "attrs":
		f.attrs = value
	}
	return err
}

// number reads an unsigned integer in its shortest form.
func number(b []byte) (uint64, error) {
	if len(b) == 0 || len(b) > 20 || b[0] == '0' && len(b) > 1 {
		return 0, errLeaf
	}
	var n uint64
	for _, c := range b {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (1<<64-1-d)/10 {
			return 0, errLeaf
		}
		n = n*10 + d
	}
	return n, nil
}

// unquote returns a JSON string's text; one with escapes is copied.
func unquote(value []byte) []byte {
	if text, ok := plain(value); ok {
		return text
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return nil
	}
	return []byte(s)
}

func (c *leafChecker) checkNode(file string, rec record, index uint64) {
	if c.node == "" {
		c.node = string(c.fields.node)
	}
	if string(c.fields.node) != c.node {
		c.problem(Tampered, file, rec.off, index, "it is of node %s, the log of %s", c.fields.node, c.node)
	}
}

func (c *leafChecker) checkTime(file string, rec record, index uint64) {
	at := c.fields.at
	if index == 0 {
		c.report.First = at
	}
	kind := string(c.fields.kind)
	restart := kind == api.EventGap || kind == api.EventRecovery || string(c.fields.reason) == openedReason
	switch {
	case restart:
	case at.Before(c.last):
		c.problem(Tampered, file, rec.off, index, "its time %s is before the leaf before it", at.Format(time.RFC3339Nano))
	case index > 0 && !c.partial && at.Sub(c.last) > silence && len(c.report.Unknown) < maxProblems:
		c.report.Unknown = append(c.report.Unknown,
			fmt.Sprintf("what happened in the %s before leaf %d: no heartbeat, and no leaf says why", at.Sub(c.last).Round(time.Second), index))
	}
	c.last, c.report.Last = at, at
}

func (c *leafChecker) checkKind(file string, rec record, index uint64) {
	f := &c.fields
	switch string(f.kind) {
	case api.EventSessionOpen:
		if _, open := c.sessions[string(f.session)]; open {
			c.problem(Tampered, file, rec.off, index, "session %s is opened a second time", f.session)
		}
		c.sessions[string(f.session)] = &sessionState{leaf: bytes.Clone(rec.body)}
		c.report.Sessions++
	case api.EventSessionClose:
		delete(c.sessions, string(f.session))
	case api.EventStatement:
		c.checkStatement(file, rec, index)
	case api.EventOutcome:
		c.checkOutcome(file, rec, index)
	case api.EventSealed:
		c.claim(file, rec, index)
	case api.EventArchived:
		c.archive(file, rec, index)
	case api.EventShredded:
		c.shredded[string(f.session)] = index
	case api.EventHeartbeat, api.EventGap, api.EventRecovery:
		c.chain(file, rec, index)
	case api.EventApproval:
		c.checkApproval(file, rec, index)
	}
}

// checkStatement holds a session's statements to their numbering: from 1,
// without holes. A number comes again when a later verdict lifts a row limit.
func (c *leafChecker) checkStatement(file string, rec record, index uint64) {
	s, open := c.sessions[string(c.fields.session)]
	if !open || c.fields.sequence == 0 {
		return
	}
	if n := c.fields.sequence; n > s.sequence+1 {
		c.problem(Incomplete, file, rec.off, index, "statement %d of session %s follows on %d", n, c.fields.session, s.sequence)
	}
	s.sequence = max(s.sequence, c.fields.sequence)
}

func (c *leafChecker) checkOutcome(file string, rec record, index uint64) {
	s, open := c.sessions[string(c.fields.session)]
	if open && c.fields.sequence > s.sequence {
		c.problem(Incomplete, file, rec.off, index, "the outcome of statement %d of session %s, whose statement is not recorded", c.fields.sequence, c.fields.session)
	}
	if c.fields.digest != nil {
		c.claim(file, rec, index)
	}
}

// claim notes what the leaf says of its session's frames.
func (c *leafChecker) claim(file string, rec record, index uint64) {
	if claim, ok := c.frameClaim(file, rec, index); ok {
		session := string(c.fields.session)
		c.claims[session] = append(c.claims[session], claim)
	}
}

func (c *leafChecker) frameClaim(file string, rec record, index uint64) (frameClaim, bool) {
	f := &c.fields
	claim := frameClaim{first: f.first, last: f.last, index: index}
	if len(f.digest) != 2*sha256.Size || f.first > f.last {
		c.problem(Tampered, file, rec.off, index, "what it says of frames %d to %d cannot be read", f.first, f.last)
		return claim, false
	}
	if _, err := hex.Decode(claim.digest[:], f.digest); err != nil {
		c.problem(Tampered, file, rec.off, index, "what it says of frames %d to %d cannot be read", f.first, f.last)
		return claim, false
	}
	return claim, true
}

// archive notes what the leaf says of a sealed file. A session's stretches are
// sealed in order, each once.
func (c *leafChecker) archive(file string, rec record, index uint64) {
	claim, ok := c.frameClaim(file, rec, index)
	if !ok {
		return
	}
	f := &c.fields
	session := string(f.session)
	sum, hashed := strings.CutPrefix(string(f.sum), "sha256:")
	list := c.archives[session]
	if !hashed || string(f.object) != sealedPath(session, claim.first) || claim.first == 0 || len(list) > 0 && claim.first <= list[len(list)-1].last {
		c.problem(Tampered, file, rec.off, index, "what it says of a sealed file cannot be")
		return
	}
	c.archives[session] = append(list, archive{claim, string(f.object), sum})
}

// chain notes what the leaf says of all frames before it.
func (c *leafChecker) chain(file string, rec record, index uint64) {
	if c.fields.attrs == nil {
		return
	}
	var attrs map[string]string
	if err := json.Unmarshal(c.fields.attrs, &attrs); err != nil {
		c.problem(Tampered, file, rec.off, index, "its attributes cannot be read: %v", err)
		return
	}
	if attrs[attrChain] == "" {
		return
	}
	claim := chainClaim{index: index}
	chain, err := hex.DecodeString(attrs[attrChain])
	frames, err2 := strconv.ParseUint(attrs[attrFrames], 10, 64)
	if err != nil || err2 != nil || len(chain) != sha256.Size || len(c.chains) > 0 && frames < c.chains[len(c.chains)-1].frames {
		c.problem(Tampered, file, rec.off, index, "what it says of the frames before it cannot be")
		return
	}
	claim.frames = frames
	copy(claim.chain[:], chain)
	c.chains = append(c.chains, claim)
}

func (c *leafChecker) checkApproval(file string, rec record, index uint64) {
	var e api.Event
	if err := json.Unmarshal(rec.body, &e); err != nil {
		c.problem(Tampered, file, rec.off, index, "it cannot be read: %v", err)
		return
	}
	if e.Signature == "" {
		c.unsigned++
		return
	}
	cert, err := api.VerifyApproval(&e)
	if err != nil {
		c.problem(Tampered, file, rec.off, index, "%v", err)
		return
	}
	if c.o.CAs != nil {
		_, err := cert.Verify(x509.VerifyOptions{Roots: c.o.CAs, CurrentTime: e.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			c.problem(Tampered, file, rec.off, index, "approval of %s by %s: the certificate that signed was not issued by the broker's CA: %v", e.Request, e.Name, err)
			return
		}
	}
	c.approved++
	own, err := api.VerifyApprovalSSH(&e)
	if err != nil {
		c.problem(Tampered, file, rec.off, index, "%v", err)
		return
	}
	if who, ok := c.enrolled(cert, own); ok {
		c.proved++
		c.provedBy[who]++
	}
}

// enrolled finds the key that signed, the approver's own or the login's, among
// those that were enrolled.
func (c *leafChecker) enrolled(cert *x509.Certificate, own ssh.PublicKey) (who string, ok bool) {
	login, err := ssh.NewPublicKey(cert.PublicKey)
	for _, a := range c.o.Approvers {
		key := a.Key.Marshal()
		if own != nil && bytes.Equal(key, own.Marshal()) || err == nil && bytes.Equal(key, login.Marshal()) {
			return a.Name, true
		}
	}
	return "", false
}

// checkOpen compares a segment's list of open sessions with those that are open.
func (c *leafChecker) checkOpen(file string, rec record) {
	said, err := parseOpen(rec.body)
	same := err == nil && len(said) == len(c.sessions)
	for name, s := range c.sessions {
		same = same && bytes.Equal(said[name], s.leaf)
	}
	if !same {
		c.report.add(Problem{Status: Tampered, File: file, Offset: int64(rec.off), What: "the list of open sessions is not what the leaves before it say"})
	}
}

func (c *leafChecker) finish() {
	r := c.report
	if c.proved > 0 {
		var by []string
		for _, who := range slices.Sorted(maps.Keys(c.provedBy)) {
			by = append(by, fmt.Sprintf("%s: %d", cmp.Or(who, "a key without a name"), c.provedBy[who]))
		}
		r.Proved = append(r.Proved, answersText(c.proved)+", signed by their enrolled keys ("+strings.Join(by, ", ")+")")
	}
	if n := c.approved - c.proved; n > 0 {
		how := "under certificates that chain to the broker's CA"
		if c.o.CAs == nil {
			how = "under the certificates beside them; no CA was given to check those"
		}
		r.Asserted = append(r.Asserted, answersText(n)+", signed "+how)
	}
	if c.unsigned > 0 {
		r.Asserted = append(r.Asserted, answersText(c.unsigned)+", without a signature")
	}
}

func answersText(n int) string { return counted(n, "answer of an approver", "answers of approvers") }

// counted is a number of things in words: "1 leaf", "2 leaves".
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
