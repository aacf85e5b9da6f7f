package evaluator

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// Bounds on what a condition may ask of a request.
const (
	maxConditionSize = 16 << 10 // characters
	maxTurns         = 10_000   // of all its loops together
)

// attributesVariable is the map of all attributes, for names that are no CEL
// identifiers and for `"name" in attributes`.
const attributesVariable = "attributes"

// condition is a compiled CEL expression. Safe for concurrent use.
type condition struct {
	text    string
	program cel.Program
	loops   bool
	reads   []string // attributes, sorted; "*" when it reads attributes as a whole
	uses    []string // segments, sorted
	constant
}

// constant tells whether a condition is a literal, which the linter asks.
type constant uint8

const (
	neither constant = iota
	alwaysTrue
	alwaysFalse
)

// conditions compiles CEL expressions against one environment that declares
// every name any of them mentions: declaring once is what makes a thousand
// rules load quickly.
type conditions struct {
	base    *cel.Env
	parsed  map[string]parsedCondition
	names   map[string]bool // identifiers to declare
	checked *cel.Env
	done    map[string]*condition
}

type parsedCondition struct {
	ast *cel.Ast
	mentions
}

// celNames are identifiers CEL itself declares.
var celNames = []string{"bool", "bytes", "double", "duration", "dyn", "int", "list", "map", "null_type", "optional", "optional_type", "string", "timestamp", "type", "uint", "google", "net", "cel", "strings", "sets"}

const segmentPrefix = "@segment_"

func segmentName(variable string) (string, bool) {
	encoded, found := strings.CutPrefix(variable, segmentPrefix)
	name, err := hex.DecodeString(encoded)
	return string(name), found && err == nil
}

// segmentVariable gives the variable that stands for a segment in CEL. No
// attribute can be it: see activation.ResolveName.
func segmentVariable(name string) string { return segmentPrefix + hex.EncodeToString([]byte(name)) }

func newConditions() (*conditions, error) {
	base, err := cel.NewEnv(
		cel.ParserExpressionSizeLimit(maxConditionSize),
		cel.ParserRecursionLimit(100),
		ext.Strings(), ext.Sets(),
		cel.Function("semver", cel.Overload("semver_dyn", []*cel.Type{cel.DynType}, versionType, cel.UnaryBinding(celSemver))),
		compareVersions(operators.Less), compareVersions(operators.LessEquals),
		compareVersions(operators.Greater), compareVersions(operators.GreaterEquals),
		// segment("NAME") becomes a variable, which can see the request.
		cel.Macros(cel.GlobalMacro("segment", 1, func(f cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			name, ok := literalString(args[0])
			if !ok {
				return nil, f.NewError(args[0].ID(), `segment: want a name in quotes`)
			}
			return f.NewIdent(segmentVariable(name)), nil
		})),
	)
	if err != nil {
		return nil, fmt.Errorf("setting up CEL: %w", err)
	}
	return &conditions{base: base, parsed: map[string]parsedCondition{}, names: map[string]bool{attributesVariable: true}, done: map[string]*condition{}}, nil
}

// compareVersions declares a comparison of two versions, so that one with a
// text is a mistake at load and not a rule that never holds.
func compareVersions(operator string) cel.EnvOption {
	return cel.Function(operator, cel.Overload(operator+"semver", []*cel.Type{versionType, versionType}, cel.BoolType))
}

func literalString(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().Value().(string)
	return s, ok
}

// parse reads one expression and notes the names it mentions.
func (cs *conditions) parse(text string) error {
	if cs.isParsed(text) {
		return nil
	}
	parsed, issues := cs.base.Parse(text)
	if err := explainCEL(text, issues); err != nil {
		return err
	}
	m := mentionsOf(parsed.NativeRep().Expr())
	cs.parsed[text] = parsedCondition{parsed, m}
	for name := range m.names {
		cs.names[name] = true
	}
	return nil
}

func (cs *conditions) isParsed(text string) bool { return cs.parsed[text].ast != nil }

// compile checks a parsed expression and plans its evaluation. All expressions
// must have been parsed before.
func (cs *conditions) compile(text string) (*condition, error) {
	if c := cs.done[text]; c != nil {
		return c, nil
	}
	if cs.checked == nil {
		options := make([]cel.EnvOption, 0, len(cs.names))
		for name := range cs.names {
			kind := cel.DynType
			if strings.HasPrefix(name, segmentPrefix) {
				kind = cel.BoolType
			} else if name == attributesVariable {
				kind = cel.MapType(cel.StringType, cel.DynType)
			}
			options = append(options, cel.Variable(name, kind))
		}
		env, err := cs.base.Extend(options...)
		if err != nil {
			return nil, fmt.Errorf("declaring attributes: %w", err)
		}
		cs.checked = env
	}
	parsed := cs.parsed[text]
	checked, issues := cs.checked.Check(parsed.ast)
	if err := explainCEL(text, issues); err != nil {
		return nil, err
	}
	if kind := checked.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("want a condition, true or false; %q gives %s", clip(text), kind)
	}
	// CEL's own bound on cost takes a time that grows with the square of a loop's turns,
	// so turns are counted instead: spent is asked after so many of them.
	options, loops := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}, hasLoop(checked)
	if loops {
		options = append(options, cel.InterruptCheckFrequency(maxTurns))
	}
	program, err := cs.checked.Program(checked, options...)
	if err != nil {
		return nil, err
	}
	c := &condition{
		text:    text,
		program: program,
		loops:   loops,
		reads:   slices.Sorted(maps.Keys(parsed.reads)),
		uses:    slices.Sorted(maps.Keys(parsed.uses)),
	}
	if e := checked.NativeRep().Expr(); e.Kind() == ast.LiteralKind {
		switch e.AsLiteral() {
		case types.True:
			c.constant = alwaysTrue
		case types.False:
			c.constant = alwaysFalse
		}
	}
	cs.done[text] = c
	return c, nil
}

func hasLoop(a *cel.Ast) bool {
	found := false
	ast.PreOrderVisit(a.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.ComprehensionKind
	}))
	return found
}
