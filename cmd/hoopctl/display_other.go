//go:build !unix || darwin

package main

// needsDisplay says that a browser opens only where X11 or Wayland is.
const needsDisplay = false
