package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
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
	earlier, _ := filepath.Glob(escapeGlob(j.path) + ".damaged-*")
	for _, name := range earlier {
		if other, err := os.Stat(name); err == nil && os.SameFile(st, other) {
			return name, nil
		}
	}
	name, err := firstFree(j.path, now, func(name string) error {
		err := os.Link(j.path, name)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		// A file system without hard links, or one that forbids them.
		return copyFile(j.path, name)
	})
	if err == nil {
		j.aside, j.asideInfo = name, st
	}
	return name, err
}

// moveAside renames what stands in the place of the file.
func (j *journal) moveAside(now time.Time) (string, error) {
	return firstFree(j.path, now, func(name string) error {
		if _, err := os.Lstat(name); err == nil {
			return fs.ErrExist
		}
		return j.files.rename(j.path, name)
	})
}

// firstFree calls put with one name after the other until it returns something else than that the name is taken.
func firstFree(path string, now time.Time, put func(name string) error) (string, error) {
	stem := path + ".damaged-" + now.UTC().Format("20060102T150405Z")
	name := stem
	for n := 2; ; n++ {
		err := put(name)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("setting damaged file aside: %w", err)
		}
		name = fmt.Sprintf("%s-%d", stem, n)
	}
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
