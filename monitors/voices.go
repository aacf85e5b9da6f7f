package monitors

import (
	"math"
	"slices"
	"time"
)

// voices gives each user of a flag one voice in ten seconds where latency is
// compared: one who loads a slow page twenty times at once is no more than one. Of
// many users the ten seconds are fewer, as a bounded number is remembered.
type voices struct {
	heard people
	since time.Time
}

const voiceFor = 10 * time.Second

func newVoices() voices { return voices{heard: people{small: true}} }

// first tells whether it is a user's first request in a while.
func (v *voices) first(now time.Time, user uint64) bool {
	if now.Sub(v.since) >= voiceFor {
		v.heard.clear()
		v.since = now
	}
	fresh, full := v.heard.add(user)
	if full {
		v.heard.clear()
		v.since = now
		fresh, _ = v.heard.add(user)
	}
	return fresh
}

// loudest are the users who were slow most often: those who were in more than one
// in nine of all slow requests for sure, and how often at least.
//
// Misra, Gries, "Finding repeated elements", Science of Computer Programming 2
// (1982).
type loudest [8]struct {
	user uint64
	slow int64
}

// add notes a slow request.
func (l *loudest) add(user uint64) {
	free := -1
	for i := range l {
		switch {
		case l[i].user == user:
			l[i].slow++
			return
		case l[i].slow == 0:
			free = i
		}
	}
	if free >= 0 {
		l[free].user, l[free].slow = user, 1
		return
	}
	for i := range l {
		l[i].slow--
	}
}

// most is how many slow requests n users had, at least: those with the most.
func (l *loudest) most(n int) (slow int64) {
	all := make([]int64, len(l))
	for i := range l {
		all[i] = l[i].slow
	}
	slices.Sort(all)
	for _, k := range all[len(all)-min(max(n, 0), len(all)):] {
		slow += k
	}
	return slow
}

// manyAreSlow tells whether the canary is slower without those of its users who
// were slow most often, one fewer than have to be affected: the likelihood ratio
// of what is left must weigh half as much as is asked of the evidence. Where nobody
// knows who asks there is nobody to leave out.
func (g *Guard) manyAreSlow(asked float64) bool {
	q := g.judge.slowest()
	s := g.sum.latency[q].minus(g.calm.latency[q])
	apart := min(g.loudest[q].most(g.config.MinUsers-1), s.X1)
	s.N1, s.X1 = s.N1-apart, s.X1-apart
	return s.likelihoodRatio() >= asked/2
}

// likelihoodRatio is the largest logarithm of the likelihood ratio of a canary that
// is worse against one that is not.
func (s Stratum) likelihoodRatio() float64 {
	if !s.both() || float64(s.X1)*float64(s.N0) <= float64(s.X0)*float64(s.N1) {
		return 0
	}
	of := func(x, n int64, p float64) (l float64) {
		if x > 0 {
			l += float64(x) * math.Log(float64(x)/float64(n)/p)
		}
		if x < n {
			l += float64(n-x) * math.Log((1-float64(x)/float64(n))/(1-p))
		}
		return l
	}
	p := float64(s.X1+s.X0) / float64(s.N1+s.N0)
	return of(s.X1, s.N1, p) + of(s.X0, s.N0, p)
}
