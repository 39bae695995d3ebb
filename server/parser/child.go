package parser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy/sql"
)

// warmup is how long a child may take to be ready: compiling without a code
// cache takes seconds on a fast machine, and minutes on a small busy one, which
// would never be ready if it were ended before.
const warmup = 5 * time.Minute

// child is one running parser.
type child struct {
	cmd    *exec.Cmd
	client *sql.Client
	in     io.Closer
	gone   chan struct{} // closed when the process has ended
	stderr *tail
	busy   time.Duration
}

// work keeps one child running and feeds it, until ctx ends.
func (p *Pool) work(ctx context.Context) {
	delay := 50 * time.Millisecond
	for ctx.Err() == nil {
		c, err := p.start(ctx)
		if err != nil {
			p.failed.Store(&err)
			if p.running.Load() == 0 {
				p.queue.refuse(&Unavailable{err})
			}
			p.once.Do(func() { close(p.tried) })
			if ctx.Err() == nil {
				p.cfg.Log.Error("the SQL parser did not start", "error", err, "again_in", delay)
			}
			sleep(ctx, delay)
			delay = min(2*delay, 5*time.Second)
			continue
		}
		delay = 50 * time.Millisecond
		p.failed.Store(nil)
		p.running.Add(1)
		p.once.Do(func() { close(p.tried) })
		why := p.feed(ctx, c)
		p.running.Add(-1)
		c.end()
		if ctx.Err() == nil {
			p.cfg.Log.Warn("the SQL parser is started anew", "why", why, "stderr", c.stderr.String())
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// start starts a child and waits until it is warm.
func (p *Pool) start(ctx context.Context) (*child, error) {
	p.starts.Lock()
	defer p.starts.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	args := append(slices.Clone(p.cfg.Command[1:]), strconv.FormatInt(p.cfg.Memory, 10))
	cmd := exec.Command(p.cfg.Command[0], args...) //nolint:gosec // the server's own binary
	cmd.Env = []string{}
	cmd.Dir = p.cfg.CacheDir
	c := &child{cmd: cmd, gone: make(chan struct{}), stderr: &tail{}}
	cmd.Stderr = c.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	c.in = in
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	go c.reap()
	if err := p.greet(ctx, c, in, out); err != nil {
		c.end()
		if s := c.stderr.String(); s != "" {
			err = fmt.Errorf("%w (%s)", err, s)
		}
		return nil, err
	}
	return c, nil
}

// greet waits for the child to be ready; a child that takes too long, or whose
// pool is closed meanwhile, is killed and so ends the wait.
func (p *Pool) greet(ctx context.Context, c *child, in io.Writer, out io.Reader) error {
	limit, cancel := context.WithTimeout(ctx, warmup)
	defer cancel()
	defer context.AfterFunc(limit, c.kill)()
	client, err := sql.NewClient(out, in, p.cfg.CacheDir)
	if err != nil {
		return errors.Join(err, limit.Err())
	}
	c.client = client
	return nil
}

// reap waits for the process, so that its end is seen while it is idle. It
// does not use Wait, which would close the pipe that an answer is read from.
func (c *child) reap() {
	_, _ = c.cmd.Process.Wait()
	close(c.gone)
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

// end ends the process and waits for it.
func (c *child) end() {
	_ = c.in.Close()
	c.kill()
	<-c.gone
	_ = c.cmd.Wait() // closes the pipes
}

// feed gives the child one job after the other, and returns why it stopped.
func (p *Pool) feed(ctx context.Context, c *child) (why string) {
	defer context.AfterFunc(ctx, c.kill)()
	for {
		j := p.queue.pop()
		if j == nil {
			select {
			case <-ctx.Done():
				return "closing"
			case <-c.gone:
				return "it ended while idle"
			case <-p.queue.signal:
			}
			continue
		}
		if why := p.judge(ctx, c, j); why != "" {
			return why
		}
		if c.busy > maxBusy {
			return "it has worked long enough"
		}
	}
}

// judge has one text parsed. It returns why the child cannot go on, or "".
func (p *Pool) judge(ctx context.Context, c *child, j *job) (why string) {
	limit := p.cfg.Deadline + perKiB*time.Duration(len(j.text)>>10)
	start := time.Now()
	watch := c.watch(limit)
	parsed, err := c.client.Parse(j.text)
	late := watch.end()
	c.busy += time.Since(start)
	var syntax *sql.SyntaxError
	var complexity *sql.TooComplex
	var broken *sql.Broken
	switch {
	case err == nil, errors.As(err, &syntax), errors.As(err, &complexity):
	case ctx.Err() != nil:
		why, err = "closing", &Unavailable{errClosed}
	case errors.As(err, &broken):
		p.strikes.add(j.principal)
	case late:
		p.strikes.add(j.principal)
		why = "a text took it too long"
		err = &sql.TooComplex{What: "time", Limit: int(limit.Milliseconds())}
	default:
		p.strikes.add(j.principal)
		why = fmt.Sprintf("a text ended it: %v", err)
		err = &sql.Broken{Message: "this statement ended the SQL parser"}
	}
	j.answer <- answer{parsed, err}
	if why == "" && late {
		why = "a text took it too long"
	}
	return why
}

// watch ends a child that takes too long over a text. What counts is the
// processor time that the child uses: on a machine that is busy with other
// things an innocent text waits, and nobody should pay for that. Where
// processor time cannot be told, and for a child that sleeps, the wall clock
// counts with patience.
type watch struct {
	mu    sync.Mutex
	timer *time.Timer
	ended bool
	late  bool
}

// patience is how many times its processor time a text may take on the wall.
const patience = 16

func (c *child) watch(limit time.Duration) *watch {
	w := &watch{}
	start := time.Now()
	before, _ := cpuTime(c.cmd.Process.Pid)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(limit, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		now, known := cpuTime(c.cmd.Process.Pid)
		used := now - before
		switch {
		case w.ended:
		case time.Since(start) < patience*limit && (!known || used < limit):
			w.timer.Reset(max(limit/4, limit-used))
		default:
			w.late = true
			c.kill()
		}
	})
	return w
}

// end stops watching and reports whether the child was ended.
func (w *watch) end() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	return w.late
}

// tail keeps the end of what a child says on its standard error.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const maxTail = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > maxTail {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-maxTail:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}

// Main is the child: the body of the hidden verb that Config.Command names,
// with the arguments behind it (the Pool adds one: its memory limit in bytes).
// It returns the exit code.
func Main(args []string, in io.Reader, out, errs io.Writer) int {
	if len(args) != 1 {
		_, _ = fmt.Fprintln(errs, "SQL parser: this is started by the server, with its memory limit as the argument")
		return 2
	}
	if err := confine(args[0]); err != nil {
		_, _ = fmt.Fprintln(errs, "SQL parser: confine:", err)
		return 1
	}
	if err := sql.ServeWorker(in, out); err != nil {
		_, _ = fmt.Fprintln(errs, "SQL parser:", err)
		return 1
	}
	return 0
}
