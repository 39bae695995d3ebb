package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/hoopctl/hoopctl/server"
)

// serverOptions are the flags of server.
type serverOptions struct {
	config string
	check  bool
	debug  bool
}

func newServer(a *app) *cobra.Command {
	var o serverOptions
	cmd := &cobra.Command{
		Use:   "server --config FILE",
		Short: "Run the server",
		Long: `Run the server until SIGINT or SIGTERM: it then lets nobody in, tells the live
sessions, and closes the evidence last. Every plain field of the file is also a
flag and an environment variable: evidence.dir is --evidence-dir and
HOOPCTL_SERVER_EVIDENCE_DIR. Unknown fields are errors.`,
		Example: `  hoopctl server --config /etc/hoopctl/server.yaml
  hoopctl server --config server.yaml --check
  HOOPCTL_SERVER_LISTEN=0.0.0.0:8443 hoopctl server --config server.yaml`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.serverConfig(cmd.Flags(), o.config)
			if err != nil {
				return err
			}
			if o.check {
				return a.checkServer(c)
			}
			return a.runServer(cmd.Context(), c, o.debug)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "the configuration: server.yaml")
	f.BoolVar(&o.check, "check", false, "validate, print the resolved configuration, and end")
	f.BoolVar(&o.debug, "debug", false, "log more")
	for _, field := range serverFields(new(server.Config)) {
		f.String(field.flag, "", "overrides "+field.path)
	}
	return cmd
}

// serverField is a plain field of the configuration.
type serverField struct {
	path  string // evidence.dir
	flag  string // evidence-dir
	value reflect.Value
}

// environment is the variable that sets the field.
func (f serverField) environment() string {
	return "HOOPCTL_SERVER_" + strings.ToUpper(strings.ReplaceAll(f.flag, "-", "_"))
}

// serverFields are the text fields of a configuration, and those of its parts.
func serverFields(c *server.Config) []serverField {
	return plainFields("", reflect.ValueOf(c).Elem())
}

func plainFields(prefix string, v reflect.Value) []serverField {
	var out []serverField
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		switch field := v.Field(i); field.Kind() {
		case reflect.String:
			path := prefix + name
			out = append(out, serverField{path, kebab(path), field})
		case reflect.Struct:
			out = append(out, plainFields(prefix+name+".", field)...)
		}
	}
	return out
}

// kebab turns tls.certFile into tls-cert-file. Capitals in a row stay together:
// externalURL is external-url.
func kebab(path string) string {
	var b strings.Builder
	var last rune
	for _, r := range path {
		upper := r >= 'A' && r <= 'Z'
		switch {
		case r == '.':
			b.WriteByte('-')
		case upper && !(last >= 'A' && last <= 'Z') && b.Len() > 0:
			b.WriteByte('-')
			b.WriteRune(r + 'a' - 'A')
		case upper:
			b.WriteRune(r + 'a' - 'A')
		default:
			b.WriteRune(r)
		}
		last = r
	}
	return b.String()
}

// serverConfig reads the file, and puts flags and environment over it.
func (a *app) serverConfig(flags *pflag.FlagSet, path string) (server.Config, error) {
	var c server.Config
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("read the configuration: %w", err)
		}
		d := yaml.NewDecoder(bytes.NewReader(b))
		d.KnownFields(true)
		if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
			return c, withHint(fmt.Errorf("%s: %w", path, err), "docs/cli.md lists the fields of server.yaml")
		}
	}
	for _, f := range serverFields(&c) {
		if v, err := flags.GetString(f.flag); err == nil && flags.Changed(f.flag) {
			f.value.SetString(v)
		} else if v := a.getenv(f.environment()); v != "" {
			f.value.SetString(v)
		}
	}
	c.Version = build().Version
	return c, nil
}

// checkServer validates a configuration without opening anything.
func (a *app) checkServer(c server.Config) error {
	resolved, err := c.Resolve()
	if err != nil {
		return err
	}
	e := yaml.NewEncoder(a.out)
	e.SetIndent(2)
	if err := e.Encode(resolved); err != nil {
		return fmt.Errorf("write as yaml: %w", err)
	}
	return e.Close()
}

func (a *app) runServer(ctx context.Context, c server.Config, debug bool) error {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	c.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	c.Now = a.now
	s, err := server.New(c)
	if err != nil {
		return err
	}
	err = s.Run(ctx)
	var signal *signalled
	if errors.As(context.Cause(ctx), &signal) && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}
