//go:build unix

package main

import (
	"context"
	"os"
	"syscall"
	"testing"
)

// A signal ends the context with itself as the cause, and the code follows.
func TestSignals(t *testing.T) {
	a := &app{}
	ctx, stop := a.untilSignal(context.Background())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if got := codeOf(causeOf(ctx, context.Canceled)); got != 143 {
		t.Errorf("exit code %d", got)
	}
}
