package boltfile

import "hash/fnv"

const (
	metaPage = 0x04
	metaSize = 64 // magic, version, pageSize, flags uint32, root, sequence, freelist, pgid, txid, checksum uint64

	magic   = 0xED0CDAED
	version = 2
)

// meta is what a meta page says.
type meta struct {
	whole bool // There is one, and its checksum holds; else it says nothing.
	right bool // It is on the page where it belongs, with a header that says so.

	pageSize, root, freelist, pages, transaction uint64
}

// meta returns the one in force, which is the one that bbolt takes, and sets the page size. It has no pages when a fault
// was let pass that nothing can be read behind.
func (w *walker) meta(size int64, o Options) (meta, error) {
	var second meta
	first, err := w.metaAt(0, 0, size)
	if first.whole {
		second, err = w.metaAt(1, int64(first.pageSize), size)
	}
	// Without the first one bbolt takes the page size from what looks like the second at the end of a page of any size.
	for at := int64(minPageSize); !first.whole && !second.whole && err == nil && at <= maxPageSize; at <<= 1 {
		second, err = w.metaAt(1, at, size)
	}
	if err != nil {
		return meta{}, err
	}
	best := first
	if second.whole && (!first.whole || second.transaction > first.transaction) {
		best = second
	}
	w.pageSize = best.pageSize
	if first.whole {
		w.pageSize = first.pageSize
	}
	switch {
	case !best.whole:
		return meta{}, w.fault("has no meta page that is whole")
	case o.PageSize != 0 && w.pageSize != uint64(o.PageSize):
		return meta{}, w.fault("has pages of %d bytes, want %d", w.pageSize, o.PageSize)
	case w.pageSize < minPageSize || w.pageSize > maxPageSize || w.pageSize&(w.pageSize-1) != 0:
		return meta{}, w.fault("has pages of %d bytes, want a power of two from %d to %d", w.pageSize, minPageSize, maxPageSize)
	case best.pages < 4 || best.pages > uint64(size)/w.pageSize:
		return meta{}, w.fault("has %d pages of %d bytes in %d bytes", best.pages, w.pageSize, size)
	}
	for i, m := range []meta{first, second} {
		switch {
		case !m.whole && o.BothMetas:
			err = w.fault("meta page %d is not whole", i)
		case m.whole && !m.right:
			err = w.fault("meta page %d has a wrong header, or belongs elsewhere", i)
		}
		if err != nil {
			return meta{}, err
		}
	}
	return best, nil
}

// metaAt reads meta page id, 0 or 1, at an offset.
func (w *walker) metaAt(id uint64, at, size int64) (m meta, err error) {
	var b [pageHeader + metaSize]byte
	if at > size-int64(len(b)) {
		return m, nil
	}
	if _, err := w.file.ReadAt(b[:], at); err != nil {
		return m, err
	}
	p := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(p[:56])
	if native.Uint32(p) != magic || native.Uint32(p[4:]) != version || native.Uint64(p[56:]) != sum.Sum64() {
		return m, nil
	}
	m = meta{
		whole: true, pageSize: uint64(native.Uint32(p[8:])),
		root: native.Uint64(p[16:]), freelist: native.Uint64(p[32:]), pages: native.Uint64(p[40:]), transaction: native.Uint64(p[48:]),
	}
	// bbolt writes the metas in turn.
	m.right = native.Uint64(b[:]) == id && native.Uint16(b[8:]) == metaPage && m.transaction%2 == id && (id == 0 || m.pageSize == uint64(at))
	return m, nil
}
