//go:build !race

package parser

const instrumented = 1
