package simulation_test

import (
	"flag"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

var (
	full = flag.Bool("figures", false, "run every scenario 300 times, and days 60 times: an hour")
	runs = flag.Int("runs", 0, "run every scenario so often instead")
)

// defaults is the guard of a flag that says nothing about it.
func defaults(share float64) monitors.GuardConfig {
	return monitors.GuardConfig{
		FalseAlarm: 1e-4, Errors: true, TolerateRatio: 1.2, Tolerate: 0.0005, Latency: true, TolerateSlow: 0.1,
		WarmUp: time.Minute, Settle: time.Second, UserEpoch: 24 * time.Hour, MinUsers: 3, Share: share,
	}
}

// run is what one run came to.
type run struct {
	simulation.Result
	held map[string]float64 // when a reason to hold was first told after the onset
}

func play(t *testing.T, s *simulation.Scenario, seed uint64) run {
	out := run{held: map[string]float64{}}
	r := simulation.NewReplay(defaults(s.Share()))
	r.Say = func(l simulation.Line) {
		if _, known := out.held[l.Reason]; l.Verdict == monitors.Hold && !known && (l.T >= s.OnsetAt().Seconds() || l.Reason == monitors.HoldWarmUp) {
			out.held[l.Reason] = l.T
		}
	}
	for q := range s.Requests(seed) {
		if err := r.Add(q); err != nil {
			t.Error(err)
			break
		}
		if r.Tripped() {
			break
		}
	}
	out.Result = r.Finish()
	return out
}

// The guard gives the right answer to every scenario, in time.
func TestScenarios(t *testing.T) {
	for i := range simulation.Scenarios {
		s := &simulation.Scenarios[i]
		t.Run(s.ID, func(t *testing.T) {
			n := 6
			if s.Want == monitors.Trip {
				n = 61
			}
			if *full {
				n = 300
			}
			if *runs > 0 {
				n = *runs
			}
			judge(t, s, inParallel(n, func(seed uint64) run { return play(t, s, seed) }))
		})
	}
}

// G9: a day of what makes other rules cry wolf, and not one alarm.
func TestDaysWithoutCause(t *testing.T) {
	for _, id := range []string{"S15", "S19", "retries", "day-and-night"} {
		t.Run(id, func(t *testing.T) {
			s := *simulation.Find(id)
			n := 2
			if s.Length = 3 * time.Hour; *full {
				n, s.Length = 60, 24*time.Hour
			}
			s.Budget = simulation.Budget{}
			judge(t, &s, inParallel(n, func(seed uint64) run { return play(t, &s, 1000+seed) }))
		})
	}
}

func judge(t *testing.T, s *simulation.Scenario, runs []run) {
	var delays, holds []float64
	var failures []int64
	tests, verdicts := map[string]int{}, map[monitors.VerdictKind]int{}
	early := 0
	for _, r := range runs {
		verdicts[r.Verdict]++
		if r.Verdict == monitors.Trip {
			delays, failures = append(delays, r.T-s.OnsetAt().Seconds()), append(failures, r.CanaryBad)
			tests[r.Test]++
			if s.Want == monitors.Trip && r.T < s.OnsetAt().Seconds() {
				early++
			}
		}
		if at, ok := r.held[s.Hold]; ok {
			holds = append(holds, at-s.OnsetAt().Seconds())
		}
	}
	t.Logf("%s: of %d runs %v", s.Summary, len(runs), verdicts)
	if len(delays) > 0 {
		t.Logf("tripped after %.1f s and %d failures of the canary (medians), by %v", median(delays), median(failures), tests)
	}
	others := map[string]int{}
	for _, r := range runs {
		for reason := range r.held {
			if reason != s.Hold && reason != monitors.HoldWarmUp {
				others[reason]++
			}
		}
	}
	if len(others) > 0 {
		t.Logf("held for other reasons: %v", others)
	}
	if s.Hold != "" {
		t.Logf("%d runs held: %s", len(holds), s.Hold)
		if len(holds) < len(runs) {
			t.Errorf("%d of %d runs only were held because %q", len(holds), len(runs), s.Hold)
		}
	}
	if s.Want == monitors.Trip {
		switch b := s.Budget; {
		case len(delays) < len(runs) || early > 0:
			t.Errorf("%d of %d runs tripped, %d of them before the onset", len(delays), len(runs), early)
		case b.Delay > 0 && median(delays) > b.Delay.Seconds() || b.Failures > 0 && median(failures) > b.Failures:
			t.Errorf("want medians of %v and %d failures at most (0: not asked)", b.Delay, b.Failures)
		}
		return
	}
	if float64(len(delays)) > s.Budget.False*float64(len(runs)) {
		t.Errorf("%d of %d runs tripped, by %v", len(delays), len(runs), tests)
	}
	if s.Want == monitors.Hold && (verdicts[monitors.Hold] < len(runs) || median(holds) > s.Budget.Delay.Seconds()) {
		t.Errorf("%v, held after %v: want all to hold within %v", verdicts, median(holds), s.Budget.Delay)
	}
}

func median[T int64 | float64](v []T) (m T) {
	if len(v) == 0 {
		return m
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// inParallel runs f for each seed on all processors.
func inParallel[T any](n int, f func(seed uint64) T) []T {
	out := make([]T, n)
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				out[i] = f(uint64(i))
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}
