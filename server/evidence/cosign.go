package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Cosignatures are those of C2SP cosignature/v1: an Ed25519 signature by a
// witness over a checkpoint and the time at which it saw it. A witness says by
// it that of this log it never saw anything larger, or anything that this
// checkpoint does not go on from. https://c2sp.org/tlog-cosignature

// algCosignature is the key type of cosignature/v1 with Ed25519.
const algCosignature = 4

// WitnessKey is the verifier key (vkey) of a witness.
type WitnessKey struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
}

var _ note.Verifier = WitnessKey{}

// ParseWitnessKey reads a witness's verifier key: name+hash+base64 of type 4.
func ParseWitnessKey(vkey string) (WitnessKey, error) {
	name, rest, ok := strings.Cut(strings.TrimSpace(vkey), "+")
	hash, encoded, ok2 := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || !ok2 || err != nil || !keyName(name) {
		return WitnessKey{}, fmt.Errorf("%.60q is no verifier key: want name+hash+base64, as the witness prints it", vkey)
	}
	if len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignature {
		return WitnessKey{}, fmt.Errorf("the key of %s is not a witness's: want an Ed25519 key of cosignature/v1 (type 4)", name)
	}
	k := newWitnessKey(name, raw[1:])
	if want := fmt.Sprintf("%08x", k.hash); hash != want {
		return WitnessKey{}, fmt.Errorf("the key of %s was changed in transit: its hash is %s, it says %s", name, want, hash)
	}
	return k, nil
}

func newWitnessKey(name string, public ed25519.PublicKey) WitnessKey {
	sum := sha256.Sum256(slices.Concat([]byte(name+"\n"), []byte{algCosignature}, public))
	return WitnessKey{name: name, hash: binary.BigEndian.Uint32(sum[:]), public: slices.Clone(public)}
}

// keyName is what signed notes allow as a key's name.
func keyName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '+' || r == 0x7f || r == 0xfffd })
}

// String is the verifier key.
func (k WitnessKey) String() string {
	raw := append([]byte{algCosignature}, k.public...)
	return fmt.Sprintf("%s+%08x+%s", k.name, k.hash, base64.StdEncoding.EncodeToString(raw))
}

// Name implements note.Verifier.
func (k WitnessKey) Name() string { return k.name }

// KeyHash implements note.Verifier.
func (k WitnessKey) KeyHash() uint32 { return k.hash }

// Verify implements note.Verifier.
func (k WitnessKey) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	t := binary.BigEndian.Uint64(sig)
	return t <= math.MaxInt64 && ed25519.Verify(k.public, cosigned(text, t), sig[8:])
}

// cosigned is what is signed.
func cosigned(text []byte, unix uint64) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", unix), text...)
}

// cosignature is the signature line of a checkpoint's text.
func cosignature(name string, key ed25519.PrivateKey, text []byte, at time.Time) []byte {
	unix := uint64(at.Unix())
	k := newWitnessKey(name, key.Public().(ed25519.PublicKey))
	b := binary.BigEndian.AppendUint32(nil, k.hash)
	b = binary.BigEndian.AppendUint64(b, unix)
	b = append(b, ed25519.Sign(key, cosigned(text, unix))...)
	return fmt.Appendf(nil, "— %s %s\n", name, base64.StdEncoding.EncodeToString(b))
}

