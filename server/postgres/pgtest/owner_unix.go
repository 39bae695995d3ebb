//go:build unix

package pgtest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

const immediate = syscall.SIGQUIT

// owner is who runs PostgreSQL: it refuses to run as root.
func owner() (uid, gid int, other bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ = strconv.Atoi(u.Uid)
			gid, _ = strconv.Atoi(u.Gid)
			return uid, gid, true
		}
	}
	return 65534, 65534, true
}

// handOver gives the folder and what lies in it to the owner.
func handOver(dir string) error {
	uid, gid, other := owner()
	if !other {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
	if err != nil {
		return fmt.Errorf("pgtest: hand %s to uid %d: %w", dir, uid, err)
	}
	return nil
}

func asOwner(cmd *exec.Cmd) {
	cmd.SysProcAttr = withParent()
	if uid, gid, other := owner(); other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}
