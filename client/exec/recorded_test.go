package exec_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/client/exec"
)

// backend encodes messages with pgx's own encoder, which shares no code with us.
func backend(t testing.TB, messages ...pgproto3.BackendMessage) []byte {
	var out []byte
	for _, m := range messages {
		b, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func recorded(t testing.TB) []byte {
	return backend(t,
		&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{
			{Name: []byte("id"), DataTypeOID: 23, Format: 0}, {Name: []byte("raw"), DataTypeOID: 17, Format: 1}, {Name: []byte("gone"), DataTypeOID: 25}}},
		&pgproto3.DataRow{Values: [][]byte{[]byte("1"), {0xde, 0xad}, nil}},
		&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "held: r-1"},
		&pgproto3.DataRow{Values: [][]byte{[]byte("2"), {}, []byte("x")}},
		&pgproto3.CommandComplete{CommandTag: []byte("SELECT 2")},
		&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42501", Message: "hoopctl: no"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'})
}

// However the recording's frames cut the messages, the same comes out.
func TestDecoderAtEveryCut(t *testing.T) {
	b := recorded(t)
	for cut := range len(b) + 1 {
		var out bytes.Buffer
		w, _ := exec.NewWriter("csv", &out, 1)
		d := exec.NewDecoder(w)
		var said []string
		d.Failed = func(n exec.Notice) { said = append(said, n.SQLState+" "+n.Message) }
		d.Noticed = func(n exec.Notice) { said = append(said, n.Message) }
		for _, part := range [][]byte{b[:cut], b[cut:]} {
			if _, err := d.Write(part); err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
		if want := "id,raw,gone\n1,\\xdead,\n2,\\x,x\n"; out.String() != want {
			t.Fatalf("cut at %d: %q, want %q", cut, out.String(), want)
		}
		if len(said) != 2 || said[0] != "held: r-1" || said[1] != "42501 hoopctl: no" || d.Pending() != 0 {
			t.Fatalf("cut at %d: said %q, %d bytes left", cut, said, d.Pending())
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add(recorded(f), 7)
	f.Add([]byte{'T', 0, 0, 0, 6, 0xff, 0xff}, 3)
	f.Add([]byte{'D', 0x7f, 0xff, 0xff, 0xff}, 1)
	lie := recorded(f)
	binary.BigEndian.PutUint32(lie[1:], 3)
	f.Add(lie, 0)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = max(0, min(cut, len(b)))
		whole, first := decode(b)
		parts, second := decode(b[:cut], b[cut:])
		if (first == nil) != (second == nil) || first == nil && whole != parts {
			t.Fatalf("whole: %q %v; cut at %d: %q %v", whole, first, cut, parts, second)
		}
	})
}

func decode(parts ...[]byte) (string, error) {
	var out bytes.Buffer
	w, _ := exec.NewWriter("ndjson", &out, 1)
	d := exec.NewDecoder(w)
	for _, p := range parts {
		if _, err := d.Write(p); err != nil {
			return "", err
		}
	}
	return out.String(), w.Close()
}

var _ io.Writer = (*exec.Decoder)(nil)
