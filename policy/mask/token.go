package mask

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
	"sync"
)

// Keys make tokens. The same Tenant, Version, Secret, tag and value give the
// same token on every server, so that masked rows still join.
type Keys struct {
	// Tenant separates organisations that share a secret.
	Tenant string
	// Version is shown in tokens of text, so that a rotated key is told from
	// a changed value.
	Version int
	// Secret is at least 32 random bytes. Whoever has it can undo tokens of
	// short values by trying all of them.
	Secret []byte
}

const minSecret = 32

// tokenChars of a text token are base32: 100 bits.
const tokenChars = 20

// newToken returns the token rewriter for a type that can hold one, nil for the
// others. Numbers hold as much of the HMAC as their range does (31 bits in an
// int4): two values may then meet in one token.
func newToken(t Type, k kind, s Settings, otherwise Rewriter) Rewriter {
	m := &mac{}
	var domain string
	var out Rewriter
	switch k.family {
	case familyText:
		f, prefix := fitOf(t), "tok"+strconv.Itoa(s.Keys.Version)+"_"
		if !f.holds(len(prefix) + tokenChars) {
			prefix = ""
		}
		if !f.holds(tokenChars) {
			return nil // cut short it would say that different values are equal
		}
		domain, out = "text", &tokenText{mac: m, prefix: prefix, fit: f}
	case familyInt:
		domain, out = "integer", &tokenInt{mac: m, integer: integerOf(t, k), otherwise: otherwise}
	case familyNumeric:
		precision, scale := numericTypmod(t.Typmod)
		digits := 28
		if precision > 0 {
			digits = min(digits, precision-scale)
		}
		if digits < 1 {
			return nil
		}
		domain, out = "numeric", &tokenNumeric{mac: m, binary: t.Binary, digits: digits, scale: scale, otherwise: otherwise}
	case familyUUID:
		domain, out = "uuid", &tokenUUID{mac: m, binary: t.Binary, otherwise: otherwise}
	default:
		return nil
	}
	m.pool.New = pooled(tokenKey(s, domain))
	return out
}

// tokenKey derives the key of one tenant, tag, version and kind of value
// (RFC 5869). Lengths are written down, so that no two contexts share a key.
func tokenKey(s Settings, domain string) []byte {
	info := "hoopctl mask token v1"
	for _, part := range []string{s.Keys.Tenant, s.Tag, strconv.Itoa(s.Keys.Version), domain} {
		info += "\n" + strconv.Itoa(len(part)) + ":" + part
	}
	key, err := hkdf.Key(sha256.New, s.Keys.Secret, nil, info, sha256.Size)
	if err != nil {
		panic("mask: HKDF refuses its own hash's size: " + err.Error()) // cannot happen: 32 <= 255*32
	}
	return key
}

// mac computes HMAC-SHA-256 without allocating: hashes are used again.
type mac struct{ pool sync.Pool }

type hasher struct {
	h   hash.Hash
	sum [sha256.Size]byte
}

func pooled(key []byte) func() any {
	return func() any { return &hasher{h: hmac.New(sha256.New, key)} }
}

// of returns a hasher that holds the HMAC of value; the caller puts it back.
func (m *mac) of(value []byte) *hasher {
	h := m.pool.Get().(*hasher)
	h.h.Reset()
	h.h.Write(value)
	h.h.Sum(h.sum[:0])
	return h
}

func (m *mac) ofInt(n int64) *hasher {
	h := m.pool.Get().(*hasher)
	h.h.Reset()
	h.h.Write(binary.BigEndian.AppendUint64(h.sum[:0], uint64(n)))
	h.h.Sum(h.sum[:0])
	return h
}

type tokenText struct {
	mac    *mac
	prefix string
	fit    fit
}

func (m *tokenText) Rewrite(dst, value []byte) ([]byte, bool) {
	if m.fit.pad {
		value = bytes.TrimRight(value, " ") // char(n) compares without them
	}
	h := m.mac.of(value)
	defer m.mac.pool.Put(h)
	dst = append(dst, m.prefix...)
	for i := range tokenChars / 4 { // 20 bits at a time
		v := binary.BigEndian.Uint32(h.sum[5*i/2:]) >> (12 - 4*(i%2))
		dst = append(dst, base32Alphabet[v>>15&31], base32Alphabet[v>>10&31], base32Alphabet[v>>5&31], base32Alphabet[v&31])
	}
	return m.fit.fill(dst, len(m.prefix)+tokenChars), false
}

