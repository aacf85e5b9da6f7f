package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
	"github.com/seed-6adbc061/caddy-feature-flags/sources"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
	"github.com/seed-6adbc061/caddy-feature-flags/webhook"
)

// engine is what outlives a config: the state store and the monitors. Requests
// of an old config run on after its apps have stopped, and end here. It holds
// no logger, context or config of any load; what has to be told goes to the
// listeners that are running.
type engine struct {
	store *state.Store
	begun sync.Once
	seed  maphash.Seed // of users' hashes

	mu        sync.Mutex
	monitors  map[string]*monitors.Flag
	all       []*monitors.Flag // the same; only appended to
	resumed   map[string]bool  // monitors that took what is kept of them
	kept      map[string]*progress
	holds     map[holder]*hold
	climbs    map[string]*climb
	asides    map[string]*rollout.Progress // of rollouts that a config which overlaps has begun anew
	mirrors   map[string]*monitors.Mirror
	copies    map[string]sources.Document // of remote sources, by address: what was in force
	said      map[string]bool             // what is to be logged once
	thought   map[string]*opinions        // of flags that somebody has said something about; nil: not looked up
	logs      []*bulkLog                  // of sites that have had requests lately
	edited    []string                    // flags to arm anew: their definition was edited
	tripped   map[string]bool             // monitors that were disarmed because the state says tripped
	followers []listener                  // from Provision to Cleanup: what changes is in force there at once
	listeners []listener                  // from Start to Stop, the newest last: it speaks for all
	parting   listener                    // the last one that stopped, while it is not cleaned up
	stopTicks context.CancelFunc
	ticking   sync.WaitGroup
	health    state.Health // as it was last told

	recorder *recorder // of the history

	messenger messenger
	rings     liveRings // for the console
	stream    stream
	telling   queue // log, stream, metrics
	emitting  queue // event handlers, which are somebody else's code
}

// listener is an app: it puts changed state in force and tells people.
type listener interface {
	// stateChanged puts the store's state in force before it returns.
	stateChanged()
	// webhooks are where events are sent to.
	webhooks() []webhook.Target
	// standing tells people how a flag stands.
	standing(flag string, now time.Time) standing
	// tell writes news to the log.
	tell(n news)
	// emit hands news to event handlers, and returns when they do.
	emit(n news)
	// inForce tells whether a flag can be on for anybody.
	inForce(flag string, now time.Time) bool
	// flag returns a flag's definition; nil when unknown.
	flag(name string) *evaluator.Flag
	// whyOff tells why a flag is off for everybody, or for all but a few on probation;
	// "" where it is not.
	whyOff(flag string, now time.Time) string
	// probeShare returns the share by which a tripped flag is tried again.
	probeShare(flag string) (evaluator.Share, bool)
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
	eventHeld         = "feature_flags.held"
	eventReset        = "feature_flags.reset"
	eventAdvanced     = "feature_flags.advanced"
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
		e := newEngine(dir)
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

// newEngine makes an engine that has read the state and does nothing by itself
// yet: a config that is only validated leaves no trace on the disk.
func newEngine(dir string) *engine {
	return &engine{
		store:    state.Load(dir, state.Options{Instance: instanceName()}),
		monitors: map[string]*monitors.Flag{},
		seed:     maphash.MakeSeed(),
		resumed:  map[string]bool{},
		kept:     map[string]*progress{},
		holds:    map[holder]*hold{},
		copies:   map[string]sources.Document{},
		said:     map[string]bool{},
		climbs:   map[string]*climb{},
		asides:   map[string]*rollout.Progress{},
		mirrors:  map[string]*monitors.Mirror{},
		tripped:  map[string]bool{},
		recorder: newRecorder(),
	}
}

// begin takes the state directory into use.
func (e *engine) begin() {
	e.begun.Do(func() {
		e.store.Begin()
		e.recorder.begin(e.store.Health().Path)
		e.messenger.begin(e.store.Health().Path, e.delivered)
		e.mu.Lock()
		clear(e.kept) // read before the last process had written all
		clear(e.climbs)
		e.mu.Unlock()
		e.store.OnHealth(e.healthChanged)
	})
}

func releaseEngine(dir string) { _, _ = engines.Delete("engine:" + dir) }

// Destruct is part of caddy.Destructor: the last config that used it is gone.
func (e *engine) Destruct() error {
	e.stopTicks()
	e.ticking.Wait()
	running.remove(e)
	e.saveGuards(time.Now())
	e.saveRollouts(time.Now())
	e.recorder.end(e, time.Now())
	e.messenger.end()
	return e.store.Close()
}

// follow keeps l up to date until it is forgotten.
func (e *engine) follow(l listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.followers = append(e.followers, l)
}

func (e *engine) forget(l listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.followers = slices.DeleteFunc(e.followers, func(o listener) bool { return o == l })
	if e.parting == l {
		e.parting = nil
	}
}

// listen makes l the one that speaks for the engine.
func (e *engine) listen(l listener) {
	e.mu.Lock()
	e.listeners = append(e.listeners, l)
	e.mu.Unlock()
	e.retarget()
}

// leave ends that. Where an earlier app speaks again, because the config of l
// did not come to run, its definitions are in force for the monitors again.
func (e *engine) leave(l listener) {
	e.mu.Lock()
	withdrawn := len(e.listeners) > 1 && e.listeners[len(e.listeners)-1] == l
	e.listeners = slices.DeleteFunc(e.listeners, func(o listener) bool { return o == l })
	if len(e.listeners) == 0 {
		e.parting = l
	}
	asides := e.asides
	e.asides = map[string]*rollout.Progress{}
	e.mu.Unlock()
	if withdrawn {
		e.takeBack(time.Now(), asides)
	}
	if now := e.running(); now != nil {
		now.stateChanged()
	}
	e.retarget()
}

// running is the app of the latest config; nil while none runs.
func (e *engine) running() listener {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.listeners); n > 0 {
		return e.listeners[n-1]
	}
	return nil
}

