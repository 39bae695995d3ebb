// Command hoopctl is the whole of hoopctl: the client's verbs, the server, and
// the development house on one machine.
//
// This package wires: it owns flags, settings, exit codes and words for people,
// and nothing that decides, listens or dials. main is the only place that
// exits; every verb is an options struct and a run function over an [app], so
// that tests can run it with their own streams, clock and home.
package main

import (
	"context"
	"os"
	"time"

	"github.com/pkg/browser"

	"github.com/hoopctl/hoopctl/client/tui/quiet"
)

func main() {
	quiet.End()
	os.Exit(run(context.Background(), os.Args[1:], &app{
		in:     os.Stdin,
		out:    os.Stdout,
		err:    os.Stderr,
		getenv: os.Getenv,
		now:    time.Now,
		openURL: func(url string) error {
			// What a browser prints is not for our streams.
			browser.Stdout, browser.Stderr = os.Stderr, os.Stderr
			return browser.OpenURL(url)
		},
	}))
}
