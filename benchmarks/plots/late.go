package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/benchmarks/rules/contest"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

// plain is the guard's test of errors without re-seeding: nine bets on how bad
// the canary is, each placed once, at the start. What a bet loses while the
// canary is well it must win back first.
type plain struct {
	bets      [9]float64 // logarithms
	bad, seen float64    // of the control's past
}

// add judges a block: requests of the canary, failures among them, the control's.
func (p *plain) add(n1, x1, n0, x0 float64) {
	q0 := max((p.bad+1)/(p.seen+200), 1e-7)
	for k, odds := range []float64{1.1, 1.3, 2, 4, 10, 100, 0, 0, 0} {
		q1 := odds * q0 / (1 - q0 + odds*q0)
		if k >= 6 {
			q1 = max([]float64{0.05, 0.3, 0.95}[k-6], 1.25*q0/(1+0.25*q0))
		}
		m := (n1*q1 + n0*q0) / (n1 + n0)
		l := x1*math.Log(q1/m) + (n1-x1)*math.Log((1-q1)/(1-m)) + x0*math.Log(q0/m) + (n0-x0)*math.Log((1-q0)/(1-m))
		p.bets[k] += min(l, tripsAt*math.Ln10/3)
	}
	p.bad, p.seen = p.bad+x0, p.seen+n0
}

// tripped at the limit; errors are a half of the guard's evidence, and so they are
// here.
func (p *plain) tripped() bool {
	sum := 0.0
	for _, l := range p.bets {
		sum += math.Exp(l) / float64(len(p.bets))
	}
	return 0.5*sum >= math.Pow(10, tripsAt)
}

// failuresAfter is how many failures of the canary the guard and the plain test
// need when it was well for so long; a tenth of its requests fails then.
func failuresAfter(well time.Duration, seed uint64) (ofGuard, ofPlain int) {
	const share, perTick, q = 0.1, 10, 0.001
	config := contest.Defaults(share)
	config.TolerateRatio, config.Tolerate = 1, 0 // as the plain test
	config.Latency, config.Traffic = false, monitors.TrafficOff
	rng := rand.New(rand.NewPCG(seed, 13))
	now := time.Unix(0, 0)
	g := monitors.NewGuard(now, config)
	var p plain
	var n, bad [2]float64
	ok := monitors.Outcome{Class: monitors.OK, Status: 200, Answered: true, FirstByte: time.Millisecond, Duration: time.Millisecond}
	failed := ok
	failed.Class, failed.Status = monitors.Failed, 500
	failures := 0
	for tick := time.Duration(0); ofGuard == 0 || ofPlain == 0; tick += step {
		q1 := q
		if tick >= well {
			q1 = 0.1
		}
		for range perTick {
			canary, rate, of := rng.Float64() < share, q, 0
			if canary {
				rate, of = q1, 1
			}
			outcome := &ok
			if n[of]++; rng.Float64() < rate {
				outcome = &failed
				bad[of]++
				if canary && tick >= well {
					failures++
				}
			}
			if ofGuard == 0 {
				t := g.Arrive(0, canary, rng.Uint64()|1) // everybody comes once
				t.FirstByte(outcome.FirstByte)
				t.End(now, outcome)
			}
		}
		if n[0] > 0 && n[1] > 0 {
			p.add(n[1], bad[1], n[0], bad[0])
			n, bad = [2]float64{}, [2]float64{}
		}
		now = now.Add(step)
		if ofGuard == 0 && g.Tick(now).Kind == monitors.Trip {
			ofGuard = failures
		}
		if ofPlain == 0 && p.tripped() {
			ofPlain = failures
		}
	}
	return ofGuard, ofPlain
}

// late draws what it costs to have been well for long.
func late() *svg {
	const runs = 15
	times := []struct {
		well time.Duration
		name string
	}{{time.Minute, "1 min"}, {10 * time.Minute, "10 min"}, {time.Hour, "1 h"}, {6 * time.Hour, "6 h"}, {24 * time.Hour, "24 h"}}
	s := newSVG(720, 320, "A canary that was well for a day is found nearly as soon",
		"The number of failures that the guard needs hardly grows with the time that the canary was well; that of a test without re-seeding grows without end.")
	c := &chart{
		svg: s, left: 80, top: 52, right: 700, bottom: 262,
		x: axis{from: 0.7, to: 2200, log: true, name: "how long the canary was well before a tenth of its requests began to fail (10 of 100 requests/s)"},
		y: axis{from: 5, to: 500, log: true, name: "failures until the trip", ticks: []tick{{5, "5"}, {10, "10"}, {20, "20"}, {50, "50"}, {100, "100"}, {200, "200"}, {500, "500"}}},
	}
	var curves [2][][2]float64
	for _, t := range times {
		c.x.ticks = append(c.x.ticks, tick{t.well.Minutes(), t.name})
		var counts [2][]int
		counts[0], counts[1] = make([]int, runs), make([]int, runs)
		contest.InParallel(runs, func(k int) { counts[0][k], counts[1][k] = failuresAfter(t.well, uint64(k)) })
		for i := range counts {
			slices.Sort(counts[i])
			curves[i] = append(curves[i], [2]float64{t.well.Minutes(), float64(counts[i][runs/2])})
		}
	}
	c.axes()
	for i, colour := range []string{blue, orange} {
		c.curve(curves[i], colour, true)
		for _, p := range curves[i] {
			dy := 18.0 // below the guard's line, above the other
			if i == 1 {
				dy = -9
			}
			c.words(c.px(p[0]), c.py(p[1])+dy, "middle", 12, colour, fmt.Sprint(p[1]))
		}
	}
	s.legend(c.left+6, 44, key{blue, "the guard, whose bets are seeded anew"}, key{orange, "the same bets, placed once"})
	return s
}
