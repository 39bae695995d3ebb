package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/policy/sql"
	"github.com/hoopctl/hoopctl/server/session"
)

// contextQuery reads what names depend on. Everything in it is qualified: the
// client may have put anything in its search_path. The first statement answers
// with the role and the OID of the database, the second with the schemas that
// are searched, in order.
const contextQuery = "SELECT current_user::pg_catalog.text, (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()); SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))::pg_catalog.text"

// sqlContext is what the text of a session's statements means: it changes with
// SET, and back with ROLLBACK.
type sqlContext struct {
	mu       sync.Mutex
	old      atomic.Bool // role or search_path may have changed: read them again
	touched  bool        // … in a transaction that may still roll back
	role     string
	database uint32 // OID
	path     []string
	temp     bool // there are temporary objects: names and columns may not be the catalogue's
	dirty    bool // DDL in a transaction that is not committed
	settings map[string]string
	serial   uint64 // counts changes of role and path

	prepared map[string]*said // by PREPARE
	cursors  map[string]*said // by DECLARE

	resolved map[resolvedKey]*resolvedFacts
}

// resolvedKey is what resolved facts depend on. Facts that no literal changes
// are kept by their shape: each text of it then has the very same facts, by
// which the gate finds its own verdict again.
type resolvedKey struct {
	shape  string        // fingerprint, "" if a literal matters
	facts  *policy.Facts // nil if shape is set
	serial uint64
}

func (x *sqlContext) key(f *policy.Facts) resolvedKey {
	if f.LiteralFree && f.Fingerprint != "" {
		return resolvedKey{shape: f.Fingerprint, serial: x.serial}
	}
	return resolvedKey{facts: f, serial: x.serial}
}

type resolvedFacts struct {
	facts     *policy.Facts
	relations []uint32
	version   uint64 // of the catalogue

	// On a target with tags:
	seen     *classified
	dirty    bool
	exposure *policy.Exposure
	outputs  []policy.Output
	compared comparisons
}

// said is a statement as the client wrote it.
type said struct {
	text  string
	at    int           // which statement of the text
	facts *policy.Facts // the parser's
}

// maxResolved bounds a session's cache of resolved names.
const maxResolved = 256

func (x *sqlContext) stale() bool { return x.old.Load() }

// read takes the rows of contextQuery. current_schemas leads with pg_catalog
// and the temporary schema where PostgreSQL searches them.
func (x *sqlContext) read(rows [][]string) error {
	if len(rows) < 1 || len(rows[0]) != 2 || oid([]byte(rows[0][1])) == 0 {
		return errors.New("the target did not tell the session's role and database")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.role, x.database, x.path, x.temp = rows[0][0], oid([]byte(rows[0][1])), nil, false
	for _, row := range rows[1:] {
		if len(row) == 1 {
			x.path = append(x.path, row[0])
			x.temp = x.temp || strings.HasPrefix(row[0], "pg_temp_")
		}
	}
	x.serial++
	x.resolved = nil
	x.old.Store(false)
	return nil
}

// readContext reads it for the first time, before the connection is taken over.
func (c *conn) readContext(ctx context.Context, pg *pgconn.PgConn) error {
	results, err := pg.Exec(ctx, contextQuery).ReadAll()
	if err != nil {
		return fmt.Errorf("read the session's role and search_path: %w", err)
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			var values []string
			for _, v := range row {
				values = append(values, string(v))
			}
			rows = append(rows, values)
		}
	}
	c.context.prepared, c.context.cursors = map[string]*said{}, map[string]*said{}
	return c.context.read(rows)
}

// meaningful are the reported settings that change what a text means.
var meaningful = []string{"DateStyle", "IntervalStyle", "TimeZone", "client_encoding", "standard_conforming_strings"}

// reported notes a ParameterStatus. It fails if statements can no longer be
// read as PostgreSQL reads them.
func (c *conn) reported(name, value string) error {
	x := &c.context
	x.mu.Lock()
	defer x.mu.Unlock()
	c.up.params[name] = value
	if slices.Contains(meaningful, name) {
		x.settings = nil
	}
	switch name {
	case "standard_conforming_strings":
		if value != "on" {
			return pinBroken(name, value)
		}
	case "client_encoding":
		if unsafeEncoding(value) {
			return pinBroken(name, value)
		}
	}
	return nil
}

func pinBroken(name, value string) error {
	return &session.Refusal{Code: session.CodePolicy, Fatal: true, Message: fmt.Sprintf("%s became %s, under which statements cannot be read safely", name, value),
		Hint: "leave this setting as it is"}
}

