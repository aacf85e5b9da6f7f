package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/benchmarks/rules/contest"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

// delay draws how long the guard takes, by how much the canary fails.
func delay() *svg {
	const runs = 41
	rates := []float64{0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1}
	s := newSVG(720, 320, "How soon the guard trips",
		"The median time to the trip falls from minutes at an error rate of 1 % to about a second at 100 %; with a larger canary it is shorter.")
	c := &chart{
		svg: s, left: 80, top: 52, right: 700, bottom: 262,
		x: axis{from: 0.0085, to: 1.2, log: true, name: "share of the canary's requests that fail (the control's: 0.1 %; 100 requests/s in all)"},
		y: axis{from: 0.3, to: 3600, log: true, name: "median time", ticks: []tick{{1, "1 s"}, {10, "10 s"}, {60, "1 min"}, {600, "10 min"}, {3600, "1 h"}}},
	}
	for _, r := range []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1} {
		c.x.ticks = append(c.x.ticks, tick{r, fmt.Sprintf("%.0f %%", 100*r)})
	}
	c.axes()
	var keys []key
	for _, of := range []struct {
		scenario string // whose users and share it takes
		colour   string
		beside   float64 // its labels
	}{{"S22", violet, -8}, {"S15", blue, -8}, {"half", green, 16}} {
		scenario := simulation.Find(of.scenario)
		var points [][2]float64
		for _, rate := range rates {
			delays := make([]time.Duration, runs)
			contest.InParallel(runs, func(k int) {
				delays[k] = 2 * time.Hour // not within the scenario
				watch(failing(scenario, uint64(k), rate), scenario.Share(), func(at time.Duration, _ *monitors.Guard, v monitors.Verdict) bool {
					if v.Kind == monitors.Trip {
						delays[k] = at - onset
					}
					return v.Kind != monitors.Trip
				})
			})
			slices.Sort(delays)
			if m := delays[runs/2].Seconds(); m <= c.y.to {
				points = append(points, [2]float64{rate, m})
			}
		}
		c.curve(points, of.colour, true)
		for _, p := range points {
			if p[0] == 0.01 || p[0] == 0.1 || p[0] == 1 {
				c.words(c.px(p[0]), c.py(p[1])+of.beside, "middle", 11, of.colour, brief(p[1]))
			}
		}
		keys = append(keys, key{of.colour, fmt.Sprintf("canary of %.0f %%", 100*scenario.Share())})
	}
	s.legend(c.left+6, 44, keys...)
	return s
}

// brief writes seconds to two digits or so.
func brief(seconds float64) string {
	switch {
	case seconds < 10:
		return fmt.Sprintf("%.1f s", seconds)
	case seconds < 90:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 600:
		return fmt.Sprintf("%.1f min", seconds/60)
	}
	return fmt.Sprintf("%.0f min", seconds/60)
}
