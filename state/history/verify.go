package history

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/boltfile"
)

const pageSize = 4096 // Of all our files, whatever the machine's pages are.

// errForeign is the error of a bbolt file of something else, which is let alone.
var errForeign = errors.New("is a bbolt file of something else, want a history")

// damage is the error of a file that is not what this package or bbolt wrote.
type damage string

func (d damage) Error() string {
	return string(d)
}

func damaged(format string, args ...any) error {
	return damage(fmt.Sprintf(format, args...))
}

// verifier looks at what is in a file, and ends with the first fault.
type verifier struct {
	broken int // Parts whose checksum does not hold.
}

// verify returns nil for a file that bbolt can be trusted with, a damage for one that it cannot, errForeign, or why it
// could not be read. broken is the number of packed rows in it that cannot be read.
func verify(f io.ReaderAt, size int64) (broken int, err error) {
	v := &verifier{}
	err = boltfile.Walk(f, size, boltfile.Options{PageSize: pageSize}, v)
	switch {
	case errors.Is(err, boltfile.ErrManyBuckets): // Ours are few.
		return 0, errForeign
	case err != nil:
		return 0, err
	}
	return v.broken, nil
}

// Fault implements [boltfile.Visitor].
func (v *verifier) Fault(what string) error {
	return damage(what)
}

// Buckets implements [boltfile.Visitor].
func (v *verifier) Buckets(buckets []boltfile.Bucket) error {
	switch {
	case len(buckets) > 0 && !slices.ContainsFunc(buckets, ours):
		return errForeign
	case slices.ContainsFunc(buckets, func(b boltfile.Bucket) bool { return !ours(b) }):
		return damaged("has a bucket of a wrong name")
	}
	return nil
}

func ours(b boltfile.Bucket) bool {
	for _, r := range resolutions {
		if r.bucket == b.Name {
			return true
		}
	}
	return b.Name == stateBucket
}

// Value implements [boltfile.Visitor]: it checks a key, and counts a packed row that cannot be read.
func (v *verifier) Value(bucket string, page uint64, key, value []byte) error {
	if bucket == stateBucket {
		return nil
	}
	if len(key) != keySize {
		return damaged("page %d has a key of %d bytes", page, len(key))
	}
	if _, err := unseal(key, value); errors.Is(err, errPacked) {
		v.broken++
	}
	return nil
}
