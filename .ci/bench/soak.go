//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// soak puts a mixed load on a server for a while, kills it in the midst as a
// power cut would, lets it start again on what it left, and then asks what an
// operator would: did memory and files stay flat, is the evidence whole, and
// does it know every row that was written.
type soak struct {
	b       *bench
	began   time.Time
	acked   atomic.Int64 // inserts that the client was told of
	queries atomic.Int64
	bytes   atomic.Int64
	ended   atomic.Int64 // connections that the kill, or a rude client, ended

	mu      sync.Mutex
	wrong   []error // answers that must not be
	samples []soakSample
}

// soakSample is what the server took at one moment.
type soakSample struct {
	at     time.Duration
	rss    int64 // KiB
	files  int
	second bool // after the restart
}

// The servers that the load goes to; see variants.
const (
	soakStrict = "hoopctl strict, recorded"
	soakAsync  = "hoopctl async"
	soakMasked = "hoopctl strict, recorded, masked"
	soakTLS    = "hoopctl strict, recorded" + withTLS
)

func (b *bench) soakFor(ctx context.Context) error {
	s := &soak{b: b, began: time.Now()}
	if err := b.prepareSoak(ctx); err != nil {
		return err
	}
	before, err := s.sample(false)
	if err != nil {
		return err
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	after, err := s.calm(ctx, before.files)
	if err != nil {
		return err
	}
	s.print(before, after)
	return errors.Join(append(s.wrong, s.flat(before, after), s.evidence(ctx))...)
}

func (b *bench) prepareSoak(ctx context.Context) error {
	if err := b.findPrograms(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "PostgreSQL and data …")
	if err := b.startPostgres(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "hoopctl …")
	if err := b.startHouse(ctx); err != nil {
		return err
	}
	for _, s := range b.servers {
		if err := b.check(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	c, err := b.open("direct")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.query("CREATE TABLE soak (id bigint PRIMARY KEY, at timestamptz DEFAULT now())")
	return err
}

func (b *bench) open(name string) (*client, error) {
	i := slices.IndexFunc(b.servers, func(s *server) bool { return s.name == name })
	if i < 0 {
		return nil, fmt.Errorf("no server is called %q", name)
	}
	s := b.servers[i]
	return dial(s.port, s.user, s.password, "bench", s.secure)
}

// load runs the workers for as long as was asked for, and kills the server
// half-way.
func (s *soak) load(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, s.b.soak)
	defer stop()
	var workers sync.WaitGroup
	defer workers.Wait()
	for _, work := range []func() error{s.insert, s.look, s.look, s.readMasked, s.copyOut, s.rude, s.largeField, s.connectOnly} {
		workers.Go(func() { s.again(ctx, work) })
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	kill := time.After(s.b.soak / 2)
	for second := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-kill:
			if err := s.b.killHouse(ctx); err != nil {
				return err
			}
			second = true
		case <-tick.C:
			m, err := s.sample(second)
			if err != nil {
				return err
			}
			s.samples = append(s.samples, m)
		}
	}
}

// again does one kind of work over and over. That connections end is part of
// it; what a client must never see is kept in wrong.
func (s *soak) again(ctx context.Context, work func() error) {
	for ctx.Err() == nil {
		err := work()
		var wrong *wrongAnswer
		switch {
		case errors.As(err, &wrong):
			s.mu.Lock()
			s.wrong = append(s.wrong, err)
			s.mu.Unlock()
			return
		case err != nil:
			s.ended.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// wrongAnswer is an answer that no load excuses.
type wrongAnswer struct{ what string }

func (w *wrongAnswer) Error() string { return w.what }

func (s *soak) run(c *client, sql string) (answer, error) {
	a, err := c.query(sql)
	s.queries.Add(1)
	s.bytes.Add(a.bytes)
	return a, err
}

// insert writes two rows a second: each is counted when the client was told.
func (s *soak) insert() error {
	c, err := s.b.open(soakStrict)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 20 {
		if _, err := s.run(c, fmt.Sprintf("INSERT INTO soak VALUES (%d)", time.Now().UnixNano())); err != nil {
			return err
		}
		s.acked.Add(1)
		time.Sleep(500 * time.Millisecond)
	}
	return nil
}

func (s *soak) look() error {
	c, err := s.b.open(soakAsync)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 500 {
		if _, err := s.run(c, "SELECT abalance FROM pgbench_accounts WHERE aid = "+strconv.Itoa(1+rand.IntN(1_000_000))); err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) readMasked() error {
	c, err := s.b.open(soakMasked)
	if err != nil {
		return err
	}
	defer c.Close()
	v, err := c.value("SELECT ssn FROM patients WHERE id = 1")
	if err != nil {
		return err
	}
	if v == "002-02-0002" {
		return &wrongAnswer{"a masked column came as it is"}
	}
	return s.wholeTable(c, "SELECT * FROM patients")
}

func (s *soak) copyOut() error {
	c, err := s.b.open(soakTLS)
	if err != nil {
		return err
	}
	defer c.Close()
	return s.wholeTable(c, "COPY patients TO STDOUT")
}

func (s *soak) wholeTable(c *client, sql string) error {
	a, err := s.run(c, sql)
	if err == nil && a.rows != patients {
		err = &wrongAnswer{fmt.Sprintf("%s: %d rows came, not %d", sql, a.rows, patients)}
	}
	return err
}

// rude hangs up in the midst of an answer.
func (s *soak) rude() error {
	c, err := s.b.open(soakStrict)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.send('Q', []byte("SELECT * FROM patients\x00")); err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, c.in, rand.Int64N(20<<20))
	return err
}

func (s *soak) largeField() error {
	c, err := s.b.open(soakStrict)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = s.run(c, "SELECT repeat('0123456789abcdef', 4 * 1024 * 1024)")
	return err
}

func (s *soak) connectOnly() error {
	c, err := s.b.open(soakTLS)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := s.run(c, "SELECT 1"); err != nil {
		return err
	}
	return c.send('X', nil)
}

// killHouse ends the server as a power cut would, and starts it again on the
// same folder and ports.
func (b *bench) killHouse(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "kill -9, and again …")
	b.house.cmd.Process.Signal(syscall.SIGKILL)
	<-b.house.done
	if err := os.Remove(b.path("ready.json")); err != nil {
		return err
	}
	if err := b.startServer(ctx); err != nil {
		return err
	}
	for _, s := range b.servers {
		if s.proc != nil {
			s.proc = b.house
		}
	}
	return nil
}

func (s *soak) sample(second bool) (soakSample, error) {
	if err := s.b.house.ended(s.b); err != nil {
		return soakSample{}, err
	}
	u, err := usageOf(s.b.house.cmd.Process.Pid)
	if err != nil {
		return soakSample{}, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.b.house.cmd.Process.Pid))
	return soakSample{at: time.Since(s.began), rss: u.rss, files: len(files), second: second}, err
}

// spareFiles is how many files more than at the start a server may hold when
// nobody is connected: segments, the sealer's, connections kept to its stores.
const spareFiles = 24

// calm waits until the server has let go of the load's connections.
func (s *soak) calm(ctx context.Context, files int) (soakSample, error) {
	for deadline := time.Now().Add(20 * time.Second); ; {
		m, err := s.sample(true)
		if err != nil || m.files <= files+spareFiles || time.Now().After(deadline) {
			return m, err
		}
		if err := pause(ctx, s.b.house, s.b); err != nil {
			return m, err
		}
	}
}

// flat compares the memory after the restart, early and late, and the files
// at both ends.
func (s *soak) flat(before, after soakSample) error {
	var rss []int64
	for _, m := range s.samples {
		if m.second {
			rss = append(rss, m.rss)
		}
	}
	if len(rss) < 8 {
		return errors.New("too short to tell whether memory stays flat: give it some minutes")
	}
	early, late := middle(rss[len(rss)/4:len(rss)/2]), middle(rss[len(rss)*3/4:])
	var err error
	if late > early+early/4+64<<10 {
		err = fmt.Errorf("memory grows: %d MiB in the second quarter after the restart, %d MiB in the last", early>>10, late>>10)
	}
	if after.files > before.files+spareFiles {
		err = errors.Join(err, fmt.Errorf("files leak: %d at the start, %d when everybody had left", before.files, after.files))
	}
	return err
}

func middle(v []int64) int64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// evidence verifies every byte, and that each row that is in the table was
// written down before it got there.
func (s *soak) evidence(ctx context.Context) error {
	b := s.b
	c, err := b.open("direct")
	if err != nil {
		return err
	}
	defer c.Close()
	v, err := c.value("SELECT count(*) FROM soak")
	if err != nil {
		return err
	}
	rows, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return err
	}
	if _, err := b.as(ctx, "", b.hoopctl, "dev", "login", "dave", "--dir", b.path("dev")); err != nil {
		return err
	}
	out, err := b.as(ctx, "", b.hoopctl, "audit", "search", "--table", "public.soak", "--kind", "statement", "--limit", strconv.FormatInt(rows+1000, 10), "-o", "json")
	if err != nil {
		return err
	}
	leaves, err := countLeaves(out)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "Rows: %d told to the client, %d in the table, %d statements in the evidence.\n", s.acked.Load(), rows, leaves)
	if rows < s.acked.Load() || int64(leaves) < rows {
		return errors.New("rows are missing, or were written unrecorded")
	}
	out, err = b.as(ctx, "", b.hoopctl, "audit", "verify")
	fmt.Fprintf(b.out, "\n%s\n", strings.TrimSpace(string(out)))
	return err
}

