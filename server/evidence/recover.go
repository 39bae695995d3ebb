package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// recovered is what a stream's folder held.
type recovered struct {
	stream  stream
	headers []segmentHeader // of all segments, oldest first
	next    uint64          // number of the next leaf or frame
	chain   [sha256.Size]byte
	number  uint64 // of the last segment, 0 if there is none
	end     int64  // where its last complete batch ends
	body    int64  // where its first batch starts
	cuts    []cut
	remove  string // a last segment that was never begun properly

	lastBatch batchPlace // where the last batch started, should it have to go
	open      map[string][]byte
	undo      []sessionUndo // what the last batch did to open, newest last
	lastLeaf  []byte
	prevLeaf  []byte // the last leaf before the last batch
}

// batchPlace is a stream's state before its last batch.
type batchPlace struct {
	valid  bool
	start  int64
	next   uint64
	frames uint64 // that the batch needs
	before uint64 // that the batch before it needed
}

// sessionUndo is what a session's open leaf was before a batch, nil for none.
type sessionUndo struct {
	name string
	leaf []byte
}

// cut is what recovery takes off the end of a segment.
type cut struct {
	file   string
	offset int64
	bytes  []byte
	why    string
}

// segmentFiles lists a stream's segments and checks that none is missing.
func segmentFiles(dir string) ([]uint64, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range list {
		n, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), ".log"), 10, 64)
		if err != nil || segmentName(n) != e.Name() {
			return nil, fmt.Errorf("%w: %s does not belong in it", ErrTampered, filepath.Join(dir, e.Name()))
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != numbers[0]+uint64(i) {
			return nil, fmt.Errorf("%w: segment %s is missing", ErrTampered, filepath.Join(dir, segmentName(numbers[0]+uint64(i))))
		}
	}
	return numbers, nil
}

// recoverStream reads a stream's end: every header, and the batches from the
// last segment that holds any.
func recoverStream(root string, s stream, node string) (*recovered, error) {
	r := &recovered{stream: s, open: map[string][]byte{}}
	dir := filepath.Join(root, s.dir())
	numbers, err := segmentFiles(dir)
	if err != nil {
		return nil, err
	}
	for i, n := range numbers {
		name := filepath.Join(dir, segmentName(n))
		h, err := readHeader(name)
		if err != nil && i == len(numbers)-1 {
			return r, r.unbegun(name, err)
		}
		if err == nil && (h.number != n || h.stream != s || h.node != node) {
			err = fmt.Errorf("it is segment %d of stream %q of node %q", h.number, byte(h.stream), h.node)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrTampered, name, err)
		}
		r.headers = append(r.headers, h)
	}
	return r, r.readEnd(dir)
}

func readHeader(name string) (segmentHeader, error) {
	f, err := os.Open(name)
	if err != nil {
		return segmentHeader{}, err
	}
	defer f.Close()
	head := make([]byte, headerFixed+maxNode+4)
	n, err := f.ReadAt(head, 0)
	if n == 0 && err != nil {
		return segmentHeader{}, fmt.Errorf("read the header: %w", err)
	}
	h, _, err := parseHeader(head[:n])
	return h, err
}

// unbegun handles a last segment without a header: the crash came between its
// creation and its first batch, so nothing in it was acknowledged.
func (r *recovered) unbegun(name string, why error) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	used := bytes.TrimRight(content, "\x00")
	if batchAfter(content, 0, r.stream, 0) {
		return fmt.Errorf("%w: %s: %w, though records follow", ErrTampered, name, why)
	}
	if len(used) > 0 {
		r.cuts = append(r.cuts, cut{file: name, bytes: used, why: why.Error()})
	}
	r.remove = name
	return r.readEnd(filepath.Dir(name))
}

// readEnd reads batches from the last segment that holds any, to the end.
func (r *recovered) readEnd(dir string) error {
	if len(r.headers) == 0 {
		return nil
	}
	from := len(r.headers) - 1
	last := r.headers[from]
	for from > 0 && r.headers[from].first == last.first {
		from-- // the segments after it may hold nothing
	}
	for i, h := range r.headers[from:] {
		if err := r.readSegment(dir, h, from+i == len(r.headers)-1); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovered) readSegment(dir string, h segmentHeader, last bool) error {
	name := filepath.Join(dir, segmentName(h.number))
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if h.first != r.next && r.number != 0 {
		return fmt.Errorf("%w: %s begins with %s %d; %d comes next", ErrTampered, name, r.stream.unit(), h.first, r.next)
	}
	_, body, err := parseHeader(data)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTampered, name, err)
	}
	r.next, r.number, r.body = h.first, h.number, int64(body)
	if r.stream == payload {
		r.chain = h.chain
	}
	_, end, err := parseSegment(data, r.stream, func(_ segmentHeader, b *batch) error { return r.take(b) })
	r.end = int64(end)
	var torn *tornError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &torn) || !last || torn.within:
		return fmt.Errorf("%w: %s: %w", ErrTampered, name, err)
	}
	r.cuts = append(r.cuts, cut{file: name, offset: int64(end), bytes: data[end : end+torn.size], why: torn.why})
	return nil
}

