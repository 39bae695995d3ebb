package evidence

import (
	"fmt"
	"time"
)

// attrClock of a gap leaf says by how much the wall clock jumped.
const attrClock = "clock"

// clock stamps leaves, and notices when the wall clock jumps: it is compared
// with a monotonic clock at every look. It is guarded by the log's lock.
type clock struct {
	now     func() time.Time
	elapsed func() time.Duration // nil: jumps are not looked for
	step    time.Duration

	wall   time.Time     // at the last look
	mono   time.Duration // at the last look
	last   time.Time     // the last stamp: stamps never go back
	jumped time.Duration // by how much, since the log was last healthy
}

func newClock(now func() time.Time, elapsed func() time.Duration, step time.Duration) clock {
	c := clock{now: now, elapsed: elapsed, step: step}
	c.wall = now().UTC().Round(0)
	if elapsed != nil {
		c.mono = elapsed()
	}
	return c
}

// look reads the clocks. It is an error if they drifted apart since the last look.
func (c *clock) look() error {
	before, was := c.wall, c.mono
	c.wall = c.now().UTC().Round(0)
	if c.elapsed == nil {
		return nil
	}
	c.mono = c.elapsed()
	drift := c.wall.Sub(before) - (c.mono - was)
	if drift.Abs() <= c.step {
		return nil
	}
	c.jumped += drift
	return fmt.Errorf("the clock jumped by %s", drift.Round(time.Millisecond))
}

// settle is look for a log that fails: it reports whether the clock is steady,
// and if so accepts its time, even if that goes back behind the last stamp.
func (c *clock) settle() bool {
	if c.look() != nil {
		return false
	}
	if c.jumped != 0 {
		c.last = c.wall
	}
	return true
}

// stamp is the time of the next leaf: the last look's, never before the last stamp.
func (c *clock) stamp() time.Time {
	if c.wall.After(c.last) {
		c.last = c.wall
	}
	return c.last
}
