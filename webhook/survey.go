package webhook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts what is in its file: a page that names itself as its child, or a length that is not true, makes it loop,
// exhaust the memory or stop the process, none of which can be recovered from. So a file is walked through here, without
// bbolt, before bbolt gets it. The layout is that of bbolt's internal/common, version 2, in the byte order of the
// machine.

const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	boltMeta       = 0x04
	boltBranch     = 0x01
	boltLeaf       = 0x02
	boltFreelist   = 0x10
	boltBucket     = 0x01 // Flag of a leaf's element.
	boltPageHeader = 16
	boltElement    = 16
	boltMetaSize   = 64
	boltMaxDepth   = 64
)

// errDamaged is wrapped by the error of a file that must not be used.
var errDamaged = errors.New("damaged")

// stored is an item and its key in the file. Key 0: it is in none.
type stored struct {
	key  uint64
	item *item
}

// survey walks through a queue file.
type survey struct {
	file     io.ReaderAt
	pageSize uint64
	pages    uint64 // Page numbers are below it.
	txid     uint64 // Of the last transaction.
	root     uint64
	freelist uint64

	seen     []bool
	records  []stored // Of the bucket of the queue, in order.
	found    bool     // The bucket of the queue,
	expected uint64   // and its sequence, where commit keeps the number of records.
	faults   error    // The first fault.
}

// surveyFile returns what could be read of a file, and an error that wraps errDamaged when there is a fault anywhere; any
// other error is one of reading.
func surveyFile(file io.ReaderAt, size int64) (*survey, error) {
	s := &survey{file: file}
	if err := s.readMeta(size); err != nil {
		return s, err
	}
	s.seen = make([]bool, s.pages)
	s.seen[0], s.seen[1] = true, true
	if err := s.tree(s.root, 0, s.top); err != nil {
		return s, err
	}
	if !s.found || s.expected != uint64(len(s.records)) {
		s.fault("%d records, want %d", len(s.records), s.expected)
	}
	if err := s.free(); err != nil {
		return s, err
	}
	return s, s.faults
}

func (s *survey) fault(format string, args ...any) {
	if s.faults == nil {
		s.faults = fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
	}
}

// readMeta finds the newer of the two meta pages that are whole.
func (s *survey) readMeta(size int64) error {
	found := 0
	for _, at := range []int64{0, -1} { // The second one is a page further, of whatever size a page is.
		sizes := []int64{0}
		if at < 0 {
			sizes = sizes[:0]
			for p := int64(1 << 10); p <= 1<<16; p <<= 1 {
				sizes = append(sizes, p)
			}
		}
		for _, offset := range sizes {
			page := make([]byte, boltPageHeader+boltMetaSize)
			if _, err := s.file.ReadAt(page, offset); errors.Is(err, io.EOF) {
				continue
			} else if err != nil {
				return err
			}
			meta, e := page[boltPageHeader:], binary.NativeEndian
			sum := fnv.New64a()
			sum.Write(meta[:56])
			if e.Uint32(meta) != boltMagic || e.Uint32(meta[4:]) != boltVersion || e.Uint64(meta[56:]) != sum.Sum64() {
				continue
			}
			pageSize, txid := uint64(e.Uint32(meta[8:])), e.Uint64(meta[48:])
			if pageSize < 1<<10 || pageSize > 1<<16 || pageSize&(pageSize-1) != 0 || (offset != 0 && uint64(offset) != pageSize) ||
				(found > 0 && s.pageSize != pageSize) {
				continue
			}
			if e.Uint16(page[8:]) != boltMeta {
				s.fault("a meta page says that it is another kind")
			}
			if found == 0 || txid > s.txid {
				s.pageSize, s.txid = pageSize, txid
				s.root, s.freelist, s.pages = e.Uint64(meta[16:]), e.Uint64(meta[32:]), e.Uint64(meta[40:])
			}
			found++
		}
	}
	if found == 1 {
		// Half of a last transaction, or the end of one that counted: nobody can tell.
		s.fault("one of two meta pages is not whole")
	}
	switch {
	case found == 0:
		return fmt.Errorf("%w: no meta page is whole", errDamaged)
	case s.pages < 4 || s.pages > uint64(size)/s.pageSize:
		return fmt.Errorf("%w: %d pages of %d bytes in a file of %d bytes", errDamaged, s.pages, s.pageSize, size)
	}
	return nil
}

// page returns a page with its overflow, once; nil when there is none that can be used.
func (s *survey) page(id uint64) ([]byte, error) {
	if id < 2 || id >= s.pages || s.seen[id] {
		s.fault("page %d is out of bounds or used twice", id)
		return nil, nil
	}
	header := make([]byte, boltPageHeader)
	if _, err := s.file.ReadAt(header, int64(id*s.pageSize)); err != nil {
		return nil, err
	}
	overflow := uint64(binary.NativeEndian.Uint32(header[12:]))
	if binary.NativeEndian.Uint64(header) != id || overflow >= s.pages-id {
		s.fault("page %d has a header that is not its own", id)
		return nil, nil
	}
	for i := id; i <= id+overflow; i++ {
		if s.seen[i] {
			s.fault("page %d is used twice", i)
			return nil, nil
		}
		s.seen[i] = true
	}
	page := make([]byte, (overflow+1)*s.pageSize)
	_, err := s.file.ReadAt(page, int64(id*s.pageSize))
	return page, err
}