// newest is the app that speaks: the one of the latest config, and at the end
// the one that has stopped while its last requests go on. nil before and after.
func (e *engine) newest() listener {
	if l := e.running(); l != nil {
		return l
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.parting
}

// monitor returns the named flag's monitor, making it on first use.
func (e *engine) monitor(flag string) *monitors.Flag {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.monitors[flag]
	if m == nil {
		m = monitors.NewFlag(flag, time.Now())
		e.monitors[flag] = m
		e.all = append(e.all, m)
	}
	return m
}

// allMonitors returns the monitors in the order they were made; not to be
// changed.
func (e *engine) allMonitors() []*monitors.Flag {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clip(e.all)
}

// configure puts the monitors of a ruleset in force, if l speaks: while configs
// overlap, the latest definitions count.
func (e *engine) configure(l listener, r *rules, now time.Time, environment string) {
	if e.newest() != l {
		for i := range r.monitors {
			r.monitors[i].epoch.Store(r.monitors[i].flag.GuardEpoch(guardKey(r, i)))
		}
		return
	}
	known := make(map[string]bool, len(r.monitors))
	var lost []string
	for i := range r.monitors {
		m, def, s := r.monitors[i].flag, r.Definition(i), r.State(i)
		known[def.Name] = true
		m.Configure(now, thresholdsOf(def))
		if e.resume(m, def, r.InForce(i, environment, now)) {
			lost = append(lost, def.Name)
		}
		e.arm(m, now, s.Tripped != "" && !s.Probing)
		e.configureGuard(now, r, i)
		e.configureRollout(now, def)
		if s.Tripped != "" && def.Guard.Rearm == "edit" {
			e.noteEdit(def)
		}
	}
	for _, m := range e.allMonitors() {
		if !known[m.Name()] {
			e.putAside(now, m)
		}
	}
	if len(lost) > 0 {
		caddy.Log().Named("feature_flags").Warn("the last process did not end in good order: what its guards had found is lost, and their next detectors take half of the bound on false alarms that is left", zap.Strings("flags", lost))
	}
}

// noteEdit has a tripped flag armed anew where its definition is another one than
// when it tripped.
func (e *engine) noteEdit(def *evaluator.Flag) {
	trips := e.store.Flag(def.Name).Trips
	if len(trips) == 0 {
		return
	}
	if was := trips[len(trips)-1].Definition; was == "" || was == definitionHash(def) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.edited, def.Name) {
		e.edited = append(e.edited, def.Name)
	}
}

