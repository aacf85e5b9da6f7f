package caddymodule

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// progress is what the store keeps of a flag's life beside trips and overrides.
type progress struct {
	Traffic *monitors.Baseline `json:"traffic,omitempty"`
	Guard   *guardProgress     `json:"guard,omitempty"`
	Rollout *rollout.Progress  `json:"rollout,omitempty"`
	Tripped *time.Time         `json:"tripped,omitempty"` // when it last was
	Seen    *time.Time         `json:"seen,omitempty"`    // when the flag was first in force

	revision uint64 // of the store's record
}

// guardProgress is what a guard has to know over restarts.
type guardProgress struct {
	// Trial is how many detectors have spent their part of the bound on false
	// alarms since a person armed the flag.
	Trial int `json:"trial,omitempty"`

	// Running tells that the trial's detector is at work in a process. Where that
	// is found at the start, its evidence was lost with the process.
	Running  bool            `json:"running,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"` // found until the process ended in order

	Failures  int        `json:"failures,omitempty"`  // times in a row that it tripped again, half-open or soon after
	Recovered *time.Time `json:"recovered,omitempty"` // when it last proved to be well
	Retry     *time.Time `json:"retry,omitempty"`     // when the tripped flag is tried again
	Probe     *probe     `json:"probe,omitempty"`     // the flag is half-open
}

func (g guardProgress) used() bool {
	return g.Trial > 0 || g.Running || g.Evidence != nil || g.Failures > 0 || g.Recovered != nil || g.Retry != nil || g.Probe != nil
}

// probe is a flag on probation: tripped, and on for a few to prove itself.
type probe struct {
	Since    time.Time       `json:"since"`
	Trip     string          `json:"trip"`               // its ID
	Test     string          `json:"test"`               // that it was tripped by
	Quantile float64         `json:"quantile,omitempty"` // of the latency
	Late     bool            `json:"late,omitempty"`     // it was of requests that broke off later
	Excess   float64         `json:"excess"`             // of bad requests, that is to be refuted
	Share    evaluator.Share `json:"share"`
}

// of tells whether the flag is on probation: it was not tripped again since. It
// compares names, as clocks may jump.
func (p *probe) of(s state.FlagState) bool {
	return p != nil && s.Tripped() && s.LastTrip().ID == p.Trip
}

// mend puts right what a process left that ended between the record of a trip, or
// of its end, and that of what follows.
func (g *guardProgress) mend(s state.FlagState) {
	switch {
	case g == nil || g.Probe == nil:
	case !s.Tripped():
		g.Probe = nil
	case !g.Probe.of(s):
		g.Probe = nil
		g.Failures++
	}
}

// Excess that is to be refuted after a trip that says nothing of rates.
const usualExcess = 0.05

// staysWell is for how long a flag that has recovered must not trip for its failures
// to be forgotten.
const staysWell = 24 * time.Hour

// mostTrials bounds how small a detector's part of the bound gets.
const mostTrials = 50

// mostCoolDown bounds the doubling, unless the definition asks for more.
const mostCoolDown = 24 * time.Hour

// hash is of a user, never 0; another one in each process.
func (e *engine) hash(user string) uint64 { return max(maphash.String(e.seed, user), 1) }

// keptOf returns what the store keeps of a flag; never nil. The caller must hold
// mu.
func (e *engine) keptOf(flag string) *progress {
	p := e.kept[flag]
	if p == nil {
		p = new(progress)
		s := e.store.Flag(flag)
		if data := s.Progress.Data; data != nil {
			if json.Unmarshal(data, p) != nil {
				*p = progress{} // of another version
			}
		}
		p.revision = s.Progress.Revision
		p.Guard.mend(s)
		e.kept[flag] = p
	}
	return p
}

// guardOf returns what is kept of a flag's guard, a copy.
func (e *engine) guardOf(flag string) guardProgress {
	e.mu.Lock()
	defer e.mu.Unlock()
	if g := e.keptOf(flag).Guard; g != nil {
		return *g
	}
	return guardProgress{}
}

// keep changes what is kept of a flag.
func (e *engine) keep(now time.Time, flag string, change func(*progress)) *state.Pending {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(e.keptOf(flag))
	return e.write(now, flag)
}

// write has the store keep what is kept of a flag. The caller must hold mu.
func (e *engine) write(now time.Time, flag string) *state.Pending {
	p := e.kept[flag]
	data, _ := json.Marshal(p) // finite numbers only: it does not fail
	written := e.store.SetProgress(now, flag, data)
	p.revision = e.store.Flag(flag).Progress.Revision
	return written
}

