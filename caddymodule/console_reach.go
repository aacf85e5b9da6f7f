package caddymodule

import (
	"slices"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

// reach is whom a flag is on for, as the console tells it. The API's status and
// percentage look at the flag alone, and not at whom it is for.
type reach struct {
	Status string // one of flagStatuses
	Share  float64
	Only   string // whom the share is of; "" everybody
	Why    string // the flag is off for everyone; "" it is not
}

// Words tells whom the flag is on for.
func (r reach) Words() string {
	switch {
	case r.Why != "":
		return "0 %"
	case r.Only == onlyTargeted:
		return percent(r.Share) + " % of those targeted"
	case r.Only != "":
		return "only " + r.Only
	case r.Share == 100:
		return "everyone"
	}
	return percent(r.Share) + " %"
}

// Whom a flag is on for that is not for everybody.
const (
	onlyTargeted = "those targeted"
	onlyListed   = "those listed"
	onlyByRules  = "those its rules name"
)

// reach tells whom flag i is on for.
func (a *App) reach(r *rules, i int, now time.Time) reach {
	out := reach{Status: a.status(r, i, now), Share: a.percentage(r, i), Why: a.whyNobody(r, i, now)}
	def := r.Definition(i)
	switch {
	case out.Why != "":
		out.Share = 0
		if out.Status == "on" || out.Status == "split" {
			out.Status = "off"
		}
	case r.Reach(i) == 0 && def.Users != nil && len(*def.Users) > 0 && !r.State(i).Probing:
		out.Only = onlyListed
	case (r.Reach(i) == 0 || slices.ContainsFunc(def.Rules, isCatchAll)) && !r.State(i).Probing:
		out.Only = onlyByRules
	case def.Regions != nil || def.AccountTypes != nil || def.Devices != nil || def.BetaProgram || slices.ContainsFunc(def.Rules, turnsAway):
		out.Only = onlyTargeted
	}
	if out.Only != "" && (out.Status == "on" || out.Status == "split" && out.Only != onlyTargeted) {
		out.Status = "targeted"
	}
	return out
}

// isCatchAll tells whether a rule leaves nobody to the percentage.
func isCatchAll(r evaluator.Rule) bool {
	when := strings.TrimSpace(r.When)
	return when == "" || when == "true"
}

// turnsAway tells whether a rule serves off.
func turnsAway(r evaluator.Rule) bool {
	return slices.ContainsFunc(r.Serve, func(w evaluator.Weight) bool { return w.Variant == evaluator.Off })
}

// whyNobody says in words why flag i is on for nobody, by itself or by a flag that it
// depends on; "" where somebody may get it.
func (a *App) whyNobody(r *rules, i int, now time.Time) string {
	why := r.WhyOff(i, a.environment, now)
	kind, other, _ := strings.Cut(why, ":")
	switch kind {
	case "":
	case "override":
		return "it is disabled by hand"
	case "tripped":
		return "it has tripped"
	case "inactive":
		return "its definition is not active"
	case "not_yet_active":
		return "its activation date is to come"
	case "expired":
		return "its deactivation date has passed"
	case "environment":
		return "it is not for the environment " + a.environment
	case "fallback_for":
		return "it stands in for " + other + ", which has not tripped"
	default:
		return why
	}
	if !r.InForce(i, a.environment, now) {
		return "its percentage is 0"
	}
	for _, d := range r.Definition(i).DependsOn {
		if j := r.Index(d.Flag); j >= 0 {
			if why := a.whyNobody(r, j, now); why != "" {
				return "it depends on " + d.Flag + ", which is off: " + strings.Replace(why, "it ", "that ", 1)
			}
		}
	}
	return ""
}

// orderView is a button.
type orderView struct{ Action, Words string }

// ordersOf are the orders that apply to a flag: those that take it away from people
// apart, and Reset apart where the flag has tripped.
func ordersOf(v *flagView, active bool) (harmless, grave []orderView) {
	byHand := evaluator.NoOverride
	if v.State.Override != nil {
		byHand = evaluator.Override(v.State.Override.Kind)
	}
	add := func(list *[]orderView, when bool, action, words string) {
		if when {
			*list = append(*list, orderView{action, words})
		}
	}
	if s := v.Rollout; s != nil {
		planned := len(s.Steps) > 0
		add(&harmless, planned && s.Next != nil, "promote", "Promote")
		switch s.Phase {
		case "complete":
		case "paused", "aborted", "set":
			if planned {
				add(&harmless, true, "resume", "Resume")
			} else {
				add(&harmless, true, "resume", "Back to the definition's percentage")
			}
		default:
			add(&harmless, planned, "pause", "Pause")
		}
		add(&grave, planned && s.Phase != "aborted", "abort", "Abort")
	}
	add(&harmless, byHand == evaluator.Disabled || byHand == evaluator.NoOverride && !active, "enable", "Enable")
	add(&harmless, !v.State.Tripped, "reset", "Reset")
	add(&grave, byHand != evaluator.Disabled, "disable", "Disable")
	return harmless, grave
}
