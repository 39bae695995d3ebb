//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// print writes the tables in Markdown.
func (b *bench) print(took time.Duration) {
	fmt.Fprintf(b.out, "%s. %s, %d processors, Linux %s; PostgreSQL %s, fsync off, loopback; pgbouncer in session mode.\n", time.Now().UTC().Format("2 January 2006"),
		cpuModel(), runtime.NumCPU(), kernel(), b.version)
	fmt.Fprintf(b.out, "A small write with fdatasync took %.2f ms in the evidence's folder; `hoopctl version` takes %.0f ms (median of 21). The run took %s.\n",
		b.synced.Seconds()*1e3, b.startUp.Seconds()*1e3, took.Round(time.Second))
	for i := range workloads {
		if w := &workloads[i]; b.chosen(w.name) {
			b.printWorkload(w, false)
			if w.secure {
				b.printWorkload(w, true)
			}
		}
	}
	if len(b.idle) > 0 {
		fmt.Fprint(b.out, "\n### idle: memory of connections after one query each\n\n| | connections | KiB a connection | opened one after another in |\n|---|---|---|---|\n")
		for _, r := range b.idle {
			fmt.Fprintf(b.out, "| %s | %s | %.1f | %.1f s |\n", r.name, thousands(float64(r.count)), r.each, r.took.Seconds())
		}
	}
}

func (b *bench) printWorkload(w *workload, secure bool) {
	rate, cpu, scale := "queries/s", "relay CPU µs/query", 1e6
	per := 1.0
	switch {
	case w.connect:
		rate, cpu, scale = "connections/s", "relay CPU ms/connection", 1e3
	case w.pgbench == nil:
		rate, cpu, scale, per = "MB/s", "relay CPU s/GB", 1e9, 1e-6
	}
	suffix, what := "", w.what
	if secure {
		suffix, what = withTLS, w.what+"; TLS on every side"
	}
	fmt.Fprintf(b.out, "\n### %s%s: %s\n\n| | %s | to direct | to pgbouncer | %s | to the plain relay |\n|---|---|---|---|---|---|\n", w.name, suffix, what, rate, cpu)
	of := func(name string) []sample { return b.results[cell{w.name, name + suffix}] }
	for _, s := range b.servers {
		samples := b.results[cell{w.name, s.name}]
		if len(samples) == 0 || s.secure != secure {
			continue
		}
		var rates, costs []float64
		for _, m := range samples {
			if m.failed != nil {
				continue
			}
			rates = append(rates, m.rate*per)
			if m.cpu > 0 { // opening connections, which is taken off, may cost more than a short cell
				costs = append(costs, m.cpu.Seconds()/m.units*scale)
			}
		}
		if len(rates) == 0 {
			continue
		}
		cost := ""
		if s.proc != nil && len(costs) > 0 {
			cost = fmt.Sprintf("%.2f%s", median(costs), spread(costs))
			if scale == 1e6 {
				cost = fmt.Sprintf("%.1f%s", median(costs), spread(costs))
			}
		}
		fmt.Fprintf(b.out, "| %s | %s | %s | %s | %s | %s |\n", s.name, thousands(median(rates)), ratio(samples, of("direct")), ratio(samples, of("pgbouncer")), cost, costRatio(samples, of("go relay")))
	}
}

// ratio is the median over the rounds of a rate against that of a peer in the
// same round.
func ratio(samples, peer []sample) string {
	var r []float64
	for i := range min(len(samples), len(peer)) {
		if samples[i].failed == nil && peer[i].failed == nil {
			r = append(r, samples[i].rate/peer[i].rate)
		}
	}
	if len(r) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(r))
}

// costRatio is the median over the rounds of the processor time of a unit
// against that of a peer in the same round.
func costRatio(samples, peer []sample) string {
	var r []float64
	for i := range min(len(samples), len(peer)) {
		if samples[i].failed != nil || peer[i].failed != nil {
			continue
		}
		if cost := peer[i].cpu.Seconds() / peer[i].units; cost > 0 && samples[i].cpu > 0 {
			r = append(r, samples[i].cpu.Seconds()/samples[i].units/cost)
		}
	}
	if len(r) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(r))
}

func spread(v []float64) string {
	if len(v) < 2 {
		return ""
	}
	return fmt.Sprintf(" (%.1f–%.1f)", slices.Min(v), slices.Max(v))
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(b))
}
