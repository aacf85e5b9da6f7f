package monitors

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

// The count is right to a few per cent up to as many users as there are bits.
func TestUsersCount(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, n := range []int{0, 1, 3, 50, 1000, 4096} {
		u := newUsers(4096)
		hashes := make([]uint64, n)
		for i := range hashes {
			hashes[i] = rng.Uint64()
			u.add(hashes[i])
			if u.add(hashes[i]) {
				t.Fatal("a user is new twice")
			}
		}
		if got := u.count(); math.Abs(got-float64(n)) > 0.5+0.06*float64(n) {
			t.Errorf("%d users are counted as %.1f", n, got)
		}
		for _, h := range hashes {
			if !u.has(h) {
				t.Fatal("a user is not in the set")
			}
		}
		if u.full() {
			t.Errorf("full with %d users", n)
		}
	}
}

// Sets merge as if all had been put into one, whoever is first.
func TestUsersMerge(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	a, b, whole := newUsers(512), newUsers(512), newUsers(512)
	for i := range 300 {
		h := rng.Uint64()
		whole.add(h)
		if i%2 == 0 {
			a.add(h)
		} else {
			b.add(h)
		}
	}
	a.merge(&b)
	if a.count() != whole.count() {
		t.Errorf("merged %v, in one %v", a.count(), whole.count())
	}
	for range 5000 {
		a.add(rng.Uint64())
	}
	if !a.full() || math.IsInf(a.count(), 0) || math.IsNaN(a.count()) {
		t.Errorf("5000 users in 512 bits: full %t, count %v", a.full(), a.count())
	}
	a.clear()
	if a.count() != 0 {
		t.Errorf("%v after clear", a.count())
	}
}

// A user is new to exactly one of many who add it at once.
func TestUsersTogether(t *testing.T) {
	u := newUsers(64)
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for range 8 {
		wg.Go(func() {
			for h := range uint64(64) {
				if u.add(h) {
					mu.Lock()
					fresh++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if fresh != 64 {
		t.Errorf("64 users were new %d times", fresh)
	}
}
