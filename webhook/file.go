package webhook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

const (
	bucketName = "queue"
	filePerm   = 0o600
	dirPerm    = 0o700
	// lockTimeout has bbolt try its lock once: it waits 50 ms between two attempts.
	lockTimeout = time.Millisecond
)

// ErrLocked is wrapped by [Sender.Health] while another process uses the queue file.
var ErrLocked = errors.New("in use by another process")

// file is an open queue file. Its methods must run on a goroutine with debug.SetPanicOnFault, or the process ends where
// somebody shortens the file. Not safe for concurrent use.
type file struct {
	db    *bbolt.DB
	f     *os.File
	info  os.FileInfo
	last  uint64 // The greatest key.
	count uint64 // Of records. bbolt has no checksums: one that is missing shows by it.
}

// openFile opens the queue file and returns what is in it. A file that is damaged gets another name, aside, and what could
// be read of it is returned without keys; the file is a new one then. suspect, if not nil, is a file that was open before
// and made bbolt panic: it is not read again, for what it held is in memory, and its lock is held by the mapping that the
// panic left.
func openFile(path string, maxSize int64, suspect os.FileInfo, now time.Time) (q *file, found []stored, aside string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), dirPerm); err != nil {
		return nil, nil, "", err
	}
	var salvaged []stored
	if st, e := os.Stat(path); e == nil && suspect != nil && os.SameFile(st, suspect) {
		err = errPanic
	} else {
		salvaged, err = checkFile(path, maxSize)
	}
	if errors.Is(err, errDamaged) {
		if aside, err = fsys.MoveAside(path, now, os.Rename); err != nil {
			return nil, nil, "", fmt.Errorf("setting damaged file aside: %w", err)
		}
		salvaged = withoutKeys(salvaged)
	} else {
		salvaged = nil // It is read again under the lock that is kept.
	}
	if err != nil {
		return nil, nil, "", err
	}
	if err := makeFile(path); err != nil {
		return nil, salvaged, aside, err
	}
	q, found, err = lockFile(path, maxSize)
	return q, append(found, salvaged...), aside, err
}

func withoutKeys(found []stored) (items []stored) {
	for _, s := range found {
		if s.item != nil {
			items = append(items, stored{0, s.item})
		}
	}
	return items
}

// checkFile reads a file that there is, under a lock that others can share. It has to be that one of bbolt's: what
// another process is writing looks damaged.
func checkFile(path string, maxSize int64) (found []stored, err error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("is a %v, want a regular file", st.Mode().Type())
	case st.Size() == 0: // Just made, by whoever.
		return nil, nil
	}
	err = protect(func() error {
		var f *os.File
		defer func() { // Also after a panic; most of the time it is closed by then.
			if f != nil {
				_ = f.Close()
			}
		}()
		db, err := bbolt.Open(path, filePerm, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout, NoStatistics: true, OpenFile: keepOpened(&f)})
		switch {
		case errors.Is(err, bolterrors.ErrTimeout):
			return ErrLocked
		case err != nil && isSystem(err):
			return err
		case err != nil:
			return fmt.Errorf("%w: %w", errDamaged, err) // It had the lock by then.
		}
		defer db.Close()
		if st, err = f.Stat(); err != nil {
			return err
		}
		if st.Size() > maxSize {
			return fmt.Errorf("%w: %d bytes long, want at most %d", errDamaged, st.Size(), maxSize)
		}
		s, err := surveyFile(f, st.Size())
		found = s.records
		return err
	})
	return found, err
}

// makeFile makes an empty queue file where there is none, whole or not at all: half of one, on a full disk, would be taken
// for a damaged one.
func makeFile(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // Of mode 0600.
	if err != nil {
		return err
	}
	name := f.Name()
	defer os.Remove(name)
	if err := f.Close(); err != nil {
		return err
	}
	q, _, err := lockFile(name, 0)
	if err != nil {
		return err
	}
	q.close(nil)
	err = os.Link(name, path)
	switch {
	case errors.Is(err, fs.ErrExist): // Another process was faster.
		return nil
	case err != nil: // A file system without hard links.
		err = os.Rename(name, path)
	}
	_ = fsys.SyncDir(filepath.Dir(path))
	return err
}

