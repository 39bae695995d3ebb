package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/crypto/ssh"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

func newAudit(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "audit",
		Short:   "Search, follow, verify and export the evidence",
		Example: "  hoopctl audit search --target clinic --since 24h\n  hoopctl audit verify\n  hoopctl audit export --session s-7 --recordings -o s-7.zip",
	}, newAuditSearch(a), newAuditTail(a), newAuditVerify(a), newAuditKeys(a), newAuditExport(a), newAuditReport(a), newAuditAccess(a), newAuditSample(a), newAuditConflicts(a), newAuditLeavers(a), newAuditDisclosures(a), newAuditRetention(a), newAuditHold(a), newAuditShred(a))
}

// eventFlags are the filters of search and tail.
type eventFlags struct {
	query        api.EventQuery
	since, until string
}

func (e *eventFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&e.since, "since", "", "from here on: 24h or 7d (ago), 2026-11-01, or 2026-11-01T08:00:00Z")
	f.StringVar(&e.until, "until", "", "up to here")
	f.StringSliceVar(&e.query.Kind, "kind", nil, "kinds of event: statement, approval, login, grant, session.open, …")
	f.StringVar(&e.query.Principal, "principal", "", "by this principal: name or ID")
	f.StringVar(&e.query.Target, "target", "", "on this target")
	f.StringVar(&e.query.Table, "table", "", "that touch this table: public.patients")
	f.StringVar(&e.query.Tag, "tag", "", "that touch columns with this tag: phi")
	f.StringVar(&e.query.Verdict, "verdict", "", "with this verdict: allow, review, deny")
	f.StringVar(&e.query.Session, "session", "", "of this session")
	f.StringVar(&e.query.Request, "request", "", "of this request")
	f.StringVar(&e.query.Grant, "grant", "", "under this grant")
	f.StringVar(&e.query.Approver, "approver", "", "approved or denied by this principal")
}

func (e *eventFlags) parse(now time.Time) error {
	for _, t := range []struct {
		flag, text string
		into       *time.Time
	}{{"--since", e.since, &e.query.Since}, {"--until", e.until, &e.query.Until}} {
		at, err := parseTime(t.text, now)
		if err != nil {
			return usagef("%s %q: want a duration (24h), a date, or a time in RFC 3339", t.flag, t.text)
		}
		*t.into = at
	}
	return nil
}

func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.Atoi(n); err == nil {
			return now.AddDate(0, 0, -days), nil
		}
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	return time.Parse(time.RFC3339, s)
}

func eventKind() kind[api.Event] {
	return kind[api.Event]{
		singular: "event", plural: "events", list: "EventList",
		name: func(e api.Event) string { return fmt.Sprint(e.Index) },
		columns: []column[api.Event]{
			{header: "INDEX", cell: func(e api.Event) string { return fmt.Sprint(e.Index) }},
			{header: "TIME", cell: func(e api.Event) string { return e.Time.Local().Format("2006-01-02 15:04:05") }},
			{header: "KIND", cell: func(e api.Event) string { return e.Kind }},
			{header: "PRINCIPAL", cell: func(e api.Event) string { return e.Name }},
			{header: "TARGET", cell: func(e api.Event) string { return e.Target }},
			{header: "SESSION", cell: func(e api.Event) string { return e.Session }},
			{header: "VERDICT", cell: func(e api.Event) string { return e.Verdict }},
			{header: "WHAT", cell: eventText},
			{header: "RULES", wide: true, cell: func(e api.Event) string { return strings.Join(e.Rules, ",") }},
			{header: "TABLES", wide: true, cell: func(e api.Event) string { return strings.Join(e.Tables, ",") }},
			{header: "GRANT", wide: true, cell: func(e api.Event) string { return e.Grant }},
			{header: "SOURCE", wide: true, cell: func(e api.Event) string { return e.Source }},
		},
	}
}

