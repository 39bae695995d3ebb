package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/hoopctl/hoopctl/server/api"
)

// contextConfig is one entry of config.yaml: a server, by a name of one's own.
type contextConfig struct {
	Name   string `yaml:"name" json:"name"`
	Server string `yaml:"server" json:"server"`
	// CAFingerprint pins the server's CA: sha256:HEX of its certificate.
	CAFingerprint string `yaml:"caFingerprint,omitempty" json:"caFingerprint,omitempty"`
	// CAFile holds roots to trust for the server, in PEM.
	CAFile string `yaml:"caFile,omitempty" json:"caFile,omitempty"`
	// Issuer names the identity provider to log in at, where there are several.
	Issuer string `yaml:"issuer,omitempty" json:"issuer,omitempty"`
}

// configFile is config.yaml. Every other key in it is a flag's default, which
// viper reads; writing keeps those.
type configFile struct {
	CurrentContext string          `yaml:"currentContext,omitempty" json:"currentContext,omitempty"`
	Contexts       []contextConfig `yaml:"contexts,omitempty" json:"contexts"`
	Defaults       map[string]any  `yaml:",inline" json:"-"`
}

func (f *configFile) find(name string) (contextConfig, bool) {
	i := slices.IndexFunc(f.Contexts, func(c contextConfig) bool { return c.Name == name })
	if i < 0 {
		return contextConfig{}, false
	}
	return f.Contexts[i], true
}

func (f *configFile) set(c contextConfig) {
	i := slices.IndexFunc(f.Contexts, func(o contextConfig) bool { return o.Name == c.Name })
	if i < 0 {
		f.Contexts = append(f.Contexts, c)
		return
	}
	f.Contexts[i] = c
}

func (a *app) readConfig() (*configFile, error) {
	dir, err := a.home()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.yaml")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return &configFile{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	f := new(configFile)
	if err := yaml.Unmarshal(b, f); err != nil {
		return nil, withHint(fmt.Errorf("read %s: %w", path, err), "correct the file, or remove it and log in again")
	}
	return f, nil
}

// writeConfig replaces config.yaml as a whole: a reader sees the old one or the
// new one.
func (a *app) writeConfig(f *configFile) error {
	dir, err := a.home()
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return replaceFile(filepath.Join(dir, "config.yaml"), b)
}

// replaceFile writes a 0600 file beside path and renames it over it.
func replaceFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// context is the context that a verb works in: --server alone, the one that
// --context names, or the current one.
func (a *app) context() (contextConfig, error) {
	f, err := a.readConfig()
	if err != nil {
		return contextConfig{}, err
	}
	name, server := a.settings.GetString("context"), a.settings.GetString("server")
	if name == "" && server != "" {
		// A server that a context knows keeps what that context pins.
		for _, c := range f.Contexts {
			if c.Server == server {
				return c, nil
			}
		}
		return contextConfig{Server: server}, nil
	}
	if name == "" {
		name = f.CurrentContext
	}
	if name == "" {
		return contextConfig{}, &api.Error{Reason: api.ReasonLoginNeeded, Source: "client",
			Message: "no server is named and there is no current context",
			Hint:    "log in first: hoopctl login https://HOST:8443 (or hoopctl dev login alice)"}
	}
	c, ok := f.find(name)
	if !ok {
		return c, &usageError{message: fmt.Sprintf("there is no context %q", name), hint: "see hoopctl config get-contexts"}
	}
	if server != "" {
		c.Server = server
	}
	return c, nil
}

func newConfig(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "config",
		Short:   "Contexts: which server, by a name of one's own",
		Example: "  hoopctl config get-contexts\n  hoopctl config use-context prod",
	}, newConfigGet(a), newConfigUse(a), newConfigSet(a), newConfigDelete(a), newConfigView(a))
}

// namedContext is a context and whether it is the current one.
type namedContext struct {
	contextConfig
	current bool
}

