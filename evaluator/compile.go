package evaluator

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Program is the compiled form of all definitions, without run-time state.
// Immutable; safe for concurrent use.
type Program struct {
	flags    []compiled // by name
	index    map[string]int
	groups   []group
	segments map[string]*segment
	shadowed []Shadowed
}

// Shadowed is a flag that a later source defines again: the later one wins.
type Shadowed struct {
	Flag, Source, By string
}

// group is an `exclusive` group: a targeting key gets at most one of its flags.
type group struct {
	name     string
	members  []int
	purposes []string // of each member's rank
}

// compiled is one flag, ready to be evaluated. What depends on run-time state
// (gate, threshold, usersOnly) is set by [Program.With].
type compiled struct {
	def   *Flag
	index int

	gate *Decision // made before anything of the context is looked at; nil: go on

	from, until      int64 // Unix nanoseconds
	notYet, over     *Decision
	environments     []string
	everywhere       bool
	wrongEnvironment *Decision
	dependencies     []dependency
	standby          *Decision // fallback_for: nil while the other flag is tripped
	users            map[string]struct{}
	user             answers
	rules            []rule
	conditions       []listed
	betaProgram      bool
	notBeta          *Decision
	usersOnly        bool
	notListed        *Decision
	hashBy           attr
	threshold        int64 // in bucket units; wholeShare and more: everyone
	rolledOut        *Decision
	keyMissing       *Decision
	weights          []weight // by which an enabled variant is chosen
	enabledWeights   []weight // the same without `off`, for those who are always on
	static, split    answers
	group            int // -1: none
	excluded         []*Decision
	reads            []string // attributes, sorted, through dependencies and groups
	splits           bool
	variantNames     []string
}

type dependency struct {
	index   int
	variant string
	off     *Decision
}

type rule struct {
	name    string
	when    *condition
	answer  answers
	weights []weight
	purpose string // what its own hash is for
}

// listed is a condition that an attribute is one of some values.
type listed struct {
	attr   attr
	name   string
	values set
	off    *Decision
}

// weight is the upper end of a variant's part of the bucket space.
type weight struct {
	variant int
	upTo    int64
}

// answers are the decisions of one stage, by variant.
type answers []Decision

// set finds texts: by a walk while they are few, else by a map.
type set struct {
	few  []string
	many map[string]struct{}
}

func newSet(values []string) set {
	if len(values) <= 8 {
		return set{few: values}
	}
	return set{many: toMap(values)}
}

func toMap(values []string) map[string]struct{} {
	m := make(map[string]struct{}, len(values))
	for _, v := range values {
		m[v] = struct{}{}
	}
	return m
}

func (s *set) has(v string) bool {
	if s.many != nil {
		_, ok := s.many[v]
		return ok
	}
	for _, f := range s.few {
		if f == v {
			return true
		}
	}
	return false
}

// Compile checks what flags say of each other over all documents, compiles
// their conditions and gives the program. A flag or segment that several
// documents define is the last one's. The error is an [Errors] with every
// mistake, with their places.
func Compile(docs ...*Document) (*Program, error) {
	c := &compiler{
		program:  &Program{index: map[string]int{}, segments: map[string]*segment{}},
		segments: map[string]*Segment{},
	}
	c.merge(docs)
	c.compileConditions()
	for i := range c.program.flags {
		c.flag(&c.program.flags[i])
	}
	c.checkHeaders()
	c.group()
	if len(c.errs) == 0 {
		c.checkCycles()
	}
	if len(c.errs) > 0 {
		sortErrors(c.errs)
		return nil, c.errs
	}
	c.closeReads()
	return c.program, nil
}

type compiler struct {
	program    *Program
	segments   map[string]*Segment
	conditions *conditions // nil: none, or one did not parse
	errs       Errors
}

func (c *compiler) errorf(f *Flag, pos Position, format string, args ...any) {
	c.errs = append(c.errs, &Error{Source: f.Source, Pos: pos, Flag: f.Name, Message: fmt.Sprintf(format, args...)})
}

