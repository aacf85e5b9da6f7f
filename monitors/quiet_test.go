package monitors

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// small is a service of a few requests a second, played in steps of a tenth of a
// second.
type small struct {
	t      *testing.T
	g      *Guard
	rng    *rand.Rand
	now    time.Duration
	rate   float64 // requests a second
	users  uint64
	canary func(user uint64) bool
	// answers says how a request is served: its time to the first byte, and whether
	// it fails. A negative time: the client leaves after so long, without an answer.
	answers  func(isCanary bool) (wait time.Duration, bad bool)
	underway map[time.Duration][]func()
}

func newSmall(t *testing.T, seed uint64, c GuardConfig) *small {
	s := &small{t: t, g: NewGuard(epoch, c), rng: rand.New(rand.NewPCG(seed, 7)), rate: 10, users: 5000, underway: map[time.Duration][]func(){}}
	s.canary = func(user uint64) bool { return float64(user) < c.Share*float64(s.users) }
	s.answers = func(bool) (time.Duration, bool) { return s.around(50*time.Millisecond, 0.3), s.rng.Float64() < 0.001 }
	return s
}

// around is lognormal.
func (s *small) around(median time.Duration, sigma float64) time.Duration {
	return time.Duration(float64(median) * math.Exp(sigma*s.rng.NormFloat64()))
}

func (s *small) request(user uint64, isCanary bool, wait time.Duration, bad bool) {
	ticket := s.g.Arrive(s.g.Epoch(), isCanary, mix(user))
	length := max(wait, -wait)
	at := (s.now + length).Truncate(step) + step
	s.underway[at] = append(s.underway[at], func() {
		out := &Outcome{Class: OK, Status: 200, Answered: true, FirstByte: wait, Duration: length}
		switch {
		case wait < 0:
			out = &Outcome{Class: ClientGone, Duration: length}
		case bad:
			out.Class, out.Status = Failed, 500
		}
		if wait >= 0 {
			ticket.FirstByte(wait)
		}
		ticket.End(epoch.Add(at), out)
	})
}

const step = 100 * time.Millisecond

// until goes on until the guard says trip or recovered, or the time has come.
func (s *small) until(end time.Duration, also ...func()) Verdict {
	for s.now < end {
		for x := s.rng.ExpFloat64(); x < s.rate*step.Seconds(); x += s.rng.ExpFloat64() {
			user := s.rng.Uint64N(s.users)
			wait, bad := s.answers(s.canary(user))
			s.request(user, s.canary(user), wait, bad)
		}
		for _, f := range also {
			f()
		}
		s.now += step
		for _, f := range s.underway[s.now] {
			f()
		}
		delete(s.underway, s.now)
		if v := s.g.Tick(epoch.Add(s.now)); v.Kind == Trip || v.Kind == Recovered {
			return v
		}
	}
	return Verdict{}
}

func (s *small) every(d time.Duration, f func()) func() {
	return func() {
		if s.now%d == 0 {
			f()
		}
	}
}

// One bot that fails all day in the canary of a small service counts once, not
// every ten seconds.
func TestBotWhereFewCome(t *testing.T) {
	c := defaultGuard()
	c.Share = 0.1
	for seed := range uint64(8) {
		s := newSmall(t, seed, c)
		if v := s.until(2*time.Hour, s.every(time.Second, func() { s.request(1e15, true, 20*time.Millisecond, true) })); v.Kind != "" {
			t.Errorf("seed %d: %v after %v: %s", seed, v, s.now, s.g.Evidence(epoch.Add(s.now)).Summary)
		}
	}
}

// A canary of five users, of whom all fail, is found all the same.
func TestFiveUsersFail(t *testing.T) {
	c := defaultGuard()
	c.Share = 0.1
	for seed := range uint64(8) {
		s := newSmall(t, seed, c)
		s.users, s.rate = 50, 5
		if v := s.until(20 * time.Minute); v.Kind != "" {
			t.Fatalf("seed %d: %v after %v, nothing is wrong", seed, v, s.now)
		}
		onset := s.now
		s.answers = func(isCanary bool) (time.Duration, bool) { return 20 * time.Millisecond, isCanary }
		if v := s.until(onset + time.Hour); v.Kind != Trip || v.Test != TestErrors || s.now-onset > 90*time.Second {
			t.Errorf("seed %d: %v after %v", seed, v, s.now-onset)
		}
	}
}

