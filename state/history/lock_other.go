//go:build !(aix || darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris)

package history

import "os"

const locksFirst = false

// lockFirst leaves locking to bbolt: Windows does not let a file be renamed that somebody else has open.
func lockFirst(*os.File) error {
	return nil
}

// release closes a file that bbolt was not called to close.
func release(f *os.File) error {
	return f.Close()
}
