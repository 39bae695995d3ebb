package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/hoopctl/hoopctl/server/parser"
)

// app is what a run of hoopctl touches of the world. Its fields are set once,
// before the first verb runs.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	now      func() time.Time
	openURL  func(string) error

	settings *viper.Viper // flag > environment > config.yaml > default
	started  bool         // a verb's own code runs: errors are no longer usage errors
	child    atomic.Pointer[os.Process]
}

// run is hoopctl but for the exit. It answers the exit code.
func run(ctx context.Context, args []string, a *app) int {
	if len(args) > 0 && args[0] == parserVerb {
		// The SQL parser's child: no settings, no signals, nothing but its pipes.
		return parser.Main(args[1:], a.in, a.out, a.err)
	}
	ctx, stop := a.untilSignal(ctx)
	defer stop()
	root := newRoot(a)
	if path, ok := a.plugin(root, args); ok {
		err := a.runPlugin(ctx, path, args[1:])
		report(a.err, false, err)
		return int(codeOf(err))
	}
	root.SetArgs(args)
	_, err := root.ExecuteContextC(ctx)
	if err != nil && !a.started {
		err = asUsage(err)
	}
	err = causeOf(ctx, err)
	report(a.err, wantsJSON(args) || a.settings.GetString("output") == "json", err)
	return int(codeOf(err))
}

// untilSignal ends the context at SIGINT or SIGTERM, with the signal as its
// cause; while a child runs, signals are the child's. After the first signal
// that ended the context the next one is the system's: it ends the process.
func (a *app) untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go func() {
		for {
			select {
			case s := <-c:
				if child := a.child.Load(); child != nil {
					passSignal(child, s)
					continue
				}
				signal.Stop(c)
				cancel(&signalled{s})
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { signal.Stop(c); cancel(nil) }
}

// asUsage marks what cobra finds wrong with a command line.
func asUsage(err error) error {
	var u *usageError
	var c *coded
	if errors.As(err, &u) || errors.As(err, &c) {
		return err
	}
	message, hint, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n\t")
	if hint = strings.TrimSpace(hint); hint != "" {
		hint = "did you mean: " + strings.Join(strings.Fields(hint), ", ")
	} else {
		hint = "see hoopctl --help"
	}
	return &usageError{message: message, hint: hint}
}

// wantsJSON looks for -o json where the command line could not be parsed.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch {
		case arg == "--":
			return false
		case arg == "-ojson", arg == "-o=json", arg == "--output=json":
			return true
		case (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == "json":
			return true
		}
	}
	return false
}

// parserVerb is the argument with which this binary starts itself as the SQL
// parser's child.
const parserVerb = "__parse"

func newRoot(a *app) *cobra.Command {
	a.settings = viper.New()
	root := &cobra.Command{
		Use:   "hoopctl",
		Short: "Reach databases through a broker that decides, masks and records",
		Long: `hoopctl is an access broker. People, scripts and services reach databases
through it with their own native clients. It proves who asks, decides what they
may do, asks a human when it must, hides what they may not see, and keeps
evidence that holds up in an audit.

Try it on this machine:

  hoopctl dev                 # the whole house, with a sample clinic database
  hoopctl dev login alice     # in another terminal
  hoopctl connect clinic --client

Settings: flag > environment (HOOPCTL_<FLAG>) > config.yaml in HOOPCTL_HOME > default.
An executable hoopctl-foo on PATH is the verb foo.`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadSettings(cmd); err != nil {
				return err
			}
			a.started = true
			return nil
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{message: err.Error(), hint: "see " + cmd.CommandPath() + " --help"}
	})
	f := root.PersistentFlags()
	f.String("context", "", "context of config.yaml to use")
	f.String("server", "", "URL of the server, instead of the context's")
	f.StringP("output", "o", "", "output format: see each verb; json prints one document, and errors as one object")
	f.Bool("no-input", false, "never ask a question (also when there is no terminal)")

	root.AddGroup(
		&cobra.Group{ID: "access", Title: "Access:"},
		&cobra.Group{ID: "ask", Title: "Asking and answering:"},
		&cobra.Group{ID: "know", Title: "Knowing:"},
		&cobra.Group{ID: "run", Title: "Running it:"},
		&cobra.Group{ID: "self", Title: "This program:"},
	)
	root.SetHelpCommandGroupID("self")
	root.SetCompletionCommandGroupID("self")
	for _, verb := range verbs(a) {
		root.AddCommand(verb)
	}
	return root
}

