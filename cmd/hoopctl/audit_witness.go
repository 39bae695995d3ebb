package main

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/hoopctl/hoopctl/server/evidence"
)

// witnessFlags say whose cosignatures are demanded.
type witnessFlags struct {
	keys    []string
	quorum  int
	file    string
	offline bool
}

func (w *witnessFlags) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&w.keys, "witness", nil, "verifier key of a witness that must have cosigned; may be given several times")
	f.IntVar(&w.quorum, "quorum", 0, "so many of the witnesses suffice (default: all)")
	f.StringVar(&w.file, "policy", "", "file that names logs, witnesses and their quorum (c2sp.org/tlog-policy); witnesses with a URL are asked")
	f.BoolVar(&w.offline, "offline", false, "do not ask the witnesses of the policy what they know now")
}

// policy is what the flags demand; nil if they demand nothing.
func (w *witnessFlags) policy() (*evidence.Policy, error) {
	switch {
	case w.file != "" && (len(w.keys) > 0 || w.quorum > 0):
		return nil, usagef("--policy says who the witnesses are and how many suffice: leave out --witness and --quorum")
	case w.file != "":
		b, err := os.ReadFile(w.file)
		if err != nil {
			return nil, fmt.Errorf("read the policy: %w", err)
		}
		return evidence.ParsePolicy(b)
	case len(w.keys) > 0:
		p, err := evidence.WitnessPolicy(w.keys, w.quorum)
		if err != nil {
			return nil, usagef("--witness: %v", err)
		}
		return p, nil
	case w.quorum > 0:
		return nil, usagef("--quorum without --witness: whose?")
	}
	return nil, nil
}

const (
	// liveAge is how old the witnesses' newest word on a running server may be:
	// the log beats every minute, and they are asked every 10 s.
	liveAge = 10 * time.Minute
	// askTimeout bounds each question to a witness.
	askTimeout = 10 * time.Second
)

func (w *witnessFlags) apply(o *evidence.Options, p *evidence.Policy, live bool) {
	o.Policy = p
	if p == nil {
		return
	}
	if live && o.Fresh == 0 {
		o.Fresh = liveAge
	}
	if !w.offline {
		o.Ask = &http.Client{Timeout: askTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
}

func witnessedText(r *evidence.Report) string {
	if r.Witnessed == 0 {
		return ""
	}
	return fmt.Sprintf("%d by %s", r.Witnessed, stamp(r.WitnessedAt))
}
