package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func readerOf(b []byte) io.ReaderAt { return bytes.NewReader(b) }

// TestFaults makes each damage there is.
func TestFaults(t *testing.T) {
	const pageSize = 1 << 10
	whole := mixed(t, pageSize)
	leaves, branches := pagesOf(whole, pageSize, leafPage), pagesOf(whole, pageSize, branchPage)
	top := int(native.Uint64(whole[inForce(whole)+16:]))
	leaves = leaves[:len(leaves):len(leaves)]
	var tree []int // Leaves of the bucket "tree".
	for _, id := range leaves {
		if id != top {
			tree = append(tree, id)
		}
	}
	at := func(b []byte, id int) []byte { return b[id*pageSize:] }
	key := func(b []byte, id, i int) []byte {
		p := pageOf(uint64(id), at(b, id))
		return p.element(i).key
	}
	meta := func(b []byte) []byte { return b[inForce(b):] }
	other := func(b []byte) []byte { return b[pageSize+2*pageHeader-inForce(b):] }
	for _, c := range []struct {
		name  string
		spoil func(b []byte)
		want  string
	}{
		{"both metas", func(b []byte) { b[20]++; b[pageSize+20]++ }, "has no meta page that is whole"},
		{"one meta", func(b []byte) { other(b)[20]++ }, "is not whole"},
		{"a meta's header", func(b []byte) { b[8] = leafPage }, "meta page 0 has a wrong header"},
		{"a meta's page", func(b []byte) { copy(b[pageSize:2*pageSize], b[:pageSize]) }, "meta page 1 has a wrong header, or belongs elsewhere"},
		{"page size", func(b []byte) { native.PutUint32(b[pageHeader+8:], 3000) }, "has pages of 3000 bytes"},
		{"too small pages", func(b []byte) { native.PutUint32(b[pageHeader+8:], 512) }, "has pages of 512 bytes"},
		{"too many pages", func(b []byte) { native.PutUint64(meta(b)[40:], 1000) }, "has 1000 pages of 1024 bytes in"},
		{"far too many pages", func(b []byte) { native.PutUint64(meta(b)[40:], 1<<62) }, "has 4611686018427387904 pages"},
		{"too few pages", func(b []byte) { native.PutUint64(meta(b)[40:], 3) }, "has 3 pages"},
		{"root out of bounds", func(b []byte) { native.PutUint64(meta(b)[16:], 1<<40) }, "page 1099511627776 of"},
		{"root is a meta", func(b []byte) { native.PutUint64(meta(b)[16:], 1) }, "page 1 of"},
		{"root is the free list", func(b []byte) { copy(meta(b)[16:24], meta(b)[32:40]) }, "has flags 0x10"},
		{"no free list", func(b []byte) { native.PutUint64(meta(b)[32:], 1<<64-1) }, "page 18446744073709551615 of"},
		{"free list is in use", func(b []byte) { copy(meta(b)[32:40], meta(b)[16:24]) }, "is referred to twice"},
		{"free page in use", func(b []byte) { native.PutUint64(at(b, freelistOf(b))[pageHeader:], uint64(top)) }, "is in use and free"},
		{"free pages out of order", func(b []byte) {
			p := at(b, freelistOf(b))[pageHeader:]
			x, y := native.Uint64(p), native.Uint64(p[8:])
			native.PutUint64(p, y)
			native.PutUint64(p[8:], x)
		}, "out of order"},
		{"free page twice", func(b []byte) { p := at(b, freelistOf(b))[pageHeader:]; copy(p[8:16], p[:8]) }, "out of order"},
		{"free page out of bounds", func(b []byte) {
			p := at(b, freelistOf(b))
			native.PutUint64(p[pageHeader+8*(int(native.Uint16(p[10:]))-1):], 1<<60)
		}, "or not there"},
		{"more free pages than fit", func(b []byte) { native.PutUint16(at(b, freelistOf(b))[10:], 2000) }, "is no list of free pages"},
		{"a free page less", func(b []byte) { at(b, freelistOf(b))[10]-- }, "pages, of which"},
		{"a root further down", func(b []byte) {
			name := bytes.Index(at(b, top), []byte("tree")) + 4
			native.PutUint64(at(b, top)[name:], uint64(tree[0]))
		}, "pages, of which"},
		{"far more free pages than fit", func(b []byte) {
			p := at(b, freelistOf(b))
			native.PutUint16(p[10:], 0xFFFF)
			native.PutUint64(p[16:], 1<<63)
		}, "is no list of free pages"},
		{"another page's number", func(b []byte) { at(b, tree[0])[0]++ }, "has a wrong header"},
		{"overflow over the end", func(b []byte) { native.PutUint32(at(b, tree[0])[12:], 1<<31) }, "has a wrong header"},
		{"overflow over another", func(b []byte) { native.PutUint32(at(b, tree[0])[12:], 1) }, "is referred to twice"},
		{"kind of a page", func(b []byte) { at(b, tree[0])[8] = 7 }, "has flags 0x7"},
		{"a child that is its parent", func(b []byte) { native.PutUint64(at(b, branches[0])[24:], uint64(branches[0])) }, "is referred to twice"},
		{"a child twice", func(b []byte) { p := at(b, branches[0]); copy(p[40:48], p[24:32]) }, "is referred to twice"},
		{"children in another order", func(b []byte) {
			p := at(b, branches[0])
			x, y := native.Uint64(p[24:]), native.Uint64(p[40:])
			native.PutUint64(p[24:], y)
			native.PutUint64(p[40:], x)
		}, "keys out of order"},
		{"a branch of none", func(b []byte) { native.PutUint16(at(b, branches[0])[10:], 0) }, "is empty"},
		{"a branch of one less", func(b []byte) { at(b, branches[0])[10]-- }, "has an element at"},
		{"a branch of too many", func(b []byte) { native.PutUint16(at(b, branches[0])[10:], 999) }, "with room for 63"},
		{"a branch's key", func(b []byte) { key(b, branches[0], 1)[9]++ }, "keys out of order"},
		{"a branch's key out of bounds", func(b []byte) { native.PutUint32(at(b, branches[0])[pageHeader:], 1<<32-1) }, "beyond its end"},
		{"a leaf's first key", func(b []byte) { key(b, tree[1], 0)[9]-- }, "keys out of order"},
		{"a leaf's last key", func(b []byte) {
			n := pageOf(0, at(b, tree[0])).count
			key(b, tree[0], n-1)[4] = '9'
		}, "keys out of order"},
		{"two keys alike", func(b []byte) { copy(key(b, tree[0], 1), key(b, tree[0], 0)) }, "keys out of order"},
		{"a leaf of none", func(b []byte) { native.PutUint16(at(b, tree[0])[10:], 0) }, "is empty, and should not be"},
		{"a leaf of one less", func(b []byte) { at(b, tree[0])[10]-- }, "has an element at"},
		{"a leaf of too many", func(b []byte) { native.PutUint16(at(b, tree[0])[10:], 999) }, "with room for 63"},
		{"a long key", func(b []byte) { native.PutUint32(at(b, tree[0])[pageHeader+8:], 1<<32-1) }, "beyond its end"},
		{"a long value", func(b []byte) { native.PutUint32(at(b, tree[0])[pageHeader+12:], 1<<32-1) }, "beyond its end"},
		{"a value of less", func(b []byte) { at(b, tree[0])[pageHeader+12]-- }, "has an element at"},
		{"a place far off", func(b []byte) { native.PutUint32(at(b, tree[0])[pageHeader+4:], 1<<32-1) }, "beyond its end"},
		{"a bucket in a bucket", func(b []byte) { at(b, tree[0])[pageHeader] = bucketLeaf }, "has a value with flags 0x1"},
		{"a value among the buckets", func(b []byte) { at(b, top)[pageHeader] = 0 }, "is cut off, or none"},
		{"no buckets", func(b []byte) { at(b, top)[10] = 0 }, "is empty, and should not be"},
		{"a bucket cut off", func(b []byte) { at(b, top)[pageHeader+elementSize+12]-- }, "is cut off, or none"},
		{"a bucket with a root and more", func(b []byte) { at(b, top)[pageHeader+elementSize+12]++ }, "with a root and a page of its own"},
		{"an inline bucket of another kind", func(b []byte) { at(b, top)[bytes.Index(at(b, top), []byte("inline"))+6+24] = branchPage }, "is cut off"},
		{"an inline bucket's value", func(b []byte) {
			p := at(b, top)[bytes.Index(at(b, top), []byte("inline"))+6+32:]
			p[elementSize*3+12]--
		}, "does not end with its last element"},
		{"an inline bucket's count", func(b []byte) { at(b, top)[bytes.Index(at(b, top), []byte("inline"))+6+26]++ }, "bucket that does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(whole)
			c.spoil(b)
			if !strings.Contains(c.want, "whole") {
				seal(b, pageSize)
			}
			r, err := walk(b, Options{BothMetas: true}, false)
			if !errors.Is(err, errFault) || len(r.faults) != 1 || !strings.Contains(r.faults[0], c.want) {
				t.Errorf("%v, want a fault %q", err, c.want)
			}
			first := lines(r.faults)
			if r, err := walk(b, Options{BothMetas: true}, true); err != nil || len(r.faults) == 0 || r.faults[0] != first {
				t.Errorf("with faults let pass: %v, %q", err, r.faults)
			}
		})
	}
}

