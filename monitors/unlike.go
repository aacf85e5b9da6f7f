package monitors

import (
	"math"
	"time"
)

// unlike measures how much the users of a service differ in how quickly they are
// served, and so how far two cohorts may lie apart by the mere choice of users:
// some sit far away, or own a thousand orders. Not safe for concurrent use.
type unlike struct {
	sample *[sampledUsers]sampledUser // of the control; nil until it has answered
	load   *[loadCounters]int32
}

// sampledUser is one of a bounded sample: the first one whose hash falls here.
// Logarithms of times are counted in 1/1024.
type sampledUser struct {
	hash            uint64
	n, sum, squares int64
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
	if u.sample == nil {
		u.sample = new([sampledUsers]sampledUser)
	}
	s := &u.sample[user%sampledUsers]
	if s.hash == 0 {
		s.hash = user
	}
	if s.hash != user {
		return
	}
	x := int64(logUnit * math.Log(float64(max(wait, sketchFrom))))
	s.n++
	s.sum += x
	s.squares += x * x
}

// served notes a request of a user of the canary.
func (u *unlike) served(user uint64) {
	if u.load == nil {
		u.load = new([loadCounters]int32)
	}
	sign := int32(1)
	if user>>8&1 == 1 {
		sign = -1
	}
	u.load[user>>16%loadCounters] += sign
}

// effective returns (Σn)²/Σn² of the canary's requests by user, for n requests in
// all: how many users there would be if all came equally often. The sum of
// squares is estimated as by Charikar, Chen, Farach-Colton, "Finding frequent
// items in data streams", TCS 312 (2004).
func (u *unlike) effective(n float64) float64 {
	if u.load == nil || n == 0 {
		return 1
	}
	squares := 0.0
	for _, x := range u.load {
		squares += float64(x) * float64(x)
	}
	return max(n*n/max(squares, n), 1)
}

// spread returns the standard deviation between users of the mean logarithm of
// their waits, without what comes from the few requests of each.
func (u *unlike) spread() float64 {
	if u.sample == nil {
		return unknownSpread
	}
	var users, sum, squares, noise float64
	for i := range u.sample {
		s := &u.sample[i]
		n := float64(s.n)
		if n < leastRequests {
			continue
		}
		mean := float64(s.sum) / n / logUnit
		own := max(float64(s.squares)/n/logUnit/logUnit-mean*mean, 0)
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
	if u.load != nil {
		for i := range u.load {
			u.load[i] /= 2
		}
	}
	if u.sample == nil {
		return
	}
	for i := range u.sample {
		s := &u.sample[i]
		if s.n < 2*leastRequests {
			*s = sampledUser{}
			continue
		}
		n, kept := s.n, s.n/2 // the mean stays
		s.n, s.sum, s.squares = kept, s.sum/n*kept+s.sum%n*kept/n, s.squares/n*kept+s.squares%n*kept/n
	}
}
