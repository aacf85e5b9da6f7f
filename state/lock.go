package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// ErrLocked is wrapped by the error of a store whose directory another process uses.
var ErrLocked = errors.New("in use by another process")

// dirLock is the lock of a directory: a file with an advisory lock on it, which the system lets go when the process
// ends, and in it a line that says who holds it. The file stays when the lock is gone.
//
// Not safe for concurrent use.
type dirLock struct {
	path string
	f    *os.File
}

// hold takes the lock, or makes sure that the one it has is still that of the file under the path.
func (l *dirLock) hold(now time.Time, instance string) error {
	if l.f != nil {
		if held, err := l.f.Stat(); err == nil {
			if st, err := os.Stat(l.path); err == nil && os.SameFile(held, st) {
				return nil
			}
		}
		l.release()
	}
	// Without O_NONBLOCK a FIFO in its place would hold the process up for ever.
	if st, err := os.Stat(l.path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("lock file %q: is a %s, want a regular file", l.path, kindOf(st))
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return fmt.Errorf("opening lock file: %w", err)
	}
	free, err := fsys.TryLock(f)
	if errors.Is(err, errors.ErrUnsupported) { // Two processes must not be given one directory here.
		free, err = true, nil
	}
	if err != nil || !free {
		text, _ := io.ReadAll(io.LimitReader(f, 512))
		f.Close()
		if err != nil {
			return fmt.Errorf("locking %q: %w", l.path, err)
		}
		if who := strings.TrimSpace(string(text)); who != "" {
			return fmt.Errorf("%w (%s)", ErrLocked, cleanText(who))
		}
		return ErrLocked
	}
	l.f = f
	// Who holds the lock is a courtesy: a full disk must not cost the lock itself.
	host, _ := os.Hostname()
	who := fmt.Sprintf("pid %d on host %s since %s", os.Getpid(), host, now.UTC().Format(time.RFC3339))
	if instance != "" {
		who += ", instance " + instance
	}
	if f.Truncate(0) == nil {
		f.WriteAt([]byte(who+"\n"), 0)
	}
	return nil
}

// release lets go of the lock, if it is held.
func (l *dirLock) release() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// kindOf names what st is when it is no regular file.
func kindOf(st os.FileInfo) string {
	switch mode := st.Mode(); {
	case mode.IsDir():
		return "directory"
	case mode&os.ModeNamedPipe != 0:
		return "named pipe"
	case mode&os.ModeSocket != 0:
		return "socket"
	case mode&os.ModeDevice != 0:
		return "device"
	default:
		return "special file"
	}
}
