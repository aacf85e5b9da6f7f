package evaluator

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// State is what was flipped at run time for one flag; the zero State is none.
type State struct {
	Override Override
	Tripped  string // the test that tripped it ("errors", …); "" not tripped
	Probing  bool   // tripped, and half-open: on for Share all the same
	Share    *Share // in force instead of the definition's percentage; nil: the definition's
}

// Override is a person's word over a definition's `active`.
type Override string

// The overrides. Enabled acts as if `active: true`: targeting stays in force,
// and a trip is not undone.
const (
	NoOverride Override = ""
	Enabled    Override = "enabled"
	Disabled   Override = "disabled"
)

// Ruleset is a program together with run-time state: what requests are decided
// by. Immutable; safe for concurrent use.
type Ruleset struct {
	program  *Program
	flags    []compiled
	groups   []group
	segments map[string]*segment
	reads    [][]string
	states   map[string]State
}

// With returns the ruleset of the program with the given state by flag name;
// state of unknown flags is ignored. It parses nothing: a thousand flags take
// well under a millisecond.
func (p *Program) With(states map[string]State) *Ruleset {
	r := &Ruleset{program: p, flags: slices.Clone(p.flags), groups: p.groups, segments: p.segments, reads: p.reads, states: maps.Clone(states)}
	var hashed map[int]string // flags that hash an attribute only because of their state
	for i := range r.flags {
		f := &r.flags[i]
		s := states[f.def.Name]
		switch {
		case s.Override == Disabled:
			f.gate = f.off(ReasonDisabled, "override")
		case s.Tripped != "" && !(s.Probing && f.def.Guard.Enabled):
			f.gate = f.off(ReasonDisabled, "tripped:"+s.Tripped)
		case !f.def.Active && s.Override != Enabled:
			f.gate = f.off(ReasonDisabled, "inactive")
		}
		f.threshold = wholeShare
		hasShare := true
		switch {
		case s.Share != nil:
			f.threshold = int64(*s.Share)
			f.splits = f.threshold > 0 && f.threshold < wholeShare || len(f.weights) > 1
			if f.threshold < wholeShare && !slices.Contains(f.reads, f.hashName()) {
				if hashed == nil {
					hashed = map[int]string{}
				}
				hashed[i] = f.hashName()
			}
		case f.start != nil:
			f.threshold = int64(*f.start)
		default:
			hasShare = false
		}
		if s.Probing { // on for nobody but by the split, and never for more than the definition lets in
			f.users = nil
			f.rules = slices.DeleteFunc(slices.Clone(f.rules), func(r rule) bool { return f.servesOn(r.weights) })
			if f.def.Rollout == nil && f.def.Percentage != nil {
				f.threshold = min(f.threshold, int64(*f.def.Percentage))
			}
		}
		f.usersOnly = f.def.Users != nil && !hasShare && len(f.rules) == 0 && len(f.conditions) == 0 && !f.betaProgram
		if name := f.def.FallbackFor; name != "" && states[name].Tripped == "" {
			f.standby = f.off(ReasonDisabled, "fallback_for:"+name)
		}
	}
	if hashed != nil {
		r.reads = closeReads(r.flags, r.groups, hashed)
	}
	return r
}

// Definition returns the named flag's definition, nil for a flag that nobody
// defines. It must not be changed.
func (p *Program) Definition(name string) *Flag {
	if i, ok := p.index[name]; ok {
		return p.flags[i].def
	}
	return nil
}

// Len returns the number of flags; they are numbered from 0 in the order of
// their names.
func (r *Ruleset) Len() int { return len(r.flags) }

// Index returns the number of the named flag, or -1.
func (r *Ruleset) Index(name string) int {
	if i, ok := r.program.index[name]; ok {
		return i
	}
	return -1
}

// Definition returns flag i's definition, which must not be changed.
func (r *Ruleset) Definition(i int) *Flag { return r.flags[i].def }

// State returns flag i's run-time state.
func (r *Ruleset) State(i int) State { return r.states[r.flags[i].def.Name] }

// Share returns the percentage in force for flag i, the whole when it has none.
func (r *Ruleset) Share(i int) Share { return Share(r.flags[i].threshold) }

// Reach returns the percentage of everybody that flag i is on for by its percentage:
// 0 for a flag that reaches only those it lists.
func (r *Ruleset) Reach(i int) Share {
	if r.flags[i].usersOnly {
		return 0
	}
	return r.Share(i)
}

