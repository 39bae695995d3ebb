package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/client/exec"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	session    string
	bundle     string
	dir        string
	identities []string
	maxRows    int
	find, from string
	export     string
	plain      bool
}

func newReplay(a *app) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay SESSION | FILE.zip [SESSION]",
		Short: "A session as a timeline: statements, verdicts, approvers, results",
		Long: `Show what a session did, from the evidence: each statement with its verdict and
rules, who approved it and why, and the results as the client saw them, masked as
they were. Statements without literals and all counts are always shown; exact
statements and results are sealed to the auditors, and open with --identity. A
bundle (audit export) needs no server; audit verify checks it.

On a terminal it is a timeline to move in: enter opens a statement's text and
results, / searches, [ and ] go from statement to statement, g goes to a time; below
stands what verifying the evidence found. Elsewhere, and with --plain, it is text.`,
		Example: `  hoopctl replay s-7
  hoopctl replay s-7 --identity auditor.key
  hoopctl replay s-7.zip --identity auditor.key
  hoopctl replay s-7 --find ssn --from 14:03:10
  hoopctl replay s-7 --export html > s-7.html
  hoopctl replay s-7 --dir /backup/evidence --identity auditor.key -o ndjson`,
		Args:              takes(1, 2, "the name of a session, or a bundle and the name of a session in it"),
		ValidArgsFunction: a.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(a.format(), []string{"", "json", "ndjson"}); err != nil {
				return err
			}
			if o.export != "" && o.export != "html" && o.export != "ndjson" || o.export != "" && a.format() != "" {
				return usagef("--export %q: want html or ndjson, and no --output beside it", o.export)
			}
			if o.session = args[len(args)-1]; len(args) == 2 || strings.HasSuffix(args[0], ".zip") {
				o.bundle, o.session = args[0], strings.Join(args[1:], "")
			}
			return a.replay(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "read a folder of evidence instead of asking the server")
	f.StringArrayVar(&o.identities, "identity", nil, "file with an auditor's age identity; may be given several times")
	f.StringVar(&o.find, "find", "", "only events that hold these words, in their text or their results")
	f.StringVar(&o.from, "from", "", "only from here on: a time of day (14:03:10), or a time in RFC 3339")
	f.StringVar(&o.export, "export", "", "html (one page without scripts, for reading and printing) or ndjson")
	f.BoolVar(&o.plain, "plain", false, "text, on a terminal too")
	f.IntVar(&o.maxRows, "max-rows", 20, "show so many rows of each result (0: all)")
	return cmd
}

func (a *app) replay(ctx context.Context, o replayOptions) error {
	identities, err := readIdentities(o.identities)
	if err != nil {
		return err
	}
	if o.bundle != "" {
		return a.replayBundle(ctx, o, identities)
	}
	var src evidence.Source = evidence.Folder(o.dir)
	reasons := func(string) []api.Approval { return nil }
	if o.dir == "" {
		cl, err := a.client()
		if err != nil {
			return err
		}
		defer cl.Close()
		src, reasons = served{cl}, answersOf(ctx, cl)
	}
	return a.show(ctx, o, reasons, func(take func(evidence.Item) error) error {
		return evidence.ReadSession(ctx, src, o.session, identities, take)
	})
}

// replayBundle replays the session that is named, or the one that there is.
func (a *app) replayBundle(ctx context.Context, o replayOptions, identities []age.Identity) error {
	b, file, err := openBundle(o.bundle)
	if err != nil {
		return err
	}
	defer file.Close()
	if o.session == "" {
		o.session = b.Manifest().Session
	}
	if o.session == "" {
		sessions, err := b.Sessions()
		if err != nil {
			return err
		}
		if len(sessions) != 1 {
			return withHint(usagef("%s holds %d sessions: say which", o.bundle, len(sessions)), "one of: "+strings.Join(sessions, ", "))
		}
		o.session = sessions[0]
	}
	return a.show(ctx, o, func(string) []api.Approval { return nil }, func(take func(evidence.Item) error) error {
		return b.ReadSession(ctx, o.session, identities, take)
	})
}

func readIdentities(files []string) ([]age.Identity, error) {
	var all []age.Identity
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read the identity: %w", err)
		}
		ids, err := age.ParseIdentities(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read the identity %s: %w", name, err)
		}
		all = append(all, ids...)
	}
	return all, nil
}

// answersOf asks the server for the words of a request's answers: the evidence
// holds commitments to them only.
func answersOf(ctx context.Context, cl *client.Client) func(string) []api.Approval {
	known := map[string][]api.Approval{}
	return func(request string) []api.Approval {
		if answers, ok := known[request]; ok {
			return answers
		}
		r, err := cl.Request(ctx, request)
		if err != nil {
			return nil
		}
		known[request] = r.Status.Answers
		return r.Status.Answers
	}
}

// player prints a session's items as they come.
type player struct {
	a       *app
	w       io.Writer
	format  string
	maxRows int
	reasons func(request string) []api.Approval

	keep pick                                  // which entries -o json and ndjson print
	sink func(e *api.Event, line string) error // see text; nil prints

	results *exec.Decoder // of the statement that answers now
	shown   *limited
	sealed  int // bytes of sealed results since the last event
	items   []entry
}

