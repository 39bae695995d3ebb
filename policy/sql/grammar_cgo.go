//go:build pgquery_cgo

package sql

import (
	"errors"
	"fmt"

	"github.com/pganalyze/pg_query_go/v6/parser"
)

// grammar is PostgreSQL's parser, in C inside this process: faster to start
// and to run than in WebAssembly, and without its walls. It must only ever run
// in the child that server/parser limits.
type grammar struct{}

func newGrammar(string) (*grammar, error) { return &grammar{}, nil }

func (g *grammar) parse(text string) ([]byte, error) {
	tree, err := parser.ParseToProtobuf(text)
	var bad *parser.Error
	if errors.As(err, &bad) {
		return nil, syntaxError(bad.Message, bad.Cursorpos)
	}
	if err != nil {
		return nil, fmt.Errorf("the SQL parser broke: %w", err)
	}
	return tree, nil
}
