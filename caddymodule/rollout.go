package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// climb is what the engine remembers of a flag's rollout beside its progress. The
// engine's mu guards it, but for what is the ticker's own.
type climb struct {
	inForce evaluator.Share // the share that requests are decided by
	move    *move           // a change that is not in force yet; nil: none
	asked   int             // the step whose approval was asked for

	// The ticker's own.
	last    time.Time       // when time was last taken
	saved   time.Time       // when the progress was last kept
	dirty   bool            // it has changed since
	guard   *monitors.Guard // whose requests are counted; nil: the flag's own
	counted int64           // of them
}

// move is a change of a rollout's progress on its way to the disk.
type move struct {
	written *state.Pending
	since   time.Time
	byHand  bool             // a person does not wait for a disk that fails
	before  rollout.Progress // to go back to
	then    func()           // to be called once it is in force
}

const (
	rolloutEvery = time.Second
	rolloutSaved = 10 * time.Second // what a process that is killed loses of a step's baking
	longestPass  = 10 * time.Second // what one look at the clock can add: a process that stood still did not bake
	holdDegraded = "progress cannot be written"
)

// Audit entries of rollouts; what a person does has the action's name behind it.
const (
	actionAdvanced = "advanced"
	actionRollout  = "rollout_"
)

// shareOf returns the percentage in force for a flag in place of its definition's;
// nil: none.
func (e *engine) shareOf(def *evaluator.Flag) *evaluator.Share {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, c := e.keptOf(def.Name).Rollout, e.climbs[def.Name]
	switch {
	case g == nil && c != nil && c.move != nil: // given up, and not on disk yet
	case g == nil || !g.Follows(rollout.PlanOf(def)):
		return nil
	case c == nil:
		c = e.climbOf(def.Name)
	}
	share := c.inForce
	return &share
}

// climbOf returns what is remembered of the rollout of a flag that has progress. The
// caller must hold mu.
func (e *engine) climbOf(name string) *climb {
	c := e.climbs[name]
	if c == nil {
		c = &climb{inForce: e.kept[name].Rollout.Share, counted: -1}
		e.climbs[name] = c
	}
	return c
}

// configureRollout has a flag's rollout follow its definition: a new one begins, and
// one with other steps begins anew.
func (e *engine) configureRollout(now time.Time, def *evaluator.Flag) {
	plan := rollout.PlanOf(def)
	if begun := e.beginRollout(now, def.Name, plan); begun != nil {
		e.tellAdvance(now, def.Name, "rollout", fmt.Sprintf("the rollout begins at %s %%", percent(begun.Share)), *begun)
	}
}

// beginRollout puts a plan in force, nil for none. It returns where that stands; nil:
// there is nothing new.
func (e *engine) beginRollout(now time.Time, name string, plan *rollout.Plan) *rollout.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.keptOf(name)
	g := p.Rollout
	if g == nil && plan == nil || g != nil && g.Follows(plan) {
		return nil
	}
	if _, known := e.asides[name]; g != nil && !known && len(e.listeners) > 1 {
		e.asides[name] = g
	}
	delete(e.climbs, name)
	p.Rollout = nil
	var status *rollout.Status
	if plan != nil {
		begun := rollout.Begin(plan, now)
		p.Rollout = &begun
		s := begun.Status(plan, "", "")
		status = &s
	}
	e.write(now, name)
	return status
}

// takeBack has rollouts go on that a config has begun anew which did not come to run.
func (e *engine) takeBack(now time.Time, asides map[string]*rollout.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, g := range asides {
		e.keptOf(name).Rollout = g
		delete(e.climbs, name)
		e.write(now, name)
	}
}

func (e *engine) tellAdvance(now time.Time, flag, by, reason string, s rollout.Status) {
	e.store.Note(now, state.AuditEntry{Action: actionAdvanced, Flag: flag, By: by, Reason: reason})
	e.tell(news{Event: eventAdvanced, At: now, Flag: flag, By: by, Reason: reason, Data: map[string]any{"percentage": s.Share, "rollout": s}})
}