// What was slow half a day ago is not what is usual: a canary that hangs is found
// as quickly as ever.
func TestHangLongAfterSlowness(t *testing.T) {
	c := defaultGuard()
	c.Share = 0.1
	s := newSmall(t, 4, c)
	usual := s.answers
	if v := s.until(30 * time.Minute); v.Kind != "" {
		t.Fatal(v, s.now)
	}
	s.answers = func(bool) (time.Duration, bool) {
		return time.Duration(float64(time.Second) * math.Exp(4*s.rng.Float64())), false // 1 to 55 s
	}
	if v := s.until(60 * time.Minute); v.Kind != "" {
		t.Fatal(v, s.now)
	}
	s.answers = usual
	if v := s.until(90 * time.Minute); v.Kind != "" {
		t.Fatal(v, s.now)
	}
	if limit := s.g.Limit(epoch.Add(s.now)); limit > 2*time.Second {
		t.Errorf("half an hour after it requests are waited for %v", limit)
	}
	s.answers = func(isCanary bool) (time.Duration, bool) {
		if isCanary {
			return -10 * time.Second, false
		}
		return usual(isCanary)
	}
	if v := s.until(s.now + time.Hour); v.Kind != Trip || s.now > 91*time.Minute {
		t.Errorf("%v at %v, want a trip within a minute of 1h30m", v, s.now)
	}
}

// A service that takes two seconds for everybody is not failing, however few come,
// and one that has become slow for good is not either: a canary that fails is found.
func TestSlowServices(t *testing.T) {
	for _, test := range []struct {
		name         string
		rate, share  float64
		before, then time.Duration
		within       time.Duration
	}{
		{"one request in two seconds", 0.5, 0.5, 2 * time.Second, 2 * time.Second, 4 * time.Minute},
		{"two a second", 2, 0.5, 2 * time.Second, 2 * time.Second, 90 * time.Second},
		{"slow for good", 50, 0.1, 50 * time.Millisecond, 5 * time.Second, 30 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := defaultGuard()
			c.Share = test.share
			s := newSmall(t, 1, c)
			s.rate = test.rate
			median := test.before
			s.answers = func(bool) (time.Duration, bool) { return s.around(median, 0.3), false }
			if v := s.until(20 * time.Minute); v.Kind != "" {
				t.Fatal(v, s.now)
			}
			median = test.then
			if v := s.until(40 * time.Minute); v.Kind != "" {
				t.Fatal(v, s.now)
			}
			before := s.g.Status(epoch.Add(s.now))
			if v := s.until(60 * time.Minute); v.Kind != "" {
				t.Fatal(v, s.now)
			}
			if bad := s.g.Status(epoch.Add(s.now)).Control.Bad - before.Control.Bad; bad > 0 {
				t.Errorf("%d requests of the control are bad", bad)
			}
			s.answers = func(isCanary bool) (time.Duration, bool) { return s.around(median, 0.3), isCanary }
			if v := s.until(3 * time.Hour); v.Kind != Trip || s.now-time.Hour > test.within {
				t.Errorf("%v %v after the onset, want a trip within %v", v, s.now-time.Hour, test.within)
			}
		})
	}
}

// A canary on probation has to prove what it was tripped for: one whose p50 alone
// was worse, and is, does not recover.
func TestProbationByItsQuantile(t *testing.T) {
	slower := func(s *small) {
		s.answers = func(isCanary bool) (time.Duration, bool) {
			// Six in ten come from a cache in 10 ms, the others take 0.1 to 1 s; the
			// canary's cache is half as fast.
			wait := s.around(10*time.Millisecond, 0.2)
			if s.rng.Float64() < 0.4 {
				wait = time.Duration(float64(100*time.Millisecond) * math.Exp(2.3*s.rng.Float64()))
			} else if isCanary {
				wait *= 2
			}
			return wait, false
		}
	}
	for seed := range uint64(6) {
		c := defaultGuard()
		c.Share = 0.1
		s := newSmall(t, seed, c)
		s.users = 1e6
		slower(s)
		v := s.until(time.Hour)
		e := s.g.Evidence(epoch.Add(s.now))
		if v.Test != TestLatency || e.Guard.Quantile != 0.5 {
			t.Fatalf("seed %d: %v, %+v", seed, v, e.Guard)
		}
		ofCanary, ofControl := e.Rates()
		c.Share, c.Trial = 0.02, 1
		c.Recovery = Recovery{Test: e.Test, Quantile: e.Guard.Quantile, Excess: (ofCanary - ofControl) / 2}
		s = newSmall(t, seed, c)
		s.users = 1e6
		slower(s)
		if v := s.until(3 * time.Hour); v.Kind == Recovered {
			t.Errorf("seed %d: recovered after %v, and nothing is mended", seed, s.now)
		}
		s = newSmall(t, seed, c)
		s.users = 1e6
		if v := s.until(3 * time.Hour); v.Kind != Recovered {
			t.Errorf("seed %d: mended, and %v", seed, v)
		}
	}
}

