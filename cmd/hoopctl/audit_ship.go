package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// shipOptions are the flags of audit export that concern streams of events.
type shipOptions struct {
	format       string
	to           string
	ca           string
	cert, key    string
	cursor       string
	follow       bool
	since, until string
}

const (
	shipBatch  = 1000             // events that are delivered, or not, together
	shipPoll   = 2 * time.Second  // between looks when there is nothing new
	shipWait   = 30 * time.Second // for a receiver to take a batch
	shipRetry  = time.Second      // first pause after a failure; it doubles …
	shipPause  = time.Minute      // … up to this
	maxCursor  = 1 << 16
	syslogPort = "6514" // RFC 5425
)

// sink takes batches of messages. When it returns nil they are delivered.
type sink interface {
	deliver(ctx context.Context, messages [][]byte) error
}

// ship sends events in the order of the log from the cursor on. The cursor moves
// when a batch is delivered: every event arrives at least once, each copy under
// the same id, and an event that is missing is an error and not a gap.
func (a *app) ship(ctx context.Context, cl *client.Client, logKey string, file string, o shipOptions) error {
	since, err := parseTime(o.since, a.now())
	if err != nil {
		return usagef("--since %q: want a duration (24h), a date, or a time in RFC 3339", o.since)
	}
	until, err := parseTime(o.until, a.now())
	if err != nil {
		return usagef("--until %q: want a duration (24h), a date, or a time in RFC 3339", o.until)
	}
	encode, err := encoderOf(o.format)
	if err != nil {
		return err
	}
	to, closeSink, err := a.sinkOf(o, file)
	if err != nil {
		return err
	}
	defer closeSink()
	at := cursor{path: o.cursor, Log: logKey}
	if err := at.load(); err != nil {
		return err
	}
	s := &shipper{warn: a.err, from: cl, pause: shipRetry, encode: encode, sink: to, at: at, since: since, until: until}
	return s.run(ctx, o.follow)
}

// lister shows the events of a log, as client.Client does.
type lister interface {
	Events(ctx context.Context, q api.EventQuery) ([]api.Event, error)
}

type shipper struct {
	warn         io.Writer
	from         lister
	encode       func([]byte, *api.Event) ([]byte, error)
	sink         sink
	at           cursor
	since, until time.Time
	pause        time.Duration // after a first failure
}

// run ships what there is, and with follow goes on with what comes: over a
// server or a receiver that is away, however long.
func (s *shipper) run(ctx context.Context, follow bool) error {
	pause := s.pause
	for {
		n, err := s.step(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && n > 0:
			pause = s.pause
			continue
		case err == nil && !follow:
			return nil
		case err == nil:
			pause = s.pause
			err = sleep(ctx, shipPoll)
		case !follow || !lasting(err):
			return err
		default:
			fmt.Fprintf(s.warn, "Not delivered from event %d on (%s); trying again.\n", s.at.Next, printable(err.Error()))
			err = sleep(ctx, pause)
			pause = min(2*pause, shipPause)
		}
		if err != nil {
			return err
		}
	}
}

// lasting says whether a failure may pass by itself.
func lasting(err error) bool {
	var refused *api.Error
	var hole *missingError
	return !errors.As(err, &hole) && (!errors.As(err, &refused) || refused.Reason == api.ReasonUnavailable || refused.Reason == api.ReasonInternal)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// missingError says that the server did not show an event that must be there.
type missingError struct{ want, got uint64 }

func (e *missingError) Error() string {
	return fmt.Sprintf("the server shows event %d where event %d belongs: events are missing; run audit verify", e.got, e.want)
}

// step ships one batch, and says how many events it was.
func (s *shipper) step(ctx context.Context) (int, error) {
	q := api.EventQuery{Limit: shipBatch, Since: s.since, Until: s.until}
	if s.at.Next > 0 {
		q.After = s.at.Next - 1
	}
	events, err := s.from.Events(ctx, q)
	if err != nil {
		return 0, err
	}
	next, first := s.at.Next, s.at.Next == 0 && !s.since.IsZero()
	var messages [][]byte
	for i := range events {
		e := &events[i]
		if e.Index < next {
			continue
		}
		if e.Index != next && !first {
			return 0, &missingError{next, e.Index}
		}
		m, err := s.encode(nil, e)
		if err != nil {
			return 0, err
		}
		messages = append(messages, m)
		next, first = e.Index+1, false
	}
	if len(messages) == 0 {
		return 0, nil
	}
	if err := s.sink.deliver(ctx, messages); err != nil {
		return 0, err
	}
	s.at.Next = next
	return len(messages), s.at.save()
}

// cursor is what has been delivered of a log.
type cursor struct {
	path string
	Log  string `json:"log"`  // its verifier key
	Next uint64 `json:"next"` // index of the first event that was not delivered
}

func (c *cursor) load() error {
	if c.path == "" {
		return nil
	}
	b, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the cursor: %w", err)
	}
	var was cursor
	if err := json.Unmarshal(b, &was); err != nil || len(b) > maxCursor {
		return withHint(fmt.Errorf("read the cursor %s: %w", c.path, err), "remove it to begin again from the first event")
	}
	if was.Log != c.Log {
		return withHint(fmt.Errorf("the cursor %s is of another log", c.path), "give each server its own --cursor file")
	}
	c.Next = was.Next
	return nil
}

