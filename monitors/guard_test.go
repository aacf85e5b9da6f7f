package monitors

import (
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// defaultGuard is the guard of a flag that says nothing about it.
func defaultGuard() GuardConfig {
	return GuardConfig{
		FalseAlarm: 1e-4, Errors: true, TolerateRatio: 1.2, Tolerate: 0.0005, Latency: true, TolerateSlow: 0.1,
		WarmUp: time.Minute, Settle: time.Second, UserEpoch: 24 * time.Hour, MinUsers: 3, Share: 0.25,
	}
}

var (
	good200 = &Outcome{Class: OK, Status: 200, Answered: true, FirstByte: time.Millisecond}
	bad500  = &Outcome{Class: Failed, Status: 500, Answered: true, FirstByte: time.Millisecond, RequestID: "r1", Error: "status 500"}
)

// Whatever happens at once, every request is judged exactly once: as good, bad
// or not at all where its client has gone.
func TestGuardCountsEveryRequestOnce(t *testing.T) {
	c := defaultGuard()
	c.FalseAlarm = 1e-300
	g := NewGuard(epoch, c)
	// Time goes by the requests that have come, 40,000 in less than the ten seconds
	// for which a block waits: nobody is given up who is only held up.
	var came atomic.Int64
	now := func() time.Time { return epoch.Add(time.Duration(came.Load()) * time.Second / 5000) }
	done := make(chan struct{})
	var settling sync.WaitGroup
	settling.Go(func() {
		for {
			g.Tick(now())
			g.Status(now())
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
				q := g.Arrive(0, of == canary, rng.Uint64())
				came.Add(1)
				if !q.Follows() {
					continue // taken for somebody who erred
				}
				o := good200
				switch {
				case rng.IntN(20) == 0:
					o = &Outcome{Class: ClientGone}
				case rng.IntN(50) == 0:
					o = bad500
				}
				if rng.IntN(10) > 0 {
					q.FirstByte(time.Millisecond)
					q.FirstByte(time.Millisecond) // as often as anybody likes
				}
				q.End(now(), o)
				q.End(now(), o)
				if o.Class != ClientGone {
					arrived[of].Add(1)
					if o == bad500 {
						bad[of].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	close(done)
	settling.Wait()
	for i := range 3 {
		g.Tick(now().Add(time.Duration(i+1) * time.Minute))
	}
	for of := range canary + 1 {
		if got, want := g.arrived[of], arrived[of].Load(); got != want {
			t.Errorf("cohort %d: %d judged, %d came", of, got, want)
		}
		if got, want := g.bad[of], bad[of].Load(); got != want || got == 0 {
			t.Errorf("cohort %d: %d bad ones judged, %d came", of, got, want)
		}
	}
	if n := g.sum.errors.X1 + g.sum.errors.X0; n < bad[0].Load()*9/10 {
		t.Errorf("%d errors in the test", n)
	}
}

// A request that never ends counts as bad when its block has waited for long
// enough, and not again when it ends after all.
func TestGuardLateRequests(t *testing.T) {
	g := NewGuard(epoch, defaultGuard())
	late := g.Arrive(0, true, 1)
	for i := range uint64(2) {
		q := g.Arrive(0, false, 3+i)
		q.FirstByte(time.Millisecond)
		q.End(epoch, good200)
	}
	g.Tick(at(blockLength))
	g.Tick(at(WarmUpLimit)) // it is not old enough
	if g.sum.errors.N0 != 0 {
		t.Errorf("judged while a request was waiting: %+v", g.sum.errors)
	}
	g.Tick(at(WarmUpLimit + 2*blockLength))
	if want := (Stratum{1, 1, 2, 0}); g.sum.errors != want {
		t.Errorf("a request without an answer: %+v, want %+v", g.sum.errors, want)
	}
	late.FirstByte(time.Minute)
	late.End(at(time.Minute), bad500)
	g.Tick(at(time.Minute))
	if want := (Stratum{1, 1, 2, 0}); g.sum.errors != want {
		t.Errorf("a request that ended late counted again: %+v", g.sum.errors)
	}
	var none Ticket
	none.FirstByte(time.Second)
	none.End(epoch, bad500)
}

// Requests that another definition or percentage has decided do not count, and
// are never pooled with those of this one.
func TestGuardEpochs(t *testing.T) {
	g := NewGuard(epoch, defaultGuard())
	arrive := func(number int64, isCanary bool) {
		q := g.Arrive(number, isCanary, splitMixed())
		q.FirstByte(time.Millisecond)
		q.End(epoch, good200)
	}
	arrive(0, true) // alone in its block: waits for a control
	g.Tick(at(blockLength))
	if n := g.NextEpoch(at(2*blockLength), 0.5); n != 1 {
		t.Errorf("epoch %d, want 1", n)
	}
	arrive(0, true) // decided before, and late
	arrive(1, false)
	g.Tick(at(3 * blockLength))
	g.Tick(at(time.Minute))
	if s := g.sum.errors; s != (Stratum{N1: 1, N0: 1}) || g.judge.errors.blocks != 0 {
		t.Errorf("%+v, %d blocks judged: a canary and a control of two epochs were pooled", s, g.judge.errors.blocks)
	}
	arrive(1, true)
	g.Tick(at(2 * time.Minute))
	if g.judge.errors.blocks != 1 {
		t.Errorf("%d blocks judged, want the one of the new epoch", g.judge.errors.blocks)
	}
}

var mixed = splitMix(77)

func splitMixed() uint64 { return mixed.next() }

// tripped has a guard watch a canary that fails until it trips.
func tripped(t *testing.T, c GuardConfig) (g *Guard, now time.Time) {
	t.Helper()
	g = NewGuard(epoch, c)
	for tick := range 600 {
		now = at(time.Duration(tick+1) * blockLength)
		for i := range 10 {
			o := good200
			if i == 0 && tick > 100 {
				o = bad500
			}
			q := g.Arrive(0, i == 0, splitMixed())
			q.FirstByte(o.FirstByte)
			q.End(now, o)
		}
		if v := g.Tick(now); v.Kind == Trip {
			return g, now
		}
	}
	t.Fatal("it never trips")
	return nil, now
}

// Evidence says in words what has happened, with nobody's identity.
func TestGuardEvidence(t *testing.T) {
	c := defaultGuard()
	c.Share = 0.1
	g, now := tripped(t, c)
	e := g.Evidence(now)
	if e.Test != TestErrors || e.Canary.Errors < 5 || e.Canary.Errors > 20 || e.Canary.Requests > 30 || e.Control.Errors != 0 {
		t.Errorf("%+v", e)
	}
	if e.Found < 1e4 || e.Limit < 9999 || e.Limit > 10001 || e.Guard.Users < 3 || e.Guard.Share != 10 || !e.Guard.From.After(epoch) {
		t.Errorf("%+v %+v", e, e.Guard)
	}
	if len(e.Last) == 0 || e.Last[0].ID != "r1" {
		t.Errorf("last failing requests: %+v", e.Last)
	}
	for _, want := range []string{" canary requests failed against 0 of ", " of the control (share 10 %), ", " different users, evidence 1 in ", " by chance (limit 1 in 10,000)"} {
		if !strings.Contains(e.Summary, want) {
			t.Errorf("%q lacks %q", e.Summary, want)
		}
	}
	if v := g.Tick(now.Add(time.Second)); v.Kind != "" {
		t.Errorf("a verdict after the trip: %+v", v)
	}
	s := g.Status(now)
	if s.Verdict != Trip || *s.LogE["total"] < s.TripAt || s.Canary.Requests == 0 || s.Control.P50 == 0 {
		t.Errorf("%+v", s)
	}
	// A detector that comes after others has less of the bound to spend.
	c.Trial = 10
	later, _ := tripped(t, c)
	if e := later.Evidence(now); e.Limit < 1e7 || later.bad[canary] <= g.bad[canary] {
		t.Errorf("trial 10: limit %v after %d failures, the first one after %d", e.Limit, later.bad[canary], g.bad[canary])
	}
}

// Errors of fewer users than asked for do not trip.
func TestGuardMinUsers(t *testing.T) {
	c := defaultGuard()
	c.UserEpoch = time.Second // so that one user's errors count again and again
	g := NewGuard(epoch, c)
	for tick := range 3000 {
		now := at(time.Duration(tick+1) * blockLength)
		for i := range 4 {
			user, o := uint64(tick%50*4+i+10), good200
			if i == 0 {
				user, o = uint64(1+tick%2), bad500 // two people of the canary
			}
			q := g.Arrive(0, i == 0, mix(user))
			q.FirstByte(o.FirstByte)
			q.End(now, o)
		}
		if v := g.Tick(now); v.Kind == Trip {
			t.Fatalf("tripped by two users: %s", g.Evidence(now).Summary)
		}
	}
	if w := g.weight(); w < g.judge.tripAt {
		t.Errorf("evidence %v: the test shows nothing", w)
	}
}

func mix(n uint64) uint64 { s := splitMix(n); return s.next() }

// A canary on probation is back when it has proved that it does not fail as it
// did, and not before.
func TestGuardRecovery(t *testing.T) {
	play := func(failing float64) (Verdict, int) {
		c := defaultGuard()
		c.Recovery, c.WarmUp = Recovery{Test: TestErrors, Excess: 0.2}, time.Second
		g := NewGuard(epoch, c)
		rng := rand.New(rand.NewPCG(1, 1))
		for tick := range 6000 {
			now := at(time.Duration(tick+1) * blockLength)
			for i := range 4 {
				o := good200
				if i == 0 && rng.Float64() < failing {
					o = bad500
				}
				q := g.Arrive(0, i == 0, splitMixed())
				q.FirstByte(o.FirstByte)
				q.End(now, o)
			}
			if v := g.Tick(now); v.Kind == Trip || v.Kind == Recovered {
				return v, tick
			}
		}
		return Verdict{}, -1
	}
	if v, n := play(0); v.Kind != Recovered || n > 200 {
		t.Errorf("a healthy canary: %+v after %d ticks", v, n)
	}
	if v, n := play(0.3); v.Kind != Trip {
		t.Errorf("a canary that fails as before: %+v after %d ticks", v, n)
	}
}

// G12: what the request path pays, and what it costs with the ticker's part, which
// is not on it.
func BenchmarkGuardRequest(b *testing.B) {
	for name, every := range map[string]uint64{"path": 10_000, "and-judged": 100} {
		b.Run(name, func(b *testing.B) {
			g := NewGuard(epoch, defaultGuard())
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i++
				if i%every == 0 {
					if name == "path" {
						b.StopTimer()
					}
					g.Tick(at(time.Duration(i) * time.Millisecond))
					if name == "path" {
						b.StartTimer()
					}
				}
				q := g.Arrive(0, i%10 == 0, i%5000*0x9e3779b97f4a7c15|1)
				q.FirstByte(3 * time.Millisecond)
				q.End(epoch, good200)
			}
		})
	}
}

// TestGuardAllocatesNothing holds the request path to that.
func TestGuardAllocatesNothing(t *testing.T) {
	g := NewGuard(epoch, defaultGuard())
	if n := testing.AllocsPerRun(1000, func() {
		q := g.Arrive(0, true, 7)
		q.FirstByte(time.Millisecond)
		q.End(epoch, good200)
	}); n != 0 {
		t.Errorf("%v allocations a request, want none", n)
	}
}

// A request that a hundred flags were told of, each with its guard.
func BenchmarkGuardHundred(b *testing.B) {
	guards := make([]*Guard, 100)
	for i := range guards {
		guards[i] = NewGuard(epoch, defaultGuard())
	}
	tickets := make([]Ticket, len(guards))
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		user := mix(i % 5000)
		for k, g := range guards {
			if i%100 == 0 {
				g.Tick(at(time.Duration(i) * time.Millisecond))
			}
			tickets[k] = g.Arrive(0, (i+uint64(k))%10 == 0, user)
		}
		for k := range tickets {
			tickets[k].FirstByte(3 * time.Millisecond)
		}
		for k := range tickets {
			tickets[k].End(epoch, good200)
		}
	}
}
