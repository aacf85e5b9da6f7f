package monitors

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// inPlace is a user of the control's sample at place i, another one for each
// choice.
func inPlace(i, choice int) uint64 {
	return mix(uint64(choice)<<32|uint64(i))&^(sampledUsers-1) | uint64(i)
}

// sampleOf has users answered so many times each: their mean logarithms lie
// apart by a normal of deviation between, and their times about those by within.
func sampleOf(seed uint64, users, requests int, between, within float64) *unlike {
	rng := rand.New(rand.NewPCG(seed, 11))
	u := new(unlike)
	for i := range users {
		mean := math.Log(50e6) + between*rng.NormFloat64()
		for range requests {
			u.answered(inPlace(i, 1), time.Duration(math.Exp(mean+within*rng.NormFloat64())))
		}
	}
	return u
}

// The spread is that between users: what one user's times vary by is not in it.
func TestSpread(t *testing.T) {
	for _, c := range []struct {
		name            string
		requests        int
		between, within float64
		off             float64 // at most, in the mean of 40 samples
	}{
		{"nobody differs", 20, 0, 0.6, 0.06},
		{"little noise", 5, 0.3, 0.01, 0.02},
		{"as few requests as count", 5, 0.4, 1.2, 0.04}, // 0.67 with the noise
		{"much noise", 20, 0.2, 1, 0.03},                // 0.30 with the noise
		{"far apart", 10, 1.2, 0.6, 0.06},
	} {
		t.Run(c.name, func(t *testing.T) {
			sum := 0.0
			for seed := range uint64(40) {
				sum += sampleOf(seed, sampledUsers, c.requests, c.between, c.within).spread()
			}
			if got := sum / 40; math.Abs(got-c.between) > c.off {
				t.Errorf("σ %.3f, want %v within %v", got, c.between, c.off)
			}
		})
	}
}

func TestSpreadIsUnknownAtFirst(t *testing.T) {
	for _, c := range []struct {
		name            string
		users, requests int
		known           bool
	}{
		{"nobody", 0, 0, false},
		{"nine users", 9, 50, false},
		{"ten users", 10, 50, true},
		{"four requests each", 64, 4, false},
		{"five requests each", 64, 5, true},
	} {
		s := sampleOf(1, c.users, c.requests, 0.1, 0.01).spread()
		if known := s != unknownSpread; known != c.known || known && (s < 0.05 || s > 0.2) {
			t.Errorf("%s: σ %v", c.name, s)
		}
	}
}

// A place is its first user's: others do not mix in.
func TestSpreadOfASample(t *testing.T) {
	u := sampleOf(3, 20, 10, 0, 0)
	for i := range 20 {
		u.answered(inPlace(i, 2), time.Hour)
	}
	if s := u.spread(); s > 1e-3 {
		t.Errorf("σ %v among users who are all alike", s)
	}
	// What is quicker than can be measured is all the same.
	u = new(unlike)
	for i := range 20 {
		for range 5 {
			u.answered(inPlace(i, 1), time.Duration(i)*sketchFrom/20)
		}
	}
	if s := u.spread(); s != 0 {
		t.Errorf("σ %v among times too short to be told apart", s)
	}
}

// inCounter is a user of the canary whose requests fall into counter i.
func inCounter(i int) uint64 { return mix(uint64(i))&^((loadCounters-1)<<16) | uint64(i)<<16 }

// comes has a user of the canary come so many times.
func comes(u *unlike, user uint64, times int) {
	for range times {
		u.served(user)
	}
}

func TestEffective(t *testing.T) {
	for _, c := range []struct {
		name   string
		heavy  int // requests of one user
		users  int // of so many others
		each   int // so many each
		within float64
	}{
		{"one user", 500, 0, 0, 0},
		{"ten alike", 0, 10, 30, 0.25},
		{"a hundred alike", 0, 100, 20, 0.06},
		{"5,000 who came once", 0, 5000, 1, 0.06},
		{"one makes half of it", 1000, 1000, 1, 0.02},
		{"one makes a tenth", 500, 900, 5, 0.06},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := float64(c.heavy + c.users*c.each)
			want := n * n / float64(c.heavy*c.heavy+c.users*c.each*c.each)
			sum := 0.0
			for seed := range uint64(60) {
				user, u := splitMix(seed), new(unlike)
				comes(u, user.next(), c.heavy)
				for range c.users {
					comes(u, user.next(), c.each)
				}
				sum += u.effective(n)
			}
			if got := sum / 60; math.Abs(got/want-1) > c.within {
				t.Errorf("%.2f users in the mean, want %.2f within %v", got, want, c.within)
			}
		})
	}
	u := new(unlike)
	if n := u.effective(0); n != 1 {
		t.Errorf("%v effective users before anybody came, want 1", n)
	}
	comes(u, inCounter(1), 3)
	for _, n := range []float64{0, 1, 3} {
		if got := u.effective(n); got != 1 {
			t.Errorf("%v requests of one user: %v effective users", n, got)
		}
	}
	// Two who cancel out: there cannot be more users than requests.
	u = new(unlike)
	comes(u, inCounter(1)|1<<8, 3)
	comes(u, inCounter(1)&^(1<<8), 3)
	if got := u.effective(6); got != 6 {
		t.Errorf("%v effective users, want 6", got)
	}
}

