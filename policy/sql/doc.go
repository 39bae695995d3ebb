// Package sql turns PostgreSQL text into facts: which statements it holds, what
// each does, to which tables and columns, through which functions, and how
// strict a permission that takes.
//
// # Two readers of one text
//
// The first reader is a lexer of our own. It is small, allocates next to
// nothing, and its running time is linear whatever it is fed. It answers three
// questions: may the grammar see this text at all ([Gate]: hostile SQL can
// crash or stall the real grammar, so depth, size and comment nesting are
// bounded before it), what does the text look like without its literals
// ([Shape]), and how strict does each statement look by its keywords alone.
//
// The second reader is PostgreSQL's own grammar (libpg_query, in a WebAssembly
// sandbox, in a child process: see [ServeWorker] and package server/parser).
// Its parse tree is walked here into [policy.Facts].
//
// A fact is never milder than what the lexer saw: where the two disagree, the
// stricter class holds.
//
// # What cannot be known from the text
//
// Names mean what the target's catalogue and the session's search_path make of
// them. Facts from text alone therefore hold names as searched, and Unresolved
// is set; a statement's ambiguous columns count for every table that they
// could belong to. Everything not understood is of class admin.
//
// The lexer assumes standard_conforming_strings = on and UTF-8, as the
// grammar does. A protocol must pin both.
package sql
