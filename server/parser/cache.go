package parser

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// entry is an answer of the parser's, kept under the hash of a text or of a shape.
type entry struct {
	parsed *sql.Parsed
	err    error
	size   int // of the text
}

func (e *entry) facts() []*policy.Facts {
	if e.parsed == nil {
		return nil
	}
	return e.parsed.Facts
}

// moved returns the facts with the offsets of another text of the same shape.
func (e *entry) moved(text string) ([]*policy.Facts, bool) {
	ranges := sql.Split(text)
	if len(ranges) != len(e.parsed.Facts) {
		return nil, false
	}
	copies := make([]policy.Facts, len(ranges))
	out := make([]*policy.Facts, len(ranges))
	for i, f := range e.parsed.Facts {
		copies[i] = *f
		copies[i].Start, copies[i].End = ranges[i].Start, ranges[i].End
		out[i] = &copies[i]
	}
	return out, true
}

// bytes is about what the entry keeps alive.
func (e *entry) bytes() int64 {
	n := int64(300)
	if e.parsed == nil {
		return n
	}
	n += int64(len(e.parsed.Tree))
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

// The two kinds of key never meet: each begins with its own letter. Texts are
// kept as hashes only, since they may hold passwords.
func exactKey(text string) []byte  { return hashKey('t', text) }
func shapeKey(shape []byte) []byte { return hashKey('s', string(shape)) }
func hashKey(k byte, s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return append([]byte{k}, sum[:]...)
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
	byKey map[string]*list.Element
	order *list.List // most recently used first
}

type kept struct {
	key   string
	entry *entry
	bytes int64
}

func newCache(bytes int64) *cache {
	var c cache
	for i := range c.shard {
		c.shard[i] = shard{max: bytes / shards, byKey: make(map[string]*list.Element), order: list.New()}
	}
	return &c
}

func (c *cache) of(key []byte) *shard { return &c.shard[key[1]%shards] }

func (c *cache) get(key []byte) (*entry, bool) {
	s := c.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.byKey[string(key)]
	if !ok {
		return nil, false
	}
	s.order.MoveToFront(el)
	return el.Value.(*kept).entry, true //nolint:forcetypeassert // nothing else is put in
}

func (c *cache) put(key []byte, e *entry) {
	s := c.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := e.bytes()
	if _, ok := s.byKey[string(key)]; ok || n > s.max {
		return
	}
	s.byKey[string(key)] = s.order.PushFront(&kept{string(key), e, n})
	s.bytes += n
	for s.bytes > s.max {
		last := s.order.Back()
		k := last.Value.(*kept) //nolint:forcetypeassert // nothing else is put in
		s.order.Remove(last)
		delete(s.byKey, k.key)
		s.bytes -= k.bytes
	}
}
