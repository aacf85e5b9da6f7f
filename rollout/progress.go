// Package rollout moves a flag's percentage step by step. It holds the plan, how far
// it has come, and what people order; whoever drives it says how time passes, how
// many requests the canary has had and what its guard thinks. It knows no clock, no
// disk and no flags.
package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// Progress is how far a flag's rollout has come, or what a person has set in its
// place. It is kept as JSON. Not safe for concurrent use.
type Progress struct {
	// Of is the plan's steps when it began; with others it begins anew. Empty: there
	// is no plan, and a person has set the share.
	Of []evaluator.Share `json:"of,omitempty"`

	// Step that the share is of, from 0; -1 while it is below the first one.
	Step int `json:"step"`

	// Share in force.
	Share evaluator.Share `json:"share"`

	// Order is what a person wants; "" lets the rollout go on.
	Order Order `json:"order,omitempty"`

	// By is who has given the order, and Reason why.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`

	// Since is when the share came in force, for people to read.
	Since time.Time `json:"since"`

	// Baked is for how long the step has been well, and Requests how many the canary
	// has had at it.
	Baked    time.Duration `json:"baked,omitempty"`
	Requests int64         `json:"requests,omitempty"`
}

// Order is what a person wants of a rollout.
type Order string

// The orders that stand until another one.
const (
	Paused  Order = "paused"  // stays where it is
	Aborted Order = "aborted" // back to what was before
	Set     Order = "set"     // at a percentage of a person's own
)

// Plan is a definition's rollout, made ready.
type Plan struct {
	Steps       []evaluator.Share // that only climb or only fall; one at least
	Stay        time.Duration     // at each step at least
	MinRequests int64             // of the canary, at each step at least
	Approve     []evaluator.Share // steps that go on when a person says so
	Before      evaluator.Share   // in force when it is aborted
}

// PlanOf returns a definition's plan; nil where it has no rollout.
func PlanOf(def *evaluator.Flag) *Plan {
	if def == nil || def.Rollout == nil {
		return nil
	}
	p := &Plan{MinRequests: def.Rollout.MinRequests, Approve: def.Rollout.Approve}
	p.Steps, p.Stay = def.Rollout.Schedule()
	switch {
	case def.Percentage != nil:
		p.Before = *def.Percentage
	case p.falls():
		p.Before = evaluator.WholeShare
	}
	return p
}

// falls tells whether the percentage falls from step to step.
func (p *Plan) falls() bool {
	if n := len(p.Steps); n > 1 {
		return p.Steps[n-1] < p.Steps[0]
	}
	return p.Steps[0] == 0
}

// Begin returns the progress of a plan that begins now.
func Begin(p *Plan, now time.Time) Progress {
	return Progress{Of: slices.Clone(p.Steps), Share: p.Steps[0], Since: now.UTC()}
}

// Follows tells whether the progress is one of the plan, nil for none: the steps are
// the same.
func (g *Progress) Follows(p *Plan) bool {
	if p == nil {
		return len(g.Of) == 0
	}
	return slices.Equal(g.Of, p.Steps)
}

// Governs tells whether the flag has the progress's share; else it has its
// definition's.
func (g *Progress) Governs() bool { return g.Order != "" || len(g.Of) > 0 }

// Passing is what has happened since the last time.
type Passing struct {
	Elapsed  time.Duration // while the flag was in force and the process ran
	Requests int64         // of the canary
	Hold     string        // why it must not go on, in the guard's words; "" nothing is against it
	Warming  bool          // the reason to hold is that the canary warms up, which is part of its baking
}

// Pass takes what has happened. It tells whether the next step is due; the caller
// then calls Advance.
func (g *Progress) Pass(p *Plan, now Passing) (due bool) {
	g.Requests += now.Requests
	if g.Order != "" || g.complete(p) {
		return false
	}
	if now.Hold == "" || now.Warming {
		g.Baked += now.Elapsed
	}
	return now.Hold == "" && g.Ready(p)
}

// Ready tells whether the next step is due as far as the rollout itself goes.
func (g *Progress) Ready(p *Plan) bool {
	return g.Order == "" && !g.complete(p) && g.ready(p) && !g.wantsApproval(p)
}

// ready tells whether the step has lasted long enough and had requests enough.
func (g *Progress) ready(p *Plan) bool {
	return g.Baked >= p.Stay && g.Requests >= g.wanted(p)
}

// wanted is how many requests of the canary the step asks for: none where there is
// no canary or nothing else.
func (g *Progress) wanted(p *Plan) int64 {
	if g.Share <= 0 || g.Share >= evaluator.WholeShare {
		return 0
	}
	return p.MinRequests
}

func (g *Progress) wantsApproval(p *Plan) bool {
	return g.Step >= 0 && slices.Contains(p.Approve, p.Steps[g.Step])
}

func (g *Progress) complete(p *Plan) bool { return g.Step >= len(p.Steps)-1 }

// Advance goes on to the next step.
func (g *Progress) Advance(p *Plan, now time.Time) {
	g.to(g.Step+1, p.Steps[g.Step+1], now)
}

func (g *Progress) to(step int, share evaluator.Share, now time.Time) {
	*g = Progress{Of: g.Of, Step: step, Share: share, Since: now.UTC()}
}

// Again has the step bake anew.
func (g *Progress) Again() { g.Baked, g.Requests = 0, 0 }

// Action is what a person can do.
type Action string