// arm has a monitor stand as the state says: another process may have tripped
// or reset the flag.
func (e *engine) arm(m *monitors.Flag, now time.Time, tripped bool) {
	e.mu.Lock()
	was := e.tripped[m.Name()]
	e.tripped[m.Name()] = tripped
	e.mu.Unlock()
	switch {
	case tripped:
		m.Disarm()
	case was:
		m.Arm(now)
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

// resume gives a monitor what was kept on disk, once. It tells whether what the
// guard had found was lost.
func (e *engine) resume(m *monitors.Flag, def *evaluator.Flag, on bool) (lost bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.resumed[m.Name()] {
		return false
	}
	e.resumed[m.Name()] = true
	kept := e.keptOf(m.Name())
	if kept.Traffic != nil {
		m.Resume(*kept.Traffic, on)
	}
	return resumeGuard(kept, def, e.store.Flag(m.Name()))
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
		case <-ticker.C:
			e.tickAll(time.Now()) // after a stall what the ticker says is long past
		case <-sweeper.C:
			now := time.Now()
			for _, m := range e.allMonitors() {
				m.Sweep(now)
			}
		}
	}
}

func (e *engine) tickAll(now time.Time) {
	defer survive("closing blocks")
	l := e.running()
	if l == nil {
		return // no flag is turned off by Caddy's own end
	}
	e.tickLogs(now)
	look := e.recorder.isDue(now)
	for _, m := range e.allMonitors() {
		if m.Watched() {
			e.tickThresholds(now, l, m)
		}
		if g := m.Guard(); g != nil {
			e.tickGuard(now, m)
			if look && !m.Disarmed() {
				e.seeEvidence(m.Name(), g)
			}
		}
	}
	if look {
		e.recorder.turn(e, l, now)
		e.rings.turn(e, l, now)
	}
	e.tickCoolDowns(now, l)
	e.tickRollouts(now, l)
}

// tickThresholds has a flag's founding monitors judge what takes time.
func (e *engine) tickThresholds(now time.Time, l listener, m *monitors.Flag) {
	defer survive("watching the thresholds of " + m.Name())
	verdict, changed := m.Tick(now, l.inForce(m.Name(), now))
	if verdict != nil {
		e.trip(m, verdict)
	}
	if changed {
		b := m.Baseline()
		e.keep(now, m.Name(), func(p *progress) { p.Traffic = &b })
	}
}

// trip turns a flag off: for the next request at once, then on disk, and when
// that is done (or has failed) for people to see.
func (e *engine) trip(m *monitors.Flag, evidence *monitors.Evidence) {
	now := time.Now()
	m.Disarm()
	evidence.Mirror = e.mirrorFigures(m.Name())
	text, err := json.Marshal(evidence)
	if err != nil { // a figure that is no number: the words are kept
		text, _ = json.Marshal(monitors.Evidence{Test: evidence.Test, Summary: evidence.Summary, Since: evidence.Since})
	}
	in := state.TripInput{Flag: m.Name(), Test: evidence.Test, Evidence: text, Summary: evidence.Summary}
	l := e.newest()
	if l != nil {
		if def := l.flag(m.Name()); def != nil {
			in.Definition = definitionHash(def)
		}
	}
	trip, written := e.store.Trip(now, in)
	e.spend(now, l, m.Name())
	e.stateChanged()
	e.telling.add(func() {
		err := waitFor(now.Add(5*time.Second), written)
		e.spread(news{Event: eventTripped, At: trip.At, Flag: trip.Flag, By: "guard", Reason: evidence.Summary, Data: tripped{Trip: trip, Durable: err == nil}})
	})
}

// tripped is the data of a `tripped` event.
type tripped struct {
	state.Trip
	Durable bool `json:"durable"` // it is on disk
}

// reset clears trips and override of a flag and arms it anew. It is in force
// when reset returns; an error tells that it is not on disk.
func (e *engine) reset(flag, by, reason string) error {
	now := time.Now()
	return waitFor(now.Add(patienceWithDisk), e.resetNow(now, flag, by, reason)...)
}

