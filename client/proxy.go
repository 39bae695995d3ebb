package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// connectTimeout bounds connecting to the server or to a proxy, and the
// proxy's connecting on.
const connectTimeout = 15 * time.Second

func parseURL(s string) (*url.URL, error) { return url.Parse(s) }

// dialServer opens a TCP connection to the server, through the proxy that the
// environment names for it.
func (c *Client) dialServer(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	proxy, err := c.proxy(&http.Request{URL: c.server})
	if err != nil {
		return nil, fmt.Errorf("HTTPS_PROXY: %w", err)
	}
	dialer := &net.Dialer{KeepAlive: 30 * time.Second}
	if proxy == nil {
		return dialer.DialContext(ctx, "tcp", c.addr)
	}
	conn, err := dialProxy(ctx, dialer, proxy)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	if err := connect(ctx, conn, c.addr, proxy.User); err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	return conn, nil
}

func dialProxy(ctx context.Context, dialer *net.Dialer, proxy *url.URL) (net.Conn, error) {
	port := proxy.Port()
	switch {
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return nil, fmt.Errorf("proxies of scheme %q are not supported, only http and https", proxy.Scheme)
	case port == "" && proxy.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	addr := net.JoinHostPort(proxy.Hostname(), port)
	if proxy.Scheme == "https" {
		return (&tls.Dialer{NetDialer: dialer, Config: &tls.Config{MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", addr)
	}
	return dialer.DialContext(ctx, "tcp", addr)
}

// connect asks the proxy for a way to addr (RFC 9110, 9.3.6). What follows on
// conn is the server's own TLS, which the proxy cannot read.
func connect(ctx context.Context, conn net.Conn, addr string, user *url.Userinfo) error {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 4096)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return err
	}
	// The body of a refusal is of no use; that of a success is the connection itself.
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it refused to connect to %s: %s", addr, res.Status)
	}
	if r.Buffered() > 0 {
		return errors.New("it sent bytes before the server could have")
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return conn.SetDeadline(time.Time{})
}
