package monitors

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

// guardVectors are e-values computed by another implementation.
type guardVectors struct {
	Tolerance float64
	Errors    []struct {
		Name   string
		Config struct {
			Alpha, Rho, Delta, Cap float64
		}
		Blocks    [][][4]int64
		LogE      []*float64 `json:"log_e"` // null: no evidence yet
		LogRFinal []float64  `json:"log_r_final"`
		Seedings  []int
		TripBlock *int `json:"trip_block"`
	}
	Traffic []struct {
		Name   string
		Config struct {
			Tau, Cap float64
		}
		Arrivals  [][3]float64
		LogE      []float64 `json:"log_e"`
		LogRFinal []float64 `json:"log_r_final"`
	}
	Combine []struct {
		LogE     []float64 `json:"log_e"`
		Weights  []float64
		LogTotal float64 `json:"log_total"`
	}
}

func limitOf(c float64) float64 {
	if c == 0 {
		return math.Inf(1)
	}
	return c
}

// Every e-value of the vectors, to their tolerance (G1).
func TestGuardVectors(t *testing.T) {
	var v guardVectors
	readJSON(t, "testdata/guard.json", &v)
	n := 0
	same := func(t *testing.T, what string, i int, got, want float64) {
		t.Helper()
		n++
		if diff := math.Abs(got - want); !(diff <= v.Tolerance) {
			t.Fatalf("%s %d: %v, want %v (off by %g)", what, i, got, want, diff)
		}
	}
	for _, c := range v.Errors {
		t.Run(c.Name, func(t *testing.T) {
			test := newProportions(c.Config.Rho, c.Config.Delta, limitOf(c.Config.Cap))
			tripped := -1
			for i, block := range c.Blocks {
				strata := make([]Stratum, len(block))
				for k, s := range block {
					strata[k] = Stratum{s[0], s[1], s[2], s[3]}
				}
				test.add(strata...)
				if want := c.LogE[i]; want != nil {
					same(t, "log E after block", i, test.logE, *want)
				} else if !math.IsInf(test.logE, -1) {
					t.Errorf("evidence %v before any block with both cohorts", test.logE)
				}
				if tripped < 0 && test.logE >= math.Log(1/c.Config.Alpha) {
					tripped = i
				}
			}
			for k, want := range c.LogRFinal {
				same(t, "log R of bet", k, test.bets[k].logR, want)
				if test.bets[k].seeds != c.Seedings[k] {
					t.Errorf("bet %d was seeded %d times, want %d", k, test.bets[k].seeds, c.Seedings[k])
				}
			}
			if want := c.TripBlock; want == nil && tripped >= 0 || want != nil && tripped != *want {
				t.Errorf("tripped at block %d, want %v", tripped, want)
			}
		})
	}
	for _, c := range v.Traffic {
		t.Run(c.Name, func(t *testing.T) {
			test := newArrivals(c.Config.Tau, limitOf(c.Config.Cap))
			for i, a := range c.Arrivals {
				test.add(int64(a[0]), int64(a[1]), a[2])
				same(t, "log E after block", i, test.logE, c.LogE[i])
			}
			for k, want := range c.LogRFinal {
				same(t, "log R of bet", k, test.bets[k].logR, want)
			}
		})
	}
	for i, c := range v.Combine {
		same(t, "combined", i, combine(c.LogE, c.Weights), c.LogTotal)
	}
	t.Logf("%d values compared", n)
}

// guardTraces are streams of requests by a seed, with the tick of the trip.
type guardTraces struct {
	Tolerance float64
	Traces    []struct {
		Name   string
		Seed   uint64
		Config struct {
			Alpha, Rho, Delta, Cap float64
		}
		Segments []struct {
			Ticks   int
			PerTick int `json:"per_tick"`
			P       float64
			Q1      float64
			Q0      float64
			Change  bool
		}
		Golden struct {
			Requests   int
			Canary     int64 `json:"canary_requests"`
			CanaryBad  int64 `json:"canary_bad"`
			ControlBad int64 `json:"control_bad"`
			Blocks     int
			TripTick   int     `json:"trip_tick"`
			MaxLogE    float64 `json:"max_log_e"`
			FinalLogE  float64 `json:"final_log_e"`
		}
	}
}

// Every trace of the vectors, with the same tick of the trip (G1).
func TestGuardTraces(t *testing.T) {
	var v guardTraces
	readJSON(t, "testdata/guard_traces.json", &v)
	for _, c := range v.Traces {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			test := newProportions(max(c.Config.Rho, 1), c.Config.Delta, limitOf(c.Config.Cap))
			stream := splitMix(c.Seed)
			got := c.Golden
			got.Requests, got.Canary, got.CanaryBad, got.ControlBad, got.Blocks, got.TripTick = 0, 0, 0, 0, 0, -1
			most, tick := math.Inf(-1), 0
			var block Stratum
		replay:
			for _, s := range c.Segments {
				share, q1, q0 := below(s.P), below(s.Q1), below(s.Q0)
				for range s.Ticks {
					tick++
					for range s.PerTick {
						canary, u := stream.next()>>11 < share, stream.next()>>11
						got.Requests++
						switch {
						case canary && u < q1:
							block.N1, block.X1 = block.N1+1, block.X1+1
						case canary:
							block.N1++
						case u < q0:
							block.N0, block.X0 = block.N0+1, block.X0+1
						default:
							block.N0++
						}
					}
					if block.N1 == 0 || block.N0 == 0 {
						continue
					}
					test.add(block)
					got.Canary, got.CanaryBad, got.ControlBad = got.Canary+block.N1, got.CanaryBad+block.X1, got.ControlBad+block.X0
					got.Blocks++
					block = Stratum{}
					if most = max(most, test.logE); test.logE >= math.Log(1/c.Config.Alpha) {
						got.TripTick = tick
						break replay
					}
				}
			}
			for what, d := range map[string][2]float64{"most evidence": {most, c.Golden.MaxLogE}, "last evidence": {test.logE, c.Golden.FinalLogE}} {
				if !(math.Abs(d[0]-d[1]) <= v.Tolerance) {
					t.Errorf("%s %v, want %v", what, d[0], d[1])
				}
			}
			if got != c.Golden {
				t.Errorf("got %+v, want %+v", got, c.Golden)
			}
		})
	}
}

// splitMix is the generator that the traces name.
type splitMix uint64

func (s *splitMix) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below is the 53-bit number that a draw of probability p stays below.
func below(p float64) uint64 { return uint64(p * (1 << 53)) }

func BenchmarkBlock(b *testing.B) {
	for name, t := range map[string]*proportions{"exact": newProportions(1, 0, 3.07), "tolerant": newProportions(1.2, 0.0005, 3.07)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			stream := splitMix(1)
			for b.Loop() {
				t.add(Stratum{10 + int64(stream.next()%8), 0, 90 + int64(stream.next()%16), 0})
			}
		})
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
