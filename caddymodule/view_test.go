package caddymodule

import (
	"encoding/json"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// What one answer tells of a flag is of one moment: while a trip is recorded and
// not yet in force the flag is not tripped, and splits; after that it is, and
// nobody gets it.
func TestViewIsOfOneMoment(t *testing.T) {
	doc, err := evaluator.Decode("f", []byte(`{"x": {"active": true, "guard": false, "rollout": {"steps": [20, 100]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	program, err := evaluator.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	a := &App{log: zap.NewNop(), engine: testEngine(t, ""), environment: "production"}
	a.program.Store(program)
	now := time.Now()
	begun := rollout.Begin(rollout.PlanOf(program.Definition("x")), now)
	a.engine.keep(now, "x", func(p *progress) { p.Rollout = &begun })
	a.stateChanged()
	seen := func(status string, percentage float64, phase rollout.Phase, tripped bool) {
		t.Helper()
		v := a.view(a.rules.Load(), 0, now)
		if v.Status != status || v.Percentage != percentage || v.Rollout == nil || v.Rollout.Phase != phase || v.State.Tripped != tripped || len(v.State.Trips) > 0 != tripped {
			t.Errorf("%s at %g %%, rollout %+v, state %+v; want %s, %g %%, %s, tripped %t", v.Status, v.Percentage, v.Rollout, v.State, status, percentage, phase, tripped)
		}
	}
	seen("split", 20, rollout.Baking, false)
	a.engine.store.Trip(now, state.TripInput{Flag: "x", Test: "errors", Evidence: json.RawMessage(`{}`)})
	seen("split", 20, rollout.Baking, false)
	a.stateChanged()
	seen("tripped", 0, rollout.Stopped, true)
}
