package mask

import (
	"encoding/binary"
	"strings"
)

// family groups types whose values methods treat alike.
type family uint8

const (
	familyOther family = iota
	familyText
	familyInt
	familyNumeric
	familyDate
	familyUUID
	familyJSON
)

// kind is what is known of a type by its OID (pg_type.dat; OIDs of built-in
// types never change).
type kind struct {
	family family
	width  int // bytes of an integer or date in binary
	// text and binary are the fixed value to show, nil: NULL.
	text, binary []byte
	array        uint32 // OID of the elements
	delimiter    byte   // between the elements of an array
}

const (
	oidBool, oidBytea, oidChar, oidName, oidInt8, oidInt2, oidInt4 = 16, 17, 18, 19, 20, 21, 23
	oidText, oidJSON, oidXML, oidFloat4, oidFloat8                 = 25, 114, 142, 700, 701
	oidBpchar, oidVarchar, oidDate, oidTime                        = 1042, 1043, 1082, 1083
	oidTimestamp, oidTimestamptz, oidBit, oidVarbit, oidNumeric    = 1114, 1184, 1560, 1562, 1700
	oidUUID, oidJSONB                                              = 2950, 3802
)

// stars is what redacted text looks like.
const stars = "***"

// kindOf describes a type. What is not known has no value to show but NULL.
func kindOf(t Type) kind {
	if elem, ok := arrays[t.OID]; ok {
		k := kind{array: elem, delimiter: ','}
		if elem == 603 { // box, the one type with another delimiter
			k.delimiter = ';'
		}
		return k
	}
	if k, ok := kinds[t.OID]; ok {
		return k
	}
	if t.OID >= 16384 && t.Name == "citext" {
		return kind{family: familyText}
	}
	return kind{}
}

func integer(width int, text string) kind {
	return kind{family: familyInt, width: width, text: []byte(text), binary: make([]byte, width)}
}

func zeros(text string, width int) kind {
	return kind{text: []byte(text), binary: make([]byte, width)}
}

func literal(text, bin string) kind { return kind{text: []byte(text), binary: []byte(bin)} }

func date(width int, text string, since2000 int64) kind {
	b := binary.BigEndian.AppendUint64(nil, uint64(since2000))
	return kind{family: familyDate, width: width, text: []byte(text), binary: b[8-width:]}
}

// Days from 2000-01-01 to 1900-01-01, and the same in microseconds.
const (
	days1900   = -36524
	micros1900 = days1900 * 24 * 60 * 60 * 1e6
)

// kinds are the built-in types for which a legal value is known. Anything else
// shows NULL: enums, domains over them, composites, reg* aliases of user
// objects, snapshots, ACLs, vectors of OIDs.
var kinds = map[uint32]kind{
	oidBool:    literal("f", "\x00"),
	oidBytea:   literal(`\x`, ""),
	oidChar:    literal("*", "*"),
	oidName:    literal(stars, stars),
	oidInt8:    integer(8, "0"),
	oidInt2:    integer(2, "0"),
	oidInt4:    integer(4, "0"),
	26:         zeros("0", 4), // oid
	28:         zeros("0", 4), // xid
	29:         zeros("0", 4), // cid
	5069:       zeros("0", 8), // xid8
	27:         zeros("(0,0)", 6),
	oidText:    {family: familyText},
	oidBpchar:  {family: familyText},
	oidVarchar: {family: familyText},
	705:        {family: familyText},  // unknown: an untyped literal
	1790:       literal(stars, stars), // refcursor
	oidXML:     literal(stars, stars),
	oidJSON:    {family: familyJSON, text: []byte("null"), binary: []byte("null")},
	oidJSONB:   {family: familyJSON, text: []byte("null"), binary: []byte("\x01null")},
	4072:       literal("$", "\x01$"), // jsonpath
	oidFloat4:  zeros("0", 4),
	oidFloat8:  zeros("0", 8),
	790:        zeros("0", 8), // money: without a currency sign it is legal in every lc_monetary
	oidNumeric: {family: familyNumeric, text: []byte("0"), binary: make([]byte, 8)},

	oidDate:        date(4, "1900-01-01", days1900),
	oidTimestamp:   date(8, "1900-01-01 00:00:00", micros1900),
	oidTimestamptz: date(8, "1900-01-01 00:00:00+00", micros1900),
	oidTime:        zeros("00:00:00", 8),
	1266:           zeros("00:00:00+00", 12), // timetz
	1186:           zeros("00:00:00", 16),    // interval

	oidUUID: {family: familyUUID, text: []byte("00000000-0000-0000-0000-000000000000"), binary: make([]byte, 16)},
	869:     literal("0.0.0.0", "\x02\x20\x00\x04\x00\x00\x00\x00"),    // inet: family, bits, is_cidr, length
	650:     literal("0.0.0.0/32", "\x02\x20\x01\x04\x00\x00\x00\x00"), // cidr
	829:     zeros("00:00:00:00:00:00", 6),
	774:     zeros("00:00:00:00:00:00:00:00", 8),
	3220:    zeros("0/0", 8), // pg_lsn

	600: zeros("(0,0)", 16),
	601: zeros("[(0,0),(0,0)]", 32),
	603: zeros("(0,0),(0,0)", 32),
	602: literal("[(0,0)]", "\x00\x00\x00\x00\x01"+strings.Repeat("\x00", 16)),
	604: literal("((0,0))", "\x00\x00\x00\x01"+strings.Repeat("\x00", 16)),
	628: literal("{1,0,0}", "\x3f\xf0\x00\x00\x00\x00\x00\x00"+strings.Repeat("\x00", 16)), // A and B may not both be 0
	718: zeros("<(0,0),0>", 24),

	3614: zeros("", 4), // tsvector

	3904: literal("empty", "\x01"), 3906: literal("empty", "\x01"), 3908: literal("empty", "\x01"), // ranges
	3910: literal("empty", "\x01"), 3912: literal("empty", "\x01"), 3926: literal("empty", "\x01"),
	4451: zeros("{}", 4), 4532: zeros("{}", 4), 4533: zeros("{}", 4), // multiranges
	4534: zeros("{}", 4), 4535: zeros("{}", 4), 4536: zeros("{}", 4),

	oidBit:    {},
	oidVarbit: zeros("", 4),
}