// The proof may take its time, but nothing else holds a canary of few users up.
func TestProbationWhereFewCome(t *testing.T) {
	c := defaultGuard()
	c.Share = 0.05
	c.Recovery = Recovery{Test: TestErrors, Excess: 0.45}
	s := newSmall(t, 3, c)
	s.rate = 0.2
	if v := s.until(24 * time.Hour); v.Kind != Recovered || s.now > time.Hour {
		t.Errorf("%v after %v, proof %v", v, s.now, s.g.recovery.proof.logE)
	}
}

// When one heavy user of the canary goes home, its traffic has not dropped.
func TestHeavyUserLeaves(t *testing.T) {
	for seed := range uint64(10) {
		c := defaultGuard()
		c.Share, c.Traffic = 0.1, TrafficTrip
		s := newSmall(t, seed, c)
		s.rate = 50
		heavy := func() {
			if s.now < 5*time.Minute {
				s.request(1e15, true, 20*time.Millisecond, false)
			}
		}
		if v := s.until(10*time.Minute, heavy); v.Kind != "" || s.g.watch.wanted > 0 {
			t.Errorf("seed %d: %v after %v, dropped: %v", seed, v, s.now, s.g.watch.wanted)
		}
	}
}

// After a restart nothing is known of how unlike users are: until it is, they may
// be very much so.
func TestToleranceAfterRestart(t *testing.T) {
	for seed := range uint64(10) {
		c := defaultGuard()
		c.Share, c.WarmUp = 0.1, 5*time.Second
		s := newSmall(t, seed, c)
		s.users, s.rate = 100, 100
		speeds := make([]float64, s.users)
		for i := range speeds {
			speeds[i] = math.Exp(0.8 * s.rng.NormFloat64())
		}
		serve := func(s *small) func() {
			s.rate = 0 // by its own hand
			return func() {
				for range 10 {
					user := s.rng.Uint64N(100)
					s.request(user, s.canary(user), time.Duration(speeds[user]*float64(s.around(50*time.Millisecond, 0.2))), false)
				}
			}
		}
		if v := s.until(10*time.Minute, serve(s)); v.Kind != "" {
			t.Fatalf("seed %d: %v after %v", seed, v, s.now)
		}
		text, err := json.Marshal(s.g.Save())
		if err != nil {
			t.Fatal(err)
		}
		if s.g, err = RestoreGuard(epoch.Add(s.now), c, text); err != nil {
			t.Fatal(err)
		}
		if v := s.until(30*time.Minute, serve(s)); v.Kind != "" {
			t.Errorf("seed %d: %v %v after the restart: %s", seed, v, s.now-10*time.Minute, s.g.Evidence(epoch.Add(s.now)).Summary)
		}
	}
}

// An answer that breaks off two seconds after it began is found, although its block
// was judged before.
func TestBreaksOffLater(t *testing.T) {
	for seed := range uint64(6) {
		c := defaultGuard()
		c.Share = 0.1
		s := newSmall(t, seed, c)
		s.rate = 0 // by its own hand
		broken := false
		download := func() {
			for range s.rng.IntN(5) {
				user := s.rng.Uint64N(s.users)
				isCanary := s.canary(user)
				ticket := s.g.Arrive(s.g.Epoch(), isCanary, mix(user))
				ticket.FirstByte(20 * time.Millisecond)
				out := &Outcome{Class: OK, Status: 200, Answered: true, FirstByte: 20 * time.Millisecond}
				at := s.now + time.Duration(s.rng.IntN(30))*step + step
				if s.rng.Float64() < 0.002 || broken && isCanary && s.rng.Float64() < 0.3 {
					out, at = &Outcome{Class: Aborted, Status: 200, Answered: true, FirstByte: 20 * time.Millisecond, Error: "broken off"}, s.now+2*time.Second
				}
				s.underway[at] = append(s.underway[at], func() { ticket.End(epoch.Add(at), out) })
			}
		}
		if v := s.until(20*time.Minute, download); v.Kind != "" {
			t.Fatalf("seed %d: %v after %v: %s", seed, v, s.now, s.g.Evidence(epoch.Add(s.now)).Summary)
		}
		if s.g.late.going > 1000 {
			t.Errorf("%d requests are still followed", s.g.late.going)
		}
		broken = true
		v := s.until(25*time.Minute, download)
		e := s.g.Evidence(epoch.Add(s.now))
		if v.Kind != Trip || v.Test != TestErrors || s.now > 20*time.Minute+45*time.Second || !e.Guard.Late || e.Canary.Errors < 3 || e.Canary.Errors > e.Canary.Requests || len(e.Last) == 0 {
			t.Errorf("seed %d: %v after %v: %s", seed, v, s.now-20*time.Minute, e.Summary)
		}
		// On probation it has to prove just that.
		c.Recovery = Recovery{Test: TestErrors, Late: true, Excess: 0.15}
		s.g = NewGuard(epoch.Add(s.now), c)
		clear(s.underway)
		if v := s.until(s.now+time.Hour, download); v.Kind == Recovered {
			t.Errorf("seed %d: recovered, and nothing is mended", seed)
		}
		broken = false
		s.g = NewGuard(epoch.Add(s.now), c)
		clear(s.underway)
		if v := s.until(s.now+time.Hour, download); v.Kind != Recovered {
			t.Errorf("seed %d: mended, and %v", seed, v)
		}
	}
}

