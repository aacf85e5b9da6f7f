package boltfile

import "bytes"

const (
	bucketHeader = 16 // root pgid, sequence uint64
	// shared is how many times the length of its page elements may have together, when faults in it were let pass: so much
	// that one damaged length hides nothing else, and so little that elements that all have the same bytes take no time.
	shared = 4
)

// visit takes an element of a leaf.
type visit func(p page, e element) error

// top walks through the tree of buckets, which is one leaf.
func (w *walker) top(root uint64) error {
	p, err := w.page(root, 0)
	if p.bytes == nil || err != nil {
		return err
	}
	switch p.flags {
	case branchPage:
		return ErrManyBuckets
	case leafPage:
		if buckets, ok := p.buckets(); ok {
			if err := w.visitor.Buckets(buckets); err != nil {
				return err
			}
		}
		return w.leaf(p, nil, nil, w.bucket)
	}
	return w.fault("page %d has flags %#x", root, p.flags)
}

// buckets returns what the page of all buckets has; not ok: they cannot be read.
func (p page) buckets() (all []Bucket, ok bool) {
	begin := p.data()
	for i := range p.fits() {
		e := p.element(i)
		if e.begin != begin {
			return nil, false
		}
		begin = e.end
		b := Bucket{Name: string(e.key)}
		if len(e.value) >= bucketHeader {
			b.Sequence = native.Uint64(e.value[8:])
		}
		all = append(all, b)
	}
	return all, p.fits() == p.count
}

// bucket walks through a bucket: its value is the number of its root, a sequence, and for 0 the page itself.
func (w *walker) bucket(p page, e element) error {
	if e.flags != bucketLeaf || len(e.value) < bucketHeader {
		return w.fault("page %d has a bucket that is cut off, or none", p.id)
	}
	name := string(e.key)
	value := func(p page, e element) error {
		if e.flags != 0 {
			return w.fault("page %d has a value with flags %#x", p.id, e.flags)
		}
		return w.visitor.Value(name, p.id, e.key, e.value)
	}
	root, inline := native.Uint64(e.value), e.value[bucketHeader:]
	if root != 0 {
		if len(inline) > 0 {
			if err := w.fault("page %d has a bucket with a root and a page of its own", p.id); err != nil {
				return err
			}
		}
		return w.tree(root, 1, nil, nil, value)
	}
	if len(inline) < pageHeader || native.Uint16(inline[8:]) != leafPage {
		return w.fault("page %d has a bucket that is cut off", p.id)
	}
	in := pageOf(p.id, inline)
	if in.end() != len(inline) {
		if err := w.fault("page %d has a bucket that does not end with its last element", p.id); err != nil {
			return err
		}
	}
	return w.leaf(in, nil, nil, value)
}

// tree walks through the tree below a page, whose first key is low, and whose keys are below high; nil: any.
func (w *walker) tree(id uint64, depth int, low, high []byte, v visit) error {
	if depth > maxDepth {
		return w.fault("page %d is too deep in its tree", id)
	}
	p, err := w.page(id, depth)
	if p.bytes == nil || err != nil {
		return err
	}
	switch p.flags {
	case branchPage:
		return w.branch(p, depth, low, high, v)
	case leafPage:
		return w.leaf(p, low, high, v)
	}
	return w.fault("page %d has flags %#x", id, p.flags)
}

func (w *walker) branch(p page, depth int, low, high []byte, v visit) error {
	if p.count == 0 {
		return w.fault("page %d is empty", p.id)
	}
	n, err := w.elements(p, low, high)
	if err != nil {
		return err
	}
	for i := range n {
		e, end := p.element(i), high
		if i+1 < n {
			end = p.element(i + 1).key
		}
		if err := w.tree(e.child, depth+1, e.key, end, v); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) leaf(p page, low, high []byte, v visit) error {
	if p.count == 0 && (low != nil || len(bytes.Trim(p.bytes[pageHeader:], "\x00")) > 0) {
		return w.fault("page %d is empty, and should not be", p.id)
	}
	n, err := w.elements(p, low, high)
	if err != nil {
		return err
	}
	for i := range n {
		if e := p.element(i); e.begin != 0 {
			if err := v(p, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// elements checks where the elements of a page are, which is one after the other, and their keys. It returns how many of
// them can be looked at.
func (w *walker) elements(p page, low, high []byte) (n int, err error) {
	fits := p.fits()
	if fits < p.count {
		if err := w.fault("page %d has %d elements, with room for %d", p.id, p.count, fits); err != nil {
			return 0, err
		}
	}
	begin, length := p.data(), 0
	for i := range fits {
		e := p.element(i)
		if length += e.end - e.begin; length > shared*len(p.bytes) {
			return i, w.fault("page %d has elements that share their bytes", p.id)
		}
		var err error
		switch {
		case e.begin == 0:
			err = w.fault("page %d has an element beyond its end", p.id)
		case e.begin != begin:
			err = w.fault("page %d has an element at %d, want it at %d", p.id, e.begin, begin)
		case !ordered(e.key, low, high, i == 0):
			err = w.fault("page %d has keys out of order", p.id)
		}
		if err != nil {
			return 0, err
		}
		if e.begin != 0 {
			low, begin = e.key, e.end
		}
	}
	return fits, nil
}

// data is where the first element of a page has its key.
func (p page) data() int {
	return pageHeader + p.count*elementSize
}

// ordered tells whether a key comes after the one before it, or for the first of a page is the one that the page above
// knows it by, without which bbolt would write it twice; and whether it is below high. No key is empty.
func ordered(key, low, high []byte, first bool) bool {
	c := bytes.Compare(key, low)
	right := c > 0
	if first && low != nil {
		right = c == 0
	}
	return right && (high == nil || bytes.Compare(key, high) < 0)
}

// end is where the last element of a page ends; not within the page when it cannot be read.
func (p page) end() int {
	if p.count == 0 || p.fits() < p.count {
		return p.data()
	}
	return p.element(p.count - 1).end
}
