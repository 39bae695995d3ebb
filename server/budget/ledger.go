package budget

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy"
)

// kind of the documents; their names are "rule/principal".
const kind = "budget"

const (
	slots = 12 // steps in which what was used comes back
	block = 32 // a write makes 1/block of a budget ready to be handed out
	// maxDistinct bounds how many marks of values one budget remembers.
	maxDistinct = 100_000
)

// Store keeps documents. *store.Store is one. Get and Delete of what is not
// there fail with an error that says so by a method NotFound() bool.
type Store interface {
	Get(ctx context.Context, kind, name string) ([]byte, error)
	Put(ctx context.Context, kind, name string, body []byte) (version int64, err error)
	Delete(ctx context.Context, kind, name string) error
	// Each calls fn with every document of the kind; fn may use the store.
	Each(ctx context.Context, kind string, since time.Time, fn func(name string, body []byte) error) error
}

func notFound(err error) bool {
	var n interface{ NotFound() bool }
	return errors.As(err, &n) && n.NotFound()
}

// Config is what a Ledger is made of.
type Config struct {
	Store Store
	// Key makes the marks of distinct values: what is kept of a value cannot be
	// looked up by whoever reads the store alone.
	Key []byte
	Now func() time.Time
}

// Ledger counts. Its methods are safe for concurrent use.
type Ledger struct {
	cfg Config

	mu      sync.Mutex
	entries map[string]*entry
}

// New opens the ledger over a store.
func New(cfg Config) *Ledger { return &Ledger{cfg: cfg, entries: map[string]*entry{}} }

// entry is one budget of one principal.
type entry struct {
	name string

	mu     sync.Mutex
	loaded bool
	record
	lease int64 // of the last slot: counted as used, and not handed out
}

// record is what the store keeps of an entry.
type record struct {
	Slots []slot          `json:"slots"`           // oldest first
	Marks map[string]mark `json:"marks,omitempty"` // of distinct values
}

// slot is what was used from Start on, for the span in force then.
type slot struct {
	Start time.Time `json:"start"`
	Ends  time.Time `json:"ends"` // from when on it counts no more
	Used  int64     `json:"used"`
}

// mark is the time from which on a value counts no more.
type mark = time.Time

// Use is what a principal used of a budget.
type Use struct {
	Rule      string
	Principal string // its ID
	Used      int64
	Refills   time.Time // when the first of it comes back
}

func name(principal, rule string) string { return rule + "/" + principal }

// entry returns the principal's entry, read from the store, and locked.
func (l *Ledger) entry(ctx context.Context, principal, rule string) (*entry, error) {
	if principal == "" || rule == "" {
		return nil, errors.New("budget: nobody's, or no rule's")
	}
	key := name(principal, rule)
	l.mu.Lock()
	e := l.entries[key]
	if e == nil {
		e = &entry{name: key}
		l.entries[key] = e
	}
	l.mu.Unlock()
	e.mu.Lock()
	if e.loaded {
		return e, nil
	}
	if err := e.load(ctx, l.cfg.Store); err != nil {
		e.mu.Unlock()
		return nil, fmt.Errorf("read budget %s: %w", key, err)
	}
	return e, nil
}

func (e *entry) load(ctx context.Context, s Store) error {
	body, err := s.Get(ctx, kind, e.name)
	if notFound(err) {
		e.loaded = true
		return nil
	}
	if err == nil {
		err = json.Unmarshal(body, &e.record)
	}
	e.loaded = err == nil
	return err
}

// save puts the record into the store: with what is leased, as long as it may
// be handed out without another write.
func (l *Ledger) save(ctx context.Context, e *entry) error {
	body, err := json.Marshal(e.record)
	if err == nil {
		_, err = l.cfg.Store.Put(context.WithoutCancel(ctx), kind, e.name, body)
	}
	if err != nil {
		return fmt.Errorf("keep budget %s: %w", e.name, err)
	}
	return nil
}

