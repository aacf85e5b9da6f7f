package evaluator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Finding is something about a definition that is no mistake but is likely not
// what its author wants, or no longer.
type Finding struct {
	Flag     string   `json:"flag,omitempty"` // "" when it is about a segment
	Code     string   `json:"code"`           // one of the codes below
	Severity string   `json:"severity"`       // "warning" or "info"
	Message  string   `json:"message"`
	Source   string   `json:"source,omitempty"`
	Pos      Position `json:"pos,omitzero"`
}

// Severities of findings.
const (
	Warning = "warning" // the definition does not do what it says
	Info    = "info"    // worth knowing, or a flag to clean up
)

// Codes of findings.
const (
	LintNeverOn               = "never_on"               // active, and on for nobody
	LintAlwaysOn              = "always_on"              // the same variant for everybody, always: the flag decides nothing
	LintExpired               = "expired"                // deactivation_date is past
	LintOverdue               = "overdue"                // metadata.expires is past
	LintExpiresSoon           = "expires_soon"           // metadata.expires is within 14 days
	LintUnreachableRule       = "unreachable_rule"       // no context gets to the rule, or its condition is false
	LintUnreachableConditions = "unreachable_conditions" // a rule before them holds for everybody
	LintUnused                = "unused"                 // nobody has asked for the flag lately
	LintUnusedSegment         = "unused_segment"         // no rule and no segment uses it
	LintShadowed              = "shadowed"               // a later source defines the flag again
	LintGuardWithoutSplit     = "guard_without_split"    // there are no canary and control to compare
	LintApproveLast           = "approve_last"           // a step that waits for a person, with none to come after it
	LintExclusiveAlone        = "exclusive_alone"        // the only flag of its group
)

const (
	expiresSoon = 14 * 24 * time.Hour
	unusedAfter = 7 * 24 * time.Hour
)

// Lint returns the findings about a ruleset at now, ordered by source and
// place. Run-time state counts: a flag that was enabled by hand is active.
//
// asked tells when a flag was last asked for: the zero time for never since
// the process began, known false for too early to say. A nil asked leaves the
// question out.
func Lint(r *Ruleset, now time.Time, asked func(flag string) (last time.Time, known bool)) []Finding {
	l := &linter{r: r, now: now, never: make([]verdict, len(r.flags)), asked: asked}
	for i := range r.flags {
		l.flag(&r.flags[i])
	}
	l.segments()
	for _, s := range r.program.shadowed {
		l.found = append(l.found, Finding{
			Flag: s.Flag, Code: LintShadowed, Severity: Warning, Source: s.Source, Pos: s.Pos,
			Message: fmt.Sprintf("is defined again in %s, which wins", s.By),
		})
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(
			strings.Compare(a.Source, b.Source),
			cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column),
			strings.Compare(a.Flag, b.Flag), strings.Compare(a.Code, b.Code),
		)
	})
	return l.found
}

type linter struct {
	r     *Ruleset
	now   time.Time
	asked func(string) (time.Time, bool)
	never []verdict // by flag
	found []Finding
}

type verdict struct {
	known bool
	why   string // "": it can be on
}

func (l *linter) add(f *compiled, pos Position, code, severity, format string, args ...any) {
	l.found = append(l.found, Finding{
		Flag: f.def.Name, Code: code, Severity: severity, Source: f.def.Source, Pos: pos,
		Message: fmt.Sprintf(format, args...),
	})
}

