package caddymodule

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// share is the percentage in force.
func (f *fakeApp) share() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules.Share(0).Percent()
}

func (f *fakeApp) status() *rollout.Status {
	return f.engine.rolloutStatus(time.Now(), f.flag("f"), "")
}

// order is what the API does with an order.
func (f *fakeApp) order(change func(*rollout.Plan, *rollout.Progress) error) error {
	f.mu.Lock()
	before := f.rules.Reach(0)
	f.mu.Unlock()
	plan, m := rollout.PlanOf(f.flag("f")), &move{byHand: true}
	err := f.engine.moveRollout(time.Now(), "f", before, m, func(g *rollout.Progress) error { return change(plan, g) })
	if err == nil {
		_ = waitFor(time.Now().Add(2*time.Second), m.written)
		f.engine.finishMove("f", m)
	}
	return err
}

func (f *fakeApp) do(a rollout.Action) error {
	return f.order(func(p *rollout.Plan, g *rollout.Progress) error { return g.Do(p, a, "ann", "", time.Now()) })
}

func (f *fakeApp) set(percent float64) {
	_ = f.order(func(p *rollout.Plan, g *rollout.Progress) error {
		g.SetShare(p, evaluator.ShareOf(percent), "ann", "", time.Now())
		return nil
	})
}

// promoted goes on to a step, from 1.
func (f *fakeApp) promoted(t *testing.T, step int) {
	t.Helper()
	for f.status().Step < step {
		if err := f.do(rollout.Promote); err != nil {
			t.Fatal(err)
		}
	}
}

// served has requests of many users pass that go well, half of them of the canary.
func (f *fakeApp) served(now time.Time, from, n int) {
	m := f.engine.monitor("f")
	for i := range n {
		q := m.Enter(now, f.rules.monitors[0].epoch.Load(), i%2 == 0, uint64(from+i+1))
		q.End(now, &monitors.Outcome{Class: monitors.OK, Answered: true})
	}
}

const (
	fiveSteps = `{"f": {"active": true, "rollout": {"steps": [1, 5, 25, 50, 100], "bake": "10m"}}}`
	unguarded = `{"f": {"active": true, "guard": false, "rollout": {"steps": [5, 50, 100], "bake": "1s", "min_requests": 0}}}`
)

// Two people at once: what one of them gives up the other may be setting.
func TestRolloutOrdersAtOnce(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, `{"f": {"active": true, "percentage_rollout": 10}}`)
	var people sync.WaitGroup
	for k := range 4 {
		people.Go(func() {
			for range 500 {
				if k%2 == 0 {
					app.set(5)
				} else {
					_ = app.do(rollout.Resume)
				}
			}
		})
	}
	people.Wait()
	app.set(5)
	if got := app.share(); got != 5 {
		t.Errorf("%g %%, want 5", got)
	}
	_ = app.do(rollout.Resume)
	if got := app.share(); got != 10 {
		t.Errorf("%g %%, want the definition's 10", got)
	}
}

// The ticker and people, for the race detector.
func TestRolloutOrdersBesideTheTicker(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, `{"f": {"active": true, "guard": false, "rollout": {"steps": [5, 50, 100], "bake": "0s", "min_requests": 0, "approve": [5, 50]}}}`)
	var ticking sync.WaitGroup
	ticking.Go(func() {
		for i := range 200 {
			e.tickAll(time.Now().Add(time.Duration(i) * 2 * time.Second))
		}
	})
	for range 200 {
		_ = app.do(rollout.Pause)
		_ = app.do(rollout.Resume)
	}
	ticking.Wait()
	if got := app.share(); got != 5 {
		t.Errorf("%g %%, and nobody approved", got)
	}
}

