package parser

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hoopctl/hoopctl/policy/sql"
)

// job is a text that waits for a child.
type job struct {
	principal string
	text      string
	answer    chan answer // buffered: a worker never waits for who asked
}

type answer struct {
	parsed *sql.Parsed
	err    error
}

const maxWaiting = 256 // texts of one principal

// queue is fair: principals take turns, however much each has waiting.
type queue struct {
	mu     sync.Mutex
	lines  map[string][]*job
	turns  []string // principals with something waiting, next first
	signal chan struct{}
	closed bool
	taken  atomic.Int64 // jobs that went to a child
}

func newQueue() *queue {
	return &queue{lines: make(map[string][]*job), signal: make(chan struct{}, 1)}
}

func (q *queue) push(j *job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[j.principal]
	switch {
	case q.closed:
		return errClosed
	case len(line) >= maxWaiting:
		return errCrowded
	case len(line) == 0:
		q.turns = append(q.turns, j.principal)
	}
	q.lines[j.principal] = append(line, j)
	q.wake()
	return nil
}

// wake lets one worker look. It is called with mu held.
func (q *queue) wake() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// pop takes the next job, nil if there is none.
func (q *queue) pop() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.turns) == 0 {
		return nil
	}
	who := q.turns[0]
	q.turns = q.turns[1:]
	line := q.lines[who]
	j := line[0]
	if len(line) == 1 {
		delete(q.lines, who)
	} else {
		line[0] = nil
		q.lines[who] = line[1:]
		q.turns = append(q.turns, who)
	}
	q.taken.Add(1)
	if len(q.turns) > 0 {
		q.wake() // another worker may be asleep
	}
	return j
}

// waiting are the jobs that no child has taken yet.
func (q *queue) waiting() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []*job
	for _, line := range q.lines {
		out = append(out, line...)
	}
	return out
}

// drop takes a job back that nobody waits for any more. A worker may have it
// already; its answer then goes nowhere.
func (q *queue) drop(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[j.principal]
	for i, other := range line {
		if other != j {
			continue
		}
		line = append(line[:i:i], line[i+1:]...)
		q.lines[j.principal] = line
		if len(line) == 0 {
			q.leave(j.principal)
		}
		return
	}
}

func (q *queue) leave(who string) {
	delete(q.lines, who)
	for i, other := range q.turns {
		if other == who {
			q.turns = append(q.turns[:i:i], q.turns[i+1:]...)
			return
		}
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.refuse(&Unavailable{errClosed})
}

// refuse answers everything that waits with an error.
func (q *queue) refuse(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, line := range q.lines {
		for _, j := range line {
			j.answer <- answer{err: err}
		}
	}
	q.lines, q.turns = make(map[string][]*job), nil
}

// strikes remembers whose texts stalled or ended a child. Each costs everybody
// a new child, so a principal waits after it, longer each time.
type strikes struct {
	mu  sync.Mutex
	who map[string]strike
}

type strike struct {
	count int
	until time.Time
}

const (
	firstStrike = time.Second
	maxStrike   = 30 * time.Second
)

func (s *strikes) out(principal string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.who[principal]
	now := time.Now()
	if ok && now.After(st.until.Add(maxStrike)) {
		delete(s.who, principal)
		return false
	}
	return ok && now.Before(st.until)
}

func (s *strikes) add(principal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.who == nil {
		s.who = make(map[string]strike)
	}
	st := s.who[principal]
	st.count++
	st.until = time.Now().Add(min(firstStrike<<min(st.count-1, 5), maxStrike))
	s.who[principal] = st
}
