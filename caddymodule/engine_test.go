package caddymodule

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
	"github.com/seed-6adbc061/caddy-feature-flags/webhook"
)

// fakeApp is a listener that notes what it is told.
type fakeApp struct {
	engine  *engine
	program *evaluator.Program
	on      bool

	mu      sync.Mutex
	rules   *rules
	changes int
	told    []string
	emitted []string
	hang    chan struct{}
}

func (f *fakeApp) stateChanged() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	f.rules = bind(f.program, f.engine)
	f.engine.configure(f, f.rules, time.Now(), "production")
}

func (f *fakeApp) flag(name string) *evaluator.Flag {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rules == nil {
		return nil
	}
	if i := f.rules.Index(name); i >= 0 {
		return f.rules.Definition(i)
	}
	return nil
}

func (f *fakeApp) probeShare(name string) (evaluator.Share, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.rules.Index(name)
	return f.rules.ProbeShare(i, f.engine.shareOf(f.rules.Definition(i)))
}

func (f *fakeApp) whyOff(name string, now time.Time) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.rules.Index(name)
	if f.rules.State(i).Probing {
		return "half_open"
	}
	return f.rules.WhyOff(i, "production", now)
}
func (f *fakeApp) inForce(string, time.Time) bool { return f.on }

func (f *fakeApp) webhooks() []webhook.Target { return nil }

func (f *fakeApp) standing(string, time.Time) standing {
	return standing{map[bool]string{true: "on", false: "off"}[f.on], 100}
}

func (f *fakeApp) tell(n news) { f.mu.Lock(); f.told = append(f.told, n.Event+n.Flag); f.mu.Unlock() }

func (f *fakeApp) list(of *[]string) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(*of)
}

func (f *fakeApp) emit(n news) {
	if f.hang != nil {
		<-f.hang
	}
	f.mu.Lock()
	f.emitted = append(f.emitted, n.Event+n.Flag)
	f.mu.Unlock()
}

func newFakeApp(t testing.TB, e *engine, features string) *fakeApp {
	t.Helper()
	doc, err := evaluator.Decode("features.json", []byte(features))
	if err != nil {
		t.Fatal(err)
	}
	program, err := evaluator.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeApp{engine: e, program: program}
}

// inCharge starts an app that speaks for an engine.
func inCharge(t testing.TB, e *engine, features string) *fakeApp {
	t.Helper()
	app := newFakeApp(t, e, features)
	e.follow(app)
	e.listen(app)
	app.stateChanged()
	return app
}

func testEngine(t testing.TB, dir string) *engine {
	e := newEngine(dir)
	e.begin()
	t.Cleanup(func() { _ = e.store.Close() })
	return e
}

// fail has n canary requests of the flag fail, and trips it where they say so.
func fail(e *engine, flag string, n int) {
	m := e.monitor(flag)
	for range n {
		x := followed(m, time.Now())
		if evidence := x.End(time.Now(), &monitors.Outcome{Class: monitors.Failed, Status: 500}); evidence != nil {
			e.trip(m, evidence)
		}
	}
}

func tripsOf(e *engine, flag string) int { return len(e.store.Flag(flag).Trips) }

// While a config comes to run its definitions count; if it does not come to run,
// the earlier one's do again.
func TestLatestConfigSpeaks(t *testing.T) {
	e := testEngine(t, "")
	old := inCharge(t, e, `{"f": {"active": true, "error_threshold": 2}}`)
	other := newFakeApp(t, e, `{"f": {"active": true}}`) // watches nothing
	e.follow(other)
	other.stateChanged()
	if !e.monitor("f").Watched() {
		t.Error("a config that is only provisioned has changed what is watched")
	}
	e.listen(other)
	other.stateChanged()
	old.stateChanged() // a change of its file, at this moment
	if e.monitor("f").Watched() {
		t.Error("the earlier config's thresholds are in force over the later one's")
	}
	e.leave(other)
	e.forget(other)
	if !e.monitor("f").Watched() {
		t.Error("a config that did not come to run has left its thresholds")
	}
	fail(e, "f", 3)
	if tripsOf(e, "f") != 1 {
		t.Errorf("%d trips, want 1", tripsOf(e, "f"))
	}
	before := other.changes
	e.stateChanged()
	if other.changes != before {
		t.Error("a config that is gone is still told")
	}
}

// A trip is in force in a config that serves already and has not started yet.
func TestTripReachesAllConfigs(t *testing.T) {
	e := testEngine(t, "")
	old, next := newFakeApp(t, e, `{"f": {"active": true, "error_threshold": 0}}`), newFakeApp(t, e, `{"f": {"active": true, "error_threshold": 0}}`)
	for _, f := range []*fakeApp{old, next} {
		e.follow(f)
		f.stateChanged()
	}
	e.listen(old)
	old.stateChanged()
	fail(e, "f", 1)
	for _, f := range []*fakeApp{old, next} {
		if f.rules.State(0).Tripped != "errors" {
			t.Error("the trip is not in force")
		}
	}
}