// lockFile opens a file to be written, that is sound or not there.
func lockFile(path string, maxSize int64) (q *file, found []stored, err error) {
	q = &file{}
	err = protect(func() error {
		db, err := bbolt.Open(path, filePerm, &bbolt.Options{
			Timeout: lockTimeout, NoStatistics: true, MaxSize: int(min(maxSize, math.MaxInt)), OpenFile: keepOpened(&q.f),
			FreelistType: bbolt.FreelistMapType,
		})
		if errors.Is(err, bolterrors.ErrTimeout) {
			return ErrLocked
		}
		if err != nil {
			return err
		}
		q.db = db
		db.AllocSize = 1 << 20 // By how much a file grows that is longer than this.
		if runtime.GOOS != "windows" {
			// A file system without permissions has none to correct.
			_ = q.f.Chmod(filePerm)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte(bucketName))
			return err
		})
		if err != nil {
			return err
		}
		if q.info, err = q.f.Stat(); err != nil {
			return err
		}
		s, err := surveyFile(q.f, q.info.Size())
		found = s.records
		return err
	})
	if err != nil {
		q.close(err)
		return nil, nil, err
	}
	q.count = uint64(len(found))
	known := found[:0]
	for _, s := range found {
		q.last = max(q.last, s.key)
		if s.item != nil {
			known = append(known, s)
		}
	}
	return q, known, nil
}

// keepOpened is os.OpenFile for bbolt, that notes the file.
func keepOpened(f **os.File) func(string, int, fs.FileMode) (*os.File, error) {
	return func(name string, flag int, perm fs.FileMode) (*os.File, error) {
		opened, err := os.OpenFile(name, flag, perm)
		if err != nil {
			return nil, err
		}
		*f = opened
		return opened, nil
	}
}

// commit makes a change with one transaction, and returns the keys of what was put.
func (q *file) commit(c change) (keys []uint64, err error) {
	next, count := q.last, q.count
	err = protect(func() error {
		return q.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(bucketName))
			if b == nil {
				return fmt.Errorf("%w: the bucket of the queue is gone", errDamaged)
			}
			for _, key := range c.deletes {
				name := binary.BigEndian.AppendUint64(nil, key)
				if b.Get(name) == nil {
					continue
				}
				count--
				if err := b.Delete(name); err != nil {
					return err
				}
			}
			for _, it := range c.puts {
				next++
				count++
				keys = append(keys, next)
				if err := b.Put(binary.BigEndian.AppendUint64(nil, next), encodeRecord(it)); err != nil {
					return err
				}
			}
			return b.SetSequence(count)
		})
	})
	if err != nil {
		return nil, err
	}
	q.last, q.count = next, count
	return keys, nil
}

// same tells whether the path still leads to the open file.
func (q *file) same(path string) bool {
	st, err := os.Stat(path)
	return err == nil && os.SameFile(st, q.info)
}

// close closes the file, whose last call returned err. After a panic in it bbolt may hold its own locks for ever, so that
// its Close is not called: the mapping of the file stays in memory then, and nothing else.
func (q *file) close(err error) {
	switch {
	case errors.Is(err, errPanic) || q.db == nil:
		if q.f != nil {
			_ = q.f.Close()
		}
	default:
		_ = protect(q.db.Close)
	}
}

// errPanic is wrapped by the error of a call in which bbolt panicked, as it does on a file that is not what it wrote. It
// wraps errDamaged.
var errPanic = fmt.Errorf("%w: panic", errDamaged)

func protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPanic, r)
		}
	}()
	return f()
}

// isSystem tells whether an error came from the system, and not from what a file holds.
func isSystem(err error) bool {
	var path *fs.PathError
	var call *os.SyscallError
	var number interface{ Temporary() bool } // syscall.Errno, on every system that has one.
	return errors.As(err, &path) || errors.As(err, &call) || errors.As(err, &number)
}
