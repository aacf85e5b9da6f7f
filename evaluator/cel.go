package evaluator

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// Bounds on what a condition may ask of a request.
const (
	maxConditionSize = 16 << 10 // characters
	maxConditionCost = 100_000  // CEL's cost units; a comparison is about one
)

// attributesVariable is the map of all attributes, for names that are no CEL
// identifiers and for `"name" in attributes`.
const attributesVariable = "attributes"

// condition is a compiled CEL expression. Safe for concurrent use.
type condition struct {
	text    string
	program cel.Program
	reads   []string // attributes, sorted; "*" when it reads attributes as a whole
	uses    []string // segments
}

// conditions compiles CEL expressions against one environment that declares
// every name any of them mentions: declaring once is what makes a thousand
// rules load quickly.
type conditions struct {
	base    *cel.Env
	parsed  map[string]*cel.Ast
	names   map[string]bool // identifiers to declare
	checked *cel.Env
	done    map[string]*condition
}

// celNames are identifiers CEL itself declares.
var celNames = []string{"bool", "bytes", "double", "duration", "dyn", "int", "list", "map", "null_type", "optional", "optional_type", "string", "timestamp", "type", "uint", "google", "net", "cel", "strings", "sets"}

const segmentPrefix = "@segment_"

func segmentName(variable string) (string, bool) {
	encoded, found := strings.CutPrefix(variable, segmentPrefix)
	name, err := hex.DecodeString(encoded)
	return string(name), found && err == nil
}

func newConditions() (*conditions, error) {
	base, err := cel.NewEnv(
		cel.ParserExpressionSizeLimit(maxConditionSize),
		cel.ParserRecursionLimit(100),
		ext.Strings(), ext.Sets(),
		cel.Function("semver", cel.Overload("semver_dyn", []*cel.Type{cel.DynType}, cel.DynType, cel.UnaryBinding(celSemver))),
		// segment("NAME") becomes a variable, which can see the request.
		cel.Macros(cel.GlobalMacro("segment", 1, func(f cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			name, ok := literalString(args[0])
			if !ok {
				return nil, f.NewError(args[0].ID(), `segment: want a name in quotes`)
			}
			return f.NewIdent(segmentPrefix + hex.EncodeToString([]byte(name))), nil
		})),
	)
	if err != nil {
		return nil, fmt.Errorf("setting up CEL: %w", err)
	}
	return &conditions{base: base, parsed: map[string]*cel.Ast{}, names: map[string]bool{attributesVariable: true}, done: map[string]*condition{}}, nil
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
	if cs.parsed[text] != nil {
		return nil
	}
	parsed, issues := cs.base.Parse(text)
	if err := celError(issues); err != nil {
		return err
	}
	cs.parsed[text] = parsed
	for _, name := range identifiers(parsed) {
		cs.names[name] = true
	}
	return nil
}

