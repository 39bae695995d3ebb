package exec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Decoder reads what a PostgreSQL client saw, as a recording holds it, and
// hands results to a Writer. The bytes are foreign: every length is checked,
// and what does not fit together is an error, never a panic.
// (https://www.postgresql.org/docs/15/protocol-message-formats.html)
//
// Values in binary format are handed on as PostgreSQL's escaped bytea, since
// their types are not known here. Rows without a description (a driver may know
// it from an earlier Describe) get numbered columns.
type Decoder struct {
	w       Writer
	rest    []byte
	formats []int16
	values  [][]byte
	// Failed hears ERROR and FATAL messages; Notice the others. Both may be nil.
	Failed, Noticed func(Notice)
}

// NewDecoder returns a Decoder that prints to w.
func NewDecoder(w Writer) *Decoder { return &Decoder{w: w} }

// maxMessage bounds one message in bytes: PostgreSQL sends none beyond 1 GiB,
// and a recording that claims more is broken.
const maxMessage = 1 << 30

var errRecorded = errors.New("the recording is not of PostgreSQL's protocol")

// Write takes the next bytes. Messages may be cut anywhere between two calls.
func (d *Decoder) Write(b []byte) (int, error) {
	d.rest = append(d.rest, b...)
	at := 0
	for len(d.rest)-at >= 5 {
		size := binary.BigEndian.Uint32(d.rest[at+1:])
		if size < 4 || size > maxMessage {
			return 0, fmt.Errorf("%w: a message of %d bytes", errRecorded, size)
		}
		end := at + 1 + int(size)
		if end > len(d.rest) {
			break
		}
		if err := d.message(d.rest[at], d.rest[at+5:end]); err != nil {
			return 0, err
		}
		at = end
	}
	d.rest = slices.Delete(d.rest, 0, at)
	return len(b), nil
}

// Pending is how many bytes of an unfinished message are kept.
func (d *Decoder) Pending() int { return len(d.rest) }

func (d *Decoder) message(kind byte, body []byte) error {
	switch kind {
	case 'T':
		return d.rowDescription(body)
	case 'D':
		return d.dataRow(body)
	case 'C':
		tag, _, ok := cstring(body)
		if !ok {
			return fmt.Errorf("%w: a command tag without end", errRecorded)
		}
		return d.end(tag)
	case 'd':
		return d.w.Copy(body)
	case 'I', 's':
		return d.end("")
	case 'E', 'N':
		return d.notice(kind, body)
	default:
		return nil
	}
}

func (d *Decoder) end(tag string) error {
	d.formats = nil
	return d.w.End(tag)
}

func (d *Decoder) rowDescription(b []byte) error {
	n, b, ok := count(b)
	if !ok {
		return fmt.Errorf("%w: a row description without a count", errRecorded)
	}
	d.formats = make([]int16, 0, min(n, 2048))
	columns := make([]Column, 0, min(n, 2048))
	for range n {
		name, rest, ok := cstring(b)
		if !ok || len(rest) < 18 {
			return fmt.Errorf("%w: a row description that is cut short", errRecorded)
		}
		columns = append(columns, Column{Name: name, Type: binary.BigEndian.Uint32(rest[6:])})
		d.formats = append(d.formats, int16(binary.BigEndian.Uint16(rest[16:])))
		b = rest[18:]
	}
	return d.w.Columns(columns)
}

func (d *Decoder) dataRow(b []byte) error {
	n, b, ok := count(b)
	if ok && d.formats == nil {
		if err := d.undescribed(n); err != nil {
			return err
		}
	}
	if !ok || n != len(d.formats) {
		return fmt.Errorf("%w: a row that its description does not describe", errRecorded)
	}
	d.values = d.values[:0]
	for i := range n {
		if len(b) < 4 {
			return fmt.Errorf("%w: a row that is cut short", errRecorded)
		}
		size := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		switch {
		case size == -1:
			d.values = append(d.values, nil)
			continue
		case size < 0 || int(size) > len(b):
			return fmt.Errorf("%w: a value of %d bytes in a row of %d", errRecorded, size, len(b))
		}
		v := b[:size:size]
		if d.formats[i] == 1 || d.formats[i] == formatUnknown && !utf8.Valid(v) {
			v = fmt.Appendf(nil, `\x%x`, v)
		}
		d.values = append(d.values, v)
		b = b[size:]
	}
	return d.w.Row(d.values)
}

// formatUnknown marks values whose format nobody recorded.
const formatUnknown = -1

func (d *Decoder) undescribed(n int) error {
	columns := make([]Column, n)
	d.formats = make([]int16, n)
	for i := range n {
		columns[i].Name = fmt.Sprintf("column%d", i+1)
		d.formats[i] = formatUnknown
	}
	return d.w.Columns(columns)
}

func (d *Decoder) notice(kind byte, b []byte) error {
	var n Notice
	for len(b) > 0 && b[0] != 0 {
		field := b[0]
		value, rest, ok := cstring(b[1:])
		if !ok {
			return fmt.Errorf("%w: a message without end", errRecorded)
		}
		switch field {
		case 'S':
			n.Severity = value
		case 'C':
			n.SQLState = value
		case 'M':
			n.Message = value
		case 'D':
			n.Detail = value
		case 'H':
			n.Hint = value
		}
		b = rest
	}
	hear := d.Noticed
	if kind == 'E' {
		hear = d.Failed
		if err := d.end(""); err != nil {
			return err
		}
	}
	if hear != nil {
		hear(n)
	}
	return nil
}

func count(b []byte) (int, []byte, bool) {
	if len(b) < 2 {
		return 0, nil, false
	}
	return int(binary.BigEndian.Uint16(b)), b[2:], true
}

func cstring(b []byte) (string, []byte, bool) {
	i := slices.Index(b, 0)
	if i < 0 {
		return "", nil, false
	}
	return string(b[:i]), b[i+1:], true
}
