// Package devidp is an OpenID provider for development: a handful of users
// with one random password between them, services with secrets, the device
// flow with a real page to answer, refresh tokens that rotate. It is a real
// provider (github.com/zitadel/oidc), so that clients and servers do in
// development exactly what they do elsewhere; only its users are made up.
//
// It listens on loopback addresses only and refuses anything else: whoever
// knows the one password is everybody.
package devidp
