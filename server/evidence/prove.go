package evidence

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
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
	cp, err := headFor(ctx, src, logKey, index+1)
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d: %w", index, err)
	}
	p, err := prove(ctx, src, cp, index)
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d: %w", index, err)
	}
	return p, nil
}

// headFor is the checkpoint to prove something from: the cosigned one if it
// covers that many leaves, else the newest.
func headFor(ctx context.Context, src Source, logKey string, leaves uint64) (Checkpoint, error) {
	keys, err := readRing(ctx, src, logKey)
	if err != nil {
		return Checkpoint{}, err
	}
	for _, name := range []string{cosignedPath, "checkpoint"} {
		signed, err := readFile(ctx, src, name, 1<<20)
		if errors.Is(err, fs.ErrNotExist) && name == cosignedPath {
			continue
		}
		if err != nil {
			return Checkpoint{}, err
		}
		cp, err := keys.parse(signed)
		if err != nil && name == cosignedPath && keys.old(signed) {
			continue
		}
		if err != nil {
			return Checkpoint{}, fmt.Errorf("%s: %w", name, err)
		}
		if cp.Size >= leaves || name == "checkpoint" {
			return cp, nil
		}
	}
	return Checkpoint{}, fmt.Errorf("there is no checkpoint: %w", fs.ErrNotExist)
}

func prove(ctx context.Context, src Source, cp Checkpoint, index uint64) (*Proof, error) {
	if index >= cp.Size {
		return nil, fmt.Errorf("the checkpoint covers %d leaves; wait for the next one", cp.Size)
	}
	leaf, err := readLeaf(ctx, src, index)
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
	return &Proof{Index: index, Leaf: leaf, Text: proofText(index, path, cp)}, nil
}

// CheckProof checks that a leaf lies at the place that its proof says, in a log
// with that key. It returns the checkpoint that the proof is for.
func CheckProof(p *Proof, logKey string) (Checkpoint, error) {
	return checkProof(p, single(logKey))
}

func checkProof(p *Proof, keys ring) (Checkpoint, error) {
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
		h, err := base64.StdEncoding.Strict().DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			return Checkpoint{}, fmt.Errorf("the proof holds %q where a hash belongs", l)
		}
		path = append(path, tlog.Hash(h))
	}
	cp, err := keys.parse(note)
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

// ReadTile is a tile in the layout of C2SP tlog-tiles: tile/L/N[.p/W] are hashes,
// tile/entries/N[.p/W] are leaves, each after its 16-bit length. A tile that
// the log has not filled so far is an error that wraps fs.ErrNotExist.
func ReadTile(ctx context.Context, src Source, path string) ([]byte, error) {
	level, n, width, ok := parseTilePath(path)
	l, err := strconv.Atoi(level)
	switch {
	case ok && level == "entries":
		return readEntries(ctx, src, n*tileWidth, width)
	case !ok || err != nil || l >= maxLevels || strconv.Itoa(l) != level || l < 0:
		return nil, fmt.Errorf("%s is no tile: %w", path, fs.ErrNotExist)
	}
	return readHashes(ctx, src, l, n, width)
}

func readHashes(ctx context.Context, src Source, level int, n uint64, width int) ([]byte, error) {
	f, err := openAt(ctx, src, levelPath(level), int64(n)*tileWidth*tlog.HashSize)
	if err != nil {
		return nil, err
	}
	b := make([]byte, width*tlog.HashSize)
	_, err = io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("tile %d of level %d is not that wide: %w", n, level, fs.ErrNotExist)
	}
	return b, errors.Join(err, f.Close())
}

// readEntries reads leaves from the segments that hold them, as a bundle.
func readEntries(ctx context.Context, src Source, first uint64, count int) ([]byte, error) {
	list, err := src.List(ctx)
	if err != nil {
		return nil, err
	}
	names := streamFiles(list, timeline)
	var bundle []byte
	next := first
	at := sort.Search(len(names), func(i int) bool {
		h, herr := readSegmentHeader(ctx, src, names[i])
		err = errors.Join(err, herr)
		return h.first > first
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names[max(0, at-1):] {
		_, err := eachLeaf(ctx, src, name, func(index uint64, leaf []byte) error {
			if index == next && next < first+uint64(count) {
				bundle = appendEntry(bundle, leaf)
				next++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if next == first+uint64(count) {
			return bundle, nil
		}
	}
	return nil, fmt.Errorf("leaves %d to %d: %w", first, first+uint64(count)-1, fs.ErrNotExist)
}

// readLeaf reads one leaf from the segment that holds it.
func readLeaf(ctx context.Context, src Source, index uint64) ([]byte, error) {
	bundle, err := readEntries(ctx, src, index, 1)
	if err != nil {
		return nil, err
	}
	return bundle[2:], nil
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
		b, err := readHashes(r.ctx, r.src, t.L, uint64(t.N), t.W)
		if err != nil {
			return nil, err
		}
		out[i] = b
	}
	return out, nil
}

// SaveTiles implements tlog.TileReader; nothing is kept.
func (*tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