// identifiers returns the free names of an expression, sorted.
func identifiers(a *cel.Ast) []string {
	var names, bound []string
	ast.PreOrderVisit(a.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			names = append(names, e.AsIdent())
		case ast.ComprehensionKind:
			c := e.AsComprehension()
			bound = append(bound, c.IterVar(), c.IterVar2(), c.AccuVar())
		}
	}))
	names = slices.DeleteFunc(names, func(n string) bool {
		return slices.Contains(bound, n) || slices.Contains(celNames, n)
	})
	slices.Sort(names)
	return slices.Compact(names)
}

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
			if _, isSegment := segmentName(name); isSegment {
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
	checked, issues := cs.checked.Check(cs.parsed[text])
	if err := celError(issues); err != nil {
		return nil, err
	}
	if kind := checked.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("want a condition, true or false; %q gives %s", clip(text), kind)
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if hasLoop(checked) { // counting costs more than most conditions; only loops can be slow
		options = append(options, cel.CostLimit(maxConditionCost))
	}
	program, err := cs.checked.Program(checked, options...)
	if err != nil {
		return nil, err
	}
	c := &condition{text: text, program: program}
	for _, name := range identifiers(cs.parsed[text]) {
		if segment, ok := segmentName(name); ok {
			c.uses = append(c.uses, segment)
		} else if name == attributesVariable {
			c.reads = append(c.reads, "*")
		} else if name == TargetingKey {
			c.reads = append(c.reads, UserID)
		} else {
			c.reads = append(c.reads, name)
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

// celError says in one line what CEL found, with the column in the expression.
func celError(issues *cel.Issues) error {
	if issues == nil || issues.Err() == nil {
		return nil
	}
	var all []error
	for _, e := range issues.Errors() {
		message := strings.ReplaceAll(e.Message, "\n", " ")
		if name, found := strings.CutPrefix(message, "undeclared reference to '"); found {
			name, _, _ = strings.Cut(name, "'")
			message = fmt.Sprintf("unknown function %q%s", name, didYouMean(name, []string{"semver", "segment", "matches", "startsWith", "endsWith", "contains", "size"}))
		}
		all = append(all, fmt.Errorf("%s (at character %d of the condition)", clip(message), e.Location.Column()+1))
		if len(all) == 3 {
			break
		}
	}
	return errors.Join(all...)
}

// activation is what a condition sees of one request.
type activation struct {
	ctx      *Context
	segments map[string]*segment
}

// ResolveName finds an attribute; a missing one is an error to CEL, which
// makes the term it stands in neither true nor false.
func (a *activation) ResolveName(name string) (any, bool) {
	if v := a.ctx.Get(name); !v.IsMissing() {
		return v.Any(), true
	}
	if name == attributesVariable {
		return a.ctx.Attributes(), true
	}
	if s, ok := segmentName(name); ok {
		if segment := a.segments[s]; segment != nil {
			in, err := segment.contains(a)
			return in && err == nil, true
		}
	}
	return nil, false
}

// Parent is part of cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// holds tells whether the condition is true of the request. An attribute that
// is missing or of another type makes it false, with the reason in why. err is
// for what should never be: a condition that panics, or costs too much.
func (c *condition) holds(a *activation) (ok bool, why string, err error) {
	defer func() {
		if r := recover(); r != nil {
			ok, err = false, fmt.Errorf("condition %q panicked: %v", clip(c.text), r)
		}
	}()
	out, _, failed := c.program.Eval(a)
	if failed != nil {
		if strings.Contains(failed.Error(), "cost limit") {
			return false, "", fmt.Errorf("condition %q: %w", clip(c.text), failed)
		}
		return false, failed.Error(), nil
	}
	b, isBool := out.Value().(bool)
	if !isBool {
		return false, fmt.Sprintf("gives %s, not true or false", out.Type().TypeName()), nil
	}
	return b, "", nil
}

// segment is a compiled [Segment].
type segment struct {
	users map[string]struct{}
	when  *condition // nil: users only
}

func (s *segment) contains(a *activation) (bool, error) {
	if _, listed := s.users[a.ctx.TargetingKey()]; listed {
		return true, nil
	}
	if s.when == nil {
		return false, nil
	}
	in, _, err := s.when.holds(a)
	return in, err
}

// version is a semantic version in CEL: semver(app) >= semver("2.1"). Missing
// parts are zero; a leading v and build metadata are ignored; precedence is
// that of semver.org 2.0.0, section 11.
type version struct {
	parts [3]uint64
	pre   []string // pre-release identifiers; none for a release
}

var versionType = types.NewObjectType("semver")

func celSemver(v ref.Val) ref.Val {
	var text string
	switch v := v.(type) {
	case types.String:
		text = string(v)
	case types.Int, types.Double:
		text = fmt.Sprint(v.Value())
	default:
		return types.MaybeNoSuchOverloadErr(v)
	}
	parsed, err := parseVersion(text)
	if err != nil {
		return types.NewErr("%s", err)
	}
	return parsed
}

func parseVersion(text string) (version, error) {
	var v version
	rest, _, _ := strings.Cut(strings.TrimPrefix(text, "v"), "+")
	core, pre, hasPre := strings.Cut(rest, "-")
	parts := strings.Split(core, ".")
	if len(parts) > 3 {
		return v, fmt.Errorf("semver: %q: want at most three numbers", clip(text))
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return v, fmt.Errorf("semver: %q: %q is no number", clip(text), clip(p))
		}
		v.parts[i] = n
	}
	if hasPre {
		v.pre = strings.Split(pre, ".")
	}
	return v, nil
}

func (v version) compare(o version) int {
	if c := slices.Compare(v.parts[:], o.parts[:]); c != 0 {
		return c
	}
	switch {
	case len(v.pre) == 0 && len(o.pre) == 0:
		return 0
	case len(v.pre) == 0:
		return 1
	case len(o.pre) == 0:
		return -1
	}
	return slices.CompareFunc(v.pre, o.pre, func(a, b string) int {
		x, errX := strconv.ParseUint(a, 10, 64)
		y, errY := strconv.ParseUint(b, 10, 64)
		switch {
		case errX == nil && errY == nil:
			return cmp.Compare(x, y)
		case errX == nil: // numbers come before words
			return -1
		case errY == nil:
			return 1
		}
		return strings.Compare(a, b)
	})
}

// Compare is part of traits.Comparer, Equal and the rest of ref.Val.
func (v version) Compare(other ref.Val) ref.Val {
	o, ok := other.(version)
	if !ok {
		return types.MaybeNoSuchOverloadErr(other)
	}
	return types.Int(v.compare(o))
}

func (v version) Equal(other ref.Val) ref.Val {
	o, ok := other.(version)
	return types.Bool(ok && v.compare(o) == 0)
}

func (v version) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("semver: no conversion to %s", t)
}

func (v version) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return versionType
	}
	return types.NewErr("semver: no conversion to %s", t.TypeName())
}

func (v version) Type() ref.Type { return versionType }
func (v version) Value() any     { return v }
