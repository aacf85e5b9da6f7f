// Package fsys has what everything that keeps files does alike: making a new name last, setting a damaged file aside,
// and locking one against other processes.
package fsys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"
)

// SyncDir makes what was created or renamed in a directory last. Where directories cannot be synced, their entries are
// the file system's own concern, and that is no error.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if runtime.GOOS == "windows" || errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// DamagedMark is what the name of a file that was set aside has after its first name.
const DamagedMark = ".damaged-"

// Aside gives a damaged file another name, PATH.damaged-TIME, or PATH.damaged-TIME-2 and so on: put is called with one
// after the other until it says something else than that the name is taken, as [fs.ErrExist] does. It returns the name.
func Aside(path string, now time.Time, put func(name string) error) (name string, err error) {
	stem := path + DamagedMark + now.UTC().Format("20060102T150405Z")
	name = stem
	for n := 2; ; n++ {
		err := put(name)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		name = fmt.Sprintf("%s-%d", stem, n)
	}
}

// MoveAside renames a damaged file as [Aside] says, and none over another. rename is [os.Rename] or what a test puts in
// its place.
func MoveAside(path string, now time.Time, rename func(from, to string) error) (name string, err error) {
	return Aside(path, now, func(name string) error {
		if _, err := os.Lstat(name); err == nil {
			return fs.ErrExist
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return rename(path, name)
	})
}
