package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/charmbracelet/bubbles/cursor"
	"github.com/charmbracelet/bubbles/textinput"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
)

// Entry is one event of a session's timeline. Its texts are foreign.
type Entry struct {
	Time      time.Time
	Line      string // the event in one line
	Body      string // what is behind it: exact text, parameters, results; "" is nothing
	Statement bool   // a verdict on a statement: where [ and ] stop
	Refused   bool
}

// Proof is what a check of the evidence found.
type Proof struct {
	Text string
	Bad  bool // it was tampered with
}

// Session is what a timeline shows.
type Session struct {
	Title string
	// Entries yields the timeline in order. It may block for what comes; the
	// timeline stays when it ends, and shows the error that it ends with.
	Entries func(ctx context.Context) iter.Seq2[Entry, error]
	// Prove checks the evidence that the entries come from; nil is not checked.
	Prove func(ctx context.Context) (Proof, error)
}

// Timeline shows a session until the reader leaves it or ctx ends.
func Timeline(ctx context.Context, s Session, in io.Reader, out io.Writer) error {
	p := tea.NewProgram(newTimeline(s.Title, s.Prove != nil), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithAltScreen())
	work, stop := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for e, err := range s.Entries(work) {
			p.Send(told{e, err})
		}
		p.Send(ended{})
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		if s.Prove == nil {
			return
		}
		proof, err := s.Prove(work)
		if err != nil {
			proof = Proof{Text: "not verified: " + err.Error()}
		}
		p.Send(proof)
	}()
	_, err := p.Run()
	stop()
	<-done
	<-done
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// Messages of the timeline.
type (
	told struct {
		entry Entry
		err   error
	}
	ended struct{}
)

// timeline is the model.
type timeline struct {
	title   string
	entries []Entry
	open    map[int]bool // entries whose body is shown
	at      int          // the entry that is looked at
	top     int          // the first line on the screen
	whole   bool         // nothing more comes
	proof   Proof
	note    string
	input   textinput.Model // what is searched for, or the time to go to
	typing  rune            // '/' or 'g' while it is typed, else 0
	find    string
	width   int
	height  int
}

func newTimeline(title string, proves bool) *timeline {
	in := textinput.New()
	in.CharLimit = 200
	in.Cursor.SetMode(cursor.CursorStatic)
	t := &timeline{title: title, open: map[int]bool{}, input: in, width: 80, height: 24}
	if proves {
		t.proof.Text = "verifying…"
	}
	return t
}

// Init implements tea.Model.
func (t *timeline) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (t *timeline) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		t.width, t.height = msg.Width, msg.Height
	case told:
		t.tell(msg)
	case ended:
		t.whole = true
	case Proof:
		t.proof = msg
	case tea.KeyMsg:
		return t, t.key(msg)
	}
	t.follow()
	return t, nil
}

// tell adds what arrived. A reader at the end stays there.
func (t *timeline) tell(msg told) {
	if msg.err != nil {
		t.note = msg.err.Error()
		return
	}
	last := t.at == len(t.entries)-1
	t.entries = append(t.entries, msg.entry)
	if last && len(t.entries) > t.height {
		t.at = len(t.entries) - 1
	}
}

func (t *timeline) key(k tea.KeyMsg) tea.Cmd {
	if t.typing != 0 {
		t.typed(k)
		t.follow()
		return nil
	}
	t.note = ""
	switch k.String() {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "down", "j":
		t.move(1)
	case "up", "k":
		t.move(-1)
	case "pgdown", " ":
		t.move(max(1, t.rows()/2))
	case "pgup":
		t.move(-max(1, t.rows()/2))
	case "home", "<":
		t.at = 0
	case "end", "G", ">":
		t.at = max(0, len(t.entries)-1)
	case "]":
		t.seek(1, func(e Entry) bool { return e.Statement })
	case "[":
		t.seek(-1, func(e Entry) bool { return e.Statement })
	case "enter":
		t.open[t.at] = !t.open[t.at] && len(t.entries) > 0 && t.entries[t.at].Body != ""
	case "n":
		t.search(1)
	case "N":
		t.search(-1)
	case "/", "g":
		t.typing = []rune(k.String())[0]
		t.input.SetValue("")
		t.input.Focus()
	}
	t.follow()
	return nil
}

func (t *timeline) typed(k tea.KeyMsg) {
	switch k.Type {
	case tea.KeyEsc, tea.KeyCtrlC:
		t.typing = 0
	case tea.KeyEnter:
		what := t.typing
		t.typing = 0
		if what == '/' {
			t.find = strings.ToLower(t.input.Value())
			t.search(1)
			return
		}
		t.jump(t.input.Value())
	default:
		t.input, _ = t.input.Update(k)
	}
}

func (t *timeline) move(n int) { t.at = min(max(0, t.at+n), max(0, len(t.entries)-1)) }

