package postgres

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
	"github.com/hoopctl/hoopctl/server/session"
)

// Parser says what a text of SQL does. server/parser's Pool is one. It is safe
// for concurrent use, and caches: it is asked for every statement.
//
// An error that is a *sql.SyntaxError, a *sql.TooComplex or a *session.Refusal
// is shown in its own words, any other as "the parser is unavailable". Nothing
// is forwarded on any error.
type Parser interface {
	// Facts returns one Facts per statement of the text, in order; none for a
	// text of comments. principal is the fair queue's key.
	Facts(ctx context.Context, principal, text string) ([]*policy.Facts, error)
	// Parse is Facts with the parse tree of this very text. It is asked on
	// targets with tags, where lineage is wanted.
	Parse(ctx context.Context, principal, text string) (*sql.Parsed, error)
}

// Config is what a Room is made of. Parser is required.
type Config struct {
	Parser    Parser
	Roles     Journal          // of ephemeral roles; nil: targets with such are refused
	Baselines Baselines        // what the catalogue remembers over restarts; nil: nothing
	Log       *slog.Logger     // nil is silence
	Now       func() time.Time // nil is time.Now

	// catalog tunes how long what is known of targets' catalogues is believed.
	catalog catalogConfig
}

// Room is what all PostgreSQL connections of one server share: cancel keys,
// the catalogues of targets, the parser. It is safe for concurrent use.
type Room struct {
	config   Config
	log      *slog.Logger
	catalogs *catalogs
	keys     keys
	mockKey  []byte // makes the salts of users that do not exist
}

// New returns a Room.
func New(c Config) *Room {
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.catalog.Baselines, c.catalog.Now = c.Baselines, c.Now
	mock := make([]byte, 32)
	rand.Read(mock)
	return &Room{config: c, log: c.Log, catalogs: newCatalogs(c.catalog), mockKey: mock,
		keys: keys{byPID: map[uint32]*conn{}}}
}

// Protocol returns the protocol of one new client connection.
func (r *Room) Protocol() session.Protocol { return &conn{room: r} }

// Invalidate makes every session of a target read its catalogue again: another
// server, or somebody outside, changed its schema.
func (r *Room) Invalidate(target string) { r.catalogs.invalidate(target) }

// keys are the cancel keys that this server gave out.
type keys struct {
	mu     sync.Mutex
	byPID  map[uint32]*conn
	forged uint64 // cancel requests that named no session or the wrong key
}
