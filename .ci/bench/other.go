//go:build !linux

// Command bench compares hoopctl with other relays. It reads the processor
// time of processes from /proc, which only Linux has.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: runs on Linux only: it reads processor time from /proc")
	os.Exit(1)
}
