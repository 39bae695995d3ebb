package evidence

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hoopctl/hoopctl/server/api"
)

// cosignedPath is the newest checkpoint that enough witnesses cosigned, with
// their cosignatures. It lies beside the newest one, which may have none yet.
const cosignedPath = "checkpoint.cosigned"

// A witness that does not answer must not hold anything up.
const (
	witnessTimeout = 5 * time.Second
	maxWitnessBody = 64 << 10
)

// Accusation is a witness's refusal that shows that the log is not the one
// which it saw before.
type Accusation struct {
	Witness string
	What    string
}

func (a *Accusation) Error() string { return fmt.Sprintf("witness %s: %s", a.Witness, a.What) }

// proveTree makes the consistency proof from old to the checkpoint.
func proveTree(ctx context.Context, src Source, cp Checkpoint, old uint64) (tlog.TreeProof, error) {
	if old == 0 || old == cp.Size {
		return nil, nil
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: int64(cp.Size), Hash: cp.Root}, &tileReader{ctx: ctx, src: src})
	return tlog.ProveTree(int64(cp.Size), int64(old), hashes)
}

// asked is a conversation with one witness about one checkpoint.
type asked struct {
	http  *http.Client
	at    WitnessAt
	src   Source // holds the tree
	cp    Checkpoint
	known uint64 // what the witness cosigned last, as far as is known
}

// cosign asks for a cosignature: at first from where the witness is believed to
// be, then from where it says that it is. An *Accusation says that the witness
// contradicts the log; any other error that it did not answer as it should.
func (a *asked) cosign(ctx context.Context) (line []byte, at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	old := min(a.known, a.cp.Size)
	for range 3 { // it may move on in between, as others may ask it too
		code, isSize, body, err := a.post(ctx, old)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("witness %s: %w", a.at.Name, err)
		}
		switch {
		case code == http.StatusOK:
			return a.accept(body)
		case code == http.StatusUnprocessableEntity:
			return nil, time.Time{}, &Accusation{a.at.Name, fmt.Sprintf("what it saw at %d leaves is not the beginning of these %d: history was rewritten, or there are two logs", old, a.cp.Size)}
		case code != http.StatusConflict || !isSize:
			return nil, time.Time{}, fmt.Errorf("witness %s answers %d: %.200q", a.at.Name, code, body)
		}
		size, err := parseSize(strings.TrimSuffix(string(body), "\n"))
		switch {
		case err != nil:
			return nil, time.Time{}, fmt.Errorf("witness %s: %w", a.at.Name, err)
		case size > a.cp.Size:
			return nil, time.Time{}, &Accusation{a.at.Name, fmt.Sprintf("it saw %d leaves before, this checkpoint covers %d: the log was rolled back", size, a.cp.Size)}
		case size == old && size == a.cp.Size:
			return nil, time.Time{}, &Accusation{a.at.Name, fmt.Sprintf("it saw another tree of %d leaves before: there are two logs", size)}
		case size == old:
			return nil, time.Time{}, fmt.Errorf("witness %s contradicts itself about its size %d", a.at.Name, size)
		}
		old = size
	}
	return nil, time.Time{}, fmt.Errorf("witness %s changes its size too often", a.at.Name)
}

// post sends one add-checkpoint.
func (a *asked) post(ctx context.Context, old uint64) (code int, isASize bool, body []byte, err error) {
	proof, err := proveTree(ctx, a.src, a.cp, old)
	if err != nil {
		return 0, false, nil, fmt.Errorf("prove %d leaves from %d: %w", a.cp.Size, old, err)
	}
	b := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		b = append(b, base64.StdEncoding.EncodeToString(h[:])+"\n"...)
	}
	b = append(append(b, '\n'), a.cp.Note...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(a.at.URL, "/")+"/add-checkpoint", bytes.NewReader(b))
	if err != nil {
		return 0, false, nil, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	res, err := a.http.Do(req)
	if err != nil {
		return 0, false, nil, err
	}
	body, err = readLimited(res.Body, maxWitnessBody)
	return res.StatusCode, isSize(res.Header.Get("Content-Type")), body, errors.Join(err, res.Body.Close())
}

// accept takes the witness's own line out of its answer: nothing else that it
// sends gets into a checkpoint.
func (a *asked) accept(body []byte) ([]byte, time.Time, error) {
	for l := range bytes.Lines(body) {
		if !bytes.HasPrefix(l, []byte("— "+a.at.Key.name+" ")) {
			continue
		}
		text := []byte(noteText(a.cp.Note))
		times, err := cosignedAt(append(append(text, '\n'), l...), []WitnessKey{a.at.Key})
		if err == nil && !times[0].IsZero() {
			return l, times[0], nil
		}
	}
	return nil, time.Time{}, fmt.Errorf("witness %s answered without a cosignature by the key that is configured for it", a.at.Name)
}

// cosigners asks a log's witnesses. It is used by one goroutine at a time.
type cosigners struct {
	log     *Log
	http    *http.Client
	quorum  int
	list    []WitnessAt
	known   []uint64 // sizes that they cosigned last
	accused []bool   // a leaf says so already
	full    uint64   // size of the last checkpoint that all of them cosigned
	mu      sync.Mutex
}

