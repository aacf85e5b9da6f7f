package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// A file that cannot be used as it is gets a second name, PATH.damaged-TIME, under which nobody touches it again. It is
// never removed and never written over, not even by a second one of the same moment.

// keepAside gives the damaged file a second name before the first one is used for what could be read of it: a process
// killed in between finds the file as it was. The name is that of an earlier call if that came no further.
func (j *journal) keepAside(now time.Time) (string, error) {
	st, err := os.Stat(j.path)
	if err != nil {
		return "", err
	}
	if last := j.asideInfo; last != nil && os.SameFile(st, last) && st.Size() == last.Size() &&
		st.ModTime().Equal(last.ModTime()) {
		return j.aside, nil
	}
	earlier, _ := filepath.Glob(escapeGlob(j.path) + fsys.DamagedMark + "*")
	for _, name := range earlier {
		if other, err := os.Stat(name); err == nil && os.SameFile(st, other) {
			return name, nil
		}
	}
	name, err := fsys.Aside(j.path, now, func(name string) error {
		err := os.Link(j.path, name)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		// A file system without hard links, or one that forbids them.
		return copyFile(j.path, name)
	})
	if err != nil {
		return "", fmt.Errorf("setting damaged file aside: %w", err)
	}
	j.aside, j.asideInfo = name, st
	return name, nil
}

// copyFile makes a synced copy under a name that must be free; half a copy is removed again.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			os.Remove(to)
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

// escapeGlob makes path a pattern that matches itself.
func escapeGlob(path string) string {
	var pattern []rune
	for _, c := range path {
		switch c {
		case '*', '?', '[':
			pattern = append(pattern, '[', c, ']')
		default:
			pattern = append(pattern, c)
		}
	}
	return string(pattern)
}