// TestOptions refuses what was not asked for.
func TestOptions(t *testing.T) {
	b := mixed(t, 1<<10)
	if _, err := walk(b, Options{PageSize: 4096}, false); err == nil || err.Error() != "fault: has pages of 1024 bytes, want 4096" {
		t.Errorf("page size: %v", err)
	}
	for _, size := range []int{0, 1, 79, 80, 1 << 10, 4 << 10} {
		if r, err := walk(b[:size], Options{}, true); err != nil || len(r.faults) == 0 || len(r.entries) > 0 {
			t.Errorf("of %d bytes: %v, %q", size, err, r.faults)
		}
	}
	for _, at := range []int{0, 1 << 10} {
		b := bytes.Clone(b)
		clear(b[at : at+1<<10])
		if r, err := walk(b, Options{}, false); err != nil || len(r.entries) < 30 {
			t.Errorf("without a meta: %v, %d entries", err, len(r.entries))
		}
		if _, err := walk(b, Options{BothMetas: true}, false); err == nil {
			t.Error("one meta is taken for both")
		}
	}
	// bbolt takes the page size from anything that looks like a meta, when the first one is damaged.
	b = file(t, 4<<10, put("a", 0, 5, 5))
	copy(b[1<<10:], mixed(t, 1<<10)[1<<10:][:pageHeader+metaSize])
	if _, err := walk(b, Options{PageSize: 4 << 10}, false); err != nil {
		t.Error(err)
	}
	clear(b[:100])
	if _, err := walk(b, Options{PageSize: 4 << 10}, false); err == nil {
		t.Error("the second meta is taken from another place than bbolt's")
	}
}

