package caddymodule

import (
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// judged has requests pass that are well, half of them of the canary of the flag f,
// the only one, and returns what its guard says of them, if it has one.
func judged(app *fakeApp, requests int) (status monitors.GuardStatus, guarded bool) {
	e, now := app.engine, time.Now()
	m := e.monitor("f")
	for i := range requests {
		q := m.Enter(now, app.rules.monitors[0].epoch.Load(), i%2 == 0, uint64(i+1))
		q.End(now, &monitors.Outcome{Class: monitors.OK, Answered: true})
	}
	e.tickAll(now.Add(time.Second))
	e.tickAll(now.Add(2 * time.Second))
	g := m.Guard()
	if g == nil {
		return status, false
	}
	return g.Status(now), true
}

// A process may end between any two of its records: whatever the next one finds
// comes to a life of the flag that goes on.
func TestGuardAfterHalfARecord(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	soon := at.Add(time.Hour)
	tripped := state.FlagState{Trips: []state.Trip{{ID: "7", At: at}}}
	guard := evaluator.DefaultGuard()
	coolDown := func(d time.Duration) *evaluator.Flag {
		g := guard
		g.CoolDown = d
		return &evaluator.Flag{Guard: g}
	}
	for _, c := range []struct {
		name  string
		kept  *guardProgress
		def   *evaluator.Flag
		state state.FlagState
		lost  bool
		want  guardProgress // but for when it is tried again
		tried bool
	}{
		{"nothing has happened", nil, coolDown(time.Minute), state.FlagState{}, false, guardProgress{}, false},
		{"killed at work", &guardProgress{Trial: 2, Running: true}, coolDown(time.Minute), state.FlagState{}, true, guardProgress{Trial: 3}, false},
		{"killed after the record of the first trip", nil, coolDown(time.Minute), tripped, false, guardProgress{Trial: 1}, true},
		{"killed after the record of a trip", &guardProgress{Running: true}, coolDown(time.Minute), tripped, true, guardProgress{Trial: 1}, true},
		{"the same, with nobody to try it again", &guardProgress{Running: true}, coolDown(0), tripped, true, guardProgress{Trial: 1}, false},
		{"it is to be tried again", &guardProgress{Trial: 1, Retry: &soon}, coolDown(time.Minute), tripped, false, guardProgress{Trial: 1}, true},
		{"it is being tried", &guardProgress{Trial: 1, Probe: &probe{Trip: "7"}}, coolDown(time.Minute), tripped, false, guardProgress{Trial: 1, Probe: &probe{}}, false},
		{"killed after the record that it failed", &guardProgress{Trial: 1, Failures: 1, Running: true, Probe: &probe{Trip: "6"}}, coolDown(time.Minute), tripped, true, guardProgress{Trial: 2, Failures: 2}, true},
		{"killed after the record of a recovery", &guardProgress{Trial: 1, Failures: 2, Running: true, Probe: &probe{}}, coolDown(time.Minute), state.FlagState{}, true, guardProgress{Trial: 2, Failures: 2}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &progress{Guard: c.kept}
			p.Guard.mend(c.state)
			if lost := resumeGuard(p, c.def, c.state); lost != c.lost {
				t.Errorf("lost: %t", lost)
			}
			var got guardProgress
			if p.Guard != nil {
				got = *p.Guard
			}
			if (got.Retry != nil) != c.tried {
				t.Errorf("tried again at %v", got.Retry)
			}
			if got.Retry != nil && (got.Retry.Before(at.Add(54*time.Second)) || got.Retry.After(soon.Add(time.Minute))) {
				t.Errorf("tried again at %v, a minute after %v", got.Retry, at)
			}
			if got.Trial != c.want.Trial || got.Running || got.Failures != c.want.Failures || (got.Probe != nil) != (c.want.Probe != nil) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// Evidence waits for the same guard to come back, and has spent its part of the
// bound for another one: nobody gets the whole of it again by an edit.
func TestGuardOverEdits(t *testing.T) {
	e := testEngine(t, "")
	app := newFakeApp(t, e, `{}`)
	e.follow(app)
	e.listen(app)
	for _, step := range []struct {
		name, features string
		requests       int
		judged         int64
		trial          int
	}{
		{"the first", `{"f": {"active": true, "percentage_rollout": 50}}`, 100, 100, 0},
		{"another percentage", `{"f": {"active": true, "percentage_rollout": 40}}`, 100, 200, 0},
		{"on for everybody", `{"f": {"active": true, "percentage_rollout": 100}}`, 0, 0, 0},
		{"half of them again", `{"f": {"active": true, "percentage_rollout": 50}}`, 100, 300, 0},
		{"removed", `{}`, 0, 0, 0},
		{"there again", `{"f": {"active": true, "percentage_rollout": 50}}`, 100, 400, 0},
		{"another guard", `{"f": {"active": true, "percentage_rollout": 50, "guard": {"min_users": 5}}}`, 100, 100, 1},
		{"turned off", `{"f": {"active": true, "percentage_rollout": 50, "guard": false}}`, 0, 0, 0},
		{"the first guard again", `{"f": {"active": true, "percentage_rollout": 50}}`, 100, 100, 2},
		{"before anybody came", `{"f": {"active": true, "percentage_rollout": 50, "guard": {"min_users": 4}}}`, 0, 0, 3},
		{"nothing was found meanwhile", `{"f": {"active": true, "percentage_rollout": 50, "guard": {"min_users": 3}}}`, 100, 100, 3},
	} {
		other := newFakeApp(t, e, step.features)
		app.program = other.program
		app.stateChanged()
		got, guarded := judged(app, step.requests)
		if !guarded && step.requests == 0 && step.trial > 0 {
			got.Trial = e.guardOf("f").Trial
		}
		if judged := got.Canary.Judged + got.Control.Judged; judged != step.judged || got.Trial != step.trial {
			t.Errorf("%s: %d judged, trial %d; want %d, %d", step.name, judged, got.Trial, step.judged, step.trial)
		}
	}
}

// A flag that recovers and trips again within a day has failed: its cool-down
// doubles. After a day it begins anew.
func TestFailuresAreRemembered(t *testing.T) {
	e := testEngine(t, "")
	app := inCharge(t, e, `{"f": {"active": true, "percentage_rollout": 50, "guard": {"cool_down": "10m"}}}`)
	now := time.Now()
	for _, step := range []struct {
		name  string
		after time.Duration // of the recovery; 0: none
		want  int
	}{{"the first", 0, 0}, {"an hour later", time.Hour, 1}, {"again", 23 * time.Hour, 2}, {"a day later", 24 * time.Hour, 0}} {
		if step.after > 0 {
			m := e.monitor("f")
			now = now.Add(time.Hour)
			e.recovered(now, m, monitors.NewGuard(now, monitors.GuardConfig{FalseAlarm: 1e-4}))
			now = now.Add(step.after)
		}
		e.spend(now, app, "f")
		p := e.guardOf("f")
		if least, most := coolDownAfter(10*time.Minute, step.want)*4/5, coolDownAfter(10*time.Minute, step.want)*5/4; p.Failures != step.want || p.Retry == nil || p.Retry.Sub(now) < least || p.Retry.Sub(now) > most {
			t.Errorf("%s: %d failures, tried again at %v; want %d, %v to %v after %v", step.name, p.Failures, p.Retry, step.want, least, most, now)
		}
	}
}
