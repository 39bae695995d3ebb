package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// hostileTarget is a program that speaks PostgreSQL as far as it has to, and
// then says what a test wants.
type hostileTarget struct {
	*testTarget
	// login, if set, is said in place of an honest authentication.
	login func(c net.Conn)
	// answer is said to each query of the client's.
	answer func(n int) []byte
	pid    string       // of the backend, as SQL tells it; "" is 7, as at log-in
	aside  atomic.Value // []byte, said before the answer to the room's own queries
}

func newHostileTarget(t *testing.T, answer func(n int) []byte) *hostileTarget {
	h := &hostileTarget{testTarget: &testTarget{}, answer: answer}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	h.info = session.TargetInfo{Name: "evil", Generation: "1", Addresses: []string{l.Addr().String()}, Database: "postgres", TLSMode: "disable"}
	h.testTarget.login = func(bool) (session.Credentials, error) {
		return session.Credentials{Username: "u", Password: "p"}, nil
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go h.serve(c)
		}
	}()
	return h
}

func message(kind byte, body ...byte) []byte {
	return setLength(append([]byte{kind, 0, 0, 0, 0}, body...), 0)
}

func (h *hostileTarget) serve(c net.Conn) {
	defer c.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	start := make([]byte, int(binary.BigEndian.Uint32(head))-4)
	if _, err := io.ReadFull(c, start); err != nil || binary.BigEndian.Uint32(start) == codeCancel {
		return
	}
	if h.login != nil {
		h.login(c)
		return
	}
	c.Write(bytes.Join([][]byte{message('R', 0, 0, 0, 0), keyMessage(nil, 7, []byte{1, 2, 3, 4}),
		message('S', []byte("standard_conforming_strings\x00on\x00")...), readyMessage(nil, 'I')}, nil))
	for n := 0; ; {
		frame := make([]byte, 5)
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		rest := make([]byte, binary.BigEndian.Uint32(frame[1:])-4)
		if _, err := io.ReadFull(c, rest); err != nil {
			return
		}
		switch {
		case frame[0] == 'X':
			return
		case strings.Contains(string(rest), "current_schemas"):
			aside, _ := h.aside.Load().([]byte)
			c.Write(append(bytes.Clone(aside), honestContext()...))
		case strings.Contains(string(rest), "pg_backend_pid"):
			c.Write(append(answerRow(cmp.Or(h.pid, "7")), readyMessage(nil, 'I')...))
		case frame[0] == 'Q', frame[0] == 'S', frame[0] == 'H':
			c.Write(h.answer(n))
			n++
		}
	}
}

// answerRow is a whole result of one row.
func answerRow(values ...string) []byte {
	description, row := []byte{0, byte(len(values))}, []byte{0, byte(len(values))}
	for _, v := range values {
		description = append(description, 'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0)
		row = append(append(row, 0, 0, 0, byte(len(v))), v...)
	}
	return bytes.Join([][]byte{message('T', description...), message('D', row...), message('C', []byte("SELECT 1\x00")...)}, nil)
}

// honestContext answers contextQuery: role u, database 5, schema public.
func honestContext() []byte {
	return bytes.Join([][]byte{answerRow("u", "5"), answerRow("public"), readyMessage(nil, 'I')}, nil)
}

func hostileHouse(t *testing.T, gate *sessiontest.Gate, answer func(n int) []byte) (*house, *hostileTarget) {
	h := newHouse(t, gate)
	evil := newHostileTarget(t, answer)
	h.target.info, h.target.login = evil.info, evil.testTarget.login
	return h, evil
}

func TestT07_HostileAnswers(t *testing.T) {
	ready := readyMessage(nil, 'I')
	description := message('T', 0, 1, 'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0)
	tagged := &sessiontest.Gate{Tagged: []policy.Tag{{Tag: "phi"}}}
	_ = tagged
	for name, c := range map[string]struct {
		answer []byte
		ends   bool
	}{
		"rows without a query's end":        {append(description, message('D', 0, 1, 0, 0, 0, 1, 'x')...), false},
		"an unknown message":                {message('%'), true},
		"replication":                       {message('W', 0, 0, 0), true},
		"authentication in mid-session":     {message('R', 0, 0, 0, 3), true},
		"a second key":                      {keyMessage(nil, 1, []byte{1, 2, 3, 4}), true},
		"length 0":                          {[]byte{'T', 0, 0, 0, 0}, true},
		"length beyond all":                 {[]byte{'D', 0xff, 0xff, 0xff, 0xff}, true},
		"a huge description":                {[]byte{'T', 0x3f, 0xff, 0xff, 0xff}, true},
		"a huge error":                      {[]byte{'E', 0x3f, 0xff, 0xff, 0xff}, true},
		"completion twice":                  {append(message('C', []byte("SELECT 0\x00")...), message('C', []byte("SELECT 0\x00")...)...), true},
		"completion without end":            {message('C', []byte("SELECT 0")...), true},
		"a status that is none":             {message('Z', 'X'), true},
		"a long status":                     {message('Z', 'I', 'I'), true},
		"bind complete to a query":          {message('2'), true},
		"copy in that nobody asked":         {message('G', 0, 0, 0), true},
		"copy out that nobody asked":        {message('H', 0, 0, 0), true},
		"copy data":                         {message('d', 'x'), true},
		"an empty query that is none":       {message('I'), true},
		"T08 an error without SQLSTATE":     {append(message('E', []byte("SERROR\x00Mx\x00\x00")...), ready...), false},
		"T08 an error without its end":      {message('E', []byte("SERROR\x00C42601\x00Mx\x00")...), true},
		"T08 an error without any":          {message('E'), true},
		"T08 an error of 10,000 fields":     {append(message('E', append(bytes.Repeat([]byte("Dx\x00"), 10_000), 0)...), ready...), true},
		"T08 a SQLSTATE of other letters":   {append(message('E', []byte("SERROR\x00C\xff\xff\xff\xff\xff\x00Mx\x00\x00")...), ready...), false},
		"a parameter without value":         {message('S', []byte("x\x00")...), true},
		"a notification without payload":    {message('A', 0, 0, 0, 1, 'x'), true},
		"ready that nobody waits for":       {append(append(message('C', []byte("SELECT 0\x00")...), ready...), ready...), true},
		"strings that are read differently": {append(message('S', []byte("standard_conforming_strings\x00off\x00")...), ready...), true},
		"an encoding that hides quotes":     {append(message('S', []byte("client_encoding\x00SJIS\x00")...), ready...), true},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := hostileHouse(t, nil, func(n int) []byte { return c.answer })
			w := h.wire()
			w.send(query("SELECT 1"))
			if !c.ends {
				w.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			}
			got := w.closed()
			if last := got[max(0, len(got)-1):]; c.ends && (len(last) == 0 || last[0] != "E08P01" && last[0] != "E42501") {
				t.Errorf("the client was told %q", got)
			}
			h.room.Protocol()
		})
	}
}

