package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// WitnessConfig is a witness: who it is, and whose logs it watches.
type WitnessConfig struct {
	Dir    string   // its state and key; created 0700
	Name   string   // of its key, when that is made: like a URL without scheme (audit.example.org/w1)
	Logs   []string // verifier keys of the logs that it watches
	Logger *slog.Logger
	Now    func() time.Time
}

// Witness remembers the largest checkpoint of each log that it watches, and
// cosigns only what goes on from there: whoever rolls a log back, rewrites it or
// shows two of them gets no cosignature. It is an http.Handler that speaks C2SP
// tlog-witness: POST …/add-checkpoint. https://c2sp.org/tlog-witness
//
// What it saw is durable before it signs. A witness whose state is lost must
// not start from nothing under the same key: OpenWitness refuses.
type Witness struct {
	cfg  WitnessConfig
	lock *os.File
	name string
	key  ed25519.PrivateKey
	logs map[string][]note.Verifier // by origin

	mu     sync.Mutex
	state  witnessState
	failed error // the state on the disk is unknown: nothing is signed any more
}

// witnessState is state.json.
type witnessState struct {
	V    int                `json:"v"`
	Logs map[string]watched `json:"logs"`
}

// watched is the newest checkpoint of a log that was cosigned.
type watched struct {
	Size uint64 `json:"size"`
	Root string `json:"root"` // base64
	Note string `json:"note"` // as it was submitted
}

const (
	witnessKeyFile   = "witness.key"
	witnessStateFile = "state.json"
	refusedFolder    = "refused"

	maxSubmission = 64 << 10
	maxProofLines = 63
	maxRefused    = 100 // kept refused checkpoints: they are proofs, not a log
)

// OpenWitness opens a witness's folder, or makes it with a new key.
func OpenWitness(cfg WitnessConfig) (*Witness, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Witness{cfg: cfg, logs: map[string][]note.Verifier{}}
	for _, k := range cfg.Logs {
		v, err := note.NewVerifier(strings.TrimSpace(k))
		if err != nil {
			return nil, fmt.Errorf("witness: a log's key: %w", err)
		}
		w.logs[v.Name()] = append(w.logs[v.Name()], v)
	}
	if len(w.logs) == 0 {
		return nil, errors.New("witness: no log to watch: name the verifier key of at least one")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	l, err := lock(w.path("witness.lock"))
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	w.lock = l
	if err := w.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("witness in %s: %w", cfg.Dir, err), l.Close())
	}
	return w, nil
}

func (w *Witness) path(name string) string { return filepath.Join(w.cfg.Dir, name) }

// load reads the state and then the key: the state is made first, so that a key
// without a state is one whose state was lost.
func (w *Witness) load() error {
	key, keyErr := os.ReadFile(w.path(witnessKeyFile))
	if keyErr != nil && !errors.Is(keyErr, fs.ErrNotExist) {
		return keyErr
	}
	state, err := os.ReadFile(w.path(witnessStateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && keyErr == nil:
		return errors.New("its state is gone, but not its key: under this key it would now cosign what contradicts what it cosigned before. " +
			"Restore state.json, or retire the key: move the folder away, start anew, and give the new key to all verifiers")
	case errors.Is(err, fs.ErrNotExist):
		w.state = witnessState{V: 1, Logs: map[string]watched{}}
		err = w.save(w.state)
	case err == nil:
		err = parseWitnessState(state, &w.state)
	}
	if err != nil {
		return err
	}
	if keyErr != nil {
		if key, err = w.makeKey(); err != nil {
			return err
		}
	}
	if w.name, w.key, err = parsePrivateCosigner(string(key)); err != nil {
		return fmt.Errorf("%s: %w", witnessKeyFile, err)
	}
	if w.cfg.Name != "" && w.cfg.Name != w.name {
		return fmt.Errorf("its key is named %s, not %s", w.name, w.cfg.Name)
	}
	return nil
}

func parseWitnessState(b []byte, s *witnessState) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return fmt.Errorf("its state cannot be read: %w", err)
	}
	if s.V != 1 || s.Logs == nil {
		return fmt.Errorf("its state is of version %d, want 1", s.V)
	}
	for origin, l := range s.Logs {
		if root, err := base64.StdEncoding.DecodeString(l.Root); err != nil || len(root) != tlog.HashSize {
			return fmt.Errorf("its state holds no root of %s", origin)
		}
	}
	return nil
}