func (l *linter) flag(f *compiled) {
	def := f.def
	expired := l.expired(f)
	switch why := l.neverOn(f); {
	case expired:
		l.add(f, def.Pos, LintExpired, Warning, "deactivation_date: %s is past, the flag is off for everyone", formatDate(def.DeactivationDate))
	case f.gate != nil: // off is what somebody wants
	case why != "":
		l.add(f, def.Pos, LintNeverOn, Warning, "%s", why)
	case l.alwaysOn(f):
		l.add(f, def.Pos, LintAlwaysOn, Info, "serves %q to everybody, always: nothing is left to decide", f.variantNames[f.weights[0].variant])
	}
	l.metadata(f)
	if !expired {
		l.rules(f)
	}
	if l.asked != nil {
		switch last, known := l.asked(def.Name); {
		case !known:
		case last.IsZero():
			l.add(f, def.Pos, LintUnused, Info, "nobody has asked for it since the start")
		case l.now.Sub(last) > unusedAfter:
			l.add(f, def.Pos, LintUnused, Info, "nobody has asked for it since %s", formatDate(last))
		}
	}
	l.rollout(f)
	if f.group >= 0 && len(l.r.groups[f.group].members) == 1 {
		l.add(f, def.Pos, LintExclusiveAlone, Info, "exclusive: it is the only flag of the group %q", clip(def.Exclusive))
	}
	if def.GuardGiven && def.Guard.Enabled && !f.splits && def.Rollout == nil {
		l.add(f, def.Pos, LintGuardWithoutSplit, Warning, "guard: the flag does not split its users, so there is nothing to compare; give a percentage_rollout or weights")
	}
}

// rollout finds steps that wait for nothing.
func (l *linter) rollout(f *compiled) {
	r := f.def.Rollout
	if r == nil {
		return
	}
	if n := len(r.Steps); n > 0 && slices.Contains(r.Approve, r.Steps[n-1]) {
		l.add(f, f.def.Pos, LintApproveLast, Warning, "rollout.approve: nothing comes after %s, the last step; to have a person approve of it, name the step before", formatShare(r.Steps[n-1]))
	}
}