// cosignedAt says when each of the keys cosigned the note; the zero time is never.
// A signature that claims to be by one of them and is not is an error.
func cosignedAt(signed []byte, keys []WitnessKey) ([]time.Time, error) {
	times := make([]time.Time, len(keys))
	if len(keys) == 0 {
		return times, nil
	}
	verifiers := make([]note.Verifier, len(keys))
	for i, k := range keys {
		verifiers[i] = k
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	var unsigned *note.UnverifiedNoteError
	if errors.As(err, &unsigned) {
		return times, nil
	}
	if err != nil {
		return nil, err
	}
	for _, s := range n.Sigs {
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil || len(raw) < 12 {
			return nil, fmt.Errorf("the cosignature by %s cannot be read", s.Name)
		}
		i := slices.IndexFunc(keys, func(k WitnessKey) bool { return k.name == s.Name && k.hash == s.Hash })
		times[i] = time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()
	}
	return times, nil
}

// WitnessAt is a witness: its key, and where it answers ("" is unknown).
type WitnessAt struct {
	Name string // within the policy
	Key  WitnessKey
	URL  string // submission prefix
}

// Policy says which logs are believed, and whose cosignatures make a checkpoint
// valid. It must come from elsewhere than the evidence.
type Policy struct {
	Logs      []string // verifier keys; empty: the log is known by other means
	Witnesses []WitnessAt
	quorum    quorum
}

// quorum is a witness (its number) or a group of which need must agree. The
// zero value is satisfied by nobody.
type quorum struct {
	witness int
	need    int
	members []quorum // nil: a witness
	none    bool     // no cosignature is needed
}

// time is the latest time for which the quorum vouches: that of the witness, or
// the need-th newest of the members'. Zero: it is not met.
func (q quorum) time(at []time.Time) time.Time {
	if q.members == nil {
		if q.witness >= len(at) {
			return time.Time{}
		}
		return at[q.witness]
	}
	times := make([]time.Time, len(q.members))
	for i, m := range q.members {
		times[i] = m.time(at)
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	if q.need < 1 || q.need > len(times) {
		return time.Time{}
	}
	return times[q.need-1]
}

// WitnessPolicy is the policy that need of these witnesses must have cosigned;
// 0 is all of them.
func WitnessPolicy(vkeys []string, need int) (*Policy, error) {
	p := &Policy{}
	for _, v := range vkeys {
		k, err := ParseWitnessKey(v)
		if err != nil {
			return nil, err
		}
		if err := p.add(WitnessAt{Name: k.name, Key: k}); err != nil {
			return nil, err
		}
	}
	if need == 0 {
		need = len(vkeys)
	}
	if need < 1 || need > len(vkeys) {
		return nil, fmt.Errorf("a quorum of %d out of %d witnesses cannot be", need, len(vkeys))
	}
	p.quorum = allOf(len(vkeys), need)
	return p, nil
}

func allOf(n, need int) quorum {
	q := quorum{need: need, members: make([]quorum, n)}
	for i := range q.members {
		q.members[i].witness = i
	}
	return q
}

func (p *Policy) add(w WitnessAt) error {
	for _, other := range p.Witnesses {
		if bytes.Equal(other.Key.public, w.Key.public) {
			return fmt.Errorf("witness %s is named twice: one key must not count as two witnesses", w.Key.name)
		}
	}
	p.Witnesses = append(p.Witnesses, w)
	return nil
}

func (p *Policy) keys() []WitnessKey {
	keys := make([]WitnessKey, len(p.Witnesses))
	for i, w := range p.Witnesses {
		keys[i] = w.Key
	}
	return keys
}

// maxPolicy bounds a policy's witnesses and groups.
const maxPolicy = 64

// ParsePolicy reads a policy file of C2SP tlog-policy: lines of log, witness,
// group and quorum. A file that holds only verifier keys, one a line, demands
// the cosignature of every witness in it. https://c2sp.org/tlog-policy
func ParsePolicy(text []byte) (*Policy, error) {
	p := &policyParser{policy: &Policy{}, names: map[string]quorum{}, used: map[string]bool{}}
	for i, line := range strings.Split(string(text), "\n") {
		fields := strings.FieldsFunc(strings.TrimSuffix(line, "\r"), func(r rune) bool { return r == ' ' || r == '\t' })
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := p.line(fields); err != nil {
			return nil, fmt.Errorf("policy, line %d: %w", i+1, err)
		}
	}
	switch n := len(p.policy.Witnesses); {
	case p.done && p.bare:
		return nil, errors.New("policy: bare keys and a quorum line do not go together: write witness NAME KEY")
	case !p.done && !p.bare:
		return nil, errors.New("policy: it has no quorum line")
	case p.bare && n == 0:
		p.policy.quorum = quorum{none: true}
	case p.bare:
		p.policy.quorum = allOf(n, n)
	}
	return p.policy, nil
}

type policyParser struct {
	policy *Policy
	names  map[string]quorum
	used   map[string]bool // as a member of a group
	done   bool            // the quorum was read
	bare   bool            // a line was a verifier key only
}

func (p *policyParser) line(f []string) error {
	switch {
	case len(f) == 1:
		return p.key(f[0])
	case f[0] == "log" && len(f) <= 3:
		return p.log(f[1])
	case f[0] == "witness" && (len(f) == 3 || len(f) == 4):
		return p.witness(f[1], f[2], strings.Join(f[3:], ""))
	case f[0] == "group" && len(f) >= 4:
		return p.group(f[1], f[2], f[3:])
	case f[0] == "quorum" && len(f) == 2 && !p.done:
		q, ok := p.names[f[1]]
		if !ok && f[1] != "none" {
			return fmt.Errorf("no witness or group before this line is named %q", f[1])
		}
		q.none = f[1] == "none"
		p.policy.quorum, p.done = q, true
		return nil
	}
	return fmt.Errorf("%.40q: want log KEY [URL], witness NAME KEY [URL], group NAME all|any|N MEMBER…, or one quorum NAME", strings.Join(f, " "))
}

// key takes a bare verifier key, of a log or of a witness.
func (p *policyParser) key(vkey string) error {
	p.bare = true
	if k, err := ParseWitnessKey(vkey); err == nil {
		return p.policy.add(WitnessAt{Name: k.name, Key: k})
	}
	return p.log(vkey)
}

func (p *policyParser) log(vkey string) error {
	if _, err := note.NewVerifier(vkey); err != nil {
		return fmt.Errorf("the log's key: %w", err)
	}
	if len(p.policy.Logs) >= maxPolicy {
		return fmt.Errorf("more than %d logs", maxPolicy)
	}
	p.policy.Logs = append(p.policy.Logs, vkey)
	return nil
}

func (p *policyParser) witness(name, vkey, url string) error {
	k, err := ParseWitnessKey(vkey)
	if err == nil {
		err = p.define(name, quorum{witness: len(p.policy.Witnesses)})
	}
	if err != nil {
		return err
	}
	return p.policy.add(WitnessAt{Name: name, Key: k, URL: url})
}

func (p *policyParser) define(name string, q quorum) error {
	if _, ok := p.names[name]; ok || name == "none" {
		return fmt.Errorf("the name %q is taken", name)
	}
	if len(p.names) >= maxPolicy {
		return fmt.Errorf("more than %d witnesses and groups", maxPolicy)
	}
	p.names[name] = q
	return nil
}

func (p *policyParser) group(name, threshold string, members []string) error {
	q := quorum{}
	for _, m := range members {
		member, ok := p.names[m]
		if !ok {
			return fmt.Errorf("no witness or group before this line is named %q", m)
		}
		if p.used[m] {
			return fmt.Errorf("%q is a member already: it must not count twice", m)
		}
		p.used[m] = true
		q.members = append(q.members, member)
	}
	switch threshold {
	case "any":
		q.need = 1
	case "all":
		q.need = len(members)
	default:
		n, err := strconv.Atoi(threshold)
		if err != nil || n < 1 || n > len(members) {
			return fmt.Errorf("%q of %d members: want all, any, or a number from 1 to %d", threshold, len(members), len(members))
		}
		q.need = n
	}
	return p.define(name, q)
}

// privateCosigner is how a witness's key lies in its file, like a signed note's
// signing key.
func privateCosigner(name string, seed []byte) string {
	k := newWitnessKey(name, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	raw := append([]byte{algCosignature}, seed...)
	return fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, k.hash, base64.StdEncoding.EncodeToString(raw))
}

func parsePrivateCosigner(text string) (name string, key ed25519.PrivateKey, err error) {
	bad := errors.New("it holds no signing key of a witness")
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "PRIVATE+KEY+")
	name, rest, ok2 := strings.Cut(rest, "+")
	hash, encoded, ok3 := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || !ok2 || !ok3 || err != nil || len(raw) != 1+ed25519.SeedSize || raw[0] != algCosignature || !keyName(name) {
		return "", nil, bad
	}
	key = ed25519.NewKeyFromSeed(raw[1:])
	sum := newWitnessKey(name, key.Public().(ed25519.PublicKey)).hash
	if hash != hex.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)) {
		return "", nil, bad
	}
	return name, key, nil
}
