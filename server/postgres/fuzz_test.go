package postgres

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
)

// seed is a message as an honest peer encodes it.
func seed(f *testing.F, m encoder) []byte {
	b, err := m.Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// framed makes a whole message of arbitrary bytes, as the reader hands it over.
func framed(kind byte, b []byte) []byte { return message(kind, b...) }

// FuzzClientMessages: no byte of a client makes a decoder panic or reach
// beyond its message, and what one accepts, pgx's own decoder reads the same.
func FuzzClientMessages(f *testing.F) {
	f.Add(byte('Q'), seed(f, &pgproto3.Query{String: "SELECT 1"})[5:])
	f.Add(byte('P'), seed(f, &pgproto3.Parse{Name: "s", Query: "SELECT $1", ParameterOIDs: []uint32{25}})[5:])
	f.Add(byte('B'), seed(f, &pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s", ParameterFormatCodes: []int16{1, 0}, Parameters: [][]byte{nil, []byte("x")}, ResultFormatCodes: []int16{1}})[5:])
	f.Add(byte('D'), seed(f, &pgproto3.Describe{ObjectType: 'S', Name: "s"})[5:])
	f.Add(byte('E'), seed(f, &pgproto3.Execute{Portal: "p", MaxRows: 5})[5:])
	f.Add(byte('B'), []byte{0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe, 0, 0})
	f.Add(byte('B'), []byte{0, 0, 0xff, 0xff, 0x7f, 0xff})
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		frame := framed(kind, b)
		switch kind {
		case 'Q':
			text, err := decodeQuery(frame)
			var other pgproto3.Query
			if err == nil && (other.Decode(b) != nil || other.String != string(text)) {
				t.Errorf("%q is %q to pgx", text, other.String)
			}
		case 'P':
			m, err := decodeParse(frame)
			var other pgproto3.Parse
			if err == nil && (other.Decode(b) != nil || other.Query != string(m.text) || other.Name != string(m.name) || len(other.ParameterOIDs) != len(m.types)/4) {
				t.Errorf("%+v is %+v to pgx", m, other)
			}
		case 'B':
			fuzzBind(t, frame)
		case 'E':
			portal, rows, err := decodeExecute(frame)
			var other pgproto3.Execute
			if err == nil && (other.Decode(b) != nil || other.Portal != string(portal) || other.MaxRows != uint32(rows)) {
				t.Errorf("%q %d is %+v to pgx", portal, rows, other)
			}
		default:
			decodeNamed(frame)
		}
	})
}

func fuzzBind(t *testing.T, frame []byte) {
	m, err := decodeBind(frame, []byte{0, 0, 0, 25})
	if err != nil {
		return
	}
	var other pgproto3.Bind
	if err := other.Decode(body(frame)); err != nil {
		t.Fatalf("pgx does not read what we do: %v", err)
	}
	if other.DestinationPortal != string(m.portal) || other.PreparedStatement != string(m.name) || len(other.Parameters) != len(m.params) {
		t.Fatalf("%+v is %+v to pgx", m, other)
	}
	for i := range m.params {
		if (m.params[i].Value == nil) != (other.Parameters[i] == nil) || !bytes.Equal(m.params[i].Value, other.Parameters[i]) {
			t.Errorf("parameter %d: %q is %q to pgx", i, m.params[i].Value, other.Parameters[i])
		}
	}
}

// FuzzTargetMessages is the same for what a target says.
func FuzzTargetMessages(f *testing.F) {
	f.Add(byte('T'), seed(f, &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a"), TableOID: 16400, TableAttributeNumber: 2, DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}}})[5:])
	f.Add(byte('E'), seed(f, &pgproto3.ErrorResponse{Severity: "ERROR", Code: "22P02", Message: "invalid input syntax: \"123-45-6789\"", Position: 3})[5:])
	f.Add(byte('C'), seed(f, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})[5:])
	f.Add(byte('S'), seed(f, &pgproto3.ParameterStatus{Name: "a", Value: "b"})[5:])
	f.Add(byte('A'), seed(f, &pgproto3.NotificationResponse{PID: 1, Channel: "c", Payload: "p"})[5:])
	f.Add(byte('H'), seed(f, &pgproto3.CopyOutResponse{OverallFormat: 1, ColumnFormatCodes: []uint16{1, 1}})[5:])
	f.Add(byte('Z'), []byte{'I'})
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		frame := framed(kind, b)
		switch kind {
		case 'T':
			fields, err := decodeRowDescription(nil, frame)
			var other pgproto3.RowDescription
			if err == nil && (other.Decode(b) != nil || len(other.Fields) != len(fields)) {
				t.Errorf("%d fields, to pgx %d", len(fields), len(other.Fields))
			}
		case 'E', 'N':
			told, err := decodeTold(frame)
			if err != nil {
				return
			}
			shown := scrubbed(nil, kind, &told)
			if _, err := decodeTold(shown); err != nil || binary.BigEndian.Uint32(shown[1:]) != uint32(len(shown)-1) {
				t.Errorf("what is shown instead is malformed: %q", shown)
			}
			if m := told.get('M'); len(m) > 12 && bytes.Contains(shown, m) && template(told.code()) != string(m) {
				t.Errorf("the target's words %q are in %q", m, shown)
			}
		case 'C':
			decodeComplete(frame)
		case 'S':
			decodeStatus(frame)
		case 'A':
			decodeNotification(frame)
		case 'Z':
			decodeReady(frame)
		default:
			decodeCopyResponse(frame)
		}
	})
}

