//go:build linux

// Command bench measures what standing between a client and PostgreSQL costs:
// direct, through a plain relay, through pgbouncer, and through hoopctl with
// and without strict evidence, recording and masking. All of them run side by
// side in the same rounds, on loopback, and serve the same programs: pgbench,
// and a client that does nothing but take rows. Like is compared with like: one
// table is of plaintext on every side, the other of TLS on every side.
//
// It is a benchmark, not a test: it compares, and fails only where something
// does not work.
//
//	go run ./.ci/bench -hoopctl bin/hoopctl
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type options struct {
	hoopctl string
	dir     string
	rounds  int
	seconds int
	limit   time.Duration
	idle    int
	many    int
	soak    time.Duration
	only    string
	keep    bool
}

func main() {
	// Children are told to end when the thread that started them does: all are
	// started here, and this goroutine keeps its thread.
	runtime.LockOSThread()
	if len(os.Args) == 6 && os.Args[1] == "relay" {
		fmt.Fprintln(os.Stderr, relay(os.Args[2], os.Args[3], os.Args[4], os.Args[5]))
		os.Exit(1)
	}
	var o options
	flag.StringVar(&o.hoopctl, "hoopctl", "bin/hoopctl", "the program to measure")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "where the scratch folder is made; evidence is only as durable, and as slow, as its disk")
	flag.IntVar(&o.rounds, "rounds", 3, "how often everything is measured, interleaved")
	flag.IntVar(&o.seconds, "seconds", 2, "how long each pgbench runs")
	flag.DurationVar(&o.limit, "limit", 9*time.Minute, "no further round begins when it would not end within this")
	flag.IntVar(&o.idle, "idle", 250, "idle connections of which the memory is measured")
	flag.IntVar(&o.many, "many", 0, "idle connections with TLS to hoopctl alone (its target is then a pgbouncer that pools transactions: PostgreSQL need not hold as many)")
	flag.DurationVar(&o.soak, "soak", 0, "do not compare: put a mixed load on hoopctl for so long, kill it half-way, and look what is left")
	flag.StringVar(&o.only, "only", "", "workloads to run, by name, with commas between them (default: all)")
	flag.BoolVar(&o.keep, "keep", false, "keep the scratch folder")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run sets up, measures, prints, and takes everything down again.
func run(ctx context.Context, o options) (err error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, max(o.limit, o.soak)+5*time.Minute)
	defer cancel()
	if o.hoopctl, err = filepath.Abs(o.hoopctl); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "hoopctl-bench-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL's own user passes through
		return err
	}
	b := &bench{options: o, dir: dir, out: os.Stdout}
	defer func() {
		b.stopAll()
		if !o.keep {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if o.soak > 0 {
		return b.soakFor(ctx)
	}
	if err := b.setUp(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "idle connections …")
	if err := b.measureIdle(ctx); err != nil {
		return err
	}
	if err := b.measureMany(ctx); err != nil {
		return err
	}
	if b.startUp, err = startTime(b.hoopctl); err != nil {
		return err
	}
	for round := 1; round <= o.rounds; round++ {
		begun := time.Now()
		fmt.Fprintf(os.Stderr, "round %d of %d …\n", round, o.rounds)
		if err := b.round(ctx); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if took := time.Since(begun); time.Since(started)+took > o.limit && round < o.rounds {
			fmt.Fprintf(os.Stderr, "stopped after %d rounds: the next would not end within %s\n", round, o.limit)
			break
		}
	}
	b.print(time.Since(started))
	return nil
}

// chosen reports whether a workload is to be run.
func (o *options) chosen(name string) bool {
	if o.only == "" {
		return true
	}
	for _, n := range strings.Split(o.only, ",") {
		if n == name {
			return true
		}
	}
	return false
}
