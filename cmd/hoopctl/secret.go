package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/server/api"
)

const (
	freshFor   = time.Hour        // what keep-fresh asks for if --for says nothing
	freshRetry = 10 * time.Second // after a secret that could not be had
	freshLeast = 2 * time.Second  // between two secrets: the server gave one that is nearly over
)

func newSecret(a *app) *cobra.Command {
	var r api.SecretRequest
	var duration time.Duration
	var fresh, workload string
	cmd := &cobra.Command{
		Use:   "secret TARGET",
		Short: "A short-lived secret for the native endpoint, for unmodified drivers",
		Long: `Make a secret for the server's native PostgreSQL endpoint and print the URL that
an unmodified driver takes. It is shown once; the server keeps its verifier only.
It lets new connections in until it expires; those that are open follow the grant.

With --keep-fresh it runs until Ctrl-C beside a long-lived service: it keeps the
files pg_service.conf, pgpass and ca.pem in a folder, puts a new secret there
before the old one expires, and prints the variables by which libpq and the
drivers that read its files find them.`,
		Example: `  hoopctl secret clinic --for 1h --connections 10
  hoopctl secret clinic --keep-fresh /run/clinic`,
		Args:              takes(1, 1, "a target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.serviceLogin(cmd.Context(), workload); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			r.Target, r.For = args[0], api.Duration(duration)
			if fresh != "" {
				return a.keepFresh(cmd.Context(), cl, fresh, workload, r)
			}
			return a.printSecret(cmd.Context(), cl, r)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&duration, "for", 0, "how long it lets new connections in (default 5m; with --keep-fresh 1h)")
	f.IntVar(&r.Connections, "connections", 0, "how many connections it is good for (0: any number)")
	f.StringVar(&r.SourceCIDR, "source", "", "only from these addresses: 10.0.0.0/8")
	f.StringVar(&r.Reason, "reason", "", "why; kept in the evidence")
	f.StringVar(&r.Purpose, "purpose", "", "purpose of use, where a rule asks for one")
	f.StringVar(&fresh, "keep-fresh", "", "keep files for libpq in this folder, and a secret in them that is good")
	f.StringVar(&workload, "workload", "", workloadUsage)
	return cmd
}

func (a *app) printSecret(ctx context.Context, cl *client.Client, r api.SecretRequest) error {
	format := a.format()
	if err := checkFormat(format, append([]string{"uri"}, oneFormats...)); err != nil {
		return err
	}
	s, err := cl.Secret(ctx, r)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "Valid for new connections until %s, under grant %s.\n", clock(a.now(), s.Expires), s.Grant)
	if format == "json" || format == "yaml" {
		return printObject(a.out, format, s)
	}
	_, err = fmt.Fprintln(a.out, s.URL)
	return err
}

// freshFiles are what a service finds its secret by.
type freshFiles struct {
	target           string
	pass, config, ca string
	lines            [2]string // of the password file: the newest secret, and the one before it
}

// keepFresh keeps the files until ctx ends. The first secret must be had; what
// fails later is told and tried again.
func (a *app) keepFresh(ctx context.Context, cl *client.Client, dir, workload string, r api.SecretRequest) error {
	if r.Connections > 0 {
		return usagef("--connections would use up a secret that is kept fresh")
	}
	r.For = cmp.Or(r.For, api.Duration(freshFor))
	files, err := newFreshFiles(cl, dir, r.Target)
	if err != nil {
		return err
	}
	s, err := cl.Secret(ctx, r)
	if err == nil {
		err = files.write(s)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "%s is kept fresh in %s. Ctrl-C ends it.\n", printable(r.Target), dir)
	fmt.Fprintf(a.out, "export PGSERVICEFILE=%s\nexport PGPASSFILE=%s\nexport PGSERVICE=%s\n", quoteShell(files.config), quoteShell(files.pass), quoteShell(r.Target))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { a.keepLogin(ctx, cl, workload); return context.Cause(ctx) })
	g.Go(func() error { return a.renewSecrets(ctx, cl, files, r, s) })
	return g.Wait()
}

// renewSecrets puts a new secret in the files when half of the last one's life is over.
func (a *app) renewSecrets(ctx context.Context, cl *client.Client, files *freshFiles, r api.SecretRequest, s api.Secret) error {
	say := a.sayOnce()
	wait := max(s.Expires.Sub(a.now())/2, freshLeast)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		s, err := cl.Secret(ctx, r)
		if err == nil {
			err = files.write(s)
		}
		if err != nil {
			if ctx.Err() == nil {
				say(err)
			}
			wait = freshRetry
			continue
		}
		wait = max(s.Expires.Sub(a.now())/2, freshLeast)
	}
}

func newFreshFiles(cl *client.Client, dir, target string) (*freshFiles, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	state, err := cl.State()
	if err != nil {
		return nil, err
	}
	f := &freshFiles{target: target, pass: filepath.Join(dir, "pgpass"), config: filepath.Join(dir, "pg_service.conf")}
	if state.CA == "" {
		return f, nil
	}
	f.ca = filepath.Join(dir, "ca.pem")
	return f, replaceFile(f.ca, []byte(state.CA))
}

// write puts a secret in the files. The password comes first, beside the one
// before it: whoever reads the files meanwhile finds a pair that belongs together.
func (f *freshFiles) write(s api.Secret) error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return fmt.Errorf("the server's URL: %w", err)
	}
	f.lines = [2]string{passLine(s.Host, s.Port, s.User, s.Password), f.lines[0]}
	if err := replaceFile(f.pass, []byte(f.lines[0]+f.lines[1])); err != nil {
		return err
	}
	service := fmt.Sprintf("[%s]\nhost=%s\nport=%d\nuser=%s\ndbname=%s\npassfile=%s\nsslmode=%s\n", f.target, s.Host, s.Port, s.User, s.Database, f.pass, u.Query().Get("sslmode"))
	if f.ca != "" {
		service += "sslrootcert=" + f.ca + "\n"
	}
	return replaceFile(f.config, []byte(service))
}