// What another process tripped or reset arms and disarms the monitors too.
func TestStateOfOthersArms(t *testing.T) {
	e := testEngine(t, "")
	inCharge(t, e, `{"f": {"active": true, "error_threshold": 0}}`)
	trip, _ := e.store.Trip(time.Now(), state.TripInput{Flag: "f", Test: "errors"})
	e.stateChanged()
	fail(e, "f", 5)
	if tripsOf(e, "f") != 1 {
		t.Errorf("a flag that another process tripped was tripped again: %d trips", tripsOf(e, "f"))
	}
	e.store.Merge(time.Now(), state.Snapshot{Resets: []state.Reset{{ID: trip.ID + "R", Flag: "f", Trips: []string{trip.ID}, At: time.Now()}}})
	if tripsOf(e, "f") != 0 {
		t.Fatal("the reset is not in force")
	}
	e.stateChanged()
	fail(e, "f", 1)
	if tripsOf(e, "f") != 1 {
		t.Error("a flag that another process reset is not watched any more")
	}
}

// The traffic before a flag was turned on is remembered over the end of the
// process, and its end is not taken for the flag's.
func TestBaselineOverRestart(t *testing.T) {
	const features = `{"f": {"active": true, "traffic_drop_threshold": 50}}`
	dir := t.TempDir()
	e := testEngine(t, dir)
	app := inCharge(t, e, features)
	now := time.Now()
	run := func(e *engine, seconds int, perSecond int) {
		m := e.monitor("f")
		for range seconds * 10 {
			now = now.Add(100 * time.Millisecond)
			if now.UnixMilli()/100%10 == 0 {
				for range perSecond {
					x := followed(m, now)
					x.End(now, &monitors.Outcome{Answered: true})
				}
			}
			e.tickAll(now)
		}
	}
	run(e, 70, 20)
	app.on = true
	run(e, 5, 20)
	before := e.monitor("f").Baseline()
	if before.Requests < 1000 {
		t.Fatalf("the baseline is %+v, want some 1200 requests", before)
	}
	// The end: first Stop, then requests drain, then Cleanup.
	e.leave(app)
	run(e, 30, 0)
	if got := e.newest(); got != listener(app) {
		t.Error("nobody speaks while the last requests end")
	}
	e.forget(app)
	run(e, 1, 0)
	if e.newest() != nil {
		t.Error("an app speaks after its end")
	}
	if err := e.store.Close(); err != nil {
		t.Fatal(err)
	}

	e = testEngine(t, dir)
	app = newFakeApp(t, e, features)
	app.on = true
	e.follow(app)
	e.listen(app)
	app.stateChanged()
	run(e, 1, 20)
	if after := e.monitor("f").Baseline(); after.Requests != before.Requests || !after.Since.Equal(before.Since) {
		t.Errorf("after the restart the baseline is %+v, was %+v", after, before)
	}
	run(e, 140, 1)
	if tripsOf(e, "f") != 1 {
		t.Errorf("traffic has dropped to a twentieth: %d trips, want 1", tripsOf(e, "f"))
	}
}

// News is told in the order in which it happened, whatever handlers do.
func TestNewsInOrder(t *testing.T) {
	e := testEngine(t, t.TempDir())
	app := newFakeApp(t, e, `{"f": {"active": true, "error_threshold": 0}}`)
	app.hang = make(chan struct{})
	e.follow(app)
	e.listen(app)
	app.stateChanged()
	var want []string
	for range 10 {
		fail(e, "f", 1)
		if err := e.reset("f", "test", ""); err != nil {
			t.Fatal(err)
		}
		if err := e.override("f", state.Disabled, "test", ""); err != nil {
			t.Fatal(err)
		}
		if err := e.reset("f", "test", ""); err != nil {
			t.Fatal(err)
		}
		want = append(want, eventTripped+"f", eventReset+"f", eventOverridden+"f", eventReset+"f")
	}
	e.telling.drain(5 * time.Second)
	if got := app.list(&app.told); !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	close(app.hang)
	e.emitting.drain(5 * time.Second)
	if got := app.list(&app.emitted); !slices.Equal(got, want) {
		t.Errorf("emitted %v, want %v", got, want)
	}
}

func TestQueueIsBounded(t *testing.T) {
	var q queue
	hang, first := make(chan struct{}), make(chan struct{})
	q.add(func() { close(first); <-hang })
	<-first
	before := time.Now()
	q.drain(10 * time.Millisecond)
	if time.Since(before) > 5*time.Second {
		t.Error("drain waited for what hangs")
	}
	var mu sync.Mutex
	var done []int
	for i := range 3 * mostWaiting {
		q.add(func() {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, i)
			if i%100 == 0 {
				panic(fmt.Sprint(i))
			}
		})
	}
	close(hang)
	q.drain(10 * time.Second)
	mu.Lock()
	defer mu.Unlock()
	if len(done) < mostWaiting-1 || len(done) > mostWaiting || done[len(done)-1] != 3*mostWaiting-1 || !slices.IsSorted(done) {
		t.Errorf("%d were done, of %v", len(done), done)
	}
}

