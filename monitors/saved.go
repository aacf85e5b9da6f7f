package monitors

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// SavedGuard is the evidence of a guard, to go on with after a restart.
type SavedGuard struct {
	Version    int              `json:"version"`
	Config     GuardConfig      `json:"config"` // under which it was found
	Begun      time.Time        `json:"begun"`
	Errors     *savedTest       `json:"errors,omitempty"`
	Late       *savedTest       `json:"late,omitempty"`
	Latency    []*savedTest     `json:"latency,omitempty"`
	Arrivals   *savedTest       `json:"arrivals,omitempty"`
	Engagement *savedTest       `json:"engagement,omitempty"`
	Proof      *savedTest       `json:"proof,omitempty"`
	Past       map[int]uint32   `json:"past,omitempty"` // the control's times to the first byte
	Judged     map[string]int64 `json:"judged"`
	Requests   [2]int64         `json:"requests"` // of the control and of the canary
	Bad        [2]int64         `json:"bad"`
}

// savedVersion changes with what the numbers mean: evidence of another version
// is not gone on with.
const savedVersion = 2

type savedTest struct {
	Bets   []savedBet `json:"bets"`
	Blocks int        `json:"blocks,omitempty"`
	Bad    float64    `json:"bad,omitempty"`
	Seen   float64    `json:"seen,omitempty"`
}

type savedBet struct {
	LogR  *float64 `json:"log_r"` // null: −∞
	Decay float64  `json:"decay"`
	Seeds int      `json:"seeds"`
}

func (d *detector) save() *savedTest {
	s := &savedTest{}
	for _, b := range d.bets[:d.n] {
		s.Bets = append(s.Bets, savedBet{finite(b.logR), b.decay, b.seeds})
	}
	return s
}

func (d *detector) restore(s *savedTest) error {
	if s == nil || len(s.Bets) != d.n {
		return fmt.Errorf("want %d bets", d.n)
	}
	any := false
	for k, b := range s.Bets {
		d.bets[k] = bet{logR: math.Inf(-1), decay: b.Decay, seeds: b.Seeds}
		if b.LogR != nil {
			d.bets[k].logR = *b.LogR
			any = true
		}
		if b.Seeds < 0 || math.IsNaN(d.bets[k].logR) || !(b.Decay >= 0 && b.Decay < 1e6) {
			return fmt.Errorf("bet %d: %+v makes no sense", k, b)
		}
	}
	if any {
		d.settle()
	}
	return nil
}

func (t *proportions) save() *savedTest {
	if t == nil {
		return nil
	}
	s := t.detector.save()
	s.Blocks, s.Bad, s.Seen = t.blocks, t.bad, t.seen
	return s
}

func (t *proportions) restore(s *savedTest) error {
	if t == nil {
		return nil
	}
	if err := t.detector.restore(s); err != nil {
		return err
	}
	if s.Blocks < 0 || !(s.Bad >= 0) || !(s.Seen >= 0) {
		return fmt.Errorf("%d blocks, %g of %g bad make no sense", s.Blocks, s.Bad, s.Seen)
	}
	t.blocks, t.bad, t.seen = s.Blocks, s.Bad, s.Seen
	t.reread()
	return nil
}

// Save returns what the guard has found so far; nil once it has tripped.
func (g *Guard) Save() *SavedGuard {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tripped != "" {
		return nil
	}
	s := &SavedGuard{
		Version: savedVersion, Config: g.config, Begun: g.shown.UTC(), Requests: g.arrived, Bad: g.bad, Past: map[int]uint32{},
		Errors: g.judge.errors.save(), Late: g.judge.late.save(), Engagement: g.judge.engagement.save(),
		Judged: map[string]int64{"n1": g.sum.errors.N1, "x1": g.sum.errors.X1, "n0": g.sum.errors.N0, "x0": g.sum.errors.X0},
	}
	if g.judge.arrivals != nil {
		s.Arrivals = g.judge.arrivals.detector.save()
	}
	if g.judge.latency != nil {
		for _, t := range g.judge.latency {
			s.Latency = append(s.Latency, t.save())
		}
	}
	if g.recovery != nil {
		s.Proof = g.recovery.proof.save()
	}
	g.past[control].each(func(i int, b *uint32) {
		if *b > 0 {
			s.Past[i] = *b
		}
	})
	return s
}

// RestoreGuard makes a guard that goes on, from now, where a saved one was. The
// configuration must be the same; an error tells that it is not, or that the text
// makes no sense: then a new guard is due.
func RestoreGuard(now time.Time, c GuardConfig, text json.RawMessage) (*Guard, error) {
	var s SavedGuard
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("saved evidence: %w", err)
	}
	if s.Version != savedVersion {
		return nil, fmt.Errorf("saved evidence: version %d, want %d", s.Version, savedVersion)
	}
	if !s.Config.same(&c) {
		return nil, errors.New("saved evidence: of a guard that was configured otherwise")
	}
	g := NewGuard(now, c)
	wrong := func(what string, err error) (*Guard, error) {
		return nil, fmt.Errorf("saved evidence: %s: %w", what, err)
	}
	if err := g.judge.errors.restore(s.Errors); err != nil {
		return wrong("errors", err)
	}
	if err := g.judge.late.restore(s.Late); err != nil {
		return wrong("late", err)
	}
	if err := g.judge.engagement.restore(s.Engagement); err != nil {
		return wrong("engagement", err)
	}
	if g.judge.arrivals != nil {
		if err := g.judge.arrivals.detector.restore(s.Arrivals); err != nil {
			return wrong("arrivals", err)
		}
	}
	if g.judge.latency != nil {
		for q, t := range g.judge.latency {
			if len(s.Latency) != len(latencyQuantiles) {
				return wrong("latency", fmt.Errorf("want %d tests", len(latencyQuantiles)))
			}
			if err := t.restore(s.Latency[q]); err != nil {
				return wrong("latency", err)
			}
		}
	}
	if g.recovery != nil {
		if err := g.recovery.proof.restore(s.Proof); err != nil {
			return wrong("proof", err)
		}
	}
	for i, n := range s.Past {
		if i >= 0 && i < sketchBuckets {
			*g.past[control].bucket(i) += n
		}
	}
	g.limits = newSlowLimits(&g.past[control], g.unlike.tolerance(c.TolerateSlow, 0)) // of users nothing is known yet
	g.patience = patienceAfter(&g.past[control])
	g.sum.errors = Stratum{s.Judged["n1"], s.Judged["x1"], s.Judged["n0"], s.Judged["x0"]}
	g.calm.errors = g.sum.errors
	g.victims.after = g.sum.errors.N1
	g.arrived, g.bad = s.Requests, s.Bad
	if !s.Begun.IsZero() && s.Begun.Before(now) {
		g.shown = s.Begun
	}
	g.evidence = g.judge.evidence()
	return g, nil
}
