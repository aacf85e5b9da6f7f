package evaluator

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// version is a semantic version in CEL: semver(app) >= semver("2.1"). Missing
// parts are zero; a leading v and build metadata are ignored; precedence is
// that of semver.org 2.0.0, section 11.
type version struct {
	parts [3]uint64
	pre   []string // pre-release identifiers; none for a release
}

var versionType = types.NewOpaqueType("semver").WithTraits(traits.ComparerType)

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
