//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// workload is one kind of work.
type workload struct {
	name string
	what string
	// pgbench's arguments, nil for a bulk read of sql.
	pgbench []string
	clients int
	connect bool // a connection a transaction
	sql     string
	passes  int
	secure  bool // is measured with TLS on every side as well
}

var workloads = []workload{
	{name: "simple-1", what: "pgbench -S, simple protocol, 1 client", pgbench: []string{"-S", "-M", "simple"}, clients: 1},
	{name: "simple-8", what: "pgbench -S, simple protocol, 8 clients", pgbench: []string{"-S", "-M", "simple"}, clients: 8, secure: true},
	{name: "simple-32", what: "pgbench -S, simple protocol, 32 clients", pgbench: []string{"-S", "-M", "simple"}, clients: 32, secure: true},
	{name: "prepared-8", what: "pgbench -S, prepared, 8 clients", pgbench: []string{"-S", "-M", "prepared"}, clients: 8},
	{name: "connect-4", what: "pgbench -S -C: a connection for each query, 4 clients", pgbench: []string{"-S", "-C"}, clients: 4, connect: true, secure: true},
	{name: "select", what: "SELECT * of 200,000 patients", sql: "SELECT * FROM patients", passes: 3, secure: true},
	{name: "copy", what: "COPY (the same) TO STDOUT", sql: "COPY patients TO STDOUT", passes: 3},
}

// cell is one workload on one server.
type cell struct{ workload, server string }

// sample is one measurement of a cell.
type sample struct {
	rate   float64       // transactions or bytes per second
	units  float64       // transactions or bytes
	cpu    time.Duration // of the relay, for them
	failed error
}

// round measures every cell once: the servers take turns within each workload,
// so that what disturbs the machine disturbs all of them alike.
func (b *bench) round(ctx context.Context) error {
	if b.results == nil {
		b.results = map[cell][]sample{}
	}
	for i := range workloads {
		w := &workloads[i]
		if !b.chosen(w.name) {
			continue
		}
		for _, s := range b.servers {
			if w.pgbench != nil && s.bulkOnly || s.secure && !w.secure {
				continue
			}
			if err := b.calmed(ctx, s); err != nil {
				return err
			}
			m, err := b.measure(ctx, w, s)
			if errors.Is(err, errNothing) {
				fmt.Fprintf(os.Stderr, "%s, %s: %v; left out\n", w.name, s.name, err)
				m, err = sample{failed: err}, nil // its place is kept: rounds are compared one by one
			}
			if err != nil {
				return fmt.Errorf("%s, %s: %w", w.name, s.name, err)
			}
			key := cell{w.name, s.name}
			b.results[key] = append(b.results[key], m)
		}
	}
	return nil
}

// calmed waits, for a while at most, until a server has done what it does
// behind the back of its clients: hoopctl seals what was recorded before, which
// is not the next cell's.
func (b *bench) calmed(ctx context.Context, s *server) error {
	const look, quiet = 250 * time.Millisecond, 20 * time.Millisecond
	for range 80 {
		before, err := s.proc.use()
		if err != nil || s.proc == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(look):
		}
		after, err := s.proc.use()
		if err != nil || after.cpu-before.cpu <= quiet {
			return err
		}
	}
	return nil
}

func (b *bench) measure(ctx context.Context, w *workload, s *server) (sample, error) {
	if w.pgbench == nil {
		return b.measureBulk(w, s)
	}
	before, err := s.proc.use()
	if err != nil {
		return sample{}, err
	}
	var first, done float64
	if !w.connect { // what opening the connections costs is measured apart, and taken off
		if _, err = b.pgbenchRun(ctx, w, s, "-t", "1", &first); err != nil {
			return sample{}, err
		}
	}
	between, err := s.proc.use()
	if err != nil {
		return sample{}, err
	}
	opening := between.cpu - before.cpu
	rate, err := b.pgbenchRun(ctx, w, s, "-T", strconv.Itoa(b.seconds), &done)
	if errors.Is(err, errNothing) { // a busy machine had not opened the connections by then
		if between, err = s.proc.use(); err != nil {
			return sample{}, err
		}
		rate, err = b.pgbenchRun(ctx, w, s, "-T", strconv.Itoa(5*b.seconds), &done)
	}
	if err != nil {
		return sample{}, err
	}
	after, err := s.proc.use()
	if err != nil {
		return sample{}, err
	}
	cpu := after.cpu - between.cpu
	if !w.connect {
		cpu -= opening
	}
	return sample{rate: rate, units: done - first, cpu: cpu}, nil
}