// entry is an item as -o json and ndjson print it.
type entry struct {
	Time      time.Time       `json:"time"`
	Event     *api.Event      `json:"event,omitempty"`
	Statement string          `json:"statement,omitempty"`
	Params    []*string       `json:"params,omitempty"`
	Sealed    bool            `json:"sealed,omitempty"`
	Answers   []api.Approval  `json:"answers,omitempty"`
	Results   string          `json:"results,omitempty"` // NDJSON of what the client saw
	Bytes     int             `json:"bytes,omitempty"`
	Note      json.RawMessage `json:"note,omitempty"` // what a person said about it
}

func (a *app) newPlayer(o replayOptions, reasons func(string) []api.Approval) *player {
	return &player{a: a, w: a.out, format: a.format(), maxRows: o.maxRows, reasons: reasons, keep: pick{clock: -1}}
}

// text makes the player hand each event to sink, with what is behind it, instead
// of printing.
func (p *player) text(sink func(e *api.Event, line, body string) error) {
	var held bytes.Buffer
	p.format, p.w = "", &held
	p.sink = func(e *api.Event, line string) error {
		body := held.String()
		held.Reset()
		return sink(e, line, body)
	}
}

func (p *player) take(item evidence.Item) error {
	switch {
	case item.Statement != nil:
		return p.statement(item.Time, item.Statement)
	case item.Frame != nil:
		return p.frame(item.Time, item.Frame)
	default:
		return p.event(item.Time, item.Event)
	}
}

// statement shows the exact text, and begins a new result.
func (p *player) statement(at time.Time, s *evidence.Statement) error {
	p.results = nil
	if p.format != "" {
		e := entry{Time: at, Statement: s.Text, Sealed: s.Sealed}
		for _, v := range s.Params {
			e.Params = append(e.Params, paramText(v))
		}
		return p.emit(e)
	}
	if s.Sealed {
		return nil
	}
	for line := range strings.Lines(s.Text) {
		fmt.Fprintf(p.w, "%s| %s\n", indent, printable(strings.TrimRight(line, "\r\n")))
	}
	for i, v := range s.Params {
		text := "NULL"
		if t := paramText(v); t != nil {
			text = *t
		}
		fmt.Fprintf(p.w, "%s| $%d = %s\n", indent, i+1, printable(text))
	}
	return nil
}

func paramText(v []byte) *string {
	if v == nil {
		return nil
	}
	s := string(v)
	return &s
}

// indent is the width of a time of day and a space.
const indent = "           "

// frame shows rows that the client saw.
func (p *player) frame(at time.Time, f *evidence.Frame) error {
	if f.Sealed {
		p.sealed += f.Size
		return nil
	}
	if f.Dir == 'n' {
		return p.note(at, f.Data)
	}
	if f.Dir != 'c' {
		if p.format == "" {
			fmt.Fprintf(p.w, "%sthe client sent %d bytes\n", indent, f.Size)
		}
		return nil
	}
	if p.results == nil {
		p.beginResults()
	}
	if _, err := p.results.Write(f.Data); err != nil {
		fmt.Fprintf(p.a.err, "frame %d: %s\n", f.Number, printable(err.Error()))
		p.results = nil
	}
	return nil
}

// note shows what a person said about the session, such as why they approved.
func (p *player) note(at time.Time, b []byte) error {
	var n struct{ Request, Rule, By, Name, Reason string }
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("a note in the recording: %w", err)
	}
	if p.format != "" {
		return p.emit(entry{Time: at, Note: b})
	}
	_, err := fmt.Fprintf(p.w, "%s%s on %s (%s): %s\n", indent, printable(n.Name), n.Request, n.Rule, printable(n.Reason))
	return err
}

func (p *player) beginResults() {
	format := "table"
	if p.format != "" {
		format = "ndjson"
	}
	p.shown = &limited{rows: p.maxRows}
	w, err := exec.NewWriter(format, &p.shown.text, 1)
	if err != nil { // both formats exist
		panic(err)
	}
	p.shown.Writer = w
	p.results = exec.NewDecoder(p.shown)
	say := func(n exec.Notice) {
		fmt.Fprintf(&p.shown.text, "%s %s: %s\n", n.Severity, n.SQLState, printable(n.Message))
	}
	p.results.Failed, p.results.Noticed = say, say
}

// limited prints the first rows of each result.
type limited struct {
	exec.Writer
	text bytes.Buffer
	rows int // 0: all
	seen int
	left int
}

func (l *limited) Columns(c []exec.Column) error {
	l.seen = 0
	return l.Writer.Columns(c)
}

func (l *limited) Row(v [][]byte) error {
	if l.seen++; l.rows > 0 && l.seen > l.rows {
		l.left++
		return nil
	}
	return l.Writer.Row(v)
}

