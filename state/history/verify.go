package history

import (
	"errors"
	"io"
)

// bbolt maps its file into memory and trusts it: on damaged pages it panics, faults, recurses for ever or allocates
// what a length says, in goroutines of its own at times, where no recover helps. So a file is read here first, in the
// ordinary way, and only one whose every page can be walked is opened.

// errForeign is the error of a bbolt file of something else, which is let alone.
var errForeign = errors.New("is a bbolt file of something else, want a history")

// verifier walks a file.
type verifier struct {
	f       io.ReaderAt
	pages   uint64   // In use or free, by the meta in force.
	seen    []uint64 // A bit a page.
	buffers [maxDepth + 1][]byte
	bucket  string // The one that is walked; "" above them.
	broken  int    // Parts whose checksum does not hold.
}

// verify returns nil for a file that bbolt can be trusted with, a damage for one that it cannot, errForeign, or why it
// could not be read. broken is the number of packed rows in it that cannot be read.
func verify(f io.ReaderAt, size int64) (broken int, err error) {
	v := &verifier{f: f}
	m, err := v.meta(size)
	if err != nil {
		return 0, err
	}
	v.pages = m.pages
	v.seen = make([]uint64, v.pages/64+1)
	if err := v.walk(m.root, 0, nil, nil); err != nil {
		return 0, err
	}
	if err := v.free(m.freelist); err != nil {
		return 0, err
	}
	return v.broken, nil
}

// walk checks the tree below a page, whose first key is low, and whose keys are below high; nil: any.
func (v *verifier) walk(id uint64, depth int, low, high []byte) error {
	if depth > maxDepth {
		return damaged("page %d is too deep in its tree", id)
	}
	b, flags, count, err := v.page(id, depth)
	if err != nil {
		return err
	}
	switch {
	case flags == leafPage:
		if v.bucket == "" && v.foreign(b, count) {
			return errForeign
		}
		return v.leaf(b, id, count, depth, low, high)
	case flags == branchPage && v.bucket == "": // Ours are few.
		return errForeign
	case flags == branchPage:
		return v.branch(b, id, count, depth, low, high)
	}
	return damaged("page %d has flags %#x", id, flags)
}

func (v *verifier) branch(b []byte, id uint64, count, depth int, low, high []byte) error {
	if count == 0 {
		return damaged("page %d is empty", id)
	}
	for i := range count {
		at := pageHeader + i*element
		if at+element > len(b) {
			return damaged("page %d has %d elements", id, count)
		}
		key, err := cut(b, id, at, native.Uint32(b[at:]), native.Uint32(b[at+4:]))
		if err == nil {
			err = ordered(id, key, low, high, i == 0)
		}
		if err != nil {
			return err
		}
		end := high
		if next := at + element; i+1 < count && next+element <= len(b) {
			if end, err = cut(b, id, next, native.Uint32(b[next:]), native.Uint32(b[next+4:])); err != nil {
				return err
			}
		}
		if err := v.walk(native.Uint64(b[at+8:]), depth+1, key, end); err != nil {
			return err
		}
		low = key
	}
	return nil
}

// foreign tells whether none of the buckets of the page is ours, though there are some.
func (v *verifier) foreign(b []byte, count int) bool {
	for i := range count {
		at := pageHeader + i*element
		if at+element > len(b) {
			return false
		}
		key, err := cut(b, 0, at, native.Uint32(b[at+4:]), native.Uint32(b[at+8:]))
		if err != nil || ours(string(key)) {
			return false
		}
	}
	return count > 0
}

func ours(bucket string) bool {
	for _, r := range resolutions {
		if r.bucket == bucket {
			return true
		}
	}
	return bucket == stateBucket
}

// leaf checks a page of keys and values, which may be inline, as the value of a small bucket.
func (v *verifier) leaf(b []byte, id uint64, count, depth int, low, high []byte) error {
	if count == 0 && low != nil {
		return damaged("page %d is empty", id)
	}
	for i := range count {
		at := pageHeader + i*element
		if at+element > len(b) {
			return damaged("page %d has %d elements", id, count)
		}
		flags, pos, ksize, vsize := native.Uint32(b[at:]), native.Uint32(b[at+4:]), native.Uint32(b[at+8:]), native.Uint32(b[at+12:])
		key, err := cut(b, id, at, pos, ksize)
		if err == nil {
			err = ordered(id, key, low, high, i == 0)
		}
		if err != nil {
			return err
		}
		value, err := cut(b, id, at, pos, uint64(ksize)+uint64(vsize))
		if err != nil {
			return err
		}
		value = value[ksize:]
		low = key
		if flags > bucketLeaf || (flags == bucketLeaf) != (v.bucket == "") {
			return damaged("page %d has a value with flags %#x", id, flags)
		}
		if flags == bucketLeaf {
			err = v.inBucket(string(key), value, id, depth)
		} else {
			err = v.value(id, key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inBucket checks a bucket: its root page's number, a sequence, and for 0 the page itself.
func (v *verifier) inBucket(name string, value []byte, id uint64, depth int) error {
	if len(value) < 16 || !ours(name) {
		return damaged("page %d has a bucket that is cut off, or of a wrong name", id)
	}
	v.bucket = name
	defer func() { v.bucket = "" }()
	if root := native.Uint64(value); root != 0 {
		return v.walk(root, depth+1, nil, nil)
	}
	inline := value[16:]
	if len(inline) < pageHeader || native.Uint16(inline[8:]) != leafPage {
		return damaged("page %d has a bucket that is cut off", id)
	}
	return v.leaf(inline, id, int(native.Uint16(inline[10:])), depth, nil, nil)
}

// value checks a key, and counts a packed row that cannot be read.
func (v *verifier) value(id uint64, key, value []byte) error {
	if v.bucket == stateBucket {
		return nil
	}
	if len(key) != keySize {
		return damaged("page %d has a key of %d bytes", id, len(key))
	}
	if _, err := unseal(key, value); errors.Is(err, errPacked) {
		v.broken++
	}
	return nil
}

// free checks the list of free pages.
func (v *verifier) free(id uint64) error {
	b, flags, count, err := v.page(id, 0)
	if err != nil {
		return err
	}
	n, ids := uint64(count), b[pageHeader:]
	if n == 0xFFFF { // The number did not fit.
		n, ids = native.Uint64(ids), ids[8:]
	}
	if flags != freelistPage || n > uint64(len(ids)/8) {
		return damaged("page %d is no list of free pages", id)
	}
	last := uint64(1)
	for i := range n {
		free := native.Uint64(ids[8*i:])
		if free <= last || free >= v.pages || v.seen[free/64]&(1<<(free%64)) != 0 {
			return damaged("page %d is in use and free, or not there", free)
		}
		last = free
	}
	return nil
}
