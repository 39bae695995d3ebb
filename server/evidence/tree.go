package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The tree over the leaves is RFC 6962's, cut into the tiles of C2SP tlog-tiles:
// 256 hashes each, and bundles of 256 entries. https://c2sp.org/tlog-tiles
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tree grows the right edge of a Merkle tree in memory that does not depend on
// its size: the tile in progress of every level.
type tree struct {
	size   uint64
	levels [][]tlog.Hash
	// hashed is called for each hash of a level of tiles as it becomes known:
	// level 0 are the leaves', level 1 the roots of 256 of them, and so on.
	hashed func(level int, n uint64, h tlog.Hash)
}

func (t *tree) add(h tlog.Hash) {
	for level := 0; ; level++ {
		if level == len(t.levels) {
			t.levels = append(t.levels, make([]tlog.Hash, 0, tileWidth))
		}
		t.levels[level] = append(t.levels[level], h)
		hs := t.levels[level]
		if t.hashed != nil {
			t.hashed(level, t.size>>(tileHeight*level), h)
		}
		if len(hs) < tileWidth {
			break
		}
		h = subtree(hs)
		t.levels[level] = hs[:0]
	}
	t.size++
}

// root is the tree's head. Of an empty tree it is SHA-256 of nothing.
func (t *tree) root() tlog.Hash {
	var r *tlog.Hash
	for _, hs := range t.levels {
		end := len(hs)
		for bit := 1; end > 0; bit <<= 1 {
			if end&bit == 0 {
				continue
			}
			h := subtree(hs[end-bit : end])
			if r != nil {
				h = nodeHash(h, *r)
			}
			r, end = &h, end-bit
		}
	}
	if r == nil {
		return sha256.Sum256(nil)
	}
	return *r
}

// subtree is the root over a power of two of hashes.
func subtree(hs []tlog.Hash) tlog.Hash {
	if len(hs) == 1 {
		return hs[0]
	}
	var scratch [tileWidth / 2]tlog.Hash
	level := scratch[:len(hs)/2]
	for i := range level {
		level[i] = nodeHash(hs[2*i], hs[2*i+1])
	}
	for len(level) > 1 {
		for i := range len(level) / 2 {
			level[i] = nodeHash(level[2*i], level[2*i+1])
		}
		level = level[:len(level)/2]
	}
	return level[0]
}

// nodeHash is tlog.NodeHash without its allocation.
func nodeHash(left, right tlog.Hash) tlog.Hash {
	var b [1 + 2*tlog.HashSize]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+tlog.HashSize:], right[:])
	return sha256.Sum256(b[:])
}

// leafHash is tlog.RecordHash with a scratch buffer that is reused.
func leafHash(leaf []byte, scratch *[]byte) tlog.Hash {
	*scratch = append(append((*scratch)[:0], 0), leaf...)
	return sha256.Sum256(*scratch)
}

// tilePath is the file of a tile: level is a number or "entries", width 256 is
// a whole tile.
func tilePath(level string, n uint64, width int) string {
	p := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		p = fmt.Sprintf("x%03d/%s", n%1000, p)
	}
	p = "tile/" + level + "/" + p
	if width < tileWidth {
		p += ".p/" + strconv.Itoa(width)
	}
	return p
}

// parseTilePath undoes tilePath. It accepts nothing else.
func parseTilePath(path string) (level string, n uint64, width int, ok bool) {
	rest, found := strings.CutPrefix(path, "tile/")
	level, rest, cut := strings.Cut(rest, "/")
	if !found || !cut {
		return "", 0, 0, false
	}
	width = tileWidth
	if digits, w, partial := strings.Cut(rest, ".p/"); partial {
		v, err := strconv.Atoi(w)
		if err != nil || v < 1 || v >= tileWidth {
			return "", 0, 0, false
		}
		rest, width = digits, v
	}
	for _, part := range strings.Split(rest, "/") {
		v, err := strconv.ParseUint(strings.TrimPrefix(part, "x"), 10, 64)
		if err != nil || v > 999 || n > 1<<50 {
			return "", 0, 0, false
		}
		n = n*1000 + v
	}
	return level, n, width, tilePath(level, n, width) == path
}

// appendEntry adds a leaf to a bundle: a 16-bit length, then the leaf.
func appendEntry(b, leaf []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(leaf)))
	return append(b, leaf...)
}

// entries splits a bundle into its leaves, which alias it. It stops without an
// error at most after max leaves; anything left over is an error.
func entries(bundle []byte, max int, leaf func(i int, leaf []byte) error) error {
	for i := 0; len(bundle) > 0; i++ {
		if i == max || len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
			return errors.New("the bundle's lengths do not fit its size")
		}
		n := 2 + int(binary.BigEndian.Uint16(bundle))
		if err := leaf(i, bundle[2:n]); err != nil {
			return err
		}
		bundle = bundle[n:]
	}
	return nil
}

// Checkpoint is the signed head of a log. https://c2sp.org/tlog-checkpoint
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   tlog.Hash
	Note   []byte // as signed, with all signatures
}

// text is what is signed.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// sign makes the signed note of c.
func (c *Checkpoint) sign(s note.Signer) error {
	n, err := note.Sign(&note.Note{Text: c.text()}, s)
	if err != nil {
		return fmt.Errorf("sign the checkpoint of %d leaves: %w", c.Size, err)
	}
	c.Note = n
	return nil
}

// ParseCheckpoint reads a checkpoint and checks that the log whose verifier key
// logKey is (a vkey, https://c2sp.org/signed-note) signed it under its own name.
func ParseCheckpoint(signed []byte, logKey string) (Checkpoint, error) {
	v, err := note.NewVerifier(logKey)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the log's key: %w", err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint is not signed by %s: %w", v.Name(), err)
	}
	c, err := parseCheckpointText(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != v.Name() {
		return Checkpoint{}, fmt.Errorf("the checkpoint is of log %q, its key of %q", c.Origin, v.Name())
	}
	if err := strictSignatures(signed); err != nil {
		return Checkpoint{}, err
	}
	c.Note = bytes.Clone(signed)
	return c, nil
}

// strictSignatures refuses signatures in other base64 than a signer writes:
// decoders ignore its last bits, and no bit of a checkpoint is to be free.
func strictSignatures(signed []byte) error {
	for line := range strings.Lines(string(signed)) {
		rest, ok := strings.CutPrefix(line, "— ")
		if !ok {
			continue
		}
		_, sig, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
		if _, err := base64.StdEncoding.Strict().DecodeString(sig); err != nil {
			return errors.New("a signature on the checkpoint is not written as signers write it")
		}
	}
	return nil
}

func parseCheckpointText(text string) (c Checkpoint, err error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return c, errors.New("the checkpoint has no origin, size and root")
	}
	c.Origin = lines[0]
	c.Size, err = strconv.ParseUint(lines[1], 10, 63)
	if err != nil || strconv.FormatUint(c.Size, 10) != lines[1] {
		return c, fmt.Errorf("the checkpoint's size is %q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return c, fmt.Errorf("the checkpoint's root hash is %q", lines[2])
	}
	copy(c.Root[:], root)
	return c, nil
}