// The actions.
const (
	Pause   Action = "pause"   // stay at this step
	Resume  Action = "resume"  // go on; an aborted rollout begins anew
	Promote Action = "promote" // go on to the next step at once
	Abort   Action = "abort"   // back to what was before the rollout
)

// ErrUnknown is wrapped by the error of an action that there is none of.
var ErrUnknown = errors.New("action")

// Do does what a person orders. The error, in words, says why that cannot be; g is
// as it was then.
func (g *Progress) Do(p *Plan, a Action, by, reason string, now time.Time) error {
	switch a {
	case Pause, Resume, Promote, Abort:
	default:
		return fmt.Errorf("%w: want pause, resume, promote or abort, got %q", ErrUnknown, a)
	}
	if p == nil && a != Resume {
		return errors.New("its definition has no rollout; a percentage can be set, and resume ends that")
	}
	switch {
	case a == Resume && g.Order == "":
		return errors.New("the rollout is not stopped")
	case a == Resume && p == nil:
		*g = Progress{}
	case a == Resume && g.Order == Aborted:
		g.to(0, p.Steps[0], now)
	case a == Resume && g.Order == Set:
		share := g.Share
		g.to(p.behind(share), share, now)
	case a == Resume:
		g.Order, g.By, g.Reason = "", "", ""
	case a == Pause && g.Order != "":
		return fmt.Errorf("the rollout is %s already", g.Order)
	case a == Abort && g.Order == Aborted:
		return errors.New("the rollout is aborted already")
	case a == Abort:
		g.to(-1, p.Before, now)
		g.Order, g.By, g.Reason = Aborted, by, reason
	case a == Pause && g.complete(p):
		return errors.New("the rollout is complete")
	case a == Pause:
		g.Order, g.By, g.Reason = Paused, by, reason
	case g.Order == Aborted:
		return errors.New("the rollout is aborted: resume begins it anew")
	default:
		next := g.Step + 1
		if g.Order == Set {
			next = p.behind(g.Share) + 1
		}
		if next >= len(p.Steps) {
			return errors.New("the rollout is at its last step")
		}
		g.to(next, p.Steps[next], now)
	}
	return nil
}

// behind returns the last step that a share has reached, -1 for none.
func (p *Plan) behind(share evaluator.Share) int {
	step := -1
	for i, s := range p.Steps {
		if s == share || (s < share) != p.falls() {
			step = i
		}
	}
	return step
}

// SetShare sets a percentage of a person's own. Without a plan p is nil.
func (g *Progress) SetShare(p *Plan, share evaluator.Share, by, reason string, now time.Time) {
	if p != nil {
		g.Of = slices.Clone(p.Steps)
	}
	g.to(g.Step, share, now)
	g.Order, g.By, g.Reason = Set, by, reason
}

// Status is where a rollout stands, for people.
type Status struct {
	Step     int              `json:"step"`  // from 1; 0 before the first
	Steps    []float64        `json:"steps"` // per cent
	Share    float64          `json:"share"` // per cent
	Phase    Phase            `json:"phase"`
	Reason   string           `json:"reason,omitempty"` // of the phase
	Next     *float64         `json:"next,omitempty"`   // per cent; nil: there is no next step
	Since    time.Time        `json:"since"`
	Baked    evaluator.Length `json:"baked"`
	Bake     evaluator.Length `json:"bake"`
	Requests int64            `json:"requests"`
	Wanted   int64            `json:"min_requests"`
	By       string           `json:"by,omitempty"` // who has given the order that stands
}

// Phase is what a rollout does.
type Phase string

// The phases. The ones that an order stands for have its name.
const (
	Baking   Phase = "baking"   // until the step has lasted and had requests enough
	Held     Phase = "held"     // the guard says so
	Waiting  Phase = "waiting"  // for a person's approval
	Complete Phase = "complete" // at its last step
	Stopped  Phase = "stopped"  // the flag is not in force
)

// Status says where it stands while hold, in the guard's words, is what keeps it; ""
// nothing does. off, likewise, is why the flag is not in force.
func (g *Progress) Status(p *Plan, hold, off string) Status {
	s := Status{
		Step: g.Step + 1, Share: g.Share.Percent(), Since: g.Since, By: g.By, Phase: Baking,
		Baked: evaluator.Length(g.Baked.Truncate(time.Second)), Requests: g.Requests, Steps: []float64{},
	}
	if p != nil {
		for _, share := range p.Steps {
			s.Steps = append(s.Steps, share.Percent())
		}
		s.Bake, s.Wanted = evaluator.Length(p.Stay), g.wanted(p)
		if g.Order == Set {
			s.Step = p.behind(g.Share) + 1
		}
		if next := s.Step; g.Order != Aborted && next < len(p.Steps) {
			n := p.Steps[next].Percent()
			s.Next = &n
		}
	}
	switch {
	case g.Order != "":
		s.Phase, s.Reason = Phase(g.Order), g.Reason
	case off != "":
		s.Phase, s.Reason = Stopped, off
	case p == nil || g.complete(p):
		s.Phase = Complete
	case hold != "":
		s.Phase, s.Reason = Held, hold
	case g.ready(p) && g.wantsApproval(p):
		s.Phase, s.Reason = Waiting, "wants a person's approval: promote"
	case g.Requests < s.Wanted:
		s.Reason = strconv.FormatInt(g.Requests, 10) + " of " + strconv.FormatInt(s.Wanted, 10) + " canary requests"
	default:
		s.Reason = g.Baked.Truncate(time.Second).String() + " of " + p.Stay.String()
	}
	return s
}
