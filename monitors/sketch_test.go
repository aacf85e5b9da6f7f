package monitors

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Quantiles are right to 2 % for any traffic, also after merging and fading.
func TestSketchQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, draw := range map[string]func() time.Duration{
		"lognormal": func() time.Duration { return time.Duration(50e6 * math.Exp(0.6*rng.NormFloat64())) },
		"two peaks": func() time.Duration {
			if rng.IntN(10) == 0 {
				return time.Duration(2e9 * (1 + rng.Float64()))
			}
			return time.Duration(3e6 * (1 + rng.Float64()))
		},
		"one value": func() time.Duration { return 7 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			var a, b sketch
			all := make([]time.Duration, 20_001)
			for i := range all {
				all[i] = draw()
				if i%3 == 0 {
					a.add(all[i])
				} else {
					b.add(all[i])
				}
			}
			a.merge(&b)
			slices.Sort(all)
			if n := a.count(); n != uint64(len(all)) {
				t.Fatalf("%d counted, want %d", n, len(all))
			}
			for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 1} {
				want := all[int(q*float64(len(all)-1))]
				if got := a.quantile(q); math.Abs(float64(got-want)) > 1.001*sketchError*float64(want) {
					t.Errorf("quantile %g: %v, want %v to 2 %%", q, got, want)
				}
			}
			before := a.quantile(0.5)
			a.fade()
			if n := a.count(); n < uint64(len(all))/2 || n > uint64(len(all))/2+sketchBuckets {
				t.Errorf("%d left after fading of %d", n, len(all))
			}
			if got := a.quantile(0.5); math.Abs(float64(got-before)) > 0.05*float64(before) {
				t.Errorf("the median moved from %v to %v by fading", before, got)
			}
		})
	}
}

func TestSketchEnds(t *testing.T) {
	var s sketch
	if got := s.quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing: %v", got)
	}
	for d, want := range map[time.Duration]time.Duration{-time.Second: sketchFrom, 0: sketchFrom, time.Nanosecond: sketchFrom} {
		var s sketch
		s.add(d)
		if got := s.quantile(1); got != want {
			t.Errorf("%v comes back as %v, want %v", d, got, want)
		}
	}
	s.add(1000 * time.Hour)
	if got := s.quantile(1); got < 400*time.Second {
		t.Errorf("a thousand hours come back as %v, want the last bucket", got)
	}
}
