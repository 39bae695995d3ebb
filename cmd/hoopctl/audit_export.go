package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/server/evidence"
)

// exportOptions are the flags of audit export.
type exportOptions struct {
	dir, logKey  string
	session      string
	since, until string
	recordings   bool
	witnesses    []string
	ship         shipOptions
}

func newAuditExport(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export [--format bundle|ocsf|syslog] [-o FILE]",
		Short: "Take evidence out, with its proofs; or send the timeline to a SIEM",
		Long: `Write a bundle: events of one session with what led to it, or all events of a
period, each with the proof that it lies at its place in the log, the log's head as
it was signed and cosigned, and on request the recordings, encrypted as they are,
with the keys that open for the auditors.

A bundle is checked without a server: audit verify FILE.zip, or without hoopctl by
any verifier of c2sp.org/tlog-proof. The same evidence gives the same bytes.
Everything is read and checked against the log's key here, on this machine.

--format ocsf (JSON lines, schema 1.3.0) and --format syslog (RFC 5424) write the
timeline's events, in the order of the log, to a file, to stdout, or to a syslog
receiver over TLS (--to, RFC 5425). With --cursor every event arrives at least once,
over restarts and absences of all sides, each copy under the same id
(metadata.uid; node and index). The index has no holes: a missing event is an error.`,
		Example: `  hoopctl audit export --session s-7 --recordings -o s-7.zip
  hoopctl audit export --since 2026-11-01 --until 2026-12-01 -o november.zip
  hoopctl audit verify november.zip --policy auditors.policy
  hoopctl replay s-7.zip --identity auditor.key
  hoopctl audit export --format ocsf --since 24h
  hoopctl audit export --format ocsf -o /var/log/hoopctl.ocsf --cursor /var/lib/hoopctl/ocsf.cursor --follow
  hoopctl audit export --format syslog --to tls://siem.example.org:6514 --cursor siem.cursor --follow`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			file := a.format()
			if o.ship.format != "bundle" {
				return a.exportEvents(cmd.Context(), file, o)
			}
			if o.ship.to != "" || o.ship.cursor != "" || o.ship.follow {
				return usagef("--to, --cursor and --follow are for --format ocsf and syslog")
			}
			if filepath.Ext(file) != ".zip" {
				return usagef("-o %q: want the file to write, FILE.zip", file)
			}
			return a.exportBundle(cmd.Context(), file, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.session, "session", "", "this session, and the login, grant, requests and answers behind it")
	f.StringVar(&o.since, "since", "", "all events from here on: 24h (ago), 2026-11-01, or 2026-11-01T08:00:00Z")
	f.StringVar(&o.until, "until", "", "up to here")
	f.BoolVar(&o.recordings, "recordings", false, "with the sessions' recordings and their wrapped keys")
	f.StringVar(&o.dir, "dir", "", "read a folder of evidence instead of asking the server")
	f.StringVar(&o.logKey, "log-key", "", "the log's verifier key (default: the one pinned at login)")
	f.StringArrayVar(&o.witnesses, "witness", nil, "verifier key of a witness, to be named in the bundle's policy.txt; may be given several times")
	s := &o.ship
	f.StringVar(&s.format, "format", "bundle", "bundle, ocsf or syslog")
	f.StringVar(&s.to, "to", "", "send to this receiver of RFC 5425: tls://host:port")
	f.StringVar(&s.ca, "to-ca", "", "PEM file of the receiver's authority (default: the system's)")
	f.StringVar(&s.cert, "to-cert", "", "certificate to show to the receiver")
	f.StringVar(&s.key, "to-key", "", "its private key")
	f.StringVar(&s.cursor, "cursor", "", "file that remembers what was delivered")
	f.BoolVar(&s.follow, "follow", false, "go on with what comes")
	return cmd
}

// exportEvents sends the timeline as a stream of events.
func (a *app) exportEvents(ctx context.Context, file string, o exportOptions) error {
	if o.session != "" || o.recordings || o.dir != "" || len(o.witnesses) > 0 {
		return usagef("--session, --recordings, --dir and --witness are for bundles")
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	state, err := cl.State()
	if err != nil {
		return err
	}
	o.ship.since, o.ship.until = o.since, o.until
	return a.ship(ctx, cl, state.LogKey, file, o.ship)
}

func (a *app) exportBundle(ctx context.Context, file string, o exportOptions) error {
	b := evidence.BundleOptions{Session: o.session, Recordings: o.recordings, Witnesses: o.witnesses}
	if isBundle(o.dir) {
		return usagef("--dir %s is a file: want a folder of evidence", o.dir)
	}
	if o.session != "" && (o.since != "" || o.until != "") {
		return usagef("--session takes the whole session: leave out --since and --until")
	}
	var err error
	if b.Since, err = parseTime(o.since, a.now()); err != nil {
		return usagef("--since %q: want a duration (24h), a date, or a time in RFC 3339", o.since)
	}
	if b.Until, err = parseTime(o.until, a.now()); err != nil {
		return usagef("--until %q: want a duration (24h), a date, or a time in RFC 3339", o.until)
	}
	src, key, err := a.evidenceSource(ctx, o.dir, o.logKey)
	if err != nil {
		return err
	}
	b.LogKey = key
	var m *evidence.Manifest
	err = writeWhole(file, func(w io.Writer) (err error) {
		m, err = evidence.WriteBundle(ctx, w, src, b)
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.err, "%s: %d events (leaves %d to %d), recordings of %d sessions.\n", file, m.Records, m.First, m.Last, len(m.Sessions))
	return err
}

// writeWhole writes a file that is there whole or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name())
	if err := errors.Join(write(tmp), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// openBundle opens a bundle's file.
func openBundle(path string) (*evidence.Bundle, *os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the bundle: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	b, err := evidence.OpenBundle(f, st.Size())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return b, f, nil
}

// verifyBundle checks a bundle's file.
func verifyBundle(ctx context.Context, path string, o evidence.Options) (*evidence.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the bundle: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return evidence.VerifyBundle(ctx, f, st.Size(), o)
}

// isBundle says whether a path names a file rather than a folder.
func isBundle(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
