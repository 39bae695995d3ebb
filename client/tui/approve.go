package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/bubbles/cursor"
	"github.com/charmbracelet/bubbles/textinput"
	"github.com/charmbracelet/bubbles/viewport"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"github.com/hoopctl/hoopctl/server/api"
)

// Approvals is what the queue needs of a client.
type Approvals interface {
	// Follow yields every request that the caller may see, and each again when
	// it changes, until ctx ends. It tries again by itself where the server
	// cannot be reached, and yields the error meanwhile.
	Follow(ctx context.Context) iter.Seq2[api.Request, error]
	// Answer answers a request exactly as it was shown.
	Answer(ctx context.Context, shown api.Request, approve bool, reason string) (api.Request, error)
}

// Approve runs the queue until the approver leaves it or ctx ends.
func Approve(ctx context.Context, a Approvals, in io.Reader, out io.Writer, now func() time.Time) error {
	m := newQueue(ctx, a, now)
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithAltScreen())
	follow, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r, err := range a.Follow(follow) {
			p.Send(arrived{r, err})
		}
	}()
	_, err := p.Run()
	stop()
	<-done
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// Messages of the queue.
type (
	arrived struct {
		request api.Request
		err     error
	}
	answered struct {
		request api.Request
		approve bool
		err     error
	}
	tick time.Time
)

// asking is what the reason's input is for.
type asking int

const (
	nothing asking = iota
	approving
	denying
)

// queue is the model: the requests, which one is looked at, and what is being
// typed.
type queue struct {
	ctx    context.Context
	source Approvals
	now    func() time.Time

	requests []api.Request // pending first, the oldest first; then what was answered, the newest first
	selected string        // name
	chosen   bool          // … by the approver, who is not taken elsewhere by what arrives
	asking   asking
	reason   textinput.Model
	detail   viewport.Model
	note     string // what happened last
	failed   bool   // … and it was a failure
	width    int
	height   int
}

func newQueue(ctx context.Context, a Approvals, now func() time.Time) *queue {
	in := textinput.New()
	in.CharLimit = 500
	in.Cursor.SetMode(cursor.CursorStatic)
	return &queue{ctx: ctx, source: a, now: now, reason: in, detail: viewport.New(80, 10), width: 80, height: 24}
}

// Init implements tea.Model.
func (q *queue) Init() tea.Cmd { return everySecond() }

func everySecond() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tick(t) })
}

// Update implements tea.Model.
func (q *queue) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		q.width, q.height = msg.Width, msg.Height
		q.show()
	case tick:
		return q, everySecond()
	case arrived:
		q.arrive(msg)
	case answered:
		q.answered(msg)
	case tea.KeyMsg:
		return q, q.key(msg)
	}
	return q, nil
}

func (q *queue) arrive(msg arrived) {
	if msg.err != nil {
		q.say(true, "%v", msg.err)
		return
	}
	if q.failed {
		q.note, q.failed = "", false
	}
	name := msg.request.Metadata.Name
	i := slices.IndexFunc(q.requests, func(r api.Request) bool { return r.Metadata.Name == name })
	if i < 0 {
		q.requests = append(q.requests, msg.request)
	} else {
		q.requests[i] = msg.request
	}
	slices.SortStableFunc(q.requests, compareRequests)
	q.next()
	q.show()
}

// next goes to what has waited longest, unless the approver looks at something
// of their own choice, at something that waits, or is about to answer it.
func (q *queue) next() {
	r := q.current()
	if r != nil && (q.chosen || q.asking != nothing || r.Status.Phase == "pending") || len(q.requests) == 0 {
		return
	}
	if name := q.requests[0].Metadata.Name; name != q.selected {
		q.selected = name
		q.detail.GotoTop()
	}
}

// compareRequests puts what waits first, longest waiting on top.
func compareRequests(a, b api.Request) int {
	pa, pb := a.Status.Phase == "pending", b.Status.Phase == "pending"
	switch {
	case pa != pb && pa:
		return -1
	case pa != pb:
		return 1
	case pa:
		return a.Metadata.Created.Compare(b.Metadata.Created)
	default:
		return b.Metadata.Created.Compare(a.Metadata.Created)
	}
}

