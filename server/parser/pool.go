package parser

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
)

// Config of a Pool. The zero value of every field but Command is a default.
type Config struct {
	// Command starts a child: the server's own binary and the hidden verb that
	// calls [Main] with the arguments behind it. The child's environment is empty.
	Command []string
	// CacheDir keeps compiled code between starts. It is made with mode 0700,
	// and refused if anybody else may write to it: what is in it is executed.
	// Without one every start of a child compiles anew, which takes seconds.
	CacheDir string
	// Workers is how many children stand by: one more than a quiet server
	// needs, so that the end of one is not felt. Default 2.
	Workers int
	// Deadline is how much processor time a child may take over a text of no
	// size, once it is warm; a text may take 2 ms more for each KiB, as the
	// grammar's time is linear in it. Where processor time cannot be told (not
	// Linux), 16 times as much may pass on the wall. Default 250 ms.
	Deadline time.Duration
	// Memory bounds what a child may allocate, in bytes (Linux). Default 1 GiB.
	Memory int64
	// CacheBytes bounds what is remembered of earlier texts. Default 64 MiB.
	CacheBytes int64
	// Log hears of children that end. Default: nobody does.
	Log *slog.Logger
}

// Unavailable says that no parser could be asked. Nothing may run on it.
type Unavailable struct{ Err error }

func (e *Unavailable) Error() string { return "the SQL parser is unavailable: " + e.Err.Error() }
func (e *Unavailable) Unwrap() error { return e.Err }

var (
	errClosed  = errors.New("the server is shutting down")
	errCrowded = errors.New("too many statements of yours are waiting for it")
	errStrikes = errors.New("statements of yours have stalled or ended it; wait a few seconds")
	errNotSoon = errors.New("it did not start in time")
)

const (
	defaultWorkers  = 2
	defaultDeadline = 250 * time.Millisecond
	defaultMemory   = 1 << 30
	defaultCache    = 64 << 20
	perKiB          = 2 * time.Millisecond
	// maxBusy is how much a child works before it is replaced: it bounds what
	// leaks, and stays below the child's limit on processor time.
	maxBusy = 4 * time.Minute
	// maxQueue is how long a text waits for a child before the answer is that
	// there is none.
	maxQueue = 10 * time.Second
)

// Pool turns SQL text into facts. It is safe for concurrent use.
type Pool struct {
	cfg     Config
	queue   *queue
	cache   *cache
	strikes strikes
	stop    context.CancelFunc
	done    sync.WaitGroup
	starts  sync.Mutex    // one child warms at a time: the second loads what the first compiled
	tried   chan struct{} // closed when a first child is ready, or did not start
	once    sync.Once
	running atomic.Int32          // children that can be asked
	failed  atomic.Pointer[error] // why the last start failed, nil once one succeeded
}

// New starts the children and returns without waiting for them; see Ready.
func New(cfg Config) (*Pool, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("start the SQL parser: no command")
	}
	if cfg.CacheDir != "" {
		if err := ownFolder(cfg.CacheDir); err != nil {
			return nil, fmt.Errorf("start the SQL parser: %w", err)
		}
	}
	cfg.Workers = orDefault(cfg.Workers, defaultWorkers)
	cfg.Deadline = orDefault(cfg.Deadline, defaultDeadline)
	cfg.Memory = orDefault(cfg.Memory, defaultMemory)
	cfg.CacheBytes = orDefault(cfg.CacheBytes, defaultCache)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Pool{cfg: cfg, queue: newQueue(), cache: newCache(cfg.CacheBytes), stop: stop, tried: make(chan struct{})}
	for range cfg.Workers {
		p.done.Go(func() { p.work(ctx) })
	}
	return p, nil
}

