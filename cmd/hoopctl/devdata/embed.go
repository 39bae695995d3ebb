// Package devdata holds the resources that come with hoopctl: the rules of
// `hoopctl dev` and, in hipaa, the starter set of `hoopctl policy init --hipaa`.
// They are written to be read, and copied from.
package devdata

import "embed"

// FS holds the resources of `hoopctl dev` at its root, and the starter set for
// HIPAA in hipaa; read the one you want, not both. Targets, with the labels
// suite=clinic, env=dev and data=phi, are added by dev itself, which alone
// knows their ports.
//
//go:embed *.yaml hipaa/*.yaml
var FS embed.FS
