package monitors

import (
	"math"
	"sync/atomic"
	"time"
)

// unlike measures how much the users of a service differ in how quickly they are
// served, and so how far two cohorts may lie apart by the mere choice of users:
// some sit far away, or own a thousand orders. Safe for concurrent use but for
// tolerance and renew.
type unlike struct {
	sample atomic.Pointer[[sampledUsers]sampledUser] // of the control; nil until it has answered
	load   atomic.Pointer[[loadCounters]atomic.Int32]
}

// sampledUser is one of a bounded sample: the first one whose hash falls here.
// Logarithms of times are counted in 1/1024.
type sampledUser struct {
	hash            atomic.Uint64
	n, sum, squares atomic.Int64
}

const (
	sampledUsers   = 32
	leastRequests  = 5   // of a sampled user
	leastSampled   = 10  // users, before their spread is known
	unknownSpread  = 0.5 // of the logarithm, until then
	logUnit        = 1024
	loadCounters   = 128 // the effective number of users is known to √(2/128), 12 %
	spreadsAllowed = 5   // standard deviations
)

// answered notes how long a user of the control has waited.
func (u *unlike) answered(user uint64, wait time.Duration) {
	sample := u.sample.Load()
	if sample == nil {
		u.sample.CompareAndSwap(nil, new([sampledUsers]sampledUser))
		sample = u.sample.Load()
	}
	s := &sample[user%sampledUsers]
	if h := s.hash.Load(); h != user && (h != 0 || !s.hash.CompareAndSwap(0, user)) {
		return
	}
	x := int64(logUnit * math.Log(float64(max(wait, sketchFrom))))
	s.n.Add(1)
	s.sum.Add(x)
	s.squares.Add(x * x)
}

// served notes a request of a user of the canary.
func (u *unlike) served(user uint64) {
	load := u.load.Load()
	if load == nil {
		u.load.CompareAndSwap(nil, new([loadCounters]atomic.Int32))
		load = u.load.Load()
	}
	sign := int32(1)
	if user>>8&1 == 1 {
		sign = -1
	}
	load[user>>16%loadCounters].Add(sign)
}

// effective returns (Σn)²/Σn² of the canary's requests by user, for n requests in
// all: how many users there would be if all came equally often. The sum of
// squares is estimated as by Charikar, Chen, Farach-Colton, "Finding frequent
// items in data streams", TCS 312 (2004).
func (u *unlike) effective(n float64) float64 {
	load := u.load.Load()
	if load == nil || n == 0 {
		return 1
	}
	squares := 0.0
	for i := range load {
		x := float64(load[i].Load())
		squares += x * x
	}
	return max(n*n/max(squares, n), 1)
}

// spread returns the standard deviation between users of the mean logarithm of
// their waits, without what comes from the few requests of each.
func (u *unlike) spread() float64 {
	sample := u.sample.Load()
	if sample == nil {
		return unknownSpread
	}
	var users, sum, squares, noise float64
	for i := range sample {
		s := &sample[i]
		n := float64(s.n.Load())
		if n < leastRequests {
			continue
		}
		mean := float64(s.sum.Load()) / n / logUnit
		own := max(float64(s.squares.Load())/n/logUnit/logUnit-mean*mean, 0)
		users++
		sum += mean
		squares += mean * mean
		noise += own / (n - 1)
	}
	if users < leastSampled {
		return unknownSpread
	}
	mean := sum / users
	between := (squares/users - mean*mean) * users / (users - 1)
	return math.Sqrt(max(between-noise/users, 0))
}

// tolerance returns by how much more the canary may be slow than least, a
// fraction, for its n requests.
func (u *unlike) tolerance(least, n float64) float64 {
	return max(least, math.Exp(spreadsAllowed*u.spread()/math.Sqrt(u.effective(n)))-1)
}

// renew gives the places of users who came too seldom to others, and forgets
// half of what the rest did.
func (u *unlike) renew() {
	if load := u.load.Load(); load != nil {
		for i := range load {
			load[i].Store(load[i].Load() / 2)
		}
	}
	sample := u.sample.Load()
	if sample == nil {
		return
	}
	for i := range sample {
		s := &sample[i]
		n, sum, squares := s.n.Load(), s.sum.Load(), s.squares.Load()
		if n < 2*leastRequests {
			n, sum, squares = 0, 0, 0
			s.hash.Store(0)
		} else { // the mean stays
			kept := n / 2
			sum, squares = sum/n*kept+sum%n*kept/n, squares/n*kept+squares%n*kept/n
			n = kept
		}
		s.n.Store(n)
		s.sum.Store(sum)
		s.squares.Store(squares)
	}
}
