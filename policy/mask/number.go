package mask

import (
	"encoding/binary"
	"strconv"
)

// wireInt reads and writes integers of 2, 4 or 8 bytes in either format.
type wireInt struct {
	width  int
	binary bool
}

func integerOf(t Type, k kind) wireInt { return wireInt{width: k.width, binary: t.Binary} }

func (w wireInt) read(value []byte) (int64, bool) {
	if !w.binary {
		n, err := strconv.ParseInt(string(value), 10, 64)
		return n, err == nil && len(value) <= len("-9223372036854775808")
	}
	if len(value) != w.width {
		return 0, false
	}
	switch w.width {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(value))), true
	case 4:
		return int64(int32(binary.BigEndian.Uint32(value))), true
	default:
		return int64(binary.BigEndian.Uint64(value)), true
	}
}

// write appends n, which fits the width.
func (w wireInt) write(dst []byte, n int64) []byte {
	switch {
	case !w.binary:
		return strconv.AppendInt(dst, n, 10)
	case w.width == 2:
		return binary.BigEndian.AppendUint16(dst, uint16(n))
	case w.width == 4:
		return binary.BigEndian.AppendUint32(dst, uint32(n))
	default:
		return binary.BigEndian.AppendUint64(dst, uint64(n))
	}
}

// ageInt shows ages of 90 and more as 90.
type ageInt struct {
	integer   wireInt
	otherwise Rewriter
}

func (m *ageInt) Rewrite(dst, value []byte) ([]byte, bool) {
	n, ok := m.integer.read(value)
	if !ok || n < 0 {
		return m.otherwise.Rewrite(dst, value)
	}
	return m.integer.write(dst, min(n, 90)), false
}

// yearInt treats the number as a year: those that may show an age of 90 become 1900.
type yearInt struct {
	integer   wireInt
	today     int
	otherwise Rewriter
}

func (m *yearInt) Rewrite(dst, value []byte) ([]byte, bool) {
	n, ok := m.integer.read(value)
	switch {
	case !ok || n < 1 || n > 9999:
		return m.otherwise.Rewrite(dst, value)
	case int64(m.today)-n >= 90:
		n = 1900
	}
	return m.integer.write(dst, n), false
}

// Signs of a numeric on the wire (numeric.c, numeric_send).
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
)

// numericDigits appends the value of a numeric in its shortest decimal form,
// which is the same for both formats and all scales: 12.50 and 12.5 are one.
func numericDigits(dst, value []byte, bin bool) ([]byte, bool) {
	start := len(dst)
	if bin {
		var ok bool
		if dst, ok = appendNumeric(dst, value); !ok {
			return dst[:start], false
		}
	} else {
		for _, c := range value {
			if (c < '0' || c > '9') && c != '-' && c != '.' {
				return dst[:start], false // NaN, Infinity
			}
		}
		dst = append(dst, value...)
	}
	return shortest(dst, start), true
}

// maxNumeric bounds the digits that a numeric may make us write: a few bytes on
// the wire can stand for 131072 zeros.
const maxNumeric = 2048

// appendNumeric writes a binary numeric as text. The wire holds ndigits,
// weight, sign, dscale and base-10000 digits; the first digit has the value
// digit × 10000^weight.
func appendNumeric(dst, value []byte) ([]byte, bool) {
	if len(value) < 8 {
		return dst, false
	}
	count := int(binary.BigEndian.Uint16(value))
	weight := int(int16(binary.BigEndian.Uint16(value[2:])))
	sign := binary.BigEndian.Uint16(value[4:])
	if len(value) != 8+2*count || sign != numericPositive && sign != numericNegative || weight > maxNumeric/4 || weight < -maxNumeric/4 || count > maxNumeric/4 {
		return dst, false
	}
	if sign == numericNegative {
		dst = append(dst, '-')
	}
	return appendGroups(dst, value[8:], count, weight), true
}

// appendGroups writes the groups from the highest power that matters down to
// the last group that there is.
func appendGroups(dst, digits []byte, count, weight int) []byte {
	for power := max(weight, 0); power >= 0 || weight-power < count; power-- {
		if power == -1 {
			dst = append(dst, '.')
		}
		group := uint16(0)
		if i := weight - power; i >= 0 && i < count {
			group = binary.BigEndian.Uint16(digits[2*i:])
		}
		dst = append(dst, byte('0'+group/1000%10), byte('0'+group/100%10), byte('0'+group/10%10), byte('0'+group%10))
	}
	return dst
}

// shortest strips leading zeros, and trailing zeros of a fraction, of the
// decimal that begins at start.
func shortest(dst []byte, start int) []byte {
	end, point := len(dst), -1
	for i := start; i < end; i++ {
		if dst[i] == '.' {
			point = i
		}
	}
	if point >= 0 {
		for end > point && dst[end-1] == '0' {
			end--
		}
		if end == point+1 {
			end--
		}
	}
	first := start
	if first < end && dst[first] == '-' {
		first++
	}
	zero := first
	for zero < end-1 && dst[zero] == '0' && dst[zero+1] != '.' {
		zero++
	}
	n := copy(dst[first:], dst[zero:end])
	return dst[:first+n]
}