// Somebody who loads a slow page of twenty parts has one voice, whichever cohort it
// is; and two users of the canary who are always slow do not make it slow.
func TestSlowPagesAndSlowUsers(t *testing.T) {
	for seed := range uint64(6) {
		c := defaultGuard()
		c.Share = 0.1
		s := newSmall(t, seed, c)
		s.rate = 100
		page := s.every(50*time.Second, func() {
			user := s.rng.Uint64N(s.users)
			for range 20 {
				s.request(user, s.canary(user), 500*time.Millisecond, false)
			}
		})
		if v := s.until(20*time.Minute, page); v.Kind != "" {
			t.Errorf("pages, seed %d: %v after %v: %s", seed, v, s.now, s.g.Evidence(epoch.Add(s.now)).Summary)
		}
		s = newSmall(t, seed, c)
		s.rate = 100
		two := func() {
			s.request(1e15, true, 500*time.Millisecond, false)
			s.request(1e15+1, true, 500*time.Millisecond, false)
		}
		if v := s.until(20*time.Minute, two); v.Kind != "" {
			t.Errorf("two users, seed %d: %v after %v: %s", seed, v, s.now, s.g.Evidence(epoch.Add(s.now)).Summary)
		}
	}
}

// A tenth of the canary's users who wait for long are found, although what has no
// answer in time is an error, too, and counts as one once.
func TestSlowForATenth(t *testing.T) {
	for _, wait := range []time.Duration{800 * time.Millisecond, 3 * time.Second} {
		c := defaultGuard()
		c.Share = 0.1
		s := newSmall(t, 5, c)
		s.rate, s.users = 100, 2000
		if v := s.until(10 * time.Minute); v.Kind != "" {
			t.Fatal(v, s.now)
		}
		slow := func() {
			for range s.rng.IntN(3) {
				user := s.rng.Uint64N(20) // of 200
				s.request(user, true, wait, false)
			}
		}
		if v := s.until(20*time.Minute, slow); v.Kind != Trip || s.now > 13*time.Minute {
			t.Errorf("%v: %v after %v", wait, v, s.now-10*time.Minute)
		}
	}
}

// Clients who leave before an answer begins are neither success nor failure, and
// when they are the canary's it does not climb.
func TestHoldWhenClientsLeave(t *testing.T) {
	c := defaultGuard()
	c.Share = 0.1
	s := newSmall(t, 5, c)
	s.rate = 100
	usual := s.answers
	if v := s.until(5 * time.Minute); v.Kind != "" || s.g.watch.reason != "" {
		t.Fatal(v, s.g.watch.reason)
	}
	s.answers = func(bool) (time.Duration, bool) { return -500 * time.Millisecond, false }
	if s.until(6 * time.Minute); s.g.watch.reason == HoldGone {
		t.Error("held although those of the control leave, too")
	}
	s.answers = func(isCanary bool) (time.Duration, bool) {
		if isCanary {
			return -500 * time.Millisecond, false
		}
		return usual(isCanary)
	}
	if v := s.until(7 * time.Minute); v.Kind != "" || s.g.watch.reason != HoldGone {
		t.Errorf("%v, held: %q", v, s.g.watch.reason)
	}
	s.answers = usual
	if s.until(8 * time.Minute); s.g.watch.reason == HoldGone {
		t.Error("still held when nobody leaves")
	}
}
