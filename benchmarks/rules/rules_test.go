package main

import (
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/benchmarks/rules/contest"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors/simulation"
)

const (
	onset  = 2 * time.Minute
	length = 32 * time.Minute
)

// stream is 100 requests a second, each tenth the canary's, all well and answered
// in 50 ms, but for what change does from the onset on. k counts the requests of
// the cohort since then.
func stream(change func(k int, q *simulation.Request) (keep bool)) iter.Seq[simulation.Request] {
	return func(yield func(simulation.Request) bool) {
		var count [2]int
		for i := range int(length.Seconds() * 100) {
			took := 0.05
			q := simulation.Request{
				T: float64(i) / 100, User: "u" + strconv.Itoa(i%990), Canary: i%10 == 9,
				Status: 200, FirstByte: &took, Duration: &took, Outcome: simulation.OK,
			}
			if q.T >= onset.Seconds() {
				of := 0
				if q.Canary {
					of = 1
				}
				keep := change(count[of], &q)
				if count[of]++; !keep {
					continue
				}
			}
			if !yield(q) {
				return
			}
		}
	}
}

// fails lets n of m requests fail, the first ones, for so many requests.
func fails(n, m, until int, canaryOnly bool) func(int, *simulation.Request) bool {
	return func(k int, q *simulation.Request) bool {
		if k%m < n && k < until && (q.Canary || !canaryOnly) {
			q.Status, q.Outcome = 500, simulation.Error
		}
		return true
	}
}

// takes lets n of m requests of the canary take so many seconds; 0: for ever.
func takes(seconds float64, n, m int) func(int, *simulation.Request) bool {
	return func(k int, q *simulation.Request) bool {
		if q.Canary && k%m < n {
			if q.FirstByte, q.Duration = &seconds, &seconds; seconds == 0 {
				q.FirstByte, q.Duration, q.Outcome = nil, nil, simulation.Unfinished
			}
		}
		return true
	}
}

func silent(_ int, q *simulation.Request) bool { return !q.Canary }

const always = 1 << 40

// Each rule trips where it should, when it should, and only there.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule   string
		change func(int, *simulation.Request) bool
		from   time.Duration // of the trip, after the onset; negative: none
		to     time.Duration
	}{
		{"guard", fails(1, 2, always, true), 0, 5 * time.Second},
		{"guard", fails(1, 2, always, false), -1, 0},
		{"guard", fails(0, 1, always, false), -1, 0},

		{"10 errors", fails(1, 100, always, true), 90 * time.Second, 91 * time.Second},
		{"10 errors", fails(1, 1, 9, true), -1, 0},

		{"10 errors a minute", fails(1, 50, always, true), 45 * time.Second, 46 * time.Second},
		{"10 errors a minute", fails(1, 70, always, true), -1, 0},

		{"5 in a row", fails(5, 100, always, true), 0, time.Second},
		{"5 in a row", fails(4, 5, always, true), -1, 0},

		{"50 % of 10 s", fails(1, 1, always, true), 4 * time.Second, 6 * time.Second},
		{"50 % of 10 s", takes(0, 1, 1), 5 * time.Second, 7 * time.Second},
		{"50 % of 10 s", takes(0.9, 1, 1), -1, 0},
		{"50 % of 10 s", fails(2, 5, always, true), -1, 0},

		{"5 % of 1 min", fails(1, 10, always, true), 28 * time.Second, 32 * time.Second},
		{"5 % of 1 min", fails(1, 25, always, true), -1, 0},

		{"outliers", fails(1, 5, always, true), 9 * time.Second, 11 * time.Second},
		{"outliers", fails(1, 1, always, false), -1, 0},
		{"outliers", fails(0, 1, always, false), -1, 0},

		{"polled, 1 min", fails(1, 50, always, true), 6 * time.Minute, 6 * time.Minute},
		{"polled, 1 min", fails(1, 50, 3*600, true), -1, 0},
		{"polled, 1 min", fails(1, 200, always, true), -1, 0},
		{"polled, 1 min", takes(0.6, 1, 50), 6 * time.Minute, 6 * time.Minute},
		{"polled, 1 min", silent, 6 * time.Minute, 7 * time.Minute},

		{"polled, 5 min", fails(1, 10, always, true), 18 * time.Minute, 18 * time.Minute},
		{"polled, 5 min", fails(1, 25, always, true), -1, 0},
		{"polled, 5 min", silent, 23 * time.Minute, 23 * time.Minute},

		{"z-test", fails(1, 20, always, true), 10 * time.Second, time.Minute},
		{"z-test", fails(1, 20, always, false), -1, 0},
		{"z-test", fails(0, 1, always, false), -1, 0},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			trip := play(t, c.rule, stream(c.change))
			switch delay := trip.At - onset; {
			case trip.Tripped != (c.from >= 0):
				t.Errorf("tripped: %t, after %v; want %t", trip.Tripped, delay, c.from >= 0)
			case trip.Tripped && (delay < c.from || delay > c.to):
				t.Errorf("tripped after %v; want %v to %v", delay, c.from, c.to)
			}
		})
	}
}

func play(t *testing.T, name string, requests iter.Seq[simulation.Request]) contest.Trip {
	i := slices.IndexFunc(contest.Entries, func(e contest.Entry) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("no rule %q", name)
	}
	if contest.Entries[i].New == nil {
		trip, _ := contest.Play(requests, onset, simulation.NewReplay(contest.Defaults(0.1)), nil)
		return trip
	}
	_, trips := contest.Play(requests, onset, nil, []contest.Rule{contest.Entries[i].New(0.1)})
	return trips[0]
}

// Failures are counted from the onset to the trip.
func TestFailures(t *testing.T) {
	trip := play(t, "5 in a row", stream(fails(5, 100, always, true)))
	if trip.Failures != 5 {
		t.Errorf("%d failures, want 5", trip.Failures)
	}
}

func TestTable(t *testing.T) {
	rows := []contest.Row{contest.Hold(simulation.Find("S22"), 2, 1)}
	var b strings.Builder
	if err := contest.WriteTable(&b, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if want := "| S22: the same with a canary of 1 % | trip | "; !strings.HasPrefix(lines[2], want) {
		t.Errorf("got %s\nwant %s…", lines[2], want)
	}
	for i := range lines[:3] {
		if got, want := strings.Count(lines[i], "|"), len(contest.Entries)+3; got != want {
			t.Errorf("line %d has %d bars, want %d", i+1, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(""); err != nil || len(all) != len(simulation.Scenarios) {
		t.Errorf("got %d scenarios, %v", len(all), err)
	}
	if two, err := choose("s01, S22"); err != nil || len(two) != 2 || two[1].ID != "S22" {
		t.Errorf("got %v, %v", two, err)
	}
	if _, err := choose("S01,S00"); err == nil || err.Error() != `-scenario: no scenario "S00"` {
		t.Errorf("got %v", err)
	}
}
