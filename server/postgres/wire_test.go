package postgres

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/session"
	"github.com/hoopctl/hoopctl/server/session/sessiontest"
)

// wire is a client that sends what it is told, message by message.
type wire struct {
	t    testing.TB
	conn net.Conn
	f    *pgproto3.Frontend
	pid  uint32
	key  []byte
}

// wire logs in with pgconn and takes the connection over.
func (h *house) wire(params ...string) *wire {
	h.t.Helper()
	pg := h.connect(params...)
	taken, err := pg.Hijack()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { taken.Conn.Close() })
	taken.Conn.SetDeadline(time.Now().Add(time.Minute))
	return &wire{t: h.t, conn: taken.Conn, f: pgproto3.NewFrontend(taken.Conn, taken.Conn), pid: taken.PID, key: taken.SecretKey}
}

func (w *wire) send(messages ...pgproto3.FrontendMessage) {
	w.t.Helper()
	for _, m := range messages {
		w.f.Send(m)
	}
	if err := w.f.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

// until reads up to a message of that kind and returns what came, one short
// word a message.
func (w *wire) until(kind string) []string {
	w.t.Helper()
	var got []string
	for {
		m, err := w.f.Receive()
		if err != nil {
			w.t.Fatalf("after %q: %v", got, err)
		}
		word := word(m)
		got = append(got, word)
		if strings.HasPrefix(word, kind) {
			return got
		}
	}
}

func word(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.ReadyForQuery:
		return "Z" + string(m.TxStatus)
	case *pgproto3.ErrorResponse:
		return "E" + m.Code
	case *pgproto3.NoticeResponse:
		return "N" + m.Code
	case *pgproto3.CommandComplete:
		return "C:" + string(m.CommandTag)
	case *pgproto3.DataRow:
		var cells []string
		for _, v := range m.Values {
			cells = append(cells, string(v))
		}
		return "D:" + strings.Join(cells, ",")
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.RowDescription:
		return "T"
	case *pgproto3.ParameterDescription:
		return "t"
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.CopyInResponse:
		return "G"
	case *pgproto3.CopyOutResponse:
		return "H"
	case *pgproto3.CopyData:
		return "d:" + string(m.Data)
	case *pgproto3.CopyDone:
		return "c"
	case *pgproto3.ParameterStatus:
		return "S:" + m.Name + "=" + m.Value
	case *pgproto3.NotificationResponse:
		return "A:" + m.Channel + "=" + m.Payload
	}
	return fmt.Sprintf("%T", m)
}

func (w *wire) expect(kind string, want ...string) {
	w.t.Helper()
	got := w.until(kind)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("got  %q\nwant %q", got, want)
	}
}

// closed reads until the server closes, and returns what came.
func (w *wire) closed() []string {
	w.t.Helper()
	var got []string
	for {
		m, err := w.f.Receive()
		if err != nil {
			return got
		}
		got = append(got, word(m))
	}
}

func query(sql string) *pgproto3.Query { return &pgproto3.Query{String: sql} }

func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }

func bind(portal, name string, params ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
	for _, p := range params {
		b.Parameters = append(b.Parameters, []byte(p))
	}
	return b
}