// Whatever a guard has not seen does not speak for the canary.
func TestRolloutNeedsAGuardThatHasSeenSomebody(t *testing.T) {
	t.Run("a ramp, and nobody comes", func(t *testing.T) {
		e := testEngine(t, "")
		app := inCharge(t, e, `{"f": {"active": true, "rollout": {"over": "10m"}}}`)
		now := time.Now()
		for i := range 1400 {
			e.tickAll(now.Add(time.Duration(i) * 500 * time.Millisecond))
		}
		if app.share() > 2 {
			t.Errorf("not one request, and %g %%", app.share())
		}
	})
	warming := `{"f": {"active": true, "guard": {"latency": {"warm_up": "60s"}}, "rollout": {"steps": [50, 90, 100], "bake": "5s", "min_requests": 5}}}`
	held := func(t *testing.T, e *engine) (app *fakeApp, now time.Time) {
		app, now = inCharge(t, e, warming), time.Now()
		for i := range 300 {
			now = now.Add(100 * time.Millisecond)
			app.served(now, i, 2)
			e.tickAll(now)
		}
		if s := app.status(); s.Step != 1 || s.Requests < s.Wanted {
			t.Fatalf("%+v, want it held at its first step", s)
		}
		return app, now
	}
	t.Run("a step that was held before a restart", func(t *testing.T) {
		dir := t.TempDir()
		e := newEngine(dir)
		e.begin()
		_, now := held(t, e)
		_ = e.store.Close() // as when it is killed after a save
		e = testEngine(t, dir)
		app := inCharge(t, e, warming)
		for range 20 {
			now = now.Add(time.Second)
			e.tickAll(now)
		}
		if s := app.status(); s.Step != 1 {
			t.Errorf("%+v, with no request since the restart", s)
		}
	})
	t.Run("a step that was held before a reset", func(t *testing.T) {
		e := testEngine(t, "")
		app, now := held(t, e)
		if err := e.reset("f", "ann", ""); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			now = now.Add(time.Second)
			e.tickAll(now)
		}
		if s := app.status(); s.Step != 1 {
			t.Errorf("%+v, with no request since the reset", s)
		}
	})
}

// A person's word holds while the flag is half-open, too.
func TestRolloutWhileHalfOpen(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, `{"f": {"active": true, "error_threshold": 0, "guard": {"cool_down": "10m"}, "rollout": {"steps": [50, 100], "bake": "10m"}}}`)
	fail(e, "f", 1)
	e.tickAll(time.Now().Add(15 * time.Minute))
	if got := app.share(); got != 0.5 {
		t.Fatalf("half-open at %g %%, want a hundredth of 50", got)
	}
	app.set(0.1)
	if got := app.share(); got != 0.1 {
		t.Errorf("set to 0.1 %%: %g", got)
	}
	if err := app.do(rollout.Abort); err != nil || app.share() != 0 {
		t.Errorf("aborted: %v, %g %%", err, app.share())
	}
}

// A step that cannot be written is not taken.
func TestRolloutWaitsForTheDisk(t *testing.T) {
	dir := t.TempDir() + "/state"
	e := testEngine(t, dir)
	app := inCharge(t, e, unguarded)
	time.Sleep(200 * time.Millisecond)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		e.tickAll(time.Now())
	}
	if app.share() > 5 || !e.store.Health().Degraded {
		t.Errorf("%g %% in force, and the disk: %+v", app.share(), e.store.Health())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); app.share() == 5; time.Sleep(100 * time.Millisecond) {
		if e.tickAll(time.Now()); time.Now().After(end) {
			t.Fatal("it does not go on when the disk is back")
		}
	}
}

// What a process reads before the one before it has written its last is read again.
func TestRolloutOfTheProcessBefore(t *testing.T) {
	t.Run("which ends before this one begins", func(t *testing.T) {
		dir := t.TempDir()
		old := newEngine(dir)
		old.begin()
		a := inCharge(t, old, fiveSteps)
		next := newEngine(dir) // is being provisioned
		b := newFakeApp(t, next, fiveSteps)
		next.follow(b)
		b.stateChanged()
		a.promoted(t, 4)
		_ = old.store.Close()
		next.begin()
		t.Cleanup(func() { _ = next.store.Close() })
		next.listen(b)
		b.stateChanged()
		if b.share() != 50 {
			t.Errorf("%g %%, want 50", b.share())
		}
	})
	t.Run("which ends after this one has begun", func(t *testing.T) {
		dir := t.TempDir()
		old := newEngine(dir)
		old.begin()
		a := inCharge(t, old, fiveSteps)
		next := testEngine(t, dir)
		b := inCharge(t, next, fiveSteps)
		a.promoted(t, 4)
		_ = old.store.Close()
		for end := time.Now().Add(20 * time.Second); b.share() != 50; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%g %%, want 50; %+v", b.share(), next.store.Health())
			}
		}
		next.tickAll(time.Now().Add(20 * time.Second))
		next.tickAll(time.Now().Add(40 * time.Second))
		if b.share() != 50 || b.status().Step != 4 {
			t.Errorf("later %g %%", b.share())
		}
	})
}

