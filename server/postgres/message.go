package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hoopctl/hoopctl/policy"
)

// errMalformed is a message whose inside does not fit its length. The peer
// that sent it is broken or hostile: its session ends.
var errMalformed = errors.New("malformed message")

// cursor walks the body of one message. It never reads beyond it; after the
// first failure everything that it returns is zero and bad stays true.
type cursor struct {
	b   []byte
	bad bool
}

// cut takes n bytes; they alias the message.
func (c *cursor) cut(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) byte() byte {
	if b := c.cut(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) int16() int {
	if b := c.cut(2); b != nil {
		return int(int16(binary.BigEndian.Uint16(b)))
	}
	return 0
}

func (c *cursor) int32() int32 { return int32(c.uint32()) }

func (c *cursor) uint32() uint32 {
	if b := c.cut(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// text takes a NUL-terminated string without its NUL.
func (c *cursor) text() []byte {
	if c.bad {
		return nil
	}
	n := bytes.IndexByte(c.b, 0)
	if n < 0 {
		c.bad = true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n+1:]
	return out
}

// count takes an int16 that counts elements of at least size bytes each. A
// count that the rest of the message cannot hold is a lie, and nothing is
// allocated for it.
func (c *cursor) count(size int) int {
	n := c.int16()
	if n < 0 || n*size > len(c.b) {
		c.bad = true
		return 0
	}
	return n
}

// end is nil if the message was read to its end and fitted.
func (c *cursor) end(what string) error {
	if c.bad || len(c.b) != 0 {
		return fmt.Errorf("%w: %s", errMalformed, what)
	}
	return nil
}

// body is the inside of a whole message.
func body(frame []byte) []byte { return frame[headerSize:] }

// decodeQuery returns the text of a Query message.
func decodeQuery(frame []byte) (text []byte, err error) {
	c := cursor{b: body(frame)}
	text = c.text()
	return text, c.end("Query")
}

type parseMessage struct {
	name, text []byte
	types      []byte // parameter type OIDs, 4 bytes each
}

func decodeParse(frame []byte) (m parseMessage, err error) {
	c := cursor{b: body(frame)}
	m.name, m.text = c.text(), c.text()
	m.types = c.cut(4 * c.count(4))
	return m, c.end("Parse")
}

type bindMessage struct {
	portal, name []byte
	params       []policy.Param // values alias the message
}

// decodeBind reads a Bind message. types are the parameter types that Parse
// named, 4 bytes each.
func decodeBind(frame, types []byte) (m bindMessage, err error) {
	c := cursor{b: body(frame)}
	m.portal, m.name = c.text(), c.text()
	formats := c.cut(2 * c.count(2))
	n := c.count(4)
	if nf := len(formats) / 2; nf > 1 && nf != n {
		c.bad = true
	}
	if n > 0 && !c.bad {
		m.params = make([]policy.Param, n)
	}
	for i := range m.params {
		p := &m.params[i]
		size := c.int32()
		if size != -1 {
			if p.Value = c.cut(int(size)); p.Value == nil && !c.bad {
				p.Value = []byte{}
			}
		}
		p.Binary = format(formats, i) == 1
		if len(types) >= 4*(i+1) {
			p.Type = binary.BigEndian.Uint32(types[4*i:])
		}
	}
	c.cut(2 * c.count(2))
	return m, c.end("Bind")
}

// format is the format code of column or parameter i: none given is text, one
// given is for all.
func format(codes []byte, i int) int {
	switch len(codes) / 2 {
	case 0:
		return 0
	case 1:
		i = 0
	}
	if len(codes) < 2*(i+1) {
		return 0
	}
	return int(binary.BigEndian.Uint16(codes[2*i:]))
}

// decodeNamed reads Describe and Close: 'S' or 'P', and a name.
func decodeNamed(frame []byte) (kind byte, name []byte, err error) {
	c := cursor{b: body(frame)}
	kind, name = c.byte(), c.text()
	if kind != 'S' && kind != 'P' {
		c.bad = true
	}
	return kind, name, c.end("Describe or Close")
}

func decodeExecute(frame []byte) (portal []byte, rows int32, err error) {
	c := cursor{b: body(frame)}
	portal, rows = c.text(), c.int32()
	return portal, rows, c.end("Execute")
}

// decodeRowDescription appends the columns to dst.
func decodeRowDescription(dst []field, frame []byte) ([]field, error) {
	c := cursor{b: body(frame)}
	for n := c.count(19); n > 0 && !c.bad; n-- {
		f := field{Name: string(c.text())}
		f.TableOID, f.Attnum = c.uint32(), int16(c.int16())
		f.TypeOID = c.uint32()
		f.Size = int16(c.int16())
		f.Typmod, f.Format = c.int32(), int16(c.int16())
		dst = append(dst, f)
	}
	return dst, c.end("RowDescription")
}

// decodeComplete returns the command tag of CommandComplete.
func decodeComplete(frame []byte) ([]byte, error) {
	c := cursor{b: body(frame)}
	tag := c.text()
	return tag, c.end("CommandComplete")
}

// decodeReady returns the transaction status: 'I', 'T' or 'E'.
func decodeReady(frame []byte) (byte, error) {
	c := cursor{b: body(frame)}
	status := c.byte()
	if status != 'I' && status != 'T' && status != 'E' {
		c.bad = true
	}
	return status, c.end("ReadyForQuery")
}

// decodeStatus returns what ParameterStatus says.
func decodeStatus(frame []byte) (name, value []byte, err error) {
	c := cursor{b: body(frame)}
	name, value = c.text(), c.text()
	return name, value, c.end("ParameterStatus")
}

// maxFields bounds the fields of one error or notice: PostgreSQL knows 18.
const maxFields = 64

// told is an ErrorResponse or NoticeResponse: its fields by their type byte.
type told struct {
	fields [maxFields]struct {
		kind  byte
		value []byte
	}
	n int
}

// get returns the field's value, nil if it is not there.
func (t *told) get(kind byte) []byte {
	for i := range t.fields[:t.n] {
		if t.fields[i].kind == kind {
			return t.fields[i].value
		}
	}
	return nil
}

// code is the SQLSTATE, XX000 if there is none that is one.
func (t *told) code() string {
	c := t.get('C')
	if len(c) != 5 {
		return "XX000"
	}
	for _, b := range c {
		if (b < '0' || b > '9') && (b < 'A' || b > 'Z') {
			return "XX000"
		}
	}
	return string(c)
}

// fatal reports whether the target ends the session with it.
func (t *told) fatal() bool {
	severity := t.get('V')
	if severity == nil {
		severity = t.get('S')
	}
	return string(severity) == "FATAL" || string(severity) == "PANIC"
}

func decodeTold(frame []byte) (t told, err error) {
	c := cursor{b: body(frame)}
	for {
		kind := c.byte()
		if kind == 0 || c.bad {
			break
		}
		if t.n == maxFields {
			c.bad = true
			break
		}
		t.fields[t.n].kind, t.fields[t.n].value = kind, c.text()
		t.n++
	}
	return t, c.end("ErrorResponse or NoticeResponse")
}

// decodeNotification returns the parts of a NotificationResponse.
func decodeNotification(frame []byte) (pid uint32, channel, payload []byte, err error) {
	c := cursor{b: body(frame)}
	pid, channel, payload = c.uint32(), c.text(), c.text()
	return pid, channel, payload, c.end("NotificationResponse")
}

// decodeCopyResponse returns the overall format (0 text, 1 binary) and how
// many columns CopyInResponse or CopyOutResponse announces.
func decodeCopyResponse(frame []byte) (format byte, columns int, err error) {
	c := cursor{b: body(frame)}
	format = c.byte()
	columns = c.count(2)
	c.cut(2 * columns)
	return format, columns, c.end("CopyResponse")
}

// startup is the packet that begins a connection.
type startup struct {
	version uint32
	// params are the pairs in the order that they came, "user" and "database"
	// among them.
	params [][2]string
}

func (s *startup) get(name string) string {
	for _, p := range s.params {
		if p[0] == name {
			return p[1]
		}
	}
	return ""
}

// decodeStartup reads a StartupMessage's body behind its length field.
func decodeStartup(b []byte) (s startup, err error) {
	c := cursor{b: b}
	s.version = c.uint32()
	for {
		name := c.text()
		if c.bad || len(name) == 0 {
			break
		}
		value := c.text()
		if s.get(string(name)) != "" {
			c.bad = true // which one PostgreSQL would take is not ours to guess
		}
		s.params = append(s.params, [2]string{string(name), string(value)})
	}
	return s, c.end("StartupMessage")
}
