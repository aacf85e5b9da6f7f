package boltfile

const (
	pageHeader  = 16 // id uint64, flags, count uint16, overflow uint32
	elementSize = 16 // branch: pos, ksize uint32, pgid uint64; leaf: flags, pos, ksize, vsize uint32

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketLeaf   = 0x01 // Of an element.
)

// page is one with its overflow, or one inside an element.
type page struct {
	id    uint64 // For one inside an element: of the page that holds it.
	flags uint16
	count int
	bytes []byte
}

// pageOf reads the header of a page, for which there must be room.
func pageOf(id uint64, b []byte) page {
	return page{id: id, flags: native.Uint16(b[8:]), count: int(native.Uint16(b[10:])), bytes: b}
}

// page reads a page into the buffer of a depth, and marks it as used. It has no bytes after a fault that was let pass.
func (w *walker) page(id uint64, depth int) (page, error) {
	if id < 2 || id >= w.pages {
		return page{}, w.fault("page %d of %d is referred to", id, w.pages)
	}
	if w.buffers[depth] == nil {
		w.buffers[depth] = make([]byte, w.pageSize)
	}
	b := w.buffers[depth][:w.pageSize]
	if _, err := w.file.ReadAt(b, int64(id*w.pageSize)); err != nil {
		return page{}, err
	}
	more := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || more >= w.pages-id || (more+1)*w.pageSize > maxPage {
		return page{}, w.fault("page %d has a wrong header", id)
	}
	for i := id; i <= id+more; i++ {
		if w.used(i) {
			return page{}, w.fault("page %d is referred to twice", i)
		}
		w.seen[i/64] |= 1 << (i % 64)
		w.inUse++
	}
	if more > 0 {
		b = make([]byte, (more+1)*w.pageSize)
		if _, err := w.file.ReadAt(b, int64(id*w.pageSize)); err != nil {
			return page{}, err
		}
		w.buffers[depth] = b
	}
	return pageOf(id, b), nil
}

func (w *walker) used(id uint64) bool {
	return w.seen[id/64]&(1<<(id%64)) != 0
}

// fits is how many elements there is room for, of those that the page says it has.
func (p page) fits() int {
	return min(p.count, (len(p.bytes)-pageHeader)/elementSize)
}

// element is one of a leaf, or of a branch, which has a child and no value.
type element struct {
	flags      uint32
	child      uint64
	begin, end int // Where key and value are; 0 when that is beyond the page's end.
	key, value []byte
}

// element returns one of those that there is room for.
func (p page) element(i int) (e element) {
	at := pageHeader + i*elementSize
	b := p.bytes[at:]
	var pos, ksize, vsize uint32
	if p.flags == branchPage {
		pos, ksize, e.child = native.Uint32(b), native.Uint32(b[4:]), native.Uint64(b[8:])
	} else {
		e.flags, pos, ksize, vsize = native.Uint32(b), native.Uint32(b[4:]), native.Uint32(b[8:]), native.Uint32(b[12:])
	}
	begin := uint64(at) + uint64(pos)
	middle := begin + uint64(ksize)
	end := middle + uint64(vsize)
	if end > uint64(len(p.bytes)) {
		return e
	}
	e.begin, e.end = int(begin), int(end)
	e.key, e.value = p.bytes[begin:middle], p.bytes[middle:end]
	return e
}
