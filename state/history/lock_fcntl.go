//go:build aix || solaris

package history

import (
	"errors"
	"io"
	"os"
	"syscall"
)

const locksFirst = true

// lockFirst takes the lock that bbolt will take, for this process, so that nobody else writes while the file is looked
// at. It does not wait.
func lockFirst(f *os.File) error {
	err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart})
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return ErrLocked
	}
	return os.NewSyscallError("fcntl", err)
}

// release closes a file that bbolt was not called to close.
func release(f *os.File) error {
	return f.Close()
}
