package state

import (
	"io"
	"io/fs"
	"os"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
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
	sync:   fsys.SyncDir,
}
