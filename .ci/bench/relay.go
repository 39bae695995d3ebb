//go:build linux

package main

import (
	"io"
	"net"
)

// relayBuffer is what the plain relay copies through, per direction: as much
// as hoopctl borrows while data flows.
const relayBuffer = 64 << 10

// relay is the least that a relay in Go can do: two copies. The connections
// are hidden from io.CopyBuffer, or it would splice inside the kernel, which a
// relay that must look at what it carries cannot.
func relay(listen, target string) error {
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
			up, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer up.Close()
			go func() {
				io.CopyBuffer(struct{ io.Writer }{up}, struct{ io.Reader }{c}, make([]byte, relayBuffer))
				up.(*net.TCPConn).CloseWrite()
			}()
			io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{up}, make([]byte, relayBuffer))
		}()
	}
}