// TestSalvage wants everything that one damage leaves.
func TestSalvage(t *testing.T) {
	whole := file(t, 1<<10, put("a", 0, 200, 30))
	all, err := walk(whole, Options{}, false)
	must(t, err)
	leaf := func(b []byte) []byte { return b[pagesOf(whole, 1<<10, leafPage)[2]<<10:] }
	count := int(native.Uint16(leaf(whole)[10:]))
	branch := func(b []byte) []byte { return b[pagesOf(whole, 1<<10, branchPage)[0]<<10:] }
	for _, c := range []struct {
		name  string
		spoil func(b []byte)
		least int
	}{
		{"a leaf's number", func(b []byte) { leaf(b)[0]++ }, 200 - count},
		{"a value's length", func(b []byte) { native.PutUint32(leaf(b)[pageHeader+elementSize+12:], 300) }, 199},
		{"an element's place", func(b []byte) { native.PutUint32(leaf(b)[pageHeader+elementSize+4:], 1<<31) }, 199},
		{"a key", func(b []byte) { pageOf(0, leaf(b)).element(3).key[0] = 'z' }, 199},
		{"a branch's key", func(b []byte) { pageOf(0, branch(b)).element(3).key[0] = 'z' }, 200},
		{"a branch's element", func(b []byte) { native.PutUint32(branch(b)[pageHeader+elementSize:], 1<<31) }, 200},
		{"the free list", func(b []byte) { clear(b[freelistOf(b)<<10:][:1<<10]) }, 200},
		{"a leaf's count", func(b []byte) { native.PutUint16(leaf(b)[10:], 0xFFFF) }, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(whole)
			c.spoil(b)
			r, err := walk(b, Options{}, true)
			n := 0
			for _, e := range all.entries {
				if slices.Contains(r.entries, e) {
					n++
				}
			}
			if err != nil || len(r.faults) == 0 || n < c.least {
				t.Errorf("%v, %d faults, %d of %d entries as they were, want %d", err, len(r.faults), n, len(r.entries), c.least)
			}
		})
	}
}

