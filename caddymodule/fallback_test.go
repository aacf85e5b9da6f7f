package caddymodule

import (
	"strings"
	"testing"
	"time"
)

// The budget is a share of the control's requests of the last second and some more.
func TestBudget(t *testing.T) {
	at := func(s float64) time.Time { return processBegan.Add(time.Hour + time.Duration(s*1e9)) }
	taken := func(b *budget, s float64) (n int) {
		for b.take(at(s)) {
			n++
		}
		return n
	}
	f := func(name string, ratio, more float64, control map[float64]int, asked, want float64) {
		t.Helper()
		b := &budget{FallbackBudget: FallbackBudget{Ratio: ratio, PerSecond: more}}
		for s, n := range control {
			for range n {
				b.control(at(s))
			}
		}
		if got := taken(b, asked); float64(got) != want {
			t.Errorf("%s: %d, want %g", name, got, want)
		}
		if got := taken(b, asked+0.5); got != 0 {
			t.Errorf("%s: %d more half a second later", name, got)
		}
	}
	f("no control", 0.2, 10, nil, 5, 10)
	f("nothing", 0, 0, map[float64]int{4.5: 100}, 5, 0)
	f("a fifth of the last second", 0.2, 10, map[float64]int{4.5: 100}, 5, 30)
	f("of a second that is over, a tenth of that", 0.2, 10, map[float64]int{3.5: 100}, 5, 12)
	f("of ten seconds that are over", 0.2, 10, map[float64]int{3.5: 100}, 14, 10)
	f("a steady rate that has just ended", 0.2, 0, map[float64]int{0.5: 100, 1.5: 100, 2.5: 100, 3.5: 100, 4.5: 100, 5.5: 100, 6.5: 100, 7.5: 100, 8.5: 100}, 10, 18)

	b := &budget{FallbackBudget: FallbackBudget{PerSecond: 5}}
	total := 0
	for s := 0.0; s < 10; s += 0.05 {
		total += taken(b, s)
	}
	if total < 45 || total > 55 {
		t.Errorf("%d in ten seconds at 5 a second", total)
	}
	b.control(at(3)) // a request that came before the last ones were counted
	if got := taken(b, 9.99); got != 0 {
		t.Errorf("%d more after a late one", got)
	}
}

func TestFallbackProvision(t *testing.T) {
	f := func(fallback *Fallback, want string) {
		t.Helper()
		if err := fallback.provision(nil, "a"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f(&Fallback{On: []int{200}}, "on: want statuses from 400 to 599, 4xx or 5xx, got 200")
	f(&Fallback{On: []int{3}}, "got 3")
	f(&Fallback{On: []int{6}}, "got 6")
	f(&Fallback{Body: 1 << 30}, "body: want at most 16777216 bytes, or -1 for none, got 1073741824")
	f(&Fallback{Body: -2}, "got -2")
	f(&Fallback{After: -1}, "after: want a duration above 0")
	f(&Fallback{Budget: &FallbackBudget{Ratio: -1}}, "budget: want two numbers that are not negative, got -1 and 0")
}
