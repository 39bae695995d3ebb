// Package devdata holds the resources that come with hoopctl: the rules of
// `hoopctl dev` and, in starter and hipaa, the sets of `hoopctl policy init`,
// with the test cases that they promise to pass. They are written to be read,
// and copied from.
package devdata

import "embed"

// FS holds the resources of `hoopctl dev` at its root, and the sets to begin
// with in starter and hipaa; read the one you want, not several. Targets, with the labels
// suite=clinic, env=dev and data=phi, are added by dev itself, which alone
// knows their ports.
//
//go:embed *.yaml starter/*.yaml hipaa/*.yaml
var FS embed.FS
