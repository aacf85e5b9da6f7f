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

// climb is what the engine remembers of a flag's rollout beside its progress.
type climb struct {
	// The engine's mu guards these.
	inForce  evaluator.Share // the share that requests are decided by
	writing  *state.Pending  // of the progress whose share is to come in force; nil: it is
	deadline time.Time       // when it comes in force even if the disk has not answered
	then     func()          // to be called once it is

	// These are the ticker's.
	last     time.Time       // when time was last taken
	saved    time.Time       // when the progress was last kept
	dirty    bool            // it has changed since
	guard    *monitors.Guard // whose requests are counted; nil: the flag's own
	counted  int64           // of them
	awaiting int             // the step whose approval was asked for
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
	g := e.keptOf(def.Name).Rollout
	if g == nil || !g.Follows(rollout.PlanOf(def)) {
		return nil
	}
	share := e.climbOf(def.Name).inForce
	return &share
}

// climbOf returns what is remembered of the rollout of a flag that has progress. The
// caller must hold mu.
func (e *engine) climbOf(name string) *climb {
	c := e.climbs[name]
	if c == nil {
		c = &climb{inForce: e.kept[name].Rollout.Share}
		e.climbs[name] = c
	}
	return c
}

// configureRollout has a flag's rollout follow its definition: a new one begins, and
// one with other steps begins anew.
func (e *engine) configureRollout(now time.Time, def *evaluator.Flag) {
	plan := rollout.PlanOf(def)
	e.mu.Lock()
	g := e.keptOf(def.Name).Rollout
	same := g == nil && plan == nil || g != nil && g.Follows(plan)
	if !same {
		delete(e.climbs, def.Name)
	}
	e.mu.Unlock()
	switch {
	case same:
	case plan == nil:
		e.keep(now, def.Name, func(p *progress) { p.Rollout = nil })
	default:
		begun := rollout.Begin(plan, now)
		e.keep(now, def.Name, func(p *progress) { p.Rollout = &begun })
		e.tellAdvance(now, def.Name, "rollout", fmt.Sprintf("the rollout begins at %s %%", percent(begun.Share.Percent())), begun.Status(plan, "", ""))
	}
}

func (e *engine) tellAdvance(now time.Time, flag, by, reason string, s rollout.Status) {
	e.store.Note(now, state.AuditEntry{Action: actionAdvanced, Flag: flag, By: by, Reason: reason})
	e.tell(news{Event: eventAdvanced, At: now, Flag: flag, By: by, Reason: reason, Data: map[string]any{"percentage": s.Share, "rollout": s}})
}

// moveRollout changes a flag's progress. A share that rises comes in force when it
// is on disk, so that a process that is killed takes nothing away from anybody; one
// that falls does at once. then is called after that, and may be nil.
func (e *engine) moveRollout(now time.Time, name string, before evaluator.Share, change func(*rollout.Progress) error, then func()) (*state.Pending, error) {
	var failed error
	e.mu.Lock()
	if e.climbs[name] == nil {
		e.climbs[name] = &climb{inForce: before}
	}
	e.mu.Unlock()
	pending := e.keep(now, name, func(p *progress) {
		g := rollout.Progress{Step: -1}
		if p.Rollout != nil {
			g = *p.Rollout
		}
		if failed = change(&g); failed != nil {
			return
		}
		p.Rollout = &g
		if g.Order == "" && len(g.Of) == 0 {
			p.Rollout = nil // the definition's own percentage again
		}
	})
	if failed != nil {
		return nil, failed
	}
	e.mu.Lock()
	c := e.climbs[name]
	c.writing, c.deadline, c.then, c.awaiting = pending, now.Add(patienceWithDisk), then, 0
	g := e.kept[name].Rollout
	atOnce := g == nil || g.Share <= c.inForce
	e.mu.Unlock()
	if atOnce {
		e.putInForce(name)
	}
	return pending, nil
}