// moveRollout changes a flag's progress. A share that rises comes in force when it
// is on disk, so that a process that is killed takes nothing away from anybody; one
// that falls does at once. before is the share in force of a flag that has no
// progress. The caller sees to it that the move is finished.
func (e *engine) moveRollout(now time.Time, name string, before evaluator.Share, m *move, change func(*rollout.Progress) error) error {
	atOnce, err := e.startMove(now, name, before, m, change)
	if atOnce {
		e.finishMove(name, m)
	}
	return err
}

func (e *engine) startMove(now time.Time, name string, before evaluator.Share, m *move, change func(*rollout.Progress) error) (atOnce bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.keptOf(name)
	g := rollout.Progress{Step: -1}
	if p.Rollout != nil {
		g, before = *p.Rollout, p.Rollout.Share
	}
	m.before, m.since = g, now
	if err := change(&g); err != nil {
		return false, err
	}
	c := e.climbs[name]
	if c == nil {
		c = &climb{inForce: before, counted: -1}
		e.climbs[name] = c
	}
	if old := c.move; old != nil && p.Rollout != nil && g.Share == p.Rollout.Share && old.then != nil {
		then := m.then // the one that is overtaken comes in force with this one
		m.then = func() {
			old.then()
			if then != nil {
				then()
			}
		}
	}
	p.Rollout = nil
	if g.Governs() {
		p.Rollout = &g
	}
	m.written = e.write(now, name)
	c.move, c.asked = m, 0
	return p.Rollout != nil && g.Share <= c.inForce, nil
}

// finishMove has requests decided by the share that a move has come to, unless it was
// overtaken.
func (e *engine) finishMove(name string, m *move) {
	e.mu.Lock()
	c := e.climbs[name]
	if c == nil || c.move != m {
		e.mu.Unlock()
		return
	}
	c.move = nil
	if g := e.kept[name].Rollout; g != nil {
		c.inForce = g.Share
	} else {
		delete(e.climbs, name)
	}
	e.mu.Unlock()
	e.stateChanged()
	if m.then != nil {
		m.then()
	}
}

// tickRollouts takes the time that has passed, and goes on where a step is due.
func (e *engine) tickRollouts(now time.Time, l listener) {
	for _, name := range e.climbing() {
		e.tickRollout(now, l, name)
	}
}