func (r *recovered) take(b *batch) error {
	r.lastBatch = batchPlace{valid: true, start: int64(b.start), next: b.first, frames: b.frames, before: r.lastBatch.frames}
	r.prevLeaf, r.undo = r.lastLeaf, r.undo[:0]
	for _, rec := range b.records {
		switch rec.kind {
		case recordOpen:
			open, err := parseOpen(rec.body)
			if err != nil {
				return err
			}
			r.open = open
		case recordLeaf:
			r.lastLeaf = rec.body
			if name, was, ok := noteSession(r.open, rec.body); ok {
				r.undo = append(r.undo, sessionUndo{name, was})
			}
		case recordFrame:
			r.chain = chainFrame(r.chain, sha256.Sum256(rec.body))
		case recordDigest:
			_, digest, err := frameDigest(rec)
			if err != nil {
				return err
			}
			r.chain = chainFrame(r.chain, digest)
		}
	}
	r.next += uint64(b.count)
	return nil
}

// parseOpen reads the record of the sessions open at a segment's start.
func parseOpen(body []byte) (map[string][]byte, error) {
	open := map[string][]byte{}
	err := entries(body, len(body), func(_ int, leaf []byte) error {
		noteSession(open, leaf)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the list of open sessions: %w", err)
	}
	return open, nil
}

var (
	kindOpen  = []byte(`"` + api.EventSessionOpen + `"`)
	kindClose = []byte(`"` + api.EventSessionClose + `"`)
)

// noteSession follows which sessions are open. If the leaf opens or closes one
// it returns its name and the open leaf that stood there before.
func noteSession(open map[string][]byte, leaf []byte) (name string, was []byte, changed bool) {
	if !bytes.Contains(leaf, kindOpen) && !bytes.Contains(leaf, kindClose) {
		return "", nil, false
	}
	var e api.Event
	if json.Unmarshal(leaf, &e) != nil || e.Session == "" {
		return "", nil, false
	}
	was = open[e.Session]
	switch e.Kind {
	case api.EventSessionOpen:
		open[e.Session] = bytes.Clone(leaf)
	case api.EventSessionClose:
		delete(open, e.Session)
	default:
		return "", nil, false
	}
	return e.Session, was, true
}

// undoLast takes off a last batch whose frames did not reach the disk: its
// sync had not returned, so nobody was told.
func (r *recovered) undoLast(dir string, frames uint64) error {
	b := r.lastBatch
	if !b.valid || b.frames <= frames {
		return nil
	}
	name := filepath.Join(dir, segmentName(r.number))
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if b.before > frames {
		return fmt.Errorf("%w: the timeline needs %d frames of recordings, %d are there", ErrTampered, b.before, frames)
	}
	why := fmt.Sprintf("the batch needs %d frames, %d are there", b.frames, frames)
	whole := cut{file: name, offset: b.start, bytes: data[b.start:r.end], why: why}
	for _, c := range r.cuts {
		whole.bytes = append(whole.bytes[:len(whole.bytes):len(whole.bytes)], c.bytes...)
	}
	r.cuts = []cut{whole}
	r.end, r.next, r.lastLeaf = b.start, b.next, r.prevLeaf
	for _, u := range slices.Backward(r.undo) {
		if u.leaf == nil {
			delete(r.open, u.name)
		} else {
			r.open[u.name] = u.leaf
		}
	}
	return nil
}

// crashed is the leaf that closes a session whose open leaf is given.
func crashed(open []byte, why string) *api.Event {
	var o api.Event
	if json.Unmarshal(open, &o) != nil {
		return &api.Event{Kind: api.EventSessionClose, Reason: why, Attrs: map[string]string{"crashed": "true"}}
	}
	return &api.Event{Kind: api.EventSessionClose, Principal: o.Principal, Name: o.Name, Login: o.Login, Source: o.Source, Via: o.Via, Target: o.Target,
		Grant: o.Grant, Session: o.Session, Purpose: o.Purpose, Status: "crashed", Reason: why, Attrs: map[string]string{"crashed": "true"}}
}

// restore brings the follower to the timeline's end: from the last checkpoint's
// hashes where they are good, else from the first leaf. Either way the leaves
// must give the root that the checkpoint says.
func (f *follower) restore(cp Checkpoint, headers []segmentHeader, size uint64) error {
	if cp.Note != nil && size < cp.Size {
		return fmt.Errorf("%w: the log holds %d leaves, its own checkpoint says %d", ErrTampered, size, cp.Size)
	}
	start := cp.Size / tileWidth * tileWidth // at least the last leaves are compared with the root
	if !f.loadEdge(start) {
		start = 0
		f.reset(0)
	}
	err := f.replay(cp, headers, start, size)
	if err != nil && start > 0 {
		f.log.Warn("the tree's hashes do not fit the log; rebuilding them", "err", err)
		f.reset(0)
		err = f.replay(cp, headers, 0, size)
	}
	f.signed = cp
	return err
}

// loadEdge reads the right edge of the tree of start leaves, a multiple of 256.
func (f *follower) loadEdge(start uint64) bool {
	f.reset(start)
	f.tree.levels = [][]tlog.Hash{make([]tlog.Hash, 0, tileWidth)}
	for level := 1; start>>(tileHeight*level) > 0; level++ {
		count := start >> (tileHeight * level)
		b := make([]byte, count%tileWidth*tlog.HashSize)
		if !readAt(f.file(levelPath(level)), b, int64(count/tileWidth*tileWidth)*tlog.HashSize) {
			return false
		}
		hashes := make([]tlog.Hash, 0, tileWidth)
		for ; len(b) > 0; b = b[tlog.HashSize:] {
			hashes = append(hashes, tlog.Hash(b[:tlog.HashSize]))
		}
		f.tree.levels = append(f.tree.levels, hashes)
	}
	return true
}

func readAt(name string, b []byte, off int64) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	_, err = file.ReadAt(b, off)
	return errors.Join(err, file.Close()) == nil
}

