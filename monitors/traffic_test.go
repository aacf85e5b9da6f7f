package monitors

import (
	"math/rand/v2"
	"testing"
	"time"
)

// life plays a flag's traffic second by second: rate requests a second, with
// the flag on or off, ticking ten times a second.
type life struct {
	subject
	now     time.Duration
	verdict *Evidence
	tripped time.Duration
	changes int
}

func newLife(drop float64) *life { return &life{subject: watched(Thresholds{TrafficDrop: drop})} }

func (l *life) live(seconds int, rate func() int, on bool) *life {
	for range seconds {
		cell := l.off
		if on {
			cell = l.on
		}
		for range rate() {
			x := follow(l.Flag, at(l.now), cell)
			x.End(at(l.now), &Outcome{Class: OK, Answered: true})
		}
		for range 10 {
			l.now += 100 * time.Millisecond
			e, changed := l.Tick(at(l.now), on)
			if changed {
				l.changes++
			}
			if e != nil {
				if l.verdict != nil {
					panic("two verdicts")
				}
				l.verdict, l.tripped = e, l.now
			}
		}
	}
	return l
}

func steady(n int) func() int { return func() int { return n } }

// poisson gives random numbers of a mean, the same in every run.
func poisson(mean float64, seed int64) func() int {
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	return func() (n int) {
		for left := mean; ; n++ {
			if left -= random.ExpFloat64(); left < 0 {
				return n
			}
		}
	}
}

func TestTrafficDrop(t *testing.T) {
	tests := []struct {
		name    string
		drop    float64
		off, on func() int
		trips   bool
	}{
		{"falls to a fifth", 50, steady(20), steady(4), true},
		{"stops", 50, steady(20), steady(0), true},
		{"stops, from few", 50, steady(2), steady(0), true},
		{"as before", 50, steady(20), steady(20), false},
		{"rises", 50, steady(20), steady(60), false},
		{"falls less than the threshold", 50, steady(20), steady(12), false},
		{"falls by exactly the threshold", 50, poisson(20, 1), poisson(10, 2), false},
		{"falls just past it", 50, poisson(20, 1), poisson(6, 2), true},
		{"as before, by chance", 5, poisson(3, 3), poisson(3, 4), false},
		{"any drop counts", 0.1, steady(100), steady(50), true},
		{"only a whole stop counts", 99, steady(20), steady(2), false},
		{"too little to tell", 50, poisson(0.5, 5), steady(0), false},
		{"no threshold", 0, steady(20), steady(0), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLife(test.drop).live(90, test.off, false)
			turned := l.now
			l.live(600, test.on, true)
			if (l.verdict != nil) != test.trips {
				t.Fatalf("verdict %+v, want one: %t", l.verdict, test.trips)
			}
			if !test.trips {
				return
			}
			if took := l.tripped - turned; took < trafficWindow*time.Second || took > (trafficWindow+2)*time.Second {
				t.Errorf("tripped after %s, want as soon as a minute has passed", took)
			}
			if e := l.verdict; e.Test != TestTraffic || e.Limit != test.drop || e.Found <= test.drop || e.Found > 100 || e.Summary == "" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// Without a whole minute before it was turned on there is nothing to compare.
func TestTrafficWithoutABaseline(t *testing.T) {
	l := newLife(50).live(300, steady(20), true).live(300, steady(0), true)
	if l.verdict != nil {
		t.Errorf("on from the start: %+v", l.verdict)
	}
	l = newLife(50).live(30, steady(20), false).live(300, steady(0), true)
	if l.verdict != nil {
		t.Errorf("half a minute: %+v", l.verdict)
	}
}

// The baseline is the minute before the flag was turned on last, and is told
// when it changes.
func TestTrafficBaselineIsTheLastMinute(t *testing.T) {
	l := newLife(50).live(90, steady(100), false).live(61, steady(10), false)
	l.live(300, steady(8), true)
	if l.verdict != nil {
		t.Errorf("%+v, want it compared with the minute before", l.verdict)
	}
	if b := l.Baseline(); b.Requests < 590 || b.Requests > 610 || l.changes != 1 {
		t.Errorf("%+v after %d changes, want about 600 requests and one", b, l.changes)
	}
	if b := l.Status(epoch).Baseline; b == nil || b.PerSecond() < 9.8 || b.PerSecond() > 10.2 {
		t.Errorf("%+v", b)
	}
	l.live(70, steady(2), false).live(300, steady(2), true)
	if b := l.Baseline(); b.Requests < 118 || b.Requests > 122 || l.verdict != nil || l.changes != 3 {
		t.Errorf("%+v, %+v after %d changes", b, l.verdict, l.changes)
	}
}

// A baseline that was kept is compared with after a restart, once a whole
// minute has been seen.
func TestTrafficOverARestart(t *testing.T) {
	l := newLife(50)
	l.Resume(Baseline{Since: at(-time.Hour), Requests: 1200}, true)
	l.live(300, steady(2), true)
	if l.verdict == nil || l.tripped < 60*time.Second || l.tripped > 62*time.Second || l.changes != 0 {
		t.Errorf("%+v at %s, %d changes", l.verdict, l.tripped, l.changes)
	}
}

// A tripped flag is judged anew only when it was armed again.
func TestTrafficAfterATrip(t *testing.T) {
	l := newLife(50).live(90, steady(20), false).live(70, steady(0), true)
	if l.verdict == nil {
		t.Fatal("not tripped")
	}
	l.verdict = nil
	l.live(90, steady(20), false).live(300, steady(0), true)
	if l.verdict != nil {
		t.Errorf("%+v though it is tripped", l.verdict)
	}
	l.Arm(at(l.now))
	l.live(90, steady(20), false).live(70, steady(0), true)
	if l.verdict == nil {
		t.Error("armed again: no verdict")
	}
}

// Seconds that nobody ticked in share what arrived in them.
func TestTrafficOverAPause(t *testing.T) {
	var tr traffic
	tr.advance(at(0), 0)
	tr.advance(at(10*time.Second), 105)
	if sum, whole := tr.lastWindow(); sum != 105 || whole {
		t.Errorf("%d, whole %t, want all 105 of ten seconds", sum, whole)
	}
	for s := 11; s <= 70; s++ {
		tr.advance(at(time.Duration(s)*time.Second), 105+int64(s-10))
	}
	if sum, whole := tr.lastWindow(); sum != 60 || !whole {
		t.Errorf("%d, whole %t, want the last minute's 60", sum, whole)
	}
}
