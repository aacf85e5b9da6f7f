package main

import (
	"container/heap"
	"hash/fnv"
	"iter"
	"math"
	"math/rand/v2"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/benchmarks/rules/contest"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

const (
	step  = 100 * time.Millisecond
	onset = time.Minute
)

// watch plays requests through a guard and calls look ten times a second until it
// says that this is enough, or until the requests end.
func watch(requests iter.Seq[simulation.Request], share float64, look func(at time.Duration, g *monitors.Guard, v monitors.Verdict) (more bool)) {
	clock := func(at time.Duration) time.Time { return time.Unix(0, 0).Add(at) }
	g := monitors.NewGuard(clock(0), contest.Defaults(share))
	var now time.Duration
	var pending moments
	for q := range requests {
		at := time.Duration(q.T * float64(time.Second))
		for now+step <= at {
			now += step
			for len(pending) > 0 && pending[0].at <= now {
				m := heap.Pop(&pending).(moment)
				m.ticket.FirstByte(m.outcome.FirstByte)
				m.ticket.End(clock(m.at), &m.outcome)
			}
			if !look(now, g, g.Tick(clock(now))) {
				return
			}
		}
		m := moment{ticket: g.Arrive(0, q.Canary, hash(q.User))}
		if q.Duration == nil {
			continue
		}
		took := time.Duration(*q.Duration * float64(time.Second))
		m.at, m.outcome = at+took, monitors.Outcome{Class: monitors.OK, Status: q.Status, FirstByte: took, Answered: true, Duration: took}
		if q.Outcome == simulation.Error {
			m.outcome.Class = monitors.Failed
		}
		heap.Push(&pending, m)
	}
}

// hash of a user, the same in every run.
func hash(user string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(user))
	return scatter(h.Sum64())
}

// scatter makes all bits of a number look random: the finalizer of SplitMix64.
func scatter(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (x ^ x>>31) | 1
}

// moment is when an answer begins and ends.
type moment struct {
	at      time.Duration
	ticket  monitors.Ticket
	outcome monitors.Outcome
}

type moments []moment

func (m moments) Len() int           { return len(m) }
func (m moments) Less(i, k int) bool { return m[i].at < m[k].at }
func (m moments) Swap(i, k int)      { m[i], m[k] = m[k], m[i] }
func (m *moments) Push(x any)        { *m = append(*m, x.(moment)) }
func (m *moments) Pop() any          { old := *m; x := old[len(old)-1]; *m = old[:len(old)-1]; return x }

// failing is the traffic of a scenario, who comes when, with answers of its own:
// one in a thousand fails, and of the canary's a share does from the onset on.
func failing(s *simulation.Scenario, seed uint64, share float64) iter.Seq[simulation.Request] {
	return func(yield func(simulation.Request) bool) {
		rng := rand.New(rand.NewPCG(seed, 11))
		for q := range s.Requests(seed) {
			took := 0.05 * math.Exp(0.6*rng.NormFloat64())
			q.FirstByte, q.Duration = &took, &took
			rate := 0.001
			if q.Canary && q.T >= onset.Seconds() {
				rate = share
			}
			if q.Status, q.Outcome = 200, simulation.OK; rng.Float64() < rate {
				q.Status, q.Outcome = 500, simulation.Error
			}
			if !yield(q) {
				return
			}
		}
	}
}
