package monitors

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
)

var full = flag.Bool("figures", false, "run the figures of docs/guard.md at their full length: hours")

// length picks the cut that every run of the tests makes, or the whole.
func length[T any](cut, whole T) T {
	if *full {
		return whole
	}
	return cut
}

const figureAlpha = 1e-4

var tripAt = math.Log(1 / figureAlpha)

// figureTraffic are requests of the figures: ticks of 100 ms with a fixed number of requests, each
// of them the canary's with probability share, bad with q1 or q0.
type figureTraffic struct {
	rng     *rand.Rand
	perTick int
	share   float64
	q1, q0  float64
}

// binomial counts successes among n by the gaps between them: quick where they
// are rare.
func binomial(rng *rand.Rand, n int64, p float64) (k int64) {
	switch {
	case p <= 0 || n == 0:
		return 0
	case p >= 1:
		return n
	case p > 0.5:
		return n - binomial(rng, n, 1-p)
	}
	scale := 1 / math.Log1p(-p)
	for i := int64(-1); ; k++ {
		gap := math.Log(1-rng.Float64()) * scale
		if gap >= float64(n-i) {
			return k
		}
		if i += 1 + int64(gap); i >= n {
			return k
		}
	}
}

// tick adds a tick's requests to a block.
func (f *figureTraffic) tick(s *Stratum) {
	n1 := binomial(f.rng, int64(f.perTick), f.share)
	n0 := int64(f.perTick) - n1
	s.N1 += n1
	s.X1 += binomial(f.rng, n1, f.q1)
	s.N0 += n0
	s.X0 += binomial(f.rng, n0, f.q0)
}

// run feeds a test for at most so many ticks. It returns the ticks until the
// trip, -1 for none, and the canary's requests and errors until then.
func (f *figureTraffic) run(t *proportions, ticks int) (tripped int, requests, errors int64) {
	var s Stratum
	for i := range ticks {
		f.tick(&s)
		if s.N1 == 0 || s.N0 == 0 {
			continue
		}
		requests, errors = requests+s.N1, errors+s.X1
		t.add(s)
		s = Stratum{}
		if t.logE >= tripAt {
			return i + 1, requests, errors
		}
	}
	return -1, requests, errors
}

func figureTest() *proportions { return newProportions(1, 0, tripAt/3) }

// inParallel runs f for each seed on all processors.
func inParallel(n int, f func(seed uint64)) {
	var wg sync.WaitGroup
	next := make(chan uint64)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				f(seed)
			}
		})
	}
	for seed := range uint64(n) {
		next <- seed
	}
	close(next)
	wg.Wait()
}

