package contest

import (
	"math"
	"time"
)

// peeking is the test that people write themselves: every 10 s, whether the error
// rate of the canary since the start is above that of the control, by the z-test
// of two proportions, one-sided, at p < 0.001, from 30 requests of each on. It
// holds for one look at a number of requests fixed beforehand; each further look
// is another chance to be wrong.
type peeking struct {
	canary, control tally
	looked          time.Duration
}

const (
	peekEvery = 10 * time.Second
	peekLeast = 30
	peekZ     = 3.0902 // p = 0.001
)

func (r *peeking) Ended(a *Answer) {
	switch {
	case a.Gone:
	case a.Canary:
		r.canary.add(a.Failed)
	default:
		r.control.add(a.Failed)
	}
}

func (r *peeking) Tick(now time.Duration) bool {
	if now-r.looked < peekEvery {
		return false
	}
	r.looked = now
	if r.canary.n < peekLeast || r.control.n < peekLeast {
		return false
	}
	p := (r.canary.bad + r.control.bad) / (r.canary.n + r.control.n)
	spread := math.Sqrt(p * (1 - p) * (1/r.canary.n + 1/r.control.n))
	return r.canary.share()-r.control.share() > peekZ*spread
}