// meaning returns the settings for statements; the map is never changed.
func (c *conn) meaning() map[string]string {
	x := &c.context
	if x.settings == nil {
		x.settings = make(map[string]string, len(meaningful))
		for _, name := range meaningful {
			if v, ok := c.up.params[name]; ok {
				x.settings[name] = v
			}
		}
	}
	return x.settings
}

// understand turns a text into statements whose names are resolved.
func (q *requests) understand(text string) ([]policy.Statement, error) {
	facts, err := q.read(text)
	if err != nil {
		return nil, err
	}
	return q.statements(text, facts, nil)
}

// read asks the parser. A text of comments has no facts.
func (q *requests) read(text string) ([]*policy.Facts, error) {
	facts, err := q.c.room.config.Parser.Facts(q.c.ctx, q.c.principal.ID(), text)
	if err != nil {
		return nil, q.unparsed(text, err)
	}
	for _, f := range facts {
		if f.Start < 0 || f.End < f.Start || f.End > len(text) {
			return nil, fmt.Errorf("the parser found a statement at %d to %d of %d bytes", f.Start, f.End, len(text))
		}
	}
	empty := func(f *policy.Facts) bool { return f.Kind == "" }
	if slices.ContainsFunc(facts, empty) {
		facts = slices.DeleteFunc(slices.Clone(facts), empty) // the parser's own is shared
	}
	return facts, nil
}

// unparsed is the refusal of a text that is not understood. The attempt is
// written down: it is a statement of no class, which every policy denies.
func (q *requests) unparsed(text string, err error) error {
	attempt := policy.Statement{Facts: &policy.Facts{Kind: "UNPARSED", End: len(text)}, Text: text, End: len(text), Statements: 1, Database: q.c.database}
	if recorded := q.c.gate.Check(q.c.ctx, []policy.Statement{attempt}); recorded != nil {
		var r *session.Refusal
		if !errors.As(recorded, &r) || r.Fatal || r.Code != session.CodePolicy {
			return recorded
		}
	}
	var own *session.Refusal
	var syntax *sql.SyntaxError
	var complexity *sql.TooComplex
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &syntax):
		return &session.Refusal{Code: session.Code(codeSQLState + syntax.SQLState), Message: syntax.Message, Position: syntax.Position}
	case errors.As(err, &complexity):
		return &session.Refusal{Code: codeSQLState + "54001", Message: complexity.Error(), Position: complexity.Position,
			Hint: "split the statement"}
	}
	q.c.room.log.Error("parser failed", "session", q.c.name, "error", err)
	return &session.Refusal{Code: session.CodeUnavailable, Message: "the statement could not be parsed now", Hint: "try again"}
}

// statements resolves the names of a batch and puts each fact into its place.
func (q *requests) statements(text string, facts []*policy.Facts, params []policy.Param) ([]policy.Statement, error) {
	if err := q.settle(); err != nil {
		return nil, err
	}
	if len(facts) == 0 {
		return nil, nil
	}
	if err := q.ordered(facts); err != nil {
		return nil, err
	}
	c := q.c
	inTransaction := q.inTransaction()
	batch := make([]policy.Statement, len(facts))
	for i, f := range facts {
		if err := q.pins(f); err != nil {
			return nil, err
		}
		if err := q.copyRefusal(f); err != nil {
			return nil, err
		}
		known, err := c.meant(&said{text, i, f}, facts[:i])
		if err != nil {
			return nil, err
		}
		constants, err := known.compared.constants(params)
		if err != nil {
			return nil, &session.Refusal{Code: session.CodePolicy, Message: err.Error(), Hint: "compare the column with constants, each as a parameter of its own"}
		}
		c.context.mu.Lock()
		batch[i] = policy.Statement{Facts: known.facts, Text: text, Start: f.Start, End: f.End, Params: params, Statements: len(facts), InTransaction: inTransaction,
			Database: c.database, Role: c.context.role, SearchPath: c.context.path, Settings: c.meaning(), Resolved: known.relations,
			Exposure: known.exposure, Outputs: known.outputs, Constants: constants}
		q.seen = known.seen
		c.context.mu.Unlock()
		switch f.Transaction {
		case "begin":
			inTransaction = true
		case "commit", "rollback", "prepare":
			inTransaction = false
		}
	}
	return batch, nil
}