func orDefault[T ~int | ~int64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Ready waits until a child can be asked, or the first that was started did
// not get so far; the pool goes on trying either way.
func (p *Pool) Ready(ctx context.Context) error {
	select {
	case <-p.tried:
		if why := p.failed.Load(); why != nil {
			return &Unavailable{*why}
		}
		return nil
	case <-ctx.Done():
		return &Unavailable{fmt.Errorf("%w: %w", errNotSoon, ctx.Err())}
	}
}

// Close ends the children and waits for them. Texts that wait are refused.
func (p *Pool) Close() error {
	p.stop()
	p.queue.close()
	p.done.Wait()
	return nil
}

// Facts returns what a text does, one Facts a statement in order; a text
// without a statement has one, of kind "". They may come from an earlier text
// of the same shape where nothing in them depends on a literal. The error is
// a *sql.SyntaxError, a *sql.TooComplex, a *sql.Broken (this text broke the
// parser, and was not judged), an *Unavailable, or ctx's.
func (p *Pool) Facts(ctx context.Context, principal, text string) ([]*policy.Facts, error) {
	exact := hashText(text)
	if e, ok := p.cache.get(exact); ok {
		return e.facts(), e.err
	}
	var keyRoom [512]byte
	var rangeRoom [4]sql.Range
	r, err := sql.Read(text, keyRoom[:0], rangeRoom[:0])
	if err != nil {
		return nil, err
	}
	if len(r.Statements) == 0 {
		return sql.Empty(text), nil
	}
	shape := hashOf('s', r.Key)
	if e, ok := p.cache.get(shape); ok && len(e.facts()) == len(r.Statements) {
		return e.moved(r.Statements), nil
	}
	parsed, err := p.ask(ctx, principal, text, exact, shape)
	if err != nil {
		return nil, err
	}
	return parsed.Facts, nil
}

// Parse is Facts with the parse tree, always of this very text. A text without
// a statement has no tree.
func (p *Pool) Parse(ctx context.Context, principal, text string) (*sql.Parsed, error) {
	exact := hashText(text)
	if e, ok := p.cache.get(exact); ok {
		return e.parsed, e.err
	}
	r, err := sql.Read(text, nil, nil)
	if err != nil {
		return nil, err
	}
	if len(r.Statements) == 0 {
		return &sql.Parsed{Facts: sql.Empty(text)}, nil
	}
	return p.ask(ctx, principal, text, exact, hashOf('s', r.Key))
}

// ask asks a child, and remembers the answer.
func (p *Pool) ask(ctx context.Context, principal, text string, exact, shape hash) (*sql.Parsed, error) {
	if p.strikes.out(principal) {
		return nil, &Unavailable{errStrikes}
	}
	if why := p.failed.Load(); why != nil && p.running.Load() == 0 {
		return nil, &Unavailable{*why}
	}
	j := &job{principal: principal, text: text, answer: make(chan answer, 1)}
	if err := p.queue.push(j); err != nil {
		return nil, &Unavailable{err}
	}
	wait := time.NewTimer(maxQueue)
	defer wait.Stop()
	select {
	case a := <-j.answer:
		p.remember(a, text, exact, shape)
		return a.parsed, a.err
	case <-ctx.Done():
		p.queue.drop(j)
		return nil, ctx.Err()
	case <-wait.C:
		p.queue.drop(j)
		return nil, &Unavailable{errNotSoon}
	}
}

func (p *Pool) remember(a answer, text string, exact, shape hash) {
	var down *Unavailable
	if errors.As(a.err, &down) {
		return
	}
	e := &entry{parsed: a.parsed, err: a.err}
	var late *sql.TooComplex
	if errors.As(a.err, &late) && late.What == "time" {
		e.until = time.Now().Add(time.Minute) // long enough to stop a loop, and no verdict for ever
	}
	p.cache.put(exact, e)
	if a.err == nil && byShape(a.parsed.Facts, text) {
		p.cache.put(shape, &entry{parsed: &sql.Parsed{Facts: a.parsed.Facts}})
	}
}

// byShape reports whether the facts hold for every text of the same shape: no
// fact depends on a literal, and the lexer finds the statements where the
// grammar does.
func byShape(facts []*policy.Facts, text string) bool {
	ranges := sql.Split(text)
	if len(ranges) != len(facts) {
		return false
	}
	for i, f := range facts {
		if !f.LiteralFree || f.Start != ranges[i].Start || f.End != ranges[i].End {
			return false
		}
	}
	return true
}