// TestEveryByte changes each byte of a small file: it is a fault, or what is found is what was there, but for the one
// name, key, value or sequence that has the byte, or the lengths of the last key and value of a page.
func TestEveryByte(t *testing.T) {
	const pageSize = 1 << 10
	whole := mixed(t, pageSize)
	flat := func(r *recorder) (all []string, last []bool) {
		names := map[string]int{}
		for i, b := range r.buckets {
			names[b.Name] = i
			all, last = append(all, b.Name, fmt.Sprintf("%016x", b.Sequence)), append(last, false, false)
		}
		for i, e := range r.entries {
			key, value := e.key, e.value
			ends := i+1 == len(r.entries) || r.entries[i+1].page != e.page
			if ends {
				key, value = key+value, ""
			}
			all = append(all, key, value, fmt.Sprint(names[e.bucket]))
			last = append(last, ends, false, false)
		}
		return all, last
	}
	r, err := walk(whole, Options{BothMetas: true}, false)
	must(t, err)
	want, last := flat(r)
	faults, sound, changed := 0, 0, 0
	b := bytes.Clone(whole)
	for i := range b {
		for _, x := range changes(whole[i]) {
			b[i] ^= x
			r, err := walk(b, Options{BothMetas: true}, false)
			if errors.Is(err, errFault) || err == ErrManyBuckets {
				faults++
				b[i] = whole[i]
				continue
			}
			must(t, err)
			sound++
			got, _ := flat(r)
			if len(got) != len(want) {
				t.Fatalf("byte %d is %#x: found %d, want %d", i, b[i], len(got), len(want))
			}
			differ := 0
			for j := range got {
				if got[j] == want[j] {
					continue
				}
				differ++
				long, short := got[j], want[j]
				if len(long) < len(short) {
					long, short = short, long
				}
				if len(long) == len(short) && hamming(long, short) <= 2 || last[j] && strings.HasPrefix(long, short) {
					continue
				}
				t.Errorf("byte %d is %#x: found %q, want %q", i, b[i], got[j], want[j])
			}
			if differ > 1 {
				t.Errorf("byte %d is %#x: %d differences", i, b[i], differ)
			}
			changed += differ
			b[i] = whole[i]
		}
	}
	t.Logf("%d bytes: %d changes are a fault, %d are not, %d of them of a name, key, value or sequence", len(b), faults, sound, changed)
	if faults < 3000 || changed < 1000 {
		t.Error("the changes are not what they should be")
	}
}

// changes are what is done to a byte: one of its bits, some, or all of them, and none left.
func changes(b byte) []byte {
	all := []byte{0x01, 0x04, 0x80, 0xFF}
	if b != 0 {
		all = append(all, b)
	}
	return all
}

// hamming is the number of bytes that differ; two for a byte that is written in hexadecimal.
func hamming(a, b string) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// TestBroken changes much at once: whatever comes, the walk ends, and finds no more than the file has.
func TestBroken(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	whole := mixed(t, 1<<10)
	for range 3000 {
		b := bytes.Clone(whole)
		for range 1 + random.IntN(40) {
			at := random.IntN(len(b))
			if random.IntN(2) == 0 {
				at = at>>10<<10 + random.IntN(80)
			}
			b[at] = byte(random.IntN(256) >> random.IntN(8))
		}
		seal(b, 1<<10)
		r, err := walk(b, Options{}, true)
		if err != nil && err != ErrManyBuckets {
			t.Fatal(err)
		}
		bounded(t, r, len(b))
	}
}

// bounded wants no more found than the bytes of a file can hold, with what salvage may find more often.
func bounded(t *testing.T, r *recorder, size int) {
	t.Helper()
	found := 0
	for _, e := range r.entries {
		found += len(e.key) + len(e.value)
	}
	most := size
	if r.salvage {
		most *= shared * shared // Also in buckets that share their bytes.
	}
	if found > most {
		t.Errorf("found %d bytes in %d", found, size)
	}
}