// putInForce has requests decided by the share that a flag's rollout has come to.
func (e *engine) putInForce(name string) {
	e.mu.Lock()
	c := e.climbs[name]
	if c == nil || c.writing == nil {
		e.mu.Unlock()
		return
	}
	then := c.then
	c.writing, c.then = nil, nil
	if g := e.kept[name].Rollout; g != nil {
		c.inForce = g.Share
	} else {
		delete(e.climbs, name)
	}
	e.mu.Unlock()
	e.stateChanged()
	if then != nil {
		then()
	}
}

// tickRollouts takes the time that has passed, and goes on where a step is due.
func (e *engine) tickRollouts(now time.Time, l listener) {
	e.mu.Lock()
	var names []string
	for name, p := range e.kept {
		if p.Rollout != nil {
			names = append(names, name)
		}
	}
	e.mu.Unlock()
	for _, name := range names {
		e.tickRollout(now, l, name)
	}
}

func (e *engine) tickRollout(now time.Time, l listener, name string) {
	defer survive("driving the rollout of " + name)
	def := l.flag(name)
	if def == nil {
		return
	}
	plan := rollout.PlanOf(def)
	e.mu.Lock()
	g := e.keptOf(name).Rollout
	if g == nil || !g.Follows(plan) {
		e.mu.Unlock()
		return
	}
	c := e.climbOf(name)
	writing, deadline := c.writing, c.deadline
	e.mu.Unlock()
	if writing != nil {
		select {
		case <-writing.Done():
			e.putInForce(name)
		default:
			if now.After(deadline) {
				e.putInForce(name)
			}
		}
		return
	}
	elapsed := now.Sub(c.last)
	if plan == nil || elapsed < rolloutEvery {
		return
	}
	if c.last.IsZero() {
		elapsed = 0
	}
	c.last = now
	hold, off := e.rolloutHold(now, name), l.whyOff(name, now)
	pass := rollout.Passing{Elapsed: min(elapsed, longestPass), Requests: e.canaryCame(name, c), Hold: hold, Warming: hold == monitors.HoldWarmUp}
	if off != "" {
		pass.Elapsed, pass.Hold, pass.Warming = 0, off, false
	}

	e.mu.Lock()
	due := false
	if g = e.keptOf(name).Rollout; g != nil && g.Follows(plan) && c.writing == nil {
		due = g.Pass(plan, pass)
	}
	if g == nil {
		e.mu.Unlock()
		return
	}
	status := g.Status(plan, hold, off)
	e.mu.Unlock()
	c.dirty = c.dirty || pass.Elapsed > 0 || pass.Requests > 0
	switch {
	case due:
		e.advance(now, name, plan)
	case c.dirty && status.Phase != rollout.Complete && now.Sub(c.saved) >= rolloutSaved:
		c.dirty, c.saved = false, now
		e.keep(now, name, func(*progress) {})
	}
	if status.Phase == rollout.Waiting && c.awaiting != status.Step {
		c.awaiting = status.Step
		reason := fmt.Sprintf("%s %% went well; the next step wants a person's approval: caddy feature-flags rollout %s promote", percent(status.Share), name)
		e.store.Note(now, state.AuditEntry{Action: actionHeld, Flag: name, By: "rollout", Reason: reason})
		e.tell(news{Event: eventHeld, At: now, Flag: name, By: "rollout", Reason: reason, Data: status})
	}
}

// advance goes on to the next step, which was due a moment ago.
func (e *engine) advance(now time.Time, name string, plan *rollout.Plan) {
	var from, to rollout.Status
	_, err := e.moveRollout(now, name, plan.Steps[0], func(g *rollout.Progress) error {
		if g.Order != "" || g.Step >= len(plan.Steps)-1 || !g.Follows(plan) {
			return errors.New("somebody was quicker")
		}
		from = g.Status(plan, "", "")
		g.Advance(plan, now)
		to = g.Status(plan, "", "")
		return nil
	}, func() {
		reason := fmt.Sprintf("from %s to %s %%, step %d of %d, after %s and %d canary requests",
			percent(from.Share), percent(to.Share), to.Step, len(plan.Steps), from.Baked, from.Requests)
		if to.Phase == rollout.Complete {
			reason += "; the rollout is complete"
		}
		e.tellAdvance(now, name, "rollout", reason, to)
	})
	_ = err // it is not due any more
}

