package evaluator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Evaluation decides flags for one context, each of them once. The zero
// Evaluation must be Reset before use. Not safe for concurrent use.
type Evaluation struct {
	rules *Ruleset
	ctx   *Context
	now   int64
	trace *[]Step

	// What is decided already: a few in place, or all by number.
	few   [3]decided
	count int
	wide  *wide
}

type decided struct {
	index    int
	decision *Decision
}

// wide is what an evaluation of more than a few flags remembers; most have none.
type wide struct {
	all     []*Decision // by number; empty: the few are not moved here
	winners []int32     // by exclusive group: the winner's number + 1; 0 is undecided
}

// Reset begins a new evaluation of c at now.
func (e *Evaluation) Reset(r *Ruleset, c *Context, now time.Time) {
	e.rules, e.ctx, e.now = r, c, unixNano(now)
	e.count, e.trace = 0, nil
	if m := e.wide; m != nil {
		clear(m.all)
		m.all, m.winners = m.all[:0], m.winners[:0]
	}
}

// Ruleset returns what the evaluation decides by.
func (e *Evaluation) Ruleset() *Ruleset { return e.rules }

// Context returns whom the evaluation decides for.
func (e *Evaluation) Context() *Context { return e.ctx }

// Decide returns the decision on flag number i.
func (e *Evaluation) Decide(i int) *Decision {
	if e.wide != nil && len(e.wide.all) > 0 {
		if d := e.wide.all[i]; d != nil {
			return d
		}
	} else {
		for k := range e.count {
			if e.few[k].index == i {
				return e.few[k].decision
			}
		}
	}
	d := e.decide(i)
	e.remember(i, d)
	return d
}

func (e *Evaluation) remember(i int, d *Decision) {
	if (e.wide == nil || len(e.wide.all) == 0) && e.count < len(e.few) {
		e.few[e.count] = decided{i, d}
		e.count++
		return
	}
	e.spread()[i] = d
}

// spread goes over to remembering by number.
func (e *Evaluation) spread() []*Decision {
	m := e.room()
	if n := len(e.rules.flags); len(m.all) == 0 && n > 0 {
		if cap(m.all) < n {
			m.all = make([]*Decision, n)
		}
		m.all = m.all[:n]
		for k := range e.count {
			m.all[e.few[k].index] = e.few[k].decision
		}
	}
	return m.all
}

func (e *Evaluation) room() *wide {
	if e.wide == nil {
		e.wide = new(wide)
	}
	return e.wide
}

// All decides every flag; the result is indexed by flag number and is valid
// until the next Reset.
func (e *Evaluation) All() []*Decision {
	all := e.spread()
	for i := range all {
		if all[i] == nil {
			all[i] = e.decide(i)
		}
	}
	return all
}

// Explain decides flag number i anew and tells the path that led to it.
func (e *Evaluation) Explain(i int) (*Decision, []Step) {
	steps := []Step{}
	fresh := Evaluation{rules: e.rules, ctx: e.ctx, now: e.now, trace: &steps}
	return fresh.decide(i), steps
}

// step notes a stage of the cascade; only called while explaining.
func (e *Evaluation) step(check string, passed bool, format string, args ...any) {
	*e.trace = append(*e.trace, Step{check, passed, fmt.Sprintf(format, args...)})
}

func (e *Evaluation) decide(i int) *Decision {
	f := &e.rules.flags[i]
	d := e.alone(f)
	if f.group >= 0 && d.Enabled {
		return e.exclude(f, d)
	}
	return d
}

