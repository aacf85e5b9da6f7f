package main

import (
	"fmt"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

// outage draws an outage of what both versions need: S11.
func outage() *svg {
	const length, bin = 30 * time.Minute, 20 * time.Second
	scenario := simulation.Find("S11")
	var errors [2][][2]float64 // of the control and of the canary
	var known [][2]float64
	held := time.Duration(0)
	var n, bad [2]float64
	next := bin
	counted := func(yield func(simulation.Request) bool) {
		for q := range scenario.Requests(5) {
			at := time.Duration(q.T * float64(time.Second))
			for at >= next {
				for of := range n {
					errors[of] = append(errors[of], [2]float64{(next - bin/2).Minutes(), 100 * bad[of] / max(n[of], 1)})
				}
				n, bad = [2]float64{}, [2]float64{}
				next += bin
			}
			of := 0
			if q.Canary {
				of = 1
			}
			if n[of]++; q.Outcome == simulation.Error {
				bad[of]++
			}
			if !yield(q) {
				return
			}
		}
	}
	watch(counted, scenario.Share(), func(at time.Duration, g *monitors.Guard, v monitors.Verdict) bool {
		if at%time.Second == 0 {
			known = append(known, [2]float64{at.Minutes(), log10(g, at)})
		}
		if v.Kind == monitors.Hold && v.Reason == monitors.HoldControl && held == 0 {
			held = at - 10*time.Minute
		}
		return at < length && v.Kind != monitors.Trip
	})

	s := newSVG(720, 400, "An outage of what both versions need is not the canary's fault",
		"Both cohorts fail 40 % for ten minutes. The evidence against the canary stays low all the time, and the guard does not trip.")
	x := axis{from: 0, to: length.Minutes(), name: "minutes"}
	for m := 0; m <= 30; m += 5 {
		x.ticks = append(x.ticks, tick{float64(m), fmt.Sprint(m)})
	}
	upper := &chart{
		svg: s, left: 96, top: 58, right: 700, bottom: 190, x: axis{from: x.from, to: x.to},
		y: axis{to: 60, name: "errors", ticks: []tick{{0, "0 %"}, {20, "20 %"}, {40, "40 %"}, {60, "60 %"}}},
	}
	lower := &chart{svg: s, left: 96, top: 214, right: 700, bottom: 346, x: x, y: axis{from: -5, to: 5, name: "evidence"}}
	lower.y.ticks = []tick{{-4, "0.0001"}, {-2, "0.01"}, {0, "1"}, {2, "100"}, {4, "10,000"}}
	for _, c := range []*chart{upper, lower} {
		c.box(c.px(10), c.top, c.px(20)-c.px(10), c.bottom-c.top, "#f3ead8")
		c.axes()
	}
	upper.words(upper.px(15), upper.top+14, "middle", 12, pale, "shared outage")
	upper.curve(errors[0], blue, false)
	upper.curve(errors[1], orange, false)
	lower.line(lower.left, lower.py(tripsAt), lower.right, lower.py(tripsAt), ink, 1.5, "6 4")
	lower.words(lower.left+6, lower.py(tripsAt)-6, "start", 12, ink, limitName)
	lower.words(lower.px(15), lower.py(2)+2, "middle", 12, pale, fmt.Sprintf("holds after %.0f s:", held.Seconds()))
	lower.words(lower.px(15), lower.py(2)+18, "middle", 12, pale, fmt.Sprintf("“%s”", monitors.HoldControl))
	lower.curve(known, green, false)
	s.legend(upper.left+6, 46, key{blue, "control"}, key{orange, "canary"}, key{green, "evidence against the canary"})
	return s
}
