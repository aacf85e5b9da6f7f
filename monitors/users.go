package monitors

import (
	"math"
	"math/bits"
	"sync/atomic"
)

// users is a set of hashed users: a bit each, so that two users may share one.
// It tells about how many there are, and who may be among them. Sets merge by
// or. Safe for concurrent use but for clear and merge.
type users struct {
	words []atomic.Uint64
}

// newUsers makes a set of so many bits, a power of two, 64 at least.
func newUsers(size int) users { return users{make([]atomic.Uint64, max(size/64, 1))} }

func (u *users) place(hash uint64) (*atomic.Uint64, uint64) {
	i := hash % uint64(len(u.words)*64)
	return &u.words[i/64], 1 << (i % 64)
}

// add puts a user in and tells whether it was new. Of a user that is in it costs
// one load.
func (u *users) add(hash uint64) bool {
	word, bit := u.place(hash)
	if word.Load()&bit != 0 {
		return false
	}
	return word.Or(bit)&bit == 0
}

// has tells whether the user, or one who shares its bit, is in the set.
func (u *users) has(hash uint64) bool {
	word, bit := u.place(hash)
	return word.Load()&bit != 0
}

// count estimates how many users are in the set, by linear counting: with z of
// m bits zero, m·ln(m/z). Whang, Vander-Zanden, Taylor, ACM TODS 15 (1990). A
// full set gives m·ln(m).
func (u *users) count() float64 {
	m := float64(len(u.words) * 64)
	ones := 0
	for i := range u.words {
		ones += bits.OnesCount64(u.words[i].Load())
	}
	return m * math.Log(m/max(m-float64(ones), 1))
}

// full tells whether so many bits are set that the set says little.
func (u *users) full() bool { return u.count() > 1.5*float64(len(u.words)*64) }

func (u *users) clear() {
	for i := range u.words {
		u.words[i].Store(0)
	}
}

func (u *users) merge(o *users) {
	for i := range u.words {
		u.words[i].Or(o.words[i].Load())
	}
}
