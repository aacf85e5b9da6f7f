package evaluator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// activation is what a condition sees of one request.
type activation struct {
	ctx      *Context
	segments map[string]*segment
	explain  bool // say why a condition is false

	// What is known by now: segments may use segments that use segments.
	attributes map[string]any
	members    []membership
}

type membership struct {
	variable string
	in       bool
}

// ResolveName finds an attribute; a missing one is an error to CEL, which
// makes the term it stands in neither true nor false. Segments and the map of
// all attributes come first: a context may come from a client, who must not
// put himself into a segment by an attribute of its name.
func (a *activation) ResolveName(name string) (any, bool) {
	if name == attributesVariable {
		if a.attributes == nil {
			a.attributes = a.ctx.Attributes()
		}
		return a.attributes, true
	}
	if strings.HasPrefix(name, segmentPrefix) {
		return a.isMember(name), true
	}
	if v := a.ctx.Get(name); !v.IsMissing() {
		return v.Any(), true
	}
	return nil, false
}

func (a *activation) isMember(variable string) bool {
	for _, m := range a.members {
		if m.variable == variable {
			return m.in
		}
	}
	in := false
	if s := a.segments[variable]; s != nil {
		in = s.contains(a)
	}
	a.members = append(a.members, membership{variable, in})
	return in
}

// Parent is part of cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// spent is done: a condition that asks it has looped for too long.
var spent = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// holds tells whether the condition is true of the request. An attribute that
// is missing or of another type makes it false, with the reason in why while
// explaining. err is for what should never be: a condition that panics, or loops
// for too long.
func (c *condition) holds(a *activation) (ok bool, why string, err error) {
	defer func() {
		if r := recover(); r != nil {
			ok, err = false, fmt.Errorf("condition %q panicked: %v", clip(c.text), r)
		}
	}()
	var out ref.Val
	var failed error
	if c.loops {
		out, _, failed = c.program.ContextEval(spent, a)
	} else {
		out, _, failed = c.program.Eval(a)
	}
	if failed != nil {
		var value *types.Err
		if errors.Is(failed, interpreter.InterruptError{}) {
			return false, "", fmt.Errorf("condition %q: its loops take more than %d turns for this request", clip(c.text), maxTurns)
		}
		if !errors.As(failed, &value) {
			return false, "", fmt.Errorf("condition %q: %w", clip(c.text), failed)
		}
		if a.explain {
			why = failed.Error()
		}
		return false, why, nil
	}
	b, isBool := out.Value().(bool)
	if !isBool && a.explain {
		why = fmt.Sprintf("gives %s, not true or false", out.Type().TypeName())
	}
	return b, why, nil
}

// segment is a compiled [Segment].
type segment struct {
	def   *Segment
	users map[string]struct{}
	when  *condition // nil: users only
}

// contains tells whether the request is in the segment; one whose condition
// fails is in none.
func (s *segment) contains(a *activation) bool {
	if key := a.ctx.TargetingKey(); key != "" {
		if _, listed := s.users[key]; listed {
			return true
		}
	}
	if s.when == nil {
		return false
	}
	in, _, err := s.when.holds(a)
	return in && err == nil
}
