package caddymodule

import (
	"strconv"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/rollout"
)

// movedWords says from which percentage to which one somebody has moved a flag, and the
// step that its rollout, nil for none, is at then.
func movedWords(before, after evaluator.Share, s *rollout.Status) string {
	words := "at " + percent(after.Percent()) + " %"
	if before != after {
		words = "from " + percent(before.Percent()) + " % to " + percent(after.Percent()) + " %"
	}
	switch {
	case s == nil || len(s.Steps) == 0:
	case s.Step == 0:
		words += ", before step 1 of " + strconv.Itoa(len(s.Steps))
	default:
		words += ", step " + strconv.Itoa(s.Step) + " of " + strconv.Itoa(len(s.Steps))
	}
	return words
}

// reasonBehind is what a person says, behind what they did.
func reasonBehind(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