// readAgain forgets what is kept of flags of which another process has written
// since: it is read from the store when it is asked for.
func (e *engine) readAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, p := range e.kept {
		if e.store.Flag(name).Progress.Revision != p.revision {
			delete(e.kept, name)
			delete(e.climbs, name)
		}
	}
	e.thought = nil
}

// keepGuard changes what is kept of a flag's guard.
func (e *engine) keepGuard(now time.Time, flag string, change func(*guardProgress)) {
	e.keep(now, flag, func(p *progress) { change(p.guard()) })
}

// guard is what is kept of the flag's guard, made where there is nothing yet.
func (p *progress) guard() *guardProgress {
	if p.Guard == nil {
		p.Guard = new(guardProgress)
	}
	return p.Guard
}

// guardKey stands for a definition and the percentage in force.
func guardKey(r *rules, i int) string {
	return definitionHash(r.Definition(i)) + "/" + strconv.FormatInt(int64(r.Share(i)), 10)
}

// configureGuard puts flag i's guard in force.
func (e *engine) configureGuard(now time.Time, r *rules, i int) {
	m := &r.monitors[i]
	if !m.guarded {
		e.putAside(now, m.flag)
		m.epoch.Store(-1)
		return
	}
	def := r.Definition(i)
	c := guardConfig(def.Guard)
	if p := e.guardOf(def.Name).Probe; p != nil && r.State(i).Probing {
		c.Recovery = monitors.Recovery{Test: p.Test, Quantile: p.Quantile, Late: p.Late, Excess: p.Excess}
	}
	if m.flag.Outdated(&c) {
		e.putAside(now, m.flag)
	}
	kept := e.guardOf(def.Name)
	c.Share, c.Trial = r.CanaryShare(i), min(kept.Trial, mostTrials)
	if kept.Evidence != nil && m.flag.Guard() == nil {
		err := m.flag.ResumeGuard(now, &c, kept.Evidence)
		e.keepGuard(now, def.Name, func(p *guardProgress) {
			if p.Evidence, p.Running = nil, true; err != nil {
				p.Trial++
				c.Trial = min(p.Trial, mostTrials)
			}
		})
		if err != nil {
			caddy.Log().Named("feature_flags").Warn("what a guard had found cannot be gone on with: its next detector takes half of the bound on false alarms that is left", zap.String("flag", def.Name), zap.Error(err))
		}
	}
	m.epoch.Store(m.flag.ConfigureGuard(now, &c, guardKey(r, i)))
}

// guardConfig says what a definition's guard is in the monitors' words.
func guardConfig(g evaluator.Guard) monitors.GuardConfig {
	c := monitors.GuardConfig{
		FalseAlarm: g.FalseAlarm, Settle: g.Settle, UserEpoch: g.UserEpoch, MinUsers: g.MinUsers,
		Errors: g.Errors != nil, Latency: g.Latency != nil,
		WarmUp: evaluator.DefaultGuard().Latency.WarmUp, // a cold canary may take its time even where latency is not compared
	}
	if g.Errors != nil {
		c.TolerateRatio, c.Tolerate = g.Errors.TolerateRatio, g.Errors.Tolerate
	}
	if g.Latency != nil {
		c.TolerateSlow, c.WarmUp = g.Latency.Tolerate, g.Latency.WarmUp
	}
	switch g.Traffic {
	case "trip":
		c.Traffic = monitors.TrafficTrip
	case "off":
		c.Traffic = monitors.TrafficOff
	}
	return c
}

// resumeGuard goes on with what is kept of a guard, once a process. Evidence
// that was lost with a process has spent its part of the bound: the next detector
// takes a smaller one. A process may also have ended between the record of a trip
// and that of when the flag is tried again.
func resumeGuard(p *progress, def *evaluator.Flag, s state.FlagState) (lost bool) {
	if g := p.Guard; g != nil {
		if lost = g.Running; lost {
			g.Trial++
			g.Running = false
		}
		if !s.Tripped() {
			g.Retry = nil
		}
	}
	if !s.Tripped() || !def.Guard.Enabled || def.Guard.CoolDown <= 0 {
		return lost
	}
	if p.Guard == nil {
		p.Guard = &guardProgress{Trial: 1}
	}
	if g := p.Guard; g.Probe == nil && g.Retry == nil {
		retry := s.LastTrip().At.Add(coolDownAfter(def.Guard.CoolDown, g.Failures))
		g.Retry = &retry
	}
	return lost
}

// tickGuard has a flag's guard judge what is over.
func (e *engine) tickGuard(now time.Time, m *monitors.Flag) {
	defer survive("judging " + m.Name())
	g := m.Guard()
	if g == nil || m.Disarmed() {
		return
	}
	if !e.guardOf(m.Name()).Running {
		e.keepGuard(now, m.Name(), func(p *guardProgress) { p.Running, p.Evidence = true, nil })
	}
	switch v := g.Tick(now); v.Kind {
	case monitors.Trip:
		e.seeEvidence(m.Name(), g)
		if m.Disarm() { // else a threshold was quicker
			e.trip(m, g.Evidence(now))
		}
	case monitors.Recovered:
		e.recovered(now, m, g)
	case monitors.Hold:
		e.held(now, m.Name(), "guard", v.Reason, func() any {
			s := g.Status(now)
			return map[string]any{"canary": s.Canary, "control": s.Control, "log_e": s.LogE}
		})
	}
}

// saveGuards keeps what the guards have found, when the process ends in order.
func (e *engine) saveGuards(now time.Time) {
	for _, m := range e.allMonitors() {
		e.saveGuard(now, m)
	}
}

func (e *engine) saveGuard(now time.Time, m *monitors.Flag) {
	var text json.RawMessage
	if g := m.Guard(); g != nil && !m.Disarmed() {
		if saved := g.Save(); saved != nil && saved.Requests != [2]int64{} {
			text, _ = json.Marshal(saved) // finite numbers only: it does not fail
		}
	}
	switch {
	case text != nil:
		e.keepGuard(now, m.Name(), func(p *guardProgress) { p.Running, p.Evidence = false, text })
	case e.guardOf(m.Name()).Running: // it is gone in good order, too
		e.keepGuard(now, m.Name(), func(p *guardProgress) { p.Running = false })
	}
}

// putAside turns a flag's guard off. What it has found is kept for when the same
// one is turned on again, and has spent its part of the bound for any other.
func (e *engine) putAside(now time.Time, m *monitors.Flag) {
	if m.Guard() != nil {
		e.saveGuard(now, m)
	}
	m.ConfigureGuard(now, nil, "")
}

// spend notes a trip: the next detector has a smaller part of the bound, and the
// flag is tried again after its cool-down, if it has one.
func (e *engine) spend(now time.Time, l listener, flag string) {
	var coolDown time.Duration
	if l != nil {
		if def := l.flag(flag); def != nil && def.Guard.Enabled {
			coolDown = def.Guard.CoolDown
		}
	}
	e.keep(now, flag, func(kept *progress) {
		kept.Tripped = &now
		e.bakeAgain(flag, kept)
		p := kept.guard()
		p.Trial++
		p.Running, p.Evidence = false, nil
		p.Failures++
		if p.Probe == nil && (p.Recovered == nil || now.Sub(*p.Recovered) >= staysWell) {
			p.Failures = 0
		}
		p.Probe, p.Retry, p.Recovered = nil, nil, nil
		if coolDown > 0 {
			retry := now.Add(coolDownAfter(coolDown, p.Failures))
			p.Retry = &retry
		}
	})
}

// lastTrip returns when a flag last tripped, zero for never.
func (e *engine) lastTrip(flag string) (at time.Time) {
	s := e.store.Flag(flag)
	switch {
	case s.Tripped():
		return s.LastTrip().At
	case s.Progress.Data == nil:
		return at
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.keptOf(flag); p.Tripped != nil {
		at = *p.Tripped
	}
	return at
}

// coolDownAfter doubles a cool-down for each failure, with a tenth of jitter each
// way so that a fleet does not try again at once.
func coolDownAfter(d time.Duration, failures int) time.Duration {
	most := max(d, mostCoolDown)
	for range failures {
		if d = min(2*d, most); d == most {
			break
		}
	}
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// tickCoolDowns tries flags again whose cool-down is over, and arms those whose
// definition was edited.
func (e *engine) tickCoolDowns(now time.Time, l listener) {
	e.mu.Lock()
	var due []string
	for name, p := range e.kept {
		if p.Guard != nil && p.Guard.Retry != nil && !now.Before(*p.Guard.Retry) {
			due = append(due, name)
		}
	}
	edited := e.edited
	e.edited = nil
	e.mu.Unlock()
	for _, name := range edited {
		e.resetNow(now, name, "guard", "its definition was edited, and guard.rearm is edit")
	}
	for _, name := range due {
		e.tryAgain(now, l, name)
	}
}

// tryAgain turns a tripped flag on for a hundredth of those it was on for.
func (e *engine) tryAgain(now time.Time, l listener, name string) {
	trips := e.store.Flag(name).Trips
	share, ok := l.probeShare(name)
	if len(trips) == 0 || !ok {
		e.keepGuard(now, name, func(p *guardProgress) { p.Retry = nil })
		if len(trips) > 0 {
			e.tell(news{Event: eventHeld, At: now, Flag: name, By: "guard", Reason: "the cool-down is over, but nobody comes by the split: reset it by hand"})
		}
		return
	}
	if e.store.Flag(name).Override.Kind == state.Disabled {
		return // when somebody lets it
	}
	last := trips[len(trips)-1]
	p := &probe{Since: now, Trip: last.ID, Test: last.Test, Excess: usualExcess, Share: share}
	var evidence monitors.Evidence
	if json.Unmarshal(last.Evidence, &evidence) == nil {
		if ofCanary, ofControl := evidence.Rates(); ofCanary > ofControl {
			p.Excess = (ofCanary - ofControl) / 2
		}
		if evidence.Guard != nil {
			p.Quantile, p.Late = evidence.Guard.Quantile, evidence.Guard.Late
		}
	}
	if def := l.flag(name); p.Test == monitors.TestPerformance && def != nil && def.Guard.Latency != nil {
		p.Test = monitors.TestLatency // what proves that it is no slower
	}
	e.keepGuard(now, name, func(g *guardProgress) { g.Probe, g.Retry, g.Running, g.Evidence = p, nil, false, nil })
	reason := fmt.Sprintf("half-open: on for %s %% after its cool-down; back in full on proof that it is no worse", percent(share.Percent()))
	e.store.Note(now, state.AuditEntry{Action: actionHalfOpen, Flag: name, By: "guard", Reason: reason})
	e.stateChanged()
	e.tell(news{Event: eventAdvanced, At: now, Flag: name, By: "guard", Reason: reason, Data: map[string]any{"percentage": share.Percent()}})
}

// actionHalfOpen and actionHeld are audit entries of the guard's own.
const (
	actionHalfOpen = "half_open"
	actionHeld     = "held"
)

// recovered turns a flag on again in full.
func (e *engine) recovered(now time.Time, m *monitors.Flag, g *monitors.Guard) {
	s := g.Status(now)
	reason := fmt.Sprintf("recovered: %d of %d canary requests failed while half-open, against %d of %d of the control; that it is no worse is a hundred times likelier than chance",
		s.Canary.Bad, s.Canary.Requests, s.Control.Bad, s.Control.Requests)
	e.store.Reset(now, m.Name(), "guard", reason)
	e.keep(now, m.Name(), func(kept *progress) {
		e.bakeAgain(m.Name(), kept)
		p := kept.guard()
		*p = guardProgress{Trial: p.Trial + 1, Failures: p.Failures, Recovered: &now}
	})
	m.Arm(now)
	e.stateChanged()
	e.opinionsChanged(m.Name())
	e.tell(news{Event: eventReset, At: now, Flag: m.Name(), By: "guard", Reason: reason})
}

// held tells that a canary keeps its share for a reason that has stood for a
// moment, and not again while it comes and goes.
func (e *engine) held(now time.Time, flag, by, reason string, figures func() any) {
	if reason == monitors.HoldWarmUp || reason == monitors.HoldSilence {
		return
	}
	e.mu.Lock()
	h := e.holds[holder{flag, by}]
	if h == nil {
		h = &hold{told: map[string]time.Time{}}
		e.holds[holder{flag, by}] = h
	}
	if h.reason != reason || now.Sub(h.last) > holdStands {
		h.reason, h.since = reason, now
	}
	h.last = now
	fresh := now.Sub(h.since) >= holdStands && now.Sub(h.told[reason]) >= holdQuiet
	if now.Sub(h.since) >= holdStands {
		h.told[reason] = now
	}
	e.mu.Unlock()
	if !fresh {
		return
	}
	e.store.Note(now, state.AuditEntry{Action: actionHeld, Flag: flag, By: by, Reason: reason})
	e.tell(news{Event: eventHeld, At: now, Flag: flag, By: by, Reason: reason, Data: figures()})
}

// holder is who holds a flag's canary.
type holder struct{ flag, by string }

// hold is the last reason for which a canary was held.
type hold struct {
	reason      string
	since, last time.Time
	told        map[string]time.Time // by reason: when it was last so, once it was told
}

const (
	holdStands = 3 * time.Second  // a reason must hold so long to be news
	holdQuiet  = 10 * time.Minute // and must not have held for so long before
)
