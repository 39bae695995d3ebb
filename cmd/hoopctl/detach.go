package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// background is a connect that runs without its terminal, as its file in
// HOOPCTL_HOME/forwards tells: 0600, as it holds the forwards' secrets.
type background struct {
	Name    string    `json:"name"` // its targets
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Places  []place   `json:"places"`
}

// backgroundName is what list and stop call it.
func backgroundName(targets []string) string { return strings.Join(targets, ",") }

// backgroundFile is a file of a background connect: .json, .lock or .log.
func (a *app) backgroundFile(name, ext string) (string, error) {
	if strings.ContainsAny(name, `/\`) || len(name) > 200 {
		return "", usagef("%q is no name of targets", name)
	}
	home, err := a.home()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(home, "forwards")
	return filepath.Join(dir, name+ext), os.MkdirAll(dir, 0o700)
}

// lockBackground takes the lock that says that it runs: it ends with the
// process, however that ends. The error is errRuns if another has it.
func (a *app) lockBackground(name string) (*os.File, error) {
	path, err := a.backgroundFile(name, ".lock")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, errRuns
	}
	return f, nil
}

var errRuns = errors.New("it runs already")

// readBackground is the connect of that name if it runs, nil if it does not.
func (a *app) readBackground(name string) (*background, error) {
	path, err := a.backgroundFile(name, ".json")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	lock, err := a.lockBackground(name)
	if err == nil {
		os.Remove(path) // of one that was killed
		lock.Close()
		return nil, nil
	}
	if !errors.Is(err, errRuns) {
		return nil, err
	}
	return loadBackground(path)
}

// loadBackground reads what a connect tells of itself, nil if it tells nothing yet.
func loadBackground(path string) (*background, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var bg background
	if err == nil {
		err = json.Unmarshal(b, &bg)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &bg, nil
}

// detach asks for what must be asked on the terminal, starts the same connect
// without it, and returns when that listens.
func (a *app) detach(ctx context.Context, o connectOptions, flags *pflag.FlagSet) error {
	name := backgroundName(o.targets)
	if bg, err := a.readBackground(name); err != nil {
		return err
	} else if bg != nil {
		return withHint(fmt.Errorf("%s is connected in the background already (process %d)", name, bg.PID), "hoopctl connect stop "+name)
	}
	if err := a.serviceLogin(ctx, o.workload); err != nil {
		return err
	}
	if err := a.grantsFor(ctx, o); err != nil {
		return err
	}
	logged, err := a.backgroundFile(name, ".log")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(logged, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, detachedArgs(o, flags)...)
	cmd.Stdout, cmd.Stderr = log, log
	apart(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return a.awaitBackground(ctx, name, o.format, cmd, ended, logged)
}

// grantsFor asks for the grants here, where somebody can be told that people
// are asked, and can press Ctrl-C. The child finds them.
func (a *app) grantsFor(ctx context.Context, o connectOptions) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, t := range o.targets {
		if _, err := a.grantFor(ctx, cl, t, o.askOptions); err != nil {
			return err
		}
	}
	return nil
}

// detachedArgs is the command line of the child: the same, but for what the
// parent did.
func detachedArgs(o connectOptions, flags *pflag.FlagSet) []string {
	args := append([]string{"connect"}, o.targets...)
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "detach" && f.Name != "output" {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return append(args, "--in-background", "--output=uri")
}

// awaitBackground returns when the child listens, or says why it does not.
func (a *app) awaitBackground(ctx context.Context, name, format string, cmd *exec.Cmd, ended <-chan error, logged string) error {
	tick := time.NewTicker(50 * time.Millisecond) // another process cannot tell
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			cmd.Process.Kill()
			return context.Cause(ctx)
		case err := <-ended:
			said, _ := os.ReadFile(logged)
			a.err.Write(said)
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() > 0 {
				return &silentExit{exitCode(exit.ExitCode())}
			}
			return errors.New("it ended at once")
		case <-tick.C:
		}
		bg, err := loadBackground(strings.TrimSuffix(logged, ".log") + ".json")
		if err != nil {
			return err
		}
		if bg == nil || bg.PID != cmd.Process.Pid {
			continue
		}
		said, _ := os.ReadFile(logged)
		a.err.Write(said)
		fmt.Fprintf(a.err, "It goes on in the background (hoopctl connect stop %s).\n", name)
		for _, p := range bg.Places {
			if err := a.printPlace(format, p); err != nil {
				return err
			}
		}
		return nil
	}
}

// announce tells the parent, list and stop of this process until the returned
// function is called.
func (a *app) announce(places []place) (func(), error) {
	var targets []string
	for _, p := range places {
		targets = append(targets, p.Target)
	}
	name := backgroundName(targets)
	lock, err := a.lockBackground(name)
	for range 100 { // list and stop take it for a moment, to see whether they can
		if !errors.Is(err, errRuns) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		lock, err = a.lockBackground(name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s in the background: %w", name, err)
	}
	path, err := a.backgroundFile(name, ".json")
	if err == nil {
		err = writeJSONFile(path, background{Name: name, PID: os.Getpid(), Started: a.now(), Places: places})
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return func() { os.Remove(path); lock.Close() }, nil
}

// backgrounds are those that run, by name.
func (a *app) backgrounds() ([]background, error) {
	pattern, err := a.backgroundFile("*", ".json")
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var out []background
	for _, f := range files {
		bg, err := a.readBackground(strings.TrimSuffix(filepath.Base(f), ".json"))
		if err != nil {
			return nil, err
		}
		if bg != nil {
			out = append(out, *bg)
		}
	}
	slices.SortFunc(out, func(a, b background) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func newConnectList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "What connect -d runs in the background",
		Long: `List what connect -d runs in the background: target, local address, grant and its
end. -o json holds the URLs, too, with their passwords.`,
		Example: `  hoopctl connect list
  hoopctl connect list -o json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			format := a.format()
			if err := checkFormat(format, []string{"", "json", "yaml", "name"}); err != nil {
				return err
			}
			all, err := a.backgrounds()
			if err != nil {
				return err
			}
			return a.printBackgrounds(format, all)
		},
	}
}

