// Package server listens. It is the only package that knows every room: it
// builds them from a [Config], joins them by the small interfaces that each
// declares, and runs them until its context ends.
package server
