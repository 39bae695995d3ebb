package postgres

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// script reads testdata/wire: one message a line (Query TEXT, Parse NAME TEXT,
// Bind PORTAL NAME [params], DescribeS, DescribeP, Execute PORTAL ROWS, CloseS,
// CloseP, Flush, Sync, CopyData TEXT, CopyDone, CopyFail TEXT), "-" is the
// empty name; "wait N" awaits N ReadyForQuery.
func script(t *testing.T, path string) [][]string {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines [][]string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			lines = append(lines, strings.Fields(line))
		}
	}
	return lines
}

func scripted(t *testing.T, words []string) pgproto3.FrontendMessage {
	name := func(i int) string {
		if words[i] == "-" {
			return ""
		}
		return words[i]
	}
	rest := func(i int) string { return strings.Join(words[min(i, len(words)):], " ") }
	switch words[0] {
	case "Query":
		return query(rest(1))
	case "Parse":
		return parse(name(1), rest(2))
	case "Bind":
		return bind(name(1), name(2), words[3:]...)
	case "BindBinary":
		b := bind(name(1), name(2), words[3:]...)
		b.ResultFormatCodes = []int16{1}
		return b
	case "DescribeS":
		return &pgproto3.Describe{ObjectType: 'S', Name: name(1)}
	case "DescribeP":
		return &pgproto3.Describe{ObjectType: 'P', Name: name(1)}
	case "Execute":
		var rows uint32
		fmt.Sscan(words[2], &rows)
		return execute(name(1), rows)
	case "CloseS":
		return &pgproto3.Close{ObjectType: 'S', Name: name(1)}
	case "CloseP":
		return &pgproto3.Close{ObjectType: 'P', Name: name(1)}
	case "Flush":
		return &pgproto3.Flush{}
	case "Sync":
		return syncMessage
	case "CopyData":
		return &pgproto3.CopyData{Data: []byte(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(rest(1)))}
	case "CopyDone":
		return &pgproto3.CopyDone{}
	case "CopyFail":
		return &pgproto3.CopyFail{Message: rest(1)}
	}
	t.Fatalf("no message %q", words)
	return nil
}

// play sends a script and returns every byte of the answers.
func play(t *testing.T, conn net.Conn, lines [][]string) []byte {
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	var out bytes.Buffer
	var pending []byte
	for _, words := range lines {
		if words[0] != "wait" {
			b, err := scripted(t, words).Encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			pending = append(pending, b...)
			continue
		}
		if _, err := conn.Write(pending); err != nil {
			t.Fatal(err)
		}
		pending = nil
		var n int
		fmt.Sscan(words[1], &n)
		for n > 0 {
			head := make([]byte, 5)
			if _, err := io.ReadFull(conn, head); err != nil {
				t.Fatalf("after %q: %v", out.Bytes()[max(0, out.Len()-200):], err)
			}
			body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
			if _, err := io.ReadFull(conn, body); err != nil {
				t.Fatal(err)
			}
			out.Write(head)
			out.Write(body)
			if head[0] == 'Z' {
				n--
			}
		}
	}
	return out.Bytes()
}

// Whatever policy lets through, a client gets byte for byte what PostgreSQL
// would have told it.
func TestSameBytesAsDirect(t *testing.T) {
	scripts, err := filepath.Glob("../../testdata/wire/*.wire")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			lines := script(t, path)
			h := newHouse(t, nil)
			// one table for both: its OID is in the answers
			db := h.target.server.Database(t, "CREATE TABLE t (a int PRIMARY KEY, b text)")
			h.target.info.Database = db
			answer := func(url string) []byte {
				h.target.server.Exec(t, db, "TRUNCATE t; INSERT INTO t VALUES (1, 'one'), (2, NULL)")
				pg, err := pgconn.Connect(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				taken, err := pg.Hijack()
				if err != nil {
					t.Fatal(err)
				}
				defer taken.Conn.Close()
				return play(t, taken.Conn, lines)
			}
			direct, through := answer(h.target.server.DatabaseURL(db)), answer(h.url())
			for i := range min(len(direct), len(through)) {
				if direct[i] != through[i] {
					t.Fatalf("from byte %d\ndirect           %.300q\nthrough the room %.300q", i, direct[max(0, i-30):], through[max(0, i-30):])
				}
			}
			if len(direct) != len(through) {
				t.Errorf("%d bytes, directly %d", len(through), len(direct))
			}
		})
	}
}
