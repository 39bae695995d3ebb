//go:build linux

package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// client takes what a server sends and looks at no more of it than where its
// messages begin: psql and drivers would be the slowest part of a bulk read.
type client struct {
	net.Conn
	in *bufio.Reader
}

// answer is what came of a query.
type answer struct {
	bytes int64
	rows  int64 // DataRow and CopyData messages
	first []byte
}

const (
	protocol3  = 3 << 16
	sslRequest = 80877103
)

// dial opens a session: with TLS if asked (the certificate is not verified:
// nothing here is secret), by SCRAM-SHA-256 if the server asks for it.
func dial(port int, user, password, database string, secure bool) (*client, error) {
	conn, err := net.DialTimeout("tcp", address(port), 5*time.Second)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	if secure {
		if conn, err = startTLS(conn); err != nil {
			return nil, err
		}
	}
	c := &client{Conn: conn, in: bufio.NewReaderSize(conn, 256<<10)}
	b := binary.BigEndian.AppendUint32(make([]byte, 4), protocol3)
	for _, s := range []string{"user", user, "database", database, ""} {
		b = append(append(b, s...), 0)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	if _, err := c.Write(b); err != nil {
		c.Close()
		return nil, err
	}
	if err := c.login(password); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func startTLS(conn net.Conn) (net.Conn, error) {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], 8)
	binary.BigEndian.PutUint32(b[4:], sslRequest)
	if _, err := conn.Write(b[:]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, b[:1]); err != nil {
		return nil, err
	}
	if b[0] != 'S' {
		return nil, errors.New("no TLS")
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), nil
}

func (c *client) message() (kind byte, body []byte, err error) {
	kind, size, err := c.header()
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, size)
	_, err = io.ReadFull(c.in, body)
	return kind, body, err
}

func (c *client) header() (kind byte, size int, err error) {
	head, err := c.in.Peek(5)
	if err != nil {
		return 0, 0, err
	}
	kind, size = head[0], int(binary.BigEndian.Uint32(head[1:]))-4
	_, err = c.in.Discard(5)
	return kind, size, err
}

func (c *client) send(kind byte, body []byte) error {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	_, err := c.Write(append(b, body...))
	return err
}

func (c *client) login(password string) error {
	var s scram
	for {
		kind, body, err := c.message()
		if err != nil {
			return err
		}
		switch kind {
		case 'R':
			reply, initial, err := s.answer(body, password)
			if err != nil {
				return err
			}
			if reply == nil {
				continue
			}
			if initial {
				b := append([]byte("SCRAM-SHA-256\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(reply)))...)
				reply = append(b, reply...)
			}
			if err := c.send('p', reply); err != nil {
				return err
			}
		case 'E':
			return serverError(body)
		case 'Z':
			return nil
		}
	}
}

// scram is the client's half of SCRAM-SHA-256 (RFC 5802, RFC 7677).
type scram struct{ nonce, bare string }

// answer returns what is said to an authentication request, nil if nothing.
func (s *scram) answer(body []byte, password string) (reply []byte, initial bool, err error) {
	switch code := binary.BigEndian.Uint32(body); code {
	case 0, 12:
		return nil, false, nil
	case 10:
		s.nonce = rand.Text()
		s.bare = "n=,r=" + s.nonce
		return []byte("n,," + s.bare), true, nil
	case 11:
		reply, err = s.final(string(body[4:]), password)
		return reply, false, err
	default:
		return nil, false, fmt.Errorf("authentication request %d", code)
	}
}

func (s *scram) final(first, password string) ([]byte, error) {
	fields := map[string]string{}
	for _, f := range strings.Split(first, ",") {
		k, v, _ := strings.Cut(f, "=")
		fields[k] = v
	}
	salt, err := base64.StdEncoding.DecodeString(fields["s"])
	if err != nil {
		return nil, err
	}
	rounds, err := strconv.Atoi(fields["i"])
	if err != nil {
		return nil, err
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return nil, err
	}
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	last := "c=biws,r=" + fields["r"]
	proof := mac(stored[:], s.bare+","+first+","+last)
	for i := range proof {
		proof[i] ^= key[i]
	}
	return []byte(last + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func serverError(body []byte) error {
	for _, f := range strings.Split(string(body), "\x00") {
		if strings.HasPrefix(f, "M") {
			return errors.New(f[1:])
		}
	}
	return errors.New("the server reports an error")
}

// query runs one statement and counts what comes.
func (c *client) query(sql string) (answer, error) {
	var a answer
	c.SetDeadline(time.Now().Add(time.Minute))
	if err := c.send('Q', append([]byte(sql), 0)); err != nil {
		return a, err
	}
	var failed error
	for {
		kind, size, err := c.header()
		if err != nil {
			return a, err
		}
		a.bytes += int64(size) + 5
		switch {
		case kind == 'D' && a.rows == 0, kind == 'E':
			body := make([]byte, size)
			if _, err := io.ReadFull(c.in, body); err != nil {
				return a, err
			}
			if kind == 'E' {
				failed = serverError(body)
			} else {
				a.first = body
				a.rows++
			}
			continue
		case kind == 'D' || kind == 'd':
			a.rows++
		}
		if _, err := c.in.Discard(size); err != nil {
			return a, err
		}
		if kind == 'Z' {
			return a, failed
		}
	}
}

// value is the first column of the first row.
func (c *client) value(sql string) (string, error) {
	a, err := c.query(sql)
	if err != nil {
		return "", err
	}
	if len(a.first) < 6 {
		return "", errors.New("no row")
	}
	n := int(binary.BigEndian.Uint32(a.first[2:]))
	if n < 0 || 6+n > len(a.first) {
		return "", errors.New("no value")
	}
	return string(a.first[6 : 6+n]), nil
}
