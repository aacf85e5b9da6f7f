//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package fsys

import (
	"errors"
	"os"
)

// TryLock takes no lock: this system has none of the kind, and the error is [errors.ErrUnsupported].
func TryLock(*os.File) (held bool, err error) {
	return false, errors.ErrUnsupported
}
