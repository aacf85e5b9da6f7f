package state

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

const (
	filePerm = 0o600
	dirPerm  = 0o700
)

// file is what a journal needs of an open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// files are the calls by which a journal changes a directory; tests put failing ones in their place.
type files struct {
	open   func(name string, flag int, perm fs.FileMode) (file, error)
	rename func(from, to string) error
	sync   func(dir string) error
}

var systemFiles = files{
	open: func(name string, flag int, perm fs.FileMode) (file, error) {
		f, err := os.OpenFile(name, flag, perm)
		if err != nil {
			return nil, err // Not f: a nil *os.File in an interface is not nil.
		}
		return f, nil
	},
	rename: os.Rename,
	sync:   syncDir,
}

// syncDir makes what was created or renamed in a directory last. Where directories cannot be synced, their entries are
// the file system's own concern.
func syncDir(dir string) error {
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
