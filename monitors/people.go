package monitors

import (
	"math"
	"math/bits"
)

// people is a set of users, known by a hash. It grows from a quarter of a
// kilobyte to 18, and forgets nobody until it is cleared; of those who are not in
// it, it takes one in fifty at most for somebody who is. The zero set is ready.
// Not safe for concurrent use.
//
// It is a Bloom filter of two bits a user that grows by filters of eight times
// the size: Almeida, Baquero, Preguiça, Hutchison, "Scalable Bloom filters", IPL
// 101 (2007).
type people struct {
	levels [3]*bitmap
	small  bool // two kilobytes at most, for a thousand users
}

type bitmap struct {
	words []uint64
	users int64
}

const (
	firstBits   = 2048
	bitsPerUser = 16 // a filter is full then
)

// room is how many users a level holds.
func (b *bitmap) room() int64 { return int64(len(b.words)) * 64 / bitsPerUser }

// places are a user's two bits.
func (b *bitmap) places(user uint64) (first, second uint64) {
	mask := uint64(len(b.words)*64 - 1) // a power of two
	return user & mask, user >> 32 & mask
}

func (b *bitmap) has(user uint64) bool {
	i, j := b.places(user)
	return b.words[i/64]>>(i%64)&1 == 1 && b.words[j/64]>>(j%64)&1 == 1
}

// has tells whether the user is in the set.
func (p *people) has(user uint64) bool {
	for _, b := range p.levels {
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
		b := p.levels[i]
		if b == nil {
			b = &bitmap{words: make([]uint64, firstBits/64<<(3*i))}
			p.levels[i] = b
		}
		if b.users >= b.room() {
			continue
		}
		x, y := b.places(user)
		b.words[x/64] |= 1 << (x % 64)
		b.words[y/64] |= 1 << (y % 64)
		b.users++
		return true, false
	}
	return false, true
}

func (p *people) clear() { p.levels = [3]*bitmap{} }

// headcount tells about how many different users were added, to 7 % or so: fewer
// than a few hundred nearly exactly. The zero headcount is ready. Counts merge by
// the larger register. Not safe for concurrent use.
//
// Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog", AofA 2007, with 256 registers.
type headcount struct {
	registers [headcountSize]uint8
}

const headcountSize = 256

// add counts a user.
func (h *headcount) add(user uint64) {
	r := &h.registers[user%headcountSize]
	*r = max(*r, uint8(bits.LeadingZeros64(user|0xff))+1)
}

func (h *headcount) count() float64 {
	var ranks [64]int // how many registers have each
	for _, rank := range h.registers {
		ranks[rank]++
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
	for i, rank := range o.registers {
		h.registers[i] = max(h.registers[i], rank)
	}
}

func (h *headcount) clear() { *h = headcount{} }
