package tunnel

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/server/api"
)

// configs are a server's TLS configuration and a client's that trusts it.
func configs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{Protocol, "h2", "http/1.1"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// serve accepts connections on loopback and hands each, with TLS around it but
// no handshake made, to handle.
func serve(t testing.TB, config *tls.Config, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(tls.Server(c, config))
		}
	}()
	return l.Addr().String()
}

var hello = Hello{Grant: "g-12", Forward: "0123456789abcdef", Verifier: "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5"}

func TestBothHalves(t *testing.T) {
	server, client := configs(t)
	got := make(chan Hello, 1)
	addr := serve(t, server, func(c net.Conn) {
		defer c.Close()
		h, err := Accept(context.Background(), c)
		if err != nil {
			return
		}
		got <- h
		if Reply(c, nil) != nil {
			return
		}
		b, err := io.ReadAll(c) // ends with the client's half
		if err == nil {
			c.Write(bytes.ToUpper(b))
		}
	})
	c, err := Dial(t.Context(), addr, client, hello)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if h := <-got; h != hello {
		t.Errorf("the server read %+v", h)
	}
	if state := c.(*tls.Conn).ConnectionState(); state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != Protocol || state.DidResume {
		t.Errorf("%x %s", state.Version, state.NegotiatedProtocol)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := CloseWrite(c); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "HELLO" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestNoByteAfterALineIsSwallowed(t *testing.T) {
	server, client := configs(t)
	addr := serve(t, server, func(c net.Conn) {
		defer c.Close()
		if _, err := Accept(context.Background(), c); err != nil {
			return
		}
		rest := make([]byte, 5)
		if _, err := io.ReadFull(c, rest); err != nil {
			return
		}
		c.Write([]byte("{}\n" + string(rest) + " back")) // the answer and the first bytes in one record
	})
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	config := client.Clone()
	config.NextProtos = []string{Protocol}
	c := tls.Client(raw, config)
	defer c.Close()
	if _, err := c.Write([]byte(`{"grant":"g"}` + "\nearly")); err != nil {
		t.Fatal(err)
	}
	var answer reply
	if err := readLine(c, &answer); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "early back" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestRefusalsAreToldInWords(t *testing.T) {
	server, client := configs(t)
	want := &api.Error{Code: 403, Reason: api.ReasonDenied, Message: "no grant", Hint: "hoopctl request clinic", Source: "broker"}
	t.Run("before the header is read", func(t *testing.T) {
		addr := serve(t, server, func(c net.Conn) {
			c.(*tls.Conn).Handshake()
			Reply(c, want)
			c.Close()
		})
		_, err := Dial(t.Context(), addr, client, hello)
		var e *api.Error
		if !errors.As(err, &e) || *e != *want {
			t.Fatalf("%v", err)
		}
	})
	t.Run("however long", func(t *testing.T) {
		long := *want
		long.Message, long.Hint = strings.Repeat("\x01", 9000), strings.Repeat("é", 9000)
		addr := serve(t, server, func(c net.Conn) {
			defer c.Close()
			if _, err := Accept(context.Background(), c); err == nil {
				Reply(c, &long)
			}
		})
		_, err := Dial(t.Context(), addr, client, hello)
		var e *api.Error
		if !errors.As(err, &e) || e.Reason != api.ReasonDenied || e.Message == "" {
			t.Fatalf("%v", err)
		}
	})
}

func TestHostileHeaders(t *testing.T) {
	server, client := configs(t)
	for name, sent := range map[string]string{
		"no newline":         strings.Repeat("a", 3*MaxLine),
		"one byte too long":  `{"grant":"` + strings.Repeat("a", MaxLine) + "\"}\n",
		"not JSON":           "GET / HTTP/1.1\r\n\r\n",
		"a list":             "[]\n",
		"a wrong type":       `{"grant":7}` + "\n",
		"cut off":            `{"grant":"g-12"`,
		"empty":              "\n",
		"nothing":            "",
		"a NUL":              "\x00\n",
		"deep":               strings.Repeat("[", 2000) + "\n",
		"two values":         `{"grant":"a"}{"grant":"b"}` + "\n",
		"an unending string": `{"grant":"` + strings.Repeat("x", 100),
	} {
		t.Run(name, func(t *testing.T) {
			result := make(chan error, 1)
			addr := serve(t, server, func(c net.Conn) {
				defer c.Close()
				_, err := Accept(context.Background(), c)
				result <- err
			})
			config := client.Clone()
			config.NextProtos = []string{Protocol}
			c, err := tls.Dial("tcp", addr, config)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() {
				io.WriteString(c, sent)
				c.CloseWrite()
			}()
			if err := <-result; err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

func TestT13_APeerThatStallsCostsItself(t *testing.T) {
	server, client := configs(t)
	results := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	addr := serve(t, server, func(c net.Conn) {
		defer c.Close()
		_, err := Accept(ctx, c)
		if err == nil {
			err = Reply(c, nil)
		}
		results <- err
	})
	stalled, err := net.Dial("tcp", addr) // never says a word of TLS
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Close()
	config := client.Clone()
	config.NextProtos = []string{Protocol}
	silent, err := tls.Dial("tcp", addr, config) // never says hello
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good, err := Dial(t.Context(), addr, client, hello)
	if err != nil {
		t.Fatalf("T13 an honest client waits for stalled ones: %v", err)
	}
	good.Close()
	if err := <-results; err != nil {
		t.Fatal(err)
	}
	cancel() // as the server's end would
	for range 2 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("a stalled peer ended with %v", err)
		}
	}
}

func TestT13_AServerThatStallsCostsOnlyTheWait(t *testing.T) {
	server, client := configs(t)
	addr := serve(t, server, func(c net.Conn) {
		c.(*tls.Conn).Handshake()
		io.Copy(io.Discard, c) // reads, and never answers
		c.Close()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, addr, client, hello); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestOtherProtocolsAreRefused(t *testing.T) {
	server, client := configs(t)
	t.Run("a server without our ALPN name", func(t *testing.T) {
		config := server.Clone()
		config.NextProtos = []string{"h2"}
		addr := serve(t, config, func(c net.Conn) { c.(*tls.Conn).Handshake(); c.Close() })
		if _, err := Dial(t.Context(), addr, client, hello); err == nil {
			t.Fatal("connected")
		}
	})
	t.Run("a server without any ALPN", func(t *testing.T) {
		config := server.Clone()
		config.NextProtos = nil
		addr := serve(t, config, func(c net.Conn) { c.(*tls.Conn).Handshake(); io.Copy(io.Discard, c) })
		if _, err := Dial(t.Context(), addr, client, hello); err == nil || !strings.Contains(err.Error(), Protocol) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		config := server.Clone()
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		addr := serve(t, config, func(c net.Conn) { c.(*tls.Conn).Handshake(); c.Close() })
		if _, err := Dial(t.Context(), addr, client, hello); err == nil {
			t.Fatal("connected")
		}
	})
	t.Run("a server that is not vouched for", func(t *testing.T) {
		_, stranger := configs(t)
		addr := serve(t, server, func(c net.Conn) { c.(*tls.Conn).Handshake(); c.Close() })
		if _, err := Dial(t.Context(), addr, stranger, hello); err == nil {
			t.Fatal("connected")
		}
	})
}

func TestNoDeadlineIsLeftBehind(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go io.WriteString(b, `{"grant":"g"}`+"\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	if _, err := Accept(ctx, a); err != nil {
		t.Fatal(err)
	}
	cancel()
	go io.WriteString(b, "x")
	if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
		t.Fatalf("the end of the handshake's context cut the session: %v", err)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte(`{"grant":"g-12","forward":"0123456789abcdef","verifier":"SCRAM-SHA-256$4096:a$b:c"}` + "\nrest"))
	f.Add([]byte("\n"))
	f.Add(bytes.Repeat([]byte("a"), MaxLine+1))
	f.Add([]byte(`{"error":{"code":1}}` + "\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		var h Hello
		err := readLine(r, &h)
		line, _, whole := bytes.Cut(sent, []byte("\n"))
		if err == nil && (!whole || len(line) >= MaxLine) {
			t.Fatal("accepted a line that is not whole, or too long")
		}
		if read := len(sent) - r.Len(); err == nil && read != len(line)+1 || read > MaxLine {
			t.Fatalf("read %d bytes of a line of %d", read, len(line))
		}
	})
}