// seek moves to the next entry that is wanted, round the end.
func (t *timeline) seek(step int, wanted func(Entry) bool) bool {
	n := len(t.entries)
	for i := 1; i <= n; i++ {
		at := ((t.at+i*step)%n + n) % n
		if wanted(t.entries[at]) {
			t.at = at
			return true
		}
	}
	return false
}

// search moves to the next entry that holds what was searched for, and opens it
// if it is found behind the line.
func (t *timeline) search(step int) {
	if t.find == "" {
		return
	}
	holds := func(s string) bool { return strings.Contains(strings.ToLower(s), t.find) }
	if !t.seek(step, func(e Entry) bool { return holds(e.Line) || holds(e.Body) }) {
		t.note = fmt.Sprintf("%q is not in it", t.find)
		return
	}
	if !holds(t.entries[t.at].Line) {
		t.open[t.at] = true
	}
}

// jump goes to the first entry at or after a time of day.
func (t *timeline) jump(clock string) {
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		at, err := time.Parse(layout, clock)
		if err != nil {
			continue
		}
		want := at.Hour()*3600 + at.Minute()*60 + at.Second()
		for i, e := range t.entries {
			if l := e.Time.Local(); l.Hour()*3600+l.Minute()*60+l.Second() >= want {
				t.at = i
				return
			}
		}
		t.note = "nothing happened after " + clock
		return
	}
	t.note = fmt.Sprintf("%q is no time of day: want 14:03 or 14:03:10", clock)
}

// rows are the lines between header and footer.
func (t *timeline) rows() int { return max(1, t.height-3) }

// follow keeps the entry that is looked at on the screen.
func (t *timeline) follow() {
	starts := t.starts()
	if len(starts) == 0 {
		return
	}
	first, last := starts[t.at], starts[t.at+1]-1
	if last >= t.top+t.rows() {
		t.top = last - t.rows() + 1
	}
	if first < t.top {
		t.top = first
	}
}

// starts is on which line each entry starts; one more says where the last one
// ends. Nothing is drawn for it: a session may have very many.
func (t *timeline) starts() []int {
	if len(t.entries) == 0 {
		return nil
	}
	starts, n := make([]int, 0, len(t.entries)+1), 0
	for i, e := range t.entries {
		starts = append(starts, n)
		n++
		if t.open[i] {
			n += len(bodyLines(e.Body))
		}
	}
	return append(starts, n)
}

func bodyLines(body string) []string {
	return strings.Split(strings.TrimSuffix(body, "\n"), "\n")
}

// draw is an entry's lines.
func (t *timeline) draw(i int) []string {
	e, mark := t.entries[i], "  "
	switch {
	case e.Body != "" && t.open[i]:
		mark = "▾ "
	case e.Body != "":
		mark = "▸ "
	}
	line := clip(mark+e.Time.Local().Format(time.TimeOnly)+"  "+flat(e.Line), t.width)
	switch {
	case i == t.at:
		line = lipgloss.NewStyle().Reverse(true).Render(line)
	case e.Refused:
		line = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Render(line)
	}
	all := []string{line}
	if t.open[i] {
		for _, body := range bodyLines(e.Body) {
			all = append(all, clip("    "+strings.ReplaceAll(Safe(body), "\t", "    "), t.width))
		}
	}
	return all
}

// screen is the lines between header and footer.
func (t *timeline) screen() []string {
	var lines []string
	starts := t.starts()
	for i := range t.entries {
		if starts[i+1] <= t.top || starts[i] >= t.top+t.rows() {
			continue
		}
		for n, line := range t.draw(i) {
			if at := starts[i] + n; at >= t.top && at < t.top+t.rows() {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// flat is foreign text in one harmless line.
func flat(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(Safe(s))
}

func clip(s string, width int) string {
	return lipgloss.NewStyle().MaxWidth(max(1, width)).Render(s)
}

// View implements tea.Model.
func (t *timeline) View() string {
	var b strings.Builder
	b.WriteString(clip(lipgloss.NewStyle().Bold(true).Render(flat(t.title)), t.width) + "\n")
	lines := t.screen()
	for i := range t.rows() {
		if i < len(lines) {
			b.WriteString(lines[i])
		}
		b.WriteByte('\n')
	}
	proof := lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	if t.proof.Bad {
		proof = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	}
	b.WriteString(clip(proof.Render(flat(t.proof.Text)), t.width) + "\n")
	b.WriteString(clip(t.foot(), t.width))
	return b.String()
}

func (t *timeline) foot() string {
	switch {
	case t.typing == '/':
		return "search: " + t.input.View()
	case t.typing == 'g':
		return "go to (15:04:05): " + t.input.View()
	case t.note != "":
		return flat(t.note)
	}
	more := ""
	if !t.whole {
		more = " · more may come"
	}
	return fmt.Sprintf("%d/%d%s · enter opens · / search n N · [ ] statements · g time · q leaves", min(t.at+1, len(t.entries)), len(t.entries), more)
}
