package boltfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// TestWalk goes through files that bbolt wrote.
func TestWalk(t *testing.T) {
	type transaction = func(tx *bbolt.Tx) error
	for _, c := range []struct {
		name         string
		transactions []transaction
	}{
		{"empty", nil},
		{"a bucket with nothing in it", []transaction{put("a", 0, 0, 0)}},
		{"a bucket in its element", []transaction{put("a", 0, 5, 10)}},
		{"empty values", []transaction{put("a", 0, 500, 0)}},
		{"many pages", []transaction{put("a", 0, 20_000, 50)}},
		{"overflow", []transaction{put("a", 0, 20, 100_000), put("b", 0, 1, 3_000_000)}},
		{"many buckets", []transaction{put("a", 0, 1, 3), put("b", 0, 3000, 3), put("c", 0, 30, 2000), put("d", 0, 0, 0)}},
		{"most of it removed", []transaction{put("a", 0, 9000, 90), remove("a", 10, 8990, 1)}},
		{"every second removed", []transaction{put("a", 0, 9000, 90), remove("a", 0, 9000, 2), put("b", 0, 10, 10)}},
		{"first ones removed, earlier ones put", []transaction{put("a", 5000, 9000, 90), remove("a", 5000, 7000, 1), put("a", 4000, 4100, 40)}},
		{"all of it removed", []transaction{put("a", 0, 900, 90), remove("a", 0, 900, 1)}},
		{"all buckets removed", []transaction{
			put("a", 0, 900, 90), put("b", 0, 9, 9),
			func(tx *bbolt.Tx) error {
				return errors.Join(tx.DeleteBucket([]byte("a")), tx.DeleteBucket([]byte("b")))
			},
		}},
		{"nothing done", []transaction{func(*bbolt.Tx) error { return nil }}},
	} {
		for _, pageSize := range []int{1 << 10, 4 << 10, 64 << 10} {
			t.Run(fmt.Sprintf("%s/%d", c.name, pageSize), func(t *testing.T) {
				b := file(t, pageSize, c.transactions...)
				path := filepath.Join(t.TempDir(), "file")
				must(t, os.WriteFile(path, b, 0o600))
				db := open(t, path, 0)
				defer db.Close()
				for _, o := range []Options{{}, {PageSize: pageSize}, {PageSize: pageSize, BothMetas: true}} {
					r, err := walk(b, o, false)
					must(t, err)
					must(t, same(r, db))
				}
			})
		}
	}
}

// TestManyFreePages has more of them than the header of their list can count.
func TestManyFreePages(t *testing.T) {
	b := file(t, 1<<10, put("a", 0, 1, 70<<20), remove("a", 0, 1, 1))
	if n := native.Uint16(b[freelistOf(b)<<10+10:]); n != 0xFFFF {
		t.Fatalf("%d free pages", n)
	}
	_, err := walk(b, Options{BothMetas: true}, false)
	must(t, err)
}

// TestWhateverIsWritten changes files at random, in small and large transactions, some of which are given up, while
// somebody reads: all that bbolt writes is sound.
func TestWhateverIsWritten(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	errGivenUp := errors.New("given up")
	for _, pageSize := range []int{1 << 10, 4 << 10} {
		path := filepath.Join(t.TempDir(), "file")
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{
			PageSize: pageSize, NoSync: true, FreelistType: bbolt.FreelistMapType,
			InitialMmapSize: 64 << 20, // It is not mapped again, which would wait for the reader.
		})
		must(t, err)
		f, err := os.Open(path)
		must(t, err)
		var reader *bbolt.Tx
		for n := range 200 {
			if n%20 == 5 {
				reader, err = db.Begin(false)
				must(t, err)
			}
			most := 1 + random.IntN(30)*random.IntN(30)
			err := db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte{byte('a' + random.IntN(3))})
				must(t, err)
				from, puts := random.IntN(2000), random.IntN(100)
				for range most {
					key := fmt.Appendf(nil, "%0*d", 1+random.IntN(40), from+random.IntN(200))
					if random.IntN(100) < puts {
						length := random.IntN(100)
						if random.IntN(50) == 0 {
							length = random.IntN(9000)
						}
						must(t, b.Put(key, make([]byte, length)))
					} else {
						must(t, b.Delete(key))
					}
				}
				if n%50 == 49 {
					c := b.Cursor()
					for k, _ := c.First(); k != nil; k, _ = c.First() {
						must(t, b.Delete(k))
					}
				}
				if n%7 == 6 {
					return errGivenUp
				}
				return nil
			})
			if err != nil && err != errGivenUp {
				t.Fatal(err)
			}
			st, err := f.Stat()
			must(t, err)
			r := &recorder{}
			if err := Walk(f, st.Size(), Options{BothMetas: true}, r); err != nil {
				t.Fatalf("after %d transactions: %v", n+1, err)
			}
			if n%10 == 9 {
				must(t, same(r, db))
			}
			if n%20 == 15 {
				must(t, reader.Rollback())
			}
		}
		must(t, f.Close())
		must(t, db.Close())
	}
}

// TestManyBuckets has more than fit into a page.
func TestManyBuckets(t *testing.T) {
	b := file(t, 1<<10, func(tx *bbolt.Tx) error {
		for i := range 100 {
			if _, err := tx.CreateBucket(fmt.Appendf(nil, "bucket %d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if r, err := walk(b, Options{}, true); err != ErrManyBuckets || len(r.faults)+len(r.buckets)+len(r.entries) > 0 {
		t.Errorf("%v, found %+v", err, r)
	}
}

// TestTheVisitorEndsTheWalk returns an error from each method in turn.
func TestTheVisitorEndsTheWalk(t *testing.T) {
	b := mixed(t, 1<<10)
	for _, at := range []string{"buckets", "value"} {
		v := &ending{recorder{salvage: true}, at}
		if err := Walk(readerOf(b), int64(len(b)), Options{}, v); err != errEnd || len(v.entries) > 0 {
			t.Errorf("%s: %v, found %+v", at, err, v.recorder)
		}
	}
}

var errEnd = errors.New("end")

type ending struct {
	recorder
	at string
}

func (e *ending) Buckets(buckets []Bucket) error {
	if e.at == "buckets" {
		return errEnd
	}
	return e.recorder.Buckets(buckets)
}

func (e *ending) Value(bucket string, page uint64, key, value []byte) error {
	if e.at == "value" {
		return errEnd
	}
	return e.recorder.Value(bucket, page, key, value)
}