// alone goes down the cascade without regard to the flag's exclusive group.
func (e *Evaluation) alone(f *compiled) *Decision {
	if f.gate != nil {
		if e.trace != nil {
			e.step(f.gate.Detail, false, "active is %t", f.def.Active)
		}
		return f.gate
	}
	if e.trace != nil {
		e.step("active", true, "active is %t, override %s", f.def.Active, strconv.Quote(string(e.rules.State(f.index).Override)))
	}
	if e.now < f.from {
		if e.trace != nil {
			e.step("not_yet_active", false, "activation_date is %s", f.def.ActivationDate.Format(time.RFC3339))
		}
		return f.notYet
	}
	if e.now >= f.until {
		if e.trace != nil {
			e.step("expired", false, "deactivation_date is %s", f.def.DeactivationDate.Format(time.RFC3339))
		}
		return f.over
	}
	if !f.everywhere && !e.inEnvironment(f) {
		return f.wrongEnvironment
	}
	for k := range f.dependencies {
		dep := &f.dependencies[k]
		d := e.dependency(dep)
		ok := d.Enabled && (dep.variant == "" || d.Variant == dep.variant)
		if e.trace != nil {
			e.step(dep.off.Detail, ok, "flag %q serves %s (%s %s)", d.Flag, d.Variant, d.Reason, d.Detail)
		}
		if !ok {
			return dep.off
		}
	}
	if f.standby != nil {
		if e.trace != nil {
			e.step(f.standby.Detail, false, "flag %q is not tripped", f.def.FallbackFor)
		}
		return f.standby
	}
	if f.users != nil {
		key := e.ctx.known[userIDAttr].text
		_, listed := f.users[key]
		listed = listed && key != ""
		if e.trace != nil {
			e.step("user", listed, "user_id is %s", strconv.Quote(key))
		}
		if listed {
			if len(f.enabledWeights) > 1 && e.bucketKey(f) == "" { // always on, even without what it is split by
				return &f.user[f.enabledWeights[0].variant]
			}
			return f.user.pick(e, f, f.enabledWeights, variantPurpose)
		}
	}
	for k := range f.rules {
		if d := e.rule(f, &f.rules[k]); d != nil {
			return d
		}
	}
	for k := range f.conditions {
		l := &f.conditions[k]
		value := &e.ctx.known[l.attr]
		ok := value.text != "" && l.values.has(value.text)
		if e.trace != nil {
			e.step(l.off.Detail, ok, "%s is %s, missing: %t", l.name, strconv.Quote(value.text), value.IsMissing())
		}
		if !ok {
			return l.off
		}
	}
	if f.betaProgram {
		ok := e.ctx.known[betaProgramAttr].isTrue()
		if e.trace != nil {
			e.step("beta_program", ok, "beta_program is %s", strconv.Quote(e.ctx.known[betaProgramAttr].text))
		}
		if !ok {
			return f.notBeta
		}
	}
	if f.usersOnly {
		return f.notListed
	}
	return e.rollout(f)
}

func (e *Evaluation) inEnvironment(f *compiled) bool {
	ok := false
	for _, name := range f.environments {
		ok = ok || name == e.ctx.Environment
	}
	if e.trace != nil {
		e.step("environment", ok, "environment is %s, listed are %s", strconv.Quote(e.ctx.Environment), strings.Join(f.environments, ", "))
	}
	return ok
}

// dependency decides another flag, without its path while explaining.
func (e *Evaluation) dependency(dep *dependency) *Decision {
	trace := e.trace
	e.trace = nil
	d := e.Decide(dep.index)
	e.trace = trace
	return d
}

// rule returns the rule's decision, or nil when it does not hold.
func (e *Evaluation) rule(f *compiled, r *rule) *Decision {
	ok, why, text := true, "", "true"
	var err error
	if r.when != nil {
		text = r.when.text
		ok, why, err = r.when.holds(&activation{ctx: e.ctx, segments: e.rules.segments, explain: e.trace != nil})
	}
	if e.trace != nil {
		if why != "" {
			why = ": " + why
		}
		e.step("rule:"+r.name, ok, "%s%s", text, why)
	}
	if err != nil {
		d := f.off(ReasonError, string(General))
		d.Code, d.Message = General, err.Error()
		return d
	}
	if !ok {
		return nil
	}
	return r.answer.pick(e, f, r.weights, r.purpose)
}

// rollout decides by the bucket, and chooses the variant.
func (e *Evaluation) rollout(f *compiled) *Decision {
	if f.threshold < wholeShare {
		key := e.bucketKey(f)
		if key == "" {
			if e.trace != nil {
				e.step(string(TargetingKeyMissing), false, "%s is missing", f.hashName())
			}
			return f.keyMissing
		}
		b := bucket(key, f.def.Salt, "")
		if e.trace != nil {
			e.step("rollout", b < f.threshold, "bucket %.5f of %s, %g %% are on", float64(b)/perCent, strconv.Quote(key), Share(f.threshold).Percent())
		}
		if b >= f.threshold {
			return f.rolledOut
		}
		return f.split.pick(e, f, f.weights, variantPurpose)
	}
	if len(f.weights) > 1 {
		return f.split.pick(e, f, f.weights, variantPurpose)
	}
	return f.static.pick(e, f, f.weights, "")
}

