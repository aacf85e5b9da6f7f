package boltfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entry is a key and its value, of a bucket.
type entry struct {
	bucket string
	page   uint64
	key    string
	value  string
}

// errFault is wrapped by the error that a recorder ends with at a fault.
var errFault = errors.New("fault")

// recorder keeps what a walk finds. It lets faults pass if salvage is set.
type recorder struct {
	salvage bool
	faults  []string
	buckets []Bucket
	entries []entry
}

func (r *recorder) Fault(what string) error {
	r.faults = append(r.faults, what)
	if r.salvage {
		return nil
	}
	return fmt.Errorf("%w: %s", errFault, what)
}

func (r *recorder) Buckets(buckets []Bucket) error {
	r.buckets = buckets
	return nil
}

func (r *recorder) Value(bucket string, page uint64, key, value []byte) error {
	r.entries = append(r.entries, entry{bucket, page, string(key), string(value)})
	return nil
}

func walk(b []byte, o Options, salvage bool) (*recorder, error) {
	r := &recorder{salvage: salvage}
	err := Walk(bytes.NewReader(b), int64(len(b)), o, r)
	return r, err
}

func open(t testing.TB, path string, pageSize int) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, NoSync: true, FreelistType: bbolt.FreelistMapType})
	must(t, err)
	return db
}

// file returns a file after some transactions, without what it has grown ahead.
func file(t testing.TB, pageSize int, transactions ...func(tx *bbolt.Tx) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	db := open(t, path, pageSize)
	for _, f := range transactions {
		must(t, db.Update(f))
	}
	var size int64
	must(t, db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	}))
	must(t, db.Close())
	b, err := os.ReadFile(path)
	must(t, err)
	return b[:max(int(size), 4*pageSize)]
}

// put is a transaction that puts keys from one number to below another, with values of a length.
func put(bucket string, from, to, length int) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		for i := from; i < to && err == nil; i++ {
			err = b.Put(fmt.Appendf(nil, "key %06d", i), bytes.Repeat([]byte{byte('a' + i%26)}, length))
		}
		return errors.Join(err, b.SetSequence(uint64(1000+to)))
	}
}

func remove(bucket string, from, to, step int) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) (err error) {
		for i := from; i < to && err == nil; i += step {
			err = tx.Bucket([]byte(bucket)).Delete(fmt.Appendf(nil, "key %06d", i))
		}
		return err
	}
}

// content is what bbolt finds in a file, the pages aside.
func content(db *bbolt.DB) (buckets []Bucket, entries []entry, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			buckets = append(buckets, Bucket{string(name), b.Sequence()})
			return b.ForEach(func(k, v []byte) error {
				entries = append(entries, entry{string(name), 0, string(k), string(v)})
				return nil
			})
		})
	})
	return buckets, entries, err
}

// same is nil if a walk found what bbolt finds.
func same(r *recorder, db *bbolt.DB) error {
	buckets, entries, err := content(db)
	if err != nil {
		return err
	}
	got := slices.Clone(r.entries)
	for i := range got {
		got[i].page = 0
	}
	if !slices.Equal(r.buckets, buckets) || !slices.Equal(got, entries) {
		return fmt.Errorf("found %v with %d keys, bbolt finds %v with %d", r.buckets, len(got), buckets, len(entries))
	}
	return nil
}

// mixed is a small file with all that there is: a bucket in its element, branches, overflow and free pages.
func mixed(t testing.TB, pageSize int) []byte {
	t.Helper()
	b := file(
		t, pageSize,
		put("inline", 0, 3, 20),
		put("tree", 0, 60, pageSize/20),
		put("tree", 60, 62, pageSize*5/2),
		remove("tree", 5, 30, 1),
		put("inline", 3, 4, 7),
	)
	if n := len(pagesOf(b, pageSize, branchPage)); n == 0 || native.Uint16(b[freelistOf(b)*pageSize+10:]) < 3 {
		t.Fatalf("%d branches, %d free pages", n, native.Uint16(b[freelistOf(b)*pageSize+10:]))
	}
	return b
}

// inForce is the offset of the meta in force.
func inForce(b []byte) int {
	pageSize := int(native.Uint32(b[pageHeader+8:]))
	at := []int{pageHeader, pageSize + pageHeader}
	return slices.MaxFunc(at, func(x, y int) int { return cmp.Compare(native.Uint64(b[x+48:]), native.Uint64(b[y+48:])) })
}

func freelistOf(b []byte) int { return int(native.Uint64(b[inForce(b)+32:])) }

// pagesOf returns the numbers of those pages in use that have a kind.
func pagesOf(b []byte, pageSize int, kind uint16) (ids []int) {
	r, _ := walk(b, Options{}, true)
	var leaves []int
	for _, e := range r.entries {
		leaves = append(leaves, int(e.page))
	}
	free := b[freelistOf(b)*pageSize:]
	for id := 2; id < len(b)/pageSize; id++ {
		p := b[id*pageSize:]
		isFree := false
		for i := range int(native.Uint16(free[10:])) {
			isFree = isFree || int(native.Uint64(free[pageHeader+8*i:])) == id
		}
		if !isFree && int(native.Uint64(p)) == id && native.Uint16(p[8:]) == kind && (kind != leafPage || slices.Contains(leaves, id)) {
			ids = append(ids, id)
		}
	}
	return ids
}

// seal gives the metas the checksums that they should have.
func seal(b []byte, pageSize int) {
	for _, at := range []int{pageHeader, pageSize + pageHeader} {
		if at+metaSize <= len(b) {
			sum := fnv.New64a()
			sum.Write(b[at : at+56])
			native.PutUint64(b[at+56:], sum.Sum64())
		}
	}
}

func lines(s []string) string { return strings.Join(s, "\n") }