// climbing are the flags with progress, or with a move under way.
func (e *engine) climbing() (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, p := range e.kept {
		if p.Rollout != nil || e.climbs[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

func (e *engine) tickRollout(now time.Time, l listener, name string) {
	defer survive("driving the rollout of " + name)
	if e.tickMove(now, name) {
		return
	}
	def := l.flag(name)
	plan := rollout.PlanOf(def)
	c := e.due(now, name, plan)
	if c == nil {
		return
	}
	elapsed := min(now.Sub(c.last), longestPass)
	if c.last.IsZero() {
		elapsed, c.saved = 0, now
	}
	c.last = now
	hold, off := e.rolloutHold(now, def), l.whyOff(name, now)
	if hold == holdFeedback && off == "" {
		e.held(now, name, holdFeedback, "people rate the canary clearly worse than the control", func() any { return e.opinionsOf(now, name) })
	}
	pass := rollout.Passing{Elapsed: elapsed, Requests: e.canaryCame(name, c), Hold: hold, Warming: hold == monitors.HoldWarmUp}
	if off != "" {
		pass = rollout.Passing{Hold: off}
	}
	due, ask, status := e.passRollout(name, plan, c, pass, hold, off)
	c.dirty = c.dirty || pass.Elapsed > 0 || pass.Requests > 0
	switch {
	case due:
		e.advance(now, name, plan, status)
	case c.dirty && status.Phase != rollout.Complete && now.Sub(c.saved) >= rolloutSaved:
		c.dirty, c.saved = false, now
		e.keep(now, name, func(*progress) {})
	}
	if ask {
		reason := fmt.Sprintf("%s %% went well; the next step wants a person's approval: caddy feature-flags rollout %s promote", percent(status.Share), name)
		e.store.Note(now, state.AuditEntry{Action: actionHeld, Flag: name, By: "rollout", Reason: reason})
		e.tell(news{Event: eventHeld, At: now, Flag: name, By: "rollout", Reason: reason, Data: status})
	}
}

// tickMove finishes a move whose record is on disk. It tells whether there is one
// that is under way.
func (e *engine) tickMove(now time.Time, name string) bool {
	e.mu.Lock()
	var m *move
	if c := e.climbs[name]; c != nil {
		m = c.move
	}
	if m == nil {
		e.mu.Unlock()
		return false
	}
	finish := m.byHand && now.Sub(m.since) > patienceWithDisk
	select {
	case <-m.written.Done():
		switch {
		case m.written.Err() == nil || m.byHand:
			finish = true
		case now.Sub(m.since) >= rolloutEvery: // it is tried again until it is written
			m.written, m.since = e.write(now, name), now
		}
	default:
	}
	e.mu.Unlock()
	if finish {
		e.finishMove(name, m)
	}
	return true
}

// due returns what is remembered of a rollout whose time is to be taken; nil: it is
// not, or there is no plan.
func (e *engine) due(now time.Time, name string, plan *rollout.Plan) *climb {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.keptOf(name).Rollout
	if g == nil || plan == nil || !g.Follows(plan) {
		return nil
	}
	if c := e.climbOf(name); now.Sub(c.last) >= rolloutEvery {
		return c
	}
	return nil
}

// passRollout takes what has happened. due tells that the next step is, ask that a
// person is to be asked for it.
func (e *engine) passRollout(name string, plan *rollout.Plan, c *climb, pass rollout.Passing, hold, off string) (due, ask bool, s rollout.Status) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.keptOf(name).Rollout
	if g == nil || !g.Follows(plan) || e.climbs[name] != c || c.move != nil {
		return false, false, s
	}
	due = g.Pass(plan, pass)
	s = g.Status(plan, hold, off)
	if ask = s.Phase == rollout.Waiting && c.asked != s.Step; ask {
		c.asked = s.Step
	}
	return due, ask, s
}

var errOvertaken = errors.New("somebody was quicker")

// advance goes on to the next step, which was due a moment ago.
func (e *engine) advance(now time.Time, name string, plan *rollout.Plan, from rollout.Status) {
	var to rollout.Status
	m := &move{then: func() {
		reason := fmt.Sprintf("from %s to %s %%, step %d of %d, after %s and %d canary requests",
			percent(from.Share), percent(to.Share), to.Step, len(plan.Steps), from.Baked, from.Requests)
		if to.Phase == rollout.Complete {
			reason += "; the rollout is complete"
		}
		e.tellAdvance(now, name, "rollout", reason, to)
	}}
	_ = e.moveRollout(now, name, plan.Steps[0], m, func(g *rollout.Progress) error { // else it is not due any more
		if !g.Follows(plan) || g.Step+1 != from.Step || !g.Ready(plan) || e.store.Flag(name).Tripped() {
			return errOvertaken
		}
		g.Advance(plan, now)
		to = g.Status(plan, "", "")
		return nil
	})
}

// canaryCame returns how many requests the canary has had since the last time: what
// the guard has judged of them, where there is one.
func (e *engine) canaryCame(name string, c *climb) int64 {
	m := e.monitor(name)
	guard, n := m.Guard(), int64(0)
	if guard != nil {
		n = guard.Arrived()
	} else {
		for _, cell := range m.Cells() {
			if cell.Canary && cell.Reason == string(evaluator.ReasonSplit) {
				s := cell.Snapshot()
				n += int64(s.Total())
			}
		}
	}
	came := n - c.counted
	switch {
	case c.counted < 0 || guard != c.guard: // of another counter
		came = 0
	case came < 0: // of another epoch
		came = n
	}
	c.guard, c.counted = guard, n
	return came
}

// bakeAgain has a step bake anew after a trip, and undoes one that is not in force yet,
// in what is to be kept of the flag. The caller must hold mu.
func (e *engine) bakeAgain(name string, kept *progress) {
	g := kept.Rollout
	if g == nil {
		return
	}
	if c := e.climbs[name]; c != nil && c.move != nil && !c.move.byHand && g.Share > c.inForce {
		*g, c.move = c.move.before, nil
	}
	g.Again()
}

// dropRollout has a rollout begin anew, and a percentage that a person has set be
// the definition's again. nil: there was neither.
func (e *engine) dropRollout(now time.Time, name string) *state.Pending {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.keptOf(name)
	delete(e.climbs, name)
	if p.Rollout == nil {
		return nil
	}
	p.Rollout = nil
	return e.write(now, name)
}

// saveRollouts keeps how far all have come, when the process ends in order.
func (e *engine) saveRollouts(now time.Time) {
	for _, name := range e.climbing() {
		e.keep(now, name, func(*progress) {})
	}
}

// rolloutHold says why a flag must not go on, "" where nothing is against it. Where
// the guard has seen nobody, nothing is known.
func (e *engine) rolloutHold(now time.Time, def *evaluator.Flag) string {
	if e.store.Health().Degraded {
		return holdDegraded
	}
	if e.feedbackHold(now, def) {
		return holdFeedback
	}
	m := e.monitor(def.Name)
	if g := m.Guard(); g != nil {
		return g.Holds(now)
	}
	if m.Guarded() {
		return monitors.HoldSilence
	}
	return ""
}

// rolloutStatus tells people where a flag's rollout stands; nil: it has none, and
// nobody has set its percentage.
func (e *engine) rolloutStatus(now time.Time, def *evaluator.Flag, off string) *rollout.Status {
	plan := rollout.PlanOf(def)
	hold := e.rolloutHold(now, def)
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.keptOf(def.Name).Rollout
	if g == nil || !g.Follows(plan) {
		return nil
	}
	s := g.Status(plan, hold, off)
	return &s
}

// steer is what an operator orders of a rollout: an action, or a percentage.
type steer struct {
	Action     string   `json:"action"`
	Percentage *float64 `json:"percentage"`
	Reason     string   `json:"reason"`
	By         string   `json:"by"`
}

func (a *App) serveRollout(w http.ResponseWriter, r *http.Request) error {
	var s steer
	return a.changeWith(w, r, &s, func() *order { return &order{s.Reason, s.By} }, func(flag string, o order) error {
		return a.steer(flag, s, o)
	})
}

// steer does what somebody orders of a flag's rollout. The error is a refusal, or
// tells that it is not on disk.
func (a *App) steer(flag string, s steer, o order) error {
	now := time.Now()
	rs := a.rules.Load()
	i := rs.Index(flag)
	if i < 0 {
		return problem(http.StatusNotFound, "flag %q is not defined", flag)
	}
	plan := rollout.PlanOf(rs.Definition(i))
	what, action := "", actionRollout+"set"
	before, after := rs.Reach(i), rollout.Progress{}
	var change func(*rollout.Progress) error
	switch {
	case (s.Action == "") == (s.Percentage == nil):
		return problem(http.StatusBadRequest, `want one of "action" (pause, resume, promote, abort) and "percentage"`)
	case s.Percentage != nil:
		share, err := evaluator.ParseShare(*s.Percentage)
		if err != nil {
			return problem(http.StatusBadRequest, "percentage: %v", err)
		}
		what = "set to " + percent(share.Percent()) + " %"
		change = func(g *rollout.Progress) error {
			g.SetShare(plan, share, o.By, o.Reason, now)
			return nil
		}
	default:
		what, action = s.Action, actionRollout+s.Action
		change = func(g *rollout.Progress) error {
			return g.Do(plan, rollout.Action(s.Action), o.By, o.Reason, now)
		}
	}
	m := &move{byHand: true}
	err := a.engine.moveRollout(now, flag, before, m, func(g *rollout.Progress) error {
		if g.Governs() {
			before = g.Share
		}
		err := change(g)
		after = *g
		return err
	})
	if err != nil {
		status := http.StatusConflict
		if errors.Is(err, rollout.ErrUnknown) {
			status = http.StatusBadRequest
		}
		return problem(status, "flag %q: %v", flag, err)
	}
	unsaved := waitFor(now.Add(patienceWithDisk), m.written)
	a.engine.finishMove(flag, m)
	status := a.engine.rolloutStatus(now, rs.Definition(i), "")
	share := after.Share
	if !after.Governs() {
		if rs := a.rules.Load(); rs.Index(flag) >= 0 {
			share = rs.Reach(rs.Index(flag))
		}
	}
	a.engine.store.Note(now, state.AuditEntry{Action: action, Flag: flag, By: o.By, Reason: movedWords(before, share, status) + reasonBehind(o.Reason)})
	a.engine.tell(news{Event: eventOverridden, At: now, Flag: flag, By: o.By, Reason: o.Reason, Data: map[string]any{"override": "rollout: " + what, "rollout": status}})
	return unsaved
}
