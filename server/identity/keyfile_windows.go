package identity

import "os"

// readKeyFile reads a private key. On Windows the folder's access control list
// says who may; mode bits say nothing.
func readKeyFile(path string) ([]byte, error) { return os.ReadFile(path) }