// An order between a step and its coming in force: both are told.
func TestRolloutStepIsToldOnce(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, unguarded)
	now := time.Now()
	e.tickAll(now)
	e.tickAll(now.Add(1100 * time.Millisecond)) // due
	if err := app.do(rollout.Pause); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		e.tickAll(now.Add(time.Duration(2+i) * time.Second))
	}
	e.telling.drain(time.Second)
	told, audit := 0, 0
	for _, s := range app.list(&app.told) {
		if s == eventAdvanced+"f" {
			told++
		}
	}
	for _, a := range e.store.Audit(state.AuditFilter{}) {
		if a.Action == actionAdvanced {
			audit++
		}
	}
	if app.share() != 50 || told != 2 || audit != 2 {
		t.Errorf("at %g %%, told %d times, audit %d; want 50, and the beginning and one step", app.share(), told, audit)
	}
}

// A trip, or somebody's promote, between a step and its coming in force.
func TestRolloutStepIsOvertaken(t *testing.T) {
	t.Run("by a trip", func(t *testing.T) {
		e := testEngine(t, t.TempDir())
		app := inCharge(t, e, `{"f": {"active": true, "error_threshold": 0, "guard": false, "rollout": {"steps": [5, 50, 100], "bake": "1s", "min_requests": 0}}}`)
		now := time.Now()
		e.tickAll(now)
		e.tickAll(now.Add(1100 * time.Millisecond)) // due
		fail(e, "f", 1)
		if tripsOf(e, "f") != 1 {
			t.Fatal("no trip")
		}
		for i := range 3 {
			e.tickAll(now.Add(time.Duration(2+i) * time.Second))
		}
		if s := app.status(); s.Step != 1 {
			t.Errorf("it tripped at step 1, and is at step %d at %g %%", s.Step, s.Share)
		}
	})
	t.Run("by promote", func(t *testing.T) {
		e := testEngine(t, "")
		app := inCharge(t, e, fiveSteps)
		was := *app.status() // the ticker has found it due …
		if err := app.do(rollout.Promote); err != nil {
			t.Fatal(err)
		}
		e.advance(time.Now(), "f", rollout.PlanOf(app.flag("f")), was) // … and goes on
		if s := app.status(); s.Step != 2 {
			t.Errorf("at step %d, want 2", s.Step)
		}
	})
}

// A config that does not come to run takes nothing away.
func TestRolloutAfterAFailedReload(t *testing.T) {
	for _, features := range []string{strings.Replace(fiveSteps, "25, ", "", 1), `{"f": {"active": true, "percentage_rollout": 3}}`} {
		e := testEngine(t, "")
		app := inCharge(t, e, fiveSteps)
		app.promoted(t, 4)
		other := inCharge(t, e, features)
		e.leave(other)
		e.forget(other)
		if app.share() != 50 {
			t.Errorf("after a reload that failed: %g %%, want 50", app.share())
		}
	}
	// One that runs does, where its steps are others.
	e := testEngine(t, "")
	app := inCharge(t, e, fiveSteps)
	app.promoted(t, 4)
	other := inCharge(t, e, strings.Replace(fiveSteps, "[1,", "[2,", 1))
	e.leave(app)
	e.forget(app)
	if other.share() != 2 {
		t.Errorf("%g %%, want the first of the new steps", other.share())
	}
}

// A refused order leaves nothing behind.
func TestRolloutAfterARefusedOrder(t *testing.T) {
	e := testEngine(t, t.TempDir())
	app := inCharge(t, e, `{"f": {"active": true, "percentage_rollout": 10}}`)
	if err := app.do(rollout.Pause); err == nil {
		t.Fatal("not refused")
	}
	app.program = newFakeApp(t, e, `{"f": {"active": true, "percentage_rollout": 90}}`).program
	app.stateChanged()
	now, m := time.Now(), &move{byHand: true}
	_ = e.moveRollout(now, "f", app.rules.Reach(0), m, func(g *rollout.Progress) error {
		g.SetShare(nil, evaluator.ShareOf(95), "ann", "", now)
		return nil
	})
	e.stateChanged() // anything, while the disk writes
	if app.share() < 90 {
		t.Errorf("from 90 to 95 %% by way of %g", app.share())
	}
}

