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
	var s slowness
	const minute, perTick = 600, 10
	for tick := range 80 * minute {
		if tick%minute == 0 {
			s.reread(0.1)
		}
		var b settledBlock
		b.errors = []Stratum{{}}
		for range perTick {
			wait := 50e6 * math.Exp(0.6*rng.NormFloat64())
			of, bad := cohortOf(rng.IntN(10) == 0), rng.IntN(1000) == 0
			if of == canary && tick >= 20*minute {
				wait *= factor
				requests++
			}
			b.errors[0].add(of, bad)
			if of == control {
				s.past.add(time.Duration(wait))
			}
			if slow, known := s.slow(of, time.Duration(wait)); known {
				for i := range slow {
					b.latency[i].add(of, slow[i])
				}
			}
		}
		j.add(&b)
		if j.evidence().served >= j.tripAt {
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
	everything := judgeConfig{falseAlarm: figureAlpha, errors: true, ratio: 1, latency: true, traffic: true, arrivalsDrop: 0.1}
	bad, good := Stratum{N1: 10, X1: 9, N0: 90}, Stratum{N1: 10, N0: 90}
	quiet := settledBlock{errors: []Stratum{good}, latency: [3]Stratum{good, good, good}, arrivals: [2]int64{10, 90}, odds: 1.0 / 9, engagement: good}
	for want, spoil := range map[string]func(*settledBlock){
		TestErrors:     func(b *settledBlock) { b.errors = []Stratum{bad} },
		TestLatency:    func(b *settledBlock) { b.latency[2] = bad },
		TestArrivals:   func(b *settledBlock) { b.arrivals = [2]int64{0, 90} },
		TestEngagement: func(b *settledBlock) { b.engagement = bad },
	} {
		j := newJudge(everything)
		if e := j.evidence(); e.leading != "" || !math.IsInf(e.whole, -1) {
			t.Errorf("before any block: %+v", e)
		}
		b := quiet
		spoil(&b)
		for range 20 {
			j.add(&b)
		}
		e := j.evidence()
		if e.leading != want || e.whole < j.tripAt {
			t.Errorf("%s: leading %q, log E %v", want, e.leading, e.whole)
		}
		served := want == TestErrors || want == TestLatency
		if got := e.served >= j.tripAt; got != served {
			t.Errorf("%s: evidence about how requests are served: %v", want, e.served)
		}
	}
	off := newJudge(judgeConfig{falseAlarm: figureAlpha})
	b := settledBlock{errors: []Stratum{bad}, latency: [3]Stratum{bad, bad, bad}, arrivals: [2]int64{0, 90}, odds: 1, engagement: bad}
	off.add(&b)
	if e := off.evidence(); !math.IsInf(e.whole, -1) {
		t.Errorf("all turned off: %+v", e)
	}
}