func TestT07_HostileRowsOnATargetWithTags(t *testing.T) {
	description := message('T', 0, 1, 'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0)
	secret := "D:123-45-6789"
	for name, row := range map[string][]byte{
		"field length -2":            message('D', 0, 1, 0xff, 0xff, 0xff, 0xfe),
		"field longer than the row":  message('D', 0, 1, 0, 0, 1, 0, 'x'),
		"more fields than described": message('D', append([]byte{0, 2, 0, 0, 0, 11}, "123-45-6789\x00\x00\x00\x01x"...)...),
		"fewer fields":               message('D', 0, 0),
		"bytes behind the fields":    message('D', append([]byte{0, 1, 0xff, 0xff, 0xff, 0xff}, "123-45-6789"...)...),
		"negative count":             message('D', 0xff, 0xff),
		"no count":                   message('D'),
	} {
		t.Run(name, func(t *testing.T) {
			gate := &sessiontest.Gate{Tagged: []policy.Tag{{Tag: "phi"}}, Hide: func(session.Column) session.ColumnPlan { return session.ColumnPlan{Rewrite: stars{}} }}
			h, _ := hostileHouse(t, gate, func(int) []byte { return append(append([]byte{}, description...), row...) })
			h.knowNothing()
			w := h.wire()
			w.send(query("SELECT 1"))
			for _, g := range w.closed() {
				if strings.Contains(g, secret) || strings.HasPrefix(g, "D:") {
					t.Errorf("shown: %q", g)
				}
			}
		})
	}
	t.Run("rows before any description", func(t *testing.T) {
		gate := &sessiontest.Gate{Tagged: []policy.Tag{{Tag: "phi"}}}
		h, _ := hostileHouse(t, gate, func(int) []byte {
			return message('D', append([]byte{0, 1, 0, 0, 0, 11}, "123-45-6789"...)...)
		})
		w := h.wire()
		w.send(query("SELECT 1"))
		for _, g := range w.closed() {
			if strings.HasPrefix(g, "D:") {
				t.Errorf("shown: %q", g)
			}
		}
	})
}

// knowNothing gives the room an empty catalogue of the target: no control
// connection is made.
func (h *house) knowNothing() {
	c := h.room.catalogs.of(h.target.info, h.target.info.Database)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.bound = &snapshot{read: time.Now(), version: 1, database: 5}, map[string]*classified{}
}

type stars struct{}

func (stars) Rewrite(dst, _ []byte) ([]byte, bool) { return append(dst, "***"...), false }

func TestT09_HostileLogin(t *testing.T) {
	for name, login := range map[string]func(net.Conn){
		"2^31 iterations": func(c net.Conn) {
			c.Write(message('R', append([]byte{0, 0, 0, 10}, "SCRAM-SHA-256\x00\x00"...)...))
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			_, nonce, _ := strings.Cut(string(b[:n]), "r=")
			c.Write(message('R', append([]byte{0, 0, 0, 11}, "r="+nonce+"x,s=c2FsdA==,i=2147483647"...)...))
			io.Copy(io.Discard, c)
		},
		"200,000 iterations in pieces": func(c net.Conn) {
			c.Write(message('R', append([]byte{0, 0, 0, 10}, "SCRAM-SHA-256\x00\x00"...)...))
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			_, nonce, _ := strings.Cut(string(b[:n]), "r=")
			for _, one := range message('R', append([]byte{0, 0, 0, 11}, "r="+nonce+"x,s=c2FsdA==,i=200000"...)...) {
				c.Write([]byte{one})
			}
			if b, _ := io.ReadAll(c); len(b) > 0 {
				t.Error("it counted to 200,000")
			}
		},
		"a nonce of 1 MiB": func(c net.Conn) {
			c.Write(message('R', append([]byte{0, 0, 0, 10}, "SCRAM-SHA-256\x00\x00"...)...))
			c.Read(make([]byte, 4096))
			c.Write(message('R', append([]byte{0, 0, 0, 11}, "r="+strings.Repeat("x", 1<<20)+",s=c2FsdA==,i=4096"...)...))
			io.Copy(io.Discard, c)
		},
		"a message of 1 GiB": func(c net.Conn) { c.Write([]byte{'S', 0x3f, 0xff, 0xff, 0xff}); io.Copy(io.Discard, c) },
		"a password in the clear, please": func(c net.Conn) {
			c.Write(message('R', 0, 0, 0, 3))
			b, _ := io.ReadAll(c)
			if len(b) > 0 {
				panic("the password was sent")
			}
		},
		"nothing":  func(c net.Conn) {},
		"an error": func(c net.Conn) { c.Write(message('E', []byte("SFATAL\x00C28000\x00Mgo to http://evil\x00\x00")...)) },
	} {
		t.Run(name, func(t *testing.T) {
			h, evil := hostileHouse(t, nil, nil)
			evil.login = login
			_, err := pgconn.Connect(t.Context(), h.url())
			pg := pgErrorOf(t, err)
			if pg.Code != "57P03" || strings.Contains(pg.Message+pg.Detail+pg.Hint, "evil\x00") || strings.Contains(pg.Message, "http://") {
				t.Errorf("told %+v", pg)
			}
		})
	}
}

func TestT02_T03_TargetBeforeTLS(t *testing.T) {
	for name, answer := range map[string]string{"T02 bytes before the handshake": "S" + string(message('R', 0, 0, 0, 0)) + string(readyMessage(nil, 'I')),
		"T03 no TLS": "N", "T03 an error in the clear": "E" + string(message('E', []byte("SFATAL\x00C28000\x00Mcall 555-0100\x00\x00")...))} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						io.CopyN(io.Discard, c, 8)
						io.WriteString(c, answer)
						b, _ := io.ReadAll(c)
						if bytes.Contains(b, []byte("user")) {
							panic("the start-up packet was sent in the clear")
						}
					}()
				}
			}()
			h.target.info.Addresses = []string{l.Addr().String()}
			for _, mode := range []string{"", "verify-full", "require"} {
				h.target.info.TLSMode = mode
				_, err := pgconn.Connect(t.Context(), h.url())
				if pg := pgErrorOf(t, err); pg.Code != "57P03" || strings.Contains(pg.Message+pg.Detail+pg.Hint, "555") {
					t.Errorf("mode %q: told %+v", mode, pg)
				}
			}
		})
	}
}

