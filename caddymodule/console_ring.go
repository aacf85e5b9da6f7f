package caddymodule

import (
	"sync"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// liveRings keep how each flag did in the last minutes, in short spans, for the
// console: whoever opens a page sees at once what has just happened. Flags that
// nobody asks for take no memory. The zero liveRings keep nothing.
type liveRings struct {
	mu    sync.Mutex
	used  bool
	last  time.Time
	flags map[string]*liveRing
}

type liveRing struct {
	canary, control monitors.Counts // up to the last sample
	peak            *evidenceOf     // the most evidence since then
	samples         []sample        // the oldest first
	quiet           int             // samples since the last request
}

const (
	liveStep = 2 * time.Second
	liveKept = 300 // samples: ten minutes
	mostLive = 200 // flags, in about 10 MB
)

// use has samples kept.
func (l *liveRings) use() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.used {
		l.used, l.flags = true, map[string]*liveRing{}
	}
}

// turn takes a sample of all flags, when it is time.
func (l *liveRings) turn(e *engine, to listener, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := to.(*App); ok && !a.hasConsole {
		l.used, l.flags, l.last = false, nil, time.Time{} // nobody looks any more
	}
	if !l.used {
		return
	}
	step := now.Sub(l.last)
	if step >= 0 && step < liveStep-50*time.Millisecond {
		return
	}
	first := l.last.IsZero() || step < 0 || step > 10*liveStep
	l.last = now
	for _, m := range e.allMonitors() {
		canary, control := m.Cohort(true), m.Cohort(false)
		r := l.flags[m.Name()]
		if r == nil {
			if canary.Total()+control.Total() == 0 || len(l.flags) >= mostLive {
				continue
			}
			r = &liveRing{canary: canary, control: control}
			l.flags[m.Name()] = r
			continue
		}
		if !first {
			r.add(sampleOf(m, to, now, step.Seconds(), r, &canary, &control))
		}
		r.canary, r.control, r.peak = canary, control, nil
		if r.quiet >= liveKept {
			delete(l.flags, m.Name())
		}
	}
}

// sees notes evidence against a flag's canary.
func (l *liveRings) sees(flag string, e evidenceOf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.flags[flag]; r != nil && (r.peak == nil || e.logE > r.peak.logE) {
		r.peak = &e
	}
}

func (r *liveRing) add(s sample) {
	if s.Canary.Rate+s.Control.Rate > 0 {
		r.quiet = 0
	} else {
		r.quiet++
	}
	if len(r.samples) == liveKept {
		copy(r.samples, r.samples[1:])
		r.samples = r.samples[:liveKept-1]
	}
	r.samples = append(r.samples, s)
}

// since returns the samples of a flag after a time in seconds.
func (l *liveRings) since(flag string, after float64) (out []sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.flags[flag]; r != nil {
		for _, s := range r.samples {
			if s.At > after {
				out = append(out, s)
			}
		}
	}
	return out
}

// sampleOf is what a flag has come to since the last sample of its ring.
func sampleOf(m *monitors.Flag, to listener, now time.Time, step float64, r *liveRing, canary, control *monitors.Counts) sample {
	st := standingOf(to, m.Name(), now)
	s := sample{
		At: unixSeconds(now), Step: step, Canary: spanSince(r.canary, *canary, step), Control: spanSince(r.control, *control, step),
		Now: sampleState{Status: st.status, Percentage: st.percentage},
	}
	if g := m.Guard(); g != nil && !m.Disarmed() {
		status := g.Status(now)
		s.LogE, s.TripAt, s.Now.Verdict = status.LogE["total"], status.TripAt, string(status.Verdict)
	}
	if r.peak != nil {
		s.LogE, s.TripAt = &r.peak.logE, r.peak.tripAt
	}
	return s
}
