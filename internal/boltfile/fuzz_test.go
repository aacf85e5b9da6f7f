package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"go.etcd.io/bbolt"
)

// FuzzWalk wants of any file: the walk ends; faults that are let pass are those that end it otherwise; what it accepts
// bbolt reads alike and writes to without harm, and the walk accepts what bbolt made of it.
func FuzzWalk(f *testing.F) {
	for _, b := range [][]byte{
		file(f, 1<<10),
		file(f, 1<<10, put("a", 0, 3, 9)),
		file(f, 1<<10, put("a", 0, 3, 300), put("b", 0, 50, 9), remove("b", 10, 40, 1)),
		mixed(f, 1<<10),
		file(f, 4<<10, put("a", 0, 9, 9)),
	} {
		f.Add(b, uint16(0), uint16(0), uint32(0), false)
		f.Add(b, uint16(3<<10), uint16(10), uint32(1), true)
		f.Add(b, uint16(16), uint16(16), uint32(2), true)
	}
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, b []byte, page, at uint16, value uint32, sealed bool) {
		if len(b) > 1<<18 {
			return
		}
		b = bytes.Clone(b)
		if i := int(page)>>10<<10 + int(at)%128; i+4 <= len(b) {
			native.PutUint32(b[i:], value^native.Uint32(b[i:]))
		}
		if sealed {
			seal(b, 1<<10)
		}
		strict, err := walk(b, Options{}, false)
		salvaged, salvageErr := walk(b, Options{}, true)
		if salvageErr != nil && salvageErr != ErrManyBuckets {
			t.Fatal(salvageErr)
		}
		bounded(t, strict, len(b))
		bounded(t, salvaged, len(b))
		if len(salvaged.faults) < len(strict.faults) || (len(strict.faults) > 0 && salvaged.faults[0] != strict.faults[0]) || (len(salvaged.faults) > 0) != errors.Is(err, errFault) {
			t.Fatalf("%v, with faults let pass %q", err, salvaged.faults)
		}
		for i, e := range strict.entries {
			if e.key == "" || (i > 0 && strict.entries[i-1].bucket == e.bucket && strict.entries[i-1].key >= e.key) {
				t.Fatalf("entry %d is out of order", i)
			}
			if salvaged.entries[i] != e {
				t.Fatalf("entry %d is another with faults let pass", i)
			}
		}
		if err == nil {
			if err := bear(path, b, strict); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// bear has bbolt read a file and write to it.
func bear(path string, b []byte, r *recorder) (err error) {
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("made bbolt panic: %v", p)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := same(r, db); err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if uint64(tx.ID()) > 1<<62 {
			return nil // At the end of the numbers an earlier transaction counts.
		}
		for i, e := range r.entries {
			bucket := tx.Bucket([]byte(e.bucket))
			if i%3 == 0 {
				err = bucket.Delete([]byte(e.key))
			} else if i%3 == 1 && len(e.key) < bbolt.MaxKeySize {
				err = bucket.Put([]byte(e.key+"x"), []byte(e.value))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	again := &recorder{}
	if err := Walk(bytes.NewReader(after), int64(len(after)), Options{}, again); err != nil {
		return fmt.Errorf("after a transaction: %w", err)
	}
	return same(again, db)
}