// BucketKey returns the text that flag number i's split hashes: of the targeting
// key, or the attribute that the flag names; "" when the context has none.
func (e *Evaluation) BucketKey(i int) string { return e.bucketKey(&e.rules.flags[i]) }

// bucketKey is the text that the flag hashes, "" when the context has none.
func (e *Evaluation) bucketKey(f *compiled) string {
	if f.hashBy >= 0 {
		return e.ctx.known[f.hashBy].text
	}
	return e.ctx.Get(f.def.HashBy).text
}

// variantPurpose is of the hash by which a flag's own weights are dealt out.
const variantPurpose = "/variant"

// pick chooses the variant by weight, with a hash of its own for each purpose,
// so that variants are independent of the rollout and of each other.
func (a answers) pick(e *Evaluation, f *compiled, weights []weight, purpose string) *Decision {
	if len(weights) == 1 {
		return &a[weights[0].variant]
	}
	key := e.bucketKey(f)
	if key == "" {
		if e.trace != nil {
			e.step(string(TargetingKeyMissing), false, "%s is missing", f.hashName())
		}
		return f.keyMissing
	}
	b := bucket(key, f.def.Salt, purpose)
	for _, w := range weights {
		if b < w.upTo {
			if e.trace != nil {
				e.step("variant", true, "bucket %.5f of %s is %s's", float64(b)/perCent, strconv.Quote(key), f.variantNames[w.variant])
			}
			return &a[w.variant]
		}
	}
	return &a[weights[len(weights)-1].variant]
}

// exclude gives d, or the decision that another flag of the group has the key.
func (e *Evaluation) exclude(f *compiled, d *Decision) *Decision {
	g := &e.rules.groups[f.group]
	winner := e.winner(f.group)
	if e.trace != nil {
		e.step("exclusive", winner == f.index, "group %q gives this key to %q", g.name, e.rules.flags[winner].def.Name)
	}
	if winner == f.index {
		return d
	}
	for k, m := range g.members {
		if m == winner {
			return f.excluded[k]
		}
	}
	return d
}

// Contends tells whether flag i has the context, or would have it had its own
// cascade come out on: true but where another flag of its exclusive group comes
// first. Who compares the flag's users with those whom its split leaves out may
// take only those: the others differ in what they get whatever i's split says.
func (e *Evaluation) Contends(i int) bool {
	f := &e.rules.flags[i]
	if f.group < 0 {
		return true
	}
	winner := e.winner(f.group)
	if winner < 0 || winner == i {
		return true
	}
	trace := e.trace
	e.trace = nil
	w := &e.rules.flags[winner]
	own, other := e.alone(f), e.alone(w)
	e.trace = trace
	if own.Enabled || w.lists(other) {
		return false
	}
	return e.rank(f) < e.rank(w)
}

// rank is the flag's place in the order of its group, for the context.
func (e *Evaluation) rank(f *compiled) int64 {
	g := &e.rules.groups[f.group]
	return bucket(e.bucketKey(f), g.name, g.purposes[slices.Index(g.members, f.index)])
}

// lists tells whether d comes from the flag's list of users.
func (f *compiled) lists(d *Decision) bool {
	return f.user != nil && d.Reason == ReasonTargetingMatch && d.Detail == "user"
}

// winners are what is known of the exclusive groups, see [wide].
func (e *Evaluation) winners() []int32 {
	m := e.room()
	if len(m.winners) == 0 {
		m.winners = append(m.winners, make([]int32, len(e.rules.groups))...)
	}
	return m.winners
}

// winner finds the one flag of the group that the context gets: one that lists
// the user before all others, else the first in an order that is hashed for
// each key, so that members share their common users evenly.
func (e *Evaluation) winner(g int) int {
	known := e.winners()
	if w := known[g]; w != 0 {
		return int(w) - 1
	}
	trace := e.trace
	e.trace = nil
	winner, best, bestListed := -1, int64(0), false
	group := &e.rules.groups[g]
	for k, m := range group.members {
		f := &e.rules.flags[m]
		d := e.alone(f)
		if !d.Enabled {
			continue
		}
		listed := f.lists(d)
		rank := bucket(e.bucketKey(f), group.name, group.purposes[k])
		if winner < 0 || listed && !bestListed || listed == bestListed && rank < best {
			winner, best, bestListed = m, rank, listed
		}
	}
	e.trace = trace
	known[g] = int32(winner) + 1
	return winner
}

func quoteClipped(s string) string { return strconv.Quote(clip(s)) }
