package monitors

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// dispersed plays two hours of 100 requests a second, a fifth of them the
// canary's. What fails is tried again: times more, after pauses of some ticks, by
// the same cohort, and fails again. It returns what is published at the end, and
// the most that ever was.
func dispersed(seed uint64, rate float64, times, pause int) (last, most float64) {
	rng := rand.New(rand.NewPCG(seed, 13))
	d := newDispersion()
	again := map[int]*Stratum{}
	for tick := range 2 * 36_000 {
		var s Stratum
		if r := again[tick]; r != nil {
			s = *r
			delete(again, tick)
		}
		for range 10 {
			of, bad := cohortOf(rng.IntN(5) == 0), rng.Float64() < rate
			s.add(of, bad)
			for i := range times {
				if !bad {
					break
				}
				if pause == 0 {
					s.add(of, true)
					continue
				}
				then := tick + (i+1)*pause
				if again[then] == nil {
					again[then] = new(Stratum)
				}
				again[then].add(of, true)
			}
		}
		d.add(at(time.Duration(tick)*blockLength), s)
		if tick%600 == 599 {
			last = d.publish()
			if tick >= 1200 { // known by then
				most = max(most, last)
			}
		}
	}
	return last, most
}

// Errors that come by themselves are hardly thinned out: the largest of four
// windows' figures is a little more than 1. Those that come in clumps
// are, by about their number, over whatever time they are spread.
func TestDispersion(t *testing.T) {
	for _, c := range []struct {
		name         string
		rate         float64
		times, pause int
		least, most  float64 // of what is published at last, in the mean
	}{
		{"alone", 0.02, 0, 0, 1, 1.2},
		{"alone, many", 0.3, 0, 0, 1, 1.2},
		{"alone, few", 0.001, 0, 0, 1, 1.2},
		{"five at once", 0.01, 4, 0, 4.5, 5.5},
		{"three within a second", 0.01, 2, 2, 2.5, 3.5},
		{"five within ten seconds", 0.005, 4, 15, 4, 6},
		{"five within a minute", 0.005, 4, 100, 3, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			const runs = 4
			sum := 0.0
			for seed := range uint64(runs) {
				last, most := dispersed(seed, c.rate, c.times, c.pause)
				if sum += last; most < last || last < 1 || c.times == 0 && most > 2 {
					t.Errorf("seed %d: %.2f at last, %.2f at most", seed, last, most)
				}
			}
			if got := sum / runs; got < c.least || got > c.most {
				t.Errorf("%.2f in the mean, want %v to %v", got, c.least, c.most)
			}
		})
	}
}

// What is published is of the time before, so that no block can make light of itself,
// and drawn to 1 by twenty windows without any dispersion.
func TestDispersionIsPublishedLate(t *testing.T) {
	// Clumps that fall on the cohorts in turn: longer windows do not see them.
	clump := [2]Stratum{{N1: 50, X1: 5, N0: 50}, {N1: 50, N0: 50, X0: 5}}
	const by = 2.5 * 2.5 / (5 * 0.25 * 0.95) // of each window of a tenth of a second
	for _, windows := range []int{0, 1, 5, 20, 300} {
		d := newDispersion()
		for i := range windows + 1 { // the last one has not ended
			d.add(at(time.Duration(i)*blockLength), clump[i%2])
		}
		if got := d.publish(); got != unknownDispersion {
			t.Errorf("%d windows: %v is published at once", windows, got)
		}
		want := (by*float64(windows) + 20) / (float64(windows) + 20)
		if got := d.publish(); math.Abs(got-want) > 0.001 {
			t.Errorf("%d windows: %v, want %v", windows, got, want)
		}
	}
}

// Windows in which cohorts cannot be compared say nothing.
func TestDispersionOfNothing(t *testing.T) {
	for name, s := range map[string]Stratum{
		"no errors": {N1: 10, N0: 90}, "all errors": {N1: 10, X1: 10, N0: 90, X0: 90},
		"no canary": {N0: 90, X0: 9}, "no control": {N1: 90, X1: 9}, "nothing": {},
	} {
		d := newDispersion()
		for i := range 3000 {
			d.add(at(time.Duration(i)*blockLength), s)
		}
		if d.publish(); d.publish() != 1 || d.windows[0].n != 0 {
			t.Errorf("%s: %v of %v windows", name, d.published, d.windows[0].n)
		}
	}
}

// The past fades by half in six hours.
func TestDispersionFades(t *testing.T) {
	d := newDispersion()
	feed := func(from, to time.Duration, s ...Stratum) {
		for i := range int((to - from) / blockLength) {
			d.add(at(from+time.Duration(i)*blockLength), s[i%len(s)])
		}
		d.publish()
		d.publish()
	}
	feed(0, time.Hour, Stratum{N1: 50, X1: 5, N0: 50}, Stratum{N1: 50, N0: 50, X0: 5})
	before := d.published
	feed(time.Hour, 7*time.Hour, Stratum{N1: 50, X1: 2, N0: 50, X0: 2}) // evener than chance has it
	w := &d.windows[0]
	if n := w.n; math.Abs(n-(36_000*0.5*0.9441+216_000*0.7213)) > 0.02*n {
		t.Errorf("%v windows are known", n)
	}
	if d.published >= before/2 || d.published < 1 {
		t.Errorf("%v after six hours without a clump, %v before", d.published, before)
	}
}

// In the first two minutes it is known after seconds, then once a minute.
func TestDispersionIsDue(t *testing.T) {
	d := newDispersion()
	var due []int
	for second := range 301 {
		if d.due(time.Duration(second)*time.Second + 50*time.Millisecond) {
			due = append(due, second)
		}
	}
	if want := []int{10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 180, 240, 300}; !slices.Equal(due, want) {
		t.Errorf("due after %v, want %v", due, want)
	}
}
