package contest

import (
	"container/heap"
	"iter"
	"math"
	"runtime"
	"sort"
	"sync"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

// Trip is what a rule came to in one run.
type Trip struct {
	Tripped  bool
	At       time.Duration // since the traffic began
	Failures int           // of the canary since the onset, until then
}

const step = 100 * time.Millisecond

// Play plays requests, which come in the order of their arrival, through rules,
// and through the guard if there is one.
func Play(requests iter.Seq[simulation.Request], onset time.Duration, guard *simulation.Replay, rules []Rule) (ofGuard Trip, ofRules []Trip) {
	p := &player{rules: rules, trips: make([]Trip, len(rules)), open: len(rules)}
	watching := guard != nil
	for q := range requests {
		a := answer(&q)
		p.until(a.Arrived)
		for i, r := range p.rules {
			if l, ok := r.(listener); ok && !p.trips[i].Tripped {
				l.Arrived(a)
			}
		}
		if a.Ended != never {
			heap.Push(&p.pending, a)
		}
		if watching && guard.Add(q) == nil {
			watching = !guard.Tripped()
		}
		if p.open == 0 && !watching {
			break
		}
	}
	p.until(p.now + 2*time.Second)
	if guard != nil {
		r := guard.Finish()
		ofGuard = Trip{Tripped: r.Verdict == monitors.Trip, At: time.Duration(math.Round(r.T*10)) * step}
		ofGuard.Failures = p.failures(onset, ofGuard.At)
	}
	for i := range p.trips {
		p.trips[i].Failures = p.failures(onset, p.trips[i].At)
	}
	return ofGuard, p.trips
}

// answer is what the rules are told of a request.
func answer(q *simulation.Request) *Answer {
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	a := &Answer{Arrived: seconds(q.T), Ended: never, Canary: q.Canary, Gone: q.Outcome == simulation.ClientGone}
	if q.Outcome != simulation.Unfinished && q.Duration != nil {
		a.Ended = a.Arrived + seconds(*q.Duration)
	}
	a.Failed = q.Outcome == simulation.Error || q.Outcome == simulation.Aborted || q.Outcome == "" && q.Status >= 500
	return a
}

// player lets time pass for the rules.
type player struct {
	rules   []Rule
	trips   []Trip
	open    int // rules that have not tripped
	now     time.Duration
	pending pending
	failed  []time.Duration // when requests of the canary failed
}

func (p *player) until(at time.Duration) {
	for p.now+step <= at {
		p.now += step
		for len(p.pending) > 0 && p.pending[0].Ended <= p.now {
			a := heap.Pop(&p.pending).(*Answer)
			if a.Canary && a.Failed {
				p.failed = append(p.failed, a.Ended)
			}
			for i, r := range p.rules {
				if !p.trips[i].Tripped {
					r.Ended(a)
				}
			}
		}
		for i, r := range p.rules {
			if !p.trips[i].Tripped && r.Tick(p.now) {
				p.trips[i] = Trip{Tripped: true, At: p.now}
				p.open--
			}
		}
	}
}

// failures counts those of the canary between two times.
func (p *player) failures(from, to time.Duration) int {
	before := func(t time.Duration) int {
		return sort.Search(len(p.failed), func(i int) bool { return p.failed[i] > t })
	}
	return max(before(to)-before(from), 0)
}

// pending are answers on their way, the next to end first.
type pending []*Answer

func (e pending) Len() int           { return len(e) }
func (e pending) Less(i, k int) bool { return e[i].Ended < e[k].Ended }
func (e pending) Swap(i, k int)      { e[i], e[k] = e[k], e[i] }
func (e *pending) Push(x any)        { *e = append(*e, x.(*Answer)) }
func (e *pending) Pop() any          { old := *e; x := old[len(old)-1]; *e = old[:len(old)-1]; return x }

// Row is what all entries came to in a scenario, by entry and run.
type Row struct {
	Scenario *simulation.Scenario
	Trips    [][]Trip
}

// Hold plays a scenario, on all processors, with seeds from seed on.
func Hold(s *simulation.Scenario, runs int, seed uint64) Row {
	row := Row{Scenario: s, Trips: make([][]Trip, len(Entries))}
	for i := range row.Trips {
		row.Trips[i] = make([]Trip, runs)
	}
	InParallel(runs, func(k int) {
		var rules []Rule
		for _, e := range Entries[1:] {
			rules = append(rules, e.New(s.Share()))
		}
		guard, others := Play(s.Requests(seed+uint64(k)), s.OnsetAt(), simulation.NewReplay(Defaults(s.Share())), rules)
		row.Trips[0][k] = guard
		for i, t := range others {
			row.Trips[1+i][k] = t
		}
	})
	return row
}

// InParallel runs f for 0 to n−1 on all processors.
func InParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// Defaults is the guard of a flag that says nothing about it, for a share of the
// users in the canary.
func Defaults(share float64) monitors.GuardConfig {
	d := evaluator.DefaultGuard()
	return monitors.GuardConfig{
		FalseAlarm: d.FalseAlarm,
		Errors:     true, TolerateRatio: d.Errors.TolerateRatio, Tolerate: d.Errors.Tolerate,
		Latency: true, TolerateSlow: d.Latency.Tolerate, WarmUp: d.Latency.WarmUp,
		Settle: d.Settle, UserEpoch: d.UserEpoch, MinUsers: d.MinUsers, Share: share,
	}
}
