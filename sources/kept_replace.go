package sources

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

const (
	// keptTemporary is behind the name of the copy in that of a file that is being written.
	keptTemporary = ".tmp-"
	// leftoverAge is how old such a file is taken to be left over where locks do not tell.
	leftoverAge = time.Hour
)

// replace puts a new file in the place of the copy. It is fs.ErrNotExist when that was taken for a leftover.
func (k *Kept) replace(head, body []byte) (err error) {
	var f *os.File
	err = k.do(keptCreate, func() error {
		f, err = os.CreateTemp(filepath.Dir(k.Path), filepath.Base(k.Path)+keptTemporary+"*") // Its mode is keptPerm.
		return err
	})
	if err != nil {
		return err
	}
	name := f.Name()
	defer func() {
		if err != nil {
			os.Remove(name)
		}
	}()
	if err := k.write(f, head, body); err != nil {
		return err
	}
	// Its lock is gone by now: Windows renames no open file, and who takes it for a leftover leaves nothing to rename.
	return k.do(keptRename, func() error { return os.Rename(name, k.Path) })
}

// write fills a new file and closes it.
func (k *Kept) write(f *os.File, head, body []byte) (err error) {
	defer func() {
		if closing := f.Close(); err == nil {
			err = closing
		}
	}()
	if held, err := fsys.TryLock(f); err == nil && !held {
		return fs.ErrNotExist // Who looks for leftovers has it, and removes it.
	}
	err = k.do(keptWrite, func() error {
		if _, err := f.Write(head); err != nil {
			return err
		}
		_, err := f.Write(body)
		return err
	})
	if err != nil {
		return err
	}
	return k.do(keptSync, f.Sync)
}

// removeLeftovers removes what a Save that was killed left behind. One that is alive holds a lock on its file while it
// writes; caught before or after that, it begins anew.
func (k *Kept) removeLeftovers() {
	dir := filepath.Dir(k.Path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // What is to be done in the directory says so.
	}
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), filepath.Base(k.Path)+keptTemporary) {
			path := filepath.Join(dir, e.Name())
			if isLeftover(path, time.Now()) {
				os.Remove(path)
			}
		}
	}
}

// isLeftover tells whether nobody is writing a temporary file.
func isLeftover(path string, now time.Time) bool {
	f, err := os.OpenFile(path, os.O_RDWR|openFlags, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	held, err := fsys.TryLock(f)
	if err == nil {
		return held
	}
	info, err := f.Stat()
	return err == nil && now.Sub(info.ModTime()) > leftoverAge
}

// setAside renames the copy, when it still is the file that was found damaged, and returns its new name; empty when it
// is not.
func (k *Kept) setAside(damaged fs.FileInfo, now time.Time) (string, error) {
	aside, err := k.reserve(now)
	if err != nil {
		return "", err
	}
	if there, err := os.Stat(k.Path); err != nil || !sameCopy(there, damaged) {
		return "", os.Remove(aside)
	}
	err = k.do(keptAside, func() error { return os.Rename(k.Path, aside) })
	if err != nil {
		os.Remove(aside)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return "", err
	}
	moved, err := os.Stat(aside)
	if err != nil || sameCopy(moved, damaged) {
		return aside, nil
	}
	// A Save came in between: it goes back, unless there is a later one already.
	if err := os.Link(aside, k.Path); err == nil || errors.Is(err, fs.ErrExist) {
		return "", os.Remove(aside)
	}
	return "", os.Rename(aside, k.Path) // No hard links here.
}

// sameCopy tells whether that is one file, and not another one that was given the same inode.
func sameCopy(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// reserve makes an empty file to rename a damaged copy over, so that no other one of the same moment is lost.
func (k *Kept) reserve(now time.Time) (string, error) {
	return fsys.Aside(k.Path, now, func(name string) error {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, keptPerm)
		if err != nil {
			return err
		}
		return f.Close()
	})
}
