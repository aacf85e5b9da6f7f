//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package history

import (
	"errors"
	"os"
	"syscall"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// locksFirst tells whether lockFirst does anything.
const locksFirst = true

// lockFirst takes the lock that bbolt will take, on the same open file, so that nobody else writes while the file is
// looked at. It does not wait.
func lockFirst(f *os.File) error {
	held, err := fsys.TryLock(f)
	if err == nil && !held {
		return ErrLocked
	}
	return err
}

// release closes a file that bbolt was not called to close. What bbolt has mapped keeps the open file, and with it the
// lock, unless that is given up itself.
func release(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}
