package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A segment is a file of one of the two streams:
//
//	header | batch… | zeros
//	header = magic[8] stream[1] number[8] first[8] created[8] chain[32] len(node)[1] node crc32c[4]
//	batch  = record… mark
//	record = length[4] kind[1] body      (length counts kind and body, never 0)
//	mark   = a record whose body is first[8] count[4] frames[8] crc32c[4]
//
// Integers are big-endian. A batch is one write, ended by its mark; the mark's
// checksum covers the batch from its first record on. What lies after the last
// mark was never acknowledged. Preallocated space reads as zeros.
const (
	segmentMagic = "hoopEV1\n"
	headerFixed  = 8 + 1 + 8 + 8 + 8 + sha256.Size + 1
	maxNode      = 64
	recordHeader = 4 + 1
	markBody     = 8 + 4 + 8 + 4
	markSize     = recordHeader + markBody
	maxSegment   = 1 << 30 // what a reader will hold in memory
	maxLeaf      = 1<<16 - 1
)

// stream is one of the two logs of a folder.
type stream byte

const (
	timeline stream = 't'
	payload  stream = 'p'
)

func (s stream) dir() string {
	if s == timeline {
		return "log"
	}
	return "frames"
}

// unit is what the numbers of a stream count.
func (s stream) unit() string {
	if s == timeline {
		return "leaf"
	}
	return "frame"
}

