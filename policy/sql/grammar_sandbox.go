//go:build !pgquery_cgo

package sql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	_ "unsafe" // for go:linkname

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	_ "github.com/wasilibs/go-pgquery/parser" // links the module below
	"github.com/wasilibs/wazero-helpers/allocator"
)

// go-pgquery's own entry points compile the WebAssembly module anew in every
// process (2 s, 270 MB at its peak), give each call 4 GB of address space, and
// keep an instance that has overflowed its stack, which then refuses valid
// SQL. It has no option for any of it. So the module is instantiated here:
// with compiled code cached on disk, bounded memory, and a fresh instance
// after a trap. The module itself and its host functions stay the library's,
// by the version in go.mod and its checksum in go.sum.

//go:linkname libPGQuery github.com/wasilibs/go-pgquery/internal/wasm.LibPGQuery
var libPGQuery []byte

//go:linkname wasixInstantiate github.com/wasilibs/go-pgquery/internal/wasix32v1.MustInstantiate
func wasixInstantiate(ctx context.Context, r wazero.Runtime)

//go:linkname wasixContext github.com/wasilibs/go-pgquery/internal/wasix32v1.BackgroundContext
func wasixContext() context.Context

// maxPages bounds an instance's memory: 192 MiB in pages of 64 KiB. The
// largest tree that passes the gate takes a third of it.
const maxPages = 3072

// grammar is PostgreSQL's parser. It is used by one goroutine at a time.
type grammar struct {
	runtime wazero.Runtime
	code    wazero.CompiledModule
	mod     api.Module // nil after a trap
}

// newGrammar compiles the parser, or loads what an earlier process compiled
// from the folder cache ("" for none). The folder holds native code: nobody
// but its owner may write to it.
func newGrammar(cache string) (*grammar, error) {
	ctx := context.Background()
	cfg := wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesThreads).WithMemoryLimitPages(maxPages)
	if cache != "" {
		c, err := wazero.NewCompilationCacheWithDir(cache)
		if err != nil {
			return nil, fmt.Errorf("open the parser's code cache: %w", err)
		}
		cfg = cfg.WithCompilationCache(c)
	}
	g := &grammar{runtime: wazero.NewRuntimeWithConfig(ctx, cfg)}
	wasi_snapshot_preview1.MustInstantiate(ctx, g.runtime)
	wasixInstantiate(ctx, g.runtime)
	var err error
	if g.code, err = g.runtime.CompileModule(ctx, libPGQuery); err != nil {
		return nil, fmt.Errorf("compile the parser: %w", err)
	}
	return g, g.start()
}

func (g *grammar) start() error {
	ctx := experimental.WithMemoryAllocator(context.Background(), allocator.NewNonMoving())
	mod, err := g.runtime.InstantiateModule(ctx, g.code, wazero.NewModuleConfig().WithName("").WithSysNanotime().WithStartFunctions("_initialize"))
	if err != nil {
		return fmt.Errorf("start the parser: %w", err)
	}
	g.mod = mod
	if _, err := g.call("pg_query_init"); err != nil {
		return g.trapped(err)
	}
	return nil
}

// parse returns the parse tree as protobuf. The error is a *SyntaxError, or
// says that the parser broke; it has then been started anew.
func (g *grammar) parse(text string) ([]byte, error) {
	if g.mod == nil {
		if err := g.start(); err != nil {
			return nil, err
		}
	}
	tree, err := g.try(text)
	var syntax *SyntaxError
	if err != nil && !errors.As(err, &syntax) {
		return nil, g.trapped(err)
	}
	return tree, err
}

// trapped throws the instance away: its memory is in no known state.
func (g *grammar) trapped(err error) error {
	if g.mod != nil {
		_ = g.mod.Close(context.Background())
		g.mod = nil
	}
	return fmt.Errorf("the SQL parser broke: %w", err)
}

// call runs an exported function. A trap is an error; a panic of the host
// functions becomes one.
func (g *grammar) call(name string, args ...uint64) (result uint64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %v", name, p)
		}
	}()
	out, err := g.mod.ExportedFunction(name).Call(wasixContext(), args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if len(out) > 0 {
		result = out[0]
	}
	return result, nil
}

var errMemory = errors.New("an address outside its memory")

func (g *grammar) try(text string) ([]byte, error) {
	in, err := g.call("malloc", uint64(len(text)+1))
	if err != nil {
		return nil, err
	}
	if in == 0 || !g.mod.Memory().WriteString(uint32(in), text) || !g.mod.Memory().WriteByte(uint32(in)+uint32(len(text)), 0) { //nolint:gosec // 32-bit addresses
		return nil, errMemory
	}
	// PgQueryProtobufParseResult: {size_t len; char *data}, char *stderr, PgQueryError *error
	res, err := g.call("malloc", 16)
	if err != nil {
		return nil, err
	}
	if _, err := g.call("pg_query_parse_protobuf", res, in); err != nil {
		return nil, err
	}
	tree, bad := g.result(uint32(res)) //nolint:gosec // 32-bit addresses
	if _, err := g.call("pg_query_free_protobuf_parse_result", res); err != nil {
		return nil, err
	}
	for _, p := range []uint64{res, in} {
		if _, err := g.call("free", p); err != nil {
			return nil, err
		}
	}
	return tree, bad
}

func (g *grammar) result(at uint32) ([]byte, error) {
	head, ok := g.mod.Memory().Read(at, 16)
	if !ok {
		return nil, errMemory
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(head[i:]) }
	if bad := word(12); bad != 0 {
		return nil, g.failure(bad)
	}
	data, ok := g.mod.Memory().Read(word(4), word(0))
	if !ok {
		return nil, errMemory
	}
	return append([]byte(nil), data...), nil
}

// failure reads PgQueryError: char *message, *funcname, *filename; int lineno,
// cursorpos (1-based, in characters); char *context.
func (g *grammar) failure(at uint32) error {
	mem := g.mod.Memory()
	msg, ok := mem.ReadUint32Le(at)
	pos, ok2 := mem.ReadUint32Le(at + 16)
	if !ok || !ok2 {
		return errMemory
	}
	var text []byte
	for i := msg; len(text) < 2000; i++ {
		c, ok := mem.ReadByte(i)
		if !ok || c == 0 {
			break
		}
		text = append(text, c)
	}
	return syntaxError(string(text), int(int32(pos))) //nolint:gosec // a C int
}
