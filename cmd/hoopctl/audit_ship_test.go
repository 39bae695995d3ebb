package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// manyEvents are a log that is read through the API.
type manyEvents []api.Event

func (m manyEvents) Events(_ context.Context, q api.EventQuery) ([]api.Event, error) {
	var out []api.Event
	for _, e := range m {
		if (q.After == 0 || e.Index > q.After) && len(out) < q.Limit {
			out = append(out, e)
		}
	}
	return out, nil
}

func logOf(n int) manyEvents {
	var m manyEvents
	for i := range n {
		m = append(m, api.Event{V: 1, Index: uint64(i), Node: "n1", Time: time.Unix(1700000000+int64(i), 0).UTC(), Kind: api.EventStatement, Session: "s-1", Statement: "select ?", Command: "SELECT"})
	}
	return m
}

// receiver is a syslog receiver of RFC 5425, which can be made to misbehave.
type receiver struct {
	t  *testing.T
	l  net.Listener
	mu sync.Mutex
	// got are the indexes of the messages in the order of their coming.
	got []uint64
	// breakAfter messages of a connection it drops it, once; 0: never.
	breakAfter int
	gotten     chan struct{}
}

func newReceiver(t *testing.T, address string) *receiver {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil) // for its certificate only
	srv.StartTLS()
	config := srv.TLS.Clone()
	srv.Close()
	l, err := tls.Listen("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, l: l, gotten: make(chan struct{}, 1)}
	go r.serve()
	t.Cleanup(func() { l.Close() })
	return r
}

func (r *receiver) serve() {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return
		}
		go r.read(c)
	}
}

// read reads frames of RFC 5425: MSG-LEN SP SYSLOG-MSG.
func (r *receiver) read(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for n := 1; ; n++ {
		digits, err := in.ReadString(' ')
		if errors.Is(err, io.EOF) {
			select {
			case r.gotten <- struct{}{}:
			default:
			}
			return
		}
		size, err := strconv.Atoi(strings.TrimSpace(digits))
		if err != nil {
			return // the sender went away before it spoke
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		_, body, ok := strings.Cut(string(message), "] ")
		var e api.Event
		if err := json.Unmarshal([]byte(body), &e); err != nil || !ok || !strings.HasPrefix(string(message), "<110>1 2023-") {
			r.t.Errorf("not a message: %s", message)
		}
		r.mu.Lock()
		r.got = append(r.got, e.Index)
		drop := r.breakAfter > 0 && n == r.breakAfter
		if drop {
			r.breakAfter = 0
		}
		r.mu.Unlock()
		if drop {
			c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0) // as if it had been killed
			c.(*tls.Conn).NetConn().Close()
			return
		}
	}
}

func (r *receiver) seen() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64(nil), r.got...)
}

func shipTo(t *testing.T, address string, m lister, path string) *shipper {
	t.Helper()
	s, err := newTLSSink(shipOptions{to: "tls://" + address})
	if err != nil {
		t.Fatal(err)
	}
	s.config.InsecureSkipVerify = true // the receiver's certificate is made for the test
	encode, err := encoderOf("syslog")
	if err != nil {
		t.Fatal(err)
	}
	at := cursor{path: path, Log: "k"}
	if err := at.load(); err != nil {
		t.Fatal(err)
	}
	return &shipper{warn: io.Discard, from: m, encode: encode, sink: s, at: at, pause: time.Millisecond}
}