func (q *queue) answered(msg answered) {
	word := "denied"
	if msg.approve {
		word = "approved"
	}
	if msg.err != nil {
		q.say(true, "%v", msg.err)
		return
	}
	q.chosen = false // done: on to the next
	q.arrive(arrived{request: msg.request})
	q.say(false, "%s %s", msg.request.Metadata.Name, word)
}

func (q *queue) say(failed bool, format string, a ...any) {
	q.note, q.failed = fmt.Sprintf(format, a...), failed
}

func (q *queue) key(k tea.KeyMsg) tea.Cmd {
	if q.asking != nothing {
		return q.typing(k)
	}
	switch k.String() {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "up", "k":
		q.move(-1)
	case "down", "j":
		q.move(1)
	case "a":
		return q.ask(approving)
	case "d":
		return q.ask(denying)
	default:
		var cmd tea.Cmd
		q.detail, cmd = q.detail.Update(k) // pgup, pgdn
		return cmd
	}
	return nil
}

// ask opens the input for the reason, if the request can be answered.
func (q *queue) ask(what asking) tea.Cmd {
	r := q.current()
	switch {
	case r == nil:
		return nil
	case r.Status.Phase != "pending":
		q.say(true, "%s is %s already", r.Metadata.Name, r.Status.Phase)
		return nil
	case !r.Status.MayAnswer:
		q.say(true, "you may not answer %s: %s", r.Metadata.Name, r.Status.WhyNot)
		return nil
	}
	q.asking = what
	q.note = ""
	q.reason.Reset()
	return q.reason.Focus()
}

// typing handles keys while a reason is typed. A denial needs one.
func (q *queue) typing(k tea.KeyMsg) tea.Cmd {
	switch k.String() {
	case "ctrl+c", "esc":
		q.asking = nothing
		q.reason.Blur()
		return nil
	case "enter":
		why := strings.TrimSpace(q.reason.Value())
		if q.asking == denying && why == "" {
			q.say(true, "a denial needs a reason: the one who asked will read it")
			return nil
		}
		approve := q.asking == approving
		q.asking = nothing
		q.reason.Blur()
		return q.answer(*q.current(), approve, why)
	}
	var cmd tea.Cmd
	q.reason, cmd = q.reason.Update(k)
	return cmd
}

// answer sends the answer to the request as it stands on the screen.
func (q *queue) answer(shown api.Request, approve bool, why string) tea.Cmd {
	return func() tea.Msg {
		r, err := q.source.Answer(q.ctx, shown, approve, why)
		return answered{r, approve, err}
	}
}

func (q *queue) current() *api.Request {
	for i := range q.requests {
		if q.requests[i].Metadata.Name == q.selected {
			return &q.requests[i]
		}
	}
	return nil
}

func (q *queue) move(by int) {
	i := slices.IndexFunc(q.requests, func(r api.Request) bool { return r.Metadata.Name == q.selected })
	if i += by; i >= 0 && i < len(q.requests) {
		q.chosen = true
		q.selected = q.requests[i].Metadata.Name
		q.detail.GotoTop()
		q.show()
	}
}

// show lays the selected request out in the detail pane.
func (q *queue) show() {
	q.detail.Width = q.width
	q.detail.Height = max(3, q.height-q.listHeight()-5)
	if r := q.current(); r != nil {
		q.detail.SetContent(lipgloss.NewStyle().Width(q.width).Render(describe(r)))
	}
}

func (q *queue) listHeight() int { return min(max(1, len(q.requests)), max(3, q.height/3)) }

var (
	bold   = lipgloss.NewStyle().Bold(true)
	dim    = lipgloss.NewStyle().Faint(true)
	marked = lipgloss.NewStyle().Reverse(true)
	bad    = lipgloss.NewStyle().Foreground(lipgloss.Color("1"))
	good   = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
)

// View implements tea.Model.
func (q *queue) View() string {
	var b strings.Builder
	waiting := 0
	for i := range q.requests {
		if q.requests[i].Status.Phase == "pending" {
			waiting++
		}
	}
	fmt.Fprintf(&b, "%s  %d waiting\n", bold.Render("hoopctl approvals"), waiting)
	if len(q.requests) == 0 {
		b.WriteString(dim.Render("nothing waits for you; requests appear here as they are made") + "\n")
	}
	for _, r := range q.window() {
		b.WriteString(q.line(r) + "\n")
	}
	b.WriteString(dim.Render(strings.Repeat("─", max(1, q.width))) + "\n")
	if q.current() != nil {
		b.WriteString(q.detail.View() + "\n")
	}
	b.WriteString(q.footer())
	return b.String()
}

