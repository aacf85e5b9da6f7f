//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package sources

import (
	"errors"
	"os"
	"syscall"
)

// lockKept takes the exclusive advisory lock of f, which is let go when f is closed or the process ends. It returns false
// when somebody else holds it, and an error where that cannot be known.
func lockKept(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, os.NewSyscallError("flock", err)
		}
	}
}