func (w *Witness) save(s witnessState) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeAtomic(w.path(witnessStateFile), append(b, '\n'), true)
}

func (w *Witness) makeKey() ([]byte, error) {
	if !keyName(w.cfg.Name) {
		return nil, fmt.Errorf("a witness needs a name, such as audit.example.org/w1: without spaces and plus signs; %q is none", w.cfg.Name)
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, err
	}
	text := []byte(privateCosigner(w.cfg.Name, seed) + "\n")
	return text, createDurable(w.path(witnessKeyFile), text)
}

// Key is the witness's verifier key. Hand it to those who verify, out of band.
func (w *Witness) Key() string {
	return newWitnessKey(w.name, w.key.Public().(ed25519.PublicKey)).String()
}

// Close lets go of the folder.
func (w *Witness) Close() error { return w.lock.Close() }

// submission is the body of add-checkpoint.
type submission struct {
	old   uint64
	proof tlog.TreeProof
	note  []byte
}

// parseSubmission reads what a log sends. It is bounded by b.
func parseSubmission(b []byte) (s submission, err error) {
	head, signed, ok := bytes.Cut(b, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	digits, isOld := strings.CutPrefix(lines[0], "old ")
	if !ok || !isOld || len(lines)-1 > maxProofLines {
		return s, errors.New("want a line old SIZE, at most 63 hashes, an empty line, and a checkpoint")
	}
	if s.old, err = parseSize(digits); err != nil {
		return s, err
	}
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			return s, fmt.Errorf("%.60q is no hash", l)
		}
		s.proof = append(s.proof, tlog.Hash(h))
	}
	s.note = signed
	return s, nil
}

func parseSize(digits string) (uint64, error) {
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil || strconv.FormatUint(n, 10) != digits {
		return 0, fmt.Errorf("%.30q is no size of a tree", digits)
	}
	return n, nil
}

// refusal is an answer other than a cosignature.
type refusal struct {
	code  int
	what  string
	size  *uint64 // the answer to 409
	proof bool    // it proves that the log misbehaved
}

func (r *refusal) Error() string { return r.what }

// ServeHTTP implements http.Handler.
func (w *Witness) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/add-checkpoint") && r.Method == http.MethodPost:
	case r.URL.Path == "/" && r.Method == http.MethodGet:
		out.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(out, w.Key())
		return
	default:
		http.Error(out, "POST add-checkpoint, see https://c2sp.org/tlog-witness", http.StatusNotFound)
		return
	}
	body, err := readLimited(http.MaxBytesReader(out, r.Body, maxSubmission), maxSubmission)
	if err != nil {
		http.Error(out, "the submission is too large or was cut off", http.StatusBadRequest)
		return
	}
	line, err := w.add(body)
	var no *refusal
	switch {
	case err == nil:
		out.Header().Set("Content-Type", "text/plain; charset=utf-8")
		out.Write(line) // a log that went away asks again
	case errors.As(err, &no) && no.size != nil:
		out.Header().Set("Content-Type", contentTypeSize)
		out.WriteHeader(no.code)
		fmt.Fprintf(out, "%d\n", *no.size)
	case errors.As(err, &no):
		http.Error(out, no.what, no.code)
	default:
		w.cfg.Logger.Error("the witness cannot keep its state; it signs nothing any more", "err", err)
		http.Error(out, "the witness cannot keep its state", http.StatusInternalServerError)
	}
}

const contentTypeSize = "text/x.tlog.size"

// isSize says whether an answer's content type is that of a tree's size.
func isSize(header string) bool {
	t, _, err := mime.ParseMediaType(header)
	return err == nil && t == contentTypeSize
}

// add checks a submission and returns the line of the cosignature.
func (w *Witness) add(body []byte) ([]byte, error) {
	s, err := parseSubmission(body)
	if err != nil {
		return nil, &refusal{code: http.StatusBadRequest, what: err.Error()}
	}
	cp, err := w.signed(s.note)
	if err != nil {
		return nil, err
	}
	if s.old > cp.Size {
		return nil, &refusal{code: http.StatusBadRequest, what: "the old size is larger than the checkpoint's"}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return nil, w.failed
	}
	if err := w.judge(s, cp); err != nil {
		w.keepProof(err, cp)
		return nil, err
	}
	if err := w.remember(cp); err != nil {
		w.failed = err
		return nil, err
	}
	return cosignature(w.name, w.key, []byte(noteText(s.note)), w.cfg.Now()), nil
}