// Take hands out up to n (1 or more) of what is left of a principal's budget,
// and says how much that was. 0 is that nothing is left. What is handed out and
// not used goes back by Return. An error means that the store fails: nothing
// was handed out.
func (l *Ledger) Take(ctx context.Context, principal string, b policy.Budget, n int64) (int64, error) {
	e, err := l.entry(ctx, principal, b.Rule)
	if err != nil {
		return 0, err
	}
	defer e.mu.Unlock()
	e.turn(l.cfg.Now(), b.Per)
	got := min(n, b.Amount-e.used()+e.lease)
	if got <= 0 {
		return 0, nil
	}
	if need := got - e.lease; need > 0 {
		more := min(max(need, b.Amount/block), b.Amount-e.used())
		last := e.last()
		last.Used, e.lease = last.Used+more, e.lease+more
		if err := l.save(ctx, e); err != nil {
			last.Used, e.lease = last.Used-more, e.lease-more
			return 0, err
		}
	}
	e.lease -= got
	return got, nil
}

// Return gives back n of what was taken and not used.
func (l *Ledger) Return(ctx context.Context, principal string, b policy.Budget, n int64) {
	if n <= 0 {
		return
	}
	e, err := l.entry(ctx, principal, b.Rule)
	if err != nil {
		return // it stays counted
	}
	defer e.mu.Unlock()
	e.turn(l.cfg.Now(), b.Per)
	// What was taken in an earlier slot comes back with that slot, not sooner.
	e.lease = min(e.lease+n, e.last().Used)
}

// Distinct counts values: each that the principal has not used within the time
// of the budget takes one of it. It is all or nothing: false if there is not
// enough left for all that are new. The values are not kept, only keyed marks.
func (l *Ledger) Distinct(ctx context.Context, principal string, b policy.Budget, values [][]byte) (bool, error) {
	e, err := l.entry(ctx, principal, b.Rule)
	if err != nil {
		return false, err
	}
	defer e.mu.Unlock()
	now := l.cfg.Now()
	e.forget(now)
	ends := ends(now, b.Per)
	fresh := map[string]mark{}
	for _, v := range values {
		m := l.mark(b.Rule, v)
		if until, known := e.Marks[m]; !known || until.Before(ends) {
			fresh[m] = ends
		}
	}
	grown := len(e.Marks)
	for m := range fresh {
		if _, known := e.Marks[m]; !known {
			grown++
		}
	}
	if int64(grown) > min(b.Amount, maxDistinct) {
		return false, nil
	}
	if len(fresh) == 0 {
		return true, nil
	}
	return true, l.keepMarks(ctx, e, fresh)
}

// keepMarks adds marks and saves them; if that fails they are taken off again.
func (l *Ledger) keepMarks(ctx context.Context, e *entry, fresh map[string]mark) error {
	before := e.Marks
	e.Marks = make(map[string]mark, len(before)+len(fresh))
	for m, until := range before {
		e.Marks[m] = until
	}
	for m, until := range fresh {
		e.Marks[m] = until
	}
	if err := l.save(ctx, e); err != nil {
		e.Marks = before
		return err
	}
	return nil
}

// mark is what is kept of a value: 96 bits of an HMAC, under the rule's name.
func (l *Ledger) mark(rule string, value []byte) string {
	h := hmac.New(sha256.New, l.cfg.Key)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(rule)))
	h.Write(n[:])
	h.Write([]byte(rule))
	h.Write(value)
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// Left is what is left of a principal's budget, and, if that is less than all,
// when the next of it comes back (if nothing is left: when something is).
func (l *Ledger) Left(ctx context.Context, principal string, b policy.Budget) (left int64, refills time.Time, err error) {
	e, err := l.entry(ctx, principal, b.Rule)
	if err != nil {
		return 0, time.Time{}, err
	}
	defer e.mu.Unlock()
	now := l.cfg.Now()
	if b.Unit == policy.UnitConstants {
		e.forget(now)
		return max(0, b.Amount-int64(len(e.Marks))), e.oldestMark(), nil
	}
	e.turn(now, b.Per)
	over := e.used() - e.lease - b.Amount // negative: so much is left
	for _, s := range e.Slots {
		if s.Used > 0 {
			refills = s.Ends
			if over -= s.Used; over < 0 {
				break
			}
		}
	}
	return max(0, b.Amount-e.used()+e.lease), refills, nil
}

