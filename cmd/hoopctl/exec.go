package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/client/forward"
	"github.com/hoopctl/hoopctl/server/api"
)

// execOptions are the flags of exec.
type execOptions struct {
	askOptions
	target   string
	command  []string // after --
	sql      []string // -c
	file     string   // -f
	format   string
	maxRows  int64
	timeout  time.Duration
	database string
	resume   string // name of the request whose approval is to be used
}

func newExec(a *app) *cobra.Command {
	o := new(execOptions)
	cmd := &cobra.Command{
		Use:     "exec TARGET [-c SQL | -f FILE | < FILE] | exec TARGET -- CMD ARGS…",
		Aliases: []string{"run"},
		Short:   "Run statements, or a local command on a private port",
		Long: `Run statements and print only their results, or run a local command with
PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE and DATABASE_URL set to
a port that lives as long as the command does; every PG* that you had set is
cleared first. A command's own exit code is passed on.

Statements are run one by one, each a transaction unless you begin one, until
the first error. Messages go to stderr.

With --resume the statement runs only by the approval of that request, which an
earlier run with --no-wait left (exit 120): exactly what was approved, once. It
need not be given again.`,
		Example: `  hoopctl exec clinic -c "SELECT id, diagnosis FROM patients LIMIT 5" -o csv
  hoopctl exec clinic -f report.sql -o json > report.json
  hoopctl exec clinic --no-wait -c "DELETE FROM visits"   # exit 120: request r-12
  hoopctl exec clinic --resume r-12
  hoopctl exec clinic -- pg_dump --schema-only`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeTargets(cmd, args, prefix)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(args, cmd.ArgsLenAtDash(), a.format()); err != nil {
				return err
			}
			ctx := cmd.Context()
			if o.timeout > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errTimeout)
				defer cancel()
			}
			err := a.exec(ctx, *o)
			return causeOf(ctx, err)
		},
	}
	f := cmd.Flags()
	o.askOptions.flags(f)
	f.StringArrayVarP(&o.sql, "command", "c", nil, "statements to run; may be given several times")
	f.StringVarP(&o.file, "file", "f", "", "file of statements (- is stdin)")
	f.Int64Var(&o.maxRows, "max-rows", 0, "stop each statement after this many rows")
	f.DurationVar(&o.timeout, "timeout", 0, "give up after this long, waiting for approval included (exit 124)")
	f.StringVar(&o.resume, "resume", "", "run by the approval of this request, or not at all")
	f.StringVarP(&o.database, "database", "d", "", "another database of the target's")
	return cmd
}

func (o *execOptions) parse(args []string, dash int, format string) error {
	switch {
	case dash == 0 || len(args) == 0:
		return &usageError{message: "exec takes a target", hint: "see hoopctl exec --help"}
	case dash > 1 || dash < 0 && len(args) > 1:
		return &usageError{message: fmt.Sprintf("exec takes one target, not %d arguments", len(args)), hint: "a local command goes after --"}
	case dash == 1 && len(args) == 1:
		return usagef("there is no command after --")
	}
	o.target, o.format = args[0], format
	if dash == 1 {
		o.command = args[1:]
	}
	switch {
	case o.command != nil && (len(o.sql) > 0 || o.file != ""):
		return usagef("use -c, -f or a command after --, not several of them")
	case len(o.sql) > 0 && o.file != "":
		return usagef("use -c or -f, not both")
	case o.command != nil && o.resume != "":
		return usagef("--resume is for a statement, not for a local command")
	case o.resume != "" && o.noWait:
		return usagef("--resume never waits: leave --no-wait out")
	case o.maxRows < 0:
		return usagef("--max-rows cannot be negative")
	case o.command != nil:
		return checkFormat(format, []string{"", "json"})
	default:
		return checkFormat(format, append([]string{""}, exec.Formats()...))
	}
}