// verbs lists every verb, in the order of the help.
func verbs(a *app) []*cobra.Command {
	in := func(group string, cmds ...*cobra.Command) []*cobra.Command {
		for _, c := range cmds {
			c.GroupID = group
		}
		return cmds
	}
	return slices.Concat(
		in("access", newLogin(a), newLogout(a), newAuth(a), newConnect(a), newExec(a), newSecret(a)),
		in("ask", newRequest(a), newApprove(a), newDeny(a)),
		in("know", newGet(a), newDescribe(a), newDelete(a), newApply(a), newDiff(a), newExplain(a), newExplainResource(a), newPolicy(a), newDiscover(a), newClassify(a), newAudit(a), newReplay(a), newSessions(a)),
		in("run", newDev(a), newServer(a), newWitness(a), newCA(a), newDoctor(a)),
		in("self", newVersion(a), newConfig(a)),
		[]*cobra.Command{{Use: "exit-codes", Short: "What each exit code means", Long: exitCodesHelp}},
	)
}

// loadSettings gives each flag of the verb that was not on the command line
// the value of its environment variable or of config.yaml.
func (a *app) loadSettings(cmd *cobra.Command) error {
	v := a.settings
	v.SetEnvPrefix("HOOPCTL")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	if path := a.configPath(); path != "" {
		v.SetConfigFile(path)
		if err := v.ReadInConfig(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return withHint(fmt.Errorf("read %s: %w", path, err), "correct the file, or remove it and log in again")
		}
	}
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || failed != nil {
			return
		}
		if err := errors.Join(v.BindPFlag(f.Name, f), v.BindEnv(f.Name)); err != nil {
			failed = err
			return
		}
		if f.Changed || !v.IsSet(f.Name) {
			return
		}
		if err := f.Value.Set(v.GetString(f.Name)); err != nil {
			failed = usagef("HOOPCTL_%s or %s in config.yaml: %v", strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), f.Name, err)
		}
	})
	return failed
}

// noInput says whether questions are out of place.
func (a *app) noInput() bool {
	return a.settings.GetBool("no-input") || !isTerminal(a.in)
}

// isTerminal says whether a stream is a person's terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && (isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()))
}

// colour says whether w may be written to in colour (https://no-color.org).
func (a *app) colour(w io.Writer) bool {
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && isTerminal(w)
}

// home is the folder of config.yaml, of the forwards' ports and, where
// HOOPCTL_HOME is set, of the login.
func (a *app) home() (string, error) {
	if dir := a.getenv("HOOPCTL_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := a.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "hoopctl"), nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", withHint(fmt.Errorf("find the configuration folder: %w", err), "set HOOPCTL_HOME")
	}
	return filepath.Join(dir, "hoopctl"), nil
}

func (a *app) configPath() string {
	dir, err := a.home()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "config.yaml")
}

// plugin finds hoopctl-foo for the unknown verb foo.
func (a *app) plugin(root *cobra.Command, args []string) (string, bool) {
	if len(args) == 0 || args[0] == "" || strings.HasPrefix(args[0], "-") || strings.ContainsAny(args[0], `/\`) {
		return "", false
	}
	// cobra adds these two, and the one behind completion, when it runs.
	if slices.Contains([]string{"help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, args[0]) {
		return "", false
	}
	if cmd, _, err := root.Find(args[:1]); err == nil && cmd != root {
		return "", false
	}
	path, err := exec.LookPath("hoopctl-" + args[0])
	return path, err == nil
}

func (a *app) runPlugin(ctx context.Context, path string, args []string) error {
	return a.runChild(ctx, exec.Command(path, args...))
}

// runChild runs a local command on our streams and answers with its own exit
// code. Signals are the child's while it lives: psql cancels a statement at
// Ctrl-C and goes on. If ctx ends meanwhile the child is asked to end.
func (a *app) runChild(ctx context.Context, cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return &coded{fmt.Errorf("run %s: command not found", cmd.Args[0]), exitNotFound}
		}
		return &coded{fmt.Errorf("run %s: %w", cmd.Args[0], err), exitCannot}
	}
	a.child.Store(cmd.Process)
	defer a.child.Store(nil)
	stop := context.AfterFunc(ctx, func() { passSignal(cmd.Process, syscall.SIGTERM) })
	defer stop()
	return childExit(cmd.Wait())
}

// childExit is a child's end as our own: its code, or 128 and its signal.
func childExit(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if s, ok := childSignal(exit.ProcessState); ok {
		return exitWith(exitSignal + exitCode(s))
	}
	return exitWith(exitCode(exit.ExitCode()))
}

// group makes a command that only holds others: alone it shows its help, and
// an unknown word after it is a usage error.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(children...)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &usageError{
				message: fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath()),
				hint:    "see " + cmd.CommandPath() + " --help",
			}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// takes is an argument check whose error says what is wanted.
func takes(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || high >= 0 && len(args) > high {
			return &usageError{
				message: fmt.Sprintf("%s takes %s, not %d argument(s)", cmd.CommandPath(), what, len(args)),
				hint:    "see " + cmd.CommandPath() + " --help",
			}
		}
		return nil
	}
}
