package mask

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// The benchmarks stand beside a copy of the same bytes in the same process: on
// a shared machine only the ratio means something.

// patients are 2,000 DataRow bodies of ten columns, about 60 % of the bytes in
// a note: what a SELECT * of the sample clinic looks like.
func patients() [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := []string{"patient", "reports", "mild", "pain", "in", "the", "left", "knee", "after", "running;", "no", "fever,", "advised", "rest", "and", "ibuprofen", "400", "mg", "twice", "daily.", "BP", "120/80,", "pulse", "72.", "Follow-up", "two", "weeks."}
	var rows [][]byte
	for i := range 2000 {
		note := ""
		for len(note) < 180 {
			note += words[rnd.IntN(len(words))] + " "
		}
		if i%20 == 0 {
			note += fmt.Sprintf("SSN %03d-%02d-%04d, call 415-555-%04d.", 100+rnd.IntN(500), 1+rnd.IntN(99), 1+rnd.IntN(9999), rnd.IntN(10000))
		}
		row := binary.BigEndian.AppendUint16(nil, 10)
		for _, v := range []string{fmt.Sprint(i), "Ada Lovelace", fmt.Sprintf("%03d-%02d-%04d", 100+rnd.IntN(500), 1+rnd.IntN(99), 1+rnd.IntN(9999)), fmt.Sprintf("ada%d@example.org", i), "415-555-0199",
			fmt.Sprintf("19%02d-05-06", 40+i%60), fmt.Sprintf("%08d", i), "94110", "E11.9", note} {
			row = binary.BigEndian.AppendUint32(row, uint32(len(v)))
			row = append(row, v...)
		}
		rows = append(rows, row)
	}
	return rows
}

// rebuild walks a DataRow's columns and appends the row with some rewritten.
func rebuild(dst, row []byte, plan []Rewriter) []byte {
	dst = append(dst, row[:2]...)
	row = row[2:]
	for _, r := range plan {
		n := int(binary.BigEndian.Uint32(row))
		if r == nil {
			dst = append(dst, row[:4+n]...)
		} else {
			at := len(dst)
			dst, _ = r.Rewrite(append(dst, 0, 0, 0, 0), row[4:4+n])
			binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		}
		row = row[4+n:]
	}
	return dst
}

func benchmarkRows(b *testing.B, plan []Rewriter) {
	rows, total := patients(), 0
	for _, row := range rows {
		total += len(row)
	}
	dst := make([]byte, 0, 64<<10)
	b.SetBytes(int64(total))
	b.ReportAllocs()
	for b.Loop() {
		for _, row := range rows {
			if plan == nil {
				dst = append(dst[:0], row...)
			} else {
				dst = rebuild(dst[:0], row, plan)
			}
		}
	}
}

// plans are what the columns take: by policy, by scanning.
func plans(b *testing.B) (policy, scanned []Rewriter) {
	text := Type{OID: oidText, Typmod: -1}
	scan, err := all(b).Rewriter("", text, nil, settings())
	if err != nil {
		b.Fatal(err)
	}
	policy = make([]Rewriter, 10)
	for i, method := range map[int]string{1: "redact", 2: "last4", 3: "domain", 4: "redact", 5: "year", 6: "redact", 7: "zip3"} {
		if policy[i], err = New(method, text, settings()); err != nil {
			b.Fatal(err)
		}
	}
	for range 10 {
		scanned = append(scanned, scan)
	}
	policy[9] = scan
	return policy, scanned
}

func BenchmarkRows(b *testing.B) {
	policy, scanned := plans(b)
	b.Run("copy", func(b *testing.B) { benchmarkRows(b, nil) })
	b.Run("walk", func(b *testing.B) { benchmarkRows(b, make([]Rewriter, 10)) })
	b.Run("policy+scan", func(b *testing.B) { benchmarkRows(b, policy) })
	b.Run("scan all", func(b *testing.B) { benchmarkRows(b, scanned) })
	b.Run("scan note", func(b *testing.B) { p := make([]Rewriter, 10); p[9] = scanned[0]; benchmarkRows(b, p) })
	token := make([]Rewriter, 10)
	r, err := New("token", Type{OID: oidText, Typmod: -1}, settings())
	if err != nil {
		b.Fatal(err)
	}
	token[2] = r
	b.Run("token", func(b *testing.B) { benchmarkRows(b, token) })
}

func BenchmarkJSON(b *testing.B) {
	r, err := all(b).Rewriter("doc", Type{OID: oidJSONB, Typmod: -1, Binary: true}, nil, settings())
	if err != nil {
		b.Fatal(err)
	}
	doc := []byte("\x01")
	doc = append(doc, '[')
	for i := range 200 {
		doc = fmt.Appendf(doc, `{"id": %d, "name": "Ada Lovelace", "ssn": "123-45-%04d", "visits": [{"at": "2026-01-%02d", "note": "mild pain in the left knee after running; no fever, advised rest"}], "ok": true},`, i, i+1, i%28+1)
	}
	doc[len(doc)-1] = ']'
	dst := make([]byte, 0, 2*len(doc))
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		r.Rewrite(dst, doc)
	}
}
