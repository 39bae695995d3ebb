package postgres

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hoopctl/hoopctl/server/session"
)

const (
	// cancelTimeout bounds one cancel request to a target.
	cancelTimeout = 3 * time.Second
	// forgedDelay is what a wrong cancel key costs who sent it. Guessing 64
	// bits stays hopeless without it; it keeps the noise of trying low.
	forgedDelay = time.Second
	// maxCancelKey is the longest key that protocol 3.2 allows.
	maxCancelKey = 256
)

// register gives the session a cancel key of our own: 32 random bits in the
// place of the process id, and 32 (protocol 3.2: 256) of secret. The target's
// own key never leaves the server.
func (k *keys) register(c *conn) {
	size := 4
	if c.version >= protocol3_2 {
		size = 32
	}
	c.key = make([]byte, size)
	rand.Read(c.key)
	k.mu.Lock()
	defer k.mu.Unlock()
	for c.pid == 0 || k.byPID[c.pid] != nil {
		var b [4]byte
		rand.Read(b[:])
		c.pid = binary.BigEndian.Uint32(b[:])
	}
	k.byPID[c.pid] = c
}

func (k *keys) forget(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byPID[c.pid] == c {
		delete(k.byPID, c.pid)
	}
}

// find returns the session that a cancel request names, nil if there is none,
// the key is wrong, or it came through a connection of another owner.
func (k *keys) find(pid uint32, key []byte, owner string) *conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.byPID[pid]
	if c == nil || c.owner != owner || subtle.ConstantTimeCompare(c.key, key) != 1 {
		k.forged++
		return nil
	}
	return c
}

// cancelRequest serves a connection that is one CancelRequest: body is the
// process id and the key. It returns session.ErrHandled. The client, which
// cannot be answered, waits for the connection to close.
func (c *conn) cancelRequest(ctx context.Context, body []byte) error {
	if len(body) < 8 || len(body) > 4+maxCancelKey {
		return fmt.Errorf("%w: cancel request of %d bytes", errLength, len(body))
	}
	named := c.room.keys.find(binary.BigEndian.Uint32(body), body[4:], c.owner)
	if named == nil {
		c.room.log.Warn("cancel request with a wrong key", "from", c.client.RemoteAddr())
		select {
		case <-time.After(forgedDelay):
		case <-ctx.Done():
		}
		return session.ErrHandled
	}
	named.cancel(ctx, "client")
	return session.ErrHandled
}

// cancel ends what the session does now: a question that waits for people is
// withdrawn, a statement that runs is cancelled on the target. It never
// touches a later statement: the cancel is bound to what runs when it comes.
func (c *conn) cancel(ctx context.Context, by string) {
	c.ledger.mu.Lock()
	waiting := []context.CancelFunc{c.ledger.admitting, c.ledger.limiting}
	running, generation := c.ledger.running(), c.ledger.generation
	c.ledger.mu.Unlock()
	withdrawn := false
	for _, withdraw := range waiting {
		if withdraw != nil {
			withdrawn = true
			withdraw()
		}
	}
	if !running && !withdrawn {
		return
	}
	if err := c.gate.Cancelled(by); err != nil {
		c.room.log.Error("cancel request not recorded", "session", c.name, "error", err)
	}
	if running {
		if err := c.cancelTarget(ctx, generation); err != nil {
			c.room.log.Warn("cancel did not reach the target", "session", c.name, "error", err)
		}
	}
}

var errLate = errors.New("the statement had ended")

// cancelTarget sends a CancelRequest for the statement of that generation.
// While it is under way no later statement is sent: PostgreSQL's cancel names
// a backend, not a statement, and must not hit the next one.
func (c *conn) cancelTarget(ctx context.Context, generation uint64) error {
	ctx, stop := context.WithTimeout(ctx, cancelTimeout)
	defer stop()
	if len(c.up.key) == 0 {
		return errors.New("the target gave no cancel key")
	}
	side, err := c.dialCancel(ctx)
	if err != nil {
		return err
	}
	defer side.Close()
	c.cancelling.Lock()
	defer c.cancelling.Unlock()
	c.ledger.mu.Lock()
	late := c.ledger.generation != generation || !c.ledger.running()
	c.ledger.mu.Unlock()
	if late {
		return errLate
	}
	packet := appendUint32(nil, uint32(12+len(c.up.key)))
	packet = appendUint32(appendUint32(packet, codeCancel), c.up.pid)
	if _, err := side.Write(append(packet, c.up.key...)); err != nil {
		return err
	}
	// The target closes when the signal is sent: only then may another statement start.
	io.Copy(io.Discard, io.LimitReader(side, 1024))
	return nil
}

// dialCancel opens the connection for a cancel request, secured as the session is.
func (c *conn) dialCancel(ctx context.Context) (net.Conn, error) {
	side, err := c.target.Dial(ctx, c.up.address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		side.SetDeadline(deadline)
	}
	if c.up.tls == nil {
		return side, nil
	}
	secured, err := secure(ctx, side, c.up.tls)
	if err != nil {
		side.Close()
		return nil, err
	}
	return secured, nil
}

func secure(ctx context.Context, side net.Conn, config *tls.Config) (net.Conn, error) {
	if _, err := side.Write(appendUint32(appendUint32(nil, 8), codeTLS)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(side, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errors.New("the target does not offer TLS for a cancel request")
	}
	secured := tls.Client(side, config)
	return secured, secured.HandshakeContext(ctx)
}