func (a *app) exec(ctx context.Context, o execOptions) error {
	var statements []string
	if o.command == nil && (o.resume == "" || len(o.sql) > 0 || o.file != "") {
		var err error
		if statements, err = a.statements(o); err != nil {
			return err
		}
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	if o.resume != "" {
		if statements, err = a.resume(ctx, cl, &o, statements); err != nil {
			return err
		}
	}
	grant, err := a.grantFor(ctx, cl, o.target, o.askOptions)
	if err != nil {
		return err
	}
	if o.command != nil {
		return a.execCommand(ctx, cl, grant, o)
	}
	return a.execStatements(ctx, cl, grant, o, statements)
}

// resume finds the statement of an approved request. The server holds the
// session to that request whatever is found here; this says in plain words why
// a request is of no use, before anything is opened.
func (a *app) resume(ctx context.Context, cl *client.Client, o *execOptions, statements []string) ([]string, error) {
	r, err := cl.Request(ctx, o.resume)
	if err != nil {
		return nil, err
	}
	name := r.Metadata.Name
	conflict := func(format string, args ...any) error {
		return &api.Error{Reason: api.ReasonConflict, Source: "broker", Request: name, Message: fmt.Sprintf(format, args...),
			Hint: "hoopctl describe request " + name + " shows what was asked"}
	}
	switch {
	case r.Spec.Target != o.target:
		return nil, conflict("request %s is about %s, not about %s", name, r.Spec.Target, o.target)
	case r.Status.Phase == "pending":
		return nil, &api.Error{Reason: api.ReasonPending, Source: "broker", Request: name,
			Message: fmt.Sprintf("request %s waits for %s", name, approvers(r)), Hint: "hoopctl request wait " + name}
	case r.Spec.Kind == "grant":
		o.resume = "" // approved, it has become a grant; what runs under it may be held like anything else
		if err := decided(r); err != nil {
			return nil, err
		}
		if len(statements) == 0 {
			return nil, &usageError{message: name + " asked for a grant: there is no statement in it", hint: "give one with -c or -f"}
		}
		return statements, nil
	case r.Status.Phase == "used":
		return nil, conflict("request %s was approved and has been used: an approval is good for once", name)
	}
	if err := decided(r); err != nil {
		return nil, err
	}
	if len(statements) == 0 {
		statements = []string{r.Spec.Statement}
	}
	if len(statements) > 1 || statements[0] != r.Spec.Statement {
		return nil, conflict("request %s was approved for another statement", name)
	}
	return statements, nil
}

// statements reads what is to be run.
func (a *app) statements(o execOptions) ([]string, error) {
	var script string
	switch {
	case len(o.sql) > 0:
		var all []string
		for _, s := range o.sql {
			all = append(all, exec.Split(s)...)
		}
		return some(all)
	case o.file != "" && o.file != "-":
		b, err := os.ReadFile(o.file)
		if err != nil {
			return nil, fmt.Errorf("read the statements: %w", err)
		}
		script = string(b)
	case isTerminal(a.in):
		return nil, &usageError{message: "there is nothing to run", hint: "give -c, -f or a file on stdin; for a prompt: hoopctl connect --client"}
	default:
		b, err := io.ReadAll(a.in)
		if err != nil {
			return nil, fmt.Errorf("read the statements: %w", err)
		}
		script = string(b)
	}
	return some(exec.Split(script))
}

func some(statements []string) ([]string, error) {
	if len(statements) == 0 {
		return nil, usagef("there is no statement to run")
	}
	return statements, nil
}

func (a *app) execStatements(ctx context.Context, cl *client.Client, grant api.Grant, o execOptions, statements []string) error {
	private, err := forward.NewPrivate(cl, grant.Metadata.Name)
	if err != nil {
		return err
	}
	config := exec.Config{
		Dial: private.Dial, User: forwardUser, Password: private.Secret(), Database: o.database,
		Application: "hoopctl-exec", Notice: a.notice(o.format == "json" || o.format == "ndjson"),
	}
	switch {
	case o.resume != "":
		config.Settings = map[string]string{"hoopctl.resume": o.resume}
	case o.noWait:
		config.Settings = map[string]string{"hoopctl.wait": "off"}
	}
	if config.Database == "" {
		t, err := findTarget(ctx, cl, o.target)
		if err != nil {
			return err
		}
		config.Database = t.Spec.Database
	}
	conn, err := exec.Open(ctx, config)
	if err != nil {
		return pending(err, o.noWait)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	w, err := exec.NewWriter(o.format, a.out, len(statements))
	if err != nil {
		return err
	}
	for _, sql := range statements {
		if err := a.execOne(ctx, conn, w, o, sql); err != nil {
			// What came before stays a whole document.
			return pending(errors.Join(err, w.Close()), o.noWait)
		}
	}
	return w.Close()
}

func (a *app) execOne(ctx context.Context, conn *exec.Conn, w exec.Writer, o execOptions, sql string) error {
	if text := strings.TrimSpace(sql); strings.HasPrefix(text, `\`) {
		return withHint(usagef("%.20s is a command of psql's, and no SQL", text), fmt.Sprintf("hoopctl exec %s -- psql -c '%.20s'", o.target, text))
	}
	run := exec.Options{MaxRows: o.maxRows}
	if len(o.sql) > 0 || o.file != "" && o.file != "-" {
		run.CopyIn = a.in
	}
	r, err := conn.Run(ctx, sql, w, run)
	if err != nil {
		return err
	}
	if r.More {
		fmt.Fprintf(a.err, "Stopped after %d rows (--max-rows).\n", r.Rows)
	} else if r.Rows == 0 && o.format != "json" && o.format != "ndjson" && !strings.HasPrefix(r.Tag, "SELECT") && r.Tag != "" {
		fmt.Fprintln(a.err, printable(r.Tag))
	}
	return nil
}

// pending turns the refusal of a statement that people must answer first into
// what --no-wait promises.
func pending(err error, noWait bool) error {
	var e *exec.Error
	if !noWait || !errors.As(err, &e) || !e.Broker() {
		return err
	}
	out := e.APIError()
	if out.Request == "" {
		return err
	}
	out.Reason = api.ReasonPending
	return out
}

// notice prints the target's and the broker's notices on stderr.
func (a *app) notice(asJSON bool) func(exec.Notice) {
	return func(n exec.Notice) {
		if asJSON {
			json.NewEncoder(a.err).Encode(map[string]string{"notice": n.Message, "severity": n.Severity, "sqlstate": n.SQLState, "hint": n.Hint})
			return
		}
		line := n.Severity + ": " + n.Message
		if n.Hint != "" {
			line += " (" + n.Hint + ")"
		}
		fmt.Fprintln(a.err, printable(line))
	}
}

// execCommand runs a local command on a forward of its own.
func (a *app) execCommand(ctx context.Context, cl *client.Client, grant api.Grant, o execOptions) error {
	path, err := osexec.LookPath(o.command[0])
	if err != nil {
		return commandError(o.command[0], err)
	}
	t, err := findTarget(ctx, cl, o.target)
	if err != nil {
		return err
	}
	f, err := forward.Listen(forward.Config{Dialer: cl, Grant: grant.Metadata.Name, Failed: a.sayOnce()})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Serve(serving)
	}()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		cl.Keep(serving)
	}()
	defer func() { stop(); <-done; <-kept }()
	p := place{Target: o.target, Host: "127.0.0.1", Port: f.Port(), User: forwardUser, Password: f.Secret(), Database: t.Spec.Database, Grant: grant.Metadata.Name}
	if o.database != "" {
		p.Database = o.database
	}
	p.URL = p.uri()
	cmd := osexec.Command(path, o.command[1:]...)
	cmd.Args[0] = o.command[0]
	cmd.Env = p.environ(os.Environ())
	err = a.runChild(ctx, cmd)
	if errors.Is(context.Cause(ctx), errTimeout) {
		return errTimeout
	}
	return err
}

// commandError tells a command that is missing from one that may not be run.
func commandError(name string, err error) error {
	if errors.Is(err, osexec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return &coded{fmt.Errorf("%s: command not found", name), exitNotFound}
	}
	return &coded{fmt.Errorf("%s: %w", name, err), exitCannot}
}

// writeJSONFile writes one JSON document to a 0600 file, whole or not at all.
func writeJSONFile(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return replaceFile(path, append(b, '\n'))
}

func writeJSONLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }
