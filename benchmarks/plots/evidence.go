package main

import (
	"fmt"
	"math"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

const (
	tripsAt   = 4.0 // log10 of the evidence
	limitName = "limit: 1 in 10,000"
)

// powers are ticks at powers of ten.
func powers(from, to int) (t []tick) {
	names := map[int]string{-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1,000", 4: "10,000", 5: "100,000"}
	for p := from; p <= to; p++ {
		t = append(t, tick{float64(p), names[p]})
	}
	return t
}

// log10 of the evidence; far below everything without any.
func log10(g *monitors.Guard, at time.Duration) float64 {
	e := g.Status(time.Unix(0, 0).Add(at)).LogE["total"]
	if e == nil {
		return -100
	}
	return *e / math.Ln10
}

// evidence draws what the guard knows around the onset of a failure, and where
// nothing is wrong.
func evidence() *svg {
	const lead, after = 4 * time.Second, 8 * time.Second
	s := newSVG(720, 320, "Evidence against the canary: half of its requests fail from 0 s on",
		"The evidence lies below 1 while the canary is well, and grows past 10,000 within seconds once half of its requests fail.")
	c := &chart{
		svg: s, left: 96, top: 52, right: 700, bottom: 262,
		x: axis{from: -lead.Seconds(), to: after.Seconds(), name: "seconds since the canary began to fail (100 requests/s, 10 % of the users in the canary)"},
		y: axis{from: -2, to: 5, ticks: powers(-2, 5), name: "evidence"},
	}
	for t := -4; t <= 8; t += 2 {
		c.x.ticks = append(c.x.ticks, tick{float64(t), fmt.Sprint(t)})
	}
	c.axes()
	c.line(c.px(0), c.top, c.px(0), c.bottom, pale, 1, "2 3")
	c.line(c.left, c.py(tripsAt), c.right, c.py(tripsAt), ink, 1.5, "6 4")
	c.words(c.left+6, c.py(tripsAt)-6, "start", 12, ink, limitName)
	for _, r := range []struct {
		share  float64
		colour string
	}{{0.001, blue}, {0.5, orange}} {
		var points [][2]float64
		var tripped time.Duration
		var before, failed int64 // requests of the canary
		watch(failing(simulation.Find("S15"), 3, r.share), 0.1, func(at time.Duration, g *monitors.Guard, v monitors.Verdict) bool {
			points = append(points, [2]float64{(at - onset).Seconds(), log10(g, at)})
			if bad := g.Status(time.Unix(0, 0).Add(at)).Canary.Bad; at <= onset {
				before = bad
			} else {
				failed = bad - before
			}
			if v.Kind == monitors.Trip {
				tripped = at - onset
			}
			return v.Kind != monitors.Trip && at < onset+after
		})
		c.curve(points, r.colour, false)
		if tripped > 0 {
			x, y := c.px(tripped.Seconds()), c.py(points[len(points)-1][1])
			c.dot(x, y, 4.5, r.colour)
			c.words(x+10, y+4, "start", 12, r.colour, fmt.Sprintf("trips after %.1f s and %d failed requests", tripped.Seconds(), failed))
		}
	}
	s.legend(c.left+6, 44, key{orange, "half of the canary fails"}, key{blue, "nothing is wrong"})
	return s
}
