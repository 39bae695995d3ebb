package pgtest

import (
	"os"
	"os/exec"
)

var immediate = os.Kill

func handOver(string) error { return nil }

func asOwner(*exec.Cmd) {}