func newCosigners(l *Log, c *Config) (*cosigners, error) {
	w := &cosigners{log: l, quorum: c.WitnessQuorum, http: c.WitnessHTTP}
	if w.http == nil {
		w.http = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	var p Policy
	for i, x := range c.Witnesses {
		k, err := ParseWitnessKey(x.Key)
		if err == nil && !strings.HasPrefix(x.URL, "https://") && !strings.HasPrefix(x.URL, "http://") {
			err = fmt.Errorf("its URL is %q: want the prefix before /add-checkpoint, http:// or https://", x.URL)
		}
		if err == nil {
			err = p.add(WitnessAt{Name: k.name, Key: k, URL: x.URL})
		}
		if err != nil {
			return nil, fmt.Errorf("evidence: witnesses[%d]: %w", i, err)
		}
	}
	w.list = p.Witnesses
	if w.quorum == 0 {
		w.quorum = len(w.list)/2 + 1
	}
	if len(w.list) > 0 && (w.quorum < 1 || w.quorum > len(w.list)) {
		return nil, fmt.Errorf("evidence: a quorum of %d out of %d witnesses cannot be", w.quorum, len(w.list))
	}
	w.known, w.accused = make([]uint64, len(w.list)), make([]bool, len(w.list))
	return w, nil
}

// Cosign asks the log's witnesses to cosign its head as it is now, and publishes
// it when enough of them did. What one of them says against the log becomes a
// leaf. The error joins what went wrong with each; the log goes on.
func (l *Log) Cosign(ctx context.Context) error {
	if len(l.witnesses.list) == 0 {
		return nil
	}
	cp, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	return l.witnesses.cosign(ctx, cp)
}

func (w *cosigners) cosign(ctx context.Context, cp Checkpoint) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) == 0 || cp.Size == 0 || cp.Size == w.full {
		return nil
	}
	lines, errs := make([][]byte, len(w.list)), make([]error, len(w.list))
	var wg sync.WaitGroup
	for i := range w.list {
		wg.Go(func() {
			a := asked{http: w.http, at: w.list[i], src: Folder(w.log.cfg.Dir), cp: cp, known: w.known[i]}
			lines[i], _, errs[i] = a.cosign(ctx)
		})
	}
	wg.Wait()
	got, signed := 0, bytes.Clone(cp.Note)
	for i, line := range lines {
		if errs[i] != nil {
			w.accuse(i, errs[i])
			continue
		}
		w.known[i] = cp.Size
		got++
		signed = append(signed, line...)
	}
	if got < w.quorum {
		return errors.Join(append(errs, fmt.Errorf("%d of %d witnesses cosigned, %d are needed", got, len(w.list), w.quorum))...)
	}
	if err := writeAtomic(w.log.path(cosignedPath), signed, true); err != nil {
		return fmt.Errorf("write the cosigned checkpoint: %w", err)
	}
	if got == len(w.list) {
		w.full = cp.Size
	}
	return errors.Join(errs...)
}

// accuse writes down, once for each run, that a witness contradicts this log.
func (w *cosigners) accuse(i int, err error) {
	var a *Accusation
	if !errors.As(err, &a) {
		return
	}
	w.log.cfg.Logger.Error("a witness contradicts this log: the evidence was rolled back or rewritten, or its key is used elsewhere; see docs/evidence.md", "witness", a.Witness, "what", a.What)
	if w.accused[i] {
		return
	}
	w.accused[i] = true
	e := api.Event{Kind: api.EventWitness, Object: "Witness/" + a.Witness, Status: "refused", Reason: a.What}
	if _, err := w.log.Append(&e); err != nil && !errors.Is(err, ErrClosed) {
		w.log.cfg.Logger.Error("the witness's refusal is not recorded", "err", err)
	}
}

// watchWitnesses asks the witnesses from time to time, until the log is closed.
func (l *Log) watchWitnesses() {
	defer l.wg.Done()
	t := time.NewTicker(l.cfg.CosignEvery)
	defer t.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-l.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		if err := l.Cosign(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Logger.Warn("not cosigned by all witnesses", "err", err)
		}
		select {
		case <-t.C:
		case <-l.quit:
			return
		}
	}
}

// lastCosign has the last checkpoint of a log that is being closed cosigned.
func (l *Log) lastCosign() {
	if len(l.witnesses.list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), witnessTimeout)
	defer cancel()
	l.behind.mu.Lock()
	cp := l.behind.signed
	l.behind.mu.Unlock()
	if err := l.witnesses.cosign(ctx, cp); err != nil {
		l.cfg.Logger.Warn("the last checkpoint is not cosigned by all witnesses", "err", err)
	}
}

// checkCosigned refuses a log that is shorter than what witnesses cosigned.
func (l *Log) checkCosigned(keys ring, signed Checkpoint, leaves uint64) error {
	b, err := os.ReadFile(l.path(cosignedPath))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	cp, err := keys.parse(b)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTampered, cosignedPath, err)
	}
	if cp.Size > leaves || cp.Size > signed.Size {
		return fmt.Errorf("%w: witnesses cosigned %d leaves, the log holds %d and its own checkpoint says %d", ErrTampered, cp.Size, leaves, signed.Size)
	}
	return nil
}
