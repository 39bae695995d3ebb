package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
)

// connectTo makes a client of a context's server. It dials nothing yet.
func (a *app) connectTo(c contextConfig) (*client.Client, error) {
	home, err := a.home()
	if err != nil {
		return nil, err
	}
	cl, err := client.New(client.Config{
		Server:    c.Server,
		Home:      home,
		FileOnly:  a.getenv("HOOPCTL_HOME") != "",
		CAFile:    c.CAFile,
		Now:       a.now,
		UserAgent: "hoopctl/" + build().Version,
	})
	if err != nil {
		return nil, &usageError{message: err.Error(), hint: "see hoopctl config get-contexts"}
	}
	return cl, nil
}

// client is connectTo the context that the verb works in.
func (a *app) client() (*client.Client, error) {
	c, err := a.context()
	if err != nil {
		return nil, err
	}
	return a.connectTo(c)
}

// loginOptions are the flags of login.
type loginOptions struct {
	fingerprint string
	caFile      string
	issuer      string
	noBrowser   bool
	workload    string
}

func newLogin(a *app) *cobra.Command {
	o := new(loginOptions)
	cmd := &cobra.Command{
		Use:   "login [URL]",
		Short: "Log in at your organisation's identity provider",
		Long: `Log in with the OIDC device flow: a code and a page are printed on stderr, and
the page is opened in a browser where there is one. A key is made for this
login; it never leaves this machine, and what the server issues is worth nothing
without it. The login ends after 8 hours at most.

With a URL, a context is made for that server (named by --context, or by the
server's host) and becomes the current one.`,
		Example: `  hoopctl login https://broker.example.com:8443 --ca-fingerprint sha256:5f1c…
  hoopctl login
  hoopctl login --workload k8s`,
		Args: takes(0, 1, "at most a server's URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			c, err := a.loginContext(args)
			if err != nil {
				return err
			}
			return a.login(cmd.Context(), c, *o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.fingerprint, "ca-fingerprint", "", "pin the server's CA: sha256:HEX, as the server printed it")
	f.StringVar(&o.caFile, "ca-file", "", "trust these roots (PEM) for the server")
	f.StringVar(&o.issuer, "issuer", "", "log in at this identity provider, where the server believes several")
	f.BoolVar(&o.noBrowser, "no-browser", false, "only print the page's address")
	f.StringVar(&o.workload, "workload", "", "log a service in: k8s, github, or a FILE with a token or client credentials")
	return cmd
}

// loginContext is the context to log in to: the one that is named, or a new
// one for a URL.
func (a *app) loginContext(args []string) (contextConfig, error) {
	server := a.settings.GetString("server")
	if len(args) == 1 {
		server = args[0]
	}
	if server == "" {
		return a.context()
	}
	f, err := a.readConfig()
	if err != nil {
		return contextConfig{}, err
	}
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	server = strings.TrimSuffix(server, "/")
	name := a.settings.GetString("context")
	for _, c := range f.Contexts {
		if c.Name == name || name == "" && c.Server == server {
			c.Server = server
			return c, nil
		}
	}
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return contextConfig{}, usagef("%q is no server's URL", server)
	}
	return contextConfig{Name: cmp.Or(name, u.Hostname()), Server: server}, nil
}

// login logs in and makes the context the current one.
func (a *app) login(ctx context.Context, c contextConfig, o loginOptions) error {
	c.CAFingerprint = cmp.Or(o.fingerprint, c.CAFingerprint)
	c.CAFile = cmp.Or(o.caFile, c.CAFile)
	c.Issuer = cmp.Or(o.issuer, c.Issuer)
	if pin := c.CAFingerprint; pin != "" {
		if _, err := client.ParseFingerprint(pin); err != nil {
			return &usageError{message: err.Error(), hint: "the server prints it at its start"}
		}
	}
	cl, err := a.connectTo(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	open := a.openURL
	if o.noBrowser || !a.hasDisplay() {
		open = nil
	}
	enrolled, err := cl.Login(ctx, client.LoginOptions{
		CAFingerprint: c.CAFingerprint,
		CAFile:        c.CAFile,
		Issuer:        c.Issuer,
		OpenURL:       open,
		Prompt:        a.prompt,
		Workload:      o.workload,
	})
	if err != nil {
		return distrusted(err)
	}
	if err := a.remember(c, cl); err != nil {
		return err
	}
	if a.format() != "" {
		return printObject(a.out, a.format(), enrolled)
	}
	fmt.Fprintf(a.err, "Logged in to %s as %s until %s.\n", c.Server, printable(enrolled.Principal.Name), clock(a.now(), enrolled.LoginEnds))
	a.afterLogin(ctx, cl)
	return nil
}

// remember keeps the context, with the CA that vouched for the server pinned.
func (a *app) remember(c contextConfig, cl *client.Client) error {
	f, err := a.readConfig()
	if err != nil {
		return err
	}
	c.Server = cl.Server()
	if c.Name != "" {
		f.set(c)
		f.CurrentContext = c.Name
	}
	return a.writeConfig(f)
}

// prompt shows the code and the page, on stderr: stdout is for data.
func (a *app) prompt(p client.Prompt) {
	if a.format() == "json" {
		json.NewEncoder(a.err).Encode(map[string]string{"userCode": p.Code, "verificationURI": p.URL, "verificationURIComplete": p.Complete})
		return
	}
	fmt.Fprintf(a.err, "Your one-time code: %s\nConfirm it at %s\n", printable(p.Code), printable(p.URL))
	if p.Complete != "" {
		fmt.Fprintf(a.err, "(or open %s)\n", printable(p.Complete))
	}
}

// hasDisplay says whether opening a browser makes sense: not on a machine that
// someone reached by ssh, and not without a display.
func (a *app) hasDisplay() bool {
	if a.getenv("SSH_CONNECTION") != "" || a.getenv("HOOPCTL_NO_BROWSER") != "" {
		return false
	}
	return !needsDisplay || a.getenv("DISPLAY") != "" || a.getenv("WAYLAND_DISPLAY") != "" || a.getenv("BROWSER") != ""
}

// distrusted adds the way out to a server that could not be trusted.
func distrusted(err error) error {
	var changed *client.CAChangedError
	if errors.As(err, &changed) {
		return withHint(err, "if the server's CA was meant to change, ask its operator for the new fingerprint and log in with --ca-fingerprint")
	}
	return err
}

// clock is a time of day, with the date where it is another day.
func clock(now, t time.Time) string {
	t = t.Local()
	if now.Local().Format(time.DateOnly) == t.Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

func newLogout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "logout",
		Short:   "End the login: its key and certificate are worth nothing from then on",
		Example: "  hoopctl logout",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if err := cl.Logout(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "Logged out of %s.\n", cl.Server())
			return nil
		},
	}
}