// FuzzRewriteRow: a row is rewritten whole and legal, or not at all.
func FuzzRewriteRow(f *testing.F) {
	f.Add(seed(f, &pgproto3.DataRow{Values: [][]byte{[]byte("a"), nil, []byte("123-45-6789")}})[5:], uint8(3))
	f.Add([]byte{0, 1, 0xff, 0xff, 0xff, 0xfe}, uint8(1))
	f.Add([]byte{}, uint8(1))
	f.Add([]byte{0}, uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, columns uint8) {
		p := &rowPlan{rewrite: make([]mask.Rewriter, columns), cells: make([]int64, columns)}
		for i := range p.rewrite {
			if i%2 == 1 {
				p.rewrite[i] = stars{}
			}
		}
		before := []byte("before")
		out, err := p.rewriteRow(before, framed('D', b))
		if !bytes.HasPrefix(out, before) {
			t.Fatal("what stood before is gone")
		}
		if err != nil {
			if len(out) != len(before) {
				t.Fatalf("half a row: %q", out)
			}
			return
		}
		var in, shown pgproto3.DataRow
		row := out[len(before):]
		if err := in.Decode(b); err != nil {
			t.Fatalf("pgx does not read what we do: %v", err)
		}
		if err := shown.Decode(row[5:]); err != nil || int(binary.BigEndian.Uint32(row[1:])) != len(row)-1 {
			t.Fatalf("malformed row %q: %v", row, err)
		}
		for i := range in.Values {
			want := in.Values[i]
			if i%2 == 1 && want != nil {
				want = []byte("***")
			}
			if (shown.Values[i] == nil) != (want == nil) || !bytes.Equal(shown.Values[i], want) {
				t.Errorf("column %d: %q, want %q", i, shown.Values[i], want)
			}
		}
	})
}

// FuzzStartup: the start-up packet.
func FuzzStartup(f *testing.F) {
	f.Add(packet(3<<16, "user", "alice", "database", "x", "options", `-c a=b\ c --d=e`)[4:])
	f.Add(packet(3<<16|2, "user", "alice", "_pq_.x", "1", "replication", "database")[4:])
	f.Add([]byte{0, 3, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeStartup(b)
		if err != nil {
			return
		}
		hello, asked, problem := readStartup(&s)
		if problem != "" {
			return
		}
		for name := range hello.Settings {
			if !settingName(name) {
				t.Errorf("setting %q", name)
			}
		}
		for _, a := range asked {
			if !settingName(a.name) || !plain(a.value) {
				t.Errorf("setting %q = %q", a.name, a.value)
			}
		}
	})
}

