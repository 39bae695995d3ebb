package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/hoopctl/hoopctl/policy"
)

// errArray is an array whose members cannot be told.
var errArray = errors.New("an array that is compared with a hidden column cannot be read")

// members are the values in an array, NULL as nil: of any type and number of
// dimensions, in the forms of array_out and array_send.
func members(p policy.Param) ([][]byte, error) {
	if p.Binary {
		return binaryMembers(p.Value)
	}
	return textMembers(p.Value)
}

// maxDimensions is PostgreSQL's MAXDIM.
const maxDimensions = 6

func binaryMembers(b []byte) ([][]byte, error) {
	if len(b) < 12 {
		return nil, errArray
	}
	dimensions := int(binary.BigEndian.Uint32(b))
	if dimensions > maxDimensions || len(b) < 12+8*dimensions {
		return nil, errArray
	}
	var out [][]byte
	for b = b[12+8*dimensions:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, errArray
		}
		size := int32(binary.BigEndian.Uint32(b))
		if b = b[4:]; size == -1 {
			out = append(out, nil)
			continue
		}
		if size < 0 || int(size) > len(b) {
			return nil, errArray
		}
		out, b = append(out, b[:size:size]), b[size:]
	}
	return out, nil
}

// textMembers reads {a,"b \"c\"",NULL,{d}}; bounds in front are left out. White
// space between members is dropped, as PostgreSQL does.
func textMembers(b []byte) ([][]byte, error) {
	r := arrayText{b: b}
	r.skipBounds()
	depth := 0
	var out [][]byte
	for {
		switch c := r.next(); c {
		case '{':
			if depth++; depth > maxDimensions {
				return nil, errArray
			}
		case '}':
			if depth--; depth == 0 {
				if r.next() != 0 {
					return nil, errArray
				}
				return out, nil
			}
		case ',':
		case 0:
			return nil, errArray
		default:
			if depth == 0 {
				return nil, errArray
			}
			r.at--
			v, ok := r.member()
			if !ok {
				return nil, errArray
			}
			out = append(out, v)
		}
		if depth == 0 {
			return nil, errArray
		}
	}
}

type arrayText struct {
	b  []byte
	at int
}

func blank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// next is the next byte that is no white space, 0 at the end.
func (r *arrayText) next() byte {
	for r.at < len(r.b) {
		c := r.b[r.at]
		if r.at++; !blank(c) {
			return c
		}
	}
	return 0
}

// skipBounds passes [1:2][0:1]= in front of the first bracket.
func (r *arrayText) skipBounds() {
	for i, c := range r.b {
		if c == '{' || !blank(c) && c != '[' && c != ']' && c != ':' && c != '=' && c != '-' && c != '+' && (c < '0' || c > '9') {
			r.at = i
			return
		}
	}
}

// member reads one value, quoted or not.
func (r *arrayText) member() (value []byte, ok bool) {
	value = []byte{}
	if r.b[r.at] == '"' {
		for r.at++; r.at < len(r.b); r.at++ {
			switch c := r.b[r.at]; {
			case c == '"':
				r.at++
				return value, true
			case c == '\\' && r.at+1 < len(r.b):
				r.at++
				value = append(value, r.b[r.at])
			default:
				value = append(value, c)
			}
		}
		return nil, false
	}
	end, escaped := 0, false // behind the last byte that is no white space
	for r.at < len(r.b) && r.b[r.at] != ',' && r.b[r.at] != '}' && r.b[r.at] != '{' && r.b[r.at] != '"' {
		c := r.b[r.at]
		if c == '\\' && r.at+1 < len(r.b) {
			r.at++
			c, escaped = r.b[r.at], true
			value = append(value, c)
			end = len(value)
		} else if value = append(value, c); !blank(c) {
			end = len(value)
		}
		r.at++
	}
	value = value[:end]
	if !escaped && bytes.EqualFold(value, []byte("null")) {
		return nil, true
	}
	return value, len(value) > 0
}
