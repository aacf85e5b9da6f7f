package monitors

import (
	"math"
	"math/bits"
	"sync/atomic"
)

// people is a set of users, known by a hash. It grows from a quarter of a
// kilobyte to 18, and forgets nobody until it is cleared; of those who are not in
// it, it takes one in fifty at most for somebody who is. The zero set is ready.
// Safe for concurrent use but for clear.
//
// It is a Bloom filter of two bits a user that grows by filters of eight times
// the size: Almeida, Baquero, Preguiça, Hutchison, "Scalable Bloom filters", IPL
// 101 (2007).
type people struct {
	levels [3]atomic.Pointer[bitmap]
	small  bool // two kilobytes at most, for a thousand users
}

type bitmap struct {
	words []atomic.Uint64
	users atomic.Int64
}

const (
	firstBits   = 2048
	bitsPerUser = 16 // a filter is full then
)

// room is how many users a level holds.
func (b *bitmap) room() int64 { return int64(len(b.words)) * 64 / bitsPerUser }

// places are a user's two bits.
func (b *bitmap) places(user uint64) (first, second uint64) {
	n := uint64(len(b.words) * 64)
	return user % n, (user >> 32) % n
}

func (b *bitmap) has(user uint64) bool {
	i, j := b.places(user)
	return b.words[i/64].Load()>>(i%64)&1 == 1 && b.words[j/64].Load()>>(j%64)&1 == 1
}

// has tells whether the user is in the set.
func (p *people) has(user uint64) bool {
	for i := range p.levels {
		b := p.levels[i].Load()
		if b == nil {
			return false
		}
		if b.has(user) {
			return true
		}
	}
	return false
}

// add puts a user in and tells whether it was new. full tells that there is no
// room: nobody more fits in without being taken for others.
func (p *people) add(user uint64) (fresh, full bool) {
	if p.has(user) {
		return false, false
	}
	for i := range p.levels {
		if p.small && i == len(p.levels)-1 {
			break
		}
		b := p.levels[i].Load()
		if b == nil {
			made := &bitmap{words: make([]atomic.Uint64, firstBits/64<<(3*i))}
			p.levels[i].CompareAndSwap(nil, made)
			b = p.levels[i].Load()
		}
		if b.users.Load() >= b.room() {
			continue
		}
		x, y := b.places(user)
		before := b.words[x/64].Or(1 << (x % 64))
		after := b.words[y/64].Or(1 << (y % 64))
		if before>>(x%64)&1 == 1 && after>>(y%64)&1 == 1 {
			return false, false // somebody was quicker
		}
		b.users.Add(1)
		return true, false
	}
	return false, true
}

func (p *people) clear() {
	for i := range p.levels {
		p.levels[i].Store(nil)
	}
}

// headcount tells about how many different users were added, to 7 % or so: fewer
// than a few hundred nearly exactly. The zero headcount is ready. Counts merge by
// the larger register. Safe for concurrent use but for clear.
//
// Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog", AofA 2007, with 256 registers.
type headcount struct {
	registers [headcountSize / 8]atomic.Uint64 // eight each
}

const headcountSize = 256

// add counts a user. One who was counted before costs one load.
func (h *headcount) add(user uint64) {
	i := user % headcountSize
	rank := uint64(bits.LeadingZeros64(user|0xff)) + 1
	word, shift := &h.registers[i/8], i%8*8
	for {
		old := word.Load()
		if old>>shift&0xff >= rank || word.CompareAndSwap(old, old&^(0xff<<shift)|rank<<shift) {
			return
		}
	}
}

func (h *headcount) count() float64 {
	var ranks [64]int // how many registers have each
	for i := range h.registers {
		for w, k := h.registers[i].Load(), 0; k < 8; w, k = w>>8, k+1 {
			ranks[w&0x3f]++
		}
	}
	sum := 0.0
	for rank, n := range ranks {
		if n > 0 {
			sum += math.Ldexp(float64(n), -rank)
		}
	}
	const m = headcountSize
	estimate := 0.7182725932495458 * m * m / sum // α of 256 registers
	if estimate <= 2.5*m && ranks[0] > 0 {
		return m * math.Log(m/float64(ranks[0]))
	}
	return estimate
}

func (h *headcount) merge(o *headcount) {
	for i := range h.registers {
		mine, theirs, both := h.registers[i].Load(), o.registers[i].Load(), uint64(0)
		for shift := 0; shift < 64; shift += 8 {
			both |= max(mine>>shift&0xff, theirs>>shift&0xff) << shift
		}
		h.registers[i].Store(both)
	}
}

func (h *headcount) clear() {
	for i := range h.registers {
		h.registers[i].Store(0)
	}
}