// tree walks through the pages of a bucket and calls leaf with every element.
func (s *survey) tree(id uint64, depth int, leaf func(flags uint32, key, value []byte) error) error {
	if depth > boltMaxDepth {
		s.fault("page %d lies too deep", id)
		return nil
	}
	page, err := s.page(id)
	if page == nil || err != nil {
		return err
	}
	flags, e := binary.NativeEndian.Uint16(page[8:]), binary.NativeEndian
	if flags == boltLeaf {
		return s.leaf(page, id, leaf)
	}
	count := int(e.Uint16(page[10:]))
	if flags != boltBranch || count == 0 || boltPageHeader+count*boltElement > len(page) {
		s.fault("page %d is neither branch nor leaf, or too short", id)
		return nil
	}
	for i := range count {
		at := boltPageHeader + i*boltElement
		pos, ksize, child := uint64(e.Uint32(page[at:])), uint64(e.Uint32(page[at+4:])), e.Uint64(page[at+8:])
		if uint64(at)+pos+ksize > uint64(len(page)) {
			s.fault("page %d has a key out of bounds", id)
			continue
		}
		if err := s.tree(child, depth+1, leaf); err != nil {
			return err
		}
	}
	return nil
}

// leaf goes through the elements of a leaf page, which may also lie in a value.
func (s *survey) leaf(page []byte, id uint64, leaf func(flags uint32, key, value []byte) error) error {
	e := binary.NativeEndian
	count := int(e.Uint16(page[10:]))
	if boltPageHeader+count*boltElement > len(page) {
		s.fault("page %d is too short", id)
		return nil
	}
	for i := range count {
		at := boltPageHeader + i*boltElement
		flags, pos := e.Uint32(page[at:]), uint64(at)+uint64(e.Uint32(page[at+4:]))
		ksize, vsize := uint64(e.Uint32(page[at+8:])), uint64(e.Uint32(page[at+12:]))
		if pos+ksize+vsize > uint64(len(page)) {
			s.fault("page %d has an element out of bounds", id)
			continue
		}
		if err := leaf(flags, page[pos:pos+ksize], page[pos+ksize:pos+ksize+vsize]); err != nil {
			return err
		}
	}
	return nil
}

// top takes an element of the root bucket: there is one, the bucket of the queue.
func (s *survey) top(flags uint32, key, value []byte) error {
	if flags != boltBucket || string(key) != bucketName || len(value) < 16 {
		s.fault("something else than a queue is in it")
		return nil
	}
	s.expected = binary.NativeEndian.Uint64(value[8:])
	s.found = true
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return s.tree(root, 0, s.record)
	}
	// A small bucket lies in the value itself.
	page := value[16:]
	if len(page) < boltPageHeader || binary.NativeEndian.Uint16(page[8:]) != boltLeaf {
		s.fault("the bucket of the queue is no page")
		return nil
	}
	return s.leaf(page, 0, s.record)
}

// record takes an element of the queue.
func (s *survey) record(flags uint32, key, value []byte) error {
	if flags != 0 || len(key) != 8 {
		s.fault("a record has no key of 8 bytes")
		return nil
	}
	number := binary.BigEndian.Uint64(key)
	if n := len(s.records); number == 0 || (n > 0 && number <= s.records[n-1].key) {
		s.fault("records are out of order")
		return nil
	}
	it, err := decodeRecord(value)
	if errors.Is(err, errRecord) {
		s.fault("%v", err)
		return nil
	}
	// Of a later version: it stays where it is, without an item.
	s.records = append(s.records, stored{number, it})
	return nil
}

// free checks the list of free pages: one of them that is used would be written over.
func (s *survey) free() error {
	page, err := s.page(s.freelist)
	if page == nil || err != nil {
		return err
	}
	e := binary.NativeEndian
	count, at := uint64(e.Uint16(page[10:])), uint64(boltPageHeader)
	if count == 0xFFFF {
		count, at = e.Uint64(page[at:]), at+8
	}
	if e.Uint16(page[8:]) != boltFreelist || count > (uint64(len(page))-at)/8 {
		s.fault("the list of free pages is none")
		return nil
	}
	for i := range count {
		id := e.Uint64(page[at+i*8:])
		if id < 2 || id >= s.pages || s.seen[id] {
			s.fault("page %d is free and used, or out of bounds", id)
			return nil
		}
		s.seen[id] = true
	}
	return nil
}
