package evaluator

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// mentions are the names that an expression asks the context for.
type mentions struct {
	names map[string]bool // variables to declare
	reads map[string]bool // attributes; "*" stands for all
	uses  map[string]bool // segments
}

func mentionsOf(e ast.Expr) mentions {
	m := mentions{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	m.walk(e, nil)
	return m
}

// walk notes what e mentions but for the names that loops around it bind.
func (m *mentions) walk(e ast.Expr, bound []string) {
	switch e.Kind() {
	case ast.IdentKind:
		m.ident(e.AsIdent(), bound)
	case ast.SelectKind:
		s := e.AsSelect()
		if isAttributes(s.Operand(), bound) {
			m.attribute(s.FieldName())
			return
		}
		m.walk(s.Operand(), bound)
	case ast.CallKind:
		c := e.AsCall()
		args := c.Args()
		switch {
		case c.FunctionName() == operators.Index && len(args) == 2 && isAttributes(args[0], bound):
			if name, ok := literalString(args[1]); ok {
				m.attribute(name)
				return
			}
		case c.FunctionName() == operators.In && len(args) == 2 && isAttributes(args[1], bound):
			if name, ok := literalString(args[0]); ok {
				m.attribute(name)
				return
			}
		}
		if c.IsMemberFunction() {
			m.walk(c.Target(), bound)
		}
		for _, arg := range args {
			m.walk(arg, bound)
		}
	case ast.ListKind:
		for _, item := range e.AsList().Elements() {
			m.walk(item, bound)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			m.walk(entry.AsMapEntry().Key(), bound)
			m.walk(entry.AsMapEntry().Value(), bound)
		}
	case ast.StructKind:
		for _, f := range e.AsStruct().Fields() {
			m.walk(f.AsStructField().Value(), bound)
		}
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		m.walk(c.IterRange(), bound)
		m.walk(c.AccuInit(), bound)
		inner := append(slices.Clone(bound), c.AccuVar())
		m.walk(c.Result(), inner)
		inner = append(inner, c.IterVar(), c.IterVar2())
		m.walk(c.LoopCondition(), inner)
		m.walk(c.LoopStep(), inner)
	}
}

func isAttributes(e ast.Expr, bound []string) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == attributesVariable && !slices.Contains(bound, attributesVariable)
}

func (m *mentions) ident(name string, bound []string) {
	if slices.Contains(bound, name) || slices.Contains(celNames, name) {
		return
	}
	m.names[name] = true
	if segment, ok := segmentName(name); ok {
		m.uses[segment] = true
	} else if name == attributesVariable {
		m.reads["*"] = true
	} else {
		m.attribute(name)
	}
}

func (m *mentions) attribute(name string) {
	if name == TargetingKey {
		name = UserID
	}
	m.reads[name] = true
}