func (c *compiler) merge(docs []*Document) {
	flags := map[string]*Flag{}
	for _, doc := range docs {
		for _, s := range doc.Segments {
			c.segments[s.Name] = s
		}
		for _, f := range doc.Flags {
			if old := flags[f.Name]; old != nil {
				c.program.shadowed = append(c.program.shadowed, Shadowed{f.Name, old.Source, f.Source})
			}
			flags[f.Name] = f
		}
	}
	names := make([]string, 0, len(flags))
	for name := range flags {
		names = append(names, name)
	}
	slices.Sort(names)
	c.program.flags = make([]compiled, len(names))
	for i, name := range names {
		c.program.flags[i] = compiled{def: flags[name], index: i, group: -1}
		c.program.index[name] = i
	}
}

// compileConditions parses every condition first: the names they mention are
// declared in one CEL environment.
func (c *compiler) compileConditions() {
	any := len(c.segments) > 0
	for i := range c.program.flags {
		any = any || len(c.program.flags[i].def.Rules) > 0
	}
	if !any {
		return
	}
	cs, err := newConditions()
	if err != nil {
		c.errs = append(c.errs, &Error{Message: err.Error()})
		return
	}
	for name, s := range c.segments {
		if s.When == "" {
			continue
		}
		if err := cs.parse(s.When); err != nil {
			c.errs = append(c.errs, &Error{Source: s.Source, Pos: s.Pos, Message: fmt.Sprintf("segments.%s: %s", name, oneLine(err))})
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
	if len(c.errs) > 0 {
		return // rules stay unchecked: what they mention is not known
	}
	c.conditions = cs
	for name, s := range c.segments {
		compiled := &segment{users: toMap(s.Users)}
		if s.When != "" {
			when, err := cs.compile(s.When)
			if err != nil {
				c.errs = append(c.errs, &Error{Source: s.Source, Pos: s.Pos, Message: fmt.Sprintf("segments.%s: %s", name, oneLine(err))})
				continue
			}
			compiled.when = when
			for _, used := range when.uses {
				if c.segments[used] == nil {
					c.errs = append(c.errs, &Error{Source: s.Source, Pos: s.Pos, Message: fmt.Sprintf("segments.%s: unknown segment %q%s", name, clip(used), didYouMean(used, c.segmentNames()))})
				}
			}
		}
		c.program.segments[name] = compiled
	}
	c.checkSegmentCycles()
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (c *compiler) segmentNames() []string {
	names := make([]string, 0, len(c.segments))
	for n := range c.segments {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (c *compiler) flagNames() []string {
	names := make([]string, len(c.program.flags))
	for i := range c.program.flags {
		names[i] = c.program.flags[i].def.Name
	}
	return names
}

// flag compiles one flag.
func (c *compiler) flag(f *compiled) {
	def := f.def
	off := func(reason Reason, detail string) *Decision { return f.off(reason, detail) }
	f.variantNames = def.variantNames()
	if !slices.Contains(f.variantNames, Off) {
		f.variantNames = append(slices.Clone(f.variantNames), Off)
	}

	f.from, f.until = math.MinInt64, math.MaxInt64
	if !def.ActivationDate.IsZero() {
		f.from, f.notYet = unixNano(def.ActivationDate), off(ReasonDisabled, "not_yet_active")
	}
	if !def.DeactivationDate.IsZero() {
		f.until, f.over = unixNano(def.DeactivationDate), off(ReasonDisabled, "expired")
	}
	if f.everywhere = def.Environments == nil; !f.everywhere {
		f.environments, f.wrongEnvironment = *def.Environments, off(ReasonDisabled, "environment")
	}
	for _, dep := range def.DependsOn {
		i, ok := c.program.index[dep.Flag]
		switch {
		case !ok:
			c.errorf(def, dep.Pos, "depends_on: unknown flag %q%s", clip(dep.Flag), didYouMean(dep.Flag, c.flagNames()))
		case dep.Variant != "" && !c.program.flags[i].def.serves(dep.Variant):
			c.errorf(def, dep.Pos, "depends_on: flag %q has no variant %q%s", dep.Flag, clip(dep.Variant), didYouMean(dep.Variant, c.program.flags[i].def.variantNames()))
		default:
			f.dependencies = append(f.dependencies, dependency{i, dep.Variant, off(ReasonDisabled, "dependency:"+dep.Flag)})
		}
	}
	if def.FallbackFor != "" {
		if _, ok := c.program.index[def.FallbackFor]; !ok || def.FallbackFor == def.Name {
			c.errorf(def, def.Pos, "fallback_for: unknown flag %q%s", clip(def.FallbackFor), didYouMean(def.FallbackFor, c.flagNames()))
		}
	}

	c.weigh(f)
	if def.Users != nil {
		f.users = toMap(*def.Users)
		f.user = f.answers(ReasonTargetingMatch, "user")
		f.notListed = off(ReasonDefault, "user")
	}
	c.rules(f)
	for _, l := range []struct {
		name   string
		attr   attr
		values *[]string
		detail string
	}{
		{Region, regionAttr, def.Regions, "region"},
		{AccountType, accountTypeAttr, def.AccountTypes, "account_type"},
		{Device, deviceAttr, def.Devices, "device"},
	} {
		if l.values != nil {
			f.conditions = append(f.conditions, listed{l.attr, l.name, newSet(*l.values), off(ReasonDefault, l.detail)})
			f.reads = append(f.reads, l.name)
		}
	}
	if f.betaProgram = def.BetaProgram; f.betaProgram {
		f.notBeta = off(ReasonDefault, "beta_program")
		f.reads = append(f.reads, BetaProgram)
	}

	f.hashBy = userIDAttr
	if def.HashBy != "" {
		f.hashBy = lookupAttr(def.HashBy)
	}
	f.rolledOut = off(ReasonSplit, "rollout")
	f.keyMissing = off(ReasonError, string(TargetingKeyMissing))
	f.keyMissing.Code = TargetingKeyMissing
	f.keyMissing.Message = fmt.Sprintf("flag %q is split by %q, and the context has none", def.Name, f.hashName())
	f.static = f.answers(ReasonStatic, "")
	f.split = f.answers(ReasonSplit, "rollout")

	if def.Users != nil {
		f.reads = append(f.reads, UserID)
	}
	partial := def.Percentage != nil && *def.Percentage < wholeShare
	f.splits = partial && *def.Percentage > 0 || len(f.weights) > 1
	if partial || len(f.weights) > 1 || def.Rollout != nil || def.Exclusive != "" {
		f.reads = append(f.reads, f.hashName())
	}
}

// unixNano is t.UnixNano where that is defined, else the nearest end.
func unixNano(t time.Time) int64 {
	switch {
	case t.Year() < 1679:
		return math.MinInt64
	case t.Year() > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

func (f *compiled) hashName() string {
	if f.def.HashBy != "" && f.def.HashBy != TargetingKey {
		return f.def.HashBy
	}
	return UserID
}

// weigh lays the variants' weights side by side in the bucket space.
func (c *compiler) weigh(f *compiled) {
	if len(f.def.Variants) == 0 {
		on := []weight{{slices.Index(f.variantNames, On), wholeShare}}
		f.weights, f.enabledWeights = on, on
		return
	}
	all := make([]Weight, len(f.def.Variants))
	for i, v := range f.def.Variants {
		all[i] = Weight{v.Name, v.Share}
	}
	f.weights = f.layOut(all, false)
	if f.enabledWeights = f.layOut(all, true); len(f.enabledWeights) == 0 {
		f.enabledWeights = f.weights
	}
}

// layOut turns shares into upper ends; with enabledOnly `off` is left out and
// the others are stretched to fill the space.
func (f *compiled) layOut(all []Weight, enabledOnly bool) (out []weight) {
	var sum int64
	for _, w := range all {
		if !enabledOnly || w.Variant != Off {
			sum += int64(w.Share)
		}
	}
	var upTo int64
	for _, w := range all {
		if w.Share > 0 && (!enabledOnly || w.Variant != Off) {
			upTo += int64(w.Share)
			out = append(out, weight{slices.Index(f.variantNames, w.Variant), upTo * wholeShare / sum})
		}
	}
	return out
}

func (c *compiler) rules(f *compiled) {
	for i, r := range f.def.Rules {
		compiled := rule{name: r.Name, purpose: "/rule/" + r.Name, weights: f.enabledWeights}
		if len(r.Serve) > 0 {
			compiled.weights = f.layOut(r.Serve, false)
		}
		compiled.answer = f.answers(ReasonTargetingMatch, "rule:"+r.Name)
		if c.conditions != nil && r.When != "" {
			when, err := c.conditions.compile(r.When)
			if err != nil {
				c.errorf(f.def, r.Pos, "rules[%d].when: %s", i, oneLine(err))
				continue
			}
			for _, used := range when.uses {
				if c.segments[used] == nil {
					c.errorf(f.def, r.Pos, "rules[%d].when: unknown segment %q%s", i, clip(used), didYouMean(used, c.segmentNames()))
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
		if s := c.program.segments[name]; s != nil {
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

// off makes a decision against the flag.
func (f *compiled) off(reason Reason, detail string) *Decision {
	return &Decision{Flag: f.def.Name, Variant: Off, Reason: reason, Detail: detail, Value: f.value(Off)}
}

func (f *compiled) answers(reason Reason, detail string) answers {
	out := make(answers, len(f.variantNames))
	for i, name := range f.variantNames {
		out[i] = Decision{Flag: f.def.Name, Enabled: name != Off, Variant: name, Reason: reason, Detail: detail, Value: f.value(name)}
	}
	return out
}

func (f *compiled) value(variant string) json.RawMessage {
	if len(f.def.Variants) == 0 {
		if variant == On {
			return json.RawMessage("true")
		}
		return json.RawMessage("false")
	}
	for _, v := range f.def.Variants {
		if v.Name == variant {
			return v.Value
		}
	}
	return nil
}

// checkHeaders refuses flags whose X-Feature-* headers would be the same one.
func (c *compiler) checkHeaders() {
	byHeader := make(map[string]*Flag, len(c.program.flags))
	for i := range c.program.flags {
		f := c.program.flags[i].def
		h := strings.ToLower(HeaderName(f.Name))
		if other := byHeader[h]; other != nil {
			c.errorf(f, f.Pos, "shares the header X-Feature-%s with flag %q; rename one", HeaderName(f.Name), other.Name)
			continue
		}
		byHeader[h] = f
	}
}

// HeaderName gives the part of a flag's header behind the prefix: `_` and `.`
// become `-`.
func HeaderName(flag string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return r
	}, flag)
}

func (c *compiler) group() {
	byName := map[string]int{}
	for i := range c.program.flags {
		f := &c.program.flags[i]
		name := f.def.Exclusive
		if name == "" {
			continue
		}
		g, ok := byName[name]
		if !ok {
			g = len(c.program.groups)
			byName[name] = g
			c.program.groups = append(c.program.groups, group{name: name})
		}
		f.group = g
		c.program.groups[g].members = append(c.program.groups[g].members, i)
		c.program.groups[g].purposes = append(c.program.groups[g].purposes, "/exclusive/"+f.def.Name)
	}
	for _, g := range c.program.groups {
		for _, i := range g.members {
			f := &c.program.flags[i]
			f.excluded = make([]*Decision, len(g.members))
			for k, j := range g.members {
				f.excluded[k] = f.off(ReasonDefault, "exclusive:"+c.program.flags[j].def.Name)
			}
		}
	}
}
