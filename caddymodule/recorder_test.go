package caddymodule

import (
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state/history"
)

func TestRecorder(t *testing.T) {
	dir := t.TempDir()
	e := testEngine(t, dir)
	app := inCharge(t, e, `{"f": {"active": true, "percentage_rollout": 10}, "quiet": {"active": true}}`)
	app.on = true
	now := time.Now().Truncate(time.Minute)
	count := func(canary bool, class monitors.Class, n int, wait time.Duration) {
		for range n {
			e.monitor("f").Cell(map[bool]string{true: "on", false: "off"}[canary], "SPLIT", canary).Add(class, wait)
		}
	}
	count(true, monitors.OK, 1000, time.Millisecond) // before anybody has looked: of the first minute
	e.recorder.turn(e, app, now.Add(2*time.Second))
	if seen := e.firstSeen("f"); seen == nil || !seen.Equal(now.Add(2*time.Second)) {
		t.Errorf("first seen %v", seen)
	}
	count(true, monitors.OK, 3, 20*time.Millisecond)
	count(true, monitors.Failed, 1, 20*time.Millisecond)
	count(false, monitors.OK, 40, 10*time.Millisecond)
	e.recorder.turn(e, app, now.Add(59*time.Second))
	series := func(minutes ...history.Running) history.Series {
		t.Helper()
		s, err := e.recorder.history().Query("f", now.Add(-time.Hour), now.Add(time.Hour), minutes...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := series(); len(s.Points) != 0 {
		t.Fatalf("a minute that is not over: %+v", s)
	}
	row, minute, ok := e.recorder.running(e, app, "f", now.Add(59*time.Second))
	if s := series(history.Running{At: minute, Row: row}); !ok || !minute.Equal(now) || len(s.Points) != 1 || s.Points[0].Canary.Requests != 1004 {
		t.Fatalf("the minute in progress: %v %v %+v", ok, minute, s)
	}
	e.recorder.turn(e, app, now.Add(61*time.Second))
	count(false, monitors.OK, 5, 10*time.Millisecond)
	app.on = false
	e.recorder.turn(e, app, now.Add(121*time.Second))
	e.recorder.turn(e, app, now.Add(181*time.Second)) // nothing has happened
	e.recorder.line.drain(5 * time.Second)
	s := series()
	if len(s.Points) != 2 {
		t.Fatalf("%+v", s)
	}
	one, two := s.Points[0], s.Points[1]
	if one.Canary.Requests != 1004 || one.Canary.Errors != 1 || one.Control.Requests != 40 || one.Control.P50 < 0.005 || one.Control.P50 > 0.01 || one.Status != "on" || one.Percentage != 100 {
		t.Errorf("the first minute: %+v", one)
	}
	if two.Canary.Requests != 0 || two.Control.Requests != 5 || two.Status != "off" || !two.At.Equal(now.Add(time.Minute)) {
		t.Errorf("the second one: %+v", two)
	}
	if quiet, err := e.recorder.history().Query("quiet", now.Add(-time.Hour), now.Add(time.Hour)); err != nil || len(quiet.Points) != 1 || quiet.Points[0].Status != "off" {
		t.Errorf("a flag nobody asks for has its changes only: %+v %v", quiet, err)
	}
	if seen := e.firstSeen("f"); seen == nil || !seen.Equal(now.Add(2*time.Second)) {
		t.Errorf("first seen later %v", seen)
	}
	// What there is of a minute is kept when the process ends, and added to after it.
	count(false, monitors.OK, 7, time.Millisecond)
	e.recorder.end(e, now.Add(185*time.Second))
	again := newRecorder()
	again.begin(dir)
	defer func() { _ = again.history().Close() }()
	if s, err := again.history().Query("f", now.Add(-time.Hour), now.Add(time.Hour)); err != nil || len(s.Points) != 3 || s.Points[2].Control.Requests != 7 || s.Points[2].Status != "off" || s.Points[2].Percentage != 100 {
		t.Errorf("after the end: %+v %v", s, err)
	}
}
