package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/mask"
)

// masks makes rewriters with the house's keys.
type masks struct {
	keys  mask.Keys
	now   func() time.Time
	words *mask.Detector // of identifiers in what people write

	detectors sync.Map // *mask.Detector by its entities, comma-separated
}

// Scanner implements session.Masks. Detectors are made once for each list of
// entities and kept: there are as many as classifications.
func (m *masks) Scanner(entities []string, column string, t mask.Type) (mask.Rewriter, error) {
	key := strings.Join(entities, ",")
	d, ok := m.detectors.Load(key)
	if !ok {
		made, err := mask.NewDetector(entities...)
		if err != nil {
			return nil, err
		}
		d, _ = m.detectors.LoadOrStore(key, made)
	}
	return d.(*mask.Detector).Rewriter(column, t, nil, mask.Settings{Tag: policy.Detected, Keys: m.keys, Today: m.now()})
}

// Rewriter implements session.Masks.
func (m *masks) Rewriter(method, tag string, t mask.Type) (mask.Rewriter, error) {
	return mask.New(method, t, mask.Settings{Tag: tag, Keys: m.keys, Today: m.now()})
}

// maskKeyBytes is the size of the secret that tokens are made with. Whoever has
// it can try values against tokens, so it lies with the other keys.
const maskKeyBytes = 32

// openMasks reads the key of tokens, and makes it at the first start.
func openMasks(file string, now func() time.Time) (*masks, error) {
	secret, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err = makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("key of mask tokens: %w", err)
	}
	if len(secret) != maskKeyBytes {
		return nil, fmt.Errorf("key of mask tokens: %s holds %d bytes, want %d", file, len(secret), maskKeyBytes)
	}
	words, err := mask.NewDetector(inWords...)
	if err != nil {
		return nil, err
	}
	return &masks{keys: mask.Keys{Version: 1, Secret: secret}, now: now, words: words}, nil
}

// inWords are the identifiers that must not stand in reasons and tickets: those
// whose shape or check digits leave little doubt. Dates, numbers and addresses
// of machines belong into a reason.
var inWords = []string{"ssn", "email", "credit_card", "mbi", "mrn", "iban"}

// checkWords refuses a person's words that hold identifiers: reasons are kept
// as long as the evidence.
func (m *masks) checkWords(s string) error {
	for _, h := range m.words.Scan(nil, []byte(s)) {
		return fmt.Errorf("it holds what looks like an identifier (%s)", h.Entity)
	}
	return nil
}

func makeKey(file string) ([]byte, error) {
	secret := make([]byte, maskKeyBytes)
	rand.Read(secret)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(secret); err == nil {
		err = f.Sync()
	}
	return secret, errors.Join(err, f.Close())
}
