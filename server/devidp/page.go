package devidp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageText string

const (
	cookieName = "hoopctl-device"
	// maxGuesses is how many unknown codes one address may try in a minute.
	maxGuesses = 5
	guessTime  = time.Minute
)

// page is the page on which a person answers a device login (RFC 8628, 3.3):
// it shows the code, who asks and from where, and wants user and password.
type page struct {
	store    *storage
	now      func() time.Time
	template *template.Template

	mu      sync.Mutex
	guesses map[string][]time.Time // wrong codes by address
}

// shown is what the template is filled with.
type shown struct {
	Waiting *waiting // nil: the code is still to be typed
	User    string
	CSRF    string
	Error   string
	Done    string
}

func (p *Provider) page() http.Handler {
	pg := &page{store: p.store, now: p.config.Now, template: template.Must(template.New("page").Parse(pageText)), guesses: map[string][]time.Time{}}
	return http.NewCrossOriginProtection().Handler(pg)
}

func (pg *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	switch r.Method {
	case http.MethodGet:
		pg.ask(w, r)
	case http.MethodPost:
		pg.answer(w, r)
	default:
		h.Set("Allow", "GET, POST")
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}

func (pg *page) ask(w http.ResponseWriter, r *http.Request) {
	code := normalize(r.URL.Query().Get("user_code"))
	if code == "" {
		pg.show(w, http.StatusOK, shown{})
		return
	}
	if !pg.mayGuess(r) {
		pg.show(w, http.StatusTooManyRequests, shown{Error: "Too many unknown codes. Wait a minute."})
		return
	}
	d, ok := pg.store.waiting(code)
	if !ok {
		pg.guessed(r)
		pg.show(w, http.StatusNotFound, shown{Error: sentence(errNoCode)})
		return
	}
	pg.show(w, http.StatusOK, shown{Waiting: &d, CSRF: pg.csrf(pg.visitor(w, r), code)})
}

func (pg *page) answer(w http.ResponseWriter, r *http.Request) {
	code := normalize(r.PostFormValue("user_code"))
	visitor := pg.visitor(w, r)
	if !same(r.PostFormValue("csrf"), pg.csrf(visitor, code)) {
		pg.show(w, http.StatusForbidden, shown{Error: "This form is not from here, or it is old. Open the page again."})
		return
	}
	if r.PostFormValue("answer") != "allow" {
		pg.finish(w, r, code, pg.store.deny(code), "The login was refused. You can close this page.")
		return
	}
	user := strings.TrimSpace(r.PostFormValue("username"))
	err := pg.store.allow(code, user, r.PostFormValue("password"))
	pg.finish(w, r, code, err, "You are logged in as "+user+". You can close this page.")
}

func (pg *page) finish(w http.ResponseWriter, r *http.Request, code string, err error, done string) {
	if err == nil {
		pg.show(w, http.StatusOK, shown{Done: done})
		return
	}
	s := shown{Error: sentence(err)}
	if d, ok := pg.store.waiting(code); ok {
		s.Waiting, s.CSRF = &d, pg.csrf(pg.visitor(w, r), code)
	}
	pg.show(w, http.StatusForbidden, s)
}

func (pg *page) show(w http.ResponseWriter, status int, s shown) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = pg.template.Execute(w, s) // the browser went away: there is nobody to tell
}

// visitor names a browser by a cookie; it is set where there is none.
func (pg *page) visitor(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(cookieName); err == nil && len(c.Value) == 26 {
		return c.Value
	}
	c := &http.Cookie{Name: cookieName, Value: rand.Text(), Path: pagePath, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: 3600}
	r.AddCookie(c) // the same answer asks again
	http.SetCookie(w, c)
	return c.Value
}

// csrf binds a form to the browser that it was shown in and to its code.
func (pg *page) csrf(visitor, code string) string {
	mac := hmac.New(sha256.New, pg.store.state.Secret)
	mac.Write([]byte("csrf\n" + visitor + "\n" + code))
	return hex.EncodeToString(mac.Sum(nil))
}

// mayGuess reports whether an address has tries left.
func (pg *page) mayGuess(r *http.Request) bool {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	return len(pg.recent(sourceOf(r).addr)) < maxGuesses
}

func (pg *page) guessed(r *http.Request) {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	addr := sourceOf(r).addr
	pg.guesses[addr] = append(pg.recent(addr), pg.now())
}

// recent are an address's wrong codes of the last minute. The caller holds mu.
func (pg *page) recent(addr string) []time.Time {
	var kept []time.Time
	for _, t := range pg.guesses[addr] {
		if pg.now().Sub(t) < guessTime {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		delete(pg.guesses, addr)
	}
	return kept
}

// normalize reads a code as people type it: BCDF GHJK, bcdfghjk.
func normalize(code string) string {
	var b strings.Builder
	for _, c := range strings.ToUpper(code) {
		if c >= 'A' && c <= 'Z' {
			if b.Len() == 4 {
				b.WriteByte('-')
			}
			b.WriteRune(c)
		}
		if b.Len() > 9 {
			return ""
		}
	}
	return b.String()
}

func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
