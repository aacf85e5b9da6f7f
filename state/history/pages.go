package history

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
)

// The format is that of bbolt's internal/common: pages of pageSize bytes in the byte order of the machine, each with a
// header; 0 and 1 hold a meta each, of which the one with the higher transaction is in force.
const (
	pageSize   = 4096 // Of all our files, whatever the machine's pages are.
	pageHeader = 16   // id uint64, flags, count uint16, overflow uint32
	element    = 16   // branch: pos, ksize uint32, pgid uint64; leaf: flags, pos, ksize, vsize uint32
	metaSize   = 64   // magic, version, pageSize, flags uint32, root, sequence, freelist, pgid, txid, checksum uint64
	maxDepth   = 16   // Of a tree; four levels hold more than MaxBytes.

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketLeaf   = 0x01

	boltMagic   = 0xED0CDAED
	boltVersion = 2
)

var native = binary.NativeEndian

// damage is the error of a file that is not what this package or bbolt wrote.
type damage string

func (d damage) Error() string {
	return string(d)
}

func damaged(format string, args ...any) error {
	return damage(fmt.Sprintf(format, args...))
}

type meta struct{ root, freelist, pages, transaction uint64 }

// meta returns the one in force.
func (v *verifier) meta(size int64) (best meta, err error) {
	if size < 4*pageSize {
		return best, damaged("is %d bytes long, want at least %d", size, 4*pageSize)
	}
	found := false
	for i := range 2 {
		var b [pageHeader + metaSize]byte
		if _, err := v.f.ReadAt(b[:], int64(i)*pageSize); err != nil {
			return best, err
		}
		p := b[pageHeader:]
		sum := fnv.New64a()
		sum.Write(p[:56])
		if native.Uint32(p) != boltMagic || native.Uint32(p[4:]) != boltVersion || native.Uint64(p[56:]) != sum.Sum64() {
			continue
		}
		m := meta{root: native.Uint64(p[16:]), freelist: native.Uint64(p[32:]), pages: native.Uint64(p[40:]), transaction: native.Uint64(p[48:])}
		if n := native.Uint32(p[8:]); n != pageSize {
			return best, damaged("has pages of %d bytes, want %d", n, pageSize)
		}
		if !found || m.transaction > best.transaction {
			best, found = m, true
		}
	}
	switch {
	case !found:
		return best, damaged("has no meta page whose checksum holds")
	case best.pages < 4 || best.pages > uint64(size)/pageSize:
		return best, damaged("has %d pages in %d bytes", best.pages, size)
	}
	return best, nil
}

// page reads a page with its overflow, marks it as seen, and checks its header.
func (v *verifier) page(id uint64, depth int) (b []byte, flags uint16, count int, err error) {
	if id < 2 || id >= v.pages {
		return nil, 0, 0, damaged("page %d of %d is referred to", id, v.pages)
	}
	if v.buffers[depth] == nil {
		v.buffers[depth] = make([]byte, pageSize)
	}
	b = v.buffers[depth][:pageSize]
	if _, err := v.f.ReadAt(b, int64(id)*pageSize); err != nil {
		return nil, 0, 0, err
	}
	more := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || more >= v.pages-id {
		return nil, 0, 0, damaged("page %d has a wrong header", id)
	}
	for i := id; i <= id+more; i++ {
		if v.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, 0, 0, damaged("page %d is referred to twice", i)
		}
		v.seen[i/64] |= 1 << (i % 64)
	}
	if more > 0 {
		b = make([]byte, (more+1)*pageSize)
		if _, err := v.f.ReadAt(b, int64(id)*pageSize); err != nil {
			return nil, 0, 0, err
		}
		v.buffers[depth] = b
	}
	return b, native.Uint16(b[8:]), int(native.Uint16(b[10:])), nil
}

// cut returns length bytes at pos after the element at at.
func cut[N uint32 | uint64](b []byte, id uint64, at int, pos uint32, length N) ([]byte, error) {
	begin := uint64(at) + uint64(pos)
	if begin > uint64(len(b)) || uint64(length) > uint64(len(b))-begin {
		return nil, damaged("page %d has an element beyond its end", id)
	}
	return b[begin : begin+uint64(length)], nil
}

// ordered checks that a key comes after the one before it, or for the first of a page is the one that the page above
// knows it by, without which bbolt would write it twice; and that it is below high.
func ordered(id uint64, key, low, high []byte, first bool) error {
	c := bytes.Compare(key, low)
	right := c > 0
	if first && low != nil {
		right = c == 0
	}
	if !right || (high != nil && bytes.Compare(key, high) >= 0) {
		return damaged("page %d has keys out of order", id)
	}
	return nil
}