func newAuth(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "auth",
		Short:   "Who you are, and what you may do",
		Example: "  hoopctl auth whoami\n  hoopctl auth can-i connect clinic",
	}, newWhoami(a), newCanI(a))
}

func newWhoami(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "whoami",
		Short:   "Ask the server who you are to it",
		Example: "  hoopctl auth whoami\n  hoopctl auth whoami -o json",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(a.format(), append(oneFormats, "name")); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			me, err := cl.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			switch a.format() {
			case "":
				return fields(a.out, "Name", me.Principal.Name, "ID", me.ID, "Kind", string(me.Principal.Kind),
					"Groups", strings.Join(me.Principal.Groups, ", "), "Clearances", strings.Join(me.Clearances, ", "),
					"Owner", me.Principal.Owner, "Acts for", me.Principal.ActsFor,
					"Server", cl.Server(), "Login", me.Login, "Login ends", clock(a.now(), me.LoginEnds))
			case "name":
				_, err := fmt.Fprintln(a.out, me.Principal.Name)
				return err
			default:
				return printObject(a.out, a.format(), me)
			}
		},
	}
}

func newCanI(a *app) *cobra.Command {
	var sql string
	cmd := &cobra.Command{
		Use:   "can-i VERB TARGET",
		Short: "Ask whether you may: exit 0 yes, 1 no, 2 error",
		Long: `Ask what the policies would say now. VERB is connect, read, write, export,
schema or admin; with --sql the statement itself is judged. What would have to
wait for a person is a no, with who could say yes. Nothing is sent to the target.`,
		Example: `  hoopctl auth can-i connect clinic
  hoopctl auth can-i write clinic --sql "DELETE FROM visits WHERE id = 7"`,
		Args:              takes(2, 2, "a verb and a target"),
		ValidArgsFunction: a.completeSecondTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return &coded{err, exitUsage}
			}
			defer cl.Close()
			e, err := cl.Explain(cmd.Context(), api.Explain{Verb: args[0], Target: args[1], SQL: sql})
			if err != nil {
				return &coded{err, exitUsage}
			}
			return a.answerCanI(e)
		},
	}
	cmd.Flags().StringVar(&sql, "sql", "", "judge this statement")
	return cmd
}

func (a *app) answerCanI(e api.Explained) error {
	if a.format() != "" {
		if err := printObject(a.out, a.format(), e); err != nil {
			return err
		}
	} else if e.Allowed {
		fmt.Fprintln(a.out, "yes")
	} else {
		fmt.Fprintln(a.out, "no"+whyNot(e))
	}
	if !e.Allowed {
		return exitWith(exitError)
	}
	return nil
}

