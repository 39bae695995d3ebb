package mask

import "bytes"

// Stream masks text that comes in pieces. What it writes depends on the bytes
// only, not on how they are cut: it holds back what may still become part of
// an identifier. It is used by one goroutine.
type Stream struct {
	detector *Detector
	by       *replacements
	held     []byte
	hits     []Hit
	searched int  // how much of held has no line's end
	blind    bool // inside a run without a break: nothing of it is shown
	key      bool // inside a private key
}

// Windows are what is looked at together: up to a line's end, or windowSize
// bytes of a longer line, cut at a space outside of all identifiers with at
// least windowGuard bytes behind it.
const (
	windowSize  = 16 << 10
	windowGuard = 512
)

// Stream returns a new stream that replaces hits by their methods.
func (d *Detector) Stream(methods map[Entity]string, s Settings) (*Stream, error) {
	r, err := d.Rewriter("", Type{OID: oidText, Typmod: -1}, methods, s)
	if err != nil {
		return nil, err
	}
	return &Stream{detector: d, by: r.(*textScanner).by}, nil
}

// Write appends to dst what can be shown after b has come, and returns the
// extended dst. b is not kept.
func (s *Stream) Write(dst, b []byte) []byte {
	s.held = append(s.held, b...)
	done := 0
	for {
		n := 0
		if dst, n = s.window(dst, s.held[done:], false); n == 0 {
			break
		}
		done += n
	}
	s.held = s.held[:copy(s.held, s.held[done:])]
	return dst
}

// Flush appends what was held back: the stream has ended.
func (s *Stream) Flush(dst []byte) []byte {
	done := 0
	for done < len(s.held) {
		n := 0
		dst, n = s.window(dst, s.held[done:], true)
		done += n
	}
	s.held, s.searched, s.blind, s.key = s.held[:0], 0, false, false
	return dst
}

// window shows the first window of b and returns its length, 0 if it is not
// all there yet.
func (s *Stream) window(dst, b []byte, last bool) ([]byte, int) {
	n := s.line(b)
	if n == 0 && len(b) < windowSize && !last {
		return dst, 0
	}
	whole := n > 0 || len(b) < windowSize
	if n == 0 {
		n = min(len(b), windowSize)
	}
	b, s.searched = b[:n], 0
	switch {
	case s.key:
		if s.key = !bytes.Contains(b, []byte("-----END")); !s.key && b[n-1] == '\n' {
			dst = append(dst, '\n')
		}
		return dst, n
	case s.blind:
		return dst, s.skip(b)
	}
	hits := s.detector.Scan(s.hits[:0], b)
	s.hits = hits
	if !whole {
		if n = breakIn(b, hits); n == 0 {
			s.blind = true
			return append(dst, stars...), len(b)
		}
		b = b[:n]
		for len(hits) > 0 && hits[len(hits)-1].Start >= n {
			hits = hits[:len(hits)-1]
		}
	}
	s.key = opensKey(b, hits)
	return s.by.apply(dst, b, hits), n
}

// skip returns how much of b belongs to a run without a break, the break
// included.
func (s *Stream) skip(b []byte) int {
	for i, c := range b {
		if isBreak(c) {
			s.blind = false
			return i + 1
		}
	}
	return len(b)
}

// line returns the length of the line at the front of b, 0 if its end is not
// among the first windowSize bytes.
func (s *Stream) line(b []byte) int {
	b = b[:min(len(b), windowSize)]
	from := min(s.searched, len(b))
	if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
		return from + i + 1
	}
	s.searched = len(b)
	return 0
}

// opensKey reports whether a private key begins in b and does not end there.
func opensKey(b []byte, hits []Hit) bool {
	if len(hits) == 0 {
		return false
	}
	h := hits[len(hits)-1]
	return h.Entity == Secret && h.End >= len(b)-1 && hasPrefix(b[h.Start:], "-----BEGIN") && !bytes.Contains(b[h.Start:], []byte("-----END"))
}

// breakIn is where a full window may be cut, 0 if nowhere: behind the last
// space that no hit covers and that is far enough from the end for everything
// that begins before it to have been found.
func breakIn(b []byte, hits []Hit) int {
	for i := len(b) - windowGuard; i > 0; i-- {
		if !isBreak(b[i-1]) {
			continue
		}
		covered := false
		for _, h := range hits {
			covered = covered || h.Start < i && i < h.End
		}
		if !covered {
			return i
		}
	}
	return 0
}

func isBreak(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
