package parser

import (
	"fmt"
	"os"
)

// ownFolder makes the folder. Its access list is inherited: the state folder
// that it lies in belongs to the server alone.
func ownFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the code cache: %w", err)
	}
	return nil
}