// The canary may be slower by what five standard deviations of its users' mean
// make, and by least always.
func TestTolerance(t *testing.T) {
	for _, c := range []struct {
		name    string
		factor  float64 // between the two halves of the control's users; 0: nobody is known
		users   int     // of the canary
		least   float64
		atLeast bool // least is what counts
	}{
		{"nobody known", 0, 100, 0.1, false},
		{"nobody known, one user", 0, 1, 0.1, false},
		{"as one", 1, 1, 0.1, true},
		{"unlike, four users", 2, 4, 0.1, false},
		{"unlike, a hundred", 2, 100, 0.1, false},
		{"unlike, a hundred, half is tolerated", 2, 100, 0.5, true},
		{"a little unlike, a hundred", 1.1, 100, 0.1, true},
	} {
		u, sigma := new(unlike), unknownSpread
		if c.factor > 0 {
			const known = 10
			sigma = math.Log(c.factor) / 2 * math.Sqrt(known/(known-1.0))
			for i := range known {
				for range leastRequests {
					u.answered(inPlace(i, 1), time.Duration(50e6*math.Pow(c.factor, float64(i%2))))
				}
			}
		}
		for i := range c.users {
			comes(u, inCounter(i), 7)
		}
		want := math.Exp(5*sigma/math.Sqrt(float64(c.users))) - 1
		if c.atLeast != (want < c.least) {
			t.Fatalf("%s: the case does not show what it says: %v", c.name, want)
		}
		want = max(want, c.least)
		if got := u.tolerance(c.least, float64(7*c.users)); math.Abs(got-want) > 0.01*want {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
}

// Renewing frees the places of those who came seldom, and leaves what is known
// of the others as it was.
func TestRenew(t *testing.T) {
	wait := func(i int) time.Duration { return time.Duration(50e6 * math.Exp(0.3*float64(i%2))) }
	for _, c := range []struct {
		name     string
		few, lot int   // requests of half of the users each
		kept     int64 // of those with a lot; 0: their places are free again
	}{
		{"too few to stay", 8, 9, 0},
		{"even", 10, 20, 10},
		{"many", 1000, 4000, 2000},
		{"odd", 10, 11, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := new(unlike)
			for i := range 20 {
				n := c.few
				if i/2%2 == 1 {
					n = c.lot
				}
				for range n {
					u.answered(inPlace(i, 1), wait(i))
				}
			}
			before := u.spread()
			u.renew()
			s := &u.sample[3]
			if n := s.n; n != c.kept || (s.hash == 0) != (c.kept == 0) {
				t.Errorf("%d requests of user %x are left, want %d", n, s.hash, c.kept)
			}
			if after := u.spread(); c.kept > 0 && math.Abs(after-before) > 0.02*before {
				t.Errorf("σ %v before, %v after", before, after)
			} else if c.kept == 0 && after != unknownSpread {
				t.Errorf("σ %v of nobody", after)
			}
			u.answered(inPlace(3, 2), time.Second)
			if n := s.n; c.kept == 0 && (n != 1 || s.hash != inPlace(3, 2)) || c.kept > 0 && n != c.kept {
				t.Errorf("somebody else comes: %d requests of user %x", n, s.hash)
			}
		})
	}
	u := new(unlike)
	u.renew() // nobody has come
	for i := range 50 {
		comes(u, inCounter(i), 10)
	}
	if u.renew(); math.Abs(u.effective(250)-50) > 0.01 {
		t.Errorf("%v effective users, want 50 still", u.effective(250))
	}
}