func formatDate(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (l *linter) expired(f *compiled) bool { return unixNano(l.now) >= f.until }

func (l *linter) metadata(f *compiled) {
	switch expires := f.def.Metadata.Expires; {
	case expires.IsZero():
	case !expires.After(l.now):
		l.add(f, f.def.Pos, LintOverdue, Warning, "metadata.expires: %s is past", formatDate(expires))
	case expires.Sub(l.now) <= expiresSoon:
		l.add(f, f.def.Pos, LintExpiresSoon, Info, "metadata.expires: %s is within 14 days", formatDate(expires))
	}
}

// neverOn says why nobody can get the flag as long as its definition is what
// it is; "" when somebody can. That it is switched off by hand, by `active` or
// by a trip is not looked at.
func (l *linter) neverOn(f *compiled) string {
	v := &l.never[f.index]
	if !v.known {
		*v = verdict{true, l.whyNever(f)}
	}
	return v.why
}

func (l *linter) whyNever(f *compiled) string {
	if l.expired(f) {
		return "deactivation_date: is past"
	}
	if !f.everywhere && len(f.environments) == 0 {
		return "environments: is empty, so the flag is on nowhere"
	}
	for _, d := range f.dependencies {
		other := &l.r.flags[d.index]
		if l.neverOn(other) != "" {
			return fmt.Sprintf("depends_on: flag %q is never on", other.def.Name)
		}
		if d.variant != "" && !other.canServe(d.variant) {
			return fmt.Sprintf("depends_on: flag %q never serves %q", other.def.Name, d.variant)
		}
	}
	if len(f.users) > 0 && f.servesOn(f.enabledWeights) {
		return ""
	}
	for k := range f.rules {
		r := &f.rules[k]
		if r.isNever() {
			continue
		}
		if f.servesOn(r.weights) {
			return ""
		}
		if r.isAlways() {
			return fmt.Sprintf("rules[%d]: serves %q to everybody", k, Off)
		}
	}
	for _, c := range f.conditions {
		if c.values.isEmpty() {
			return c.off.Detail + "s: is empty, and matches nobody"
		}
	}
	switch {
	case f.usersOnly && len(f.users) == 0:
		return "users: is empty, and the only targeting"
	case f.threshold <= 0 && f.def.Rollout == nil:
		return "percentage_rollout: is 0, and no users and no rules are served"
	case !f.servesOn(f.weights):
		return fmt.Sprintf("variants: the whole weight is on %q", Off)
	}
	return ""
}

// alwaysOn tells whether the flag serves one variant to everybody for ever. A
// flag that may yet be tripped by its own thresholds, or is there for that by
// its type, still has a job.
func (l *linter) alwaysOn(f *compiled) bool {
	def := f.def
	switch def.Metadata.Type {
	case "operational", "permission":
		return false
	}
	if def.ErrorThreshold != nil || def.PerformanceThreshold != nil || def.TrafficDropThreshold != nil || def.Rollout != nil {
		return false
	}
	if unixNano(l.now) < f.from || f.over != nil || !f.everywhere || len(f.dependencies) > 0 || def.FallbackFor != "" || f.group >= 0 {
		return false
	}
	if len(f.conditions) > 0 || f.betaProgram || f.usersOnly || f.threshold < wholeShare || len(f.weights) != 1 || !f.servesOn(f.weights) {
		return false
	}
	return !slices.ContainsFunc(f.rules, func(r rule) bool {
		return len(r.weights) != 1 || r.weights[0].variant != f.weights[0].variant
	})
}

func (l *linter) rules(f *compiled) {
	first := map[string]int{}
	for k := range f.rules {
		r, def := &f.rules[k], &f.def.Rules[k]
		text := strings.TrimSpace(def.When)
		earlier, same := first[text]
		switch {
		case r.isNever():
			l.add(f, def.Pos, LintUnreachableRule, Warning, "rules[%d]: the condition is false", k)
		case same:
			l.add(f, def.Pos, LintUnreachableRule, Warning, "rules[%d]: has the condition of rules[%d], which decides before it", k, earlier)
		}
		if !same {
			first[text] = k
		}
		if !r.isAlways() {
			continue
		}
		for n := k + 1; n < len(f.rules); n++ {
			l.add(f, f.def.Rules[n].Pos, LintUnreachableRule, Warning, "rules[%d]: rules[%d] before it holds for everybody", n, k)
		}
		if len(f.conditions) > 0 || f.betaProgram || f.threshold < wholeShare {
			l.add(f, def.Pos, LintUnreachableConditions, Warning, "rules[%d]: holds for everybody, so that the conditions and the percentage below are never looked at", k)
		}
		return
	}
}

func (l *linter) segments() {
	used := map[string]bool{}
	note := func(when *condition) {
		if when != nil {
			for _, name := range when.uses {
				used[name] = true
			}
		}
	}
	for i := range l.r.flags {
		for _, r := range l.r.flags[i].rules {
			note(r.when)
		}
	}
	for _, s := range l.r.segments {
		note(s.when)
	}
	for _, s := range l.r.segments {
		if !used[s.def.Name] {
			l.found = append(l.found, Finding{
				Code: LintUnusedSegment, Severity: Info, Source: s.def.Source, Pos: s.def.Pos,
				Message: fmt.Sprintf("segments.%s: nothing uses it", label(s.def.Name)),
			})
		}
	}
}

func (r *rule) isAlways() bool { return r.when == nil || r.when.constant == alwaysTrue }
func (r *rule) isNever() bool  { return r.when != nil && r.when.constant == alwaysFalse }

// servesOn tells whether weights give anybody another variant than `off`.
func (f *compiled) servesOn(weights []weight) bool {
	return slices.ContainsFunc(weights, func(w weight) bool { return f.variantNames[w.variant] != Off })
}

// canServe tells whether anything of the flag serves the variant.
func (f *compiled) canServe(variant string) bool {
	serves := func(weights []weight) bool {
		return slices.ContainsFunc(weights, func(w weight) bool { return f.variantNames[w.variant] == variant })
	}
	return serves(f.weights) || slices.ContainsFunc(f.rules, func(r rule) bool { return serves(r.weights) })
}