// meant resolves a statement, and what it stands for: an EXECUTE the statement
// that was prepared, a FETCH the query of its cursor. before are the statements
// in front of it in its text.
func (c *conn) meant(s *said, before []*policy.Facts) (*resolvedFacts, error) {
	own, err := c.resolve(s)
	if err != nil {
		return nil, err
	}
	switch s.facts.Kind {
	case "EXECUTE":
		inner := c.preparedBy(s.facts.Prepared)
		if inner == nil {
			return own, nil
		}
		ran, err := c.resolve(inner)
		if err != nil {
			return nil, err
		}
		return c.executed(s.facts, own, ran), nil
	case "FETCH", "MOVE":
		declared := c.declared(s, before)
		if declared == nil {
			out := *own
			if out.exposure != nil {
				out.outputs, out.exposure = nil, &policy.Exposure{Cursor: s.facts.Cursor}
			}
			return &out, nil
		}
		rows, err := c.resolve(declared)
		if err != nil {
			return nil, err
		}
		out := *own
		out.outputs, out.relations = rows.outputs, rows.relations
		return &out, nil
	}
	return own, nil
}

// executed gives an EXECUTE the facts of what it runs, beside those of its own
// parameters. What is not known stays as strict as the parser found it.
func (c *conn) executed(f *policy.Facts, own, ran *resolvedFacts) *resolvedFacts {
	merged := *ran.facts
	merged.Kind, merged.Prepared, merged.LiteralFree = f.Kind, f.Prepared, false
	merged.Start, merged.End, merged.Shape, merged.Fingerprint = f.Start, f.End, f.Shape, f.Fingerprint
	out := *ran
	out.facts = &merged
	out.compared = ran.compared.with(own.compared.arguments)
	if len(own.facts.Functions) > 0 { // its parameters call something: that is judged as well
		merged.Class = policy.Stricter(merged.Class, f.Class)
		merged.Functions = append(slices.Clone(merged.Functions), own.facts.Functions...)
		if own.exposure != nil {
			out.exposure = own.exposure
		}
	}
	return &out
}

// declared is the statement that made the cursor a FETCH reads, nil if it was
// not seen: that of an earlier text, or one before it in the same.
func (c *conn) declared(s *said, before []*policy.Facts) *said {
	for i := len(before) - 1; i >= 0; i-- {
		f := before[i]
		switch {
		case f.Cursor == s.facts.Cursor && f.Kind == "DECLARE CURSOR":
			return &said{s.text, i, f}
		case f.Kind == "CLOSE CURSOR" && (f.Cursor == "" || f.Cursor == s.facts.Cursor), f.Kind == "DISCARD ALL":
			return nil
		}
	}
	c.context.mu.Lock()
	defer c.context.mu.Unlock()
	return c.context.cursors[s.facts.Cursor]
}

// preparedBy is the statement of that name, made by PREPARE or by Parse: the
// names are the same to PostgreSQL. nil if there is none.
func (c *conn) preparedBy(name string) *said {
	c.context.mu.Lock()
	inner := c.context.prepared[name]
	c.context.mu.Unlock()
	if inner != nil {
		return inner
	}
	l := c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.statements[name]; s != nil && !s.open && s.is != nil && len(s.is.facts) == 1 {
		return &said{s.is.text, 0, s.is.facts[0]}
	}
	return nil
}

// ordered refuses a text in which names depend on a statement before them:
// they would be decided by what they mean now, not by what they will mean.
func (q *requests) ordered(facts []*policy.Facts) error {
	changed := ""
	for _, f := range facts {
		if changed != "" && (len(f.Relations) > 0 || len(f.Functions) > 0) {
			return &session.Refusal{Code: session.CodePolicy, Message: fmt.Sprintf("names in this text depend on its %s before them", changed),
				Hint: "send the statements one by one"}
		}
		switch {
		case changesNames(f):
			changed = f.Kind
		case f.Class == policy.Schema && q.c.gate.Hides():
			changed = f.Kind
		}
	}
	return nil
}

