package evaluator

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// Value is one attribute's value. The zero Value is a missing attribute: it
// never matches a condition.
//
// Numbers, strings and booleans compare as text wherever a definition lists
// values, so that a user id 7 from a JSON claim and "7" from a header are the
// same person; CEL expressions see them with their own types.
type Value struct {
	text string
	raw  any // what CEL sees; nil for a string
}

// String returns s as a Value; an empty s is a missing one, since an empty
// header or cookie says as much as none.
func String(s string) Value {
	return Value{text: s}
}

// Bool returns b as a Value with the text "true" or "false".
func Bool(b bool) Value {
	if b {
		return Value{text: "true", raw: true}
	}
	return Value{text: "false", raw: false}
}

// Of returns v, as encoding/json decodes it (json.Number is best: no digit of
// a large integer is lost), as a Value. nil and "" give a missing one. Lists
// and objects are visible to CEL alone and have no text.
func Of(v any) Value {
	switch v := v.(type) {
	case nil:
		return Value{}
	case string:
		return String(v)
	case bool:
		return Bool(v)
	case json.Number:
		return number(string(v))
	case float64:
		return number(strconv.FormatFloat(v, 'f', -1, 64))
	case int:
		return Value{text: strconv.Itoa(v), raw: int64(v)}
	case int64:
		return Value{text: strconv.FormatInt(v, 10), raw: v}
	case Value:
		return v
	default:
		return Value{raw: plain(v)}
	}
}

// number makes a Value of a JSON number's text. Integers keep every digit; the
// rest take the shortest decimal form, so that 7, 7.0 and 7e0 are one text.
func number(s string) Value {
	if isInteger(s) {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return Value{text: strconv.FormatInt(i, 10), raw: i}
		}
		f, _ := strconv.ParseFloat(s, 64)
		return Value{text: s, raw: f}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return Value{}
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		i := int64(f)
		return Value{text: strconv.FormatInt(i, 10), raw: i}
	}
	return Value{text: strconv.FormatFloat(f, 'f', -1, 64), raw: f}
}

func isInteger(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" {
		return false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return true
}

// plain turns json.Number inside lists and maps into what CEL computes with.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(string(v)).raw
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plain(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = plain(e)
		}
		return out
	default:
		return v
	}
}

// IsMissing tells whether the attribute is not there.
func (v Value) IsMissing() bool { return v.text == "" && v.raw == nil }

// Text returns the value as conditions compare and as buckets hash it: the
// string itself, a number's decimal form, "true" or "false". A missing value,
// a list and an object have none ("").
func (v Value) Text() string { return v.text }

// Any returns the value as CEL sees it: string, int64, float64, bool, []any or
// map[string]any; nil when missing.
func (v Value) Any() any {
	if v.raw == nil && v.text != "" {
		return v.text
	}
	return v.raw
}

// isTrue tells whether the value is the boolean true or a text that says so;
// headers and cookies cannot carry a boolean.
func (v Value) isTrue() bool {
	switch v.text {
	case "true", "1", "True", "TRUE":
		return true
	}
	return false
}
