package monitors

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Whatever happens at once, every request is judged exactly once: as good, bad
// or not at all where its client has gone.
func TestGuardCountsEveryRequestOnce(t *testing.T) {
	start := time.Unix(0, 0)
	g := newGuard(start, defaultGuardConfig())
	var clock atomic.Int64
	now := func() time.Time { return start.Add(time.Duration(clock.Load())) }
	done := make(chan struct{})
	var settling sync.WaitGroup
	settling.Go(func() {
		for {
			clock.Add(int64(10 * time.Millisecond))
			g.settle(now())
			select {
			case <-done:
				return
			default:
			}
		}
	})
	var arrived, bad [2]atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(worker), 8))
			for range 5000 {
				of := cohortOf(rng.IntN(4) == 0)
				q := g.arrive(now(), of, rng.Uint64()|1)
				if q.guard == nil {
					continue // too late for its block
				}
				fails, gone := rng.IntN(50) == 0, rng.IntN(20) == 0
				if rng.IntN(10) > 0 {
					q.answer(time.Millisecond)
					q.answer(time.Millisecond) // as often as anybody likes
				}
				q.end(fails, gone)
				if !gone {
					arrived[of].Add(1)
					if fails {
						bad[of].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	close(done)
	settling.Wait()
	clock.Add(int64(time.Minute))
	g.settle(now())
	// A user who shares its bit with one who failed before counts once for both.
	near := func(what string, got int64, want *atomic.Int64, but int64) {
		if w := want.Load(); got > w || got < w-but {
			t.Errorf("%s: %d judged, %d came", what, got, w)
		}
	}
	shared := bad[canary].Load() + bad[control].Load()
	near("canary", g.judged.N1, &arrived[canary], shared/10)
	near("control", g.judged.N0, &arrived[control], shared/10)
	near("bad of the canary", g.judged.X1, &bad[canary], shared/10)
	near("bad of the control", g.judged.X0, &bad[control], shared/10)
	if g.judged.N1 == 0 || g.judged.X0 == 0 {
		t.Errorf("nothing was judged: %+v", g.judged)
	}
}

// A request that nobody ticks for does not count and does no harm; nor does one
// that ends after its block is settled.
func TestGuardLateRequests(t *testing.T) {
	start := time.Unix(0, 0)
	g := newGuard(start, defaultGuardConfig())
	if q := g.arrive(start.Add(time.Hour), canary, 1); q.guard != nil {
		t.Error("a request is counted in a ring that nobody has moved for an hour")
	}
	late := g.arrive(start, canary, 1)
	for range 2 {
		q := g.arrive(start, control, 3)
		q.answer(time.Millisecond)
		q.end(false, false)
	}
	g.settle(start.Add(warmUpLimit)) // it is not old enough
	if g.judged.N0 != 0 {
		t.Errorf("judged while a request was waiting: %+v", g.judged)
	}
	g.settle(start.Add(warmUpLimit + 2*blockLength))
	if want := (Stratum{1, 1, 2, 0}); g.judged != want {
		t.Errorf("a request without an answer: %+v, want %+v", g.judged, want)
	}
	late.answer(time.Minute)
	late.end(true, false)
	g.settle(start.Add(time.Minute))
	if want := (Stratum{1, 1, 2, 0}); g.judged != want {
		t.Errorf("a request that ended late counted again: %+v", g.judged)
	}
	var none ticket
	none.answer(time.Second)
	none.end(true, true)
}

// G12: what the request path pays.
func BenchmarkGuardRequest(b *testing.B) {
	start := time.Unix(0, 0)
	g := newGuard(start, defaultGuardConfig())
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		now := start.Add(time.Duration(i) * time.Millisecond)
		if i%100 == 0 {
			g.settle(now)
		}
		q := g.arrive(now, cohort(i%10/9), i*0x9e3779b97f4a7c15)
		q.answer(3 * time.Millisecond)
		q.end(false, false)
	}
}

// TestGuardAllocatesNothing holds the request path to that.
func TestGuardAllocatesNothing(t *testing.T) {
	start := time.Unix(0, 0)
	g := newGuard(start, defaultGuardConfig())
	if n := testing.AllocsPerRun(1000, func() {
		q := g.arrive(start, canary, 7)
		q.answer(time.Millisecond)
		q.end(false, false)
	}); n != 0 {
		t.Errorf("%v allocations a request, want none", n)
	}
}