// A flag for listed users, whose percentage somebody sets, is never on for everybody.
func TestRolloutOfAFlagForListedUsers(t *testing.T) {
	e := testEngine(t, t.TempDir())
	app := inCharge(t, e, `{"f": {"active": true, "users": ["ana"]}}`)
	now, m := time.Now(), &move{byHand: true}
	_ = e.moveRollout(now, "f", app.rules.Reach(0), m, func(g *rollout.Progress) error {
		g.SetShare(nil, evaluator.ShareOf(5), "ann", "", now)
		return nil
	})
	e.stateChanged()
	if got := app.share(); got != 0 && got != 5 {
		t.Errorf("%g %% while the disk writes", got)
	}
	_ = waitFor(now.Add(time.Second), m.written)
	e.finishMove("f", m)
	if got := app.share(); got != 5 {
		t.Errorf("%g %%, want 5", got)
	}
}

// Each step asks for requests of its own.
func TestRolloutCountsEachStepsRequests(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, `{"f": {"active": true, "guard": {"latency": {"warm_up": "0s"}}, "rollout": {"steps": [10, 20, 30, 40], "bake": "1s", "min_requests": 20}}}`)
	now, user := time.Now(), 0
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		if app.share() == 10 {
			app.served(now, user, 100)
			user += 100
		}
		e.tickAll(now)
	}
	if app.share() != 20 {
		t.Errorf("at %g %%, want 20: there was no request at it", app.share())
	}
}

// What came half-open counts for no step.
func TestRolloutAfterARecovery(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, `{"f": {"active": true, "error_threshold": 0, "guard": {"cool_down": "10m", "latency": {"warm_up": "0s"}}, "rollout": {"steps": [50, 100], "bake": "0s", "min_requests": 1000}}}`)
	fail(e, "f", 1)
	now := time.Now().Add(15 * time.Minute)
	e.tickAll(now)
	for i := 0; e.store.Flag("f").Tripped(); i++ {
		if i == 1000 {
			t.Fatal("it does not recover")
		}
		now = now.Add(500 * time.Millisecond)
		app.served(now, 2*i, 2)
		e.tickAll(now)
	}
	for range 3 {
		now = now.Add(time.Second)
		e.tickAll(now)
	}
	if s := app.status(); s.Step != 1 || s.Requests > 0 || app.share() != 50 {
		t.Errorf("%+v at %g %%, want its first step, and no request yet", s, app.share())
	}
}

// The process ends between the records of a reset: the flag is tripped, or at its
// first step.
func TestRolloutKilledInAReset(t *testing.T) {
	dir := t.TempDir()
	features := `{"f": {"active": true, "error_threshold": 0, "rollout": {"steps": [1, 5, 25, 50, 100], "bake": "10m"}}}`
	e := newEngine(dir)
	e.begin()
	app := inCharge(t, e, features)
	app.promoted(t, 4)
	fail(e, "f", 1)
	_ = waitFor(time.Now().Add(time.Second), e.dropRollout(time.Now(), "f")) // the first record of a reset
	_ = e.store.Close()
	e = testEngine(t, dir)
	app = inCharge(t, e, features)
	if !e.store.Flag("f").Tripped() {
		t.Error("the trip is gone")
	}
	if err := e.reset("f", "ann", ""); err != nil {
		t.Fatal(err)
	}
	if app.share() != 1 {
		t.Errorf("%g %%, want the first step", app.share())
	}
}

// A ramp takes as long as it says while all goes well.
func TestRolloutRamp(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, `{"f": {"active": true, "guard": {"latency": {"warm_up": "0s"}}, "rollout": {"over": "10m"}}}`)
	now := time.Now()
	begun, last := now, app.share()
	for i := 0; app.share() < 100; i++ {
		now = now.Add(500 * time.Millisecond)
		if now.Sub(begun) > 13*time.Minute {
			t.Fatalf("%g %% after %s", app.share(), now.Sub(begun))
		}
		for k := range 20 { // as the split deals them
			user := 20*i + k
			q := e.monitor("f").Enter(now, app.rules.monitors[0].epoch.Load(), float64(user*61%100) < app.share(), uint64(user+1))
			q.End(now, &monitors.Outcome{Class: monitors.OK, Answered: true})
		}
		e.tickAll(now)
		if app.share() < last {
			t.Fatalf("from %g to %g %%", last, app.share())
		}
		last = app.share()
	}
	if took := now.Sub(begun); took < 9*time.Minute {
		t.Errorf("at 100 %% after %s", took)
	}
}
