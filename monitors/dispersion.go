package monitors

import (
	"math"
	"time"
)

// dispersion measures by how much the canary's errors vary more than if every
// request failed by itself: retries and bots make errors come in clumps. It is
// for requests of whom nobody knows the user; dividing the logarithm of a bet's
// factor by it keeps the bound, as L^(1/D) ≤ 1 + (L−1)/D in the mean for D ≥ 1.
// Not safe for concurrent use.
type dispersion struct {
	windows   [len(dispersionWindows)]dispersionWindow
	published float64 // 1 or more; as it was when it was last published
	next      float64
}

type dispersionWindow struct {
	until                  time.Time
	sum                    Stratum
	variation, expected, n float64 // of past windows, fading
}

var dispersionWindows = [...]time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute}

const (
	dispersionHalfLife = 6 * time.Hour
	dispersionPrior    = 20 // windows without any
	unknownDispersion  = 3  // until the first is published
)

func newDispersion() *dispersion {
	return &dispersion{published: unknownDispersion, next: unknownDispersion}
}

// due tells whether it is time to publish, so many whole seconds after the guard
// began: once a minute, and six times as often in the first two, when nothing is
// known yet.
func (d *dispersion) due(since time.Duration) bool {
	every := time.Minute
	if since <= 2*time.Minute {
		every = 10 * time.Second
	}
	return since >= every && since/time.Second%(every/time.Second) == 0
}

// add counts a block of requests that ended at now.
func (d *dispersion) add(now time.Time, s Stratum) {
	for i := range d.windows {
		w := &d.windows[i]
		if w.until.IsZero() {
			w.until = now.Add(dispersionWindows[i])
		}
		if !now.Before(w.until) {
			w.end(dispersionWindows[i])
			w.until = now.Add(dispersionWindows[i])
		}
		w.sum.plus(s)
	}
}

// end takes a whole window into the past.
func (w *dispersionWindow) end(length time.Duration) {
	s := w.sum
	w.sum = Stratum{}
	n, x := float64(s.N1+s.N0), float64(s.X1+s.X0)
	if x == 0 || n == x || !s.both() {
		return
	}
	fade := math.Exp2(-float64(length) / float64(dispersionHalfLife))
	share := float64(s.N1) / n
	off := float64(s.X1) - share*x
	w.variation = w.variation*fade + off*off
	w.expected = w.expected*fade + x*share*(1-share)*(1-x/n)
	w.n = w.n*fade + 1
}

// publish returns what is to be divided by from now on: what was known when it was
// last called, so that what happens now does not count yet.
func (d *dispersion) publish() float64 {
	d.published, d.next = d.next, 1
	for i := range d.windows {
		if w := &d.windows[i]; w.expected > 0 {
			by := w.variation / w.expected
			d.next = max(d.next, (by*w.n+dispersionPrior)/(w.n+dispersionPrior))
		}
	}
	return d.published
}
