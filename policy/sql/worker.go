package sql

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/hoopctl/hoopctl/policy"
)

// The protocol between a server and its parser child, over two pipes:
//
//	frame    = length (4 bytes, big-endian, of what follows) kind (1 byte) body
//	parent   H JSON{version, cache}   once, first
//	child    R                        ready: warmed up, and the canary was parsed
//	parent   Q text                   one question at a time
//	child    A facts-length (4) facts (JSON) tree (protobuf)
//	         E JSON{kind, …}          refused: syntax, toocomplex, or the parser broke
//
// Either side ends at a frame that it does not understand. Both bound what
// they read: the parent trusts the child with nothing but its answer.
const (
	protocolVersion = 1
	maxQuestion     = maxText + 1
	maxAnswer       = 48 << 20 // facts and tree of the largest text that passes the gate, with room
)

const (
	frameHello    = 'H'
	frameReady    = 'R'
	frameQuestion = 'Q'
	frameAnswer   = 'A'
	frameError    = 'E'
)

type hello struct {
	Version int    `json:"version"`
	Cache   string `json:"cache"`
}

// refusal is an error on its way to the parent.
type refusal struct {
	Kind     string `json:"kind"` // syntax | toocomplex | broken
	Message  string `json:"message"`
	Position int    `json:"position,omitempty"`
	SQLState string `json:"sqlState,omitempty"`
	Limit    int    `json:"limit,omitempty"`
}

const canary = "SELECT 1 AS canary"

// ServeWorker is the child's side: it reads texts and writes what it found in
// them until in ends (nil) or either side breaks the protocol. It prepares the
// grammar before it says that it is ready. It uses no clock, socket, file (but
// the code cache that its parent names) or environment; its caller bounds its
// time and memory.
func ServeWorker(in io.Reader, out io.Writer) error {
	w := worker{in: bufio.NewReader(in), out: bufio.NewWriter(out)}
	kind, body, err := readFrame(w.in, maxQuestion)
	if err != nil {
		return fmt.Errorf("read hello: %w", err)
	}
	var h hello
	if kind != frameHello || json.Unmarshal(body, &h) != nil || h.Version != protocolVersion {
		return errors.New("read hello: not a parent of this version")
	}
	if w.grammar, err = newGrammar(h.Cache); err != nil {
		return err
	}
	if err := w.sing(); err != nil {
		return err
	}
	if err := w.write(frameReady, nil); err != nil {
		return err
	}
	return w.serve()
}

type worker struct {
	in      *bufio.Reader
	out     *bufio.Writer
	grammar *grammar
}

func (w *worker) serve() error {
	for {
		kind, text, err := readFrame(w.in, maxQuestion)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read question: %w", err)
		}
		if kind != frameQuestion {
			return fmt.Errorf("read question: frame of kind %q", kind)
		}
		if err := w.answer(string(text)); err != nil {
			return err
		}
	}
}

// answer answers one text. It fails only where the worker must not go on.
func (w *worker) answer(text string) error {
	facts, tree, err := w.read(text)
	if err != nil {
		return w.refuse(err)
	}
	doc, err := json.Marshal(facts)
	if err != nil {
		return fmt.Errorf("encode facts: %w", err)
	}
	body := make([]byte, 4, 4+len(doc)+len(tree))
	binary.BigEndian.PutUint32(body, uint32(len(doc))) //nolint:gosec // bounded by maxAnswer
	body = append(append(body, doc...), tree...)
	if len(body) >= maxAnswer {
		return w.refuse(&TooComplex{What: "bytes of parse tree", Limit: maxAnswer})
	}
	return w.write(frameAnswer, body)
}

// read is the whole way from text to facts. A panic is the parser's or the
// analysis's, and costs the text, not the worker: the canary tells whether the
// worker may go on.
func (w *worker) read(text string) (facts []*policy.Facts, tree []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			facts, tree, err = nil, nil, fmt.Errorf("the SQL parser broke: %v", p)
		}
	}()
	if err := Gate(text); err != nil {
		return nil, nil, err
	}
	if tree, err = w.grammar.parse(text); err != nil {
		var e *SyntaxError
		if errors.As(err, &e) && seemsNewer(text) {
			e.Message += newerHint
		}
		return nil, nil, err
	}
	parsed, err := decode(tree)
	if err != nil {
		return nil, nil, err
	}
	facts, err = analyse(text, parsed)
	return facts, tree, err
}

// decode reads a parse tree of the grammar's.
func decode(tree []byte) (*pg.ParseResult, error) {
	var parsed pg.ParseResult
	if err := proto.Unmarshal(tree, &parsed); err != nil {
		return nil, fmt.Errorf("read the parse tree: %w", err)
	}
	return &parsed, nil
}

func (w *worker) refuse(err error) error {
	r := refusal{Kind: "broken", Message: err.Error()}
	var syntax *SyntaxError
	var complexity *TooComplex
	switch {
	case errors.As(err, &syntax):
		r = refusal{Kind: "syntax", Message: syntax.Message, Position: syntax.Position, SQLState: syntax.SQLState}
	case errors.As(err, &complexity):
		r = refusal{Kind: "toocomplex", Message: complexity.What, Position: complexity.Position, Limit: complexity.Limit}
	}
	doc, jerr := json.Marshal(r)
	if jerr != nil {
		return fmt.Errorf("encode refusal: %w", jerr)
	}
	if err := w.write(frameError, doc); err != nil {
		return err
	}
	if r.Kind == "broken" {
		return w.sing()
	}
	return nil
}

