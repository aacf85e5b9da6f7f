package monitors

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// latencyRun has a canary serve by a factor slower than the control, after
// twenty minutes in which it was not, at 100 requests a second, a tenth of them
// the canary's. It returns the canary's requests until the trip, -1 for none in
// an hour.
func latencyRun(seed uint64, factor float64) (requests int64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	j := newJudge(judgeConfig{falseAlarm: figureAlpha, errors: true, ratio: 1.2, margin: 0.0005, latency: true})
	var past sketch
	var limits *slowLimits
	const minute, perTick = 600, 10
	for tick := range 80 * minute {
		if tick%minute == 0 {
			if l := newSlowLimits(&past, 0.1); l != nil {
				limits = l
			}
			past.fade()
		}
		var errors Stratum
		var latency [len(latencyQuantiles)]Stratum
		for range perTick {
			wait := 50e6 * math.Exp(0.6*rng.NormFloat64())
			of, bad := cohortOf(rng.IntN(10) == 0), rng.IntN(1000) == 0
			if of == canary && tick >= 20*minute {
				wait *= factor
				requests++
			}
			errors.add(of, bad)
			if of == control {
				past.add(time.Duration(wait))
			}
			if limits != nil {
				for i, limit := range limits[of] {
					latency[i].add(of, time.Duration(wait) > limit)
				}
			}
		}
		j.erred(errors)
		for i := range latency {
			j.waited(i, latency[i])
		}
		if e := j.evidence(); e.served >= j.tripAt {
			if tick < 20*minute {
				return 0
			}
			return requests
		}
	}
	return -1
}

// G11: half as slow again is found in 600 canary requests, a tenth never, and
// nothing where nothing is.
func TestLatencyFigures(t *testing.T) {
	for _, c := range []struct {
		name   string
		factor float64
		within int64 // median at most; 0: never
	}{{"1.5 times", 1.5, 600}, {"twice", 2, 220}, {"1.1 times", 1.1, 0}, {"as quick", 1, 0}} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var found []int64
			runs := length(20, 150)
			inParallel(runs, func(seed uint64) {
				n := latencyRun(seed, c.factor)
				mu.Lock()
				defer mu.Unlock()
				if n >= 0 {
					found = append(found, n)
				}
			})
			switch {
			case c.within == 0:
				t.Logf("%d of %d runs tripped in an hour", len(found), runs)
				if len(found) > 0 {
					t.Error("want none")
				}
			case len(found) < runs:
				t.Errorf("found in %d of %d runs only", len(found), runs)
			default:
				m := medianOf(found)
				t.Logf("median %d canary requests", m)
				if m > c.within || found[0] == 0 {
					t.Errorf("want at most %d and none before it began", c.within)
				}
			}
		})
	}
}

// The order in which instances' counts are merged is all the same (G10).
func TestPartitionsAreTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	whole, parts := figureTest(), figureTest()
	for range 500 {
		s := Stratum{N1: 1 + rng.Int64N(20), N0: 1 + rng.Int64N(200)}
		s.X1, s.X0 = rng.Int64N(s.N1+1)/2, rng.Int64N(s.N0+1)/50
		whole.add(s)
		left, merged := s, Stratum{}
		for _, k := range rng.Perm(4) {
			p := Stratum{left.N1 / int64(k+1), left.X1 / int64(k+1), left.N0 / int64(k+1), left.X0 / int64(k+1)}
			merged = Stratum{merged.N1 + p.N1, merged.X1 + p.X1, merged.N0 + p.N0, merged.X0 + p.X0}
			left = Stratum{left.N1 - p.N1, left.X1 - p.X1, left.N0 - p.N0, left.X0 - p.X0}
		}
		merged = Stratum{merged.N1 + left.N1, merged.X1 + left.X1, merged.N0 + left.N0, merged.X0 + left.X0}
		parts.add(merged)
		if math.Float64bits(whole.logE) != math.Float64bits(parts.logE) {
			t.Fatalf("log E %v in one, %v in parts", whole.logE, parts.logE)
		}
	}
}

// What weighs most is named, what is turned off says nothing, and traffic alone
// is no reason against how requests are served.
func TestEvidenceNamesTheTest(t *testing.T) {
	bad, good := Stratum{N1: 10, X1: 9, N0: 90}, Stratum{N1: 10, N0: 90}
	for _, want := range tests {
		j := newJudge(judgeConfig{falseAlarm: figureAlpha, errors: true, ratio: 1, latency: true, traffic: true})
		if e := j.evidence(); e.leading(true) != "" || !math.IsInf(e.whole, -1) {
			t.Errorf("before any block: %+v", e)
		}
		of := func(test string) Stratum {
			if test == want {
				return bad
			}
			return good
		}
		for range 20 {
			j.erred(of(TestErrors))
			for q := range latencyQuantiles {
				j.waited(q, of(TestLatency))
			}
			came := int64(10)
			if want == TestArrivals {
				came = 0
			}
			j.came(came, 90, 1.0/9, 0.1)
			j.engaged(of(TestEngagement))
		}
		e := j.evidence()
		if e.leading(true) != want || e.whole < j.tripAt {
			t.Errorf("%s: leading %q, log E %v", want, e.leading(true), e.whole)
		}
		served := want == TestErrors || want == TestLatency
		if got := e.served >= j.tripAt; got != served || served && e.leading(false) != want {
			t.Errorf("%s: evidence about how requests are served: %v, %q", want, e.served, e.leading(false))
		}
	}
	off := newJudge(judgeConfig{falseAlarm: figureAlpha})
	off.erred(bad)
	off.waited(0, bad)
	off.came(0, 90, 1, 0.1)
	off.engaged(bad)
	if e := off.evidence(); !math.IsInf(e.whole, -1) {
		t.Errorf("all turned off: %+v", e)
	}
}