func (c *cursor) save() error {
	if c.path == "" {
		return nil
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return replaceFile(c.path, append(b, '\n'))
}

// encoderOf writes one message of a format.
func encoderOf(format string) (func([]byte, *api.Event) ([]byte, error), error) {
	switch format {
	case "ocsf":
		return func(b []byte, e *api.Event) ([]byte, error) {
			b, err := evidence.AppendOCSF(b, e)
			return bytes.TrimSuffix(b, []byte("\n")), err
		}, nil
	case "syslog":
		return func(b []byte, e *api.Event) ([]byte, error) { return evidence.AppendSyslog(b, e), nil }, nil
	}
	return nil, usagef("--format %q: want bundle, ocsf or syslog", format)
}

// sinkOf opens where the events go.
func (a *app) sinkOf(o shipOptions, file string) (sink, func(), error) {
	nothing := func() {}
	switch {
	case o.to != "" && file != "":
		return nil, nil, usagef("-o and --to: only one of them")
	case o.to != "":
		t, err := newTLSSink(o)
		return t, nothing, err
	case file == "":
		return lines{w: a.out, sync: func() error { return nil }}, nothing, nil
	}
	f, err := appendTo(file)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", file, err)
	}
	return lines{w: f, sync: f.Sync}, func() { f.Close() }, nil
}

// appendTo opens a file at its end, behind a whole line: a crash may have left
// half of one, which is sent again.
func appendTo(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end > 0 {
		var last [1]byte
		if _, err = f.ReadAt(last[:], end-1); err == nil && last[0] != '\n' {
			_, err = f.WriteString("\n")
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lines are messages one a line.
type lines struct {
	w    io.Writer
	sync func() error
}

func (l lines) deliver(_ context.Context, messages [][]byte) error {
	if _, err := l.w.Write(append(bytes.Join(messages, []byte("\n")), '\n')); err != nil {
		return fmt.Errorf("write the events: %w", err)
	}
	return l.sync()
}

// tlsSink is a syslog receiver of RFC 5425: messages with their length before
// them, over TLS. That protocol has no receipts but one: whoever has read the
// end of the stream answers it with their own (4.4). So each batch is a
// connection of its own, and counts once the receiver has closed its side.
type tlsSink struct {
	address string
	config  *tls.Config
}

func newTLSSink(o shipOptions) (*tlsSink, error) {
	u, err := url.Parse(o.to)
	if err != nil || u.Scheme != "tls" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return nil, usagef("--to %q: want tls://host:port", o.to)
	}
	port := u.Port()
	if port == "" {
		port = syslogPort
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname(), ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	if o.ca != "" {
		b, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, fmt.Errorf("read the receiver's authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("read the receiver's authority: %s holds no certificate", o.ca)
		}
	}
	if o.cert != "" || o.key != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fmt.Errorf("read the certificate to show to the receiver: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return &tlsSink{address: net.JoinHostPort(u.Hostname(), port), config: c}, nil
}

func (s *tlsSink) deliver(ctx context.Context, messages [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, shipWait)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("reach the receiver: %w", err)
	}
	end := &endTeller{Conn: raw}
	conn := tls.Client(end, s.config)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("reach the receiver: %w", err)
	}
	var b []byte
	for _, m := range messages {
		b = append(fmt.Appendf(b, "%d ", len(m)), m...)
	}
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("send to the receiver: %w", err)
	}
	if err := conn.CloseWrite(); err != nil {
		return fmt.Errorf("end the stream to the receiver: %w", err)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(conn, 1<<20)); err != nil {
		return fmt.Errorf("the receiver did not say that it read everything: %w", err)
	}
	if end.cut {
		return errors.New("the receiver did not say that it read everything: the connection ended without its close_notify")
	}
	return nil
}

// endTeller notices that a connection ended below TLS: anyone on the way can do
// that, so it says nothing about what the receiver has read.
type endTeller struct {
	net.Conn
	cut bool
}

func (e *endTeller) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	e.cut = e.cut || errors.Is(err, io.EOF)
	return n, err
}
