package evaluator

import (
	"maps"
	"slices"
	"strings"
)

// compileConditions parses every condition first: the names they mention are
// declared in one CEL environment.
func (c *compiler) compileConditions() {
	some := len(c.segments) > 0
	for i := range c.program.flags {
		some = some || len(c.program.flags[i].def.Rules) > 0
	}
	if !some {
		return
	}
	cs, err := newConditions()
	if err != nil {
		c.errs = append(c.errs, &Error{Message: err.Error()})
		return
	}
	c.conditions = cs
	for _, name := range c.segmentNames() {
		if s := c.segments[name]; s.When != "" {
			if err := cs.parse(s.When); err != nil {
				c.segmentErrorf(s, "%s", oneLine(err))
			}
		}
	}
	for i := range c.program.flags {
		f := c.program.flags[i].def
		for j, r := range f.Rules {
			if r.When == "" {
				continue
			}
			if err := cs.parse(r.When); err != nil {
				c.errorf(f, r.Pos, "rules[%d].when: %s", j, oneLine(err))
			}
		}
	}
	for _, name := range c.segmentNames() {
		s := c.segments[name]
		compiled := &segment{def: s, users: toMap(s.Users)}
		c.program.segments[segmentVariable(name)] = compiled
		if s.When == "" || !cs.isParsed(s.When) {
			continue
		}
		when, err := cs.compile(s.When)
		if err != nil {
			c.segmentErrorf(s, "%s", oneLine(err))
			continue
		}
		compiled.when = when
		for _, used := range when.uses {
			if c.segments[used] == nil {
				c.segmentErrorf(s, "unknown segment %q%s", clip(used), c.suggest(used, c.segmentNames()))
			}
		}
	}
	c.checkSegmentCycles()
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (c *compiler) segmentNames() []string { return slices.Sorted(maps.Keys(c.segments)) }

func (c *compiler) rules(f *compiled) {
	for i, r := range f.def.Rules {
		compiled := rule{name: r.Name, purpose: variantPurpose, weights: f.enabledWeights}
		if len(r.Serve) > 0 {
			compiled.weights, compiled.purpose = f.layOut(r.Serve, false), "/rule/"+r.Name
		}
		compiled.answer = f.answers(ReasonTargetingMatch, "rule:"+r.Name)
		if r.When != "" {
			if c.conditions == nil || !c.conditions.isParsed(r.When) {
				continue
			}
			when, err := c.conditions.compile(r.When)
			if err != nil {
				c.errorf(f.def, r.Pos, "rules[%d].when: %s", i, oneLine(err))
				continue
			}
			for _, used := range when.uses {
				if c.segments[used] == nil {
					c.errorf(f.def, r.Pos, "rules[%d].when: unknown segment %q%s", i, clip(used), c.suggest(used, c.segmentNames()))
				}
			}
			compiled.when = when
			f.reads = append(f.reads, c.readsOf(when, map[string]bool{})...)
		}
		if len(compiled.weights) > 1 {
			f.reads = append(f.reads, f.hashName())
		}
		f.rules = append(f.rules, compiled)
	}
}

// readsOf gives the attributes a condition reads, through its segments.
func (c *compiler) readsOf(when *condition, seen map[string]bool) []string {
	reads := slices.Clone(when.reads)
	for _, name := range when.uses {
		if seen[name] {
			continue
		}
		seen[name] = true
		if s := c.program.segments[segmentVariable(name)]; s != nil {
			if len(s.users) > 0 {
				reads = append(reads, UserID)
			}
			if s.when != nil {
				reads = append(reads, c.readsOf(s.when, seen)...)
			}
		}
	}
	return reads
}
