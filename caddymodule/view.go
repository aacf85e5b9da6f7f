package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
	"github.com/seed-6adbc061/caddy-feature-flags/state"
)

// flagView is what the API tells about a flag.
type flagView struct {
	Name       string             `json:"name"`
	Status     string             `json:"status"`     // on, split, off, disabled, tripped, half_open, inactive
	Percentage float64            `json:"percentage"` // in force; 0 while off for everyone
	Variants   []string           `json:"variants"`
	Definition json.RawMessage    `json:"definition"`
	Source     string             `json:"source"`
	Position   evaluator.Position `json:"position"`
	State      stateView          `json:"state"`
	Guard      guardView          `json:"guard"`
	Rollout    *rollout.Status    `json:"rollout,omitempty"`

	Mirror    *monitors.MirrorFigures `json:"mirror,omitempty"`   // of copies of requests, where there were any
	Opinions  *monitors.Opinions      `json:"opinions,omitempty"` // what people have said, where anybody has
	FirstSeen *time.Time              `json:"first_seen,omitempty"`
	LastAsked *time.Time              `json:"last_asked,omitempty"`
	Warning   string                  `json:"warning,omitempty"` // of a change that is not on disk
}

// stateView is what was flipped at run time.
type stateView struct {
	Override *state.Override `json:"override,omitempty"`
	Tripped  bool            `json:"tripped"`
	Trips    []state.Trip    `json:"trips"`               // open ones, oldest first
	Retry    *time.Time      `json:"retry_at,omitempty"`  // when the cool-down is over
	HalfOpen *time.Time      `json:"half_open,omitempty"` // since when
	Failures int             `json:"failures,omitempty"`  // times in a row that it tripped again while half-open
}

// guardView are the monitors' figures.
type guardView struct {
	monitors.Status
	Figures map[string]monitors.Figures `json:"figures"` // canary and control, since the process began
}

func (a *App) view(r *rules, i int, now time.Time) flagView {
	def := r.Definition(i)
	kept := r.kept[def.Name] // what is in force in these rules, as status and percentage are
	m := r.monitors[i].flag
	v := flagView{
		Name: def.Name, Variants: r.Variants(i), Definition: def.Raw, Source: def.Source, Position: def.Pos,
		Percentage: a.percentage(r, i),
		State:      stateView{Tripped: kept.Tripped(), Trips: kept.Trips},
		Guard:      guardView{Status: m.Status(now), Figures: figures(m)},
	}
	g := a.engine.guardOf(def.Name)
	v.Mirror = a.engine.mirrorFigures(def.Name)
	if o := a.engine.opinionsOf(now, def.Name); o.Total > 0 {
		v.Opinions = &o
	}
	v.Rollout = a.engine.rolloutStatus(now, def, a.offIn(r, i, now))
	v.FirstSeen = a.engine.firstSeen(def.Name)
	v.State.Retry, v.State.Failures = g.Retry, g.Failures
	if g.Probe != nil {
		v.State.HalfOpen = &g.Probe.Since
	}
	if v.State.Trips == nil {
		v.State.Trips = []state.Trip{}
	}
	if kept.Override.Kind != state.Cleared {
		v.State.Override = &kept.Override
	}
	if at := m.LastAsked(); !at.IsZero() {
		v.LastAsked = &at
	}
	v.Status = a.status(r, i, now)
	return v
}

// status is how flag i stands, in a word.
func (a *App) status(r *rules, i int, now time.Time) string {
	switch s := r.State(i); {
	case s.Override == evaluator.Disabled:
		return "disabled"
	case s.Probing:
		return "half_open"
	case s.Tripped != "":
		return "tripped"
	case !r.Definition(i).Active && s.Override != evaluator.Enabled:
		return "inactive"
	case !r.InForce(i, a.environment, now):
		return "off"
	case r.Splits(i):
		return "split"
	}
	return "on"
}

// percentage is the share in force, 0 while the flag is off for everyone.
func (a *App) percentage(r *rules, i int) float64 {
	if !r.InForce(i, a.environment, time.Now()) {
		return 0
	}
	return r.Share(i).Percent()
}

func figures(m *monitors.Flag) map[string]monitors.Figures {
	canary, control := m.Cohort(true), m.Cohort(false)
	return map[string]monitors.Figures{"canary": canary.Figures(), "control": control.Figures()}
}

// didYouMean names the flag that is spelt most nearly so, if one is.
func didYouMean(name string, known []string) string {
	if len(name) > 128 {
		return ""
	}
	same := func(s string) string { return strings.ToLower(evaluator.HeaderName(s)) }
	best, least := "", max(1, len(name)/3)+1
	for _, k := range known {
		if d := distance(same(k), same(name)); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance is the fewest one-letter edits from a to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(row[j]+1, before+1, cost)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