// whyNot is the first reason that something is not allowed.
func whyNot(e api.Explained) string {
	for _, s := range e.Statements {
		if s.Verdict == "allow" {
			continue
		}
		why := " - " + cmp.Or(printable(s.Reason), s.Verdict)
		if len(s.Rules) > 0 {
			why += " (rule " + printable(strings.Join(s.Rules, ", ")) + ")"
		}
		for _, c := range s.Cures {
			why += fmt.Sprintf("; %d of %s could approve it", c.Quorum, printable(c.Group))
		}
		return why
	}
	return ""
}

func newExplain(a *app) *cobra.Command {
	var e api.Explain
	cmd := &cobra.Command{
		Use:   "explain TARGET [--sql SQL]",
		Short: "What would happen to a statement: class, tables, rules, masks, approvers",
		Long: `Explain what the broker would do with a statement, without sending anything to
the target: what it is, which rules fire, which columns would be masked and how,
and who would have to approve it. Without --sql: what you may do on the target,
by class of statement, and by which rule.`,
		Example: `  hoopctl explain clinic --sql "UPDATE patients SET zip = '00000'"
  hoopctl explain clinic`,
		Args:              takes(1, 1, "a target"),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), oneFormats); err != nil {
				return err
			}
			e.Target = args[0]
			cl, err := a.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if e.SQL == "" && e.Verb == "" {
				return a.explainTarget(cmd.Context(), cl, e.Target)
			}
			answer, err := cl.Explain(cmd.Context(), e)
			if err != nil {
				return err
			}
			if a.format() != "" {
				return printObject(a.out, a.format(), answer)
			}
			return a.printExplained(answer)
		},
	}
	cmd.Flags().StringVar(&e.SQL, "sql", "", "the statement")
	cmd.Flags().StringVar(&e.Verb, "verb", "", "judge a verb (connect, read, …) instead of a statement's class")
	return cmd
}

// explainedVerb is what a principal may do on a target, by class of statement.
type explainedVerb struct {
	Verb string `json:"verb"`
	api.ExplainedStatement
}

// explainTarget answers what a refusal's hint sends people here for: what may
// I do on this target, and which rule says so?
func (a *app) explainTarget(ctx context.Context, cl *client.Client, target string) error {
	var all []explainedVerb
	for _, verb := range []policy.Action{policy.Connect, policy.Action(policy.Read), policy.Action(policy.Write), policy.Action(policy.Export),
		policy.Action(policy.Schema), policy.Action(policy.Admin)} {
		e, err := cl.Explain(ctx, api.Explain{Target: target, Verb: string(verb)})
		if err != nil {
			return err
		}
		for _, s := range e.Statements {
			all = append(all, explainedVerb{string(verb), s})
		}
	}
	if a.format() != "" {
		return printObject(a.out, a.format(), map[string]any{"target": target, "verbs": all})
	}
	t := newTable(a.out)
	fmt.Fprintln(t, "VERB\tVERDICT\tRULES\tREASON")
	for _, v := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", v.Verb, v.Verdict, printable(cmp.Or(strings.Join(v.Rules, ", "), "-")), printable(cmp.Or(v.Reason, "-")))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.err, "A statement may meet further rules: hoopctl explain %s --sql \"…\"\n", printable(target))
	return err
}

func (a *app) printExplained(e api.Explained) error {
	for i, s := range e.Statements {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		pairs := []string{"Verdict", s.Verdict, "Reason", s.Reason, "Hint", s.Hint, "Rules", strings.Join(s.Rules, ", ")}
		if f := s.Facts; f != nil {
			pairs = append(pairs, "Statement", f.Kind, "Class", string(f.Class), "Tables", strings.Join(f.Tables, ", "),
				"Columns", strings.Join(f.Columns, ", "), "Written", strings.Join(f.WriteColumns, ", "), "Functions", strings.Join(f.Functions, ", "))
		}
		for _, c := range s.Cures {
			pairs = append(pairs, "Approval", fmt.Sprintf("%d of %s for %s", c.Quorum, c.Group, c.Rule))
		}
		if s.RowLimit > 0 {
			pairs = append(pairs, "Row limit", fmt.Sprint(s.RowLimit))
		}
		for _, b := range s.Budgets {
			pairs = append(pairs, "Budget", budgetText(b))
		}
		for _, m := range s.Masked {
			pairs = append(pairs, "Masked", fmt.Sprintf("%s: %s (%s)", m.Column, m.Method, cmp.Or(m.Rule, m.Why)))
		}
		if err := fields(a.out, append(pairs, "Policy", s.Digest)...); err != nil {
			return err
		}
	}
	return nil
}
