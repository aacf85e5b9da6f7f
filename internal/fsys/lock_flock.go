//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package fsys

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// TryLock takes the exclusive advisory lock of f, without waiting; it is let go when f is closed or the process ends.
// It returns false when another open file holds it, and an error that is [errors.ErrUnsupported] where the system or the
// file system knows no such locks.
func TryLock(f *os.File) (held bool, err error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case errors.Is(err, syscall.ENOLCK):
			return false, fmt.Errorf("%w: %w", errors.ErrUnsupported, os.NewSyscallError("flock", err))
		case !errors.Is(err, syscall.EINTR):
			return false, os.NewSyscallError("flock", err)
		}
	}
}