func countLeaves(out []byte) (int, error) {
	var list []json.RawMessage
	if json.Unmarshal(out, &list) == nil {
		return len(list), nil
	}
	var doc struct{ Items, Events []json.RawMessage }
	if err := json.Unmarshal(out, &doc); err != nil {
		return 0, fmt.Errorf("hoopctl audit search: %w", err)
	}
	return len(doc.Items) + len(doc.Events), nil
}

func (s *soak) print(before, after soakSample) {
	var first, second []int64
	most := 0
	for _, m := range s.samples {
		most = max(most, m.files)
		if m.second {
			second = append(second, m.rss)
		} else {
			first = append(first, m.rss)
		}
	}
	out := s.b.out
	fmt.Fprintf(out, "%s of mixed load, kill -9 half-way: %s queries, %.1f GB to clients, %d connections ended by the kill or a rude client.\n",
		s.b.soak, thousands(float64(s.queries.Load())), float64(s.bytes.Load())/1e9, s.ended.Load())
	for name, rss := range map[string][]int64{"before the kill": first, "after it": second} {
		if len(rss) > 0 {
			fmt.Fprintf(out, "Memory %s: median %d MiB, at most %d MiB.\n", name, middle(rss)>>10, slices.Max(rss)>>10)
		}
	}
	fmt.Fprintf(out, "Open files: %d at the start, at most %d under load, %d when everybody had left.\n", before.files, most, after.files)
	logged, _ := os.ReadFile(filepath.Join(s.b.path("dev"), "hoopctl.log"))
	fmt.Fprintf(out, "Panics in the server's log: %d.\n", strings.Count(string(logged), "panic in a session"))
}