// window is the part of the list that fits, with the selected one in it.
func (q *queue) window() []api.Request {
	n := q.listHeight()
	i := max(0, slices.IndexFunc(q.requests, func(r api.Request) bool { return r.Metadata.Name == q.selected }))
	from := max(0, min(i-n/2, len(q.requests)-n))
	return q.requests[from:min(len(q.requests), from+n)]
}

func (q *queue) line(r api.Request) string {
	what := r.Spec.Statement
	switch r.Spec.Kind {
	case "grant":
		what = fmt.Sprintf("grant for %s", time.Duration(r.Spec.For))
	case "change":
		what, _, _ = strings.Cut(what, "\n")
	}
	text := fmt.Sprintf("%-7s %-9s %-10s %-12s %s", r.Metadata.Name, q.left(r), Safe(r.Spec.Name), Safe(r.Spec.Target), oneLine(Safe(what)))
	text = lipgloss.NewStyle().MaxWidth(max(10, q.width)).Render(text)
	switch {
	case r.Metadata.Name == q.selected:
		return marked.Render(text)
	case r.Status.Phase != "pending":
		return dim.Render(text)
	}
	return text
}

// left is how long a request still waits, or what became of it.
func (q *queue) left(r api.Request) string {
	if r.Status.Phase != "pending" {
		return r.Status.Phase
	}
	if d := r.Status.Expires.Sub(q.now()); d > 0 {
		return d.Round(time.Second).String()
	}
	return "expiring"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (q *queue) footer() string {
	switch q.asking {
	case approving:
		return good.Render("approve, because (may be empty): ") + q.reason.View() + dim.Render("  enter signs · esc back")
	case denying:
		return bad.Render("deny, because: ") + q.reason.View() + dim.Render("  enter signs · esc back")
	}
	help := dim.Render("↑↓ choose · a approve · d deny · pgup pgdn scroll · q leave")
	if q.note == "" {
		return help
	}
	style := good
	if q.failed {
		style = bad
	}
	return style.Render(Safe(q.note)) + "\n" + help
}

// describe is everything that an approver must know before answering.
func describe(r *api.Request) string {
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s %s\n", dim.Render(fmt.Sprintf("%-9s", name)), Safe(value))
		}
	}
	field("who", r.Spec.Name+" ("+r.Spec.Principal+")")
	if len(r.Spec.Chain) > 1 {
		field("for", strings.Join(r.Spec.Chain[1:], ", "))
	}
	field("target", r.Spec.Target)
	field("session", r.Spec.Session)
	field("reason", r.Spec.Reason)
	field("purpose", r.Spec.Purpose)
	field("ticket", r.Spec.Ticket)
	for _, c := range r.Spec.Cures {
		field("rule", fmt.Sprintf("%s — %s · %d of %s", c.Rule, orNone(c.Reason), c.Quorum, c.Group))
	}
	if f := r.Spec.Facts; f != nil {
		field("touches", strings.Join(f.Tables, ", "))
		field("class", string(f.Class)+" · "+f.Kind)
	}
	for _, a := range r.Status.Answers {
		word := "denied"
		if a.Approve {
			word = "approved"
		}
		field(word, a.Name+" "+a.Time.Local().Format(time.TimeOnly)+" "+a.Reason)
	}
	switch {
	case r.Spec.Kind == "change":
		b.WriteString("\n" + difference(Safe(r.Spec.Statement)))
	case r.Spec.Statement != "":
		b.WriteString("\n" + highlight(Safe(r.Spec.Statement)) + "\n")
	}
	for i, p := range r.Spec.Params {
		field(fmt.Sprintf("$%d", i+1), p)
	}
	return b.String()
}

// difference colours the difference that a change of resources would make: a
// line for each resource, below it its text as it is (-) and would be (+).
func difference(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		style := bold
		switch line[0] {
		case '+':
			style = good
		case '-':
			style = bad
		case ' ':
			style = dim
		}
		b.WriteString(style.Render(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "no reason given"
	}
	return s
}