// InForce tells whether flag i can be on for anybody in the environment at
// now, as far as that can be told without a context and other flags.
func (r *Ruleset) InForce(i int, environment string, now time.Time) bool {
	f := &r.flags[i]
	return r.WhyOff(i, environment, now) == "" && (f.threshold > 0 || len(f.users) > 0 || len(f.rules) > 0)
}

// WhyOff tells why flag i is off for everybody in the environment at now whatever
// its percentage, in the words of [Decision.Detail]; "" where it is not.
func (r *Ruleset) WhyOff(i int, environment string, now time.Time) string {
	f := &r.flags[i]
	switch n := unixNano(now); {
	case f.gate != nil:
		return f.gate.Detail
	case n < f.from:
		return "not_yet_active"
	case n >= f.until:
		return "expired"
	case f.standby != nil:
		return f.standby.Detail
	case !f.everywhere && !slices.Contains(f.environments, environment):
		return "environment"
	}
	return ""
}

// StableUntil returns the next moment after now at which a decision can change
// by itself, because a date is reached; zero: none.
func (r *Ruleset) StableUntil(now time.Time) (next time.Time) {
	for i := range r.flags {
		for _, t := range []time.Time{r.flags[i].def.ActivationDate, r.flags[i].def.DeactivationDate} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// Splits tells whether flag i divides its users by a hash, so that there are a
// canary and a control to compare.
func (r *Ruleset) Splits(i int) bool { return r.flags[i].splits }

// ProbeShare returns the share by which flag i is tried again after a trip: a
// hundredth of what its definition gives, or of before where that is not nil. ok
// is false where the flag reaches nobody but those it lists or has rules for.
func (r *Ruleset) ProbeShare(i int, before *Share) (share Share, ok bool) {
	def := r.flags[i].def
	whole := Share(wholeShare)
	switch {
	case before != nil:
		whole = *before
	case r.flags[i].start != nil:
		whole = *r.flags[i].start
	case def.Users != nil && len(def.Rules) == 0 && len(r.flags[i].conditions) == 0 && !r.flags[i].betaProgram:
		return 0, false
	}
	return max(whole/100, 1), whole > 0
}

// CanaryShare returns the part of those who reach flag i's split for whom it turns
// the flag on, from 0 to 1.
func (r *Ruleset) CanaryShare(i int) float64 {
	f := &r.flags[i]
	on, from := int64(0), int64(0)
	for _, w := range f.weights {
		if f.variantNames[w.variant] != Off {
			on += w.upTo - from
		}
		from = w.upTo
	}
	return float64(f.threshold) / wholeShare * float64(on) / wholeShare
}

// Reads returns the names of the attributes that flag i's decision can depend
// on, sorted; "*" stands for all. Must not be changed.
func (r *Ruleset) Reads(i int) []string { return r.reads[i] }

// Variants returns the names of all variants flag i can serve, `off` among
// them. Must not be changed.
func (r *Ruleset) Variants(i int) []string { return r.flags[i].variantNames }

// Value returns what flag i's variant stands for, as JSON; nil where the definition
// gives none. Must not be changed.
func (r *Ruleset) Value(i int, variant string) json.RawMessage { return r.flags[i].value(variant) }

// Shadowed returns the flags that several sources define.
func (r *Ruleset) Shadowed() []Shadowed { return r.program.shadowed }

// Program returns what the ruleset was made of.
func (r *Ruleset) Program() *Program { return r.program }

// Unknown is the decision for a flag that nobody defines.
func Unknown(name string) *Decision {
	return &Decision{
		Flag: name, Index: -1, Variant: Off, Reason: ReasonError, Detail: string(FlagNotFound),
		Code: FlagNotFound, Message: "flag " + quoteClipped(name) + " is not defined",
	}
}

// Evaluate decides the named flag for one context at the given time.
func (r *Ruleset) Evaluate(name string, c *Context, now time.Time) *Decision {
	i, ok := r.program.index[name]
	if !ok {
		return Unknown(name)
	}
	return r.EvaluateAt(i, c, now)
}

// EvaluateAt decides flag number i. Several flags of one request are decided
// faster by an [Evaluation].
func (r *Ruleset) EvaluateAt(i int, c *Context, now time.Time) *Decision {
	var e Evaluation
	e.Reset(r, c, now)
	return e.Decide(i)
}