// eventText is the gist of an event in one line.
func eventText(e api.Event) string {
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	add(e.Object)
	add(e.Request)
	add(oneLine(e.Statement, 80))
	add(e.Status)
	add(e.SQLState)
	for _, m := range e.Masked {
		parts = append(parts, "masked "+maskedWords(m))
	}
	add(oneLine(e.Reason, 60))
	return strings.Join(parts, " ")
}

func newAuditSearch(a *app) *cobra.Command {
	var e eventFlags
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Search the timeline: who did what, by which rule",
		Example: `  hoopctl audit search --table public.patients --since 24h
  hoopctl audit search --verdict deny -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(checkFormat(a.format(), listFormats), e.parse(a.now())); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			e.query.Descending = true // the newest of what fits into --limit …
			events, err := cl.Events(cmd.Context(), e.query)
			if err != nil {
				return err
			}
			slices.Reverse(events) // … in the order in which it happened
			if len(events) == 0 && a.format() == "" {
				fmt.Fprintln(a.err, "No events.")
				return nil
			}
			return printList(a.out, a.format(), eventKind(), events)
		},
	}
	e.flags(cmd.Flags())
	cmd.Flags().IntVar(&e.query.Limit, "limit", 100, "the newest so many")
	return cmd
}

func newAuditTail(a *app) *cobra.Command {
	var e eventFlags
	var follow bool
	cmd := &cobra.Command{
		Use:     "tail",
		Short:   "The newest events; -f goes on with what comes",
		Example: "  hoopctl audit tail -f --target clinic",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(checkFormat(a.format(), listFormats), e.parse(a.now())); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return a.tail(cmd.Context(), cl, e.query, follow)
		},
	}
	e.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().IntVarP(&e.query.Limit, "lines", "n", 10, "begin with the newest so many")
	return cmd
}

// tail prints the newest events and then, if asked to, every one that comes: it
// goes on where it was when the server went away for a while.
func (a *app) tail(ctx context.Context, cl *client.Client, q api.EventQuery, follow bool) error {
	q.Descending = true
	events, err := cl.Events(ctx, q)
	if err != nil {
		return err
	}
	slices.Reverse(events)
	s := stream[api.Event]{w: a.out, kind: eventKind(), format: a.format()}
	for _, e := range events {
		if err := s.print(e); err != nil {
			return err
		}
		q.After = e.Index
	}
	q.Descending, q.Limit = false, 0
	for follow {
		for change, err := range cl.WatchEvents(ctx, q) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				var refused *api.Error
				if errors.As(err, &refused) && refused.Reason != api.ReasonUnavailable {
					return err
				}
				fmt.Fprintf(a.err, "The server went away (%s); trying again.\n", printable(err.Error()))
				break
			}
			if change.Synced || change.Item.Index <= q.After && q.After > 0 {
				continue
			}
			if err := s.print(change.Item); err != nil {
				return err
			}
			q.After = change.Item.Index
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Second):
		}
	}
	return nil
}

// served is the evidence as a server hands it out, byte by byte.
type served struct{ client *client.Client }

func (s served) List(ctx context.Context) ([]api.EvidenceFile, error) {
	l, err := s.client.EvidenceFiles(ctx)
	return l.Files, err
}

func (s served) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	r, err := s.client.EvidenceFile(ctx, path, 0, -1)
	var e *api.Error
	if errors.As(err, &e) && e.Reason == api.ReasonNotFound {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return r, err
}

var _ evidence.Source = served{}

// verifyOptions are the flags of audit verify.
type verifyOptions struct {
	dir            string
	logKey         string
	approvers      string
	ca             string
	maxAge         time.Duration
	skipRecordings bool
	witnesses      witnessFlags
}

func newAuditVerify(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [DIR|FILE.zip]",
		Short: "Check the evidence, on this machine: exit 0 intact, 1 tampered, 2 incomplete, 3 stale",
		Long: `Check every byte of the evidence, fetched from the server or read from a folder
or a bundle (audit export) at this moment. Nothing that the server says about itself is believed: the log's
key was pinned at login, or is given with --log-key, and the last checkpoint that
this machine saw must still be in the log. It says what it proved, what only the
broker asserts, and what it could not tell. 125: it could not run.`,
		Example: `  hoopctl audit verify
  hoopctl audit verify /backup/evidence --log-key "$(cat log.vkey)"
  hoopctl audit verify --policy auditors.policy
  hoopctl audit verify november.zip --policy auditors.policy
  hoopctl audit verify --witness "$(cat w1.vkey)" --witness "$(cat w2.vkey)" --quorum 1`,
		Args: takes(0, 1, "at most a folder or a bundle"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			if len(args) == 1 {
				o.dir = args[0]
			}
			report, err := a.verify(cmd.Context(), o)
			if err != nil {
				return verifyFailed(cmd.Context(), err)
			}
			if a.format() != "" {
				err = printObject(a.out, a.format(), report)
			} else {
				err = a.printReport(report)
			}
			if err != nil {
				return &coded{err, exitBroker}
			}
			return exitWith(exitCode(report.Status))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.logKey, "log-key", "", "the log's verifier key, from out of band (default: the one pinned at login)")
	f.StringVar(&o.approvers, "approvers", "", "file of the approvers' own public keys (authorized_keys: ssh-ed25519, sk-, …): answers that they signed are proved")
	f.StringVar(&o.ca, "client-ca", "", "PEM file of the authority that signs logins (default: the one pinned at login): answers are checked to chain to it")
	f.DurationVar(&o.maxAge, "max-age", 0, "stale if the newest event, or the witnesses' newest word, is older than this (10m for a running server with witnesses)")
	o.witnesses.flags(f)
	f.BoolVar(&o.skipRecordings, "skip-recordings", false, "leave the recordings' frames unread")
	return cmd
}

// verifyFailed says that verification could not run, but for what has a code of
// its own whatever the verb: usage and signals.
func verifyFailed(ctx context.Context, err error) error {
	var usage *usageError
	if ctx.Err() != nil || errors.As(err, &usage) {
		return err
	}
	return &coded{err, exitBroker}
}

func (a *app) verify(ctx context.Context, o verifyOptions) (*evidence.Report, error) {
	policy, err := o.witnesses.policy()
	if err != nil {
		return nil, err
	}
	if policy != nil && len(policy.Logs) == 1 && o.logKey == "" {
		o.logKey = policy.Logs[0]
	}
	src, key, err := a.evidenceSource(ctx, o.dir, o.logKey)
	if err != nil {
		return nil, err
	}
	options := evidence.Options{LogKey: key, Fresh: o.maxAge, Now: a.now(), SkipRecordings: o.skipRecordings}
	o.witnesses.apply(&options, policy, o.dir == "")
	if options.Approvers, err = readApprovers(o.approvers); err != nil {
		return nil, err
	}
	if options.CAs, err = a.clientCA(o.ca, key); err != nil {
		return nil, err
	}
	seen, err := a.seenFile(key)
	if err != nil {
		return nil, err
	}
	if b, err := os.ReadFile(seen); err == nil {
		options.Seen = append(options.Seen, b)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the remembered checkpoint: %w", err)
	}
	if isBundle(o.dir) {
		return verifyBundle(ctx, o.dir, options)
	}
	report, err := evidence.Verify(ctx, src, options)
	if err != nil {
		return nil, err
	}
	if report.Status == evidence.Intact && len(report.Checkpoint) > 0 {
		err = a.rememberCheckpoint(seen, report.Checkpoint)
	}
	return report, err
}

// evidenceSource is a folder, or what the server hands out, and the log's key.
func (a *app) evidenceSource(ctx context.Context, dir, key string) (evidence.Source, string, error) {
	if dir != "" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() && !info.Mode().IsRegular() {
			return nil, "", fmt.Errorf("%s is no folder of evidence, and no bundle", dir)
		}
		if key != "" {
			return evidence.Folder(dir), key, nil
		}
	}
	cl, err := a.client()
	if err != nil {
		if dir != "" {
			err = withHint(errors.New("which log's key is this evidence to be held to?"), "give --log-key, or log in to the server whose evidence this is")
		}
		return nil, "", err
	}
	state, err := cl.State()
	if err != nil {
		return nil, "", err
	}
	if key == "" {
		key = state.LogKey
	}
	if dir != "" {
		return evidence.Folder(dir), key, nil
	}
	return served{cl}, key, nil
}

// clientCA is the authority that signs logins: of a file, or as it was pinned at
// the login to the server whose log has this key. Nil: it is not known.
func (a *app) clientCA(file, logKey string) (*x509.CertPool, error) {
	var pemText []byte
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the authority: %w", err)
		}
		pemText = b
	} else if cl, err := a.client(); err == nil {
		defer cl.Close()
		if state, err := cl.State(); err == nil && state.LogKey == logKey {
			pemText = []byte(state.ClientCA)
		}
	}
	if len(pemText) == 0 && file == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pemText) {
		return nil, fmt.Errorf("read the authority: %s holds no certificate", cmp.Or(file, "what was pinned at login"))
	}
	return pool, nil
}

// readApprovers reads public keys as OpenSSH writes them.
func readApprovers(path string) ([]evidence.Approver, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the approvers' keys: %w", err)
	}
	var keys []evidence.Approver
	for len(bytes.TrimSpace(b)) > 0 {
		key, comment, _, rest, err := ssh.ParseAuthorizedKey(b)
		if err != nil {
			return nil, fmt.Errorf("read the approvers' keys: %s: %w", path, err)
		}
		keys = append(keys, evidence.Approver{Name: comment, Key: key})
		b = rest
	}
	return keys, nil
}

// seenFile is where this machine remembers the log's last good checkpoint.
func (a *app) seenFile(key string) (string, error) {
	home, err := a.home()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(home, "checkpoints", hex.EncodeToString(sum[:8])+".note"), nil
}

func (a *app) rememberCheckpoint(path string, note []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("remember the checkpoint: %w", err)
	}
	return replaceFile(path, note)
}

func (a *app) printReport(r *evidence.Report) error {
	w := a.out
	fmt.Fprintf(w, "%s: %s\n", printable(r.Origin), strings.ToUpper(r.Status.String()))
	if err := fields(w, "Events", fmt.Sprint(r.Leaves), "Signed", fmt.Sprint(r.Signed), "Sessions", fmt.Sprint(r.Sessions), "Frames", fmt.Sprint(r.Frames),
		"Witnessed", witnessedText(r), "First", stamp(r.First), "Last", stamp(r.Last), "Root", r.Root); err != nil {
		return err
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(w, "\n%s:\n", title)
		for _, l := range lines {
			fmt.Fprintf(w, "  - %s\n", printable(l))
		}
	}
	var problems []string
	for _, p := range r.Problems {
		problems = append(problems, p.String())
	}
	section("Problems", problems)
	section("Proved", r.Proved)
	section("Asserted by the broker", r.Asserted)
	section("Unknown", r.Unknown)
	return nil
}

func newCA(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ca",
		Short: "Print the server's CA, for applications that insist on sslmode=require or more",
		Long: `Print the certificate of the CA that vouches for the server, as it was pinned at
login. A forward answers TLS with a certificate for localhost under this CA.`,
		Example: "  hoopctl ca > hoopctl-ca.pem",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			state, err := cl.State()
			if err != nil {
				return err
			}
			if state.CA == "" {
				return withHint(errors.New("the server's certificate is of a public authority, not of a CA of its own"), "your system trusts it already")
			}
			if a.format() == "json" {
				return json.NewEncoder(a.out).Encode(map[string]string{"server": state.Server, "ca": state.CA})
			}
			_, err = io.WriteString(a.out, state.CA)
			return err
		},
	}
}

// maskedWords says how a column was hidden, by which rule and why: "ssn (last4
// of public.patients.ssn by phi, identity)".
func maskedWords(m api.MaskedColumn) string {
	how := m.Method
	if m.Source != "" {
		how += " of " + m.Source
	}
	if m.Rule != "" {
		how += " by " + m.Rule
	}
	if m.Why != "" {
		how += ", " + m.Why
	}
	return fmt.Sprintf("%s (%s)", m.Column, how)
}