// TestSharedBytes has elements by the thousand that all are the same megabytes.
func TestSharedBytes(t *testing.T) {
	const pageSize = 1 << 16
	b := file(t, pageSize, put("a", 0, 1, 16<<20))
	r, err := walk(b, Options{}, false)
	must(t, err)
	p := b[r.entries[0].page*pageSize:]
	const n = 60_000
	native.PutUint16(p[10:], n)
	for i := range n {
		at := pageHeader + i*elementSize
		native.PutUint32(p[at:], 0)
		native.PutUint32(p[at+4:], uint32((n-i)*elementSize+i))
		native.PutUint32(p[at+8:], 8<<20)
		native.PutUint32(p[at+12:], 7<<20)
	}
	r, err = walk(b, Options{}, true)
	if err != nil || len(r.entries) > 2*shared {
		t.Errorf("%v, %d entries", err, len(r.entries))
	}
	bounded(t, r, len(b))
}

// TestLongPages has pages that claim gigabytes, in a file that has them.
func TestLongPages(t *testing.T) {
	b := mixed(t, 4<<10)
	native.PutUint64(b[inForce(b)+40:], 1<<22)
	native.PutUint32(b[pagesOf(b, 4<<10, leafPage)[1]<<12+12:], 1<<21)
	seal(b, 4<<10)
	r := &recorder{}
	err := Walk(sparse{t, b}, 1<<36, Options{}, r)
	if err == nil || !strings.Contains(err.Error(), "has a wrong header") {
		t.Error(err)
	}
}

// sparse is a file with zeros behind what it has.
type sparse struct {
	t    *testing.T
	head []byte
}

func (s sparse) ReadAt(b []byte, off int64) (int, error) {
	if len(b) > maxPage {
		s.t.Fatalf("%d bytes are read", len(b))
	}
	clear(b)
	if off < int64(len(s.head)) {
		copy(b, s.head[off:])
	}
	return len(b), nil
}

// TestDeep has a tree of one page below another.
func TestDeep(t *testing.T) {
	const pageSize = 1 << 10
	b := file(t, pageSize, put("a", 0, 200, 50))
	branches := pagesOf(b, pageSize, branchPage)
	if len(branches) != 1 {
		t.Fatalf("%d branches", len(branches))
	}
	branch := branches[0]
	leaf := native.Uint64(b[branch*pageSize+pageHeader+8:])
	first := bytes.Clone(pageOf(0, b[leaf*pageSize:]).element(0).key)
	pages := len(b) / pageSize
	for _, c := range []struct {
		more int
		deep bool
	}{{maxDepth - 2, false}, {maxDepth - 1, true}, {5000, true}} {
		b := append(bytes.Clone(b), make([]byte, c.more*pageSize)...)
		next := uint64(pages)
		native.PutUint64(b[branch*pageSize+pageHeader+8:], next)
		for i := range c.more {
			p := b[(pages+i)*pageSize:]
			child := next + 1
			if i == c.more-1 {
				child = leaf
			}
			native.PutUint64(p, next)
			native.PutUint16(p[8:], branchPage)
			native.PutUint16(p[10:], 1)
			native.PutUint32(p[pageHeader:], elementSize)
			native.PutUint32(p[pageHeader+4:], uint32(len(first)))
			native.PutUint64(p[pageHeader+8:], child)
			copy(p[pageHeader+elementSize:], first)
			next++
		}
		native.PutUint64(b[inForce(b)+40:], next)
		seal(b, pageSize)
		r, err := walk(b, Options{}, false)
		if got := err != nil && strings.Contains(err.Error(), "is too deep in its tree"); got != c.deep || (!c.deep && (err != nil || len(r.entries) != 200)) {
			t.Errorf("%d more: %v, %d entries", c.more, err, len(r.entries))
		}
	}
}

// faulty cannot be read from an offset on.
type faulty struct {
	io.ReaderAt
	from int64
}

func (f faulty) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.from {
		return 0, syscall.EIO
	}
	return f.ReaderAt.ReadAt(b, off)
}

// TestADiskThatCannotBeRead is no fault of the file.
func TestADiskThatCannotBeRead(t *testing.T) {
	b := mixed(t, 1<<10)
	used := pagesOf(b, 1<<10, leafPage)
	for from := 0; from <= used[len(used)-1]<<10; from += 1 << 10 {
		r := &recorder{salvage: true}
		if err := Walk(faulty{readerOf(b), int64(from)}, int64(len(b)), Options{BothMetas: true}, r); err != syscall.EIO || len(r.faults) > 0 {
			t.Errorf("from %d: %v, %q", from, err, r.faults)
		}
	}
}