// pins refuses what would make the broker read or write values wrongly, and
// what would let the client speak as somebody else to the target's row-level
// security.
func (q *requests) pins(f *policy.Facts) error {
	if err := q.configures(f); err != nil {
		return err
	}
	if f.Setting == "" || f.Kind == "SHOW" {
		return nil
	}
	name, value := strings.ToLower(f.Setting), strings.Trim(f.SettingValue, "' ")
	refused := func(why, hint string) error {
		return &session.Refusal{Code: session.CodePolicy, Message: fmt.Sprintf("%s cannot be set through the broker: %s", name, why), Hint: hint}
	}
	lower := strings.ToLower(value)
	switch {
	case strings.HasPrefix(name, "hoopctl."):
		return refused("it tells the target who you are", "")
	case value == "": // the default is what the session started with
		return nil
	case name == "standard_conforming_strings" && !slices.Contains([]string{"on", "true", "yes", "1"}, lower):
		return refused("statements could not be read safely", "leave it on")
	case (name == "client_encoding" || name == "names") && unsafeEncoding(value):
		return refused("statements could not be read safely", "use UTF8")
	}
	if !q.c.gate.Hides() {
		return nil
	}
	switch {
	case name == "client_min_messages" && slices.Contains([]string{"notice", "warning", "error"}, lower),
		name == "client_encoding" && slices.Contains([]string{"utf8", "utf-8", "unicode"}, lower),
		name == "datestyle" && strings.HasPrefix(lower, "iso"):
		return nil
	case strings.HasPrefix(name, "debug_print") && slices.Contains([]string{"off", "false", "no", "0"}, lower):
		return nil
	case strings.HasPrefix(name, "debug_"):
		return refused("it shows values beside the results", "")
	}
	if fixed, ok := pinned[name]; ok && !strings.EqualFold(fixed, value) {
		return refused("masked values would not be written rightly", fmt.Sprintf("on this target it stays %s", fixed))
	}
	return nil
}

// configures refuses what pins cannot judge: set_config of settings that are
// told only when it runs, or of several at once.
func (q *requests) configures(f *policy.Facts) error {
	for _, r := range f.Relations {
		if r.Written && strings.EqualFold(r.Name, "pg_settings") {
			return &session.Refusal{Code: session.CodePolicy, Message: "pg_settings cannot be written through the broker: what it would set is told only when it runs", Hint: "use SET"}
		}
	}
	for _, name := range f.Configures {
		_, fixed := pinned[name]
		fixed = fixed && q.c.gate.Hides()
		switch {
		case name == "?":
			return &session.Refusal{Code: session.CodePolicy, Message: "set_config of a computed name cannot be set through the broker: what it would set is told only when it runs",
				Hint: "write the setting's name as a constant"}
		case strings.HasPrefix(name, "hoopctl."):
			return &session.Refusal{Code: session.CodePolicy, Message: name + " cannot be set through the broker: it tells the target who you are"}
		case (fixed || name == "standard_conforming_strings" || name == "client_encoding") && (len(f.Configures) > 1 || f.Setting != name):
			return &session.Refusal{Code: session.CodePolicy, Message: name + " cannot be set through the broker but to a constant", Hint: "use SET, in a statement of its own"}
		}
	}
	return nil
}

// changesContext is true for statements that may change role or search_path.
func changesContext(f *policy.Facts) bool {
	switch f.Kind {
	case "SHOW":
		return false
	case "RESET ALL", "DISCARD ALL", "DISCARD TEMP":
		return true
	}
	switch strings.ToLower(f.Setting) {
	case "search_path", "role", "session_authorization":
		return true
	}
	return false
}

// changesNames is true for statements after which the same text, or the same
// name of a statement or portal, may mean something else.
func changesNames(f *policy.Facts) bool {
	switch f.Kind {
	case "PREPARE", "DECLARE CURSOR", "CLOSE CURSOR":
		return true
	}
	return changesContext(f)
}

// databaseOID is the OID of the session's own database: one that was made anew
// under its name has another.
func (c *conn) databaseOID() uint32 {
	c.context.mu.Lock()
	defer c.context.mu.Unlock()
	return c.context.database
}

// resolve replaces names by what they mean in the target's catalogue. On a
// target with tags it also finds where values come from and where they go.
func (c *conn) resolve(s *said) (*resolvedFacts, error) {
	f, hides := s.facts, c.gate.Hides()
	if !hides && len(f.Relations) == 0 && len(f.Functions) == 0 && len(f.Tables) == 0 && len(f.Columns) == 0 {
		return c.context.nameless(f), nil
	}
	// Tags are bound before anything runs that could rename what they mean.
	seen, err := c.catalog.classified(c.ctx, c.control, c.databaseOID(), c.gate.Tags())
	if err != nil {
		c.room.log.Error("the target's catalogue cannot be read", "session", c.name, "target", c.info.Name, "error", err)
		return nil, &session.Refusal{Code: session.CodeUnavailable, Message: "the target's catalogue cannot be read, so names cannot be decided",
			Hint: "try again; if it lasts, tell whoever runs the broker"}
	}
	x := &c.context
	x.mu.Lock()
	defer x.mu.Unlock()
	key := x.key(f)
	if r := x.resolved[key]; r != nil && r.version == seen.version && (!hides || r.seen == seen && r.dirty == x.dirty) && !r.compared.otherwise(s) {
		return r, nil
	}
	r := &resolvedFacts{version: seen.version, dirty: x.dirty}
	r.facts, r.relations = seen.resolve(f, x.path, x.role)
	if hides {
		r.seen = seen
		if err = c.trace(r, s); err != nil {
			return nil, err
		}
	}
	x.remember(key, r)
	return r, nil
}

