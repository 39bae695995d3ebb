//go:build linux

package main

import (
	"crypto/tls"
	"io"
	"net"
)

// relayBuffer is what the plain relay copies through, per direction: as much
// as hoopctl borrows while data flows.
const relayBuffer = 64 << 10

// relay is the least that a relay in Go can do: two copies. With a certificate
// (PEM files) it speaks TLS to both sides. The connections are hidden from
// io.CopyBuffer, or it would splice inside the kernel, which a relay that must
// look at what it carries cannot.
func relay(listen, target, certFile, keyFile string) error {
	var conf *tls.Config
	if certFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return err
		}
		conf = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serveRelay(c, target, conf)
		}()
	}
}

func serveRelay(c net.Conn, target string, conf *tls.Config) {
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer up.Close()
	if conf != nil {
		if c, err = answerTLS(c, conf); err != nil {
			return
		}
		if up, err = startTLS(up); err != nil {
			return
		}
	}
	go func() {
		io.CopyBuffer(struct{ io.Writer }{up}, struct{ io.Reader }{c}, make([]byte, relayBuffer))
		up.(interface{ CloseWrite() error }).CloseWrite()
	}()
	io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{up}, make([]byte, relayBuffer))
}

// answerTLS is the server's half of startTLS.
func answerTLS(c net.Conn, conf *tls.Config) (net.Conn, error) {
	var request [8]byte
	if _, err := io.ReadFull(c, request[:]); err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{'S'}); err != nil {
		return nil, err
	}
	return tls.Server(c, conf), nil
}
