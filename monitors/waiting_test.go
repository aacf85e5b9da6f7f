package monitors

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return epoch.Add(d) }

func newWaiting(limit time.Duration) *waiting {
	w := new(waiting)
	w.start(epoch, limit)
	return w
}

// A request is late when its whole block is: not before the limit, and at most
// a block after it.
func TestWaitingIsLateAfterTheLimit(t *testing.T) {
	for _, limit := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 2 * time.Second, time.Minute} {
		for _, arrival := range []time.Duration{0, 1, 99 * time.Millisecond, 100 * time.Millisecond, 3*time.Second + 7} {
			w := newWaiting(limit)
			if b := w.arrive(at(arrival)); b < 0 {
				t.Fatalf("limit %s: arrival at %s was not noted", limit, arrival)
			}
			found := time.Duration(-1)
			for now := time.Duration(0); now < arrival+limit+time.Second && found < 0; now += 10 * time.Millisecond {
				if w.settle(at(now)) == 1 {
					found = now - arrival
				}
			}
			if found < limit-1 || found > limit+blockLength+10*time.Millisecond {
				t.Errorf("limit %s, arrival at %s: found late after %s", limit, arrival, found)
			}
		}
	}
}

func TestWaitingAnswersInTime(t *testing.T) {
	w := newWaiting(time.Second)
	first, second := w.arrive(at(0)), w.arrive(at(10*time.Millisecond))
	if !w.answer(first) {
		t.Error("an answer in time was taken for late")
	}
	if late := w.settle(at(2 * time.Second)); late != 1 {
		t.Errorf("%d late, want the one without an answer", late)
	}
	if w.answer(second) {
		t.Error("an answer after its block was settled is late: it was counted already")
	}
	if late := w.settle(at(time.Minute)); late != 0 {
		t.Errorf("%d late, want nobody counted twice", late)
	}
}

// Without a limit nobody watches: nothing is noted, and every answer is in time.
func TestWaitingOfNobody(t *testing.T) {
	var w waiting
	if b := w.arrive(at(0)); b != -1 || !w.answer(b) || w.settle(at(time.Hour)) != 0 {
		t.Errorf("block %d", b)
	}
	watched := newWaiting(time.Second)
	if b := watched.arrive(at(-time.Second)); b != -1 {
		t.Errorf("a request from before it began is in block %d, want none", b)
	}
}

// The ring is used again and again; everybody is counted once.
func TestWaitingGoesRound(t *testing.T) {
	w := newWaiting(300 * time.Millisecond)
	rounds := 20 * len(w.blocks)
	noted, late := 0, int64(0)
	for i := range rounds {
		now := at(time.Duration(i) * blockLength)
		for range i%3 + 1 {
			b := w.arrive(now)
			if b < 0 {
				t.Fatalf("block %d of %d: not noted though somebody ticks", i, rounds)
			}
			if i%2 == 0 {
				w.answer(b)
			} else {
				noted++
			}
		}
		late += w.settle(now)
	}
	late += w.settle(at(time.Duration(rounds+100) * blockLength))
	if late != int64(noted) {
		t.Errorf("%d late, want %d", late, noted)
	}
}

// When nobody ticks for long, arrivals are left out rather than counted wrong,
// and all is well again with the next tick.
func TestWaitingAfterAPause(t *testing.T) {
	for _, pause := range []time.Duration{time.Second, 11 * time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		w := newWaiting(time.Second)
		noted := 0
		for d := time.Duration(0); d < pause; d += max(pause/1000, blockLength) {
			if w.arrive(at(d)) >= 0 {
				noted++
			}
		}
		if noted == 0 || noted > 3*len(w.blocks) {
			t.Errorf("pause %s: %d noted", pause, noted)
		}
		if late := w.settle(at(pause + 2*time.Second)); late != int64(noted) {
			t.Errorf("pause %s: %d late, want the %d that were noted", pause, late, noted)
		}
		b := w.arrive(at(pause + 2*time.Second))
		if b < 0 {
			t.Fatalf("pause %s: not noted after the tick", pause)
		}
		if late := w.settle(at(pause + 4*time.Second)); late != 1 {
			t.Errorf("pause %s: %d late after it, want 1", pause, late)
		}
	}
}

// Everybody who was noted either answers in time or is counted late, whatever
// the interleaving.
func TestWaitingInARace(t *testing.T) {
	const workers, steps = 4, 3000
	w := newWaiting(200 * time.Millisecond)
	var clock, noted, inTime, late atomic.Int64
	var done [workers]atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	for n := range workers {
		all.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if b := w.arrive(at(time.Duration(clock.Load()))); b >= 0 {
					noted.Add(1)
					if i%4 == 0 {
						runtime.Gosched()
					}
					if i%3 > 0 && w.answer(b) {
						inTime.Add(1)
					}
				}
				done[n].Add(1)
			}
		})
	}
	for range steps {
		var before [workers]int64
		for n := range done {
			before[n] = done[n].Load()
		}
		clock.Add(int64(blockLength))
		late.Add(w.settle(at(time.Duration(clock.Load()))))
		for n := range done { // nobody is held up for half a ring
			for done[n].Load() == before[n] {
				runtime.Gosched()
			}
		}
	}
	stop.Store(true)
	all.Wait()
	late.Add(w.settle(at(time.Duration(clock.Load()) + time.Minute)))
	if noted.Load() == 0 || inTime.Load()+late.Load() != noted.Load() {
		t.Errorf("%d in time and %d late of %d", inTime.Load(), late.Load(), noted.Load())
	}
}
