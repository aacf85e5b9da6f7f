package evaluator

import "slices"

// Impose has the evaluation give d for flag number i from here on, whatever the
// cascade says: somebody outside has decided. Flags that depend on i, and the others
// of its exclusive group where d turns it on, follow if they were not decided before.
func (e *Evaluation) Impose(i int, d *Decision) {
	if g := e.rules.flags[i].group; g >= 0 && d.Enabled {
		e.winners()[g] = int32(i) + 1
	}
	if e.wide != nil && len(e.wide.all) > 0 {
		e.wide.all[i] = d
		return
	}
	for k := range e.count {
		if e.few[k].index == i {
			e.few[k].decision = d
			return
		}
	}
	e.remember(i, d)
}

// Decision returns a decision for the named variant of flag number i, made by
// somebody outside; ok is false where the flag has no such variant.
func (r *Ruleset) Decision(i int, variant string, reason Reason, detail string) (d *Decision, ok bool) {
	f := &r.flags[i]
	index := slices.Index(f.variantNames, variant)
	if index < 0 {
		return nil, false
	}
	return &Decision{
		Flag: f.def.Name, Index: index, Enabled: variant != Off, Variant: variant,
		Reason: reason, Detail: detail, Value: f.value(variant),
	}, true
}

// WhenOn returns the variant that flag number i would serve if it were on for
// everybody, by its weights.
func (e *Evaluation) WhenOn(i int) *Decision {
	f := &e.rules.flags[i]
	return f.static.pick(e, f, f.weights, variantPurpose)
}
