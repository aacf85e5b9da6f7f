package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

const (
	filePerm    = 0o600
	dirPerm     = 0o700
	lockTimeout = 100 * time.Millisecond // bbolt looks every 50 ms.
)

// opened is what came of opening besides the file.
type opened struct {
	damaged int    // Packed rows.
	aside   string // What a damaged file is called now.
}

// openFile opens the file at path, after setting a damaged one aside.
func openFile(path string, o Options, now time.Time) (*file, opened, error) {
	var out opened
	if err := o.fault("open"); err != nil {
		return nil, out, err
	}
	if err := os.MkdirAll(filepath.Dir(path), dirPerm); err != nil {
		return nil, out, err
	}
	for range 2 {
		f, err := openRaw(path)
		if err != nil {
			return nil, out, err
		}
		var opening *file
		if out.damaged, err = prepare(f); err == nil {
			opening, err = openBolt(f, path, o)
		}
		if err == nil {
			return opening, out, nil
		}
		var what damage
		if !errors.As(err, &what) {
			f.Close()
			return nil, out, err
		}
		if runtime.GOOS == "windows" { // An open file cannot be renamed there, elsewhere it stays locked meanwhile.
			f.Close()
		}
		aside, err := setAside(path, now)
		release(f)
		if err != nil {
			return nil, out, fmt.Errorf("setting the damaged file aside: %w (it %w)", err, what)
		}
		out.aside = aside
	}
	return nil, out, errors.New("the file just made is damaged")
}

// openRaw opens and locks the file that is at path. What is no regular file is left alone: it may be somebody's.
func openRaw(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil {
		if err := regular(st); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, err
	}
	err = func() error {
		if err := lockFirst(f); err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if err := regular(st); err != nil {
			return err
		}
		if now, err := os.Stat(path); err != nil {
			return err
		} else if !os.SameFile(now, st) { // Renamed by whoever had the lock.
			return ErrLocked
		}
		return nil
	}()
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func regular(st os.FileInfo) error {
	if !st.Mode().IsRegular() {
		return fmt.Errorf("is no regular file (%v), want one or nothing", st.Mode().Type())
	}
	return nil
}

// prepare makes sure that bbolt may read the file: it is empty, or verified.
func prepare(f *os.File) (broken int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	const fresh = 4 * pageSize // What bbolt begins a file with.
	if size := st.Size(); size > 0 {
		broken, err = verify(f, size)
		if err == nil || size > fresh || !zeros(f, size) {
			return broken, err
		}
	}
	if !locksFirst { // Somebody else may be making the file.
		return 0, err
	}
	// See whether there is room: a disk that is full in the middle of the first pages would leave something that looks
	// damaged.
	if _, err = f.WriteAt(make([]byte, fresh), 0); err == nil {
		err = f.Sync()
	}
	return 0, errors.Join(err, f.Truncate(0))
}

// zeros tells whether there is nothing in the file, as when prepare was killed.
func zeros(f *os.File, size int64) bool {
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return false
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// openBolt has bbolt open f. It is closed with an error, but when the error is a damage.
func openBolt(f *os.File, path string, o Options) (*file, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	out := &file{f: f, options: o}
	mapped := int(o.MaxBytes)
	if runtime.GOOS == "windows" { // The file would be made as large as that.
		mapped = 0
	}
	err = guarded(func() (err error) {
		out.db, err = bbolt.Open(path, filePerm, &bbolt.Options{
			Timeout:         lockTimeout,
			PageSize:        pageSize,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: mapped, // Never mapped again: a query that hangs would keep the writer from it.
			// A file that is too large already needs a little room to get less into it.
			MaxSize:  int(max(o.MaxBytes, st.Size()+64*pageSize)),
			NoSync:   o.noSync(),
			OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
		})
		if errors.Is(err, berrors.ErrTimeout) {
			return ErrLocked
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out.db.AllocSize = int(o.MaxBytes / 64) // By how much the file grows.
	if st.Size() == 0 {
		_ = fsys.SyncDir(filepath.Dir(path))
	}
	err = out.update(func(tx *bbolt.Tx) error {
		for _, r := range resolutions {
			if _, err := tx.CreateBucketIfNotExists([]byte(r.bucket)); err != nil {
				return err
			}
		}
		_, err := tx.CreateBucketIfNotExists([]byte(stateBucket))
		return err
	})
	if err == nil {
		out.info, err = f.Stat()
	}
	if err != nil {
		if out.broken.Load() == nil { // Else it stays locked until it was set aside.
			out.close()
		}
		return nil, err
	}
	out.size.Store(out.info.Size())
	return out, nil
}