// signed checks that a log which is watched signed the note.
func (w *Witness) signed(signed []byte) (Checkpoint, error) {
	origin, _, _ := bytes.Cut(signed, []byte("\n"))
	known, ok := w.logs[string(origin)]
	if !ok {
		return Checkpoint{}, &refusal{code: http.StatusNotFound, what: "this witness does not watch that log"}
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		return Checkpoint{}, &refusal{code: http.StatusForbidden, what: "the checkpoint is not signed by that log's key"}
	}
	cp, err := parseCheckpointText(n.Text)
	if err != nil {
		return Checkpoint{}, &refusal{code: http.StatusBadRequest, what: err.Error()}
	}
	cp.Note = signed
	return cp, nil
}

// noteText is what the signatures of a note are over. The note was opened before.
func noteText(signed []byte) string {
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	return string(text) + "\n"
}

// judge holds a checkpoint against the newest one cosigned. Called with the lock held.
func (w *Witness) judge(s submission, cp Checkpoint) error {
	last := w.state.Logs[cp.Origin]
	conflict := func(what string, proof bool) error {
		return &refusal{code: http.StatusConflict, what: what, size: &last.Size, proof: proof}
	}
	if s.old != last.Size {
		return conflict("the old size is not that of the last checkpoint", cp.Size < last.Size)
	}
	if last.Size == 0 {
		if len(s.proof) > 0 {
			return &refusal{code: http.StatusUnprocessableEntity, what: "a proof from an empty tree must be empty"}
		}
		return nil
	}
	root, err := base64.StdEncoding.DecodeString(last.Root)
	if err != nil || len(root) != tlog.HashSize {
		return fmt.Errorf("the state of %s is damaged", cp.Origin)
	}
	if cp.Size == last.Size {
		if cp.Root != tlog.Hash(root) {
			return conflict("another tree of the same size was cosigned before", true)
		}
		if len(s.proof) > 0 {
			return &refusal{code: http.StatusUnprocessableEntity, what: "a proof between equal sizes must be empty"}
		}
		return nil
	}
	if err := tlog.CheckTree(s.proof, int64(cp.Size), cp.Root, int64(last.Size), tlog.Hash(root)); err != nil {
		return &refusal{code: http.StatusUnprocessableEntity, what: "the proof does not show that the tree goes on from the one cosigned before", proof: true}
	}
	return nil
}

// remember makes a checkpoint the newest one, durably. Called with the lock held.
func (w *Witness) remember(cp Checkpoint) error {
	root := base64.StdEncoding.EncodeToString(cp.Root[:])
	if last, ok := w.state.Logs[cp.Origin]; ok && last.Size == cp.Size && last.Root == root {
		return nil
	}
	next := witnessState{V: 1, Logs: map[string]watched{cp.Origin: {Size: cp.Size, Root: root, Note: string(cp.Note)}}}
	for origin, l := range w.state.Logs {
		if origin != cp.Origin {
			next.Logs[origin] = l
		}
	}
	if err := w.save(next); err != nil {
		return err
	}
	w.state = next
	return nil
}

// keepProof stores a checkpoint that the log signed and that contradicts, or
// seems to contradict, what it signed before, beside the one that it contradicts.
// A log cannot talk itself out of its own signature.
func (w *Witness) keepProof(why error, cp Checkpoint) {
	var no *refusal
	if !errors.As(why, &no) || !no.proof {
		return // a log that asks from where it believes the witness to be
	}
	w.cfg.Logger.Warn("not cosigned", "log", cp.Origin, "size", cp.Size, "seen", w.state.Logs[cp.Origin].Size, "why", why)
	folder := w.path(refusedFolder)
	name := filepath.Join(folder, fmt.Sprintf("%x.txt", sha256.Sum256([]byte(cp.text()))))
	text := fmt.Sprintf("%s\nRefused: %s\n\n%s\nCosigned before:\n\n%s", w.cfg.Now().UTC().Format(time.RFC3339), no.what, cp.Note, w.state.Logs[cp.Origin].Note)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		w.cfg.Logger.Error("a refused checkpoint could not be kept", "err", err)
		return
	}
	if kept, err := os.ReadDir(folder); err != nil || len(kept) >= maxRefused {
		return
	}
	if err := createDurable(name, []byte(text)); err != nil && !errors.Is(err, fs.ErrExist) {
		w.cfg.Logger.Error("a refused checkpoint could not be kept", "err", err)
	}
}