// Used lists who has used anything of a rule's budget, by ID.
func (l *Ledger) Used(ctx context.Context, b policy.Budget) ([]Use, error) {
	var out []Use
	err := l.cfg.Store.Each(ctx, kind, time.Time{}, func(name string, _ []byte) error {
		principal, ok := strings.CutPrefix(name, b.Rule+"/")
		if !ok {
			return nil
		}
		left, refills, err := l.Left(ctx, principal, b)
		if used := b.Amount - left; err == nil && used > 0 {
			out = append(out, Use{Rule: b.Rule, Principal: principal, Used: used, Refills: refills})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list budgets: %w", err)
	}
	return out, nil
}

// Sweep forgets what counts no more.
func (l *Ledger) Sweep(ctx context.Context) error {
	return l.cfg.Store.Each(ctx, kind, time.Time{}, func(name string, _ []byte) error {
		rule, principal, _ := strings.Cut(name, "/")
		return l.sweep(ctx, principal, rule)
	})
}

func (l *Ledger) sweep(ctx context.Context, principal, rule string) error {
	e, err := l.entry(ctx, principal, rule)
	if err != nil {
		return err
	}
	defer e.mu.Unlock()
	e.forget(l.cfg.Now())
	if len(e.Slots)+len(e.Marks) > 0 {
		return nil
	}
	// The entry itself stays: somebody may be waiting for its lock.
	e.lease = 0
	err = l.cfg.Store.Delete(ctx, kind, e.name)
	if notFound(err) {
		return nil
	}
	return err
}

// Close writes down what was leased and not handed out, so that an orderly end
// counts exactly.
func (l *Ledger) Close() error {
	l.mu.Lock()
	entries := make([]*entry, 0, len(l.entries))
	for _, e := range l.entries {
		entries = append(entries, e)
	}
	l.mu.Unlock()
	var errs []error
	for _, e := range entries {
		e.mu.Lock()
		if e.lease > 0 {
			e.settle()
			errs = append(errs, l.save(context.Background(), e))
		}
		e.mu.Unlock()
	}
	return errors.Join(errs...)
}

// turn forgets what counts no more and makes the slot of this moment the last.
func (e *entry) turn(now time.Time, per time.Duration) {
	e.forget(now)
	step := per / slots
	start := now.Truncate(step)
	if n := len(e.Slots); n > 0 && !e.Slots[n-1].Start.Before(start) && e.Slots[n-1].Ends.Equal(ends(now, per)) {
		return
	}
	e.settle()
	e.Slots = append(e.Slots, slot{Start: start, Ends: ends(now, per)})
}

// ends is when what is used now counts no more: not before a whole span after
// the last moment of its slot.
func ends(now time.Time, per time.Duration) time.Time {
	step := per / slots
	return now.Truncate(step).Add(step + per)
}

// settle takes back what was leased in the last slot and not handed out.
func (e *entry) settle() {
	if e.lease > 0 {
		e.last().Used -= e.lease
		e.lease = 0
	}
}

func (e *entry) forget(now time.Time) {
	gone := func(s slot) bool { return !now.Before(s.Ends) }
	if n := len(e.Slots); n > 0 && gone(e.Slots[n-1]) {
		e.lease = 0
	}
	e.Slots = slices.DeleteFunc(e.Slots, gone)
	for m, until := range e.Marks {
		if !now.Before(until) {
			delete(e.Marks, m)
		}
	}
}

func (e *entry) last() *slot { return &e.Slots[len(e.Slots)-1] }

func (e *entry) used() (sum int64) {
	for _, s := range e.Slots {
		sum += s.Used
	}
	return sum
}

func (e *entry) oldestMark() (first time.Time) {
	for _, until := range e.Marks {
		if first.IsZero() || until.Before(first) {
			first = until
		}
	}
	return first
}
