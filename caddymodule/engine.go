package caddymodule

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// engine is what outlives a config: the state store and the monitors. Requests
// of an old config run on after its apps have stopped, and end here. It holds
// no logger, context or config of any load; what has to be told goes to the
// listeners that are running.
type engine struct {
	store *state.Store

	mu        sync.Mutex
	monitors  map[string]*monitors.Flag
	resumed   map[string]bool // monitors that took their kept baseline
	listeners []listener
	stopTicks context.CancelFunc
	ticking   sync.WaitGroup
	health    state.Health // as it was last told
}

// listener is a running app: it puts changed state in force and tells people.
type listener interface {
	// stateChanged puts the store's state in force before it returns.
	stateChanged()
	// definition returns the hash of a flag's definition, "" when unknown.
	definition(flag string) string
	// tell spreads news: log, event, stream.
	tell(n news)
	// inForce tells whether a flag can be on for anybody.
	inForce(flag string, now time.Time) bool
}

// news is something that happened to a flag, or to the whole.
type news struct {
	Event  string    `json:"event"` // one of the names below
	At     time.Time `json:"at"`
	Flag   string    `json:"flag,omitempty"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Data   any       `json:"data,omitempty"`
}

// The events, by the names under which Caddy's events app, the stream and the
// log tell them.
const (
	eventTripped      = "feature_flags.tripped"
	eventReset        = "feature_flags.reset"
	eventOverridden   = "feature_flags.overridden"
	eventReloaded     = "feature_flags.reloaded"
	eventReloadFailed = "feature_flags.reload_failed"
	eventDegraded     = "feature_flags.degraded"
	eventRecovered    = "feature_flags.recovered"
)

var engines = caddy.NewUsagePool()

const (
	tickEvery  = 100 * time.Millisecond
	sweepEvery = 3 * time.Second
)

// loadEngine returns the engine of a state directory ("" is memory only).
func loadEngine(dir string) (*engine, error) {
	v, _, err := engines.LoadOrNew("engine:"+dir, func() (caddy.Destructor, error) {
		e := &engine{
			store:    state.Open(dir, state.Options{Instance: instanceName()}),
			monitors: map[string]*monitors.Flag{},
			resumed:  map[string]bool{},
		}
		e.store.OnHealth(e.healthChanged)
		ctx, stop := context.WithCancel(context.Background())
		e.stopTicks = stop
		e.ticking.Go(func() { e.tick(ctx) })
		running.add(e)
		return e, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*engine), nil
}

func releaseEngine(dir string) { _, _ = engines.Delete("engine:" + dir) }

// Destruct is part of caddy.Destructor: the last config that used it is gone.
func (e *engine) Destruct() error {
	e.stopTicks()
	e.ticking.Wait()
	running.remove(e)
	return e.store.Close()
}

func (e *engine) listen(l listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = append(e.listeners, l)
}

func (e *engine) leave(l listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = slices.DeleteFunc(e.listeners, func(o listener) bool { return o == l })
}

func (e *engine) running() []listener {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.listeners)
}

// newest is the app of the latest config; nil while none runs.
func (e *engine) newest() listener {
	all := e.running()
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// monitor returns the named flag's monitor, making it on first use.
func (e *engine) monitor(flag string) *monitors.Flag {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.monitors[flag]
	if m == nil {
		m = monitors.NewFlag(flag, time.Now())
		e.monitors[flag] = m
	}
	return m
}

func (e *engine) allMonitors() []*monitors.Flag {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*monitors.Flag, 0, len(e.monitors))
	for _, m := range e.monitors {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *monitors.Flag) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}

// configure puts the thresholds of a ruleset in force.
func (e *engine) configure(r *rules, now time.Time, environment string) {
	for i, m := range r.monitors {
		m.flag.Configure(now, thresholdsOf(r.Definition(i)))
		if r.State(i).Tripped != "" {
			m.flag.Disarm()
		}
		e.resume(m.flag, r.InForce(i, environment, now))
	}
}

// thresholdsOf gives a definition's founding monitors.
func thresholdsOf(f *evaluator.Flag) monitors.Thresholds {
	t := monitors.Thresholds{Errors: f.ErrorThreshold}
	if f.PerformanceBaseline != nil && f.PerformanceThreshold != nil {
		t.Baseline, t.Slow = *f.PerformanceBaseline, *f.PerformanceThreshold
	}
	if f.TrafficDropThreshold != nil {
		t.TrafficDrop = *f.TrafficDropThreshold
	}
	return t
}

// resume gives a monitor the traffic baseline kept on disk, once.
func (e *engine) resume(m *monitors.Flag, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.resumed[m.Name()] {
		return
	}
	e.resumed[m.Name()] = true
	var kept progress
	if data := e.store.Flag(m.Name()).Progress.Data; data != nil && json.Unmarshal(data, &kept) == nil && kept.Traffic != nil {
		m.Resume(*kept.Traffic, on)
	}
}

// progress is what the store keeps of a flag's life beside trips and overrides.
type progress struct {
	Traffic *monitors.Baseline `json:"traffic,omitempty"`
}

// tick closes blocks and judges what has to wait for time to pass.
func (e *engine) tick(ctx context.Context) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	sweeper := time.NewTicker(sweepEvery)
	defer sweeper.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			e.tickAll(now)
		case now := <-sweeper.C:
			for _, m := range e.allMonitors() {
				m.Sweep(now)
			}
		}
	}
}

func (e *engine) tickAll(now time.Time) {
	defer survive("closing blocks")
	l := e.newest()
	for _, m := range e.allMonitors() {
		if !m.Watched() {
			continue
		}
		on := l != nil && l.inForce(m.Name(), now)
		verdict, changed := m.Tick(now, on)
		if verdict != nil {
			e.trip(m, verdict)
		}
		if changed {
			b := m.Baseline()
			data, _ := json.Marshal(progress{Traffic: &b})
			e.store.SetProgress(now, m.Name(), data)
		}
	}
}

// trip turns a flag off: for the next request at once, then on disk, and when
// that is done (or has failed) for people to see.
func (e *engine) trip(m *monitors.Flag, evidence *monitors.Evidence) {
	now := time.Now()
	m.Disarm()
	text, _ := json.Marshal(evidence)
	in := state.TripInput{Flag: m.Name(), Test: evidence.Test, Evidence: text}
	if l := e.newest(); l != nil {
		in.Definition = l.definition(m.Name())
	}
	trip, written := e.store.Trip(now, in)
	e.stateChanged()
	go func() {
		defer survive("telling of a trip")
		wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := written.Wait(wait)
		n := news{Event: eventTripped, At: trip.At, Flag: trip.Flag, By: "guard", Reason: evidence.Summary, Data: tripped{Trip: trip, Durable: err == nil}}
		e.tell(n)
	}()
}

// tripped is the data of a `tripped` event.
type tripped struct {
	state.Trip
	Durable bool `json:"durable"` // it is on disk
}

// reset clears trips and override of a flag and arms it anew.
func (e *engine) reset(flag, by, reason string) {
	now := time.Now()
	_, written := e.store.Reset(now, flag, by, reason)
	if e.store.Flag(flag).Override.Kind != state.Cleared {
		e.store.Override(now, flag, state.Cleared, by, reason)
	}
	e.monitor(flag).Arm(now)
	e.stateChanged()
	waitFor(written)
	e.tell(news{Event: eventReset, At: now, Flag: flag, By: by, Reason: reason})
}

// override puts a person's word in force.
func (e *engine) override(flag string, kind state.OverrideKind, by, reason string) {
	now := time.Now()
	_, written := e.store.Override(now, flag, kind, by, reason)
	e.stateChanged()
	waitFor(written)
	e.tell(news{Event: eventOverridden, At: now, Flag: flag, By: by, Reason: reason, Data: map[string]string{"override": string(kind)}})
}

// waitFor gives the disk a moment, so that what an operator was told survives.
func waitFor(p *state.Pending) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = p.Wait(ctx) // a failure shows as degraded
}

func (e *engine) stateChanged() {
	for _, l := range e.running() {
		l.stateChanged()
	}
}

// tell lets the newest app spread the news: while configs overlap, once is
// enough.
func (e *engine) tell(n news) {
	if l := e.newest(); l != nil {
		l.tell(n)
	}
}

// healthChanged is called by the store, from one goroutine. What another
// process left in the directory is in force from here on too.
func (e *engine) healthChanged(h state.Health) {
	e.mu.Lock()
	was := e.health
	e.health = h
	e.mu.Unlock()
	e.stateChanged()
	if n, ok := healthNews(was, h, time.Now()); ok {
		e.tell(n)
	}
}

// firstHealth tells the first app what the store found when it was opened.
func (e *engine) firstHealth() (n news, ok bool) {
	h := e.store.Health()
	e.mu.Lock()
	defer e.mu.Unlock()
	n, ok = healthNews(e.health, h, time.Now())
	e.health = h
	return n, ok
}

// states returns what rulesets are made with.
func (e *engine) states() map[string]evaluator.State {
	out := map[string]evaluator.State{}
	for name, f := range e.store.Flags() {
		s := evaluator.State{Override: evaluator.Override(f.Override.Kind)}
		if f.Tripped() {
			s.Tripped = f.Trips[0].Test
		}
		out[name] = s
	}
	return out
}