func (f *follower) replay(cp Checkpoint, headers []segmentHeader, start, size uint64) error {
	i := len(headers) - 1
	for i > 0 && headers[i].first > start {
		i--
	}
	check := func() error {
		if cp.Note != nil && f.tree.size == cp.Size && f.tree.root() != cp.Root {
			return fmt.Errorf("%w: the log's first %d leaves do not give the root of its own checkpoint", ErrTampered, cp.Size)
		}
		return nil
	}
	if err := check(); err != nil {
		return err
	}
	for ; i >= 0 && i < len(headers); i++ {
		name := filepath.Join(f.dir, timeline.dir(), segmentName(headers[i].number))
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		_, _, err = parseSegment(data, timeline, func(_ segmentHeader, b *batch) error {
			index := b.first
			for _, rec := range b.records {
				if rec.kind != recordLeaf {
					continue
				}
				if index++; index <= start || index > size {
					continue
				}
				f.tree.add(leafHash(rec.body, &f.scratch))
				if err := check(); err != nil {
					return err
				}
			}
			return nil
		})
		var torn *tornError
		if err != nil && (!errors.As(err, &torn) || i < len(headers)-1) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if f.tree.size != size {
		return fmt.Errorf("%w: %d leaves could be read, %d were counted", ErrTampered, f.tree.size, size)
	}
	return nil
}

// readCheckpoint reads the log's own last checkpoint; none is not an error.
func readCheckpoint(dir string, keys ring) (Checkpoint, error) {
	b, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return Checkpoint{}, nil
	}
	if err != nil {
		return Checkpoint{}, err
	}
	cp, err := keys.parse(b)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	return cp, nil
}

// recoveryEvent says what recovery found and cut.
func recoveryEvent(cuts []cut, attrs map[string]string, crashed int) *api.Event {
	attrs["crashedSessions"] = strconv.Itoa(crashed)
	for i, c := range cuts {
		p := fmt.Sprintf("cut%d.", i)
		attrs[p+"file"] = filepath.Base(filepath.Dir(c.file)) + "/" + filepath.Base(c.file)
		attrs[p+"offset"] = strconv.FormatInt(c.offset, 10)
		attrs[p+"bytes"] = strconv.Itoa(len(c.bytes))
		attrs[p+"sha256"] = fmt.Sprintf("%x", sha256.Sum256(c.bytes))
		attrs[p+"why"] = c.why
	}
	return &api.Event{Kind: api.EventRecovery, Reason: "the log was not closed properly", Attrs: attrs}
}