func medianOf[T int | int64 | float64](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// G2 and G3: no false alarms over 1e8 requests a run, with shared outages and
// without.
func TestNeverWithoutCause(t *testing.T) {
	runs, ticks := length(300, 1000), length(10_000, 1_000_000)
	for _, outages := range []bool{false, true} {
		t.Run(fmt.Sprintf("outages=%t", outages), func(t *testing.T) {
			var mu sync.Mutex
			var trips, ten, hundred int
			inParallel(runs, func(seed uint64) {
				rng := rand.New(rand.NewPCG(seed, 2))
				f := &figureTraffic{rng: rng, perTick: 100, share: []float64{0.01, 0.1, 0.5}[seed%3]}
				test, most := figureTest(), math.Inf(-1)
				healthy := []float64{1e-5, 1e-3, 0.02}[seed/3%3]
				var s Stratum
				outage := 0
				for range ticks {
					if outages && outage == 0 && rng.IntN(ticks) < 13 {
						outage = 1 + rng.IntN(600)
						f.q1 = []float64{0.02, 0.1, 0.5, 1}[rng.IntN(4)]
					}
					if outage > 0 {
						outage--
					} else {
						f.q1 = healthy
					}
					f.q0 = f.q1
					if f.tick(&s); s.N1 > 0 && s.N0 > 0 {
						test.add(s)
						s = Stratum{}
						most = max(most, test.logE)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				for _, c := range []struct {
					at    float64
					count *int
				}{{tripAt, &trips}, {math.Log(10), &ten}, {math.Log(100), &hundred}} {
					if most >= c.at {
						*c.count++
					}
				}
			})
			t.Logf("%d runs of %d requests: %d trips, E ≥ 10 in %.2f %%, E ≥ 100 in %.2f %%", runs, ticks*100, trips, 100*float64(ten)/float64(runs), 100*float64(hundred)/float64(runs))
			// Of a cut the shares are known to a few standard errors only.
			atMost := func(share float64) float64 {
				if *full {
					return share * float64(runs)
				}
				return share*float64(runs) + 3*math.Sqrt(share*float64(runs))
			}
			if trips > 0 || float64(ten) > atMost(0.05) || float64(hundred) > atMost(0.007) {
				t.Errorf("want no trip, E ≥ 10 in 5 %% at most, E ≥ 100 in 0.7 %% at most")
			}
		})
	}
}

// G4 to G8: a canary that is bad is found in few requests, at once and after a
// healthy day. The bound of G8 is ln(1/α)/I canary requests, which no test with
// that chance of a false alarm beats on the average; late it is ln(1/(α·h(j)))/I,
// where h(j) is the stake that the re-seeded bet has left for its j-th seed. The
// golden values fix h(j), and with it that the other figure is above 2 late.
func TestFoundInFewRequests(t *testing.T) {
	const q0 = 0.001
	type figure struct {
		name      string
		perTick   int
		share, q1 float64
		late      bool
		errors    int64   // median at most; 0: not asked
		seconds   float64 // the same
		overBound float64 // the same
	}
	figures := []figure{
		{name: "G6", perTick: 100, share: 0.1, q1: 0.1, late: true, errors: 22, seconds: 2.2},
		{name: "G7 cold", perTick: 200, share: 0.5, q1: 1, seconds: 0.5},
		{name: "G7 late", perTick: 200, share: 0.5, q1: 1, late: true, seconds: 1.0},
	}
	for k, share := range []float64{0.01, 0.05, 0.1, 0.5} {
		figures = append(figures,
			figure{name: fmt.Sprintf("G4 share %g", share), perTick: 10, share: share, q1: 0.5, errors: []int64{5, 6, 7, 20}[k]},
			figure{name: fmt.Sprintf("G5 share %g", share), perTick: 10, share: share, q1: 0.5, late: true, errors: []int64{9, 11, 14, 42}[k]},
		)
	}
	for _, q1 := range []float64{0.002, 0.005, 0.02} { // what takes longer than a few ticks
		figures = append(figures,
			figure{name: fmt.Sprintf("G8 cold, %g", q1), perTick: 100, share: 0.1, q1: q1, overBound: 1.45},
			figure{name: fmt.Sprintf("G8 late, %g", q1), perTick: 100, share: 0.1, q1: q1, late: true, overBound: 1.7},
		)
	}
	for _, g := range figures {
		t.Run(g.name, func(t *testing.T) {
			starts := []*proportions{figureTest()}
			if g.late {
				starts = healthyDays(t, g.perTick, g.share, q0)
			}
			m := g.share*g.q1 + (1-g.share)*q0
			information := divergence(g.q1, m) + (1-g.share)/g.share*divergence(q0, m)
			var mu sync.Mutex
			var delays []int
			var errors []int64
			var over, plain []float64
			inParallel(length(200, 2000), func(seed uint64) {
				test := *starts[seed%uint64(len(starts))]
				f := &figureTraffic{rng: rand.New(rand.NewPCG(seed, 4)), perTick: g.perTick, share: g.share, q1: g.q1, q0: q0}
				tripped, requests, bad := f.run(&test, figureDay)
				if tripped < 0 {
					t.Errorf("not found in a day, seed %d", seed)
					return
				}
				bound := tripAt
				if best := slices.MaxFunc(test.bets[:test.n], func(a, b bet) int { return cmp.Compare(a.logR, b.logR) }); g.late {
					bound -= logSeed(best.seeds)
				}
				mu.Lock()
				defer mu.Unlock()
				delays, errors, over, plain = append(delays, tripped), append(errors, bad), append(over, float64(requests)/(bound/information)), append(plain, float64(requests)/(tripAt/information))
			})
			if t.Failed() {
				return
			}
			seconds := float64(medianOf(delays)) / 10
			t.Logf("median %.1f s, %d canary errors, %.2f × the bound, %.2f × ln(1/α)/I", seconds, medianOf(errors), medianOf(over), medianOf(plain))
			if g.errors > 0 && medianOf(errors) > g.errors || g.seconds > 0 && seconds > g.seconds || g.overBound > 0 && medianOf(over) > g.overBound {
				t.Errorf("want at most %d errors, %g s, %g × the bound (0: not asked)", g.errors, g.seconds, g.overBound)
			}
		})
	}
}

const figureDay = 864_000 // ticks

var days sync.Map // by traffic: tests that have seen a healthy day

// healthyDays returns tests that have seen a healthy day of such traffic.
func healthyDays(t *testing.T, perTick int, share, q float64) []*proportions {
	key := fmt.Sprint(perTick, share)
	if known, ok := days.Load(key); ok {
		return known.([]*proportions)
	}
	tests := make([]*proportions, length(2, 25))
	inParallel(len(tests), func(seed uint64) {
		tests[seed] = figureTest()
		f := &figureTraffic{rng: rand.New(rand.NewPCG(seed, 3)), perTick: perTick, share: share, q1: q, q0: q}
		if tripped, _, _ := f.run(tests[seed], figureDay); tripped >= 0 {
			t.Errorf("tripped in a healthy day, seed %d", seed)
		}
	})
	days.Store(key, tests)
	return tests
}

// divergence is Kullback and Leibler's, of two Bernoulli distributions.
func divergence(p, q float64) float64 {
	d := 0.0
	if p > 0 {
		d += p * math.Log(p/q)
	}
	if p < 1 {
		d += (1 - p) * math.Log((1-p)/(1-q))
	}
	return d
}