func execute(portal string, rows uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

var syncMessage = &pgproto3.Sync{}

// denying refuses statements that contain a word.
func denying(word string) func(policy.Statement) *session.Refusal {
	return func(s policy.Statement) *session.Refusal {
		if strings.Contains(s.Text[s.Start:s.End], word) {
			return &session.Refusal{Code: session.CodePolicy, Message: "refused by policy", Hint: "ask", Rules: []string{"no-" + word}}
		}
		return nil
	}
}

func TestExtendedProtocolAsPostgresSpeaksIt(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	w.send(parse("a", "SELECT 1"), parse("a", "SELECT 2"), syncMessage)
	w.expect("Z", "1", "E42P05", "ZI")
	w.send(bind("", "a"), execute("", 0), syncMessage)
	w.expect("Z", "2", "D:1", "C:SELECT 1", "ZI")
	w.send(bind("", "none"), execute("", 0), syncMessage)
	w.expect("Z", "E26000", "ZI")
	w.send(execute("none", 0), syncMessage)
	w.expect("Z", "E34000", "ZI")
	w.send(&pgproto3.Describe{ObjectType: 'S', Name: "a"}, &pgproto3.Close{ObjectType: 'S', Name: "a"}, parse("a", "SELECT $1::int"), &pgproto3.Describe{ObjectType: 'S', Name: "a"}, syncMessage)
	w.expect("Z", "t", "T", "3", "1", "t", "T", "ZI")
	w.send(parse("", ""), bind("", ""), &pgproto3.Describe{ObjectType: 'P'}, execute("", 0), syncMessage)
	w.expect("Z", "1", "2", "n", "I", "ZI")
	w.send(query(" -- only a comment"))
	w.expect("Z", "I", "ZI")
	w.send(query("SELECT 1; SELECT 2, 3; SET work_mem = '5MB'"))
	w.expect("Z", "T", "D:1", "C:SELECT 1", "T", "D:2,3", "C:SELECT 1", "C:SET", "ZI")
	w.send(query("SELECT 1; SELECT 1/0; SELECT 2"))
	w.expect("Z", "T", "D:1", "C:SELECT 1", "E22012", "ZI")
	w.send(query("BEGIN"))
	w.expect("Z", "C:BEGIN", "ZT")
	w.send(parse("", "SELECT generate_series(1,5)"), bind("p", ""), execute("p", 2), syncMessage)
	w.expect("Z", "1", "2", "D:1", "D:2", "s", "ZT")
	w.send(execute("p", 2), execute("p", 2), syncMessage)
	w.expect("Z", "D:3", "D:4", "s", "D:5", "C:SELECT 1", "ZT")
	w.send(query("SELECT nonsense"))
	w.expect("Z", "E42703", "ZE")
	w.send(query("SELECT 1"))
	w.expect("Z", "E25P02", "ZE")
	w.send(query("ROLLBACK"))
	w.expect("Z", "C:ROLLBACK", "ZI")
	w.send(execute("p", 0), syncMessage)
	w.expect("Z", "E34000", "ZI")
}

func TestPipelines(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	w.send(parse("", "SELECT 1"), bind("", ""), execute("", 0), syncMessage, parse("", "SELECT 2"), bind("", ""), execute("", 0), syncMessage, query("SELECT 3"), query("SELECT 4"))
	w.expect("Z", "1", "2", "D:1", "C:SELECT 1", "ZI")
	w.expect("Z", "1", "2", "D:2", "C:SELECT 1", "ZI")
	w.expect("Z", "T", "D:3", "C:SELECT 1", "ZI")
	w.expect("Z", "T", "D:4", "C:SELECT 1", "ZI")
	w.send(parse("", "SELECT 1"), bind("", ""), execute("", 0), &pgproto3.Flush{})
	w.expect("C", "1", "2", "D:1", "C:SELECT 1")
	w.send(parse("", "SELECT 1/0"), bind("", ""), execute("", 0), parse("", "SELECT 5"), bind("", ""), execute("", 0), query("SELECT 6"), syncMessage)
	w.expect("Z", "1", "E22012", "ZI")
	w.send(query("SELECT 7"))
	w.expect("Z", "T", "D:7", "C:SELECT 1", "ZI")
}

// A refusal in the midst of a pipeline undoes what ran before it since the last
// Sync, as an error of PostgreSQL does, and skips to the Sync.
func TestT30_RefusalInAPipeline(t *testing.T) {
	gate := &sessiontest.Gate{Deny: denying("forbidden")}
	h := newHouse(t, gate)
	db := h.target.server.Database(t, "CREATE TABLE t (a text)")
	h.target.info.Database = db
	w := h.wire()
	w.send(parse("", "INSERT INTO t VALUES ('undone')"), bind("", ""), execute("", 0), parse("", "SELECT 'forbidden'"), bind("", ""), execute("", 0),
		parse("", "INSERT INTO t VALUES ('skipped')"), bind("", ""), execute("", 0), syncMessage, query("SELECT count(*) FROM t"))
	w.expect("Z", "1", "2", "C:INSERT 0 1", "E42501", "ZI")
	w.expect("Z", "T", "D:0", "C:SELECT 1", "ZI")
	w.send(parse("", "SELECT 1"), parse("", "SELECT 'forbidden'"), &pgproto3.Flush{})
	w.expect("E", "1", "E42501")
	w.send(query("SELECT 'not run'"), syncMessage)
	w.expect("Z", "ZI")
	// one denied statement of a text: none of it runs
	w.send(query("INSERT INTO t VALUES ('x'); SELECT 'forbidden'"))
	w.expect("Z", "E42501", "ZI")
	// Query in a segment without Sync
	w.send(parse("", "INSERT INTO t VALUES ('undone')"), bind("", ""), execute("", 0), query("SELECT 'forbidden'"))
	w.expect("Z", "1", "2", "C:INSERT 0 1", "E42501", "ZI")
	w.send(query("SELECT count(*) FROM t"))
	w.expect("Z", "T", "D:0", "C:SELECT 1", "ZI")
	// in a transaction, nothing was sent: the transaction stands
	w.send(query("BEGIN"), query("INSERT INTO t VALUES ('kept')"), query("SELECT 'forbidden'"), query("COMMIT"), query("SELECT count(*) FROM t"))
	w.expect("Z", "C:BEGIN", "ZT")
	w.expect("Z", "C:INSERT 0 1", "ZT")
	w.expect("Z", "E42501", "ZT")
	w.expect("Z", "C:COMMIT", "ZI")
	w.expect("Z", "T", "D:1", "C:SELECT 1", "ZI")
	if log := h.target.server.Log(t); strings.Contains(log, "forbidden") {
		t.Error("the target received a refused statement")
	}
}

// PostgreSQL keeps the old unnamed statement where it skips a Parse. Who is
// judged by the text that was skipped must not run the old one.
func TestT30_SkippedParseDoesNotRename(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(parse("", "SELECT 'old'"), syncMessage)
	w.expect("Z", "1", "ZI")
	w.send(parse("x", "SELECT 1/0"), bind("", "x"), execute("", 0), parse("", "SELECT 'new'"), syncMessage, bind("", ""), execute("", 0), syncMessage)
	w.expect("Z", "1", "E22012", "ZI")
	w.expect("Z", "2", "D:old", "C:SELECT 1", "ZI")
	var last string
	for _, e := range gate.Events() {
		if e.What == "admit" {
			last = e.Statement
		}
	}
	if last != "SELECT 'old'" {
		t.Errorf("the target ran what was admitted as %q", last)
	}
}

// SQL can take names away and give them again behind the protocol's back.
func TestT33_PreparedNamesFollowSQL(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(parse("s", "SELECT 'protocol'"), syncMessage)
	w.expect("Z", "1", "ZI")
	w.send(query("DEALLOCATE s"), query("PREPARE s AS SELECT 'sql'"), bind("", "s"), execute("", 0), syncMessage)
	w.expect("Z", "C:DEALLOCATE", "ZI")
	w.expect("Z", "C:PREPARE", "ZI")
	w.expect("Z", "E26000", "ZI")
	w.send(query("EXECUTE s"))
	w.expect("Z", "T", "D:sql", "C:SELECT 1", "ZI")
	w.send(query("DISCARD ALL"), parse("s", "SELECT 'again'"), bind("", "s"), execute("", 0), syncMessage)
	w.expect("Z", "C:DISCARD ALL", "ZI")
	w.expect("Z", "1", "2", "D:again", "C:SELECT 1", "ZI")
}

func TestT34_MessagesThatAreNotSpoken(t *testing.T) {
	h := newHouse(t, nil)
	w := h.wire()
	w.send(&pgproto3.FunctionCall{Function: 1})
	w.expect("Z", "E42501", "ZI")
	w.send(query("SELECT 1"))
	w.expect("Z", "T", "D:1", "C:SELECT 1", "ZI")
	for _, kind := range []byte{'p', 'W', 0, 0xff, 'Z', 'K'} {
		w := h.wire()
		w.conn.Write([]byte{kind, 0, 0, 0, 4})
		if got := w.closed(); len(got) != 1 || got[0] != "E08P01" {
			t.Errorf("message %q: %q", kind, got)
		}
	}
}

func TestAsidesKeepTheirPlace(t *testing.T) {
	gate := &sessiontest.Gate{}
	h := newHouse(t, gate)
	w := h.wire()
	w.send(query("SET application_name = 'mine'"))
	w.expect("Z", "C:SET", "S:application_name=mine", "ZI")
	w.send(query("DO $$ BEGIN RAISE NOTICE 'one'; END $$; SELECT 2"))
	w.expect("Z", "N00000", "C:DO", "T", "D:2", "C:SELECT 1", "ZI")
	w.send(query("LISTEN ch"))
	w.expect("Z", "C:LISTEN", "ZI")
	w.send(query("NOTIFY ch, 'payload'"))
	w.expect("Z", "C:NOTIFY", "A:ch=payload", "ZI")
	h.target.server.Exec(t, h.target.info.Database, "NOTIFY ch, 'later'")
	w.expect("A", "A:ch=later")
	kinds := ""
	for _, e := range gate.Events() {
		if e.What == "aside" {
			kinds += e.Kind + " "
		}
	}
	if kinds != "parameter notice notification notification " {
		t.Errorf("asides recorded: %s", kinds)
	}
}

func TestCopy(t *testing.T) {
	gate := &sessiontest.Gate{Deny: denying("forbidden"), Strict: true}
	h := newHouse(t, gate)
	h.target.info.Database = h.target.server.Database(t, "CREATE TABLE t (a int, b text)")
	pg := h.connect()
	tag, err := pg.CopyFrom(t.Context(), strings.NewReader("1\tone\n2\ttwo\n"), "COPY t FROM STDIN")
	if err != nil || tag.String() != "COPY 2" {
		t.Fatal(tag, err)
	}
	var out strings.Builder
	if _, err = pg.CopyTo(t.Context(), &out, "COPY t TO STDOUT"); err != nil || out.String() != "1\tone\n2\ttwo\n" {
		t.Fatal(out.String(), err)
	}
	if _, err = pg.CopyFrom(t.Context(), strings.NewReader("not a number\tx\n"), "COPY t FROM STDIN"); pgErrorOf(t, err).Code != "22P02" {
		t.Error(err)
	}
	if _, err := pg.CopyFrom(t.Context(), strings.NewReader("1\tx\n"), "COPY t FROM STDIN WITH (DELIMITER '\t') -- forbidden\nWHERE b <> 'forbidden'"); pgErrorOf(t, err).Code != "42501" {
		t.Error(err)
	}
	// a large upload goes through in pieces
	big := strings.Repeat("3\t"+strings.Repeat("x", 100_000)+"\n", 50)
	if tag, err := pg.CopyFrom(t.Context(), strings.NewReader(big), "COPY t FROM STDIN"); err != nil || tag.String() != "COPY 50" {
		t.Fatal(tag, err)
	}
	var uploaded int
	for _, e := range gate.Events() {
		if e.What == "record" && e.Dir == session.FromClient {
			uploaded += len(e.Bytes)
		}
		if e.What == "done twice" {
			t.Error("closed twice:", e.Statement)
		}
	}
	if uploaded < len(big) {
		t.Errorf("%d bytes of uploads recorded", uploaded)
	}
	w := h.wire()
	w.send(query("COPY t FROM STDIN; SELECT 8"), &pgproto3.CopyData{Data: []byte("9\tnine\n")}, &pgproto3.CopyDone{}, query("SELECT 9"))
	w.expect("Z", "G", "C:COPY 1", "T", "D:8", "C:SELECT 1", "ZI")
	w.expect("Z", "T", "D:9", "C:SELECT 1", "ZI")
	// after a refusal the client's data is swallowed, also where it reads like messages
	w.send(query("COPY t FROM STDIN WHERE b = 'forbidden'"), &pgproto3.CopyData{Data: []byte("Q\x00\x00\x00\x0dDROP x\x00")}, &pgproto3.CopyDone{}, query("SELECT 10"))
	w.expect("Z", "E42501", "ZI")
	w.expect("Z", "T", "D:10", "C:SELECT 1", "ZI")
	w.send(query("COPY t FROM STDIN"))
	w.expect("G", "G")
	w.send(&pgproto3.CopyData{Data: []byte("1\tx\n")}, &pgproto3.CopyFail{Message: "changed my mind"})
	w.expect("Z", "E57014", "ZI")
	w.send(parse("", "COPY t FROM STDIN"), bind("", ""), execute("", 0), syncMessage, &pgproto3.CopyData{Data: []byte("1\tx\n")}, &pgproto3.CopyDone{}, syncMessage)
	w.expect("Z", "1", "2", "G", "C:COPY 1", "ZI")
	w.send(query("SELECT 11"))
	w.expect("Z", "T", "D:11", "C:SELECT 1", "ZI")
}

func TestLargeValues(t *testing.T) {
	h := newHouse(t, nil)
	pg := h.connect()
	results := pg.ExecParams(t.Context(), "SELECT repeat('x', 40000000), $1::text", [][]byte{[]byte(strings.Repeat("y", 5_000_000))}, nil, nil, nil).Read()
	if results.Err != nil || len(results.Rows) != 1 || len(results.Rows[0][0]) != 40_000_000 || len(results.Rows[0][1]) != 5_000_000 {
		t.Fatal(results.Err)
	}
	if results := pg.ExecParams(t.Context(), "SELECT $1::text", [][]byte{[]byte(strings.Repeat("y", maxHeld+1))}, nil, nil, nil).Read(); pgErrorOf(t, results.Err).Code != "54000" {
		t.Error(results.Err)
	}
	if results, err := pg.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil || string(results[0].Rows[0][0]) != "1" {
		t.Error(err)
	}
}
