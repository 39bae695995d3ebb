// Package parser keeps the SQL parser at arm's length: it starts it in child
// processes of this same binary, limits them, warms them before they are
// needed, ends and replaces them when a text stalls or breaks them, shares them
// fairly among principals, and remembers their answers.
//
// A text that the parser cannot judge in time is refused; if no child can be
// had, everything is. Nothing is ever guessed.
package parser
