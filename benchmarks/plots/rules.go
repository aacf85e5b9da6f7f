package main

import (
	"fmt"

	"github.com/seed-6adbc061/caddy-feature-flags/benchmarks/rules/contest"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

// Colours of the cells: right and soon, right but late, never, and wrong.
const (
	soon   = "#bfe5d5"
	slow   = "#f6e6b4"
	missed = "#e4e4e4"
	wrong  = "#f3bfae"
)

// rules draws the guard and the rules in common use on some of the scenarios.
func rules() *svg {
	const runs = 20
	columns := []struct{ id, first, second string }{
		{"S01", "all", "fail"},
		{"S22", "all fail,", "1 % canary"},
		{"S02", "1 % → 3 %", "errors"},
		{"S08", "never", "answers"},
		{"S15", "nothing", "wrong"},
		{"S11", "shared", "outage"},
		{"S16", "both", "fail 6 %"},
		{"S19", "a bot", "fails"},
	}
	const left, top, wide, high = 146.0, 92.0, 70.0, 30.0
	trips := 0 // of the columns, those that should
	s := newSVG(720, top+high*float64(len(contest.Entries))+44, "The guard and the rules in common use, on the same requests",
		"The guard trips on the bad canaries within seconds or minutes and never on the good ones; each of the other rules misses some or trips without cause.")
	for i, col := range columns {
		scenario := simulation.Find(col.id)
		x := left + wide*float64(i)
		if scenario.Want == monitors.Trip {
			trips++
		}
		s.words(x+wide/2, top-24, "middle", 12, ink, col.first)
		s.words(x+wide/2, top-9, "middle", 12, ink, col.second)
		row := contest.Hold(scenario, runs, 1)
		for k := range contest.Entries {
			fill, first, second := cell(row.Outcome(k), scenario.Want == monitors.Trip)
			y := top + high*float64(k)
			s.box(x+1.5, y+1.5, wide-3, high-3, fill)
			if second == "" {
				s.words(x+wide/2, y+high/2+4, "middle", 12, ink, first)
				continue
			}
			s.words(x+wide/2, y+14, "middle", 12, ink, first)
			s.words(x+wide/2, y+25, "middle", 9, ink, second)
		}
	}
	for k, e := range contest.Entries {
		s.words(left-8, top+high*(float64(k)+0.5)+4, "end", 12, ink, e.Name)
	}
	split := left + wide*float64(trips)
	s.words(left+3, top-44, "start", 11, pale, "should trip: when it did, failures until then")
	s.words(split+6, top-44, "start", 11, pale, "should not trip: share that did")
	s.line(split, top-54, split, top+high*float64(len(contest.Entries)), pale, 1, "")
	x := 24.0
	for _, k := range []key{{soon, "right, within a minute"}, {slow, "right, later or not always"}, {missed, "never"}, {wrong, "tripped without cause"}} {
		y := s.height - 18
		s.box(x+1.5, y-10, 14, 14, k.colour)
		s.words(x+21, y+1, "start", 12, ink, k.name)
		x += 21 + 6.6*float64(len(k.name)) + 16
	}
	return s
}

// cell is what a cell of the picture says, in one line or two.
func cell(o contest.Outcome, trip bool) (fill, first, second string) {
	switch {
	case o.False > 0 && !trip:
		return wrong, fmt.Sprintf("%d %%", 100*o.False/o.Runs), ""
	case o.False > 0 && o.Right == 0:
		return wrong, "never", fmt.Sprintf("%d %% before", 100*o.False/o.Runs)
	case o.False > 0:
		return wrong, contest.Seconds(o.Delay), fmt.Sprintf("%d %% before", 100*o.False/o.Runs)
	case !trip:
		return soon, "0 %", ""
	case o.Right == 0:
		return missed, "never", ""
	case o.Right < o.Runs:
		return slow, contest.Seconds(o.Delay), fmt.Sprintf("in %d %%", 100*o.Right/o.Runs)
	}
	fill = soon
	if o.Delay.Minutes() > 1 {
		fill = slow
	}
	if o.Failures == 0 {
		return fill, contest.Seconds(o.Delay), ""
	}
	return fill, contest.Seconds(o.Delay), fmt.Sprintf("%d failed", o.Failures)
}