// Kinds of record.
const (
	recordLeaf   byte = 'L' // timeline: the canonical JSON of one event
	recordOpen   byte = 'O' // timeline: the sessions open at the segment's start, each as its session.open leaf
	recordFrame  byte = 'F' // payload: one frame
	recordDigest byte = 'D' // payload: what is left of a frame that was sealed elsewhere
	recordMark   byte = 'M' // both: the end of a batch
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentHeader opens a segment.
type segmentHeader struct {
	stream  stream
	number  uint64            // of the segment, from 1, without holes
	first   uint64            // number of the first leaf or frame in it
	created time.Time         // when it was begun
	chain   [sha256.Size]byte // payload: the chain over all frames before it
	node    string
}

func (h segmentHeader) append(b []byte) []byte {
	start := len(b)
	b = append(b, segmentMagic...)
	b = append(b, byte(h.stream))
	b = binary.BigEndian.AppendUint64(b, h.number)
	b = binary.BigEndian.AppendUint64(b, h.first)
	b = binary.BigEndian.AppendUint64(b, uint64(h.created.UnixNano()))
	b = append(b, h.chain[:]...)
	b = append(b, byte(len(h.node)))
	b = append(b, h.node...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parseHeader reads a header and returns how many bytes it takes.
func parseHeader(b []byte) (h segmentHeader, n int, err error) {
	if len(b) < headerFixed || string(b[:8]) != segmentMagic {
		return h, 0, errors.New("not a segment of an evidence log")
	}
	h.stream = stream(b[8])
	h.number = binary.BigEndian.Uint64(b[9:])
	h.first = binary.BigEndian.Uint64(b[17:])
	h.created = time.Unix(0, int64(binary.BigEndian.Uint64(b[25:]))).UTC()
	copy(h.chain[:], b[33:])
	node := int(b[headerFixed-1])
	n = headerFixed + node + 4
	if node > maxNode || len(b) < n {
		return h, 0, errors.New("the header is cut short")
	}
	h.node = string(b[headerFixed : headerFixed+node])
	if crc32.Checksum(b[:n-4], castagnoli) != binary.BigEndian.Uint32(b[n-4:]) {
		return h, 0, errors.New("the header's checksum does not match")
	}
	return h, n, nil
}

// appendRecord frames a body.
func appendRecord(b []byte, kind byte, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(body)))
	b = append(b, kind)
	return append(b, body...)
}

// mark ends a batch.
type mark struct {
	first uint64 // number of the batch's first leaf or frame
	count uint32 // leaves or frames in it
	// frames is, in the timeline, how many frames the payload stream held when the
	// batch was written; in the payload stream 0, or of a batch that was reduced
	// since, how many leaves the timeline held then.
	frames uint64
}

// appendMark seals the batch that b is.
func appendMark(b []byte, m mark) []byte {
	b = binary.BigEndian.AppendUint32(b, 1+markBody)
	b = append(b, recordMark)
	b = binary.BigEndian.AppendUint64(b, m.first)
	b = binary.BigEndian.AppendUint32(b, m.count)
	b = binary.BigEndian.AppendUint64(b, m.frames)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// record is one record of a segment; body aliases the segment's bytes.
type record struct {
	kind byte
	body []byte
	off  int // of the record in its file
}

// batch is one valid batch; its records alias the segment's bytes.
type batch struct {
	mark
	start, end int // offsets in the file
	records    []record
}

// tornError says that a segment's bytes stop making sense.
type tornError struct {
	off    int // where the last valid batch ends
	size   int // bytes from there to the last that is not zero
	within bool
	why    string
}

func (e *tornError) Error() string {
	if e.within {
		return fmt.Sprintf("damaged at offset %d, with valid records after it: %s", e.off, e.why)
	}
	return fmt.Sprintf("%d bytes after the last complete batch at offset %d: %s", e.size, e.off, e.why)
}

// parseSegment walks a segment's batches in order. fn must not keep the
// batch's records slice. It returns the offset after the last valid batch; a
// *tornError if anything but zeros lies there.
func parseSegment(data []byte, want stream, fn func(segmentHeader, *batch) error) (h segmentHeader, end int, err error) {
	h, end, err = parseHeader(data)
	if err != nil {
		return h, 0, err
	}
	if h.stream != want {
		return h, 0, fmt.Errorf("a segment of stream %q where one of %q belongs", byte(h.stream), byte(want))
	}
	next := h.first
	var b batch
	for {
		why := b.parse(data, end, want, next)
		if why == "" {
			if err := fn(h, &b); err != nil {
				return h, end, err
			}
			next += uint64(b.count)
			end = b.end
			continue
		}
		used := len(bytes.TrimRight(data[end:], "\x00"))
		if used == 0 {
			return h, end, nil
		}
		return h, end, &tornError{off: end, size: used, within: batchAfter(data, end, want, next), why: why}
	}
}

// parse reads the batch at off; it returns why there is none.
func (b *batch) parse(data []byte, off int, want stream, next uint64) string {
	b.start, b.records = off, b.records[:0]
	var count uint32
	for at := off; ; {
		if len(data)-at < recordHeader {
			return "the batch is cut short"
		}
		n := int(binary.BigEndian.Uint32(data[at:]))
		if n < 1 || n > len(data)-at-4 {
			return fmt.Sprintf("a record's length at offset %d is %d", at, n)
		}
		r := record{kind: data[at+4], body: data[at+recordHeader : at+4+n], off: at}
		at += 4 + n
		switch {
		case r.kind == recordMark:
			return b.close(data, r, at, next, count)
		case r.kind == recordLeaf && want == timeline, (r.kind == recordFrame || r.kind == recordDigest) && want == payload:
			count++
		case r.kind == recordOpen && want == timeline:
		default:
			return fmt.Sprintf("a record of unknown kind %#02x at offset %d", r.kind, r.off)
		}
		b.records = append(b.records, r)
	}
}

func (b *batch) close(data []byte, r record, end int, next uint64, count uint32) string {
	if len(r.body) != markBody {
		return fmt.Sprintf("a batch mark of %d bytes at offset %d", len(r.body), r.off)
	}
	b.mark = mark{first: binary.BigEndian.Uint64(r.body), count: binary.BigEndian.Uint32(r.body[8:]), frames: binary.BigEndian.Uint64(r.body[12:])}
	b.end = end
	switch {
	case crc32.Checksum(data[b.start:end-4], castagnoli) != binary.BigEndian.Uint32(r.body[20:]):
		return fmt.Sprintf("the batch's checksum at offset %d does not match", r.off)
	case b.first != next || b.count != count:
		return fmt.Sprintf("the batch at offset %d counts %d from %d, but holds %d from %d", b.start, b.count, b.first, count, next)
	}
	return ""
}

// batchAfter reports whether a whole batch stands somewhere after the damage at
// off. If one does, the damage is no torn tail: batches are written in order.
func batchAfter(data []byte, off int, want stream, next uint64) bool {
	var header [recordHeader]byte
	binary.BigEndian.PutUint32(header[:], 1+markBody)
	header[4] = recordMark
	for at := off; ; {
		i := bytes.Index(data[at:], header[:])
		if i < 0 || at+i+markSize > len(data) {
			return false
		}
		at += i + markSize
		m := data[at-markBody:]
		follows := binary.BigEndian.Uint64(m) + uint64(binary.BigEndian.Uint32(m[8:]))
		var b batch
		if follows >= next && b.parse(data, at, want, follows) == "" {
			return true
		}
	}
}