// arrays maps the OIDs of built-in array types to those of their elements.
var arrays = map[uint32]uint32{
	1000: oidBool, 1001: oidBytea, 1002: oidChar, 1003: oidName, 1005: oidInt2, 1007: oidInt4, 1009: oidText,
	1010: 27, 1011: 28, 1012: 29, 271: 5069, 1014: oidBpchar, 1015: oidVarchar, 1016: oidInt8, 1017: 600, 1018: 601,
	1019: 602, 1020: 603, 1021: oidFloat4, 1022: oidFloat8, 1027: 604, 629: 628, 719: 718, 1028: 26,
	1040: 829, 775: 774, 1041: 869, 651: 650, 791: 790, 143: oidXML, 199: oidJSON, 3807: oidJSONB, 4073: 4072,
	1115: oidTimestamp, 1182: oidDate, 1183: oidTime, 1185: oidTimestamptz, 1187: 1186, 1270: 1266,
	1231: oidNumeric, 1561: oidBit, 1563: oidVarbit, 2201: 1790, 2951: oidUUID, 3221: 3220, 3643: 3614,
	3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926,
	6150: 4451, 6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535, 6157: 4536,
}

// placeholder is what redact shows of a type.
func placeholder(t Type, k kind) Rewriter {
	switch {
	case k.family == familyText:
		return constant(fitOf(t).cut([]byte(stars)))
	case t.OID == oidBit:
		return bits(t)
	case k.family == familyNumeric:
		return numericZero(t)
	case t.Binary && k.binary != nil:
		return constant(k.binary)
	case !t.Binary && k.text != nil:
		return constant(k.text)
	}
	return nothing{}
}

// longest bounds what a typmod may make us write for one value: a hostile
// target could announce char(10485760) and send rows of nothing.
const longest = 8192

// bits is a bit string of the length that the column demands: its typmod is
// the length itself.
func bits(t Type) Rewriter {
	n := max(int(t.Typmod), 1)
	if n > longest {
		return nothing{}
	}
	if !t.Binary {
		return constant(strings.Repeat("0", n))
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(n))
	return constant(append(b, make([]byte, (n+7)/8)...))
}

// numericZero carries the column's scale, as PostgreSQL's own zero would.
func numericZero(t Type) Rewriter {
	_, scale := numericTypmod(t.Typmod)
	if t.Binary { // ndigits, weight, sign, dscale
		return constant{0, 0, 0, 0, 0, 0, byte(scale >> 8), byte(scale)}
	}
	if scale == 0 {
		return constant("0")
	}
	return constant("0." + strings.Repeat("0", scale))
}

// numericTypmod returns a numeric column's precision and scale; precision 0 is
// unlimited. A negative scale counts as 0. (numeric.c, make_numeric_typmod:
// the lower eleven bits of typmod-4 are the scale, signed.)
func numericTypmod(typmod int32) (precision, scale int) {
	if typmod < 4 {
		return 0, 0
	}
	precision = int((typmod - 4) >> 16 & 0xffff)
	scale = int((typmod-4)&0x7ff^1024) - 1024
	if scale < 0 {
		return precision, 0
	}
	return precision, scale
}

// fit is the length in characters that a text column demands.
type fit struct {
	max int  // 0: any
	pad bool // char(n): filled with spaces
}

func fitOf(t Type) fit {
	if (t.OID == oidVarchar || t.OID == oidBpchar) && t.Typmod > 4 {
		n := int(t.Typmod) - 4
		return fit{max: n, pad: t.OID == oidBpchar && n <= longest} // PostgreSQL itself pads what comes short
	}
	return fit{}
}

// cut shortens ASCII to what fits, and pads.
func (f fit) cut(ascii []byte) []byte {
	if f.max > 0 && len(ascii) > f.max {
		ascii = ascii[:f.max]
	}
	return f.fill(ascii, len(ascii))
}

// fill pads dst, whose last n characters are the value.
func (f fit) fill(dst []byte, n int) []byte {
	for ; f.pad && n < f.max; n++ {
		dst = append(dst, ' ')
	}
	return dst
}

// holds reports whether n characters fit.
func (f fit) holds(n int) bool { return f.max == 0 || n <= f.max }
