package caddymodule

import (
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

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
		{"killed after the record of a recovery", &guardProgress{Trial: 1, Failures: 2, Running: true, Probe: &probe{}}, coolDown(time.Minute), state.FlagState{}, true, guardProgress{Trial: 2}, false},
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