// TestT76_SIEMDownAndRestarts: the receiver is away, dies in the middle of a
// batch, comes back; the exporter restarts in between. Nothing is missing, the
// first copies are in order, and copies carry the same id.
func TestT76_SIEMDownAndRestarts(t *testing.T) {
	const count = 2500
	path := filepath.Join(t.TempDir(), "cursor")
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := down.Addr().String()
	down.Close()
	ctx, cancel := context.WithCancel(t.Context())
	following := make(chan error, 1)
	go func() { following <- shipTo(t, address, logOf(count), path).run(ctx, true) }()
	if err := shipTo(t, address, logOf(count), filepath.Join(t.TempDir(), "other")).run(t.Context(), false); err == nil {
		t.Fatal("delivered to nobody")
	}
	r := newReceiver(t, address)
	r.mu.Lock()
	r.breakAfter = 300
	r.mu.Unlock()
	<-r.gotten // a batch came through, at last
	cancel()
	<-following
	// a new process goes on where the old one was
	if err := shipTo(t, address, logOf(count), path).run(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	next, copies := uint64(0), 0
	for _, index := range r.seen() {
		switch {
		case index == next:
			next++
		case index < next:
			copies++
		default:
			t.Fatalf("event %d came before event %d", index, next)
		}
	}
	if next != count || copies < 300 {
		t.Errorf("%d of %d events, %d copies", next, count, copies)
	}
	before := len(r.seen())
	if err := shipTo(t, address, logOf(count), path).run(t.Context(), false); err != nil || len(r.seen()) != before {
		t.Errorf("sent again what was delivered: %v", err)
	}
}

// TestT76_ReceiverThatDoesNotSayItRead: an end below TLS is no receipt.
func TestT76_ReceiverThatDoesNotSayItRead(t *testing.T) {
	r := newReceiver(t, "127.0.0.1:0")
	r.breakAfter = 10
	path := filepath.Join(t.TempDir(), "cursor")
	if err := shipTo(t, r.l.Addr().String(), logOf(10), path).run(t.Context(), false); err == nil {
		t.Error("an interrupted connection counts as delivery")
	}
	at := cursor{path: path, Log: "k"}
	if err := at.load(); err != nil || at.Next != 0 {
		t.Errorf("the cursor is at %d: %v", at.Next, err)
	}
}

// TestT76_MissingEvent: a hole in what the server shows is told, not skipped.
func TestT76_MissingEvent(t *testing.T) {
	m := logOf(20)
	m = append(m[:7:7], m[8:]...)
	var hole *missingError
	s := &shipper{warn: io.Discard, from: m, sink: lines{io.Discard, func() error { return nil }}, pause: time.Millisecond}
	s.encode, _ = encoderOf("ocsf")
	if err := s.run(t.Context(), true); !errors.As(err, &hole) || hole.want != 7 {
		t.Errorf("%v", err)
	}
	other := cursor{path: filepath.Join(t.TempDir(), "c"), Log: "k", Next: 5}
	if err := other.save(); err != nil {
		t.Fatal(err)
	}
	if err := (&cursor{path: other.path, Log: "another"}).load(); err == nil || !strings.Contains(err.Error(), "another log") {
		t.Errorf("the cursor of another log: %v", err)
	}
}

// TestT75_ExportedTextIsHarmless: what a statement or a name holds steers no
// terminal, and begins no line or message of its own.
func TestT75_ExportedTextIsHarmless(t *testing.T) {
	evil := "a\x1b]52;c;ZXZpbA==\x07\n<0>1 - - - - - -\u009b31m\u202egpj.exe\u2028</script>\x7f\U000e0041"
	e := api.Event{V: 1, Node: "n 1\n", Time: time.Unix(0, 0), Kind: "statement\n", Name: evil, Statement: evil, Session: evil, Reason: evil, Object: evil}
	for _, format := range []string{"ocsf", "syslog"} {
		encode, err := encoderOf(format)
		if err != nil {
			t.Fatal(err)
		}
		b, err := encode(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(string(b), unsafeRune) || strings.Contains(string(b), "\n") {
			t.Errorf("%s: %q", format, b)
		}
		_, body, _ := strings.Cut(string(b), "{")
		var back map[string]any
		if err := json.Unmarshal([]byte("{"+body), &back); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if !strings.Contains(fmt.Sprint(back), "gpj.exe") {
			t.Errorf("%s lost the text: %v", format, back)
		}
	}
}
