//go:build unix

package postgres

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
)

// drain sends a query on a plaintext session and throws its answer away, up to
// ReadyForQuery. It returns the bytes and the DataRow and CopyData messages that
// came, and what the whole process allocated meanwhile.
func drain(t *testing.T, sql string) (bytes, rows int64, used runtime.MemStats) {
	h := newHouse(t, nil, func(h *house) { h.plain = true })
	h.bench = &benchGate{}
	h.target.info.TLSMode = "disable"
	w := h.wire()
	w.send(query("SELECT 1 FROM pg_class LIMIT 1")) // the catalogue is read for the first statement
	w.until("Z")
	buf := make([]byte, 256<<10)
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	w.send(query(sql))
	skip, have := 0, 0
	for {
		n, err := w.conn.Read(buf[have:])
		if err != nil {
			t.Fatalf("after %d bytes: %v", bytes, err)
		}
		bytes += int64(n)
		in := buf[:have+n]
		for {
			if skip >= len(in) {
				skip, have = skip-len(in), 0
				break
			}
			in, skip = in[skip:], 0
			if len(in) < headerSize {
				have = copy(buf, in)
				break
			}
			switch in[0] {
			case 'D', 'd':
				rows++
			case 'E':
				t.Fatalf("the target said %q", in)
			case 'Z':
				runtime.ReadMemStats(&used)
				used.TotalAlloc -= before.TotalAlloc
				used.Mallocs -= before.Mallocs
				return bytes, rows, used
			}
			skip = int(binary.BigEndian.Uint32(in[1:])) + 1
		}
	}
}

// A value of any size goes through in pieces: nothing here holds it.
func TestLargeFieldIsNotHeld(t *testing.T) {
	const size = 64 << 20
	bytes, rows, used := drain(t, "SELECT repeat('0123456789abcdef', 4 * 1024 * 1024)")
	if rows != 1 || bytes < size {
		t.Fatalf("%d rows, %d bytes came", rows, bytes)
	}
	if used.TotalAlloc > size/8 {
		t.Errorf("a field of %d MiB allocated %d KiB on its way", size>>20, used.TotalAlloc>>10)
	}
}

// A row costs no allocation, whether it is one of many or copied out.
func TestRowsAllocateNothing(t *testing.T) {
	const many = 300_000
	for _, sql := range []string{
		"SELECT g, md5(g::text) FROM generate_series(1, 300000) g",
		"COPY (SELECT g, md5(g::text) FROM generate_series(1, 300000) g) TO STDOUT",
	} {
		_, rows, used := drain(t, sql)
		if rows != many {
			t.Fatalf("%s: %d rows came", sql, rows)
		}
		if used.Mallocs > many/20 || used.TotalAlloc > 16<<20 {
			t.Errorf("%s: %d allocations, %d KiB for %d rows", sql, used.Mallocs, used.TotalAlloc>>10, rows)
		}
	}
}

// Nor does rewriting one.
func TestRewritingAllocatesNothing(t *testing.T) {
	plan := func() *rowPlan {
		return &rowPlan{rewrite: []mask.Rewriter{nil, stars{}, nil}, cells: make([]int64, 3)}
	}
	row := framed('D', []byte("\x00\x03\x00\x00\x00\x02ab\x00\x00\x00\x09123-45-67\xff\xff\xff\xff"))
	line := framed('d', []byte("ab\t123-\\\\45\t\\N\n"))
	csv := framed('d', []byte("ab,\"1,2\"\"3\",x\n"))
	out := make([]byte, 0, 1<<10)
	rows := plan()
	text := newCopyDecoder(&policy.CopyFacts{Format: "text"}, plan())
	quoted := newCopyDecoder(&policy.CopyFacts{Format: "csv"}, plan())
	for name, rewrite := range map[string]func() ([]byte, error){
		"DataRow":  func() ([]byte, error) { return rows.rewriteRow(out, row) },
		"COPY":     func() ([]byte, error) { return text.rewrite(out, line) },
		"COPY CSV": func() ([]byte, error) { return quoted.rewrite(out, csv) },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := rewrite(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %.0f allocations a row", name, n)
		}
	}
}