func (a *app) printBackgrounds(format string, all []background) error {
	switch format {
	case "json", "yaml":
		if all == nil {
			all = []background{}
		}
		return printObject(a.out, format, all)
	case "name":
		for _, bg := range all {
			fmt.Fprintln(a.out, bg.Name)
		}
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintln(a.err, "Nothing runs in the background.")
		return nil
	}
	t := newTable(a.out)
	fmt.Fprintln(t, "NAME\tTARGET\tADDRESS\tGRANT\tENDS\tPROCESS")
	for _, bg := range all {
		for _, p := range bg.Places {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\n", bg.Name, p.Target, p.Host+":"+strconv.Itoa(p.Port), p.Grant, clock(a.now(), p.Expires), bg.PID)
		}
	}
	return t.Flush()
}

func newConnectStop(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "stop NAME…",
		Short: "End what connect -d runs in the background",
		Example: `  hoopctl connect stop clinic
  hoopctl connect stop --all`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			running, _ := a.backgrounds()
			var names []string
			for _, bg := range running {
				names = append(names, bg.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usagef("connect stop takes names, or --all")
			}
			if all {
				running, err := a.backgrounds()
				if err != nil {
					return err
				}
				for _, bg := range running {
					args = append(args, bg.Name)
				}
			}
			for _, name := range args {
				if err := a.stopBackground(cmd.Context(), name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

// stopBackground asks it to end, and waits until it has.
func (a *app) stopBackground(ctx context.Context, name string) error {
	bg, err := a.readBackground(name)
	if err != nil {
		return err
	}
	if bg == nil {
		return withHint(fmt.Errorf("%q does not run in the background", name), "hoopctl connect list")
	}
	p, err := os.FindProcess(bg.PID)
	if err == nil {
		err = end(p)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end process %d: %w", bg.PID, err)
	}
	late := time.After(10 * time.Second)
	for {
		if bg, err = a.readBackground(name); err != nil || bg == nil {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			return fmt.Errorf("process %d of %s does not end", bg.PID, name)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err == nil {
		fmt.Fprintf(a.out, "%s stopped\n", name)
	}
	return err
}