// resetNow is reset without waiting for the disk.
func (e *engine) resetNow(now time.Time, flag, by, reason string) []*state.Pending {
	var pending []*state.Pending
	if e.store.Flag(flag).Tripped() { // first: a process may end in between
		if written := e.dropRollout(now, flag); written != nil {
			pending = append(pending, written)
		}
	}
	record, written := e.store.Reset(now, flag, by, reason)
	pending = append(pending, written)
	if e.store.Flag(flag).Override.Kind != state.Cleared {
		_, written := e.store.Override(now, flag, state.Cleared, by, reason)
		pending = append(pending, written)
	}
	if record.ID == "" { // there was no trip: its counts begin anew all the same
		e.store.Note(now, state.AuditEntry{Action: state.ActionReset, Flag: flag, By: by, Reason: reason})
	}
	e.opinionsChanged(flag)
	if e.guardOf(flag).used() { // a person's word begins all of it anew
		e.keep(now, flag, func(p *progress) { p.Guard = nil })
	}
	e.monitor(flag).Arm(now)
	e.stateChanged()
	e.tell(news{Event: eventReset, At: now, Flag: flag, By: by, Reason: reason})
	return pending
}

// override puts a person's word in force, as reset does.
func (e *engine) override(flag string, kind state.OverrideKind, by, reason string) error {
	now := time.Now()
	_, written := e.store.Override(now, flag, kind, by, reason)
	e.stateChanged()
	err := waitFor(now.Add(patienceWithDisk), written)
	e.tell(news{Event: eventOverridden, At: now, Flag: flag, By: by, Reason: reason, Data: map[string]string{"override": string(kind)}})
	return err
}

// patienceWithDisk is how long an operator waits to hear that it is on disk.
const patienceWithDisk = 2 * time.Second

// waitFor waits until all is on disk, or the deadline; the error says why not.
func waitFor(deadline time.Time, pending ...*state.Pending) error {
	ctx, cancel := context.WithDeadlineCause(context.Background(), deadline, errSlowDisk)
	defer cancel()
	for _, p := range pending {
		if err := p.Wait(ctx); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	return nil
}

var errSlowDisk = errors.New("the disk has not answered yet")

func (e *engine) stateChanged() {
	e.mu.Lock()
	all := slices.Clone(e.followers)
	e.mu.Unlock()
	for _, l := range all {
		l.stateChanged()
	}
}

// tell has news spread, in the order of the calls. It does not wait: neither
// requests nor the store's goroutine may.
func (e *engine) tell(n news) { e.telling.add(func() { e.spread(n) }) }

// spread tells news once, however many configs overlap.
func (e *engine) spread(n news) {
	l := e.newest()
	if l == nil {
		return
	}
	eventsTold.WithLabelValues(n.Event).Inc()
	l.tell(n)
	e.stream.publish(n)
	e.messenger.send(n)
	e.emitting.add(func() {
		if l := e.newest(); l != nil {
			l.emit(n)
		}
	})
}

// healthChanged is called by the store, from one goroutine. What another
// process left in the directory is in force from here on too.
func (e *engine) healthChanged(h state.Health) {
	e.mu.Lock()
	was, heard := e.health, len(e.listeners) > 0
	if heard { // else the first listener is told
		e.health = h
	}
	e.mu.Unlock()
	e.readAgain()
	e.stateChanged()
	if n, ok := healthNews(was, h, time.Now()); ok && heard {
		e.tell(n)
	}
}

// firstHealth tells the first app what the store found when it was opened.
func (e *engine) firstHealth() {
	h := e.store.Health()
	e.mu.Lock()
	n, ok := healthNews(e.health, h, time.Now())
	e.health = h
	e.mu.Unlock()
	if ok {
		e.tell(n)
	}
}

// states returns what a program's rulesets are made with, and the trips and
// overrides behind it.
func (e *engine) states(program *evaluator.Program) (map[string]evaluator.State, map[string]state.FlagState) {
	out, kept := map[string]evaluator.State{}, map[string]state.FlagState{}
	for name, f := range e.store.Flags() {
		def := program.Definition(name)
		if def == nil {
			continue
		}
		f.Progress = state.Progress{}
		if !f.Zero() {
			kept[name] = f
		}
		s := evaluator.State{Override: evaluator.Override(f.Override.Kind), Share: e.shareOf(def)}
		if f.Tripped() {
			s.Tripped = f.LastTrip().Test
			if p := e.guardOf(name).Probe; p.of(f) {
				share := p.Share
				if s.Share != nil {
					share = min(share, *s.Share)
				}
				s.Probing, s.Share = true, &share
			}
		}
		out[name] = s
	}
	return out, kept
}
