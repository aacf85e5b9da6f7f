//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package sources

import (
	"errors"
	"os"
)

// lockKept cannot lock here: the age of a file has to do.
func lockKept(*os.File) (bool, error) {
	return false, errors.ErrUnsupported
}
