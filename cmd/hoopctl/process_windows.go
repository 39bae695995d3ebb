package main

import (
	"os"
	"syscall"
)

// passSignal ends a child that should end. A Ctrl-C reaches every process of
// the console by itself, and Windows has no other signal that asks.
func passSignal(p *os.Process, s os.Signal) {
	if s != os.Interrupt {
		p.Kill()
	}
}

// childSignal answers no: Windows processes are not ended by signals.
func childSignal(*os.ProcessState) (syscall.Signal, bool) { return 0, false }