// trace finds the lineage of a statement. The context is locked.
func (c *conn) trace(r *resolvedFacts, s *said) error {
	parsed, err := c.room.config.Parser.Parse(c.ctx, c.principal.ID(), s.text)
	if err != nil {
		return fmt.Errorf("parse again for lineage: %w", err)
	}
	by := r.seen.seenBy(c.context.path, c.context.role)
	by.blind = c.context.dirty
	_, lineage, err := sql.Resolve(s.text, parsed.Tree, s.at, by)
	if err != nil {
		return &session.Refusal{Code: session.CodePolicy, Message: "where the values of this statement come from cannot be told", Detail: err.Error(),
			Hint: "write it in a simpler way"}
	}
	r.exposure, r.outputs, r.compared = r.seen.exposure(lineage), outputs(lineage), r.seen.comparisons(lineage, s)
	return nil
}

// nameless returns the facts of a statement that names nothing, as resolved.
func (x *sqlContext) nameless(f *policy.Facts) *resolvedFacts {
	x.mu.Lock()
	defer x.mu.Unlock()
	key := x.key(f)
	if r := x.resolved[key]; r != nil {
		return r
	}
	known := *f
	known.Unresolved = false
	r := &resolvedFacts{facts: &known}
	x.remember(key, r)
	return r
}

// remember keeps resolved names; a full cache is dropped whole. mu is held.
func (x *sqlContext) remember(key resolvedKey, r *resolvedFacts) {
	if x.resolved == nil || len(x.resolved) >= maxResolved {
		x.resolved = map[resolvedKey]*resolvedFacts{}
	}
	x.resolved[key] = r
}

// effect notes what a statement that completed did to the session: what names
// of statements, portals and relations mean from now on. It is called by the
// answers half before the client learns of it.
func (c *conn) effect(r *run) {
	f, x := r.facts, &c.context
	x.mu.Lock()
	defer x.mu.Unlock()
	if changesContext(f) || f.Class == policy.Admin {
		x.touched = true
		x.old.Store(true)
	}
	if f.Class == policy.Schema || f.Class == policy.Admin && f.Setting == "" {
		x.dirty, x.touched = true, true
		x.old.Store(true) // a temporary object brings its schema into the path
		c.room.catalogs.invalidate(c.info.Name)
	}
	l := c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	switch f.Kind {
	case "PREPARE":
		x.prepared[f.Prepared] = r.text()
		confirm(l, l.statements, f.Prepared, &prepared{sql: true})
	case "DEALLOCATE":
		c.deallocate(f.Prepared)
	case "DISCARD ALL":
		c.deallocate("")
		clear(x.cursors)
	case "DECLARE CURSOR":
		x.cursors[f.Cursor] = r.text()
		dropPortal(c, f.Cursor)
	case "CLOSE CURSOR":
		if f.Cursor == "" {
			clear(x.cursors)
			for _, name := range slices.Collect(maps.Keys(l.portals)) {
				dropPortal(c, name)
			}
			return
		}
		delete(x.cursors, f.Cursor)
		dropPortal(c, f.Cursor)
	}
}

// deallocate forgets a statement, all of them if name is "".
func (c *conn) deallocate(name string) {
	x, l := &c.context, c.ledger
	if name != "" {
		delete(x.prepared, name)
		confirm(l, l.statements, name, nil)
		return
	}
	clear(x.prepared)
	for _, name := range slices.Collect(maps.Keys(l.statements)) {
		if name != "" { // the unnamed one is no part of pg_prepared_statements
			confirm(l, l.statements, name, nil)
		}
	}
}

// dropPortal forgets a portal that the target no longer has.
func dropPortal(c *conn, name string) {
	if s := c.ledger.portals[name]; s != nil {
		if s.is != nil {
			s.is.close(c)
		}
		confirm(c.ledger, c.ledger.portals, name, nil)
	}
}

// transactionEnded is called when the target is ready and in no transaction.
func (c *conn) transactionEnded() {
	x := &c.context
	x.mu.Lock()
	if x.touched {
		x.touched = false
		x.old.Store(true)
	}
	if x.dirty {
		x.dirty = false
		c.room.catalogs.invalidate(c.info.Name)
	}
	x.mu.Unlock()
}
