package tunnel

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// handshakeTimeout bounds the TLS handshake and the line of each side where
// the caller's context has no earlier deadline.
const handshakeTimeout = 10 * time.Second

// answerTimeout bounds how long a client waits for the server's line: the
// server may have to write evidence first.
const answerTimeout = 30 * time.Second

// ErrTooLong means that a peer's line had no newline within MaxLine bytes.
var ErrTooLong = fmt.Errorf("the line is longer than %d bytes", MaxLine)

// reply is the server's one line: an empty object, or why not.
type reply struct {
	Error *api.Error `json:"error,omitempty"`
}

// Dial opens a tunnel connection to addr (host:port). config names the server,
// its roots and the client's certificate; its versions and ALPN are set here.
// The connection that it returns is the session's: reads and writes go end to
// end, and CloseWrite (see [CloseWrite]) closes one half of it.
//
// A refusal by the server is an *api.Error; every other error means that no
// server was reached which speaks this protocol.
func Dial(ctx context.Context, addr string, config *tls.Config, hello Hello) (net.Conn, error) {
	raw, err := (&net.Dialer{Timeout: handshakeTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return Client(ctx, raw, config, hello)
}

// Client does what [Dial] does on a connection that is already open, such as
// one through a proxy. It owns raw: on error raw is closed.
func Client(ctx context.Context, raw net.Conn, config *tls.Config, hello Hello) (net.Conn, error) {
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{Protocol}
	conn := tls.Client(raw, config)
	if err := offer(ctx, conn, hello); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

func offer(ctx context.Context, conn *tls.Conn, hello Hello) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("tls handshake: %w", err)
	}
	if conn.ConnectionState().NegotiatedProtocol != Protocol {
		return fmt.Errorf("the server does not speak %s (is something between that terminates TLS?)", Protocol)
	}
	var answer reply
	err := bounded(ctx, conn, func() error {
		if err := writeLine(conn, hello); err != nil {
			return fmt.Errorf("send the tunnel's header: %w", err)
		}
		if err := readLine(conn, &answer); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}

// Accept reads a client's Hello from a connection whose TLS handshake is done
// (if it is not, Accept does it). It waits 10 s at most, or as long as ctx
// lets it. On error the caller closes conn; nothing needs to be replied to a
// peer that could not say hello. Bytes after the line stay unread on conn.
func Accept(ctx context.Context, conn net.Conn) (Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if c, ok := conn.(*tls.Conn); ok {
		if err := c.HandshakeContext(ctx); err != nil {
			return Hello{}, fmt.Errorf("tls handshake: %w", err)
		}
	}
	var hello Hello
	err := bounded(ctx, conn, func() error { return readLine(conn, &hello) })
	if err != nil {
		return Hello{}, fmt.Errorf("read the tunnel's header: %w", err)
	}
	return hello, nil
}

// Reply tells the client that the session may begin (nil) or why it may not.
// After a refusal it waits, 2 s at most, until the client has read it: closing
// a connection with unread bytes would throw the answer away. The caller then
// closes conn. A message too long for the line is shortened.
func Reply(conn net.Conn, refusal *api.Error) error {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := bounded(ctx, conn, func() error { return writeReply(conn, refusal) }); err != nil {
		return fmt.Errorf("answer the tunnel's header: %w", err)
	}
	if refusal != nil {
		linger(conn)
	}
	return nil
}

func writeReply(w io.Writer, refusal *api.Error) error {
	err := writeLine(w, reply{Error: refusal})
	if errors.Is(err, ErrTooLong) {
		short := *refusal
		short.Message, short.Hint = cut(short.Message), cut(short.Hint)
		err = writeLine(w, reply{Error: &short})
	}
	return err
}

// linger lets a refused peer read its answer and drops what it still sends.
func linger(conn net.Conn) {
	if CloseWrite(conn) == nil && conn.SetReadDeadline(time.Now().Add(2*time.Second)) == nil {
		// The end, a deadline or too much: in each case the connection is closed next.
		_, _ = io.CopyN(io.Discard, conn, 64<<10)
	}
}

// cut shortens s so that two of it, escaped six bytes a byte at worst, fit a line.
func cut(s string) string {
	const most = 250
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// CloseWrite closes the sending half of a connection, so that the peer reads
// io.EOF while its own bytes still arrive. A connection that cannot do half is
// closed whole.
func CloseWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return conn.Close()
}

// bounded runs f, which uses conn, until ctx ends; it leaves no deadline behind.
func bounded(ctx context.Context, conn net.Conn, f func() error) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		return conn.SetDeadline(time.Time{})
	case ctx.Err() != nil:
		return errors.Join(context.Cause(ctx), err)
	case errors.Is(err, os.ErrDeadlineExceeded): // the connection's timer ran a moment before the context's
		return errors.Join(context.DeadlineExceeded, err)
	default:
		return err
	}
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(line)+1 > MaxLine {
		return ErrTooLong
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// readLine decodes one line of at most MaxLine bytes and reads nothing past it.
func readLine(r io.Reader, v any) error {
	line := make([]byte, 0, 512)
	for one := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, one); err != nil {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if one[0] == '\n' {
			break
		}
		if line = append(line, one[0]); len(line) >= MaxLine {
			return ErrTooLong
		}
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("not the JSON that was expected: %w", err)
	}
	return nil
}