func TestT05_LargerThanAnyMessageMayBe(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	w := h.wire()
	// 20 MiB of a Bind that says 900 MiB: streamed away, not held; the peer gives up
	w.conn.Write(appendUint32([]byte{'B'}, 900<<20))
	chunk := make([]byte, 1<<20)
	for range 20 {
		if _, err := w.conn.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	w.conn.Close()
	<-h.ended
	for _, e := range gate.Events() {
		if e.What == "admit" {
			t.Errorf("admitted %q", e.Statement)
		}
	}
	if b := say(nil, &pgproto3Huge{}); b != nil {
		t.Error("a message over 1 GiB was encoded")
	}
}

type pgproto3Huge struct{}

func (*pgproto3Huge) Encode([]byte) ([]byte, error) { return nil, io.ErrShortBuffer }

// What the target says while it is busy with a query of ours: a notification
// is the client's, a notice is not.
func TestAsidesDuringAQueryOfOurs(t *testing.T) {
	h, evil := hostileHouse(t, nil, func(int) []byte {
		return append(answerRow("x"), readyMessage(nil, 'I')...)
	})
	var notices, notified []string
	config, err := pgconn.ParseConfig(h.url())
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { notified = append(notified, n.Payload) }
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	evil.aside.Store(bytes.Join([][]byte{message('N', []byte("SLOG\x00C00000\x00Mours\x00\x00")...), message('A', []byte("\x00\x00\x00\x09news\x00first\x00")...)}, nil))
	for range 2 { // SET makes the room read the session's names again, before the next
		for _, text := range []string{"SET search_path = a", "SELECT 1"} {
			if err := conn.Exec(t.Context(), text).Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(notices) != 0 || len(notified) == 0 || notified[0] != "first" {
		t.Errorf("notices %q, notifications %q", notices, notified)
	}
}
