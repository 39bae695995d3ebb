package store

import (
	"context"
	"errors"
	"fmt"
)

// blockSize is how many numbers one durable write reserves, so that opening a
// session need not wait for the disk.
const blockSize = 32

// block is what is left of a reservation: numbers from next to end-1.
type block struct{ next, end int64 }

// Next returns the next number of the sequence, from 1. No number is returned
// twice, not after a crash either (a crash skips at most 31). It must not be
// called in a Tx.
func (s *Store) Next(ctx context.Context, sequence string) (int64, error) {
	s.nextMu.Lock()
	defer s.nextMu.Unlock()
	b := s.next[sequence]
	if b == nil || b.next == b.end {
		var err error
		if b, err = s.reserve(ctx, sequence); err != nil {
			return 0, err
		}
		s.next[sequence] = b
	}
	b.next++
	return b.next - 1, nil
}

func (s *Store) reserve(ctx context.Context, sequence string) (*block, error) {
	if sequence == "" {
		return nil, errors.New("store: a sequence needs a name")
	}
	var end int64
	err := s.Tx(ctx, func(tx *Tx) error {
		return tx.tx.QueryRowContext(tx.ctx, `INSERT INTO sequence (name, next) VALUES (?1, 1 + ?2)
			ON CONFLICT (name) DO UPDATE SET next = next + ?2 RETURNING next`, sequence, blockSize).Scan(&end)
	})
	if err != nil {
		return nil, fmt.Errorf("store: next %s: %w", sequence, err)
	}
	return &block{next: end - blockSize, end: end}, nil
}

// giveBack returns unused numbers at a clean end, so that names stay short and
// without gaps where nothing went wrong.
func (s *Store) giveBack(ctx context.Context) error {
	s.nextMu.Lock()
	defer s.nextMu.Unlock()
	if len(s.next) == 0 {
		return nil
	}
	return s.Tx(ctx, func(tx *Tx) error {
		for name, b := range s.next {
			if _, err := tx.tx.ExecContext(tx.ctx, "UPDATE sequence SET next = ? WHERE name = ? AND next = ?", b.next, name, b.end); err != nil {
				return fmt.Errorf("store: next %s: %w", name, err)
			}
		}
		clear(s.next)
		return nil
	})
}
