package parser

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// entry is an answer of the parser's, kept under the hash of a text or of a shape.
type entry struct {
	parsed *sql.Parsed
	err    error
	until  time.Time // not used any more after it; zero: for good
	// lately are answers for single statements of this shape, by where they end.
	lately [8]atomic.Pointer[[]*policy.Facts]
}

func (e *entry) facts() []*policy.Facts {
	if e.parsed == nil {
		return nil
	}
	return e.parsed.Facts
}

// moved returns the facts with the offsets of another text of the same shape,
// whose statements stand at ranges. Texts of one shape mostly differ in nothing
// but how long a number is: the last few answers are kept, and shared.
func (e *entry) moved(ranges []sql.Range) []*policy.Facts {
	if len(ranges) != 1 {
		return e.copied(ranges)
	}
	slot := &e.lately[ranges[0].End%len(e.lately)]
	if f := slot.Load(); f != nil && (*f)[0].Start == ranges[0].Start && (*f)[0].End == ranges[0].End {
		return *f
	}
	out := e.copied(ranges)
	slot.Store(&out)
	return out
}

func (e *entry) copied(ranges []sql.Range) []*policy.Facts {
	copies := make([]policy.Facts, len(ranges))
	out := make([]*policy.Facts, len(ranges))
	for i, f := range e.parsed.Facts {
		copies[i] = *f
		copies[i].Start, copies[i].End = ranges[i].Start, ranges[i].End
		out[i] = &copies[i]
	}
	return out
}

// bytes is about what the entry keeps alive.
func (e *entry) bytes() int64 {
	n := int64(300)
	if e.parsed == nil {
		return n
	}
	n += int64(len(e.parsed.Tree))
	if e.parsed.Tree == nil { // a shape's: what it keeps lately
		n += int64(len(e.lately)) * 700
	}
	for _, f := range e.parsed.Facts {
		n += 600 + int64(len(f.Shape))
		for _, list := range [][]string{f.Tables, f.Columns, f.PredicateColumns, f.WriteColumns, f.Functions} {
			for _, s := range list {
				n += 16 + int64(len(s))
			}
		}
		n += int64(len(f.Relations)) * 80
	}
	return n
}

// hash is what an answer is kept under: what was hashed ('t' a text, 's' a
// shape, so that the two never meet) and its SHA-256. Texts themselves are not
// kept: they may hold passwords.
type hash [1 + sha256.Size]byte

func hashText(text string) hash {
	// Without a copy: the bytes are only read, and only until Sum256 returns.
	return hashOf('t', unsafe.Slice(unsafe.StringData(text), len(text)))
}

func hashOf(what byte, b []byte) hash {
	sum := sha256.Sum256(b)
	h := hash{what}
	copy(h[1:], sum[:])
	return h
}

const shards = 16

// cache is a least-recently-used map, bounded in bytes, in shards so that
// sessions do not wait for each other.
type cache struct {
	shard [shards]shard
}

type shard struct {
	mu    sync.Mutex
	max   int64
	bytes int64
	byKey map[hash]*list.Element
	order *list.List // most recently used first
}

type kept struct {
	key   hash
	entry *entry
	bytes int64
}

func newCache(bytes int64) *cache {
	var c cache
	for i := range c.shard {
		c.shard[i] = shard{max: bytes / shards, byKey: make(map[hash]*list.Element), order: list.New()}
	}
	return &c
}

func (c *cache) of(key hash) *shard { return &c.shard[key[1]%shards] }

func (c *cache) get(key hash) (*entry, bool) {
	s := c.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.byKey[key]
	if !ok {
		return nil, false
	}
	k := el.Value.(*kept) //nolint:forcetypeassert // nothing else is put in
	if !k.entry.until.IsZero() && time.Now().After(k.entry.until) {
		s.remove(el)
		return nil, false
	}
	s.order.MoveToFront(el)
	return k.entry, true
}

func (c *cache) put(key hash, e *entry) {
	s := c.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := e.bytes()
	if _, ok := s.byKey[key]; ok || n > s.max {
		return
	}
	s.byKey[key] = s.order.PushFront(&kept{key, e, n})
	s.bytes += n
	for s.bytes > s.max {
		s.remove(s.order.Back())
	}
}

func (s *shard) remove(el *list.Element) {
	k := el.Value.(*kept) //nolint:forcetypeassert // nothing else is put in
	s.order.Remove(el)
	delete(s.byKey, k.key)
	s.bytes -= k.bytes
}
