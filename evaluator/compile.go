package evaluator

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// Program is the compiled form of all definitions, without run-time state.
// Immutable; safe for concurrent use.
type Program struct {
	flags    []compiled // by name
	index    map[string]int
	groups   []group
	segments map[string]*segment // by the variable that stands for them in CEL
	reads    [][]string          // by flag: attributes, sorted, through dependencies and groups
	shadowed []Shadowed

	concernsOnce sync.Once
	concerns     [][]int // by flag; see Ruleset.Concerns
}

// Shadowed is a flag that a later source defines again: the later one wins.
type Shadowed struct {
	Flag, Source, By string
	Pos              Position // in Source
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
	start            *Share // before anything is flipped: of the definition, or its rollout's first; nil: none
	threshold        int64  // in bucket units; wholeShare and more: everyone
	rolledOut        *Decision
	keyMissing       *Decision
	weights          []weight // by which an enabled variant is chosen
	enabledWeights   []weight // the same without `off`, for those who are always on
	static, split    answers
	group            int // -1: none
	excluded         []*Decision
	reads            []string // attributes that it looks at itself
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

// answers are the decisions of one stage, by variant.
type answers []Decision

// Compile checks what flags say of each other over all documents, compiles
// their conditions and gives the program. A flag or segment that several
// documents define is the last one's. The error is an [Errors] with every
// mistake, with their places, those that [Decode] found among them; nil
// documents are passed over.
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
	c.checkCycles()
	if len(c.errs) > 0 {
		sortErrors(c.errs)
		return nil, c.errs
	}
	c.program.close()
	return c.program, nil
}

type compiler struct {
	program    *Program
	segments   map[string]*Segment
	conditions *conditions // nil: there are none
	names      []string    // of all flags, in order
	errs       Errors
}

func (c *compiler) errorf(f *Flag, pos Position, format string, args ...any) {
	c.errs = append(c.errs, &Error{Source: f.Source, Pos: pos, Flag: clip(f.Name), Message: fmt.Sprintf(format, args...)})
}

func (c *compiler) segmentErrorf(s *Segment, format string, args ...any) {
	c.errs = append(c.errs, &Error{Source: s.Source, Pos: s.Pos, Message: "segments." + label(s.Name) + ": " + fmt.Sprintf(format, args...)})
}

// suggest is didYouMean for as long as anybody will read it: a document of
// mistakes would compare every name with every other.
func (c *compiler) suggest(given string, known []string) string {
	if len(c.errs) >= maxErrors || len(c.errs) >= 10 && len(known) > 1000 {
		return ""
	}
	return didYouMean(given, known)
}

func (c *compiler) merge(docs []*Document) {
	flags := map[string]*Flag{}
	for _, doc := range docs {
		if doc == nil {
			continue
		}
		c.errs = append(c.errs, doc.Errors...)
		for _, s := range doc.Segments {
			c.segments[s.Name] = s
		}
		for _, f := range doc.Flags {
			if old := flags[f.Name]; old != nil {
				c.program.shadowed = append(c.program.shadowed, Shadowed{f.Name, old.Source, f.Source, old.Pos})
			}
			flags[f.Name] = f
		}
	}
	c.names = slices.Sorted(maps.Keys(flags))
	c.program.flags = make([]compiled, len(c.names))
	for i, name := range c.names {
		c.program.flags[i] = compiled{def: flags[name], index: i, group: -1}
		c.program.index[name] = i
	}
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
		case dep.Flag == "": // Decode has said so
		case !ok:
			c.errorf(def, dep.Pos, "depends_on: unknown flag %q%s", clip(dep.Flag), c.suggest(dep.Flag, c.names))
		case dep.Variant != "" && !c.program.flags[i].def.serves(dep.Variant):
			c.errorf(def, dep.Pos, "depends_on: flag %q has no variant %q%s", dep.Flag, clip(dep.Variant), c.suggest(dep.Variant, c.program.flags[i].def.variantNames()))
		default:
			f.dependencies = append(f.dependencies, dependency{i, dep.Variant, off(ReasonDisabled, "dependency:"+dep.Flag)})
		}
	}
	if def.FallbackFor != "" {
		if def.FallbackFor == def.Name {
			c.errorf(def, def.Pos, "fallback_for: a flag cannot stand in for itself")
		} else if _, ok := c.program.index[def.FallbackFor]; !ok {
			c.errorf(def, def.Pos, "fallback_for: unknown flag %q%s", clip(def.FallbackFor), c.suggest(def.FallbackFor, c.names))
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
	f.start = def.Percentage
	if def.Rollout != nil {
		if steps, _ := def.Rollout.Schedule(); len(steps) > 0 {
			f.start = &steps[0]
		}
	}
	partial := f.start != nil && *f.start < wholeShare
	f.splits = partial && *f.start > 0 || len(f.weights) > 1
	if partial || len(f.weights) > 1 || def.Rollout != nil || def.Exclusive != "" {
		f.reads = append(f.reads, f.hashName())
	}
}

// unixNano is t.UnixNano where that is defined, 1677 to 2262, else one from
// the nearest end: the ends themselves stand for no date.
func unixNano(t time.Time) int64 {
	switch s := t.Unix(); {
	case s <= math.MinInt64/int64(time.Second):
		return math.MinInt64 + 1
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64 - 1
	}
	return t.UnixNano()
}

func (f *compiled) hashName() string {
	if f.def.HashBy != "" && f.def.HashBy != TargetingKey {
		return f.def.HashBy
	}
	return UserID
}

// off makes a decision against the flag.
func (f *compiled) off(reason Reason, detail string) *Decision {
	return &Decision{Flag: f.def.Name, Index: slices.Index(f.variantNames, Off), Variant: Off, Reason: reason, Detail: detail, Value: f.value(Off)}
}

func (f *compiled) answers(reason Reason, detail string) answers {
	out := make(answers, len(f.variantNames))
	for i, name := range f.variantNames {
		out[i] = Decision{Flag: f.def.Name, Index: i, Enabled: name != Off, Variant: name, Reason: reason, Detail: detail, Value: f.value(name)}
	}
	return out
}

// Values of the variants of flags that define none.
var valueTrue, valueFalse = json.RawMessage("true"), json.RawMessage("false")

func (f *compiled) value(variant string) json.RawMessage {
	if len(f.def.Variants) == 0 {
		if variant == On {
			return valueTrue
		}
		return valueFalse
	}
	for _, v := range f.def.Variants {
		if v.Name == variant {
			return v.Value
		}
	}
	return nil
}