func contextKind() kind[namedContext] {
	return kind[namedContext]{
		singular: "context", plural: "contexts", list: "ContextList",
		name: func(c namedContext) string { return c.Name },
		columns: []column[namedContext]{
			{header: "CURRENT", cell: func(c namedContext) string {
				if c.current {
					return "*"
				}
				return ""
			}},
			{header: "NAME", cell: func(c namedContext) string { return c.Name }},
			{header: "SERVER", cell: func(c namedContext) string { return c.Server }},
			{header: "CA", wide: true, cell: func(c namedContext) string { return c.CAFingerprint }},
		},
	}
}

func newConfigGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "get-contexts",
		Short:   "List the contexts",
		Example: "  hoopctl config get-contexts",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(a.format(), listFormats); err != nil {
				return err
			}
			f, err := a.readConfig()
			if err != nil {
				return err
			}
			var all []namedContext
			for _, c := range f.Contexts {
				all = append(all, namedContext{c, c.Name == f.CurrentContext})
			}
			return printList(a.out, a.format(), contextKind(), all)
		},
	}
}

func newConfigUse(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "use-context NAME",
		Short:             "Make a context the current one",
		Example:           "  hoopctl config use-context prod",
		Args:              takes(1, 1, "the name of a context"),
		ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.readConfig()
			if err != nil {
				return err
			}
			if _, ok := f.find(args[0]); !ok {
				return withHint(fmt.Errorf("there is no context %q", args[0]), "see hoopctl config get-contexts")
			}
			f.CurrentContext = args[0]
			return a.writeConfig(f)
		},
	}
}

func newConfigSet(a *app) *cobra.Command {
	var fingerprint, caFile, issuer string
	cmd := &cobra.Command{
		Use:     "set-context NAME",
		Short:   "Create or change a context",
		Example: "  hoopctl config set-context prod --server https://broker.example.com:8443 --ca-fingerprint sha256:5f1c…",
		Args:    takes(1, 1, "the name of a context"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.readConfig()
			if err != nil {
				return err
			}
			c, _ := f.find(args[0])
			c.Name = args[0]
			c.Server = cmp.Or(a.settings.GetString("server"), c.Server)
			c.CAFingerprint = cmp.Or(fingerprint, c.CAFingerprint)
			c.CAFile = cmp.Or(caFile, c.CAFile)
			c.Issuer = cmp.Or(issuer, c.Issuer)
			if c.Server == "" {
				return usagef("a new context needs --server")
			}
			f.set(c)
			if f.CurrentContext == "" {
				f.CurrentContext = c.Name
			}
			return a.writeConfig(f)
		},
	}
	cmd.Flags().StringVar(&fingerprint, "ca-fingerprint", "", "pin the server's CA: sha256:HEX")
	cmd.Flags().StringVar(&caFile, "ca-file", "", "trust these roots (PEM) for the server")
	cmd.Flags().StringVar(&issuer, "issuer", "", "log in at this identity provider, by its name")
	return cmd
}

func newConfigDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "delete-context NAME",
		Short:             "Delete a context; its login stays until hoopctl logout",
		Example:           "  hoopctl config delete-context old",
		Args:              takes(1, 1, "the name of a context"),
		ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.readConfig()
			if err != nil {
				return err
			}
			if _, ok := f.find(args[0]); !ok {
				return withHint(fmt.Errorf("there is no context %q", args[0]), "see hoopctl config get-contexts")
			}
			f.Contexts = slices.DeleteFunc(f.Contexts, func(c contextConfig) bool { return c.Name == args[0] })
			if f.CurrentContext == args[0] {
				f.CurrentContext = ""
			}
			return a.writeConfig(f)
		},
	}
}

func newConfigView(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "view",
		Short:   "Print the configuration; there are no secrets in it",
		Example: "  hoopctl config view\n  hoopctl config view -o json",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			f, err := a.readConfig()
			if err != nil {
				return err
			}
			if a.format() == "json" {
				return printObject(a.out, "json", f)
			}
			e := yaml.NewEncoder(a.out)
			e.SetIndent(2)
			if err := e.Encode(f); err != nil {
				return fmt.Errorf("write as yaml: %w", err)
			}
			return e.Close()
		},
	}
}

func (a *app) completeContexts(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	f, err := a.readConfig()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range f.Contexts {
		if strings.HasPrefix(c.Name, prefix) {
			names = append(names, c.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// format is what -o asks for.
func (a *app) format() string { return a.settings.GetString("output") }
