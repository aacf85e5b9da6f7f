package monitors

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Nobody is forgotten, and few are taken for others, as far as the set reaches.
func TestPeople(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, n := range []int{0, 1, 128, 1000, 9000} {
		var p people
		known := make([]uint64, n)
		fresh := 0
		for i := range known {
			known[i] = rng.Uint64()
			added, full := p.add(known[i])
			if full {
				t.Fatalf("full with %d users", i)
			}
			if added {
				fresh++
			}
			if again, _ := p.add(known[i]); again {
				t.Fatal("a user is new twice")
			}
		}
		if missing := n - fresh; missing > n/30+1 {
			t.Errorf("%d of %d users were taken for others", missing, n)
		}
		for _, user := range known {
			if !p.has(user) {
				t.Fatal("a user is not in the set")
			}
		}
		taken := 0
		for range 10_000 {
			if p.has(rng.Uint64()) {
				taken++
			}
		}
		if taken > 500 {
			t.Errorf("with %d users %d of 10,000 others are taken for them", n, taken)
		}
		p.clear()
		if n > 0 && p.has(known[0]) {
			t.Error("cleared, and somebody is left")
		}
	}
	var p people
	full := false
	for range 20_000 {
		_, no := p.add(rng.Uint64())
		full = full || no
	}
	if !full {
		t.Error("20,000 users fit: the set grows without bound")
	}
}

// The count is right to a fifth at worst, and nearly exact for few users; counts
// merge as if all had been added to one.
func TestHeadcount(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, n := range []int{0, 1, 3, 50, 300, 5000, 1_000_000} {
		var a, b, whole headcount
		for i := range n {
			user := rng.Uint64()
			whole.add(user)
			whole.add(user)
			if i%2 == 0 {
				a.add(user)
			} else {
				b.add(user)
			}
		}
		if got := whole.count(); math.Abs(got-float64(n)) > 0.5+0.2*float64(n) {
			t.Errorf("%d users are counted as %.1f", n, got)
		}
		a.merge(&b)
		if a.count() != whole.count() {
			t.Errorf("merged %v, in one %v", a.count(), whole.count())
		}
		if a.clear(); a.count() != 0 {
			t.Errorf("%v after clear", a.count())
		}
	}
}