var (
	tpsLine  = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	doneLine = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
	failLine = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

var errNothing = errors.New("not one transaction was done in time")

// pgbenchRun runs a workload and returns transactions per second, and how many
// there were.
func (b *bench) pgbenchRun(ctx context.Context, w *workload, s *server, unit, count string, done *float64) (float64, error) {
	args := append([]string{"-n", "-c", strconv.Itoa(w.clients), "-j", strconv.Itoa(min(w.clients, 2)), unit, count}, w.pgbench...)
	out, err := b.pgbench(ctx, s, args...)
	if err != nil {
		return 0, err
	}
	if m := failLine.FindSubmatch(out); m != nil && string(m[1]) != "0" {
		return 0, fmt.Errorf("%s transactions failed", m[1])
	}
	m, n := tpsLine.FindSubmatch(out), doneLine.FindSubmatch(out)
	if n != nil && string(n[1]) == "0" {
		return 0, errNothing
	}
	if m == nil || n == nil {
		return 0, fmt.Errorf("pgbench printed no result: %s", bytes.TrimSpace(out))
	}
	if *done, err = strconv.ParseFloat(string(n[1]), 64); err != nil {
		return 0, err
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

func (b *bench) pgbench(ctx context.Context, s *server, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "pgbench"), append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-U", s.user, "bench")...)
	cmd.Env = append(b.environment(), "PGPASSWORD="+s.password, "PGSSLMODE="+s.sslmode())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pgbench: %w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// measureBulk reads a large result a few times over one connection.
func (b *bench) measureBulk(w *workload, s *server) (sample, error) {
	c, err := dial(s.port, s.user, s.password, "bench", s.secure)
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	if _, err := c.query("SELECT 1"); err != nil {
		return sample{}, err
	}
	before, err := s.proc.use()
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	var total int64
	for range w.passes {
		a, err := c.query(w.sql)
		if err != nil {
			return sample{}, err
		}
		if a.rows != patients {
			return sample{}, fmt.Errorf("%d rows came, not %d", a.rows, patients)
		}
		total += a.bytes
	}
	took := time.Since(begun)
	after, err := s.proc.use()
	return sample{rate: float64(total) / took.Seconds(), units: float64(total), cpu: after.cpu - before.cpu}, err
}

const patients = 200_000

// idleResult is the memory of idle connections.
type idleResult struct {
	name  string
	each  float64 // KiB
	count int
	took  time.Duration // to open them, one after another
}

// measureIdle opens connections, each of which asks one question, and looks at
// what they take. It comes first, while every process is fresh: a heap that
// has once grown would hide them.
func (b *bench) measureIdle(ctx context.Context) error {
	if !b.chosen("idle") {
		return nil
	}
	var open, peers []net.Conn
	closeAll := func(list *[]net.Conn) {
		for _, c := range *list {
			c.Close()
		}
		*list = nil
	}
	defer func() { closeAll(&open) }()
	for _, s := range b.servers {
		if s.proc == nil || s.bulkOnly || s.name == "hoopctl strict" || s.name == "hoopctl async, recorded" {
			continue
		}
		list := &open // hoopctl's stay until all of its kinds are measured: what one lets go of would hide the next
		if s.proc != b.house {
			list = &peers
		}
		r, err := b.idleOn(ctx, s, b.options.idle, list)
		closeAll(&peers)
		if err != nil {
			return err
		}
		b.idle = append(b.idle, r)
	}
	return nil
}

// measureMany is measureIdle for as many sessions as one server should hold.
func (b *bench) measureMany(ctx context.Context) error {
	if b.many == 0 {
		return nil
	}
	fmt.Fprintln(os.Stderr, "many idle connections …")
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	r, err := b.idleOn(ctx, b.crowd, b.many, &open)
	b.idle = append(b.idle, r)
	return err
}

// idleOn opens n connections, adds them to open, and tells what each takes.
func (b *bench) idleOn(ctx context.Context, s *server, n int, open *[]net.Conn) (idleResult, error) {
	before, err := s.proc.use()
	if err != nil {
		return idleResult{}, err
	}
	begun := time.Now()
	for range n {
		if err := ctx.Err(); err != nil {
			return idleResult{}, err
		}
		c, err := dial(s.port, s.user, s.password, "bench", s.secure)
		if err == nil {
			*open = append(*open, c.Conn)
			_, err = c.query("SELECT 1")
			c.in = nil
		}
		if err != nil {
			return idleResult{}, fmt.Errorf("idle connection %d of %s: %w", len(*open), s.name, err)
		}
	}
	took := time.Since(begun)
	after, err := s.proc.use()
	return idleResult{name: s.name, each: float64(after.rss-before.rss) / float64(n), count: n, took: took}, err
}

// startTime is the median time that `hoopctl version` takes.
func startTime(hoopctl string) (time.Duration, error) {
	times := make([]time.Duration, 21)
	for i := range times {
		begun := time.Now()
		if err := exec.Command(hoopctl, "version").Run(); err != nil {
			return 0, fmt.Errorf("hoopctl version: %w", err)
		}
		times[i] = time.Since(begun)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
