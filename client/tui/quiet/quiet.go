// Package quiet keeps Bubble Tea from talking to the terminal before main does.
//
// Bubble Tea v1 asks the terminal for its background colour as it is
// initialised (tea_init.go; gone in v2), whatever the program is then told to
// do: every verb would write escape sequences, and wait for five seconds on a
// terminal that does not answer them. Its only switch is the environment:
// nothing is asked where CI is set. So CI is set before that, and main puts it
// back with [End] before it does anything else.
//
// That this package comes first is the language's promise: of the packages
// whose imports are initialised, the first by import path is next
// (https://go.dev/ref/spec#Program_initialization), this one needs os alone,
// and termenv, which Bubble Tea needs, sorts behind it. A story runs hoopctl on a
// terminal and wants not a single escape character.
package quiet

import "os"

const variable = "CI"

// before is process state because package initialisation has nothing else.
var before, had = hush()

func hush() (string, bool) {
	value, ok := os.LookupEnv(variable)
	os.Setenv(variable, "true")
	return value, ok
}

// End puts the environment back as the process was given it.
func End() {
	if had {
		os.Setenv(variable, before)
		return
	}
	os.Unsetenv(variable)
}