// canaryCame returns how many requests the canary has had since the last time: what
// the guard has judged, where there is one.
func (e *engine) canaryCame(name string, c *climb) int64 {
	m := e.monitor(name)
	guard, n := m.Guard(), int64(0)
	if guard != nil {
		n = guard.Arrived()
	} else {
		sum := m.Cohort(true)
		n = int64(sum.Total())
	}
	came := n - c.counted
	if c.saved.IsZero() || guard != c.guard || came < 0 { // of another counter
		came = 0
	}
	if c.saved.IsZero() {
		c.saved = c.last
	}
	c.guard, c.counted = guard, n
	return came
}

// rolloutHold says why a flag must not go on, "" where nothing is against it.
func (e *engine) rolloutHold(now time.Time, name string) string {
	if e.store.Health().Degraded {
		return holdDegraded
	}
	if g := e.monitor(name).Guard(); g != nil {
		return g.Holds(now)
	}
	return ""
}

// rolloutStatus tells people where a flag's rollout stands; nil: it has none, and
// nobody has set its percentage.
func (e *engine) rolloutStatus(now time.Time, def *evaluator.Flag, off string) *rollout.Status {
	plan := rollout.PlanOf(def)
	hold := e.rolloutHold(now, def.Name)
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.keptOf(def.Name).Rollout
	if g == nil || !g.Follows(plan) {
		return nil
	}
	s := g.Status(plan, hold, off)
	return &s
}

// againRollout has a step bake anew after a trip.
func (e *engine) againRollout(now time.Time, name string) {
	e.mu.Lock()
	has := e.keptOf(name).Rollout != nil
	e.mu.Unlock()
	if has {
		e.keep(now, name, func(p *progress) { p.Rollout.Again() })
	}
}

// dropRollout has a rollout begin anew, and a percentage that a person has set be
// the definition's again.
func (e *engine) dropRollout(now time.Time, name string) *state.Pending {
	e.mu.Lock()
	has := e.keptOf(name).Rollout != nil
	delete(e.climbs, name)
	e.mu.Unlock()
	if !has {
		return nil
	}
	return e.keep(now, name, func(p *progress) { p.Rollout = nil })
}

// saveRollouts keeps how far all have come, when the process ends in order.
func (e *engine) saveRollouts(now time.Time) {
	e.mu.Lock()
	var names []string
	for name, p := range e.kept {
		if p.Rollout != nil {
			names = append(names, name)
		}
	}
	e.mu.Unlock()
	for _, name := range names {
		e.keep(now, name, func(*progress) {})
	}
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
		now := time.Now()
		rs := a.rules.Load()
		i := rs.Index(flag)
		if i < 0 {
			return problem(http.StatusNotFound, "flag %q is not defined", flag)
		}
		plan := rollout.PlanOf(rs.Definition(i))
		what, action := "", actionRollout+"set"
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
		pending, err := a.engine.moveRollout(now, flag, rs.Share(i), change, nil)
		if err != nil {
			status := http.StatusConflict
			if errors.Is(err, rollout.ErrUnknown) {
				status = http.StatusBadRequest
			}
			return problem(status, "flag %q: %v", flag, err)
		}
		unsaved := waitFor(now.Add(patienceWithDisk), pending)
		a.engine.putInForce(flag)
		status := a.engine.rolloutStatus(now, rs.Definition(i), "")
		a.engine.store.Note(now, state.AuditEntry{Action: action, Flag: flag, By: o.By, Reason: o.Reason})
		a.engine.tell(news{Event: eventOverridden, At: now, Flag: flag, By: o.By, Reason: o.Reason, Data: map[string]any{"override": "rollout: " + what, "rollout": status}})
		return unsaved
	})
}
