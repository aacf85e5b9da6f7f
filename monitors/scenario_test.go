package monitors

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// scenario is traffic of two versions of a service, of which the canary may be
// bad. What is left out is as in most: 100 requests a second of 2,000 users,
// some of whom come much more often, a tenth of them in the canary for good.
type scenario struct {
	name    string
	perSec  float64 // 0: 100
	share   float64 // 0: 0.1
	length  time.Duration
	onset   time.Duration
	respond func(rng *rand.Rand, q *simulated)
	bot     float64 // share of all requests that one user of the canary makes

	trips    bool
	delay    time.Duration // median after onset, at most
	failures int           // of the canary until the trip, median, at most; 0: not asked
}

// simulated is one request.
type simulated struct {
	at     time.Duration // since the start
	canary bool
	bot    bool
	bad    bool
	wait   time.Duration // to the first byte; negative: never
	body   time.Duration // after it

	ticket ticket
}

// event is the beginning or the end of an answer.
type event struct {
	at  time.Duration
	q   *simulated
	end bool
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, k int) bool {
	return e[i].at < e[k].at || e[i].at == e[k].at && !e[i].end && e[k].end
}
func (e events) Swap(i, k int) { e[i], e[k] = e[k], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { old := *e; x := old[len(old)-1]; *e = old[:len(old)-1]; return x }

// defaultGuardConfig is the guard of a flag that says nothing about it.
func defaultGuardConfig() guardConfig {
	return guardConfig{
		judgeConfig:  judgeConfig{falseAlarm: 1e-4, errors: true, ratio: 1.2, margin: 0.0005, latency: true},
		tolerateSlow: 0.1, warmUp: time.Minute, settle: time.Second, userEpoch: 24 * time.Hour, minUsers: 3,
	}
}

// play runs the scenario once. It returns when the flag tripped, -1 for never,
// why, and how many of the canary's requests had failed by then.
func (s *scenario) play(seed uint64) (tripped time.Duration, why string, failures int) {
	rng := rand.New(rand.NewPCG(seed, 7))
	perSec, share := s.perSec, s.share
	if perSec == 0 {
		perSec = 100
	}
	if share == 0 {
		share = 0.1
	}
	const people = 2000
	var reach [people]float64 // cumulative
	total := 0.0
	for i := range reach {
		total += math.Pow(float64(i)+3, -0.6)
		reach[i] = total
	}
	inCanary := func(user int) bool {
		h := splitMix(seed*1_000_003 + uint64(user))
		return float64(h.next()>>11)/(1<<53) < share
	}
	start := time.Unix(0, 0)
	g := newGuard(start, defaultGuardConfig())
	var pending events
	arrival := time.Duration(rng.ExpFloat64() / perSec * 1e9)
	for tick := blockLength; tick <= s.length; tick += blockLength {
		for arrival < tick || len(pending) > 0 && pending[0].at < tick {
			if len(pending) > 0 && pending[0].at < arrival {
				e := heap.Pop(&pending).(event)
				switch {
				case !e.end:
					e.q.ticket.answer(e.q.wait)
				default:
					e.q.ticket.end(e.q.bad, false)
					if e.q.bad && e.q.canary {
						failures++
					}
				}
				continue
			}
			if arrival >= tick {
				break
			}
			x := rng.Float64() * total
			lo, hi := 0, people-1
			for lo < hi {
				if mid := (lo + hi) / 2; reach[mid] < x {
					lo = mid + 1
				} else {
					hi = mid
				}
			}
			q := &simulated{at: arrival, canary: inCanary(lo), wait: time.Duration(50e6 * math.Exp(0.6*rng.NormFloat64())), bad: rng.Float64() < 0.001}
			user := splitMix(uint64(lo) + 1)
			if s.bot > 0 && rng.Float64() < s.bot {
				q.bot, q.canary, user = true, true, splitMix(1<<40)
			}
			s.respond(rng, q)
			q.ticket = g.arrive(start.Add(arrival), cohortOf(q.canary), user.next()|1)
			if q.wait >= 0 {
				heap.Push(&pending, event{at: arrival + q.wait, q: q})
				heap.Push(&pending, event{at: arrival + q.wait + q.body, q: q, end: true})
			}
			arrival += time.Duration(rng.ExpFloat64() / perSec * 1e9)
		}
		if v := g.settle(start.Add(tick)); v.trip {
			return tick, v.leading, failures
		}
	}
	return -1, "", failures
}

func scenarios() []scenario {
	const hour = time.Hour
	minute := time.Minute
	bad := func(from, to time.Duration, what func(rng *rand.Rand, q *simulated)) func(*rand.Rand, *simulated) {
		return func(rng *rand.Rand, q *simulated) {
			if q.canary && q.at >= from && q.at < to {
				what(rng, q)
			}
		}
	}
	both := func(from, to time.Duration, what func(rng *rand.Rand, q *simulated)) func(*rand.Rand, *simulated) {
		return func(rng *rand.Rand, q *simulated) {
			if q.at >= from && q.at < to {
				what(rng, q)
			}
		}
	}
	failing := func(share float64) func(rng *rand.Rand, q *simulated) {
		return func(rng *rand.Rand, q *simulated) { q.bad = rng.Float64() < share }
	}
	return []scenario{
		{name: "S01 all 5xx", onset: minute, trips: true, delay: 1500 * time.Millisecond, failures: 14, respond: bad(minute, hour, func(_ *rand.Rand, q *simulated) { q.bad, q.wait = true, 10*time.Millisecond })},
		{name: "S22 all 5xx, 1 %", share: 0.01, onset: minute, trips: true, delay: 8 * time.Second, failures: 8, respond: bad(minute, hour, func(_ *rand.Rand, q *simulated) { q.bad, q.wait = true, 10*time.Millisecond })},
		{name: "S02 1 % to 3 %", onset: minute, trips: true, delay: 400 * time.Second, respond: func(rng *rand.Rand, q *simulated) {
			if q.bad = rng.Float64() < 0.01; q.canary && q.at >= minute {
				q.bad = rng.Float64() < 0.03
			}
		}},
		{name: "S04 3 % take 2 s more", onset: minute, trips: true, delay: 80 * time.Second, respond: bad(minute, hour, func(rng *rand.Rand, q *simulated) {
			if rng.Float64() < 0.03 {
				q.wait += 2 * time.Second
			}
		})},
		{name: "S08 never answers", onset: minute, trips: true, delay: 3 * time.Second, respond: bad(minute, hour, func(_ *rand.Rand, q *simulated) { q.wait = -1 })},
		{name: "S08 proxy gives up after 30 s", onset: minute, trips: true, delay: 3 * time.Second, respond: bad(minute, hour, func(_ *rand.Rand, q *simulated) { q.wait, q.bad = 30*time.Second, true })},
		{name: "S09 30 % broken off", onset: minute, trips: true, delay: 6 * time.Second, respond: bad(minute, hour, func(rng *rand.Rand, q *simulated) { q.bad, q.body = rng.Float64() < 0.3, 20*time.Millisecond })},
		{name: "S18 comes and goes", onset: minute, trips: true, delay: 5 * time.Second, respond: bad(minute, hour, func(rng *rand.Rand, q *simulated) {
			if (q.at-minute)%minute < 10*time.Second {
				q.bad = rng.Float64() < 0.5
			}
		})},
		{name: "S11 shared outage", respond: both(10*minute, 20*minute, failing(0.4))},
		{name: "S12 both slower", respond: both(10*minute, 20*minute, func(_ *rand.Rand, q *simulated) { q.wait *= 12 })},
		{name: "G9 one fails fast, the other hangs", respond: both(10*minute, 20*minute, func(rng *rand.Rand, q *simulated) {
			switch {
			case rng.IntN(2) == 0:
			case q.canary:
				q.bad, q.wait = true, 10*time.Millisecond
			default:
				q.bad, q.wait = true, 30*time.Second
			}
		})},
		{name: "S15 nothing wrong", respond: func(*rand.Rand, *simulated) {}},
		{name: "S16 both 6 %", respond: both(0, hour, failing(0.06))},
		{name: "S17 cold start", respond: bad(0, 45*time.Second, func(_ *rand.Rand, q *simulated) { q.wait *= 8 })},
		{name: "S19 a bot", bot: 0.15, respond: func(rng *rand.Rand, q *simulated) {
			if q.bot {
				q.bad = rng.Float64() < 0.6
			}
		}},
		{name: "S20 the canary mends a bug", respond: func(rng *rand.Rand, q *simulated) {
			if !q.canary {
				q.bad = rng.Float64() < 0.05
			}
		}},
	}
}

// The guard gives the right answer to every scenario, in time.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			if s.length = time.Hour; s.trips {
				s.length = s.onset + 30*time.Minute
			}
			runs := length(8, 300)
			if s.trips {
				runs = length(31, 300)
			}
			var mu sync.Mutex
			var delays []float64
			var failures []int
			reasons := map[string]int{}
			inParallel(runs, func(seed uint64) {
				at, why, failed := s.play(seed)
				mu.Lock()
				defer mu.Unlock()
				if at >= 0 {
					delays, failures = append(delays, (at-s.onset).Seconds()), append(failures, failed)
					reasons[why]++
				}
			})
			told := fmt.Sprintf("%d of %d tripped", len(delays), runs)
			if len(delays) > 0 {
				told += fmt.Sprintf(", median after %.1f s and %d failures, by %v", medianOf(delays), medianOf(failures), reasons)
			}
			t.Log(told)
			switch {
			case !s.trips && len(delays) > 0:
				t.Error("want none")
			case s.trips && (len(delays) < runs || medianOf(delays) > s.delay.Seconds() || s.failures > 0 && medianOf(failures) > s.failures):
				t.Errorf("want all, after %v and %d failures (0: not asked) at most", s.delay, s.failures)
			}
		})
	}
}
