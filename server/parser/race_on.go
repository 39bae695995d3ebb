//go:build race

package parser

// instrumented is how much more memory a child may take in tests under the race
// detector, which keeps several words of its own for each of the program's.
const instrumented = 8
