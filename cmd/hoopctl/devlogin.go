package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/server/devidp"
)

func newDevLogin(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "login USER",
		Short: "Log in to a running hoopctl dev, for scripts and demos",
		Long: `Find the hoopctl dev that runs on --dir, set a context for it (dev, or the one
that --context names), perform the real device flow and answer the provider's
page as USER. It works against the development provider only.`,
		Example: "  hoopctl dev login alice\n  HOOPCTL_HOME=/tmp/bob hoopctl dev login bob --dir ./state",
		Args:    takes(1, 1, "a user: alice, bob, carol, dave, erin, or the service billing"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, u := range devUsers() {
				if strings.HasPrefix(u.Name, prefix) && len(args) == 0 {
					names = append(names, u.Name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			var err error
			if dir, err = a.devDir(dir); err != nil {
				return err
			}
			return a.devLogin(cmd.Context(), dir, args[0])
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the running hoopctl dev")
	return cmd
}

func (a *app) devLogin(ctx context.Context, dir, user string) error {
	r, err := runningHouse(ctx, dir)
	if err != nil {
		return err
	}
	c := contextConfig{Name: a.settings.GetString("context"), Server: r.Server, CAFile: r.CAFile, CAFingerprint: r.CAFingerprint}
	if c.Name == "" {
		c.Name = devContext
	}
	o := client.LoginOptions{CAFingerprint: r.CAFingerprint, CAFile: r.CAFile, Issuer: devIssuer, Prompt: func(client.Prompt) {}}
	switch {
	case slices.ContainsFunc(r.Users, func(u devUser) bool { return u.Name == user }):
		o.OpenURL = func(page string) error { return devidp.Answer(ctx, page, user, r.Password) }
	case user == devService:
		o.Issuer, o.Workload, o.Prompt = devServiceIssuer, r.Services[0].WorkloadFile, nil
		c.Issuer = devServiceIssuer
	default:
		return &usageError{message: fmt.Sprintf("hoopctl dev has no user %q", user), hint: "it has alice, bob, carol, dave and erin, and the service billing"}
	}
	cl, err := a.connectTo(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	enrolled, err := cl.Login(ctx, o)
	if err != nil {
		return distrusted(err)
	}
	if err := a.remember(c, cl); err != nil {
		return err
	}
	if a.format() != "" {
		return printObject(a.out, a.format(), enrolled)
	}
	fmt.Fprintf(a.err, "Logged in to %s as %s until %s (context %s).\n", c.Server, enrolled.Principal.Name, clock(a.now(), enrolled.LoginEnds), c.Name)
	a.afterLogin(ctx, cl)
	return nil
}

// runningHouse reads where the instance on dir is, and checks that it answers:
// a kill -9 leaves the file behind.
func runningHouse(ctx context.Context, dir string) (readiness, error) {
	none := func(why string) error {
		return withHint(fmt.Errorf("no hoopctl dev runs on %s: %s", dir, why), "start it: hoopctl dev; or name its folder with --dir")
	}
	b, err := os.ReadFile(filepath.Join(dir, "ready.json"))
	if errors.Is(err, os.ErrNotExist) {
		return readiness{}, none("it is not ready, or was never started")
	}
	if err != nil {
		return readiness{}, fmt.Errorf("find the running hoopctl dev: %w", err)
	}
	var r readiness
	if err := json.Unmarshal(b, &r); err != nil || len(r.Services) == 0 {
		return r, none("its ready.json cannot be read")
	}
	u, err := url.Parse(r.Server)
	if err != nil {
		return r, none("its ready.json names no server")
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return r, none("nothing answers at " + u.Host)
	}
	conn.Close()
	return r, nil
}

// fingerprintFile is sha256:HEX of the first certificate in a PEM file.
func fingerprintFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the CA: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return "", fmt.Errorf("read the CA: %s holds no PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read the CA: %w", err)
	}
	return client.Fingerprint(cert), nil
}
