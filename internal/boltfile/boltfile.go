// Package boltfile walks through a bbolt file, page by page and without bbolt, before bbolt may have it.
//
// bbolt maps its file into memory and trusts it: on damaged pages it loops, recurses for ever, panics, faults or
// allocates what a length says, in goroutines of its own at times, where no recover helps. A file that [Walk] went
// through without a fault does none of that to it.
//
// bbolt has no checksums but those of its two meta pages. What a key or a value says, the sequence of a bucket, and where
// the last key and the last value of a page end, is for the [Visitor] to check.
//
// The layout is that of bbolt's internal/common, version 2, in the byte order of the machine: pages of equal size, each
// with a header. Pages 0 and 1 hold a meta each, of which the one with the higher transaction is in force: it knows the
// root of the tree of buckets, the list of free pages, and how many pages there are. Each bucket is a tree of its own,
// or, when it is small, a page inside its element of the tree of buckets. Buckets inside buckets are a fault.
package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	minPageSize = 1 << 10
	maxPageSize = 1 << 16
	maxPage     = 64 << 20 // Bytes of a page with its overflow; bbolt needs more only for values of 16 MiB.
	maxDepth    = 16       // Of a tree; four levels of usual pages hold millions of keys.
)

var native = binary.NativeEndian

// ErrManyBuckets is returned by [Walk] for a file with so many buckets that they take more than a page. None of them is
// looked at.
var ErrManyBuckets = errors.New("has more buckets than fit into a page")

// Bucket is one of the buckets of a file.
type Bucket struct {
	Name     string
	Sequence uint64 // 0 for one that is cut off, which is a fault.
}

// Visitor gets what [Walk] finds, in the order of the file. An error that one of its methods returns ends the walk,
// which returns it as it is.
type Visitor interface {
	// Fault is told what is wrong with the file: with "page 7 is used twice" what is used twice. With nil the walk goes
	// on to what else can be read; what it finds from then on may be out of order or there twice, or nothing.
	Fault(what string) error

	// Buckets gets all buckets, once, before anything in them is looked at. It is not called when one of their names
	// cannot be read, which is a fault.
	Buckets(buckets []Bucket) error

	// Value gets a key and a value of a bucket, and the number of the page that holds them. Both are valid until it
	// returns.
	Value(bucket string, page uint64, key, value []byte) error
}

// Options are what files differ in.
type Options struct {
	// PageSize is what the file must have, in bytes. 0: any power of two from 1 KiB to 64 KiB.
	PageSize int

	// BothMetas makes it a fault that one of the two meta pages is not whole. That may be half of a transaction that
	// never counted, or what is left of one that did: nobody can tell.
	BothMetas bool
}

// Walk goes through a file of a size in bytes. It returns nil when it came to the end or to a fault that nothing can be
// read behind, ErrManyBuckets, what the visitor returned, or an error of reading the file.
//
// It takes a bit for each page that the file claims and has, and no more bytes than the pages from a root down to a leaf
// have, each of which is at most 64 MiB with its overflow. Every page is read once.
func Walk(file io.ReaderAt, size int64, o Options, v Visitor) error {
	w := &walker{file: file, visitor: v}
	m, err := w.meta(size, o)
	if m.pages == 0 || err != nil {
		return err
	}
	w.pages, w.seen = m.pages, make([]uint64, m.pages/64+1)
	if err := w.top(m.root); err != nil {
		return err
	}
	return w.free(m.freelist)
}

// walker walks through a file. Not safe for concurrent use.
type walker struct {
	file     io.ReaderAt
	visitor  Visitor
	pageSize uint64
	pages    uint64   // Page numbers are below it.
	seen     []uint64 // A bit a page,
	inUse    uint64   // and how many there are.
	buffers  [maxDepth + 1][]byte
}

func (w *walker) fault(format string, args ...any) error {
	return w.visitor.Fault(fmt.Sprintf(format, args...))
}

// free checks the list of free pages: bbolt would write over one of them that is in use. All others are in use: one that
// is not has lost what led to it.
func (w *walker) free(id uint64) error {
	p, err := w.page(id, 0)
	if p.bytes == nil || err != nil {
		return err
	}
	n, ids := uint64(p.count), p.bytes[pageHeader:]
	if n == 0xFFFF { // The number did not fit.
		n, ids = native.Uint64(ids), ids[8:]
	}
	if p.flags != freelistPage || n > uint64(len(ids)/8) {
		return w.fault("page %d is no list of free pages", id)
	}
	last := uint64(1)
	for i := range n {
		free := native.Uint64(ids[8*i:])
		if free <= last || free >= w.pages || w.used(free) {
			return w.fault("page %d is in use and free, out of order, or not there", free)
		}
		last = free
	}
	if metas := uint64(2); metas+w.inUse+n != w.pages {
		return w.fault("has %d pages, of which %d are in use and %d free", w.pages, metas+w.inUse, n)
	}
	return nil
}
