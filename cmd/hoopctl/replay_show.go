package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"iter"
	"strings"
	"time"

	"github.com/hoopctl/hoopctl/client/tui"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/evidence"
)

// reading reads a session and hands on what it holds.
type reading func(take func(evidence.Item) error) error

// show shows a session in the way that was asked for: a screen, a page, lines.
func (a *app) show(ctx context.Context, o replayOptions, reasons func(string) []api.Approval, read reading) error {
	keep, err := newPick(o.find, o.from)
	if err != nil {
		return err
	}
	p := a.newPlayer(o, reasons)
	switch {
	case o.export == "html":
		return a.replayPage(o, p, keep, read)
	case o.export == "ndjson":
		p.format = "ndjson"
	case a.format() == "" && !o.plain && !a.noInput() && isTerminal(a.out):
		return a.replayScreen(ctx, o, p, keep, read)
	}
	p.keep = keep
	if p.format == "" && !keep.all() {
		p.text(func(e *api.Event, line, body string) error {
			if e == nil || !keep.event(e, line, body) {
				return nil
			}
			_, err := fmt.Fprintf(a.out, "%s%s  %s\n", body, e.Time.Local().Format(time.TimeOnly), printable(line))
			return err
		})
	}
	return errors.Join(read(p.take), p.close())
}

// replayScreen shows the timeline on a terminal while it is read, and below it
// what verifying the same evidence finds.
func (a *app) replayScreen(ctx context.Context, o replayOptions, p *player, keep pick, read reading) error {
	return tui.Timeline(ctx, tui.Session{Title: "session " + o.session, Prove: a.prover(o), Entries: func(ctx context.Context) iter.Seq2[tui.Entry, error] {
		return func(yield func(tui.Entry, error) bool) {
			p.text(func(e *api.Event, line, body string) error {
				if e == nil || !keep.event(e, line, body) {
					return ctx.Err()
				}
				if !yield(entryOf(e, line, body), nil) {
					return context.Canceled
				}
				return ctx.Err()
			})
			if err := errors.Join(read(p.take), p.close()); err != nil && ctx.Err() == nil {
				yield(tui.Entry{}, err)
			}
		}
	}}, a.in, a.out)
}

func entryOf(e *api.Event, line, body string) tui.Entry {
	return tui.Entry{Time: e.Time, Line: line, Body: strings.ReplaceAll(body, "\n"+indent, "\n"), Statement: e.Kind == api.EventStatement,
		Refused: e.Verdict == "deny" || e.Kind == api.EventRefused}
}

// prover verifies the evidence that a session is read from, in words of one line.
func (a *app) prover(o replayOptions) func(context.Context) (tui.Proof, error) {
	from := o.dir
	if o.bundle != "" {
		from = o.bundle
	}
	return func(ctx context.Context) (tui.Proof, error) {
		r, err := a.verify(ctx, verifyOptions{dir: from})
		if err != nil {
			return tui.Proof{}, err
		}
		return tui.Proof{Text: proofLine(r), Bad: r.Status == evidence.Tampered}, nil
	}
}

func proofLine(r *evidence.Report) string {
	s := fmt.Sprintf("%s: %d events verified to %s", strings.ToUpper(r.Status.String()), r.Leaves, stamp(r.Last))
	if r.Witnessed > 0 {
		s += fmt.Sprintf(", %d witnessed by %s", r.Witnessed, stamp(r.WitnessedAt))
	}
	if len(r.Problems) > 0 {
		s += ": " + r.Problems[0].String()
	}
	return s
}

// pick says which events are wanted.
type pick struct {
	find  string // lower case
	from  time.Time
	clock int // seconds of the day, -1 if none
}

func newPick(find, from string) (pick, error) {
	k := pick{find: strings.ToLower(find), clock: -1}
	if from == "" {
		return k, nil
	}
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		if t, err := time.Parse(layout, from); err == nil {
			k.clock = t.Hour()*3600 + t.Minute()*60 + t.Second()
			return k, nil
		}
	}
	var err error
	if k.from, err = time.Parse(time.RFC3339, from); err != nil {
		return k, usagef("--from %q: want a time of day (14:03:10), or a time in RFC 3339", from)
	}
	return k, nil
}

func (k pick) all() bool { return k.find == "" && k.from.IsZero() && k.clock < 0 }

// since reports whether a time is not before the one asked for. A time of day is
// of the day on which the first event after it is.
func (k pick) since(t time.Time) bool {
	l := t.Local()
	return !t.Before(k.from) && l.Hour()*3600+l.Minute()*60+l.Second() >= k.clock
}

func (k pick) event(e *api.Event, line, body string) bool {
	return k.since(e.Time) && k.holds(line+"\n"+body)
}

func (k pick) holds(text string) bool {
	return k.find == "" || strings.Contains(strings.ToLower(text), k.find)
}

// entry is whether an entry of -o json and ndjson is wanted.
func (k pick) entry(e entry) bool {
	if k.all() {
		return true
	}
	if !k.since(e.Time) {
		return false
	}
	text, err := json.Marshal(e)
	return err == nil && k.holds(string(text))
}

//go:embed replay.html
var replayHTML embed.FS

// replayPage writes one self-contained page: no scripts, nothing from elsewhere.
func (a *app) replayPage(o replayOptions, p *player, keep pick, read reading) error {
	type row struct {
		Leaf                   uint64
		Time, Kind, Line, Body string
		Refused                bool
	}
	page := struct {
		Session, Made string
		Rows          []row
	}{Session: o.session, Made: stamp(a.now())}
	p.text(func(e *api.Event, line, body string) error {
		if e != nil && keep.event(e, line, body) {
			page.Rows = append(page.Rows, row{Leaf: e.Index, Time: e.Time.UTC().Format("2006-01-02 15:04:05.000"), Kind: e.Kind, Line: visibleText(line), Body: visibleText(body), Refused: e.Verdict == "deny"})
		}
		return nil
	})
	if err := errors.Join(read(p.take), p.close()); err != nil {
		return err
	}
	t, err := template.ParseFS(replayHTML, "replay.html")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, page); err != nil {
		return err
	}
	_, err = a.out.Write(b.Bytes())
	return err
}

// visibleText keeps lines, and shows what would steer a terminal or reorder text.
func visibleText(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(strings.TrimPrefix(l, indent))
	}
	return strings.Join(lines, "\n")
}