// base32Alphabet is RFC 4648's in lower case.
const base32Alphabet = "abcdefghijklmnopqrstuvwxyz234567"

type tokenInt struct {
	mac       *mac
	integer   wireInt
	otherwise Rewriter
}

func (m *tokenInt) Rewrite(dst, value []byte) ([]byte, bool) {
	n, ok := m.integer.read(value)
	if !ok {
		return m.otherwise.Rewrite(dst, value)
	}
	h := m.mac.ofInt(n)
	defer m.mac.pool.Put(h)
	token := binary.BigEndian.Uint64(h.sum[:]) >> 1 >> (64 - 8*m.integer.width)
	return m.integer.write(dst, int64(token)), false
}

type tokenNumeric struct {
	mac           *mac
	binary        bool
	digits, scale int
	otherwise     Rewriter
}

func (m *tokenNumeric) Rewrite(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	dst, ok := numericDigits(dst, value, m.binary)
	if !ok {
		return m.otherwise.Rewrite(dst[:start], value)
	}
	h := m.mac.of(dst[start:])
	defer m.mac.pool.Put(h)
	dst = dst[:start]
	if m.binary {
		return m.appendBinary(dst, &h.sum), false
	}
	return m.appendText(dst, &h.sum), false
}

// group is the i-th group of four digits, from the highest.
func (m *tokenNumeric) group(sum *[sha256.Size]byte, i, groups int) uint16 {
	v := binary.BigEndian.Uint32(sum[4*i:]) % 10000
	if first := m.digits - 4*(groups-1); i == 0 && first < 4 {
		v %= []uint32{1, 10, 100, 1000}[first]
	}
	if i == 0 && v == 0 {
		v = 1 // the first group of a numeric is not zero
	}
	return uint16(v)
}

func (m *tokenNumeric) appendText(dst []byte, sum *[sha256.Size]byte) []byte {
	groups := (m.digits + 3) / 4
	dst = strconv.AppendUint(dst, uint64(m.group(sum, 0, groups)), 10)
	for i := 1; i < groups; i++ {
		v := m.group(sum, i, groups)
		dst = append(dst, byte('0'+v/1000), byte('0'+v/100%10), byte('0'+v/10%10), byte('0'+v%10))
	}
	for i := range m.scale {
		if i == 0 {
			dst = append(dst, '.')
		}
		dst = append(dst, '0')
	}
	return dst
}

func (m *tokenNumeric) appendBinary(dst []byte, sum *[sha256.Size]byte) []byte {
	groups := (m.digits + 3) / 4
	for _, v := range [...]int{groups, groups - 1, numericPositive, m.scale} {
		dst = binary.BigEndian.AppendUint16(dst, uint16(v))
	}
	for i := range groups {
		dst = binary.BigEndian.AppendUint16(dst, m.group(sum, i, groups))
	}
	return dst
}

// tokenUUID makes a version 8 UUID (RFC 9562, 5.8): 122 bits of the HMAC.
type tokenUUID struct {
	mac       *mac
	binary    bool
	otherwise Rewriter
}

func (m *tokenUUID) Rewrite(dst, value []byte) ([]byte, bool) {
	h := m.mac.pool.Get().(*hasher)
	defer m.mac.pool.Put(h)
	raw := (*[16]byte)(h.sum[:])
	if !readUUID(raw, value, m.binary) {
		return m.otherwise.Rewrite(dst, value)
	}
	h.h.Reset()
	h.h.Write(raw[:])
	h.h.Sum(h.sum[:0])
	id := h.sum[:16]
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	if m.binary {
		return append(dst, id...), false
	}
	for i, cut := range [...]int{4, 6, 8, 10, 16} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, id[[...]int{0, 4, 6, 8, 10}[i]:cut])
	}
	return dst, false
}

// readUUID reads the form that PostgreSQL sends.
func readUUID(raw *[16]byte, value []byte, bin bool) bool {
	if bin {
		return copy(raw[:], value) == 16 && len(value) == 16
	}
	if len(value) != 36 {
		return false
	}
	n := 0
	for i := 0; i < 36; {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if value[i] != '-' {
				return false
			}
			i++
			continue
		}
		if _, err := hex.Decode(raw[n:n+1], value[i:i+2]); err != nil {
			return false
		}
		n, i = n+1, i+2
	}
	return true
}
