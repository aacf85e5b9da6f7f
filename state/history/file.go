package history

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"

	"go.etcd.io/bbolt"
)

// stateBucket holds, beside the buckets of the resolutions, which minute was written last, under appliedKey, and for
// each resolution, under its bucket's name, before which time rows of it were removed.
const stateBucket = "state"

var appliedKey = []byte("applied")

// file is an open file. The writer owns it; queries use db for reading.
type file struct {
	db      *bbolt.DB
	f       *os.File    // What db reads and writes.
	info    os.FileInfo // As it was opened.
	size    atomic.Int64
	options Options

	// broken is set after a panic of bbolt, which may have left its locks taken: the file is let go of then without
	// another call to bbolt.
	broken atomic.Pointer[error]
}

// update runs f in a transaction, guarded.
func (f *file) update(work func(tx *bbolt.Tx) error) error {
	err := guarded(func() error { return f.db.Update(work) })
	f.note(err)
	return err
}

// view runs f in a transaction for reading, guarded.
func (f *file) view(work func(tx *bbolt.Tx) error) error {
	// A file that was cut off is not there to be mapped; bbolt does not look.
	if err := f.whole(); err != nil {
		return err
	}
	err := guarded(func() error { return f.db.View(work) })
	f.note(err)
	return err
}

// note keeps an error after which bbolt cannot be called again.
func (f *file) note(err error) {
	var what damage
	if errors.As(err, &what) {
		f.broken.CompareAndSwap(nil, &err)
	}
}

// whole is nil as long as the file has what was written to it.
func (f *file) whole() error {
	st, err := f.f.Stat()
	if err != nil {
		return err
	}
	if want := f.size.Load(); st.Size() < want {
		return damaged("is %d bytes long, was %d", st.Size(), want)
	}
	return nil
}

// stale tells whether the file must be opened again: it is broken, cut off, or not the one at path any longer.
func (f *file) stale(path string) bool {
	if f.broken.Load() != nil || f.whole() != nil {
		return true
	}
	st, err := os.Stat(path)
	return err != nil || !os.SameFile(st, f.info)
}

// close lets go of the file and its lock. It waits for queries.
func (f *file) close() error {
	if f.broken.Load() == nil {
		if err := guarded(f.db.Close); err == nil {
			return nil
		}
	}
	return release(f.f) // What is mapped stays so.
}

// applied is the number of the last minute of a session that is in the file.
func (f *file) applied(session [8]byte) (n uint64, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		n = applied(tx, session)
		return nil
	})
	return n, err
}

// applied is the number of the last minute of a session that is in the file.
func applied(tx *bbolt.Tx, session [8]byte) uint64 {
	v := tx.Bucket([]byte(stateBucket)).Get(appliedKey)
	if len(v) != 16 || [8]byte(v) != session {
		return 0
	}
	return binary.BigEndian.Uint64(v[8:])
}