// FuzzSCRAM: nothing that a client says proves a secret that it does not know.
func FuzzSCRAM(f *testing.F) {
	f.Add(scramPlain, []byte("n,,n=,r=fyko+d2lbbFgONRv9qkxdawL"), []byte("c=biws,r=x,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	f.Add(scramPlus, []byte("p=tls-server-end-point,,n=,r=fyko+d2lbbFgONRv9qkxdawL"), []byte("c=,r=,p="))
	f.Fuzz(func(t *testing.T, mechanism string, first, final []byte) {
		s := scramServer{verifier: mockVerifier([]byte("key"), "user"), binding: []byte("binding")}
		if _, err := s.first(mechanism, first); err != nil {
			return
		}
		if _, err := s.final(final); err == nil {
			t.Error("proved")
		}
	})
}

// FuzzLoginGuard: however the stream is split, the guard says the same, and
// passes on what it does not refuse.
func FuzzLoginGuard(f *testing.F) {
	f.Add(message('R', append([]byte{0, 0, 0, 11}, "r=x,s=y,i=4096"...)...))
	f.Add(message('R', append([]byte{0, 0, 0, 11}, "r=x,s=y,i=2147483647"...)...))
	f.Add([]byte{'S', 0, 0, 0, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := io.ReadAll(&loginGuard{r: bytes.NewReader(b)})
		byOne, errByOne := io.ReadAll(&loginGuard{r: iotest.OneByteReader(bytes.NewReader(b))})
		if (err == nil) != (errByOne == nil) {
			t.Errorf("whole: %v, byte by byte: %v", err, errByOne)
		}
		if err == nil && (!bytes.Equal(whole, b) || !bytes.Equal(byOne, b)) {
			t.Error("bytes are lost")
		}
	})
}

// FuzzReader: frames come out the same however the stream is split, and the
// buffer never grows beyond what came.
func FuzzReader(f *testing.F) {
	f.Add(append(message('Q', []byte("SELECT 1\x00")...), message('S')...), uint8(3))
	f.Add([]byte{'Q', 0x3f, 0xff, 0xff, 0xff, 1, 2, 3}, uint8(1))
	f.Add([]byte{'Q', 0, 0, 0, 0}, uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, split uint8) {
		frames := func(conn io.Reader) (out [][]byte, err error) {
			r := newReader(conn)
			defer r.giveBack()
			for {
				_, size, ok, err := r.peek()
				if err != nil {
					return out, err
				}
				if ok && size <= r.buffered() {
					out = append(out, bytes.Clone(r.take(size)))
					continue
				}
				if len(r.buf) > max(largeBuffer, 4*len(b)) {
					t.Fatalf("a buffer of %d bytes for %d", len(r.buf), len(b))
				}
				if err := r.fill(maxHeld); err != nil {
					return out, nil
				}
			}
		}
		whole, err := frames(bytes.NewReader(b))
		pieces, errPieces := frames(&pieceReader{b: b, n: int(split) + 1})
		if (err == nil) != (errPieces == nil) || len(whole) != len(pieces) {
			t.Fatalf("%d frames %v, in pieces %d %v", len(whole), err, len(pieces), errPieces)
		}
		for i := range whole {
			if !bytes.Equal(whole[i], pieces[i]) {
				t.Errorf("frame %d differs", i)
			}
		}
	})
}

type pieceReader struct {
	b []byte
	n int
}

func (p *pieceReader) Read(dst []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(dst[:min(len(dst), p.n)], p.b)
	p.b = p.b[n:]
	return n, nil
}

// FuzzCopyOut: a row of COPY is rewritten whole, every masked cell of it, or
// not at all.
func FuzzCopyOut(f *testing.F) {
	f.Add("text", []byte("1\t123\\t45\tx\n"))
	f.Add("csv", []byte("1,\"1\"\"2\n3\",x\n"))
	f.Add("binary", append([]byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0, 3, 0, 0, 0, 1, '1', 0, 0, 0, 1, '2', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, format string, b []byte) {
		if format != "text" && format != "csv" && format != "binary" {
			return
		}
		plan := &rowPlan{rewrite: []mask.Rewriter{nil, stars{}, nil}, cells: make([]int64, 3)}
		out, err := newCopyDecoder(&policy.CopyFacts{Format: format}, plan).rewrite(nil, framed('d', b))
		if err != nil {
			if len(out) != 0 {
				t.Fatalf("half a row: %q", out)
			}
			return
		}
		if int(binary.BigEndian.Uint32(out[1:])) != len(out)-1 {
			t.Fatalf("wrong length: %q", out)
		}
		again := &rowPlan{rewrite: []mask.Rewriter{nil, stars{}, nil}, cells: make([]int64, 3)}
		twice, err := newCopyDecoder(&policy.CopyFacts{Format: format}, again).rewrite(nil, out)
		if err != nil || !bytes.Equal(twice, out) || again.cells[1] != plan.cells[1] {
			t.Fatalf("what is shown reads otherwise: %q then %q, %v", out, twice, err)
		}
	})
}
