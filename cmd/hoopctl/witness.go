package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// witnessOptions are the flags of witness.
type witnessOptions struct {
	state, name, listen string
	logs                []string
	cert, key           string
	ready               string
}

func newWitness(a *app) *cobra.Command {
	var o witnessOptions
	cmd := &cobra.Command{
		Use:   "witness --state DIR --log KEY",
		Short: "Cosign a server's evidence, in other hands than the server's",
		Long: `Run an independent witness until SIGINT or SIGTERM. It remembers the newest
checkpoint of each log that it watches and cosigns only what goes on from there:
whoever rolls a log back, rewrites it, or shows two of them gets no cosignature,
even with the log's own key. What it saw is on the disk before it signs.

Run it where those who run the server have no access: its folder holds its key and
its memory. If the memory is lost, the key must be retired: it refuses to start.

It speaks C2SP tlog-witness (POST /add-checkpoint). It prints its verifier key:
give that to the server (evidence.witnesses in server.yaml) and, by other means
than the server, to those who verify (audit verify --witness KEY).`,
		Example: `  hoopctl witness --state /var/lib/witness --name audit.example.org/w1 --log "$(cat log.vkey)" --listen 0.0.0.0:7380
  hoopctl audit verify --witness "$(curl -s http://witness:7380/)"`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.state == "" || len(o.logs) == 0 {
				return usagef("--state and at least one --log are needed")
			}
			if (o.cert == "") != (o.key == "") {
				return usagef("--tls-cert and --tls-key go together")
			}
			return a.witness(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.state, "state", "", "folder of its key and memory; made if missing")
	f.StringVar(&o.name, "name", "", "name of its key when that is made, like audit.example.org/w1")
	f.StringVar(&o.listen, "listen", "127.0.0.1:7380", "address to listen on")
	f.StringArrayVar(&o.logs, "log", nil, "verifier key of a log to watch (hoopctl audit keys prints it); may be given several times")
	f.StringVar(&o.cert, "tls-cert", "", "certificate, to be spoken to by https")
	f.StringVar(&o.key, "tls-key", "", "its private key")
	f.StringVar(&o.ready, "ready-file", "", "write {\"key\",\"url\"} here once it answers")
	return cmd
}

func (a *app) witness(ctx context.Context, o witnessOptions) error {
	w, err := evidence.OpenWitness(evidence.WitnessConfig{Dir: o.state, Name: o.name, Logs: o.logs, Now: a.now, Logger: slog.New(slog.NewTextHandler(a.err, nil))})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", o.listen, err), w.Close())
	}
	scheme := "http"
	if o.cert != "" {
		scheme = "https"
	}
	address := scheme + "://" + l.Addr().String()
	fmt.Fprintf(a.out, "%s\n", w.Key())
	fmt.Fprintf(a.err, "Listening on %s. Its key is above.\n", address)
	if o.ready != "" {
		b, err := json.Marshal(map[string]string{"key": w.Key(), "url": address})
		if err == nil {
			err = replaceFile(o.ready, b)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("write the ready file: %w", err), l.Close(), w.Close())
		}
	}
	srv := &http.Server{Handler: w, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		srv.Shutdown(late)
	})
	defer stop()
	if o.cert != "" {
		err = srv.ServeTLS(l, o.cert, o.key)
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, w.Close())
}

func newAuditKeys(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Print the log's verifier key, as it was pinned at login",
		Long: `Print the verifier key of the server's evidence log, as this machine pinned it at
login. Hand it to witnesses and to auditors, by other means than the server.`,
		Example: "  hoopctl audit keys > log.vkey",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			if dir != "" {
				return a.logKeyOf(dir)
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
			if a.format() != "" {
				return printObject(a.out, a.format(), map[string]string{"server": state.Server, "logKey": state.LogKey})
			}
			_, err = fmt.Fprintln(a.out, state.LogKey)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "keys-dir", "", "on the server itself: read it from the server's folder of keys instead")
	cmd.AddCommand(newAuditKeysRotate(a))
	return cmd
}

func newAuditKeysRotate(a *app) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "rotate --config FILE",
		Short: "On the server, while it is stopped: give the log a new signing key",
		Long: `Give the evidence log a new signing key, and print its verifier key. The change is a
leaf of the log under the old key, so that whoever pinned the old one goes on
with it, and what the old key signs from then on counts no more; it is deleted. Tell
the witnesses the new key as well (hoopctl witness --log OLD --log NEW): until then
they refuse the log's checkpoints. Do this once a year, and when the key may have
been read by somebody.`,
		Example: "  hoopctl audit keys rotate --config /etc/hoopctl/server.yaml > log.vkey",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return usagef("--config is missing: the server's configuration")
			}
			c, err := a.serverConfig(cmd.Flags(), config)
			if err != nil {
				return err
			}
			key, err := server.RotateLogKey(cmd.Context(), c)
			if err != nil {
				return err
			}
			if a.format() != "" {
				return printObject(a.out, a.format(), map[string]string{"logKey": key})
			}
			_, err = fmt.Fprintln(a.out, key)
			return err
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the server's configuration: server.yaml")
	return cmd
}

// logKeyOf prints the verifier key that belongs to the log's private key.
func (a *app) logKeyOf(dir string) error {
	key, err := evidence.LogKeyOf(filepath.Join(dir, "log.key"))
	if err != nil {
		return err
	}
	if a.format() != "" {
		return printObject(a.out, a.format(), map[string]string{"logKey": key})
	}
	_, err = fmt.Fprintln(a.out, key)
	return err
}