func TestStreamCatchesUp(t *testing.T) {
	var s stream
	start, missed, ch, leave := s.watch("")
	if len(missed) != 0 {
		t.Errorf("a new watcher missed %v", missed)
	}
	for i := range remembered + 10 {
		s.publish(news{Event: "e", Flag: fmt.Sprint(i)})
	}
	got := 0
	last := ""
	for n := range ch { // it is closed: nobody read
		got, last = got+1, n.id
	}
	leave()
	leave()
	_, missed, _, leave = s.watch(last)
	defer leave()
	if got == 0 || got+len(missed) != remembered+10 || missed[0].Flag != fmt.Sprint(got) {
		t.Errorf("%d were read before and %d after", got, len(missed))
	}
	if _, missed, _, _ := s.watch(start); len(missed) != remembered {
		t.Errorf("%d are remembered, want %d", len(missed), remembered)
	}
	for _, id := range []string{"", "-", "x-1", start + "1x", "0-0"} {
		if _, missed, _, _ := s.watch(id); len(missed) != 0 {
			t.Errorf("%q is caught up with %d", id, len(missed))
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"new_ui", "checkout.v2", "beta", "x"}
	f := func(name, want string) {
		t.Helper()
		if want != "" {
			want = fmt.Sprintf(" (did you mean %q?)", want)
		}
		if got := didYouMean(name, known); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	f("new-ui", "new_ui")
	f("NEW_UI", "new_ui")
	f("newui", "new_ui")
	f("checkout_v1", "checkout.v2")
	f("bet", "beta")
	f("search", "")
	f("", "x")
	f("zz", "")
}

// followed is a request of the canary whose answer is seen.
func followed(m *monitors.Flag, now time.Time) monitors.Exposure {
	x := m.Expose(m.Cell("on", "SPLIT", true))
	x.Follow(now, monitors.Ticket{})
	return x
}

// Each failure doubles the cool-down, up to a day or what the definition asks for,
// and no two proxies try again at the same moment.
func TestCoolDownDoubles(t *testing.T) {
	for _, c := range []struct {
		d        time.Duration
		failures int
		want     time.Duration
	}{{10 * time.Minute, 0, 10 * time.Minute}, {10 * time.Minute, 1, 20 * time.Minute}, {10 * time.Minute, 3, 80 * time.Minute}, {10 * time.Minute, 100, 24 * time.Hour}, {48 * time.Hour, 5, 48 * time.Hour}} {
		different := false
		last := coolDownAfter(c.d, c.failures)
		for range 50 {
			got := coolDownAfter(c.d, c.failures)
			if different = different || got != last; got < c.want*9/10 || got > c.want*11/10 {
				t.Errorf("%v after %d failures: %v, want %v and a tenth each way", c.d, c.failures, got, c.want)
			}
		}
		if !different {
			t.Errorf("%v: no jitter", c.d)
		}
	}
}

// Restarts in good order cost nothing, with a guard and without; evidence that
// cannot be gone on with, and a process that was killed, cost a part of the bound,
// once.
func TestGuardOverLives(t *testing.T) {
	dir := t.TempDir()
	features := `{"f": {"active": true, "percentage_rollout": 50}}`
	live := func(inOrder bool, features string, requests int) monitors.GuardStatus {
		t.Helper()
		e := newEngine(dir)
		e.begin()
		app := inCharge(t, e, features)
		status, _ := judged(app, requests)
		if inOrder {
			e.saveGuards(time.Now())
		}
		if err := e.store.Close(); err != nil {
			t.Fatal(err)
		}
		return status
	}
	for _, step := range []struct {
		name     string
		inOrder  bool
		features string
		requests int
		judged   int64
		trial    int
	}{
		{"the first", true, features, 100, 100, 0},
		{"resumed", true, features, 100, 200, 0},
		{"without a request", true, features, 0, 200, 0},
		{"without a split", true, `{"f": {"active": true}}`, 0, 0, 0},
		{"split again", true, features, 100, 300, 0},
		{"another guard", true, `{"f": {"active": true, "percentage_rollout": 50, "guard": {"min_users": 5}}}`, 100, 100, 1},
		{"the same again", true, `{"f": {"active": true, "percentage_rollout": 50, "guard": {"min_users": 5}}}`, 100, 200, 1},
		{"killed at its end", false, `{"f": {"active": true, "percentage_rollout": 50, "guard": {"min_users": 5}}}`, 100, 300, 1},
		{"after that", true, `{"f": {"active": true, "percentage_rollout": 50, "guard": {"min_users": 5}}}`, 100, 100, 2},
	} {
		got := live(step.inOrder, step.features, step.requests)
		if judged := got.Canary.Judged + got.Control.Judged; judged != step.judged || got.Trial != step.trial {
			t.Errorf("%s: %d judged, trial %d; want %d, %d", step.name, judged, got.Trial, step.judged, step.trial)
		}
	}
}