// flush prints what the statement's answer was, before the event that follows it.
func (p *player) flush(e *entry) error {
	if p.shown != nil {
		if err := p.shown.End(""); err != nil {
			return err
		}
		if p.format != "" {
			e.Results = p.shown.text.String()
		} else {
			for line := range strings.Lines(p.shown.text.String()) {
				fmt.Fprintf(p.w, "%s%s", indent, line)
			}
			if p.shown.left > 0 {
				fmt.Fprintf(p.w, "%s… and %d rows (--max-rows)\n", indent, p.shown.left)
			}
		}
		p.shown, p.results = nil, nil
	}
	if p.sealed > 0 {
		e.Bytes, e.Sealed = p.sealed, true
		if p.format == "" {
			fmt.Fprintf(p.w, "%ssealed: %d bytes (open with --identity)\n", indent, p.sealed)
		}
		p.sealed = 0
	}
	return nil
}

func (p *player) event(at time.Time, ev *api.Event) error {
	e := entry{Time: at, Event: ev}
	if ev.Kind == api.EventApproval {
		e.Answers = p.reasons(ev.Request)
	}
	if err := p.flush(&e); err != nil {
		return err
	}
	if p.format != "" {
		return p.emit(e)
	}
	line := p.describe(ev, e.Answers)
	if p.sink != nil {
		return p.sink(ev, line)
	}
	_, err := fmt.Fprintf(p.w, "%s  %s\n", at.Local().Format("15:04:05"), printable(line))
	return err
}

// describe is an event as a sentence.
func (p *player) describe(e *api.Event, answers []api.Approval) string {
	switch e.Kind {
	case api.EventSessionOpen:
		return fmt.Sprintf("%s opened %s on %s under %s from %s (%s)", e.Name, e.Session, e.Target, e.Grant, e.Source, e.Via)
	case api.EventSessionClose:
		return strings.TrimSpace("closed: " + e.Reason)
	case api.EventStatement:
		s := fmt.Sprintf("#%d %s", e.Sequence, e.Verdict)
		if len(e.Rules) > 0 {
			s += " by " + strings.Join(e.Rules, ", ")
		}
		for _, x := range e.Approvals {
			s += fmt.Sprintf(", approved by %s (%s%s)", x.By, x.Request, reasonOf(p.reasons(x.Request), x.By))
		}
		if e.Reason != "" {
			s += " (" + e.Reason + ")"
		}
		return s + ": " + e.Statement
	case api.EventOutcome:
		s := fmt.Sprintf("#%d %s", e.Sequence, cmp.Or(e.Status, "ended with an error"))
		if e.SQLState != "" {
			s += " " + e.SQLState
		}
		s += fmt.Sprintf(", %d rows, %d bytes", e.Rows, e.Bytes)
		for _, m := range e.Masked {
			s += fmt.Sprintf("; masked %s, %d cells", maskedWords(m), m.Cells)
		}
		return s
	case api.EventRequest:
		return fmt.Sprintf("waits for approval: %s (%s)", e.Request, strings.Join(e.Rules, ", "))
	case api.EventApproval:
		return approvalText(e, answers)
	case api.EventRequestEnd:
		return fmt.Sprintf("%s %s", e.Request, e.Status+e.Reason)
	case api.EventAside:
		return loginText(e)
	default:
		return strings.TrimSpace(e.Kind + " " + eventText(*e))
	}
}

// loginText says which process of the target serves the session: its own logs
// name that number.
func loginText(e *api.Event) string {
	if e.BackendPID == 0 {
		return strings.TrimSpace("aside: " + e.Reason)
	}
	s := "the broker logged in to the target"
	if v := e.Attrs["version"]; v != "" {
		s += ", version " + v
	}
	return s + fmt.Sprintf(", server process %d", e.BackendPID)
}

// reasonOf is what an approver said, after a colon, where the server still
// knows it.
func reasonOf(answers []api.Approval, by string) string {
	for _, x := range answers {
		if (x.Principal == by || x.Name == by) && x.Reason != "" {
			return ": " + x.Reason
		}
	}
	return ""
}

func approvalText(e *api.Event, answers []api.Approval) string {
	word := "denied"
	if e.Verdict == "allow" {
		word = "approved"
	}
	s := fmt.Sprintf("%s %s %s for %s", e.Name, word, e.Request, strings.Join(e.Rules, ", "))
	for _, x := range answers {
		if x.Principal == e.Principal && x.Approve == (e.Verdict == "allow") && x.Reason != "" {
			s += ": " + x.Reason
		}
	}
	return s
}

func (p *player) emit(e entry) error {
	if !p.keep.entry(e) {
		return nil
	}
	if p.format == "ndjson" {
		return json.NewEncoder(p.w).Encode(e)
	}
	p.items = append(p.items, e)
	return nil
}

func (p *player) close() error {
	var last entry
	if err := p.flush(&last); err != nil {
		return err
	}
	if last.Results != "" || last.Bytes > 0 {
		if err := p.emit(last); err != nil {
			return err
		}
	}
	if p.sink != nil { // what no event followed
		return p.sink(nil, "")
	}
	if p.format != "json" {
		return nil
	}
	if p.items == nil {
		return errors.New("the evidence holds nothing of this session")
	}
	return printObject(p.w, "json", map[string]any{"apiVersion": api.APIVersion, "kind": "Replay", "items": p.items})
}