// sing parses the canary: a grammar that refuses it, or finds something else
// in it, answers nothing more.
func (w *worker) sing() error {
	facts, _, err := w.read(canary)
	if err != nil {
		return fmt.Errorf("canary: %w", err)
	}
	if len(facts) != 1 || facts[0].Kind != "SELECT" || facts[0].Class != policy.Read || facts[0].Shape != "select ? as canary" {
		return errors.New("canary: the SQL parser misread it")
	}
	return nil
}

func (w *worker) write(kind byte, body []byte) error {
	if err := writeFrame(w.out, kind, body); err != nil {
		return err
	}
	return w.out.Flush()
}

// Client is the parent's side. It is used by one goroutine at a time. After
// any error that is neither a *SyntaxError nor a *TooComplex nor a *Broken it
// must not be used again.
type Client struct {
	in  *bufio.Reader
	out io.Writer
}

// Broken says that a text broke the parser, which has recovered.
type Broken struct{ Message string }

func (e *Broken) Error() string { return e.Message }

// NewClient greets a worker and waits until it is ready, which takes seconds
// where its code cache is empty. cache is a folder that only its owner may
// write to, "" for none. in and out are the child's output and input.
func NewClient(in io.Reader, out io.Writer, cache string) (*Client, error) {
	c := &Client{in: bufio.NewReader(in), out: out}
	doc, err := json.Marshal(hello{Version: protocolVersion, Cache: cache})
	if err != nil {
		return nil, fmt.Errorf("greet the SQL parser: %w", err)
	}
	if err := writeFrame(out, frameHello, doc); err != nil {
		return nil, fmt.Errorf("greet the SQL parser: %w", err)
	}
	kind, _, err := readFrame(c.in, maxQuestion)
	if err != nil {
		return nil, fmt.Errorf("wait for the SQL parser: %w", err)
	}
	if kind != frameReady {
		return nil, fmt.Errorf("wait for the SQL parser: frame of kind %q", kind)
	}
	return c, nil
}

// Parsed is what a worker found in a text.
type Parsed struct {
	Facts []*policy.Facts // one a statement, in order, Unresolved
	Tree  []byte          // the parse tree, for Resolve
}

// Parse asks the worker. It blocks until the answer is there; its caller
// bounds the time by ending the worker.
func (c *Client) Parse(text string) (*Parsed, error) {
	if err := writeFrame(c.out, frameQuestion, []byte(text)); err != nil {
		return nil, fmt.Errorf("ask the SQL parser: %w", err)
	}
	kind, body, err := readFrame(c.in, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("hear the SQL parser: %w", err)
	}
	switch kind {
	case frameAnswer:
		return parsed(text, body)
	case frameError:
		return nil, refused(body)
	default:
		return nil, fmt.Errorf("hear the SQL parser: frame of kind %q", kind)
	}
}

func parsed(text string, body []byte) (*Parsed, error) {
	if len(body) < 4 || int64(binary.BigEndian.Uint32(body)) > int64(len(body)-4) {
		return nil, errors.New("hear the SQL parser: a short answer")
	}
	n := binary.BigEndian.Uint32(body)
	p := &Parsed{Tree: body[4+n:]}
	if err := json.Unmarshal(body[4:4+n], &p.Facts); err != nil {
		return nil, fmt.Errorf("hear the SQL parser: %w", err)
	}
	last := 0
	for _, f := range p.Facts {
		if f == nil || f.Start < last || f.End < f.Start || f.End > len(text) {
			return nil, errors.New("hear the SQL parser: statements outside the text")
		}
		last = f.End
		// The lexer's word once more, on this side of the wall.
		f.Class = policy.Stricter(f.Class, lexicalClass(text[f.Start:f.End]))
	}
	if len(p.Facts) == 0 {
		return nil, errors.New("hear the SQL parser: no facts")
	}
	return p, nil
}

func refused(body []byte) error {
	var r refusal
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("hear the SQL parser: %w", err)
	}
	switch r.Kind {
	case "syntax":
		return &SyntaxError{Message: r.Message, Position: r.Position, SQLState: r.SQLState}
	case "toocomplex":
		return &TooComplex{What: r.Message, Limit: r.Limit, Position: r.Position}
	default:
		return &Broken{Message: r.Message}
	}
}

// syntaxError words what the grammar said.
func syntaxError(message string, position int) *SyntaxError {
	state := "42601"
	switch {
	case strings.HasPrefix(message, "memory exhausted"):
		state = "54001" // statement_too_complex
	case strings.HasPrefix(message, "invalid byte sequence"):
		state = "22021"
	}
	return &SyntaxError{Message: message, Position: max(position, 0), SQLState: state}
}

func writeFrame(w io.Writer, kind byte, body []byte) error {
	frame := make([]byte, 5, 5+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)+1)) //nolint:gosec // bodies are bounded
	frame[4] = kind
	_, err := w.Write(append(frame, body...))
	return err
}

// readFrame reads one frame of at most limit bytes. It allocates as the bytes
// come, not by what the length claims.
func readFrame(r *bufio.Reader, limit int) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:4])) - 1
	if n < 0 || n > int64(limit) {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if n <= 64<<10 {
		body = make([]byte, n)
		_, err = io.ReadFull(r, body)
	} else {
		body, err = io.ReadAll(io.LimitReader(r, n))
		if err == nil && int64(len(body)) < n {
			err = io.ErrUnexpectedEOF
		}
	}
	return head[4], body, err
}
