package evidence

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/hoopctl/hoopctl/server/api"
)

// sealedFrames reads the frames of a sealed file in order.
type sealedFrames struct {
	file io.Closer
	zstd *zstd.Decoder
	r    *bufio.Reader
}

// maxZstdWindow bounds what a hostile sealed file may make a reader allocate.
const maxZstdWindow = 8 << 20

// openSealed opens a sealed file with the session's identity.
func openSealed(ctx context.Context, src Source, name, session string, identity age.Identity) (*sealedFrames, error) {
	f, err := src.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	s, err := newSealedFrames(f, session, identity)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	s.file = f
	return s, nil
}

func newSealedFrames(f io.Reader, session string, identity age.Identity) (*sealedFrames, error) {
	plain, err := age.Decrypt(f, identity)
	if err != nil {
		return nil, fmt.Errorf("%w: the session's identity does not open it: %w", ErrTampered, err)
	}
	z, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return nil, err
	}
	s := &sealedFrames{zstd: z, r: bufio.NewReaderSize(z, 64<<10)}
	head := make([]byte, len(sealedMagic)+1+len(session))
	if _, err := io.ReadFull(s.r, head); err != nil || string(head) != sealedMagic+string(byte(len(session)))+session {
		z.Close()
		return nil, fmt.Errorf("%w: it is no sealed recording of session %s", ErrTampered, session)
	}
	return s, nil
}

// next reads a frame; its box is the payload. io.EOF is the end of the file.
func (s *sealedFrames) next() (frame, error) {
	var head [sealedFrame]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{sequence: binary.BigEndian.Uint64(head[:]), dir: head[8], flags: head[9], at: time.Unix(0, int64(binary.BigEndian.Uint64(head[10:]))).UTC(),
		size: int(binary.BigEndian.Uint32(head[18:]))}
	if f.size > maxPayload || f.flags&^flagMore != 0 {
		return f, errFrame
	}
	f.box = make([]byte, f.size)
	_, err := io.ReadFull(s.r, f.box)
	return f, err
}

func (s *sealedFrames) close() {
	s.zstd.Close()
	s.file.Close() // it was only read
}

// takeSealed sends a frame whose payload is in a sealed file. What the frame's
// record says of itself must be what the file says.
func (r *sessionReader) takeSealed(f frame, rec record) error {
	d, err := parseDigest(rec.body)
	if err != nil {
		return err
	}
	copy(r.opener.prev[:], d.tag)
	if r.sealed == nil || r.sealedLast < f.sequence {
		if err := r.openSealed(f.sequence); err != nil {
			return err
		}
	}
	if r.sealed == nil {
		return r.sendSealed(f)
	}
	for {
		in, err := r.sealed.next()
		switch {
		case err != nil || in.sequence > f.sequence:
			return fmt.Errorf("%w: frame %d is not in the sealed file: %w", ErrTampered, f.sequence, err)
		case in.sequence < f.sequence:
			continue
		case in.dir != f.dir || in.size != f.size || !in.at.Equal(f.at) || in.flags != f.flags&flagMore:
			return fmt.Errorf("%w: frame %d is another one in the sealed file", ErrTampered, f.sequence)
		}
		return r.send(in, in.box)
	}
}

// openSealed opens the sealed file that holds a frame. If no leaf names one the
// frame stays sealed.
func (r *sessionReader) openSealed(sequence uint64) error {
	r.closeSealed()
	i := slices.IndexFunc(r.archives, func(e api.Event) bool { return e.FramesFirst <= sequence && sequence <= e.FramesLast })
	if i < 0 {
		return nil
	}
	e := r.archives[i]
	var err error
	r.sealed, err = openSealed(r.ctx, r.src, sealedPath(r.session, e.FramesFirst), r.session, r.identity)
	r.sealedLast = e.FramesLast
	return err
}

func (r *sessionReader) closeSealed() {
	if r.sealed != nil {
		r.sealed.close()
		r.sealed = nil
	}
}
