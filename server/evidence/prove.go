package evidence

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Proof is a leaf with what proves that the log holds it.
type Proof struct {
	Index uint64
	Leaf  []byte // the leaf's exact bytes
	// Text is a C2SP tlog-proof: the inclusion proof and the checkpoint.
	// https://c2sp.org/tlog-proof
	Text []byte
}

const proofHeader = "c2sp.org/tlog-proof@v1"

// Prove makes the proof of one leaf from the files of a source. The leaf must
// be covered by the checkpoint, whose signature is checked with logKey.
func Prove(ctx context.Context, src Source, logKey string, index uint64) (*Proof, error) {
	note, err := readFile(ctx, src, "checkpoint", 1<<20)
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d: %w", index, err)
	}
	cp, err := ParseCheckpoint(note, logKey)
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d: %w", index, err)
	}
	p, err := prove(ctx, src, cp, index)
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d: %w", index, err)
	}
	return p, nil
}

func prove(ctx context.Context, src Source, cp Checkpoint, index uint64) (*Proof, error) {
	if index >= cp.Size {
		return nil, fmt.Errorf("the checkpoint covers %d leaves; wait for the next one", cp.Size)
	}
	leaf, err := readLeaf(ctx, src, cp.Size, index)
	if err != nil {
		return nil, err
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: int64(cp.Size), Hash: cp.Root}, &tileReader{ctx: ctx, src: src})
	path, err := tlog.ProveRecord(int64(cp.Size), int64(index), hashes)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(path, int64(cp.Size), cp.Root, int64(index), tlog.RecordHash(leaf)); err != nil {
		return nil, fmt.Errorf("%w: the leaf is not the one in the tree: %w", ErrTampered, err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nindex %d\n", proofHeader, index)
	for _, h := range path {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n")
	b.Write(cp.Note)
	return &Proof{Index: index, Leaf: leaf, Text: b.Bytes()}, nil
}

// CheckProof checks that a leaf lies at the place that its proof says, in a log
// with that key. It returns the checkpoint that the proof is for.
func CheckProof(p *Proof, logKey string) (Checkpoint, error) {
	head, note, ok := bytes.Cut(p.Text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 2 || len(lines) > 66 || lines[0] != proofHeader {
		return Checkpoint{}, errors.New("not a tlog-proof of version 1")
	}
	digits, ok := strings.CutPrefix(lines[1], "index ")
	index, err := strconv.ParseUint(digits, 10, 62)
	if !ok || err != nil {
		return Checkpoint{}, fmt.Errorf("the proof's index is %q", lines[1])
	}
	var path tlog.RecordProof
	for _, l := range lines[2:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			return Checkpoint{}, fmt.Errorf("the proof holds %q where a hash belongs", l)
		}
		path = append(path, tlog.Hash(h))
	}
	cp, err := ParseCheckpoint(note, logKey)
	if err != nil {
		return Checkpoint{}, err
	}
	if index >= cp.Size || index != p.Index {
		return Checkpoint{}, fmt.Errorf("the proof is for leaf %d of %d", index, cp.Size)
	}
	if err := tlog.CheckRecord(path, int64(cp.Size), cp.Root, int64(index), tlog.RecordHash(p.Leaf)); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: leaf %d is not in the log: %w", ErrTampered, index, err)
	}
	return cp, nil
}

// readLeaf reads a leaf from its bundle of entries.
func readLeaf(ctx context.Context, src Source, size, index uint64) ([]byte, error) {
	n := index / tileWidth
	bundle, err := readTile(ctx, src, "entries", n, int(min(tileWidth, size-n*tileWidth)))
	if err != nil {
		return nil, err
	}
	var found []byte
	err = entries(bundle, tileWidth, func(i int, leaf []byte) error {
		if uint64(i) == index%tileWidth {
			found = bytes.Clone(leaf)
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: its bundle does not hold it", ErrTampered)
	}
	return found, err
}

// readTile reads a tile of at least the given width. A running server replaces
// partial tiles by whole ones.
func readTile(ctx context.Context, src Source, level string, n uint64, width int) ([]byte, error) {
	b, err := readFile(ctx, src, tilePath(level, n, width), tileWidth*(maxLeaf+2))
	if errors.Is(err, fs.ErrNotExist) && width < tileWidth {
		return readFile(ctx, src, tilePath(level, n, tileWidth), tileWidth*(maxLeaf+2))
	}
	return b, err
}

// tileReader lets tlog read the tiles of a source. tlog checks them against
// the tree's root itself.
type tileReader struct {
	ctx context.Context
	src Source
}

// Height implements tlog.TileReader.
func (*tileReader) Height() int { return tileHeight }

// ReadTiles implements tlog.TileReader.
func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		b, err := readTile(r.ctx, r.src, strconv.Itoa(t.L), uint64(t.N), t.W)
		if err != nil {
			return nil, err
		}
		if len(b) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("%w: tile %d of level %d is cut short", ErrTampered, t.N, t.L)
		}
		out[i] = b[:t.W*tlog.HashSize]
	}
	return out, nil
}

// SaveTiles implements tlog.TileReader; nothing is kept.
func (*tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
